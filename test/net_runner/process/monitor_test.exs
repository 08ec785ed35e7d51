defmodule NetRunner.Process.MonitorTest do
  # The exit of a command as a message.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Watchers

  defp assert_down(ref, p, reason) do
    assert_receive {:DOWN, ^ref, :process, ^p, ^reason}, 60_000
    # Whatever else the server does, there is no other message.
    :ok = Command.stop(p)
    assert_over(ref)
  end

  defp assert_over(ref) do
    refute_received {:DOWN, ^ref, _, _, _}
    refute Process.demonitor(ref, [:info])
  end

  # The references that a server holds.
  defp held(p), do: p |> :sys.get_state() |> Map.fetch!(:watchers) |> Watchers.all() |> elem(0)

  test "comes when the command exits, with its status, and the process can still be read" do
    p = start!("read go; echo out; exit 3")
    ref = Command.monitor(p)
    :ok = Command.write(p, "\n")
    assert_receive {:DOWN, ^ref, :process, ^p, {:exit, 3}}, 60_000
    assert Command.read(p) == {:ok, "out\n"}
    assert_down(Command.monitor(p), p, {:exit, 3})
    assert_over(ref)
  end

  @tag Tree.linux_only()
  test "comes when everything that the command started is gone" do
    p = start!("trap '' TERM; sleep 1000 & echo $!; read go")
    {:ok, pid} = Command.read(p)
    ref = Command.monitor(p)
    :ok = Command.write(p, "\n")
    assert_receive {:DOWN, ^ref, :process, ^p, {:exit, 0}}, 60_000
    assert Tree.stat(String.trim(pid)) == nil
  end

  test "comes at once when the command is over" do
    p = start!("kill -TERM $$")
    assert Command.await_exit(p) == {:ok, 143}
    ref = Command.monitor(p)
    # It is there when the call returns.
    assert_received {:DOWN, ^ref, :process, ^p, {:exit, 143}}
    assert_over(ref)
  end

  test "comes to each who asked, and once for each time" do
    p = start!("read go")
    refs = for _ <- 1..3, do: Command.monitor(p)
    test = self()

    others =
      for n <- 1..3 do
        spawn_link(fn ->
          ref = Command.monitor(p)
          send(test, {:ready, n})
          assert_receive {:DOWN, ^ref, :process, ^p, reason}, 60_000
          send(test, {:heard, n, reason})
        end)
      end

    for {_, n} <- Enum.zip(others, 1..3), do: assert_receive({:ready, ^n}, 60_000)
    :ok = Command.close_stdin(p)
    for n <- 1..3, do: assert_receive({:heard, ^n, {:exit, 1}}, 60_000)
    for ref <- refs, do: assert_receive({:DOWN, ^ref, :process, ^p, {:exit, 1}}, 60_000)
    Enum.each(refs, &assert_over/1)
    assert held(p) == []
  end

  test "says why the process has ended, where it ended before its command" do
    p = start!("exec sleep 1000")
    ref = Command.monitor(p)
    Process.exit(p, :kill)
    assert_receive {:DOWN, ^ref, :process, ^p, :killed}, 60_000
    late = Command.monitor(p)
    assert_receive {:DOWN, ^late, :process, ^p, :noproc}, 60_000

    nobody = Command.monitor({:global, make_ref()})
    assert_receive {:DOWN, ^nobody, :process, _, :noproc}, 60_000
    nobody = Command.monitor(:nobody_has_this_name)
    assert_receive {:DOWN, ^nobody, :process, _, :noproc}, 60_000
    for ref <- [ref, late, nobody], do: assert_over(ref)
  end

  test "says that the shepherd died" do
    p = start!("exec sleep 1000")
    ref = Command.monitor(p)
    :ok = Tree.kill(Tree.shepherd(p))
    assert_down(ref, p, :shepherd_died)
    # Nothing of that was the command's.
  end

  test "says how a command ended that was stopped" do
    p = start!("exec sleep 1000")
    ref = Command.monitor(p)
    :ok = Command.stop(p)
    assert_down(ref, p, {:exit, 143})
  end

  test "that was cancelled does not come, whenever it was" do
    p = start!("read go")
    early = Command.monitor(p)
    assert Process.demonitor(early, [:flush, :info])
    :ok = Command.close_stdin(p)
    {:ok, 1} = Command.await_exit(p)
    late = Command.monitor(p)
    Process.demonitor(late, [:flush])
    :ok = Command.stop(p)
    refute_received {:DOWN, _, _, _, _}
  end

  test "by a name gives the pid" do
    {:ok, p} = Command.start("true", [], name: __MODULE__)
    assert_down(Command.monitor(__MODULE__), p, {:exit, 0})
  end

  test "whoever ends its monitors, or dies, is forgotten" do
    p = start!("read go")

    for _ <- 1..1_000 do
      ref = Command.monitor(p)
      Process.demonitor(ref, [:flush])
    end

    assert length(held(p)) < 20
    last = Command.monitor(p)

    {dying, monitor} =
      spawn_monitor(fn ->
        Command.monitor(p)
        exit(:dead)
      end)

    assert_receive {:DOWN, ^monitor, :process, ^dying, :dead}, 60_000
    Tree.await(fn -> length(held(p)) < 20 and last in held(p) end)
    {:monitors, monitors} = Process.info(p, :monitors)
    refute {:process, dying} in monitors

    # None is taken for ended that is not.
    refs = for _ <- 1..40, do: Command.monitor(p)
    :ok = Command.close_stdin(p)
    for ref <- [last | refs], do: assert_receive({:DOWN, ^ref, :process, ^p, {:exit, 1}}, 60_000)
    refute_received {:DOWN, _, _, _, _}
  end

  test "comes once when it races with the exit and the end of the process" do
    for round <- 1..300 do
      {:ok, p} = Command.start("true")
      if rem(round, 3) == 0, do: Command.await_exit(p)
      if rem(round, 5) == 0, do: spawn(fn -> Command.stop(p) end)
      ref = Command.monitor(p)
      assert_receive {:DOWN, ^ref, :process, ^p, reason}, 60_000
      assert reason in [{:exit, 0}, {:exit, 143}, :noproc, :normal]
      if rem(round, 5) != 0, do: assert(reason == {:exit, 0})
      Command.stop(p)
      assert_over(ref)
    end
  end
end
