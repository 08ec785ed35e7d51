# What NetRunner is for, shown on real data:
#
#   1. gigabytes through gzip and gunzip, two commands joined by a stream, checked by SHA-256;
#   2. a fast program and a slow consumer: NetRunner beside a port, and the VM's memory of both;
#   3. a program that starts others and ignores SIGTERM: what is left of it.

defmodule Demo do
  @bar 24

  def run do
    tty? = match?({:ok, _}, :io.columns())
    Process.put(:tty?, tty?)

    compressed = through_gzip(2_000_000_000)
    ours = slow_consumer("NetRunner", &net_runner_source/1)
    port = slow_consumer("a port   ", &port_source/1)
    left = left_running()

    IO.puts("""

    Summary
      #{gigabytes(compressed.bytes)} through `gzip -1 | gunzip` in #{compressed.seconds} s \
    (#{rate(compressed)}), #{if compressed.same?, do: "the same at both ends (SHA-256)", else: "DIFFERENT AT BOTH ENDS"}.
      A program that prints as fast as it can, read at 20 MB/s:
        with NetRunner the VM's memory grew by at most #{megabytes(ours.growth)};
        with a port by #{megabytes(port.growth)} in #{port.seconds} s, where the demo stopped it.
      Of a program that ignores SIGTERM and its background children, #{left} processes are left.
    """)
  end

  # --- gzip ---------------------------------------------------------------------------------------

  defp through_gzip(size) do
    IO.puts("\n1. #{gigabytes(size)} of log lines through `gzip -1`, and through `gunzip` again")
    block = log_lines()
    blocks = div(size, byte_size(block))
    size = blocks * byte_size(block)
    meter = meter("gzip", size)
    {:ok, sent} = Agent.start_link(fn -> :crypto.hash_init(:sha256) end)

    input =
      block
      |> List.duplicate(blocks)
      |> Stream.each(fn block -> Agent.cast(sent, &:crypto.hash_update(&1, block)) end)

    {meter, hash} =
      ~w(gunzip -c)
      |> NetRunner.stream!(input: NetRunner.stream!(~w(gzip -1 -c), input: input))
      |> Enum.reduce({meter, :crypto.hash_init(:sha256)}, fn chunk, {meter, hash} ->
        {step(meter, byte_size(chunk)), :crypto.hash_update(hash, chunk)}
      end)

    result = finish(meter)
    sent = Agent.get(sent, &:crypto.hash_final/1, :infinity)
    Map.put(result, :same?, :crypto.hash_final(hash) == sent and result.bytes == size)
  end

  # Lines as a web server writes them, each a bit different.
  defp log_lines do
    for n <- 1..12_000, into: "" do
      "10.0.#{rem(n, 256)}.#{rem(n * 7, 256)} - - [01/Jan/2026:00:00:#{rem(n, 60)}] " <>
        "\"GET /items/#{n * 7919} HTTP/1.1\" 200 #{rem(n * 104_729, 90_000)}\n"
    end
  end

  # --- a slow consumer ------------------------------------------------------------------------------

  @seconds 5
  @limit 500_000_000
  @per_tick 1_000_000
  @ticks_per_second 20

  defp slow_consumer(name, source) do
    IO.puts(
      "\n2. #{String.trim(name)}: `yes` prints as fast as it can, the consumer takes 20 MB/s"
    )

    task = Task.async(fn -> source.(&consume(&1, name)) end)
    Task.await(task, :infinity)
  end

  # Takes @per_tick bytes, waits for the rest of the tick: a consumer that has other things to do.
  defp consume(take, name) do
    before = memory()
    meter = meter(name, @seconds * @ticks_per_second * @per_tick)

    {meter, growth} =
      Enum.reduce_while(1..(@seconds * @ticks_per_second), {meter, 0}, fn _, {meter, growth} ->
        took = take.(@per_tick)
        Process.sleep(div(1_000, @ticks_per_second))
        growth = max(growth, memory() - before)
        meter = step(meter, took)
        if growth > @limit, do: {:halt, {meter, growth}}, else: {:cont, {meter, growth}}
      end)

    meter |> finish() |> Map.put(:growth, growth)
  end

  defp net_runner_source(consume) do
    {:ok, command} = NetRunner.Process.start("yes")

    take = fn bytes ->
      Enum.reduce_while(Stream.cycle([:read]), 0, fn :read, took ->
        {:ok, data} = NetRunner.Process.read(command, bytes - took)
        took = took + byte_size(data)
        if took < bytes, do: {:cont, took}, else: {:halt, took}
      end)
    end

    result = consume.(take)
    :ok = NetRunner.Process.stop(command)
    result
  end

  defp port_source(consume) do
    port = Port.open({:spawn_executable, System.find_executable("yes")}, [:binary])
    {:os_pid, os_pid} = Port.info(port, :os_pid)

    take = fn bytes ->
      Enum.reduce_while(Stream.cycle([:read]), 0, fn :read, took ->
        receive do
          {^port, {:data, data}} ->
            took = took + byte_size(data)
            if took < bytes, do: {:cont, took}, else: {:halt, took}
        end
      end)
    end

    result = consume.(take)
    # Closing the port only closes the pipe; `yes` ends by its next write.
    Port.close(port)
    System.cmd("kill", ["#{os_pid}"], stderr_to_stdout: true)
    result
  end

  # --- what is left ---------------------------------------------------------------------------------

  defp left_running do
    IO.puts(
      "\n3. A shell that ignores SIGTERM, with children in the background, one in a session of its own"
    )

    script = "trap '' TERM; sleep 300 & setsid sleep 300 & echo $$; wait"
    {:ok, command} = NetRunner.Process.start("sh", ["-c", script], kill_timeout: 500)
    {:ok, _} = NetRunner.Process.read(command)

    IO.puts(
      "   running: #{length(children_of(command))} processes; stopping (SIGTERM, and SIGKILL after 0.5 s)"
    )

    processes = children_of(command)
    :ok = NetRunner.Process.stop(command)
    left = Enum.count(processes, &File.exists?("/proc/#{&1}"))
    IO.puts("   left: #{left}")
    left
  end

  defp children_of(command) do
    pid = NetRunner.Process.os_pid(command)
    [pid | descendants(pid)]
  end

  defp descendants(pid) do
    case File.read("/proc/#{pid}/task/#{pid}/children") do
      {:ok, text} -> text |> String.split() |> Enum.flat_map(&[&1 | descendants(&1)])
      {:error, _} -> []
    end
  end

  # --- showing --------------------------------------------------------------------------------------

  defp meter(name, size) do
    now = System.monotonic_time(:millisecond)
    %{name: name, size: size, bytes: 0, started: now, shown: now, memory: memory()}
  end

  defp step(meter, bytes) do
    meter = %{meter | bytes: meter.bytes + bytes}
    now = System.monotonic_time(:millisecond)
    pause = if Process.get(:tty?), do: 100, else: 1_000
    if now - meter.shown >= pause, do: show(%{meter | shown: now}), else: meter
  end

  defp show(meter) do
    part = min(meter.bytes / meter.size, 1.0)
    full = round(part * @bar)
    bar = String.duplicate("█", full) <> String.duplicate("░", @bar - full)

    line =
      "   #{meter.name} #{bar} #{gigabytes(meter.bytes)}  #{rate(meter)}  VM memory #{megabytes(memory())}"

    if Process.get(:tty?), do: IO.write("\r\e[K#{line}"), else: IO.puts(line)
    meter
  end

  defp finish(meter) do
    show(meter)
    if Process.get(:tty?), do: IO.puts("")
    seconds = (System.monotonic_time(:millisecond) - meter.started) / 1_000
    Map.put(meter, :seconds, Float.round(seconds, 1))
  end

  defp rate(meter) do
    seconds = max(System.monotonic_time(:millisecond) - meter.started, 1) / 1_000
    seconds = Map.get(meter, :seconds, seconds)
    "#{round(meter.bytes / seconds / 1_000_000)} MB/s"
  end

  defp memory, do: :erlang.memory(:total)
  defp gigabytes(bytes), do: "#{:erlang.float_to_binary(bytes / 1.0e9, decimals: 2)} GB"
  defp megabytes(bytes), do: "#{round(bytes / 1.0e6)} MB"
end

Demo.run()
