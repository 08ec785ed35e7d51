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

    results =
      for round <- 1..rounds, {work, _, unit, _} <- @works, runner <- runners, reduce: %{} do
        results ->
          key = {work, runner.name}

          case Map.get(results, key, []) do
            # It is not tried again: it may have hung.
            {:unable, _reason} ->
              results

            figures ->
              result = cell(runner, work, seconds)
              IO.puts("round #{round}, #{work}, #{runner.name}: #{describe(result, unit)}")
              Map.put(results, key, add(figures, result))
          end
      end

    head = head(commit, runners, rounds)
    File.write!("/srv/peers/results/peers.md", [head, "\n\n", table(results, runners)])
    File.write!("/srv/peers/results/peers.json", [Bench.json(list(results, runners)), "\n"])
    IO.puts(["\n", File.read!("/srv/peers/results/peers.md")])
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

  # Of a runner that could not do the work each time, the figures say nothing.
  defp add(figures, {:figure, figure}), do: [figure | figures]
  defp add(_figures, {:unable, reason}), do: {:unable, reason}

  defp describe({:figure, figure}, unit), do: "#{show(figure)} #{unit}"
  defp describe({:unable, reason}, _unit), do: reason

  @limit_seconds 30

  # In a PID namespace of its own, which ends with the VM: nothing that a runner leaves behind runs beside the next one.
  defp cell(runner, work, seconds) do
    vm =
      ~w(elixir -pa #{runner.ebin} -pa _build/peers bench/peers/cell.exs #{runner.name} #{work} #{seconds})

    namespace = ~w(unshare --pid --fork --kill-child --mount-proc)
    limit = ~w(timeout --signal=KILL #{@limit_seconds})
    {output, status} = System.cmd("env", limit ++ namespace ++ vm, stderr_to_stdout: true)

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

    "#{machine}; `bin/peers` of #{commit}; #{Enum.join(versions, ", ")}. Rounds: #{rounds}."
  end

  # Without the release of the kernel's build.
  defp machine do
    [_, processor] = Regex.run(~r/^model name\s*: (.+)$/m, File.read!("/proc/cpuinfo"))
    [kernel] = Regex.run(~r/^\d+\.\d+/, File.read!("/proc/sys/kernel/osrelease"))
    cores = System.schedulers_online()

    "Machine: #{processor}, #{cores} cores, Linux #{kernel}, OTP #{System.otp_release()}, Elixir #{System.version()}"
  end

  defp table(results, runners) do
    titles = for runner <- runners, do: [" ", runner.title, " |"]
    rule = for _ <- runners, do: "---|"

    rows =
      for {work, title, unit, best} <- @works do
        medians = for {{^work, name}, [_ | _] = figures} <- results, do: {median(figures), name}

        none = fn -> {nil, nil} end

        {_, first} = if best == :least, do: Enum.min(medians, none), else: Enum.max(medians, none)

        cells =
          for %{name: name} <- runners,
              do: [" ", show_cell(results[{work, name}], name == first), " |"]

        ["| ", title, ", ", unit, " |", cells, "\n"]
      end

    ["| |", titles, "\n|---|", rule, "\n", rows]
  end

  defp show_cell({:unable, reason}, _first?), do: reason

  defp show_cell(figures, first?) do
    middle = if first?, do: "**#{show(median(figures))}**", else: show(median(figures))
    "#{middle} (#{show(Enum.min(figures))} to #{show(Enum.max(figures))})"
  end

  defp list(results, runners) do
    for {work, title, unit, _} <- @works, %{name: name} = runner <- runners do
      figures =
        case results[{work, name}] do
          {:unable, reason} -> %{"unable" => reason}
          figures -> %{"rounds" => Enum.reverse(figures)}
        end

      Map.merge(figures, %{
        "work" => title,
        "unit" => unit,
        "runner" => String.trim("#{runner.title} #{runner.version}")
      })
    end
  end
end

[pace, commit | names] = System.argv()
Peers.run(pace, commit, names)
