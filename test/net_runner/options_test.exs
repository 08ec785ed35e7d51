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
      assert Options.validate!([], [:stream]) == %{tagged: false, lines: nil}
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
      name: [nil, :x, {:global, "x"}, {:via, Registry, {:r, 1}}]
    ]

    for {name, values} <- allowed, value <- values, do: assert(check(name, value) == value)
  end

  test "beyond the borders the message names the option, what it takes, and what it got" do
    refused = [
      cd: [:x, ~c"x", 1],
      env: [nil, "A=1", 1..2, fn x -> x end, [{"A", 1}], ["A"], [{"A", "1"} | :x], [a: "1"]],
      clear_env: [nil, "true"],
      arg0: ["a\0", ~c"a"],
      umask: [-1, 0o1000, "022"],
      stdin: [:redirect, :consume, {:append, "x"}, {:file, "a\0"}, {:file, ~c"a"}],
      stdout: [:consume, :disabled, {:file, nil}],
      stderr: [nil, true, {:tee, "x"}],
      stderr_tail: [-1, 0x8000_0000, 1.0],
      pipe_size: [-1, 0x8000_0000, :infinity],
      kill_timeout: [-1, 0x8000_0000, :infinity],
      stop_signal: [0, 32, 65, :sigwhat, nil, "sigterm"],
      leftovers: [nil, true],
      user: [-1, 0xFFFF_FFFF, :root, "a\0"],
      groups: ["root", [nil], ["root" | "adm"]],
      nice: [-21, 20, 0.5],
      rlimits: [[what: 1], [cpu: -1], [cpu: {2, 1}], [cpu: {:infinity, 1}], [cpu: nil]],
      rlimits: [[cpu: {1, {2, 3}}], [cpu: {{1, 2}, {2, 3}}], [cpu: 0x8000_0000_0000_0000]],
      rlimits: [[{:cpu, 1} | :x], %{cpu: 1}],
      no_new_privs: [nil, 1],
      pty: [nil, [rows: 0], [cols: 65_536], [echo: 1], [colour: true], [{:rows, 1} | :x]],
      owner: [:me, "me", make_ref()],
      node: ["a@b", 1],
      input: [1, :x, fn -> "a" end],
      timeout: [-1, 0x1_0000_0000, 1.5, nil],
      max_output_size: [-1, "1k", nil],
      tagged: [nil, 1],
      lines: [true, :split],
      cgroup_path: [:x, 1],
      cgroup: [[pids: 1], [pids_max: -1], [cpu_max: 1], [cpu_weight: 0], %{pids_max: 1}],
      exit_status: [nil, false],
      name: ["x", {:local, :x}, {:via, "Registry", 1}]
    ]

    for {name, values} <- refused, value <- values do
      message = message([{name, value}])
      assert message =~ "the option #{inspect(name)} must be ", inspect({name, value})
      assert message =~ "got: #{inspect(value)}"
    end
  end

  test "a name that nobody knows is answered with the nearest that the function takes" do
    assert message(kil_timeout: 1) == "unknown option :kil_timeout; did you mean :kill_timeout?"
    assert message(environment: 1) == "unknown option :environment; did you mean :env?"
    assert message(max_ouput_size: 1) =~ "did you mean :max_output_size?"
    # Nearest overall is :timeout, which a process does not take.
    assert message([timeoutt: 1], [:command, :process]) =~ "did you mean :kill_timeout?"

    assert message([timeout: 1], [:command]) ==
             "the option :timeout has no meaning for this function"
  end

  test "the first unknown name is told before a wrong value" do
    assert message(nice: "x", what_is_this: 1) =~ "unknown option :what_is_this"
  end

  test "the documentation of every function lists each option that it takes, with its default" do
    for group <- @groups do
      text = Options.documentation([group])

      for {name, default} <- Options.validate!([], [group]) do
        assert text =~ "`#{inspect(name)}` - "
        assert text =~ "Default: `#{inspect(default)}`"
      end
    end

    {:docs_v1, _, _, _, _, _, docs} = Code.fetch_docs(NetRunner)

    for {function, groups} <- [
          run: [:command, :input, :run],
          stream: [:command, :input],
          stream!: [:command, :input, :stream]
        ] do
      [text] = for {{:function, ^function, _}, _, _, %{"en" => text}, _} <- docs, do: text
      for group <- groups, do: assert(text =~ Options.documentation([group]))
    end
  end
end
