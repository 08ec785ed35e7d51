defmodule NetRunner.CgroupTest do
  use ExUnit.Case, async: false

  alias NetRunner.Process, as: Command
  alias NetRunner.Guarantees.Tree

  unless Tree.cgroup_root() do
    @moduletag skip: "needs root and a cgroup file system of version 2 that can be written"
  end

  @root Tree.cgroup_root() || "/nowhere"
  @controllers (case File.read(Path.join(@root, "cgroup.controllers")) do
                  {:ok, text} -> String.split(text)
                  {:error, _} -> []
                end)

  setup do
    parent = "net_runner_test/#{System.unique_integer([:positive])}"
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

  @tag skip: NetRunner.Guarantees.Tree.needs_linux()
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

  test "stats have its figures, while the command runs and after its end", %{path: path} do
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
    if Enum.member?(@controllers, "memory"), do: assert(figures.memory_peak_bytes > 0)
    Command.stop(p)
    {:ok, p} = Command.start("true")
    assert Command.stats(p).cgroup == nil
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

    assert Command.await_exit(p, 5_000) == {:ok, 0}
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

  for {limit, controller} <- [pids_max: "pids", memory_max: "memory", cpu_weight: "cpu"],
      controller not in @controllers do
    test "#{limit} without its controller says so, before anything starts", %{path: path} do
      assert {:error, {:cgroup, message}} =
               NetRunner.run(~w(true), cgroup_path: path, cgroup: [{unquote(limit), 100}])

      assert message =~ "the controller #{inspect(unquote(controller))} is not available"
      refute File.exists?(Path.join(@root, path))
    end
  end

  unless "pids" in @controllers, do: @tag(skip: "the pids controller is not with cgroup v2 here")

  test "pids_max limits the processes, and the peak is counted", %{path: path} do
    script = "for i in 1 2 3 4 5 6; do sleep 100 & done; wait"
    {:ok, p} = Command.start("sh", ["-c", script], cgroup_path: path, cgroup: [pids_max: 3])
    assert {:ok, status} = Command.await_exit(p)
    assert status != 0
    assert %{cgroup: %{pids_peak: 3}} = Command.stats(p)
  end

  unless "memory" in @controllers,
    do: @tag(skip: "the memory controller is not with cgroup v2 here")

  test "memory_max ends a command that takes more", %{path: path} do
    hungry = ["python3", "-c", "x = bytearray(200_000_000); print(len(x))"]
    limits = [memory_max: 50_000_000, memory_oom_group: true]
    assert NetRunner.run(hungry, cgroup_path: path, cgroup: limits) == {"", 137}
  end
end
