defmodule NetRunner.InfoTest do
  # What is told of commands: `NetRunner.list/0`, `NetRunner.Process.info/1` and `stats/1`.
  use ExUnit.Case, async: true

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Stats

  describe "list/0" do
    test "has what runs, and its bytes as they go" do
      {:ok, p} = Command.start("sh", ["-c", "cat; echo err >&2; sleep 100"], stderr: :pipe)
      assert %{bytes: %{in: 0, out: 0, err: 0}} = entry = listed(p)
      assert entry.pid == p
      assert entry.os_pid == Command.os_pid(p)
      assert entry.command == ["sh", "-c", "cat; echo err >&2; sleep 100"]
      assert DateTime.diff(DateTime.utc_now(), entry.started_at) in 0..60
      assert entry.started_at == Command.stats(p).started_at

      :ok = Command.write(p, "hello")
      assert {:ok, "hello"} = Command.read(p)
      :ok = Command.close_stdin(p)
      assert {:ok, "err\n"} = Command.read_stderr(p)
      assert listed(p).bytes == %{in: 5, out: 5, err: 4}
      Command.stop(p)
      assert listed(p) == nil
    end

    test "has maps that print on a line, with no value of the environment, no input, and nothing a terminal obeys" do
      script = "printf '\e[2J'; cat"
      {:ok, p} = Command.start("sh", ["-c", script], env: [{"TOKEN", "hush-hush"}])
      :ok = Command.write(p, "hush-hush")
      entry = listed(p)
      shown = inspect(entry, pretty: true, limit: :infinity)

      assert shown =~
               ~r/^#NetRunner<sh -c .+, PID #{entry.os_pid}, since [-0-9]+ [:0-9]+Z, 9 B in, 0 B out, #PID<[.0-9]+>>$/

      refute shown =~ "hush"
      refute shown =~ "\e"
      assert is_map(entry)

      assert Enum.sort(Map.keys(Map.from_struct(entry))) == [
               :bytes,
               :command,
               :os_pid,
               :pid,
               :started_at
             ]

      assert {entry[:pid], get_in(entry, [:bytes, :in]), entry[:none]} == {p, 9, nil}
      assert {^p, %{os_pid: _}} = pop_in(entry, [:pid])
      assert put_in(entry[:os_pid], 1).os_pid == 1
      Command.stop(p)
    end

    test "is in the order of the starts" do
      ps = for _ <- 1..5, do: elem(Command.start("cat"), 1)
      pids = for %{pid: pid} <- NetRunner.list(), pid in ps, do: pid
      assert pids == ps
      Enum.each(ps, &Command.stop/1)
    end

    test "does not have a command that exited and can still be read" do
      {:ok, p} = Command.start("echo", ["a"])
      {:ok, 0} = Command.await_exit(p)
      assert listed(p) == nil
      assert Command.read(p) == {:ok, "a\n"}
      Command.stop(p)
    end

    test "does not have one whose process was killed" do
      {:ok, p} = Command.start("cat")
      monitor = Process.monitor(p)
      Process.exit(p, :kill)
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert listed(p) == nil
    end

    test "waits for no process" do
      {:ok, p} = Command.start("cat")
      :sys.suspend(p)
      assert %{command: ["cat"]} = listed(p)
      :sys.resume(p)
      Command.stop(p)
    end
  end

  describe "info/1" do
    test "follows a command to its end" do
      {:ok, p} = Command.start("sh", ["-c", "read line; echo $line; exit 3"])

      assert %{status: :running, exit: nil, exit_status: nil, command: ["sh" | _]} =
               info = Command.info(p)

      listed = p |> listed() |> Map.from_struct()
      assert Map.take(info, Map.keys(listed)) == listed
      :ok = Command.write(p, "ab\n")
      {:ok, 3} = Command.await_exit(p)
      {:ok, "ab\n"} = Command.read(p)
      info = Command.info(p)
      assert %{status: :exited, exit: {:exited, 3}, exit_status: 3} = info
      assert info.bytes == %{in: 3, out: 3, err: 0}
      duration = info.duration_ms
      assert %{duration_ms: ^duration} = Command.stats(p)
      Command.stop(p)
      assert Command.info(p) == {:error, :closed}
    end

    test "says that a command was lost with its shepherd" do
      {:ok, p} = Command.start("sleep", ["100"])
      {:ok, status} = File.read("/proc/#{Command.os_pid(p)}/status")
      [_, shepherd] = Regex.run(~r/^PPid:\t(\d+)/m, status)
      {"", 0} = System.cmd("kill", ["-9", shepherd])
      assert Command.await_exit(p) == {:error, :shepherd_died}
      assert %{status: :lost, exit: nil, exit_status: nil} = Command.info(p)
      assert %{exit: nil, max_rss_bytes: nil} = Command.stats(p)
      assert listed(p) == nil
      Command.stop(p)
    end
  end

  describe "stats/1" do
    test "has the kernel's account of the command and its children" do
      # 64 MiB of memory, and a good part of a second of CPU time, in children that were waited for. The kernel may count by
      # ticks (CONFIG_TICK_CPU_ACCOUNTING): the loop, which makes no system call, is there for many of them.
      script = """
      head -c 64M /dev/zero | tail -c 64M | cksum
      (i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done)
      """

      {:ok, p} = Command.start("sh", ["-c", script])
      running = Command.stats(p)
      assert %{exit: nil, exit_status: nil, max_rss_bytes: nil, user_time_us: nil} = running
      {:ok, 0} = Command.await_exit(p)
      stats = Command.stats(p)
      assert stats.exit == {:exited, 0}
      assert stats.exit_status == 0
      assert stats.max_rss_bytes in 64_000_000..200_000_000
      assert stats.user_time_us > 1_000
      assert stats.system_time_us > 1_000
      assert (stats.user_time_us + stats.system_time_us) / 2 <= stats.duration_ms * 1_000
      Command.stop(p)
    end

    test "counts bytes and calls, also of a stderr that is drained" do
      {:ok, p} = Command.start("sh", ["-c", "cat; echo error >&2"])
      :ok = Command.write(p, ["a", ["bc"], "d"])
      {:ok, "abcd"} = Command.read(p)
      :ok = Command.close_stdin(p)
      :eof = Command.read(p)
      {:ok, 0} = Command.await_exit(p)

      assert %Stats{bytes_in: 4, bytes_out: 4, bytes_err: 6, read_count: 2, write_count: 1} =
               Command.stats(p)

      Command.stop(p)
    end
  end

  defp listed(pid), do: Enum.find(NetRunner.list(), &(&1.pid == pid))
end
