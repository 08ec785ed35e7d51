defmodule NetRunner.Process.Caller do
  @moduledoc false
  # A caller that waits, as its server holds it: a monitor, which tells of its death, and a timer, where the call has a
  # time. The monitor is its name: when the time is over, the server gets `{:waited, monitor}`.

  alias NetRunner.Process.Operations

  # What a timer can be set to.
  @longest_wait 4_294_967_295

  @doc "Puts a caller at the end of a queue, for so many ms."
  @spec park(Operations.t(), Operations.kind(), GenServer.from(), term(), timeout()) ::
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
    if timer, do: Process.cancel_timer(timer, async: true, info: false)
    if monitor, do: Process.demonitor(monitor, [:flush])
    :ok
  end

  defp timer(_monitor, :infinity), do: nil

  defp timer(monitor, timeout),
    do: Process.send_after(self(), {:waited, monitor}, min(timeout, @longest_wait))
end
