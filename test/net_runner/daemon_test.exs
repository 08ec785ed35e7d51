defmodule NetRunner.DaemonTest do
  # What needs the VM for itself, such as its log, stands in daemon/alone_test.exs.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.{Nodes, Tree}

  defp shell(script, options \\ []), do: [cmd: "sh", args: ["-c", script]] ++ options

  describe "options:" do
    test "mistakes raise, and say what was meant" do
      for {options, message} <- [
            {[], "the option :cmd is missing: give the executable as a string"},
            {[cmd: :cat],
             "the option :cmd must be a string (arguments belong in :args) or a NetRunner.Command, got: :cat"},
            {[cmd: "cat", args: "x"], "the option :args must be a list of strings, got: \"x\""},
            {[cmd: "cat", redy: nil], "unknown option :redy; did you mean :ready?"},
            {[cmd: "cat", cd: "/"],
             "the option :cd is one of the command: it belongs in :process_opts"},
            {[cmd: "cat", on_output: {:log, :loud}],
             "the option :on_output must be :discard, :log, {:log, level}, or a function of one or two arguments, " <>
               "got: {:log, :loud}"},
            {[cmd: "cat", ready: {:tcp, "localhost", 0}],
             "the option :ready must be a function of no argument or one, {:output, regex}, {:tcp, host, port} " <>
               "with a port from 1 to 65535, {:unix, path} with an absolute path of at most 103 bytes, " <>
               "got: {:tcp, \"localhost\", 0}"},
            {[cmd: "cat", ready_timeout: 10_000.0],
             "the option :ready_timeout must be milliseconds from 0 to 4294967295, or :infinity, got: 10000.0"},
            {[cmd: "cat", process_opts: [kil_timeout: 1]],
             "unknown option :kil_timeout; did you mean :kill_timeout?"},
            {[cmd: "cat", process_opts: [owner: self()]],
             "the option :owner has no meaning for a daemon: its command belongs to it"},
            {[cmd: "cat", owner: self()],
             "the option :owner has no meaning for a daemon: its command belongs to it"},
            {[cmd: "cat", process_opts: [name: :cat]],
             "the option :name is that of the daemon: it belongs beside :process_opts, not in it"}
          ] do
        assert_raise ArgumentError, message, fn -> Daemon.start_link(options) end
        assert_raise ArgumentError, message, fn -> Daemon.child_spec(options) end
      end
    end

    test "that name no program are logged: a supervisor that cannot start it tells no more than the reason" do
      start = fn ->
        assert Daemon.start_link(cmd: "no-such-daemon --port 1") == {:error, :enoent}
      end

      assert capture_log(start) =~
               ~r/a daemon did not start: `'no-such-daemon --port 1'` failed: there is no such executable.*; all of "no-such-daemon --port 1" was taken for its name/
    end

    test "an address that nobody can listen at is refused" do
      for ready <- [
            {:tcp, "localhost", 80.0},
            {:tcp, "", 80},
            {:tcp, [1, 2, 3], 80},
            {:unix, "relative.sock"},
            {:unix, "/" <> String.duplicate("a", 103)}
          ] do
        assert_raise ArgumentError, ~r/the option :ready must be/, fn ->
          Daemon.start_link(cmd: "cat", ready: ready)
        end
      end
    end

    test "those of the child stand in the child spec" do
      options = [cmd: "cat", id: :cat, restart: :transient, shutdown: 1_234]

      assert Daemon.child_spec(options) == %{
               id: :cat,
               start: {Daemon, :start_link, [[cmd: "cat"]]},
               restart: :transient,
               shutdown: 1_234
             }

      assert %{id: Daemon, restart: :permanent, shutdown: 10_000} = Daemon.child_spec(cmd: "cat")

      children = [{Daemon, cmd: "cat", id: :first}, {Daemon, cmd: "cat", id: :second}]
      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
      assert Supervisor.count_children(supervisor).active == 2
      :ok = Supervisor.stop(supervisor)
    end

    test "those of the child are refused where they are wrong, or mean nothing" do
      for {option, expected} <- [
            {{:restart, :always}, "one of :permanent, :transient, :temporary"},
            {{:shutdown, -1}, "milliseconds from 1 to 4294967295, :infinity or :brutal_kill"},
            {{:shutdown, 0}, "milliseconds from 1 to 4294967295, :infinity or :brutal_kill"}
          ] do
        {name, value} = option
        message = "the option #{inspect(name)} must be #{expected}, got: #{inspect(value)}"
        assert_raise ArgumentError, message, fn -> Daemon.child_spec([option, cmd: "cat"]) end
      end

      message =
        "the option :restart has no meaning for this function; the child spec of a NetRunner.Daemon takes it"

      assert_raise ArgumentError, message, fn ->
        Daemon.start_link(cmd: "cat", restart: :temporary)
      end
    end

    test "those that want output are refused where none comes to the daemon" do
      nowhere = [stdout: :null, stderr: :disabled]

      for reader <- [[on_output: :log], [on_line: &IO.puts/1], [ready: {:output, ~r/x/}]] do
        [{option, _}] = reader
        options = [cmd: "cat", process_opts: nowhere] ++ reader

        assert_raise ArgumentError,
                     "the option #{inspect(option)} has no meaning here: no output comes to the daemon, as neither stdout nor stderr is :pipe",
                     fn -> Daemon.start_link(options) end

        for somewhere <- [[stdout: :null], [stderr: :disabled], [pty: true]],
            do: assert(Daemon.child_spec(Keyword.put(options, :process_opts, somewhere)))
      end

      for reader <- [[], [on_output: :discard], [on_line: nil], [ready: fn -> true end]],
          do: assert(%{} = Daemon.child_spec([cmd: "cat", process_opts: nowhere] ++ reader))
    end

    test "what cannot be started is an error, and takes nobody along" do
      assert Daemon.start_link(cmd: "no-such-program") == {:error, :enoent}
      assert {:error, {:invalid_args, _}} = Daemon.start_link(cmd: "cat", args: [1])
      options = [cmd: "cat", process_opts: [cd: "/nowhere"]]
      assert Daemon.start_link(options) == {:error, {:cd, :enoent}}
      assert Process.info(self(), :links) == {:links, []}
    end

    test "the name is registered, and found by all functions" do
      {:ok, daemon} = Daemon.start_link(cmd: "cat", name: :named_daemon)
      assert Process.whereis(:named_daemon) == daemon

      assert Daemon.start_link(cmd: "cat", name: :named_daemon) ==
               {:error, {:already_started, daemon}}

      assert Daemon.alive?(:named_daemon)
      assert File.exists?("/proc/#{Daemon.os_pid(:named_daemon)}")
      assert Daemon.write(:named_daemon, "x") == :ok
      assert %{bytes_in: 1} = Daemon.stats(:named_daemon)
      :ok = GenServer.stop(:named_daemon)
      refute Daemon.alive?(:named_daemon)
      assert Daemon.os_pid(:named_daemon) == {:error, :closed}
      assert Daemon.write(:named_daemon, "x") == {:error, :closed}
      assert Daemon.stats(:named_daemon) == {:error, :closed}
    end
  end

  describe "a daemon is found" do
    test "by every kind of name" do
      start_supervised!({Registry, keys: :unique, name: __MODULE__.Names})
      via = {:via, Registry, {__MODULE__.Names, :cat}}

      for name <- [:found_daemon, {:global, {__MODULE__, :cat}}, via] do
        {:ok, daemon} = Daemon.start_link(cmd: "cat", name: name)

        for daemon <- [daemon, name], do: assert(Daemon.write(daemon, "x") == :ok)
        assert %{bytes_in: 2} = Daemon.stats(name)
        :ok = GenServer.stop(daemon)
        refute Daemon.alive?(name)
      end

      {:ok, daemon} = Daemon.start_link(cmd: "cat", name: :found_daemon)
      assert Daemon.alive?({:found_daemon, node()})
      :ok = GenServer.stop(daemon)
    end

    test "from another node, by its pid and by its name" do
      epmd = Nodes.start_epmd()
      [{here, _}, {there, node}] = for _ <- 1..2, do: Nodes.start(epmd)
      for peer <- [here, there], do: Nodes.start_net_runner(peer)
      true = Nodes.call(here, :net_kernel, :connect_node, [node])
      starter = Nodes.start_caller(there)
      options = [cmd: "cat", name: :cat]
      {:ok, daemon} = Nodes.call_from(there, starter, Daemon, :start_link, [options])

      for daemon <- [daemon, {:cat, node}] do
        assert Nodes.call(here, Daemon, :alive?, [daemon])
        assert Nodes.call(here, Daemon, :write, [daemon, "x"]) == :ok
        assert is_integer(Nodes.call(here, Daemon, :os_pid, [daemon]))
      end

      assert %{bytes_in: 2} = Nodes.call(here, Daemon, :stats, [daemon])
      assert Nodes.call(here, Daemon, :stats, [{:dog, node}]) == {:error, :closed}
      true = Nodes.call(there, :application, :stop, [:net_runner]) == :ok
      assert Nodes.call(here, Daemon, :stats, [daemon]) == {:error, :closed}
      :ok = Tree.kill(Nodes.call(there, System, :pid, []))
      Tree.await(fn -> Nodes.call(here, Node, :list, [:connected]) == [] end)
      assert Nodes.call(here, Daemon, :stats, [daemon]) == {:error, {:node, :disconnected}}
      refute Nodes.call(here, Daemon, :alive?, [{:cat, node}])
    end

    test "by its callback, while it starts" do
      test = self()

      callback = fn
        "login: " ->
          send(test, {Daemon.alive?(:early_daemon), Daemon.os_pid(:early_daemon)})
          %{bytes_out: 7} = Daemon.stats(:early_daemon)
          :ok = Daemon.write(:early_daemon, "anna\n")

        _ ->
          :ok
      end

      script = "printf 'login: '; read name; echo \"ready, $name\"; read stop"
      options = [name: :early_daemon, on_output: callback, ready: {:output, ~r/ready, anna/}]
      {:ok, daemon} = Daemon.start_link(shell(script, options))
      os_pid = Daemon.os_pid(daemon)
      assert_received {true, ^os_pid}
    end

    test "by its readiness function, and by anybody while it is not ready" do
      test = self()

      ready = fn ->
        send(test, {:asked, self()})
        receive(do: (:ready -> Daemon.alive?(:not_ready_daemon)))
      end

      starter =
        Task.async(fn -> Daemon.start_link(cmd: "cat", name: :not_ready_daemon, ready: ready) end)

      assert_receive {:asked, probe}, 60_000
      assert Daemon.alive?(:not_ready_daemon)
      assert Daemon.write(:not_ready_daemon, "x") == :ok
      send(probe, :ready)
      assert {:ok, _} = Task.await(starter)
    end

    test "by its callback, while it stops" do
      test = self()

      callback = fn
        "save? " -> :ok = Daemon.write(:late_daemon, "yes\n")
        bytes -> send(test, {:output, bytes})
      end

      program = """
      import os, signal, time
      def stop(*_):
          os.write(1, b"save? ")
          os.write(1, b"answer: " + os.read(0, 100))
          os._exit(0)
      signal.signal(signal.SIGTERM, stop)
      os.write(1, b"ready\\n")
      while True: time.sleep(0.05)
      """

      options = [name: :late_daemon, on_output: callback, ready: {:output, ~r/ready/}]
      start_supervised!({Daemon, python(program, options)})
      :ok = stop_supervised(:late_daemon)
      assert_received {:output, "ready\n"}
      assert_received {:output, "answer: yes\n"}
    end
  end

  defp python(program, options), do: [cmd: "python3", args: ["-S", "-c", program]] ++ options

  describe "a command as a value" do
    test "is what the options add to, and win over" do
      test = self()

      command =
        NetRunner.Command.new("sh", ["-c", "echo $A $B $@; pwd; read stop", "sh", "x"],
          env: [{"A", "1"}, {"B", "2"}],
          cd: "/usr",
          timeout: 5_000,
          owner: self()
        )

      options = [
        cmd: command,
        args: ["y"],
        process_opts: [cd: "/"],
        on_output: &send(test, {:printed, &1})
      ]

      assert %{id: NetRunner.Daemon, shutdown: _} = Daemon.child_spec(options)
      {:ok, daemon} = Daemon.start_link(options)
      assert printed("") == "1 2 x y\n/\n"
      GenServer.stop(daemon)
      {:ok, daemon} = Daemon.start_link(cmd: command, args: nil, process_opts: nil)
      assert Daemon.alive?(daemon)
      GenServer.stop(daemon)
    end

    defp printed(text) do
      if String.ends_with?(text, "/\n") do
        text
      else
        assert_receive {:printed, bytes}, 60_000
        printed(text <> bytes)
      end
    end
  end

  describe "an end" do
    defp logged(function) do
      log = capture_log([metadata: [:command], format: "$level $metadata$message\n"], function)
      for line <- String.split(log, "\n"), line =~ "command=", do: line
    end

    test "that a user must see is logged once, with the command as a string" do
      Process.flag(:trap_exit, true)

      lines =
        logged(fn ->
          {:ok, daemon} = Daemon.start_link(shell("read stop; exit 3 # seen"))
          :ok = Daemon.write(daemon, "stop\n")
          assert_receive {:EXIT, ^daemon, {:exit_status, 3}}, 60_000
        end)

      assert [line] = Enum.filter(lines, &(&1 =~ "# seen"))
      assert line =~ ~r/^error command=sh -c 'read stop; exit 3 # seen' GenServer .* terminating/
    end

    test "that is abnormal is reported with the command, and without what is secret" do
      Process.flag(:trap_exit, true)

      report =
        capture_log([format: "$message\n"], fn ->
          {:ok, daemon} =
            Daemon.start_link(
              shell("read stop; exit 3 # told",
                stop_command: ["true"],
                process_opts: [env: [{"A", "secret"}], fds: %{3 => {:input, "secret"}}]
              )
            )

          :ok = Daemon.write(daemon, "stop\n")
          assert_receive {:EXIT, ^daemon, {:exit_status, 3}}, 60_000
        end)

      assert report =~ ~S(State: %NetRunner.Daemon{command: "sh -c 'read stop; exit 3 # told'")
      refute report =~ "secret"
    end

    test "that is normal is not logged" do
      Process.flag(:trap_exit, true)

      lines =
        logged(fn ->
          {:ok, daemon} = Daemon.start_link(shell("read stop # unseen"))
          :ok = Daemon.write(daemon, "stop\n")
          assert_receive {:EXIT, ^daemon, :normal}, 60_000
          {:ok, daemon} = Daemon.start_link(shell("sleep 100 # unseen"))
          GenServer.stop(daemon)
        end)

      assert Enum.filter(lines, &(&1 =~ "unseen")) == []
    end

    test "before it was ready is a warning, as a supervisor that starts it again does not say why that failed" do
      Process.flag(:trap_exit, true)
      never = [ready: {:output, ~r/x/}, ready_timeout: 100]
      ready = [ready: fn _ -> raise "s3cret" end]
      {:ok, listener} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
      {:ok, port} = :inet.port(listener)

      for {script, options, said} <- [
            {"echo cannot bind >&2; exit 1", never,
             "` ended with the exit status 1 before it was ready: cannot bind\\n"},
            {"kill -9 $$", never, "` ended with the signal sigkill before it was ready"},
            {"sleep 1000", never, "` did not become ready; the error of its start says why"},
            {"sleep 1000", ready, "` did not become ready; the error of its start says why"},
            {"sleep 1000", [ready: {:tcp, "127.0.0.1", port}], "`: the command was not started: "}
          ] do
        lines =
          logged(fn ->
            {:error, _} = Daemon.start_link(shell(script, options))
            NetRunner.Waiting.await_log()
          end)

        assert [line] = Enum.filter(lines, &(&1 =~ "a daemon did not start"))

        assert line =~
                 "warning command=sh -c '#{script}' a daemon did not start: `sh -c '#{script}'"

        assert line =~ said
        refute line =~ "s3cret"
      end
    end
  end

  describe "those who run a user's code" do
    test "know for whom they work, and log with the same metadata" do
      test = self()
      Logger.metadata(request_id: "r-1")

      context = fn who ->
        send(test, {who, Process.get(:"$callers"), Process.get(:"$ancestors"), Logger.metadata()})
      end

      options = [
        on_output: fn _ -> context.(:callback) end,
        ready: fn _process ->
          context.(:ready)
          :ok
        end
      ]

      {:ok, daemon} = Daemon.start_link(shell("echo hello; read stop", options))

      for who <- [:ready, :callback] do
        assert_receive {^who, callers, ancestors, metadata}, 60_000
        assert daemon in callers and test in callers
        assert daemon in ancestors
        assert metadata[:request_id] == "r-1"
      end
    end

    # Killed: nobody is left who could end them.
    test "end with those who started them, also when that code makes them trap exits" do
      test = self()

      trap = fn _ ->
        Process.flag(:trap_exit, true)
        send(test, {:trapping, self()})
      end

      for options <- [[ready: trap], [on_output: trap]] do
        spawn(fn ->
          Process.flag(:trap_exit, true)
          start = Daemon.start_link(shell("echo hello; read stop", options))
          # Whoever becomes ready belongs to the daemon's start, which fails then.
          with {:ok, daemon} <- start, do: receive(do: ({:EXIT, ^daemon, _} -> :ok))
          send(test, :daemon_gone)
        end)

        assert_receive {:trapping, pid}, 60_000
        monitor = Process.monitor(pid)
        {:links, [starter]} = Process.info(pid, :links)
        Process.exit(starter, :kill)
        assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}, 60_000
        # It has logged its end by then, which the next test would hear of.
        assert_receive :daemon_gone
      end
    end
  end

  describe "a callback" do
    test "gets everything, in order; with two arguments also the stream" do
      test = self()
      script = "seq 1 50000; echo oops >&2"
      callback = fn stream, bytes -> send(test, {stream, bytes}) end
      Process.flag(:trap_exit, true)
      {:ok, daemon} = Daemon.start_link(shell(script, on_output: callback))
      assert_receive {:EXIT, ^daemon, :normal}, 60_000
      assert received(:stdout) == Enum.map_join(1..50_000, &"#{&1}\n")
      assert received(:stderr) == "oops\n"
    end

    defp received(stream) do
      receive do
        {^stream, bytes} -> bytes <> received(stream)
      after
        0 -> ""
      end
    end

    for {what, fail, logged} <- [
          {"raises", quote(do: raise("cannot handle bad")), "cannot handle bad"},
          {"kills its process", quote(do: Process.exit(self(), :kill)),
           "the process that handles the output of the daemon cat died"}
        ] do
      test "that #{what} is logged, and gets the next piece" do
        test = self()

        callback = fn bytes ->
          send(test, {:got, bytes})
          if bytes == "bad", do: unquote(fail)
        end

        log =
          capture_log(fn ->
            {:ok, daemon} = Daemon.start_link(cmd: "cat", on_output: callback)
            :ok = Daemon.write(daemon, "bad")
            assert_receive {:got, "bad"}, 60_000
            :ok = Daemon.write(daemon, "good")
            assert_receive {:got, "good"}, 60_000
            assert Daemon.alive?(daemon)
            :ok = GenServer.stop(daemon)
          end)

        assert log =~ unquote(logged)
      end
    end

    # It prints more than any pipe holds, also after its signal.
    @graceful """
    import os, signal, sys
    stop = False
    def handle(*_):
        global stop
        stop = True
    signal.signal(signal.SIGTERM, handle)
    while not stop:
        os.write(1, b"x" * 65536)
    rest = b"y" * 8_000_000
    while rest:
        rest = rest[os.write(1, rest):]
    open(sys.argv[1], "w").write("ended by itself")
    """

    for {what, callback} <- [
          {"hangs", quote(do: fn _ -> Process.sleep(:infinity) end)},
          {"is slow", quote(do: fn _ -> Process.sleep(1_000) end)},
          {"hangs and traps exits",
           quote do
             fn _ ->
               Process.flag(:trap_exit, true)
               Process.sleep(:infinity)
             end
           end}
        ] do
      @tag :capture_log
      test "that #{what} does not keep a command from ending by itself" do
        test = self()

        file = NetRunner.Temporary.path("file")

        on_exit(fn -> File.rm(file) end)

        callback = fn bytes ->
          send(test, {:handler, self()})
          unquote(callback).(bytes)
        end

        [cmd: python, args: args] = python(@graceful, [])
        options = [on_output: callback, process_opts: [kill_timeout: 300_000]]
        {:ok, daemon} = Daemon.start_link([cmd: python, args: args ++ [file]] ++ options)
        assert_receive {:handler, handler}, 60_000
        Tree.await_blocked(Daemon.os_pid(daemon))
        :ok = GenServer.stop(daemon)
        assert File.read!(file) == "ended by itself"
        refute Process.alive?(handler)
      end
    end

    test "that is slow gets at the stop what there is time for, in order" do
      test = self()

      callback = fn bytes ->
        send(test, {:got, bytes})
        Process.sleep(1)
      end

      program = """
      import os, signal, time
      def stop(*_):
          for n in range(100): os.write(1, b"%d\\n" % n)
          os._exit(0)
      signal.signal(signal.SIGTERM, stop)
      os.write(1, b"ready\\n")
      while True: time.sleep(0.05)
      """

      options = [on_output: callback, ready: {:output, ~r/ready/}]
      {:ok, daemon} = Daemon.start_link(python(program, options))
      :ok = GenServer.stop(daemon)
      assert got() == "ready\n" <> Enum.map_join(0..99, &"#{&1}\n")
    end

    defp got do
      receive do
        {:got, bytes} -> bytes <> got()
      after
        0 -> ""
      end
    end

    test "that never returns does not keep the daemon from noticing the exit" do
      Process.flag(:trap_exit, true)
      test = self()

      callback = fn _ ->
        send(test, :called)
        Process.sleep(:infinity)
      end

      capture_log(fn ->
        {:ok, daemon} =
          Daemon.start_link(shell("echo hello; read stop; exit 3", on_output: callback))

        assert_receive :called, 60_000
        :ok = Daemon.write(daemon, "stop\n")
        assert_receive {:EXIT, ^daemon, {:exit_status, 3}}, 60_000
      end)
    end

    test "that never returns does not keep the daemon from stopping, and is not left" do
      test = self()

      hang = fn _ ->
        send(test, {:hangs, self()})
        Process.sleep(:infinity)
      end

      {:ok, daemon} = Daemon.start_link(cmd: "yes", on_output: hang)
      assert_receive {:hangs, output}, 60_000
      monitor = Process.monitor(output)
      os_pid = Daemon.os_pid(daemon)
      :ok = GenServer.stop(daemon)
      refute File.exists?("/proc/#{os_pid}")
      assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
    end
  end

  describe "ready:" do
    test "a TCP server is connected to" do
      port = Nodes.free_port()
      args = ["-m", "http.server", "#{port}", "--bind", "127.0.0.1"]

      options = [
        cmd: "python3",
        args: args,
        ready: {:tcp, "127.0.0.1", port},
        ready_timeout: 30_000
      ]

      daemon = start_supervised!({Daemon, options})
      {:ok, socket} = :gen_tcp.connect(~c"127.0.0.1", port, [:binary, active: false])
      :ok = :gen_tcp.send(socket, "HEAD / HTTP/1.0\r\n\r\n")
      assert {:ok, "HTTP/1.0 200 OK" <> _} = :gen_tcp.recv(socket, 0, 5_000)
      os_pid = Daemon.os_pid(daemon)
      :ok = stop_supervised(Daemon)
      refute File.exists?("/proc/#{os_pid}")
      assert {:error, :econnrefused} = :gen_tcp.connect(~c"127.0.0.1", port, [])
    end

    test "a function of no argument is called until it says so" do
      calls = :counters.new(1, [])

      ready = fn ->
        :counters.add(calls, 1, 1)

        case :counters.get(calls, 1) do
          1 -> false
          2 -> raise "not yet"
          3 -> {:ok, :there}
        end
      end

      {:ok, daemon} = Daemon.start_link(cmd: "cat", ready: ready)
      assert :counters.get(calls, 1) == 3
      assert Daemon.alive?(daemon)
    end

    test "a function of one argument gets the command's process" do
      test = self()
      ready = fn process -> NetRunner.Process.write(process, "are you there?\n") end
      options = [on_output: &send(test, {:output, &1}), ready: ready]

      {:ok, _} =
        Daemon.start_link(shell("read question; echo \"heard $question\"; read stop", options))

      assert_receive {:output, "heard are you there?\n"}, 60_000
    end

    test "output matches, also across pieces and on stderr" do
      test = self()
      go = NetRunner.Temporary.path("go")
      on_exit(fn -> File.rm(go) end)

      script =
        "echo starting; printf 'is re' >&2; until [ -e #{go} ]; do sleep 0.01; done; printf 'ady' >&2; read stop"

      on_output = fn piece ->
        send(test, {:output, piece})
        if piece == "is re", do: File.touch!(go)
      end

      options = [ready: {:output, ~r/is ready/u}, on_output: on_output]
      {:ok, daemon} = Daemon.start_link(shell(script, options))
      assert_receive {:output, "starting\n"}
      assert_receive {:output, "ady"}, 60_000
      :ok = GenServer.stop(daemon)
    end

    test "output matches a regex for UTF-8 beside bytes that are none" do
      script = "printf '\\377\\303'; sleep 0.1; printf '\\244 ready'; read stop"
      {:ok, daemon} = Daemon.start_link(shell(script, ready: {:output, ~r/ä ready/u}))
      :ok = GenServer.stop(daemon)
    end

    test "the time is over: an error that says what was tried, and nothing is left" do
      port = Nodes.free_port()

      for {ready, tried} <- [
            {{:output, ~r/never/}, "its output did not match ~r/never/"},
            {{:tcp, {127, 0, 0, 1}, port},
             "no connection could be made to 127.0.0.1:#{port} (connection refused)"},
            {fn -> {:error, :down} end, "the function given as :ready returned {:error, :down}"},
            {fn -> Process.sleep(:infinity) end, "the function given as :ready did not return"}
          ] do
        tree = Tree.beside_others()
        options = [ready: ready, ready_timeout: 1_000, process_opts: [env: Tree.env(tree)]]

        assert {:error, {:not_ready, message}} =
                 Daemon.start_link(shell("sleep 100 & wait", options))

        assert message == "it did not become ready within 1000 ms: #{tried}"
        assert Tree.processes(tree) == []
        assert Process.info(self(), :links) == {:links, []}
      end
    end

    test "a raise is not ready yet, and told" do
      options = [cmd: "cat", ready: fn -> raise "no answer" end, ready_timeout: 1_000]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message =~ "(RuntimeError) no answer"
    end

    test "a function whose process dies is an error" do
      options = [cmd: "cat", ready: fn -> Process.exit(self(), :kill) end]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message == "it did not become ready because of its :ready function: :killed"
    end

    test "a command that ends before is an error that says how, with the end of its stderr" do
      for {script, error} <- [
            {"exit 3", {:exit_status, 3, stderr: ""}},
            {"echo 'cannot bind' >&2; exit 1", {:exit_status, 1, stderr: "cannot bind\n"}},
            {"echo out; echo done >&2; exit 0", {:exit_status, 0, stderr: "done\n"}},
            {"echo bad >&2; kill -9 $$", {:signal, :sigkill, stderr: "bad\n"}},
            {"printf 'a\\377b' >&2; exit 1", {:exit_status, 1, stderr: "a\uFFFDb"}}
          ] do
        assert Daemon.start_link(shell(script, ready: {:output, ~r/never/})) == {:error, error}
      end
    end

    test "the end of stderr is there however stderr was asked for" do
      for {stderr, error} <- [
            {:consume, "oops\n"},
            {:redirect, "hello\noops\n"},
            {:disabled, ""}
          ] do
        options = [ready: {:output, ~r/never/}, process_opts: [stderr: stderr]]

        assert Daemon.start_link(shell("echo hello; echo oops >&2; exit 1", options)) ==
                 {:error, {:exit_status, 1, stderr: error}}
      end
    end

    test "only the end of a long stderr is in the error, so that a report shows all of that" do
      script = "seq 1 100000 >&2; echo oops >&2; exit 1"
      options = [ready: {:output, ~r/never/}]

      assert {:error, {:exit_status, 1, stderr: tail}} = Daemon.start_link(shell(script, options))
      assert byte_size(tail) == 4_096
      assert String.ends_with?(tail, "\n99999\n100000\noops\n")

      options = [process_opts: [stderr_tail: 6]] ++ options

      assert Daemon.start_link(shell(script, options)) ==
               {:error, {:exit_status, 1, stderr: "\noops\n"}}
    end

    test "the end of stderr is there while a callback hangs, or what is left holds the pipe" do
      tree = Tree.beside_others()
      on_exit(fn -> Tree.kill_all(tree) end)
      process_opts = [leftovers: :leave, env: Tree.env(tree)]

      for {script, options} <- [
            {"echo out; sleep 0.1; echo oops >&2; exit 1",
             [on_output: fn _ -> Process.sleep(:infinity) end]},
            {"sleep 300 & echo oops >&2; exit 1", [process_opts: process_opts]}
          ] do
        assert Daemon.start_link(shell(script, [ready: {:output, ~r/never/}] ++ options)) ==
                 {:error, {:exit_status, 1, stderr: "oops\n"}}
      end
    end

    test "a caller that dies meanwhile takes the command along" do
      tree = Tree.beside_others()

      options = [
        ready: {:output, ~r/never/},
        ready_timeout: :infinity,
        process_opts: [env: Tree.env(tree)]
      ]

      caller = spawn(fn -> Daemon.start_link(shell("sleep 100 & wait", options)) end)
      Tree.await(fn -> length(Tree.processes(tree)) == 2 end)
      Process.exit(caller, :kill)
      Tree.await(fn -> Tree.processes(tree) == [] end)
    end
  end

  describe "an address:" do
    @server """
    import os, socket, sys
    kind, address = sys.argv[1:]
    family = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}[kind]
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == "unix": server.bind(address)
    else: server.bind(({"inet": "127.0.0.1", "inet6": "::1"}[kind], int(address)))
    server.listen()
    print("listening", flush=True)
    while True: server.accept()
    """

    defp server(kind, address, options) do
      [cmd: "python3", args: ["-S", "-c", @server, kind, "#{address}"], ready_timeout: 60_000] ++
        options
    end

    for {host, kind} <- [
          {"::1", "inet6"},
          {{0, 0, 0, 0, 0, 0, 0, 1}, "inet6"},
          {"127.0.0.1", "inet"},
          {"localhost", "inet"},
          {"localhost", "inet6"},
          {~c"localhost", "inet6"}
        ] do
      @host host
      @kind kind
      test "#{inspect(host)} finds a server on #{kind}" do
        port = Nodes.free_port()
        {:ok, daemon} = Daemon.start_link(server(@kind, port, ready: {:tcp, @host, port}))
        assert Daemon.alive?(daemon)
        :ok = GenServer.stop(daemon)
      end
    end

    test "the path of a Unix socket" do
      path = socket_path()
      {:ok, daemon} = Daemon.start_link(server("unix", path, ready: {:unix, path}))
      {:ok, socket} = :gen_tcp.connect({:local, path}, 0, [:local])
      :gen_tcp.close(socket)
      :ok = GenServer.stop(daemon)

      # The file is still there, and nobody listens.
      options = [cmd: "cat", ready: {:unix, path}, ready_timeout: 1_000]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)

      assert message ==
               "it did not become ready within 1000 ms: no connection could be made to #{path} (connection refused)"
    end

    test "a name that has none is told" do
      options = [cmd: "cat", ready: {:tcp, "nowhere.invalid", 80}, ready_timeout: 5_000]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message =~ "the host name nowhere.invalid has no address"
    end

    test "all that were tried are told" do
      port = Nodes.free_port()
      options = [cmd: "cat", ready: {:tcp, "localhost", port}, ready_timeout: 2_000]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message =~ "[::1]:#{port} ("
      assert message =~ " or 127.0.0.1:#{port} (connection refused)"
    end

    test "another program that listens there before the start is an error, and nothing is started" do
      path = socket_path()
      port = Nodes.free_port()

      for {kind, address, ready, where} <- [
            {"unix", path, {:unix, path}, path},
            {"inet", port, {:tcp, "localhost", port}, "127.0.0.1:#{port}"}
          ] do
        {:ok, other} = Daemon.start_link(server(kind, address, ready: {:output, ~r/listening/}))
        file = Path.join(System.tmp_dir!(), "net_runner_touched_#{System.pid()}_#{kind}")
        on_exit(fn -> File.rm(file) end)

        assert {:error, {:address_in_use, message}} =
                 Daemon.start_link(cmd: "touch", args: [file], ready: ready)

        assert message ==
                 "the command was not started: another program listens at #{where} already, " <>
                   "which would be mistaken for it"

        refute File.exists?(file)
        :ok = GenServer.stop(other)
      end

      assert Process.info(self(), :links) == {:links, []}
    end

    test "one that another program takes meanwhile does not make a command ready that has exited" do
      port = Nodes.free_port()
      # What it leaves has the port; itself, it is over.
      script = "python3 -S -c \"$0\" inet #{port} > /dev/null 2>&1 & exit 4"
      args = ["-c", script, @server]
      process_opts = [leftovers: :leave, env: (tree = Tree.beside_others()) |> Tree.env()]
      on_exit(fn -> Tree.kill_all(tree) end)
      options = [cmd: "sh", args: args, ready: {:tcp, "127.0.0.1", port}]

      assert {:error, {:exit_status, 4, _}} =
               Daemon.start_link([process_opts: process_opts] ++ options)
    end

    defp socket_path do
      path = NetRunner.Temporary.path("file", ".sock")

      on_exit(fn -> File.rm(path) end)
      path
    end
  end

  describe "the exit" do
    test "is noticed while a process that the command has left holds its output" do
      Process.flag(:trap_exit, true)
      tree = Tree.beside_others()
      on_exit(fn -> Tree.kill_all(tree) end)
      process_opts = [leftovers: :leave, env: Tree.env(tree)]

      capture_log(fn ->
        {:ok, daemon} =
          Daemon.start_link(shell("sleep 300 & read stop; exit 3", process_opts: process_opts))

        :ok = Daemon.write(daemon, "stop\n")
        assert_receive {:EXIT, ^daemon, {:exit_status, 3}}, 60_000
      end)

      assert [_sleep] = Tree.processes(tree)
    end

    test "is noticed by the supervisor while a process that the command has left holds its output" do
      tree = Tree.beside_others()
      on_exit(fn -> Tree.kill_all(tree) end)
      process_opts = [leftovers: :leave, env: Tree.env(tree)]
      options = [name: :leaving_daemon, process_opts: process_opts]
      child = {Daemon, shell("sleep 300 & read stop; exit 3", options)}
      {:ok, supervisor} = Supervisor.start_link([child], strategy: :one_for_one)
      first = Daemon.os_pid(:leaving_daemon)

      capture_log(fn ->
        :ok = Daemon.write(:leaving_daemon, "stop\n")

        Tree.await(
          fn -> is_integer(pid = Daemon.os_pid(:leaving_daemon)) and pid != first end,
          20_000
        )
      end)

      :ok = Supervisor.stop(supervisor)
    end

    test "has a reason that says how the command ended" do
      Process.flag(:trap_exit, true)

      capture_log(fn ->
        for {script, reason} <- [
              {"exit 0", :normal},
              {"exit 3", {:exit_status, 3}},
              {"exit 137", {:exit_status, 137}},
              {"kill -9 $$", {:signal, :sigkill}}
            ] do
          {:ok, daemon} = Daemon.start_link(shell(script))
          assert_receive {:EXIT, ^daemon, ^reason}, 60_000
        end

        {:ok, daemon} = Daemon.start_link(cmd: "cat")
        Tree.kill(Tree.parent(Daemon.os_pid(daemon)))
        assert_receive {:EXIT, ^daemon, :shepherd_died}, 60_000
      end)
    end

    # Each command says on its stdin how it is to end.
    for {restart, status, restarted?} <- [
          {:permanent, 0, true},
          {:permanent, 1, true},
          {:transient, 0, false},
          {:transient, 1, true},
          {:temporary, 0, false},
          {:temporary, 1, false}
        ] do
      test "with #{status}, #{restart}: #{if restarted?, do: "restarted", else: "over"}" do
        options = shell("read status; exit $status", name: :supervised_daemon)
        spec = Supervisor.child_spec({Daemon, options}, restart: unquote(restart))
        {:ok, supervisor} = Supervisor.start_link([spec], strategy: :one_for_one)
        daemon = Process.whereis(:supervised_daemon)
        monitor = Process.monitor(daemon)

        capture_log(fn ->
          Daemon.write(daemon, "#{unquote(status)}\n")
          assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
          # The supervisor has dealt with the exit when it answers.
          %{active: active} = Supervisor.count_children(supervisor)
          assert active == if(unquote(restarted?), do: 1, else: 0)
        end)

        if unquote(restarted?), do: assert(Daemon.alive?(:supervised_daemon))
        :ok = Supervisor.stop(supervisor)
      end
    end

    test "drives rest_for_one: what was started after it is started again" do
      children = [
        {Daemon, shell("read stop", name: :daemon_1)},
        {Daemon, shell("read stop; exit 1", name: :daemon_2)},
        {Daemon, shell("read stop", name: :daemon_3)}
      ]

      {:ok, supervisor} = Supervisor.start_link(children, strategy: :rest_for_one)
      before = for n <- 1..3, do: Daemon.os_pid(:"daemon_#{n}")

      capture_log(fn ->
        monitor = Process.monitor(:daemon_2)
        :ok = Daemon.write(:daemon_2, "stop\n")
        assert_receive {:DOWN, ^monitor, :process, _, _}, 60_000
        Supervisor.count_children(supervisor)
      end)

      now = for n <- 1..3, do: Daemon.os_pid(:"daemon_#{n}")
      assert [true, false, false] == for({a, b} <- Enum.zip(before, now), do: a == b)
      :ok = Supervisor.stop(supervisor)
      for pid <- before ++ now, do: refute(File.exists?("/proc/#{pid}"))
    end
  end

  describe "the stop" do
    test "hands on what the command prints at its end" do
      test = self()
      script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do read line; done"
      options = [ready: {:output, ~r/ready/}, on_output: &send(test, {:output, &1})]
      start_supervised!({Daemon, shell(script, options)})
      :ok = stop_supervised(Daemon)
      assert_received {:output, "bye\n"}
    end

    test "sends the signal that was asked for" do
      test = self()
      script = "trap 'echo interrupted; exit 0' INT; echo ready; while :; do read line; done"
      process_opts = [stop_signal: :sigint]
      options = [ready: {:output, ~r/ready/}, on_output: &send(test, {:output, &1})]
      start_supervised!({Daemon, shell(script, [process_opts: process_opts] ++ options)})
      :ok = stop_supervised(Daemon)
      assert_received {:output, "interrupted\n"}
    end
  end
end
