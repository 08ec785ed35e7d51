defmodule NetRunner.Guarantees.LeftoversTest do
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  setup do
    tree = Tree.new()
    on_exit(fn -> Tree.kill_all(tree) end)
    {:ok, tree: tree}
  end

  describe "leftovers: :leave" do
    test "leaves what the command put into the background, and only that", %{tree: tree} do
      script = "sleep 600 & (setsid sleep 601 &) ; echo started"
      options = [leftovers: :leave, env: Tree.env(tree)]
      {:ok, command} = Command.start("sh", ["-c", script], options)
      os_pid = Command.os_pid(command)
      assert Command.read(command) == {:ok, "started\n"}
      assert Command.await_exit(command, 60_000) == {:ok, 0}
      left = Tree.processes(tree)
      assert length(left) == 2
      refute os_pid in left
      :ok = Command.stop(command)
      assert Tree.processes(tree) == left
    end

    # What puts a shell's children into a session of their own is as far from it as a daemon.
    @foreground_and_session "setsid sh -c 'echo $$; exec sleep 60' & sleep 61; :"

    test "when the owner dies, the command's group ends with it, and what left it stays", %{
      tree: tree
    } do
      test = self()

      owner =
        spawn(fn ->
          send(test, {:started, start_group_and_session(tree)})
          Process.sleep(:infinity)
        end)

      assert_receive {:started, {_command, session}}, 60_000
      Process.exit(owner, :kill)
      Tree.await(fn -> Tree.processes(tree) == [session] end)
    end

    test "when it is stopped, too", %{tree: tree} do
      {command, session} = start_group_and_session(tree)
      :ok = Command.stop(command)
      assert Tree.processes(tree) == [session]
    end

    test "when it runs into its timeout, too", %{tree: tree} do
      script = "setsid sh -c 'exec sleep 60' & sleep 61; :"
      options = [leftovers: :leave, timeout: 3_000, env: Tree.env(tree)]
      assert NetRunner.run(["sh", "-c", script], options) == {:error, :timeout}
      Tree.await(fn -> length(Tree.processes(tree)) == 1 end)
    end

    test "one that ignores the stop signal loses its group to SIGKILL", %{tree: tree} do
      script = "trap '' TERM; sleep 60 & echo ready; sleep 61; :"
      options = [leftovers: :leave, kill_timeout: 200, env: Tree.env(tree)]
      {:ok, command} = Command.start("sh", ["-c", script], options)
      assert Command.read(command) == {:ok, "ready\n"}
      :ok = Command.stop(command)
      assert Tree.processes(tree) == []
    end

    test "a command that exits on the stop signal takes the rest of its group along", %{
      tree: tree
    } do
      # The child ignores the signal that its parent exits on.
      script = "(trap '' TERM; exec sleep 60) & trap 'exit 3' TERM; echo ready; wait"

      {:ok, command} =
        Command.start("bash", ["-c", script], leftovers: :leave, env: Tree.env(tree))

      assert Command.read(command) == {:ok, "ready\n"}
      Tree.await(fn -> length(Tree.processes(tree)) == 2 end)
      :ok = Command.stop(command)
      assert Tree.processes(tree) == []
    end

    defp start_group_and_session(tree) do
      options = [leftovers: :leave, env: Tree.env(tree)]
      {:ok, command} = Command.start("bash", ["-c", @foreground_and_session], options)
      {:ok, session} = Command.read(command)
      # The shell, its foreground child, and the other session.
      Tree.await(fn -> length(Tree.processes(tree)) == 3 end)
      {command, session |> String.trim() |> String.to_integer()}
    end

    test "what is left survives the VM", %{tree: tree} do
      script = "sleep 60 & echo ready; exit 0"
      vm = Tree.start_vm_with([{["sh", "-c", script], [env: Tree.env(tree), leftovers: :leave]}])
      Tree.await(fn -> length(Tree.processes(tree)) == 1 end)
      [left] = Tree.processes(tree)
      Tree.end_vm(vm, :killed)
      # The shepherd stays as long as what it holds; only Linux gives it something to hold.
      stay = if Tree.needs_linux(), do: 0, else: 2
      Tree.await(fn -> length(Tree.helpers(vm)) == stay end)
      assert Tree.processes(tree) == [left]
      Tree.kill_all(tree)
      Tree.await(fn -> Tree.helpers(vm) == [] end)
    end

    @tag Tree.linux_only()
    test "so it does when the VM is killed before the shepherd has seen the exit", %{tree: tree} do
      fifo = NetRunner.Temporary.path("fifo")
      on_exit(fn -> File.rm(fifo) end)
      {_, 0} = System.cmd("mkfifo", [fifo])
      script = "sleep 600 & echo ready; read go < #{fifo}; exit 0"
      vm = Tree.start_vm_with([{["sh", "-c", script], [env: Tree.env(tree), leftovers: :leave]}])

      shells = fn ->
        for pid <- Tree.processes(tree), File.read("/proc/#{pid}/comm") == {:ok, "sh\n"}, do: pid
      end

      # What is to be `sleep` is a shell at first.
      Tree.await(fn -> length(Tree.processes(tree)) == 2 and length(shells.()) == 1 end)
      [command] = shells.()
      shepherd = Tree.parent(command)
      {_, 0} = System.cmd("kill", ["-STOP", "#{shepherd}"])
      Tree.await_stopped(shepherd)
      File.write!(fifo, "go\n")
      Tree.await(fn -> Tree.stat(command)[:state] == "Z" end)
      Tree.end_vm(vm, :killed)
      # The guard does it, too, after a while.
      _ = System.cmd("kill", ["-CONT", "#{shepherd}"], stderr_to_stdout: true)
      Tree.await(fn -> length(Tree.helpers(vm)) == 2 end)
      assert [_left] = Tree.processes(tree)
      Tree.kill_all(tree)
      Tree.await(fn -> Tree.helpers(vm) == [] end)
    end

    test "run waits for the end of the output, for :output_grace", %{tree: tree} do
      script = "(sleep 0.3; echo late) & echo early"
      options = [leftovers: :leave, output_grace: 60_000, env: Tree.env(tree)]
      assert NetRunner.run(["sh", "-c", script], options) == {"early\nlate\n", 0}
    end

    test "run does not wait for what holds the output without writing", %{tree: tree} do
      options = [leftovers: :leave, timeout: 50_000, env: Tree.env(tree)]
      assert NetRunner.run(["sh", "-c", "sleep 600 & echo early"], options) == {"early\n", 0}
      assert length(Tree.processes(tree)) == 1
      Tree.kill_all(tree)
    end
  end

  describe "leftovers: :kill" do
    test "run returns when the command has exited, with all that was written before", %{
      tree: tree
    } do
      script = "sleep 60 & head -c 50000 /dev/zero; exit 3"

      {micros, result} =
        :timer.tc(fn -> NetRunner.run(["sh", "-c", script], env: Tree.env(tree)) end)

      assert result == {:binary.copy(<<0>>, 50_000), 3}
      assert Tree.processes(tree) == []
      assert micros < 5_000_000
    end

    test "does not wait for a process outside of the tree that was given the pipe", %{tree: tree} do
      # The holder keeps a descriptor of the command's stdout open through /proc; it is no child of it.
      {:ok, command} =
        Command.start("sh", ["-c", "echo ready; read line; exit 4"], env: Tree.env(tree))

      assert Command.read(command) == {:ok, "ready\n"}
      stdout = "/proc/#{Command.os_pid(command)}/fd/1"

      holder =
        Port.open({:spawn_executable, "/bin/sh"}, [
          :binary,
          args: ["-c", "exec 3>#{stdout}; echo held; read line"]
        ])

      assert_receive {^holder, {:data, "held\n"}}, 60_000
      reader = Task.async(fn -> Command.read(command) end)
      :ok = Command.write(command, "go\n")
      assert Command.await_exit(command, 60_000) == {:ok, 4}
      assert Task.await(reader) == :eof
      Port.close(holder)
    end
  end
end
