# `mix run bench/first.exs`: starting a command against System.cmd/3, and reading 4 GB against a port. The two are
# run in turn, several rounds; each line is a ratio of one round, the last their median.

defmodule Bench.First do
  @rounds 5
  @starts 300
  @bytes 4_000_000_000
  @command ["dd", "if=/dev/zero", "bs=65536", "count=#{div(@bytes, 65_536)}", "status=none"]

  def run do
    ratios("run true, median time, NetRunner / System.cmd", fn ->
      median_time(fn -> {"", 0} = NetRunner.run(["true"]) end) /
        median_time(fn -> {"", 0} = System.cmd("true", []) end)
    end)

    ratios("4 GB in 64 KiB blocks, rate, NetRunner / port", fn ->
      rate(&read_stream/0) / rate(&read_port/0)
    end)
  end

  defp ratios(what, round) do
    IO.puts(what)

    all =
      for _ <- 1..@rounds do
        ratio = round.()
        IO.puts("  #{Float.round(ratio, 2)}")
        ratio
      end

    IO.puts("  median #{all |> Enum.sort() |> Enum.at(div(@rounds, 2)) |> Float.round(2)}")
  end

  defp median_time(fun) do
    times = for _ <- 1..@starts, do: fun |> :timer.tc() |> elem(0)
    median = times |> Enum.sort() |> Enum.at(div(@starts, 2))
    IO.puts("    #{median} µs")
    median
  end

  defp rate(fun) do
    {micros, bytes} = :timer.tc(fun)
    rate = bytes / micros / 1_000
    IO.puts("    #{Float.round(rate, 2)} GB/s")
    rate
  end

  defp read_stream, do: @command |> NetRunner.stream!() |> Enum.reduce(0, &(byte_size(&1) + &2))

  defp read_port do
    [executable | args] = @command
    path = System.find_executable(executable)
    port = Port.open({:spawn_executable, path}, [:binary, :exit_status, args: args])
    drain(port, 0)
  end

  defp drain(port, bytes) do
    receive do
      {^port, {:data, data}} -> drain(port, bytes + byte_size(data))
      {^port, {:exit_status, 0}} -> bytes
    end
  end
end

Bench.First.run()
