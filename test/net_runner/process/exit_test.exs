defmodule NetRunner.Process.ExitTest do
  # When the kernel is said to have killed a command for want of memory.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process.Exit
  alias NetRunner.System.Cgroup

  defp killed?(how, cgroup),
    do: Exit.oom_killed?(%Exit{how: how, usage: {0, 0, 0}, at: 0, cgroup: cgroup})

  test "only a command that itself died by SIGKILL, and whose cgroup has counted a kill" do
    assert killed?({:signaled, 9, false}, %{memory_oom_kills: 1})
    refute killed?({:signaled, 9, false}, %{memory_oom_kills: 0})
    refute killed?({:signaled, 9, false}, %{pids_peak: 1})
    refute killed?({:signaled, 9, false}, nil)
    refute killed?({:signaled, 15, false}, %{memory_oom_kills: 1})
    refute killed?({:exited, 137}, %{memory_oom_kills: 1})
  end

  test "the count is that of memory.events" do
    directory = NetRunner.Temporary.path("events")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n"
    File.write!(Path.join(directory, "memory.events"), events)
    assert %{memory_oom_kills: 2} = Cgroup.figures(directory)
  end

  unless "memory" in Tree.cgroup_controllers(),
    do: @tag(skip: "needs the memory controller of cgroup v2")

  test "a command that needs more than its cgroup may have" do
    path = "net_runner_test/#{NetRunner.Temporary.name("oom")}"
    program = "x = bytearray(200_000_000)"
    options = [cgroup_path: path, cgroup: [memory_max: 20_000_000]]

    assert {:ok, %{outcome: :oom_killed, status: 137, stats: stats}} =
             NetRunner.capture(["python3", "-S", "-c", program], options)

    assert stats.cgroup.memory_oom_kills > 0
  end
end
