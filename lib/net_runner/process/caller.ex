defmodule NetRunner.Process.Caller do
  @moduledoc false
  # A caller that waits, as its server holds it: a monitor, which tells of its death, and a timer, where the call has a
  # time. The monitor is its name: when the time is over, the server gets `{:waited, monitor}`.
  #
  # `{:idle, ms}` is a time that stands still while the command is suspended.

  alias NetRunner.Process.Operations

  # What a timer can be set to.
  @longest_wait 4_294_967_295

  @type time :: timeout() | {:idle, non_neg_integer()}

  @doc "Puts a caller at the end of a queue, for so many ms."
  @spec park(Operations.t(), Operations.kind(), GenServer.from(), term(), time()) ::
          Operations.t()
  def park(queue, kind, {pid, _} = from, data, timeout) do
    monitor = Process.monitor(pid)
    Operations.park(queue, kind, from, data, monitor, timer(monitor, timeout))
  end

  @doc "Answers a caller that was taken out of its queue, where there is one."
  @spec reply(Operations.operation(), term()) :: :ok
  def reply(%{from: nil} = operation, _result), do: forget(operation)

  def reply(%{from: from} = operation, result) do
    forget(operation)
    GenServer.reply(from, result)
  end

  @doc "Hears no more of a caller that was taken out of its queue."
  @spec forget(Operations.operation()) :: :ok
  def forget(%{monitor: monitor, timer: timer}) do
    # A message of it that is there already names nobody who waits.
    cancel(timer)
    if monitor, do: Process.demonitor(monitor, [:flush])
    :ok
  end

  @doc "Pauses the timer of an operation that waits only while the command runs, or continues it with the time that was left."
  @spec pause(Operations.operation(), boolean()) :: Operations.operation()
  def pause(%{timer: {:idle, timer}} = operation, true) when is_reference(timer) do
    # The message may be there already; then nothing is left.
    %{operation | timer: {:idle, Process.cancel_timer(timer) || 0}}
  end

  def pause(%{timer: {:idle, left}} = operation, false) when is_integer(left) do
    %{operation | timer: timer(operation.monitor, {:idle, left})}
  end

  def pause(operation, _pause?), do: operation

  defp cancel({:idle, timer}), do: cancel(timer)

  defp cancel(timer) when is_reference(timer),
    do: Process.cancel_timer(timer, async: true, info: false)

  defp cancel(_none_or_left), do: :ok

  defp timer(_monitor, :infinity), do: nil
  defp timer(monitor, {:idle, ms}), do: {:idle, timer(monitor, ms)}

  defp timer(monitor, timeout),
    do: Process.send_after(self(), {:waited, monitor}, min(timeout, @longest_wait))
end
