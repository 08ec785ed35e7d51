defmodule NetRunner.Process.CallersTest do
  # What callers of one process get when they are many, slow, or dead. Only public functions are called; a server that
  # is suspended stands for one that has not come to its messages yet.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  @moduletag timeout: 60_000

  defp start!(script, options \\ []) do
    {:ok, p} = Command.start("sh", ["-c", script], options)
    on_exit(fn -> Command.stop(p) end)
    p
  end

  # Runs a call in a process of its own, and returns when its request is in the mailbox of the suspended server.
  # What it returns is sent to the test.
  defp request(p, ref, call) do
    test = self()
    before = queue_length(p)
    pid = spawn(fn -> send(test, {ref, call.()}) end)
    Tree.await(fn -> queue_length(p) > before end)
    pid
  end

  defp queue_length(p) do
    {:message_queue_len, length} = Process.info(p, :message_queue_len)
    length
  end

  defp kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, _, _}, 5_000
  end

  describe "a caller that died before the server came to its request" do
    # The other stream says when the bytes are in the pipe.
    for {function, expected, script, told} <- [
          {:read, "abc", "printf abc; echo >&2", read_stderr: {:ok, "\n"}},
          {:read_stderr, "abc", "printf abc >&2; echo", read: {:ok, "\n"}},
          {:read_any, {:stdout, "abc"}, "echo >&2; printf abc; exec 2>&-",
           read_stderr: {:ok, "\n"}, read_stderr: :eof}
        ] do
      test "takes no bytes with #{function}" do
        {function, expected} = {unquote(function), unquote(Macro.escape(expected))}
        p = start!(unquote(script) <> "; exec sleep 1000", stderr: :pipe)
        for {other, answer} <- unquote(told), do: assert(apply(Command, other, [p]) == answer)

        :ok = :sys.suspend(p)
        kill(request(p, :dead, fn -> apply(Command, function, [p]) end))
        request(p, :alive, fn -> apply(Command, function, [p]) end)
        :ok = :sys.resume(p)

        assert_receive {:alive, {:ok, ^expected}}, 10_000
        refute_received {:dead, _}
      end
    end
  end

  test "read_any does not overtake a reader that has waited longer" do
    go = Path.join(System.tmp_dir!(), "net_runner_go_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm(go) end)

    script =
      "until [ -e #{go} ]; do sleep 0.01; done; printf err >&2; printf out; exec sleep 1000"

    p = start!(script, stderr: :pipe)
    :ok = :sys.suspend(p)
    request(p, :reader, fn -> Command.read(p) end)
    request(p, :any, fn -> Command.read_any(p) end)
    :ok = :sys.resume(p)
    # Answered after those two have been tried, and so both wait.
    assert Command.alive?(p)
    :ok = :sys.suspend(p)
    File.write!(go, "")
    # It hears of stderr first, when stdout has something too.
    Tree.await(fn -> told_of_both?(p) end)
    :ok = :sys.resume(p)
    assert_receive {:reader, {:ok, "out"}}, 10_000
    assert_receive {:any, {:ok, {:stderr, "err"}}}, 10_000
  end

  defp told_of_both?(p) do
    {:messages, messages} = Process.info(p, :messages)
    Enum.count(messages, &match?({:select, _, _, :ready_input}, &1)) >= 2
  end

  test "a caller that was answered is not monitored any more" do
    {:ok, p} = Command.start("cat")
    on_exit(fn -> Command.stop(p) end)

    monitored = fn ->
      for {:process, pid} when is_pid(pid) <- elem(Process.info(p, :monitors), 1), do: pid
    end

    before = monitored.()
    test = self()

    # They live on after their answer, which would end a monitor too.
    readers =
      for _ <- 1..20 do
        spawn_link(fn ->
          send(test, {:read, Command.read(p, 1)})
          Process.sleep(:infinity)
        end)
      end

    Tree.await(fn -> readers -- monitored.() == [] end)
    assert Command.write(p, String.duplicate("x", 20)) == :ok
    for _ <- readers, do: assert_receive({:read, {:ok, "x"}}, 10_000)
    # The server has done all that belonged to the last answer.
    assert Command.alive?(p)
    assert monitored.() == before
    for pid <- readers, do: Process.unlink(pid)
    Enum.each(readers, &Process.exit(&1, :kill))
  end

  test "a write that needed many system calls is counted whole" do
    p = start!("exec cat >/dev/null")
    assert Command.write(p, :binary.copy("x", 5_000_000)) == :ok
    assert Command.stats(p).bytes_in == 5_000_000
  end

  test "a waiting write is answered when its command exits, also when a stranger holds the pipe" do
    p = start!("exec sleep 1000")
    stdin = "/proc/#{Command.os_pid(p)}/fd/0"

    holder =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", "exec 3<#{stdin}; echo held; read line"]
      ])

    assert_receive {^holder, {:data, "held\n"}}, 10_000
    writer = Task.async(fn -> Command.write(p, :binary.copy("x", 5_000_000)) end)
    # The pipe is as full as it gets with the first of it.
    Tree.await(fn -> Command.stats(p).bytes_in > 0 end)
    assert Command.kill(p, :sigkill) == :ok
    assert Command.await_exit(p) == {:ok, 137}
    assert Task.await(writer, 10_000) == {:error, :epipe}
    assert Command.write(p, :binary.copy("x", 5_000_000)) == {:error, :epipe}
    Port.close(holder)
  end

  test "a write that fits into :pipe_size returns though nobody reads" do
    p = start!("exec sleep 1000", pipe_size: 1_048_576)
    writer = Task.async(fn -> Command.write(p, :binary.copy("x", 900_000)) end)
    assert Task.await(writer, 10_000) == :ok
  end

  test "a run without an owner is ended when nobody is left who could get its result" do
    mark = "1000.#{System.unique_integer([:positive])}"
    caller = spawn(fn -> NetRunner.run(["sleep", mark], owner: nil) end)
    find = fn -> Enum.find(NetRunner.list(), &(&1.command == ["sleep", mark])) end
    Tree.await(fn -> find.() != nil end)
    %{os_pid: os_pid, pid: server} = find.()
    monitor = Process.monitor(server)
    kill(caller)
    assert_receive {:DOWN, ^monitor, :process, _, _}, 10_000
    Tree.await(fn -> Tree.stat(os_pid) == nil end)
  end
end
