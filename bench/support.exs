defmodule Bench do
  # What all benchmarks share: rounds, statistics, results, and the watch over long NIF calls.

  @raw System.get_env("BENCH_RAW") || raise("run this by bin/bench")

  def quick?, do: System.get_env("BENCH_QUICK") == "1"
  def rounds, do: if(quick?(), do: 3, else: 7)
  def pick(full, quick), do: if(quick?(), do: quick, else: full)

  def raw, do: @raw

  @doc "The numbers that the raw loop prints."
  def raw(args) do
    {text, 0} = System.cmd(@raw, Enum.map(args, &to_string/1))
    for line <- String.split(text, "\n", trim: true), {number, ""} = Float.parse(line), do: number
  end

  @doc "Rates of peers `{name, function}`, in turn, several rounds: `%{name => [value of a round]}`."
  def in_turn(peers, rounds \\ rounds()) do
    for _ <- 1..rounds, {name, measure} <- peers, reduce: %{} do
      all ->
        for pid <- Process.list(), do: :erlang.garbage_collect(pid)
        value = measure.()
        Map.update(all, name, [value], &(&1 ++ [value]))
    end
  end

  def median(values), do: Enum.at(Enum.sort(values), div(length(values), 2))

  def percentile(values, p),
    do: Enum.at(Enum.sort(values), min(length(values) - 1, floor(length(values) * p)))

  @doc "Microseconds of each of `count` calls."
  def times(count, function) do
    for _ <- 1..count do
      {time, _} = :timer.tc(function)
      time
    end
  end

  @doc "Per second: what the function says that it did, by the time that it took."
  def rate(function) do
    {time, amount} = :timer.tc(function)
    amount / (time / 1_000_000)
  end

  @doc "A target: the ratios of the rounds, whose median has to be on this side of the limit."
  def target(what, ratios, comparison, limit) do
    middle = median(ratios)
    holds? = if comparison == :at_least, do: middle >= limit, else: middle <= limit
    sign = if comparison == :at_least, do: "≥", else: "≤"
    spread = "#{show(Enum.min(ratios))}..#{show(Enum.max(ratios))}"

    IO.puts(
      "  #{if holds?, do: "holds ", else: "MISSED"} #{what}: #{show(middle)} (#{spread}), wanted #{sign} #{limit}"
    )

    result(%{
      "target" => what,
      "median" => middle,
      "min" => Enum.min(ratios),
      "max" => Enum.max(ratios),
      "wanted" => "#{sign} #{limit}",
      "holds" => holds?
    })
  end

  @doc "Ratios of two peers, round by round."
  def ratios(all, over, under), do: Enum.zip_with(all[over], all[under], &(&1 / &2))

  @doc "A figure beside the targets."
  def figure(what, values, unit) do
    values = List.wrap(values)
    IO.puts("         #{what}: #{show(median(values))} #{unit}")

    result(%{
      "figure" => what,
      "median" => median(values),
      "min" => Enum.min(values),
      "max" => Enum.max(values),
      "unit" => unit
    })
  end

  def show(value) when abs(value) >= 100, do: "#{round(value)}"
  def show(value), do: :erlang.float_to_binary(value / 1, decimals: 2)

  defp result(map), do: Process.put(:results, Process.get(:results, []) ++ [map])

  @doc "Bars in the documentation: `[{name, value}]`."
  def plot(file, title, unit, bars) do
    draw(["plot", title, unit], file, for({name, value} <- bars, do: "#{name} #{show(value)}\n"))
  end

  @doc "Panels of points below one another: `[{name, [{x, y}]}]`."
  def series(file, title, unit, panels) do
    points = for {name, points} <- panels, {x, y} <- points, do: "#{name}\t#{x / 1}\t#{y / 1}\n"
    draw(["series", title, unit], file, points)
  end

  defp draw(args, file, input) do
    directory = System.get_env("BENCH_PLOTS")
    {"", 0} = NetRunner.run([@raw | args] ++ [Path.join(directory, file <> ".svg")], input: input)
  end

  def run(name, function) do
    IO.puts(name)
    watch = watch()
    function.()
    long = stop_watch(watch)
    target("NIF calls over 1 ms on a normal scheduler (#{name})", [length(long)], :at_most, 0)
    for event <- long, do: IO.puts("         #{inspect(event)}")

    results = Process.get(:results)
    directory = System.get_env("BENCH_RESULTS")
    File.write!(Path.join(directory, name <> ".json"), [json(results), "\n"])

    File.write!(
      Path.join(directory, name <> ".md"),
      for(%{"target" => _} = row <- results, do: row(row))
    )
  end

  defp row(row) do
    [median, min, max] = for key <- ["median", "min", "max"], do: show(row[key])
    holds = if row["holds"], do: "yes", else: "**no**"
    "| #{row["target"]} | #{row["wanted"]} | #{median} | #{min} to #{max} | #{holds} |\n"
  end

  # Schedules of 1 ms and more that began or ended in the NIF's module. A process that was in it when its time was
  # over, or whose scheduler the system took the CPU from, is told too.
  defp watch do
    {:ok, pid} = Agent.start_link(fn -> [] end)

    watcher =
      spawn_link(fn ->
        :erlang.system_monitor(self(), long_schedule: 1)
        listen(pid)
      end)

    {pid, watcher}
  end

  defp listen(agent) do
    receive do
      {:monitor, pid, :long_schedule, info} when is_pid(pid) ->
        if Enum.any?([info[:in], info[:out]], &match?({NetRunner.System.Native, _, _}, &1)),
          do: Agent.update(agent, &[info | &1])

        listen(agent)

      {:monitor, _, _, _} ->
        listen(agent)

      {:stop, from} ->
        :erlang.system_monitor(:undefined)
        send(from, :stopped)
    end
  end

  defp stop_watch({agent, watcher}) do
    send(watcher, {:stop, self()})
    receive do: (:stopped -> Agent.get(agent, & &1))
  end

  def json(list) when is_list(list),
    do: ["[\n  ", Enum.map_join(list, ",\n  ", &IO.iodata_to_binary(json(&1))), "\n]"]

  def json(map) when is_map(map) do
    [
      "{",
      Enum.map_join(map, ", ", fn {key, value} ->
        IO.iodata_to_binary([json(key), ": ", json(value)])
      end),
      "}"
    ]
  end

  def json(text) when is_binary(text),
    do: [?", String.replace(text, ["\\", "\""], &("\\" <> &1)), ?"]

  def json(value) when is_float(value), do: :erlang.float_to_binary(value, decimals: 4)
  def json(value), do: "#{value}"

  # --- a line through cat -----------------------------------------------------------------------------

  @doc "Starts `cat`: a function that sends a line there and reads it back, and one that ends it."
  def cat do
    {:ok, p} = NetRunner.Process.start("cat")

    line = fn ->
      :ok = NetRunner.Process.write(p, "hello\n")
      {:ok, "hello\n"} = NetRunner.Process.read(p)
    end

    {line, fn -> NetRunner.Process.stop(p) end}
  end

  def cat_of_a_port do
    port = port(["cat"])

    line = fn ->
      Port.command(port, "hello\n")
      receive do: ({^port, {:data, "hello\n"}} -> :ok)
    end

    {line, fn -> close_port(port) end}
  end

  # --- ports ------------------------------------------------------------------------------------------

  def port([executable | args], options \\ []) do
    Port.open(
      {:spawn_executable, System.find_executable(executable)},
      [:binary, :exit_status, args: args] ++ options
    )
  end

  def port_to_end(port, count, amount) do
    receive do
      {^port, {:data, data}} -> port_to_end(port, amount.(data) + count, amount)
      {^port, {:exit_status, _}} -> count
    end
  end

  def close_port(port) do
    Port.close(port)
    flush_port(port)
  catch
    :error, :badarg -> :ok
  end

  defp flush_port(port) do
    receive do
      {^port, _} -> flush_port(port)
    after
      0 -> :ok
    end
  end
end
