defmodule NetRunner.Daemon.Directory do
  @moduledoc false
  # Which command belongs to which daemon, in a table. A daemon that starts or stops waits for its command, and a
  # callback may be what it waits for. So nobody may have to ask the daemon itself.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Client
  alias NetRunner.Registry

  @doc "Notes the command of the daemon that calls this, until the daemon is gone."
  @spec put(command :: pid()) :: :ok | {:error, :not_started}
  def put(command) do
    with {:ok, _} <- Registry.put({:daemon, self()}, command), do: :ok
  end

  @doc "All daemons on this node, each with its command."
  @spec all() :: [{daemon :: pid(), command :: pid()}]
  def all, do: Registry.all(:daemon)

  @doc "The command of a daemon, which may be on another node."
  @spec find(GenServer.server()) :: {:ok, pid()} | {:error, Command.gone()}
  def find(daemon) do
    case GenServer.whereis(Client.server!(daemon)) do
      nil -> {:error, :closed}
      pid when is_pid(pid) and node(pid) == node() -> find_here(pid)
      pid when is_pid(pid) -> find_there(node(pid), pid)
      {_name, node} = there -> find_there(node, there)
    end
  end

  defp find_here(pid) do
    case Registry.get({:daemon, pid}) do
      [command] -> {:ok, command}
      [] -> {:error, :closed}
    end
  end

  defp find_there(node, daemon) do
    :erpc.call(node, __MODULE__, :find, [daemon])
  catch
    :error, {:erpc, _} -> {:error, {:node, :disconnected}}
    # The node has no NetRunner, or one that is not of this version.
    :error, {:exception, :undef, [{__MODULE__, _, _, _} | _]} -> {:error, :closed}
  end
end
