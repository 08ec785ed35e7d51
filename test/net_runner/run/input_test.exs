defmodule NetRunner.Run.InputTest do
  # The feeder lays small pieces into a window, and the command's server writes what lies there.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Run.Input
  alias NetRunner.System.Native

  # What a pipe holds (pipe(7)), and the window.
  @pipe 65_536
  @window 65_536

  test "pieces of all sizes arrive in their order" do
    NetRunner.Random.rounds(20, fn _ ->
      pieces =
        for number <- 1..400 do
          size = Enum.random([0, 1, 11, 100, 4_095, 4_096, 4_097, 70_000])
          piece = :binary.copy(<<number::16>>, div(size, 2))
          Enum.random([piece, [piece], [piece, [?\n]]])
        end

      assert NetRunner.run(~w(cat), input: Stream.map(pieces, & &1), pipe_size: @pipe) ==
               {IO.iodata_to_binary(pieces), 0}
    end)
  end

  test "a piece that comes alone is written at once, though the next one takes its time" do
    test = self()

    input =
      Stream.map(1..3, fn number ->
        if number > 1, do: assert_receive({:seen, ^number})
        "line #{number}\n"
      end)

    feeder = fn sink ->
      send(test, {:feeder, self()})
      Enum.into(input, sink)
    end

    run =
      Task.async(fn ->
        NetRunner.stream!(~w(cat), input: feeder) |> Enum.each(&send(test, &1))
      end)

    assert_receive {:feeder, feeder}
    assert_receive "line 1\n"
    send(feeder, {:seen, 2})
    assert_receive "line 2\n"
    send(feeder, {:seen, 3})
    assert_receive "line 3\n"
    Task.await(run, :infinity)
  end

  test "the feeder runs ahead of a command that does not read by a window, and no further" do
    produced = :counters.new(1, [])
    test = self()

    input = fn sink ->
      send(test, {:server, sink.server})

      Stream.repeatedly(fn ->
        # It has seen what was laid before.
        :sys.get_state(sink.server)
        :counters.add(produced, 1, 1_000)
        String.duplicate("x", 1_000)
      end)
      |> Enum.into(sink)
    end

    token = NetRunner.cancel_token()
    options = [input: input, pipe_size: @pipe, cancel: token]
    run = Task.async(fn -> NetRunner.capture(~w(sleep 600), options) end)
    assert_receive {:server, server}

    # The feeder waits behind what lies in the window.
    Tree.await(fn -> Enum.any?(waiting(server), & &1.from) end)

    # The pipe is full, the server has taken one piece more, the window is full, and a piece waits behind it.
    assert :counters.get(produced, 1) <= @pipe + @window + 2 * 1_000
    NetRunner.cancel(token)
    assert {:ok, %{outcome: :cancelled}} = Task.await(run, :infinity)
  end

  defp waiting(server),
    do: NetRunner.Process.Operations.all(:sys.get_state(server).inlet.queue)

  test "nothing is laid behind other pieces for a server that was killed" do
    {server, monitor} = spawn_monitor(fn -> Process.sleep(:infinity) end)
    sink = %Input.Sink{server: server, feeder: self(), window: Native.window()}
    for _ <- 1..2, do: assert(Input.write(sink, "x") == sink)
    assert Native.take(sink.window) == "xx"
    assert Input.write(sink, "x") == sink

    Process.exit(server, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}
    # It has not closed its window.
    assert catch_throw(Input.write(sink, "x"))
    assert Native.take(sink.window) == "x"
  end

  test "tasks that help to produce write behind what was produced before" do
    input = fn sink ->
      for round <- 1..200, reduce: sink do
        sink ->
          Enum.into(["#{round} "], sink)

          Task.await(
            Task.async(fn -> Enum.into(["of a task ", String.duplicate("x", 5_000)], sink) end)
          )

          Enum.into(["\n"], sink)
      end
    end

    expected = for round <- 1..200, do: "#{round} of a task #{String.duplicate("x", 5_000)}\n"
    assert NetRunner.run(~w(cat), input: input) == {IO.iodata_to_binary(expected), 0}
  end

  describe "what lies in the window while the server waits for room" do
    # The command reads nothing before it is continued, its pipe is full, the server waits to write what came next, and
    # "laid " stays in the window. Then comes what `go_on` does with the sink.
    defp fill_pipe(command, go_on) do
      test = self()

      input = fn sink ->
        sink = Enum.into([String.duplicate("x", @pipe), "waits "], sink)
        send(test, {:feeder, self()})
        assert_receive :lay
        sink = Enum.into(["laid "], sink)
        send(test, :laid)
        go_on.(sink)
      end

      options = [input: input, pipe_size: @pipe, on_output: &send(test, {:printed, &1})]
      run = Task.async(fn -> NetRunner.capture(command, options) end)
      assert_receive {:feeder, feeder}
      %{pid: server, os_pid: os_pid} = Enum.find(NetRunner.list(), &(&1.command == command))
      Tree.await_stopped(os_pid)
      Tree.await(fn -> waiting(server) != [] end)
      send(feeder, :lay)
      assert_receive :laid
      %{run: run, feeder: feeder, continue: fn -> System.cmd("kill", ["-CONT", "#{os_pid}"]) end}
    end

    defp stops_first(script, argument \\ "none"),
      do: ["sh", "-c", "kill -STOP $$; " <> script, argument]

    test "is written when there is some" do
      go_on = fn sink ->
        assert_receive :end
        sink
      end

      run = fill_pipe(stops_first("exec cat"), go_on)
      run.continue.()
      await_printed("laid ")
      send(run.feeder, :end)
      assert {:ok, %{outcome: :ended}} = Task.await(run.run, :infinity)
    end

    test "comes before a large piece, which is not laid there" do
      large = String.duplicate("y", 5_000)
      run = fill_pipe(stops_first("exec cat"), &Enum.into([large], &1))
      # It waits for its turn.
      Tree.await(fn -> Process.info(run.feeder, :status) == {:status, :waiting} end)
      run.continue.()
      expected = String.duplicate("x", @pipe) <> "waits laid " <> large
      assert {:ok, %{stdout: ^expected}} = Task.await(run.run, :infinity)
    end

    test "comes before the end" do
      run = fill_pipe(stops_first("exec cat"), & &1)
      Tree.await(fn -> Process.info(run.feeder, :status) == {:status, :waiting} end)
      run.continue.()
      expected = String.duplicate("x", @pipe) <> "waits laid "
      assert {:ok, %{stdout: ^expected}} = Task.await(run.run, :infinity)
    end

    test "is written before the command hears of a failure" do
      path = NetRunner.Temporary.path("input")

      on_exit(fn -> File.rm(path) end)
      # It ignores the signal; it is over when it has read all.
      all = String.duplicate("x", @pipe) <> "waits laid "
      command = stops_first("trap '' TERM; exec head -c #{byte_size(all)} > \"$0\"", path)
      run = fill_pipe(command, fn _ -> raise "enough" end)
      Tree.await(fn -> Process.info(run.feeder, :status) == {:status, :waiting} end)
      run.continue.()

      assert {:ok, %{outcome: {:input_failed, %RuntimeError{message: "enough"}}}} =
               Task.await(run.run, :infinity)

      assert File.read!(path) == all
    end
  end

  defp await_printed(ending) do
    assert_receive {:printed, bytes}
    unless String.ends_with?(bytes, ending), do: await_printed(ending)
  end
end
