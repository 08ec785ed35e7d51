defmodule NetRunner.Process.Waiters do
  @moduledoc false
  # Callers that wait no longer, wherever they waited: for bytes, for room, or for the end. All functions give what a callback of a
  # GenServer returns.

  import NetRunner.Process.State

  alias NetRunner.Process.{Caller, Inlet, Operations, Outlets, State, Watchers}

  @doc "A caller that waited, or had waited, died."
  @spec drop_caller(State.t(), reference(), pid()) :: State.result()
  def drop_caller(%State{} = state, monitor, pid) do
    with nil <- Outlets.drop_caller(state.outlets, monitor),
         nil <- state.inlet && Inlet.drop_caller(state.inlet, monitor),
         nil <- find_fd(state, & &1.drop_caller(&2, monitor)),
         nil <- Watchers.drop(state.watchers, pid, monitor) do
      {operation, waiters} = Operations.drop_caller(state.waiters, monitor)
      if operation, do: Caller.forget(operation)
      {:noreply, %{state | waiters: waiters}}
    else
      {%Outlets{}, _} = outlets -> outlets(state, outlets)
      {%Inlet{}, _} = inlet -> inlet(state, inlet)
      {number, changed} -> fd(state, number, changed)
      %{} = watchers -> {:noreply, %{state | watchers: watchers}}
    end
  end

  # The further descriptor where this caller waited.
  defp find_fd(%State{} = state, take_out) do
    Enum.find_value(state.fds, fn {number, %module{} = inlet_or_outlets} ->
      with {_, _} = changed <- take_out.(module, inlet_or_outlets), do: {number, changed}
    end)
  end

  @doc "The time of a caller is over."
  @spec expire(State.t(), reference()) :: State.result()
  def expire(%State{} = state, monitor) do
    with nil <- Outlets.expire(state.outlets, monitor),
         nil <- state.inlet && Inlet.expire(state.inlet, monitor),
         nil <- find_fd(state, & &1.expire(&2, monitor)),
         {nil, _} <- Operations.withdraw(state.waiters, monitor) do
      # Race: answered before its time is over. Or the caller has died.
      {:noreply, state}
    else
      {%Outlets{}, _} = outlets ->
        outlets(state, outlets)

      {%Inlet{}, _} = inlet ->
        inlet(state, inlet)

      {number, changed} when is_integer(number) ->
        fd(state, number, changed)

      {operation, waiters} ->
        Caller.reply(operation, {:error, :timeout})
        {:noreply, %{state | waiters: waiters}}
    end
  end
end
