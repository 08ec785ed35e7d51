defmodule NetRunner.Process.Listing do
  @moduledoc false
  # The commands that run in this VM: what `NetRunner.list/0` shows. Each server registers its command, and the
  # registry forgets it with the server.

  alias NetRunner.{Error, Figures, Registry}
  alias NetRunner.Process.{Counters, Stats}

  @behaviour Access

  # How long another node may take to answer.
  @patience_ms 5_000

  @enforce_keys [:pid, :os_pid, :command, :started_at, :bytes]
  defstruct @enforce_keys

  # A struct so that it prints on one line; otherwise it is used as the map that it is.
  @type t :: %__MODULE__{
          pid: pid(),
          os_pid: pos_integer(),
          command: [String.t()],
          started_at: DateTime.t(),
          bytes: Counters.bytes()
        }

  @impl Access
  def fetch(entry, key), do: Map.fetch(entry, key)

  @impl Access
  def get_and_update(entry, key, function), do: Map.get_and_update(entry, key, function)

  @impl Access
  def pop(entry, key), do: entry |> Map.from_struct() |> Map.pop(key)

  @doc """
  Lists the command of the calling process. This links the process to the registry, so that it ends when the
  application stops.
  """
  @spec register(
          [String.t()],
          pos_integer(),
          system_time :: integer(),
          Counters.t(),
          kill_timeout :: non_neg_integer()
        ) :: {:ok, registry :: pid()} | {:error, :not_started}
  def register(command, os_pid, started, counters, kill_timeout) do
    Registry.put({:command, self()}, {command, os_pid, started, counters, kill_timeout})
  end

  @doc "The commands that run, in the order of their starts. Asks none of their processes."
  @spec list() :: [t()]
  def list do
    for {pid, {command, os_pid, started, counters, _}} <-
          Enum.sort_by(Registry.all(:command), &started/1),
        not Counters.ended?(counters) do
      %__MODULE__{
        pid: pid,
        os_pid: os_pid,
        command: command,
        started_at: Stats.started_at(started),
        bytes: Counters.bytes(counters)
      }
    end
  end

  @doc "The bytes of the command of a server so far, wherever that is; `nil` when it is gone."
  @spec bytes(pid()) :: Counters.bytes() | nil
  def bytes(server) when node(server) == node() do
    case Registry.get({:command, server}) do
      [{_command, _os_pid, _started, counters, _kill_timeout}] -> Counters.bytes(counters)
      [] -> nil
    end
  end

  def bytes(server) do
    :erpc.call(node(server), __MODULE__, :bytes, [server], @patience_ms)
  catch
    # The node is gone, or has another version of this.
    :error, _ -> nil
  end

  @doc "The servers that run, also of commands that are over, and how long each command may take to end: its `:kill_timeout`."
  @spec servers() :: [{pid(), kill_timeout :: non_neg_integer()}]
  def servers do
    for {pid, {_command, _os_pid, _started, _counters, kill_timeout}} <- Registry.all(:command),
        do: {pid, kill_timeout}
  end

  defp started({_pid, {_command, _os_pid, started, _counters, _kill_timeout}}), do: started

  defimpl Inspect do
    def inspect(%{bytes: bytes} = entry, _options) do
      since = entry.started_at |> DateTime.truncate(:second) |> DateTime.to_string()

      IO.iodata_to_binary([
        "#NetRunner<#{entry.command |> Error.command_line() |> Figures.harmless()}, ",
        "PID #{entry.os_pid}, since #{since}, ",
        "#{Figures.bytes(bytes.in)} in, #{Figures.bytes(bytes.out + bytes.err)} out, ",
        "#{inspect(entry.pid)}>"
      ])
    end
  end
end
