# Asks each runner for each figure in turn, round after round, and writes the table. `run.exs PACE COMMIT NAME...`, see
# bin/peers.
defmodule Peers do
  import Bench, only: [median: 1, show: 1]

  # Work, what the table calls it, unit, and which figure is the best.
  @works [
    {"run_true", "run `true`", "ms", :least},
    {"many_true", "`true` again and again, 32 at a time", "per second", :most},
    {"line", "one line through `cat` and back", "µs", :least},
    {"read_4k", "output, writes of 4 KiB", "GB/s", :most},
    {"read_64k", "output, writes of 64 KiB", "GB/s", :most},
    {"feed_4k", "input, pieces of 4 KiB", "GB/s", :most},
    {"feed_64k", "input, pieces of 64 KiB", "GB/s", :most},
    {"feed_lines", "input, lines of 10 bytes", "lines per ms", :most}
  ]

  @titles %{
    "exile" => "Exile",
    "net_runner" => "C NetRunner",
    "muontrap" => "MuonTrap",
    "erlexec" => "erlexec",
    "ex_cmd" => "ExCmd"
  }

  def run(pace, commit, names) do
    {rounds, seconds} = if pace == "quick", do: {1, 0.2}, else: {5, 0.5}
    runners = [ours(), port() | Enum.map(names, &other/1)]

    values =
      for round <- 1..rounds, {work, _, unit, _} <- @works, runner <- runners, reduce: %{} do
        values ->
          add(values, {work, runner.name}, round, unit, fn -> cell(runner, work, seconds) end)
      end

    head = head(commit, runners, rounds)
    File.write!("bench/results/peers.md", [head, "\n\n", table(values, runners)])
    File.write!("bench/results/peers.json", [Bench.json(results(values, runners)), "\n"])
    IO.puts(["\n", File.read!("bench/results/peers.md")])
  end

  defp ours do
    %{
      name: "net_runner",
      title: "NetRunner",
      version: nil,
      ebin: "_build/prod/lib/net_runner/ebin"
    }
  end

  # Without code of its own; a path has to be there.
  defp port, do: %{name: "port", title: "`System.cmd`, port", version: nil, ebin: "."}

  defp other(name) do
    folder = "/srv/peers/#{name}"
    ebin = "#{folder}/_build/prod/lib/#{name}/ebin"
    {:ok, [{:application, _, properties}]} = :file.consult("#{ebin}/#{name}.app")
    commit = String.trim(File.read!("#{folder}/.commit"))

    %{
      name: if(name == "net_runner", do: "c_net_runner", else: name),
      title: @titles[name],
      version: "#{properties[:vsn]} (#{commit})",
      ebin: ebin
    }
  end

  # What could not be measured once is not tried again: it may have hung.
  defp add(values, key, round, unit, measure) do
    case values do
      %{^key => {_, reason}} when reason != nil ->
        values

      _ ->
        {figures, nil} = Map.get(values, key, {[], nil})
        result = measure.()
        IO.puts("round #{round}, #{elem(key, 0)}, #{elem(key, 1)}: #{describe(result, unit)}")

        case result do
          {:figure, figure} -> Map.put(values, key, {[figure | figures], nil})
          {:unable, reason} -> Map.put(values, key, {figures, reason})
        end
    end
  end

  defp describe({:figure, figure}, unit), do: "#{show(figure)} #{unit}"
  defp describe({:unable, reason}, _unit), do: reason

  @limit_seconds 30

  # In a PID namespace of its own, which ends with the VM: nothing that a runner leaves behind runs beside the next one.
  defp cell(runner, work, seconds) do
    vm = [
      "elixir",
      "-pa",
      runner.ebin,
      "-pa",
      "_build/peers",
      "bench/peers/cell.exs",
      runner.name,
      work,
      "#{seconds}"
    ]

    namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    limit = ["--signal=KILL", "#{@limit_seconds}"]
    {output, status} = System.cmd("timeout", limit ++ namespace ++ vm, stderr_to_stdout: true)

    case {Regex.run(~r/^(figure|unable): (.+)$/m, output), status} do
      {[_, "figure", figure], 0} ->
        {:figure, String.to_float(figure)}

      {[_, "unable", reason], 0} ->
        {:unable, reason}

      {_, status} ->
        IO.puts(output)
        {:unable, if(status in [124, 137], do: "hangs", else: "fails")}
    end
  end

  defp head(commit, runners, rounds) do
    versions =
      for %{version: version} = runner when version != nil <- runners,
          do: "#{runner.title} #{version}"

    machine = machine()

    "#{machine}; `bin/peers` of #{commit}; #{Enum.join(versions, ", ")}. #{rounds} rounds."
  end

  # Without the release of the kernel's build.
  defp machine do
    [_, processor] = Regex.run(~r/^model name\s*: (.+)$/m, File.read!("/proc/cpuinfo"))
    [kernel] = Regex.run(~r/^\d+\.\d+/, File.read!("/proc/sys/kernel/osrelease"))
    cores = System.schedulers_online()

    "Machine: #{processor}, #{cores} cores, Linux #{kernel}, OTP #{System.otp_release()}, Elixir #{System.version()}"
  end

  defp table(values, runners) do
    titles = for runner <- runners, do: [" ", runner.title, " |"]
    rule = for _ <- runners, do: "---|"

    rows =
      for {work, title, unit, best} <- @works do
        medians =
          for {{^work, name}, {[_ | _] = figures, _}} <- values, do: {median(figures), name}

        {_, first} = if best == :least, do: Enum.min(medians), else: Enum.max(medians)

        cells =
          for %{name: name} <- runners,
              do: [" ", show_cell(values[{work, name}], name == first), " |"]

        ["| ", title, ", ", unit, " |", cells, "\n"]
      end

    ["| |", titles, "\n|---|", rule, "\n", rows]
  end

  defp show_cell({[], reason}, _first?), do: reason

  defp show_cell({figures, reason}, first?) do
    middle = if first?, do: "**#{show(median(figures))}**", else: show(median(figures))

    spread =
      if length(figures) > 1, do: " (#{show(Enum.min(figures))} to #{show(Enum.max(figures))})"

    "#{middle}#{spread}#{reason && ", once: #{reason}"}"
  end

  defp results(values, runners) do
    for {work, title, unit, _} <- @works, %{name: name} = runner <- runners do
      {figures, reason} = values[{work, name}]

      %{
        "work" => title,
        "unit" => unit,
        "runner" => String.trim("#{runner.title} #{runner.version}"),
        "rounds" => Enum.reverse(figures)
      }
      |> Map.merge(if reason, do: %{"unable" => reason}, else: %{})
    end
  end
end

[pace, commit | names] = System.argv()
Peers.run(pace, commit, names)
