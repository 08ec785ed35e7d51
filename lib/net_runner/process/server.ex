defmodule NetRunner.Process.Server do
  @moduledoc false
  # The GenServer of one command. It carries out what others decide:
  #
  #   * `Boot` starts the command, in `init/1`;
  #   * `Lifecycle` says what happens between the start and the end;
  #   * `Inlet` holds stdin, and who waits to write to it;
  #   * `Outlets` hold stdout and stderr, and who waits for their bytes;
  #   * `Report` says what is told of the command.
  #
  # When the command has exited, what it printed can still be read; the server stops with `stop/1`, with its owner, or
  # when a `collect` is answered.
  #
  # It owns the command's descriptors: when it ends, for whatever reason, they close, and the shepherd
  # ends the command.

  use GenServer

  require Logger

  alias NetRunner.Process.{Boot, Exit, Feeder, Inlet, Lifecycle, Operations, Outlets, Report}
  alias NetRunner.Process.Counters
  alias NetRunner.System.{Cgroup, Native, Spec}
  alias NetRunner.Telemetry

  # In words: what a start needs, the environment as lists of characters above all. Without it that is allocated
  # in pieces.
  @heap_to_start 8192
  @heap_to_run 233

  # A chunk that a garbage collection finds in use is kept until the next full one. The heap is small, so
  # those are cheap.
  @fullsweep_after 8

  # What a timer can be set to.
  @longest_wait 4_294_967_295

  # `waiters`: for the end, as `:exit` or `:stop`. `stream`: whether its output is a stream's, and whether somebody
  # enumerates that; another would take bytes away. `parent`: to whom it is linked.
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
    :parent
  ]
  defstruct @enforce_keys ++ [feeder: nil, input_failure: nil, waiters: Operations.new()]

  @spec start(Spec.command(), map(), keyword()) :: {:ok, pid()} | {:error, term()}
  def start(command, options, extra \\ []) do
    options = if options.owner == :caller, do: %{options | owner: self()}, else: options

    if options.node in [nil, node()] do
      start_here(command, options, extra)
    else
      # What it enumerates may exist on this node only.
      there = %{options | node: nil, env: Enum.to_list(options.env)}
      NetRunner.System.Node.start(options.node, {__MODULE__, :start, [command, there, extra]})
    end
  end

  defp start_here(command, options, extra) do
    name = if options[:name], do: [name: options.name], else: []

    start_options =
      [spawn_opt: [fullsweep_after: @fullsweep_after, min_heap_size: @heap_to_start]] ++ name

    case GenServer.start(__MODULE__, {command, options, Map.new(extra)}, start_options) do
      {:error, {:shutdown, {:not_started, reason}}} -> {:error, reason}
      result -> result
    end
  end

  @impl true
  def init({command, options, extra}) do
    Process.flag(:trap_exit, true)

    case Boot.start(command, options, extra) do
      {:ok, boot} ->
        if link = extra[:link], do: Process.link(link)
        if boot.rest_of_timeout != :infinity, do: arm(:expired, boot.rest_of_timeout)

        state = %__MODULE__{
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
          parent: extra[:link]
        }

        {:ok, state, {:continue, {:begin, Map.get(extra, :input, :open)}}}

      # A shutdown, so that nothing is logged: the caller gets the reason.
      {:error, reason} ->
        {:stop, {:shutdown, {:not_started, reason}}}
    end
  end

  @impl true
  def handle_continue({:begin, input}, state) do
    # The garbage that starting leaves is 100 KB, which the process of an idle command would keep.
    Process.flag(:min_heap_size, @heap_to_run)
    :erlang.garbage_collect()

    with_input =
      case input do
        {:iovec, iovec} -> inlet(state, Inlet.feed(state.inlet, iovec))
        _open_or_none -> {:noreply, state}
      end

    with_input
    |> and_then(&outlets(&1, Outlets.serve(&1.outlets, :stderr)))
    |> and_then(&listen/1)
  end

  # --- what callers ask ---------------------------------------------------------------------------

  @impl true
  def handle_call({:read, which, max_bytes}, from, state) do
    case Outlets.read(state.outlets, from, which, max_bytes) do
      {:reply, result, outlets} ->
        {:reply, with_failure(result, state), %{state | outlets: outlets}}

      {:wait, outlets, effects} ->
        outlets(state, {outlets, effects})
    end
  end

  def handle_call({:write, iovec}, from, state) do
    case Inlet.write(state.inlet, from, iovec) do
      {:reply, result, inlet} -> {:reply, result, %{state | inlet: inlet}}
      {:wait, inlet, effects} -> inlet(state, {inlet, effects})
    end
  end

  def handle_call(:close_stdin, from, state) do
    case Inlet.close(state.inlet, from) do
      {:reply, result, inlet} -> {:reply, result, %{state | inlet: inlet}}
      {:wait, inlet, effects} -> inlet(state, {inlet, effects})
    end
  end

  def handle_call({:kill, number}, _from, state) do
    {:reply, if(Lifecycle.alive?(state.life), do: signal(state, number), else: {:error, :esrch}),
     state}
  end

  def handle_call({:set_window_size, rows, columns}, _from, state) do
    {:reply, set_window_size(state, rows, columns), state}
  end

  def handle_call({:await_exit, timeout}, from, state) do
    case Lifecycle.result(state.life) do
      nil ->
        state = wait(state, :exit, from)
        %{id: id} = Operations.last(state.waiters, :exit)
        if timeout != :infinity, do: arm({:await_expired, id}, min(timeout, @longest_wait))
        {:noreply, state}

      result ->
        {:reply, result, state}
    end
  end

  # Everything the command prints, and its status: `NetRunner.run/2`. Stops the server.
  def handle_call({:collect, limit, timeout}, from, state) do
    if timeout != :infinity, do: arm(:expired, timeout)
    outlets(state, Outlets.collect(state.outlets, from, limit))
  end

  def handle_call(:stop, from, state) do
    state |> wait(:stop, from) |> life({:end, :stopped, {:stop, :normal}})
  end

  # `:asked`: what it printed can still be read; `:stopped`: it is discarded.
  def handle_call({:end_command, cause}, from, state) do
    GenServer.reply(from, :ok)
    life(state, {:end, cause, :stay})
  end

  def handle_call(:attach_feeder, {pid, _}, state) do
    Process.link(pid)
    {:reply, :ok, %{state | feeder: pid}}
  end

  def handle_call(:os_pid, _from, state), do: {:reply, state.life.os_pid, state}
  def handle_call(:alive?, _from, state), do: {:reply, Lifecycle.alive?(state.life), state}
  def handle_call(:stats, _from, state), do: {:reply, stats(state), state}

  def handle_call(:info, _from, state) do
    info = Report.info(state.life, stats(state), state.counters)
    {:reply, Map.put(info, :command, state.command), state}
  end

  def handle_call(:failure, _from, state) do
    {:reply, [exit: stats(state).exit, stderr: Outlets.tail(state.outlets)], state}
  end

  def handle_call(:verdict, _from, state) do
    {:reply, Lifecycle.verdict(state.life) || state.input_failure, state}
  end

  def handle_call(:lend_stdout, _from, state) do
    {:reply, with({:ok, fd} <- Outlets.lend(state.outlets), do: {:ok, fd, state.counters}), state}
  end

  def handle_call({:hand_over, _owner}, _from, %{stream: :taken} = state) do
    {:reply, {:error, :already_enumerated}, state}
  end

  def handle_call({:hand_over, nil}, _from, state), do: {:reply, :ok, %{state | stream: :taken}}

  def handle_call({:hand_over, owner}, _from, state) do
    if state.owner, do: Process.demonitor(state.owner, [:flush])
    {:reply, :ok, %{state | stream: :taken, owner: Process.monitor(owner)}}
  end

  # --- what the VM and the system tell --------------------------------------------------------------

  @impl true
  def handle_info({:select, control, _, :ready_input}, %{control: control} = state) do
    listen(state)
  end

  def handle_info({:select, fd, _, :ready_input}, state) do
    case Outlets.stream_of(state.outlets, fd) do
      # Sent before a pipe was closed, received after it.
      nil -> {:noreply, state}
      stream -> outlets(state, Outlets.serve(state.outlets, stream))
    end
  end

  def handle_info({:select, _fd, _, :ready_output}, state) do
    inlet(state, Inlet.serve(state.inlet))
  end

  # To itself, where going on at once would keep other messages waiting.
  def handle_info({:again, :stdin}, state), do: inlet(state, Inlet.serve(state.inlet))

  def handle_info({:again, stream}, state) do
    outlets(state, Outlets.serve(state.outlets, stream))
  end

  def handle_info({:await_expired, id}, state) do
    case Operations.drop(state.waiters, id) do
      {nil, _} ->
        {:noreply, state}

      {operation, waiters} ->
        reply(operation, {:error, :timeout})
        {:noreply, %{state | waiters: waiters}}
    end
  end

  # What has exited by now did not pass its time. Nobody is told of that of a stream that nobody enumerates.
  def handle_info(:expired, state) do
    next = if state.stream == :offered, do: {:stop, :normal}, else: :stay
    state |> listen() |> and_then(&life(&1, {:end, :timeout, next}))
  end

  def handle_info(event, state) when event in [:give_up, :grace_over], do: life(state, event)

  def handle_info({:DOWN, owner, :process, _, _}, %{owner: owner} = state) do
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, monitor, :process, _, _}, state), do: drop_caller(state, monitor)

  def handle_info({:EXIT, feeder, reason}, %{feeder: feeder} = state) do
    state = %{state | feeder: nil}

    case reason do
      :normal -> {:noreply, state}
      {:shutdown, _} -> {:noreply, state}
      {:input_failed, kind, what, stack} -> fail_input(state, {kind, what, stack})
      reason -> fail_input(state, {:exit, reason, []})
    end
  end

  # As any process that is linked.
  def handle_info({:EXIT, _pid, :normal}, state), do: {:noreply, state}

  # The caller of `start_link/3`, or a supervisor on its behalf, waits until the command is gone.
  def handle_info({:EXIT, parent, reason}, %{parent: parent} = state) do
    life(state, {:end, :stopped, {:stop, shutdown(reason)}})
  end

  # The registry, because the application stops.
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, shutdown(reason), state}

  def handle_info(message, state) do
    Logger.warning(
      "#{inspect(__MODULE__)} received a message that it does not know: #{inspect(message)}"
    )

    {:noreply, state}
  end

  # Nothing that a user can plug in is called before the command has been told to end, and what it prints is closed.
  @impl true
  def terminate(reason, state) do
    unless Lifecycle.over?(state.life), do: Native.close(state.control)
    Outlets.close(state.outlets)

    for queue <- [state.inlet.queue, state.outlets.queue, state.waiters],
        operation <- Operations.all(queue),
        do: reply(operation, {:error, :closed})

    if state.feeder do
      # Else it would die of the server's reason, with no cleanup.
      Process.unlink(state.feeder)
      Feeder.let_go(state.feeder)
    end

    unless Lifecycle.over?(state.life) do
      Telemetry.exception(state.command, state.life.os_pid, state.started, :exit, reason)
    end
  end

  # In crash reports: neither what the command was given nor what it printed.
  if Version.match?(System.version(), ">= 1.17.0-dev"), do: @impl(true)

  def format_status(status) do
    Map.replace(status, :state, "the state of a command, which may hold secrets")
    |> Map.replace(:message, "hidden")
    |> Map.replace(:log, [])
  end

  # --- carrying out what was decided ----------------------------------------------------------------

  defp and_then({:noreply, state}, function), do: function.(state)
  defp and_then(stop, _function), do: stop

  # Hears what the shepherd says, until it has nothing more to say.
  defp listen(state) do
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

  defp life(state, event) do
    {life, effects} = Lifecycle.event(state.life, event)
    carry_out(effects, %{state | life: life})
  end

  defp inlet(state, {inlet, effects}), do: carry_out(effects, %{state | inlet: inlet})
  defp outlets(state, {outlets, effects}), do: carry_out(effects, %{state | outlets: outlets})

  defp carry_out([], state), do: {:noreply, state}

  defp carry_out([effect | effects], state) do
    state |> carry_out_one(effect) |> and_then(&carry_out(effects, &1))
  end

  # --- of a life

  # Fails only when the shepherd is gone, which `listen/1` hears.
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

  # Where the shepherd could not.
  defp carry_out_one(state, :remove_cgroup) do
    kill? = state.life.leftovers == :kill

    if not match?(%Exit{}, Lifecycle.exit(state.life)) or (kill? and File.dir?(state.cgroup)) do
      spawn(fn -> Cgroup.remove(state.cgroup) end)
    end

    {:noreply, state}
  end

  defp carry_out_one(state, :announce_end) do
    %{command: command, started: started, life: life} = state

    if match?(%Exit{}, Lifecycle.exit(life)),
      do: Telemetry.stop(command, life.os_pid, started, fn -> stats(state) end),
      else: Telemetry.exception(command, life.os_pid, started, :error, :shepherd_died)

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

  defp carry_out_one(state, {:output, :close}) do
    {:noreply, %{state | outlets: Outlets.close(state.outlets)}}
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
    {:noreply, %{state | outlets: %{state.outlets | queue: queue}}}
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
    # The caller goes on before this process is cleaned up.
    :erlang.yield()
    {:stop, :normal, state}
  end

  defp collected(state, output) do
    with nil <- Lifecycle.verdict(state.life) || state.input_failure,
         bytes when is_binary(bytes) <- output,
         {:ok, status} <- Lifecycle.result(state.life),
         do: {bytes, status}
  end

  # --- in common ------------------------------------------------------------------------------------

  defp arm(message, ms), do: Process.send_after(self(), message, ms)

  defp wait(state, kind, {pid, _} = from) do
    %{state | waiters: Operations.park(state.waiters, kind, from, nil, Process.monitor(pid))}
  end

  defp reply(%{from: nil}, _result), do: :ok

  defp reply(%{from: from, monitor: monitor}, result) do
    Process.demonitor(monitor, [:flush])
    GenServer.reply(from, result)
  end

  defp drop_caller(state, monitor) do
    with nil <- Outlets.drop_caller(state.outlets, monitor),
         nil <- Inlet.drop_caller(state.inlet, monitor) do
      {_, waiters} = Operations.drop_caller(state.waiters, monitor)
      {:noreply, %{state | waiters: waiters}}
    else
      # Nobody is left who could get the output or the status.
      :collector -> {:stop, :normal, state}
      {%Outlets{}, _} = outlets -> outlets(state, outlets)
      {%Inlet{}, _} = inlet -> inlet(state, inlet)
    end
  end

  # The input is not the command: it may fail also when that is over, and then nothing is left to end.
  defp fail_input(state, failure) do
    state = %{state | input_failure: {:error, {:input_failed, failure}}}
    life(state, {:end, {:input_failed, failure}, :stay})
  end

  # What was read of a command whose input is incomplete has an end that is none.
  defp with_failure(:eof, %{input_failure: {:error, _} = failure}), do: failure
  defp with_failure(result, _state), do: result

  defp signal(state, number) do
    case Native.send_signal(state.control, number) do
      # The shepherd is gone already; its report is on the way.
      {:error, gone} when gone in [:epipe, :econnreset, :closed] -> {:error, :esrch}
      result -> result
    end
  end

  defp set_window_size(state, rows, columns) do
    case {state.inlet.line, state.outlets.stdout} do
      {:not_a_terminal, _} -> {:error, :enotty}
      {_terminal, %{pipe: %{fd: nil}}} -> {:error, :closed}
      {_terminal, _} when state.inlet.readers == :gone -> {:error, :esrch}
      {_terminal, %{pipe: %{fd: fd}}} -> Native.set_window_size(fd, rows, columns)
    end
  end

  defp shutdown(reason) when reason in [:normal, :shutdown], do: reason
  defp shutdown({:shutdown, _} = reason), do: reason
  defp shutdown(reason), do: {:shutdown, reason}

  defp stats(state), do: Report.stats(state.life, state.started, state.counters, state.cgroup)
end
