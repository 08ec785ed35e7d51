defmodule NetRunner.Process.Further do
  @moduledoc false
  # The descriptors of a command from 3 on that its server writes (an `Inlet`) or reads (`Outlets` with only a stdout).
  # All functions give what a callback of a GenServer returns.

  alias NetRunner.Process.{Inlet, Outlets, State}
  alias NetRunner.System.{Descriptors, Native}

  @type request ::
          {:write, [binary()], timeout()} | {:read, pos_integer(), timeout()} | :close

  @doc "A caller asks something of one."
  @spec ask_fd(State.t(), Descriptors.fd(), request(), GenServer.from()) ::
          State.result() | {:reply, term(), State.t()}
  def ask_fd(state, number, request, from) do
    case {request, state.fds} do
      {{:write, iovec, timeout}, %{^number => %Inlet{} = inlet}} ->
        answer(state, number, Inlet.write(inlet, from, iovec, timeout))

      {:close, %{^number => %Inlet{} = inlet}} ->
        answer(state, number, Inlet.close(inlet, from))

      {{:read, max_bytes, timeout}, %{^number => %Outlets{} = outlets}} ->
        answer(state, number, Outlets.read(outlets, from, :stdout, max_bytes, timeout))

      {:close, %{^number => %Outlets{} = outlets}} ->
        GenServer.reply(from, :ok)
        State.fd(state, number, Outlets.shut(outlets, {:error, :closed}))

      {_, _} ->
        {:reply, {:error, :not_piped}, state}
    end
  end

  defp answer(state, number, {:reply, result, changed}) do
    result = State.with_failure(result, state)
    {:reply, result, %{state | fds: %{state.fds | number => changed}}}
  end

  defp answer(state, number, {:wait, changed, effects}),
    do: State.fd(state, number, {changed, effects})

  @doc "Goes on with the descriptor that may be ready. A late select belongs to none, and is ignored."
  @spec serve_further(State.t(), Native.fd()) :: State.result()
  def serve_further(state, fd) do
    case Enum.find(state.fds, fn {_number, further} -> is_of?(further, fd) end) do
      nil -> {:noreply, state}
      {number, _} -> serve_fd(state, number)
    end
  end

  defp is_of?(%Inlet{stdin: stdin}, fd), do: stdin == fd
  defp is_of?(%Outlets{} = outlets, fd), do: Outlets.stream_of(outlets, fd) != nil

  @doc "As `serve_further/2`, of a number."
  @spec serve_fd(State.t(), Descriptors.fd()) :: State.result()
  def serve_fd(state, number) do
    case state.fds do
      %{^number => %Inlet{} = inlet} ->
        State.fd(state, number, Inlet.serve(inlet))

      %{^number => %Outlets{} = outlets} ->
        State.fd(state, number, Outlets.serve(outlets, :stdout))

      # A message that nobody should send.
      _no_such_number ->
        {:noreply, state}
    end
  end
end
