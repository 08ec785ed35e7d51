defmodule NetRunner.MistakesTest do
  # Mistakes that are easily made: each is answered with what is wrong and what is right, and nothing that may be secret is
  # in the error or in the arguments that its stacktrace has.
  use ExUnit.Case, async: true

  alias NetRunner.{Daemon, Error}
  alias NetRunner.Process, as: Command

  @secret "hunter2"

  # The message of an `ArgumentError`. A log has the exception with its arguments.
  defp mistake(function) do
    {error, stack} =
      try do
        flunk("returned #{inspect(function.())}")
      rescue
        error in [ArgumentError, FunctionClauseError, Protocol.UndefinedError] ->
          Exception.blame(:error, error, __STACKTRACE__)
      end

    text = Exception.format(:error, error, stack)
    refute text =~ @secret
    assert {%ArgumentError{}, _} = {error, text}
    Exception.message(error)
  end

  defp cat(options \\ []) do
    {:ok, p} = Command.start("cat", [], options)
    on_exit(fn -> Command.stop(p) end)
    p
  end

  describe "an option has any value:" do
    @values [
              10,
              -1,
              1.5,
              "a",
              "a\0",
              <<1::3>>,
              :a,
              true,
              [],
              [1],
              [:a],
              [a: 1],
              [1 | 2],
              ["a" | "b"]
            ] ++
              [{}, {1}, {:a, 1}, {1, 2}, {:file, 1}, {:input, :a}, {1, 2, 3}, {:tcp, 1, 2}, %{}] ++
              [%{a: 1}, %{3 => 4}, [join: 1], [cpu: 1], [cpu_max: 1], [rows: :a], [stdout: :a]]
    @groups [
      [:command, :input, :run, :progress],
      [:command, :input, :capture, :progress],
      [:command, :input, :run, :stream, :raising, :progress],
      [:command, :input, :cmd],
      [:command, :process],
      [:daemon, :process, :child]
    ]

    for groups <- @groups do
      test "#{inspect(groups)}" do
        # Not a function of two arguments, which is an enumerable and may raise as it likes.
        other = [self(), make_ref(), fn -> 1 end, fn _ -> 1 end, fn _, _, _ -> 1 end, ~r/a/]

        for name <- NetRunner.Options.Name.names(unquote(groups)), value <- @values ++ other do
          try do
            NetRunner.Options.validate!([{name, value}], unquote(groups))
          rescue
            error in ArgumentError -> assert Exception.message(error) =~ inspect(name)
          end
        end
      end
    end
  end

  describe "a time" do
    test "is no option of a call, and what was to be written is not shown" do
      p = cat()
      {:ok, daemon} = Daemon.start_link(cmd: "cat")

      for wrong <- [[timeout: 5], -1, 1.5, nil, "5"],
          call <- [
            &Command.read(p, 1, &1),
            &Command.read_stderr(p, 1, &1),
            &Command.read_any(p, 1, &1),
            &Command.read_fd(p, 3, 1, &1),
            &Command.write(p, @secret, &1),
            &Command.await_exit(p, &1),
            &Daemon.write(daemon, @secret, &1)
          ] do
        assert mistake(fn -> call.(wrong) end) ==
                 "the timeout must be milliseconds (an integer, 0 or more) or :infinity, got: #{inspect(wrong)}"
      end

      assert mistake(fn -> Command.read(p, timeout: 5) end) =~ "the timeout comes after it"
      assert mistake(fn -> Command.write_fd(p, 2, @secret) end) =~ "a number from 3 to 255"
      GenServer.stop(daemon)
    end
  end

  describe "the options of a call" do
    test "are a keyword list after the other arguments" do
      p = cat()

      # By apply/3: the types are wrong on purpose, and newer compilers would say so.
      for {function, arguments} <- [
            read_until: [p, "x", 100],
            kill: [p, :sigterm, :group],
            sink: [p, true],
            sink: [p, %{close: true}]
          ] do
        assert mistake(fn -> apply(Command, function, arguments) end) =~
                 "options must be a keyword list, with :"
      end

      assert mistake(fn -> Command.kill(p, to: :group) end) =~
               "as in kill(process, :sigterm, to: :group)"

      assert mistake(fn -> Command.kill(p, :sigterm, to: :all) end) ==
               "the option :to must be :command, :group or :tree, got: :all"

      assert mistake(fn -> Command.sink(p, close: 1) end) ==
               "the option :close must be true or false, got: 1"

      assert Command.alive?(p)
    end
  end

  describe "what stands where it does not belong hides its secret:" do
    @options [env: [{"PGPASSWORD", @secret}]]

    test "options among the words of a command" do
      assert mistake(fn -> Daemon.child_spec(cmd: ["psql" | @options]) end) =~
               ":cmd must be a string"

      assert mistake(fn -> Daemon.child_spec(cmd: {"psql", @options}) end) =~ "got: a tuple"
      stop = [cmd: "psql", stop_command: ["pg_ctl" | @options]]

      assert mistake(fn -> Daemon.child_spec(stop) end) =~
               "got: one in which argument 1 is not a string: the option :env"

      assert mistake(fn -> NetRunner.pipeline({["psql"], @options}) end) =~
               "a pipeline is a list of commands, got: a tuple"
    end

    test "options as an argument of a call" do
      p = cat()

      for call <- [
            &Command.read(p, &1),
            &Command.read(p, 10, &1),
            &Command.read_fd(p, &1),
            &Command.read_until(p, &1),
            &Command.read_until(p, "x", timeout: &1),
            &Command.kill(p, :sigterm, to: &1),
            &Command.kill(p, &1),
            &Command.ask(p, &1),
            &NetRunner.cmd("true", [], cd: &1),
            &NetRunner.run(["true"], cgroup: &1)
          ] do
        assert mistake(fn -> call.(@options) end) =~ ~r/got: a list|with value a list/
      end
    end

    test "options as the value of another one" do
      for name <- [:cd, :timeout, :stop_signal, :leftovers, :pty, :owner, :user] do
        message = mistake(fn -> NetRunner.run(["psql"], [{name, @options}]) end)
        assert message =~ "the option #{inspect(name)} must be"
      end
    end
  end

  test "an option of a daemon's command is named, and where it belongs" do
    for {wrong, right} <- [
          kill_timout: :kill_timeout,
          enviroment: :env,
          cwd: :cd,
          sandbx: :sandbox
        ] do
      message = mistake(fn -> Daemon.child_spec([{:cmd, "true"}, {wrong, 1}]) end)

      assert message ==
               "unknown option #{inspect(wrong)}; did you mean #{inspect(right)}? It is one of the command, and belongs in :process_opts"
    end
  end

  test "the names that are listed are listed once" do
    message = mistake(fn -> NetRunner.cmd("echo", [], foo: 1) end)
    names = List.flatten(Regex.scan(~r/:[a-z_0-9]+/, message))
    assert names -- Enum.uniq(names) == []
  end

  test "a command as a charlist" do
    assert {:error, {:invalid_cmd, message}} = apply(NetRunner, :run, [~c"echo hi"])
    assert message =~ "a command is a list [executable | args] of strings, got: "
    assert message =~ "echo hi"
  end

  test "a function that writes its input takes one argument" do
    message = mistake(fn -> NetRunner.run(["cat"], input: fn _a, _b -> "x" end) end)
    assert message =~ "takes one argument, a Collectable"
    assert NetRunner.run(["cat"], input: Stream.map(["a", "b"], & &1)) == {"ab", 0}
    assert NetRunner.run(["cat"], input: Stream.take(Stream.cycle(["a"]), 3)) == {"aaa", 0}
  end

  test "a script that begins like an option of the shell is a script" do
    for script <- ["-n", "+x", "-s", "-c exit"] do
      assert {"", 127} = NetRunner.shell(script, input: "echo input", stderr: :disabled)
    end

    assert NetRunner.shell("+x 2>/dev/null; echo $0 $1", args: ["one"]) == {"sh one\n", 0}
  end

  test "a script is a string" do
    for wrong <- [["echo", "hi"], ~c"echo hi", nil, NetRunner.Command.new("echo")] do
      assert mistake(fn -> NetRunner.shell(wrong, env: [{"A", @secret}]) end) =~
               "the script must be a string, got: "
    end
  end

  test "what is no token cancels nothing, and there is one preset" do
    assert mistake(fn -> NetRunner.cancel(:build) end) =~ "comes from NetRunner.cancel_token/0"
    assert mistake(fn -> NetRunner.Sandbox.preset(:sys) end) =~ "the only preset is :system"
  end

  describe "as System.cmd/3 has it:" do
    test "arguments beside the executable" do
      assert mistake(fn -> NetRunner.run("echo", ["hi"]) end) =~
               "the arguments of a command stand beside its executable, [executable | args]"

      for call <- [
            fn -> NetRunner.Daemon.start_link(["cat"]) end,
            fn -> NetRunner.Daemon.child_spec(["cat"]) end
          ],
          do: assert(mistake(call) =~ ~s(the command is given as cmd: "…", args: […]))

      assert mistake(fn -> NetRunner.shell("ls", ["a"]) end) =~
               "the arguments are given as args: […]"

      assert mistake(fn -> NetRunner.Command.defined("ls", ["-l"], []) end) =~
               "the arguments are given as args: […]"

      assert mistake(fn -> NetRunner.Daemon.start_link(cmd: "cat", arg: ["x"]) end) =~
               "did you mean :args?"

      assert {:error, {:invalid_cmd, message}} = NetRunner.run("echo hi")
      assert message =~ "NetRunner.shell/2"
      assert {:error, {:invalid_cmd, message}} = Command.start(["cat", "-u"])
      assert message =~ "its arguments are a list of their own, after it"
    end

    test "its options" do
      for {option, value} <- [
            into: [],
            stderr_to_stdout: true,
            use_stdio: false,
            parallelism: true
          ],
          do:
            assert(
              mistake(fn -> NetRunner.run(["true"], [{option, value}]) end) =~
                "#{inspect(option)} is an option of NetRunner.cmd/3 only"
            )
    end
  end

  test "names that other libraries give to options" do
    assert mistake(fn -> Daemon.start_link(command: "x") end) =~ "did you mean :cmd?"
    assert mistake(fn -> NetRunner.run(["true"], cwd: "/") end) =~ "did you mean :cd?"
  end

  test "a capture keeps all of stderr, so there is no tail of it" do
    assert mistake(fn -> NetRunner.capture(["true"], stderr_tail: 1) end) ==
             "the option :stderr_tail has no meaning here: a capture returns all of stderr"
  end

  test "of :cgroup only the limit that is wrong is told" do
    for {limits, got} <- [
          {[pids_max: 1, memory_max: "2G"], ~S([memory_max: "2G"])},
          {[memory: 1], "[memory: 1]"},
          {[pids_max: 1, join: "a"], ":join beside limits"},
          {%{pids_max: 1}, "%{pids_max: 1}"}
        ] do
      message = mistake(fn -> NetRunner.run(["true"], cgroup_path: "a", cgroup: limits) end)
      assert String.ends_with?(message, "got: " <> got)
    end
  end

  describe "cmd/3" do
    test "shows neither the environment nor an input, whatever is wrong" do
      env = [{"TOKEN", @secret}]

      for {args, text} <- [
            {["echo", "x", [env: env]], "arguments must be a list of strings, got: \"x\""},
            {[~c"echo", [], [env: env]], "the executable must be a string"},
            {[["echo"], [], [env: env]], "the executable must be a string"},
            {["echo", [env: env]], "must be binaries"},
            {["echo", ["a" | "b"], [env: env]], "arguments must be a list of strings"},
            {["echo", [], %{env: env}], "options must be a keyword list, got a map"},
            {["echo", [], [{"env", env}]], "a list with an entry that is not an option"},
            {["echo", [], [environment: env]], "did you mean :env?"},
            {["echo", [], [inptu: @secret]], "did you mean :input?"},
            {["echo", [], [stdrr_to_stdout: true]], "did you mean :stderr_to_stdout?"},
            {["echo", [], [env: "TOKEN=" <> @secret]],
             "{name, value} with strings, got: a string"},
            {["echo", [], [env: hd(env)]], "{name, value} with strings, got: a tuple"},
            {["echo", [], [env: [{"A", "1"} | hd(env)]]],
             "{name, value} with strings, got: a list"},
            {["echo", [], [env: 1]], "{name, value} with strings, got: a number"},
            {["echo", [], [max_output_size: 1, env: env]],
             "NetRunner.run/2, capture/2, streams and pipelines"}
          ] do
        assert mistake(fn -> apply(NetRunner, :cmd, args) end) =~ text
      end
    end
  end

  describe "a reason in words" do
    test "is that of an error that is raised" do
      for command <- [["no-such-program"], ["/etc"]] do
        {:error, reason} = NetRunner.run(command)
        error = assert_raise Error, fn -> Enum.to_list(NetRunner.stream!(command)) end
        assert Exception.message(error) == "`#{command}` failed: #{Error.describe(reason)}"
      end

      assert Error.describe(:enoent) =~ "no such executable"
      # Of anything else it is what the system says.
      assert Error.describe({:cd, :enoent}) =~ "no such file or directory"
      assert Error.describe({:stdin, :eacces}) =~ "permission denied"
      assert Error.describe({:user, :eperm}) =~ "operation not permitted"
    end

    test "is there for whatever the functions return" do
      for {reason, text} <- [
            busy: "another process",
            too_long: ":max_bytes",
            closed: "NetRunner.Process is gone"
          ],
          do: assert(Error.describe(reason) =~ text)

      assert Error.describe({:timeout, 5}) =~ "5 bytes"
      assert Error.describe({:exit_status, 3}) == "it exited with status 3"
      assert Error.describe({:signal, :sigkill}) == "it was ended by SIGKILL"
    end
  end

  test "what is no process is said to be none" do
    {:ok, p} = Command.start("cat")
    on_exit(fn -> Command.stop(p) end)
    calls = [&Command.read/1, &Command.write(&1, "x"), &Command.stop/1, &Command.monitor/1]
    daemons = [&NetRunner.Daemon.write(&1, "x"), &NetRunner.Daemon.alive?/1]

    for call <- calls ++ daemons do
      assert mistake(fn -> call.({:ok, p}) end) =~ "got: {:ok, pid}; match it before"
      assert mistake(fn -> call.("cat") end) =~ "must be a pid or a name, got: a string"
      assert mistake(fn -> call.({:error, :enoent, 1}) end) =~ "got: a tuple"
      # A variable that nobody has set.
      assert mistake(fn -> call.(nil) end) == "a process must be a pid or a name, got: nil"
    end
  end

  test "a script with a NUL byte is not run, and is said to have it" do
    error = {:error, {:invalid_args, "the script contains a NUL byte"}}
    assert NetRunner.shell("echo a\0b") == error
  end

  test "a monitor of what runs on another node says that it is out of reach, as a read does" do
    name = {:no_such_process, :nobody@nowhere}
    assert Command.read(name) == {:error, {:node, :disconnected}}
    ref = Command.monitor(name)
    assert_receive {:DOWN, ^ref, :process, _, :noconnection}, 60_000
  end

  test "the child spec of a daemon hides what its command gets" do
    options = [cmd: "cat", process_opts: [env: [{"A", @secret}], fds: %{3 => {:input, @secret}}]]
    %{start: {module, function, [options]} = start} = Daemon.child_spec(options)
    refute inspect(start) =~ @secret

    test = self()
    options = [cmd: "sh", args: ["-c", "echo $A; cat <&3"], on_output: &send(test, &1)] ++ options
    options = Keyword.merge(options, Keyword.take(options, [:process_opts]))
    Process.flag(:trap_exit, true)
    {:ok, daemon} = apply(module, function, [Enum.uniq_by(options, &elem(&1, 0))])
    assert_receive {:EXIT, ^daemon, :normal}, 60_000
    assert received("") == @secret <> "\n" <> @secret
  end

  defp received(bytes) do
    receive do
      piece when is_binary(piece) -> received(bytes <> piece)
    after
      0 -> bytes
    end
  end
end
