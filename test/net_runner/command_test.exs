defmodule NetRunner.CommandTest do
  use ExUnit.Case, async: true

  alias NetRunner.Command

  defmodule Shown do
    use NetRunner.Command

    @doc "Prints its arguments, one on a line."
    defcommand(:show, "printf", args: ["%s\\n", "first"], timeout: 5_000)
    defcommand(:plain, "cat")
    defcommand(:here, "pwd", cd: System.get_env("NET_RUNNER_COMMAND_TEST", "/"))
  end

  describe "defcommand" do
    test "defines a function that gives the command, and one that appends arguments" do
      assert Shown.show() == Command.new("printf", ["%s\\n", "first"], timeout: 5_000)
      assert Shown.show(["a b", "$c"]).args == ["%s\\n", "first", "a b", "$c"]
      assert Shown.plain() == %Command{cmd: "cat", args: [], opts: []}
      assert_raise ArgumentError, ~r/list of strings/, fn -> Shown.show("no list") end
    end

    test "lists the names, in their order" do
      assert Shown.__commands__() == [:show, :plain, :here]
    end

    test "evaluates options when the function is called" do
      on_exit(fn -> System.delete_env("NET_RUNNER_COMMAND_TEST") end)
      assert NetRunner.run(Shown.here()) == {"/\n", 0}
      System.put_env("NET_RUNNER_COMMAND_TEST", "/usr")
      assert NetRunner.run(Shown.here()) == {"/usr\n", 0}
    end

    defp defining(definition) do
      name = "NetRunner.CommandTest.Bad#{System.unique_integer([:positive])}"

      Code.compile_string("""
      defmodule #{name} do
        use NetRunner.Command
        #{definition}
      end
      """)
    end

    test "is checked when the module is compiled, where something stands there literally" do
      for {definition, message} <- [
            {~S(defcommand :x, "x", timeuot: 1),
             ~r/unknown option :timeuot; did you mean :timeout/},
            {~S|defcommand :x, "x", timeuot: String.length("a")|, ~r/unknown option :timeuot/},
            {~S(defcommand :x, "x", timeout: 1.5), ~r/:timeout must be milliseconds/},
            {~S(defcommand :x, "x", timeout: -1), ~r/:timeout must be milliseconds/},
            {~S(defcommand :x, "x", nice: -21), ~r/:nice must be an integer from -20/},
            {~S(defcommand :x, "x", args: ["a", :b]), ~r/argument 2 is not a string: :b/},
            {~S(defcommand :x, "x", args: "a"), ~r/list of strings/},
            {~S(defcommand :x, :x), ~r/executable must be a string, got: :x/},
            {~S(defcommand :x, "x", input: "a", stdin: :null), ~r/exclude each other/}
          ] do
        assert_raise ArgumentError, message, fn -> defining(definition) end
      end
    end

    test "is evaluated when it is called, where it is computed, and nil is no option" do
      [{module, _}] =
        defining("""
        @timeout 5
        defcommand :x, System.get_env("NONE", "x"), args: nil, timeout: @timeout, cd: nil, env: %{"A" => "1"}
        defcommand :y, "y", timeout: String.length("abc") - 4
        """)

      # By `apply`, because the compiler does not know the module.
      assert %Command{cmd: "x", args: [], opts: options} = apply(module, :x, [])
      assert options[:timeout] == 5
      assert_raise ArgumentError, ~r/:timeout must be/, fn -> apply(module, :y, []) end
    end

    test "wants an atom" do
      assert_raise ArgumentError, ~r/needs an atom/, fn ->
        Code.compile_string("""
        defmodule NetRunner.CommandTest.Bad do
          use NetRunner.Command
          defcommand "show", "printf"
        end
        """)
      end
    end
  end

  describe "defcommand with options that are none" do
    defp define(options) do
      Code.eval_string("""
      defmodule NetRunner.CommandTest.Wrong#{System.unique_integer([:positive])} do
        use NetRunner.Command
        defcommand :ls, "ls", #{options}
      end
      """)
    end

    test "is refused when it is compiled, where they are literal" do
      for options <- [~s(["-l"]), ~s("-l"), ~s(%{}), ":args"] do
        assert_raise ArgumentError, ~r/options must be a keyword list/, fn -> define(options) end
      end
    end

    test "is refused when it is called, where they are computed" do
      {{:module, module, _, _}, _} = define(~S|String.split("-l")|)
      assert_raise ArgumentError, ~r/options must be a keyword list/, fn -> module.ls() end
    end
  end

  describe "a command" do
    test "runs, streams and starts" do
      show = Shown.show(["second"])
      assert NetRunner.run(show) == {"first\nsecond\n", 0}
      assert NetRunner.stream!(show) |> Enum.join() == "first\nsecond\n"
      assert {:ok, stream} = NetRunner.stream(show)
      assert Enum.join(stream) == "first\nsecond\n"

      for start <- [&NetRunner.Process.start/1, &NetRunner.Process.start_link/1] do
        assert {:ok, p} = start.(show)
        assert NetRunner.Process.await_exit(p) == {:ok, 0}
        assert NetRunner.Process.read(p) == {:ok, "first\nsecond\n"}
        NetRunner.Process.stop(p)
      end
    end

    test "of a call: arguments are appended, options win" do
      here = Command.new("sh", ["-c", "pwd; echo $@", "sh"], cd: "/", timeout: 5_000)
      assert NetRunner.run(here) == {"/\n\n", 0}
      assert NetRunner.run(here, args: ["x"], cd: "/usr") == {"/usr\nx\n", 0}
      assert NetRunner.run(Command.new("sleep", ["100"]), timeout: 50) == {:error, :timeout}

      assert NetRunner.run(Command.new("sleep", [], timeout: 50), args: ["9"]) ==
               {:error, :timeout}

      assert NetRunner.stream!(here, args: ["x"], cd: "/usr") |> Enum.join() == "/usr\nx\n"

      {:ok, p} = NetRunner.Process.start(here, ["a"], args: ["b"], cd: "/usr")
      assert NetRunner.Process.await_exit(p) == {:ok, 0}
      assert NetRunner.Process.read(p) == {:ok, "/usr\na b\n"}
      NetRunner.Process.stop(p)
    end

    test "passes over its options that a function does not have, but not those of the call" do
      command = Command.new("echo", ["x"], timeout: 5_000, max_output_size: 10, name: :nobody)
      assert NetRunner.stream!(command) |> Enum.to_list() == ["x\n"]
      assert NetRunner.run(command) == {"x\n", 0}

      assert_raise ArgumentError, ~r/:name has no meaning/, fn ->
        NetRunner.stream!(command, name: :nobody)
      end

      assert_raise ArgumentError, ~r/:args has no meaning/, fn ->
        NetRunner.run(["echo"], args: ["x"])
      end
    end

    test "is checked when it is made" do
      assert_raise ArgumentError, ~r/did you mean :timeout/, fn ->
        Command.new("a", [], timout: 1)
      end

      assert_raise ArgumentError, ~r/:cd must be a path/, fn -> Command.new("a", [], cd: 1) end
      assert_raise ArgumentError, ~r/keyword list/, fn -> Command.new("a", [], [1]) end

      # By `apply`: the compiler of Elixir 1.20 sees that these are wrong.
      for args <- ["b", ["b" | "c"], ~c"bc"] do
        assert_raise ArgumentError, ~r/list of strings/, fn ->
          apply(Command, :new, ["a", args])
        end
      end

      says = "argument 2 is not a string: 1"
      assert_raise ArgumentError, says, fn -> apply(Command, :new, ["a", ["b", 1]]) end
      assert_raise ArgumentError, says, fn -> NetRunner.shell("x", args: ["b", 1]) end

      assert_raise ArgumentError, ~r/must be a string/, fn -> apply(Command, :new, [~c"a"]) end

      assert_raise ArgumentError, ~r/list of strings/, fn ->
        Command.to_cmd_args_opts(Command.new("a"), args: "b")
      end
    end

    test "is checked, too, when it was put together or changed by hand" do
      echo = Command.new("echo", ["a"])

      for {wrong, says} <- [
            {%Command{cmd: ~c"echo"}, ~r/must be a string/},
            {%{echo | args: "a"}, ~r/list of strings/},
            {%{echo | opts: nil}, ~r/keyword list/},
            {%{echo | opts: %{env: %{"PW" => "s3cret"}}}, ~r/keyword list, got a map$/},
            {%{echo | opts: [timeuot: 1]}, ~r/did you mean :timeout/},
            {%{echo | opts: [sandbx: []]}, ~r/did you mean :sandbox/}
          ],
          call <- [
            &NetRunner.run/1,
            &NetRunner.run!/1,
            &NetRunner.capture/1,
            &NetRunner.stream!/1,
            &NetRunner.stream/1,
            &NetRunner.Process.start/1,
            &NetRunner.Process.start(&1, ["b"]),
            &NetRunner.pipeline([~w(true), &1]),
            &NetRunner.pipeline_stream!([&1, ~w(cat)]),
            &NetRunner.Daemon.child_spec(cmd: &1),
            &NetRunner.Daemon.start_link(cmd: &1),
            &Command.to_cmd_args_opts/1
          ] do
        assert_raise ArgumentError, says, fn -> call.(wrong) end
      end

      assert_raise ArgumentError, ~r/takes a NetRunner.Command, got: a list$/, fn ->
        apply(Command, :to_cmd_args_opts, [["a"], [env: %{"PW" => "s3cret"}]])
      end
    end

    test "that cannot be started says why" do
      assert NetRunner.run(Command.new("no-such-program")) == {:error, :enoent}
      assert {:error, {:invalid_cmd, _}} = NetRunner.run(Command.new(""))

      assert_raise NetRunner.Error,
                   ~r/^`no-such-program x` failed: there is no such executable/,
                   fn ->
                     NetRunner.stream!(Command.new("no-such-program"), args: ["x"])
                     |> Stream.run()
                   end
    end
  end
end
