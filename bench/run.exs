# One benchmark, in a VM of its own: `bin/bench NAME`.
Code.require_file("support.exs", __DIR__)
Code.require_file("memory.exs", __DIR__)
Logger.configure(level: :error)
{:ok, _} = Application.ensure_all_started(:net_runner)

defmodule Bench.Suite do
  import Bench
  alias NetRunner.Process, as: Command

  # One descriptor for each command, where the limit (RLIMIT_NOFILE) cannot be raised to four for each of 10,000.
  @without_pipes [stdin: :null, stdout: :null, stderr: :disabled]

  @true_path System.find_executable("true")

  # --- spawn ------------------------------------------------------------------------------------------

  def measure_spawn do
    count = pick(300, 100)
    net_runner = fn -> times(count, fn -> {"", 0} = NetRunner.run(["true"]) end) end
    system_cmd = fn -> times(count, fn -> {"", 0} = System.cmd("true", []) end) end

    peers = [
      {"raw", fn -> raw(["spawn", count]) end},
      {"System.cmd", system_cmd},
      {"NetRunner", net_runner}
    ]

    _warm = net_runner.()
    all = in_turn(peers)
    medians = Map.new(all, fn {name, rounds} -> {name, Enum.map(rounds, &median/1)} end)
    p99s = Map.new(all, fn {name, rounds} -> {name, Enum.map(rounds, &percentile(&1, 0.99))} end)

    target(
      "run true, median: NetRunner / System.cmd",
      ratios(medians, "NetRunner", "System.cmd"),
      :at_most,
      0.60
    )

    target(
      "run true, median: NetRunner / posix_spawn loop",
      ratios(medians, "NetRunner", "raw"),
      :at_most,
      1.25
    )

    target(
      "run true, p99: NetRunner / System.cmd",
      ratios(p99s, "NetRunner", "System.cmd"),
      :at_most,
      1.0
    )

    for {name, values} <- Enum.sort(medians), do: figure("run true, #{name}", values, "µs")

    plot(
      "spawn",
      "run true",
      "microseconds, median",
      for({name, values} <- Enum.sort(medians), do: {name, median(values)})
    )
  end

  # --- boot -------------------------------------------------------------------------------------------

  # In a VM that has loaded nothing of it: what an escript or a script waits for. Prints milliseconds.
  @first_run """
  {time, _} = :timer.tc(fn ->
    {:ok, _} = Application.ensure_all_started(:net_runner)
    {"", 0} = NetRunner.run(["true"])
  end)
  IO.puts(time / 1000)
  """

  @first_cmd """
  {time, _} = :timer.tc(fn -> {"", 0} = System.cmd("true", []) end)
  IO.puts(time / 1000)
  """

  def measure_boot do
    all =
      in_turn([
        {"NetRunner", fn -> boot(@first_run) end},
        {"System.cmd", fn -> boot(@first_cmd) end}
      ])

    target("from the application's start to the first result: ms", all["NetRunner"], :at_most, 10)
    figure("the first System.cmd", all["System.cmd"], "ms")
  end

  defp boot(script) do
    {text, 0} =
      System.cmd("elixir", ["-pa", Application.app_dir(:net_runner, "ebin"), "-e", script])

    String.to_float(String.trim(text))
  end

  # --- busy -------------------------------------------------------------------------------------------

  # Beside a process for each scheduler that never rests.
  def measure_busy do
    busy = for _ <- 1..System.schedulers_online(), do: spawn_link(fn -> never_rest(0) end)
    one_by_one(pick(1_000, 200))
    each_in_its_time(pick(10_000, 500))
    for pid <- busy, do: Process.unlink(pid) && Process.exit(pid, :kill)
  end

  defp never_rest(n), do: never_rest(n + 1)

  defp one_by_one(count) do
    # `System.cmd` takes 50 ms each.
    compare("run true with all schedulers busy", 3, &times(count, &1))
  end

  # Started as the clock says, however long those before take: `count` of them at 167 per second.
  defp each_in_its_time(count) do
    compare("#{count} times true at 167 per second, all schedulers busy", 1, &paced(count, &1))
  end

  defp paced(count, run) do
    start = System.monotonic_time(:millisecond)

    tasks =
      for n <- 1..count do
        Process.sleep(max(0, start + 6 * n - System.monotonic_time(:millisecond)))
        Task.async(fn -> elem(:timer.tc(run), 0) end)
      end

    Task.await_many(tasks, :infinity)
  end

  defp compare(what, rounds, measure) do
    peers = [
      {"System.cmd", fn -> measure.(fn -> {"", 0} = System.cmd("true", []) end) end},
      {"NetRunner", fn -> measure.(fn -> {"", 0} = NetRunner.run(["true"]) end) end}
    ]

    all = in_turn(peers, rounds)

    for {share, name} <- [{0.5, "median"}, {0.99, "p99"}, {0.999, "p99.9"}] do
      values =
        Map.new(all, fn {peer, rounds} -> {peer, Enum.map(rounds, &percentile(&1, share))} end)

      target(
        "#{what}, #{name}: NetRunner / System.cmd",
        ratios(values, "NetRunner", "System.cmd"),
        :at_most,
        1.0
      )

      for {peer, value} <- Enum.sort(values), do: figure("#{what}, #{name}, #{peer}", value, "µs")
    end
  end

  # --- sandbox ----------------------------------------------------------------------------------------

  @sandbox [read: [:system]]
  @namespaces [read: [:system], processes: :own, tmp: :private]

  # No other processes, an empty /tmp, nothing writable, no network: what the namespaces above are, too.
  @bwrap ~w(--ro-bind / / --dev-bind /dev /dev --proc /proc --tmpfs /tmp --tmpfs /dev/shm --unshare-pid --unshare-net
            --die-with-parent)

  def measure_sandbox do
    count = pick(300, 100)
    run = fn command, options -> {"", 0} = NetRunner.run(command, options) end

    peers = [
      {"without", fn -> run.(["true"], []) end},
      {"sandbox", fn -> run.(["true"], sandbox: @sandbox) end},
      {"namespaces", fn -> run.(["true"], sandbox: @namespaces) end}
    ]

    bwrap = System.find_executable("bwrap")
    bwrap_peer = {"bwrap", fn -> run.([bwrap | @bwrap] ++ ["true"], []) end}
    peers = if bwrap, do: peers ++ [bwrap_peer], else: peers
    for {_, start} <- peers, do: start.()
    all = in_turn(for {name, start} <- peers, do: {name, fn -> median(times(count, start)) end})

    target(
      "run true: with a sandbox / without",
      ratios(all, "sandbox", "without"),
      :at_most,
      1.10
    )

    if bwrap,
      do:
        target(
          "run true: own processes and /tmp / the same by bwrap",
          ratios(all, "namespaces", "bwrap"),
          :at_most,
          0.35
        ),
      else: IO.puts("         bwrap is not installed")

    for {name, values} <- Enum.sort(all), do: figure("run true, #{name}", values, "µs")

    plot(
      "sandbox",
      "run true in a sandbox",
      "microseconds, median",
      for({name, _} <- peers, do: {name, median(all[name])})
    )

    open = """
    import os, time
    start = time.perf_counter()
    for _ in range(50000): os.close(os.open("/usr/bin/env", os.O_RDONLY))
    print((time.perf_counter() - start) / 50000 * 1e6)
    """

    opens = fn options ->
      {text, 0} = NetRunner.run(["python3", "-c", open], options)
      String.to_float(String.trim(text))
    end

    opened =
      in_turn([
        {"outside", fn -> opens.([]) end},
        {"inside", fn -> opens.(sandbox: @sandbox) end}
      ])

    for {name, values} <- opened, do: figure("open and close by Python, #{name}", values, "µs")
    leave_nothing(pick(10_000, 500))
  end

  defp leave_nothing(count) do
    run = fn _ -> {"", 0} = NetRunner.run(["true"], sandbox: @namespaces) end
    run.(1)
    before = left()

    1..count
    |> Task.async_stream(run, max_concurrency: 4, timeout: :infinity)
    |> Stream.run()

    NetRunner.System.Native.let_idle_go()
    later = await_left(before, 100)
    more = for {what, number} <- later, number > before[what], do: number - before[what]

    target(
      "descriptors, mounts, processes, namespaces left by #{count} commands",
      [Enum.sum(more)],
      :at_most,
      0
    )
  end

  # Process 1 of a namespace is reaped before the end is reported; spares come and go.
  defp await_left(before, tries) do
    now = left()

    if tries == 0 or Enum.all?(now, fn {what, number} -> number <= before[what] end) do
      now
    else
      Process.sleep(50)
      await_left(before, tries - 1)
    end
  end

  defp left do
    namespaces =
      for kind <- ~w(pid mnt user net),
          path <- Path.wildcard("/proc/[0-9]*/ns/#{kind}"),
          {:ok, name} <- [File.read_link(path)],
          uniq: true,
          do: name

    %{
      descriptors: length(File.ls!("/proc/self/fd")),
      mounts: length(String.split(File.read!("/proc/self/mountinfo"), "\n")),
      processes: length(helpers()),
      namespaces: length(namespaces)
    }
  end

  # --- concurrency ------------------------------------------------------------------------------------

  def measure_concurrency do
    count = pick(1_000, 200)
    sleep = ["sleep", "60"]

    net_runner = fn ->
      {rate, commands} = start_all(count, fn -> start!(sleep) end)
      Enum.each(commands, &send(&1, :stop))
      await_none()
      rate
    end

    port = fn ->
      {rate, holders} = start_all(count, fn -> hold_port(sleep) end)
      end_all(holders)
      rate
    end

    all = in_turn([{"port", port}, {"NetRunner", net_runner}], pick(5, 3))

    target(
      "start #{count} commands, 32 at a time: NetRunner / port",
      ratios(all, "NetRunner", "port"),
      :at_least,
      1.0
    )

    for {name, values} <- all, do: figure("commands started, #{name}", values, "per second")

    memory(count)
    many(pick(10_000, 1_000))
  end

  defp memory(count) do
    helpers_before = pss(helpers())
    before = vm_memory()
    {_, commands} = start_all(count, fn -> start!(["sleep", "60"]) end)

    target(
      "helpers' memory per idle command (KiB PSS)",
      [(pss(helpers()) - helpers_before) / count],
      :at_most,
      60
    )

    target(
      "VM memory per idle command (KiB)",
      [(vm_memory() - before) / count / 1024],
      :at_most,
      12
    )

    Enum.each(commands, &send(&1, :stop))
    await_none()
  end

  defp many(count) do
    {_, commands} = start_all(count, fn -> start!(["sleep", "600"], @without_pipes) end)
    alive = length(NetRunner.list())
    IO.puts("         #{alive} commands are alive at once")
    {time, _} = :timer.tc(fn -> Enum.each(commands, &send(&1, :stop)) && await_none() end)
    ^count = alive

    target(
      "#{count} commands alive at once, all ended: seconds",
      [time / 1_000_000],
      :at_most,
      5.0
    )
  end

  # Held by a process each, as an application has it.
  defp start!([executable | args], options \\ []) do
    hold(fn ->
      {:ok, p} = Command.start(executable, args, options)
      p
    end)
  end

  defp hold_port(command) do
    hold(fn -> Bench.port(command) end)
  end

  defp hold(start) do
    parent = self()

    holder =
      spawn(fn ->
        held = start.()
        send(parent, {:held, self()})
        :erlang.hibernate(__MODULE__, :holding, [held])
      end)

    receive do: ({:held, ^holder} -> holder)
  end

  # The command belongs to this process and ends with it; a port's does not.
  def holding(held) do
    receive do
      :stop when is_port(held) ->
        {:os_pid, os_pid} = Port.info(held, :os_pid)
        System.cmd("kill", ["#{os_pid}"])

      :stop ->
        :ok
    end
  end

  # So that nothing of it is left to do in the next one's round.
  defp end_all(holders) do
    monitors = for holder <- holders, do: Process.monitor(holder)
    for holder <- holders, do: send(holder, :stop)
    for monitor <- monitors, do: receive(do: ({:DOWN, ^monitor, _, _, _} -> :ok))
  end

  defp start_all(count, start) do
    {time, started} =
      :timer.tc(fn ->
        1..count
        |> Task.async_stream(fn _ -> start.() end, max_concurrency: 32, timeout: :infinity)
        |> Enum.map(fn {:ok, pid} -> pid end)
      end)

    {count / (time / 1_000_000), started}
  end

  defp await_none do
    NetRunner.System.Native.let_idle_go()

    if NetRunner.list() != [] or length(helpers()) > 6 do
      Process.sleep(5)
      await_none()
    end
  end

  # Those of this VM: its child leads their session.
  defp helpers do
    all =
      for pid <- File.ls!("/proc"),
          pid =~ ~r/^\d+$/,
          {:ok, stat} <- [File.read("/proc/#{pid}/stat")],
          [_, "(net_runner_shep) " <> rest] <- [String.split(stat, " ", parts: 2)],
          [_state, parent, _group, session | _] = String.split(rest),
          do: {pid, parent, session}

    guards = for {pid, parent, _} <- all, parent == System.pid(), do: pid
    for {pid, _, session} <- all, session in guards, do: pid
  end

  # KiB, of what is shared the part.
  defp pss(pids) do
    Enum.sum(
      for pid <- pids do
        with {:ok, text} <- File.read("/proc/#{pid}/smaps_rollup"),
             [_, size] <- Regex.run(~r/^Pss:\s+(\d+)/m, text) do
          String.to_integer(size)
        else
          _ -> 0
        end
      end
    )
  end

  # What went out of use is given back a little later.
  defp vm_memory do
    for _ <- 1..2 do
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)
      Process.sleep(300)
    end

    :erlang.memory(:total)
  end

  # --- throughput -------------------------------------------------------------------------------------

  def measure_throughput do
    for {block, total} <- [
          {4_096, 1_000_000_000},
          {65_536, 4_000_000_000},
          {1_048_576, 4_000_000_000}
        ] do
      total = div(total, pick(1, 8))
      name = if block < 1_048_576, do: "#{div(block, 1024)} KiB", else: "1 MiB"
      writer = [raw(), "writer", "#{block}", "#{total}"]

      out = [
        {"raw", fn -> median(raw(["read", block, total])) end},
        {"port", fn -> rate(fn -> port_to_end(Bench.port(writer), 0, &byte_size/1) end) end},
        {"NetRunner",
         fn ->
           rate(fn -> Enum.reduce(NetRunner.stream!(writer), 0, &(byte_size(&1) + &2)) end)
         end}
      ]

      out = in_turn(out, pick(5, 3))

      target(
        "stdout, writes of #{name}: NetRunner / raw loop",
        ratios(out, "NetRunner", "raw"),
        :at_least,
        if(block == 4_096, do: 0.8, else: 1.0)
      )

      gigabytes("stdout, writes of #{name}", "stdout_#{block}", out)

      data = :binary.copy("x", block)

      into = [
        {"raw", fn -> median(raw(["write", block, total])) end},
        {"port", fn -> rate(fn -> port_write(data, div(total, block)) end) end},
        {"NetRunner", fn -> rate(fn -> net_runner_write(data, div(total, block)) end) end}
      ]

      into = in_turn(into, pick(5, 3))

      target(
        "stdin, writes of #{name}: NetRunner / raw loop",
        ratios(into, "NetRunner", "raw"),
        :at_least,
        1.0
      )

      gigabytes("stdin, writes of #{name}", "stdin_#{block}", into)
    end

    both_ways()
  end

  defp gigabytes(what, file, all) do
    for {name, values} <- Enum.sort(all),
        do: figure("#{what}, #{name}", Enum.map(values, &(&1 / 1.0e9)), "GB/s")

    plot(
      file,
      what,
      "GB/s",
      for({name, values} <- Enum.sort(all), do: {name, median(values) / 1.0e9})
    )
  end

  defp net_runner_write(data, count) do
    {:ok, p} = Command.start(raw(), ["sink"])
    for _ <- 1..count, do: :ok = Command.write(p, data)
    :ok = Command.close_stdin(p)
    {:ok, 0} = Command.await_exit(p)
    Command.stop(p)
    count * byte_size(data)
  end

  # A port cannot close stdin and wait; the sink is left when all is written.
  defp port_write(data, count) do
    port = Bench.port([raw(), "sink"])
    for _ <- 1..count, do: Port.command(port, data)
    close_port(port)
    count * byte_size(data)
  end

  defp both_ways do
    total = pick(1_073_741_824, 134_217_728)
    path = Path.join(System.tmp_dir!(), "net_runner_bench_#{System.pid()}")
    {"", 0} = NetRunner.run(["head", "-c", "#{total}", "/dev/zero"], stdout: {:file, path})
    block = :binary.copy(<<0>>, 1_048_576)

    shell = fn ->
      rate(fn ->
        {"", 0} = System.cmd("sh", ["-c", "cat #{path} | cat > /dev/null"])
        total
      end)
    end

    net_runner = fn ->
      rate(fn ->
        input = Stream.map(1..div(total, byte_size(block)), fn _ -> block end)
        ^total = Enum.reduce(NetRunner.stream!(["cat"], input: input), 0, &(byte_size(&1) + &2))
      end)
    end

    all = in_turn([{"shell", shell}, {"NetRunner", net_runner}], pick(5, 3))
    File.rm!(path)

    target(
      "both ways through cat: NetRunner / the shell, cat to cat",
      ratios(all, "NetRunner", "shell"),
      :at_least,
      0.8
    )

    gigabytes("both ways through cat", "both_ways", all)
  end

  # --- latency ----------------------------------------------------------------------------------------

  # A `cat` of its own for each round: what a line costs depends on the processor that the system has put it on, and
  # there it stays.
  def measure_latency do
    count = pick(5_000, 1_000)

    peers =
      for {name, start} <- [{"port", &cat_of_a_port/0}, {"NetRunner", &cat/0}] do
        {name,
         fn ->
           {line, stop} = start.()
           median = median(times(count, line))
           stop.()
           median
         end}
      end

    raw = {"raw", fn -> median(raw(["pingpong", count])) end}
    all = in_turn([raw | peers], pick(11, 5))

    target(
      "one line through cat and back: NetRunner / port",
      ratios(all, "NetRunner", "port"),
      :at_most,
      0.4
    )

    for {name, values} <- Enum.sort(all),
        do: figure("one line through cat, #{name}", values, "µs")

    plot(
      "latency",
      "one line through cat and back",
      "microseconds",
      for({name, values} <- Enum.sort(all), do: {name, median(values)})
    )
  end

  # --- lines ------------------------------------------------------------------------------------------

  def measure_lines do
    for length <- [10, 80, 500] do
      total = pick(200_000_000, 40_000_000)
      command = [raw(), "lines", "#{length}", "#{total}"]

      net_runner = fn ->
        rate(fn ->
          Enum.reduce(NetRunner.stream!(command, lines: :trim), 0, fn _, n -> n + 1 end)
        end)
      end

      port = fn ->
        rate(fn -> port_to_end(Bench.port(command, [{:line, 65_536}]), 0, fn _ -> 1 end) end)
      end

      all = in_turn([{"port", port}, {"NetRunner", net_runner}], pick(5, 3))

      target(
        "lines of #{length} bytes: NetRunner / port with {:line, 65536}",
        ratios(all, "NetRunner", "port"),
        :at_least,
        5.0
      )

      for {name, values} <- Enum.sort(all),
          do:
            figure(
              "lines of #{length} bytes, #{name}",
              Enum.map(values, &(&1 / 1.0e6)),
              "million per second"
            )

      plot(
        "lines_#{length}",
        "lines of #{length} bytes",
        "million per second",
        for({name, values} <- Enum.sort(all), do: {name, median(values) / 1.0e6})
      )
    end
  end

  # --- feed -------------------------------------------------------------------------------------------

  # Lines into a program that reads them all: from an enumerable, by a call for each, and through a port.
  def measure_feed do
    count = pick(1_000_000, 200_000)
    line = "123456789\n"
    sink = [raw(), "sink"]
    lines = fn -> Stream.map(1..count, fn _ -> line end) end

    feed = fn -> {"", 0} = NetRunner.run(sink, input: lines.()) end

    calls = fn ->
      {:ok, p} = Command.start(raw(), ["sink"])
      Enum.each(lines.(), fn line -> :ok = Command.write(p, line) end)
      :ok = Command.close_stdin(p)
      {:ok, 0} = Command.await_exit(p)
      :ok = Command.stop(p)
    end

    # A port cannot close the command's stdin alone, so nobody waits for its end here.
    port = fn ->
      port = Bench.port(sink)
      Enum.each(lines.(), fn line -> Port.command(port, line) end)
      close_port(port)
    end

    all =
      in_turn(
        for {name, work} <- [{"port", port}, {"a call for each", calls}, {"NetRunner", feed}] do
          {name, fn -> count / elapsed_ms(work) end}
        end
      )

    target(
      "input of #{count} lines of 10 bytes: NetRunner / port",
      ratios(all, "NetRunner", "port"),
      :at_least,
      3.0
    )

    for {name, values} <- Enum.sort(all),
        do: figure("input of lines, #{name}", values, "lines per ms")

    plot(
      "feed",
      "input of lines of 10 bytes",
      "lines per ms",
      for({name, values} <- Enum.sort(all), do: {name, median(values)})
    )
  end

  defp elapsed_ms(work) do
    {us, _} = :timer.tc(work)
    us / 1000
  end

  # --- backpressure -----------------------------------------------------------------------------------

  def measure_backpressure do
    seconds = pick(10, 2)
    {:ok, p} = Command.start("yes")
    {:ok, _} = Command.read(p)
    Process.sleep(200)
    before = vm_memory()
    most = Enum.max(for _ <- 1..seconds, do: vm_memory())

    target(
      "`yes`, unread for #{seconds} s: growth of the VM's memory (MiB)",
      [(most - before) / 1_048_576],
      :at_most,
      1.0
    )

    Command.stop(p)
  end

  # --- memory -----------------------------------------------------------------------------------------

  def measure_memory do
    {ours, stopped?} =
      Bench.Memory.sample(fn ->
        {:ok, p} = Command.start("yes")
        fn -> with {:ok, bytes} <- Command.read(p), do: bytes end
      end)

    false = stopped?
    NetRunner.System.Native.let_idle_go()

    {port, port_stopped?} =
      Bench.Memory.sample(fn ->
        port = Bench.port(["yes"])
        fn -> receive do: ({^port, {:data, bytes}} -> bytes) end
      end)

    target(
      "`yes`, taken at #{div(Bench.Memory.rate(), 1_000_000)} MB/s: growth of the VM's memory (MiB)",
      [growth(ours) / 1_048_576],
      :at_most,
      5.0
    )

    {seconds, bytes} = List.last(port)

    figure(
      "the same by a port, after #{show(seconds)} s: growth of the VM's memory",
      growth(port) / 1_048_576,
      "MiB"
    )

    picture([
      %{
        name: "port",
        class: "port",
        points: port,
        note:
          "#{show(bytes / 1.0e9)} GB after #{round(seconds)} s#{if port_stopped?, do: ", stopped"}"
      },
      %{name: "NetRunner", class: "ours", points: ours, note: "#{megabytes(ours)} MB at most"}
    ])
  end

  defp growth([{_, before} | _] = points), do: highest(points) - before
  defp megabytes(points), do: round(highest(points) / 1.0e6)
  defp highest(points), do: points |> Enum.map(&elem(&1, 1)) |> Enum.max()

  defp picture(all) do
    file = Path.join(System.get_env("BENCH_RESULTS"), "machine.txt")
    # Without the release of the kernel.
    machine =
      file |> File.read!() |> String.trim() |> String.replace(~r/(Linux \d+\.\d+)[^,]*/, "\\1")

    path = Path.join(System.get_env("BENCH_PLOTS"), "memory.svg")
    File.write!(path, Bench.Memory.svg(all, machine))
  end

  # --- soak -------------------------------------------------------------------------------------------

  def measure_soak do
    count = pick(100_000, 5_000)
    # What grows once and then no more is none of it.
    soak(pick(20_000, 1_000))
    {memory, fds} = {vm_memory(), fds()}
    {time, _} = :timer.tc(fn -> soak(count) end)
    await_none()
    figure("#{count} commands, 16 at a time", count / (time / 1_000_000), "per second")

    target(
      "VM memory after #{count} commands: growth (MiB)",
      [(vm_memory() - memory) / 1_048_576],
      :at_most,
      1.0
    )

    target("descriptors after #{count} commands: growth", [fds() - fds], :at_most, 0)

    target(
      "helpers after #{count} commands, beside those at rest",
      [length(helpers()) - 4],
      :at_most,
      0
    )
  end

  defp soak(count) do
    1..count
    |> Task.async_stream(fn _ -> {"", 0} = NetRunner.run([@true_path]) end,
      max_concurrency: 16,
      ordered: false
    )
    |> Stream.run()
  end

  defp fds, do: length(File.ls!("/proc/#{System.pid()}/fd"))

  # --- growth -----------------------------------------------------------------------------------------

  def measure_growth do
    total = pick(2_000_000_000, 200_000_000)

    rates =
      for count <- [1, 10, 100, 1_000] do
        writer = [raw(), "writer", "65536", "#{div(total, count)}"]

        rate =
          rate(fn ->
            1..count
            |> Task.async_stream(
              fn _ -> Enum.reduce(NetRunner.stream!(writer), 0, &(byte_size(&1) + &2)) end,
              max_concurrency: count,
              timeout: :infinity
            )
            |> Enum.reduce(0, fn {:ok, size}, sum -> size + sum end)
          end)

        figure("stdout of #{count} commands at once", rate / 1.0e9, "GB/s")
        {"NetRunner, #{count} at once", rate / 1.0e9}
      end

    plot("growth_throughput", "stdout, all commands together", "GB/s", rates)

    bars =
      for count <- [1, 1_000, pick(10_000, 2_000)] do
        before = vm_memory()
        helpers_before = pss(helpers())
        {_, commands} = start_all(count, fn -> start!(["sleep", "600"], @without_pipes) end)
        vm = (vm_memory() - before) / 1024
        all = pss(helpers()) - helpers_before
        figure("memory of #{count} idle commands, VM", vm / 1, "KiB")
        figure("memory of #{count} idle commands, helpers", all / 1, "KiB PSS")
        Enum.each(commands, &send(&1, :stop))
        await_none()
        {"NetRunner, #{count} idle", (vm + all) / 1024}
      end

    plot("growth_memory", "idle commands: VM and helpers", "MiB", bars)

    spawn_time = fn ->
      median(times(pick(300, 100), fn -> {"", 0} = NetRunner.run(["true"]) end))
    end

    gigabytes = pick(8, 1)
    small = for _ <- 1..3, do: spawn_time.()
    live = for _ <- 1..gigabytes, do: :binary.copy(<<1>>, 1_073_741_824)
    large = for _ <- 1..3, do: spawn_time.()
    ^gigabytes = length(live)

    target(
      "run true in a VM with #{gigabytes} GiB of live binaries / a small one",
      Enum.zip_with(large, small, &(&1 / &2)),
      :at_most,
      1.1
    )
  end
end

[name] = System.argv()
Bench.run(name, fn -> apply(Bench.Suite, String.to_existing_atom("measure_" <> name), []) end)
