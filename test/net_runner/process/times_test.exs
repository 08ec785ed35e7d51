defmodule NetRunner.Process.TimesTest do
  # Reads and writes that give up after a time.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Waiting

  @moduletag timeout: 600_000

  defp start!(command, args, options \\ []) do
    {:ok, p} = Command.start(command, args, options)
    on_exit(fn -> Command.stop(p) end)
    p
  end

  defp timers(p) do
    for queue <- [:sys.get_state(p).outlets.queue, :sys.get_state(p).inlet.queue],
        %{timer: timer} when timer != nil <- NetRunner.Process.Operations.all(queue),
        do: timer
  end

  describe "a read with a time" do
    for {function, stream, into, bytes} <- [
          {:read, :stdout, "", "abc"},
          {:read_stderr, :stderr, ">&2", "abc"},
          {:read_any, :any, "", {:stdout, "abc"}}
        ] do
      test "gives up, and takes no byte: #{function}" do
        function = unquote(function)
        script = "read go; printf abc #{unquote(into)}; read go"
        p = start!("sh", ["-c", script], stderr: :pipe)
        assert apply(Command, function, [p, 100, 0]) == {:error, :timeout}
        assert apply(Command, function, [p, 100, 5]) == {:error, :timeout}
        assert Waiting.count(p, unquote(stream)) == 0
        :ok = Command.write(p, "\n")
        assert apply(Command, function, [p, 100, 60_000]) == {:ok, unquote(bytes)}
      end
    end

    test "of 0 gives what is there, and the end" do
      p = start!("sh", ["-c", "printf abc"])
      assert Command.await_exit(p) == {:ok, 0}
      assert Command.read(p, 2, 0) == {:ok, "ab"}
      assert Command.read(p, 2, 0) == {:ok, "c"}
      assert Command.read(p, 2, 0) == :eof
      assert Command.read_any(p, 2, 0) == :eof
      assert Command.read_stderr(p, 2, 0) == {:error, :not_piped}
    end

    test "gives up behind another reader, which goes on waiting, and those behind it are served" do
      p = start!("cat", [])
      first = Task.async(fn -> Command.read(p, 1) end)
      Waiting.await(p, :stdout)
      second = Task.async(fn -> Command.read(p, 1, 2_000) end)
      Waiting.await(p, :stdout, 2)
      third = Task.async(fn -> Command.read(p, 1) end)
      assert Task.await(second, 60_000) == {:error, :timeout}
      Waiting.await(p, :stdout, 2)
      :ok = Command.write(p, "ab")
      assert Task.await(first, 60_000) == {:ok, "a"}
      assert Task.await(third, 60_000) == {:ok, "b"}
    end

    test "that was first makes room for the next" do
      p = start!("sh", ["-c", "read go; printf ab >&2; exec sleep 1000"], stderr: :pipe)
      any = Task.async(fn -> Command.read_any(p, 1, 2_000) end)
      Waiting.await(p, :any)
      next = Task.async(fn -> Command.read_stderr(p, 1) end)
      Waiting.await(p, :stderr)
      assert Task.await(any, 60_000) == {:error, :timeout}
      :ok = Command.write(p, "\n")
      assert Task.await(next, 60_000) == {:ok, "a"}
    end

    test "leaves no timer behind when it is answered, or its caller dies" do
      p = start!("cat", [])
      day = 86_400_000
      test = self()
      reader = Task.async(fn -> Command.read(p, 1, day) end)
      Waiting.await(p, :stdout)
      dying = spawn(fn -> send(test, Command.read(p, 1, day)) end)
      Waiting.await(p, :stdout, 2)
      assert [first, second] = timers(p)
      Process.exit(dying, :kill)
      Tree.await(fn -> Waiting.count(p, :stdout) == 1 end)
      :ok = Command.write(p, "x")
      assert Task.await(reader, 60_000) == {:ok, "x"}

      # They are the server's, and so nobody else can ask for them at once.
      for timer <- [first, second] do
        assert :sys.replace_state(p, fn state ->
                 send(test, {:left, Process.read_timer(timer)})
                 state
               end)

        assert_receive {:left, false}
      end

      refute_received {:ok, _}
    end

    test "refuses what is no time" do
      p = start!("cat", [])

      for time <- [-1, 1.5, nil],
          do:
            assert_raise(ArgumentError, ~r"the timeout must be milliseconds", fn ->
              Command.read(p, 1, time)
            end)
    end
  end

  test "10,000 reads with a time, and data that comes at that moment: no byte is lost or doubled" do
    p = start!("cat", [])

    writer =
      spawn_link(fn ->
        Stream.repeatedly(fn ->
          receive do
            {:write, n, pause} ->
              until = System.monotonic_time(:microsecond) + pause
              spin(until)
              :ok = Command.write(p, <<n::32>>)
          end
        end)
        |> Stream.run()
      end)

    seed = ExUnit.configuration()[:seed]
    :rand.seed(:exsss, {seed, 1, 0})

    {chunks, timeouts} =
      Enum.reduce(1..10_000, {[], 0}, fn n, {chunks, timeouts} ->
        send(writer, {:write, n, :rand.uniform(2_000)})

        case Command.read(p, 1_000, :rand.uniform(2) - 1) do
          {:ok, bytes} -> {[chunks | bytes], timeouts}
          {:error, :timeout} -> {chunks, timeouts + 1}
        end
      end)

    # The writer has written all when it can be seen to be idle.
    rest = read_rest(p, 40_000 - IO.iodata_length(chunks), [])
    bytes = IO.iodata_to_binary([chunks | rest])
    assert bytes == for(n <- 1..10_000, into: "", do: <<n::32>>)
    assert Command.read(p, 1, 20) == {:error, :timeout}
    assert timeouts > 100 and timeouts < 9_900, "the race was not run: #{timeouts} timeouts"
    assert timers(p) == []
    Process.unlink(writer)
    Process.exit(writer, :kill)
  end

  defp spin(until), do: if(System.monotonic_time(:microsecond) < until, do: spin(until))

  defp read_rest(_p, 0, chunks), do: chunks

  defp read_rest(p, left, chunks) do
    {:ok, bytes} = Command.read(p, 1_000, 60_000)
    read_rest(p, left - byte_size(bytes), [chunks | bytes])
  end

  describe "a write with a time" do
    test "says how much is in the pipe, and the next write follows that" do
      p = start!("cat", [], pipe_size: 0)
      :ok = Command.kill(p, :sigstop)
      Tree.await_stopped(Command.os_pid(p))
      numbers = for n <- 1..100_000, into: "", do: <<n::32>>
      assert {:error, {:timeout, n}} = Command.write(p, numbers, 50)
      assert n >= 4_096 and n < byte_size(numbers)
      assert Command.write(p, "next", 0) == {:error, {:timeout, 0}}
      assert Command.stats(p).bytes_in == n

      # One that waits behind, and one that gives up behind it.
      waiting = Task.async(fn -> Command.write(p, "last") end)
      Waiting.await(p, :stdin)
      assert Command.write(p, "never", 20) == {:error, {:timeout, 0}}
      closing = Task.async(fn -> Command.close_stdin(p) end)
      Waiting.await(p, :stdin, 2)
      :ok = Command.kill(p, :sigcont)
      assert IO.iodata_to_binary(read_rest(p, n + 4, [])) == binary_part(numbers, 0, n) <> "last"
      assert Task.await(waiting, 60_000) == :ok
      assert Task.await(closing, 60_000) == :ok
      assert Command.read(p) == :eof
      assert timers(p) == []
    end

    test "that is first makes room for the next, such as a close" do
      p = start!("sleep", ["1000"], pipe_size: 0)
      writing = Task.async(fn -> Command.write(p, :binary.copy("x", 1_000_000), 2_000) end)
      Waiting.await(p, :stdin)
      closing = Task.async(fn -> Command.close_stdin(p) end)
      assert {:error, {:timeout, n}} = Task.await(writing, 60_000)
      assert n > 0
      assert Task.await(closing, 60_000) == :ok
    end

    test "that is in time is written whole" do
      p = start!("cat", [])
      bytes = :crypto.strong_rand_bytes(3_000_000)
      writing = Task.async(fn -> Command.write(p, bytes, 60_000) end)
      assert IO.iodata_to_binary(read_rest(p, 3_000_000, [])) == bytes
      assert Task.await(writing, 60_000) == :ok
      assert timers(p) == []
    end

    test "a terminal's line is as begun as what was written of it" do
      # Nobody reads the terminal, whose line holds 4,096 bytes.
      {:ok, p} = Command.start("sleep", ["1000"], pty: [echo: false])
      on_exit(fn -> Command.stop(p) end)
      text = :binary.copy("x", 100) <> "\n" <> :binary.copy("y", 200_000) <> "\n"
      assert {:error, {:timeout, n}} = Command.write(p, text, 50)
      assert n > 101 and n < byte_size(text)
      # Its end of file would be a character of the line.
      assert :sys.get_state(p).inlet.line == :begun
    end
  end
end
