defmodule NetRunner.Daemon.AloneTest do
  # What the log of the VM gets, handlers that everything in the VM waits for, and its memory.
  use ExUnit.Case, async: false

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.Tree
  alias NetRunner.Memory

  doctest NetRunner.Daemon

  # --- :logger handler ----------------------------------------------------------------------------

  def log(%{meta: meta, level: level, msg: message}, %{config: test}) do
    text =
      case message do
        {:string, text} -> IO.chardata_to_string(text)
        {:report, report} -> inspect(report)
        {format, arguments} -> format |> :io_lib.format(arguments) |> IO.chardata_to_string()
      end

    send(test, {:logged, level, text, meta})
  end

  defp listen_to_log(_) do
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self()})
    on_exit(fn -> :logger.remove_handler(__MODULE__) end)
  end

  defp shell(script, options), do: [cmd: "sh", args: ["-c", script]] ++ options

  describe "the log" do
    @describetag :capture_log
    setup :listen_to_log

    test "gets whole lines of both outputs, with metadata" do
      script =
        "printf 'on'; sleep 0.05; printf 'e\\ntwo\\r\\n\\nla'; printf 'st'; echo oops >&2; read stop"

      {:ok, daemon} = Daemon.start_link(shell(script, on_output: :log))
      os_pid = Daemon.os_pid(daemon)
      command = NetRunner.Error.command_line(["sh", "-c", script])

      for line <- ["one", "two", ""] do
        assert_receive {:logged, :info, ^line,
                        %{os_pid: ^os_pid, command: ^command, stream: :stdout}},
                       60_000
      end

      assert_receive {:logged, :info, "oops", %{os_pid: ^os_pid, stream: :stderr}}, 60_000
      refute_received {:logged, _, _, _}
      :ok = GenServer.stop(daemon)
      assert_receive {:logged, :info, "last", %{stream: :stdout}}
    end

    test "has the level that was asked for, and only text" do
      script = "printf 'a\\377b\\303\\244\\n'; read stop"
      {:ok, daemon} = Daemon.start_link(shell(script, on_output: {:log, :error}))
      assert_receive {:logged, :error, "a\uFFFDbä", _}, 60_000
      :ok = GenServer.stop(daemon)
    end

    test "gets a very long line in pieces, cut between characters" do
      script =
        "i=0; while [ $i -lt 20000 ]; do printf '\\303\\244'; i=$((i+1)); done; echo; echo next; read stop"

      {:ok, daemon} = Daemon.start_link(shell("printf x;" <> script, on_output: :log))
      pieces = Stream.repeatedly(&next_line/0) |> Enum.take_while(&(&1 != "next"))
      assert Enum.join(pieces) == "x" <> String.duplicate("ä", 20_000)
      assert length(pieces) == 5
      assert Enum.all?(pieces, &(byte_size(&1) <= 8_192 and String.valid?(&1)))
      :ok = GenServer.stop(daemon)
    end

    test "has lines, however they were cut into pieces" do
      for _ <- 1..200 do
        lines = for _ <- 1..:rand.uniform(20), do: random_line()
        text = Enum.map_join(lines, &(&1 <> "\n"))
        assert text |> pieces([]) |> through_lines() == Enum.flat_map(lines, &cut/1)
      end
    end

    defp next_line do
      assert_receive {:logged, :info, line, %{stream: :stdout}}, 60_000
      line
    end

    defp random_line,
      do: String.duplicate("x", Enum.random([0, 1, 5, 8_191, 8_192, 8_193, 20_000]))

    defp cut(line) when byte_size(line) <= 8_192, do: [line]
    defp cut(<<piece::binary-size(8_192), rest::binary>>), do: [piece | cut(rest)]

    defp pieces("", pieces), do: Enum.reverse(pieces)

    defp pieces(text, pieces) do
      {piece, rest} = String.split_at(text, :rand.uniform(9_000))
      pieces(rest, [piece | pieces])
    end

    defp through_lines(pieces) do
      alias NetRunner.Run.Lines
      {lines, begun} = Enum.flat_map_reduce(pieces, Lines.new(:trim, 8_192), &Lines.push(&2, &1))
      lines ++ Lines.last(begun)
    end
  end

  test "a callback slower than the command makes the command wait, and no memory fill" do
    test = self()

    callback = fn bytes ->
      send(test, {:got, self(), byte_size(bytes)})

      receive do
        :next -> :ok
      end
    end

    before = Memory.of_binaries()
    {:ok, daemon} = Daemon.start_link(cmd: "yes", on_output: callback)
    assert_receive {:got, output, size}, 60_000
    written = Tree.await_blocked(Daemon.os_pid(daemon))
    assert %{bytes_out: ^size} = Daemon.stats(daemon)
    # What the command has written is what was read and what is in the pipe.
    assert written <= size + 2 * 1_048_576

    # It goes on when the callback does, in pieces as large as what it has written meanwhile.
    read = read_more_than(16 * 1_048_576, size, output)
    assert %{bytes_out: ^read} = Daemon.stats(daemon)
    assert Memory.of_binaries() - before < 1_048_576
    :ok = GenServer.stop(daemon)
  end

  defp read_more_than(bytes, read, _output) when read > bytes, do: read

  defp read_more_than(bytes, read, output) do
    send(output, :next)
    assert_receive {:got, ^output, size}, 60_000
    read_more_than(bytes, read + size, output)
  end

  describe "a log handler that hangs" do
    # As every handler, it runs in the process that logs.
    def hang(_event, %{config: test}) do
      send(test, {:hanging, self()})
      Process.sleep(:infinity)
    end

    defmodule Hanging do
      def log(event, config), do: NetRunner.Daemon.AloneTest.hang(event, config)
    end

    setup do
      :ok = :logger.add_handler(Hanging, Hanging, %{config: self()})

      on_exit(fn ->
        :logger.remove_handler(Hanging)
        for pid <- NetRunner.Waiting.loggers(), do: Process.exit(pid, :kill)
      end)
    end

    test "does not keep the command alive, whoever logs" do
      for {what, options} <- [
            {:lines, [on_output: :log]},
            {:failure, [on_output: fn _ -> raise "bad" end]},
            {:death, [on_output: fn _ -> Process.exit(self(), :kill) end]},
            {:message, []}
          ] do
        {:ok, daemon} = Daemon.start_link(shell("echo hello; read stop", options))
        os_pid = Daemon.os_pid(daemon)
        if what == :message, do: send(daemon, :unexpected)
        assert_receive {:hanging, who}, 60_000
        assert who != daemon
        :ok = GenServer.stop(daemon)
        refute File.exists?("/proc/#{os_pid}")
        Process.exit(who, :kill)
      end
    end

    test "does not keep a command alive whose process got a call that is none of its own" do
      {:ok, p} = NetRunner.Process.start("sleep", ["1000"])
      os_pid = NetRunner.Process.os_pid(p)
      assert {{:shutdown, {:crashed, _}}, _} = catch_exit(GenServer.call(p, :stray, 60_000))
      Tree.await(fn -> not File.exists?("/proc/#{os_pid}") end)
      assert_receive {:hanging, _}, 60_000
    end

    test "does not keep commands from being started when the launcher has died" do
      Tree.kill(Tree.current_launcher())
      assert_receive {:hanging, _}, 60_000
      assert NetRunner.run(["echo", "hello"], timeout: 60_000) == {"hello\n", 0}
    end
  end
end
