defmodule NetRunner.NodeTest do
  # `caller` and `worker` are two nodes: what is called on the first runs on the second.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.{Nodes, Tree}
  alias NetRunner.Memory
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Listing

  setup_all do
    epmd = Nodes.start_epmd()
    {caller, caller_node} = Nodes.start(epmd)
    {worker, worker_node} = Nodes.start(epmd)
    for peer <- [caller, worker], do: :ok = Nodes.start_net_runner(peer)
    true = Nodes.call(caller, :net_kernel, :connect_node, [worker_node])

    {:ok, epmd: epmd, caller: caller, caller_node: caller_node, worker: worker, node: worker_node}
  end

  describe "run:" do
    test "the results are the same", %{caller: caller, node: node} do
      for {command, options, result} <- [
            {~w(echo hello), [], {"hello\n", 0}},
            {~w(tr a-z A-Z), [input: "hello"], {"HELLO", 0}},
            {["sh", "-c", "echo $WHO; exit 3"], [env: %{"WHO" => "me"}], {"me\n", 3}},
            {["sh", "-c", "kill -9 $$"], [], {"", 137}},
            {~w(sleep 100), [timeout: 50], {:error, :timeout}},
            {~w(yes), [max_output_size: 3], {:error, {:max_output_exceeded, "y\ny"}}},
            {~w(no-such-program), [], {:error, :enoent}},
            {~w(true), [cd: "/nowhere"], {:error, {:cd, :enoent}}}
          ] do
        assert run(caller, command, [node: node] ++ options) == result
      end

      assert {:error, {:invalid_args, _}} = run(caller, ["echo", 1], node: node)
    end

    test "a wrong option raises where it is given", %{caller: caller, node: node} do
      assert_raise ArgumentError, "unknown option :tmeout; did you mean :timeout?", fn ->
        NetRunner.run(~w(true), tmeout: 1, node: node)
      end

      assert_raise ArgumentError, ~r/:node must be the name of a node/, fn ->
        NetRunner.run(~w(true), node: "worker@host")
      end

      assert run(caller, ~w(echo here), node: nil) == {"here\n", 0}
    end

    test "progress sees the bytes of a command there, until it is over", %{
      caller: caller,
      node: node
    } do
      call = fn module, function, arguments -> Nodes.call(caller, module, function, arguments) end
      {:ok, p} = call.(Command, :start, ["cat", [], [node: node, owner: nil]])
      :ok = call.(Command, :write, [p, "hello"])
      assert call.(Listing, :bytes, [p]) == %{in: 5, out: 0, err: 0}
      :ok = call.(Command, :stop, [p])
      assert call.(Listing, :bytes, [p]) == nil
      assert run(caller, ~w(sleep 0.3), node: node, progress: true) == {"", 0}
    end

    test "input is produced on the caller's node", %{caller: caller} = nodes do
      result = Nodes.call(caller, Nodes, :where_input_is_produced, [nodes.node])
      assert result == {"1 #{nodes.caller_node} 2 #{nodes.caller_node} ", 0}
    end

    test "a part of the input may be produced on another node", %{caller: caller} = nodes do
      for node <- [nil, nodes.node] do
        result = Nodes.call(caller, Nodes, :input_with_help, [node, nodes.node])
        assert result == {"one two three", 0}
      end
    end

    test "input that fails raises in the caller", %{caller: caller, node: node} do
      assert Nodes.call(caller, Nodes, :input_that_raises, [node]) == {:raised, "no input"}
    end

    test "10 MiB each way arrive as they were", %{caller: caller, node: node} do
      assert Nodes.call(caller, Nodes, :there_and_back, [node, 10 * 1_048_576]) == :the_same
    end
  end

  describe "a capture:" do
    defp capture(caller, command, options) do
      assert {:ok, result} = Nodes.call(caller, NetRunner, :capture, [command, options])
      result
    end

    test "the results are the same", %{caller: caller, node: node} do
      script = "trap 'echo bye; exit 7' TERM; echo hello; while :; do sleep 0.05; done"

      for {command, options, expected} <- [
            {["sh", "-c", "cat; echo e >&2; exit 3"], [input: "in"],
             %{outcome: :ended, status: 3, exit: {:exited, 3}, stdout: "in", stderr: "e\n"}},
            {["sh", "-c", script], [timeout: 3_000],
             %{outcome: :timeout, status: 7, stdout: "hello\nbye\n"}},
            {["sh", "-c", "echo a; exec sleep 100"], [idle_timeout: 1_500],
             %{outcome: :idle_timeout, status: 143, stdout: "a\n"}},
            {~w(yes), [max_output_size: [stdout: 3]],
             %{outcome: {:output_limit, :stdout}, stdout: "y\ny"}},
            {~w(seq 1000), [keep: {2, 5}],
             %{outcome: :ended, stdout: "1\n1000\n", dropped: %{stdout: 3886, stderr: 0}}},
            {~w(echo a), [interleave: true], %{output: [stdout: "a\n"], stdout: nil}}
          ] do
        result = capture(caller, command, [node: node] ++ options)
        assert Map.take(result, Map.keys(expected)) == expected
        assert result.command == command and is_integer(result.os_pid)
      end

      error = {:error, {:node, :not_connected}}
      assert Nodes.call(caller, NetRunner, :capture, [~w(true), [node: :no@where]]) == error
      assert Nodes.call(caller, NetRunner, :run!, [~w(echo a), [node: node]]) == "a\n"

      assert Nodes.call(caller, NetRunner, :shell, ["echo $1", [args: ["a"], node: node]]) ==
               {"a\n", 0}

      assert Nodes.call(caller, NetRunner, :cmd, ["cat", [], [input: "a", node: node]]) ==
               {"a", 0}
    end

    test "is cancelled from its own node, and from another", %{caller: caller} = nodes do
      command = ["sh", "-c", "echo a; exec sleep 100"]

      for canceller <- [nodes.caller_node, nodes.node], on <- [nil, nodes.node] do
        assert {{:ok, %{outcome: :cancelled, status: 143, stdout: "a\n"}}, {:error, :cancelled}} =
                 Nodes.call(caller, Nodes, :capture_cancelled, [command, [node: on], canceller])
      end
    end

    test "is cancelled also when the registry of its own node was restarted meanwhile", nodes do
      arguments = [["sh", "-c", "echo a; exec sleep 100"], [node: nodes.node]]

      assert {:ok, %{outcome: :cancelled, status: 143, stdout: "a\n"}} =
               Nodes.call(nodes.caller, Nodes, :capture_cancelled_after_restart, arguments)
    end

    test "may be cancelled from elsewhere when its own node has forgotten the token", nodes do
      token = Nodes.call(nodes.caller, NetRunner, :cancel_token, [])
      assert Nodes.call(nodes.caller, NetRunner, :cancel, [token]) == :ok
      assert Nodes.call(nodes.worker, NetRunner, :cancel, [token]) == :ok
    end

    test "takes no token of another node, whose flag it could not see", %{caller: caller} do
      token = Nodes.call(caller, NetRunner, :cancel_token, [])

      assert_raise ArgumentError, ~r/:cancel must be a token .* made on this node/, fn ->
        NetRunner.capture(~w(true), cancel: token)
      end
    end

    test "has an input that fails in its outcome", %{caller: caller, node: node} do
      assert {:ok, %{outcome: {:input_failed, %RuntimeError{message: "no input"}}}} =
               Nodes.call(caller, Nodes, :capture_with_failing_input, [[node: node]])
    end

    test "whose node is lost says so, with what was printed before", %{caller: caller, epmd: epmd} do
      {peer, node} = Nodes.start(epmd)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      :ok = Nodes.start_net_runner(peer)
      tree = Tree.beside_others()
      command = ["sh", "-c", "echo before; exec sleep 100"]
      options = [node: node, env: Tree.env(tree)]
      agent = Nodes.call_later(caller, NetRunner, :capture, [command, options])
      # The caller has got all of it, and waits for more.
      Tree.await(fn ->
        with [%{bytes: %{out: 7}, pid: server}] <- Nodes.call(peer, NetRunner, :list, []),
             do: Nodes.call(peer, NetRunner.Waiting, :count, [server, :any]) == 1,
             else: (_ -> false)
      end)

      true = Nodes.call(caller, :erlang, :disconnect_node, [node])

      assert {:ok, %{outcome: :node_lost, stdout: "before\n", status: nil, exit: nil} = result} =
               Nodes.result(caller, agent)

      assert is_integer(result.os_pid) and result.duration_ms >= 0
      Tree.await(fn -> Tree.processes(tree) == [] end)
      :peer.stop(peer)
    end
  end

  describe "a process:" do
    test "lives on the node, and is used from the other", %{caller: caller, node: node} do
      me = Nodes.start_caller(caller)
      call = fn function, args -> Nodes.call_from(caller, me, Command, function, args) end
      {:ok, p} = call.(:start, ["cat", [], [node: node]])
      assert node(p) == node
      assert call.(:write, [p, [["he", ["llo"]]]]) == :ok
      assert call.(:read, [p, 3]) == {:ok, "hel"}
      assert call.(:read, [p]) == {:ok, "lo"}
      assert call.(:alive?, [p])
      assert File.read!("/proc/#{call.(:os_pid, [p])}/comm") == "cat\n"
      assert call.(:await_exit, [p, 10]) == {:error, :timeout}
      assert call.(:close_stdin, [p]) == :ok
      assert call.(:read, [p]) == :eof
      assert call.(:await_exit, [p]) == {:ok, 0}
      assert %{bytes_in: 5, bytes_out: 5, exit_status: 0} = call.(:stats, [p])
      assert call.(:stop, [p]) == :ok
      assert call.(:read, [p]) == {:error, :closed}
    end

    test "is signalled", %{caller: caller, node: node} do
      me = Nodes.start_caller(caller)
      call = fn function, args -> Nodes.call_from(caller, me, Command, function, args) end
      {:ok, p} = call.(:start_link, ["sleep", ["100"], [node: node]])
      assert call.(:kill, [p, :sigint]) == :ok
      assert call.(:await_exit, [p]) == {:ok, 130}
    end

    test "is read, written, asked and watched with a time, as here", %{caller: caller, node: node} do
      me = Nodes.start_caller(caller)
      call = fn function, args -> Nodes.call_from(caller, me, Command, function, args) end
      {:ok, p} = call.(:start, ["cat", [], [node: node, stderr: :pipe, pipe_size: 0]])

      for function <- [:read, :read_stderr, :read_any],
          do: assert(call.(function, [p, 10, 20]) == {:error, :timeout})

      assert call.(:write, [p, "one two three", 60_000]) == :ok
      assert call.(:read_until, [p, "two"]) == {:ok, {"one ", "two"}}
      # No regex: since OTP 28, one that was compiled on this node means nothing on another.
      assert call.(:read_until, [p, "x", [timeout: 20]]) == {:error, :timeout}
      assert call.(:read, [p, 100, 60_000]) == {:ok, " three"}

      assert call.(:suspend, [p]) == :ok
      big = :binary.copy("x", 1_000_000)
      assert {:error, {:timeout, n}} = call.(:write, [p, big, 100])
      assert n < 1_000_000
      assert call.(:resume, [p]) == :ok
      assert Nodes.call_from(caller, me, Nodes, :read_exactly, [p, n]) == n

      other = Nodes.start_caller(caller)
      assert Nodes.call_from(caller, other, Command, :ask, [p, 1]) == :ok
      assert call.(:ask, [p, 1]) == {:error, :busy}
      assert Nodes.call_from(caller, other, Command, :ask, [p, 0]) == :ok
      messages = Nodes.call_from(caller, me, Nodes, :follow, [p, [["he", ["llo"]]]])

      assert Enum.sort(messages) ==
               Enum.sort([
                 {:stdout, "hello"},
                 {:eof, :stdout},
                 {:eof, :stderr},
                 {:exit, 0},
                 {:down, {:exit, 0}}
               ])

      assert Nodes.call_from(caller, me, Nodes, :down, [p]) == {p, {:exit, 0}}
    end

    test "ends when its owner on another node dies", %{caller: caller, worker: worker} = nodes do
      tree = Tree.beside_others()
      owner = Nodes.start_caller(worker)
      command = {Tree.command(tree, :plain), Tree.env(tree)}
      # On the caller's own node, for somebody elsewhere.
      [p] = Nodes.call(caller, Nodes, :start_ready, [[command], [owner: owner]])
      assert node(p) == nodes.caller_node
      Nodes.call(worker, Process, :exit, [owner, :kill])
      Tree.await(fn -> Tree.processes(tree) == [] end)
    end
  end

  describe "a stream:" do
    test "makes the command wait for its consumer", %{caller: caller, worker: worker} = nodes do
      tree = Tree.beside_others()
      gate = Nodes.call(caller, Nodes, :start_gate, [])
      script = "echo ready; exec head -c 300000000 /dev/zero"
      options = [node: nodes.node, env: Tree.env(tree)]
      before = for peer <- [caller, worker], do: memory(peer)

      agent =
        Nodes.call_later(caller, Nodes, :stream_with_pause, [
          ["sh", "-c", script],
          options,
          5,
          gate
        ])

      Tree.await(fn -> Nodes.call(caller, Nodes, :paused, [gate]) != nil end)
      [os_pid] = Tree.processes(tree)
      written = Tree.await_blocked(os_pid)
      # What five reads took, and the pipe.
      assert written < 5 * 262_144 + 2 * 1_048_576

      for {peer, before} <- Enum.zip([caller, worker], before) do
        assert memory(peer) - before < 2 * 1_048_576
      end

      send_go(caller, gate)
      {first, rest} = Nodes.result(caller, agent)
      assert first + rest == 300_000_000 + byte_size("ready\n")
      assert Tree.processes(tree) == []
    end

    @tag Tree.skip(Tree.needs_its_code())
    test "that stops early ends the command", %{caller: caller, node: node} do
      tree = Tree.beside_others()
      {:ok, stream} = {:ok, NetRunner.stream!(~w(yes), node: node, env: Tree.env(tree))}
      assert is_function(stream, 2)
      [chunk] = Nodes.call(caller, Enum, :take, [stream, 1])
      assert binary_part(chunk, 0, 4) == "y\ny\n"
      assert Tree.processes(tree) == []
    end

    defp memory(peer), do: Nodes.call(peer, Memory, :of_binaries, [])

    defp send_go(caller, gate) do
      paused = Nodes.call(caller, Nodes, :paused, [gate])
      Nodes.call(caller, :erlang, :send, [paused, :go])
    end
  end

  describe "a node that" do
    test "is not connected", %{caller: caller} do
      assert NetRunner.run(~w(true), node: :no@where) == {:error, {:node, :not_connected}}
      assert run(caller, ~w(true), node: :no@where) == {:error, {:node, :not_connected}}

      assert_raise NetRunner.Error,
                   "`true` failed: its node (:node) is not connected: call Node.connect/1 first",
                   fn -> ~w(true) |> NetRunner.stream!(node: :no@where) |> Enum.to_list() end
    end

    test "has no NetRunner", %{caller: caller, epmd: epmd} do
      {peer, node} = Nodes.start(epmd, code: false)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      assert run(caller, ~w(true), node: node) == {:error, {:node, :no_net_runner}}
      :peer.stop(peer)
    end

    test "has not started it", %{caller: caller, epmd: epmd} do
      {peer, node} = Nodes.start(epmd)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      assert run(caller, ~w(true), node: node) == {:error, {:node, :not_started}}
      :ok = Nodes.call(peer, Application, :load, [:net_runner])
      assert run(caller, ~w(true), node: node) == {:error, {:node, :not_started}}
      :ok = Nodes.start_net_runner(peer)
      assert run(caller, ~w(echo now), node: node) == {"now\n", 0}
      :peer.stop(peer)
    end

    test "has another version", %{caller: caller, epmd: epmd} do
      {peer, node} = Nodes.start(epmd)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      {:ok, [spec]} = :file.consult(Application.app_dir(:net_runner, "ebin/net_runner.app"))
      spec = put_elem(spec, 2, Keyword.put(elem(spec, 2), :vsn, ~c"9.9.9"))
      :ok = Nodes.call(peer, :application, :load, [spec])
      :ok = Nodes.start_net_runner(peer)
      error = {:error, {:node, {:version, "9.9.9"}}}
      assert run(caller, ~w(true), node: node) == error
      assert NetRunner.Error.describe(elem(error, 1)) =~ "has NetRunner 9.9.9, and this one 0."
      :peer.stop(peer)
    end
  end

  defp run(caller, command, options), do: Nodes.call(caller, NetRunner, :run, [command, options])
end
