defmodule NetRunner.Guarantees.DaemonTest do
  # The rows of the fault matrix for a daemon: every shape of program, under a supervisor, ended in every
  # way. Counted in /proc, as in the matrix.
  use ExUnit.Case, async: false

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.Tree

  @moduletag :capture_log
  @kill_timeout 100
  @within @kill_timeout + 60_000

  @shapes Tree.shapes()

  setup do
    {:ok, tree: Tree.new()}
  end

  for shape <- @shapes do
    describe "#{shape}:" do
      @shape shape

      if reason = Tree.reason_to_skip(shape), do: @describetag(skip: reason)

      test "stopped by its supervisor: nothing is left when that returns", %{tree: tree} do
        {supervisor, _daemon} = start(tree, @shape)
        :ok = Supervisor.terminate_child(supervisor, Daemon)
        assert Tree.processes(tree) == []
        :ok = Supervisor.stop(supervisor)
        assert_clean(tree)
      end

      test "exits by itself: nothing is left when the supervisor knows", %{tree: tree} do
        {supervisor, daemon} = start(tree, @shape)
        monitor = Process.monitor(daemon)
        if @shape == :stopped, do: signal(daemon, "CONT")
        :ok = Daemon.write(daemon, "go\n")
        assert_receive {:DOWN, ^monitor, :process, _, {:exit_status, 7}}, 60_000
        assert Tree.processes(tree) == []
        :ok = Supervisor.stop(supervisor)
        assert_clean(tree)
      end

      test "the daemon is killed", %{tree: tree} do
        {supervisor, daemon} = start(tree, @shape)
        Process.exit(daemon, :kill)
        assert_clean(tree)
        :ok = Supervisor.stop(supervisor)
      end

      test "the supervisor is killed", %{tree: tree} do
        {supervisor, daemon} = start(tree, @shape)
        monitor = Process.monitor(daemon)
        Process.exit(supervisor, :kill)
        assert_receive {:DOWN, ^monitor, :process, _, :killed}, @within
        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      @tag Tree.linux_only()
      test "the shepherd is killed", %{tree: tree} do
        {supervisor, daemon} = start(tree, @shape)
        monitor = Process.monitor(daemon)
        Tree.kill(Tree.parent(Daemon.os_pid(daemon)))
        assert_receive {:DOWN, ^monitor, :process, _, :shepherd_died}, @within
        :ok = Supervisor.stop(supervisor)
        assert_clean(tree)
      end
    end
  end

  # All at once: what has been printed has some time to be handled before a daemon stops, which a callback that hangs uses up.
  test "shapes that print without end to callbacks that hang are stopped" do
    test = self()
    shapes = Tree.possible_shapes() -- [:closes_stdout, :stopped]

    daemons =
      for {shape, tree} <- Enum.map(shapes, &{&1, Tree.new()}) do
        callback = fn bytes ->
          send(test, {:got, shape, byte_size(bytes)})
          Process.sleep(:infinity)
        end

        {shape, tree, [on_output: callback, env: [{"FLOOD", "1"} | Tree.env(tree)]]}
      end

    daemons =
      for {shape, tree, options} <- daemons do
        {supervisor, daemon} = start(tree, shape, options)
        assert_receive {:got, ^shape, size}
        assert %{bytes_out: ^size} = Daemon.stats(daemon)
        {tree, supervisor}
      end

    daemons
    |> Enum.map(fn {tree, supervisor} ->
      Task.async(fn ->
        :ok = Supervisor.terminate_child(supervisor, Daemon)
        assert Tree.processes(tree) == []
        :ok = Supervisor.stop(supervisor)
      end)
    end)
    |> Task.await_many(60_000)

    for {tree, _} <- daemons, do: assert_clean(tree)
  end

  defp start(tree, shape, options \\ []) do
    {env, options} = Keyword.pop(options, :env, Tree.env(tree))
    options = [ready: {:output, ~r/ready\n/}] ++ child(tree, shape, env) ++ options
    child = Supervisor.child_spec({Daemon, options}, restart: :temporary)
    {:ok, supervisor} = start_unlinked([child])
    [{Daemon, daemon, _, _}] = Supervisor.which_children(supervisor)
    if shape == :stopped, do: Tree.await_stopped(Daemon.os_pid(daemon))
    assert length(Tree.processes(tree)) > 0
    {supervisor, daemon}
  end

  defp start_unlinked(children) do
    {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    Process.unlink(supervisor)
    {:ok, supervisor}
  end

  def child(tree, shape, env) do
    [executable | args] = Tree.command(tree, shape)
    sandbox = if shape == :own_processes, do: Tree.options(tree, shape), else: []
    process_opts = [kill_timeout: @kill_timeout, env: env] ++ sandbox
    [cmd: executable, args: args, process_opts: process_opts]
  end

  defp signal(daemon, name) do
    {_, 0} = System.cmd("kill", ["-#{name}", "#{Daemon.os_pid(daemon)}"])
  end

  defp assert_clean(tree) do
    Tree.await(fn -> Tree.processes(tree) == [] end, @within, fn -> Tree.processes(tree) end)
    Tree.await(fn -> Tree.at_rest?() end, @within, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= tree.fds end, @within, fn -> {tree.fds, Tree.fd_targets()} end)
  end
end

defmodule NetRunner.Guarantees.DaemonTest.VM do
  # The VM dies, in which daemons of every shape run.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.{DaemonTest, Tree}

  for {how, what} <- [killed: "is killed with SIGKILL", stopped: "stops (init:stop)"] do
    @how how
    test "the VM #{what}, with a daemon of every shape running" do
      trees = for shape <- Tree.possible_shapes(), do: {shape, Tree.beside_others()}
      children = for {shape, tree} <- trees, do: DaemonTest.child(tree, shape, Tree.env(tree))

      vm =
        Tree.run_in_vm("""
        options = [strategy: :one_for_one]
        children = #{inspect(children, limit: :infinity)}
        children = for child <- children, do: {NetRunner.Daemon, [{:ready, {:output, ~r/ready/}} | child]}
        children = for child <- children, do: Supervisor.child_spec(child, id: make_ref())
        {:ok, supervisor} = Supervisor.start_link(children, options)
        Process.unlink(supervisor)
        """)

      Tree.end_vm_and_trees(vm, @how, trees)
    end
  end
end
