defmodule NetRunner.Process.GuestTest do
  # Callers that read and write by themselves, beside the command's server.
  use ExUnit.Case, async: true

  import NetRunner.Guarantees.Tree, only: [await: 1]

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Counters, Guest, State}
  alias NetRunner.System.Native
  alias NetRunner.Waiting

  defp start!(executable, args, options \\ []) do
    {:ok, p} = Command.start(executable, args, options)
    on_exit(fn -> Command.stop(p) end)
    p
  end

  # `cat` whose guests are invited, and of which nothing is left to be read.
  defp cat!(options \\ []) do
    p = start!("cat", [], options)
    :ok = Command.write(p, "first")
    assert Command.read(p) == {:ok, "first"}
    p
  end

  defp without_server(p, act) do
    :ok = :sys.suspend(p)
    result = act.()
    :ok = :sys.resume(p)
    result
  end

  describe "without the server" do
    test "a caller writes, and reads what is there; all of it is counted" do
      p = cat!()

      without_server(p, fn ->
        assert Command.write(p, "second") == :ok
        assert Command.write(p, ["th", [?i], "rd"]) == :ok
        await(fn -> {:ok, 11} == Native.unread(Guest.of(p).stdout) end)
        assert Command.read(p, 6) == {:ok, "second"}
        assert Command.read(p) == {:ok, "third"}
      end)

      assert %{bytes_in: 16, bytes_out: 16, write_count: 3, read_count: 3} = Command.stats(p)
    end

    test "as much as a pipe takes as one is written, and no more" do
      p = cat!()
      guest = Guest.of(p)
      assert Native.try_write(guest.stdin, [:binary.copy("x", 4_097)]) == {:error, :eagain}
      assert Native.try_write(guest.stdin, ["x"]) == {:error, :eagain}
      # One was not whole, and one came behind it.
      :ok = Native.let_guests_in(guest.stdin, 1)
      assert Native.try_write(guest.stdin, ["x"]) == {:error, :eagain}
      :ok = Native.let_guests_in(guest.stdin, 3)
      assert Native.try_write(guest.stdin, [:binary.copy("x", 4_096)]) == :ok
      assert {:ok, bytes} = Command.read(p)
      assert bytes == :binary.copy("x", 4_096)
    end
  end

  describe "who waits is served first:" do
    test "a reader, before one that comes when there is something" do
      p = cat!()
      waiting = Task.async(fn -> Command.read(p, 3) end)
      Waiting.await(p, :stdout)

      late =
        without_server(p, fn ->
          :ok = Native.write(Guest.of(p).stdin, ["abcdef"])
          await(fn -> {:ok, 6} == Native.unread(Guest.of(p).stdout) end)
          late = Task.async(fn -> Command.read(p, 3) end)
          # It has sent its request.
          await(fn -> Process.info(p, :message_queue_len) >= {:message_queue_len, 2} end)
          late
        end)

      assert Task.await(waiting, 60_000) == {:ok, "abc"}
      assert Task.await(late, 60_000) == {:ok, "def"}
    end

    test "readers on another node, before a guest that comes when there is something" do
      p = cat!()
      guest = Guest.of(p)
      # Such a caller keeps nobody out by itself.
      request = {:read, :stdout, 3, :infinity}
      readers = for _ <- 1..2, do: Task.async(fn -> GenServer.call(p, request, :infinity) end)
      Waiting.await(p, :stdout, 2)

      for count <- [1, 0] do
        without_server(p, fn ->
          :ok = Native.write(guest.stdin, ["abc"])
          await(fn -> {:ok, 3} == Native.unread(guest.stdout) end)
          # Whoever is turned away keeps others out until it comes, so this is not tried before.
          if count == 0, do: assert(Native.try_read(guest.stdout, 3) == {:error, :eagain})
        end)

        await(fn -> Waiting.count(p, :stdout) == count end)
      end

      assert Task.await_many(readers, 60_000) == [{:ok, "abc"}, {:ok, "abc"}]
    end

    test "a reader that the server has not heard of yet" do
      p = cat!()

      [first, second] =
        without_server(p, fn ->
          first = Task.async(fn -> Command.read(p, 3) end)
          await(fn -> Process.info(p, :message_queue_len) >= {:message_queue_len, 1} end)
          :ok = Native.write(Guest.of(p).stdin, ["abcdef"])
          await(fn -> {:ok, 6} == Native.unread(Guest.of(p).stdout) end)
          second = Task.async(fn -> Command.read(p, 3) end)
          await(fn -> Process.info(p, :message_queue_len) >= {:message_queue_len, 2} end)
          [first, second]
        end)

      assert Task.await(first, 60_000) == {:ok, "abc"}
      assert Task.await(second, 60_000) == {:ok, "def"}
      # Nobody waits any more.
      assert Command.write(p, "") == :ok
      without_server(p, fn -> assert Command.write(p, "again") == :ok end)
    end

    test "a reader of both streams, before the first guest" do
      p = start!("cat", [], stderr: :pipe)
      waiting = Task.async(fn -> Command.read_any(p, 3) end)
      Waiting.await(p, :any)
      # Guests are invited now.
      assert Command.read(p, 3, 0) == {:error, :timeout}

      late =
        without_server(p, fn ->
          :ok = Native.write(Guest.of(p).stdin, ["abcdef"])
          await(fn -> {:ok, 6} == Native.unread(Guest.of(p).stdout) end)
          late = Task.async(fn -> Command.read(p, 3) end)
          await(fn -> Process.info(p, :message_queue_len) >= {:message_queue_len, 2} end)
          late
        end)

      assert Task.await(waiting, 60_000) == {:ok, {:stdout, "abc"}}
      assert Task.await(late, 60_000) == {:ok, "def"}
    end

    test "somebody who collects everything" do
      p = cat!()
      guest = Guest.of(p)
      collect = Task.async(fn -> Command.collect(p, :infinity) end)
      Waiting.await(p, :collect)
      assert Native.try_read(guest.stdout, 1) == {:error, :eagain}
      :ok = Command.write(p, "all")
      :ok = Command.close_stdin(p)
      assert Task.await(collect, 60_000) == {"all", 0}
    end

    @tag NetRunner.Guarantees.Tree.linux_only()
    test "a small write, before one that comes when there is room" do
      # The pipe is exactly full.
      p = start!("sleep", ["1000"], pipe_size: 0)
      assert Command.write(p, :binary.copy("x", 65_536)) == :ok
      # A caller on another node is no guest, and keeps nobody out by itself.
      waiting = Task.async(fn -> GenServer.call(p, {:write, ["y"], :infinity}, :infinity) end)
      Waiting.await(p, :stdin)
      guest = Guest.of(p)
      pipe = "/proc/#{Command.os_pid(p)}/fd/0"

      without_server(p, fn ->
        assert {_, 0} = System.cmd("head", ["-c", "4096", pipe])
        assert Native.try_write(guest.stdin, ["z"]) == {:error, :eagain}
      end)

      assert Task.await(waiting, 60_000) == :ok
    end

    test "a large write, before small ones that come between two of its parts" do
      p = cat!()
      size = 100_000
      large = fn -> for _ <- 1..200, do: :ok = Command.write(p, :binary.copy("x", size)) end
      small = fn -> for _ <- 1..5_000, do: :ok = Command.write(p, "y") end
      writers = Enum.map([large, small], &Task.async/1)
      bytes = take(p, 200 * size + 5_000)
      Task.await_many(writers, 60_000)
      runs = bytes |> String.split("y", trim: true) |> Enum.map(&byte_size/1)
      assert Enum.reject(runs, &(rem(&1, size) == 0)) == []
    end

    test "a large write, before a small one that comes when there is room" do
      p = cat!(pipe_size: 4_096)
      large = :binary.copy("x", 1_000_000)
      first = Task.async(fn -> Command.write(p, large) end)
      Waiting.await(p, :stdin)
      second = Task.async(fn -> Command.write(p, "y") end)
      assert take(p, 1_000_001) == large <> "y"
      assert Task.await_many([first, second], 60_000) == [:ok, :ok]
      # Now, if not before, nobody has called.
      assert Command.write(p, "") == :ok
      without_server(p, fn -> assert Command.write(p, "guest") == :ok end)
    end
  end

  defp take(p, size, chunks \\ [])
  defp take(_p, 0, chunks), do: IO.iodata_to_binary(chunks)

  defp take(p, size, chunks) do
    {:ok, bytes} = Command.read(p, size)
    take(p, size - byte_size(bytes), [chunks | bytes])
  end

  describe "what the server knows" do
    test "that the command is gone: nobody writes to a stranger that has its stdin open" do
      p = start!("sh", ["-c", "echo; read line; exit 3"])
      {:ok, "\n"} = Command.read(p)
      os_pid = Command.os_pid(p)

      start!("sleep", ["1000"], fds: %{3 => {:input, {:file, "/proc/#{os_pid}/fd/0"}}})
      guest = Guest.of(p)
      assert Command.write(p, "\n") == :ok
      assert Command.await_exit(p) == {:ok, 3}
      assert Native.try_write(guest.stdin, ["x"]) == {:error, :eagain}
      assert Command.write(p, "x") == {:error, :epipe}
    end

    test "that the command is about to end: from then on, all ask the server" do
      for ending <- [:timeout, :stopped, :asked, :read_failed, :closed] do
        p = cat!()
        guest = Guest.of(p)
        state = :sys.get_state(p)
        {:noreply, state} = without_server(p, fn -> State.life(state, {:end, ending, :stay}) end)
        assert {state.inlet.received, state.outlets.received} == {nil, nil}
        assert Native.try_write(guest.stdin, ["x"]) == {:error, :eagain}
        assert Native.try_read(guest.stdout, 1) == {:error, :eagain}
        assert Counters.discarding?(guest.counters) == (ending != :asked)
      end
    end

    test "that it discards: what is there is not read any more" do
      p = start!("sh", ["-c", "trap 'echo dying; exit' TERM; echo; while :; do sleep 0.01; done"])
      {:ok, "\n"} = Command.read(p)
      :ok = Command.end_command(p, :stopped)
      assert Command.read(p) == {:error, :closed}
    end

    test "that stdin is closed, and that stdout is at its end" do
      p = cat!()
      :ok = Command.close_stdin(p)
      assert Command.write(p, "x") == {:error, :closed}
      assert Command.read(p) == :eof
      assert Command.await_exit(p) == {:ok, 0}
    end
  end

  describe "no guests are" do
    test "those who call a name, a terminal, or a server that is gone" do
      p = start!("cat", [], name: __MODULE__)
      :ok = Command.write(__MODULE__, "x")
      {:ok, "x"} = Command.read(__MODULE__)
      assert Guest.of(__MODULE__) == nil
      assert %Guest{} = Guest.of(p)
      Command.stop(p)
      # This process remembers it, which does no harm. The registry has forgotten it.
      assert %Guest{} = Guest.of(p)
      assert Command.write(p, "x") == {:error, :closed}
      assert Command.read(p) == {:error, :closed}
      await(fn -> Task.await(Task.async(fn -> Guest.of(p) end), 60_000) == nil end)

      terminal = start!("cat", [], pty: [echo: false])
      :ok = Command.write(terminal, "x\n")
      {:ok, "x\r\n"} = Command.read(terminal)
      assert %Guest{stdin: nil, stdout: nil} = Guest.of(terminal)
    end
  end

  test "somebody who dies before it comes to the server keeps others from nothing" do
    p = cat!()
    # Turned away, and never received.
    {:error, :eagain} = Native.try_read(Guest.of(p).stdout, 1)
    {:error, :eagain} = Native.try_write(Guest.of(p).stdin, [:binary.copy("x", 5_000)])

    for _ <- 1..3 do
      :ok = Command.write(p, "abc")
      assert take(p, 3) == "abc"
    end
  end

  test "a request that no guest makes shows nothing of the state" do
    p = cat!()
    {:exit, reason} = catch_call(p, {:turned_away, {:collect, 1, 1}})
    assert inspect(reason) =~ "a request that it does not know"
    refute inspect(reason) =~ "Inlet"
  end

  defp catch_call(p, request) do
    Process.flag(:trap_exit, true)
    GenServer.call(p, request)
  catch
    kind, reason -> {kind, reason}
  end

  test "the count of who was turned away wraps" do
    assert Guest.count(0x7FFFFFFE) == 0x7FFFFFFF
    assert Guest.count(0x7FFFFFFF) == 0
  end

  test "what is read while the server begins to discard is not given" do
    {:ok, read, write} = Native.pipe()
    :ok = Native.write(write, ["abcdef"])
    guest = %Guest{stdin: nil, stdout: read, counters: Counters.new(nil, read, nil)}
    # A server that is gone, which shows that it was asked.
    {server, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, :process, _, _}

    assert Guest.read(guest, server, 2, :infinity) == {:ok, "ab"}
    Counters.put_discarding(guest.counters)
    assert Guest.read(guest, server, 2, :infinity) == {:error, :closed}
    Enum.each([read, write], &Native.close/1)
  end
end
