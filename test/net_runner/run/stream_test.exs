defmodule NetRunner.StreamTest do
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  defp sh(script), do: ["sh", "-c", script]

  defp await_gone(os_pid), do: Tree.await(fn -> not File.exists?("/proc/#{os_pid}") end)

  describe "max_chunk_size" do
    test "is the most bytes of an element, and no byte is lost" do
      for {size, options, sum} <- [
            {1_000, [], 100_000},
            {1_000, [tagged: true], 100_000},
            {1, [max_output_size: 50], 50}
          ] do
        pieces =
          ~w(head -c 100000 /dev/zero)
          |> NetRunner.stream!([max_chunk_size: size, exit_status: :ignore] ++ options)
          |> all()

        assert Enum.all?(pieces, &(byte_size(&1) in 1..size))
        assert pieces |> Enum.map(&byte_size/1) |> Enum.sum() == sum
      end
    end

    # With a limit of its output, a stream raises when it has given what was allowed.
    defp all(stream) do
      test = self()

      try do
        Enum.each(stream, &send(test, {:element, &1}))
      rescue
        error in NetRunner.Error -> assert {:max_output_exceeded, _} = error.reason
      end

      received()
    end

    defp received do
      receive do
        {:element, {:stdout, piece}} -> [piece | received()]
        {:element, {:exit, 0}} -> received()
        {:element, piece} -> [piece | received()]
      after
        0 -> []
      end
    end

    test "has no meaning beside :lines" do
      assert_raise ArgumentError, ~r/:lines and :max_chunk_size exclude each other/, fn ->
        NetRunner.stream!(~w(true), lines: :trim, max_chunk_size: 1)
      end
    end

    test "and :lines have no meaning where nothing is read" do
      for option <- [lines: :trim, max_chunk_size: 1] do
        assert_raise ArgumentError,
                     ~r/#{inspect(elem(option, 0))} has no meaning here: there is no output to read, as stdout is not a pipe/,
                     fn -> NetRunner.stream!(~w(true), [option, stdout: :null]) end

        # Of a stream with `:tagged`, it is stderr that is read.
        stream = NetRunner.stream!(~w(true), [option, stdout: :null, tagged: true])
        assert Enum.to_list(stream) == [{:exit, 0}]
      end
    end
  end

  describe "what nobody would see of a stream's end" do
    # :logger handler
    def log(%{msg: {:string, text}}, %{config: test}) do
      if IO.chardata_to_string(text) =~ "unseen", do: send(test, {:logs, self()})
    end

    def log(_report, _config), do: :ok

    defp await_end(pid) do
      monitor = Process.monitor(pid)
      assert_receive {:DOWN, ^monitor, _, _, _}, 60_000
    end

    # As lines, each with the metadata that a console shows.
    defp logged(function) do
      log =
        ExUnit.CaptureLog.capture_log(
          [metadata: [:command], format: "$level $metadata$message\n"],
          function
        )

      String.split(log, "\n", trim: true)
    end

    test "is logged once: a failure of a stream that does not raise for it" do
      failing = sh("echo out; echo why >&2; exit 3")

      lines =
        logged(fn ->
          {:ok, stream} = NetRunner.stream(failing)
          assert Enum.to_list(stream) == ["out\n"]
        end)

      assert [line] = Enum.filter(lines, &(&1 =~ "exit 3"))
      assert line =~ "command=sh -c 'echo out; echo why >&2; exit 3' "
      assert line =~ "exited with status 3; the end of its stderr: why"
      assert line =~ ~r/^warn/
    end

    test "is not logged where it is normal, or seen otherwise" do
      lines =
        logged(fn ->
          {:ok, stream} = NetRunner.stream(sh("echo normal"))
          Enum.to_list(stream)
          {:ok, stream} = NetRunner.stream(sh("echo normal; exit 3"), tagged: true)
          Enum.to_list(stream)
          {:ok, stream} = NetRunner.stream(sh("while :; do echo normal; done"))
          Enum.take(stream, 1)
          NetRunner.stream!(sh("echo normal; exit 3"), exit_status: :ignore) |> Enum.to_list()
          catch_error(NetRunner.stream!(sh("echo normal; exit 3")) |> Enum.to_list())
        end)

      assert Enum.filter(lines, &(&1 =~ "normal")) == []
    end

    test "is logged once: a timeout of a stream that nobody enumerates" do
      :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: self()})
      on_exit(fn -> :logger.remove_handler(__MODULE__) end)

      lines =
        logged(fn ->
          {:ok, _stream} = NetRunner.stream(sh("echo $$ unseen; exec sleep 100"), timeout: 2_000)
          %{pid: server} = Enum.find(NetRunner.list(), &(inspect(&1.command) =~ "unseen"))
          await_end(server)
          # It is logged by a process of its own; when that is gone, by all handlers.
          assert_receive {:logs, logger}, 60_000
          await_end(logger)
        end)

      assert [line] = Enum.filter(lines, &(&1 =~ "unseen"))
      assert line =~ "was ended by its :timeout, and nobody had enumerated its stream"
    end
  end

  describe "stream!" do
    test "starts the command each time that it is enumerated, and not before" do
      path = NetRunner.Temporary.path("started")

      on_exit(fn -> File.rm(path) end)
      stream = NetRunner.stream!(sh("echo x >> #{path}; cat #{path}"))
      refute File.exists?(path)
      assert Enum.join(stream) == "x\n"
      assert Enum.join(stream) == "x\nx\n"
    end

    test "raises at the end when the command failed, with its stderr, unless that is ignored" do
      failing = sh("echo out; echo why >&2; exit 3")
      {:ok, seen} = Agent.start_link(fn -> [] end)

      error =
        assert_raise NetRunner.Error, fn ->
          failing
          |> NetRunner.stream!()
          |> Enum.each(&Agent.update(seen, fn all -> [&1 | all] end))
        end

      assert %{reason: :exit_status, status: 3, stderr: "why\n", command: ^failing} = error
      assert Agent.get(seen, & &1) == ["out\n"]
      assert failing |> NetRunner.stream!(exit_status: :ignore) |> Enum.join() == "out\n"
    end

    test "raises at the start when there is no such program" do
      assert_raise NetRunner.Error, ~r/no-such-program/, fn ->
        Enum.to_list(NetRunner.stream!(~w(no-such-program)))
      end
    end

    test "waits for a command that closed its stdout and works on" do
      assert_raise NetRunner.Error, ~r/status 4/, fn ->
        Enum.to_list(NetRunner.stream!(sh("exec >&-; sleep 0.2; exit 4")))
      end
    end

    test "raises what a producer of input raises, with its stacktrace" do
      input = Stream.map(1..3, fn n -> if n == 3, do: raise("broken"), else: "#{n}" end)

      try do
        Enum.to_list(NetRunner.stream!(~w(cat), input: input))
        flunk("nothing was raised")
      rescue
        error in RuntimeError ->
          assert error.message == "broken"
          assert Enum.any?(__STACKTRACE__, fn {module, _, _, _} -> module == __MODULE__ end)
      end
    end

    test "does not mind input that is not wanted, unless the command fails" do
      endless = Stream.cycle(["line\n"])
      assert ~w(head -n 2) |> NetRunner.stream!(input: endless) |> Enum.join() == "line\nline\n"

      assert_raise NetRunner.Error, ~r/status 5/, fn ->
        Enum.to_list(NetRunner.stream!(sh("exit 5"), input: endless))
      end
    end

    test "ends the command when the consumer stops, raises or dies" do
      endless = sh("echo $$; exec yes")
      pid_of = fn chunk -> chunk |> String.split("\n") |> hd() end

      [chunk] = endless |> NetRunner.stream!() |> Enum.take(1)
      refute File.exists?("/proc/#{pid_of.(chunk)}")

      error =
        assert_raise RuntimeError, fn ->
          endless |> NetRunner.stream!() |> Enum.each(&raise(&1))
        end

      refute File.exists?("/proc/#{pid_of.(error.message)}")

      test = self()

      consumer =
        spawn(fn ->
          endless
          |> NetRunner.stream!()
          |> Enum.each(fn chunk ->
            send(test, {:chunk, chunk})
            Process.sleep(:infinity)
          end)
        end)

      assert_receive {:chunk, chunk}, 60_000
      Process.exit(consumer, :kill)
      await_gone(pid_of.(chunk))
    end

    test "can be suspended, and goes on, or is halted then" do
      zipped =
        Stream.zip(
          NetRunner.stream!(~w(seq 3), lines: :trim),
          NetRunner.stream!(~w(yes), lines: :trim)
        )

      assert Enum.to_list(zipped) == [{"1", "y"}, {"2", "y"}, {"3", "y"}]
    end
  end

  describe "the consumer" do
    # A process outside of the command's tree that holds its stdout open for as long as the test takes.
    defp hold_stdout(os_pid) do
      script = "exec sleep 1000 > /proc/#{os_pid}/fd/1"
      {:ok, stranger} = NetRunner.Process.start("sh", ["-c", script])
      stranger = NetRunner.Process.os_pid(stranger)
      NetRunner.Guarantees.Tree.await(fn -> stdout(stranger) == stdout(os_pid) end)
    end

    defp stdout(os_pid), do: File.read_link("/proc/#{os_pid}/fd/1")

    defp suspended(stream) do
      step = fn element, seen -> {:suspend, [element | seen]} end
      {:suspended, seen, continue} = Enumerable.reduce(stream, {:cont, []}, step)
      {seen, continue}
    end

    test "may be another process half-way, and does not wait for a stranger that holds stdout" do
      test = self()

      waiting =
        Stream.repeatedly(fn ->
          send(test, {:ask, self()})
          receive(do: (x -> x))
        end)

      stream = NetRunner.stream!(sh("echo $$; read line"), input: waiting)
      {[os_pid], continue} = suspended(stream)
      hold_stdout(String.trim(os_pid))

      rest =
        Task.async(fn ->
          {how, seen} = continue.({:cont, []})
          {how, seen, Process.info(self(), :messages)}
        end)

      assert_receive {:ask, feeder}, 60_000
      send(feeder, "line\n")
      assert Task.await(rest, 60_000) == {:halted, [], {:messages, []}}
      await_gone(String.trim(os_pid))
      flush_asked()
      assert Process.info(self(), :messages) == {:messages, []}
    end

    defp flush_asked do
      receive do
        {:ask, _} -> flush_asked()
      after
        0 -> :ok
      end
    end

    test "keeps the messages that it has, in their order, and gets none of the stream's" do
      for n <- 1..1_000, do: send(self(), {:mine, n})
      script = "for i in 1 2 3 4 5; do echo $i; sleep 0.02; done"
      assert sh(script) |> NetRunner.stream!() |> Enum.join() == "1\n2\n3\n4\n5\n"
      assert ~w(yes) |> NetRunner.stream!() |> Enum.take(3) |> length() == 3
      {:messages, messages} = Process.info(self(), :messages)
      assert messages == for(n <- 1..1_000, do: {:mine, n})
    end
  end

  describe "stream" do
    test "gives the reason when the command cannot start, and never raises for the status" do
      assert NetRunner.stream(~w(no-such-program)) == {:error, :enoent}
      assert {:ok, stream} = NetRunner.stream(sh("echo out; exit 3"))
      assert Enum.join(stream) == "out\n"
    end

    test "lets a command that closed its stdout work on to its end" do
      path = NetRunner.Temporary.path("worked")

      on_exit(fn -> File.rm(path) end)
      {:ok, stream} = NetRunner.stream(sh("exec >&-; sleep 0.2; echo done > #{path}"))
      assert Enum.to_list(stream) == []
      assert File.read!(path) == "done\n"
    end

    test "belongs to who enumerates it" do
      test = self()

      {starter, monitor} =
        spawn_monitor(fn ->
          {:ok, stream} =
            NetRunner.stream(sh("echo $$; exec cat"), input: Stream.repeatedly(&wait/0))

          send(test, {:stream, stream})
          receive do: (:done -> :ok)
        end)

      assert_receive {:stream, stream}, 60_000

      consumer = spawn(fn -> Enum.each(stream, &send(test, {:chunk, &1})) end)
      assert_receive {:chunk, os_pid}, 60_000
      # Its starter is not needed any more.
      send(starter, :done)
      assert_receive {:DOWN, ^monitor, _, _, :normal}, 60_000
      assert File.exists?("/proc/#{String.trim(os_pid)}")
      Process.exit(consumer, :kill)
      await_gone(String.trim(os_pid))
    end

    test "goes on when the process that started it dies" do
      test = self()

      go = NetRunner.Temporary.path("go")

      on_exit(fn -> File.rm(go) end)

      {starter, monitor} =
        spawn_monitor(fn ->
          script = "echo one; until [ -e #{go} ]; do sleep 0.01; done; echo two"
          {:ok, stream} = NetRunner.stream(sh(script))
          send(test, {:stream, stream})
          Process.sleep(:infinity)
        end)

      assert_receive {:stream, stream}, 60_000

      chunks =
        Enum.map(stream, fn chunk ->
          Process.exit(starter, :kill)
          if chunk == "one\n", do: assert_receive({:DOWN, ^monitor, _, _, :killed}, 60_000)
          File.write!(go, "")
          chunk
        end)

      assert chunks == ["one\n", "two\n"]
    end

    test "that is enumerated a second time says that it is over" do
      {:ok, stream} = NetRunner.stream(~w(echo once))
      assert Enum.join(stream) == "once\n"
      error = assert_raise NetRunner.Error, fn -> Enum.join(stream) end
      assert %{reason: :stream_over, command: ["echo", "once"]} = error
    end
  end

  test "stream that another process enumerates already says so, and is left alone" do
    {:ok, stream} = NetRunner.stream(sh("echo one; cat"), input: ["two\n"])

    {:suspended, ["one\n" <> _] = seen, continue} =
      Enumerable.reduce(stream, {:cont, []}, &{:suspend, [&1 | &2]})

    error =
      Task.async(fn -> assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end end)
      |> Task.await()

    assert %{reason: :already_enumerated, command: ["sh" | _]} = error
    assert Exception.message(error) =~ "once"
    assert rest(continue, seen) == "one\ntwo\n"
  end

  defp rest(continue, seen) do
    case continue.({:cont, seen}) do
      {:suspended, seen, continue} -> rest(continue, seen)
      {_, seen} -> seen |> Enum.reverse() |> Enum.join()
    end
  end

  defp wait do
    Process.sleep(1_000)
    "x"
  end

  describe "a stream's limits" do
    test "its time: what was printed comes, then it says so, and the command is gone" do
      {:ok, seen} = Agent.start_link(fn -> "" end)
      stream = NetRunner.stream!(sh("echo $$; sleep 100"), timeout: 3_000)

      error =
        assert_raise NetRunner.Error, ~r/did not end within :timeout/, fn ->
          Enum.each(stream, fn chunk -> Agent.update(seen, &(&1 <> chunk)) end)
        end

      assert error.reason == :timeout
      refute File.exists?("/proc/#{seen |> Agent.get(& &1) |> String.trim()}")

      assert_raise NetRunner.Error, ~r/:timeout/, fn ->
        Enum.to_list(NetRunner.pipeline_stream!([~w(sleep 100), ~w(cat)], timeout: 3_000))
      end

      {:ok, stream} = NetRunner.stream(~w(sleep 100), timeout: 3_000, tagged: true)
      assert_raise NetRunner.Error, ~r/:timeout/, fn -> Enum.to_list(stream) end
    end

    test "its size" do
      assert ~w(printf abc) |> NetRunner.stream!(max_output_size: 3) |> Enum.join() == "abc"

      assert_raise NetRunner.Error, ~r/:max_output_size/, fn ->
        Enum.to_list(NetRunner.stream!(~w(yes), max_output_size: 100_000))
      end
    end
  end

  test "leaves no message in the mailbox of its consumer, also of one that traps exits" do
    Process.flag(:trap_exit, true)
    assert ~w(echo a) |> NetRunner.stream!() |> Enum.join() == "a\n"
    assert ~w(yes) |> NetRunner.stream!() |> Enum.take(3) |> length() == 3
    assert [~w(yes), ~w(cat)] |> NetRunner.pipeline_stream!() |> Enum.take(1) |> length() == 1
    assert sh("sleep 0.05; echo a") |> NetRunner.stream!() |> Enum.join() == "a\n"
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "ends with its command, also when a process that is not below it holds the pipe" do
    # The holder takes the pipe from the command, by /proc, and lives on.
    test = self()

    holder = fn os_pid ->
      {:ok, p} =
        NetRunner.Process.start("sh", ["-c", "exec 3>/proc/#{os_pid}/fd/1; echo; read stop"],
          owner: test
        )

      {:ok, "\n"} = NetRunner.Process.read(p)
      p
    end

    stream =
      NetRunner.stream!(sh("echo $$; read go"),
        input:
          Stream.map([1], fn _ ->
            wait()
            wait()
            "go\n"
          end)
      )

    held = Enum.reduce(stream, nil, fn chunk, nil -> chunk |> String.trim() |> holder.() end)

    assert NetRunner.Process.alive?(held)
    NetRunner.Process.stop(held)
  end

  describe "tagged" do
    test "gives both streams, and the status last, and does not raise for it" do
      elements =
        sh("echo out; echo err >&2; exit 3") |> NetRunner.stream!(tagged: true) |> Enum.to_list()

      assert Enum.sort(Enum.take(elements, 2)) == [stderr: "err\n", stdout: "out\n"]
      assert List.last(elements) == {:exit, 3}
      assert length(elements) == 3

      {:ok, stream} = NetRunner.stream(sh("kill -KILL $$"), tagged: true)
      assert Enum.to_list(stream) == [{:exit, 137}]
    end

    test "leaves stderr where else it was sent" do
      command = sh("echo out; echo err >&2")

      for mode <- [:disabled, :redirect] do
        elements = command |> NetRunner.stream!(tagged: true, stderr: mode) |> Enum.to_list()
        output = for {:stdout, bytes} <- elements, into: "", do: bytes
        assert output == if(mode == :redirect, do: "out\nerr\n", else: "out\n")
        assert List.last(elements) == {:exit, 0}
      end
    end

    test "with lines keeps those of the two streams apart" do
      script =
        "printf o1; printf e1 >&2; sleep 0.05; printf 'o2\\n'; printf 'e2\\ne3' >&2; sleep 0.05; printf o3"

      elements = sh(script) |> NetRunner.stream!(tagged: true, lines: :trim) |> Enum.to_list()
      assert for({:stdout, line} <- elements, do: line) == ["o1o2", "o3"]
      assert for({:stderr, line} <- elements, do: line) == ["e1e2", "e3"]
      assert List.last(elements) == {:exit, 0}
    end
  end

  describe "lines" do
    defp lines(input, how),
      do: ~w(cat) |> NetRunner.stream!(input: input, lines: how) |> Enum.to_list()

    test "are whole, with or without their newline, also a last one that has none" do
      assert lines("a\n\nb\r\nc\rd\n\re", :keep) == ["a\n", "\n", "b\r\n", "c\rd\n", "\re"]
      assert lines("a\n\nb\r\nc\rd\n\re", :trim) == ["a", "", "b", "c\rd", "\re"]
      assert lines("", :trim) == []
      assert lines("\n", :trim) == [""]
      assert lines("\r\n", :trim) == [""]
      assert lines("\r", :trim) == ["\r"]
      assert lines("a\r\r\n", :trim) == ["a\r"]
    end

    test "may be longer than any chunk" do
      long = String.duplicate("x", 3_000_000)
      assert lines([long, "\n", long, "\r\n", "end"], :trim) == [long, long, "end"]
      assert lines(long, :keep) == [long]
    end

    test "millions of them may be empty" do
      stream = NetRunner.stream!(~w(cat), input: String.duplicate("\n", 3_000_000), lines: :trim)
      assert Enum.reduce(stream, 0, fn "", count -> count + 1 end) == 3_000_000
    end

    test "come out the same wherever the chunks were cut" do
      all = for _ <- 1..2_000, do: random_line()
      expected = all |> Enum.join() |> String.split(~r/\r?\n/) |> drop_last_empty()
      state = NetRunner.Run.Lines.new(:trim)

      for size <- [1, 2, 3, 7, 1000] do
        {got, state} =
          all
          |> Enum.join()
          |> pad(size)
          |> pieces(size)
          |> Enum.reduce({[], state}, fn chunk, {got, state} ->
            feed(NetRunner.Run.Lines.add(state, chunk), got)
          end)

        got = Enum.reverse(got) ++ NetRunner.Run.Lines.last(state)
        assert Enum.take(got, length(expected)) == expected
      end
    end

    defp pieces(text, size) do
      for at <- 0..(byte_size(text) - size)//size, do: binary_part(text, at, size)
    end

    # Whole pieces only; what is added at the end is a line of its own.
    defp pad(text, size),
      do: text <> String.duplicate("\n", rem(size - rem(byte_size(text), size), size))

    defp feed(state, got) do
      case NetRunner.Run.Lines.next(state) do
        {[], state} -> {got, state}
        {whole, state} -> feed(state, Enum.reverse(whole, got))
      end
    end

    defp random_line do
      String.duplicate("x", Enum.random([0, 1, 2, 63, 64, 65, 200])) <>
        Enum.random(["\n", "\r\n"])
    end

    defp drop_last_empty(lines), do: Enum.drop(lines, -1)

    test "end with another separator, where one is given" do
      command = sh("printf 'a b\\000c\\n\\000\\000d'")

      assert NetRunner.stream!(command, lines: {:trim, <<0>>}) |> Enum.to_list() == [
               "a b",
               "c\n",
               "",
               "d"
             ]

      assert NetRunner.stream!(command, lines: {:keep, <<0>>}, tagged: true) |> Enum.to_list() ==
               [stdout: "a b\0", stdout: "c\n\0", stdout: "\0", stdout: "d", exit: 0]

      {:ok, stream} = NetRunner.stream(~w(printf one--two---three), lines: {:trim, "--"})
      assert Enum.to_list(stream) == ["one", "two", "-three"]

      lines =
        NetRunner.pipeline_stream!([~w(seq 300000), ["tr", "\\n", "\\000"]],
          lines: {:trim, <<0>>}
        )

      assert Enum.to_list(lines) == Enum.map(1..300_000, &"#{&1}")
    end

    test "short ones keep no chunk alive" do
      [short, long, other] =
        lines(for(size <- [64, 65, 2_000], do: [String.duplicate("x", size), "\n"]), :trim)

      # OTP 27 counts bits for a binary as short as this.
      assert :binary.referenced_byte_size(short) in [64, 64 * 8]
      assert :binary.referenced_byte_size(long) > byte_size(other)
    end

    test "that no newline ended come before the end of the command, and before its failure is raised" do
      test = self()
      failing = sh("printf 'whole\\nhalf'; exit 3")

      assert_raise NetRunner.Error, ~r/status 3/, fn ->
        failing |> NetRunner.stream!(lines: :trim) |> Enum.each(&send(test, {:line, &1}))
      end

      assert_received {:line, "whole"}
      assert_received {:line, "half"}

      # It works on for longer than this test may take.
      working = sh("printf half; exec >&-; exec sleep 1000")
      assert working |> NetRunner.stream!(lines: :keep) |> Enum.take(1) == ["half"]
    end

    test "stop in the middle of a chunk" do
      assert ~w(yes) |> NetRunner.stream!(lines: :trim) |> Enum.take(3) == ["y", "y", "y"]
    end
  end

  describe "input" do
    test "of a function that gets a Collectable" do
      assert NetRunner.run(~w(sort), input: &Enum.into(["b\n", "a\n"], &1)) == {"a\nb\n", 0}

      assert ~w(cat)
             |> NetRunner.stream!(input: &Enum.into(1..3, &1, fn n -> "#{n}" end))
             |> Enum.join() == "123"

      # What it returns does not matter.
      assert NetRunner.run(~w(cat), input: fn _sink -> :nothing end) == {"", 0}
    end

    test "of a function that raises, and of one whose command has had enough" do
      assert_raise RuntimeError, "no", fn ->
        NetRunner.run(~w(cat), input: fn _ -> raise "no" end)
      end

      assert NetRunner.run(~w(head -c 2), input: &Enum.into(Stream.cycle(["ab"]), &1)) ==
               {"ab", 0}
    end

    test "that kills its process ends the command, and its caller exits" do
      for input <- [
            Stream.map([1], fn _ -> Process.exit(self(), :kill) end),
            fn _sink -> Process.exit(self(), :kill) end
          ] do
        assert catch_exit(NetRunner.run(~w(cat), input: input, timeout: 10_000)) == :killed
        stream = NetRunner.stream!(~w(cat), input: input, timeout: 10_000)
        assert catch_exit(Enum.to_list(stream)) == :killed
      end
    end

    test "is cleaned up when the command ends early" do
      test = self()

      input =
        Stream.resource(
          fn -> 0 end,
          fn n -> {["x"], n + 1} end,
          fn _ -> send(test, :cleaned_up) end
        )

      assert NetRunner.run(~w(head -c 1), input: input) == {"x", 0}
      assert_receive :cleaned_up, 60_000
      assert ~w(cat) |> NetRunner.stream!(input: input) |> Enum.take(1) != []
      assert_receive :cleaned_up, 60_000
      assert {:error, :timeout} = NetRunner.run(~w(sleep 100), input: input, timeout: 2_000)
      assert_receive :cleaned_up, 60_000
    end

    test "is cleaned up when the process of the command ends with an error" do
      test = self()

      input =
        Stream.resource(
          fn -> send(test, :begun) end,
          fn state -> {["x"], state} end,
          fn _ -> send(test, :cleaned_up) end
        )

      command = sh("echo $$; exec sleep 1000")
      {:ok, stream} = NetRunner.stream(command, input: input)

      consumer =
        Task.async(fn ->
          assert_raise NetRunner.Error, fn -> Enum.each(stream, &send(test, {:chunk, &1})) end
        end)

      assert_receive {:chunk, os_pid}, 60_000
      assert_receive :begun, 60_000
      %{pid: server} = Enum.find(NetRunner.list(), &("#{&1.os_pid}\n" == os_pid))
      # As a supervisor that stops the application does.
      Process.exit(server, :shutdown)
      assert_receive :cleaned_up, 60_000
      await_gone(String.trim(os_pid))
      assert %{reason: :closed, command: ^command} = Task.await(consumer)
    end
  end
end
