defmodule NetRunner.TelemetryTest do
  # The package cannot be a dependency here, where nothing is fetched. What NetRunner uses of it is one function,
  # `:telemetry.execute/3`; a module of that name with it, and nothing else, stands in for the package
  # while these tests run. It sends the events to the process that this module's tests run in.
  use ExUnit.Case, async: false

  import NetRunner.Guarantees.Tree, only: [await: 1]

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Announcer

  setup context do
    unless context[:without] do
      Process.register(self(), :net_runner_telemetry_test)

      [{:telemetry, _}] =
        Code.compile_string("""
        defmodule :telemetry do
          def execute(event, measurements, metadata) do
            send(:net_runner_telemetry_test, {event, measurements, metadata})
            if "callers" in metadata.command,
              do: send(:net_runner_telemetry_test, {:in_handler, Process.get(:"$callers")})

            if "whose" in metadata.command do
              whose = {List.last(event), Process.get(:"$callers"), Logger.metadata(), Process.group_leader()}
              send(:net_runner_telemetry_test, {:whose, whose})
            end

            if "asks at \#{List.last(event)}" in metadata.command do
              answer = NetRunner.Process.stats(metadata.pid)
              send(:net_runner_telemetry_test, {:answer, List.last(event), answer})
            end

            # A handler that takes its time with this event of this command.
            if "slow \#{List.last(event)}" in metadata.command do
              send(:net_runner_telemetry_test, {:slow_handler, self()})
              receive(do: (:go_on -> :ok))
            end
          end
        end
        """)

      on_exit(fn ->
        :code.delete(:telemetry)
        :code.purge(:telemetry)
      end)
    end

    :ok
  end

  @tag :without
  test "without the package nothing is called" do
    refute :erlang.function_exported(:telemetry, :execute, 3)
    assert NetRunner.run(["echo", "a"]) == {"a\n", 0}
    assert NetRunner.run(["no-such-program"]) == {:error, :enoent}
    refute :erlang.function_exported(:telemetry, :execute, 3)
  end

  test "handlers know for whom they work, as what else is a user's code, and print where that does" do
    test = self()
    {:ok, device} = StringIO.open("")
    Process.group_leader(self(), device)
    Logger.metadata(request_id: "r-1")
    assert NetRunner.run(["sh", "-c", "exit 3", "whose"]) == {"", 3}
    assert NetRunner.run(["no-such-program", "whose"]) == {:error, :enoent}

    for event <- [:start, :stop, :start, :exception] do
      assert_received {:whose, {^event, [^test | _], metadata, ^device}}
      assert metadata[:request_id] == "r-1"
    end
  end

  test "a command that exits: start and stop" do
    before = System.monotonic_time()
    assert {"", 3} = NetRunner.run(["sh", "-c", "exit 3"])

    # Before `run/2` returned.
    assert_received {[:net_runner, :command, :start], start, started}
    assert_received {[:net_runner, :command, :stop], stop, stopped}

    assert %{command: ["sh", "-c", "exit 3"], pid: pid, os_pid: os_pid} = started
    assert is_pid(pid) and is_integer(os_pid)
    assert %{system_time: system_time, monotonic_time: monotonic_time} = start
    assert System.convert_time_unit(System.system_time() - system_time, :native, :second) in 0..60
    assert monotonic_time >= before

    assert %{status: 3, exit: {:exited, 3}, os_pid: ^os_pid, pid: ^pid} = stopped
    assert stopped.command == started.command
    assert stopped.telemetry_span_context == started.telemetry_span_context
    assert %{duration: duration, monotonic_time: ended, max_rss_bytes: rss} = stop
    assert ended - monotonic_time == duration
    assert rss > 100_000 and stop.user_time_us >= 0 and stop.system_time_us >= 0
    refute_received {[:net_runner | _], _, _}
  end

  test "each event has who started the command, and for whom, and handlers find the same" do
    test = self()

    for command <- [["true", "callers"], ["no-such-program", "callers"]] do
      {task, callers} =
        Task.await(
          Task.async(fn ->
            NetRunner.run(command)
            {self(), [self() | Process.get(:"$callers")]}
          end)
        )

      assert [^task, ^test | _] = callers

      for _ <- [:start, :stop_or_exception] do
        assert_received {[_, _, _], _, %{command: ^command, caller: ^task, callers: ^callers}}
        assert_received {:in_handler, ^callers}
      end
    end
  end

  test "the end has its outcome, and what was counted" do
    limited = ["sh", "-c", "exec yes"]
    # It exits when what it has printed was read, which else would not be counted.
    read = NetRunner.Temporary.path("read")
    on_exit(fn -> File.rm(read) end)
    ending = ["sh", "-c", "cat; until [ -e \"$0\" ]; do sleep 0.05; done; exit 3", read]
    touch = [input: "abc", on_output: fn _ -> File.touch!(read) end]

    for {outcome, run} <- [
          {:ended, fn -> NetRunner.capture(ending, touch) end},
          {:timeout, fn -> NetRunner.run(["sleep", "100"], timeout: 1_000) end},
          {:timeout, fn -> NetRunner.capture(["sleep", "100"], timeout: 1_000) end},
          {:idle_timeout, fn -> NetRunner.capture(["sleep", "100"], idle_timeout: 50) end},
          {{:output_limit, :stdout}, fn -> NetRunner.run(limited, max_output_size: 3) end},
          {{:output_limit, :total}, fn -> NetRunner.capture(limited, max_output_size: 3) end},
          {:stopped, fn -> NetRunner.stream!(limited) |> Enum.take(1) end}
        ] do
      run.()
      assert_received {[_, _, :stop], measurements, %{outcome: ^outcome, cgroup: nil}}
      assert %{bytes_in: _, bytes_out: _, bytes_err: 0} = measurements
      if outcome == :ended, do: assert(%{bytes_in: 3, bytes_out: 3} = measurements)
    end
  end

  test "a command that is ended by a signal stops as well" do
    {:ok, p} = Command.start("sleep", ["100"])
    Command.stop(p)

    assert_received {[_, _, :stop], _,
                     %{pid: ^p, status: 143, exit: {:signaled, :sigterm, false}}}
  end

  test "one that cannot be started: start and exception" do
    assert NetRunner.run(["no-such-program"]) == {:error, :enoent}
    assert {:error, {:invalid_cmd, _}} = NetRunner.run([""])

    for command <- [["no-such-program"], [""]] do
      assert_received {[_, _, :start], %{system_time: _, monotonic_time: _},
                       %{command: ^command, os_pid: nil, telemetry_span_context: context}}

      assert_received {[_, _, :exception], %{duration: duration, monotonic_time: _},
                       %{command: ^command, kind: :error, telemetry_span_context: ^context} =
                         metadata}

      assert duration >= 0
      assert metadata.stacktrace == []
      assert {:error, metadata.reason} == NetRunner.run(command)
    end
  end

  test "what was no list is the only element of the command in its events" do
    assert {:error, {:invalid_cmd, _}} = NetRunner.run("echo hi")
    assert_received {[_, _, :start], _, %{command: ["echo hi"]}}
    assert_received {[_, _, :exception], _, %{command: ["echo hi"]}}
  end

  test "one whose owner dies: stop; one whose process is killed, and one whose shepherd dies: exception" do
    test = self()

    owner =
      spawn(fn ->
        {:ok, p} = Command.start("sleep", ["100"])
        send(test, {:started, p})
      end)

    assert_receive {:started, p}, 60_000
    assert_receive {[_, _, :stop], %{duration: _}, %{pid: ^p} = metadata}, 60_000
    assert %{outcome: :stopped, status: 143, command: ["sleep", "100"]} = metadata
    refute Process.alive?(owner)

    {:ok, p} = Command.start("sleep", ["100"])
    Process.exit(p, :kill)
    assert_receive {[_, _, :exception], %{duration: _}, %{pid: ^p} = metadata}, 60_000
    assert %{kind: :exit, reason: :killed, command: ["sleep", "100"]} = metadata

    {:ok, p} = Command.start("sleep", ["100"])
    os_pid = Command.os_pid(p)
    [_, shepherd] = Regex.run(~r/^PPid:\t(\d+)/m, File.read!("/proc/#{os_pid}/status"))
    {"", 0} = System.cmd("kill", ["-9", shepherd])
    assert Command.await_exit(p) == {:error, :shepherd_died}
    assert_received {[_, _, :exception], %{duration: _}, %{os_pid: ^os_pid} = metadata}
    assert %{kind: :error, reason: :shepherd_died} = metadata
    Command.stop(p)
    refute_received {[_, _, :exception], _, %{pid: ^p}}
  end

  test "a slow handler keeps no command alive whose owner has died" do
    test = self()

    for event <- [:start, :stop] do
      owner =
        spawn(fn ->
          Command.start("sh", ["-c", "exec sleep 1000", "slow #{event}"])
          send(test, :started)
          Process.sleep(:infinity)
        end)

      assert_receive {[_, _, :start], _, %{os_pid: os_pid, pid: p}}, 60_000
      if event == :stop, do: assert_receive(:started, 60_000)
      Process.exit(owner, :kill)
      await(fn -> not File.exists?("/proc/#{os_pid}") end)
      assert_receive {:slow_handler, handler}, 60_000
      monitor = Process.monitor(handler)
      send(handler, :go_on)
      assert_receive {[_, _, :stop], _, %{pid: ^p, outcome: :stopped}}, 60_000
      assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
    end
  end

  test "a slow handler of the start does not delay :timeout" do
    task =
      Task.async(fn ->
        NetRunner.run(["sh", "-c", "exec sleep 1000", "slow start"], timeout: 100)
      end)

    assert_receive {:slow_handler, handler}, 60_000
    assert_receive {[_, _, :start], _, %{os_pid: os_pid}}
    await(fn -> not File.exists?("/proc/#{os_pid}") end)
    send(handler, :go_on)
    assert Task.await(task, 60_000) == {:error, :timeout}
    assert_received {[_, _, :stop], _, %{os_pid: ^os_pid, status: 143}}
  end

  describe "a handler that asks the command's process" do
    # Before it would not be waited for any longer.
    defp in_time(function) do
      {us, result} = :timer.tc(function)
      assert us < 1000 * Announcer.patience()
      result
    end

    test "at the start is answered" do
      assert in_time(fn -> NetRunner.run(["echo", "a", "asks at start"]) end) ==
               {"a asks at start\n", 0}

      assert_received {:answer, :start, %{exit_status: _}}
    end

    test "at the end is answered, with the end, before those who wait for that" do
      assert in_time(fn -> NetRunner.run(["sh", "-c", "exit 3", "asks at stop"]) end) == {"", 3}
      assert_received {:answer, :stop, %{exit_status: 3}}
    end

    test "that does not start is told that it is not there" do
      for event <- [:start, :exception] do
        command = ["no-such-program", "asks at #{event}"]
        assert in_time(fn -> NetRunner.run(command) end) == {:error, :enoent}
        assert_receive {:answer, ^event, {:error, :closed}}, 60_000
      end
    end
  end

  describe "a handler that does not return" do
    defp started(event, script, options \\ []) do
      {:ok, p} = Command.start("sh", ["-c", script, "slow #{event}"], options)
      p
    end

    test "at the start, the end, or both is not waited for, and sees what comes later" do
      for event <- [:start, :stop] do
        assert NetRunner.run(["sh", "-c", "echo a; exit 3", "slow #{event}"]) == {"a\n", 3}
        assert_received {:slow_handler, handler}
        assert_received {[_, _, :start], _, %{pid: p}}
        gone = Process.monitor(p)
        # Sooner than it would give up a handler.
        assert_receive {:DOWN, ^gone, :process, ^p, _}, 2_500
        monitor = Process.monitor(handler)
        send(handler, :go_on)
        assert_receive {:DOWN, ^monitor, :process, _, :normal}, 60_000
        assert_received {[_, _, :stop], _, %{pid: ^p, status: 3}}
      end
    end

    test "is not waited for where a start fails" do
      for event <- [:start, :exception] do
        assert NetRunner.run(["no-such-program", "slow #{event}"]) == {:error, :enoent}
        assert_received {:slow_handler, handler}
        monitor = Process.monitor(handler)
        send(handler, :go_on)
        assert_receive {:DOWN, ^monitor, :process, _, :normal}, 60_000
        assert_received {[_, _, :exception], _, %{reason: :enoent}}
      end
    end

    test "is waited for by who waits for the end; everything else goes on" do
      p = started(:stop, "echo abc; exit 3")
      exit = Task.async(fn -> Command.await_exit(p) end)
      monitor = Command.monitor(p)
      assert_receive {:slow_handler, handler}, 60_000
      late = Command.monitor(p)
      stop = Task.async(fn -> Command.stop(p) end)
      assert Command.stats(p).exit_status == 3
      refute Command.alive?(p)
      assert Command.kill(p, :sigterm) == {:error, :esrch}
      assert Command.read(p) == {:ok, "abc\n"}
      assert Command.read(p) == :eof
      assert {Task.yield(exit, 100), Task.yield(stop, 0)} == {nil, nil}
      refute_received {:DOWN, _, _, _, _}
      send(handler, :go_on)
      assert Task.await(exit) == {:ok, 3}
      assert Task.await(stop) == :ok
      assert_receive {:DOWN, ^monitor, :process, ^p, {:exit, 3}}
      assert_receive {:DOWN, ^late, :process, ^p, {:exit, 3}}
    end

    test "is not waited for when the owner dies, and what is known of the end is told" do
      owner = spawn(fn -> Process.sleep(:infinity) end)
      p = started(:stop, "exit 3", owner: owner)
      server = Process.monitor(p)
      assert_receive {:slow_handler, handler}, 60_000
      exit = Task.async(fn -> Command.await_exit(p) end)
      # It waits.
      assert Command.stats(p).exit_status == 3
      assert Task.yield(exit, 100) == nil

      {us, _} =
        :timer.tc(fn ->
          Process.exit(owner, :kill)
          assert_receive {:DOWN, ^server, :process, _, :normal}, 60_000
        end)

      assert us < 1000 * (Announcer.patience() - 500)
      assert Task.await(exit) == {:ok, 3}
      send(handler, :go_on)
    end

    test "does not hide that there was more output than a run may have" do
      p = started(:stop, "echo abcdef")
      assert_receive {:slow_handler, handler}, 60_000
      collect = Task.async(fn -> Command.collect(p, 3) end)
      refute Task.yield(collect, 100)
      send(handler, :go_on)
      assert Task.await(collect) == {:error, {:max_output_exceeded, "abc"}}
    end
  end

  test "the end is announced also when the code was upgraded since the start" do
    {:ok, p} = Command.start("cat", [])
    assert [announcer] = announcers(p)
    # It may still be on its way from the handlers.
    hibernates = {:current_function, {:erlang, :hibernate, 3}}
    await(fn -> Process.info(announcer, :current_function) == hibernates end)

    for _ <- 1..2 do
      :code.purge(Announcer)
      {:module, Announcer} = :code.load_file(Announcer)
    end

    :ok = Command.close_stdin(p)
    assert Command.await_exit(p) == {:ok, 0}
    assert_received {[_, _, :stop], _, %{pid: ^p, status: 0}}
    Command.stop(p)
  end

  test "a handler that kills the process that it runs in delays nothing" do
    p = started(:stop, "exit 3")
    exit = Task.async(fn -> Command.await_exit(p) end)
    assert_receive {:slow_handler, handler}, 60_000
    Process.exit(handler, :kill)
    assert Task.await(exit, Announcer.patience() - 500) == {:ok, 3}
    Command.stop(p)
  end

  test "a command whose process is killed: exception" do
    {:ok, p} = Command.start("sleep", ["1000"])
    Process.exit(p, :kill)

    assert_receive {[_, _, :exception], %{duration: _}, %{pid: ^p, kind: :exit, reason: :killed}},
                   60_000
  end

  test "handlers of a command run in one process, which ends with it" do
    {:ok, p} = Command.start("sh", ["-c", "read a", "slow stop"])
    assert [announcer] = announcers(p)
    monitor = Process.monitor(announcer)
    :ok = Command.close_stdin(p)
    assert_receive {:slow_handler, ^announcer}, 60_000
    send(announcer, :go_on)
    assert Command.await_exit(p) == {:ok, 1}
    assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
    Command.stop(p)
  end

  defp announcers(p) do
    {:monitored_by, watchers} = Process.info(p, :monitored_by)
    Enum.filter(watchers, &is_pid/1) -- [self()]
  end
end
