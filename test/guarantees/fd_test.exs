defmodule NetRunner.Guarantees.FdTest do
  # Every transition of an fd resource (docs/internals.md), on real pipes of a real `cat`.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.System.{Native, Spec}

  setup do
    {:ok, fds: Tree.new().fds}
  end

  test "closed while nobody is inside: later calls say so, and a second close does nothing",
       context do
    cat = cat()
    assert Native.close(cat.stdout) == :ok
    assert Native.close(cat.stdout) == :ok
    assert Native.read(cat.stdout, 10) == {:error, :closed}
    assert Native.read(cat.stdout, 100_000) == {:error, :closed}
    close(cat)
    assert Native.write(cat.stdin, ["x"]) == {:error, :closed}
    assert Native.receive_event(cat.control) == {:error, :closed}
    assert Native.send_signal(cat.control, 15) == {:error, :closed}
    assert Native.end_command(cat.control) == {:error, :closed}
    assert_fds_back(context)
  end

  test "closed while selected: no message comes, and the descriptor goes", context do
    cat = cat()
    assert Native.read(cat.stdout, 10) == {:error, :eagain}
    assert Native.close(cat.stdout) == :ok
    assert Native.write(cat.stdin, ["x"]) == :ok
    close(cat)
    assert_fds_back(context)
    refute_received {:select, _, _, _}
  end

  test "closed by another process while selected", context do
    cat = cat()
    assert Native.read(cat.stdout, 10) == {:error, :eagain}
    Task.await(Task.async(fn -> Native.close(cat.stdout) end))
    assert Native.read(cat.stdout, 10) == {:error, :closed}
    close(cat)
    assert_fds_back(context)
  end

  test "closed while others read on dirty schedulers: each read is whole, then :closed",
       context do
    for _ <- 1..200 do
      source = start(["head", "-c", "10000000", "/dev/zero"])
      readers = for _ <- 1..4, do: Task.async(fn -> read_until_closed(source.stdout) end)
      closer = Task.async(fn -> close_after_bytes(source.stdout) end)
      Task.await(closer)
      for reader <- readers, do: assert(Task.await(reader) == :closed)
      close(source)
    end

    assert_fds_back(context)
  end

  test "two closers at once, many times", context do
    for _ <- 1..500 do
      cat = cat()
      closers = for _ <- 1..4, do: Task.async(fn -> close(cat) end)
      Enum.each(closers, &Task.await/1)
    end

    assert_fds_back(context)
  end

  test "the owner dies while selected: the descriptors close and the command ends", context do
    test = self()

    owner =
      spawn(fn ->
        cat = cat()
        {:error, :eagain} = Native.read(cat.stdout, 10)
        send(test, {:cat, cat})
        Process.sleep(:infinity)
      end)

    assert_receive {:cat, cat}
    monitor = Process.monitor(owner)
    Process.exit(owner, :kill)
    assert_receive {:DOWN, ^monitor, :process, _, :killed}
    # `down` runs with the exit of the owner; the terms here do not keep anything open.
    Tree.await(fn -> Native.read(cat.stdout, 10) == {:error, :closed} end)
    assert_fds_back(context)
  end

  test "garbage while selected: the select keeps it, its message brings it back", context do
    test = self()

    owner =
      spawn(fn ->
        stdin = forget_selected_stdout()
        :erlang.garbage_collect()
        send(test, :forgotten)

        receive do
          :write -> :ok = Native.write(stdin, ["x"])
        end

        receive do
          {:select, stdout, _, :ready_input} -> send(test, {:read, Native.read(stdout, 10)})
        end
      end)

    monitor = Process.monitor(owner)
    assert_receive :forgotten
    send(owner, :write)
    assert_receive {:read, {:ok, "x"}}, 60_000
    assert_receive {:DOWN, ^monitor, :process, _, :normal}
    assert_fds_back(context)
  end

  test "garbage that was never selected closes by itself", context do
    Task.await(
      Task.async(fn ->
        for _ <- 1..10, do: start(["true"])
        :erlang.garbage_collect()
      end)
    )

    assert_fds_back(context)
  end

  test "10,000 schedules of reads, writes and closes by several processes", context do
    seed = :rand.uniform(1_000_000)

    1..10_000
    |> Task.async_stream(&schedule(&1, seed), max_concurrency: 8, timeout: 30_000, ordered: false)
    |> Enum.each(fn {:ok, wrong} -> assert wrong == [], "seed #{seed}: #{inspect(wrong)}" end)

    assert_fds_back(context)
  end

  # Each byte that a command is given is its own number; a byte of another one would be a mixed-up fd.
  defp schedule(number, seed) do
    :rand.seed(:exsss, {seed, number, 0})
    cat = cat()
    mark = <<rem(number, 256)>>

    1..4
    |> Enum.map(fn worker ->
      actions =
        for _ <- 1..5,
            do:
              Enum.random([
                :read,
                :read,
                :read_bulk,
                :write,
                :write,
                :close_in,
                :close_out,
                :signal
              ])

      Task.async(fn -> Enum.flat_map(actions, &act(&1, cat, mark, worker)) end)
    end)
    |> Enum.flat_map(&Task.await(&1, 60_000))
    |> tap(fn _ -> close(cat) end)
  end

  defp act(action, cat, mark, worker) do
    # A random delay, of no length that matters: it is there to change the order.
    for _ <- 1..:rand.uniform(200), do: worker

    case {action, perform(action, cat, mark)} do
      {_, :ok} ->
        []

      {_, :eof} ->
        []

      {_, {:partial, _}} ->
        []

      {_, {:ok, bytes}} ->
        if bytes == String.duplicate(mark, byte_size(bytes)), do: [], else: [bytes]

      {_, {:error, reason}} when reason in [:eagain, :closed, :epipe, :econnreset] ->
        []

      {action, other} ->
        [{action, other}]
    end
  end

  defp perform(:read, cat, _), do: Native.read(cat.stdout, 100)
  defp perform(:read_bulk, cat, _), do: Native.read(cat.stdout, 1_000_000)
  defp perform(:write, cat, mark), do: Native.write(cat.stdin, [String.duplicate(mark, 100)])
  defp perform(:close_in, cat, _), do: Native.close(cat.stdin)
  defp perform(:close_out, cat, _), do: Native.close(cat.stdout)
  defp perform(:signal, cat, _), do: Native.send_signal(cat.control, 0)

  defp cat, do: start(["cat"])

  defp start(command) do
    options = NetRunner.Options.validate!([], [:command])
    {:ok, fields} = Spec.build(command, options)

    {:ok, control, stdin, stdout, nil, []} =
      NetRunner.System.Launcher.submit(fields, {{:pipe, :pipe, :null}, []}, 0)

    %{control: control, stdin: stdin, stdout: stdout}
  end

  # A function of its own, so that nothing on the stack refers to stdout afterwards.
  defp forget_selected_stdout do
    cat = cat()
    {:error, :eagain} = Native.read(cat.stdout, 10)
    Process.put(:control, cat.control)
    cat.stdin
  end

  defp close(fds), do: Enum.each([fds.control, fds.stdin, fds.stdout], &Native.close/1)

  defp read_until_closed(fd) do
    case Native.read(fd, 1_000_000) do
      {:ok, bytes} ->
        true = bytes == :binary.copy(<<0>>, byte_size(bytes))
        read_until_closed(fd)

      {:error, :eagain} ->
        read_until_closed(fd)

      :eof ->
        read_until_closed(fd)

      {:error, :closed} ->
        :closed
    end
  end

  defp close_after_bytes(fd) do
    case Native.read(fd, 1_000) do
      {:ok, _} -> Native.close(fd)
      {:error, :eagain} -> close_after_bytes(fd)
      :eof -> Native.close(fd)
    end
  end

  defp assert_fds_back(context) do
    :erlang.garbage_collect()

    Tree.await(fn -> Tree.fds() <= context.fds end, 60_000, fn ->
      {context.fds, Tree.fd_targets()}
    end)

    Tree.await(fn -> Tree.at_rest?() end, 60_000, fn -> Tree.helpers() end)
  end
end
