defmodule NetRunner.Process.AskTest do
  # Output as messages, on demand.
  use ExUnit.Case, async: true

  import NetRunner.Started

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Waiting

  defp next(p) do
    assert_receive {:net_runner, ^p, message}, 60_000
    message
  end

  # After this call, everything that the server had to send before is there.
  defp refute_sent(p) do
    Command.stats(p)
    refute_received {:net_runner, _, _}
  end

  # All of it, with a credit for each piece.
  defp all(p, so_far \\ %{stdout: [], stderr: [], ends: []}) do
    case next(p) do
      {:exit, status} ->
        {status, Map.new(so_far, fn {kind, list} -> {kind, Enum.reverse(list)} end)}

      {:eof, stream} ->
        all(p, %{so_far | ends: [stream | so_far.ends]})

      {stream, bytes} ->
        assert byte_size(bytes) in 1..65_536
        :ok = Command.ask(p, 1)
        all(p, Map.update!(so_far, stream, &[bytes | &1]))
    end
  end

  test "each piece costs one, and the ends nothing" do
    p = start!("echo one; read go; echo two; read go; exit 3")
    refute_sent(p)
    assert Command.ask(p, 1) == :ok
    assert next(p) == {:stdout, "one\n"}
    :ok = Command.write(p, "\n")
    refute_sent(p)
    assert Command.ask(p, 1) == :ok
    assert next(p) == {:stdout, "two\n"}
    :ok = Command.write(p, "\n")
    assert next(p) == {:eof, :stdout}
    assert next(p) == {:exit, 3}
    assert Command.ask(p, 5) == :ok
    refute_sent(p)
  end

  test "the end is told as well when somebody else takes what is before it, or sees it first" do
    for reads <- [["two\n"], ["two\n", :eof], [:eof]] do
      rest = if "two\n" in reads, do: "echo two; ", else: ""
      p = start!("echo one; read go; #{rest}read go; exec >&-; read go")
      assert Command.ask(p, 1) == :ok
      assert next(p) == {:stdout, "one\n"}
      :ok = Command.write(p, "\n")
      # Does not wait, so it takes what is there already.
      if rest != "", do: Tree.await(fn -> Command.read(p, 100, 0) == {:ok, "two\n"} end)
      :ok = Command.write(p, "\n")
      if :eof in reads, do: assert(Command.read(p) == :eof)
      assert next(p) == {:eof, :stdout}
      Command.stop(p)
      assert next(p) == {:exit, 143}
    end
  end

  test "credit is added, and is used when something comes" do
    p = start!("while read line; do echo $line; done")
    for _ <- 1..3, do: assert(Command.ask(p, 1) == :ok)

    for n <- 1..3 do
      :ok = Command.write(p, "#{n}\n")
      assert next(p) == {:stdout, "#{n}\n"}
    end

    :ok = Command.write(p, "4\n")
    # What was not asked for can be read.
    assert Command.read(p) == {:ok, "4\n"}
    :ok = Command.write(p, "5\n")
    :ok = Command.close_stdin(p)
    {:ok, 0} = Command.await_exit(p)
    # Its end is behind what nobody has asked for.
    refute_sent(p)
    assert Command.ask(p, 100) == :ok
    assert [next(p), next(p), next(p)] == [{:stdout, "5\n"}, {:eof, :stdout}, {:exit, 0}]
  end

  test "both streams, each whole and in order, their ends and the exit last" do
    p = start!("seq 1 50000 >&2 & seq 1 60000; wait; exit 4", stderr: :pipe)
    :ok = Command.ask(p, 2)
    assert {4, %{stdout: stdout, stderr: stderr, ends: ends}} = all(p)
    assert IO.iodata_to_binary(stdout) == for(n <- 1..60_000, into: "", do: "#{n}\n")
    assert IO.iodata_to_binary(stderr) == for(n <- 1..50_000, into: "", do: "#{n}\n")
    assert Enum.sort(ends) == [:stderr, :stdout]
    refute_sent(p)
  end

  test "a stream that is not piped has no end; a command without any has an exit" do
    p = start!("echo lost >&2; echo out", stderr: :consume)
    :ok = Command.ask(p, 1)
    assert {0, %{stdout: ["out\n"], stderr: [], ends: [:stdout]}} = all(p)
    p = start!("exit 5", stdout: :null)
    :ok = Command.ask(p, 1)
    assert next(p) == {:exit, 5}
    refute_sent(p)
  end

  test "what was not asked for stays in the kernel, and the command waits" do
    {:ok, p} = Command.start("head", ["-c", "300000000", "/dev/zero"])
    on_exit(fn -> Command.stop(p) end)
    :ok = Command.ask(p, 3)
    for _ <- 1..3, do: assert({:stdout, _} = next(p))
    written = Tree.await_blocked(Command.os_pid(p))
    assert written < 4_000_000
    refute_sent(p)
    assert Command.stats(p).bytes_out <= 3 * 65_536
    {:memory, memory} = Process.info(p, :memory)
    assert memory < 1_000_000
  end

  test "one process asks at a time, until it asks for nothing" do
    p = start!("while read line; do echo $line; done")
    assert Command.ask(p, 0) == :ok
    assert Command.ask(p, 5) == :ok
    other = fn count -> Task.await(Task.async(fn -> Command.ask(p, count) end), 60_000) end
    assert other.(1) == {:error, :busy}
    assert other.(0) == {:error, :busy}
    assert Command.ask(p, 0) == :ok
    :ok = Command.write(p, "mine\n")
    refute_sent(p)
    assert Command.read(p) == {:ok, "mine\n"}
    # It dies with that, and the next may ask.
    assert other.(1) == :ok
    Tree.await(fn -> Command.ask(p, 1) == :ok end)
    :ok = Command.write(p, "again\n")
    assert next(p) == {:stdout, "again\n"}
  end

  test "who asked and died loses no byte, also when the server has not heard of it" do
    p = start!("read go; printf abc; exec sleep 1000")
    test = self()

    asker =
      spawn(fn ->
        send(test, {:asked, Command.ask(p, 10)})
        Process.sleep(:infinity)
      end)

    assert_receive {:asked, :ok}, 60_000
    reader = Task.async(fn -> Command.read(p) end)
    Waiting.await(p, :stdout)
    :ok = :sys.suspend(p)
    monitor = Process.monitor(asker)
    Process.exit(asker, :kill)
    assert_receive {:DOWN, ^monitor, _, _, _}, 60_000
    :ok = :sys.resume(p)
    :ok = Command.write(p, "\n")
    assert Task.await(reader, 60_000) == {:ok, "abc"}
    assert Command.ask(p, 1) == :ok
  end

  test "readers and the one who asks take turns, in the order of their calls" do
    p = start!("while read line; do printf $line; done")
    first = Task.async(fn -> Command.read(p, 1) end)
    Waiting.await(p, :stdout)
    :ok = Command.ask(p, 2)
    second = Task.async(fn -> Command.read(p, 1) end)
    Waiting.await(p, :stdout, 2)
    :ok = Command.write(p, "a\n")
    assert Task.await(first, 60_000) == {:ok, "a"}
    refute_sent(p)
    :ok = Command.write(p, "b\n")
    assert next(p) == {:stdout, "b"}
    # Its second piece is behind whoever has waited.
    :ok = Command.write(p, "c\n")
    assert Task.await(second, 60_000) == {:ok, "c"}
    :ok = Command.write(p, "d\n")
    assert next(p) == {:stdout, "d"}
  end

  test "a reader behind it hears of the end as well" do
    p = start!("read go; exec 2>&-; read go", stderr: :pipe)
    :ok = Command.ask(p, 1)
    reader = Task.async(fn -> Command.read_stderr(p) end)
    Waiting.await(p, :stderr)
    :ok = Command.write(p, "\n")
    assert next(p) == {:eof, :stderr}
    assert Task.await(reader, 60_000) == :eof
    refute_sent(p)
  end

  test "a command that is stopped, or whose shepherd dies, tells its end" do
    p = start!("echo out; exec sleep 1000")
    :ok = Command.ask(p, 1)
    assert next(p) == {:stdout, "out\n"}
    :ok = Command.stop(p)
    assert [next(p), next(p)] == [{:eof, :stdout}, {:exit, 143}]

    p = start!("exec sleep 1000")
    :ok = Command.ask(p, 1)
    :ok = Tree.kill(Tree.shepherd(p))
    assert [next(p), next(p)] == [{:eof, :stdout}, {:exit, :shepherd_died}]
  end

  test "a stranger that holds the pipe does not keep the end back" do
    p = start!("echo $$; exec sleep 1000")
    :ok = Command.ask(p, 1)
    {:stdout, os_pid} = next(p)

    holder =
      Port.open({:spawn_executable, "/bin/sh"}, [
        :binary,
        args: ["-c", "exec 3>/proc/#{String.trim(os_pid)}/fd/1; echo held; read line"]
      ])

    assert_receive {^holder, {:data, "held\n"}}, 60_000
    :ok = Command.kill(p, :sigkill)
    assert [next(p), next(p)] == [{:eof, :stdout}, {:exit, 137}]
    Port.close(holder)
  end

  test "a terminal" do
    {:ok, p} = Command.start("sh", ["-c", "echo hello"], pty: true)
    :ok = Command.ask(p, 10)
    assert {0, %{stdout: ["hello\r\n"], ends: [:stdout]}} = all(p)
    Command.stop(p)
  end

  test "takes no nonsense" do
    p = start!("exit 0")

    for count <- [-1, 1.0, :all, "x"] do
      says = "the count must be an integer, 0 or more, got: #{inspect(count)}"
      assert_raise ArgumentError, says, fn -> apply(Command, :ask, [p, count]) end
    end

    Command.stop(p)
    assert Command.ask(p, 1) == {:error, :closed}
  end
end
