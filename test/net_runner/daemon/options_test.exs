defmodule NetRunner.Daemon.OptionsTest do
  # Lines, logs, statuses and the end of a daemon, as its options want them; and its functions from its own callbacks.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.{Nodes, Tree}

  setup do
    Process.flag(:trap_exit, true)
    name = NetRunner.Temporary.name("daemon")
    directory = Path.join(System.tmp_dir!(), name)
    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory}
  end

  defp shell(script, options), do: [cmd: "sh", args: ["-c", script]] ++ options

  # A function for output, which says so and never returns.
  defp hang do
    test = self()

    fn _ ->
      send(test, :hanging)
      Process.sleep(:infinity)
    end
  end

  # :logger handler
  def log(%{meta: meta, level: level, msg: {:string, text}}, %{config: test}),
    do: send(test, {:logged, level, IO.chardata_to_string(text), meta})

  def log(_report, _config), do: :ok

  defp listen_to_log(_) do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self()})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
  end

  describe "a secret" do
    test "is in no child spec, no status and no crash report" do
      options = [env: %{"PASSWORD" => "s3cret"}, fds: %{3 => {:input, "s3cret"}}]

      command =
        NetRunner.Command.new(
          "sh",
          ["-c", "cat <&3; printenv PASSWORD; read go_on; exit 3"],
          options
        )

      test = self()

      for given <- [
            [cmd: command],
            [cmd: command.cmd, args: command.args, process_opts: options]
          ] do
        child = [on_output: &send(test, {:printed, &1}), stop_command: ["true"]] ++ given
        spec = Daemon.child_spec(child)
        refute inspect(spec, structs: false, limit: :infinity) =~ "s3cret"

        log =
          capture_log(fn ->
            {module, function, arguments} = spec.start
            {:ok, daemon} = apply(module, function, arguments)
            refute inspect(:sys.get_status(daemon), structs: false, limit: :infinity) =~ "s3cret"
            :ok = Daemon.write(daemon, "\n")
            assert_receive {:EXIT, ^daemon, {:exit_status, 3}}, 60_000
          end)

        assert log =~ "terminating"
        refute log =~ "s3cret"
        assert received_bytes() == "s3crets3cret\n"
      end
    end
  end

  defp received_bytes do
    receive do
      {:printed, bytes} -> bytes <> received_bytes()
    after
      0 -> ""
    end
  end

  describe ":on_line" do
    test "gets whole lines, however they were cut, each of its stream, and a last one without an end" do
      test = self()

      script =
        "printf one; sleep 0.1; printf ' and more\\r\\n\\ntwo\\n'; echo oops >&2; printf last"

      options = [on_line: fn stream, line -> send(test, {stream, line}) end]
      {:ok, daemon} = Daemon.start_link(shell(script, options))
      assert_receive {:EXIT, ^daemon, :normal}, 60_000
      assert received(:stdout) == ["one and more", "", "two", "last"]
      assert received(:stderr) == ["oops"]
    end

    test "gets all of them, and one that is very long in pieces" do
      test = self()
      script = "seq 1 50000; head -c 150000 /dev/zero | tr '\\0' x; echo; echo end"
      {:ok, daemon} = Daemon.start_link(shell(script, on_line: &send(test, {:stdout, &1})))
      assert_receive {:EXIT, ^daemon, :normal}, 60_000
      {numbers, rest} = :stdout |> received() |> Enum.split(50_000)
      assert numbers == Enum.map(1..50_000, &Integer.to_string/1)
      assert Enum.map(rest, &byte_size/1) == [65_536, 65_536, 150_000 - 2 * 65_536, 3]
    end

    test "that raises is logged by its name, and gets the next line" do
      test = self()

      on_line = fn line ->
        send(test, {:line, line})
        if line == "bad", do: raise("no such line")
      end

      log =
        capture_log(fn ->
          {:ok, daemon} = Daemon.start_link(cmd: "cat", on_line: on_line)
          :ok = Daemon.write(daemon, "bad\ngood\n")
          assert_receive {:line, "good"}, 60_000
          :ok = GenServer.stop(daemon)
        end)

      assert log =~ "the :on_line function of the daemon cat failed"
      assert log =~ "no such line"
    end

    test "and :on_output exclude each other" do
      message =
        "the options :on_line and :on_output exclude each other: only one of them can get the output"

      assert_raise ArgumentError, message, fn ->
        Daemon.start_link(cmd: "cat", on_line: &send(self(), &1), on_output: :log)
      end

      assert_raise ArgumentError, ~r/:on_line must be a function of one or two arguments/, fn ->
        Daemon.start_link(cmd: "cat", on_line: :log)
      end
    end

    defp received(stream) do
      receive do
        {^stream, line} -> [line | received(stream)]
      after
        0 -> []
      end
    end
  end

  describe "the log:" do
    setup :listen_to_log

    test "each line has the prefix and the metadata, at any level" do
      for {on_output, level} <- [{:log, :info}, {{:log, :notice}, :notice}] do
        options = [
          on_output: on_output,
          log_prefix: "[it] ",
          logger_metadata: [domain_of: :me, os_pid: 0]
        ]

        {:ok, daemon} = Daemon.start_link(shell("echo one; echo two >&2; read stop", options))
        os_pid = Daemon.os_pid(daemon)

        assert_receive {:logged, ^level, "[it] one", %{domain_of: :me, stream: :stdout} = meta},
                       60_000

        # What is known stays.
        assert meta.os_pid == os_pid
        assert_receive {:logged, ^level, "[it] two", %{domain_of: :me, stream: :stderr}}, 60_000
        :ok = GenServer.stop(daemon)
      end
    end

    test "what a callback logs has the metadata too, and so has what is said about it" do
      require Logger

      callback = fn
        "bad" -> raise "cannot"
        bytes -> Logger.info("got " <> bytes)
      end

      {:ok, daemon} =
        Daemon.start_link(cmd: "cat", on_output: callback, logger_metadata: [mine: 1])

      :ok = Daemon.write(daemon, "good")
      assert_receive {:logged, :info, "got good", %{mine: 1}}, 60_000
      :ok = Daemon.write(daemon, "bad")
      assert_receive {:logged, :error, "the :on_output function" <> _, %{mine: 1}}, 60_000
      :ok = GenServer.stop(daemon)
    end

    test "a prefix without lines that are logged is refused" do
      message = "the option :log_prefix is for lines that are logged: it needs on_output: :log"

      for options <- [[], [on_output: &is_binary/1], [on_line: &is_binary/1]] do
        assert_raise ArgumentError, message, fn ->
          Daemon.start_link([cmd: "cat", log_prefix: "x"] ++ options)
        end
      end

      assert {:ok, daemon} = Daemon.start_link(cmd: "cat", log_prefix: nil, logger_metadata: nil)
      :ok = GenServer.stop(daemon)
    end
  end

  describe "the last output" do
    test "goes to a slow function as a whole, when the command has exited by itself" do
      test = self()
      slow = fn line -> send(test, {:line, line, Process.sleep(20)}) end
      {:ok, daemon} = Daemon.start_link(shell("seq 200; printf end", on_line: slow))
      assert_receive {:EXIT, ^daemon, :normal}, 60_000
      for n <- 1..200, line = "#{n}", do: assert_received({:line, ^line, :ok})
      assert_received {:line, "end", :ok}
    end

    test "is given up when a function hangs, and the log says how much that is" do
      for stop? <- [false, true] do
        log =
          capture_log(fn ->
            {:ok, daemon} = Daemon.start_link(shell("seq 3; read go", on_line: hang()))
            assert_receive :hanging, 60_000
            if stop?, do: GenServer.stop(daemon), else: :ok = Daemon.close_stdin(daemon)
            assert_receive {:EXIT, ^daemon, _}, 60_000
            # Another process logs it.
            NetRunner.Waiting.await_log()
          end)

        assert log =~ "up to 6 bytes of the last output of the daemon sh -c"
        assert log =~ "were not handled"
      end
    end
  end

  describe ":ok_statuses" do
    test "say which exits are normal; a signal counts as 128 + its number" do
      for {script, ok, reason} <- [
            {"exit 3", [0, 3], :normal},
            {"exit 3", [0], {:exit_status, 3}},
            {"exit 0", [3], {:exit_status, 0}},
            {"exit 0", [], {:exit_status, 0}},
            {"kill -33 $$", [161], :normal},
            {"exit 0", nil, :normal},
            {"kill -TERM $$", [0, 143], :normal},
            {"kill -KILL $$", [0, 143], {:signal, :sigkill}},
            {"exit 143", [143], :normal}
          ] do
        capture_log(fn ->
          {:ok, daemon} = Daemon.start_link(shell("read go; #{script}", ok_statuses: ok))
          :ok = Daemon.write(daemon, "\n")
          assert_receive {:EXIT, ^daemon, ^reason}, 60_000
        end)
      end
    end

    test "leave a crash, whose log has the end of stderr" do
      script = "echo; read go; echo FATAL >&2; exit 1"

      log =
        capture_log(fn ->
          # So the output is not over when the command is.
          {:ok, daemon} = Daemon.start_link(shell(script, on_output: hang()))
          assert_receive :hanging, 60_000
          :ok = Daemon.write(daemon, "\n")
          assert_receive {:EXIT, ^daemon, {:exit_status, 1}}, 60_000
        end)

      assert log =~ "FATAL\\n"
    end

    test "decide whether a transient daemon is started again" do
      test = self()

      child =
        {Daemon,
         shell("echo up; read go; exit 9",
           on_line: &send(test, &1),
           ok_statuses: [9],
           restart: :transient
         )}

      {:ok, supervisor} = Supervisor.start_link([child], strategy: :one_for_one)
      [{_, daemon, _, _}] = Supervisor.which_children(supervisor)
      monitor = Process.monitor(daemon)
      :ok = Daemon.write(daemon, "\n")
      assert_receive {:DOWN, ^monitor, :process, _, :normal}, 60_000
      assert %{active: 0} = Supervisor.count_children(supervisor)
      Supervisor.stop(supervisor)
    end

    test "are statuses" do
      for wrong <- [[256], [:sigterm], 0, [0 | 1]] do
        assert_raise ArgumentError,
                     ~r/:ok_statuses must be a list of statuses from 0 to 255/,
                     fn ->
                       Daemon.start_link(cmd: "cat", ok_statuses: wrong)
                     end
      end
    end
  end

  describe ":stop_command" do
    setup :listen_to_log

    defp await_log do
      assert_receive {:logged, :warning, ":stop_command did not stop the daemon sh -c " <> _, _},
                     60_000
    end

    # Ends when the file is there, and says so; a signal is said as well.
    @waits "trap 'echo signalled; exit 0' TERM; echo ready; while [ ! -e $FLAG ]; do sleep 0.02; done; echo asked"

    defp waiting(directory, options) do
      test = self()
      {process_opts, options} = Keyword.pop(options, :process_opts, [])

      process_opts =
        process_opts ++ [cd: directory, env: %{"FLAG" => "flag"}, kill_timeout: 20_000]

      common = [
        ready: {:output, ~r/ready/},
        on_line: &send(test, {:line, &1}),
        process_opts: process_opts
      ]

      {:ok, daemon} = Daemon.start_link(shell(@waits, options ++ common))
      assert_receive {:line, "ready"}, 60_000
      daemon
    end

    test "stops the daemon, in its directory and with its environment, and no signal follows",
         context do
      daemon = waiting(context.directory, stop_command: ["sh", "-c", "touch $FLAG"])
      log = capture_log(fn -> :ok = GenServer.stop(daemon) end)
      assert_received {:line, "asked"}
      refute_received {:line, "signalled"}
      refute log =~ "stop_command"
    end

    test "that fails is followed by the stop signal at once, and the log says why", context do
      for {command, why} <- [
            {["sh", "-c", "echo wrong option >&2; exit 3"],
             "exited with status 3; the end of its stderr: wrong option"},
            {["no-such-program"], "there is no such executable"},
            {["sh", "-c", "kill -9 $$"], "was ended by SIGKILL"}
          ] do
        daemon = waiting(context.directory, stop_command: command)

        log =
          capture_log(fn ->
            :ok = GenServer.stop(daemon)
            # It is logged by a process of its own.
            await_log()
          end)

        assert_received {:line, "signalled"}
        assert log =~ "which gets its stop signal now"
        assert log =~ why
      end
    end

    test "is bounded by :kill_timeout, and gone afterwards", context do
      mark = NetRunner.Temporary.name("stop")

      for {command, told?} <- [
            # Takes too long itself, and is hard to end.
            {["sh", "-c", "trap '' TERM; sleep 1000; : #{mark}"], true},
            # Has no effect.
            {["true", mark], false}
          ] do
        daemon =
          waiting(context.directory, stop_command: command, process_opts: [kill_timeout: 300])

        os_pid = Daemon.os_pid(daemon)
        started = System.monotonic_time(:millisecond)

        log =
          capture_log(fn ->
            :ok = GenServer.stop(daemon, :normal, 60_000)
            if told?, do: await_log()
          end)

        assert log =~ "did not end within :kill_timeout (300 ms)" == told?
        assert System.monotonic_time(:millisecond) - started >= 300
        assert_received {:line, "signalled"}
        refute File.exists?("/proc/#{os_pid}")
        # On a slow machine, the daemon ends before one whose time is over.
        Tree.await(fn -> match?({_, 1}, System.cmd("pgrep", ["-f", mark])) end)
      end
    end

    test "does not touch what belongs to the daemon alone, such as its files", context do
      out = Path.join(context.directory, "out")

      {:ok, daemon} =
        Daemon.start_link(
          shell("echo kept; while [ ! -e $FLAG ]; do sleep 0.02; done; echo end",
            stop_command: ["sh", "-c", "echo lost; touch $FLAG"],
            process_opts: [
              cd: context.directory,
              env: %{"FLAG" => "flag"},
              arg0: "me",
              stdout: {:file, out},
              fds: %{3 => {:output, {:file, out <> "3"}}}
            ]
          )
        )

      Tree.await(fn -> File.read(out) == {:ok, "kept\n"} end)
      :ok = GenServer.stop(daemon)
      assert File.read!(out) == "kept\nend\n"
    end

    test "is not run for a daemon that ends by itself", context do
      flag = Path.join(context.directory, "flag")
      {:ok, daemon} = Daemon.start_link(shell("read go", stop_command: ["touch", flag]))
      :ok = Daemon.close_stdin(daemon)
      assert_receive {:EXIT, ^daemon, _}, 60_000
      refute File.exists?(flag)
    end

    test "has its time in the child spec, and is a list of strings" do
      child = [cmd: "cat", process_opts: [kill_timeout: 1_000]]
      assert Daemon.child_spec(child).shutdown == 6_000
      assert Daemon.child_spec([stop_command: ["true"]] ++ child).shutdown == 9_000

      # Longer than a supervisor can wait.
      patient = [cmd: "cat", process_opts: [kill_timeout: 2_147_483_647], stop_command: ["true"]]
      assert Daemon.child_spec(patient).shutdown == :infinity

      for wrong <- [[], "nginx -s quit", ["a\0b"], [true], ["a" | "b"]] do
        assert_raise ArgumentError, ~r/:stop_command must be a list \[executable \| args\]/, fn ->
          Daemon.child_spec(cmd: "cat", stop_command: wrong)
        end
      end
    end
  end

  describe "a daemon that is taken for a NetRunner.Process" do
    setup :listen_to_log

    test "lives on, and the error and the log say what to call" do
      {:ok, daemon} = Daemon.start_link(cmd: "cat")
      alias NetRunner.Process, as: Command

      for function <- [
            &Command.read/1,
            &Command.write(&1, "x"),
            &Command.alive?/1,
            &Command.stop/1
          ] do
        assert_raise ArgumentError,
                     ~r/is the NetRunner.Daemon of `cat`: use .* or GenServer.stop\/1 to stop it/,
                     fn -> function.(daemon) end
      end

      assert_receive {:logged, :warning, text, _}, 60_000

      assert text =~
               "called the daemon cat, which answers no calls: use the functions of NetRunner.Daemon"

      GenServer.cast(daemon, :stray)
      assert_receive {:logged, :warning, "the daemon cat got a cast" <> _, _}, 60_000
      assert Daemon.alive?(daemon)
      GenServer.stop(daemon)
    end

    test "and so does its output, which shows nothing that it holds" do
      test = self()

      hang = fn text ->
        send(test, {:piece, text})
        Process.sleep(:infinity)
      end

      {:ok, daemon} = Daemon.start_link(cmd: "cat", on_output: hang)
      :ok = Daemon.write(daemon, "s3cret")
      assert_receive {:piece, "s3cret"}, 60_000
      output = :sys.get_state(daemon).output
      GenServer.cast(output, :stray)
      assert GenServer.call(output, :stray) == {:error, :closed}
      refute inspect(:sys.get_status(output), limit: :infinity) =~ "s3cret"
      assert Daemon.alive?(daemon)
      GenServer.stop(daemon)
    end
  end

  describe "its functions" do
    test "may be called from its callback: while it starts, while it runs, while it stops" do
      test = self()

      script =
        "trap 'echo stopping; read answer; echo $answer; exit 0' TERM; for x in starting ready; do echo $x; read line; echo $line; done; while :; do sleep 0.02; done"

      on_line = fn line ->
        if line in ["starting", "ready", "stopping"] do
          # Written last, as the command may exit when it has the answer.
          info = Daemon.info(__MODULE__)
          killed = Daemon.kill(__MODULE__, :sigcont)
          alive? = Daemon.alive?(__MODULE__)
          written = Daemon.write(__MODULE__, "answer to #{line}\n", 60_000)
          send(test, {line, info.status, written, killed, alive?})
        else
          send(test, {:line, line})
        end
      end

      {:ok, daemon} =
        Daemon.start_link(
          shell(script, name: __MODULE__, on_line: on_line, ready: {:output, ~r/ready/})
        )

      assert_receive {"starting", :running, :ok, :ok, true}, 60_000
      assert_receive {:line, "answer to starting"}, 60_000
      assert_receive {"ready", :running, :ok, :ok, true}, 60_000
      assert_receive {:line, "answer to ready"}, 60_000
      :ok = GenServer.stop(daemon)
      assert_received {"stopping", :running, :ok, :ok, true}
      assert_received {:line, "answer to stopping"}

      for gone <- [
            Daemon.info(__MODULE__),
            Daemon.write(__MODULE__, "x", 10),
            Daemon.kill(__MODULE__, :sigterm),
            Daemon.close_stdin(__MODULE__)
          ],
          do: assert(gone == {:error, :closed})
    end

    test "a write with a time gives up, and says how much was written" do
      {:ok, daemon} =
        Daemon.start_link(cmd: "sleep", args: ["1000"], process_opts: [pipe_size: 0])

      assert {:error, {:timeout, n}} = Daemon.write(daemon, String.duplicate("x", 1_000_000), 20)
      assert n in 1..999_999
      :ok = GenServer.stop(daemon)
    end

    test "the end of stdin ends a filter, which is a normal exit" do
      test = self()
      {:ok, daemon} = Daemon.start_link(cmd: "sort", on_line: &send(test, {:line, &1}))
      :ok = Daemon.write(daemon, "b\na\n")
      assert Daemon.close_stdin(daemon) == :ok
      assert_receive {:EXIT, ^daemon, :normal}, 60_000
      assert_received {:line, "a"}
      assert_received {:line, "b"}
    end

    test "a signal for its command, or for the whole group" do
      test = self()
      # The shell waits for its child before it handles a signal.
      script =
        "trap 'echo parent' USR1; sh -c \"trap 'echo child; exit' USR1; echo ready; while :; do sleep 0.02; done\"; read stop"

      for {options, lines} <- [{[], []}, {[to: :group], ["child"]}, {[to: :tree], ["child"]}] do
        {:ok, daemon} =
          Daemon.start_link(
            shell(script, ready: {:output, ~r/ready/}, on_line: &send(test, {:line, &1}))
          )

        assert Daemon.kill(daemon, :sigusr1, options) == :ok

        for line <- lines ++ if(lines != [], do: ["parent"], else: []),
            do: assert_receive({:line, ^line}, 60_000)

        if lines == [], do: refute_received({:line, "child"})
        :ok = GenServer.stop(daemon)
        flush()
      end
    end

    defp flush do
      receive do
        {:line, _} -> flush()
      after
        0 -> :ok
      end
    end

    test "a signal by any name; an unknown one is an error" do
      {:ok, daemon} = Daemon.start_link(cmd: "sleep", args: ["1000"])
      assert Daemon.kill(daemon, :sigwhat) == {:error, :unknown_signal}
      assert Daemon.kill(daemon, 0) == {:error, :unknown_signal}
      assert %{command: ["sleep", "1000"], os_pid: os_pid} = Daemon.info(daemon)
      assert os_pid == Daemon.os_pid(daemon)

      capture_log(fn ->
        assert Daemon.kill(daemon, :sigusr1) == :ok
        assert_receive {:EXIT, ^daemon, {:signal, :sigusr1}}, 60_000
      end)
    end
  end

  test "with its command on another node, all of it is the same" do
    epmd = Nodes.start_epmd()
    {here, _} = Nodes.start(epmd)
    {worker, node} = Nodes.start(epmd)
    for peer <- [here, worker], do: :ok = Nodes.start_net_runner(peer)
    true = Nodes.call(here, :net_kernel, :connect_node, [node])
    me = Nodes.start_caller(here)

    flag = NetRunner.Temporary.path("flag")

    script = "while [ ! -e #{flag} ]; do sleep 0.02; done; read line; exit $line"

    options =
      shell(script,
        stop_command: ["touch", flag],
        ok_statuses: [7],
        process_opts: [node: node, kill_timeout: 60_000]
      )

    {:ok, daemon} = Nodes.call_from(here, me, Daemon, :start_link, [options])
    assert Nodes.call(here, Daemon, :write, [daemon, "7\n", 60_000]) == :ok
    assert %{status: :running, pid: p} = Nodes.call(here, Daemon, :info, [daemon])
    assert node(p) == node
    assert Nodes.call(here, Daemon, :kill, [daemon, :sigcont]) == :ok
    assert Nodes.call(here, GenServer, :stop, [daemon]) == :ok
    # No signal has ended it.
    assert File.rm(flag) == :ok
  end
end
