defmodule NetRunner.CgroupTest do
  use ExUnit.Case, async: false

  alias NetRunner.Process, as: Command
  alias NetRunner.Guarantees.{Nodes, Tree}

  unless Tree.cgroup_root() do
    @moduletag skip: "needs root and a cgroup file system of version 2 that can be written"
  end

  @root Tree.cgroup_root() || "/nowhere"

  setup do
    parent = "net_runner_test/#{NetRunner.Temporary.name("cgroup")}"
    on_exit(fn -> File.rmdir(Path.join(@root, parent)) end)
    %{parent: parent, path: parent <> "/command"}
  end

  test "the command runs in it from its first instruction on, and it is gone with the command", %{
    path: path
  } do
    assert {text, 0} = NetRunner.run(~w(cat /proc/self/cgroup), cgroup_path: path)
    assert ("0::/" <> path) in String.split(text, "\n")
    refute File.exists?(Path.join(@root, path))
    assert File.dir?(Path.dirname(Path.join(@root, path)))
  end

  @tag Tree.linux_only()
  test "all that is in it ends with the command, also in cgroups that were made below", %{
    path: path
  } do
    directory = Path.join(@root, path)

    script =
      "mkdir #{directory}/sub; setsid sleep 100 & echo $! > #{directory}/sub/cgroup.procs; echo $!"

    assert {os_pid, 0} = NetRunner.run(["sh", "-c", script], cgroup_path: path)
    refute File.exists?("/proc/#{String.trim(os_pid)}")
    refute File.exists?(directory)
  end

  test "suspending freezes it, and the end thaws it", %{path: path} do
    frozen = fn -> File.read!(Path.join([@root, path, "cgroup.events"])) =~ "frozen 1" end

    # Not below its shepherd by then, and not stopped by a signal that it could see.
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    {:ok, p} = Command.start("sh", ["-c", script], cgroup_path: path, kill_timeout: 60_000)
    {:ok, "ready\n"} = Command.read(p)
    assert Command.suspend(p) == :ok
    Tree.await(frozen)
    assert Tree.stat(Command.os_pid(p)).state != "T"
    assert Command.resume(p) == :ok
    Tree.await(fn -> not frozen.() end)
    assert Command.suspend(p) == :ok
    Tree.await(frozen)
    :ok = Command.end_command(p)
    assert Command.await_exit(p, 60_000) == {:ok, 3}
    assert Command.read(p) == {:ok, "bye\n"}
    refute File.exists?(Path.join(@root, path))
    Command.stop(p)
  end

  test "one that is frozen is killed", %{path: path} do
    {:ok, p} = Command.start("sleep", ["1000"], cgroup_path: path, kill_timeout: 0)
    :ok = Command.suspend(p)
    Tree.await(fn -> File.read!(Path.join([@root, path, "cgroup.events"])) =~ "frozen 1" end)
    :ok = Command.stop(p)
    refute File.exists?(Path.join(@root, path))
  end

  test "stats have its figures, while the command runs and after its end", context do
    %{path: path, parent: parent} = context

    # The command's cgroup has the controllers that its parent gives it, as a limit would have it do.
    File.mkdir_p!(Path.join(@root, parent))

    if "memory" in Tree.cgroup_controllers() do
      for directory <- [@root, Path.join(@root, Path.dirname(parent)), Path.join(@root, parent)],
          do: File.write!(Path.join(directory, "cgroup.subtree_control"), "+memory")
    end

    script = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo; read go"
    {:ok, p} = Command.start("sh", ["-c", script], cgroup_path: path)
    {:ok, "\n"} = Command.read(p)
    assert %{cgroup: %{cpu_usage_us: running}} = Command.stats(p)
    assert running > 0
    :ok = Command.write(p, "\n")
    assert Command.await_exit(p) == {:ok, 0}

    assert %{cgroup: %{cpu_usage_us: used, cpu_user_us: _, cpu_system_us: _} = figures} =
             Command.stats(p)

    assert used >= running
    if "memory" in Tree.cgroup_controllers(), do: assert(figures.memory_peak_bytes > 0)
    Command.stop(p)
    {:ok, p} = Command.start("true")
    assert Command.stats(p).cgroup == nil
  end

  # The figures as the kernel writes them, where its controllers are not at hand.
  test "figures are read from each file that is there, and unknown ones are passed over" do
    directory = NetRunner.Temporary.path("figures")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)

    for {file, text} <- [
          {"memory.events",
           "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nsock_throttled 7\n"},
          {"memory.swap.peak", "8\n"},
          {"pids.current", "9\n"},
          {"pids.max", "max\n"}
        ],
        do: File.write!(Path.join(directory, file), text)

    assert NetRunner.System.Cgroup.figures(directory) == %{
             memory_low_events: 1,
             memory_high_events: 2,
             memory_max_events: 3,
             memory_oom_events: 4,
             memory_oom_kills: 5,
             memory_oom_group_kills: 6,
             memory_swap_peak_bytes: 8,
             pids_current: 9
           }
  end

  test "one whose name has a wildcard takes no other one along", %{parent: parent} do
    other = Path.join([@root, parent, "ab"])
    below = Path.join(other, "below")
    File.mkdir_p!(below)
    on_exit(fn -> for directory <- [below, other], do: File.rmdir(directory) end)
    assert NetRunner.run(~w(no-such-program), cgroup_path: parent <> "/a*") == {:error, :enoent}
    refute File.exists?(Path.join([@root, parent, "a*"]))
    assert File.dir?(below)
  end

  test "what does not start leaves none", %{path: path} do
    assert NetRunner.run(~w(no-such-program), cgroup_path: path) == {:error, :enoent}
    refute File.exists?(Path.join(@root, path))
    assert NetRunner.run(~w(true), cgroup_path: path, cd: "/nowhere") == {:error, {:cd, :enoent}}
    refute File.exists?(Path.join(@root, path))
  end

  test "what may stay does not hold up the exit", %{path: path} do
    {:ok, p} =
      Command.start("sh", ["-c", "sleep 100 >&- 2>&- & echo $!"],
        cgroup_path: path,
        leftovers: :leave
      )

    assert Command.await_exit(p, 60_000) == {:ok, 0}
    {:ok, left} = Command.read(p)
    assert File.exists?("/proc/#{String.trim(left)}")
    {"", 0} = System.cmd("kill", [String.trim(left)])
    Command.stop(p)
    Tree.await(fn -> not File.exists?(Path.join(@root, path)) end)
  end

  test "one that is there already is not taken: others may be in it", %{path: path} do
    {:ok, p} = Command.start("sleep", ["100"], cgroup_path: path)
    assert {:error, {:cgroup, message}} = NetRunner.run(~w(true), cgroup_path: path)
    assert message =~ "exists already"
    assert Command.alive?(p)
    Command.stop(p)
    refute File.exists?(Path.join(@root, path))
  end

  test "a path that is none" do
    for {path, what} <- [
          {"/absolute", "must be relative"},
          {"a/../b", "without . and .."},
          {"..", "without . and .."},
          {"", "is empty"},
          {"a\0", "NUL"}
        ] do
      assert {:error, {:invalid_cgroup_path, message}} =
               NetRunner.run(~w(true), cgroup_path: path)

      assert message =~ what
    end

    assert {:error, {:invalid_cgroup_path, message}} =
             NetRunner.run(~w(true), cgroup: [pids_max: 1])

    assert message =~ ":cgroup_path"
  end

  describe "a cgroup that exists is joined:" do
    setup %{path: path} do
      directory = Path.join(@root, path)
      File.mkdir_p!(directory)
      on_exit(fn -> Tree.await(fn -> File.rmdir(directory) in [:ok, {:error, :enoent}] end) end)
      %{directory: directory}
    end

    defp members(directory) do
      directory |> Path.join("cgroup.procs") |> File.read!() |> String.split()
    end

    test "from the first instruction on, beside what is there, which stays", %{
      path: path,
      directory: directory
    } do
      {:ok, other} = Command.start("sleep", ["1000"])
      File.write!(Path.join(directory, "cgroup.procs"), "#{Command.os_pid(other)}")

      assert {text, 0} = NetRunner.run(~w(cat /proc/self/cgroup), cgroup: [join: path])
      assert ("0::/" <> path) in String.split(text, "\n")

      {:ok, p} = Command.start("sh", ["-c", "sleep 1000 & wait"], cgroup: [join: path])
      Tree.await(fn -> length(members(directory)) == 3 end)
      # Its figures are not the command's.
      assert Command.stats(p).cgroup == nil
      assert Command.stop(p) == :ok

      assert members(directory) == ["#{Command.os_pid(other)}"]
      assert Command.alive?(other)
      Command.stop(other)
      assert File.dir?(directory)
    end

    # Elsewhere, nobody ends a command whose shepherd was killed.
    @tag Tree.linux_only()
    test "also by a command that fails to start, that is lost, and that leaves something", %{
      path: path,
      directory: directory
    } do
      join = [cgroup: [join: path]]
      assert NetRunner.run(~w(no-such-program), join) == {:error, :enoent}

      {:ok, p} = Command.start("sleep", ["1000"], join)
      :ok = Tree.kill(Tree.shepherd(p))
      assert Command.await_exit(p) == {:error, :shepherd_died}
      Tree.await(fn -> members(directory) == [] end)

      {:ok, p} = Command.start("sh", ["-c", "sleep 1000 >&- 2>&- &"], [leftovers: :leave] ++ join)
      assert Command.await_exit(p) == {:ok, 0}
      assert [left] = members(directory)
      Command.stop(p)
      assert members(directory) == [left]
      assert File.dir?(directory)
      {"", 0} = System.cmd("kill", [left])
    end

    test "and one that is frozen does not keep the command from being ended", %{
      path: path,
      directory: directory
    } do
      {:ok, p} = Command.start("sleep", ["1000"], cgroup: [join: path], kill_timeout: 100)
      File.write!(Path.join(directory, "cgroup.freeze"), "1")
      Tree.await(fn -> File.read!(Path.join(directory, "cgroup.events")) =~ "frozen 1" end)
      assert Command.stop(p) == :ok
      assert members(directory) == []
    end

    test "in pipelines, by daemons and on another node", %{path: path} do
      own = ["sh", "-c", "cat; grep ^0:: /proc/self/cgroup"]
      line = "0::/" <> path <> "\n"
      assert NetRunner.pipeline([own, own], cgroup: [join: path]) == {line <> line, [0, 0]}

      test = self()
      script = "cat /proc/self/cgroup; read stop"
      options = [on_line: &send(test, {:line, &1}), process_opts: [cgroup: [join: path]]]
      {:ok, daemon} = NetRunner.Daemon.start_link([cmd: "sh", args: ["-c", script]] ++ options)
      line = "0::/" <> path
      assert_receive {:line, ^line}, 60_000
      :ok = GenServer.stop(daemon)

      epmd = Nodes.start_epmd()
      {caller, _} = Nodes.start(epmd)
      {worker, node} = Nodes.start(epmd)
      for peer <- [caller, worker], do: :ok = Nodes.start_net_runner(peer)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      options = [node: node, cgroup: [join: path]]
      {text, 0} = Nodes.call(caller, NetRunner, :run, [~w(cat /proc/self/cgroup), options])
      assert line in String.split(text, "\n")
    end
  end

  test "what cannot be joined" do
    assert {:error, {:cgroup, message}} =
             NetRunner.run(~w(true), cgroup: [join: "net_runner_test/nowhere"])

    assert message =~ "net_runner_test/nowhere, and :join is for a cgroup that exists"
    refute File.exists?(Path.join(@root, "net_runner_test/nowhere"))

    for {path, what} <- [
          {"/a", "must be relative"},
          {"a/..", "without . and .."},
          {"", "is empty"}
        ] do
      assert {:error, {:invalid_cgroup_path, message}} =
               NetRunner.run(~w(true), cgroup: [join: path])

      assert message =~ what
      assert message =~ "the path to :join"
    end

    assert_raise ArgumentError, ~r/:cgroup and :cgroup_path exclude each other/, fn ->
      NetRunner.run(~w(true), cgroup_path: "a/b", cgroup: [join: "a"])
    end

    assert_raise ArgumentError, ~r/:cgroup must be \[join: path\], or a keyword list/, fn ->
      NetRunner.run(~w(true), cgroup: [join: "a", pids_max: 1])
    end
  end

  # {limit, value, controller, file, what stands there then}
  @limits [
    {:memory_max, 500_000_000, "memory", "memory.max", "499998720"},
    {:memory_high, :max, "memory", "memory.high", "max"},
    {:memory_low, 4096, "memory", "memory.low", "4096"},
    {:memory_swap_max, 0, "memory", "memory.swap.max", "0"},
    {:pids_max, 100, "pids", "pids.max", "100"},
    {:cpu_weight, 50, "cpu", "cpu.weight", "50"},
    {:cpu_idle, true, "cpu", "cpu.idle", "1"},
    {:io_weight, 200, "io", "io.weight", "default 200"},
    {:cpuset_cpus, "0", "cpuset", "cpuset.cpus", "0"}
  ]

  for {limit, value, controller, file, shown} <- @limits do
    unless controller in Tree.cgroup_controllers(),
      do: @tag(skip: "the #{controller} controller is not with cgroup v2 here")

    test "#{limit} is set", %{path: path} do
      {:ok, p} =
        Command.start("cat", [], cgroup_path: path, cgroup: [{unquote(limit), unquote(value)}])

      assert File.read!(Path.join([@root, path, unquote(file)])) == unquote(shown) <> "\n"
      Command.stop(p)
    end
  end

  test "values that the kernel does not take are refused" do
    for {limit, wrong} <- [
          memory_high: -1,
          memory_low: "1G",
          memory_swap_max: 1.5,
          cpu_idle: 1,
          cpu_idle: :max,
          io_weight: 0,
          io_weight: 10_001,
          cpuset_cpus: "",
          cpuset_cpus: "0-",
          cpuset_cpus: "3-1",
          cpuset_cpus: "0,,1",
          cpuset_cpus: "0\n",
          cpuset_cpus: 0,
          memory_min: 0
        ] do
      assert_raise ArgumentError, ~r/the option :cgroup must be/, fn ->
        NetRunner.run(~w(true), cgroup_path: "a/b", cgroup: [{limit, wrong}])
      end
    end

    for cpus <- ["0", "0-3", "0-2,7", "1,3,5-6"],
        do: assert(NetRunner.System.Cgroup.problem(cpuset_cpus: cpus) == nil)
  end

  for {limit, value, controller, _, _} <- @limits, controller not in Tree.cgroup_controllers() do
    test "#{limit} without its controller says so, before anything starts", %{path: path} do
      assert {:error, {:cgroup, message}} =
               NetRunner.run(~w(true),
                 cgroup_path: path,
                 cgroup: [{unquote(limit), unquote(value)}]
               )

      assert message =~ "the controller #{inspect(unquote(controller))} is not available"
      refute File.exists?(Path.join(@root, path))
    end
  end

  unless "pids" in Tree.cgroup_controllers(),
    do: @tag(skip: "the pids controller is not with cgroup v2 here")

  test "pids_max limits the processes, and the peak is counted", %{path: path} do
    script = "for i in 1 2 3 4 5 6; do sleep 100 & done; wait"
    {:ok, p} = Command.start("sh", ["-c", script], cgroup_path: path, cgroup: [pids_max: 3])
    assert {:ok, status} = Command.await_exit(p)
    assert status != 0
    assert %{cgroup: %{pids_peak: 3}} = Command.stats(p)
  end

  unless "memory" in Tree.cgroup_controllers(),
    do: @tag(skip: "the memory controller is not with cgroup v2 here")

  test "memory_max ends a command that takes more", %{path: path} do
    hungry = ["python3", "-c", "x = bytearray(200_000_000); print(len(x))"]
    limits = [memory_max: 50_000_000, memory_oom_group: true]
    assert NetRunner.run(hungry, cgroup_path: path, cgroup: limits) == {"", 137}

    {:ok, p} = Command.start(hd(hungry), tl(hungry), cgroup_path: path, cgroup: limits)
    assert Command.await_exit(p) == {:ok, 137}
    assert %{cgroup: %{memory_oom_kills: kills, memory_max_events: max}} = Command.stats(p)
    assert kills > 0 and max > 0
  end
end
