defmodule Soak.Peer do
  @moduledoc false
  # Another VM that is connected to this one. One action at a time works with it.

  alias NetRunner.Guarantees.{Nodes, Tree}
  alias Soak.Lock

  # The same name each time: names of nodes are atoms.
  @name ~c"net_runner_soak_peer"

  def start(epmd) do
    {:ok, _} = :net_kernel.start([:"net_runner_soak@127.0.0.1", :longnames])
    sessions = :ets.new(:peer_sessions, [:public])
    # The process that starts a peer is its master, so it is one that lives on.
    {:ok, starter} = Agent.start_link(fn -> Process.flag(:trap_exit, true) end)
    {:ok, lock} = Lock.start_link(:none)
    peer = %{epmd: epmd, starter: starter, lock: lock, sessions: sessions}
    Lock.hold(lock, fn :none -> {:ok, new(peer)} end)
    peer
  end

  @doc "Calls the function with the peer."
  def hold(%{lock: lock}, function), do: Lock.hold(lock, &{function.(&1), &1})

  @doc "The same for a function that ends it; another one takes its place."
  def replace(%{lock: lock} = peer, function) do
    Lock.hold(lock, fn state ->
      result = function.(state)
      {result, new(peer)}
    end)
  end

  def stop(%{lock: lock, starter: starter}) do
    Lock.hold(lock, fn %{control: control} = state ->
      {Agent.get(starter, fn _ -> :peer.stop(control) end, :infinity), state}
    end)
  end

  def sessions(%{sessions: sessions}), do: for({session} <- :ets.tab2list(sessions), do: session)

  @doc "Forgets those of which nothing is left: all but that of the present peer."
  def forget(%{lock: lock, sessions: sessions}) do
    Lock.hold(lock, fn state ->
      :ets.delete_all_objects(sessions)
      remember(sessions, state)
      {:ok, state}
    end)
  end

  defp remember(sessions, %{os_pid: os_pid}) do
    for session <- Tree.sessions(os_pid), do: :ets.insert(sessions, {session})
  end

  @doc "Once more, or first."
  def connect(%{node: node}) do
    true = :net_kernel.connect_node(node)
    :ok
  end

  defp new(peer) do
    state = Agent.get(peer.starter, fn _ -> start_peer(peer) end, :infinity)
    remember(peer.sessions, state)
    Node.set_cookie(state.cookie)
    connect(state)
    state
  end

  defp start_peer(peer) do
    # What the dead one left in the mailbox.
    flush()
    {control, node} = Nodes.start(peer.epmd, name: @name)
    :ok = Nodes.start_net_runner(control)

    %{
      control: control,
      node: node,
      os_pid: control |> Nodes.call(System, :pid, []) |> String.to_integer(),
      cookie: Nodes.call(control, :erlang, :get_cookie, [])
    }
  end

  defp flush do
    receive do
      _ -> flush()
    after
      0 -> :ok
    end
  end
end
