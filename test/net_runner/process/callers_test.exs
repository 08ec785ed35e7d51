defmodule NetRunner.Process.CallersTest do
  # What callers of one process get when they are many, slow, or dead. Only public functions are called; a server that
  # is suspended stands for one that has not come to its messages yet.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

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
    assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
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

        assert_receive {:alive, {:ok, ^expected}}, 60_000
        refute_received {:dead, _}
      end
    end
  end

  test "read_any does not overtake a reader that has waited longer" do
    go = go_file()

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
    Tree.await(fn -> told(p) >= 2 end)
    :ok = :sys.resume(p)
    assert_receive {:reader, {:ok, "out"}}, 60_000
    assert_receive {:any, {:ok, {:stderr, "err"}}}, 60_000
  end

  test "a read whose time is over gets what has come by then" do
    go = go_file()
    p = start!("until [ -e #{go} ]; do sleep 0.01; done; printf out; exec sleep 1000")
    reader = Task.async(fn -> Command.read(p) end)
    NetRunner.Waiting.await(p, :stdout)
    [%{monitor: monitor}] = NetRunner.Process.Operations.all(:sys.get_state(p).outlets.queue)
    :ok = :sys.suspend(p)
    # As of a timer; it is told first.
    send(p, {:waited, monitor})
    File.write!(go, "")
    Tree.await(fn -> told(p) >= 1 end)
    :ok = :sys.resume(p)
    assert Task.await(reader, 60_000) == {:ok, "out"}
  end

  # The name of a file that is not there yet.
  defp go_file do
    go = NetRunner.Temporary.path("go")
    on_exit(fn -> File.rm(go) end)
    go
  end

  # How many messages of the poll threads the server has not come to.
  defp told(p) do
    {:messages, messages} = Process.info(p, :messages)
    Enum.count(messages, &match?({:select, _, _, :ready_input}, &1))
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
    for _ <- readers, do: assert_receive({:read, {:ok, "x"}}, 60_000)
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

  for {name, reads?} <- [{"reads", true}, {"reads later", false}] do
    @reads? reads?

    test "a write that has begun is carried to its end, also when its caller died before the server came to it, to one that #{name}" do
      {:ok, p} = Command.start("cat", [], pipe_size: 0)
      on_exit(fn -> Command.stop(p) end)

      unless @reads? do
        :ok = Command.kill(p, :sigstop)
        Tree.await_stopped(Command.os_pid(p))
      end

      :ok = :sys.suspend(p)
      kill(request(p, :dead, fn -> Command.write(p, :binary.copy("x", 300_000)) end))
      request(p, :alive, fn -> Command.write(p, "end") && Command.close_stdin(p) end)
      :ok = :sys.resume(p)

      unless @reads? do
        NetRunner.Waiting.await(p, :stdin, 2)
        :ok = Command.kill(p, :sigcont)
      end

      assert read_all(p) == :binary.copy("x", 300_000) <> "end"
      assert_receive {:alive, :ok}, 60_000
    end
  end

  test "a write that has begun is carried to its end, also when its caller dies much later" do
    take = NetRunner.Temporary.path("take")
    rest = NetRunner.Temporary.path("rest")
    on_exit(fn -> Enum.each([take, rest], &File.rm/1) end)
    await = &"until [ -e #{&1} ]; do sleep 0.05; done"
    script = "#{await.(take)}; head -c $(cat #{take}) >/dev/null; #{await.(rest)}; wc -c"
    p = start!(script, pipe_size: 0)
    size = 10_000_000
    writer = spawn(fn -> Command.write(p, :binary.copy("x", size)) end)
    NetRunner.Waiting.await(p, :stdin)
    # As much as the pipe holds. When that is taken, there is room for more.
    %{bytes_in: first} = Command.stats(p)
    File.write!(take <> "_", "#{first}")
    File.rename!(take <> "_", take)
    Tree.await(fn -> Command.stats(p).bytes_in > first end)
    kill(writer)
    closing = Task.async(fn -> Command.close_stdin(p) end)
    NetRunner.Waiting.await(p, :stdin, 2)
    File.touch!(rest)
    assert read_all(p) == "#{size - first}\n"
    assert Task.await(closing, 60_000) == :ok
  end

  defp read_all(p) do
    case Command.read(p) do
      {:ok, bytes} -> bytes <> read_all(p)
      :eof -> ""
    end
  end

  test "a waiting write is answered when its command exits, also when a stranger holds the pipe" do
    p = start!("exec sleep 1000")
    stdin = "/proc/#{Command.os_pid(p)}/fd/0"

    holder =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", "exec 3<#{stdin}; echo held; read line"]
      ])

    assert_receive {^holder, {:data, "held\n"}}, 60_000
    writer = Task.async(fn -> Command.write(p, :binary.copy("x", 5_000_000)) end)
    # The pipe is as full as it gets with the first of it.
    Tree.await(fn -> Command.stats(p).bytes_in > 0 end)
    assert Command.kill(p, :sigkill) == :ok
    assert Command.await_exit(p) == {:ok, 137}
    assert Task.await(writer, 60_000) == {:error, :epipe}
    assert Command.write(p, :binary.copy("x", 5_000_000)) == {:error, :epipe}
    Port.close(holder)
  end

  describe "when the shepherd was killed, and a stranger holds a pipe of the command," do
    # Elsewhere nobody would end the command.
    @describetag Tree.linux_only()

    defp hold(os_pid, number) do
      open = "exec 3<>/proc/#{os_pid}/fd/#{number}; echo held; exec sleep 1000"
      holder = start!(open)
      assert Command.read(holder) == {:ok, "held\n"}
    end

    defp kill_shepherd(os_pid) do
      {"", 0} = System.cmd("kill", ["-KILL", "#{Tree.parent(os_pid)}"])
    end

    test "a run returns" do
      command = ["sleep", "1000.#{System.unique_integer([:positive])}"]
      running = Task.async(fn -> NetRunner.run(command) end)
      find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
      Tree.await(fn -> find.() != nil end)
      hold(find.().os_pid, 1)
      kill_shepherd(find.().os_pid)
      assert Task.await(running, 60_000) == {:error, :shepherd_died}
    end

    test "a reader gets what is there, and the end" do
      p = start!("echo there; echo printed >&2; exec sleep 1000", stderr: :pipe)
      assert Command.read_stderr(p) == {:ok, "printed\n"}
      os_pid = Command.os_pid(p)
      hold(os_pid, 1)
      kill_shepherd(os_pid)
      assert Command.await_exit(p) == {:error, :shepherd_died}
      assert Command.read(p) == {:ok, "there\n"}
      assert Task.await(Task.async(fn -> Command.read(p) end), 60_000) == :eof
    end

    test "a waiting write is answered" do
      p = start!("exec sleep 1000")
      os_pid = Command.os_pid(p)
      hold(os_pid, 0)
      writer = Task.async(fn -> Command.write(p, :binary.copy("x", 5_000_000)) end)
      NetRunner.Waiting.await(p, :stdin)
      kill_shepherd(os_pid)
      assert Task.await(writer, 60_000) == {:error, :epipe}
    end
  end

  test "who waits for the exit of a run gets the status" do
    command = ["sh", "-c", "read line; exit 3", "#{System.unique_integer([:positive])}"]
    {:ok, input} = Command.start("sleep", ["1000"])
    fifo = "/proc/#{Command.os_pid(input)}/fd/1"
    running = Task.async(fn -> NetRunner.run(command, stdin: {:file, fifo}) end)
    find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
    Tree.await(fn -> find.() != nil end)
    %{pid: server} = find.()
    waiting = Task.async(fn -> Command.await_exit(server) end)
    NetRunner.Waiting.await(server, :exit)
    :ok = Command.stop(input)
    assert Task.await(waiting, 60_000) == {:ok, 3}
    assert Task.await(running, 60_000) == {"", 3}
  end

  describe "behind a read_any that waits for the other stream," do
    test "a reader is told of the end of its own" do
      p = start!("read line; exec >&-; exec sleep 1000", stderr: :pipe)
      any = Task.async(fn -> Command.read_any(p) end)
      NetRunner.Waiting.await(p, :any)
      before = Task.async(fn -> Command.read(p) end)
      NetRunner.Waiting.await(p, :stdout)
      :ok = Command.write(p, "close\n")
      assert Task.await(before, 60_000) == :eof
      assert Task.await(Task.async(fn -> Command.read(p) end), 60_000) == :eof
      assert Task.yield(any, 0) == nil
      :ok = Command.stop(p)
      assert Task.await(any, 60_000) == {:error, :closed}
    end

    test "so is a process that asks, with and without credit, and a read_until" do
      p = start!("echo 1; read line; exec >&-; exec sleep 1000", stderr: :pipe)
      :ok = Command.ask(p, 1)
      assert_receive {:net_runner, ^p, {:stdout, "1\n"}}, 60_000
      any = Task.async(fn -> Command.read_any(p) end)
      NetRunner.Waiting.await(p, :any)
      until = Task.async(fn -> Command.read_until(p, "x") end)
      NetRunner.Waiting.await(p, :hold)
      :ok = Command.write(p, "close\n")
      assert Task.await(until, 60_000) == :eof
      assert_receive {:net_runner, ^p, {:eof, :stdout}}, 60_000
      assert Task.yield(any, 0) == nil
      assert Command.read_until(p, "x") == :eof

      p = start!("read line; exec >&-; exec sleep 1000", stderr: :pipe)
      _any = Task.async(fn -> Command.read_any(p) end)
      NetRunner.Waiting.await(p, :any)
      :ok = Command.ask(p, 5)
      :ok = Command.write(p, "close\n")
      assert_receive {:net_runner, ^p, {:eof, :stdout}}, 60_000
      refute_received {:net_runner, _, _}
    end

    test "a reader is told that its own is no pipe" do
      p = start!("exec sleep 1000")
      any = Task.async(fn -> Command.read_any(p) end)
      NetRunner.Waiting.await(p, :any)
      reader = Task.async(fn -> Command.read_stderr(p) end)
      assert Task.await(reader, 60_000) == {:error, :not_piped}
      :ok = Command.stop(p)
      assert Task.await(any, 60_000) == {:error, :closed}
    end
  end

  @tag Tree.linux_only()
  test "a write that fits into :pipe_size returns though nobody reads" do
    p = start!("exec sleep 1000", pipe_size: 1_048_576)
    writer = Task.async(fn -> Command.write(p, :binary.copy("x", 900_000)) end)
    assert Task.await(writer, 60_000) == :ok
  end

  for owner <- [:nobody, :the_test] do
    test "a run that belongs to #{owner} is ended when nobody is left who could get its result" do
      mark = "1000.#{System.unique_integer([:positive])}"
      owner = if unquote(owner) == :the_test, do: self()
      caller = spawn(fn -> NetRunner.run(["sleep", mark], owner: owner) end)
      find = fn -> Enum.find(NetRunner.list(), &(&1.command == ["sleep", mark])) end
      Tree.await(fn -> find.() != nil end)
      %{os_pid: os_pid, pid: server} = find.()
      if owner, do: NetRunner.Waiting.await(server, :collect)
      monitor = Process.monitor(server)
      kill(caller)
      assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
      Tree.await(fn -> Tree.stat(os_pid) == nil end)
    end
  end

  for {name, function} <- [
        stream!: quote(do: &(NetRunner.stream!(&1, &2) |> Stream.run())),
        stream: quote(do: &(NetRunner.stream(&1, &2) |> elem(1) |> Stream.run())),
        pipeline: quote(do: &NetRunner.pipeline([&1, ["cat"]], &2)),
        pipeline_stream!:
          quote(do: &(NetRunner.pipeline_stream!([&1, ["cat"]], &2) |> Stream.run())),
        cmd: quote(do: &NetRunner.cmd(hd(&1), tl(&1), &2)),
        run: quote(do: &NetRunner.run(&1, &2)),
        capture: quote(do: &NetRunner.capture(&1, &2))
      ] do
    test "what #{name} has started is ended with its caller, though another process owns it" do
      mark = "1000.#{System.unique_integer([:positive])}"
      test = self()

      caller = spawn(fn -> unquote(function).(["sleep", mark], owner: test) end)

      # `cat`, at the end of a pipeline, is gone when its input is.
      find = fn -> Enum.find(NetRunner.list(), &(List.last(&1.command) == mark)) end
      Tree.await(fn -> find.() != nil end)
      %{os_pid: os_pid, pid: server} = find.()
      # Until somebody enumerates it, a stream of `stream/2` is its owner's.
      if unquote(name) == :stream, do: NetRunner.Waiting.await(server, :stdout)
      kill(caller)
      Tree.await(fn -> Tree.stat(os_pid) == nil and find.() == nil end)
    end
  end

  test "a stream that belongs to nobody is ended with its consumer" do
    mark = "1000.#{System.unique_integer([:positive])}"
    find = fn -> Enum.find(NetRunner.list(), &(&1.command == ["sleep", mark])) end
    consumer = spawn(fn -> NetRunner.stream!(["sleep", mark], owner: nil) |> Stream.run() end)
    Tree.await(fn -> find.() != nil end)
    kill(consumer)
    Tree.await(fn -> find.() == nil end)
  end

  test "a writer that dies while it waits does not keep a close waiting" do
    # The pipe is exactly full, and nobody reads.
    p = start!("exec sleep 1000", pipe_size: 0)
    assert Command.write(p, :binary.copy("x", 65_536)) == :ok
    test = self()
    writer = spawn(fn -> send(test, {:wrote, Command.write(p, "y")}) end)
    NetRunner.Waiting.await(p, :stdin)
    closing = Task.async(fn -> Command.close_stdin(p) end)
    NetRunner.Waiting.await(p, :stdin, 2)
    kill(writer)
    assert Task.await(closing, 60_000) == :ok
    refute_received {:wrote, _}
  end

  test "read_any behind a reader of stdout does not take the end of stderr for the end of all" do
    p = start!("exec 2>&-; read go; printf ab; exec sleep 1000", stderr: :pipe)
    assert Command.read_stderr(p) == :eof
    reader = Task.async(fn -> Command.read(p, 1) end)
    NetRunner.Waiting.await(p, :stdout)
    any = Task.async(fn -> Command.read_any(p) end)
    NetRunner.Waiting.await(p, :any)
    assert Command.write(p, "go\n") == :ok
    assert Task.await(reader, 60_000) == {:ok, "a"}
    assert Task.await(any, 60_000) == {:ok, {:stdout, "b"}}
  end

  for {ended, other, script} <- [
        {:stdout, :stderr, "exec >&-; read go; printf ab >&2; exec sleep 1000"},
        {:stderr, :stdout, "exec 2>&-; read go; printf ab; exec sleep 1000"}
      ] do
    test "read_any waits for #{other} when #{ended} has ended" do
      p = start!(unquote(script), stderr: :pipe)
      read = if unquote(ended) == :stdout, do: &Command.read/1, else: &Command.read_stderr/1
      assert read.(p) == :eof
      # Whichever of the two is looked at first.
      any = for n <- 1..2, do: Task.async(fn -> {n, Command.read_any(p, 1)} end)
      NetRunner.Waiting.await(p, :any, 2)
      assert Command.write(p, "go\n") == :ok
      results = for {_, result} <- Task.await_many(any, 60_000), do: result
      assert Enum.sort(results) == [ok: {unquote(other), "a"}, ok: {unquote(other), "b"}]
    end
  end

  test "more output than is allowed is an error also when the command has exited before it is collected" do
    p = start!("echo hello")
    assert Command.await_exit(p) == {:ok, 0}
    collecting = Task.async(fn -> Command.collect(p, 2, :infinity) end)
    assert Task.await(collecting, 60_000) == {:error, {:max_output_exceeded, "he"}}
    p = start!("echo hello")
    assert Command.await_exit(p) == {:ok, 0}
    assert Command.collect(p, 6, :infinity) == {"hello\n", 0}
  end

  test "what a command prints while it is ended does not come as what follows" do
    test = self()
    mark = "#{System.unique_integer([:positive])}"
    # It does not listen to the stop signal, and prints on.
    script = "trap '' TERM; exec yes line"

    input = fn _sink ->
      send(test, {:feeder, self()})
      receive do: (:fail -> raise("no input"))
    end

    chunks =
      ["sh", "-c", script, mark]
      |> NetRunner.stream!(input: input, kill_timeout: 2_000)
      |> Stream.each(fn chunk ->
        send(test, {:chunk, chunk})
        assert_receive {:feeder, feeder}, 60_000
        find = &(List.last(&1.command) == mark)
        %{pid: server, os_pid: os_pid} = Enum.find(NetRunner.list(), find)
        send(feeder, :fail)
        Tree.await(fn -> Command.verdict(server) not in [nil, {:error, :closed}] end)
        # What it prints now is in the pipe when the stream goes on.
        :ok = :sys.suspend(server)
        Tree.await_blocked(os_pid)
        spawn(fn -> :sys.resume(server) end)
      end)

    assert_raise RuntimeError, "no input", fn -> Stream.run(chunks) end
    assert_received {:chunk, _}
    refute_received {:chunk, _}
  end

  test "the error of a stream that its time has ended says what the command wrote to stderr" do
    stream = NetRunner.stream!(["sh", "-c", "echo oops >&2; exec sleep 1000"], timeout: 3_000)
    error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
    assert %{reason: :timeout, stderr: "oops\n"} = error
  end

  test "what a stream reads is counted, and as much as is allowed is not too much" do
    mark = "#{System.unique_integer([:positive])}"
    test = self()

    input = fn _sink ->
      send(test, {:feeder, self()})
      receive do: (:done -> :ok)
    end

    # Only what the consumer takes by itself comes in pieces that are seen while the command runs.
    counted =
      ["sh", "-c", "head -c 200000 /dev/zero; exec cat", mark]
      |> NetRunner.stream!(max_output_size: 200_000, input: input)
      |> Enum.reduce(0, fn chunk, before ->
        %{bytes: bytes} = Enum.find(NetRunner.list(), &(List.last(&1.command) == mark))
        assert bytes.out == before + byte_size(chunk)

        if bytes.out == 200_000 do
          assert_receive {:feeder, feeder}, 60_000
          send(feeder, :done)
        end

        bytes.out
      end)

    assert counted == 200_000
  end

  test "an input that fails when its command has exited raises all the same" do
    # It fails when it hears that nobody reads any more, which is after the first byte.
    input = Stream.resource(fn -> nil end, &{["x"], &1}, fn nil -> raise "late" end)

    head = ~w(head -c 1)

    for _ <- 1..10,
        run <- [
          fn -> NetRunner.run(head, input: input) end,
          fn -> NetRunner.pipeline([head, ["cat"]], input: input) end,
          fn -> head |> NetRunner.stream!(input: input) |> Stream.run() end,
          fn ->
            ["sh", "-c", "head -c 1; exit 1"] |> NetRunner.stream!(input: input) |> Stream.run()
          end,
          fn -> head |> NetRunner.stream(input: input) |> elem(1) |> Stream.run() end,
          fn ->
            [head, ["cat"]] |> NetRunner.pipeline_stream!(input: input) |> Stream.run()
          end
        ],
        do: assert_raise(RuntimeError, "late", run)
  end

  test "an input that traps exits and waits does not outlive a server that is killed, nor does its run" do
    test = self()
    command = ["sleep", "1000.#{System.unique_integer([:positive])}"]

    input = fn _sink ->
      Process.flag(:trap_exit, true)
      send(test, {:feeder, self()})
      receive(do: (:never -> :ok))
    end

    running = Task.async(fn -> NetRunner.run(command, input: input) end)
    assert_receive {:feeder, feeder}, 60_000
    monitor = Process.monitor(feeder)
    %{pid: server} = Enum.find(NetRunner.list(), &(&1.command == command))
    Process.exit(server, :kill)
    assert_receive {:DOWN, ^monitor, :process, _, :killed}, 60_000
    assert Task.await(running, 60_000) == {:error, :closed}
  end

  test "an input whose write was refused has time for a cleanup that waits" do
    test = self()
    pieces = fn _ -> {[:binary.copy("x", 100_000)], nil} end

    cleanup = fn _ ->
      Process.sleep(1_000)
      send(test, :cleaned_up)
    end

    input = Stream.resource(fn -> nil end, pieces, cleanup)
    assert NetRunner.run(~w(head -c 1), input: input) == {"x", 0}
    assert_received :cleaned_up
  end

  test "an input is not left when a stream stops early" do
    test = self()

    input = fn _sink ->
      send(test, {:feeder, self()})
      Process.sleep(:infinity)
    end

    # It has begun when the stream stops.
    [feeder] =
      ~w(yes)
      |> NetRunner.stream!(input: input)
      |> Stream.map(fn _chunk ->
        assert_receive {:feeder, feeder}, 60_000
        feeder
      end)
      |> Enum.take(1)

    refute Process.alive?(feeder)
  end

  test "a time that is over when the command has exited unheard is no timeout" do
    go = NetRunner.Temporary.path("go")

    on_exit(fn -> File.rm(go) end)
    command = ["sh", "-c", "until [ -e #{go} ]; do sleep 0.01; done; echo in time"]
    running = Task.async(fn -> NetRunner.run(command, timeout: 2_000) end)
    find = fn -> Enum.find(NetRunner.list(), &(&1.command == command)) end
    Tree.await(fn -> find.() != nil end)
    %{pid: p} = find.()
    %{control: control} = :sys.get_state(p)
    :ok = :sys.suspend(p)
    messages = fn -> elem(Process.info(p, :messages), 1) end
    # The server is told of its time before it is told of the exit.
    Tree.await(fn -> :expired in messages.() end, 60_000)
    File.write!(go, "")
    told_of_exit? = &match?({:select, ^control, _, :ready_input}, &1)
    Tree.await(fn -> Enum.any?(messages.(), told_of_exit?) end)
    :ok = :sys.resume(p)
    assert Task.await(running, 60_000) == {"in time\n", 0}
  end

  test "a signal that finds the shepherd gone says that the command is, too" do
    p = start!("exec sleep 1000")
    shepherd = Tree.shepherd(p)
    :ok = :sys.suspend(p)
    request(p, :kill, fn -> Command.kill(p, :sigusr1) end)
    :ok = Tree.kill(shepherd)
    Tree.await(fn -> Tree.stat(shepherd) == nil end)
    :ok = :sys.resume(p)
    assert_receive {:kill, {:error, :esrch}}, 60_000
  end

  test "an input that fails after the command has exited fails the stream" do
    test = self()
    mark = "#{System.unique_integer([:positive])}"

    input = fn _sink ->
      send(test, {:feeder, self()})
      receive do: (:fail -> raise("no input"))
    end

    chunks =
      ["sh", "-c", "echo one", mark]
      |> NetRunner.stream!(input: input)
      |> Stream.each(fn _ ->
        assert_receive {:feeder, feeder}, 60_000
        {:links, links} = Process.info(feeder, :links)
        [p] = Enum.filter(links, &is_pid/1)
        Tree.await(fn -> not Command.alive?(p) end)
        send(feeder, :fail)
        Tree.await(fn -> Command.verdict(p) != nil end)
      end)

    assert_raise RuntimeError, "no input", fn -> Stream.run(chunks) end
  end

  test "a task that puts in the input may find that the command has had enough, and the command goes on" do
    input = fn sink ->
      Task.await(Task.async(fn -> Enum.into(Stream.cycle(["x\n"]), sink) end), :infinity)
    end

    # The task's exit takes the feeder along while the command runs.
    script = "exec <&-; sleep 0.3; echo done"
    assert NetRunner.run(["sh", "-c", script], input: input) == {"done\n", 0}
  end

  test "a stream without an owner is enumerated once, too" do
    {:ok, stream} = NetRunner.stream(["sh", "-c", "echo one; exec sleep 1000"], owner: nil)
    assert Enum.take(Stream.each(stream, fn _ -> assert_taken(stream) end), 1) == ["one\n"]
  end

  defp assert_taken(stream) do
    error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
    assert error.reason == :already_enumerated
  end

  test "a command that is killed after :kill_timeout is not given up before" do
    p =
      start!("trap '' TERM; echo ready; while :; do sleep 0.05; done",
        kill_timeout: 2_000,
        give_up_after: 1_900
      )

    assert Command.read(p) == {:ok, "ready\n"}
    assert Command.stop(p) == :ok
  end

  test "a command without :input has an empty stdin, also where a pipe is asked for" do
    assert NetRunner.run(~w(cat), stdin: :pipe, timeout: 10_000) == {"", 0}
  end

  test "the state of a server, as crash reports have it, shows no arguments and no output" do
    {:ok, p} = Command.start("sh", ["-c", "echo s3cret >&2; echo; exec sleep 1000", "s3cret"])
    on_exit(fn -> Command.stop(p) end)
    assert Command.read(p) == {:ok, "\n"}
    refute inspect(:sys.get_status(p), limit: :infinity, printable_limit: :infinity) =~ "s3cret"
  end

  test "a call or cast that it does not know ends a server without showing what it holds" do
    for call <- [{:no, "such call"}, {:tell, :no_such_question}] do
      {p, writer} = start_with_secret!()

      log =
        ExUnit.CaptureLog.capture_log(fn ->
          {reason, _} = catch_exit(GenServer.call(p, call))
          shown = inspect(reason, limit: :infinity, printable_limit: :infinity)
          refute shown =~ "s3cret"
          assert Task.await(writer, 60_000) == {:error, :closed}
          NetRunner.Waiting.await_log()
        end)

      assert log =~ "called the process of a command with a request that it does not know"
      refute log =~ "s3cret"
    end

    {p, writer} = start_with_secret!()

    log =
      ExUnit.CaptureLog.capture_log(fn ->
        GenServer.cast(p, {:no, "such cast"})
        assert Task.await(writer, 60_000) == {:error, :closed}
        Tree.await(fn -> not Process.alive?(p) end)
        NetRunner.Waiting.await_log()
      end)

    assert log =~ "the process of a command got a cast that it does not know"
    refute log =~ "s3cret"
  end

  defp start_with_secret! do
    p = start!("exec sleep 1000")
    writer = Task.async(fn -> Command.write(p, :binary.copy("s3cret", 1_000_000)) end)
    NetRunner.Waiting.await(p, :stdin)
    {p, writer}
  end

  test "a fault of the library ends a server, and shows neither what it holds nor what waits for it" do
    p = start!("exec sleep 1000")
    os_pid = Command.os_pid(p)
    {secret, handler} = log_to_me()
    :sys.replace_state(p, &%{&1 | started: secret})
    :ok = :sys.suspend(p)
    asking = Task.async(fn -> Command.stats(p) end)
    Tree.await(fn -> match?({_, 1}, Process.info(p, :message_queue_len)) end)
    writing = Task.async(fn -> Command.write(p, secret) end)
    Tree.await(fn -> match?({_, 2}, Process.info(p, :message_queue_len)) end)
    monitor = Process.monitor(p)
    :sys.resume(p)
    assert_receive {:DOWN, ^monitor, _, _, {:shutdown, {:crashed, sentence}}}, 60_000
    assert sentence =~ "a command was ended because of a fault in NetRunner: "
    assert Task.await(asking, 60_000) == {:error, :closed}
    assert Task.await(writing, 60_000) == {:error, :closed}
    Tree.await(fn -> Tree.stat(os_pid) == nil end)
    NetRunner.Waiting.await_log()
    :ok = :logger.remove_handler(handler)
    assert Enum.any?(logged = logged(), &(&1 =~ sentence))
    assert Enum.filter(logged, &(&1 =~ secret and &1 =~ inspect(p))) == []
  end

  test "so does one that it meets at its end" do
    p = start!("exec sleep 1000")
    os_pid = Command.os_pid(p)
    {secret, handler} = log_to_me()
    :sys.replace_state(p, &%{&1 | fds: secret})
    monitor = Process.monitor(p)
    Process.exit(p, :shutdown)
    assert_receive {:DOWN, ^monitor, _, _, _}, 60_000
    Tree.await(fn -> Tree.stat(os_pid) == nil end)
    NetRunner.Waiting.await_log()
    :ok = :logger.remove_handler(handler)
    assert Enum.any?(logged = logged(), &(&1 =~ "a fault in NetRunner: badmap in maps.values/1"))
    assert Enum.filter(logged, &(&1 =~ secret and &1 =~ inspect(p))) == []
  end

  # All that handlers get, with the reports of OTP that Elixir's leaves out; and a secret of the test's.
  defp log_to_me do
    secret = "sesame-#{System.unique_integer([:positive])}"
    handler = :"#{__MODULE__}.#{secret}"
    :ok = :logger.add_handler(handler, __MODULE__, %{config: %{everything_to: self()}})
    on_exit(fn -> :logger.remove_handler(handler) end)
    {secret, handler}
  end

  defp logged do
    receive do
      {:logged, event} -> [event | logged()]
    after
      0 -> []
    end
  end

  def log(event, %{config: %{everything_to: test}}) do
    send(test, {:logged, inspect(event, limit: :infinity, printable_limit: :infinity)})
  end

  def log(%{msg: message}, %{config: %{test: test}}) do
    if inspect(message) =~ "a stray message" do
      send(test, {:logging, self()})
      Process.sleep(:infinity)
    end
  end

  @tag :capture_log
  test "a log handler that hangs keeps no command alive whose owner has died" do
    owner = spawn(fn -> Process.sleep(:infinity) end)
    p = start!("exec sleep 1000", owner: owner)
    os_pid = Command.os_pid(p)
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{test: self()}})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
    send(p, "a stray message")
    assert_receive {:logging, who}, 60_000
    kill(owner)
    Tree.await(fn -> Tree.stat(os_pid) == nil end)
    kill(who)
  end

  test "a terminal whose program is over has no size that could be set" do
    {:ok, p} = Command.start("true", [], pty: true)
    on_exit(fn -> Command.stop(p) end)
    assert Command.await_exit(p) == {:ok, 0}
    assert {:error, reason} = Command.set_window_size(p, 10, 10)
    assert reason in [:esrch, :closed]
  end

  @tag Tree.linux_only()
  test "the output of a terminal ends with the command, though a stranger holds it open" do
    {:ok, p} = Command.start("sh", ["-c", "read go"], pty: true)
    on_exit(fn -> Command.stop(p) end)
    stranger = start!("exec 3<> /proc/#{Command.os_pid(p)}/fd/0; echo open; exec sleep 1000")
    assert Command.read(stranger) == {:ok, "open\n"}
    :ok = Command.write(p, "\n")
    assert Command.await_exit(p) == {:ok, 0}

    reading =
      Task.async(fn ->
        fn -> Command.read(p) end |> Stream.repeatedly() |> Enum.take_while(&(&1 != :eof))
      end)

    assert Task.await(reading, 60_000) in [[], [{:ok, "\r\n"}]]
    assert Tree.stat(Command.os_pid(stranger)) != nil
  end

  test "what may stay, and holds the terminal open, is not waited for longer than the grace" do
    script = "trap '' HUP; setsid sleep 1000 & echo $!"
    options = [pty: true, leftovers: :leave, output_grace: 100, timeout: 60_000]
    assert {printed, 0} = NetRunner.run(["sh", "-c", script], options)
    {"", 0} = System.cmd("kill", ["-KILL", String.trim(printed)])
  end

  test "a terminal stays open when its program has closed it, and goes on" do
    said = NetRunner.Temporary.path("said")

    on_exit(fn -> File.rm(said) end)
    # A terminal that nobody has open on our side would send SIGHUP.
    script = "trap 'echo hup >>#{said}' HUP; exec <&- >&- 2>&-; sleep 0.3; echo done >>#{said}"
    p = start!(script, pty: true)
    assert Command.close_stdin(p) == :ok
    assert read_all(p) in ["", "^D\b\b"]
    assert Command.await_exit(p) == {:ok, 0}
    assert File.read(said) == {:ok, "done\n"}
  end

  test "a command that is over grows no older" do
    p = start!("exit 0")
    assert Command.await_exit(p) == {:ok, 0}
    %{duration_ms: duration} = Command.stats(p)
    Process.sleep(20)
    assert %{duration_ms: ^duration} = Command.stats(p)
    assert %{duration_ms: ^duration} = Command.info(p)
  end
end
