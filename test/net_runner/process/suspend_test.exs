defmodule NetRunner.Process.SuspendTest do
  # Whom a signal reaches, and stopping a whole tree.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  # A shell; a child in its group; one that has left the group; and below that another, which has left it twice.
  @tree """
  sleep 1000 & echo $!
  setsid sh -c 'echo $$; setsid sleep 1000 & echo $!; wait' &
  wait
  """

  defp start_tree! do
    p = start!(@tree)
    {:ok, {"", text}} = Command.read_until(p, ~r/(.*\n){3}/, timeout: 60_000)
    pids = text |> String.split() |> Enum.map(&String.to_integer/1)
    # The sleepers have become that.
    Tree.await(fn -> Enum.count(pids, &(comm(&1) == "sleep")) == 2 end)
    {p, [Command.os_pid(p) | pids]}
  end

  defp comm(pid) do
    case File.read("/proc/#{pid}/comm") do
      {:ok, name} -> String.trim(name)
      {:error, _} -> nil
    end
  end

  defp state(pid), do: Tree.stat(pid)[:state]
  defp await_states(pids, wanted), do: Tree.await(fn -> Enum.all?(pids, &wanted.(state(&1))) end)

  describe "a signal" do
    test "to the command reaches that alone, and to the group what is in it" do
      {p, [command, in_group | apart]} = start_tree!()
      assert Command.kill(p, :sigstop) == :ok
      Tree.await_stopped(command)
      assert Enum.all?([in_group | apart], &(state(&1) != "T"))
      assert Command.kill(p, :sigstop, to: :group) == :ok
      Tree.await_stopped(in_group)
      assert Enum.all?(apart, &(state(&1) != "T"))
      assert Command.kill(p, :sigcont, to: :group) == :ok
      await_states([command, in_group], &(&1 != "T"))
    end

    @tag Tree.linux_only()
    test "to the tree reaches all of it, and each once" do
      {p, pids} = start_tree!()
      assert Command.kill(p, :sigstop, to: :tree) == :ok
      await_states(pids, &(&1 == "T"))
      assert Command.kill(p, :sigcont, to: :tree) == :ok
      await_states(pids, &(&1 != "T"))

      script = """
      trap 'echo got' USR1
      setsid sh -c "trap 'echo got' USR1; echo ready; while :; do sleep 0.05; done" &
      echo ready; while :; do sleep 0.05; done
      """

      # A sleep in between that gets the signal dies of it.
      p = start!(script)
      {:ok, _} = Command.read_until(p, "ready\n", timeout: 60_000)
      {:ok, _} = Command.read_until(p, "ready\n", timeout: 60_000)
      assert Command.kill(p, :sigusr1, to: :tree) == :ok
      for _ <- 1..2, do: assert({:ok, _} = Command.read_until(p, "got\n", timeout: 60_000))
      assert Command.read_until(p, "got\n", timeout: 300) == {:error, :timeout}
    end

    test "does not reach another command" do
      {p, _pids} = start_tree!()
      {_other, others} = start_tree!()
      assert Command.kill(p, :sigkill, to: :tree) == :ok
      assert Command.await_exit(p) == {:ok, 137}
      assert Enum.all?(others, &(state(&1) in ["S", "R"]))
    end

    test "after the exit is an error, and to nobody known as well" do
      p = start!("exit 0")
      assert Command.await_exit(p) == {:ok, 0}

      for to <- [:command, :group, :tree],
          do: assert(Command.kill(p, :sigterm, to: to) == {:error, :esrch})

      assert Command.suspend(p) == {:error, :esrch}
      assert Command.resume(p) == {:error, :esrch}

      assert_raise ArgumentError, ~r/:to must be :command, :group or :tree, got: :all/, fn ->
        Command.kill(p, :sigterm, to: :all)
      end

      Command.stop(p)
      assert Command.suspend(p) == {:error, :closed}
    end
  end

  describe "suspend" do
    @tag Tree.linux_only()
    test "stops the whole tree, and resume lets it go on" do
      {p, pids} = start_tree!()
      assert Command.suspend(p) == :ok
      await_states(pids, &(&1 == "T"))
      assert Command.suspend(p) == :ok
      assert Command.resume(p) == :ok
      await_states(pids, &(&1 != "T"))
      assert Command.alive?(p)
    end

    @tag Tree.linux_only()
    test "stops a program that goes on forking" do
      # Each starts the next, in a session of its own, and exits.
      chain = ~S{echo $1; [ $1 -gt 100000 ] || setsid sh -c "$2" sh $(($1 + 1)) "$2" &}
      script = ~S|sh -c "$1" sh 1 "$1"; exec sleep 1000|
      {:ok, p} = Command.start("sh", ["-c", script, "sh", chain])
      on_exit(fn -> Command.stop(p) end)
      {:ok, _} = Command.read_until(p, "\n20\n", timeout: 60_000)
      assert Command.suspend(p) == :ok
      quiet(p)
      assert Command.read(p, 65_536, 500) == {:error, :timeout}
      assert Command.resume(p) == :ok
      assert {:ok, _} = Command.read(p, 65_536, 60_000)
    end

    @tag Tree.linux_only()
    test "stops what forks again before it is found" do
      # Without a shell and a program to load: a hop takes half a millisecond.
      hop = """
      import os, signal
      if os.fork(): signal.pause()
      while True:
          os.write(1, b".")
          if os.fork(): os._exit(0)
          os.setsid()
      """

      for _ <- 1..5 do
        {:ok, p} = Command.start("python3", ["-S", "-E", "-c", hop])
        on_exit(fn -> Command.stop(p) end)
        {:ok, _} = Command.read(p, 65_536, 60_000)
        assert Command.suspend(p) == :ok
        quiet(p)
        Command.stop(p)
      end
    end

    # Until nothing more comes for a while.
    defp quiet(p) do
      case Command.read(p, 65_536, 500) do
        {:ok, _} -> quiet(p)
        {:error, :timeout} -> :ok
      end
    end

    test "ends with the command: it goes on before it is ended" do
      # With programs in the foreground, a shell may have to be awaited in vfork(2), where it is in state D.
      script = """
      trap 'echo bye; exit 3' TERM
      setsid sh -c "trap 'echo below; exit' TERM; sleep 1000 & wait" &
      sleep 1000 & echo ready
      while :; do wait; done
      """

      p = start!(script, kill_timeout: 60_000)
      {:ok, _} = Command.read_until(p, "ready\n", timeout: 60_000)
      :ok = Command.suspend(p)
      Tree.await_stopped(Command.os_pid(p))
      :ok = Command.end_command(p)
      assert Command.suspend(p) == {:error, :esrch}
      assert Command.await_exit(p, 60_000) == {:ok, 3}
      assert {:ok, _} = Command.read_until(p, "bye\n")
    end

    test "does not stop the time of a command" do
      command = ["sleep", "1000.#{System.unique_integer([:positive])}"]
      running = Task.async(fn -> NetRunner.run(command, timeout: 2_000) end)
      find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
      Tree.await(fn -> find.() != nil end)
      assert Command.suspend(find.().pid) == :ok
      assert Task.await(running, 60_000) == {:error, :timeout}
    end

    @tag :tmp_dir
    test "does not count as idle", %{tmp_dir: directory} do
      go_on = Path.join(directory, "go on")
      script = "echo ready; until [ -e '#{go_on}' ]; do sleep 0.1; done; exit 7"
      command = ["sh", "-c", script]
      running = Task.async(fn -> NetRunner.capture(command, idle_timeout: 5_000) end)
      find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
      Tree.await(fn -> find.() != nil end)
      %{pid: p} = find.()
      NetRunner.Waiting.await(p, :any)
      assert Command.suspend(p) == :ok
      assert Task.yield(running, 6_000) == nil
      File.touch!(go_on)
      assert Command.resume(p) == :ok
      assert {:ok, %{status: 7, outcome: :ended}} = Task.await(running, 60_000)
    end

    test "counts as idle again when the command alone was continued" do
      for to <- [:command, :group] do
        command = ["sleep", "1000.#{System.unique_integer([:positive])}"]
        running = Task.async(fn -> NetRunner.capture(command, idle_timeout: 1_000) end)
        find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
        Tree.await(fn -> find.() != nil end)
        %{pid: p} = find.()
        assert Command.suspend(p) == :ok
        assert Command.kill(p, :sigcont, to: to) == :ok
        assert {:ok, %{outcome: :idle_timeout}} = Task.await(running, 60_000)
      end
    end

    @tag Tree.linux_only()
    test "of what may stay when the command exits ends with that" do
      p = start!("sleep 1000 & echo $!; exec sleep 1000", leftovers: :leave)
      {:ok, text} = Command.read(p)
      left = text |> String.trim() |> String.to_integer()
      :ok = Command.suspend(p)
      Tree.await_stopped(left)
      :ok = Command.kill(p, :sigkill)
      assert Command.await_exit(p) == {:ok, 137}
      Tree.await(fn -> state(left) != "T" end)
      :ok = Tree.kill(left)
    end

    test "lets the time of a read go on, but not that of an idle one" do
      p = start!("while read line; do echo $line; done")
      :ok = Command.suspend(p)
      assert Command.read_any(p, 100, 20) == {:error, :timeout}
      idle = Task.async(fn -> Command.read_any_idle(p, 100, 100) end)
      NetRunner.Waiting.await(p, :any)
      :ok = Command.resume(p)
      assert Task.await(idle, 60_000) == {:error, :timeout}

      idle = Task.async(fn -> Command.read_any_idle(p, 100, 3_000) end)
      NetRunner.Waiting.await(p, :any)
      :ok = Command.suspend(p)
      # Longer than its time.
      assert Command.read_stderr(p, 100, 1) == {:error, :not_piped}
      assert Task.yield(idle, 4_000) == nil
      :ok = Command.resume(p)
      :ok = Command.write(p, "hello\n")
      assert Task.await(idle, 60_000) in [{:ok, {:stdout, "hello\n"}}, {:error, :timeout}]
    end

    @tag Tree.linux_only()
    test "ends with SIGCONT to the tree, too" do
      {p, pids} = start_tree!()
      :ok = Command.suspend(p)
      await_states(pids, &(&1 == "T"))
      idle = Task.async(fn -> Command.read_any_idle(p, 100, 100) end)
      NetRunner.Waiting.await(p, :any)
      :ok = Command.kill(p, :sigcont, to: :tree)
      await_states(pids, &(&1 != "T"))
      assert Task.await(idle, 60_000) == {:error, :timeout}
    end

    # As su(1), sudo(8) and a shell with its jobs take it: where what they wait for has been stopped by Ctrl-Z, they stop, too. `wait` by
    # waitpid(2), or by the SIGCHLD that is left over from the stop.
    @stops_with_its_child """
    import os, signal, sys
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        os.read(0, 1)
        os._exit(0)
    while True:
        if sys.argv[1] == "wait":
            stopped = os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
            over = not stopped
        else:
            stopped = signal.sigwaitinfo([signal.SIGCHLD]).si_code == 5
            over = os.waitpid(child, os.WNOHANG)[0] == child
        if over:
            sys.exit(3)
        if stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
    """

    for how <- ["wait", "sigchld"], to <- [:resume, :tree] do
      @tag Tree.linux_only()
      test "ends also for a program that stops when its child has stopped: #{how}, #{to}" do
        {:ok, p} = Command.start("python3", ["-c", @stops_with_its_child, unquote(how)])
        {:ok, child} = Command.read(p)
        child = child |> String.trim() |> String.to_integer()
        :ok = Command.suspend(p)
        await_states([Command.os_pid(p), child], &(&1 == "T"))

        :ok =
          if unquote(to == :tree),
            do: Command.kill(p, :sigcont, to: :tree),
            else: Command.resume(p)

        await_states([child], &(&1 != "T"))
        :ok = Command.write(p, "x")
        assert Command.await_exit(p, 60_000) == {:ok, 3}
      end
    end

    test "gives an idle read its time back when the command is ended" do
      p = start!("trap '' TERM; echo ready; while :; do sleep 0.05; done", kill_timeout: 60_000)
      {:ok, "ready\n"} = Command.read(p)
      :ok = Command.suspend(p)
      idle = Task.async(fn -> Command.read_any_idle(p, 100, 50) end)
      NetRunner.Waiting.await(p, :any)
      :ok = Command.end_command(p)
      assert Task.await(idle, 60_000) == {:error, :timeout}
      :ok = Command.kill(p, :sigkill)
      {:ok, 137} = Command.await_exit(p)
    end
  end
end
