defmodule Soak.Harm do
  @moduledoc false
  # What is done to the helpers that all commands share. While one is being replaced, a start may fail with an
  # error that says so; so a storm has a begin and an end that others can see.

  alias NetRunner.Guarantees.Tree
  alias NetRunner.System.Launcher
  alias Soak.{Lock, Proc}

  # A supervisor gives up when its child dies more often than three times in five seconds.
  @between_server_crashes 2_500

  def new do
    {:ok, lock} = Lock.start_link(%{server_crashed: nil})
    %{lock: lock, storms: :counters.new(3, []), sessions: :ets.new(:sessions, [:public])}
  end

  # Storms that have begun, that have ended, and twice the deadly ones: an odd number means that there is one.
  @doc "What to give to `since/2` later."
  def now(%{storms: storms}), do: for(index <- 1..3, do: :counters.get(storms, index))

  @doc """
  What there was since then: no storm (`:calm`); one that may make a start fail; or one in which running commands end, since
  nobody is left above their shepherds (`:deadly`).
  """
  def since(harm, [begun, ended, deadly]) do
    case now(harm) do
      [_, _, now] when now > deadly or rem(deadly, 2) == 1 -> :deadly
      [^begun, _, _] when begun == ended -> :calm
      _ -> :storm
    end
  end

  @doc "Calls the function while there is no storm."
  def calm(harm, function), do: Lock.hold(harm.lock, &{function.(), &1})

  @doc "The sessions of all helpers that there were: theirs is that of their guard."
  def sessions(%{sessions: sessions}) do
    remember(sessions, guard())
    for {session} <- :ets.tab2list(sessions), do: session
  end

  @doc "Forgets those of which nothing is left: all but the present one."
  def forget(%{sessions: sessions} = harm) do
    :ets.delete_all_objects(sessions)
    sessions(harm)
    :ok
  end

  defp remember(sessions, guard), do: if(guard, do: :ets.insert(sessions, {guard}))

  def guard do
    :sys.get_state(Launcher, 60_000).guard
  catch
    # It is being started again.
    :exit, _ -> nil
  end

  @doc "SIGKILL, to what this program has started."
  def kill(pid), do: signal(pid, "KILL")

  # It may be gone by now.
  defp signal(pid, name) do
    System.cmd("kill", ["-" <> name, "#{pid}"], stderr_to_stdout: true)
    :ok
  end

  def storm(harm, kind, x) do
    Lock.hold(harm.lock, fn state ->
      remember(harm.sessions, guard())
      state = pause(kind, state)
      :counters.add(harm.storms, 1, 1)
      if kind == :both_crash, do: :counters.add(harm.storms, 3, 1)
      launcher = Tree.current_launcher()
      dead = break(kind, %{guard: guard(), launcher: launcher}, x)
      :ok = Proc.await(fn -> not Enum.any?(dead, &Proc.alive?/1) end)
      :ok = Proc.await(fn -> Enum.all?(1..3, fn _ -> NetRunner.run(~w(true)) == {"", 0} end) end)
      remember(harm.sessions, guard())
      if kind == :both_crash, do: :counters.add(harm.storms, 3, 1)
      :counters.add(harm.storms, 2, 1)
      {:ok, state}
    end)
  end

  defp pause(:launcher_server_crash, %{server_crashed: last} = state) do
    now = System.monotonic_time(:millisecond)
    if last, do: Process.sleep(max(0, last + @between_server_crashes - now))
    %{state | server_crashed: System.monotonic_time(:millisecond)}
  end

  defp pause(_kind, state), do: state

  defp break(_kind, %{launcher: nil}, _x), do: []

  # A spare, or one that is kept for the next command. It may be about to take one, so it is stopped first.
  defp break(:idle_crash, %{launcher: launcher}, x) do
    children = Enum.filter(Proc.pids(), &(Proc.parent(&1) == launcher))

    children
    |> Enum.take(rem(x.count, 3) + 1)
    |> Enum.filter(&stopped_idle?/1)
    |> kill_all()
  end

  defp break(:launcher_crash, %{launcher: launcher}, _), do: kill_all([launcher])
  defp break(:guard_crash, %{guard: guard}, _), do: kill_all([guard])

  defp break(:both_crash, %{launcher: launcher, guard: guard}, x) do
    both = [launcher, guard]
    kill_all(if rem(x.choice, 2) == 0, do: both, else: Enum.reverse(both))
  end

  # The helpers of the old one stay until their commands have ended.
  defp break(:launcher_server_crash, _, _) do
    Process.exit(Process.whereis(Launcher), :kill)
    []
  end

  # Starts wait meanwhile, or are served by those that are idle.
  defp break(:launcher_stopped, %{launcher: launcher}, x) do
    signal(launcher, "STOP")
    Process.sleep(x.pause)
    signal(launcher, "CONT")
    []
  end

  defp stopped_idle?(shepherd) do
    signal(shepherd, "STOP")
    Proc.await(fn -> Proc.stat(shepherd)[:state] not in ["R", "S", "D"] end)
    idle? = Proc.descendants(shepherd) == []
    unless idle?, do: signal(shepherd, "CONT")
    idle?
  end

  defp kill_all(pids) do
    Enum.each(pids, &kill/1)
    pids
  end
end
