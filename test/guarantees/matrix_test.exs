defmodule NetRunner.Guarantees.MatrixTest do
  # Program shapes x failures. Every cell is a real process tree; all of its processes carry a mark in
  # their environment, and the cell is right when /proc shows none with that mark, no zombie, no
  # helper more than before, and the VM has as many descriptors as before.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  @kill_timeout 100
  @within @kill_timeout + 60_000

  @shapes Tree.shapes()

  setup do
    {:ok, tree: Tree.new()}
  end

  for shape <- @shapes do
    describe "#{shape}:" do
      @shape shape

      @describetag Tree.skip(Tree.reason_to_skip(shape))

      test "exits by itself", %{tree: tree} do
        command = start_ready(tree, @shape)
        if @shape == :stopped, do: Command.kill(command, :sigcont)
        :ok = Command.write(command, "go\n")
        assert Command.await_exit(command, 60_000) == {:ok, 7}
        assert Tree.processes(tree) == []
        assert Command.read(command) == :eof
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "killed with SIGKILL", %{tree: tree} do
        command = start_ready(tree, @shape)
        :ok = Command.kill(command, :sigkill)
        assert Command.await_exit(command, @within) == {:ok, 137}
        assert Tree.processes(tree) == []
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "stopped by its user", %{tree: tree} do
        command = start_ready(tree, @shape)
        :ok = Command.stop(command)
        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      test "timeout", %{tree: tree} do
        run_into_timeout(tree, @shape, 500)
        assert_clean(tree)
      end

      unless shape in [:closes_stdout, :stopped] do
        test "max_output_size", %{tree: tree} do
          env = [{"FLOOD", "1"} | Tree.env(tree)]
          options = [max_output_size: 100_000, kill_timeout: @kill_timeout, env: env]
          options = options ++ Tree.options(tree, @shape)

          assert {:error, {:max_output_exceeded, <<"ready\n", _::binary>> = partial}} =
                   NetRunner.run(Tree.command(tree, @shape), options)

          assert byte_size(partial) == 100_000
          assert Tree.processes(tree) == []
          assert_clean(tree)
        end
      end

      test "the stream's consumer stops early", %{tree: tree} do
        options = [kill_timeout: @kill_timeout, env: Tree.env(tree)] ++ Tree.options(tree, @shape)

        stream =
          NetRunner.stream!(Tree.command(tree, @shape), [input: endless_input()] ++ options)

        assert Enum.take(stream, 1) == ["ready\n"]
        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      test "the stream's consumer crashes", %{tree: tree} do
        options = [kill_timeout: @kill_timeout, env: Tree.env(tree)] ++ Tree.options(tree, @shape)

        stream =
          NetRunner.stream!(Tree.command(tree, @shape), [input: endless_input()] ++ options)

        {_, monitor} =
          spawn_monitor(fn -> Enum.each(stream, fn "ready\n" -> exit(:consumer_crashed) end) end)

        assert_receive {:DOWN, ^monitor, :process, _, :consumer_crashed}, 60_000
        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      test "the stream's consumer is killed", %{tree: tree} do
        options = [kill_timeout: @kill_timeout, env: Tree.env(tree)] ++ Tree.options(tree, @shape)

        stream =
          NetRunner.stream!(Tree.command(tree, @shape), [input: endless_input()] ++ options)

        test = self()
        consumer = spawn(fn -> Enum.each(stream, &send(test, {:chunk, &1})) end)
        assert_receive {:chunk, "ready\n"}, 60_000
        Process.exit(consumer, :kill)
        assert_clean(tree)
      end

      test "the owner dies", %{tree: tree} do
        {owner, command} = start_with_owner(tree, @shape)
        monitor = Process.monitor(command)
        Process.exit(owner, :kill)

        # :noproc, when the server was gone before it saw the monitor: the two signals have two senders.
        assert_receive {:DOWN, ^monitor, :process, _, reason}, 60_000
        assert reason in [:normal, :noproc]
        assert_clean(tree)
      end

      test "a capture of it is cancelled", %{tree: tree} do
        token = NetRunner.cancel_token()

        options =
          [cancel: token, on_output: fn _ -> NetRunner.cancel(token) end] ++
            [input: endless_input(), kill_timeout: @kill_timeout, env: Tree.env(tree)] ++
            Tree.options(tree, @shape)

        command = Tree.command(tree, @shape)

        assert {:ok, %{outcome: :cancelled, stdout: "ready\n"}} =
                 NetRunner.capture(command, options)

        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      # Nobody waits for an output that the command has closed.
      unless shape == :closes_stdout do
        test "the owner dies, and one waits in read_until, one behind it, and one has asked",
             %{tree: tree} do
          {owner, command} = start_with_owner(tree, @shape)
          looks = Task.async(fn -> Command.read_until(command, "never printed") end)
          Tree.await(fn -> waiting(command) == 1 end)
          reads = Task.async(fn -> Command.read(command, 100, 600_000) end)
          Tree.await(fn -> waiting(command) == 2 end)
          :ok = Command.ask(command, 1)
          Process.exit(owner, :kill)
          # What closed the output first is told: that of the command, or the server.
          for task <- [looks, reads],
              do: assert(Task.await(task, @within) in [:eof, {:error, :closed}, {:error, :eof}])

          assert_clean(tree)
        end
      end

      test "who asked for its output dies, and it is stopped", %{tree: tree} do
        command = start_ready(tree, @shape)
        {_, monitor} = spawn_monitor(fn -> :ok = Command.ask(command, 5) end)
        assert_receive {:DOWN, ^monitor, :process, _, :normal}
        :ok = Command.ask(command, 1)
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "suspended, and its owner dies", %{tree: tree} do
        {owner, command} = start_with_owner(tree, @shape)
        :ok = Command.suspend(command)
        Process.exit(owner, :kill)
        assert_clean(tree)
      end

      test "the GenServer is killed", %{tree: tree} do
        command = start_ready(tree, @shape)
        reader = Task.async(fn -> Command.read_stderr(command) end)
        waiter = Task.async(fn -> Command.await_exit(command) end)
        Process.exit(command, :kill)
        assert {:error, _} = Task.await(reader)
        assert Task.await(waiter) == {:error, :closed}
        assert_clean(tree)
      end

      @tag Tree.linux_only()
      test "the shepherd is killed", %{tree: tree} do
        command = start_ready(tree, @shape)
        Tree.kill(Tree.shepherd(command))
        assert Command.await_exit(command, @within) == {:error, :shepherd_died}
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "the launcher is killed", %{tree: tree} do
        command = start_ready(tree, @shape)
        Tree.kill(Tree.launcher(command))
        assert NetRunner.run(~w(echo next)) == {"next\n", 0}
        assert Command.alive?(command)
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      @tag Tree.linux_only()
      test "the launcher is killed, and later the shepherd", %{tree: tree} do
        command = start_ready(tree, @shape)
        shepherd = Tree.shepherd(command)
        launcher = Tree.launcher(command)
        Tree.kill(launcher)
        Tree.await(fn -> Tree.parent(shepherd) not in [launcher, nil] end)
        Tree.kill(shepherd)
        assert Command.await_exit(command, @within) == {:error, :shepherd_died}
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      @tag Tree.linux_only()
      test "the shepherd and the launcher are killed at once", %{tree: tree} do
        command = start_ready(tree, @shape)
        Tree.kill([Tree.shepherd(command), Tree.launcher(command)])
        assert Command.await_exit(command, @within) == {:error, :shepherd_died}
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      @tag Tree.linux_only()
      test "the guard is killed, and then the shepherd", %{tree: tree} do
        command = start_ready(tree, @shape)
        Tree.kill(Tree.parent(Tree.launcher(command)))
        Tree.kill(Tree.shepherd(command))
        assert Command.await_exit(command, @within) == {:error, :shepherd_died}
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "the application is stopped", %{tree: tree} do
        command = start_ready(tree, @shape)
        monitor = Process.monitor(command)
        ExUnit.CaptureLog.capture_log(fn -> :ok = Application.stop(:net_runner) end)
        assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
        assert NetRunner.run(~w(true)) == {:error, :not_started}
        Tree.await(fn -> Tree.processes(tree) == [] and Tree.helpers() == [] end, @within)
        {:ok, _} = Application.ensure_all_started(:net_runner)
        assert_clean(tree)
      end
    end
  end

  # The helpers are stopped first, so that none of them sees another one die and ends the command itself.
  describe "guard, launcher and shepherd are killed at once:" do
    @describetag Tree.skip(Tree.reason_to_skip(:own_processes))

    test "the kernel ends a command with processes of its own, and all that it started", %{
      tree: tree
    } do
      command = start_ready(tree, :own_processes)
      assert length(Tree.processes(tree)) > 5
      kill_helpers_at_once(command)
      Tree.await(fn -> Tree.processes(tree) == [] end, @within, fn -> Tree.processes(tree) end)
      assert Command.await_exit(command, @within) == {:error, :shepherd_died}
      :ok = Command.stop(command)
      assert_clean(tree)
    end

    test "without a namespace, what it started is left", %{tree: tree} do
      [executable | args] = Tree.command(tree, :own_processes)
      {:ok, command} = Command.start(executable, args, env: Tree.env(tree))
      assert Command.read(command) == {:ok, "ready\n"}
      os_pid = Command.os_pid(command)
      kill_helpers_at_once(command)
      Tree.await(fn -> Tree.stat(os_pid) == nil or Tree.stat(os_pid).state == "Z" end)
      assert length(Tree.processes(tree)) > 5
      :ok = Command.stop(command)
      Tree.kill_all(tree)
      assert_clean(tree)
    end
  end

  defp kill_helpers_at_once(command) do
    shepherd = Tree.shepherd(command)
    launcher = Tree.launcher(command)
    helpers = [shepherd, launcher, Tree.parent(launcher)]
    {_, 0} = System.cmd("kill", ["-STOP" | Enum.map(helpers, &to_string/1)])
    Enum.each(helpers, &Tree.await_stopped/1)
    :ok = Tree.kill(helpers)
  end

  # No event can be awaited here: the time has to pass, and the tree has to stand by then. On a slow machine it takes longer.
  defp run_into_timeout(tree, shape, timeout) when timeout <= 62_500 do
    options = [timeout: timeout, kill_timeout: @kill_timeout, env: Tree.env(tree)]
    options = [input: endless_input()] ++ options ++ Tree.options(tree, shape)
    assert NetRunner.run(Tree.command(tree, shape), options) == {:error, :timeout}
    assert Tree.processes(tree) == []
    unless Tree.ready?(tree), do: run_into_timeout(tree, shape, 5 * timeout)
  end

  defp start_ready(tree, shape, options \\ []) do
    [executable | args] = Tree.command(tree, shape)

    options =
      [kill_timeout: @kill_timeout, env: Tree.env(tree)] ++ options ++ Tree.options(tree, shape)

    {:ok, command} = Command.start(executable, args, options)
    assert Command.read(command) == {:ok, "ready\n"}
    if shape == :stopped, do: Tree.await_stopped(Command.os_pid(command))
    assert length(Tree.processes(tree)) > 0
    command
  end

  # How many callers wait for stdout.
  defp waiting(command),
    do: length(NetRunner.Process.Operations.all(:sys.get_state(command).outlets.queue))

  defp start_with_owner(tree, shape) do
    test = self()

    owner =
      spawn(fn ->
        send(test, {:started, start_ready(tree, shape)})
        Process.sleep(:infinity)
      end)

    assert_receive {:started, command}, 60_000
    {owner, command}
  end

  # Keeps stdin open, and gives nothing.
  defp endless_input, do: Stream.repeatedly(fn -> Process.sleep(:infinity) end)

  defp assert_clean(tree) do
    Tree.await(fn -> Tree.cgroups(tree) == [] end, @within, fn -> Tree.cgroups(tree) end)
    Tree.await(fn -> Tree.processes(tree) == [] end, @within, fn -> Tree.processes(tree) end)
    Tree.await(fn -> Tree.at_rest?() end, @within, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= tree.fds end, @within, fn -> {tree.fds, Tree.fd_targets()} end)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
  end
end

defmodule NetRunner.Guarantees.MatrixTest.VM do
  # The VM dies: every shape runs in one VM of its own, which is then ended in one of these ways.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  @kill_timeout 100

  for {how, what} <- [
        killed: "is killed with SIGKILL",
        halted: "halts (System.halt)",
        stopped: "stops (init:stop)",
        dumped: "crashes with a dump"
      ] do
    @how how
    test "the VM #{what}, with every shape running" do
      trees = for shape <- Tree.possible_shapes(), do: {shape, Tree.beside_others()}
      vm = Tree.start_vm(trees, @kill_timeout)
      Tree.end_vm_and_trees(vm, @how, trees)
    end
  end
end
