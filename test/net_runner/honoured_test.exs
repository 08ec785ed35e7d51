defmodule NetRunner.HonouredTest do
  # An option is honoured, or refused with a sentence, and what is said about it shows no secret.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias NetRunner.Command
  alias NetRunner.Process, as: Running

  @both ["sh", "-c", "echo out; echo err >&2; exit 3"]

  defp refused(text, function) do
    assert assert_raise(ArgumentError, function).message =~ text
  end

  # All functions that run a command, with the options that they get.
  defp functions(command) do
    [
      run: &NetRunner.run(command, &1),
      stream: &NetRunner.stream(command, &1),
      stream!: &NetRunner.stream!(command, &1),
      pipeline: &NetRunner.pipeline([command], &1),
      pipeline_stream!: &NetRunner.pipeline_stream!([command], &1),
      start: &Running.start(hd(command), tl(command), &1),
      start_link: &Running.start_link(hd(command), tl(command), &1),
      daemon: &NetRunner.Daemon.start_link(cmd: hd(command), args: tl(command), process_opts: &1),
      new: &Command.new(hd(command), tl(command), &1)
    ]
  end

  test "a terminal is all three standard descriptors, so none of them goes beside it" do
    for {name, function} <- functions(["cat"]),
        name not in [:pipeline, :pipeline_stream!],
        other <- [stdin: {:file, "/dev/null"}, stdin: :pipe, stdout: :null, stderr: :pipe] do
      refused("the terminal is stdin, stdout and stderr", fn -> function.([other, pty: true]) end)
    end

    {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat", process_opts: [pty: true])
    GenServer.stop(daemon)
  end

  test "a stderr that is read on demand is refused where nobody reads it" do
    for name <- [:run, :stream, :stream!, :pipeline, :pipeline_stream!] do
      function = functions(@both)[name]
      refused("nobody would read it here", fn -> function.(stderr: :pipe) end)
    end

    refused("nobody would read it here", fn ->
      NetRunner.run(Command.new("cat", [], stderr: :pipe))
    end)

    assert {:ok, 3} = started(stderr: :pipe, read: {:ok, "err\n"})
  end

  defp started(stderr: stderr, read: expected) do
    {:ok, p} = Running.start(hd(@both), tl(@both), stderr: stderr)
    assert Running.read_stderr(p) == expected
    status = Running.await_exit(p)
    Running.stop(p)
    status
  end

  test "a tagged stream leaves a stderr alone that is to be consumed" do
    stream = NetRunner.stream!(@both, tagged: true, stderr: :consume)
    assert Enum.to_list(stream) == [stdout: "out\n", exit: 3]

    stream = NetRunner.stream!(@both, tagged: true, stderr: :consume, exit_status: :raise)
    assert assert_raise(NetRunner.Error, fn -> Enum.to_list(stream) end).stderr == "err\n"
  end

  test "a tagged stream raises for the status where it is told to, after all elements" do
    for tagged <- [[tagged: true], [tagged: true, lines: :keep]] do
      stream = NetRunner.stream!(@both, [exit_status: :raise] ++ tagged)
      test = self()

      error =
        assert_raise NetRunner.Error, fn -> Enum.each(stream, &send(test, {:element, &1})) end

      assert %{reason: :exit_status, status: 3} = error
      for element <- [stdout: "out\n", stderr: "err\n"], do: assert_received({:element, ^element})
      assert_received {:element, {:exit, 3}}
      assert {:exit, 3} in Enum.take(stream, 3)
      assert List.last(Enum.to_list(NetRunner.stream!(@both, tagged))) == {:exit, 3}
    end
  end

  test "a stdin that has to be a pipe is one, at its end where there is no input" do
    kind = ["sh", "-c", "stat -L -c %F /dev/stdin; cat"]
    assert NetRunner.run(kind) == {"character special file\n", 0}
    assert NetRunner.run(kind, stdin: :pipe) == {"fifo\n", 0}
    assert NetRunner.pipeline([kind, ~w(cat)], stdin: :pipe) == {"fifo\n", [0, 0]}
    assert NetRunner.stream!(kind, stdin: :pipe) |> Enum.join() == "fifo\n"
  end

  test "nil is as if an option were not given, beside a command as well" do
    command = Command.new("sh", ["-c", "pwd; echo $A"], cd: "/usr", env: [{"A", "own"}])
    assert NetRunner.run(command, cd: nil, env: nil, timeout: nil) == {"/usr\nown\n", 0}
    assert NetRunner.run(command, args: nil, stderr: nil, kill_timeout: nil) == {"/usr\nown\n", 0}
    assert NetRunner.pipeline([command], cd: nil, max_output_size: nil) == {"/usr\nown\n", [0]}

    stream = NetRunner.stream!(command, lines: nil, tagged: nil, exit_status: nil)
    assert Enum.join(stream) == "/usr\nown\n"

    {:ok, p} = Running.start("cat", [], name: nil, stdin: nil, stop_signal: nil, pty: nil)
    Running.stop(p)

    {:ok, daemon} =
      NetRunner.Daemon.start_link(
        cmd: "cat",
        args: nil,
        on_output: nil,
        ready: nil,
        ready_timeout: nil,
        process_opts: nil
      )

    GenServer.stop(daemon)
  end

  test "an owner that is nobody" do
    for nobody <- [nil, :none] do
      {:ok, p} = Task.await(Task.async(fn -> Running.start("cat", [], owner: nobody) end))
      assert Running.alive?(p)
      Running.stop(p)
    end
  end

  test "what a call says wins over what a command brings, also where both exclude each other" do
    command = Command.new("cat", [], input: "own", max_output_size: 2, stderr_tail: 5)
    assert NetRunner.run(command, stdin: :null) == {"", 0}
    assert NetRunner.run(command, stdout: :null, stderr: :disabled) == {"", 0}

    assert Enum.to_list(NetRunner.stream!(command, tagged: true, input: "a")) == [
             stdout: "a",
             exit: 0
           ]
  end

  describe "no secret is shown" do
    @secret "hush-hush"
    @env [{"TOKEN", @secret}]

    defp silent(function) do
      test = self()

      log =
        capture_log(fn ->
          shown =
            try do
              inspect(function.(), limit: :infinity, printable_limit: :infinity)
            rescue
              exception ->
                {blamed, stack} = Exception.blame(:error, exception, __STACKTRACE__)

                inspect({exception, __STACKTRACE__}, limit: :infinity) <>
                  Exception.format(:error, blamed, stack)
            end

          send(test, {:shown, shown})
        end)

      assert_received {:shown, shown}
      refute log <> shown =~ @secret
      shown
    end

    test "by a supervisor that shows how it starts a daemon" do
      test = self()

      for env <- [@env, Map.new(@env), nil] do
        script = "printf \"${TOKEN-none}\"; read stop"
        options = [cmd: "sh", args: ["-c", script], on_output: &send(test, {:printed, &1})]
        spec = NetRunner.Daemon.child_spec(options ++ [process_opts: [env: env, cd: "/"]])
        refute inspect(spec, limit: :infinity, structs: false) =~ @secret
        refute "#{:io_lib.format("~p", [spec])}" =~ @secret
        {_, _, [arguments]} = spec.start
        hidden = arguments[:process_opts][:env]
        # So that an upgrade of another module does not break it.
        if env, do: assert(Function.info(hidden, :module) == {:module, NetRunner.Options.Hidden})
        start_supervised!(spec)
        expected = if env, do: @secret, else: "none"
        assert_receive {:printed, ^expected}, 60_000
        :ok = stop_supervised(spec.id)
      end
    end

    test "by an option that is wrong" do
      for {_, function} <- functions(["cat"]),
          wrong <- [
            [kill_timeout: 5_000.0],
            [pipe_size: 1_048_576.0],
            [umask: 0.0],
            [env: [{"TOKEN", [@secret]}]],
            [env: [@secret]],
            [env: %{@secret => :x} |> Map.to_list() |> Enum.map(fn {_, v} -> {v, @secret} end)],
            [{@secret, 1}],
            [env: @env, stdin: :what],
            [stdin: @secret],
            [stdin: {:data, @secret}],
            [pty: true, stdin: :null]
          ] do
        silent(fn -> function.(wrong ++ [env: @env]) end) =~ "ArgumentError"
      end

      for options <- [
            [ready_timeout: 10_000.0],
            [process_opts: [@secret]],
            [process_opts: @secret],
            [args: [env: @env]],
            [args: %{env: @env}],
            [cmd: [cmd: "cat", env: @env]]
          ] do
        silent(fn -> NetRunner.Daemon.start_link([cmd: "cat"] ++ options) end)
      end
    end

    test "by a command that cannot be started, or that fails" do
      for command <- [["no-such-program"], ["false"], ["cat", "a\0"], [], ["sh", "-c", "kill $$"]],
          options <- [
            [],
            [cd: "/nowhere"],
            [user: "no-such-user"],
            [stdout: {:file, "/nowhere/x"}]
          ] do
        options = [env: @env, input: @secret] ++ options
        silent(fn -> NetRunner.run(command, options) end)
        silent(fn -> Enum.to_list(NetRunner.stream!(command, options)) end)
        silent(fn -> NetRunner.pipeline([command], options) end)
        silent(fn -> Enum.to_list(NetRunner.pipeline_stream!([command], options)) end)
      end

      for name <- [@secret <> "\0", "A=" <> @secret] do
        silent(fn -> NetRunner.run(["true"], env: [{"A=" <> name, @secret}]) end)
      end

      silent(fn -> NetRunner.run(["true"], env: [{"TOKEN", @secret <> "\0"}]) end)
      silent(fn -> NetRunner.run(["cat"], input: [@secret, :no_iodata]) end)
      silent(fn -> NetRunner.cmd("true", [], env: [{"TOKEN", [@secret]}]) end)
      silent(fn -> NetRunner.cmd("cat", [], input: [@secret, :no_iodata]) end)
      silent(fn -> NetRunner.cmd("true", [], env: [@secret]) end)
    end

    test "by options that stand where a command or its arguments should" do
      for command <- [
            ["cat", env: @env],
            ["cat", [env: @env]],
            ["cat" | %{env: @env}],
            [[env: @env]],
            {"cat", [], env: @env},
            %{cmd: "cat", env: @env}
          ] do
        silent(fn -> NetRunner.run(command) end)
        silent(fn -> NetRunner.pipeline([["cat"], command]) end)
        silent(fn -> Enum.to_list(NetRunner.stream!(command)) end)
      end

      silent(fn -> NetRunner.pipeline([["cat"], env: @env]) end)
      silent(fn -> NetRunner.Process.start("cat", env: @env) end)
      silent(fn -> NetRunner.Process.start(cmd: "cat", env: @env) end)
      silent(fn -> Command.new("cat", env: @env) end)
      # Elixir 1.20 warns of the type of a literal.
      silent(fn -> Command.new(Function.identity(cmd: "cat", env: @env)) end)
      silent(fn -> NetRunner.run(Command.new("cat"), args: [env: @env]) end)
    end

    test "by what is written, or produced as input, and is no iodata" do
      {:ok, cat} = NetRunner.Process.start("cat")

      for wrong <- [[@secret, :no_iodata], [@secret, 999], {@secret}, %{a: @secret}] do
        assert silent(fn -> NetRunner.Process.write(cat, wrong) end) =~ "must be iodata, got: a "

        for input <- [Stream.map([1], fn _ -> wrong end), &Enum.into([wrong], &1)] do
          assert silent(fn -> NetRunner.run(["cat"], input: input) end) =~ "must be iodata"
          silent(fn -> Enum.to_list(NetRunner.stream!(["cat"], input: input)) end)
        end
      end

      assert NetRunner.Process.write(cat, ["a"]) == :ok
    end

    test "by a command that is inspected, also in an error" do
      command = Command.new("psql", ["-l"], env: @env, input: @secret, cd: "/")
      assert silent(fn -> command end) =~ ~s(env: :hidden, input: :hidden, cd: "/")
      assert inspect(%Command{cmd: "a", opts: nil}) =~ ~s(cmd: "a", args: [], opts: :hidden)
      silent(fn -> NetRunner.pipeline([command | command]) end)
      silent(fn -> raise NetRunner.Error, reason: :timeout, command: [command] end)

      no_program = %{command | cmd: "no-such-program"}
      silent(fn -> NetRunner.pipeline([command, no_program]) end)
      silent(fn -> Enum.to_list(NetRunner.pipeline_stream!([no_program, command])) end)
    end
  end
end
