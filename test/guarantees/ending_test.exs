defmodule NetRunner.Guarantees.EndingTest do
  # How a command is ended, and what its callers hear of it: in time, with all that is known.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  # Much more than anything here takes, and less than what it would take if it had to wait for a program.
  @soon 30_000

  defp took(function) do
    {us, result} = :timer.tc(function)
    assert us < @soon * 1_000
    result
  end

  defp file(name) do
    path = NetRunner.Temporary.path(name)

    on_exit(fn -> File.rm(path) end)
    path
  end

  defp await_file(path),
    do: Tree.await(fn -> match?({:ok, <<_, _::binary>>}, File.read(path)) end)

  defp gone?(pid), do: Tree.stat(pid) == nil
  defp pid(text), do: text |> String.trim() |> String.to_integer()

  describe "a timeout is about the command" do
    test "also when its stream is enumerated later" do
      {:ok, stream} = NetRunner.stream(["echo", "hi"], timeout: 3_000)
      Process.sleep(3_500)
      assert Enum.to_list(stream) == ["hi\n"]
    end

    for {options, pause} <- [
          {[], 3_500},
          {[lines: :trim], 1_200},
          {[tagged: true], 1_200},
          {[owner: nil], 1_200}
        ] do
      test "so a slow consumer of one that has exited gets all of it, with #{inspect(options)}" do
        options = unquote(options)
        stream = NetRunner.stream!(~w(seq 3), [timeout: 3_000] ++ options)

        output =
          stream
          |> Stream.each(fn _ -> Process.sleep(unquote(pause)) end)
          |> Enum.to_list()

        assert [_ | _] = output
        refute Enum.any?(output, &match?({:exit, status} when status != 0, &1))
      end
    end

    @tag Tree.linux_only()
    test "so it ends a stream though something left behind holds the pipe" do
      for options <- [[], [tagged: true], [lines: :keep]] do
        script = ~s(setsid sh -c 'echo $$ >&2; exec sleep 1000' & sleep 1000)
        errors = file("errors")

        options =
          [leftovers: :leave, timeout: 1_000, kill_timeout: 100] ++
            if(options[:tagged], do: options, else: [stderr: {:file, errors}] ++ options)

        error =
          took(fn ->
            assert_raise NetRunner.Error, fn ->
              ["sh", "-c", script]
              |> NetRunner.stream!(options)
              |> Enum.each(fn
                {:stderr, bytes} -> File.write!(errors, bytes)
                _ -> :ok
              end)
            end
          end)

        assert error.reason == :timeout
        await_file(errors)
        leftover = errors |> File.read!() |> pid()
        refute gone?(leftover)
        System.cmd("kill", ["-KILL", "#{leftover}"])
      end
    end

    test "and is one for start and run" do
      # Both its start and its run take long: the launcher's helpers are stopped when it starts.
      assert took(fn -> NetRunner.run(~w(sleep 1000), timeout: 300) end) == {:error, :timeout}
    end
  end

  describe "a program prints while it cleans up, more than a pipe holds, and can finish" do
    @cleanup "trap 'head -c 2000000 /dev/zero || exit 1; echo clean > $FILE; exit 0' TERM; echo > $READY; while :; do sleep 0.01; done"

    defp start(:run, command, options), do: NetRunner.run(command, options)
    defp start(:capture, command, options), do: NetRunner.capture(command, options)
    defp start(:pipeline, command, options), do: NetRunner.pipeline([command], options)
    defp start(:stream, command, options), do: Enum.to_list(NetRunner.stream!(command, options))

    defp start(:process, [sh | words], options) do
      {:ok, _} = Command.start(sh, words, options)
      Process.sleep(:infinity)
    end

    defp cleaning_up do
      [ready, clean] = files = [file("ready"), file("clean")]
      on_exit(fn -> Enum.each(files, &File.rm/1) end)

      options = [env: %{"READY" => ready, "FILE" => clean}, kill_timeout: 20 * @soon]
      {["sh", "-c", @cleanup, clean], options, ready, clean}
    end

    # A command runs before its start is over. When the owner dies in between, the start fails, and ends it.
    defp await_started(ready, clean) do
      await_file(ready)

      Tree.await(fn ->
        started = Enum.find(NetRunner.list(), &(List.last(&1.command) == clean))
        started != nil and is_integer(Command.os_pid(started.pid))
      end)
    end

    for what <- [:run, :capture, :pipeline, :stream, :process] do
      test "when its caller is killed: #{what}" do
        {command, options, ready, clean} = cleaning_up()
        caller = spawn(fn -> start(unquote(what), command, options) end)
        await_started(ready, clean)
        Process.exit(caller, :kill)
        await_file(clean)
      end
    end

    test "when a capture is cancelled, and then its caller killed" do
      {command, options, ready, clean} = cleaning_up()
      token = NetRunner.cancel_token()
      test = self()

      # The output of one that was cancelled is kept, and here nobody takes it.
      stuck = fn _ ->
        send(test, :stuck)
        Process.sleep(:infinity)
      end

      options = [cancel: token, on_output: stuck] ++ options
      caller = spawn(fn -> NetRunner.capture(command, options) end)
      await_started(ready, clean)
      :ok = NetRunner.cancel(token)
      assert_receive :stuck, @soon
      Process.exit(caller, :kill)
      await_file(clean)
    end

    test "when its daemon is killed" do
      Process.flag(:trap_exit, true)
      {[sh | words], options, ready, clean} = cleaning_up()
      {:ok, daemon} = NetRunner.Daemon.start_link(cmd: sh, args: words, process_opts: options)
      await_file(ready)
      Process.exit(daemon, :kill)
      await_file(clean)
    end
  end

  describe "while a command is ended whose owner has died" do
    defp start_owned(script, options) do
      test = self()

      owner =
        spawn(fn ->
          {:ok, p} = Command.start("sh", ["-c", script], [kill_timeout: 20 * @soon] ++ options)
          send(test, {:started, p})
          Process.sleep(:infinity)
        end)

      assert_receive {:started, p}, @soon
      {owner, p}
    end

    for name <- [
          :of_the_dead,
          {:global, {__MODULE__, :of_the_dead}},
          {:via, :global, {__MODULE__, :by_module}}
        ] do
      test "its name is free, and calls return {:error, :closed}: #{inspect(name)}" do
        name = unquote(Macro.escape(name))
        out = file("out")

        script = "trap '' TERM; echo ready > #{out}; while :; do sleep 0.01; done"
        {owner, p} = start_owned(script, name: name, stderr: :pipe)
        await_file(out)
        reader = Task.async(fn -> Command.read_stderr(p) end)
        writer = Task.async(fn -> Command.write(p, :binary.copy("x", 4_000_000)) end)
        NetRunner.Waiting.await(p, :stdin)
        monitor = Command.monitor(p)
        Process.exit(owner, :kill)

        assert Task.await(reader, @soon) == {:error, :closed}
        assert Task.await(writer, @soon) == {:error, :closed}
        assert Command.alive?(p)
        Tree.await(fn -> name |> GenServer.whereis() |> is_nil() end)
        assert {:ok, next} = Command.start("true", [], name: name)
        assert Command.await_exit(name) == {:ok, 0}
        assert Command.write(p, "x") == {:error, :closed}
        assert Command.read(p) == {:error, :closed}
        waiting = Task.async(fn -> Command.await_exit(p) end)
        :ok = Command.kill(p, :sigkill)
        assert Task.await(waiting, @soon) == {:error, :closed}
        assert_receive {:DOWN, ^monitor, :process, ^p, {:exit, 137}}, @soon
        assert Command.stop(next) == :ok
      end
    end

    # A program that reads to the end of its input would take the half that it has for all, and do its work with it.
    @tag Tree.linux_only()
    test "its inputs stay open until it has ended" do
      out = file("out")
      script = "trap '' TERM; echo ready > #{out}; while :; do sleep 0.01; done"
      {owner, p} = start_owned(script, fds: %{3 => :input})
      await_file(out)
      os_pid = Command.os_pid(p)
      pipes = for n <- [0, 3], do: File.read_link!("/proc/#{os_pid}/fd/#{n}")
      monitor = Process.monitor(p)
      Process.exit(owner, :kill)
      Tree.await(fn -> Command.write(p, "x") == {:error, :closed} end)
      assert Command.write_fd(p, 3, "x") == {:error, :closed}
      # What nothing refers to any more would be closed by a garbage collection.
      :erlang.garbage_collect(p)
      assert Enum.all?(pipes, &open_here?/1)
      :ok = Command.kill(p, :sigkill)
      assert_receive {:DOWN, ^monitor, :process, ^p, :normal}, @soon
      Tree.await(fn -> not Enum.any?(pipes, &open_here?/1) end)
    end

    defp open_here?(pipe), do: Enum.any?(Tree.fd_targets(), &String.ends_with?(&1, " " <> pipe))

    test "who asks for its output is told of no end, and who writes to its descriptors is not held up" do
      script = "trap 'seq 300000; exit 0' TERM; echo ready; while :; do sleep 0.01; done"
      {owner, p} = start_owned(script, fds: %{3 => :input})
      {:ok, "ready\n"} = Command.read(p)
      :ok = Command.ask(p, 5)
      writer = Task.async(fn -> Command.write_fd(p, 3, :binary.copy("x", 4_000_000)) end)
      ended = Process.monitor(p)
      monitor = Command.monitor(p)
      Process.exit(owner, :kill)
      assert Task.await(writer, @soon) == {:error, :closed}
      assert_receive {:DOWN, ^monitor, :process, ^p, {:exit, 0}}, @soon
      assert_receive {:DOWN, ^ended, :process, ^p, :normal}, @soon
      refute_received {:net_runner, ^p, {:eof, _}}
      refute_received {:net_runner, ^p, {:exit, _}}
    end

    @tag Tree.linux_only()
    test "its terminal hangs up" do
      out = file("out")

      # As an interactive shell has it.
      script =
        "trap '' TERM; trap 'echo hung up > #{out}; exit' HUP; echo ready > #{out}; while :; do sleep 0.01; done"

      {owner, p} = start_owned(script, pty: true)
      await_file(out)
      monitor = Process.monitor(p)
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, :process, ^p, :normal}, @soon
      assert File.read!(out) == "hung up\n"
    end

    defmodule GoneRegistry do
      def register_name(_name, _pid), do: :yes
      def unregister_name(_name), do: exit(:gone)
      def whereis_name(_name), do: if(Process.get(:"$initial_call"), do: self(), else: :undefined)
      def send(_name, _message), do: exit(:gone)
    end

    test "a registry that fails is no fault, and a name that somebody else has stays" do
      test = self()
      names = [{:via, GoneRegistry, :a}, {:global, {__MODULE__, :taken}}]
      script = "trap 'exit 3' TERM; echo; while :; do sleep 0.01; done"

      owner =
        spawn(fn ->
          for name <- names do
            {:ok, p} = Command.start("sh", ["-c", script], name: name)
            {:ok, "\n"} = Command.read(p)
            send(test, {:started, p})
          end

          Process.sleep(:infinity)
        end)

      monitors =
        for _ <- names do
          assert_receive {:started, p}, @soon
          {p, Command.monitor(p)}
        end

      :yes = :global.re_register_name({__MODULE__, :taken}, self())
      Process.exit(owner, :kill)

      for {p, monitor} <- monitors,
          do: assert_receive({:DOWN, ^monitor, :process, ^p, {:exit, 3}}, @soon)

      assert :global.whereis_name({__MODULE__, :taken}) == self()
      :global.unregister_name({__MODULE__, :taken})
    end
  end

  describe "what leftovers: :leave leaves" do
    test "does not keep the output and the status of a command that has exited" do
      out = file("pid")
      script = "sleep 1000 & echo $! > #{out}; echo done"

      assert took(fn -> NetRunner.run(["sh", "-c", script], leftovers: :leave) end) ==
               {"done\n", 0}

      leftover = out |> File.read!() |> pid()
      refute gone?(leftover)
      System.cmd("kill", ["-KILL", "#{leftover}"])

      assert took(fn ->
               ["sh", "-c", script]
               |> NetRunner.stream!(leftovers: :leave, output_grace: 0)
               |> Enum.join()
             end) == "done\n"

      System.cmd("kill", ["-KILL", out |> File.read!() |> String.trim()])
    end

    test "is read for a full pipe more, when it never stops printing" do
      out = file("pid")
      script = "yes & echo $! > #{out}; sleep 0.5"
      options = [leftovers: :leave, output_grace: 10]

      assert {output, 0} = took(fn -> NetRunner.run(["sh", "-c", script], options) end)
      assert String.starts_with?(output, "y\ny\n")
      # Our end is closed, so it gets SIGPIPE.
      leftover = out |> File.read!() |> pid()
      Tree.await(fn -> gone?(leftover) end)

      assert took(fn ->
               ["sh", "-c", script]
               |> NetRunner.stream!(options)
               |> Enum.reduce(0, &(byte_size(&1) + &2))
             end) > 0
    end

    test "may still be read by a process, as long as it lives" do
      go = file("go")
      script = "(until [ -e #{go} ]; do sleep 0.05; done; echo late) & echo soon"
      {:ok, p} = Command.start("sh", ["-c", script], leftovers: :leave)
      assert Command.await_exit(p) == {:ok, 0}
      assert Command.read(p) == {:ok, "soon\n"}
      File.touch!(go)
      assert Command.read(p) == {:ok, "late\n"}
      assert Command.read(p) == :eof
      Command.stop(p)
    end
  end

  # Prints as fast as it can; when it is told to end, goes on until the write that it is in is through.
  @graceful """
  import os, signal, sys
  over = False
  def end(*_):
      global over
      over = True
  signal.signal(signal.SIGTERM, end)
  line = b"x" * 65535 + b"\\n"
  while not over:
      os.write(1, line)
      os.write(2, line)
  open(sys.argv[1], "w").write("graceful")
  """

  describe "a program that ends gracefully while it prints ends at once" do
    setup do
      %{said: file("said")}
    end

    # A SIGKILL, which the time before would be spent for, would leave no word.
    defp graceful(said), do: ["python3", "-S", "-E", "-c", @graceful, said]
    @patient [kill_timeout: 600_000]

    test "when a stream stops early", %{said: said} do
      for options <- [[], [tagged: true], [lines: :keep]] do
        took(fn -> graceful(said) |> NetRunner.stream!(@patient ++ options) |> Enum.take(1) end)
        assert File.read!(said) == "graceful"
        File.rm!(said)
      end
    end

    test "when the consumer raises", %{said: said} do
      assert_raise RuntimeError, "enough", fn ->
        took(fn ->
          graceful(said) |> NetRunner.stream!(@patient) |> Enum.each(fn _ -> raise "enough" end)
        end)
      end

      assert File.read!(said) == "graceful"
    end

    test "when it is stopped", %{said: said} do
      for options <- [[], [stderr: :pipe], [pty: true]] do
        [executable | args] = graceful(said)
        {:ok, p} = Command.start(executable, args, @patient ++ options)
        {:ok, _} = Command.read(p)
        assert took(fn -> Command.stop(p) end) == :ok
        assert File.read!(said) == "graceful"
        File.rm!(said)
      end
    end

    test "when its time is over", %{said: said} do
      # Python has started by then.
      assert took(fn -> NetRunner.run(graceful(said), [timeout: 8_000] ++ @patient) end) ==
               {:error, :timeout}

      assert File.read!(said) == "graceful"
      File.rm!(said)
      stream = NetRunner.stream!(graceful(said), [timeout: 8_000] ++ @patient)

      # A consumer that does not read.
      assert_raise NetRunner.Error, fn ->
        took(fn -> Enum.each(stream, fn _ -> Process.sleep(9_000) end) end)
      end

      assert File.read!(said) == "graceful"
    end

    test "when the stream of a pipeline stops early", %{said: said} do
      took(fn ->
        [["cat", "/dev/zero"], graceful(said)]
        |> NetRunner.pipeline_stream!(@patient)
        |> Enum.take(1)
      end)

      assert File.read!(said) == "graceful"
    end
  end

  test "what was collected of a command is let go when it is told to end, and not when it has ended" do
    script = "trap '' TERM; head -c 50000000 /dev/zero; while :; do sleep 1000; done"
    run = Task.async(fn -> NetRunner.run(["sh", "-c", script], kill_timeout: 600_000) end)

    collected = fn server ->
      {:binary, binaries} = Process.info(server, :binary)
      binaries |> Enum.map(&elem(&1, 1)) |> Enum.sum()
    end

    mine = fn -> Enum.find(NetRunner.list(), &(List.last(&1.command) == script)) end

    Tree.await(fn -> (info = mine.()) && collected.(info.pid) >= 50_000_000 end)
    %{pid: server, os_pid: os_pid} = mine.()
    stop = Task.async(fn -> Command.stop(server) end)
    Tree.await(fn -> collected.(server) < 1_000_000 end)
    assert Tree.stat(os_pid) != nil
    Tree.kill(os_pid)
    assert Task.await(run, 60_000) == {:error, :closed}
    assert Task.await(stop, 60_000) == :ok
  end

  describe "a command that does not end, though it was killed" do
    # Only the kernel can hold a process back from SIGKILL; a shepherd that is stopped does not send it. To those who
    # wait it is the same.
    setup do
      {:ok, p} = Command.start("sleep", ["1000"], kill_timeout: 100, give_up_after: 100)
      shepherd = Tree.shepherd(p)
      {_, 0} = System.cmd("kill", ["-STOP", "#{shepherd}"])
      on_exit(fn -> System.cmd("kill", ["-CONT", "#{shepherd}"], stderr_to_stdout: true) end)
      %{p: p, os_pid: Command.os_pid(p), shepherd: shepherd}
    end

    test "is given up by its callers, still listed, and ended when that is possible", context do
      %{p: p, os_pid: os_pid, shepherd: shepherd} = context
      waiting = Task.async(fn -> Command.await_exit(p) end)
      NetRunner.Waiting.await(p, :exit)
      writing = Task.async(fn -> Command.write(p, :binary.copy("x", 4_000_000)) end)
      NetRunner.Waiting.await(p, :stdin)
      assert took(fn -> Command.stop(p) end) == {:error, {:not_ended, os_pid}}
      assert Task.await(waiting) == {:error, {:not_ended, os_pid}}
      assert Task.await(writing) == {:error, {:not_ended, os_pid}}
      assert Command.stop(p) == {:error, {:not_ended, os_pid}}
      assert Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid))
      refute gone?(os_pid)
      monitor = Process.monitor(p)
      {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
      assert_receive {:DOWN, ^monitor, :process, ^p, :normal}, @soon
      Tree.await(fn -> gone?(os_pid) end)
      refute Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid))
    end

    test "is given up, too, by who comes later: asks for its output, or feeds it", context do
      %{p: p, os_pid: os_pid, shepherd: shepherd} = context
      :ok = Command.end_command(p, :timeout)
      assert Command.await_exit(p) == {:error, {:not_ended, os_pid}}
      feeder = NetRunner.Run.Input.feed({:feeder, fn _ -> Process.sleep(:infinity) end}, p)
      monitor = Process.monitor(feeder)
      assert_receive {:DOWN, ^monitor, _, _, :killed}, @soon

      assert took(fn -> Command.collect(p, :infinity, :infinity) end) ==
               {:error, {:not_ended, os_pid}}

      monitor = Process.monitor(p)
      {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
      assert_receive {:DOWN, ^monitor, :process, ^p, :normal}, @soon
    end

    # The command is only asked to end, so that what it prints is still of interest.
    test "is given up by a reader", %{p: p, os_pid: os_pid, shepherd: shepherd} do
      reading = Task.async(fn -> Command.read(p) end)
      NetRunner.Waiting.await(p, :stdout)
      :ok = Command.end_command(p, :asked)
      assert Task.await(reading, @soon) == {:error, {:not_ended, os_pid}}
      assert Command.read(p) == {:error, {:not_ended, os_pid}}
      {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
      Tree.await(fn -> Command.await_exit(p) == {:ok, 143} end)
      :ok = Command.stop(p)
    end
  end

  test "run gives up a command that does not end, in a sentence" do
    test = self()

    task =
      Task.async(fn ->
        NetRunner.run(["sh", "-c", "read go; kill -STOP $PPID; sleep 1000"],
          input: "go\n",
          timeout: 2_000,
          owner: test,
          kill_timeout: 100,
          give_up_after: 100
        )
      end)

    Tree.await(fn ->
      Enum.any?(NetRunner.list(), &match?(["sh", "-c", "read go;" <> _], &1.command))
    end)

    %{pid: server} =
      Enum.find(NetRunner.list(), &match?(["sh", "-c", "read go;" <> _], &1.command))

    assert {:error, {:not_ended, os_pid} = reason} = Task.await(task, @soon)

    # Its shepherd is let go on in the end. Then nobody needs the process, though its owner lives on.
    Tree.await(fn -> gone?(os_pid) end)
    Tree.await(fn -> not Process.alive?(server) end)
    assert NetRunner.Error.describe(reason) =~ "SIGKILL did not end it within :give_up_after"
  end

  # Those that run a command to its end, and what ends it when its :timeout is over.
  @callers [
    run: {&NetRunner.run/2, &Command.end_command/2},
    capture: {&NetRunner.capture/2, &NetRunner.Process.Server.end_captured/2},
    cmd: {&__MODULE__.cmd/2, &Command.end_command/2},
    stream: {&__MODULE__.stream/2, &Command.end_command/2},
    pipeline: {&__MODULE__.pipeline/2, &__MODULE__.end_pipeline/2},
    pipeline_stream: {&__MODULE__.pipeline_stream/2, &__MODULE__.end_pipeline/2}
  ]

  def cmd([command | args], options), do: NetRunner.cmd(command, args, options)
  def stream(command, options), do: command |> NetRunner.stream!(options) |> Enum.to_list()
  def pipeline(command, options), do: NetRunner.pipeline(with_cat(command), options)

  def pipeline_stream(command, options),
    do: command |> with_cat() |> NetRunner.pipeline_stream!(options) |> Enum.to_list()

  defp with_cat([_, seconds] = command), do: [command, ["sh", "-c", "exec cat", seconds]]

  # The last one, which does end, comes first.
  def end_pipeline(first, cause) do
    [_, seconds] = Command.info(first).command
    %{pid: last} = Enum.find(NetRunner.list(), &match?([_, _, _, ^seconds], &1.command))
    :ok = Command.end_command(last, cause)
    Command.end_command(first, cause)
  end

  for {name, _} <- @callers do
    test "#{name} gives up a command whose input produces nothing" do
      test = self()
      {call, end_command} = @callers[unquote(name)]
      seconds = "1000.#{System.unique_integer([:positive])}"

      input =
        Stream.repeatedly(fn ->
          send(test, {:feeder, self()})
          Process.sleep(:infinity)
        end)

      task =
        Task.async(fn ->
          try do
            call.(["sleep", seconds], input: input, kill_timeout: 100, give_up_after: 100)
          rescue
            error in NetRunner.Error -> {:error, error.reason}
          end
        end)

      assert_receive {:feeder, feeder}, @soon

      %{pid: server, os_pid: os_pid} =
        Enum.find(NetRunner.list(), &match?([_, ^seconds], &1.command))

      shepherd = Tree.shepherd(server)
      {_, 0} = System.cmd("kill", ["-STOP", "#{shepherd}"])
      on_exit(fn -> System.cmd("kill", ["-CONT", "#{shepherd}"], stderr_to_stdout: true) end)
      monitor = Process.monitor(feeder)
      :ok = end_command.(server, :timeout)

      case Task.await(task, @soon) do
        {:ok, %NetRunner.Result{outcome: outcome}} -> assert outcome == :not_ended
        {:error, reason} -> assert reason == {:not_ended, os_pid}
      end

      assert_receive {:DOWN, ^monitor, _, _, :killed}, @soon
      refute gone?(os_pid)

      # It is listed until it is gone, though its caller is.
      Tree.await(fn -> not Process.alive?(task.pid) end)
      Tree.await(fn -> {:process, task.pid} not in monitored_by(server) end)
      assert Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid))
      {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
      Tree.await(fn -> not Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid)) end)
      assert gone?(os_pid)
    end
  end

  defp monitored_by(server) do
    case Process.info(server, :monitors) do
      {:monitors, monitors} -> monitors
      nil -> []
    end
  end

  describe "a stream's limit of bytes" do
    test "gives exactly so many, and then the error, with the end of stderr" do
      for {options, expected} <- [
            {[stderr_tail: 100], "y\ny\ny"},
            {[stderr_tail: 100, lines: :keep], "y\ny\ny"},
            {[tagged: true], "y\ny\ny"}
          ] do
        {:ok, seen} = Agent.start_link(fn -> "" end)

        error =
          assert_raise NetRunner.Error, ~r/max_output_size/, fn ->
            # What was written to stderr is there before the limit is passed.
            ["sh", "-c", "echo oops >&2; sleep 1; exec yes"]
            |> NetRunner.stream!([max_output_size: 5] ++ options)
            |> Enum.each(fn
              {:stdout, bytes} -> Agent.update(seen, &(&1 <> bytes))
              {:stderr, "oops\n"} -> flunk("counted as well")
              bytes when is_binary(bytes) -> Agent.update(seen, &(&1 <> bytes))
            end)
          end

        unless options[:tagged] do
          assert Agent.get(seen, & &1) == expected
          assert error.stderr == "oops\n"
        end
      end
    rescue
      # With `tagged: true`, what stderr gives counts as well.
      error in ExUnit.AssertionError ->
        if error.message != "counted as well", do: reraise(error, __STACKTRACE__)
    end
  end

  describe "an input" do
    test "is not produced any more when run returns" do
      test = self()

      slow =
        Stream.repeatedly(fn ->
          send(test, {:feeder, self()})
          Process.sleep(10)
          "x\n"
        end)

      assert {"x\n", 0} = NetRunner.run(~w(head -n 1), input: slow)
      assert_received {:feeder, feeder}
      refute Process.alive?(feeder)
    end

    test "that produces nothing is not left when run returns" do
      test = self()

      stuck =
        Stream.repeatedly(fn ->
          send(test, {:feeder, self()})
          Process.sleep(:infinity)
        end)

      assert {"", 0} = took(fn -> NetRunner.run(~w(true), input: stuck) end)

      receive do
        {:feeder, feeder} -> refute Process.alive?(feeder)
      after
        0 -> :ok
      end
    end

    test "has its cleanup run before run returns" do
      test = self()

      input =
        Stream.resource(
          fn -> :ok end,
          fn :ok -> {["x\n"], :ok} end,
          fn :ok ->
            Process.sleep(200)
            send(test, :cleaned_up)
          end
        )

      assert {"x\n", 0} = NetRunner.run(~w(head -n 1), input: input)
      assert_received :cleaned_up
    end

    test "has its cleanup run, too, when its process does not get to run for a while" do
      test = self()

      spawn_link(fn ->
        feeder = receive(do: ({:feeder, feeder} -> feeder))
        true = :erlang.suspend_process(feeder)
        send(feeder, :go_on)
        # As long as the feeder is without a processor. The command is over meanwhile.
        Process.sleep(500)
        true = :erlang.resume_process(feeder)
      end)
      |> then(&Process.register(&1, __MODULE__.Scheduler))

      next = fn
        :first ->
          {["x\n"], :second}

        :second ->
          send(__MODULE__.Scheduler, {:feeder, self()})
          receive(do: (:go_on -> {["y\n"], :second}))
      end

      input = Stream.resource(fn -> :first end, next, fn _ -> send(test, :cleaned_up) end)
      assert {"x\n", 0} = NetRunner.run(~w(head -n 1), input: input)
      assert_received :cleaned_up
    end

    test "that waits in a NIF holds the end up no longer than another one" do
      fifo = NetRunner.Temporary.path("fifo")

      {_, 0} = System.cmd("mkfifo", [fifo])
      on_exit(fn -> File.rm(fifo) end)

      next = fn
        :first -> {["x\n"], :second}
        # Returns when somebody opens the other end.
        :second -> {["y\n"], :file.open(fifo, [:raw, :read])}
      end

      input = Stream.resource(fn -> :first end, next, fn _ -> :ok end)

      {us, {"x\n", 0}} = :timer.tc(fn -> NetRunner.run(~w(head -n 1), input: input) end)

      {:ok, _both_ends} = :file.open(fifo, [:raw, :read, :write])
      # Less than what a feeder has for its cleanup.
      assert us < 4_000_000
    end

    test "that is put in by a task logs nothing when the command has had enough" do
      log =
        capture_log(fn ->
          input = fn sink ->
            Task.await(Task.async(fn -> Enum.into(Stream.cycle(["x\n"]), sink) end), :infinity)
          end

          assert {"x\n", 0} = took(fn -> NetRunner.run(~w(head -n 1), input: input) end)
        end)

      refute log =~ "Task"
    end

    test "that is taken along by what it is linked to ends the command, and its caller exits" do
      source = fn ->
        spawn_link(fn -> receive(do: (:go -> exit({:shutdown, :connection_closed}))) end)
      end

      input =
        Stream.resource(
          source,
          fn pid ->
            send(pid, :go)
            Process.sleep(:infinity)
          end,
          fn _ -> :ok end
        )

      assert catch_exit(took(fn -> NetRunner.run(~w(cat), input: input) end)) ==
               {:shutdown, :connection_closed}
    end

    test "is produced on behalf of whoever runs the command" do
      test = self()
      Logger.metadata(request: 17)

      input = fn sink ->
        send(test, {:works_for, Process.get(:"$callers"), Logger.metadata()})
        Enum.into(["x"], sink)
      end

      assert NetRunner.run(~w(cat), input: input) == {"x", 0}
      assert_received {:works_for, [^test | _], metadata}
      assert metadata[:request] == 17
    end
  end

  describe "a linked process" do
    test "ends with its parent's reason, when its command is gone" do
      for {reason, expected} <- [shutdown: :shutdown, boom: {:shutdown, :boom}] do
        test = self()
        said = file("said")

        parent =
          spawn(fn ->
            script =
              "trap 'sleep 0.5; echo bye > #{said}; exit 3' TERM; echo; while :; do sleep 0.1; done"

            {:ok, p} = Command.start_link("sh", ["-c", script], owner: nil)
            {:ok, "\n"} = Command.read(p)
            send(test, {:started, p})
            Process.sleep(:infinity)
          end)

        assert_receive {:started, p}, @soon
        monitor = Process.monitor(p)
        Process.exit(parent, reason)
        assert_receive {:DOWN, ^monitor, :process, ^p, ^expected}, @soon
        assert File.read!(said) == "bye\n"
      end
    end

    test "is no child of a supervisor, and says what is" do
      assert_raise ArgumentError, ~r/NetRunner.Daemon/, fn ->
        Supervisor.start_link([{Command, "cat"}], strategy: :one_for_one)
      end
    end
  end

  describe "a stream/2" do
    test "that nobody enumerates is gone when its time is over" do
      {:ok, stream} = NetRunner.stream(~w(sleep 987654), timeout: 2_000)
      %{pid: server} = Enum.find(NetRunner.list(), &(&1.command == ~w(sleep 987654)))
      monitor = Process.monitor(server)
      assert_receive {:DOWN, ^monitor, :process, ^server, :normal}, @soon
      error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
      assert error.reason == :timeout
    end

    test "whose owner is gone says so" do
      {:ok, stream} = Task.await(Task.async(fn -> NetRunner.stream(~w(echo hi)) end))
      error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
      assert error.reason in [:stream_over, :closed]
      assert Exception.message(error) =~ "is gone"
    end
  end

  test "the consumer of a stream gets no message of it, and a long mailbox costs nothing" do
    for n <- 1..1_000, do: send(self(), {:other, n})

    ["sh", "-c", "for n in 1 2 3 4 5; do echo $n; sleep 0.1; done"]
    |> NetRunner.stream!()
    |> Stream.run()

    ["sh", "-c", "echo 1; sleep 0.1; echo 2; sleep 100"] |> NetRunner.stream!() |> Enum.take(2)
    {:messages, messages} = Process.info(self(), :messages)
    assert length(messages) == 1_000
  end
end
