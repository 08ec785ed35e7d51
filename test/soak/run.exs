# `bin/soak` runs this.
Code.require_file("../../bench/support.exs", __DIR__)

for file <- ~w(trend plan lock proc harm peer actions watch runner report),
    do: Code.require_file(file <> ".exs", __DIR__)

alias Soak.{Plan, Proc, Report, Runner}

[minutes, seed, only] = System.argv()
{minutes, ""} = Float.parse(minutes)
seed = String.to_integer(seed)

# A crash on purpose is logged; what is wrong shows in the results.
Logger.configure(level: :none)
directory = Path.join(System.tmp_dir!(), "net_runner_soak_#{System.pid()}")
File.mkdir_p!(directory)

# What would be loaded some time later is no growth.
for application <- [:elixir, :logger, :kernel, :stdlib], do: Application.load(application)

for application <- [:kernel, :stdlib, :elixir, :logger, :net_runner],
    module <- Application.spec(application, :modules) || [],
    do: Code.ensure_loaded(module)

{:ok, _} = Application.ensure_all_started(:net_runner)
{"", 0} = NetRunner.run(~w(true))
context = Runner.new(directory)
IO.puts("seed #{seed}")
for sentence <- Runner.not_possible(context), do: IO.puts("left out: #{sentence}")

if only != "" do
  number = String.to_integer(only)
  IO.inspect(Plan.action(seed, number))
  results = Runner.attempt(context, seed, number)
  for {:finding, text} <- results, do: IO.puts("FINDING: #{text}")
  Soak.Peer.stop(context.peer)
  File.rm_rf!(directory)
  System.halt(if results == [], do: 0, else: 1)
end

begin = System.monotonic_time(:millisecond)
results = System.get_env("BENCH_RESULTS")
csv = Path.join(results, "soak-#{seed}.csv")
run = Runner.run(context, seed, round(minutes * 60_000), csv)
lasted = (System.monotonic_time(:millisecond) - begin) / 60_000
samples = Report.read(csv)
trends = Report.trends(samples)

# --- files, before the end is looked at: the plot is drawn by a command ------------------------------------

actions = run.round * Plan.round_size()

title = "#{actions} actions in #{Bench.show(lasted)} minutes, seed #{seed}"

Report.plot(samples, "soak", title)

facts = %{
  "seed" => seed,
  "minutes" => lasted,
  "rounds" => run.round,
  "actions" => actions,
  "excused" => run.excused,
  "findings" => length(run.findings)
}

File.write!(Path.join(results, "soak-#{seed}.json"), Report.json(run, trends, facts))
table = Report.table(trends)
File.write!(Path.join(results, "soak-#{seed}.md"), [title, ".\n\n", table])
IO.puts(["\n", title, ", #{run.excused} starts that failed in a storm, as they may\n\n", table])

# --- the end: nothing is left --------------------------------------------------------------------------------

Soak.Peer.stop(context.peer)
NetRunner.System.Native.let_idle_go()
sessions = [Soak.Harm.guard()]

four? =
  Proc.await(fn -> length(NetRunner.Guarantees.Tree.helpers(%{sessions: sessions})) == 4 end)

gone? = Runner.stop_application(context)
File.rm_rf!(directory)
# The parts before the last of a cgroup's path stay (docs/cgroups.md).
removed? =
  if context.cgroup,
    do:
      File.rmdir(Path.join(context.cgroup, "net_runner_soak_#{System.pid()}")) in [
        :ok,
        {:error, :enoent}
      ],
    else: true

marked = Proc.marked(Soak.Actions.mark_of_all())

at_the_end = [
  {four? == :ok,
   "guard, launcher and two spares are all that is left when the idle ones are let go"},
  {gone? == :ok, "no helper is left when the application has stopped"},
  {marked == [], "no process of a command is left (#{inspect(marked)})"},
  {removed?, "no cgroup is left"}
]

for {false, sentence} <- at_the_end, do: IO.puts("FINDING: not true: #{sentence}")
for %{grows: true} = row <- trends, do: IO.puts("FINDING: #{row.unit} grows")

wrong? =
  run.findings != [] or Enum.any?(trends, & &1.grows) or
    Enum.any?(at_the_end, &match?({false, _}, &1))

IO.puts(if wrong?, do: "\nFINDINGS, see above", else: "\nnothing was found")
System.halt(if wrong?, do: 1, else: 0)
