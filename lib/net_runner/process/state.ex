defmodule NetRunner.Process.State do
  @moduledoc false
  # The state of a command's server, and how it is changed: what `Lifecycle`, `Inlet` and `Outlets` say is to be done
  # is done here, in its order. All functions give what a callback of a GenServer returns.

  alias NetRunner.Process.{
    Announcer,
    Boot,
    Counters,
    Exit,
    Inlet,
    Lifecycle,
    Operations,
    Outlets,
    Report
  }

  alias NetRunner.Process.Stats
  alias NetRunner.System.{Cgroup, Native, Spec}

  # `waiters`: callers that wait for the exit (`:exit`) or for the server to stop (`:stop`). `stream`: whether the output
  # is a stream's (`:offered`), and whether somebody enumerates it (`:taken`); a second one would take bytes from the
  # first. `parent`: the process that the server is linked to by `start_link/3`.
  @enforce_keys [
    :command,
    :control,
    :owner,
    :started,
    :counters,
    :cgroup,
    :life,
    :inlet,
    :outlets,
    :stream,
    :parent,
    :announcer
  ]
  defstruct @enforce_keys ++ [feeder: nil, input_failure: nil, waiters: Operations.new()]

  @type t :: %__MODULE__{}
  @type result :: {:noreply, t()} | {:stop, reason :: term(), t()}

  @spec new(Spec.command(), Boot.t(), map()) :: t()
  def new(command, boot, extra) do
    %__MODULE__{
      command: command,
      control: boot.control,
      owner: boot.owner,
      started: boot.started,
      counters: boot.counters,
      cgroup: boot.cgroup,
      life: boot.life,
      inlet: boot.inlet,
      outlets: boot.outlets,
      stream: if(extra[:stream?], do: :offered, else: :none),
      parent: extra[:link],
      announcer: boot.announcer
    }
  end

  @doc "Goes on where nothing has stopped the server."
  @spec and_then(result(), (t() -> result())) :: result()
  def and_then({:noreply, state}, function), do: function.(state)
  def and_then(stop, _function), do: stop

  @doc "Something happened to the command."
  @spec life(t(), Lifecycle.event()) :: result()
  def life(state, event) do
    {life, effects} = Lifecycle.event(state.life, event)
    carry_out(effects, %{state | life: life})
  end

  @doc "Takes a changed inlet, and does what follows."
  @spec inlet(t(), {Inlet.t(), [Inlet.effect()]}) :: result()
  def inlet(state, {inlet, effects}), do: carry_out(effects, %{state | inlet: inlet})

  @doc "Takes changed outlets, and does what follows."
  @spec outlets(t(), {Outlets.t(), [Outlets.effect()]}) :: result()
  def outlets(state, {outlets, effects}), do: carry_out(effects, %{state | outlets: outlets})

  @doc "Receives what the shepherd has said, until there is nothing more for now. Selects the control socket for more."
  @spec listen(t()) :: result()
  def listen(state) do
    case not Lifecycle.over?(state.life) and Native.receive_event(state.control) do
      false ->
        {:noreply, state}

      {:error, :eagain} ->
        {:noreply, state}

      {:exited, how, usage} ->
        now = System.monotonic_time()
        exit = %Exit{how: how, usage: usage, at: now, cgroup: Cgroup.figures(state.cgroup)}
        state |> life({:exited, exit}) |> and_then(&listen/1)

      _gone_or_nonsense ->
        life(state, {:shepherd_gone, System.monotonic_time()})
    end
  end

  @doc "A caller that waited, or had waited, died."
  @spec drop_caller(t(), reference()) :: result()
  def drop_caller(state, monitor) do
    with nil <- Outlets.drop_caller(state.outlets, monitor),
         nil <- Inlet.drop_caller(state.inlet, monitor) do
      {_, waiters} = Operations.drop_caller(state.waiters, monitor)
      {:noreply, %{state | waiters: waiters}}
    else
      # Nobody is left to give the output and the status to.
      :collector -> {:stop, :normal, state}
      {%Outlets{}, _} = outlets -> outlets(state, outlets)
      {%Inlet{}, _} = inlet -> inlet(state, inlet)
    end
  end

  @doc "Parks a caller that waits for the end."
  @spec wait(t(), :exit | :stop, GenServer.from()) :: t()
  def wait(state, kind, {pid, _} = from) do
    %{state | waiters: Operations.park(state.waiters, kind, from, nil, Process.monitor(pid))}
  end

  @doc "Answers a caller, where there is one."
  @spec reply(Operations.operation(), term()) :: :ok
  def reply(%{from: nil}, _result), do: :ok

  def reply(%{from: from, monitor: monitor}, result) do
    Process.demonitor(monitor, [:flush])
    GenServer.reply(from, result)
  end

  @doc "The end of the output is an error when the command's input was incomplete."
  @spec with_failure(term(), t()) :: term()
  def with_failure(:eof, %{input_failure: {:error, _} = failure}), do: failure
  def with_failure(result, _state), do: result

  @doc "Sends this process a message after so many ms."
  @spec arm(term(), non_neg_integer()) :: reference()
  def arm(message, ms), do: Process.send_after(self(), message, ms)

  @spec stats(t()) :: Stats.t()
  def stats(state), do: Report.stats(state.life, state.started, state.counters, state.cgroup)

  # --- carrying out ---------------------------------------------------------------------------------

  defp carry_out([], state), do: {:noreply, state}

  defp carry_out([effect | effects], state) do
    state |> carry_out_one(effect) |> and_then(&carry_out(effects, &1))
  end

  # --- of a life

  # Fails only when the shepherd is gone, which `listen/1` sees.
  defp carry_out_one(state, :tell_end) do
    _ = Native.end_command(state.control)
    {:noreply, state}
  end

  defp carry_out_one(state, :shut_control) do
    _ = Native.shut(state.control)
    {:noreply, state}
  end

  defp carry_out_one(state, {:release_control, how}) do
    :ok = if how == :retire, do: Native.retire(state.control), else: Native.close(state.control)
    Counters.put_ended(state.counters)
    {:noreply, state}
  end

  # In case the shepherd could not.
  defp carry_out_one(state, :remove_cgroup) do
    kill? = state.life.leftovers == :kill

    if not match?(%Exit{}, Lifecycle.exit(state.life)) or (kill? and File.dir?(state.cgroup)) do
      spawn(fn -> Cgroup.remove(state.cgroup) end)
    end

    {:noreply, state}
  end

  defp carry_out_one(state, :announce_end) do
    Announcer.finish(state.announcer, fn ->
      if match?(%Exit{}, Lifecycle.exit(state.life)),
        do: {:stop, stats(state)},
        else: {:exception, :error, :shepherd_died}
    end)

    {:noreply, state}
  end

  defp carry_out_one(state, {:arm, message, ms}) do
    arm(message, ms)
    {:noreply, state}
  end

  defp carry_out_one(state, {:output, :discard}) do
    outlets(state, Outlets.discard_all(state.outlets, {:error, :closed}))
  end

  defp carry_out_one(state, {:output, {:fail, error}}) do
    outlets(state, Outlets.discard_all(state.outlets, error))
  end

  defp carry_out_one(state, {:give_up_pipes, error}) do
    state
    |> outlets(Outlets.discard_all(state.outlets, error))
    |> and_then(&{:noreply, %{&1 | outlets: Outlets.close(&1.outlets)}})
    |> and_then(&inlet(&1, Inlet.give_up(&1.inlet, error)))
  end

  defp carry_out_one(state, {:output, :gone}) do
    state
    |> inlet(Inlet.readers_gone(state.inlet))
    |> and_then(&outlets(&1, Outlets.writers(&1.outlets, :gone)))
  end

  defp carry_out_one(state, {:output, writers}) do
    outlets(state, Outlets.writers(state.outlets, writers))
  end

  defp carry_out_one(state, {:answer, :collect, result}) do
    {waiting, queue} = Operations.take_all(state.outlets.queue, :collect)
    Enum.each(waiting, &reply(&1, result))
    state = %{state | outlets: %{state.outlets | queue: queue}}

    # Nobody else would stop the server, when the command is gone at last.
    if waiting == [],
      do: {:noreply, state},
      else: life(state, {:end, :stopped, {:stop, :normal}})
  end

  defp carry_out_one(state, {:answer, who, result}) do
    {waiting, waiters} = Operations.take_all(state.waiters, who)
    Enum.each(waiting, &reply(&1, result))
    {:noreply, %{state | waiters: waiters}}
  end

  defp carry_out_one(state, {:stop, reason}), do: {:stop, reason, state}

  # --- of its streams

  defp carry_out_one(state, {:reply, operation, result}) do
    reply(operation, with_failure(result, state))
    {:noreply, state}
  end

  defp carry_out_one(state, {:again, stream}) do
    send(self(), {:again, stream})
    {:noreply, state}
  end

  defp carry_out_one(state, {:condemn, cause}), do: life(state, {:end, cause, :stay})

  defp carry_out_one(state, {:collected, operation, output}) do
    reply(operation, collected(state, output))
    # Lets the caller go on before this process is cleaned up.
    :erlang.yield()
    {:stop, :normal, state}
  end

  defp collected(state, output) do
    with nil <- Lifecycle.verdict(state.life) || state.input_failure,
         bytes when is_binary(bytes) <- output,
         {:ok, status} <- Lifecycle.result(state.life),
         do: {bytes, status}
  end
end
