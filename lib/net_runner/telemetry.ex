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
  | `:stop` | the command has exited, and what it left is gone | `monotonic_time`, `duration`, `max_rss_bytes`, `user_time_us`, `system_time_us` | `status` (128 + number for a signal), `exit` (as in `NetRunner.Process.Stats`) |
  | `:exception` | the command could not be started, its shepherd died, or the process that holds it ended before it | `monotonic_time`, `duration` | `kind`, `reason`, `stacktrace` |

  The metadata of all three has `command` (`[executable | args]`: arguments may be secret), `pid` (of the
  `NetRunner.Process`), `os_pid` (`nil` where it did not start) and `telemetry_span_context`, which is the same in
  all events of a command and in those of no other.

  In `:exception`, `kind` is `:error` with the reason that `{:error, reason}` gives, or `:exit` with the reason with which
  the process ended: `:normal` where the `:owner` died.

      :telemetry.attach("slow-commands", [:net_runner, :command, :stop], fn _, %{duration: duration}, metadata, _ ->
        ms = System.convert_time_unit(duration, :native, :millisecond)
        if ms > 1_000, do: Logger.warning("\#{hd(metadata.command)} took \#{ms} ms")
      end, nil)

  The handlers of a command run one after the other in a process that does nothing else for it. Whoever starts the
  command or waits for its end waits for them, so a slow handler makes commands slow. It keeps no command running that
  has to end: the death of the owner and `:timeout` are acted on meanwhile. A command on another node (`:node`) gives its
  events there.
  """

  alias NetRunner.Process.Stats

  @typedoc false
  @type span :: %{
          command: [String.t()],
          pid: pid(),
          os_pid: pos_integer() | nil,
          started: {system_time :: integer(), monotonic_time :: integer()}
        }

  @typedoc false
  @type ending :: {:stop, Stats.t()} | {:exception, :error | :exit, reason :: term()}

  @doc false
  @spec start(span()) :: :ok
  def start(%{started: {system_time, monotonic_time}} = span) do
    emit(:start, span, %{system_time: system_time, monotonic_time: monotonic_time}, %{})
  end

  @doc false
  @spec finish(span(), ending()) :: :ok
  def finish(span, {:stop, stats}) do
    usage = Map.take(stats, [:max_rss_bytes, :user_time_us, :system_time_us])
    metadata = %{status: stats.exit_status, exit: stats.exit}
    emit(:stop, span, Map.merge(ended(span), usage), metadata)
  end

  def finish(span, {:exception, kind, reason}) do
    emit(:exception, span, ended(span), %{kind: kind, reason: reason, stacktrace: []})
  end

  defp ended(%{started: {_, started}}) do
    now = System.monotonic_time()
    %{monotonic_time: now, duration: now - started}
  end

  @doc false
  # Whether there may be handlers. One can only be attached by a call of the module, which loads it. So this
  # look-up is all that events cost without one.
  @spec handlers?() :: boolean()
  def handlers?, do: :erlang.function_exported(:telemetry, :execute, 3)

  defp emit(event, span, measurements, metadata) do
    if handlers?() do
      common = %{
        command: span.command,
        pid: span.pid,
        os_pid: span.os_pid,
        telemetry_span_context: span.pid
      }

      execute([[:net_runner, :command, event], measurements, Map.merge(common, metadata)])
    end

    :ok
  end

  # Whether there is such a module, only the running VM knows, and neither compiler nor dialyzer.
  defp execute(arguments), do: apply(:telemetry, :execute, arguments)
end
