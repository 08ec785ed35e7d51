defmodule NetRunner.Guarantees.NodeTest do
  # The rows of the fault matrix for commands on another node: every shape of program runs on the worker, for a
  # process of the caller; then one of the two nodes, the caller, or the connection goes.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.{Nodes, Tree}
  alias NetRunner.Process, as: Command

  @kill_timeout 100
  @within @kill_timeout + 60_000

  @shapes Tree.possible_shapes()

  setup_all do
    {:ok, epmd: Nodes.start_epmd()}
  end

  setup %{epmd: epmd} do
    nodes =
      for role <- [:caller, :worker] do
        {peer, node} = Nodes.start(epmd)
        :ok = Nodes.start_net_runner(peer)
        os_pid = peer |> Nodes.call(System, :pid, []) |> String.to_integer()
        {role, %{peer: peer, node: node, os_pid: os_pid, sessions: Tree.sessions(os_pid)}}
      end

    %{caller: caller, worker: worker} = nodes = Map.new(nodes)
    true = Nodes.call(caller.peer, :net_kernel, :connect_node, [worker.node])
    {:ok, Map.put(nodes, :trees, for(shape <- @shapes, do: {shape, Tree.beside_others()}))}
  end

  test "the caller is killed", context do
    {me, _} = start(context)
    Nodes.call(context.caller.peer, Process, :exit, [me, :kill])
    assert_gone(context)
    assert_goes_on(context)
  end

  for side <- [:caller, :worker], other = %{caller: :worker, worker: :caller}[side] do
    test "the #{side}'s node breaks the connection", %{caller: caller} = context do
      {me, [p | _]} = start(context)
      waiting = waiting(context, p)
      # The caller's next call would connect again, and find nobody.
      true =
        Nodes.call(context[unquote(side)].peer, :erlang, :disconnect_node, [
          context[unquote(other)].node
        ])

      assert_disconnected(context, waiting)
      assert_gone(context)
      assert {:error, _} = Nodes.call_from(caller.peer, me, Command, :read, [p])
      true = Nodes.call(caller.peer, :net_kernel, :connect_node, [context.worker.node])
      assert_goes_on(context)
    end
  end

  test "the caller's node is killed with SIGKILL", context do
    start(context)
    :ok = Tree.kill(context.caller.os_pid)
    assert_gone(context)
  end

  test "the caller's node stops", context do
    start(context)
    :ok = Nodes.call(context.caller.peer, :init, :stop, [])
    assert_gone(context)
  end

  test "the worker's node is killed with SIGKILL", %{caller: caller, worker: worker} = context do
    {me, [p | _]} = start(context)
    waiting = waiting(context, p)
    :ok = Tree.kill(worker.os_pid)
    assert_disconnected(context, waiting)
    assert_gone(context)
    Tree.await(fn -> Tree.helpers(worker) == [] end, @within)

    assert Nodes.call_from(caller.peer, me, Nodes, :down, [p]) == {p, :noconnection}

    for {function, args, result} <- [
          {:read, [p], {:error, {:node, :disconnected}}},
          {:write, [p, "x"], {:error, {:node, :disconnected}}},
          {:read_until, [p, "x"], {:error, {:node, :disconnected}}},
          {:ask, [p, 1], {:error, {:node, :disconnected}}},
          {:suspend, [p], {:error, {:node, :disconnected}}},
          {:os_pid, [p], {:error, {:node, :disconnected}}},
          {:alive?, [p], false},
          {:stop, [p], :ok}
        ] do
      assert Nodes.call_from(caller.peer, me, Command, function, args) == result
    end

    assert run(context) == {:error, {:node, :not_connected}}
  end

  test "the node of who asked, watches and holds a place goes: a command that survives that serves the next",
       %{caller: caller, worker: worker} = context do
    [{_, tree} | _] = context.trees
    options = [node: worker.node, owner: nil, env: Tree.env(tree)]
    {:ok, p} = Nodes.call(caller.peer, Command, :start, ["cat", [], options])
    asking = Nodes.start_caller(caller.peer)
    :ok = Nodes.call_from(caller.peer, asking, Command, :ask, [p, 5])
    Nodes.call_from(caller.peer, asking, Command, :monitor, [p])
    Nodes.call_later(caller.peer, Command, :read_until, [p, "never"])
    here = &Nodes.call(worker.peer, Command, &1, [p | &2])
    Tree.await(fn -> Nodes.call(worker.peer, NetRunner.Waiting, :count, [p, :hold]) == 1 end)
    assert here.(:ask, [1]) == {:error, :busy}
    :ok = Tree.kill(caller.os_pid)
    Tree.await(fn -> here.(:ask, [0]) == :ok end)
    Tree.await(fn -> Nodes.call(worker.peer, NetRunner.Waiting, :count, [p, :hold]) == 0 end)
    assert here.(:write, ["left"]) == :ok
    assert here.(:read, []) == {:ok, "left"}
    assert here.(:stop, []) == :ok
  end

  test "the worker's node is killed under a daemon of the caller's",
       %{caller: caller} = context do
    [{_, tree} | _] = context.trees
    [executable | args] = Tree.command(tree, :plain)
    process_opts = [node: context.worker.node, env: Tree.env(tree)]
    options = [cmd: executable, args: args, process_opts: process_opts]
    daemon = Nodes.call_later(caller.peer, Nodes, :run_daemon, [options])
    Tree.await(fn -> Tree.ready?(tree) end)
    :ok = Tree.kill(context.worker.os_pid)
    assert Nodes.result(caller.peer, daemon) == {:node, :disconnected}
    assert_gone(context)
  end

  # A command of each shape, owned by a process of the caller's node.
  defp start(%{caller: caller, worker: worker, trees: trees}) do
    commands = for {shape, tree} <- trees, do: {Tree.command(tree, shape), Tree.env(tree)}
    me = Nodes.start_caller(caller.peer)
    options = [node: worker.node, kill_timeout: @kill_timeout]

    processes = Nodes.call_from(caller.peer, me, Nodes, :start_ready, [commands, options])

    for {_, tree} <- trees, do: assert(length(Tree.processes(tree)) > 0)
    assert Enum.all?(processes, &(node(&1) == worker.node))
    {me, processes}
  end

  # Calls that do not return before something goes.
  defp waiting(%{caller: %{peer: peer}, worker: %{node: node, peer: there}}, p) do
    waiting = %{
      read: Nodes.call_later(peer, Command, :read, [p]),
      await_exit: Nodes.call_later(peer, Command, :await_exit, [p]),
      read_until: Nodes.call_later(peer, Command, :read_until, [p, "never"]),
      down: Nodes.call_later(peer, Nodes, :down, [p]),
      run: Nodes.call_later(peer, NetRunner, :run, [~w(sleep 100), [node: node]]),
      stream: Nodes.call_later(peer, Nodes, :stream_until_error, [~w(sleep 100), [node: node]])
    }

    # The two commands of the last ones run.
    Tree.await(fn ->
      commands = Nodes.call(peer, :erpc, :call, [node, NetRunner.Registry, :all, [:command]])
      length(commands) == length(@shapes) + 2
    end)

    # Nor are the calls still on their way: one that comes later connects again, and finds nobody.
    count = &Nodes.call(there, NetRunner.Waiting, :count, [&1, &2])
    Tree.await(fn -> Enum.map([:stdout, :hold, :exit], &count.(p, &1)) == [1, 1, 1] end)

    Tree.await(fn ->
      Enum.any?(Nodes.call(there, NetRunner, :list, []), &(count.(&1.pid, :collect) == 1))
    end)

    waiting
  end

  defp assert_disconnected(%{caller: %{peer: peer}}, waiting) do
    error = {:error, {:node, :disconnected}}

    for name <- [:read, :await_exit, :read_until, :run],
        do: assert(Nodes.result(peer, waiting[name]) == error)

    assert {_p, :noconnection} = Nodes.result(peer, waiting.down)

    # Caught between two calls, the next one connects again and finds nobody.
    case Nodes.result(peer, waiting.stream) do
      {:raised, :closed, _message} ->
        :ok

      {:raised, {:node, :disconnected}, message} ->
        assert message =~ "lost its connection to this one"
    end
  end

  defp assert_gone(%{trees: trees}) do
    left = fn -> for {shape, tree} <- trees, Tree.processes(tree) != [], do: shape end
    Tree.await(fn -> left.() == [] end, @within, left)
  end

  defp assert_goes_on(%{worker: worker} = context) do
    Tree.await(
      fn ->
        Nodes.call(worker.peer, NetRunner.System.Native, :let_idle_go, [])
        length(Tree.helpers(worker)) == Tree.resting_helpers()
      end,
      @within
    )

    assert run(context) == {"next\n", 0}
  end

  defp run(%{caller: caller, worker: worker}) do
    Nodes.call(caller.peer, NetRunner, :run, [~w(echo next), [node: worker.node]])
  end
end
