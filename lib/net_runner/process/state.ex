defmodule NetRunner.Process.State do
  @moduledoc false
  # The state of a command's server, and how it is changed: what `Lifecycle`, `Inlet` and `Outlets` say is to be done
  # is done here, in its order. All functions give what a callback of a GenServer returns.

  alias NetRunner.Process.{
    Announcer,
    Boot,
    Caller,
    Collector,
    Counters,
    Exit,
    Inlet,
    Lifecycle,
    Operations,
    Outlets,
    Report,
    Usher,
    Watchers
  }

  alias NetRunner.System.{Cgroup, Descriptors, Native, Spec}

  # `inlet`: `nil` where the command's stdin leads elsewhere. `fds`: see `Boot`. `waiters`: callers that wait for the exit (`:exit`) or for the server to stop (`:stop`). `stream`:
  # whether the output is a stream's (`:offered`), and whether somebody enumerates it (`:taken`); a second one would take
  # bytes from the first. `guests`: whether callers can find what they need to read and to write by themselves. `parent`: the
  # process that the server is linked to by `start_link/3`. `name`: as what it was registered. `announcer`: the name of its answer, once it was asked to announce the
  # end. `owner`, `consumer`, `captor`: monitors. `consumer`: of the only one who
  # gets the output and the status, where there is such a one. `captor`: the same, of one who captures it, and reads on when it is ended.
  # `watchers`: who gets the exit as a message. `registry`: see `Boot`.
  @enforce_keys [
    :command,
    :control,
    :owner,
    :started,
    :counters,
    :cgroup,
    :sandbox,
    :life,
    :inlet,
    :outlets,
    :fds,
    :stream,
    :parent,
    :name,
    :announcer,
    :consumer,
    :captor,
    :registry
  ]
  defstruct @enforce_keys ++
              [
                feeder: nil,
                guests: :unexpected,
                input_failure: nil,
                waiters: Operations.new(),
                watchers: Watchers.new()
              ]

  @type t :: %__MODULE__{}
  @type result :: {:noreply, t()} | {:stop, reason :: term(), t()}

  @spec new(Spec.command(), Boot.t(), map()) :: t()
  def new(command, %Boot{} = boot, extra) do
    %__MODULE__{
      command: command,
      control: boot.control,
      owner: boot.owner,
      started: boot.started,
      counters: boot.counters,
      cgroup: boot.cgroup,
      sandbox: boot.sandbox,
      life: boot.life,
      inlet: boot.inlet,
      outlets: boot.outlets,
      fds: boot.fds,
      stream: if(extra[:stream?], do: :offered, else: :none),
      parent: extra[:link],
      name: extra.name,
      announcer: boot.announcer,
      consumer: boot.consumer,
      captor: boot.captor,
      registry: boot.registry
    }
  end

  @doc "Goes on where nothing has stopped the server."
  @spec and_then(result(), (t() -> result())) :: result()
  def and_then({:noreply, state}, function), do: function.(state)
  def and_then(stop, _function), do: stop

  @doc "Something happened to the command."
  @spec life(t(), Lifecycle.event()) :: result()
  def life(%__MODULE__{} = state, event) do
    {life, effects} = Lifecycle.event(state.life, event)
    carry_out(effects, send_guests_away(%{state | life: life}, effects))
  end

  @doc "Takes a changed inlet, and does what follows."
  @spec inlet(t(), {Inlet.t(), [Inlet.effect()]}) :: result()
  def inlet(%__MODULE__{} = state, {inlet, effects}),
    do: carry_out(effects, %{state | inlet: inlet})

  defp change_inlet(%__MODULE__{inlet: nil} = state, _change), do: {:noreply, state}

  defp change_inlet(%__MODULE__{} = state, change),
    do: inlet(state, change.(state.inlet))

  @doc "Takes changed outlets, and does what follows."
  @spec outlets(t(), {Outlets.t(), [Outlets.effect()]}) :: result()
  def outlets(%__MODULE__{} = state, {outlets, effects}),
    do: carry_out(effects, %{state | outlets: outlets})

  @doc "As these, of a further descriptor."
  @spec fd(
          t(),
          Descriptors.fd(),
          {Inlet.t(), [Inlet.effect()]} | {Outlets.t(), [Outlets.effect()]}
        ) :: result()
  def fd(%__MODULE__{} = state, number, {changed, effects}) do
    effects
    |> Enum.map(fn
      {:again, stream} -> {:again, {number, stream}}
      effect -> effect
    end)
    |> carry_out(%{state | fds: %{state.fds | number => changed}})
  end

  defguardp is_discard(what) when what == :discard or is_tuple(what)

  # From its end on, only the server knows what may still be read and written.
  defp send_guests_away(%{life: %{phase: :running}} = state, _effects), do: state

  defp send_guests_away(%__MODULE__{} = state, effects) do
    discards? = Enum.any?(effects, &match?({:output, what} when is_discard(what), &1))

    if discards?, do: Counters.put_discarding(state.counters)

    %{
      state
      | inlet: state.inlet && Inlet.send_guests_away(state.inlet),
        outlets: Outlets.send_guests_away(state.outlets)
    }
  end

  @doc "Receives what the shepherd has said, until there is nothing more for now. Selects the control socket for more."
  @spec listen(t()) :: result()
  def listen(%__MODULE__{} = state) do
    case not Lifecycle.over?(state.life) and Native.receive_event(state.control) do
      false ->
        {:noreply, state}

      {:error, :eagain} ->
        {:noreply, state}

      {:exited, how, usage} ->
        now = System.monotonic_time()

        exit = %Exit{
          how: how,
          usage: usage,
          at: now,
          cgroup: state.cgroup && Cgroup.figures(state.cgroup)
        }

        state |> life({:exited, exit}) |> and_then(&listen/1)

      # Nobody would tell of more. Race: limit raised under the VM.
      {:error, :emfile} ->
        state |> life({:end, {:read_failed, :emfile}, :stay}) |> and_then(&lose/1)

      _gone_or_nonsense ->
        lose(state)
    end
  end

  defp lose(%__MODULE__{} = state), do: life(state, {:shepherd_gone, System.monotonic_time()})

  @doc "The end of the output is an error when the command's input was incomplete."
  @spec with_failure(term(), t()) :: term()
  def with_failure(:eof, %{input_failure: {:error, _} = failure}), do: failure
  def with_failure(result, _state), do: result

  @doc "Sends this process a message after so many ms."
  @spec arm(term(), non_neg_integer()) :: reference()
  def arm(message, ms), do: Process.send_after(self(), message, ms)

  @doc """
  Nobody writes any more: who waits gets `:closed`. The descriptors stay open, and close with the server: a command that is
  told to end must not take what it has read for all of its input.
  """
  @spec leave_inputs(t()) :: result()
  def leave_inputs(%__MODULE__{} = state) do
    Enum.reduce(state.fds, change_inlet(state, &Inlet.leave/1), fn
      {number, %Inlet{}}, result -> and_then(result, &fd(&1, number, Inlet.leave(&1.fds[number])))
      {_number, _outlets}, result -> result
    end)
  end

  @doc "Lets the feeder of a command that was given up go, as if this server were gone."
  @spec see_feeder_off(t()) :: t()
  def see_feeder_off(%{feeder: nil} = state), do: state

  def see_feeder_off(%{feeder: {feeder, usher}} = state) do
    # However it ends from now on, that is no failure of the input.
    Process.unlink(feeder)

    receive do
      {:EXIT, ^feeder, _} -> :ok
    after
      0 -> :ok
    end

    :ok = Usher.see_off(usher)
    %{state | feeder: nil}
  end

  @doc "The input could not be produced. It may also fail when the command is over; then nothing is left to end."
  @spec fail_input(t(), failure :: term()) :: result()
  def fail_input(%__MODULE__{} = state, failure) do
    state = %{state | input_failure: {:error, {:input_failed, failure}}}
    life(state, {:end, cause(state, {:input_failed, failure}), :stay})
  end

  @doc "Why a command is ended. A capture keeps what was printed, and reads on."
  @spec cause(t(), verdict :: term()) :: Lifecycle.cause()
  def cause(%{captor: nil}, verdict), do: verdict
  def cause(_captured, why), do: {:asked, why}

  # --- carrying out ---------------------------------------------------------------------------------

  @doc "Answers all that wait for this."
  @spec answer(t(), :exit | :stop | :collect, result :: term()) :: result()
  def answer(%__MODULE__{} = state, who, result), do: carry_out_one(state, {:answer, who, result})

  defp carry_out([], state), do: {:noreply, state}

  defp carry_out([effect | effects], state) do
    state |> carry_out_one(effect) |> and_then(&carry_out(effects, &1))
  end

  # --- of a life

  # Fails only when the shepherd is gone, which `listen/1` sees.
  defp carry_out_one(%__MODULE__{} = state, :tell_end) do
    _ = Native.end_command(state.control)
    # The end resumes what was suspended.
    {:noreply, %{state | outlets: Outlets.pause(state.outlets, false)}}
  end

  defp carry_out_one(%__MODULE__{} = state, :shut_control) do
    _ = Native.shut(state.control)
    {:noreply, state}
  end

  defp carry_out_one(%__MODULE__{} = state, {:release_control, how}) do
    :ok = if how == :retire, do: Native.retire(state.control), else: Native.close(state.control)
    Counters.put_ended(state.counters)
    {:noreply, state}
  end

  # In case the shepherd could not.
  defp carry_out_one(%__MODULE__{} = state, :remove_cgroup) do
    kill? = state.life.leftovers == :kill

    if not match?(%Exit{}, Lifecycle.exit(state.life)) or (kill? and File.dir?(state.cgroup)) do
      spawn(fn -> Cgroup.remove(state.cgroup) end)
    end

    {:noreply, state}
  end

  defp carry_out_one(%{announcer: nil} = state, :announce_end), do: life(state, :announced)

  # Meanwhile the server goes on: a handler may ask it something, or never return.
  defp carry_out_one(%__MODULE__{} = state, :announce_end) do
    ending =
      if match?(%Exit{}, Lifecycle.exit(state.life)),
        do: {:stop, Report.outcome(state.life), Report.stats(state)},
        else: {:exception, :error, :shepherd_died}

    arm(:announced, Announcer.patience())
    {:noreply, %{state | announcer: Announcer.finish(state.announcer, ending)}}
  end

  defp carry_out_one(%__MODULE__{} = state, {:arm, message, ms}) do
    arm(message, ms)
    {:noreply, state}
  end

  defp carry_out_one(%__MODULE__{} = state, {:give_up_pipes, error}) do
    state
    |> outlets(output(state.outlets, {:give_up, error}))
    |> and_then(&change_inlet(&1, fn inlet -> Inlet.give_up(inlet, error) end))
    |> and_then(&output_of_fds(&1, {:give_up, error}))
  end

  defp carry_out_one(%__MODULE__{} = state, :see_feeder_off),
    do: {:noreply, see_feeder_off(state)}

  defp carry_out_one(%__MODULE__{} = state, {:output, :gone}) do
    state
    |> change_inlet(&Inlet.readers_gone/1)
    |> and_then(&outlets(&1, output(&1.outlets, :gone)))
    |> and_then(&output_of_fds(&1, :gone))
  end

  defp carry_out_one(%__MODULE__{} = state, {:output, what}) do
    # What was collected is not needed any more, and the command may take long to end.
    if is_discard(what), do: send(self(), :collect_garbage)
    state |> outlets(output(state.outlets, what)) |> and_then(&output_of_fds(&1, what))
  end

  defp carry_out_one(%__MODULE__{} = state, {:answer, :collect, result}) do
    {waiting, queue} = Operations.take_all(state.outlets.queue, :collect)
    Enum.each(waiting, &Caller.reply(&1, result))
    state = %{state | outlets: %{state.outlets | queue: queue}}

    # Nobody else would stop the server, when the command is gone at last.
    if waiting == [],
      do: {:noreply, state},
      else: life(state, {:end, :stopped, {:stop, :normal}})
  end

  defp carry_out_one(%__MODULE__{} = state, {:answer, who, result}) do
    {waiting, waiters} = Operations.take_all(state.waiters, who)
    Enum.each(waiting, &Caller.reply(&1, result))
    {:noreply, %{state | waiters: waiters}}
  end

  defp carry_out_one(%__MODULE__{} = state, {:tell_exit, exit}) do
    {refs, monitors} = Watchers.all(state.watchers)
    Enum.each(refs, &Watchers.tell(&1, exit))
    Enum.each(monitors, &Process.demonitor(&1, [:flush]))

    %{state | watchers: Watchers.new()}
    |> outlets(state.outlets |> Outlets.pause(false) |> Outlets.exited(exit))
  end

  defp carry_out_one(%__MODULE__{} = state, {:stop, reason}), do: {:stop, reason, state}

  # --- of its streams

  defp carry_out_one(%__MODULE__{} = state, {:reply, operation, result}) do
    Caller.reply(operation, with_failure(result, state))
    {:noreply, state}
  end

  # It was not queued, or keeps its place.
  defp carry_out_one(%__MODULE__{} = state, {:answer_caller, from, result}) do
    GenServer.reply(from, with_failure(result, state))
    {:noreply, state}
  end

  defp carry_out_one(%__MODULE__{} = state, {:send, asker, what}) do
    send(asker, {:net_runner, self(), what})
    {:noreply, state}
  end

  defp carry_out_one(%__MODULE__{} = state, {:again, stream}) do
    send(self(), {:again, stream})
    {:noreply, state}
  end

  defp carry_out_one(%__MODULE__{} = state, {:condemn, cause}),
    do: life(state, {:end, cause, :stay})

  defp carry_out_one(%__MODULE__{} = state, {:collected, operation, collector_or_error}) do
    Caller.reply(operation, collected(state, collector_or_error))
    # Lets the caller go on before this process is cleaned up.
    :erlang.yield()
    {:stop, :normal, state}
  end

  defp output_of_fds(%__MODULE__{} = state, what) do
    Enum.reduce(state.fds, {:noreply, state}, fn {number, _}, result ->
      and_then(result, &fd(&1, number, output(&1.fds[number], what)))
    end)
  end

  defp output(%Inlet{} = inlet, :gone), do: Inlet.readers_gone(inlet)
  defp output(%Inlet{} = inlet, {:give_up, error}), do: Inlet.give_up(inlet, error)
  defp output(%Inlet{} = inlet, _what), do: {inlet, []}
  defp output(outlets, :discard), do: Outlets.discard_all(outlets, {:error, :closed})
  defp output(outlets, {:fail, error}), do: Outlets.discard_all(outlets, error)
  defp output(outlets, {:give_up, error}), do: Outlets.shut(outlets, error)
  defp output(outlets, writers), do: Outlets.writers(outlets, writers)

  # Put together last: it may be gigabytes, and an error has no use for them.
  defp collected(%__MODULE__{} = state, collector_or_error) do
    with nil <- Lifecycle.verdict(state.life) || state.input_failure || stopped(state.life),
         %Collector{} = collector <- collector_or_error,
         {:ok, status} <- Lifecycle.result(state.life),
         {:ok, output} <- Collector.result(collector),
         do: {output, status}
  end

  # Somebody has stopped it, and what it printed after that was discarded.
  defp stopped(life), do: if(Lifecycle.cause(life) == :stopped, do: {:error, :closed})
end
