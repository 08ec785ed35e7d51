defmodule NetRunner.Telemetry do
  @moduledoc """
  The events that NetRunner emits for handlers of the `:telemetry` package. NetRunner does not depend on the package: if the module
  `:telemetry` is not loaded, nobody can have attached a handler, and nothing is emitted.

  Each command is a span: first `[:net_runner, :command, :start]`, and then either `[:net_runner, :command, :stop]` or
  `[:net_runner, :command, :exception]`. Times are in `:native` units, see `System.convert_time_unit/3`, unless their names end with a unit.

  | event | when | measurements | metadata |
  |---|---|---|---|
  | `:start` | the command runs, or could not be started (then `:exception` follows) | `system_time`, `monotonic_time`: those of the attempt | |
  | `:stop` | the command has exited, and what it left running is gone | `monotonic_time`, `duration`, `max_rss_bytes`, `user_time_us`, `system_time_us`, `bytes_in`, `bytes_out`, `bytes_err` | `outcome`, `status` (for a signal, 128 + its number), `exit` and `cgroup` (as in `NetRunner.Process.Stats`) |
  | `:exception` | the command could not be started, its helper process was killed, or its `NetRunner.Process` ended before it | `monotonic_time`, `duration` | `kind`, `reason`, `stacktrace` |

  The metadata of all three events has `command` (`[executable | args]`; arguments may be secret; what was no list, and could not be started, is its only element), `pid` (of the `NetRunner.Process`),
  `os_pid` (`nil` if the command did not start), `caller` (the pid of the process that started it), `callers` (the caller, followed by its
  own `$callers`) and `telemetry_span_context`, which is the same in all events of one command and different for each command.

  The process in which handlers run has the same `$callers` in its dictionary, where a tracer looks for the parent of a span.

  `outcome` is that of `NetRunner.Result`, whatever function started the command. It is `:stopped` when the command was ended because
  nobody wanted it any more: by `NetRunner.Process.stop/1`, because its owner died, or because a stream stopped early. The bytes are those written and read until
  the event; what is still in the pipes may be read later. Of a command that exits at once, that can be all of its output.

  In `:exception`, `kind` is `:error`, with the reason of `{:error, reason}`, or `:exit`, with the reason with which the process ended, such as
  `:killed`.

      :telemetry.attach("slow-commands", [:net_runner, :command, :stop], fn _, %{duration: duration}, metadata, _ ->
        ms = System.convert_time_unit(duration, :native, :millisecond)
        if ms > 1_000, do: Logger.warning("\#{hd(metadata.command)} took \#{ms} ms")
      end, nil)

  The handlers of a command run one after the other in a process of their own. Starting a command, and waiting for its end, wait for
  the handlers, so a slow handler makes commands slow, but by 3 seconds at most for each of the two. Handlers that take longer, or
  never return, are not waited for, and the next event of this command is emitted when they have returned.

  A slow handler does not keep a command from being ended: NetRunner still notices the death of the owner and `:timeout`. It does not keep
  others from reading, writing and asking, either. A handler may ask the command's process, too, such as with
  `NetRunner.Process.stats(metadata.pid)`. The start does not wait for a handler of `:start` that does so. A handler that waits for the
  end of its command waits until the time above is over. When a command could not be started, its process answers
  `{:error, :closed}`.

  The events of a command on another node (`:node`) are emitted on that node.
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.Process.Stats

  @figures [
    :max_rss_bytes,
    :user_time_us,
    :system_time_us,
    :bytes_in,
    :bytes_out,
    :bytes_err
  ]

  @typedoc false
  @type span :: %{
          command: [String.t()],
          pid: pid(),
          os_pid: pos_integer() | nil,
          callers: [pid()],
          started: {system_time :: integer(), monotonic_time :: integer()}
        }

  @typedoc false
  @type ending ::
          {:stop, outcome :: term(), Stats.t()}
          | {:exception, :error | :exit, reason :: term()}

  @doc false
  @spec start(span()) :: :ok
  def start(%{started: {system_time, monotonic_time}} = span) do
    emit(:start, span, %{system_time: system_time, monotonic_time: monotonic_time}, %{})
  end

  @doc false
  @spec finish(span(), ending()) :: :ok
  def finish(span, {:stop, outcome, stats}) do
    measurements = span |> ended() |> Map.merge(Map.take(stats, @figures))

    emit(:stop, span, measurements, %{
      outcome: outcome,
      status: stats.exit_status,
      exit: stats.exit,
      cgroup: stats.cgroup
    })
  end

  def finish(span, {:exception, kind, reason}) do
    emit(:exception, span, ended(span), %{kind: kind, reason: reason, stacktrace: []})
  end

  defp ended(%{started: {_, started}}) do
    now = System.monotonic_time()
    %{monotonic_time: now, duration: now - started}
  end

  defp emit(event, span, measurements, metadata) do
    common = %{
      command: if(is_list(span.command), do: span.command, else: [span.command]),
      pid: span.pid,
      os_pid: span.os_pid,
      caller: List.first(span.callers),
      callers: span.callers,
      telemetry_span_context: span.pid
    }

    # It was there when the command started, but may have gone with its application.
    if there?(),
      do: execute([[:net_runner, :command, event], measurements, Map.merge(common, metadata)])

    :ok
  end

  defp there?, do: :erlang.function_exported(:telemetry, :execute, 3)

  # Whether there is such a module, only the running VM knows, and neither compiler nor dialyzer.
  defp execute(arguments), do: apply(:telemetry, :execute, arguments)
end
