defmodule NetRunner.Run.CaptureTest do
  # `NetRunner.capture/2`, tokens, `run!/2` and `shell/2`. The same on another node stands in node_test.exs.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.{Error, Result}

  defp sh(script), do: ["sh", "-c", script]

  defp capture(command, options \\ []) do
    assert {:ok, %Result{} = result} = NetRunner.capture(command, options)
    refute Enum.any?(NetRunner.list(), &(&1.os_pid == result.os_pid))
    result
  end

  # The command that this test has started, once it has printed its first line.
  defp captured(test, command) do
    Task.async(fn ->
      NetRunner.capture(command, on_output: fn _, bytes -> send(test, {:printed, bytes}) end)
    end)
  end

  defp server(command), do: Enum.find(NetRunner.list(), &(&1.command == command)).pid

  describe "a command that ends by itself" do
    test "has its outputs apart, its status, how it exited, and its figures" do
      command = sh("echo out; echo err >&2; exit 3")
      before = DateTime.utc_now()
      result = capture(command)

      assert %{outcome: :ended, status: 3, exit: {:exited, 3}, command: ^command} = result
      assert %{stdout: "out\n", stderr: "err\n", output: nil} = result
      assert result.dropped == %{stdout: 0, stderr: 0}
      assert is_integer(result.os_pid) and result.duration_ms >= 0
      assert DateTime.diff(result.started_at, before) in 0..60
      assert %{bytes_out: 4, bytes_err: 4, exit_status: 3, max_rss_bytes: rss} = result.stats
      assert rss > 100_000
    end

    test "by a signal of somebody else has ended, too" do
      assert %{outcome: :ended, status: 137, exit: {:signaled, :sigkill, false}} =
               capture(sh("kill -9 $$"))
    end

    test "gets input, and may leave it unread" do
      assert %{stdout: "hello"} = capture(~w(cat), input: "hello")
      assert %{stdout: "123"} = capture(~w(cat), input: Stream.map(1..3, &"#{&1}"))
      assert %{outcome: :ended, status: 0} = capture(~w(true), input: Stream.cycle(["x"]))
      assert %{stdout: ""} = capture(~w(cat))
    end

    test "has what a file gets not in its result, and the end of a consumed stderr", %{} do
      file = NetRunner.Temporary.path("capture")

      on_exit(fn -> File.rm(file) end)
      command = sh("echo out; printf 123456789 >&2")
      assert %{stdout: "", stderr: "123456789"} = capture(command, stdout: {:file, file})
      assert File.read!(file) == "out\n"

      assert %{stdout: "out\n", stderr: "6789", dropped: %{stdout: 0, stderr: 5}} =
               capture(command, stderr: :consume, stderr_tail: 4)

      assert %{stdout: "t\n", stderr: "89", dropped: %{stdout: 2, stderr: 7}} =
               capture(command, stderr: :consume, keep: {:tail, 2})

      assert %{stdout: "ou", stderr: "123456789", dropped: %{stdout: 2, stderr: 0}} =
               capture(command, stderr: :consume, keep: {:head, 2})

      assert %{stdout: "out\n123456789", stderr: ""} = capture(command, stderr: :redirect)
      assert %{stdout: "out\r\n123456789", stderr: ""} = capture(command, pty: true)
    end

    test "is what a NetRunner.Command says, also where that keeps a tail of stderr" do
      command = NetRunner.Command.new("sh", ["-c", "echo $1 >&2", "sh"], stderr_tail: 1)
      assert %{stderr: "x\n"} = capture(command, args: ["x"])
    end

    test "prints 64 MiB to each stream, and all of it comes" do
      script = "head -c 67108864 /dev/zero & head -c 67108864 /dev/zero >&2; wait"
      result = capture(sh(script))
      assert byte_size(result.stdout) == 67_108_864 and byte_size(result.stderr) == 67_108_864
    end

    @tag Tree.linux_only()
    test "leaves nothing running, but what leftovers: :leave allows, and waits for its output no longer than :output_grace" do
      assert %{stdout: pid} = capture(sh("sleep 100 & echo $!"))
      refute File.exists?("/proc/#{String.trim(pid)}")

      assert %{outcome: :ended, status: 0, stdout: pid} =
               capture(sh("sleep 100 & echo $!"), leftovers: :leave, output_grace: 50)

      assert File.exists?("/proc/#{String.trim(pid)}")
      {"", 0} = NetRunner.run(["kill", String.trim(pid)])
    end

    test "cannot be started: the error says why" do
      assert NetRunner.capture(~w(no-such-program)) == {:error, :enoent}
      assert NetRunner.capture(~w(true), cd: "/nowhere") == {:error, {:cd, :enoent}}
      assert {:error, {:invalid_args, _}} = NetRunner.capture(["echo", "a\0"])
    end
  end

  describe "a command that NetRunner ends" do
    test "by a timeout: what it printed before, and on its way out, is there" do
      script =
        "trap 'echo bye; echo why >&2; exit 7' TERM; echo hello; while :; do sleep 0.05; done"

      result = capture(sh(script), timeout: 3_000)
      assert %{outcome: :timeout, stdout: "hello\nbye\n"} = result
      # The shell may tell of its child as well.
      assert result.stderr =~ "why\n"
      assert %{status: 7, exit: {:exited, 7}} = result

      deaf = "trap '' TERM; echo deaf; while :; do sleep 1; done"

      assert %{
               outcome: :timeout,
               stdout: "deaf\n",
               status: 137,
               exit: {:signaled, :sigkill, false}
             } = capture(sh(deaf), timeout: 3_000, kill_timeout: 50)
    end

    test "prints on into a full pipe, and is read" do
      script = "trap 'head -c 3000000 /dev/zero; exit 0' TERM; echo; while :; do sleep 0.05; done"

      assert %{outcome: :timeout, status: 0, stdout: stdout} = capture(sh(script), timeout: 3_000)
      assert byte_size(stdout) == 3_000_001
    end

    test "that has exited before its timeout was not ended by it, however slow the consumer" do
      slow = fn _ -> Process.sleep(2_500) end

      assert %{outcome: :ended, status: 0, stdout: "a\n"} =
               capture(~w(echo a), timeout: 2_000, on_output: slow)
    end

    test "at once where its consumer hangs: the timeout does not wait" do
      test = self()

      hang = fn bytes ->
        send(test, {:printed, self(), bytes})
        receive do: (:go_on -> :ok)
      end

      command = sh("echo $$; exec sleep 100")
      task = Task.async(fn -> NetRunner.capture(command, timeout: 2_000, on_output: hang) end)
      assert_receive {:printed, caller, pid}, 60_000
      Tree.await(fn -> not File.exists?("/proc/#{String.trim(pid)}") end)
      send(caller, :go_on)
      assert {:ok, %{outcome: :timeout, stdout: ^pid, status: 143}} = Task.await(task, 60_000)
    end

    test "by an idle timeout, when it prints nothing for that long" do
      result = capture(sh("echo a; echo b >&2; exec sleep 100"), idle_timeout: 1_500)
      assert %{outcome: :idle_timeout, status: 143, stdout: "a\n", stderr: "b\n"} = result
      assert result.duration_ms >= 1_500

      # Longer than the idle timeout in all, but never so long without output.
      script = "i=0; while [ $i -lt 12 ]; do echo $i; sleep 0.2; i=$((i+1)); done"
      result = capture(sh(script), idle_timeout: 2_000)
      assert %{outcome: :ended, status: 0} = result
      assert result.duration_ms >= 2_000
    end

    test "is not idle while its consumer is slow" do
      slow = fn _ -> Process.sleep(2_500) end

      result =
        capture(sh("echo a; sleep 0.1; echo b; exit 3"), idle_timeout: 2_000, on_output: slow)

      assert %{outcome: :ended, status: 3, stdout: "a\nb\n"} = result
    end

    test "by a limit of one stream, or of both" do
      assert %{outcome: {:output_limit, :stdout}, stdout: "y\ny", dropped: %{stdout: dropped}} =
               capture(~w(yes), max_output_size: [stdout: 3])

      assert dropped > 0

      assert %{outcome: {:output_limit, :stderr}, stderr: "y\n", stdout: ""} =
               capture(sh("exec yes >&2"), max_output_size: [stderr: 2, stdout: 100])

      assert %{outcome: {:output_limit, :total}, stdout: "y\ny"} =
               capture(~w(yes), max_output_size: 3)

      assert %{outcome: {:output_limit, :total}, stdout: out, stderr: err} =
               capture(sh("printf abc; printf defg >&2; sleep 100"), max_output_size: [total: 5])

      assert byte_size(out <> err) == 5
      assert %{outcome: :ended, stdout: "abc"} = capture(~w(printf abc), max_output_size: 3)
      # It may have exited before that was seen.
      assert %{outcome: {:output_limit, :total}, stdout: "ab", dropped: %{stdout: 1}} =
               capture(~w(printf abc), max_output_size: 2)

      assert %{outcome: {:output_limit, :total}, stdout: ""} =
               capture(~w(printf a), max_output_size: 0)
    end

    test "has the first reason as its outcome" do
      script = "trap 'yes | head -c 100000; exit 1' TERM; echo a; while :; do sleep 0.05; done"
      options = [timeout: 2_000, max_output_size: [stdout: 1_000]]

      assert %{outcome: :timeout, stdout: "a\n" <> _, status: 1, dropped: %{stdout: dropped}} =
               capture(sh(script), options)

      assert dropped == 100_002 - 1_000
    end

    test "because its input fails: what it printed is there, and what failed" do
      printed = :atomics.new(1, [])

      input =
        Stream.concat(
          ["hello\n"],
          Stream.map([1], fn _ ->
            Tree.await(fn -> :atomics.get(printed, 1) == 1 end)
            raise "no more"
          end)
        )

      assert %{outcome: {:input_failed, %RuntimeError{message: "no more"}}, stdout: "hello\n"} =
               capture(~w(cat), input: input, on_output: fn _ -> :atomics.put(printed, 1, 1) end)

      thrown = Stream.map([1], fn _ -> throw(:ball) end)
      result = capture(~w(cat), input: thrown)
      assert {:input_failed, %Error{reason: {:input_failed, {:throw, :ball, _}}}} = result.outcome

      assert_raise Error, ~r/:input could not be produced: \*\* \(throw\) :ball/, fn ->
        Result.ok!(result)
      end
    end

    test "and cannot: its shepherd is killed" do
      test = self()
      command = sh("echo $PPID; exec sleep 100")
      task = captured(test, command)
      assert_receive {:printed, shepherd}, 60_000
      {"", 0} = System.cmd("kill", ["-9", String.trim(shepherd)])

      assert {:ok, result} = Task.await(task, 60_000)

      assert_raise Error, ~r/helper process for the command \(its shepherd\) was killed/, fn ->
        Result.ok!(result)
      end

      assert %{outcome: :shepherd_died, stdout: ^shepherd, status: nil, exit: nil} = result
    end

    test "because its process is stopped or killed, or its owner dies, was cancelled" do
      test = self()
      command = sh("echo x; exec sleep 123")

      for stop <- [&Command.stop/1, &Process.exit(&1, :kill)] do
        task = captured(test, command)
        assert_receive {:printed, "x\n"}, 60_000
        stop.(server(command))
        assert {:ok, %{outcome: :cancelled, stdout: "x\n"}} = Task.await(task, 60_000)
      end

      owner = spawn(fn -> receive do: (:go -> :ok) end)
      # Once it prints, it runs.
      go = fn _ -> send(owner, :go) end
      assert %{outcome: :cancelled, stdout: "x\n"} = capture(command, owner: owner, on_output: go)
    end

    test "because its owner dies returns when it is gone, as do a run, a stream and a pipeline" do
      command = sh("trap '' TERM; echo x >&2; echo $$; while :; do sleep 0.05; done")

      stream = fn command, options ->
        error =
          assert_raise Error, fn -> command |> NetRunner.stream!(options) |> Stream.run() end

        {:error, error.reason}
      end

      pipeline = fn command, options -> NetRunner.pipeline([~w(true), command], options) end

      for run <- [&NetRunner.run/2, &NetRunner.capture/2, stream, pipeline] do
        owner = spawn(fn -> receive do: (:go -> :ok) end)
        options = [owner: owner, kill_timeout: 500]
        task = Task.async(fn -> run.(command, options) end)
        # When it has printed something, it has set its trap.
        printed? = &(&1.command == command and &1.bytes.err > 0)
        Tree.await(fn -> Enum.any?(NetRunner.list(), printed?) end)
        [%{os_pid: os_pid}] = Enum.filter(NetRunner.list(), printed?)
        send(owner, :go)
        result = Task.await(task, 60_000)
        refute File.exists?("/proc/#{os_pid}")

        case result do
          {:ok, captured} ->
            assert %{outcome: :cancelled, status: 137, stdout: pid} = captured
            assert pid == "#{os_pid}\n"

          run ->
            assert run == {:error, :closed}
        end
      end
    end

    test "ends when the caller dies, also where nobody is its owner" do
      test = self()

      for options <- [[], [owner: nil]] do
        caller =
          spawn(fn ->
            NetRunner.capture(
              sh("echo $$; exec sleep 100"),
              [on_output: &send(test, {:pid, &1})] ++ options
            )
          end)

        assert_receive {:pid, pid}, 60_000
        Process.exit(caller, :kill)
        Tree.await(fn -> not File.exists?("/proc/#{String.trim(pid)}") end)
      end
    end
  end

  describe "what is kept" do
    test "is the head, the tail, or both, and the command runs to its end" do
      numbers = Enum.map_join(1..100_000, &"#{&1}\n")
      size = byte_size(numbers)
      command = sh("seq 100000; seq 5 >&2; exit 4")

      for {keep, stdout, stderr} <- [
            {{:head, 6}, "1\n2\n3\n", "1\n2\n3\n"},
            {{:tail, 8}, "\n100000\n", "2\n3\n4\n5\n"},
            {{2, 7}, "1\n100000\n", "1\n\n3\n4\n5\n"},
            {{0, 0}, "", ""},
            {{:tail, 1_000_000}, numbers, "1\n2\n3\n4\n5\n"},
            {{1_000_000, 0}, numbers, "1\n2\n3\n4\n5\n"}
          ] do
        result = capture(command, keep: keep)

        assert %{outcome: :ended, status: 4, stdout: ^stdout, stderr: ^stderr} = result,
               inspect(keep)

        assert result.dropped.stdout == size - byte_size(stdout)
        assert result.dropped.stderr == 10 - byte_size(stderr)
      end
    end

    test "bounds the memory, however much is printed and in however small pieces" do
      test = self()

      task =
        Task.async(fn ->
          measure = fn _ -> send(test, {:memory, memory()}) end

          NetRunner.capture(~w(head -c 200000000 /dev/zero),
            keep: {100_000, 100_000},
            on_output: measure
          )
        end)

      assert {:ok, %{dropped: %{stdout: 199_800_000}}} = Task.await(task, 120_000)
      assert highest(0) < 10_000_000
    end

    defp memory do
      {:memory, heap} = Process.info(self(), :memory)
      {:binary, binaries} = Process.info(self(), :binary)
      heap + (binaries |> Enum.uniq() |> Enum.map(&elem(&1, 1)) |> Enum.sum())
    end

    defp highest(most) do
      receive do
        {:memory, bytes} -> highest(max(most, bytes))
      after
        0 -> most
      end
    end

    test "interleaved, is the pieces in the order in which they were read, neighbours joined" do
      read = NetRunner.Temporary.path("read")
      on_exit(fn -> File.rm(read) end)
      File.touch!(read)

      # Each is printed when the one before was read.
      script =
        "was_read() { until grep -q $1 #{read}; do sleep 0.05; done; }; " <>
          "echo a; was_read a; echo b >&2; was_read b; echo c >&2; was_read c; echo d"

      note = &File.write!(read, &1, [:append])
      result = capture(sh(script), interleave: true, on_output: note)
      assert %{stdout: nil, stderr: nil, outcome: :ended} = result
      assert result.output == [stdout: "a\n", stderr: "b\nc\n", stdout: "d\n"]

      assert %{output: [stdout: "y\ny"], outcome: {:output_limit, :total}} =
               capture(~w(yes), interleave: true, max_output_size: 3)

      assert %{output: []} = capture(~w(true), interleave: true)
    end
  end

  describe "on_output" do
    test "gets each piece as it comes, with its stream where it wants to know" do
      test = self()
      assert %{stdout: "a\n"} = capture(~w(echo a), on_output: &send(test, {:one, &1}))
      assert_received {:one, "a\n"}

      both = fn stream, bytes -> send(test, {stream, bytes}) end
      # The next line is printed when the last was heard of.
      assert %{stderr: "b\n"} = capture(sh("echo b >&2"), on_output: both)
      assert_received {:stderr, "b\n"}

      sizes = fn bytes -> send(test, {:size, byte_size(bytes)}) end
      capture(~w(head -c 1000000 /dev/zero), on_output: sizes, keep: {:head, 1})
      assert Enum.sum(all_sizes()) == 1_000_000
    end

    defp all_sizes do
      receive do
        {:size, size} ->
          assert size <= 65_536
          [size | all_sizes()]
      after
        0 -> []
      end
    end

    test "that raises, throws or exits ends the command, and the caller gets it" do
      command = sh("echo x; exec sleep 124")

      for {failure, kind, reason} <- [
            {fn _ -> raise "enough" end, :error, %RuntimeError{message: "enough"}},
            {fn _ -> throw(:ball) end, :throw, :ball},
            {fn _ -> exit(:gone) end, :exit, :gone}
          ] do
        assert {^kind, ^reason} =
                 (try do
                    NetRunner.capture(command, on_output: failure, input: Stream.cycle(["a"]))
                  catch
                    kind, reason -> {kind, reason}
                  end)

        refute Enum.any?(NetRunner.list(), &(&1.command == command))
      end

      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "that is slow makes the command wait" do
      test = self()

      hang = fn _ ->
        send(test, {:hangs, self()})
        receive do: (:go_on -> :ok)
      end

      command = ~w(head -c 20000000 /dev/zero)

      task =
        Task.async(fn ->
          NetRunner.capture(command, on_output: hang, keep: {:head, 1}, pipe_size: 0)
        end)

      assert_receive {:hangs, caller}, 60_000
      %{os_pid: os_pid} = Enum.find(NetRunner.list(), &(&1.command == command))
      # In its own write(2) for good.
      Tree.await(fn -> File.read!("/proc/#{os_pid}/wchan") =~ "pipe" or asleep?(os_pid) end)
      assert %{bytes: %{out: out}} = Enum.find(NetRunner.list(), &(&1.command == command))
      assert out <= 65_536
      goes_on(task, caller)
    end

    defp asleep?(os_pid), do: File.read!("/proc/#{os_pid}/stat") =~ ") S "

    defp goes_on(task, caller) do
      send(caller, :go_on)

      receive do
        {:hangs, ^caller} ->
          goes_on(task, caller)

        {ref, result} when ref == task.ref ->
          assert {:ok, %{dropped: %{stdout: 19_999_999}, outcome: :ended}} = result
          Process.demonitor(ref, [:flush])
      end
    end
  end

  describe "a token" do
    test "ends what runs under it, any number of commands, any number of times" do
      test = self()
      token = NetRunner.cancel_token()

      tasks =
        for n <- 1..3 do
          Task.async(fn ->
            NetRunner.capture(sh("echo #{n}; exec sleep 100"),
              cancel: token,
              on_output: fn _ -> send(test, :runs) end
            )
          end)
        end

      for _ <- tasks, do: assert_receive(:runs, 60_000)
      assert NetRunner.cancel(token) == :ok
      assert NetRunner.cancel(token) == :ok

      for {task, n} <- Enum.with_index(tasks, 1) do
        text = "#{n}\n"

        assert {:ok, %{outcome: :cancelled, stdout: ^text, status: 143}} =
                 Task.await(task, 60_000)
      end

      assert NetRunner.capture(~w(true), cancel: token) == {:error, :cancelled}
    end

    test "works while the consumer hangs, and from elsewhere" do
      test = self()
      token = NetRunner.cancel_token()

      hang = fn pid ->
        send(test, {:printed, self(), pid})
        receive do: (:go_on -> :ok)
      end

      command = sh("echo $$; exec sleep 100")
      task = Task.async(fn -> NetRunner.capture(command, cancel: token, on_output: hang) end)
      assert_receive {:printed, caller, pid}, 60_000
      assert Task.await(Task.async(fn -> NetRunner.cancel(token) end)) == :ok
      Tree.await(fn -> not File.exists?("/proc/#{String.trim(pid)}") end)
      send(caller, :go_on)
      assert {:ok, %{outcome: :cancelled}} = Task.await(task, 60_000)
    end

    test "has no effect on what has exited, though nobody has heard of that yet" do
      token = NetRunner.cancel_token()
      script = "echo ready; read go < $FIFO"
      fifo = NetRunner.Temporary.path("fifo")
      on_exit(fn -> File.rm(fifo) end)
      {_, 0} = System.cmd("mkfifo", [fifo])
      options = [cancel: token, env: %{"FIFO" => fifo}]
      task = Task.async(fn -> capture(["sh", "-c", script], options) end)
      find = fn -> Enum.find(NetRunner.list(), &(&1.command == ["sh", "-c", script])) end
      Tree.await(fn -> find.() != nil end)
      %{pid: server, os_pid: os_pid} = find.()
      # The capture has its first line, and waits for more.
      NetRunner.Waiting.await(server, :any)
      shepherd = Tree.shepherd(server)
      :erlang.suspend_process(server)
      assert NetRunner.cancel(token) == :ok
      File.write!(fifo, "go\n")
      Tree.await(fn -> Tree.stat(os_pid) == nil end)
      # It sleeps again when it has reported that.
      Tree.await(fn -> Tree.stat(shepherd).state == "S" end)
      :erlang.resume_process(server)
      assert %{outcome: :ended, status: 0, stdout: "ready\n"} = Task.await(task, 60_000)
    end

    test "has no effect on what has exited, and leaves nothing behind" do
      token = NetRunner.cancel_token()
      cancel = fn _ -> NetRunner.cancel(token) end

      # The command has exited when its output is handed on.
      slow = fn bytes ->
        Tree.await(fn -> NetRunner.list() |> Enum.all?(&(&1.command != ~w(echo done))) end)
        cancel.(bytes)
      end

      assert %{outcome: :ended, status: 0} =
               capture(~w(echo done), cancel: token, on_output: slow)

      Tree.await(fn -> NetRunner.Registry.get({:token, token.ref}) == [] end)
      assert Process.info(self(), :messages) == {:messages, []}
    end

    test "ends a command that prints nothing more, or nowhere where it would be read" do
      for {command, options} <- [
            # Nobody else's, by which it is found.
            {sh("exec >/dev/null 2>&1; exec sleep 131"), []},
            {~w(sleep 131), [stdout: :null, stderr: :disabled]}
          ] do
        token = NetRunner.cancel_token()
        task = Task.async(fn -> capture(command, [cancel: token] ++ options) end)
        Tree.await(fn -> Enum.any?(NetRunner.list(), &(&1.command == command)) end)
        # The output is at its end by now, or soon; both must do.
        Process.sleep(50)
        NetRunner.cancel(token)
        assert %{outcome: :cancelled, status: 143} = Task.await(task, 60_000)
      end
    end

    test "links nobody to anything" do
      links = Process.info(self(), :links)
      test = self()
      look = fn _ -> send(test, Process.info(self(), :links)) end
      capture(~w(echo x), cancel: NetRunner.cancel_token(), on_output: look)
      assert_received ^links
    end

    test "may be cancelled by many at once, while commands start" do
      for _ <- 1..50 do
        token = NetRunner.cancel_token()
        task = Task.async(fn -> NetRunner.capture(~w(sleep 100), cancel: token) end)
        for _ <- 1..2, do: spawn(fn -> NetRunner.cancel(token) end)

        case Task.await(task, 60_000) do
          {:error, :cancelled} -> :ok
          {:ok, result} -> assert result.outcome == :cancelled
        end
      end
    end
  end

  describe "options" do
    test "that mean nothing beside others, or here, are refused" do
      for {options, text} <- [
            {[keep: {:head, 1}, max_output_size: 1],
             ":keep and :max_output_size exclude each other"},
            {[keep: {1, 1}, interleave: true],
             ":interleave and :keep exclude each other: with :keep each stream has a head and a tail"},
            {[idle_timeout: 1, stdout: :null, stderr: :redirect],
             ":idle_timeout has no meaning here"},
            {[on_output: &send(self(), &1), stdout: :null, stderr: :redirect],
             ":on_output has no meaning here"},
            {[keep: {:head, 1}, stdout: :null, stderr: :disabled],
             ":keep has no meaning here: there is no output to read, as neither stdout nor stderr is a pipe"},
            {[interleave: true, stdout: :null, stderr: :disabled],
             ":interleave has no meaning here"},
            {[interleave: true, stderr: :consume],
             ":interleave and :stderr exclude each other: with stderr: :consume only the end"},
            {[max_output_size: [stderr: 1], stderr: :consume],
             "the limit of :stderr in :max_output_size has no meaning here"},
            {[max_output_size: [stderr: 1], stderr: :redirect], "the limit of :stderr"},
            {[max_output_size: [stderr: 1], pty: true], "the limit of :stderr"},
            {[max_output_size: [stdout: 1, total: 3], stdout: :null], "the limit of :stdout"},
            {[stderr_tail: 1], ":stderr_tail has no meaning here"},
            {[keep: {:middle, 1}], ":keep must be {:head, bytes}"},
            {[max_output_size: [both: 1]], ":max_output_size must be a number of bytes"},
            {[max_output_size: -1], ":max_output_size must be"},
            {[on_output: :log], ":on_output must be a function"},
            {[cancel: make_ref()], ":cancel must be a token"},
            {[idle_timeout: -1], ":idle_timeout must be milliseconds"},
            {[tagged: true], ":tagged has no meaning for this function"}
          ] do
        error = assert_raise ArgumentError, fn -> NetRunner.capture(~w(true), options) end
        assert error.message =~ text
      end
    end

    test "of a command for its output mean nothing where a call sends that elsewhere" do
      kept = NetRunner.Command.new("echo", ["hi"], keep: {:tail, 10}, idle_timeout: 60_000)
      nowhere = [stdout: :null, stderr: :disabled]
      assert {:ok, %{stdout: "", status: 0}} = NetRunner.capture(kept, nowhere)
      assert {:ok, %{stdout: "", status: 0}} = NetRunner.capture(kept, stdout: :null)

      lines = NetRunner.Command.new("echo", ["hi"], lines: :trim)
      assert lines |> NetRunner.stream!(stdout: :null) |> Enum.to_list() == []

      assert lines |> NetRunner.stream!(stdout: :null, tagged: true) |> Enum.to_list() ==
               [{:exit, 0}]

      # Who says both in one place has made a mistake.
      assert_raise ArgumentError, ~r/:lines has no meaning here/, fn ->
        NetRunner.stream!(lines, stdout: :null, lines: :keep)
      end
    end

    test "that are nil are as if they were not given" do
      options =
        for name <- ~w(timeout idle_timeout max_output_size keep on_output cancel)a,
            do: {name, nil}

      assert %{outcome: :ended} = capture(~w(true), options ++ [interleave: nil, stderr: nil])

      assert %{stdout: "y\n", outcome: {:output_limit, :stdout}} =
               capture(~w(yes), max_output_size: [stdout: 2, stderr: nil, total: nil])
    end

    test "that are given twice are as the first says" do
      assert %{stdout: "y\n", outcome: {:output_limit, :stdout}} =
               capture(~w(yes), max_output_size: [stdout: 2, stdout: 100, stdout: nil])
    end

    test "that mean nothing do not keep from limits that do" do
      assert %{outcome: :ended} =
               capture(~w(echo x), max_output_size: [stderr: :infinity, total: 9], pty: true)
    end
  end

  describe "run!" do
    test "gives stdout alone" do
      assert NetRunner.run!(sh("echo out; echo err >&2")) == "out\n"
      assert NetRunner.run!(~w(cat), input: "x") == "x"
      assert NetRunner.run!(sh("echo err >&2"), stderr: :redirect) == "err\n"
    end

    test "raises with all that is known" do
      command = sh("seq 10000; echo why >&2; exit 3")
      error = assert_raise Error, fn -> NetRunner.run!(command) end
      assert %{reason: :exit_status, status: 3, exit: {:exited, 3}, stderr: "why\n"} = error
      assert error.command == command
      assert byte_size(error.stdout) == 8_192
      assert String.ends_with?(error.stdout, "9999\n10000\n")

      error =
        assert_raise Error, fn -> NetRunner.run!(sh("echo a; exec sleep 9"), timeout: 2_000) end

      assert %{reason: :timeout, stdout: "a\n", status: 143} = error

      error = assert_raise Error, fn -> NetRunner.run!(~w(yes), max_output_size: 3) end
      assert %{reason: {:max_output_exceeded, "y\ny"}, stdout: "y\ny"} = error

      error = assert_raise Error, fn -> NetRunner.run!(~w(no-such-program)) end
      assert %{reason: :enoent, status: nil} = error

      assert_raise RuntimeError, "no", fn ->
        NetRunner.run!(~w(cat), input: Stream.map([1], fn _ -> raise "no" end))
      end

      assert_raise ArgumentError, ~r/stderr: :pipe/, fn ->
        NetRunner.run!(~w(true), stderr: :pipe)
      end
    end
  end

  describe "shell" do
    test "passes values that the script sees as its arguments" do
      hostile = "$(touch /tmp/gone); `x` 'y' \"z\" \\ \n -n"
      assert NetRunner.shell(~S(printf '%s' "$1"), args: [hostile]) == {hostile, 0}
      assert NetRunner.shell("echo $0 $#; exit 4", args: ["a", "b c"]) == {"sh 2\n", 4}
      assert NetRunner.shell("echo a | tr a b; cat", input: "c", args: nil) == {"b\nc", 0}
      assert NetRunner.shell("sleep 9", timeout: 50) == {:error, :timeout}
      assert {:error, {:invalid_args, _}} = NetRunner.shell("echo a\0b")
      assert {:error, {:invalid_args, _}} = NetRunner.shell("echo", args: ["a\0b"])
      says = "argument 1 is not a string: 1"
      assert_raise ArgumentError, says, fn -> NetRunner.shell("x", args: [1]) end
    end
  end
end
