defmodule NetRunner.Process.Server do
  @moduledoc false
  # The GenServer of one command. It decides nothing:
  #
  #   * `Boot` starts the command, in `init/1`;
  #   * `Lifecycle` says what happens between the start and the end;
  #   * `Inlet` holds stdin, and who waits to write to it;
  #   * `Outlets` hold stdout and stderr, and who waits for their bytes;
  #   * `Further` does the same for its further descriptors;
  #   * `State` carries out what these say;
  #   * `Requests` answer what callers ask;
  #   * `Report` says what is told of the command.
  #
  # When the command has exited, what it printed can still be read; the server stops with `stop/1`, when its owner dies, or
  # when a `collect` is answered.
  #
  # It owns the command's descriptors: when it ends, for whatever reason, they close, and the shepherd
  # ends the command.

  use GenServer

  import NetRunner.Process.{Further, State}

  alias NetRunner.{Error, Log}

  alias NetRunner.Process.{
    Boot,
    Caller,
    Context,
    Fault,
    Feeder,
    Inlet,
    Lifecycle,
    Operations,
    Outlets,
    Requests,
    State,
    Waiters
  }

  alias NetRunner.System.{Descriptors, Native, Spec}

  # In words. A start needs this much, mostly for the environment as lists of characters; a smaller heap would grow
  # several times on the way.
  @heap_to_start 8192
  @heap_to_run 233

  # A chunk that is in use during a garbage collection is kept until the next full one. Full ones are cheap, as the
  # heap is small.
  @fullsweep_after 8

  @spec start(Spec.command(), map(), keyword()) :: {:ok, pid()} | {:error, term()}
  def start(command, options, extra \\ []) do
    options = if options.owner == :caller, do: %{options | owner: self()}, else: options
    # What is done here and not by the server, which may be on another node.
    options = Map.drop(options, [:input, :on_output, :cancel])
    # The death of the owner is seen to.
    extra =
      if extra[:consumer] == options.owner, do: Keyword.delete(extra, :consumer), else: extra

    extra = Keyword.put_new_lazy(extra, :context, &Context.capture/0)

    if options.node in [nil, node()] do
      start_here(command, options, extra)
    else
      # An enumerable may refer to what exists on this node only.
      there = %{options | node: nil, env: Enum.to_list(options.env)}
      NetRunner.System.Node.start(options.node, {__MODULE__, :start, [command, there, extra]})
    end
  end

  @doc "Ends a command that is captured, which goes on to be read. Waits for nobody."
  @spec end_captured(pid(), why :: term()) :: :ok
  def end_captured(server, why), do: GenServer.cast(server, {:end_captured, why})

  defp start_here(command, options, extra) do
    name = if options[:name], do: [name: options.name], else: []

    start_options =
      [spawn_opt: [fullsweep_after: @fullsweep_after, min_heap_size: @heap_to_start]] ++ name

    case GenServer.start(__MODULE__, {command, options, Map.new(extra)}, start_options) do
      {:error, {:shutdown, {:not_started, reason}}} -> {:error, reason}
      {:error, {:shutdown, {:crashed, sentence}}} -> raise sentence
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

        {:ok, State.new(command, boot, Map.put(extra, :name, options[:name])),
         {:continue, {:begin, input(options, extra), further_inputs(options.fds)}}}

      # With `:shutdown` nothing is logged; the caller gets the reason.
      {:error, reason} ->
        {:stop, {:shutdown, {:not_started, reason}}}

      {:crashed, sentence} ->
        {:stop, {:shutdown, {:crashed, sentence}}}
    end
  end

  defp input(options, extra) do
    case {extra[:input], options.pty} do
      {nil, _} -> :open
      # A terminal is open until it gets its end-of-file character.
      {:none, terminal} when terminal != false -> {:iovec, []}
      {input, _} -> input
    end
  end

  defp further_inputs(fds) when fds == %{}, do: []
  defp further_inputs(fds), do: Descriptors.inputs(fds)

  @impl true
  def handle_continue({:begin, input, inputs}, %State{} = state) do
    # A start leaves 100 KB of garbage, which the process of a command that does nothing would keep.
    Process.flag(:min_heap_size, @heap_to_run)
    :erlang.garbage_collect()

    with_input =
      case input do
        {:iovec, iovec} -> inlet(state, Inlet.feed(state.inlet, iovec))
        _open_or_none -> {:noreply, state}
      end

    inputs
    |> Enum.reduce(with_input, fn {number, iovec}, result ->
      and_then(result, &fd(&1, number, Inlet.feed(&1.fds[number], iovec)))
    end)
    |> and_then(&outlets(&1, Outlets.serve(&1.outlets, :stderr)))
    |> and_then(&listen/1)
  end

  # --- what callers ask ---------------------------------------------------------------------------

  # For `NetRunner.run/2`: everything the command prints, and its status. Stops the server.
  @impl true
  def handle_call({:collect, limit, timeout}, from, %State{} = state) do
    if timeout != :infinity, do: arm(:expired, timeout)
    state |> outlets(Outlets.collect(state.outlets, from, limit)) |> and_then(&answer_late/1)
  end

  def handle_call(request, {caller, _} = from, %State{} = state) do
    with :unknown <- Requests.handle(request, from, state) do
      # By whoever has got hold of this pid.
      give_up(
        state,
        "#{inspect(caller)} called the process of a command with a request that it does not know"
      )
    end
  end

  # The capture goes on to read. What has exited by now was not ended by that.
  @impl true
  def handle_cast({:end_captured, why}, %State{} = state) do
    state |> listen() |> and_then(&life(&1, {:end, {:asked, why}, :stay}))
  end

  # As of an unknown call.
  def handle_cast(_request, %State{} = state),
    do: give_up(state, "the process of a command got a cast that it does not know")

  # --- what the VM and the system tell --------------------------------------------------------------

  @impl true
  def handle_info({:select, control, _, :ready_input}, %{control: control} = state) do
    listen(state)
  end

  def handle_info({:select, fd, _, :ready_input}, %State{} = state) do
    case Outlets.stream_of(state.outlets, fd) do
      # Race: late select.
      nil -> serve_further(state, fd)
      stream -> outlets(state, Outlets.serve(state.outlets, stream))
    end
  end

  def handle_info({:select, fd, _, :ready_output}, %{inlet: %{stdin: fd}} = state) do
    inlet(state, Inlet.serve(state.inlet))
  end

  def handle_info({:select, fd, _, :ready_output}, %State{} = state), do: serve_further(state, fd)

  def handle_info(:fed, %State{inlet: %Inlet{}} = state), do: inlet(state, Inlet.fed(state.inlet))

  # A message to itself, so that other messages get their turn.
  def handle_info({:again, :stdin}, %State{inlet: %Inlet{}} = state),
    do: inlet(state, Inlet.serve(state.inlet))

  def handle_info({:again, {number, _stream}}, %State{} = state), do: serve_fd(state, number)

  def handle_info({:again, stream}, %State{} = state) when stream in [:stdout, :stderr] do
    outlets(state, Outlets.serve(state.outlets, stream))
  end

  # What has come by now may not have been told yet: a VM that was stopped for a while is late with both.
  def handle_info({:waited, monitor}, %State{} = state) do
    state |> outlets(Outlets.serve_all(state.outlets)) |> and_then(&Waiters.expire(&1, monitor))
  end

  # Race: exit before the timeout. A stream that nobody enumerates has nobody to tell, so its server stops.
  def handle_info(:expired, %State{} = state) do
    next = if state.stream == :offered, do: {:stop, :normal}, else: :stay

    state
    |> listen()
    |> and_then(&life(&1, {:end, cause(state, :timeout), next}))
    |> and_then(&tell_unseen/1)
  end

  def handle_info(event, %State{} = state) when event in [:give_up, :grace_over, :announced],
    do: life(state, event)

  def handle_info({ref, :handled}, %{announcer: ref} = state), do: life(state, :announced)

  # A handler has killed the process that it runs in.
  def handle_info({:DOWN, ref, :process, _, _}, %{announcer: ref} = state),
    do: life(state, :announced)

  # A capture by another process than its owner tells how it ended.
  def handle_info({:DOWN, owner, :process, _, _}, %{owner: owner, captor: captor} = state)
      when captor != nil,
      do: cancel(state)

  def handle_info(:application_stops, %{captor: captor} = state) when captor != nil,
    do: cancel(state)

  def handle_info(:application_stops, %State{} = state), do: close(state, :shutdown)

  # Nobody is left who could get the output or the status. The owner may be another process, or nobody. Each command of a pipeline
  # hears of it by itself.
  def handle_info({:DOWN, monitor, :process, _, _}, %State{} = state)
      when monitor in [state.owner, state.consumer, state.captor],
      do: close(state, :normal)

  def handle_info({:DOWN, monitor, :process, pid, _}, %State{} = state),
    do: Waiters.drop_caller(state, monitor, pid)

  def handle_info({:EXIT, feeder, reason}, %{feeder: {feeder, _usher}} = state) do
    state = %{state | feeder: nil}
    unwanted = Feeder.unwanted(self())

    case reason do
      :normal -> {:noreply, state}
      # Race: feeder goes with its task.
      ^unwanted -> inlet(state, Inlet.feed(state.inlet, []))
      # It has told why.
      {:input_failed, _failure} -> {:noreply, state}
      reason -> fail_input(state, {:exit, reason, []})
    end
  end

  def handle_info(:collect_garbage, %State{} = state) do
    :erlang.garbage_collect()
    {:noreply, state}
  end

  # From any other process that is linked.
  def handle_info({:EXIT, _pid, :normal}, %State{} = state), do: {:noreply, state}

  # The parent, which called `start_link/3`, waits until the server is gone; so the command is ended first.
  def handle_info({:EXIT, parent, reason}, %{parent: parent} = state) do
    life(state, {:end, :stopped, {:stop, shutdown(reason)}})
  end

  # The application has stopped, and this command has not ended in time, or had only just started.
  def handle_info({:EXIT, registry, reason}, %{registry: registry} = state),
    do: {:stop, shutdown(reason), state}

  # From whoever has linked itself, or the registry of its name.
  def handle_info({:EXIT, _pid, reason}, %State{} = state), do: close(state, shutdown(reason))

  def handle_info(message, %State{} = state) do
    Log.write(
      :warning,
      "#{inspect(__MODULE__)} received a message that it does not know: #{inspect(message)}"
    )

    {:noreply, state}
  end

  # A user's code is called only after the command was told to end and its output was closed.
  @impl true
  def terminate(_reason, %State{} = state) do
    unless Lifecycle.over?(state.life), do: Native.close(state.control)
    if state.inlet, do: Inlet.shut(state.inlet)
    Outlets.close(state.outlets)
    fds = Map.values(state.fds)
    for %Outlets{} = outlets <- fds, do: Outlets.close(outlets)

    # Who waits for the end of this process hears of that by the monitor of the call: its descriptors are closed then.
    {_, waiters} = Operations.take_all(state.waiters, :stop)

    for %{queue: queue} <- [state.inlet, state.outlets, %{queue: waiters} | fds],
        operation <- Operations.all(queue),
        do: Caller.reply(operation, {:error, :closed})

    # Linked, it would die with the server, before its cleanup.
    with {feeder, _usher} <- state.feeder, do: Process.unlink(feeder)
  end

  # What fails here is a fault of the library's, and ends the command. A crash would show more than that, to the linked
  # processes and in the log: what is in the state, in the arguments, and in the requests that wait.
  defoverridable handle_continue: 2, handle_call: 3, handle_cast: 2, handle_info: 2, terminate: 2

  @impl true
  def handle_continue(what, state), do: guarded(state, fn -> super(what, state) end)
  @impl true
  def handle_call(request, from, state), do: guarded(state, fn -> super(request, from, state) end)
  @impl true
  def handle_cast(request, state), do: guarded(state, fn -> super(request, state) end)
  @impl true
  def handle_info(message, state), do: guarded(state, fn -> super(message, state) end)
  @impl true
  def terminate(reason, state), do: guarded(state, fn -> super(reason, state) end)

  defp guarded(state, callback) do
    callback.()
  catch
    kind, reason ->
      give_up(state, Fault.sentence("a command was ended", kind, reason, __STACKTRACE__))
  end

  # Race: given up before the collect. All others who wait have had their answer.
  defp answer_late(%State{} = state) do
    if Lifecycle.given_up?(state.life),
      do: answer(state, :collect, Lifecycle.result(state.life)),
      else: {:noreply, state}
  end

  defp give_up(%State{} = state, sentence) do
    Log.write(:error, sentence)
    {:stop, {:shutdown, {:crashed, sentence}}, state}
  end

  # In crash reports: neither what the command was given nor what it printed.
  if Version.match?(System.version(), ">= 1.17.0-dev"), do: @impl(true)

  def format_status(status),
    do: Fault.hide(status, "the state of a command, which may hold secrets")

  # --- in common ------------------------------------------------------------------------------------

  # The captor gets what was printed, and reads on.
  defp cancel(%State{} = state) do
    state
    |> listen()
    |> and_then(&life(&1, :announced))
    |> and_then(&life(&1, {:end, {:asked, :cancelled}, :stay}))
  end

  # The command has its time to clean up, in which it may print. To everybody else, the process is gone.
  defp close(%State{} = state, reason) do
    state = %{see_feeder_off(state) | outlets: Outlets.forget_asker(state.outlets)}

    state
    |> listen()
    |> and_then(&life(&1, {:end, :closed, {:stop, reason}}))
    |> and_then(&hang_up/1)
    |> and_then(&leave_inputs/1)
    |> and_then(&give_up_name/1)
  end

  # As when somebody closes the window: shells, and others that ignore SIGTERM on a terminal, end by SIGHUP.
  defp hang_up(%{inlet: %{line: line}} = state) when line != :not_a_terminal do
    if Lifecycle.to_its_end?(state.life) do
      {:noreply, state}
    else
      state
      |> inlet(Inlet.give_up(state.inlet, {:error, :closed}))
      |> and_then(&outlets(&1, Outlets.shut(&1.outlets, {:error, :closed})))
    end
  end

  defp hang_up(%State{} = state), do: {:noreply, state}

  # Whoever takes the place of the owner may start another of this name.
  defp give_up_name(%State{} = state) do
    case state.name do
      nil -> :ok
      {:global, name} -> give_up_global(name)
      {:via, :global, name} -> give_up_global(name)
      {:via, module, name} -> give_up_via(module, name)
      name -> if Process.whereis(name) == self(), do: Process.unregister(name)
    end

    {:noreply, %{state | name: nil}}
  end

  # It waits for a lock of all nodes.
  defp give_up_global(name) do
    server = self()
    spawn(fn -> if :global.whereis_name(name) == server, do: :global.unregister_name(name) end)
  end

  # The registry of somebody else, which may be gone.
  defp give_up_via(module, name) do
    if module.whereis_name(name) == self(), do: module.unregister_name(name)
  catch
    _kind, _reason -> :ok
  end

  # Nobody else is told.
  defp tell_unseen(%{stream: :offered, life: %{phase: {:ending, :timeout, _}}} = state) do
    command = Error.command_line(state.command)

    Log.write(
      :warning,
      "`#{command}` was ended by its :timeout, and nobody had enumerated its stream by then",
      command: command
    )

    {:noreply, state}
  end

  defp tell_unseen(%State{} = state), do: {:noreply, state}

  defp shutdown(reason) when reason in [:normal, :shutdown], do: reason
  defp shutdown({:shutdown, _} = reason), do: reason
  defp shutdown(reason), do: {:shutdown, reason}
end
