defmodule NetRunner.Guarantees.StopSignalTest do
  # Whom the stop signal reaches before SIGKILL: each program here says by a file that it did. A program that was not
  # told would be killed after :kill_timeout, without its file.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  @kill_timeout 10_000

  setup do
    file = NetRunner.Temporary.path("told")

    on_exit(fn -> File.rm(file) end)
    {:ok, told: file}
  end

  test "a program that is stopped acts on it, long before SIGKILL", %{told: file} do
    script = "trap 'echo told >#{file}; exit 3' TERM; kill -STOP $$; while :; do sleep 0.05; done"
    {:ok, p} = Command.start("sh", ["-c", script], kill_timeout: @kill_timeout)
    os_pid = Command.os_pid(p)
    Tree.await_stopped(os_pid)
    assert Command.stop(p) == :ok
    assert File.read(file) == {:ok, "told\n"}
    assert Tree.stat(os_pid) == nil
  end

  @tag Tree.linux_only()
  test "an orphan in a session of its own is told, too", %{told: file} do
    orphan = "trap 'echo told >#{file}; exit' TERM; echo armed; while :; do sleep 0.05; done"

    # The command outlives its orphan: after its own end SIGKILL comes at once. It is an orphan when the subshell has ended.
    script = """
    trap 'until [ -s #{file} ]; do sleep 0.01; done; exit' TERM
    (setsid sh -c "$1" &)
    echo orphaned
    while :; do sleep 0.05; done
    """

    {:ok, p} = Command.start("sh", ["-c", script, "sh", orphan], kill_timeout: @kill_timeout)
    assert {:ok, _} = Command.read_until(p, ["armed\norphaned\n", "orphaned\narmed\n"])
    assert Command.stop(p) == :ok
    assert File.read(file) == {:ok, "told\n"}
  end

  test "a command that may leave something behind is told itself", %{told: file} do
    script = "trap 'echo told >#{file}; exit' TERM; echo ready; while :; do sleep 0.05; done"
    options = [leftovers: :leave, kill_timeout: @kill_timeout]
    {:ok, p} = Command.start("sh", ["-c", script], options)
    assert Command.read(p) == {:ok, "ready\n"}
    assert Command.stop(p) == :ok
    assert File.read(file) == {:ok, "told\n"}
  end
end
