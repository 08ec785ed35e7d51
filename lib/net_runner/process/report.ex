defmodule NetRunner.Process.Report do
  @moduledoc false
  # What callers are told about a command: its statistics and its status.

  alias NetRunner.Error
  alias NetRunner.Process.{Counters, Exit, Lifecycle, Stats}
  alias NetRunner.System.Cgroup

  @doc "Of the state of a server."
  @spec stats(map()) :: Stats.t()
  def stats(%{started: {system_time, monotonic_time}} = state) do
    exit = Lifecycle.exit(state.life)
    duration = ended_at(exit) - monotonic_time

    stats = %Stats{
      started_at: Stats.started_at(system_time),
      duration_ms: System.convert_time_unit(duration, :native, :millisecond),
      cgroup: cgroup_figures(exit, state.cgroup),
      sandbox: state.sandbox
    }

    state.counters |> Counters.into(stats) |> with_exit(exit)
  end

  @spec info(map()) :: map()
  def info(state) do
    state
    |> stats()
    |> Map.take([:started_at, :duration_ms, :exit_status, :exit, :sandbox])
    |> Map.merge(%{
      pid: self(),
      command: state.command,
      os_pid: state.life.os_pid,
      bytes: Counters.bytes(state.counters),
      status: status(Lifecycle.exit(state.life))
    })
  end

  @doc "For a capture, of a command that is over."
  @spec account(map()) :: map()
  def account(state) do
    %{
      outcome: outcome(state.life),
      stats: stats(state),
      input_failure: state.input_failure
    }
  end

  @doc "Why the command ended, of one that is over; see `NetRunner.Result`. `:stopped`: nobody wanted it any more."
  @spec outcome(Lifecycle.t()) :: term()
  def outcome(life) do
    case {Lifecycle.cause(life), Lifecycle.exit(life)} do
      {nil, %Exit{} = exit} -> if Exit.oom_killed?(exit), do: :oom_killed, else: :ended
      {nil, {:lost, _at}} -> :shepherd_died
      {nil, nil} -> :running
      {{:asked, why}, _} -> outcome_of(why)
      {cause, _} when cause in [:asked, :stopped, :closed] -> :stopped
      {cause, _} -> outcome_of(cause)
    end
  end

  # Only stdout is collected with a limit.
  defp outcome_of({:max_output_exceeded, _}), do: {:output_limit, :stdout}
  defp outcome_of({:input_failed, failure}), do: {:input_failed, exception(failure)}
  defp outcome_of(why), do: why

  @doc "What producing the input failed with."
  @spec exception({:error | :exit | :throw, term(), Exception.stacktrace()}) :: Exception.t()
  def exception({:error, reason, stack}), do: Exception.normalize(:error, reason, stack)
  def exception(thrown_or_exited), do: %Error{reason: {:input_failed, thrown_or_exited}}

  defp ended_at(%Exit{at: at}), do: at
  defp ended_at({:lost, at}), do: at
  defp ended_at(nil), do: System.monotonic_time()

  defp cgroup_figures(%Exit{cgroup: figures}, _cgroup) when figures != nil, do: figures
  defp cgroup_figures(_running_or_lost, cgroup), do: cgroup && Cgroup.figures(cgroup)

  defp with_exit(stats, %Exit{usage: {max_rss, user, system}} = exit) do
    %{
      stats
      | exit_status: Exit.status(exit),
        exit: Exit.named(exit),
        max_rss_bytes: max_rss,
        user_time_us: user,
        system_time_us: system
    }
  end

  defp with_exit(stats, _running_or_lost), do: stats

  defp status(nil), do: :running
  defp status(%Exit{}), do: :exited
  defp status({:lost, _at}), do: :lost
end
