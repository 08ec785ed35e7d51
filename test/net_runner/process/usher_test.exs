defmodule NetRunner.Process.UsherTest do
  use ExUnit.Case, async: true

  alias NetRunner.Process.Usher

  test "messages of strangers do not put it off" do
    server = spawn(fn -> receive do: (:end -> :ok) end)

    feeder =
      spawn(fn ->
        Usher.start(server)
        Process.sleep(:infinity)
      end)

    NetRunner.Guarantees.Tree.await(fn -> match?([_], ushers(feeder)) end)
    [usher] = ushers(feeder)
    monitor = Process.monitor(feeder)
    send(server, :end)
    GenServer.cast(usher, :stray)
    stranger = spawn(fn -> pester(usher) end)
    assert_receive {:DOWN, ^monitor, _, _, :killed}, 60_000
    Process.exit(stranger, :kill)
  end

  defp ushers(feeder), do: Process.info(feeder, :monitored_by) |> elem(1)

  defp pester(usher) do
    case Process.info(usher, :message_queue_len) do
      {_, few} when few < 100 -> send(usher, :stray)
      _enough_or_gone -> :erlang.yield()
    end

    pester(usher)
  end
end
