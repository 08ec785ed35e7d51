defmodule NetRunner.LauncherTest do
  # Not async: it breaks what all commands of the VM need.
  use ExUnit.Case, async: false

  # The application tells of its ends at its own time.
  @moduletag :capture_log

  import ExUnit.CaptureLog

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Helper
  alias NetRunner.System.{Launcher, Native}
  alias NetRunner.Process, as: Command

  setup do
    on_exit(fn ->
      Application.delete_env(:net_runner, :helper)
      # One that failed may have left another helper.
      Application.stop(:net_runner)
      {:ok, _} = Application.ensure_all_started(:net_runner)
      assert NetRunner.run(~w(echo again)) == {"again\n", 0}
    end)
  end

  # What the application says when it starts with this helper.
  defp refusal(path) do
    Application.put_env(:net_runner, :helper, path)
    capture_log(fn -> :ok = Application.stop(:net_runner) end)

    capture_log(fn ->
      assert {:error, {:net_runner, {failure, _}}} = Application.ensure_all_started(:net_runner)
      assert {:shutdown, {:failed_to_start_child, Launcher, message}} = failure
      send(self(), {:refusal, message})
    end)

    assert_received {:refusal, message}
    assert message =~ "NetRunner's helper program #{path} "
    message
  end

  describe "the application does not start, and says why, with a helper that" do
    test "is of another version" do
      fds = Tree.new().fds
      message = refusal(Helper.script("printf 'net_runner 9.9.9 protocol 99' >&3; cat <&3"))

      assert message =~
               "(net_runner 9.9.9 protocol 99) does not match its native library (net_runner "

      assert message =~ "mix deps.compile net_runner --force"
      # The helper's socket was closed, which ended it.
      Tree.await(fn -> Tree.fds() <= fds end, 60_000, fn -> {fds, Tree.fd_targets()} end)
    end

    test "ends without a word" do
      assert refusal(Helper.script("exit 0")) =~ "does not answer"
    end

    test "says nothing" do
      message = refusal(Helper.script("cat <&3"))
      assert message =~ "does not answer: it may be of another version or machine"
    end

    test "is not there" do
      message = refusal("/no/such/helper")
      assert message =~ "cannot be started: there is no such executable"
      assert message =~ "mix deps.compile net_runner --force"
    end

    test "is no program" do
      path = Helper.script("exit 0")
      File.chmod!(path, 0o644)
      assert refusal(path) =~ "cannot be started: it may not be executed (:eacces)"
    end
  end

  describe "under a filter of system calls (seccomp)" do
    @describetag Tree.linux_only()

    for {call, name} <- [
          {"prctl=36", "prctl(PR_SET_CHILD_SUBREAPER)"},
          {"prctl=1", "prctl(PR_SET_PDEATHSIG)"},
          {"waitid", "waitid"}
        ] do
      @call call
      @name name

      test "that refuses #{name}, the application does not start, and says so" do
        message = refusal(filtered_helper([@call]))
        assert message =~ "cannot do its work on this system: #{@name} failed: "
        assert message =~ "seccomp"
      end
    end

    # Its descriptors can be listed by root alone.
    unless Tree.root?(), do: @tag(skip: "needs root")

    test "that refuses close_range, no descriptor of the VM stays open in the helper" do
      Application.put_env(:net_runner, :helper, filtered_helper(["close_range"]))
      capture_log(fn -> :ok = Application.stop(:net_runner) end)
      {:ok, _} = Application.ensure_all_started(:net_runner)
      assert NetRunner.run(~w(echo hello)) == {"hello\n", 0}
      launcher = Tree.current_launcher()
      fds = File.ls!("/proc/#{launcher}/fd") |> Enum.map(&String.to_integer/1)
      assert Enum.max(fds) < 10
      capture_log(fn -> :ok = Application.stop(:net_runner) end)
    end
  end

  # The real one, in an environment of a container's kind.
  defp filtered_helper(calls) do
    script = Path.expand("../../support/filtered_helper.py", __DIR__)
    python = System.find_executable("python3")

    Helper.script(
      "exec #{python} -S -E #{script} #{Helper.real()} #{Enum.join(calls, " ")} -- \"$@\""
    )
  end

  describe "a shepherd that says what makes no sense" do
    @zeros String.duplicate("00", 31)
    @too_long "an event that is too long"
    # What is behind an event there is the next one.
    @no_messages Tree.needs_linux() &&
                   "elsewhere than on Linux, sockets do not keep messages apart"

    for {what, messages} <- [
          {"a byte", ["78"]},
          {"an event of no kind", ["ff" <> @zeros]},
          {@too_long, ["01" <> @zeros <> "00"]},
          {"a failure of no step", ["0263" <> String.duplicate("00", 30)]},
          {"an exit before the start", ["03" <> @zeros]}
        ] do
      @messages messages
      @tag Tree.skip(what == @too_long && @no_messages)
      test "fails the start: #{what}" do
        with_nonsense(@messages, fn ->
          assert NetRunner.run(~w(true)) == {:error, :malformed}
          assert {:error, :malformed} = Command.start("true")
          assert NetRunner.Error.describe(:malformed) =~ "protocol"
        end)
      end
    end

    for {what, messages} <- [
          {"a byte", ["started", "78"]},
          {"an event of no kind", ["started", String.duplicate("ff", 32)]},
          {"another start", ["started", "started"]},
          {"a failure", ["started", "0201" <> String.duplicate("00", 30)]},
          {@too_long, ["started", "03" <> @zeros <> "00"]}
        ] do
      @messages messages
      @tag Tree.skip(what == @too_long && @no_messages)
      test "has its command fail: #{what}" do
        with_nonsense(@messages, fn ->
          assert NetRunner.run(~w(true)) == {:error, :shepherd_died}
          {:ok, p} = Command.start("true")
          assert Command.await_exit(p, 60_000) == {:error, :shepherd_died}
          refute Command.alive?(p)
          assert Command.stop(p) == :ok
        end)
      end
    end

    test "is believed a signal that does not exist" do
      with_nonsense(["started", "04c8" <> String.duplicate("00", 30)], fn ->
        assert {"", status} = NetRunner.run(~w(true))
        assert status == 128 + 200
      end)
    end
  end

  test "a request that nobody takes is taken back when its time is over" do
    with_nonsense(["unread"], fn ->
      assert NetRunner.run(~w(true), timeout: 100) == {:error, :timeout}
    end)
  end

  describe "a shepherd that says nothing" do
    test "does not hold up a start for longer than its time, and that to give it up" do
      with_nonsense([], fn ->
        options = [timeout: 100, kill_timeout: 100, give_up_after: 100]
        assert NetRunner.run(~w(true), options) == {:error, :timeout}
      end)
    end

    # Elsewhere the VM cannot tell whether a shepherd has taken what it was sent.
    @tag Tree.linux_only()
    test "is waited for as long as the options can say" do
      with_nonsense([], fn ->
        assert caller = Enum.find_value(1..20, fn _ -> start_late() end)
        Process.exit(caller, :kill)
      end)
    end

    # Who waits for a start that a shepherd has begun. One that is not taken in time is taken back.
    defp start_late do
      options = [timeout: 300, kill_timeout: 100, give_up_after: 0xFFFF_FFFF]
      {caller, monitor} = spawn_monitor(fn -> exit({:told, NetRunner.run(~w(true), options)}) end)
      Tree.await(fn -> starts_late?() or not Process.alive?(caller) end, 60_000)

      if Process.alive?(caller) do
        Process.demonitor(monitor, [:flush])
        caller
      else
        assert_receive {:DOWN, ^monitor, _, _, {:told, {:error, :timeout}}}
        nil
      end
    end

    defp starts_late? do
      Enum.any?(Process.list(), fn process ->
        with {_, stack} <- Process.info(process, :current_stacktrace),
             do: Enum.any?(stack, &match?({_, :await_late_start, _, _}, &1))
      end)
    end

    for {who, function, owner} <- [
          {"owner", quote(do: &Command.start("true", [], &1)), :caller},
          {"consumer", quote(do: &NetRunner.run(["true"], &1)), quote(do: self())},
          {"captor", quote(do: &NetRunner.capture(["true"], &1)), quote(do: self())}
        ] do
      test "keeps no start alive whose #{who} has died" do
        owner = unquote(owner)

        with_nonsense([], fn ->
          fds = Tree.fds()
          caller = spawn(fn -> unquote(function).(owner: owner) end)
          await_start_that_waits()
          Process.exit(caller, :kill)
          Tree.await(fn -> Tree.fds() <= fds end, 60_000, fn -> {fds, Tree.fd_targets()} end)
        end)
      end
    end
  end

  defp await_start_that_waits do
    waits = {:current_function, {NetRunner.Process.Boot, :await_started, 2}}

    Tree.await(fn ->
      Enum.any?(Process.list(), &(Process.info(&1, :current_function) == waits))
    end)
  end

  defp with_nonsense(messages, fun) do
    python = System.find_executable("python3")
    script = Path.expand("../../support/nonsense_helper.py", __DIR__)
    arguments = Enum.join(messages, " ")
    path = Helper.script("exec #{python} -S -E #{script} '#{greeting()}' #{arguments}")
    Application.put_env(:net_runner, :helper, path)

    capture_log(fn ->
      :ok = Application.stop(:net_runner)
      {:ok, _} = Application.ensure_all_started(:net_runner)
      fun.()
      :ok = Application.stop(:net_runner)
    end)
  end

  test "a helper that greets and dies is replaced, again and again, and the VM lives" do
    Application.put_env(:net_runner, :helper, Helper.script("printf '#{greeting()}' >&3"))
    capture_log(fn -> :ok = Application.stop(:net_runner) end)

    capture_log(fn ->
      # Whether its death is seen before the application has started is a matter of luck.
      case Application.ensure_all_started(:net_runner) do
        {:ok, _} -> assert NetRunner.run(~w(true)) == {:error, :launcher_died}
        {:error, {:net_runner, {failure, _}}} -> assert inspect(failure) =~ "does not answer"
      end

      Application.stop(:net_runner)
    end)
  end

  # As the real helper has it, when somebody runs it by hand.
  defp greeting do
    {text, 64} = NetRunner.run([Helper.real()], stderr: :redirect)
    [greeting, _] = String.split(text, ": ", parts: 2)
    greeting
  end

  test "the helper, run by hand, says what it is and does nothing" do
    for args <- [[], ["--help"], ["x"]] do
      assert {text, 64} = NetRunner.run([Helper.real() | args], stderr: :redirect)
      assert text =~ ~r/^net_runner \d+\.\d+\.\d+ protocol \d+: a part of NetRunner/
    end
  end

  @tag Tree.linux_only()
  test "the helper says what the system lets it do, for NetRunner.Doctor" do
    assert {text, 0} = NetRunner.run([Helper.real(), "probe"])

    assert text =~
             ~r/^subreaper ok\npidfd (ok|[A-Z]+)\nclose_range (ok|[A-Z]+)\nlandlock (ok \d+|[A-Z]+)\n$/
  end

  test "without the application, commands do not start, and the error says what to do" do
    capture_log(fn -> :ok = Application.stop(:net_runner) end)
    nothing_starts()
  end

  test "without its registry, commands do not start either" do
    :ok = Supervisor.terminate_child(NetRunner.Supervisor, NetRunner.Registry)

    on_exit(fn ->
      {:ok, _} = Supervisor.restart_child(NetRunner.Supervisor, NetRunner.Registry)
    end)

    log =
      capture_log(fn ->
        nothing_starts()
        # The application counts as started, so `cmd/3` does not start it.
        error = assert_raise NetRunner.Error, fn -> NetRunner.cmd("true", []) end
        assert error.reason == :not_started
      end)

    # Nothing else: no process has crashed.
    for line <- String.split(log, ["\n", "\e[0m"], trim: true),
        line =~ ~r/\S/,
        do: assert(line =~ "a daemon did not start: `true` failed: the :net_runner application")

    Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
  end

  defp nothing_starts do
    assert NetRunner.list() == []

    for start <- [
          fn -> NetRunner.run(~w(true)) end,
          fn -> NetRunner.stream(~w(true)) end,
          fn -> NetRunner.pipeline([~w(true), ~w(true)]) end,
          fn -> Command.start("true") end,
          fn -> Command.start_link("true") end,
          fn -> NetRunner.Daemon.start_link(cmd: "true") end
        ] do
      assert start.() == {:error, :not_started}
    end

    for raising <- [
          fn -> Enum.to_list(NetRunner.stream!(~w(true))) end,
          fn -> Enum.to_list(NetRunner.pipeline_stream!([~w(true), ~w(true)])) end
        ] do
      error = assert_raise NetRunner.Error, raising
      assert error.reason == :not_started
      assert Exception.message(error) =~ "add it to your application's dependencies"
    end
  end

  test "the end of the application ends the commands, and answers who waits for them" do
    {:ok, p} = Command.start("cat")
    os_pid = Command.os_pid(p)
    reader = Task.async(fn -> Command.read(p) end)
    waiting = Task.async(fn -> Command.await_exit(p) end)
    NetRunner.Waiting.await(p, :stdout)
    NetRunner.Waiting.await(p, :exit)
    capture_log(fn -> :ok = Application.stop(:net_runner) end)
    assert Task.await_many([reader, waiting]) == [{:error, :closed}, {:error, :closed}]
    refute Process.alive?(p)
    Tree.await(fn -> Tree.stat(os_pid) == nil end)
    Tree.await(fn -> Tree.helpers() == [] end, 60_000, &Tree.helpers/0)
  end

  describe "a launcher that is killed" do
    setup do
      Tree.new()
      :ok
    end

    test "is replaced; commands that run go on, and the next one starts" do
      {:ok, running} = Command.start("sh", ["-c", "read line; echo $line; exit 5"])
      old = Tree.current_launcher()

      log =
        capture_log(fn ->
          :ok = Tree.kill(old)
          # Without a wait: also the request that finds it dead is carried out.
          assert NetRunner.run(~w(echo next)) == {"next\n", 0}
          # A spare shepherd may have taken it before the death was noticed.
          Tree.await(fn -> Tree.current_launcher() not in [nil, old] end)
          NetRunner.Waiting.await_log()
        end)

      assert log =~ "died; starting a new one"
      assert Tree.current_launcher() not in [nil, old]

      assert Command.write(running, "still here\n") == :ok
      assert Command.read(running) == {:ok, "still here\n"}
      assert Command.await_exit(running) == {:ok, 5}
      Command.stop(running)
      Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
    end

    test "is replaced without anybody asking for a command" do
      old = Tree.current_launcher()

      capture_log(fn ->
        :ok = Tree.kill(old)
        Tree.await(fn -> Tree.current_launcher() not in [nil, old] end)
      end)
    end

    test "and cannot be replaced fails the commands, until it can" do
      Application.put_env(:net_runner, :helper, "/no/such/helper")

      log =
        capture_log(fn ->
          :ok = Tree.kill(Tree.current_launcher())
          # A spare shepherd may take the request that the launcher left.
          Tree.await(fn -> NetRunner.run(~w(true)) == {:error, :launcher_died} end)
          assert Command.start("true") == {:error, :launcher_died}
          NetRunner.Waiting.await_log()
        end)

      assert log =~ "/no/such/helper cannot be started"

      capture_log(fn ->
        Application.delete_env(:net_runner, :helper)
        Tree.await(fn -> NetRunner.run(~w(true)) == {"", 0} end)
      end)
    end
  end

  @tag Tree.linux_only()
  test "a launcher that a command has changed is replaced, and no later command has what was changed" do
    tree = Tree.new()
    # At once, so that there are more than spares.
    show = fn _ ->
      Task.async(fn -> NetRunner.run(["sh", "-c", "ulimit -f; nice; sleep 0.1"]) end)
    end

    [before] = [show.(1)] |> Task.await_many(60_000)
    {:ok, running} = Command.start("cat", [], env: Tree.env(tree))
    old = Tree.current_launcher()

    capture_log(fn ->
      change = "prlimit --fsize=0:0 --pid #{old} && renice -n $(($(nice) + 1)) -p #{old}"
      assert {_, 0} = NetRunner.run(["sh", "-c", change])
      Native.let_idle_go()
      assert 1..12 |> Enum.map(show) |> Task.await_many(60_000) |> Enum.uniq() == [before]
      Tree.await(fn -> Tree.current_launcher() not in [nil, old] end)
    end)

    assert 1..12 |> Enum.map(show) |> Task.await_many(60_000) |> Enum.uniq() == [before]
    assert Command.write(running, "still here\n") == :ok
    assert Command.read(running) == {:ok, "still here\n"}
    Command.stop(running)
    Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
  end

  # Between the launcher's look at its limits and the fork.
  @flip """
  import resource, sys
  launcher, fsize = int(sys.argv[1]), resource.RLIMIT_FSIZE
  soft, hard = resource.getrlimit(fsize)
  print("ready", flush=True)
  try:
      while True:
          for limit in 0, soft:
              resource.prlimit(launcher, fsize, (limit, hard))
  except ProcessLookupError:
      pass
  """

  @tag Tree.linux_only()
  test "what changes again and again reaches no command" do
    tree = Tree.new()
    show = fn _ -> Task.async(fn -> NetRunner.run(["sh", "-c", "ulimit -f; sleep 0.1"]) end) end
    [before] = [show.(1)] |> Task.await_many(60_000)

    capture_log(fn ->
      for _ <- 1..20 do
        # For a moment there may be none, when the one before has gone.
        launcher = Enum.find(Stream.repeatedly(&Tree.current_launcher/0), &(&1 != nil))
        {:ok, flips} = Command.start("python3", ["-S", "-E", "-c", @flip, "#{launcher}"])
        assert Command.read(flips) == {:ok, "ready\n"}
        Native.let_idle_go()
        shown = 1..12 |> Enum.map(show) |> Task.await_many(60_000)
        assert Enum.uniq(shown) == [before]
        Command.stop(flips)
      end
    end)

    Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
    assert Tree.processes(tree) == []
  end

  test "a start waits for a helper that says nothing no longer than it has time, or its owner lives" do
    Tree.new()
    Application.put_env(:net_runner, :helper, Helper.script("cat <&3"))

    capture_log(fn ->
      :ok = Tree.kill(Tree.current_launcher())
      Tree.await(fn -> :ets.lookup(Launcher, :socket) == [] end)
      assert NetRunner.run(~w(true), timeout: 100) == {:error, :timeout}

      owner = spawn(fn -> Process.sleep(:infinity) end)
      start = Task.async(fn -> Command.start("true", [], owner: owner) end)
      Process.exit(owner, :kill)
      assert Task.await(start, 60_000) == {:error, :closed}

      Application.delete_env(:net_runner, :helper)
      Tree.await(fn -> NetRunner.run(~w(true)) == {"", 0} end, 60_000)
    end)
  end

  test "a launcher that cannot be replaced is tried again without anybody asking for a command" do
    Tree.new()
    old = Tree.current_launcher()
    tried = NetRunner.Temporary.path("tried")
    on_exit(fn -> File.rm(tried) end)
    Application.put_env(:net_runner, :helper, Helper.script("touch #{tried}"))

    capture_log(fn ->
      :ok = Tree.kill(old)
      Tree.await(fn -> File.exists?(tried) end)
      # It has been told that this helper ended.
      Tree.await(fn -> match?(%{socket: nil}, :sys.get_state(Launcher)) end)
      Application.delete_env(:net_runner, :helper)
      Tree.await(fn -> Tree.current_launcher() not in [nil, old] end)
    end)
  end

  test "a request that a launcher had not taken when its guard was killed goes to the next one" do
    tree = Tree.new()
    # For its sake the launcher stays.
    {:ok, command} = Command.start("sleep", ["1000"], env: Tree.env(tree))
    on_exit(fn -> Command.stop(command) end)
    shepherd = Tree.shepherd(command)
    launcher = Tree.launcher(command)
    on_exit(fn -> signal([launcher, shepherd], "CONT") end)
    Native.let_idle_go()
    stop_with_children(launcher)

    run = Task.async(fn -> NetRunner.run(~w(true)) end)
    await_start_that_waits()

    capture_log(fn ->
      :ok = Tree.kill([Tree.parent(launcher) | children(launcher) -- [shepherd]])
      signal([launcher, shepherd], "CONT")
      assert Task.await(run, 60_000) == {"", 0}
    end)

    assert Command.alive?(command)
  end

  test "a launcher that does not get to its requests and is killed then: whoever waits for room asks the next one" do
    Tree.new()
    launcher = Tree.current_launcher()
    stop_with_children(launcher)
    spares = children(launcher)
    on_exit(fn -> signal([launcher | spares], "CONT") end)
    commands = fill_socket([])

    capture_log(fn ->
      :ok = Tree.kill(launcher)
      results = Task.await_many(commands, 60_000)
      assert Enum.uniq(results) == [{"", 0}]
    end)
  end

  # More of them until the socket is full, and one waits for room.
  defp fill_socket(commands) do
    more = for _ <- 1..50, do: Task.async(fn -> NetRunner.run(~w(true)) end)
    # There is no event for "they have all asked"; too early costs a round.
    Process.sleep(20)

    if :sys.get_state(Launcher).waiting_for_room == [] and length(commands) < 5_000,
      do: fill_socket(more ++ commands),
      else: more ++ commands
  end

  # Until it is stopped, the launcher forks more children, so they are listed again then. An idle one that was let go may
  # still be ending.
  defp stop_with_children(launcher) do
    stopped? = &(Tree.stat(&1)[:state] in ["T", "Z", nil])

    Tree.await(fn ->
      signal([launcher | children(launcher)], "STOP")
      stopped?.(launcher) and Enum.all?(children(launcher), stopped?)
    end)
  end

  defp children(launcher) do
    for pid <- Tree.helpers(), Tree.parent(pid) == launcher, do: pid
  end

  defp signal(pids, name) do
    System.cmd("kill", ["-#{name}" | Enum.map(pids, &to_string/1)], stderr_to_stdout: true)
  end

  test "a new GenServer has a new launcher; whoever starts a command meanwhile waits for it" do
    tree = Tree.new()
    {:ok, running} = Command.start("cat", [], env: Tree.env(tree))
    old = Process.whereis(Launcher)
    Process.exit(old, :kill)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
    assert Process.whereis(Launcher) not in [nil, old]
    assert Command.write(running, "x") == :ok
    assert Command.read(running) == {:ok, "x"}
    Command.stop(running)
    Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
  end

  test "whoever has found an older launcher dead gets the one that is there, which stays" do
    Tree.new()
    launcher = Tree.current_launcher()
    [{:socket, socket}] = :ets.lookup(Launcher, :socket)
    ref = make_ref()
    GenServer.cast(Launcher, {{:replace, make_ref()}, {self(), ref}})
    assert_receive {^ref, {:ok, ^socket}}, 60_000
    assert Tree.current_launcher() == launcher
  end

  test "messages that it does not know are logged, select messages of old sockets are not" do
    pid = Process.whereis(Launcher)

    log =
      capture_log(fn ->
        send(pid, {:select, make_ref(), :undefined, :ready_input})
        send(pid, {:select, make_ref(), :undefined, :ready_output})
        send(pid, {:hello, "there"})
        GenServer.cast(pid, {:hello, "cast"})
        assert GenServer.call(pid, {:hello, "call"}) == {:error, :closed}
        NetRunner.Waiting.await_log()
      end)

    for how <- ~w(there cast call), do: assert(log =~ ~s(does not know: {:hello, "#{how}"}))
    refute log =~ ":select"
    assert Process.whereis(Launcher) == pid
    assert NetRunner.run(~w(true)) == {"", 0}
  end
end
