# One figure: one work by one runner, in a VM of its own. `elixir -pa EBIN cell.exs RUNNER WORK SECONDS` prints
# `figure: NUMBER`, or `unable: REASON`; anything else means that the work failed.
#
# The library called `net_runner` on the command line is this one; the C library has the same application and module, and
# is called `c_net_runner`.
Code.put_compiler_option(:no_warn_undefined, :all)
Logger.configure(level: :error)

defmodule Peers.Runner do
  @doc "Runs `true`, and sees that it exits with status 0."
  @callback run_true() :: term()

  @doc "Reads all that a command prints; the number of bytes."
  @callback read(command :: [String.t()]) :: non_neg_integer()

  @doc "What a command prints when it gets these pieces on its stdin."
  @callback feed(command :: [String.t()], pieces :: Enumerable.t()) :: String.t()

  @doc "Starts `cat`: a function that sends a line there and reads it back, and one that ends it."
  @callback cat() :: {(() -> term()), (() -> term())}

  @optional_callbacks feed: 2, cat: 0
end

defmodule Peers.Sizes do
  @doc "How many bytes there are in the chunks of a stream."
  def sum(chunks), do: Enum.reduce(chunks, 0, &(byte_size(&1) + &2))
end

defmodule Peers.NetRunner do
  @behaviour Peers.Runner
  alias NetRunner.Process, as: Command

  def run_true, do: {"", 0} = NetRunner.run(["true"])
  def read(command), do: Peers.Sizes.sum(NetRunner.stream!(command))

  def feed(command, pieces) do
    {output, 0} = NetRunner.run(command, input: pieces)
    output
  end

  def cat do
    {:ok, p} = Command.start("cat")

    line = fn ->
      :ok = Command.write(p, "hello\n")
      {:ok, "hello\n"} = Command.read(p)
    end

    {line, fn -> Command.stop(p) end}
  end
end

defmodule Peers.CNetRunner do
  @behaviour Peers.Runner
  alias NetRunner.Process, as: Command

  def run_true, do: {"", 0} = NetRunner.run(["true"])
  def read(command), do: Peers.Sizes.sum(NetRunner.stream!(command))
  def feed(command, pieces), do: command |> NetRunner.stream!(input: pieces) |> Enum.join()

  def cat do
    {:ok, p} = Command.start("cat")

    line = fn ->
      :ok = Command.write(p, "hello\n")
      {:ok, "hello\n"} = Command.read(p)
    end

    stop = fn ->
      Command.close_stdin(p)
      {:ok, 0} = Command.await_exit(p)
    end

    {line, stop}
  end
end

defmodule Peers.Port do
  @behaviour Peers.Runner

  def run_true, do: {"", 0} = System.cmd("true", [])
  def read(command), do: command |> open() |> to_end(0, &(byte_size(&1) + &2))

  # A port cannot close the stdin of a command, which therefore has to end by itself.
  def feed(command, pieces) do
    port = open(command)
    Enum.each(pieces, &Port.command(port, &1))
    to_end(port, "", &(&2 <> &1))
  end

  def cat do
    port = open(["cat"])

    line = fn ->
      Port.command(port, "hello\n")
      receive do: ({^port, {:data, "hello\n"}} -> :ok)
    end

    {line, fn -> Port.close(port) end}
  end

  defp open([name | args]) do
    path = System.find_executable(name)
    Port.open({:spawn_executable, path}, [:binary, :exit_status, args: args])
  end

  defp to_end(port, result, add) do
    receive do
      {^port, {:data, bytes}} -> to_end(port, add.(bytes, result), add)
      {^port, {:exit_status, 0}} -> result
    end
  end
end

defmodule Peers.Exile do
  @behaviour Peers.Runner

  def run_true, do: [] = Enum.to_list(Exile.stream!(["true"]))
  def read(command), do: Peers.Sizes.sum(Exile.stream!(command))
  def feed(command, pieces), do: command |> Exile.stream!(input: pieces) |> Enum.join()

  def cat do
    {:ok, p} = Exile.Process.start_link(["cat"])

    line = fn ->
      :ok = Exile.Process.write(p, "hello\n")
      {:ok, bytes} = Exile.Process.read(p)
      "hello\n" = IO.iodata_to_binary(bytes)
    end

    {line, fn -> {:ok, 0} = Exile.Process.await_exit(p) end}
  end
end

defmodule Peers.ExCmd do
  @behaviour Peers.Runner

  def run_true, do: [] = Enum.to_list(ExCmd.stream!(["true"]))
  def read(command), do: Peers.Sizes.sum(ExCmd.stream!(command))
  def feed(command, pieces), do: command |> ExCmd.stream!(input: pieces) |> Enum.join()

  def cat do
    {:ok, p} = ExCmd.Process.start_link(["cat"])

    line = fn ->
      :ok = ExCmd.Process.write(p, "hello\n")
      {:ok, bytes} = ExCmd.Process.read(p)
      "hello\n" = IO.iodata_to_binary(bytes)
    end

    {line, fn -> {:ok, 0} = ExCmd.Process.await_exit(p) end}
  end
end

defmodule Peers.MuonTrap do
  # `MuonTrap.cmd/3` is a `System.cmd/3`: nothing of it writes to a command's stdin.
  @behaviour Peers.Runner

  defmodule Size do
    @moduledoc "Collects nothing but the number of bytes."
    defstruct bytes: 0

    defimpl Collectable do
      def into(size), do: {size, &collect/2}

      defp collect(size, {:cont, bytes}), do: %{size | bytes: size.bytes + byte_size(bytes)}
      defp collect(size, :done), do: size
      defp collect(_size, :halt), do: :ok
    end
  end

  def run_true, do: {"", 0} = MuonTrap.cmd("true", [])

  def read([name | args]) do
    {size, 0} = MuonTrap.cmd(name, args, into: %Size{})
    size.bytes
  end
end

defmodule Peers.Erlexec do
  @behaviour Peers.Runner

  def run_true, do: {:ok, []} = :exec.run(argv(["true"]), [:sync, :stdout])

  def read(command) do
    {:ok, _pid, os_pid} = :exec.run(argv(command), [:stdout, :monitor])
    to_end(os_pid, 0, &(byte_size(&1) + &2))
  end

  def feed(command, pieces) do
    {:ok, _pid, os_pid} = :exec.run(argv(command), [:stdin, :stdout, :monitor])
    Enum.each(pieces, &(:ok = :exec.send(os_pid, &1)))
    :ok = :exec.send(os_pid, :eof)
    to_end(os_pid, "", &(&2 <> &1))
  end

  def cat do
    {:ok, _pid, os_pid} = :exec.run(argv(["cat"]), [:stdin, :stdout, :monitor])

    line = fn ->
      :ok = :exec.send(os_pid, "hello\n")
      receive do: ({:stdout, ^os_pid, "hello\n"} -> :ok)
    end

    stop = fn ->
      :ok = :exec.send(os_pid, :eof)
      "" = to_end(os_pid, "", &(&2 <> &1))
    end

    {line, stop}
  end

  # A list is executed as it is, without a shell, and takes a path.
  defp argv([name | args]), do: [System.find_executable(name) | args]

  defp to_end(os_pid, result, add) do
    receive do
      {:stdout, ^os_pid, bytes} -> to_end(os_pid, add.(bytes, result), add)
      {:DOWN, ^os_pid, :process, _pid, :normal} -> result
    end
  end
end

defmodule Peers.Work do
  @moduledoc "The works. Each takes about as many seconds as it is told, in the unit that run.exs names."

  @raw System.fetch_env!("BENCH_RAW")

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
      complete(total, runner.read([@raw, "writer", "#{block}", "#{total}"]))
    end) / 1.0e9
  end

  def feed_4k(runner, seconds), do: feed(runner, seconds, :binary.copy("x", 4_096)) / 1.0e9
  def feed_64k(runner, seconds), do: feed(runner, seconds, :binary.copy("x", 65_536)) / 1.0e9

  def feed_lines(runner, seconds) do
    line = "123456789\n"
    feed(runner, seconds, line) / byte_size(line) / 1_000
  end

  defp feed(runner, seconds, piece) do
    rate(seconds, 64 * byte_size(piece), fn total ->
      pieces = Stream.map(1..div(total, byte_size(piece)), fn _ -> piece end)
      {arrived, "\n"} = Integer.parse(runner.feed([@raw, "count", "#{total}"], pieces))
      complete(total, arrived)
    end)
  end

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

  defp median(values), do: Enum.at(Enum.sort(values), div(length(values), 2))
end

[name, work, seconds] = System.argv()

{runner, application} =
  case name do
    "net_runner" -> {Peers.NetRunner, :net_runner}
    "port" -> {Peers.Port, :logger}
    "exile" -> {Peers.Exile, :exile}
    "c_net_runner" -> {Peers.CNetRunner, :net_runner}
    "muontrap" -> {Peers.MuonTrap, :muontrap}
    "erlexec" -> {Peers.Erlexec, :erlexec}
    "ex_cmd" -> {Peers.ExCmd, :ex_cmd}
  end

if application == :erlexec do
  # It refuses to run commands as root unless it is told the user.
  for {key, value} <- [root: true, user: ~c"root", limit_users: [~c"root"]],
      do: Application.put_env(:erlexec, key, value)
end

{:ok, _} = Application.ensure_all_started(application)
{:module, _} = Code.ensure_loaded(runner)

needed = if work =~ "feed", do: {:feed, 2}, else: if(work == "line", do: {:cat, 0})

try do
  if needed && not function_exported?(runner, elem(needed, 0), elem(needed, 1)),
    do: throw("no stdin")

  apply(Peers.Work, String.to_existing_atom(work), [runner, String.to_float(seconds)])
catch
  :throw, reason -> IO.puts("unable: #{reason}")
else
  figure -> IO.puts("figure: #{figure}")
end

# What a command's process or a helper still waits for is of no more use.
System.halt(0)
