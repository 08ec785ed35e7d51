defmodule NetRunner.DaemonTest do
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.{Nodes, Tree}

  doctest NetRunner.Daemon

  # --- :logger handler ----------------------------------------------------------------------------

  def log(%{meta: meta, level: level, msg: message}, %{config: test}) do
    text =
      case message do
        {:string, text} -> IO.chardata_to_string(text)
        {:report, report} -> inspect(report)
        {format, arguments} -> format |> :io_lib.format(arguments) |> IO.chardata_to_string()
      end

    send(test, {:logged, level, text, meta})
  end

  defp listen_to_log(_) do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self()})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
  end

  defp shell(script, options \\ []), do: [cmd: "sh", args: ["-c", script]] ++ options

  describe "options:" do
    test "mistakes raise, and say what was meant" do
      for {options, message} <- [
            {[], "the option :cmd is missing: give the executable as a string"},
            {[cmd: :cat], "the option :cmd must be a string without a NUL byte, got: :cat"},
            {[cmd: "cat", args: "x"], "the option :args must be a list of strings, got: \"x\""},
            {[cmd: "cat", redy: nil], "unknown option :redy; did you mean :ready?"},
            {[cmd: "cat", cd: "/"], "the option :cd has no meaning for this function"},
            {[cmd: "cat", on_output: {:log, :loud}],
             "the option :on_output must be :discard, :log, {:log, level}, or a function of one or two arguments, " <>
               "got: {:log, :loud}"},
            {[cmd: "cat", ready: {:tcp, "localhost", 0}],
             "the option :ready must be a function of no argument or one, {:output, regex}, {:tcp, host, port} " <>
               "with a port from 1 to 65535, or nil, got: {:tcp, \"localhost\", 0}"},
            {[cmd: "cat", process_opts: [kil_timeout: 1]],
             "unknown option :kil_timeout; did you mean :kill_timeout?"},
            {[cmd: "cat", process_opts: [owner: self()]],
             "the option :owner has no meaning in :process_opts: the command belongs to its daemon"}
          ] do
        assert_raise ArgumentError, message, fn -> Daemon.start_link(options) end
        assert_raise ArgumentError, message, fn -> Daemon.child_spec(options) end
      end
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

  describe "the log" do
    @describetag :capture_log
    setup :listen_to_log

    test "gets whole lines of both outputs, with metadata" do
      script =
        "printf 'on'; sleep 0.05; printf 'e\\ntwo\\r\\n\\nla'; printf 'st'; echo oops >&2; read stop"

      {:ok, daemon} = Daemon.start_link(shell(script, on_output: :log))
      os_pid = Daemon.os_pid(daemon)
      command = ["sh", "-c", script]

      for line <- ["one", "two", ""] do
        assert_receive {:logged, :info, ^line,
                        %{os_pid: ^os_pid, command: ^command, stream: :stdout}},
                       2_000
      end

      assert_receive {:logged, :info, "oops", %{os_pid: ^os_pid, stream: :stderr}}, 2_000
      refute_received {:logged, _, _, _}
      :ok = GenServer.stop(daemon)
      assert_receive {:logged, :info, "last", %{stream: :stdout}}
    end

    test "has the level that was asked for, and only text" do
      script = "printf 'a\\377b\\303\\244\\n'; read stop"
      {:ok, daemon} = Daemon.start_link(shell(script, on_output: {:log, :error}))
      assert_receive {:logged, :error, "a\uFFFDbä", _}, 2_000
      :ok = GenServer.stop(daemon)
    end

    test "gets a very long line in pieces, cut between characters" do
      script =
        "i=0; while [ $i -lt 20000 ]; do printf '\\303\\244'; i=$((i+1)); done; echo; echo next; read stop"

      {:ok, daemon} = Daemon.start_link(shell("printf x;" <> script, on_output: :log))
      pieces = Stream.repeatedly(&next_line/0) |> Enum.take_while(&(&1 != "next"))
      assert Enum.join(pieces) == "x" <> String.duplicate("ä", 20_000)
      assert length(pieces) == 5
      assert Enum.all?(pieces, &(byte_size(&1) <= 8_192 and String.valid?(&1)))
      :ok = GenServer.stop(daemon)
    end

    test "has lines, however they were cut into pieces" do
      for _ <- 1..200 do
        lines = for _ <- 1..:rand.uniform(20), do: random_line()
        text = Enum.map_join(lines, &(&1 <> "\n"))
        assert text |> pieces([]) |> through_lines() == Enum.flat_map(lines, &cut/1)
      end
    end

    defp next_line do
      assert_receive {:logged, :info, line, %{stream: :stdout}}, 5_000
      line
    end

    defp random_line,
      do: String.duplicate("x", Enum.random([0, 1, 5, 8_191, 8_192, 8_193, 20_000]))

    defp cut(line) when byte_size(line) <= 8_192, do: [line]
    defp cut(<<piece::binary-size(8_192), rest::binary>>), do: [piece | cut(rest)]

    defp pieces("", pieces), do: Enum.reverse(pieces)

    defp pieces(text, pieces) do
      {piece, rest} = String.split_at(text, :rand.uniform(9_000))
      pieces(rest, [piece | pieces])
    end

    defp through_lines(pieces) do
      alias NetRunner.Daemon.Lines

      {lines, begun} =
        Enum.flat_map_reduce(pieces, Lines.new(), fn piece, begun -> Lines.push(begun, piece) end)

      lines ++ Lines.finish(begun)
    end
  end

  describe "a callback" do
    test "gets everything, in order; with two arguments also the stream" do
      test = self()
      script = "seq 1 50000; echo oops >&2"
      callback = fn stream, bytes -> send(test, {stream, bytes}) end
      Process.flag(:trap_exit, true)
      {:ok, daemon} = Daemon.start_link(shell(script, on_output: callback))
      assert_receive {:EXIT, ^daemon, :normal}, 5_000
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
           "the process that reads a daemon's output died"}
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
            assert_receive {:got, "bad"}, 2_000
            :ok = Daemon.write(daemon, "good")
            assert_receive {:got, "good"}, 2_000
            assert Daemon.alive?(daemon)
            :ok = GenServer.stop(daemon)
          end)

        assert log =~ unquote(logged)
      end
    end

    test "slower than the command makes the command wait, and no memory fill" do
      test = self()

      callback = fn bytes ->
        send(test, {:got, self(), byte_size(bytes)})

        receive do
          :next -> :ok
        end
      end

      before = memory()
      {:ok, daemon} = Daemon.start_link(cmd: "yes", on_output: callback)
      assert_receive {:got, output, size}, 2_000
      written = Tree.await_blocked(Daemon.os_pid(daemon))
      assert %{bytes_out: ^size} = Daemon.stats(daemon)
      # What the command has written is what was read and what is in the pipe.
      assert written <= size + 2 * 1_048_576

      # It goes on when the callback does.
      read =
        Enum.reduce(1..200, size, fn _, read ->
          send(output, :next)
          assert_receive {:got, ^output, size}, 2_000
          read + size
        end)

      assert %{bytes_out: ^read} = Daemon.stats(daemon)
      assert read > 2 * 1_048_576
      assert memory() - before < 1_048_576
      :ok = GenServer.stop(daemon)
    end

    defp memory do
      for process <- Process.list(), do: :erlang.garbage_collect(process)
      :erlang.memory(:total)
    end

    test "that never returns does not keep the daemon from stopping, and is not left" do
      test = self()

      hang = fn _ ->
        send(test, {:hangs, self()})
        Process.sleep(:infinity)
      end

      {:ok, daemon} = Daemon.start_link(cmd: "yes", on_output: hang)
      assert_receive {:hangs, output}, 5_000
      monitor = Process.monitor(output)
      os_pid = Daemon.os_pid(daemon)
      :ok = GenServer.stop(daemon)
      refute File.exists?("/proc/#{os_pid}")
      assert_receive {:DOWN, ^monitor, :process, _, _}, 5_000
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

      assert_receive {:output, "heard are you there?\n"}, 2_000
    end

    test "output matches, also across pieces and on stderr" do
      test = self()
      script = "echo starting; printf 'is re' >&2; sleep 0.1; printf 'ady' >&2; read stop"
      options = [ready: {:output, ~r/is ready/u}, on_output: &send(test, {:output, &1})]
      {:ok, daemon} = Daemon.start_link(shell(script, options))
      assert_receive {:output, "starting\n"}
      assert_receive {:output, "ady"}, 2_000
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
             "a TCP connection to its port #{port} failed: connection refused"},
            {fn -> {:error, :down} end, "the function given as :ready returned {:error, :down}"},
            {fn -> Process.sleep(:infinity) end, "the function given as :ready did not return"}
          ] do
        tree = Tree.new()
        options = [ready: ready, ready_timeout: 200, process_opts: [env: Tree.env(tree)]]

        assert {:error, {:not_ready, message}} =
                 Daemon.start_link(shell("sleep 100 & wait", options))

        assert message == "it did not become ready within 200 ms: #{tried}"
        assert Tree.processes(tree) == []
        assert Process.info(self(), :links) == {:links, []}
      end
    end

    test "a raise is not ready yet, and told" do
      options = [cmd: "cat", ready: fn -> raise "no answer" end, ready_timeout: 100]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message =~ "(RuntimeError) no answer"
    end

    test "a function whose process dies is an error" do
      options = [cmd: "cat", ready: fn -> Process.exit(self(), :kill) end]
      assert {:error, {:not_ready, message}} = Daemon.start_link(options)
      assert message == "it did not become ready because of its :ready function: :killed"
    end

    test "a command that ends before is an error that says how" do
      ready = {:output, ~r/never/}
      assert Daemon.start_link(shell("exit 3", ready: ready)) == {:error, {:exit_status, 3}}
      assert Daemon.start_link(shell("exit 0", ready: ready)) == {:error, {:exit_status, 0}}
      assert Daemon.start_link(shell("kill -9 $$", ready: ready)) == {:error, {:signal, :sigkill}}
    end

    test "a caller that dies meanwhile takes the command along" do
      tree = Tree.new()

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

  describe "the exit" do
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
          assert_receive {:EXIT, ^daemon, ^reason}, 2_000
        end

        {:ok, daemon} = Daemon.start_link(cmd: "cat")
        Tree.kill(Tree.parent(Daemon.os_pid(daemon)))
        assert_receive {:EXIT, ^daemon, :shepherd_died}, 2_000
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
          assert_receive {:DOWN, ^monitor, :process, _, _}, 2_000
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
        assert_receive {:DOWN, ^monitor, :process, _, _}, 2_000
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
