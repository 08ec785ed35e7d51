defmodule Peers.Runner do
  @doc "Runs `true`, and sees that it exits with status 0."
  @callback run_true() :: term()

  @doc "Reads all that a command prints; the number of bytes."
  @callback read(command :: [String.t()]) :: non_neg_integer()

  @doc "What a command prints when it gets these pieces on its stdin."
  @callback feed(command :: [String.t()], pieces :: Enumerable.t()) :: String.t()

  @doc "Starts `cat`: a function that sends a line there and reads it back, and one that ends it."
  @callback cat() :: {line :: fun(), stop :: fun()}

  @optional_callbacks feed: 2, cat: 0
end

defmodule Peers.Sizes do
  @doc "How many bytes there are in the chunks of a stream."
  def sum(chunks), do: Enum.reduce(chunks, 0, &(byte_size(&1) + &2))
end

defmodule Peers.NetRunner do
  @behaviour Peers.Runner

  def run_true, do: {"", 0} = NetRunner.run(["true"])
  def read(command), do: Peers.Sizes.sum(NetRunner.stream!(command))

  def feed(command, pieces) do
    {output, 0} = NetRunner.run(command, input: pieces)
    output
  end

  def cat, do: Bench.cat()
end

defmodule Peers.CNetRunner do
  # Its modules have the names of this library's. A VM has one of the two.
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
  def read(command), do: command |> Bench.port() |> Bench.port_to_end(0, &byte_size/1)

  # A port cannot close the stdin of a command, which therefore has to end by itself.
  def feed(command, pieces) do
    port = Bench.port(command)
    Enum.each(pieces, &Port.command(port, &1))
    output(port, "")
  end

  def cat, do: Bench.cat_of_a_port()

  defp output(port, text) do
    receive do
      {^port, {:data, more}} -> output(port, text <> more)
      {^port, {:exit_status, 0}} -> text
    end
  end
end

# Both have the same functions.
for {runner, library} <- [{Peers.Exile, Exile}, {Peers.ExCmd, ExCmd}] do
  process = Module.concat(library, Process)

  defmodule runner do
    @behaviour Peers.Runner
    @compile {:no_warn_undefined, [library, process]}

    def run_true, do: [] = Enum.to_list(unquote(library).stream!(["true"]))
    def read(command), do: Peers.Sizes.sum(unquote(library).stream!(command))

    def feed(command, pieces),
      do: command |> unquote(library).stream!(input: pieces) |> Enum.join()

    def cat do
      {:ok, p} = unquote(process).start_link(["cat"])

      line = fn ->
        :ok = unquote(process).write(p, "hello\n")
        {:ok, bytes} = unquote(process).read(p)
        "hello\n" = IO.iodata_to_binary(bytes)
      end

      {line, fn -> {:ok, 0} = unquote(process).await_exit(p) end}
    end
  end
end

defmodule Peers.MuonTrap do
  # `MuonTrap.cmd/3` is a `System.cmd/3`: nothing of it writes to a command's stdin.
  @behaviour Peers.Runner
  @compile {:no_warn_undefined, MuonTrap}

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
  @compile {:no_warn_undefined, :exec}

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
