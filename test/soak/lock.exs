defmodule Soak.Lock do
  @moduledoc false
  # One at a time; the state is what the holder of the lock works on. One that dies gives it back.

  use GenServer

  def start_link(state), do: GenServer.start_link(__MODULE__, state)

  @doc "Calls the function with the state; it returns its result and the next state."
  def hold(lock, function) do
    state = GenServer.call(lock, :take, :infinity)
    {result, state} = function.(state)
    :ok = GenServer.call(lock, {:give_back, state}, :infinity)
    result
  end

  @impl true
  def init(state), do: {:ok, %{state: state, holder: nil, queue: :queue.new()}}

  @impl true
  def handle_call(:take, from, lock) do
    {:noreply, next(%{lock | queue: :queue.in(from, lock.queue)})}
  end

  def handle_call({:give_back, state}, _from, lock) do
    Process.demonitor(lock.holder, [:flush])
    {:reply, :ok, next(%{lock | state: state, holder: nil})}
  end

  @impl true
  def handle_info({:DOWN, holder, :process, _, _}, %{holder: holder} = lock) do
    {:noreply, next(%{lock | holder: nil})}
  end

  def handle_info({:DOWN, _, :process, _, _}, lock), do: {:noreply, lock}

  defp next(%{holder: nil} = lock) do
    case :queue.out(lock.queue) do
      {:empty, _} ->
        lock

      {{:value, {pid, _} = from}, queue} ->
        monitor = Process.monitor(pid)
        GenServer.reply(from, lock.state)
        %{lock | holder: monitor, queue: queue}
    end
  end

  defp next(lock), do: lock
end
