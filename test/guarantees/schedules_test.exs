defmodule NetRunner.Guarantees.SchedulesTest do
  # Everything that can be called on one command, by many processes at once, in random order. Also with
  # helpers that were built with debug assertions and overflow checks.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  @moduletag timeout: 1_200_000

  test "10,000 schedules end, without a mixed-up byte" do
    fds = Tree.new().fds
    run_schedules(10_000)
    assert_clean(fds)
  end

  test "2,000 schedules end with helpers that assert" do
    target = Path.join(Mix.Project.build_path(), "native_debug")
    args = ["build", "--locked", "--package", "shepherd", "--target-dir", target]
    {output, status} = System.cmd("cargo", args, stderr_to_stdout: true)
    assert status == 0, output

    restart_with(Path.join(target, "debug/net_runner_shepherd"))
    on_exit(fn -> restart_with(nil) end)
    fds = Tree.new().fds
    run_schedules(2_000)
    assert_clean(fds)
  end

  defp restart_with(helper) do
    ExUnit.CaptureLog.capture_log(fn -> :ok = Application.stop(:net_runner) end)

    if helper,
      do: Application.put_env(:net_runner, :helper, helper),
      else: Application.delete_env(:net_runner, :helper)

    {:ok, _} = Application.ensure_all_started(:net_runner)
  end

  defp run_schedules(count) do
    seed = :rand.uniform(1_000_000)

    options = [max_concurrency: 16, timeout: 60_000, ordered: false]

    1..count
    |> Task.async_stream(&schedule(&1, seed), options)
    |> Enum.each(fn {:ok, wrong} -> assert wrong == [], "seed #{seed}: #{inspect(wrong)}" end)
  end

  @actions [
    :read,
    :read,
    :read_any,
    :write,
    :write,
    :close_stdin,
    :kill,
    :stats,
    :await,
    :alive,
    :crash,
    :timed_read,
    :timed_write,
    :read_until,
    :ask,
    :suspend,
    :resume,
    :monitor
  ]

  defp schedule(number, seed) do
    :rand.seed(:exsss, {seed, number, 0})
    {:ok, command} = Command.start("cat", [], kill_timeout: 1_000)
    mark = <<rem(number, 256)>>

    workers =
      for _ <- 1..4 do
        actions = for _ <- 1..4, do: {Enum.random(@actions), :rand.uniform(300)}

        {pid, monitor} =
          spawn_monitor(fn -> exit({:wrong, Enum.flat_map(actions, &act(&1, command, mark))}) end)

        {pid, monitor}
      end

    # Readers may wait for ever: the end comes to everybody.
    spin(:rand.uniform(2_000))
    if rem(number, 7) == 0, do: Process.exit(command, :kill), else: Command.stop(command)

    Enum.flat_map(workers, fn {_, monitor} ->
      receive do
        {:DOWN, ^monitor, :process, _, {:wrong, wrong}} -> wrong
        {:DOWN, ^monitor, :process, _, :crash} -> []
        {:DOWN, ^monitor, :process, _, other} -> [other]
      after
        20_000 -> [:hangs]
      end
    end)
  end

  defp spin(count), do: Enum.each(1..count, fn n -> n end)

  defp act({action, delay}, command, mark) do
    spin(delay)

    case perform(action, command, mark) do
      :ok -> []
      :eof -> []
      {:ok, {:stdout, bytes}} -> own(bytes, mark)
      {:ok, bytes} when is_binary(bytes) -> own(bytes, mark)
      {:ok, status} when status in [0, 143] -> []
      %Command.Stats{} -> []
      alive when is_boolean(alive) -> []
      {:error, reason} when reason in [:closed, :epipe, :esrch, :timeout, :busy, :eof] -> []
      # So many bytes of a write whose time was over are in the pipe.
      {:error, {:timeout, written}} when written in 0..70 -> []
      other -> [{action, other}]
    end
  end

  defp own(bytes, mark),
    do: if(bytes == String.duplicate(mark, byte_size(bytes)), do: [], else: [bytes])

  defp perform(:read, command, _), do: Command.read(command, 100)
  defp perform(:read_any, command, _), do: Command.read_any(command)

  defp perform(:write, command, mark),
    do: Command.write(command, [String.duplicate(mark, 70), mark])

  defp perform(:close_stdin, command, _), do: Command.close_stdin(command)
  defp perform(:kill, command, _), do: Command.kill(command, :sigterm)
  defp perform(:stats, command, _), do: Command.stats(command)
  defp perform(:await, command, _), do: Command.await_exit(command, 1)
  defp perform(:alive, command, _), do: Command.alive?(command)
  defp perform(:timed_read, command, _), do: Command.read(command, 100, :rand.uniform(2) - 1)

  defp perform(:timed_write, command, mark),
    do: Command.write(command, [String.duplicate(mark, 70), mark], 0)

  defp perform(:read_until, command, mark) do
    pattern = String.duplicate(mark, 3)

    with {:ok, {before, ^pattern}} <-
           Command.read_until(command, pattern, timeout: :rand.uniform(3) - 1),
         do: {:ok, before}
  end

  defp perform(:ask, command, _) do
    with :ok <- Command.ask(command, 1) do
      receive do
        {:net_runner, ^command, {:stdout, bytes}} -> {:ok, bytes}
        {:net_runner, ^command, {:eof, _}} -> :eof
        {:net_runner, ^command, {:exit, _}} -> :eof
      after
        :rand.uniform(2) - 1 -> Command.ask(command, 0)
      end
    end
  end

  defp perform(:suspend, command, _), do: Command.suspend(command)
  defp perform(:resume, command, _), do: Command.resume(command)

  defp perform(:monitor, command, _) do
    ref = Command.monitor(command)
    if is_reference(ref), do: :ok, else: ref
  end

  defp perform(:crash, _, _), do: if(:rand.uniform(10) == 1, do: exit(:crash), else: :ok)

  defp assert_clean(fds) do
    Tree.await(fn -> Tree.at_rest?() end, 60_000, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= fds end, 60_000, fn -> {fds, Tree.fd_targets()} end)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
  end
end
