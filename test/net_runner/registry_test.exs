defmodule NetRunner.RegistryTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog
  import NetRunner.Guarantees.Tree, only: [await: 1]

  alias NetRunner.Registry

  # Each process makes the entries, and lives until it is told to end.
  defp start(entries) do
    test = self()

    pid =
      spawn(fn ->
        for {key, value} <- entries, do: {:ok, _} = Registry.put(key, value)
        send(test, {:registered, self()})
        receive do: (:end -> :ok)
      end)

    assert_receive {:registered, ^pid}, 60_000
    pid
  end

  defp rows(pid), do: :ets.match(Registry, {pid, :"$1"})

  for {how, stop} <- [{"ends", :stop}, {"is killed", :kill}] do
    test "entries go with the process that has made them, when it #{how}" do
      stop = &apply(__MODULE__, unquote(stop), [&1])
      token = make_ref()
      [first, second] = for n <- 1..2, do: start(%{{:token, token} => n, {:guest, token} => n})
      assert Enum.sort(Registry.get({:token, token})) == [1, 2]
      assert {first, 1} in Registry.all(:guest)
      assert length(rows(first)) == 2

      stop.(first)
      await(fn -> rows(first) == [] end)
      assert :ets.lookup(Registry, {:token, token}) == [{{:token, token}, second, 2}]
      assert :ets.lookup(Registry, {:guest, token}) == [{{:guest, token}, second, 2}]

      stop.(second)
      await(fn -> rows(second) == [] and :ets.lookup(Registry, {:token, token}) == [] end)
    end
  end

  def stop(pid), do: send(pid, :end)
  def kill(pid), do: Process.exit(pid, :kill)

  test "what a dead process has left is not shown, however late its end is noticed" do
    # As one whose end the registry has not seen yet.
    {dead, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, _, _, _}
    key = {:daemon, dead}
    true = :ets.insert(Registry, {key, dead, :command})
    on_exit(fn -> :ets.delete(Registry, key) end)
    assert Registry.get(key) == []
    refute List.keymember?(Registry.all(:daemon), dead, 0)
  end

  test "an entry for a registry that was restarted meanwhile is none" do
    {before, monitor} = spawn_monitor(fn -> :ok end)
    assert_receive {:DOWN, ^monitor, _, _, _}
    Process.flag(:trap_exit, true)
    key = {:guest, self()}
    assert Registry.put(before, key, :guest) == {:error, :not_started}
    assert rows(self()) == []
    assert :ets.lookup(Registry, key) == []
    assert_receive {:EXIT, ^before, :noproc}
  end

  test "it outlives what it does not know, and says so" do
    registry = Process.whereis(Registry)

    log =
      capture_log(fn ->
        send(registry, {:hello, "there"})
        :ok = GenServer.cast(registry, {:hello, "cast"})
        assert GenServer.call(registry, {:hello, "call"}) == {:error, :closed}
        NetRunner.Waiting.await_log()
      end)

    for how <- ~w(there cast call), do: assert(log =~ ~s(does not know: {:hello, "#{how}"}))
    assert Process.whereis(Registry) == registry
  end
end
