defmodule NetRunner.ProcessTest do
  use ExUnit.Case, async: true

  import NetRunner.Started

  import Bitwise

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Stats

  describe "read" do
    test "answers that come at once, late, in pieces, and no more" do
      script = """
      while read pause text; do
        [ "$pause" = 0 ] || sleep $pause
        echo $text
      done
      """

      {:ok, p} = Command.start("sh", ["-c", script])

      ask = fn pause, text ->
        :ok = Command.write(p, "#{pause} #{text}\n")
        Command.read(p)
      end

      for round <- 1..5 do
        # Quick ones are looked for, and then a slow one is looked for in vain.
        for n <- 1..50, do: assert(ask.(0, n) == {:ok, "#{n}\n"})
        assert ask.(0.05, "late #{round}") == {:ok, "late #{round}\n"}
      end

      reader = Task.async(fn -> Command.read(p) end)
      assert Command.write(p, "0 from another\n") == :ok
      assert Task.await(reader) == {:ok, "from another\n"}
      for n <- 1..50, do: assert(ask.(0, n) == {:ok, "#{n}\n"})
      :ok = Command.close_stdin(p)
      assert Command.read(p) == :eof
      assert Command.await_exit(p) == {:ok, 0}
      Command.stop(p)
    end

    test "gives what is there, at most as much as asked for, and :eof for ever" do
      p = start!("printf abcdef")
      assert Command.read(p, 2) == {:ok, "ab"}
      assert Command.read(p, 100) == {:ok, "cdef"}
      assert Command.read(p) == :eof
      assert Command.read(p) == :eof
      assert Command.await_exit(p) == {:ok, 0}
      assert Command.read(p) == :eof
    end

    test "gives after the exit what was written before it" do
      p = start!("printf abc; exit 3")
      assert Command.await_exit(p) == {:ok, 3}
      assert Command.read(p) == {:ok, "abc"}
      assert Command.read(p) == :eof
    end

    test "serves callers in the order of their calls, one byte each" do
      p = start!("read go; printf abcde")

      readers =
        for n <- 1..5 do
          task = Task.async(fn -> Command.read(p, 1) end)
          NetRunner.Waiting.await(p, :stdout, n)
          task
        end

      :ok = Command.write(p, "\n")
      assert Task.await_many(readers) == for(letter <- ~w(a b c d e), do: {:ok, letter})
    end

    test "loses no byte with a caller that dies while it waits" do
      p = start!("read go; printf abc; read go; printf def")
      {dying, _} = spawn_monitor(fn -> Command.read(p) end)
      NetRunner.Waiting.await(p, :stdout)
      living = Task.async(fn -> Command.read(p) end)
      NetRunner.Waiting.await(p, :stdout, 2)
      Process.exit(dying, :kill)
      assert_receive {:DOWN, _, _, ^dying, :killed}
      :ok = Command.write(p, "\n")
      assert Task.await(living) == {:ok, "abc"}
      :ok = Command.write(p, "\n")
      assert Command.read(p) == {:ok, "def"}
    end

    test "takes any number of bytes for a limit" do
      p = start!("printf abc")
      assert Command.read(p, 0x1_0000_0000_0000_0000) == {:ok, "abc"}
      assert_raise ArgumentError, ~r"max_bytes must be", fn -> Command.read(p, 0) end
    end
  end

  describe "read_stderr and read_any" do
    test "need stderr: :pipe" do
      p = start!("echo out; echo err >&2")
      assert Command.read_stderr(p) == {:error, :not_piped}
      assert Command.read_any(p) == {:ok, {:stdout, "out\n"}}
      assert Command.read_any(p) == :eof
    end

    test "give both streams, each in order, and :eof when both have ended" do
      p = start!("for i in 1 2 3; do echo out$i; echo err$i >&2; done", stderr: :pipe)
      {:ok, 0} = Command.await_exit(p)
      assert {["out1\nout2\nout3\n"], ["err1\nerr2\nerr3\n"]} = read_any_all(p, [], [])
    end

    test "none starves the other" do
      p = start!("head -c 60000 /dev/zero; head -c 60000 /dev/zero >&2", stderr: :pipe)
      {:ok, 0} = Command.await_exit(p)
      streams = for _ <- 1..50, do: p |> Command.read_any(1000) |> elem(1) |> elem(0)
      assert Enum.frequencies(streams) == %{stdout: 25, stderr: 25}
    end

    test "read_any takes stderr while somebody waits for stdout, and keeps the order of the calls" do
      p = start!("read go; printf E >&2; read go; printf F >&2; read go; printf O", stderr: :pipe)
      stdout = Task.async(fn -> Command.read(p) end)
      NetRunner.Waiting.await(p, :stdout)
      stderr = Task.async(fn -> Command.read_stderr(p) end)
      NetRunner.Waiting.await(p, :stderr)
      any = Task.async(fn -> Command.read_any(p) end)
      NetRunner.Waiting.await(p, :any)

      :ok = Command.write(p, "\n")
      assert Task.await(stderr) == {:ok, "E"}
      :ok = Command.write(p, "\n")
      assert Task.await(any) == {:ok, {:stderr, "F"}}
      :ok = Command.write(p, "\n")
      assert Task.await(stdout) == {:ok, "O"}
    end
  end

  defp read_any_all(p, out, err) do
    case Command.read_any(p) do
      {:ok, {:stdout, bytes}} -> read_any_all(p, out ++ [bytes], err)
      {:ok, {:stderr, bytes}} -> read_any_all(p, out, err ++ [bytes])
      :eof -> {out, err}
    end
  end

  describe "write" do
    test "of two callers are never mixed, and keep their order" do
      # The pipe stays at 64 KiB, so that a write waits.
      p = start!("sleep 0.2; cat", pipe_size: 0)
      size = 300_000

      writers =
        for letter <- [?a, ?b, ?c] do
          task = Task.async(fn -> Command.write(p, :binary.copy(<<letter>>, size)) end)
          NetRunner.Waiting.await(p, :stdin, letter - ?a + 1)
          task
        end

      closing = Task.async(fn -> Command.close_stdin(p) end)
      expected = for letter <- [?a, ?b, ?c], into: "", do: :binary.copy(<<letter>>, size)
      assert read_all(p, "") == expected
      assert Task.await_many([closing | writers]) == [:ok, :ok, :ok, :ok]
    end

    test "that was begun is finished also when its caller dies" do
      p = start!("read -r go; cat")

      {writer, _} =
        spawn_monitor(fn -> Command.write(p, ["\n", :binary.copy("x", 1_000_000)]) end)

      assert {:ok, first} = Command.read(p)
      Process.exit(writer, :kill)
      second = Task.async(fn -> Command.write(p, "end") && Command.close_stdin(p) end)
      assert read_all(p, first) == :binary.copy("x", 1_000_000) <> "end"
      assert Task.await(second) == :ok
    end

    test "takes any iodata" do
      p = start!("cat")
      assert Command.write(p, []) == :ok
      assert Command.write(p, ["a", [?b | "c"], [[], "d"]]) == :ok
      assert Command.write(p, for(_ <- 1..3000, do: "e")) == :ok
      :ok = Command.close_stdin(p)
      assert read_all(p, "") == "abcd" <> String.duplicate("e", 3000)
    end

    test "after close_stdin is :closed; closing is idempotent" do
      p = start!("cat >/dev/null; sleep 100")
      assert Command.close_stdin(p) == :ok
      assert Command.close_stdin(p) == :ok
      assert Command.write(p, "x") == {:error, :closed}
    end

    test "to a command without a pipe is :not_piped" do
      p = start!("cat", stdin: :null)
      assert Command.write(p, "x") == {:error, :not_piped}
      assert Command.close_stdin(p) == :ok
      assert Command.read(p) == :eof
    end
  end

  defp read_all(p, so_far) do
    case Command.read(p) do
      {:ok, bytes} -> read_all(p, so_far <> bytes)
      :eof -> so_far
    end
  end

  describe "kill" do
    test "sends by name and by number, and knows when there is nobody" do
      p = start!("trap 'echo usr1' USR1; echo; while :; do sleep 0.01; done")
      {:ok, "\n"} = Command.read(p)
      assert Command.kill(p, :sigusr1) == :ok
      assert Command.read(p) == {:ok, "usr1\n"}
      assert Command.kill(p, 15) == :ok
      assert Command.await_exit(p) == {:ok, 143}
      assert Command.kill(p, :sigterm) == {:error, :esrch}
      assert %Stats{exit: {:signaled, :sigterm, false}, exit_status: 143} = Command.stats(p)
    end

    test "works while the command is being stopped" do
      p = start!("trap '' TERM; echo; sleep 100", kill_timeout: 60_000)
      {:ok, "\n"} = Command.read(p)
      stopping = Task.async(fn -> Command.stop(p) end)
      NetRunner.Waiting.await(p, :stop)
      assert Command.kill(p, :sigkill) == :ok
      assert Task.await(stopping) == :ok
    end

    test "reaches a real-time signal" do
      p = start!("trap 'echo got' 40; echo; while :; do sleep 0.01; done")
      {:ok, "\n"} = Command.read(p)
      assert Command.kill(p, 40) == :ok
      assert Command.read(p) == {:ok, "got\n"}
    end
  end

  describe "await_exit" do
    test "tells all who wait" do
      p = start!("read go; exit 9")
      waiting = for _ <- 1..20, do: Task.async(fn -> Command.await_exit(p) end)
      NetRunner.Waiting.await(p, :exit, 20)
      :ok = Command.write(p, "\n")
      assert Enum.uniq(Task.await_many(waiting)) == [{:ok, 9}]
      assert Command.await_exit(p, 0) == {:ok, 9}
      refute Command.alive?(p)
    end

    test "gives up after its timeout, and the command goes on" do
      p = start!("read go")
      assert Command.await_exit(p, 0) == {:error, :timeout}
      assert Command.await_exit(p, 20) == {:error, :timeout}
      assert Command.alive?(p)
      waiting = Task.async(fn -> Command.await_exit(p, 0x1_0000_0000_0000) end)
      NetRunner.Waiting.await(p, :exit)
      :ok = Command.write(p, "\n")
      assert Task.await(waiting) == {:ok, 0}
    end
  end

  describe "an owner" do
    test "is the caller; when it dies, so does the command" do
      test = self()

      {owner, _} =
        spawn_monitor(fn ->
          {:ok, p} = Command.start("sleep", ["100"])
          send(test, {p, Command.os_pid(p)})
          receive do: (:never -> :ok)
        end)

      assert_receive {p, os_pid}
      monitor = Process.monitor(p)
      Process.exit(owner, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}
      await_gone(os_pid)
    end

    test "can be another process, or nobody" do
      owner = spawn(fn -> receive do: (:go -> :ok) end)
      p = start!("sleep 100", owner: owner)
      os_pid = Command.os_pid(p)
      send(owner, :go)
      await_gone(os_pid)

      p = Task.await(Task.async(fn -> start_without_owner() end))
      assert Command.alive?(p)
      assert Command.stop(p) == :ok
    end

    test "that is dead already lets nothing start" do
      {owner, monitor} = spawn_monitor(fn -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}

      case Command.start("sleep", ["100"], owner: owner) do
        {:error, :closed} -> :ok
        {:ok, p} -> assert Command.await_exit(p) == {:error, :closed}
      end
    end
  end

  defp start_without_owner do
    {:ok, p} = Command.start("sleep", ["100"], owner: nil)
    p
  end

  defp await_gone(os_pid), do: Tree.await(fn -> Tree.stat(os_pid) == nil end)

  describe "the process" do
    test "can have a name" do
      name = :"net_runner_#{System.unique_integer([:positive])}"
      {:ok, p} = Command.start("cat", [], name: name)
      assert Command.write(name, "x") == :ok
      assert Command.read(name) == {:ok, "x"}
      assert Command.start("cat", [], name: name) == {:error, {:already_started, p}}
      assert Command.stop(name) == :ok
      refute Command.alive?(name)
    end

    test "is gone after stop, and says so" do
      p = start!("cat")
      assert Command.stop(p) == :ok
      assert Command.stop(p) == :ok

      for result <- [Command.read(p), Command.write(p, "x"), Command.kill(p), Command.stats(p)] do
        assert result == {:error, :closed}
      end

      assert Command.await_exit(p) == {:error, :closed}
    end

    test "is linked by start_link: its crash reaches the caller, and the caller's reaches it" do
      Process.flag(:trap_exit, true)
      {:ok, p} = Command.start_link("sleep", ["100"])
      Process.exit(p, :kill)
      assert_receive {:EXIT, ^p, :killed}

      test = self()

      starter =
        spawn(fn ->
          {:ok, p} = Command.start_link("sleep", ["100"], owner: nil)
          send(test, {:started, p, Command.os_pid(p)})
          receive do: (:crash -> exit(:crashed))
        end)

      assert_receive {:started, _p, os_pid}
      send(starter, :crash)
      await_gone(os_pid)
    end

    test "stops for nobody's normal end" do
      p = Task.await(Task.async(fn -> start_link_without_owner() end))
      assert Command.alive?(p)
      Command.stop(p)
    end

    test "ends with its command when the last caller of stop is dead" do
      p = start!("sleep 100", owner: nil)
      os_pid = Command.os_pid(p)
      monitor = Process.monitor(p)
      # The shepherd cannot answer while it is stopped.
      {shepherd, 0} = System.cmd("ps", ["-o", "ppid=", "-p", "#{os_pid}"])
      shepherd = String.trim(shepherd)
      {"", 0} = System.cmd("kill", ["-STOP", shepherd])
      stopping = spawn(fn -> Command.stop(p) end)
      NetRunner.Waiting.await(p, :stop)
      Process.exit(stopping, :kill)
      {"", 0} = System.cmd("kill", ["-CONT", shepherd])
      assert_receive {:DOWN, ^monitor, _, _, :normal}, 60_000
      await_gone(os_pid)
    end
  end

  defp start_link_without_owner do
    {:ok, p} = Command.start_link("sleep", ["100"], owner: nil)
    p
  end

  # Elsewhere than on Linux, those that the C library keeps for itself (32 and 33) stay as the VM's parent has set them.
  @signals if Tree.needs_linux(),
             do: 0x7FFF_FFFF,
             else: 0xFFFF_FFFF_FFFF_FFFF

  test "the command is told its own business only" do
    {output, 0} = NetRunner.run(~w(cat /proc/self/stat /proc/self/status))
    [stat | status] = String.split(output, "\n", trim: true)
    [_, _, _, _, _, session | _] = String.split(stat)
    {vm, 0} = NetRunner.run(["ps", "-o", "sess=", "-p", System.pid()])
    assert session != String.trim(vm)

    for name <- ~w(SigBlk: SigIgn: SigCgt:) do
      [mask] = for line <- status, [^name, mask] <- [String.split(line)], do: mask
      assert {name, String.to_integer(mask, 16) &&& @signals} == {name, 0}
    end

    {fds, 0} = NetRunner.run(~w(ls /proc/self/fd))
    # ls itself has the directory open.
    assert String.split(fds) == ~w(0 1 2 3)
  end

  test "the command leads a session of its own" do
    {output, 0} = NetRunner.run(["sh", "-c", "echo $$; ps -o sid=,pgid= -p $$"])
    [pid, ids] = output |> String.split("\n", trim: true)
    assert String.split(ids) == [pid, pid]
  end

  test "stats count bytes, calls and time, and then have the kernel's figures" do
    p = start!("cat; echo err >&2; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert %Stats{bytes_in: 0, exit: nil, exit_status: nil, max_rss_bytes: nil} = Command.stats(p)
    :ok = Command.write(p, ["ab", "c"])
    {:ok, "abc"} = Command.read(p)
    :ok = Command.close_stdin(p)
    {:ok, 0} = Command.await_exit(p)
    stats = Command.stats(p)

    assert %Stats{bytes_in: 3, bytes_out: 3, bytes_err: 4, write_count: 1, exit_status: 0} = stats
    assert %Stats{exit: {:exited, 0}, started_at: %DateTime{}} = stats
    assert stats.read_count >= 2
    assert stats.duration_ms >= 0
    assert stats.max_rss_bytes in 100_000..1_000_000_000
    assert stats.user_time_us + stats.system_time_us > 0
    assert Command.stats(p) == stats
  end

  describe "a terminal" do
    test "is one, of the size that was asked for, and follows set_window_size" do
      p =
        start!("tty; stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done",
          pty: [rows: 7, cols: 33]
        )

      output = read_until(p, "ready\r\n")
      assert output =~ ~r"^/dev/pts/\d+\r\n7 33\r\n"
      assert Command.set_window_size(p, 50, 132) == :ok

      for {rows, columns, wrong} <- [
            {-1, 5, "rows must be an integer from 1 to 65535, got: -1"},
            {0, 10, "rows must be an integer from 1 to 65535, got: 0"},
            {"a", 5, ~s(rows must be an integer from 1 to 65535, got: "a")},
            {5, 70_000, "columns must be an integer from 1 to 65535, got: 70000"}
          ] do
        assert_raise ArgumentError, "the number of " <> wrong, fn ->
          apply(Command, :set_window_size, [p, rows, columns])
        end
      end

      assert read_until(p, "132\r\n") == "50 132\r\n"
    end

    test "has room for a line of 4,096 bytes, and drops what a longer one has beyond that (docs/terminals.md)" do
      for {bytes, count} <- [{4_095, 4_096}, {10_000, 4_096}] do
        input = String.duplicate("x", bytes) <> "\n"
        assert NetRunner.run(~w(wc -c), pty: [echo: false], input: input) == {"#{count}\r\n", 0}
      end
    end

    test "ends its input by the end-of-file character, also in the middle of a line" do
      for {input, output} <- [{"line\n", "line\r\n"}, {"part", "part"}, {"", ""}] do
        {:ok, p} = Command.start("cat", [], pty: [echo: false])
        :ok = Command.write(p, input)
        :ok = Command.close_stdin(p)
        assert read_all(p, "") == output
        assert Command.await_exit(p) == {:ok, 0}
        size = byte_size(input)
        assert %{bytes_in: ^size, write_count: 1} = Command.stats(p)
        assert Command.write(p, "more") == {:error, :closed}
        Command.stop(p)
      end
    end

    test "loses no output of a program that exits at once" do
      for size <- [1, 4_000, 70_000] do
        {output, 0} =
          NetRunner.run(["sh", "-c", "head -c #{size} /dev/zero | tr '\\0' x"], pty: true)

        assert byte_size(output) == size
      end
    end

    test "is at its end at once, without an input" do
      options = [pty: true, timeout: 60_000]
      assert NetRunner.run(~w(cat), options) == {"", 0}
      assert {:ok, %{status: 0, stdout: ""}} = NetRunner.capture(~w(cat), options)
      assert NetRunner.stream!(~w(cat), options) |> Enum.to_list() == []
    end

    test "echoes, or not" do
      assert NetRunner.run(["sh", "-c", "read line"], pty: true, input: "abc\n") == {"abc\r\n", 0}

      assert NetRunner.run(["sh", "-c", "read line"], pty: [echo: false], input: "abc\n") ==
               {"", 0}
    end

    test "has job control in an interactive shell" do
      {:ok, p} =
        Command.start("bash", ["--norc", "--noprofile", "-i"],
          pty: [echo: false],
          env: [{"PS1", "$ "}, {"TERM", "dumb"}]
        )

      shell = Command.os_pid(p)

      # What is typed before the shell has set up its terminal for the next line may get lost, so each prompt is awaited.
      say = fn line ->
        :ok = Command.write(p, line <> "\n")
        read_until(p, "$ ")
      end

      assert read_until(p, "$ ") != ""
      assert say.("sleep 100 &") =~ "[1]"
      assert say.("jobs") =~ "sleep 100"
      # ^C goes to the program in the foreground, not to the shell.
      :ok = Command.write(p, "fg\n")
      Tree.await(fn -> foreground(shell) != shell end)
      :ok = Command.write(p, <<3>>)
      assert read_until(p, "$ ") != ""
      assert say.("echo status $?") =~ "status 130"
      :ok = Command.close_stdin(p)
      assert {:ok, 0} = Command.await_exit(p)
      Command.stop(p)
    end

    test "is good for python's prompt and for a full screen" do
      {:ok, p} =
        Command.start("python3", ["-i", "-q"],
          pty: true,
          # Python 3.13 has another prompt, which draws its lines anew.
          env: [{"PYTHON_BASIC_REPL", "1"}]
        )

      assert read_until(p, ">>> ") != ""
      :ok = Command.write(p, "print(6 * 7)\n")
      assert read_until(p, "42\r\n>>> ") != ""
      :ok = Command.close_stdin(p)
      assert Command.await_exit(p) == {:ok, 0}
      Command.stop(p)

      screen =
        "import curses\ndef main(s):\n s.addstr(3, 4, 'full screen')\n s.refresh()\n s.getch()\ncurses.wrapper(main)"

      {output, 0} =
        NetRunner.run(["python3", "-c", screen],
          pty: [rows: 24, cols: 80],
          input: "q",
          env: [{"TERM", "xterm"}],
          timeout: 10_000
        )

      assert output =~ "full screen"
      # The cursor was sent to the fourth row, fifth column.
      assert output =~ "\e[4;5H"
    end

    test "of a program that is over takes nothing more" do
      {:ok, p} = Command.start("sh", ["-c", "read line; echo bye"], pty: [echo: false])
      assert Command.set_window_size(p, 10, 10) == :ok
      assert Command.write(p, "go\n") == :ok
      assert Command.await_exit(p) == {:ok, 0}
      assert {:error, _} = Command.set_window_size(p, 20, 20)
      assert Command.read(p) == {:ok, "bye\r\n"}
      assert Command.read(p) == :eof
      assert Command.write(p, "into the void\n") == {:error, :epipe}
      assert {:error, _} = Command.set_window_size(p, 20, 20)
    end

    # It may open /dev/tty again, and read then what was written meanwhile.
    test "that its program has let go of takes something until the program is over" do
      {:ok, p} = Command.start("sh", ["-c", "exec sleep 100 <&- >&- 2>&-"], pty: [echo: false])
      fds = "/proc/#{Command.os_pid(p)}/fd"
      # In the middle of its execve(2), a command is closed to other users.
      Tree.await(fn -> with({:ok, names} <- File.ls(fds), do: "0" not in names) == true end)
      assert Command.read(p, 100, 100) == {:error, :timeout}
      assert Command.write(p, "for later\n") == :ok
      assert Command.set_window_size(p, 20, 20) == :ok
      assert Command.kill(p, :sigkill) == :ok
      assert Command.await_exit(p) == {:ok, 137}
      assert Command.read(p) == :eof
      assert Command.write(p, "into the void\n") == {:error, :epipe}
      assert {:error, _} = Command.set_window_size(p, 20, 20)
      Command.stop(p)
    end

    test "is only there when it was asked for" do
      p = start!("cat")
      assert Command.set_window_size(p, 10, 10) == {:error, :enotty}
    end
  end

  # proc(5): the foreground process group of the terminal is the sixth field after the name.
  defp foreground(shell) do
    [_, fields] = "/proc/#{shell}/stat" |> File.read!() |> String.split(") ")
    fields |> String.split() |> Enum.at(5) |> String.to_integer()
  end

  defp read_until(p, wanted, so_far \\ "") do
    if String.contains?(so_far, wanted) do
      so_far
    else
      case Command.read(p) do
        {:ok, bytes} ->
          read_until(p, wanted, so_far <> bytes)

        other ->
          flunk("#{inspect(other)} instead of #{inspect(wanted)}, after #{inspect(so_far)}")
      end
    end
  end
end
