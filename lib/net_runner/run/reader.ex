defmodule NetRunner.Run.Reader do
  @moduledoc false
  # Reads a command's stdout for the process that enumerates it.
  #
  # What is there is read by that process itself, with no other between. Where nothing is there, the command's server
  # is asked, as by any reader, and knows when the end has come. The descriptor stays the server's: it closes with
  # the server, and so it cannot outlive the command.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Counters
  alias NetRunner.System.Native

  @enforce_keys [:server]
  defstruct [:server, :direct]

  # `direct`: where bytes can be had without the server.
  @type t :: %__MODULE__{server: pid(), direct: {Native.fd(), Counters.t()} | nil}

  @spec new(pid()) :: t()
  def new(server) when node(server) == node() do
    case Command.lend_stdout(server) do
      {:ok, fd, counters} -> %__MODULE__{server: server, direct: {fd, counters}}
      _not_lent -> %__MODULE__{server: server}
    end
  end

  def new(elsewhere), do: %__MODULE__{server: elsewhere}

  @doc "As `NetRunner.Process.read/2`."
  @spec read(t(), pos_integer()) :: {:ok, binary()} | :eof | {:error, term()}
  def read(%__MODULE__{direct: nil, server: server}, max_bytes),
    do: Command.read(server, max_bytes)

  def read(%__MODULE__{direct: {fd, counters}, server: server}, max_bytes) do
    with :anybody <- Counters.access(counters),
         {:ok, bytes} <- Native.try_read(fd, max_bytes),
         # The server may have begun to discard before these were read; looked at before, that could be missed.
         access when access != :nobody <- Counters.access(counters) do
      Counters.add_read(counters, :stdout, byte_size(bytes))
      {:ok, bytes}
    else
      _ask_the_server -> Command.read(server, max_bytes)
    end
  end
end
