defmodule NetRunner.Run.CancelToken do
  @moduledoc false
  # How a capture is cancelled from elsewhere: a flag that stays set, and a registry of the commands that run under it.
  #
  # Nothing has to be cleaned up: the flag goes when nobody refers to it any more, an entry of the registry with the
  # process that captures. The flag is looked at after the command is registered, and `cancel/1` sets it before it looks
  # the commands up, so one of the two finds the other.

  alias NetRunner.Process.Server

  @registry __MODULE__.Registry

  # `ref`: its name, which also tells its node.
  @enforce_keys [:ref, :flag]
  defstruct [:ref, :flag]

  @type t :: %__MODULE__{ref: reference(), flag: :atomics.atomics_ref()}

  @spec child_spec(term()) :: Supervisor.child_spec()
  def child_spec(_) do
    Registry.child_spec(keys: :duplicate, name: @registry)
  end

  @spec new() :: t()
  def new, do: %__MODULE__{ref: make_ref(), flag: :atomics.new(1, [])}

  @doc "From any node: the commands run on behalf of the token's own."
  @spec cancel(t()) :: :ok
  def cancel(%__MODULE__{ref: ref} = token) when node(ref) == node() do
    :atomics.put(token.flag, 1, 1)
    for server <- attached(token), do: Server.end_captured(server, :cancelled)
    :ok
  end

  def cancel(%__MODULE__{ref: ref} = token) do
    :erpc.call(node(ref), __MODULE__, :cancel, [token])
  catch
    # With its node, everything that ran under it is gone.
    :error, {:erpc, _} -> :ok
  end

  defp attached(token) do
    for {_capture, server} <- Registry.lookup(@registry, token.ref), do: server
  rescue
    # Without the application, no command runs.
    ArgumentError -> []
  end

  @doc "Whether it may be given to a command on behalf of this node: only here its flag can be seen."
  @spec here?(t()) :: boolean()
  def here?(%__MODULE__{ref: ref}), do: node(ref) == node()

  @spec cancelled?(t() | nil) :: boolean()
  def cancelled?(nil), do: false
  def cancelled?(%__MODULE__{flag: flag}), do: :atomics.get(flag, 1) == 1

  @doc "From now on, or at once where it was cancelled before, the token ends this command of the calling process."
  @spec attach(t() | nil, pid()) :: :ok
  def attach(nil, _server), do: :ok

  def attach(%__MODULE__{} = token, server) do
    {:ok, _} = Registry.register(@registry, token.ref, server)
    if cancelled?(token), do: Server.end_captured(server, :cancelled)
    :ok
  end

  @doc "The token has no effect any more on this command."
  @spec detach(t() | nil, pid()) :: :ok
  def detach(nil, _server), do: :ok
  def detach(token, server), do: Registry.unregister_match(@registry, token.ref, server)
end
