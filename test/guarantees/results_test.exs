defmodule NetRunner.Guarantees.ResultsTest do
  # No status and no byte is lost, whatever the rush, and also while launchers die.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree

  @commands [
    {["true"], {"", 0}},
    {["false"], {"", 1}},
    {["echo", "hello"], {"hello\n", 0}},
    {["sh", "-c", "kill -9 $$"], {"", 137}}
  ]

  @tag timeout: 1_200_000
  test "20,000 fast commands, 64 at a time, give 20,000 right results" do
    fds = Tree.new().fds

    wrong =
      1..20_000
      |> Task.async_stream(&run_one/1, max_concurrency: 64, timeout: 60_000, ordered: false)
      |> Enum.flat_map(fn {:ok, {expected, result}} ->
        if result == expected, do: [], else: [result]
      end)

    assert wrong == []
    Tree.await(fn -> Tree.at_rest?() end)
    Tree.await(fn -> Tree.fds() <= fds end, 60_000, fn -> {fds, Tree.fd_targets()} end)
  end

  test "with the launcher killed every 50 ms, each command ends with its result or a clear error" do
    fds = Tree.new().fds

    ExUnit.CaptureLog.capture_log(fn ->
      killer = Task.async(fn -> kill_launchers(100) end)

      results =
        Stream.repeatedly(fn -> :rand.uniform(4) end)
        |> Stream.take_while(fn _ -> Process.alive?(killer.pid) end)
        |> Task.async_stream(&run_one/1, max_concurrency: 64, timeout: 60_000, ordered: false)
        |> Enum.map(fn {:ok, {expected, result}} ->
          if result == expected, do: :right, else: result
        end)

      killed = Task.await(killer)
      assert killed > 20
      frequencies = Enum.frequencies(results)
      assert frequencies[:right] > 100
      errors = Map.keys(frequencies) -- [:right]
      assert errors -- [{:error, :launcher_died}, {:error, :shepherd_died}] == []
    end)

    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
    Tree.await(fn -> Tree.at_rest?() end, 60_000, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= fds end, 60_000, fn -> {fds, Tree.fd_targets()} end)
  end

  # Whether the shepherd has said before that it has started the command is a matter of luck.
  test "a command that kills its shepherd at once is not said to be one that was not started" do
    for _ <- 1..20 do
      assert NetRunner.run(["sh", "-c", "kill -KILL $PPID; sleep 1000"]) ==
               {:error, :shepherd_died}
    end
  end

  defp run_one(n) do
    {command, expected} = Enum.at(@commands, rem(n, 4))
    {expected, NetRunner.run(command)}
  end

  # The pause is the rate that the test is about.
  defp kill_launchers(times) do
    Enum.count(1..times, fn _ ->
      Process.sleep(50)

      case Tree.current_launcher() do
        nil -> false
        pid -> Tree.kill(pid) == :ok
      end
    end)
  end
end
