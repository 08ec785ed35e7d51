defmodule NetRunner.Telemetry do
  @moduledoc """
  The events that NetRunner emits, for handlers of the `:telemetry` package. NetRunner does not depend on it:
  where the module `:telemetry` is not loaded, nobody can have attached a handler, and nothing is emitted.

  Each command gives a span: `[:net_runner, :command, :start]`, and then one of
  `[:net_runner, :command, :stop]` and `[:net_runner, :command, :exception]`. Times are in `:native` units, see
  `System.convert_time_unit/3`.

  | event | when | measurements | metadata |
  |---|---|---|---|
  | `:start` | the command runs, or could not be started, which `:exception` then says | `system_time`, `monotonic_time`: those of the attempt | |
  | `:stop` | the command has exited, and what it left is gone | `monotonic_time`, `duration`, `max_rss_bytes`, `user_time_us`, `system_time_us`, `bytes_in`, `bytes_out`, `bytes_err` | `outcome`, `status` (128 + number for a signal), `exit` and `cgroup` (as in `NetRunner.Process.Stats`) |
  | `:exception` | the command could not be started, its shepherd died, or the process that holds it ended before it | `monotonic_time`, `duration` | `kind`, `reason`, `stacktrace` |

  The metadata of all three has `command` (`[executable | args]`: arguments may be secret), `pid` (of the
  `NetRunner.Process`), `os_pid` (`nil` where it did not start), `caller` (the pid of the process that started it),
  `callers` (that one first, then those for which it works: its `$callers`) and `telemetry_span_context`, which is the
  same in all events of a command and in those of no other.

  Handlers find the same `$callers` in the dictionary of the process that they run in, where a tracer looks for the parent of
  a span.

  `outcome` is that of `NetRunner.Result`, whatever function has started the command, and `:stopped` where nobody
  wanted it any more: `NetRunner.Process.stop/1`, a stream that was left early. The bytes are those that have
  been written and read by then; what the command has left in its pipes may still be read.

  In `:exception`, `kind` is `:error` with the reason that `{:error, reason}` gives, or `:exit` with the reason with which
  the process ended: `:normal` where the `:owner` died.

      :telemetry.attach("slow-commands", [:net_runner, :command, :stop], fn _, %{duration: duration}, metadata, _ ->
        ms = System.convert_time_unit(duration, :native, :millisecond)
        if ms > 1_000, do: Logger.warning("\#{hd(metadata.command)} took \#{ms} ms")
      end, nil)

  Handlers run in the process of the command, before those who wait for its end are answered, so a slow
  handler makes commands slow. A process that is killed (`Process.exit(pid, :kill)`) emits nothing
  more. A command on another node (`:node`) gives its events there.
  """

  alias NetRunner.Process.Stats

  @figures [
    :max_rss_bytes,
    :user_time_us,
    :system_time_us,
    :bytes_in,
    :bytes_out,
    :bytes_err
  ]

  @typep command :: [String.t()]
  @typep started :: {system_time :: integer(), monotonic_time :: integer()}

  @doc false
  @spec start(command(), pos_integer() | nil, started()) :: :ok
  def start(command, os_pid, {system_time, monotonic_time}) do
    emit(:start, command, os_pid, fn ->
      {%{system_time: system_time, monotonic_time: monotonic_time}, %{}}
    end)
  end

  @doc false
  @spec stop(command(), pos_integer(), started(), (() -> {outcome :: term(), Stats.t()})) :: :ok
  def stop(command, os_pid, started, account) do
    emit(:stop, command, os_pid, fn ->
      {outcome, stats} = account.()
      figures = Map.take(stats, @figures)
      ending = %{outcome: outcome, status: stats.exit_status, exit: stats.exit}
      {Map.merge(ended(started), figures), Map.put(ending, :cgroup, stats.cgroup)}
    end)
  end

  @doc false
  @spec exception(command(), pos_integer() | nil, started(), :error | :exit, term()) :: :ok
  def exception(command, os_pid, started, kind, reason) do
    emit(:exception, command, os_pid, fn ->
      {ended(started), %{kind: kind, reason: reason, stacktrace: []}}
    end)
  end

  defp ended({_, started}) do
    now = System.monotonic_time()
    %{monotonic_time: now, duration: now - started}
  end

  @doc false
  # Whether there may be handlers. One can only be attached by a call of the module, which loads it. So this
  # look-up is all that events cost without one.
  @spec handlers?() :: boolean()
  def handlers?, do: :erlang.function_exported(:telemetry, :execute, 3)

  defp emit(event, command, os_pid, details) do
    if handlers?() do
      {measurements, metadata} = details.()
      callers = Process.get(:"$callers", [])

      common = %{
        command: command,
        pid: self(),
        os_pid: os_pid,
        caller: List.first(callers),
        callers: callers,
        telemetry_span_context: self()
      }

      execute([[:net_runner, :command, event], measurements, Map.merge(common, metadata)])
    end

    :ok
  end

  # Whether there is such a module, only the running VM knows, and neither compiler nor dialyzer.
  defp execute(arguments), do: apply(:telemetry, :execute, arguments)
end
