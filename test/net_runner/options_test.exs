defmodule NetRunner.OptionsTest do
  # The table of options as it is: what each type takes at its borders, and what it says to the rest.
  # What the functions do with it stands in bad_input_test.exs.
  use ExUnit.Case, async: true

  alias NetRunner.Options

  @groups [:command, :input, :run, :stream, :process, :daemon, :raising]

  defp check(name, value), do: Map.fetch!(Options.validate!([{name, value}], @groups), name)

  defp message(options, groups \\ @groups) do
    assert_raise(ArgumentError, fn -> Options.validate!(options, groups) end).message
  end

  describe "without being given," do
    test "every option of the groups has its default, and no other option is there" do
      assert %{stderr: :consume, kill_timeout: 5_000, stop_signal: :sigterm, owner: :caller} =
               options = Options.validate!([], [:command])

      assert %{cd: nil, env: [], clear_env: false, leftovers: :kill, pty: false} = options
      refute is_map_key(options, :timeout)

      assert %{timeout: :infinity, max_output_size: :infinity} = Options.validate!([], [:run])

      assert Options.validate!([], [:stream]) ==
               %{tagged: false, lines: nil, max_chunk_size: 524_288}

      assert Options.validate!([], [:raising]) == %{exit_status: :raise}
      assert Options.validate!([], []) == %{}
    end
  end

  test "an option that is given twice has its first value, as in every keyword list" do
    assert %{kill_timeout: 1} = Options.validate!([kill_timeout: 1, kill_timeout: 2], [:command])
  end

  test "at the borders of what they take" do
    allowed = [
      cd: [nil, "", "/tmp", "ä"],
      env: [[], %{}, [{"A", nil}], %{"A" => "1"}, Stream.map([1], &{"A", "#{&1}"})],
      umask: [nil, 0, 0o777],
      stdin: [:pipe, :null, :inherit, {:file, "x"}],
      stdout: [:pipe, :null, :inherit, {:file, "x"}, {:append, "x"}],
      stderr: [:consume, :pipe, :redirect, :disabled, :inherit, {:file, "x"}, {:append, "x"}],
      stderr_tail: [0, 0x7FFF_FFFF],
      pipe_size: [0, 0x7FFF_FFFF],
      kill_timeout: [0, 0x7FFF_FFFF],
      stop_signal: [:sigint, 1, 31, 64],
      user: [nil, "root", 0, 0xFFFF_FFFE],
      groups: [nil, [], ["root", 0]],
      nice: [nil, -20, 19],
      rlimits: [[], [cpu: 0], [cpu: 0x7FFF_FFFF_FFFF_FFFF], [cpu: :infinity]],
      rlimits: [[cpu: {1, 1}], [cpu: {1, :infinity}], [cpu: {:infinity, :infinity}]],
      pty: [true, false, [], [rows: 1, cols: 65_535, echo: false]],
      owner: [nil, :caller, self()],
      input: [nil, "", [], ["a" | "b"], %{}, Stream.cycle(["a"])],
      timeout: [0, 0xFFFF_FFFF, :infinity],
      max_output_size: [0, 0x1_0000_0000_0000_0000, :infinity],
      lines: [nil, :keep, :trim, {:keep, <<0>>}, {:trim, "\r\n\r\n"}],
      max_chunk_size: [nil, 1, 16_777_216],
      cgroup: [
        [cpu_max: {1_000, 1_000}, cpu_weight: 1],
        [cpu_max: {:max, 1_000_000}, pids_max: 0]
      ],
      name: [nil, :x, {:global, "x"}, {:via, Registry, {:r, 1}}]
    ]

    for {name, values} <- allowed, value <- values do
      # Enumerated by the check, so that the command gets what was checked.
      expected =
        case {name, value} do
          {:owner, nil} -> nil
          {_, nil} -> Map.fetch!(Options.validate!([], @groups), name)
          {:env, env} -> Enum.to_list(env)
          _ -> value
        end

      assert check(name, value) === expected
    end
  end

  test "nil is as if the option were not given" do
    defaults = Options.validate!([], @groups)

    for {name, _} <- defaults,
        do:
          assert(
            Options.validate!([{name, nil}], @groups) == %{
              defaults
              | owner: if(name == :owner, do: nil, else: :caller)
            }
          )

    assert %{timeout: 5} = Options.validate!([timeout: nil, timeout: 5], [:run])
    assert message(timeuot: nil) =~ "unknown option :timeuot"
    assert message([timeout: nil], [:command]) =~ "no meaning for this function"
  end

  test "nil within an option is as if it were not given there" do
    assert check(:pty, rows: nil, cols: 2) == [cols: 2]
    assert check(:rlimits, cpu: nil) == []
    assert check(:cgroup, pids_max: nil, cpu_weight: 1) == [cpu_weight: 1]
    assert check(:fds, %{3 => nil, 4 => :input}) == %{4 => :input}

    assert %{max_output_size: [total: 1]} =
             Options.validate!([max_output_size: [stdout: nil, total: 1]], [:capture])
  end

  test "an option may mean something else for another function" do
    limits = [max_output_size: [stdout: 1, stderr: :infinity]]

    assert %{max_output_size: [stdout: 1, stderr: :infinity]} =
             Options.validate!(limits, [:capture])

    assert message(limits, [:run]) =~
             ":max_output_size must be a number of bytes, or :infinity, got"

    # A command is for any.
    assert %{} = Options.validate!(limits, [:run, :capture, :command])

    assert message([max_output_size: "1k"], [:run, :capture]) =~
             "must be a number of bytes, or :infinity; or a number of bytes, :infinity, or a keyword list"

    assert %{stderr: :pipe} = Options.validate!([], [:capture, :command])
    assert %{stderr: :consume} = Options.validate!([stderr: :consume], [:capture, :command])
  end

  test "an owner that is nil or :none is nobody" do
    assert check(:owner, nil) == nil
    assert check(:owner, :none) == nil
  end

  test "a number of the other kind is no default" do
    for {name, value} <- Options.validate!([], @groups), is_integer(value) do
      assert message([{name, value * 1.0}]) =~ "the option #{inspect(name)} must be "
    end

    for option <- [
          umask: 0.0,
          nice: 0.0,
          stop_signal: 15.0,
          stop_signal: 34.0,
          user: 0.0,
          groups: [0.0],
          rlimits: [cpu: 1.0],
          rlimits: [cpu: {1, 2.0}],
          pty: [rows: 24.0],
          cgroup: [pids_max: 1.0],
          cgroup: [cpu_weight: 100.0],
          cgroup: [cpu_max: {1_000.0, 1_000}],
          cgroup: [cpu_max: {1_000, 1_000.0}],
          timeout: 1.0,
          max_output_size: 1.0,
          ready: {:tcp, "localhost", 80.0}
        ] do
      assert message([option]) =~ "must be "
    end
  end

  test "what is enumerated is enumerated once" do
    test = self()

    env =
      Stream.map([{"A", "1"}], fn variable ->
        send(test, :enumerated)
        variable
      end)

    assert check(:env, env) == [{"A", "1"}]
    assert_received :enumerated
    refute_received :enumerated
  end

  test "progress is shown by what runs a command to its end or streams it, and refused elsewhere" do
    for off <- [nil, false], do: assert(NetRunner.run(~w(echo a), progress: off) == {"a\n", 0})
    assert NetRunner.run!(NetRunner.Command.new("echo", ["a"], progress: true)) == "a\n"

    sentence =
      "the option :progress has no meaning for this function; " <>
        "NetRunner.run/2, run!/2, shell/2, capture/2, stream/2 and stream!/2 take it"

    for function <- [
          &NetRunner.pipeline([~w(true)], &1),
          &NetRunner.pipeline_stream!([~w(true)], &1),
          &NetRunner.cmd("true", [], &1),
          &NetRunner.Process.start("true", [], &1),
          &NetRunner.Daemon.start_link([cmd: "true"] ++ &1),
          &NetRunner.Daemon.start_link(cmd: "true", process_opts: &1)
        ] do
      assert assert_raise(ArgumentError, fn -> function.(progress: true) end).message == sentence
    end

    for wrong <- [1, "true", :always, [], [true]],
        function <- [:run, :run!, :capture, :stream, :stream!, :shell] do
      command = if function == :shell, do: "true", else: ["true"]
      call = fn -> apply(NetRunner, function, [command, [progress: wrong]]) end

      assert assert_raise(ArgumentError, call).message ==
               "the option :progress must be true or false, got: #{inspect(wrong)}"
    end
  end

  test "beyond the borders the message names the option, what it takes, and what it got" do
    refused = [
      cd: [:x, ~c"x", 1],
      env: ["A=1", 1..2, fn x -> x end, [{"A", 1}], ["A"], [{"A", "1"} | :x], [a: "1"]],
      clear_env: ["true"],
      arg0: ["a\0", ~c"a"],
      umask: [-1, 0o1000, "022"],
      stdin: [:redirect, :consume, {:append, "x"}, {:file, "a\0"}, {:file, ~c"a"}],
      stdout: [:consume, :disabled, {:file, nil}],
      stderr: [true, {:tee, "x"}],
      stderr_tail: [-1, 0x8000_0000, 1.0],
      pipe_size: [-1, 0x8000_0000, :infinity],
      kill_timeout: [-1, 0x8000_0000, :infinity],
      stop_signal: [0, 32, 65, :sigwhat, "sigterm"],
      leftovers: [true],
      user: [-1, 0xFFFF_FFFF, :root, "a\0"],
      groups: ["root", [nil], ["root" | "adm"]],
      nice: [-21, 20, 0.5],
      rlimits: [[what: 1], [cpu: -1], [cpu: {2, 1}], [cpu: {:infinity, 1}]],
      rlimits: [[cpu: {1, {2, 3}}], [cpu: {{1, 2}, {2, 3}}], [cpu: 0x8000_0000_0000_0000]],
      rlimits: [[{:cpu, 1} | :x], %{cpu: 1}],
      no_new_privs: [1],
      pty: [[rows: 0], [cols: 65_536], [echo: 1], [colour: true], [{:rows, 1} | :x]],
      owner: [:me, "me", make_ref()],
      node: ["a@b", 1],
      input: [1, :x, fn -> "a" end],
      timeout: [-1, 0x1_0000_0000, 1.5],
      max_output_size: [-1, "1k"],
      tagged: [1],
      lines: [true, :split, {:trim, ""}, {:split, "x"}, {:trim, ?x}, {:trim, "x", 1}],
      max_chunk_size: [0, 16_777_217, :infinity],
      cgroup_path: [:x, 1],
      cgroup: [
        [pids: 1],
        [pids_max: -1],
        [cpu_max: 1],
        [cpu_weight: 0],
        %{pids_max: 1},
        [cpu_max: {999, 1_000}],
        [cpu_max: {1_000, 999}],
        [cpu_max: {1_000, 1_000_001}]
      ],
      exit_status: [false],
      name: ["x", :undefined, {:local, :x}, {:via, "Registry", 1}]
    ]

    for {name, values} <- refused, value <- values do
      message = message([{name, value}])
      assert message =~ "the option #{inspect(name)} must be ", inspect({name, value})
      if name not in [:env, :input], do: assert(message =~ "got: #{inspect(value)}")
    end
  end

  test "no message shows a value of :env, or an :input" do
    for env <- [
          "A=secret",
          [{"secret", :x} | "secret"],
          [{"A", ["secret"]}],
          ["A=secret"],
          %{"A" => :secret},
          [{:a, "secret"}]
        ] do
      refute message(env: env) =~ "secret"
      refute message(process_opts: [{"env", env}]) =~ "secret"
      refute message(%{env: env}) =~ "secret"
      refute message([{"env", env}]) =~ "secret"
    end

    assert message(env: [{"A", ["secret"]}]) =~
             ~s(got: a value of "A" that is neither a string nor nil)

    refute message(input: {:secret}) =~ "secret"
  end

  test "a name that nobody knows is answered with the nearest that the function takes" do
    assert message(kil_timeout: 1) == "unknown option :kil_timeout; did you mean :kill_timeout?"
    assert message(environment: 1) == "unknown option :environment; did you mean :env?"
    assert message(max_ouput_size: 1) =~ "did you mean :max_output_size?"
    # Nearest overall is :timeout, which a process does not take.
    assert message([timeoutt: 1], [:command, :process]) =~ "did you mean :kill_timeout?"

    assert message([timeout: 1], [:command]) ==
             "the option :timeout has no meaning for this function; " <>
               "NetRunner.run/2, capture/2, streams and pipelines take it"

    assert message([lines: :trim], [:command, :run]) =~ "; streams take it"
    assert message([exit_status: :raise], [:command, :stream]) =~ "; NetRunner.stream!/2 and "
    assert message([name: :a], [:command, :run]) =~ "; NetRunner.Process.start/3 takes it"
    assert message([cmd: "a"], [:command, :run]) =~ "; NetRunner.Daemon takes it"

    assert message([args: ["a"]], [:command, :run]) ==
             "the option :args has no meaning here, where the arguments stand beside the executable; in a call with a NetRunner.Command, it adds some"
  end

  test "a name that is near to none is answered with those that there are" do
    assert message([active: 1], [:run, :process]) ==
             "unknown option :active; the options are :timeout, :max_output_size, :name (see NetRunner.Options " <>
               "and the documentation of the function)"

    refute message(active: 1) =~ "did you mean"
    assert message(active: 1) =~ ":nice"
  end

  test "options that mean nothing beside one another are refused, in any order" do
    for {options, text} <- [
          {[pty: true, stdin: :null],
           "the options :pty and :stdin exclude each other: the terminal is stdin, stdout and stderr"},
          {[pty: true, stdout: :null], ":pty and :stdout exclude each other"},
          {[pty: [rows: 1], stderr: :consume], ":pty and :stderr exclude each other"},
          {[pty: [], stderr_tail: 1], ":pty and :stderr_tail exclude each other"},
          {[stdin: :null, input: "a"], ":input and :stdin exclude each other"},
          {[stderr: :pipe, stderr_tail: 1], ":stderr and :stderr_tail exclude each other"},
          {[stderr: :disabled, stderr_tail: 1], ":stderr and :stderr_tail exclude each other"},
          {[tagged: true, stderr_tail: 1], ":stderr_tail and :tagged exclude each other"}
        ],
        options <- [options, Enum.reverse(options)] do
      assert message(options) =~ text
    end

    for options <- [
          [pty: false, stdin: :null],
          [stdin: :pipe, input: "a"],
          [stderr: :consume, stderr_tail: 1],
          [tagged: true, stderr: :consume, stderr_tail: 1],
          [stdout: :null, lines: :keep, tagged: true],
          [stdout: :null, max_output_size: nil]
        ] do
      assert %{} = Options.validate!(options, @groups)
    end
  end

  test "stderr: :pipe is refused where nobody would read it" do
    for groups <- [[:command, :run], [:command, :run, :stream]] do
      assert message([stderr: :pipe], groups) =~ "nobody would read it here"
    end

    assert %{stderr: :pipe} = Options.validate!([stderr: :pipe], [:command, :process])
    assert %{stderr: :pipe} = Options.validate!([stderr: :pipe], [:command])
    groups = [:command, :run, :stream, :raising]
    assert %{stderr: :pipe} = Options.validate!([stderr: :pipe, tagged: true], groups)
    assert %{stderr: :pipe, exit_status: :ignore} = Options.validate!([tagged: true], groups)
    assert %{stderr: :consume} = Options.validate!([tagged: true, stderr: :consume], groups)
    assert %{exit_status: :raise} = Options.validate!([tagged: true, exit_status: :raise], groups)
  end

  test "options over others win, and leave out what means nothing beside them" do
    own = [pty: true, input: "a", stderr_tail: 1, timeout: 5, max_output_size: 7]
    assert Options.merge(own, timeout: nil, input: nil) == own
    assert Options.merge(own, stdin: :null)[:input] == nil
    assert Options.merge(own, stderr: :disabled)[:stderr_tail] == nil
    assert Options.merge([stdin: :null], pty: true) == [pty: true]
    assert Options.merge([owner: self()], owner: nil) == [owner: nil]
  end

  test "the first unknown name is told before a wrong value" do
    assert message(nice: "x", what_is_this: 1) =~ "unknown option :what_is_this"
  end

  test "the documentation of every function lists each option that it takes, and its own with their defaults" do
    for group <- @groups do
      text = Options.Declared.documentation([group])

      for {name, default} <- Options.validate!([], [group]) do
        assert text =~ "`#{inspect(name)}` - "
        assert text =~ "Default: `#{inspect(default)}`"
      end
    end

    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(NetRunner)

    for {function, groups} <- [
          run: [:input, :run],
          stream: [:input],
          stream!: [:input, :stream]
        ] do
      [text] = for {{:function, ^function, _}, _, _, %{"en" => text}, _} <- docs, do: text
      for group <- groups, do: assert(text =~ Options.Declared.documentation([group]))
      for name <- Options.Name.names([:command]), do: assert(text =~ "`#{inspect(name)}`")
    end
  end
end
