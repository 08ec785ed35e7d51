# Run by bin/demo, which gives it a directory for temporary files and removes that afterwards.
#
#   1. A log goes through cat, gzip and gunzip; SHA-256 is taken before gzip and after gunzip.
#   2. A fast program and a slow consumer, by NetRunner.
#   3. The same by a port, stopped when its memory has grown by 400 MB.
#   4. An endless command that starts others, of which only the beginning is wanted, by both.
#   5. A program that is not trusted, in a sandbox: it does its work, and what else it tries fails.
#   6. Commands that fail, with all that is known of them.

defmodule Demo.Log do
  # A log as a web shop's servers write it, from a fixed seed: the same bytes in every run.

  @requests ~w(/login /cart /checkout /orders/history /search?q=winter+coat /products/raincoat
               /products/umbrella /api/v2/stock /api/v2/prices /assets/shop.css /health)
  @agents ["Firefox/128.0", "Chrome/126.0", "Safari/17.5", "curl/8.5.0"]
  @notes [
    "served from cache",
    "payment accepted",
    "waiting for the database",
    "session renewed",
    "connection reset by peer",
    "stock level is low",
    "retrying after timeout",
    "customer signed in",
    "order is on its way",
    "image was resized"
  ]

  def write(path, bytes) do
    :rand.seed(:exsss, 1)
    tables = for table <- [@requests, @agents, @notes], do: List.to_tuple(table)

    File.open!(path, [:raw, :binary, :write, {:delayed_write, 1_048_576, 1_000}], fn file ->
      fill(file, tables, 0, bytes)
    end)
  end

  # `second` is the time in the log; each second has 100 lines.
  defp fill(file, tables, second, left) when left > 0 do
    time = DateTime.add(~U[2026-03-01 00:00:00Z], second) |> DateTime.to_iso8601()
    block = IO.iodata_to_binary(for _ <- 1..100, do: line(time, tables))
    block = binary_part(block, 0, min(left, byte_size(block)))
    :ok = :file.write(file, block)
    fill(file, tables, second + 1, left - byte_size(block))
  end

  defp fill(_file, _tables, _second, 0), do: :ok

  defp line(time, [requests, agents, notes]) do
    # One random number for all parts of a line.
    n = :rand.uniform(0x1000_0000_0000)
    status = elem({"200", "200", "200", "200", "301", "404", "200", "503"}, rem(n, 8))

    [
      time,
      " web-",
      ?1 + rem(n, 4),
      " 10.0.",
      Integer.to_string(rem(div(n, 7), 256)),
      ?.,
      Integer.to_string(rem(div(n, 1801), 256)),
      " GET ",
      elem(requests, rem(div(n, 11), tuple_size(requests))),
      ?\s,
      status,
      ?\s,
      Integer.to_string(rem(div(n, 13), 40_000)),
      " bytes ",
      Integer.to_string(rem(div(n, 17), 900)),
      " ms ",
      elem(agents, rem(div(n, 19), tuple_size(agents))),
      " - ",
      elem(notes, rem(div(n, 23), tuple_size(notes))),
      ?\n
    ]
  end
end

defmodule Demo.Show do
  @mb 1_000_000

  def size(bytes) when bytes < 1000 * @mb, do: "#{round(bytes / @mb)} MB"
  def size(bytes), do: "#{fixed(bytes / (1000 * @mb), 2)} GB"

  def rate(_bytes, ms) when ms <= 0, do: "-"
  def rate(bytes, ms), do: "#{round(bytes / @mb / (ms / 1000))} MB/s"

  def seconds(ms), do: "#{fixed(ms / 1000, 1)} s"

  def growth(bytes), do: "+#{fixed(max(bytes, 0) / @mb, 1)} MB"

  def bar(part, whole, width) do
    filled = min(width, div(width * part, whole))
    "[" <> String.duplicate("#", filled) <> String.duplicate(".", width - filled) <> "]"
  end

  def table([head | _] = rows) do
    widths =
      for i <- 0..(length(head) - 1),
          do: rows |> Enum.map(&String.length(Enum.at(&1, i))) |> Enum.max()

    for row <- rows do
      [first | rest] = Enum.zip(row, widths)
      cells = [pad(first, :right) | Enum.map(rest, &pad(&1, :left))]
      IO.puts("  " <> String.trim_trailing(Enum.join(cells, "   ")))
    end
  end

  defp pad({text, width}, :right), do: String.pad_trailing(text, width)
  defp pad({text, width}, :left), do: String.pad_leading(text, width)

  defp fixed(number, decimals), do: :erlang.float_to_binary(number / 1, decimals: decimals)
end

defmodule Demo.Meter do
  # Runs a job in a process of its own, and watches it: bytes done, the VM's memory, unread messages.
  # Past `:limit` bytes of growth the job is killed.

  alias Demo.Show

  @sample_ms 10

  def run(job, total, options \\ []) do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    counter = :counters.new(1, [])

    # Samples must come in time also while the job floods the schedulers.
    Process.flag(:priority, :high)
    before = memory()
    {pid, monitor} = spawn_monitor(fn -> exit({:done, job.(&:counters.add(counter, 1, &1))}) end)

    watch = %{
      pid: pid,
      monitor: monitor,
      counter: counter,
      total: total,
      before: before,
      began: now(),
      shown: 0,
      peak: 0,
      unread: 0,
      limit: options[:limit],
      stopped: false,
      half: options[:half_way]
    }

    result = loop(watch)
    Process.flag(:priority, :normal)
    result
  end

  defp loop(watch) do
    %{monitor: monitor} = watch

    receive do
      {:DOWN, ^monitor, :process, _pid, reason} -> finish(sample(watch), reason)
    after
      @sample_ms -> watch |> sample() |> enforce_limit() |> half_way() |> show(false) |> loop()
    end
  end

  defp sample(watch) do
    unread =
      case Process.info(watch.pid, :message_queue_len) do
        {:message_queue_len, length} -> length
        nil -> 0
      end

    growth = memory() - watch.before
    %{watch | peak: max(watch.peak, growth), unread: max(watch.unread, unread)}
  end

  defp enforce_limit(%{limit: limit, peak: peak} = watch) when limit != nil and peak > limit do
    Process.exit(watch.pid, :kill)
    %{watch | stopped: true, limit: nil}
  end

  defp enforce_limit(watch), do: watch

  # Something to be looked at once, while the job runs.
  defp half_way(%{half: look} = watch) when look != nil do
    if done(watch) > div(watch.total, 2) do
      look.()
      %{watch | half: nil}
    else
      watch
    end
  end

  defp half_way(watch), do: watch

  defp finish(watch, reason) do
    show(watch, true)

    value =
      case reason do
        {:done, value} -> value
        :killed when watch.stopped -> nil
        failure -> raise "the demo failed: #{inspect(failure)}"
      end

    %{
      bytes: done(watch),
      ms: now() - watch.began,
      peak: watch.peak,
      unread: watch.unread,
      stopped: watch.stopped,
      value: value
    }
  end

  defp show(watch, last) do
    ms = now() - watch.began
    every = if tty?(), do: 200, else: 3_000

    if last or ms - watch.shown >= every do
      bytes = done(watch)

      growth = if last, do: watch.peak, else: memory() - watch.before

      # At most 80 columns, so that a line can be written over.
      line =
        "  #{Show.bar(bytes, watch.total, 12)} #{Show.size(bytes)}, #{Show.rate(bytes, ms)}" <>
          "  #{if last, do: "peak ", else: ""}VM memory #{Show.growth(growth)}" <>
          if(last, do: "", else: ", binaries #{Show.size(:erlang.memory(:binary))}")

      cond do
        not tty?() -> IO.puts(line)
        last -> IO.puts("\r\e[K" <> line)
        true -> IO.write("\r\e[K" <> line)
      end

      %{watch | shown: ms}
    else
      watch
    end
  end

  defp done(watch), do: :counters.get(watch.counter, 1)
  defp memory, do: :erlang.memory(:total)
  defp now, do: System.monotonic_time(:millisecond)
  defp tty?, do: System.get_env("DEMO_TTY") != nil
end

defmodule Demo.Running do
  # Looks in /proc for processes that have a mark in their environment, which they inherit: it finds
  # what a command started, wherever that went.

  @variable "NET_RUNNER_DEMO"

  def supported?, do: File.exists?("/proc/self/environ")

  # `{name, value}` for the environment of a command.
  def mark(name), do: {@variable, name}

  def pids(name) do
    wanted = "#{@variable}=#{name}"

    for entry <- File.ls!("/proc"),
        entry =~ ~r/^\d+$/,
        {:ok, environ} <- [File.read("/proc/#{entry}/environ")],
        wanted in :binary.split(environ, <<0>>, [:global]),
        do: String.to_integer(entry)
  end

  # A zombie has no environment but is still there under its number.
  def left(pids), do: Enum.filter(pids, &File.exists?("/proc/#{&1}"))

  # For a port, which does not wait for its command.
  def settle(pids, tries \\ 50) do
    case left(pids) do
      [] -> []
      left when tries == 0 -> left
      _ -> wait_and_settle(pids, tries)
    end
  end

  defp wait_and_settle(pids, tries) do
    Process.sleep(20)
    settle(pids, tries - 1)
  end
end

defmodule Demo do
  alias Demo.{Log, Meter, Running, Show}

  @log_bytes 128_000_000
  @round_trips 8
  @repeats 24
  @consumer_rate 250_000_000
  @port_limit 400_000_000

  def main([directory]) do
    unless Running.supported?(), do: raise("the demo looks in /proc and needs Linux")
    log = Path.join(directory, "shop.log")

    head("Writing a log of #{Show.size(@log_bytes)} to stream")
    Log.write(log, @log_bytes)
    IO.puts(["  ", log |> File.open!([:read], &IO.binread(&1, :line))])

    trip = round_trip(log)
    {ours, port} = slow_consumers(log)
    leftovers = leftovers()
    attacks = sandbox(directory, log)
    failures(log)
    summary(trip, ours, port, leftovers, attacks)
  end

  # 1 ------------------------------------------------------------------------------------------

  defp round_trip(log) do
    total = @round_trips * @log_bytes
    head("1. NetRunner: #{Show.size(total)} through cat | gzip | gunzip, SHA-256 at both ends")
    mark = [env: [Running.mark("trip")]]
    me = self()

    job = fn count ->
      source = NetRunner.stream!(cat(log, @round_trips), mark) |> digest_to(me)
      zipped = NetRunner.stream!(~w(gzip -1 -c), [input: source] ++ mark)

      NetRunner.stream!(~w(gunzip -c), [input: zipped] ++ mark)
      |> Enum.reduce(:crypto.hash_init(:sha256), fn bytes, hash ->
        count.(byte_size(bytes))
        :crypto.hash_update(hash, bytes)
      end)
      |> :crypto.hash_final()
    end

    look = fn -> send(me, {:seen, Running.pids("trip")}) end
    result = Meter.run(job, total, half_way: look)

    sent = receive do: ({:digest, digest} -> digest)
    same? = sent == result.value and result.bytes == total
    seen = receive do: ({:seen, pids} -> pids)

    IO.puts("  sent      #{hex(sent)}")
    IO.puts("  received  #{hex(result.value)}")
    unless same?, do: raise("what came back is not what was sent")
    left = length(Running.left(seen))
    IO.puts("  The same. Programs running half way: #{length(seen)}, left now: #{left}")
    Map.put(result, :left, left)
  end

  defp digest_to(stream, receiver) do
    Stream.transform(
      stream,
      fn -> :crypto.hash_init(:sha256) end,
      fn bytes, hash -> {[bytes], :crypto.hash_update(hash, bytes)} end,
      fn hash -> send(receiver, {:digest, :crypto.hash_final(hash)}) end
    )
  end

  # 2, 3 ---------------------------------------------------------------------------------------

  defp slow_consumers(log) do
    total = @repeats * @log_bytes
    me = self()

    head(
      "2. NetRunner: cat prints #{Show.size(total)}, the consumer takes #{Show.rate(@consumer_rate, 1000)}"
    )

    ours =
      Meter.run(
        fn count ->
          ["cat" | files] = cat(log, @repeats)
          {:ok, process} = NetRunner.Process.start("cat", files)
          send(me, {:os_pid, NetRunner.Process.os_pid(process)})
          :eof = consume(fn -> NetRunner.Process.read(process, 262_144) end, count)
          {:ok, 0} = NetRunner.Process.await_exit(process)
          ^total = NetRunner.Process.stats(process).bytes_out
          NetRunner.Process.stop(process)
        end,
        total
      )

    ours = Map.put(ours, :left, left_of_sent_pid(fn pids -> Running.left(pids) end))

    head("3. A port: the same program and consumer (stopped at #{Show.growth(@port_limit)})")

    port =
      Meter.run(
        fn count ->
          [_ | files] = cat(log, @repeats)

          port =
            Port.open({:spawn_executable, System.find_executable("cat")}, [
              :binary,
              :exit_status,
              :stderr_to_stdout,
              args: files
            ])

          {:os_pid, pid} = Port.info(port, :os_pid)
          send(me, {:os_pid, pid})

          consume(
            fn ->
              receive do
                {^port, {:data, bytes}} -> {:ok, bytes}
                {^port, {:exit_status, 0}} -> :eof
              end
            end,
            count
          )
        end,
        total,
        limit: @port_limit
      )

    port = Map.put(port, :left, left_of_sent_pid(&Running.settle/1))
    {ours, port}
  end

  # Takes what comes, no faster than the consumer's rate.
  defp consume(read, count), do: consume(read, count, System.monotonic_time(:microsecond), 0)

  defp consume(read, count, began, taken) do
    with {:ok, bytes} <- read.() do
      count.(byte_size(bytes))
      taken = taken + byte_size(bytes)

      ahead =
        div(taken * 1_000_000, @consumer_rate) - (System.monotonic_time(:microsecond) - began)

      if ahead >= 1_000, do: Process.sleep(div(ahead, 1_000))
      consume(read, count, began, taken)
    end
  end

  defp left_of_sent_pid(left) do
    pid = receive do: ({:os_pid, pid} -> pid)
    length(left.([pid]))
  end

  # 4 ------------------------------------------------------------------------------------------

  # Prints without end, beside one program in the background and one in a session of its own.
  @script "sleep 300 & setsid sleep 300 & exec yes"

  defp leftovers do
    head("4. An endless command with two helpers, of which only the beginning is wanted")
    mark = [env: [Running.mark("ours")]]
    me = self()

    NetRunner.stream!(["sh", "-c", @script], mark)
    |> Stream.each(fn _ -> send(me, {:started, helpers("ours")}) end)
    |> Enum.take(1)

    ours = receive do: ({:started, pids} -> pids)

    {name, value} = Running.mark("port")

    port =
      Port.open({:spawn_executable, System.find_executable("sh")}, [
        :binary,
        :stderr_to_stdout,
        args: ["-c", @script],
        env: [{to_charlist(name), to_charlist(value)}]
      ])

    receive do: ({^port, {:data, _}} -> :ok)
    ports = helpers("port")
    Port.close(port)
    flush(port)

    left = %{
      ours: {length(ours), length(Running.left(ours))},
      port: {length(ports), length(Running.settle(ports))}
    }

    for pid <- Running.pids("port"),
        do: System.cmd("kill", [to_string(pid)], stderr_to_stdout: true)

    for {name, {started, left}} <- [{"NetRunner", left.ours}, {"port", left.port}] do
      IO.puts(
        "  #{String.pad_trailing(name, 10)} started #{started} processes, left running #{left}"
      )
    end

    left
  end

  # The three processes of the script; the helpers may take a moment to come.
  defp helpers(name, tries \\ 50) do
    pids = Running.pids(name)

    if length(pids) < 3 and tries > 0 do
      Process.sleep(20)
      helpers(name, tries - 1)
    else
      pids
    end
  end

  defp flush(port) do
    receive do
      {^port, _} -> flush(port)
    after
      0 -> :ok
    end
  end

  # 5 ------------------------------------------------------------------------------------------

  # In the sandbox, `$1` is the log, `$2` the one folder that may be written to, and `$3` and `$4` are what is attacked:
  # a file and a process. Each prints a sentence of the system about what it was refused.
  @attacks [
    {"read a private key", ~S(cat "$3")},
    {"delete the log", ~S(rm -f "$1")},
    {"leave a program behind", ~S(cp /bin/sh "$3.sh")},
    {"kill another program", ~S(env kill -KILL "$4")},
    {"open a socket", ~S[python3 -c "import socket; socket.socket()"]}
  ]

  defp sandbox(directory, log) do
    head(
      "5. A program that is not trusted, in a sandbox: it may read the log and write to one folder"
    )

    [jail, key] = for name <- ["jail", "private.key"], do: Path.join(directory, name)
    File.mkdir!(jail)
    File.write!(key, "secret\n")
    size = File.stat!(log).size
    {:ok, victim} = NetRunner.Process.start("sleep", ["300"])
    os_pid = NetRunner.Process.os_pid(victim)

    inside = fn script ->
      NetRunner.capture(["sh", "-c", script, "sh", log, jail, key, "#{os_pid}"],
        sandbox: [read: [:system, log], write: [jail], network: false],
        clear_env: true,
        env: [{"PATH", "/usr/bin:/bin"}],
        cd: jail,
        timeout: 30_000
      )
    end

    work = ~S(head -n 100000 "$1" | grep -c checkout > "$2/count" && cat "$2/count")

    failed =
      case inside.(work) do
        {:ok, %{status: 0, stdout: count}} ->
          said("does its work", "#{String.trim(count)} lines with a checkout")
          for {name, script} <- @attacks, do: attack(name, inside.(script))

        {:error, {:sandbox, sentence}} ->
          IO.puts("  This system has no such sandbox, so nothing was started: #{sentence}")
          []
      end

    untouched? =
      NetRunner.Process.alive?(victim) and File.stat!(log).size == size and
        Enum.sort(File.ls!(directory)) == ["jail", "private.key", "shop.log"]

    NetRunner.Process.stop(victim)

    IO.puts(
      "  Log, key and program outside are #{if untouched?, do: "untouched", else: "NOT untouched"}."
    )

    %{failed: Enum.count(failed, & &1), of: length(failed), untouched?: untouched?}
  end

  # Whether it failed.
  defp attack(name, {:ok, result}) do
    said(name, if(result.status == 0, do: "SUCCEEDED", else: last_line(result.stderr)))
    result.status != 0 and not (result.stdout =~ "secret")
  end

  defp said(name, text), do: IO.puts("  #{String.pad_trailing(name, 24)} #{text}")
  defp last_line(text), do: text |> String.split("\n", trim: true) |> List.last()

  # 6 ------------------------------------------------------------------------------------------

  defp failures(log) do
    head("6. Commands that fail, by capture/2: what each printed, and how it ended")
    failing = ~S(cat "$1"; echo "disk quota exceeded" >&2; exit 3)
    told(["sh", "-c", failing, "sh", log], keep: {:tail, 64})
    # It ignores the polite signal.
    told(["sh", "-c", "trap '' TERM; echo begun; while :; do sleep 1; done"],
      timeout: 500,
      kill_timeout: 300
    )

    told(["yes"], max_output_size: 1_000_000)
  end

  defp told(command, options) do
    {:ok, result} = NetRunner.capture(command, options)
    %{stdout: dropped} = result.dropped
    size = dropped + byte_size(result.stdout)

    IO.puts(
      "  #{inspect(result.outcome)} after #{result.duration_ms} ms, #{inspect(result.exit)}"
    )

    IO.puts(
      "    stdout  #{size} bytes, kept #{byte_size(result.stdout)}, which end with #{inspect(last_line(result.stdout))}"
    )

    if result.stderr != "", do: IO.puts("    stderr  #{String.trim(result.stderr)}")
  end

  # --------------------------------------------------------------------------------------------

  defp summary(trip, ours, port, leftovers, attacks) do
    head("Summary")

    Show.table([
      ["", "bytes", "time", "throughput", "peak VM memory", "unread"],
      row("cat | gzip | gunzip, NetRunner", trip),
      row("slow consumer, NetRunner", ours),
      row("slow consumer, port", port)
    ])

    {_, left_by_port} = leftovers.port
    {_, left_by_ours} = leftovers.ours
    left = trip.left + ours.left + left_by_ours

    IO.puts("")
    IO.puts("  The round trip came back with the same SHA-256.")

    if port.stopped do
      IO.puts(
        "  The port was stopped after #{Show.seconds(port.ms)}: " <>
          "#{Show.size(port.bytes)} consumed, while the VM grew by #{Show.size(port.peak)}."
      )
    end

    IO.puts("  In the sandbox, #{attacks.failed} of #{attacks.of} attacks failed.")
    IO.puts("  Left running, by /proc: #{left} of what NetRunner started,")
    IO.puts("  #{port.left + left_by_port} of what the ports started (this demo ended them).")
    safe? = attacks.untouched? and attacks.failed == attacks.of
    if left > 0 or not safe?, do: System.halt(1)
  end

  defp row(name, result) do
    [
      name,
      Show.size(result.bytes),
      Show.seconds(result.ms) <> if(result.stopped, do: ", stopped", else: ""),
      Show.rate(result.bytes, result.ms),
      Show.growth(result.peak),
      to_string(result.unread)
    ]
  end

  defp cat(log, times), do: ["cat" | List.duplicate(log, times)]
  defp head(text), do: IO.puts("\n#{text}")
  defp hex(digest), do: Base.encode16(digest, case: :lower)
end

Demo.main(System.argv())
