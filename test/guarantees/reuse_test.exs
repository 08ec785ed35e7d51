defmodule NetRunner.Guarantees.ReuseTest do
  # A shepherd serves one command after the other. Nothing of one is left for the next, and a shepherd that is gone
  # is not missed.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.System.Native

  @show_state "umask; pwd; ulimit -n; ulimit -c; nice; echo ${LEFT-none}; id -u; ls /proc/self/fd | tr '\\n' ' '; " <>
                "grep -E '^(SigBlk|SigIgn|NoNewPrivs)' /proc/self/status"

  setup do
    {:ok, tree: Tree.new()}
  end

  defp shepherd do
    {pid, 0} = NetRunner.run(["sh", "-c", "echo $PPID"])
    pid |> String.trim() |> String.to_integer()
  end

  test "one command after the other has the same shepherd" do
    Native.let_idle_go()
    first = shepherd()
    for _ <- 1..20, do: assert(shepherd() == first)
  end

  test "a command that could not be started keeps it, too" do
    Native.let_idle_go()
    first = shepherd()
    assert NetRunner.run(["/no/such/program"]) == {:error, :enoent}
    assert shepherd() == first
  end

  test "nothing of a command is left for the next" do
    Native.let_idle_go()
    before = NetRunner.run(["sh", "-c", @show_state])
    first = shepherd()

    options = [
      umask: 0o077,
      cd: "/",
      env: %{"LEFT" => "behind"},
      nice: 7,
      rlimits: [nofile: 64, core: 0],
      no_new_privs: Tree.needs_linux() == nil,
      stderr: {:file, "/dev/null"}
    ]

    assert {_, 0} = NetRunner.run(["sh", "-c", @show_state], options)
    assert {_, 137} = NetRunner.run(["sh", "-c", "kill -KILL $$"], options)
    assert NetRunner.run(["sh", "-c", @show_state]) == before
    assert shepherd() == first
  end

  # What a command may do to its shepherd, as its parent and a process of the same user, and to the launcher.
  @changes [
    "renice -n $(($(nice) + 1)) -p $PPID",
    "prlimit --nofile=100:100 --pid $PPID",
    "prlimit --core=0:0 --pid $PPID",
    "taskset -p 1 $PPID",
    "chrt --batch --pid 0 $PPID",
    "ionice -c 3 -p $PPID"
  ]

  @signals [
    # The launcher remembers that.
    "kill -STOP $PPID; kill -CONT $PPID",
    # Signals that wait count as its user's (RLIMIT_SIGPENDING).
    "kill -TERM $PPID",
    "kill -40 $PPID"
  ]

  @show_attributes "nice; ulimit -n; ulimit -c; taskset -p $$ | sed 's/.*: //'; chrt -p $$ | sed 's/.*: //'; " <>
                     "ionice -p $$; cat /proc/self/oom_score_adj /proc/self/cgroup /proc/self/coredump_filter"

  for {whom, pid, changes} <- [
        {"its shepherd", "$PPID", @changes ++ @signals},
        {"the launcher", "$launcher", @changes}
      ] do
    @whom whom
    @pid pid

    for change <- changes do
      @change String.replace(change, "$PPID", pid)
      @tag Tree.skip(if(change =~ "renice", do: nil, else: Tree.needs_linux()))
      test "what a command does to #{whom} does not reach the next: #{@change}" do
        assert_kept_to_itself(@whom, @change)
      end
    end

    # Nobody else may write these: the helpers are not dumpable (proc(5)).
    @tag Tree.skip(if(Tree.root?(), do: Tree.needs_linux(), else: "needs root"))
    test "what a command of root does to #{whom} does not reach the next" do
      assert_kept_to_itself(@whom, "echo 500 > /proc/#{@pid}/oom_score_adj")
      assert_kept_to_itself(@whom, "echo 1 > /proc/#{@pid}/coredump_filter")
    end

    @tag Tree.skip(
           if(Tree.cgroup_root(),
             do: Tree.needs_linux(),
             else: "needs a cgroup file system of version 2"
           )
         )
    test "a command that moves #{whom} to another cgroup does not move the next", %{tree: tree} do
      group = Path.join(Tree.cgroup_root(), tree.mark)
      File.mkdir!(group)
      assert_kept_to_itself(@whom, "echo #{@pid} > #{group}/cgroup.procs")
      Tree.await(fn -> File.rmdir(group) == :ok end)
    end
  end

  defp assert_kept_to_itself("its shepherd", change), do: assert_shepherd_ends(change)
  defp assert_kept_to_itself("the launcher", change), do: assert_launcher_replaced(change)

  # It serves no other command. Without the change it would.
  defp assert_shepherd_ends(change) do
    Native.let_idle_go()
    before = NetRunner.run(["sh", "-c", @show_attributes])
    first = shepherd()
    assert shepherd() == first
    assert {_, 0} = NetRunner.run(["sh", "-c", change])
    Tree.await(fn -> Tree.stat(first) == nil end)
    assert NetRunner.run(["sh", "-c", @show_attributes]) == before
  end

  # More than there are shepherds that were forked before. At once, the launcher forks them when they are asked for; in turn, it
  # has time for spares.
  defp assert_launcher_replaced(change) do
    assert_launcher_replaced(change, fn show ->
      1..12 |> Enum.map(fn _ -> Task.async(show) end) |> Task.await_many(60_000)
    end)

    assert_launcher_replaced(change, fn show ->
      for _ <- 1..4 do
        Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
        show.()
      end
    end)
  end

  defp assert_launcher_replaced(change, start_all) do
    show = fn -> NetRunner.run(["sh", "-c", @show_attributes]) end
    before = show.()
    launcher = Tree.current_launcher()
    script = "launcher=#{launcher}; #{change}"
    assert {_, 0} = NetRunner.run(["sh", "-c", script], stderr: :redirect)
    assert show |> start_all.() |> Enum.uniq() == [before]
    Tree.await(fn -> Tree.current_launcher() not in [nil, launcher] end)
  end

  test "what is asked too late does not reach the next command" do
    Native.let_idle_go()

    for _ <- 1..300 do
      {:ok, p} = Command.start("true", [])
      killers = for _ <- 1..3, do: Task.async(fn -> Command.kill(p, :sigkill) end)
      {:ok, status} = Command.await_exit(p)
      assert status in [0, 137]
      assert NetRunner.run(~w(echo unharmed)) == {"unharmed\n", 0}
      Task.await_many(killers)
      Command.stop(p)
    end
  end

  test "one that is killed while it is idle is not missed", %{tree: tree} do
    for _ <- 1..10 do
      idle = shepherd()
      launcher = Tree.current_launcher()
      :ok = Tree.kill(idle)
      Tree.await(fn -> Tree.stat(idle) == nil end)
      assert NetRunner.run(~w(echo next)) == {"next\n", 0}
      # Its launcher was not taken for dead.
      assert Tree.current_launcher() == launcher
    end

    assert_clean(tree)
  end

  test "one that is stopped while it is idle is passed over", %{tree: tree} do
    Native.let_idle_go()
    idle = shepherd()
    {_, 0} = System.cmd("kill", ["-STOP", "#{idle}"])
    Tree.await_stopped(idle)
    # More than its socket has room for.
    for _ <- 1..3, do: assert(NetRunner.run(~w(echo next), timeout: 60_000) == {"next\n", 0})
    # The launcher does it, too, after a while.
    _ = System.cmd("kill", ["-CONT", "#{idle}"], stderr_to_stdout: true)
    assert_clean(tree)
  end

  # SIGWINCH ends nothing: what has started goes on until SIGKILL.
  @not_stopped [stop_signal: :sigwinch, kill_timeout: 50]

  @tag Tree.linux_only()
  test "a command that was not read when its time was over is not started", %{tree: tree} do
    Native.let_idle_go()
    idle = shepherd()
    {_, 0} = System.cmd("kill", ["-STOP", "#{idle}"])
    Tree.await_stopped(idle)
    flag = NetRunner.Temporary.path("flag")
    on_exit(fn -> File.rm(flag) end)
    options = [stop_signal: :sigwinch, kill_timeout: 60_000, timeout: 100]
    assert NetRunner.run(["touch", flag], options) == {:error, :timeout}
    # The launcher does it, too, after a while.
    _ = System.cmd("kill", ["-CONT", "#{idle}"], stderr_to_stdout: true)
    Tree.await(fn -> Tree.stat(idle) == nil end)
    refute File.exists?(flag)
    assert_clean(tree)
  end

  @tag Tree.linux_only()
  test "nothing is left of a command whose time was over while it started", %{tree: tree} do
    for timeout <- 0..4, _ <- 1..20 do
      options = [timeout: timeout, env: Tree.env(tree)] ++ @not_stopped
      assert NetRunner.run(~w(sleep 60), options) == {:error, :timeout}
      assert Tree.processes(tree) == []
    end

    assert_clean(tree)
  end

  # Elsewhere a shepherd is not given what its command left.
  @tag Tree.linux_only()
  test "one that holds what a command left running serves no other", %{tree: tree} do
    Native.let_idle_go()
    on_exit(fn -> Tree.kill_all(tree) end)
    # The sleep holds no pipe of the command.
    script = "sleep 1000 >/dev/null 2>&1 & echo $PPID"
    options = [leftovers: :leave, env: Tree.env(tree)]
    assert {holder, 0} = NetRunner.run(["sh", "-c", script], options)
    # One that holds them would come to this command when the sleep is over.
    assert {other, 0} = NetRunner.run(["sh", "-c", "echo $PPID"], timeout: 10_000)
    assert other != holder
    assert length(Tree.processes(tree)) == 1
    Tree.kill_all(tree)
    assert_clean(tree)
  end

  test "those that are idle die with their launcher", %{tree: tree} do
    idle =
      for _ <- 1..8,
          do: Task.async(fn -> NetRunner.run(["sh", "-c", "echo $PPID; sleep 0.1"]) end)

    idle = for {pid, 0} <- Task.await_many(idle), do: pid |> String.trim() |> String.to_integer()
    :ok = Tree.kill(Tree.current_launcher())
    Tree.await(fn -> Enum.all?(idle, &(Tree.stat(&1) == nil)) end)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
    assert_clean(tree)
  end

  test "no more are kept than there can be use of", %{tree: tree} do
    commands = for _ <- 1..40, do: Task.async(fn -> NetRunner.run(~w(sleep 0.2)) end)
    for result <- Task.await_many(commands, 60_000), do: assert(result == {"", 0})
    # The guard, the launcher, its two spares, and those.
    Tree.await(fn -> length(Tree.helpers()) <= 4 + 8 end, 60_000, &Tree.helpers/0)
    assert_clean(tree)
  end

  defp assert_clean(tree) do
    Tree.await(fn -> Tree.at_rest?() end, 60_000, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= tree.fds end, 60_000, fn -> {tree.fds, Tree.fd_targets()} end)
    assert Tree.processes(tree) == []
  end
end
