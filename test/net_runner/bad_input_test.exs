defmodule NetRunner.BadInputTest do
  # What cannot be meant or cannot be done is refused, and nothing is started for it.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  # Where the command itself is good, it would leave this file.
  @witness Path.join(System.tmp_dir!(), "net_runner_witness_#{System.pid()}")
  @touch ["touch", @witness]

  setup do
    tree = Tree.new()
    launcher = Tree.current_launcher()
    running = running()
    servers = servers()

    on_exit(fn ->
      existed? = File.exists?(@witness)
      File.rm(@witness)
      refute existed?
      assert running() -- running == []
      Tree.await(fn -> servers() -- servers == [] end)
      assert Tree.current_launcher() == launcher
      Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)

      Tree.await(fn -> Tree.fds() <= tree.fds end, 60_000, fn -> {tree.fds, Tree.fd_targets()} end)
    end)

    directory = NetRunner.Temporary.path("bad")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  defp running, do: for(%{pid: server} <- NetRunner.list(), do: server)

  # One may be there for a moment when its command is over.
  defp servers, do: for({server, _} <- NetRunner.Registry.all(:command), do: server)

  # Through all doors; the stream that raises does so when it is enumerated.
  defp refused(command, options \\ []) do
    assert {:error, reason} = result = NetRunner.run(command, options)
    assert NetRunner.stream(command, options) == result

    error =
      assert_raise NetRunner.Error, fn -> Enum.to_list(NetRunner.stream!(command, options)) end

    assert error.reason == reason
    assert Exception.message(error) =~ "failed: "

    with [executable | args] when is_list(args) <- command do
      assert Command.start(executable, args, options) == result
      assert Command.start_link(executable, args, options) == result
    end

    reason
  end

  describe "a command that" do
    test "is empty, or no list" do
      for command <- [[], "ls -l", nil, %{}, :ls] do
        assert {:invalid_cmd, message} = refused(command)
        assert message =~ "[executable | args]"
      end
    end

    test "has an executable that is none" do
      assert {:invalid_cmd, "the executable is an empty string"} = refused([""])
      assert {:invalid_cmd, "the executable contains a NUL byte: " <> _} = refused(["ls\0"])
      assert {:invalid_cmd, "the executable must be a string, got: :ls"} = refused([:ls])
      assert {:invalid_cmd, "the executable must be a string, got: " <> got} = refused([~c"ls"])
      assert got == inspect(~c"ls")
    end

    test "has arguments that are none" do
      assert {:invalid_args, "argument 2 contains a NUL byte: " <> _} =
               refused(["echo", "a", "b\0c"])

      assert {:invalid_args, "argument 1 is not a string: 1"} = refused(["echo", 1])
      assert {:invalid_args, "arguments must be a list, got: " <> _} = refused(["echo" | "a"])
      assert {:invalid_args, _} = refused(["echo", "a" | "b"])

      assert {:invalid_args,
              "argument 1 is not a string: the option :cd; options are a list of their own, after the arguments"} =
               refused(["echo", cd: "/"])
    end

    test "is not there, or not executable", %{directory: directory} do
      assert refused(["no-such-program"]) == :enoent
      assert refused(["/no/such/program"]) == :enoent
      assert refused([directory]) == :eacces
      assert refused(["./"]) == :eacces

      file = Path.join(directory, "file")
      File.write!(file, "#!/bin/sh\necho hello\n")
      File.chmod!(file, 0o644)
      assert refused([file]) == :eacces
      # Found on PATH, but not allowed: as execvp(3).
      assert refused(["file"], env: [{"PATH", directory}]) == :eacces

      File.chmod!(file, 0o755)
      assert NetRunner.run([file]) == {"hello\n", 0}

      File.write!(file, "#!/no/such/interpreter\n")
      assert refused([file]) == :enoent
      assert refused(["true"], env: [{"PATH", ""}]) == :enoent
      assert refused([Path.join(file, "below")]) in [:enotdir, :enoent]
    end
  end

  test "a NUL in the executable or in an argument is the same error through all doors" do
    alias NetRunner.{Command, Daemon}

    for {[executable | args] = command, kind} <- [
          {["ls\0"], :invalid_cmd},
          {["ls", "a", "b\0"], :invalid_args}
        ] do
      assert {^kind, message} = refused(command)
      as_value = Command.new(executable, args)
      assert refused(as_value) == {kind, message}
      error = {:error, {kind, message}}
      assert NetRunner.Process.start(as_value) == error
      assert NetRunner.capture(command) == error
      assert Daemon.start_link(cmd: executable, args: args) == error
      assert Daemon.start_link(cmd: as_value) == error
      assert_raise NetRunner.Error, fn -> NetRunner.run!(command) end
      assert NetRunner.pipeline([command]) == {:error, {:command, 0, {kind, message}}}
    end

    assert {:error, {:invalid_args, _}} = NetRunner.run(Command.new("ls"), args: ["\0"])
    assert {:error, {:invalid_args, _}} = Daemon.start_link(cmd: Command.new("ls"), args: ["\0"])
  end

  describe "a directory that" do
    test "is nowhere, or none, or has a NUL", %{directory: directory} do
      assert refused(@touch, cd: "/nowhere") == {:cd, :enoent}
      assert refused(@touch, cd: "/bin/sh") == {:cd, :enotdir}
      assert {:invalid_cd, message} = refused(@touch, cd: "a\0b")
      assert message =~ "NUL"
      assert {"", 0} = NetRunner.run(["true"], cd: directory)
    end
  end

  describe "a variable that" do
    test "has a NUL, or a name that is none" do
      for env <- [[{"A\0", "1"}], [{"A", "1\0"}], [{"", "1"}], [{"A=B", "1"}]] do
        assert {:invalid_env, _} = refused(@touch, env: env)
      end
    end
  end

  describe "an option that" do
    test "nobody knows is named, with the nearest known one" do
      for {unknown, nearest} <- [
            timeot: :timeout,
            inputs: :input,
            std_err: :stderr,
            cwd: :cd,
            rlimit: :rlimits
          ] do
        message =
          assert_raise(ArgumentError, fn -> NetRunner.run(@touch, [{unknown, 1}]) end).message

        assert message =~ inspect(unknown)
        if unknown != :cwd, do: assert(message =~ "did you mean #{inspect(nearest)}?")
      end
    end

    test "is of another function says so" do
      assert_raise ArgumentError, ~r/:timeout has no meaning/, fn ->
        Command.start("touch", [@witness], timeout: 1)
      end

      assert_raise ArgumentError, ~r/:name has no meaning/, fn ->
        NetRunner.run(@touch, name: :x)
      end
    end

    test "is no name" do
      for name <- [true, false, :undefined] do
        assert_raise ArgumentError, ~r/:name must be/, fn ->
          Command.start("touch", [@witness], name: name)
        end
      end
    end

    test "stands where System.cmd/3 has it, and shows nothing" do
      for name <- [:run, :run!, :capture, :stream, :stream!] do
        error =
          assert_raise ArgumentError, ~r/call NetRunner.cmd\/3$/, fn ->
            apply(NetRunner, name, ["touch", [@witness], [env: %{"PW" => "s3cret"}]])
          end

        refute Exception.message(error) =~ "s3cret"
      end
    end

    # Those that take it.
    defp functions(name) when name in [:timeout, :max_output_size],
      do: [&NetRunner.run(@touch, &1)]

    defp functions(:input),
      do: functions(:timeout) ++ [&NetRunner.stream(@touch, &1), &NetRunner.stream!(@touch, &1)]

    defp functions(_) do
      functions(:input) ++
        [&Command.start("touch", [@witness], &1), &Command.start_link("touch", [@witness], &1)]
    end

    test "has the wrong type says what it must be" do
      wrong = [
        cd: :tmp,
        env: "A=1",
        env: [:a],
        env: [{:a, "1"}],
        clear_env: 1,
        arg0: :x,
        arg0: "a\0",
        umask: -1,
        umask: 0o1000,
        stdin: :what,
        stdin: {:append, "x"},
        stdout: :consume,
        stdout: {:file, nil},
        stderr: {:fiel, "x"},
        stderr_tail: -1,
        pipe_size: :large,
        stop_signal: :sigwhat,
        kill_timeout: :infinity,
        kill_timeout: 1.5,
        leftovers: :maybe,
        user: -1,
        group: 1.0,
        groups: "wheel",
        nice: 20,
        rlimits: [what: 1],
        rlimits: [cpu: {2, 1}],
        no_new_privs: :yes,
        pty: [rows: 0],
        pty: [colour: true],
        owner: "me",
        input: 1,
        timeout: -1,
        max_output_size: "1k"
      ]

      for {name, value} <- wrong do
        messages =
          for function <- functions(name) do
            assert_raise(ArgumentError, fn -> function.([{name, value}]) end).message
          end

        assert [message] = Enum.uniq(messages)
        assert message =~ "the option #{inspect(name)} must be"
        if name not in [:env, :input], do: assert(message =~ "got: #{inspect(value)}")
      end
    end

    test "stands in no keyword list" do
      for options <- [:timeout, %{timeout: 1}, [:timeout], [{"timeout", 1}]] do
        for function <- functions(:cd) do
          assert_raise ArgumentError, ~r/keyword list/, fn -> function.(options) end
        end
      end
    end

    test "contradicts another" do
      assert_raise ArgumentError, ~r/:input and :stdin exclude each other/, fn ->
        NetRunner.run(["cat"], input: "a", stdin: :null)
      end
    end
  end

  test "input that is no iodata raises" do
    assert_raise ArgumentError, ~r/:input/, fn -> NetRunner.run(["cat"], input: [:a]) end
  end

  test "an unknown signal is no signal" do
    {:ok, p} = Command.start("cat")

    for signal <- [:sigwhat, 0, 65, -1, "sigterm", nil] do
      assert Command.kill(p, signal) == {:error, :unknown_signal}
    end

    assert Command.alive?(p)
    Command.stop(p)
  end

  test "no error and no stacktrace of a call that cannot be meant shows what is secret" do
    secret = [env: [{"PASSWORD", "s3cret"}], input: "s3cret"]
    {:ok, p} = Command.start("cat")
    # Elixir 1.20 warns of the type of a literal.
    no_string = Function.identity(~c"true")

    for call <- [
          fn -> Command.write(p, "s3cret", nil) end,
          fn -> Command.write_fd(p, 2, "s3cret") end,
          fn -> NetRunner.shell(no_string, secret) end,
          fn -> NetRunner.cmd(no_string, [], secret) end,
          fn -> NetRunner.cmd("true", nil, secret) end,
          fn -> NetRunner.cmd("true", [], Map.new(secret)) end,
          fn -> NetRunner.cmd("true", [], secret ++ [:more]) end,
          fn -> NetRunner.cmd("true", [], [:more | secret]) end,
          fn -> NetRunner.cmd("true", [], evn: [{"PASSWORD", "s3cret"}]) end,
          fn -> NetRunner.cmd("true", [], env: "PASSWORD=s3cret") end
        ] do
      {error, stacktrace} =
        try do
          flunk("was taken: #{inspect(call.())}")
        rescue
          error -> {error, __STACKTRACE__}
        end

      assert error.__struct__ in [ArgumentError, FunctionClauseError]
      refute inspect({error, stacktrace}, structs: false, limit: :infinity) =~ "s3cret"
    end

    Command.stop(p)
  end
end
