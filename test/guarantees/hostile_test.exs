defmodule NetRunner.Guarantees.HostileTest do
  # Programs that try to get away, and what they do to the helpers. Nothing is left of any of them, or
  # docs/guarantees.md says what is.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.{Hostile, Tree}
  alias NetRunner.Process, as: Command
  alias NetRunner.System.Native

  @moduletag Tree.linux_only()
  @moduletag :capture_log

  @kill_timeout 100
  @within 60_000

  @root? System.cmd("id", ["-u"]) == {"0\n", 0}

  setup_all do: {:ok, Hostile.compile()}

  setup do
    {:ok, tree: Tree.new()}
  end

  for shape <- Hostile.shapes() do
    describe "#{shape}:" do
      @shape shape

      test "exits by itself", %{tree: tree} = context do
        command = start(tree, @shape, context)
        :ok = Command.write(command, "go\n")
        assert Command.await_exit(command, @within) == {:ok, 7}
        assert Tree.processes(tree) == []
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "stopped by its user", %{tree: tree} = context do
        command = start(tree, @shape, context)
        :ok = Command.stop(command)
        assert Tree.processes(tree) == []
        assert_clean(tree)
      end

      test "killed with SIGKILL", %{tree: tree} = context do
        command = start(tree, @shape, context)
        :ok = Command.kill(command, :sigkill)
        assert Command.await_exit(command, @within) == {:ok, 137}
        assert Tree.processes(tree) == []
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "its shepherd is killed", %{tree: tree} = context do
        command = start(tree, @shape, context)
        :ok = Tree.kill(Tree.shepherd(command))
        assert Command.await_exit(command, @within) == {:error, :shepherd_died}
        :ok = Command.stop(command)
        assert_clean(tree)
      end

      test "the guard and the launcher are killed: its shepherd, the last to hold it, ends it",
           %{tree: tree} = context do
        command = start(tree, @shape, context)
        launcher = Tree.launcher(command)

        for helper <- [Tree.parent(launcher), launcher] do
          :ok = Tree.kill(helper)
          Tree.await(fn -> Tree.stat(helper)[:state] in [nil, "Z"] end)
        end

        assert Command.await_exit(command, @within) == {:ok, 137}
        assert Tree.processes(tree) == []
        :ok = Command.stop(command)
        assert_clean(tree)
      end
    end
  end

  describe "the command kills its helpers," do
    for order <- ~w(gl gs lg ls sg sl) do
      @order order
      test "one after the other: #{order}", %{tree: tree} do
        command = start(tree, :kill_helpers, [@order])
        # The third ends it, however long that takes. (Below, all three are killed.)
        assert {:ok, _} = wait_for_end(command)
        :ok = Command.stop(command)
        assert_clean(tree)
      end
    end

    test "all at once: the kernel ends the command", %{tree: tree} do
      command = start(tree, :kill_helpers_at_once, [])

      # As below.
      assert wait_for_end(command) in [{:ok, {:error, :shepherd_died}}, {:ok, {:ok, 137}}]
      :ok = Command.stop(command)
      assert_clean(tree)
    end

    unless @root? and Tree.cgroup_root() != nil do
      @tag skip: "needs root and a cgroup file system of version 2 that can be written"
    end

    test "all at once, and refuses to be ended by the kernel: its cgroup ends it", %{tree: tree} do
      options = Tree.options(tree, :cgroup)
      command = start(tree, :kill_helpers_at_once_and_stay, [], options)

      # As below.
      assert wait_for_end(command) in [{:ok, {:error, :shepherd_died}}, {:ok, {:ok, 137}}]
      :ok = Command.stop(command)
      assert_clean(tree)
    end

    unless @root?, do: @tag(skip: "becoming another user needs root")

    test "as another user: it may not", %{tree: tree} do
      command = start(tree, :kill_helpers_at_once, [], user: 65534, leftovers: :kill)
      shepherd = Tree.shepherd(command)
      assert {:ok, {:ok, 1}} = wait_for_end(command)
      assert Tree.stat(shepherd) != nil
      :ok = Command.stop(command)
      assert_clean(tree)
    end
  end

  describe "all helpers are killed at once by somebody else:" do
    # The signals come one after the other: a shepherd that sees all above it die before its own comes ends the command.
    @ends [{:error, :shepherd_died}, {:ok, 137}]

    test "the command ends", %{tree: tree} do
      {:ok, command} = Command.start("sleep", ["1000"], env: Tree.env(tree))
      shepherd = Tree.shepherd(command)
      launcher = Tree.parent(shepherd)
      :ok = Tree.kill([Tree.parent(launcher), launcher, shepherd])
      assert Command.await_exit(command, @within) in @ends
      :ok = Command.stop(command)
      assert_clean(tree)
    end

    unless @root?, do: @tag(skip: "becoming another user needs root")

    test "the command of another user ends, too", %{tree: tree} do
      {:ok, command} = Command.start("sleep", ["1000"], env: Tree.env(tree), user: 65534)
      shepherd = Tree.shepherd(command)
      launcher = Tree.parent(shepherd)
      :ok = Tree.kill([Tree.parent(launcher), launcher, shepherd])
      assert Command.await_exit(command, @within) in @ends
      :ok = Command.stop(command)
      assert_clean(tree)
    end
  end

  describe "the guard is killed:" do
    test "the launcher is replaced at once, and its idle shepherds go with it", %{tree: tree} do
      idle = for {pid, 0} <- [NetRunner.run(["sh", "-c", "echo $PPID"])], do: to_integer(pid)
      launcher = Tree.current_launcher()
      guard = Tree.parent(launcher)
      :ok = Tree.kill(guard)
      # Nobody asks for a command, and the launcher had nothing to do.
      Tree.await(fn -> Tree.current_launcher() not in [nil, launcher] end, @within)
      Tree.await(fn -> Enum.all?([launcher | idle], &(Tree.stat(&1) == nil)) end, @within)
      assert_clean(tree)
    end

    test "a shepherd that still works for the old launcher does not work for the new one", %{
      tree: tree
    } do
      {:ok, running} = Command.start("cat", [], env: Tree.env(tree))
      shepherd = Tree.shepherd(running)
      launcher = Tree.parent(shepherd)
      :ok = Tree.kill(Tree.parent(launcher))
      Tree.await(fn -> Tree.current_launcher() not in [nil, launcher] end, @within)
      :ok = Command.close_stdin(running)
      assert Command.await_exit(running, @within) == {:ok, 0}
      Tree.await(fn -> Tree.stat(shepherd) == nil and Tree.stat(launcher) == nil end, @within)
      :ok = Command.stop(running)
      assert_clean(tree)
    end
  end

  test "no signal that can be blocked disturbs a helper (kill -33)", %{tree: tree} do
    command = start(tree, :signal_helpers, [])
    shepherd = Tree.shepherd(command)
    launcher = Tree.current_launcher()
    assert {:ok, "ready\n"} = Command.read(command)
    :ok = Command.write(command, "go\n")
    assert Command.await_exit(command, @within) == {:ok, 7}
    :ok = Command.stop(command)
    # What waits for it would be the next command's.
    Tree.await(fn -> Tree.stat(shepherd) == nil end)
    assert Tree.current_launcher() == launcher
    assert_clean(tree)
  end

  test "a command whose death somebody else holds is reported when it can be", %{tree: tree} do
    {:ok, command} = Command.start("sleep", ["1000"], env: Tree.env(tree))
    os_pid = Command.os_pid(command)
    {:ok, tracer} = Command.start("python3", ["-S", "-E", Hostile.script(), "trace", "#{os_pid}"])
    assert Command.read(tracer) == {:ok, "traced\n"}
    :ok = Command.kill(command, :sigkill)
    Tree.await(fn -> Tree.stat(os_pid)[:state] == "Z" end)
    assert Command.alive?(command)
    :ok = Command.close_stdin(tracer)
    assert Command.await_exit(command, @within) == {:ok, 137}
    :ok = Command.stop(tracer)
    :ok = Command.stop(command)
    assert_clean(tree)
  end

  describe "with leftovers: :leave, a command whose death is held" do
    test "by what it leaves is reported, and that lives on", %{tree: tree} do
      command = start(tree, :traced, [], leftovers: :leave)
      os_pid = Command.os_pid(command)
      :ok = Command.write(command, "go\n")
      assert Command.await_exit(command, @within) == {:ok, 7}
      assert Tree.stat(os_pid)[:state] == "Z"
      assert [_tracer] = Tree.processes(tree)
      :ok = Command.stop(command)
      Tree.kill_all(tree)
      assert_clean(tree)
    end

    test "by somebody else is reported", %{tree: tree} do
      {:ok, command} = Command.start("sleep", ["1000"], env: Tree.env(tree), leftovers: :leave)

      os_pid = Command.os_pid(command)

      {:ok, tracer} =
        Command.start("python3", ["-S", "-E", Hostile.script(), "trace", "#{os_pid}"])

      assert Command.read(tracer) == {:ok, "traced\n"}
      :ok = Command.kill(command, :sigkill)
      assert Command.await_exit(command, @within) == {:ok, 137}
      assert Tree.stat(os_pid)[:state] == "Z"
      :ok = Command.stop(tracer)
      :ok = Command.stop(command)
      assert_clean(tree)
    end
  end

  defp start(tree, name, arguments, options \\ []) do
    [executable | args] = Hostile.command(name, arguments)
    options = [kill_timeout: @kill_timeout, env: Tree.env(tree)] ++ options
    {:ok, command} = Command.start(executable, args, options)
    if name != :signal_helpers, do: assert(Command.read(command) == {:ok, "ready\n"})
    command
  end

  # The command's server may have heard of the end in one of several ways.
  defp wait_for_end(command) do
    case Command.await_exit(command, @within) do
      {:error, :timeout} -> :still_there
      result -> {:ok, result}
    end
  end

  defp to_integer(text), do: text |> String.trim() |> String.to_integer()

  defp assert_clean(tree) do
    Tree.await(fn -> Tree.processes(tree) == [] end, @within, fn -> Tree.processes(tree) end)
    Tree.await(fn -> Tree.cgroups(tree) == [] end, @within, fn -> Tree.cgroups(tree) end)
    Tree.await(fn -> Tree.at_rest?() end, @within, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= tree.fds end, @within, fn -> {tree.fds, Tree.fd_targets()} end)
    Native.let_idle_go()
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
  end
end

defmodule NetRunner.Guarantees.HostileTest.VM do
  # The same in other VMs, which end, or are another user's.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.{Hostile, Tree}

  @moduletag Tree.linux_only()

  @kill_timeout 100
  @within 60_000

  @root? System.cmd("id", ["-u"]) == {"0\n", 0}

  setup_all do: {:ok, Hostile.compile()}

  setup do: {:ok, tree: Tree.beside_others()}

  for shape <- Hostile.shapes() do
    describe "#{shape}:" do
      @shape shape

      test "the VM is killed", %{tree: tree} = context do
        options = [env: Tree.env(tree), kill_timeout: @kill_timeout]
        vm = Tree.start_vm_with([{Hostile.command(@shape, context), options}])
        assert Tree.processes(tree) != []
        Tree.end_vm(vm, :killed)
        Tree.await(fn -> Tree.processes(tree) == [] end, @within, fn -> Tree.processes(tree) end)
        Tree.await(fn -> Tree.helpers(vm) == [] end, @within)
      end
    end
  end

  describe "the command stops" do
    for who <- ~w(s ls gls) do
      @who who
      test "itself and its helpers (#{who}): it is ended nonetheless", %{tree: tree} do
        run_in_clean_vm(tree, :stop_helpers, [@who], """
        Tree.await_stopped(Command.os_pid(command))
        :ok = Command.stop(command)
        [] = Tree.processes(tree)
        """)
      end
    end

    test "the helpers above its shepherd, and exits: later commands start", %{tree: tree} do
      # Each of the later ones needs a shepherd of its own, and there are not as many that wait.
      vm =
        Tree.run_in_vm("""
        alias NetRunner.Process, as: Command
        script = "parent() { ps -o ppid= -p $1; }; l=$(parent $PPID); kill -STOP $(parent $l) $l"
        options = [owner: :none, env: #{inspect(Tree.env(tree))}]
        # Twice: they go on whenever they are stopped.
        for _ <- 1..2 do
          {"", 0} = NetRunner.run(["sh", "-c", script])
          NetRunner.System.Native.let_idle_go()
          starts = for _ <- 1..6, do: Task.async(fn -> Command.start("cat", [], options) end)
          for {:ok, command} <- Task.await_many(starts, #{@within}), do: :ok = Command.stop(command)
        end
        """)

      Tree.end_vm(vm, :halted)
      assert Tree.processes(tree) == []
    end

    test "its shepherd whenever that goes on: it loses it, and is ended", %{tree: tree} do
      run_in_clean_vm(tree, :stop_shepherd_again, [], """
      {:error, :shepherd_died} = Command.await_exit(command, #{@within})
      :ok = Command.stop(command)
      """)
    end

    for who <- ~w(s g gls) do
      @who who
      test "its helpers (#{who}), and the VM is killed: it is ended", %{tree: tree} do
        options = [env: Tree.env(tree), kill_timeout: @kill_timeout]
        vm = Tree.start_vm_with([{Hostile.command(:stop_helpers, [@who]), options}])

        # It stops itself last. A helper that others look after may go on by then.
        Enum.each(Tree.processes(tree), &Tree.await_stopped/1)
        Tree.end_vm(vm, :killed)
        Tree.await(fn -> Tree.processes(tree) == [] end, 60_000, fn -> Tree.processes(tree) end)
        Tree.await(fn -> Tree.helpers(vm) == [] end, 60_000, fn -> Tree.helpers(vm) end)
      end
    end
  end

  test "a shepherd may not be traced or read by a command of the same user" do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    command = #{inspect(Hostile.command(:trace_shepherd, []))}
    IO.inspect(NetRunner.run(command))
    """

    assert as_another_user(code) == ~s({"EPERM\\nEACCES\\n", 0}\n)
  end

  describe "a storm of children of the shepherd" do
    # It fills the table of processes, and tests beside this one could not fork.
    @describetag Tree.skip(Tree.reason_against_small_namespaces())

    test "is ended by the clock of its command, and the next command starts", context do
      code = """
      {:ok, _} = Application.ensure_all_started(:net_runner)
      storm = [#{inspect(context.makes_siblings)}]
      IO.inspect(NetRunner.run(storm, timeout: 700, kill_timeout: 200))
      IO.inspect(NetRunner.run(~w(echo next)))
      left = for comm <- Path.wildcard("/proc/[0-9]*/comm"), do: File.read(comm)
      IO.inspect(Enum.count(left, &(&1 == {:ok, "makes_siblings\\n"})))
      """

      # A storm goes on for two minutes.
      options = [env: Tree.elixir_env(), timeout: 100_000]
      command = Tree.in_small_namespace(Tree.elixir(code), 2_000)
      assert {output, 0} = NetRunner.run(command, options)
      assert output == ~s({:error, :timeout}\n{"next\\n", 0}\n0\n)
    end
  end

  describe "a set-user-ID program that the VM may not signal for a while" do
    unless @root?, do: @describetag(skip: "making a set-user-ID program needs root")

    setup %{out_of_reach: program, tree: tree} do
      File.chmod!(program, 0o4755)
      within_reach = Path.join(Path.dirname(program), tree.mark)
      {:ok, command: [program, within_reach], within_reach: within_reach}
    end

    test "is killed when it may be", %{tree: tree} = context do
      code = """
      {:ok, _} = Application.ensure_all_started(:net_runner)
      options = [timeout: 3_000, kill_timeout: 200, env: #{inspect(Tree.env(tree))}]
      IO.inspect(NetRunner.run(#{inspect(context.command)}, options))
      """

      run = Task.async(fn -> as_another_user(code) end)
      Tree.await(fn -> Tree.processes(tree) != [] end, 60_000)
      # The time of the command is over by then.
      assert Task.yield(run, 5_000) == nil
      File.touch!(context.within_reach)
      assert Task.await(run, 60_000) == "{:error, :timeout}\n"
      Tree.await(fn -> Tree.processes(tree) == [] end, 60_000)
    end

    test "is killed when it may be, though its shepherd was killed, and the VM is gone",
         context do
      assert_killed_within_reach(context, """
      {_, 0} = System.cmd("kill", ["-KILL", "\#{NetRunner.Guarantees.Tree.shepherd(p)}"])
      {:error, :shepherd_died} = NetRunner.Process.await_exit(p)
      """)
    end

    test "is killed when it may be, though the VM is gone", context do
      assert_killed_within_reach(context, "")
    end
  end

  describe "a command that the kernel does not let go (state D)" do
    @freezer "/sys/fs/cgroup/freezer"
    unless @root? and File.exists?(@freezer <> "/cgroup.procs") do
      @describetag skip: "needs root and the freezer of cgroups version 1 at #{@freezer}"
    end

    test "is gone when the kernel does, though its VM ended long before", %{tree: tree} do
      group = Path.join(@freezer, tree.mark)
      File.mkdir!(group)

      options = [env: Tree.env(tree), kill_timeout: 100]
      vm = Tree.start_vm_with([{["sh", "-c", "echo ready; exec sleep 1000"], options}])
      [os_pid] = Tree.processes(tree)
      File.write!(Path.join(group, "cgroup.procs"), "#{os_pid}")
      File.write!(Path.join(group, "freezer.state"), "FROZEN")
      Tree.await(fn -> File.read!(Path.join(group, "freezer.state")) == "FROZEN\n" end)

      Tree.end_vm(vm, :killed)
      # The guard and the shepherd stay for it.
      Tree.await(fn -> length(Tree.helpers(vm)) == 2 end, @within, fn -> Tree.helpers(vm) end)
      assert Tree.processes(tree) == [os_pid]

      File.write!(Path.join(group, "freezer.state"), "THAWED")
      Tree.await(fn -> Tree.processes(tree) == [] and Tree.helpers(vm) == [] end, @within)
      Tree.await(fn -> File.rmdir(group) == :ok end)
    end
  end

  # The helpers are slow to give up one of them that is stopped, and the VM may not have other commands meanwhile: it counts.
  defp run_in_clean_vm(tree, shape, arguments, code) do
    [executable | args] = Hostile.command(shape, arguments)

    vm =
      Tree.run_in_vm("""
      alias NetRunner.Guarantees.Tree
      alias NetRunner.Process, as: Command

      {"", 0} = NetRunner.run(~w(true))
      Tree.await(fn -> Tree.at_rest?() end)
      tree = %{#{inspect(tree)} | fds: Tree.fds()}
      options = [kill_timeout: #{@kill_timeout}, env: Tree.env(tree)]
      {:ok, command} = Command.start(#{inspect(executable)}, #{inspect(args)}, options)
      {:ok, "ready\\n"} = Command.read(command)
      #{code}
      Tree.await(fn -> Tree.processes(tree) == [] end, #{@within}, fn -> Tree.processes(tree) end)
      Tree.await(fn -> Tree.at_rest?() end, #{@within}, fn -> Tree.helpers() end)
      Tree.await(fn -> Tree.fds() <= tree.fds end, #{@within}, fn -> Tree.fd_targets() end)
      {"next\\n", 0} = NetRunner.run(~w(echo next))
      """)

    Tree.end_vm(vm, :halted)
  end

  # What `code` does with the command `p` comes before the end of its VM.
  defp assert_killed_within_reach(%{tree: tree, command: [program | args]} = context, code) do
    vm_code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    options = [owner: nil, kill_timeout: 200, env: #{inspect(Tree.env(tree))}]
    {:ok, p} = NetRunner.Process.start(#{inspect(program)}, #{inspect(args)}, options)
    {:ok, "ready\\n"} = NetRunner.Process.read(p)
    #{code}
    System.halt(0)
    """

    assert as_another_user(vm_code) == ""
    assert Tree.processes(tree) != []
    File.touch!(context.within_reach)
    Tree.await(fn -> Tree.processes(tree) == [] end, 60_000)
  end

  # One who has no other processes: some programs of other tests attack all of "nobody". Not by NetRunner, which would end what is left of it.
  defp as_another_user(code) do
    prefix = if @root?, do: ~w(setpriv --reuid=54322 --regid=54322 --clear-groups), else: []

    [executable | args] = prefix ++ Tree.elixir(code)
    # The home of the user who runs the tests may be closed to others.
    env = [{"HOME", "/"} | Tree.elixir_env()]
    assert {output, 0} = System.cmd(executable, args, env: env)
    output
  end
end
