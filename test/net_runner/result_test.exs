defmodule NetRunner.ResultTest do
  use ExUnit.Case, async: true

  alias NetRunner.{Command, Error, Result}
  alias NetRunner.Process.Stats

  defp capture(command, options \\ []) do
    {:ok, result} = NetRunner.capture(command, options)
    result
  end

  test "ok? is the end by itself with 0, and nothing else" do
    assert Result.ok?(capture(~w(true)))
    refute Result.ok?(capture(~w(false)))
    # It exits with 0, but because it was told to end.
    script = "trap 'exit 0' TERM; echo; while :; do sleep 0.05; done"
    result = capture(["sh", "-c", script], timeout: 2_000)
    assert %{status: 0, outcome: :timeout} = result
    refute Result.ok?(result)
  end

  test "ok! does not take the beginning of stderr, or two pieces of it, for its end" do
    script = ["sh", "-c", "printf 'one two three' >&2; exit 2"]

    for {keep, kept} <- [{{:head, 3}, "one"}, {{3, 5}, "onethree"}] do
      error = assert_raise Error, fn -> Result.ok!(capture(script, keep: keep)) end

      assert Exception.message(error) =~
               "status 2; of its stderr, of which #{error.stderr_dropped} bytes were dropped: #{kept}"
    end
  end

  test "run! has the end of stderr, of which it kept no beginning" do
    script = ["sh", "-c", "seq 10000 >&2; exit 2"]
    error = assert_raise Error, fn -> NetRunner.run!(script, stderr_tail: 6) end
    assert Exception.message(error) =~ "status 2; the end of its stderr: 10000"
  end

  test "ok! gives the result, or raises with the ends of what was printed" do
    result = capture(~w(true))
    assert Result.ok!(result) == result

    result = capture(["sh", "-c", "seq 10000; echo bad >&2; exit 3"])
    error = assert_raise Error, fn -> Result.ok!(result) end
    assert %{reason: :exit_status, status: 3, exit: {:exited, 3}, stderr: "bad\n"} = error
    assert byte_size(error.stdout) == 8_192 and String.ends_with?(error.stdout, "10000\n")

    result = capture(["sh", "-c", "seq 3; echo bad >&2; exit 3"], interleave: true)

    assert %{stdout: "1\n2\n3\n", stderr: "bad\n"} =
             assert_raise(Error, fn -> Result.ok!(result) end)

    for {options, reason, text} <- [
          {[timeout: 1_000], :timeout, "did not end within :timeout"},
          {[idle_timeout: 1_000], :idle_timeout, "printed nothing"}
        ] do
      error = assert_raise Error, fn -> Result.ok!(capture(~w(sleep 100), options)) end
      assert error.reason == reason
      assert Exception.message(error) =~ text
    end

    limited = capture(~w(yes), max_output_size: 2)

    assert_raise Error, ~r/more than :max_output_size allows \(:total\)/, fn ->
      Result.ok!(limited)
    end
  end

  test "what is no result is said to be none, without the output that it holds" do
    result = capture(~w(echo hunter2))

    for function <- [:ok?, :ok!], wrong <- [{:ok, result}, {:error, :enoent}, nil, "hunter2"] do
      {error, stack} =
        try do
          flunk("returned #{inspect(apply(Result, function, [wrong]))}")
        rescue
          error in [ArgumentError, FunctionClauseError] ->
            Exception.blame(:error, error, __STACKTRACE__)
        end

      assert %ArgumentError{message: "a result must be a NetRunner.Result, got: " <> got} = error
      refute Exception.format(:error, error, stack) =~ "hunter2"
      if wrong == {:ok, result}, do: assert(got =~ "match it before: {:ok, result} = ...")
    end
  end

  test "each outcome has its words" do
    result = capture(~w(true))

    for outcome <- [
          :timeout,
          :idle_timeout,
          {:output_limit, :stderr},
          :cancelled,
          :oom_killed,
          :not_ended,
          {:input_failed, %RuntimeError{message: "no"}},
          :shepherd_died,
          :node_lost
        ] do
      error = assert_raise Error, fn -> Result.ok!(%{result | outcome: outcome}) end
      refute Exception.message(error) =~ "failed: #{inspect(outcome)}"
    end
  end

  describe "inspected," do
    # Whatever width and options the caller has.
    defp shown(term) do
      for options <- [
            [],
            [pretty: true, width: 20],
            [pretty: true, limit: :infinity, printable_limit: :infinity]
          ] do
        text = inspect(term, options)
        assert length(String.split(text, "\n")) <= 5, text
        refute text =~ "secret", text
        text
      end
      |> hd()
    end

    @script "echo $A; cat;\n# a second line\ncat >&2"
    @options [env: [{"A", "secret"}], input: "secret"]

    test "a result is a few lines, without the output, the environment and the input" do
      result = capture(["sh", "-c", @script], @options)
      assert result.stdout =~ "secret"
      text = shown(result)
      assert text =~ "(PID #{result.os_pid})"
      assert text =~ "outcome: :ended, exited with 0"
      assert text =~ "stdout: 13 bytes, stderr: 0 bytes"

      assert shown(capture(["sh", "-c", @script], @options ++ [interleave: true])) =~
               "13 bytes in 1 pieces"

      assert shown(capture(["sh", "-c", @script], @options ++ [keep: {:head, 2}])) =~
               "2 (+ 11 dropped) bytes"

      failing = Stream.map([1], fn _ -> raise "secret" end)
      assert shown(capture(~w(cat), input: failing)) =~ "{:input_failed, %RuntimeError{…}}"
      long = List.duplicate(String.duplicate("x", 300), 100)
      assert byte_size(shown(capture(["true" | long]))) < 3_000
    end

    test "a command is one line" do
      options = @options ++ [cd: "/", rlimits: [core: 0]]

      text =
        shown(Command.new("sh", ["-c", @script | List.duplicate("an argument", 100)], options))

      assert text =~ ~s(%NetRunner.Command{cmd: "sh", args: ["-c", )
      assert text =~ "… (82 more)"
      assert text =~ ~s(opts: [env: :hidden, input: :hidden, cd: "/", rlimits: [core: 0]])
      assert inspect(%Command{cmd: nil, args: nil, opts: nil}) =~ "cmd: nil"
    end

    test "stats and errors are one line each" do
      result = capture(["sh", "-c", @script <> "; exit 3"], @options)
      assert shown(result.stats) =~ "#NetRunner.Process.Stats<exited with 3, "
      assert shown(%Stats{}) =~ "no exit"
      with_cgroup = %{result.stats | cgroup: %{memory_peak_bytes: 1, memory_oom_kills: 0}}
      assert shown(with_cgroup) =~ "memory_oom_kills=0"

      assert shown(%{Result.error(result) | stderr: "one\ntwo\n"}) =~
               ~r/#NetRunner.Error<`sh -c .* exited with status 3; the end of its stderr: one\\ntwo>/

      assert shown(%Error{reason: {:max_output_exceeded, "secret"}}) =~
               "more than :max_output_size"

      assert byte_size(shown(%Error{reason: :timeout, stderr: String.duplicate("x", 8_000)})) <
               600
    end
  end
end
