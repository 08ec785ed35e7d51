defmodule Peers.Work do
  @moduledoc """
  What is measured, in the units that run.exs names. Each takes a runner and the seconds that it should last, and throws
  the reason when the runner cannot do it.
  """

  import Bench, only: [median: 1, raw: 0]

  def run_true(runner, seconds) do
    for _ <- 1..20, do: runner.run_true()
    median(times(&runner.run_true/0, seconds)) / 1_000_000
  end

  def many_true(runner, seconds) do
    start = fn count ->
      1..count
      |> Task.async_stream(fn _ -> runner.run_true() end, max_concurrency: 32, timeout: :infinity)
      |> Enum.each(fn {:ok, _} -> :ok end)
    end

    start.(64)
    count = if seconds < 0.5, do: 200, else: 600
    count / elapsed(fn -> start.(count) end)
  end

  # What a line costs depends on the processor that the system has put `cat` on, and there it stays. So there are several.
  def line(runner, seconds) do
    needs_stdin(runner)

    times =
      for _ <- 1..5 do
        {line, stop} = runner.cat()
        for _ <- 1..100, do: line.()
        times = times(line, seconds / 5)
        stop.()
        times
      end

    median(List.flatten(times)) / 1_000
  end

  def read_4k(runner, seconds), do: read(runner, seconds, 4_096)
  def read_64k(runner, seconds), do: read(runner, seconds, 65_536)

  defp read(runner, seconds, block) do
    rate(seconds, 4_194_304, fn total ->
      complete(total, runner.read([raw(), "writer", "#{block}", "#{total}"]))
    end) / 1.0e9
  end

  def feed_4k(runner, seconds), do: feed(runner, seconds, :binary.copy("x", 4_096)) / 1.0e9
  def feed_64k(runner, seconds), do: feed(runner, seconds, :binary.copy("x", 65_536)) / 1.0e9

  def feed_lines(runner, seconds) do
    line = "123456789\n"
    feed(runner, seconds, line) / byte_size(line) / 1_000
  end

  defp feed(runner, seconds, piece) do
    needs_stdin(runner)

    rate(seconds, 64 * byte_size(piece), fn total ->
      pieces = Stream.map(1..div(total, byte_size(piece)), fn _ -> piece end)
      {arrived, "\n"} = Integer.parse(runner.feed([raw(), "count", "#{total}"], pieces))
      complete(total, arrived)
    end)
  end

  defp needs_stdin(runner),
    do: function_exported?(runner, :feed, 2) || throw("no stdin")

  defp complete(all, all), do: :ok
  defp complete(_all, _less), do: throw("loses data")

  # Bytes in a second, of the first run that lasts for long enough. The shorter ones before it warm up.
  defp rate(seconds, total, work) do
    case elapsed(fn -> work.(total) end) do
      elapsed when elapsed >= seconds -> total / elapsed
      elapsed -> rate(seconds, total * (ceil(seconds / elapsed) |> min(16) |> max(2)), work)
    end
  end

  defp elapsed(work) do
    start = System.monotonic_time()
    work.()
    (System.monotonic_time() - start) / System.convert_time_unit(1, :second, :native)
  end

  # Nanoseconds of each call, for some seconds.
  defp times(work, seconds) do
    until = System.monotonic_time(:nanosecond) + round(seconds * 1.0e9)

    Stream.repeatedly(fn ->
      start = System.monotonic_time(:nanosecond)
      work.()
      now = System.monotonic_time(:nanosecond)
      {now - start, now}
    end)
    |> Enum.reduce_while([], fn {time, now}, times ->
      {if(now < until, do: :cont, else: :halt), [time | times]}
    end)
  end
end
