defmodule NetRunner.Process.Requests do
  @moduledoc false
  # What callers ask of the server of a command. What `NetRunner.run/2` asks is answered by the server itself, so that a first
  # command need not load this.

  import NetRunner.Process.{Further, State}

  alias NetRunner.Process.{Caller, Guest, Inlet, Lifecycle, Outlets, Report, State, Watchers}
  alias NetRunner.System.Native

  @sigcont NetRunner.Signal.resolve!(:sigcont)

  @doc "What a callback of a GenServer returns; `:unknown`: there is no such request."
  @spec handle(request :: term(), GenServer.from(), State.t()) ::
          {:reply, term(), State.t()} | State.result() | :unknown
  def handle({:read, which, max_bytes, timeout}, from, %State{} = state) do
    state = if which == :stdout, do: announce_guests(state, from), else: state

    case Outlets.read(state.outlets, from, which, max_bytes, timeout) do
      {:reply, result, outlets} ->
        {:reply, with_failure(result, state), %{state | outlets: outlets}}

      {:wait, outlets, effects} ->
        outlets(state, {outlets, effects})
    end
  end

  def handle({:turned_away, {:read, :stdout, _, _} = request}, from, %State{} = state),
    do: handle(request, from, receive_guest(state, :read))

  def handle({:turned_away, {:write, _, _} = request}, from, %State{} = state),
    do: handle(request, from, receive_guest(state, :write))

  def handle({:write, _iovec, _timeout}, _from, %State{inlet: nil} = state),
    do: {:reply, {:error, :not_piped}, state}

  def handle({:write, iovec, timeout}, from, %State{} = state) do
    state = announce_guests(state, from)

    case Inlet.write(state.inlet, from, iovec, timeout) do
      {:reply, result, inlet} -> {:reply, result, %{state | inlet: inlet}}
      {:wait, inlet, effects} -> inlet(state, {inlet, effects})
    end
  end

  def handle(:close_stdin, _from, %State{inlet: nil} = state), do: {:reply, :ok, state}

  def handle(:close_stdin, from, %State{} = state) do
    case Inlet.close(state.inlet, from) do
      {:reply, result, inlet} -> {:reply, result, %{state | inlet: inlet}}
      {:wait, inlet, effects} -> inlet(state, {inlet, effects})
    end
  end

  def handle({:fd, number, request}, from, %State{} = state),
    do: ask_fd(state, number, request, from)

  def handle({:kill, number, to}, from, %State{} = state) do
    cond do
      not Lifecycle.alive?(state.life) ->
        {:reply, {:error, :esrch}, state}

      # What `resume/1` does. Otherwise the times that stand while it is suspended would go on standing.
      to == :tree and number == @sigcont and Lifecycle.may_be_suspended?(state.life) ->
        handle({:suspend, false}, from, state)

      # The command itself runs on, and what it has to print in time is due again.
      number == @sigcont ->
        result = told(Native.send_signal(state.control, number, to))
        {:reply, result, %{state | outlets: Outlets.pause(state.outlets, false)}}

      true ->
        {:reply, told(Native.send_signal(state.control, number, to)), state}
    end
  end

  def handle({:suspend, suspend?}, _from, %State{} = state) do
    with true <- Lifecycle.may_be_suspended?(state.life),
         :ok <- told(Native.suspend(state.control, suspend?)) do
      {:reply, :ok, %{state | outlets: Outlets.pause(state.outlets, suspend?)}}
    else
      false -> {:reply, {:error, :esrch}, state}
      error -> {:reply, error, state}
    end
  end

  def handle({:set_window_size, rows, columns}, _from, %State{} = state) do
    {:reply, Outlets.set_window_size(state.outlets, rows, columns), state}
  end

  def handle({:await_exit, timeout}, from, %State{} = state) do
    case Lifecycle.result(state.life) do
      nil -> {:noreply, wait(state, :exit, from, timeout)}
      result -> {:reply, result, state}
    end
  end

  def handle(:stop, from, %State{} = state) do
    state |> wait(:stop, from) |> life({:end, :stopped, {:stop, :normal}})
  end

  # After `:asked`, what the command prints can still be read; after `:stopped`, it is discarded.
  def handle({:end_command, cause}, from, %State{} = state) do
    result = life(state, {:end, cause, :stay})
    GenServer.reply(from, :ok)
    result
  end

  def handle({:monitor, ref}, {pid, _}, %State{} = state),
    do: {:reply, :ok, watch(state, pid, ref)}

  # What is discarded must not look as if it were all.
  def handle({:ask, _count}, _from, %{life: %{phase: phase}} = state)
      when is_tuple(phase) and elem(phase, 1) == :closed,
      do: {:reply, {:error, :closed}, state}

  def handle({:ask, count}, {pid, _} = from, %State{} = state) do
    {result, outlets, effects} = Outlets.ask(state.outlets, pid, count)
    GenServer.reply(from, result)
    outlets(state, {outlets, effects})
  end

  def handle({:hold, limit, timeout}, from, %State{} = state) do
    outlets(state, Outlets.hold(state.outlets, from, limit, timeout))
  end

  def handle({:look_on, holder, seen}, from, %State{} = state) do
    case Outlets.look_on(state.outlets, from, holder, seen) do
      {:reply, result, outlets} -> {:reply, result, %{state | outlets: outlets}}
      {:wait, outlets, effects} -> outlets(state, {outlets, effects})
    end
  end

  def handle({:take_seen, holder, size}, from, %State{} = state) do
    {result, outlets, effects} = Outlets.take_seen(state.outlets, holder, size)
    GenServer.reply(from, result)
    outlets(state, {outlets, effects})
  end

  def handle({:attach_feeder, usher, window}, {pid, _}, %State{} = state) do
    Process.link(pid)
    state = %{state | feeder: {pid, usher}, inlet: Inlet.attach(state.inlet, window)}
    {:reply, :ok, if(Lifecycle.given_up?(state.life), do: see_feeder_off(state), else: state)}
  end

  def handle({:input_failed, failure}, from, %State{} = state) do
    GenServer.reply(from, :ok)
    fail_input(state, failure)
  end

  def handle({:tell, :os_pid}, _from, %State{} = state), do: {:reply, state.life.os_pid, state}

  def handle({:tell, :alive?}, _from, %State{} = state),
    do: {:reply, Lifecycle.alive?(state.life), state}

  def handle({:tell, :stats}, _from, state), do: {:reply, Report.stats(state), state}
  def handle({:tell, :info}, _from, state), do: {:reply, Report.info(state), state}

  def handle({:tell, :verdict}, _from, %State{} = state),
    do: {:reply, Lifecycle.verdict(state.life) || state.input_failure, state}

  # For a capture, when the command is over.
  def handle({:tell, :account}, _from, state), do: {:reply, Report.account(state), state}

  def handle(:failure, from, %State{} = state) do
    {stderr, outlets, effects} = Outlets.take_tail(state.outlets)
    GenServer.reply(from, exit: Report.stats(state).exit, stderr: stderr)
    outlets(state, {outlets, effects})
  end

  def handle(:invite, _from, %State{} = state) do
    {guest, state} = invite_reader(state)
    {:reply, {:ok, guest}, state}
  end

  def handle({:hand_over, _owner}, _from, %{stream: :taken} = state) do
    {:reply, {:error, :already_enumerated}, state}
  end

  def handle({:hand_over, nil}, {consumer, _}, state) do
    {:reply, :ok, %{state | stream: :taken, consumer: Process.monitor(consumer)}}
  end

  def handle({:hand_over, owner}, _from, %State{} = state) do
    if state.owner, do: Process.demonitor(state.owner, [:flush])
    {:reply, :ok, %{state | stream: :taken, owner: Process.monitor(owner)}}
  end

  def handle(_request, _from, _state), do: :unknown

  # The shepherd is gone already; its report is on the way.
  defp told({:error, gone}) when gone in [:epipe, :econnreset, :closed], do: {:error, :esrch}
  defp told(result), do: result

  # What the consumer of a stream needs to read by itself, where that can be.
  defp invite_reader(%State{} = state) do
    {stdout, outlets} = Outlets.invite_guests(state.outlets)
    {%Guest{stdin: nil, stdout: stdout, counters: state.counters}, %{state | outlets: outlets}}
  end

  # Any caller may read and write by itself from now on, as there is one on this node. What a stream or a capture reads is for that
  # alone.
  defp announce_guests(
         %{guests: :unexpected, stream: :none, captor: nil, life: %{phase: :running}} = state,
         {caller, _}
       )
       when node(caller) == node() do
    {stdin, inlet} = if state.inlet, do: Inlet.invite_guests(state.inlet), else: {nil, nil}
    {guest, state} = invite_reader(%{state | inlet: inlet, guests: :announced})
    Guest.register(%{guest | stdin: stdin})
    state
  end

  defp announce_guests(%State{} = state, _from), do: state

  # A guest that was turned away has come.
  defp receive_guest(%State{} = state, :write),
    do: %{state | inlet: state.inlet && Inlet.receive_guest(state.inlet)}

  defp receive_guest(%State{} = state, :read),
    do: %{state | outlets: Outlets.receive_guest(state.outlets)}

  # Notes that a process is to get the exit as a message, or sends it at once. The process waits for the answer; so all the
  # monitors that it has now, but that of its call, are references of this kind.
  defp watch(%State{} = state, pid, ref) do
    case Lifecycle.told(state.life) do
      nil ->
        watchers = Watchers.add(state.watchers, pid, ref, fn -> Process.monitor(pid) end)

        if Watchers.many?(watchers, pid) and monitors_of(pid) <= 2,
          do: %{state | watchers: Watchers.keep_last(watchers, pid)},
          else: %{state | watchers: watchers}

      exit ->
        Watchers.tell(ref, exit)
        state
    end
  end

  defp monitors_of(pid) do
    {:monitored_by, watching} = Process.info(self(), :monitored_by)
    Enum.count(watching, &(&1 == pid))
  end

  # Parks a caller that waits for the end, for so many ms.
  defp wait(%State{} = state, kind, from, timeout \\ :infinity) do
    %{state | waiters: Caller.park(state.waiters, kind, from, nil, timeout)}
  end
end
