defmodule Bench.Runner do
  # Other libraries that run commands, measured where their compiled code is: an environment variable names the
  # directory with their `ebin` directories below it (`NET_RUNNER_BENCH_EXILE=/path/to/_build/prod/lib`).

  @callback available?() :: boolean()
  @doc "Runs `true` to its end."
  @callback spawn() :: term()
  @doc "Reads all that a command prints; gives the number of bytes."
  @callback read_all([String.t()]) :: non_neg_integer()
  @doc "Writes blocks to a command, and closes its stdin."
  @callback write_all([String.t()], block :: binary(), count :: pos_integer()) :: term()
  @doc "Starts `cat`; gives a function that sends a line there and back, and one that ends it."
  @callback ping_pong() :: {fun(), fun()}

  def others do
    for module <- [Bench.Exile, Bench.MuonTrap, Bench.Erlexec, Bench.ExCmd],
        module.available?(),
        do: {name(module), module}
  end

  def name(module), do: module |> Module.split() |> List.last()

  @doc "Whether the code that a variable names has this module; says why it is skipped."
  def load(variable, module, application) do
    case System.get_env(variable) do
      nil ->
        IO.puts("         skipped: #{application} (#{variable} is not set)")
        false

      directory ->
        for ebin <- Path.wildcard(Path.join(directory, "*/ebin")), do: Code.append_path(ebin)
        {:ok, _} = Application.ensure_all_started(application)
        Code.ensure_loaded?(module)
    end
  end
end

defmodule Bench.Exile do
  @behaviour Bench.Runner
  @compile {:no_warn_undefined, [Exile, Exile.Process]}

  def available?, do: Bench.Runner.load("NET_RUNNER_BENCH_EXILE", Exile, :exile)
  def spawn, do: Enum.to_list(Exile.stream!(["true"]))
  def read_all(command), do: Enum.reduce(Exile.stream!(command), 0, &(byte_size(&1) + &2))

  def write_all(command, block, count) do
    Stream.run(Exile.stream!(command, input: Stream.map(1..count, fn _ -> block end)))
  end

  def ping_pong do
    {:ok, p} = Exile.Process.start_link(["cat"])

    {fn ->
       :ok = Exile.Process.write(p, "hello\n")
       {:ok, _} = Exile.Process.read(p, 65_536)
     end, fn -> Exile.Process.await_exit(p, 1_000) end}
  end
end

defmodule Bench.ExCmd do
  @behaviour Bench.Runner
  @compile {:no_warn_undefined, [ExCmd, ExCmd.Process]}

  def available?, do: Bench.Runner.load("NET_RUNNER_BENCH_EX_CMD", ExCmd, :ex_cmd)
  def spawn, do: Enum.to_list(ExCmd.stream!(["true"]))
  def read_all(command), do: Enum.reduce(ExCmd.stream!(command), 0, &(IO.iodata_length(&1) + &2))

  def write_all(command, block, count) do
    Stream.run(ExCmd.stream!(command, input: Stream.map(1..count, fn _ -> block end)))
  end

  def ping_pong do
    {:ok, p} = ExCmd.Process.start_link(["cat"])

    {fn ->
       :ok = ExCmd.Process.write(p, "hello\n")
       {:ok, _} = ExCmd.Process.read(p)
     end, fn -> ExCmd.Process.await_exit(p, 1_000) end}
  end
end

defmodule Bench.MuonTrap do
  # It has no writing to stdin beside System.cmd's, so two of the measures are left out.
  @behaviour Bench.Runner
  @compile {:no_warn_undefined, MuonTrap}

  def available?, do: Bench.Runner.load("NET_RUNNER_BENCH_MUONTRAP", MuonTrap, :muontrap)
  def spawn, do: {"", 0} = MuonTrap.cmd("true", [])

  def read_all([executable | args]) do
    {output, 0} = MuonTrap.cmd(executable, args, into: [])
    IO.iodata_length(output)
  end

  def write_all(_command, _block, _count), do: nil
  def ping_pong, do: nil
end

defmodule Bench.Erlexec do
  @behaviour Bench.Runner
  @compile {:no_warn_undefined, :exec}

  def available?, do: Bench.Runner.load("NET_RUNNER_BENCH_ERLEXEC", :exec, :erlexec)
  def spawn, do: {:ok, _} = :exec.run(~c"true", [:sync, :stdout])

  def read_all(command) do
    {:ok, _, os_pid} = :exec.run(Enum.map(command, &String.to_charlist/1), [:stdout, :monitor])
    read(os_pid, 0)
  end

  defp read(os_pid, count) do
    receive do
      {:stdout, ^os_pid, bytes} -> read(os_pid, count + byte_size(bytes))
      {:DOWN, ^os_pid, _, _, _} -> count
    end
  end

  def write_all(command, block, count) do
    {:ok, _, os_pid} = :exec.run(Enum.map(command, &String.to_charlist/1), [:stdin, :monitor])
    for _ <- 1..count, do: :exec.send(os_pid, block)
    :exec.send(os_pid, :eof)
    receive do: ({:DOWN, ^os_pid, _, _, _} -> :ok)
  end

  def ping_pong do
    {:ok, _, os_pid} = :exec.run(~c"cat", [:stdin, :stdout])

    {fn ->
       :exec.send(os_pid, "hello\n")
       receive do: ({:stdout, ^os_pid, _} -> :ok)
     end, fn -> :exec.stop(os_pid) end}
  end
end
