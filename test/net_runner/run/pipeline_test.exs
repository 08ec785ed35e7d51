defmodule NetRunner.PipelineTest do
  use ExUnit.Case, async: true

  defp sh(script), do: ["sh", "-c", script]

  test "joins commands, and gives the status of each" do
    assert NetRunner.pipeline([~w(printf c\\na\\nb\\na\\n), ~w(sort), ~w(uniq -c), ~w(wc -l)]) ==
             {"3\n", [0, 0, 0, 0]}

    assert NetRunner.pipeline([~w(cat)], input: "alone") == {"alone", [0]}
    assert NetRunner.pipeline([sh("exit 3"), sh("cat; exit 4"), ~w(cat)]) == {"", [3, 4, 0]}
  end

  test "takes input for the first and gives output of the last, of any size" do
    data = :rand.bytes(5_000_000)
    commands = [~w(gzip -1), ~w(cat), ~w(gunzip)]
    assert NetRunner.pipeline(commands, input: data) == {data, [0, 0, 0]}
    chunks = for <<chunk::binary-size(1000) <- data>>, do: chunk
    stream = NetRunner.pipeline_stream!(commands, input: Stream.map(chunks, & &1))
    assert Enum.join(stream) == data
  end

  test "lets no byte between two commands through the VM" do
    commands = [~w(yes), ~w(head -c 300000000), ~w(wc --bytes)]
    assert NetRunner.pipeline(commands) == {"300000000\n", [141, 0, 0]}
    assert NetRunner.list() |> Enum.filter(&(&1.command == ~w(wc --bytes))) == []
  end

  test "tells an end from a loss, however fast it comes" do
    for _ <- 1..50 do
      assert NetRunner.pipeline([~w(yes), ~w(head -n 1)]) == {"y\n", [141, 0]}
      assert NetRunner.pipeline([sh("read x; exit 3"), ~w(true)], input: "a\n") == {"", [3, 0]}
    end
  end

  test "has the environment, the directory and more for all, and a command's own options" do
    options = [cd: "/usr", env: [{"WHO", "all"}]]
    own = NetRunner.Command.new("sh", ["-c", "cat; echo $WHO; pwd"], env: [{"WHO", "own"}])

    assert NetRunner.pipeline([sh("echo $WHO; pwd"), own], options) ==
             {"all\n/usr\nown\n/usr\n", [0, 0]}
  end

  test "leads from a file and to a file" do
    path = NetRunner.Temporary.path("pipeline")

    on_exit(fn -> File.rm(path) end)
    File.write!(path, "b\na\n")
    assert NetRunner.pipeline([~w(cat), ~w(sort)], stdin: {:file, path}) == {"a\nb\n", [0, 0]}
    assert NetRunner.pipeline([~w(echo x), ~w(cat)], stdout: {:file, path}) == {"", [0, 0]}
    assert File.read!(path) == "x\n"
  end

  test "errors: none to start, a wrong list, options without a meaning" do
    assert NetRunner.pipeline([~w(yes), ~w(no-such-program)]) == {:error, {:command, 1, :enoent}}
    assert NetRunner.pipeline([~w(nowhere), ~w(cat)]) == {:error, {:command, 0, :enoent}}
    assert {:error, {:command, 1, {:invalid_cmd, _}}} = NetRunner.pipeline([~w(true), []])
    assert_raise ArgumentError, ~r/list of commands/, fn -> NetRunner.pipeline([]) end
    assert_raise ArgumentError, ~r/list of commands/, fn -> NetRunner.pipeline("a | b") end

    for option <- [pty: true, node: node(), cgroup_path: "x"] do
      assert_raise ArgumentError, ~r/no meaning for a pipeline/, fn ->
        NetRunner.pipeline([~w(true)], [option])
      end
    end
  end

  test "what is no command is found before those in front of it run" do
    file = NetRunner.Temporary.path("started")
    on_exit(fn -> File.rm(file) end)

    for {wrong, tag} <- [
          {["grep", nil], :invalid_args},
          {"grep", :invalid_cmd},
          {["a\0"], :invalid_cmd}
        ] do
      assert {:error, {:command, 1, {^tag, _}}} = NetRunner.pipeline([["touch", file], wrong])
    end

    named = NetRunner.Command.new("cat", [], env: [{"A=B", "c"}])

    assert {:error, {:command, 1, {:invalid_env, _}}} =
             NetRunner.pipeline([["touch", file], named])

    refute File.exists?(file)
  end

  test "what produces its input raises in the caller" do
    input = Stream.map(1..2, fn _ -> raise "no input" end)

    assert_raise RuntimeError, "no input", fn ->
      NetRunner.pipeline([~w(cat), ~w(cat)], input: input)
    end

    assert_raise RuntimeError, "no input", fn ->
      Enum.to_list(NetRunner.pipeline_stream!([~w(cat), ~w(cat)], input: input))
    end
  end

  test "no stderr blocks a command, whoever would read it" do
    noisy = sh("head -c 300000 /dev/zero >&2; echo hi")
    assert NetRunner.pipeline([noisy, ~w(cat)]) == {"hi\n", [0, 0]}
    assert NetRunner.pipeline([~w(true), noisy]) == {"hi\n", [0, 0]}

    elements = [noisy, ~w(cat)] |> NetRunner.pipeline_stream!(tagged: true) |> Enum.to_list()
    assert elements == [stdout: "hi\n", exit: [0, 0]]
  end

  test "an option without a meaning is refused also where a command brings it, and nothing starts" do
    assert_raise ArgumentError, ~r/:pty has no meaning for a pipeline/, fn ->
      NetRunner.pipeline([~w(sleep 100.87), NetRunner.Command.new("cat", [], pty: true)])
    end

    assert Enum.filter(NetRunner.list(), &(&1.command == ~w(sleep 100.87))) == []
  end

  describe "of a command's own options," do
    defp own(command, options),
      do: NetRunner.Command.new(hd(command), tl(command), options)

    test "the input is that of the first, and the limit of the output that of the last" do
      assert NetRunner.pipeline([own(~w(cat), input: "own"), ~w(cat)], input: "for all") ==
               {"own", [0, 0]}

      assert NetRunner.pipeline([~w(echo 12345), own(~w(cat), max_output_size: 2)]) ==
               {:error, {:max_output_exceeded, "12"}}

      commands = [~w(echo a), own(~w(cat), lines: :trim)]
      assert commands |> NetRunner.pipeline_stream!() |> Enum.to_list() == ["a"]
    end

    test "a timeout ends all, whichever comes first" do
      # The one for all is long enough for all to start: before that, it is an error of the command that is being started.
      for {own, for_all} <- [{50, 60_000}, {60_000, 1_000}, {50, nil}] do
        commands = [~w(sleep 100), own(~w(cat), timeout: own), ~w(cat)]
        assert NetRunner.pipeline(commands, timeout: for_all) == {:error, :timeout}

        error =
          assert_raise NetRunner.Error, fn ->
            Enum.to_list(NetRunner.pipeline_stream!(commands, timeout: for_all))
          end

        assert error.reason == :timeout
        # Of those whose time is over at once, any may be the first.
        assert error.command in if(own == 50, do: [~w(cat)], else: [~w(sleep 100), ~w(cat)])
      end
    end

    test "exit_status: :ignore is about that command alone" do
      none = own(~w(grep x), exit_status: :ignore)
      assert [~w(echo a), none, ~w(cat)] |> NetRunner.pipeline_stream!() |> Enum.to_list() == []
      assert [~w(echo a), none] |> NetRunner.pipeline_stream!() |> Enum.to_list() == []

      assert %{command: ["false"]} =
               assert_raise(NetRunner.Error, fn ->
                 Enum.to_list(NetRunner.pipeline_stream!([none, ~w(false), none]))
               end)
    end

    test "one that has no meaning where it stands is refused, and nothing starts" do
      for {commands, text} <- [
            {[~w(sleep 100.88), own(~w(cat), input: "a")],
             ":input of the command with index 1 has no meaning in a pipeline: it reads what the command before"},
            {[~w(sleep 100.88), own(~w(cat), stdin: :null)],
             ":stdin of the command with index 1"},
            {[own(~w(sleep 100.88), stdout: :null), ~w(cat)],
             ":stdout of the command with index 0 has no meaning in a pipeline: what it writes is read by"},
            {[own(~w(sleep 100.88), max_output_size: 1), ~w(cat)],
             ":max_output_size of the command"},
            {[own(~w(sleep 100.88), stderr: :pipe), ~w(cat)], "nobody would read it here"}
          ] do
        error = assert_raise ArgumentError, fn -> NetRunner.pipeline(commands) end
        assert error.message =~ text
      end

      for {commands, text} <- [
            {[~w(sleep 100.88), own(~w(cat), tagged: true)], "it applies to the whole pipeline"},
            {[own(~w(sleep 100.88), lines: :trim), ~w(cat)], ":lines of the command with index 0"}
          ] do
        error = assert_raise ArgumentError, fn -> NetRunner.pipeline_stream!(commands) end
        assert error.message =~ text
      end

      assert Enum.filter(NetRunner.list(), &(&1.command == ~w(sleep 100.88))) == []
    end
  end

  describe "its stream" do
    test "carries the stderr of the command that its error names, when it passes a limit" do
      waiting = sh("echo why >&2; exec sleep 100")
      printing = sh("echo also >&2; exec cat")

      error =
        assert_raise NetRunner.Error, fn ->
          Enum.to_list(NetRunner.pipeline_stream!([waiting, printing], timeout: 3_000))
        end

      assert %{reason: :timeout, command: ^waiting, stderr: "why\n"} = error

      # What it has written to stderr before is read before: it waits for that.
      loud = sh("echo why >&2; sleep 0.3; exec yes")

      error =
        assert_raise NetRunner.Error, fn ->
          Enum.to_list(NetRunner.pipeline_stream!([~w(true), loud], max_output_size: 10))
        end

      assert %{reason: {:max_output_exceeded, _}, command: ^loud, stderr: "why\n"} = error
    end

    test "raises after its tagged end, where that is asked for" do
      stream =
        NetRunner.pipeline_stream!([~w(echo a), sh("cat; exit 3")],
          tagged: true,
          exit_status: :raise
        )

      assert Enum.take(stream, 2) == [stdout: "a\n", exit: [0, 3]]
      error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
      assert %{reason: :exit_status, status: 3} = error
    end

    test "raises for the first that failed, with its command and stderr" do
      failing = sh("echo why >&2; exit 3")

      error =
        assert_raise NetRunner.Error, fn ->
          Enum.to_list(NetRunner.pipeline_stream!([~w(echo a), failing, ~w(cat)]))
        end

      assert %{command: ^failing, status: 3, stderr: "why\n"} = error

      error =
        assert_raise NetRunner.Error, fn ->
          Enum.to_list(NetRunner.pipeline_stream!([~w(true), ~w(nowhere)]))
        end

      assert %{reason: {:command, 1, :enoent}, command: ["nowhere"]} = error

      assert Exception.message(error) ==
               "`nowhere` (index 1 in its pipeline) failed: there is no such executable, or its interpreter " <>
                 "(the #! line) does not exist (:enoent)"
    end

    test "takes SIGPIPE of one that is not the last for no failure" do
      assert [~w(yes), ~w(head -n 1)] |> NetRunner.pipeline_stream!() |> Enum.to_list() == ["y\n"]

      assert_raise NetRunner.Error, fn ->
        Enum.to_list(NetRunner.pipeline_stream!([~w(true), sh("kill -PIPE $$")]))
      end
    end

    test "has lines, tags and all statuses" do
      commands = [sh("echo a; echo b; exit 3"), sh("cat; echo err >&2")]

      elements =
        commands |> NetRunner.pipeline_stream!(tagged: true, lines: :trim) |> Enum.to_list()

      assert Enum.sort(elements) == [exit: [3, 0], stderr: "err", stdout: "a", stdout: "b"]
      assert List.last(elements) == {:exit, [3, 0]}
    end
  end
end
