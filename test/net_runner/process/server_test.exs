defmodule NetRunner.Process.ServerTest do
  # The server between its callers and the pipes: callers that die at the wrong time, random schedules
  # against real commands, and messages that nobody should send.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog
  import NetRunner.Guarantees.Tree, only: [await: 1]

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Guest
  alias NetRunner.System.Native

  test "a fault in the start raises, and shows nothing of what the command was given" do
    options = %{owner: nil, node: nil, env: [{"SECRET", "hidden"}]}

    log =
      capture_log(fn ->
        error =
          assert_raise RuntimeError, ~r/badkey in NetRunner.+\d$/, fn ->
            NetRunner.Process.Server.start(["true"], options)
          end

        refute inspect(error) =~ "hidden"
      end)

    refute log =~ "hidden"
  end

  defp start!(executable, args, options \\ []) do
    {:ok, p} = Command.start(executable, args, options)
    on_exit(fn -> Command.stop(p) end)
    p
  end

  # As `call/2`, of a caller that would do it by itself where that can be.
  defp call_as_guest(p, request) do
    guest = Guest.of(p)

    done =
      case request do
        {:write, iovec, :infinity} -> guest && Native.try_write(guest.stdin, iovec)
        {:read, :stdout, size, :infinity} -> guest && Native.try_read(guest.stdout, size)
      end

    case done do
      nil -> call(p, request)
      {:error, :eagain} -> call(p, {:turned_away, request})
      :eof -> call(p, {:turned_away, request})
      result -> tap(caller(), &send(&1.pid, {&1.ref, result}))
    end
  end

  # A caller that hands on what it is answered, and can be killed. The request is sent on its behalf, so
  # that requests arrive in the order in which the test makes them.
  defp call(p, request) do
    caller = caller()
    send(p, {:"$gen_call", {caller.pid, caller.ref}, request})
    caller
  end

  defp caller do
    test = self()
    ref = make_ref()
    %{pid: spawn(fn -> hand_on(Process.monitor(test), test, ref) end), ref: ref}
  end

  defp hand_on(monitor, test, ref) do
    receive do
      {^ref, answer} -> send(test, {:answer, ref, answer})
      {:ping, from} -> send(from, {:pong, ref})
      {:DOWN, ^monitor, _, _, _} -> exit(:normal)
    end

    hand_on(monitor, test, ref)
  end

  defp answer(%{ref: ref}, timeout \\ 60_000) do
    receive do
      {:answer, ^ref, answer} -> answer
    after
      timeout -> :none
    end
  end

  # What a caller was answered so far, if anything; in no case is it there afterwards. For a server that
  # is suspended, and so answers nobody in between.
  defp kill(%{pid: pid, ref: ref} = caller) do
    send(pid, {:ping, self()})
    assert_receive {:pong, ^ref}
    answer = answer(caller, 0)
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}
    answer
  end

  defp waiting?(p, kind), do: NetRunner.Waiting.count(p, kind) > 0

  defp told?(p) do
    {:messages, messages} = Process.info(p, :messages)
    Enum.any?(messages, &match?({:select, _, _, :ready_input}, &1))
  end

  for {kind, stderr, into, expected} <- [
        {:stdout, :consume, "", "abc"},
        {:stderr, :pipe, ">&2", "abc"},
        {:any, :pipe, "", {:stdout, "abc"}}
      ] do
    test "a reader of #{kind} that died before the server read for it costs no byte" do
      {kind, stderr, into} = {unquote(kind), unquote(stderr), unquote(into)}

      go = NetRunner.Temporary.path("go")

      on_exit(fn -> File.rm(go) end)
      script = "until [ -e #{go} ]; do sleep 0.01; done; printf abc #{into}; read line"
      p = start!("sh", ["-c", script], stderr: stderr)
      dying = call(p, {:read, kind, 100, :infinity})
      living = call(p, {:read, kind, 100, :infinity})
      await(fn -> waiting?(p, kind) end)

      # The server hears of the bytes first, and then of the death.
      :ok = :sys.suspend(p)
      File.write!(go, "")
      await(fn -> told?(p) end)
      assert kill(dying) == :none
      :ok = :sys.resume(p)

      assert answer(living) == {:ok, unquote(Macro.escape(expected))}
    end
  end

  describe "random reads and writes, and deaths of their callers:" do
    # Every write carries its number and its length, so that what arrives says what was written.
    test "no byte is lost, repeated or mixed, and readers get them in the order of their calls" do
      seed = ExUnit.configuration()[:seed]

      for round <- 1..40, call <- [&call/2, &call_as_guest/2] do
        :rand.seed(:exsss, {seed, round, 0})

        try do
          play(call, Enum.random([0, 4_096, 1_048_576]))
        rescue
          failure in ExUnit.AssertionError ->
            note = "seed #{seed}, round #{round}: #{failure.message}"
            reraise %{failure | message: note}, __STACKTRACE__
        end
      end
    end
  end

  defp play(call, pipe_size) do
    p = start!("cat", [], pipe_size: pipe_size)
    # Guests are invited.
    :ok = Command.write(p, "")
    start = %{p: p, call: call, reads: [], writes: [], ended: %{}}
    state = Enum.reduce(1..60, start, fn step, state -> step(:rand.uniform(10), step, state) end)

    closing = call(p, :close_stdin)
    rest = read_to_end(p, call, [])
    assert answer(closing) == :ok
    assert Command.await_exit(p) == {:ok, 0}

    for {number, write} <- state.writes do
      assert {number, outcome(state, number, write)} in [{number, :ok}, {number, :killed}]
    end

    received =
      state.reads
      |> Enum.reverse()
      |> Enum.map(fn {number, read} ->
        case outcome(state, number, read) do
          {:ok, bytes} -> bytes
          :eof -> ""
          :none -> flunk("read #{number} was not answered")
          :killed -> ""
        end
      end)

    arrived = numbers(IO.iodata_to_binary([received, rest]), [])
    assert arrived == Enum.sort(arrived)
    assert arrived == Enum.uniq(arrived)
    written = for {number, _} <- state.writes, state.ended[number] != :killed, do: number
    assert written -- arrived == []
    Command.stop(p)
  end

  # A write.
  defp step(n, number, state) when n <= 4 do
    size = Enum.random([0, 1, 4_096, 65_536, :rand.uniform(300_000)])
    payload = :binary.copy(<<rem(number, 251)>>, size)
    write = state.call.(state.p, {:write, [<<number::32, size::32>>, payload], :infinity})
    %{state | writes: [{number, write} | state.writes]}
  end

  # A read.
  defp step(n, number, state) when n <= 8 do
    size = Enum.random([1, 100, 4_096, 65_535, :rand.uniform(400_000)])
    read = state.call.(state.p, {:read, :stdout, size, :infinity})
    %{state | reads: [{number, read} | state.reads]}
  end

  # The death of somebody who may be waiting.
  defp step(_, _number, %{reads: reads, writes: writes} = state) do
    alive = Enum.reject(reads ++ writes, fn {number, _} -> is_map_key(state.ended, number) end)
    if alive == [], do: state, else: kill_one(Enum.random(alive), state)
  end

  defp kill_one({number, caller}, state) do
    :ok = :sys.suspend(state.p)
    answer = kill(caller)
    :ok = :sys.resume(state.p)
    put_in(state.ended[number], if(answer == :none, do: :killed, else: answer))
  end

  defp outcome(%{ended: ended}, number, caller) do
    case ended do
      %{^number => outcome} -> outcome
      %{} -> answer(caller)
    end
  end

  defp read_to_end(p, call, chunks) do
    case answer(call.(p, {:read, :stdout, 65_535, :infinity})) do
      {:ok, bytes} -> read_to_end(p, call, [chunks | bytes])
      :eof -> chunks
    end
  end

  # The numbers of the writes, each of which has to be there as a whole.
  defp numbers(<<>>, numbers), do: Enum.reverse(numbers)

  defp numbers(<<number::32, size::32, payload::binary-size(size), rest::binary>>, numbers) do
    assert payload == :binary.copy(<<rem(number, 251)>>, size)
    numbers(rest, [number | numbers])
  end

  defp numbers(other, numbers) do
    flunk(
      "#{byte_size(other)} bytes after #{inspect(numbers)} are no write: #{inspect(other, limit: 20)}"
    )
  end

  describe "a message that nobody should send" do
    test "changes nothing" do
      p = start!("cat", [])
      {:ok, without_stdin} = Command.start("sleep", ["1000"], stdin: :null)
      reader = call(p, {:read, :stdout, 100, :infinity})
      waiting = call(p, {:await_exit, :infinity})
      await(fn -> waiting?(p, :exit) end)
      state = :sys.get_state(p)

      hello = fn ->
        send(p, :hello)
        # It has come to it.
        _ = :sys.get_state(p)
        NetRunner.Waiting.await_log()
      end

      assert capture_log(hello) =~ "does not know: :hello"

      capture_log(fn ->
        for message <- [
              {make_ref(), :late_answer},
              {:DOWN, make_ref(), :process, self(), :normal},
              {:DOWN, make_ref(), :process, self(), :killed},
              {:EXIT, self(), :normal},
              {:select, make_ref(), :undefined, :ready_input},
              {:select, make_ref(), :undefined, :ready_output},
              {:select, state.control, :undefined, :ready_input},
              {:select, state.outlets.stdout.pipe.fd, :undefined, :ready_input},
              {:select, state.inlet.stdin, :undefined, :ready_output},
              {:again, :stdout},
              {:again, :stderr},
              {:again, :stdin},
              {:again, {3, :stdout}},
              {:again, :nothing},
              :fed,
              {:waited, make_ref()}
            ] do
          send(p, message)
          send(without_stdin, message)
        end

        assert Command.alive?(p) and Command.alive?(without_stdin)
        :ok = Command.stop(without_stdin)
      end)

      assert answer(reader, 0) == :none
      assert Command.write(p, "x") == :ok
      assert answer(reader) == {:ok, "x"}
      :ok = Command.close_stdin(p)
      assert answer(waiting) == {:ok, 0}
    end
  end
end
