defmodule NetRunner.Run.CancelToken do
  @moduledoc false
  # How a capture is cancelled from elsewhere: a flag that stays set, and a registry of the commands that run under it.
  #
  # Nothing has to be cleaned up: the flag goes when nobody refers to it any more, an entry of the registry with the
  # process that made it, and that process with the command's server. It is a process of its own because a process with an
  # entry is linked to the registry, and would die with it when the application stops. The flag is looked at after the command is registered, and
  # `cancel/1` sets it before it looks the commands up, so one of the two finds the other.

  alias NetRunner.Process.Server
  alias NetRunner.Registry

  # In ms, between two tries to register.
  @restart 100

  # `ref`: its name, which also tells its node.
  @enforce_keys [:ref, :flag]
  defstruct [:ref, :flag]

  @type t :: %__MODULE__{ref: reference(), flag: :atomics.atomics_ref()}

  @spec new() :: t()
  def new, do: %__MODULE__{ref: make_ref(), flag: :atomics.new(1, [])}

  @doc "From any node: the commands run on behalf of the token's own."
  @spec cancel(t()) :: :ok
  def cancel(%__MODULE__{ref: ref} = token) when node(ref) == node() do
    set(token)
    for server <- Registry.get({:token, ref}), do: Server.end_captured(server, :cancelled)
    :ok
  end

  def cancel(%__MODULE__{ref: ref} = token) do
    :erpc.call(node(ref), __MODULE__, :cancel, [token])
  catch
    # Its node is gone, and everything that ran under it; or it cannot be reached.
    :error, {:erpc, _} -> :ok
  end

  defp set(%__MODULE__{flag: flag}) do
    :atomics.put(flag, 1, 1)
  rescue
    # Nobody on this node refers to it any more, so nobody can look at it.
    ArgumentError -> :ok
  end

  @doc "Whether it may be given to a command on behalf of this node: only here its flag can be seen."
  @spec here?(t()) :: boolean()
  def here?(%__MODULE__{ref: ref}), do: node(ref) == node()

  @spec cancelled?(t() | nil) :: boolean()
  def cancelled?(nil), do: false
  def cancelled?(%__MODULE__{flag: flag}), do: :atomics.get(flag, 1) == 1

  @doc "From now on, or at once where it was cancelled before, the token ends this command, as long as its server is there."
  @spec attach(t() | nil, pid()) :: :ok
  def attach(nil, _server), do: :ok

  def attach(%__MODULE__{} = token, server) do
    _ = spawn(__MODULE__, :hold, [token, server])
    :ok
  end

  @doc false
  @spec hold(t(), pid()) :: :ok
  def hold(token, server) do
    # The registry may be restarted.
    Process.flag(:trap_exit, true)
    monitor = Process.monitor(server)
    register(token, server)
    :erlang.hibernate(__MODULE__, :await_end, [token, server, monitor])
  end

  @doc false
  # Race: upgraded while it waits. The entry would go with it.
  @spec await_end(t(), pid(), reference()) :: :ok
  def await_end(token, server, monitor) do
    receive do
      {:DOWN, ^monitor, _, _, _} ->
        :ok

      message ->
        if message == :register or match?({:EXIT, _, _}, message), do: register(token, server)
        # Others are of whoever has got hold of this pid.
        :erlang.hibernate(__MODULE__, :await_end, [token, server, monitor])
    end
  end

  # While there is no registry, it is restarted. Or the application stops, and all commands end.
  defp register(token, server) do
    case Registry.put({:token, token.ref}, server) do
      {:ok, _} -> if cancelled?(token), do: Server.end_captured(server, :cancelled)
      {:error, :not_started} -> Process.send_after(self(), :register, @restart)
    end
  end
end
