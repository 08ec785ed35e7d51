defmodule NetRunner.Run.Reader do
  @moduledoc false
  # Reads a command's stdout for the process that enumerates it: as a guest, where that is possible, with no other
  # process between. Where nothing is there, the command's server is asked, as by any reader, and knows when the end has
  # come.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Guest

  @enforce_keys [:server]
  defstruct [:server, :guest]

  @type t :: %__MODULE__{server: pid(), guest: Guest.t() | nil}

  @spec new(pid()) :: t()
  def new(server) when node(server) == node() do
    case Command.invite(server) do
      {:ok, guest} -> %__MODULE__{server: server, guest: guest}
      {:error, _gone} -> %__MODULE__{server: server}
    end
  end

  def new(elsewhere), do: %__MODULE__{server: elsewhere}

  @doc "As `NetRunner.Process.read/2`."
  @spec read(t(), pos_integer()) :: {:ok, binary()} | :eof | {:error, term()}
  def read(%__MODULE__{guest: guest, server: server}, max_bytes),
    do: Guest.read(guest, server, max_bytes, :infinity)
end
