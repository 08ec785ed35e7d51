defmodule NetRunner.FdsTest do
  # The further descriptors of a command (`:fds`), with real programs.
  use ExUnit.Case, async: false

  import ExUnit.CaptureLog

  alias NetRunner.Daemon
  alias NetRunner.Guarantees.{Nodes, Tree}
  alias NetRunner.Process, as: Command

  setup do
    directory = NetRunner.Temporary.path("fds")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory, vm_fds: Tree.new().fds}
  end

  # In the middle of its execve(2), a command is still as closed to other users as its shepherd.
  defp fds_of(p) do
    with {:ok, names} <- File.ls("/proc/#{Command.os_pid(p)}/fd"),
         do: names |> Enum.map(&String.to_integer/1) |> Enum.sort()
  end

  defp assert_fds_back(context) do
    Tree.await(fn ->
      NetRunner.System.Native.let_idle_go()
      Tree.fds() <= context.vm_fds
    end)
  end

  # Tells of each number what can be read there.
  @reader """
  import os, sys
  for n in sys.argv[1:]:
      print(n, os.fdopen(int(n), closefd=False).read(), flush=True)
  """

  defp read_all(numbers, fds, options \\ []) do
    command = ["python3", "-S", "-E", "-c", @reader | Enum.map(numbers, &"#{&1}")]
    NetRunner.run(command, [fds: fds] ++ options)
  end

  describe "what the command sees:" do
    test "exactly the numbers that were asked for, and the VM has one end of each pipe",
         context do
      files = %{
        7 => {:output, {:file, Path.join(context.directory, "out")}},
        200 => {:append, {:file, Path.join(context.directory, "log")}},
        12 => {:input, {:file, "/dev/null"}}
      }

      for fds <- [
            %{},
            %{3 => :input},
            %{5 => :output, 4 => :input, 255 => {:input, "x"}},
            files,
            Map.merge(files, %{3 => :output, 8 => :input})
          ] do
        assert_fds_back(context)
        {:ok, p} = Command.start("cat", [], fds: fds)
        # It opens its libraries first.
        expected = Enum.sort([0, 1, 2 | Map.keys(fds)])
        Tree.await(fn -> fds_of(p) == expected end, 60_000, fn -> fds_of(p) end)
        assert Command.stop(p) == :ok
      end

      assert_fds_back(context)
    end

    test "the next command of the same shepherd has none of them" do
      for _ <- 1..10 do
        assert {"x", 0} = NetRunner.run(~w(cat /dev/fd/9), fds: %{9 => {:input, "x"}})
        # ls itself has the directory open.
        assert NetRunner.run(~w(ls /proc/self/fd)) == {"0\n1\n2\n3\n", 0}
      end
    end

    test "each number has its own content, whatever numbers are asked for", context do
      for _ <- 1..20 do
        numbers = Enum.take_random(3..255, Enum.random(1..40))
        # Close together they are what the shepherd uses itself.
        numbers = Enum.uniq(numbers ++ Enum.take_random(3..12, Enum.random(0..9)))

        fds =
          Map.new(numbers, fn n ->
            if Enum.random([true, false]) do
              {n, {:input, "content #{n}"}}
            else
              path = Path.join(context.directory, "#{n}")
              File.write!(path, "content #{n}")
              {n, {:input, {:file, path}}}
            end
          end)

        expected = Enum.map_join(numbers, &"#{&1} content #{&1}\n")
        assert read_all(numbers, fds) == {expected, 0}
      end

      assert_fds_back(context)
    end

    test "a file that is opened on the very number that it is to have", %{directory: directory} do
      path = Path.join(directory, "file")
      File.write!(path, "content")

      # One of them is the lowest that is free when the file is opened.
      for n <- 3..24 do
        file = %{n => {:input, {:file, path}}}
        assert NetRunner.run(["cat", "/dev/fd/#{n}"], fds: file) == {"content", 0}
      end
    end

    test "as many as one message carries; more are refused", context do
      fds = Map.new(3..250, &{&1, {:input, "#{&1}"}})
      assert {output, 0} = read_all(3..250, fds)
      assert output == Enum.map_join(3..250, &"#{&1} #{&1}\n")

      assert_raise ArgumentError, ~r/got: more than 248 that are not files/, fn ->
        NetRunner.run(~w(true), fds: Map.put(fds, 251, {:input, ""}))
      end

      # Files are opened by the command's own process.
      with_files = Map.merge(fds, Map.new(251..255, &{&1, {:input, {:file, "/dev/null"}}}))
      assert {_, 0} = read_all(3..255, with_files)
      assert_fds_back(context)
    end

    test "files: made or emptied, appended to, read; a FIFO that nobody reads does not hang", %{
      directory: directory
    } do
      [out, log, source, fifo] = for name <- ~w(out log in fifo), do: Path.join(directory, name)
      File.write!(out, "older and longer")
      File.write!(source, "source")
      {"", 0} = System.cmd("mkfifo", [fifo])

      fds = %{
        3 => {:input, {:file, source}},
        4 => {:output, {:file, out}},
        5 => {:append, {:file, log}}
      }

      script = "cat <&3 >&4; echo line >&5"
      for _ <- 1..2, do: assert(NetRunner.run(["sh", "-c", script], fds: fds) == {"", 0})
      assert File.read!(out) == "source"
      assert File.read!(log) == "line\nline\n"

      assert NetRunner.run(~w(true), fds: %{9 => {:output, {:file, fifo}}}) ==
               {:error, {:fd, 9, :enxio}}

      assert Exception.message(%NetRunner.Error{reason: {:fd, 9, :enoent}, command: ~w(true)}) ==
               "`true` failed: its descriptor 9 (:fds) cannot be opened: no such file or directory (:enoent)"
    end

    @tag Tree.linux_only()
    test "a file on which another process has a lease: they wait until it gives that up",
         context do
      path = Path.join(context.directory, "leased")
      File.write!(path, "content")

      holder = """
      import fcntl, os, signal, sys
      file = os.open(sys.argv[1], os.O_RDWR)
      signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
      fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
      print("leased", flush=True)
      signal.sigwait([signal.SIGIO])
      # Only a start that does not wait would come to its end meanwhile.
      signal.sigtimedwait([], 0.3)
      fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
      """

      for {options, script, output} <- [
            {[stdin: {:file, path}], "cat", "content"},
            {[fds: %{3 => {:input, {:file, path}}}], "cat <&3", "content"},
            {[stdout: {:append, path}], "echo", ""}
          ] do
        {:ok, p} = Command.start("python3", ["-c", holder, path])
        assert Command.read_until(p, "leased\n") == {:ok, {"", "leased\n"}}
        assert NetRunner.run(["sh", "-c", script], options) == {output, 0}
        assert Command.await_exit(p) == {:ok, 0}
      end
    end

    test "a terminal, another user and a limit of descriptors go with them" do
      {:ok, p} =
        Command.start("sh", ["-c", "read x <&3; [ -t 0 ] && [ ! -t 3 ] && echo terminal $x"],
          pty: [echo: false],
          fds: %{3 => {:input, "and more\n"}}
        )

      assert Command.read(p) == {:ok, "terminal and more\r\n"}

      assert read_all([200], %{200 => {:input, "high"}}, rlimits: [nofile: 64]) ==
               {"200 high\n", 0}

      if Tree.root?() do
        command = ["sh", "-c", "id -u; cat <&3; echo done >&4"]

        {:ok, p} =
          Command.start("sh", tl(command),
            user: 65_534,
            group: 65_534,
            fds: %{3 => {:input, "x"}, 4 => :output}
          )

        assert Command.read_fd(p, 4) == {:ok, "done\n"}
        assert Command.read(p) == {:ok, "65534\nx"}
      end
    end
  end

  describe "{:input, iodata}" do
    test "is fed while the command runs, in any size, and then closed", context do
      bytes = :crypto.strong_rand_bytes(3_000_000)
      iodata = [binary_part(bytes, 0, 5), [binary_part(bytes, 5, 2_999_995)]]
      command = ["sh", "-c", "cat <&3; cat"]
      assert {output, 0} = NetRunner.run(command, fds: %{3 => {:input, iodata}}, input: "stdin")
      assert output == bytes <> "stdin"
      assert read_all([3], %{3 => {:input, ""}}) == {"3 \n", 0}
      assert_fds_back(context)
    end

    test "that the command does not read holds nothing up, and is gone with it", context do
      big = String.duplicate("x", 1_000_000)
      assert NetRunner.run(~w(echo hello), fds: %{3 => {:input, big}}) == {"hello\n", 0}
      {:ok, p} = Command.start("sh", ["-c", "exec 3<&-; read x"], fds: %{3 => {:input, big}})
      assert Command.write(p, "\n") == :ok
      assert Command.await_exit(p) == {:ok, 0}
      Command.stop(p)
      assert_fds_back(context)
    end

    @secret "hunter" <> "2 the secret"

    test "stands in no argument, environment, log or inspect" do
      log =
        capture_log(fn ->
          command =
            NetRunner.Command.new("cat", [],
              fds: %{3 => {:input, [@secret]}, 4 => {:input, {:file, "/dev/null"}}}
            )

          assert inspect(command) =~ "3 => {:input, :hidden}"
          refute inspect(command) =~ "hunter"
          {:ok, p} = Command.start(command)
          os_pid = Command.os_pid(p)
          shepherd = Tree.shepherd(p)

          for pid <- [os_pid, shepherd], file <- ["cmdline", "environ"] do
            case File.read("/proc/#{pid}/#{file}") do
              {:ok, text} -> refute text =~ "hunter"
              # Of a shepherd, only root reads it.
              {:error, reason} -> assert {pid, file, reason} == {shepherd, "environ", :eacces}
            end
          end

          refute inspect(Command.info(p)) =~ "hunter"
          refute inspect(NetRunner.list()) =~ "hunter"
          refute inspect(:sys.get_status(p)) =~ "hunter"
          Process.exit(p, :oops)
          Tree.await(fn -> not Process.alive?(p) end)

          for fds <- [
                %{2 => {:input, @secret}},
                %{3 => {:inptu, @secret}},
                %{3 => {:input, [@secret | :x]}}
              ] do
            error = assert_raise(ArgumentError, fn -> NetRunner.run(~w(cat), fds: fds) end)
            refute Exception.message(error) =~ "hunter"
          end

          assert {:error, reason} =
                   NetRunner.run(~w(no-such-program), fds: %{3 => {:input, @secret}})

          refute inspect(reason) =~ "hunter"

          error =
            assert_raise(NetRunner.Error, fn ->
              NetRunner.stream!(~w(false), fds: %{3 => {:input, @secret}}) |> Stream.run()
            end)

          refute inspect(error) =~ "hunter"
        end)

      refute log =~ "hunter"
    end
  end

  describe "on demand:" do
    test "a conversation on two descriptors, beside stdin and stdout" do
      script =
        "import os\nwhile True:\n  b = os.read(4, 100)\n  if not b: break\n  os.write(5, b.upper())\nprint('end')"

      {:ok, p} = Command.start("python3", ["-c", script], fds: %{4 => :input, 5 => :output})

      for word <- ~w(one two three) do
        assert Command.write_fd(p, 4, word) == :ok
        assert Command.read_fd(p, 5) == {:ok, String.upcase(word)}
      end

      assert Command.close_fd(p, 4) == :ok
      assert Command.close_fd(p, 4) == :ok
      assert Command.write_fd(p, 4, "x") == {:error, :closed}
      assert Command.read_fd(p, 5) == :eof
      assert Command.read(p) == {:ok, "end\n"}
      assert %{bytes_in: 0, bytes_out: 4} = Command.stats(p)
    end

    test "backpressure each way, and every byte: 5 MB through cat" do
      bytes = :crypto.strong_rand_bytes(5_000_000)
      {:ok, p} = Command.start("sh", ["-c", "cat <&3 >&4"], fds: %{3 => :input, 4 => :output})

      writer =
        Task.async(fn ->
          :ok = Command.write_fd(p, 3, bytes)
          Command.close_fd(p, 3)
        end)

      refute Task.yield(writer, 200)
      assert read_to_end(p, 4, []) == bytes
      assert Task.await(writer) == :ok
    end

    test "a read with a time gives up, and takes no byte" do
      {:ok, p} = Command.start("sh", ["-c", "cat <&3 >&4"], fds: %{3 => :input, 4 => :output})
      assert Command.read_fd(p, 4, 100, 0) == {:error, :timeout}
      assert Command.read_fd(p, 4, 100, 20) == {:error, :timeout}
      assert Command.write_fd(p, 3, "late") == :ok
      assert Command.read_fd(p, 4, 2, 60_000) == {:ok, "la"}
      assert Command.read_fd(p, 4) == {:ok, "te"}
    end

    test "a number that is none, or is of the other direction" do
      {:ok, p} =
        Command.start("cat", [],
          fds: %{3 => :input, 4 => :output, 5 => {:input, {:file, "/dev/null"}}}
        )

      assert Command.write_fd(p, 4, "x") == {:error, :not_piped}
      assert Command.read_fd(p, 3) == {:error, :not_piped}
      for n <- [5, 6], do: assert(Command.close_fd(p, n) == {:error, :not_piped})

      assert_raise ArgumentError, ~r"a number from 3 to 255", fn ->
        Command.write_fd(p, 1, "x")
      end

      Command.stop(p)
      assert Command.write_fd(p, 3, "x") == {:error, :closed}
    end

    test "when the command is over, what it wrote can be read; then :eof, and writes get :epipe",
         context do
      {:ok, p} = Command.start("sh", ["-c", "echo last >&4"], fds: %{3 => :input, 4 => :output})
      assert Command.await_exit(p) == {:ok, 0}
      assert Command.write_fd(p, 3, "x") == {:error, :epipe}
      assert Command.read_fd(p, 4) == {:ok, "last\n"}
      for _ <- 1..2, do: assert(Command.read_fd(p, 4) == :eof)
      Command.stop(p)
      assert_fds_back(context)
    end

    test "who waits hears of the end: readers :eof, writers :epipe", context do
      {:ok, p} = Command.start("sleep", ["100"], fds: %{3 => :input, 4 => :output})
      reader = Task.async(fn -> Command.read_fd(p, 4) end)
      writer = Task.async(fn -> Command.write_fd(p, 3, String.duplicate("x", 5_000_000)) end)
      refute Task.yield(reader, 100)
      Command.kill(p, :sigkill)
      assert Task.await(reader) == :eof
      assert Task.await(writer) == {:error, :epipe}
      Command.stop(p)
      assert_fds_back(context)
    end

    test "the end of the process answers them too", context do
      {:ok, p} = Command.start("sleep", ["100"], fds: %{3 => :input, 4 => :output})
      reader = Task.async(fn -> Command.read_fd(p, 4) end)
      writer = Task.async(fn -> Command.write_fd(p, 3, String.duplicate("x", 5_000_000)) end)
      refute Task.yield(writer, 100)
      Command.stop(p)
      assert Task.await(reader) == {:error, :closed}
      assert {:error, reason} = Task.await(writer)
      assert reason in [:epipe, :closed]
      assert_fds_back(context)
    end

    test "a full one that nobody reads does not keep a stopped command from ending" do
      script =
        "import os, signal, time\nsignal.signal(signal.SIGTERM, lambda *_: (os.write(4, b'x' * 3000000), os._exit(0)))\nos.write(1, b'ready\\n')\nwhile True: time.sleep(0.05)"

      {:ok, p} =
        Command.start("python3", ["-c", script], fds: %{4 => :output}, kill_timeout: 60_000)

      {:ok, "ready\n"} = Command.read(p)
      started = System.monotonic_time(:millisecond)
      assert Command.stop(p) == :ok
      assert System.monotonic_time(:millisecond) - started < 50_000
    end

    test "a closed output ends a command that writes on, and reads say so" do
      {:ok, p} = Command.start("sh", ["-c", "yes >&3"], fds: %{3 => :output})
      assert {:ok, "y\n" <> _} = Command.read_fd(p, 3)
      reader = Task.async(fn -> read_to_end(p, 3, []) end)
      assert Command.close_fd(p, 3) == :ok
      assert Task.await(reader) == {:error, :closed}
      assert Command.read_fd(p, 3) == {:error, :closed}
      assert Command.await_exit(p) == {:ok, 141}
      assert Command.close_fd(p, 3) == :ok
    end

    test "a reader that dies takes no byte along, and a writer leaves no half" do
      {:ok, p} =
        Command.start("sh", ["-c", "read x; echo kept >&4; cat <&3 >&4"],
          fds: %{3 => :input, 4 => :output}
        )

      reader = spawn(fn -> Command.read_fd(p, 4) end)

      Tree.await(fn -> waits?(p, 4, :stdout) end)

      Process.exit(reader, :kill)
      Tree.await(fn -> not waits?(p, 4, :stdout) end)
      assert Command.write(p, "\n") == :ok
      assert Command.read_fd(p, 4) == {:ok, "kept\n"}

      writer = spawn(fn -> Command.write_fd(p, 3, String.duplicate("a", 3_000_000)) end)

      Tree.await(fn -> waits?(p, 3, :stdin) end)

      Process.exit(writer, :kill)
      next = Task.async(fn -> Command.write_fd(p, 3, "b") && Command.close_fd(p, 3) end)
      assert read_to_end(p, 4, []) == String.duplicate("a", 3_000_000) <> "b"
      assert Task.await(next) == :ok
    end

    test "what the command leaves behind holds them, with leftovers: :leave" do
      script = "(read x <&3; echo left $x >&4) & exec 3<&- 4>&-"

      {:ok, p} =
        Command.start("sh", ["-c", script], leftovers: :leave, fds: %{3 => :input, 4 => :output})

      assert Command.await_exit(p) == {:ok, 0}
      assert Command.write_fd(p, 3, "over\n") == :ok
      assert Command.read_fd(p, 4) == {:ok, "left over\n"}
      assert Command.read_fd(p, 4) == :eof
    end
  end

  describe "refused:" do
    test "what cannot be meant, in a sentence" do
      for {fds, got} <- [
            {[], "a list"},
            {%{2 => :input}, "the number 2"},
            {%{256 => :input}, "the number 256"},
            {%{"3" => :input}, "a key that is not a number"},
            {%{3 => :inptu}, ":inptu for 3"},
            {%{3 => {:output, "x"}}, "{:output, …} with something else than {:file, path} for 3"},
            {%{3 => {:input, {:file, ""}}},
             "a path that is empty, contains a NUL byte or is not a string for 3"},
            {%{3 => {:input, {:file, "a\0b"}}},
             "a path that is empty, contains a NUL byte or is not a string for 3"},
            {%{3 => {:input, [1, :x]}},
             "{:input, …} with something else than iodata or {:file, path} for 3"}
          ] do
        message =
          "the option :fds must be a map of numbers from 3 to 255 to :input, :output, {:input, iodata}, " <>
            "{:input, {:file, path}}, {:output, {:file, path}} or {:append, {:file, path}}, got: #{got}"

        assert_raise ArgumentError, message, fn -> Command.start("true", [], fds: fds) end
      end
    end

    test ":input and :output where nobody could write or read them" do
      options = [fds: %{3 => :output}]
      command = NetRunner.Command.new("true", [], options)

      for call <- [
            fn -> NetRunner.run(~w(true), options) end,
            fn -> NetRunner.run(command) end,
            fn -> NetRunner.stream(~w(true), options) end,
            fn -> NetRunner.stream!(~w(true), options) end,
            fn -> NetRunner.pipeline([~w(true)], options) end,
            fn -> NetRunner.pipeline([~w(true), command]) end,
            fn -> Daemon.child_spec(cmd: "true", process_opts: options) end
          ] do
        assert_raise ArgumentError, ~r/need a NetRunner.Process/, call
      end

      assert {:ok, p} = Command.start(command)
      assert Command.read_fd(p, 3) == :eof
    end

    test "nothing leaks when the start fails", context do
      fds = %{3 => :input, 4 => :output, 5 => {:input, "x"}, 6 => {:input, {:file, "/nowhere"}}}
      without_file = Map.delete(fds, 6)

      for _ <- 1..20 do
        assert Command.start("cat", [], fds: fds) == {:error, {:fd, 6, :enoent}}
        assert Command.start("no-such-program", [], fds: without_file) == {:error, :enoent}

        assert Command.start("cat", [], fds: without_file, cd: "/nowhere") ==
                 {:error, {:cd, :enoent}}
      end

      assert_fds_back(context)
    end
  end

  describe "on every way:" do
    @script ["sh", "-c", "cat <&3"]
    @fds %{3 => {:input, "told"}}

    test "streams, pipelines, commands as values, daemons" do
      assert NetRunner.stream!(@script, fds: @fds) |> Enum.join() == "told"
      {:ok, stream} = NetRunner.stream(@script, fds: @fds)
      assert Enum.join(stream) == "told"
      # Each of them gets its own.
      assert NetRunner.pipeline([@script, ["sh", "-c", "cat; cat <&3"]], fds: @fds) ==
               {"toldtold", [0, 0]}

      own = NetRunner.Command.new("sh", ["-c", "cat; cat <&3"], fds: %{3 => {:input, "own"}})
      assert NetRunner.pipeline([~w(echo -n first), own]) == {"firstown", [0, 0]}
      assert NetRunner.run(own, fds: @fds) == {"told", 0}

      test = self()

      {:ok, daemon} =
        Daemon.start_link(
          cmd: "sh",
          args: ["-c", "cat <&3; sleep 100"],
          on_output: &send(test, {:output, &1}),
          process_opts: [fds: @fds]
        )

      assert_receive {:output, "told"}, 60_000
      GenServer.stop(daemon)
    end

    test "on another node: the descriptors are there, the input comes from here", %{
      directory: directory
    } do
      epmd = Nodes.start_epmd()
      {caller, _} = Nodes.start(epmd)
      {worker, node} = Nodes.start(epmd)
      for peer <- [caller, worker], do: :ok = Nodes.start_net_runner(peer)
      true = Nodes.call(caller, :net_kernel, :connect_node, [node])
      me = Nodes.start_caller(caller)
      out = Path.join(directory, "out")
      options = [node: node, fds: %{3 => {:input, "told"}, 4 => {:output, {:file, out}}}]

      assert Nodes.call(caller, NetRunner, :run, [["sh", "-c", "cat <&3; echo x >&4"], options]) ==
               {"told", 0}

      assert File.read!(out) == "x\n"

      options = [node: node, fds: %{3 => :input, 4 => :output}]

      {:ok, p} =
        Nodes.call_from(caller, me, Command, :start, ["sh", ["-c", "cat <&3 >&4"], options])

      assert node(p) == node
      bytes = :crypto.strong_rand_bytes(200_000)
      writer = Nodes.call_later(caller, Command, :write_fd, [p, 3, bytes])
      assert read_there(caller, p, byte_size(bytes), []) == bytes
      assert Nodes.result(caller, writer) == :ok
      assert Nodes.call(caller, Command, :close_fd, [p, 3]) == :ok
      assert Nodes.call(caller, Command, :read_fd, [p, 4]) == :eof
      assert Nodes.call(caller, Command, :await_exit, [p]) == {:ok, 0}
    end
  end

  defp waits?(p, number, kind) do
    NetRunner.Process.Operations.any?(:sys.get_state(p).fds[number].queue, [kind])
  end

  defp read_there(_caller, _p, 0, read), do: IO.iodata_to_binary(read)

  defp read_there(caller, p, left, read) do
    {:ok, bytes} = Nodes.call(caller, Command, :read_fd, [p, 4])
    read_there(caller, p, left - byte_size(bytes), [read, bytes])
  end

  defp read_to_end(p, number, read) do
    case Command.read_fd(p, number) do
      {:ok, bytes} -> read_to_end(p, number, [read, bytes])
      :eof -> IO.iodata_to_binary(read)
      error -> error
    end
  end

  describe "a command with :user" do
    @describetag Tree.skip(Tree.reason_to_skip(:other_user))

    test "can open its pipes by name, also those that it shares with another user" do
      script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin; cat /dev/fd/3"

      options = [user: "nobody", input: "in\n", fds: %{3 => {:input, "three\n"}}]
      {:ok, result} = NetRunner.capture(["sh", "-c", script], options)
      assert {result.stdout, result.stderr} == {"out\nin\nthree\n", "err\n"}

      reader = NetRunner.Command.new("sh", ["-c", "cat /dev/stdin"], user: "nobody")
      writer = NetRunner.Command.new("sh", ["-c", "echo out > /dev/stdout"], user: "daemon")
      assert {"out\n", [0, 0]} = NetRunner.pipeline([writer, reader])
    end

    @tag Tree.linux_only()
    test "can open its terminal by name, also in a sandbox" do
      command = ["sh", "-c", "echo out > $(tty)"]
      assert NetRunner.run(command, pty: true, user: "nobody") == {"out\r\n", 0}

      if NetRunner.Sandbox.support().filesystem == :ok do
        options = [pty: true, user: "nobody", sandbox: [read: [:system]]]
        assert NetRunner.run(command, options) == {"out\r\n", 0}
      end
    end

    test "changes nothing of what it has of the VM's" do
      who = fn -> for n <- 0..2, do: Map.take(File.stat!("/dev/fd/#{n}"), [:uid, :mode]) end
      before = who.()
      inherited = [stdin: :inherit, stdout: :inherit, stderr: :inherit]
      assert NetRunner.run(["true"], [user: "nobody"] ++ inherited) == {"", 0}
      assert who.() == before
    end
  end
end
