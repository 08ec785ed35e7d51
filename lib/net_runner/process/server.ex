defmodule NetRunner.Process.Server do
  @moduledoc false
  # The GenServer of one command.
  #
  # Its life: ask the launcher for the command and hear that it started (or why not), all in `init/1`.
  # Then try what callers ask; what cannot be done now is parked in `Operations` until a select message
  # says that it is worth another try. When the command has exited, what it printed can still be
  # read; the server stops with `stop/1`, with its owner, or when a `collect` is answered.
  #
  # It owns the command's descriptors: when it ends, for whatever reason, they close, and the shepherd
  # ends the command.

  use GenServer

  require Logger

  alias NetRunner.System.{Cgroup, Launcher, Native, Spec}
  alias NetRunner.Telemetry
  alias NetRunner.Process.{Counters, Listing, Operations, Pipe, Stats}

  # In words: what a start needs, the environment as lists of characters above all. Without it that is allocated
  # in pieces.
  @heap_to_start 8192
  @heap_to_run 233

  # What is read at once of what nobody has asked for in pieces.
  @bulk 524_288

  # A chunk that a garbage collection finds in use is kept until the next full one. The heap is small, so
  # those are cheap.
  @fullsweep_after 8

  # Launchers that die one after the other, each with the request unread.
  @attempts 20

  # What a timer can be set to.
  @longest_wait 4_294_967_295

  defstruct [
    :command,
    :control,
    # An fd; `nil` when it was closed, `:none` when the command has none.
    :stdin,
    :stdout,
    :stderr,
    :os_pid,
    :owner,
    :feeder,
    # `{system_time, monotonic_time}`.
    :started,
    :ended,
    :counters,
    stderr_mode: :consume,
    leftovers: :kill,
    # Stdin and stdout are a terminal's; then an end of input is a character, told apart by the line.
    terminal?: false,
    line_start?: true,
    tail: "",
    tail_size: 0,
    # `nil` while the command runs; then `{:exited, how, usage}`, or `:lost` with its shepherd.
    exit: nil,
    # What a collect will be answered when the command has ended, instead of its output.
    verdict: nil,
    # Why the input could not be produced: `{kind, reason, stacktrace}`.
    input_failure: nil,
    # Somebody called `stop/1`: the server goes with its command.
    stopping?: false,
    # Its directory, and what was counted there when the command had exited; how that was, while the shepherd
    # removes the directory.
    cgroup: nil,
    cgroup_figures: nil,
    last_words: :lost,
    stop?: false,
    # The stream that `read_any` looks at first, so that none starves.
    any_first: :stdout,
    # A stream of its output has begun; another would take bytes away from it.
    enumerated?: false,
    operations: Operations.new()
  ]

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
    input = Map.get(extra, :input, :open)
    {_, now} = started = {System.system_time(), System.monotonic_time()}
    owner = options.owner && Process.monitor(options.owner)
    patience = {owner, deadline(now, options[:timeout])}

    with {:ok, fields} <- Spec.build(command, options),
         {:ok, cgroup} <- Cgroup.create(options),
         {:ok, os_pid, {control, stdin, stdout, stderr}} <-
           start_in(cgroup, fields, connections(options, input), options.pipe_size, patience),
         counters = Counters.new(),
         :ok <- Listing.register(command, os_pid, elem(started, 0), counters) do
      Telemetry.start(command, os_pid, started)

      if link = extra[:link], do: Process.link(link)
      if is_integer(extra[:timeout]), do: Process.send_after(self(), :expired, extra[:timeout])

      state = %__MODULE__{
        command: command,
        control: control,
        stdin: stdin || :none,
        stdout: Pipe.new(stdout, options.pty != false),
        stderr: Pipe.new(stderr),
        stderr_mode: options.stderr,
        terminal?: options.pty != false,
        leftovers: options.leftovers,
        tail_size: options.stderr_tail,
        os_pid: os_pid,
        owner: owner,
        started: started,
        counters: counters,
        cgroup: cgroup
      }

      {:ok, state, {:continue, {:begin, input}}}
    else
      # A shutdown, so that nothing is logged: the caller gets the reason.
      {:error, reason} ->
        reason = Spec.blame(reason, options)
        Telemetry.start(command, nil, started)
        Telemetry.exception(command, nil, started, :error, reason)
        {:stop, {:shutdown, {:not_started, reason}}}
    end
  end

  defp connections(%{pty: false} = options, input) do
    {stdin(options.stdin, input), options.stdout, stderr(options.stderr, options.stdout)}
  end

  defp connections(%{pty: true} = options, input) do
    connections(%{options | pty: []}, input)
  end

  defp connections(%{pty: settings}, _input) do
    {:terminal, Keyword.get(settings, :rows, 24), Keyword.get(settings, :cols, 80),
     Keyword.get(settings, :echo, true)}
  end

  defp stdin(kind, :none) when kind in [nil, :pipe], do: :null
  defp stdin(nil, _input), do: :pipe
  defp stdin({:file, path}, _input), do: {:read, path}
  defp stdin(kind, _input), do: kind

  defp stderr(:disabled, _stdout), do: :null
  defp stderr(mode, _stdout) when mode in [:consume, :pipe], do: :pipe
  # One open file, so that neither writes over the other.
  defp stderr({_, _} = file, file), do: :redirect
  defp stderr(kind, _stdout), do: kind

  defp start_in(cgroup, fields, connections, pipe_size, patience) do
    fields = if cgroup, do: [{:cgroup, cgroup} | fields], else: fields

    with {:error, reason} <- spawn_command(fields, connections, pipe_size, patience, @attempts) do
      Cgroup.remove(cgroup)
      {:error, reason}
    end
  end

  # A launcher that died with the request unread has done nothing yet, so another may be asked.
  defp spawn_command(fields, connections, pipe_size, patience, attempts) do
    with {:ok, control, stdin, stdout, stderr} <- Launcher.spawn(fields, connections, pipe_size) do
      case await_start(control, patience) do
        {:ok, os_pid} ->
          {:ok, os_pid, {control, stdin, stdout, stderr}}

        failed ->
          for fd <- [control, stdin, stdout, stderr], fd != nil, do: Native.close(fd)

          if failed == :not_taken and attempts > 1,
            do: spawn_command(fields, connections, pipe_size, patience, attempts - 1),
            else: with(:not_taken <- failed, do: {:error, :launcher_died})
      end
    end
  end

  # An execve(2) can take long: the program may lie on a file system that does not answer.
  defp await_start(control, {owner, deadline} = patience) do
    case Native.receive_event(control) do
      {:started, os_pid} ->
        {:ok, os_pid}

      {:failed, :receive, errno} ->
        {:error, errno}

      {:failed, step, errno} ->
        Native.retire(control)
        {:error, if(step in [:fork, :exec], do: errno, else: {step, errno})}

      {:error, :eagain} ->
        receive do
          {:select, ^control, _, :ready_input} -> await_start(control, patience)
          {:DOWN, ^owner, :process, _, _} -> {:error, :closed}
        after
          remaining(deadline) -> {:error, :timeout}
        end

      :reset ->
        :not_taken

      :eof ->
        {:error, :launcher_died}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp deadline(_from, timeout) when timeout in [nil, :infinity], do: :infinity

  defp deadline(from, timeout),
    do: System.convert_time_unit(from, :native, :millisecond) + timeout

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))

  @impl true
  def handle_continue({:begin, input}, state) do
    # The garbage that starting leaves is 100 KB, which the process of an idle command would keep.
    Process.flag(:min_heap_size, @heap_to_run)
    :erlang.garbage_collect()

    state
    |> begin_input(input)
    |> drain_stderr()
    |> listen()
    |> noreply()
  end

  defp begin_input(state, {:iovec, iovec}) do
    operations =
      state.operations
      |> Operations.park(:stdin, nil, {:fresh, iovec}, nil)
      |> Operations.park(:stdin, nil, :close, nil)

    serve(%{state | operations: operations}, :stdin)
  end

  defp begin_input(state, _open_or_none), do: state

  # --- what callers ask ---------------------------------------------------------------------------

  @impl true
  def handle_call({:read, :any, max_bytes}, from, state) do
    if gone?(from) or
         Operations.any?(state.operations, competing(:stdout) ++ competing(:stderr)) do
      state |> park(:any, from, max_bytes) |> serve_readers() |> noreply()
    else
      case read_any(state, [:stdout, :stderr], max_bytes) do
        {{:error, :eagain}, state} -> noreply(park(state, :any, from, max_bytes))
        {result, state} -> {:reply, result, state}
      end
    end
  end

  def handle_call({:read, stream, max_bytes}, from, state) do
    if gone?(from) or Operations.any?(state.operations, competing(stream)) do
      noreply(park(state, stream, from, max_bytes))
    else
      case read(state, stream, max_bytes) do
        {{:error, :eagain}, state} -> noreply(park(state, stream, from, max_bytes))
        {result, state} -> {:reply, result, state}
      end
    end
  end

  def handle_call({:write, _iovec}, _from, %{stdin: :none} = state) do
    {:reply, {:error, :not_piped}, state}
  end

  def handle_call({:write, _iovec}, _from, %{stdin: nil} = state) do
    {:reply, {:error, :closed}, state}
  end

  def handle_call({:write, iovec}, from, state) do
    # Most find room, and are not parked at all.
    case not Operations.any?(state.operations, [:stdin]) and Native.write(state.stdin, iovec) do
      :ok ->
        {:reply, :ok, count_written(state, iovec, [])}

      {:partial, rest} ->
        send(self(), {:serve, :stdin})
        {:noreply, state |> count_written(iovec, rest) |> park(:stdin, from, {:begun, rest})}

      _not_now_or_failed ->
        noreply(queue_for_stdin(state, from, {:fresh, iovec}))
    end
  end

  def handle_call(:close_stdin, _from, %{stdin: none} = state) when none in [nil, :none] do
    {:reply, :ok, state}
  end

  def handle_call(:close_stdin, from, state) do
    noreply(queue_for_stdin(state, from, :close))
  end

  def handle_call({:kill, _number}, _from, %{exit: exit} = state) when exit != nil do
    {:reply, {:error, :esrch}, state}
  end

  def handle_call({:kill, number}, _from, state) do
    case Native.send_signal(state.control, number) do
      # The shepherd is gone already; its report is on the way.
      {:error, gone} when gone in [:epipe, :econnreset, :closed] ->
        {:reply, {:error, :esrch}, state}

      result ->
        {:reply, result, state}
    end
  end

  def handle_call({:set_window_size, rows, columns}, _from, %{terminal?: true} = state) do
    fd = state.stdout.fd
    result = if fd, do: Native.set_window_size(fd, rows, columns), else: {:error, :closed}
    {:reply, result, state}
  end

  def handle_call({:set_window_size, _, _}, _from, state), do: {:reply, {:error, :enotty}, state}

  def handle_call({:await_exit, _timeout}, _from, %{exit: exit} = state) when exit != nil do
    {:reply, exit_result(state), state}
  end

  def handle_call({:await_exit, timeout}, from, state) do
    state = park(state, :exit, from, nil)

    if timeout != :infinity do
      %{id: id} = Operations.last(state.operations, :exit)
      Process.send_after(self(), {:await_expired, id}, min(timeout, @longest_wait))
    end

    noreply(state)
  end

  # Everything the command prints, and its status: `NetRunner.run/2`. Stops the server.
  def handle_call({:collect, limit, timeout}, from, state) do
    if timeout != :infinity, do: Process.send_after(self(), :expired, timeout)
    state |> park(:collect, from, {[], 0, limit}) |> serve(:stdout) |> noreply()
  end

  def handle_call(:stop, from, state) do
    state = park(%{state | stopping?: true}, :stop, from, nil)
    noreply(if state.exit, do: finish_stop(state), else: end_command(state))
  end

  # As `stop`, but what it printed can still be read.
  def handle_call(:end_command, _from, state), do: {:reply, :ok, end_command(state)}

  def handle_call(:attach_feeder, {pid, _}, state) do
    Process.link(pid)
    {:reply, :ok, %{state | feeder: pid}}
  end

  def handle_call(:os_pid, _from, state), do: {:reply, state.os_pid, state}
  def handle_call(:alive?, _from, state), do: {:reply, state.exit == nil, state}
  def handle_call(:stats, _from, state), do: {:reply, stats(state), state}
  def handle_call(:info, _from, state), do: {:reply, info(state), state}

  def handle_call(:failure, _from, state) do
    {:reply, [exit: stats(state).exit, stderr: state.tail], state}
  end

  # The caller reads by itself from now on.
  def handle_call(:lend_stdout, _from, %{stdout: %Pipe{terminal?: false}} = state) do
    if state.exit != nil or Operations.any?(state.operations, competing(:stdout)) do
      {:reply, :no, state}
    else
      {:reply, {:ok, state.stdout, state.counters, state.leftovers}, %{state | stdout: nil}}
    end
  end

  def handle_call(:lend_stdout, _from, state), do: {:reply, :no, state}

  def handle_call(:verdict, _from, state), do: {:reply, state.verdict, state}

  def handle_call({:hand_over, _owner}, _from, %{enumerated?: true} = state) do
    {:reply, {:error, :already_enumerated}, state}
  end

  def handle_call({:hand_over, nil}, _from, state) do
    {:reply, :ok, %{state | enumerated?: true}}
  end

  def handle_call({:hand_over, owner}, _from, state) do
    if state.owner, do: Process.demonitor(state.owner, [:flush])
    {:reply, :ok, %{state | enumerated?: true, owner: Process.monitor(owner)}}
  end

  # --- what the VM and the system tell --------------------------------------------------------------

  @impl true
  def handle_info({:select, control, _, :ready_input}, %{control: control} = state) do
    noreply(listen(state))
  end

  def handle_info({:select, fd, _, :ready_input}, %{stdout: %Pipe{fd: fd}} = state) do
    noreply(serve(state, :stdout))
  end

  def handle_info({:select, fd, _, :ready_input}, %{stderr: %Pipe{fd: fd}} = state) do
    noreply(serve(state, :stderr))
  end

  def handle_info({:select, fd, _, :ready_output}, %{stdin: fd} = state) do
    noreply(serve(state, :stdin))
  end

  # Sent before a pipe was closed, received after it.
  def handle_info({:select, _fd, _, _}, state), do: noreply(state)

  # To itself, where going on at once would keep other messages waiting.
  def handle_info({:serve, stream}, state), do: noreply(serve(state, stream))

  def handle_info({:await_expired, id}, state) do
    case Operations.drop(state.operations, id) do
      {nil, _} ->
        noreply(state)

      {operation, operations} ->
        reply(operation, {:error, :timeout})
        noreply(%{state | operations: operations})
    end
  end

  def handle_info(:expired, state), do: noreply(condemn(state, {:error, :timeout}))

  def handle_info({:DOWN, owner, :process, _, _}, %{owner: owner} = state) do
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, monitor, :process, _, _}, state) do
    case Operations.drop_caller(state.operations, monitor) do
      # Nobody is left who could get the output or the status.
      {%{kind: :collect}, _} -> {:stop, :normal, state}
      # Whoever stood behind it may be served now.
      {_, operations} -> noreply(serve_all(%{state | operations: operations}))
    end
  end

  def handle_info({:EXIT, feeder, reason}, %{feeder: feeder} = state) do
    state = %{state | feeder: nil}

    case reason do
      :normal -> noreply(state)
      {:input_failed, kind, what, stack} -> noreply(fail_input(state, {kind, what, stack}))
      reason -> noreply(fail_input(state, {:exit, reason, []}))
    end
  end

  # As any process that is linked.
  def handle_info({:EXIT, _pid, :normal}, state), do: noreply(state)

  # The caller of `start_link/3`, or the registry because the application stops.
  def handle_info({:EXIT, _pid, reason}, state), do: {:stop, {:shutdown, reason}, state}

  def handle_info(message, state) do
    Logger.warning(
      "#{inspect(__MODULE__)} received a message that it does not know: #{inspect(message)}"
    )

    noreply(state)
  end

  @impl true
  def terminate(reason, state) do
    if state.exit == nil do
      Telemetry.exception(state.command, state.os_pid, state.started, :exit, reason)
    end

    if state.feeder do
      # Else it would die of the server's reason, with no cleanup.
      Process.unlink(state.feeder)
      NetRunner.Run.Input.let_go(state.feeder)
    end

    for kind <- [:stdout, :stderr, :any, :stdin, :collect, :exit] do
      {operations, _} = Operations.take_all(state.operations, kind)
      Enum.each(operations, &reply(&1, {:error, :closed}))
    end
  end

  defp noreply(%{stop?: true} = state), do: {:stop, :normal, state}
  defp noreply(state), do: {:noreply, state}

  # --- parking ------------------------------------------------------------------------------------

  defp park(state, kind, {pid, _} = from, data) do
    operations = Operations.park(state.operations, kind, from, data, Process.monitor(pid))
    %{state | operations: operations}
  end

  defp answer(state, operation, result) do
    reply(operation, result)
    %{state | operations: Operations.finish(state.operations, operation)}
  end

  defp reply(%{from: nil}, _result), do: :ok

  defp reply(%{from: from, monitor: monitor}, result) do
    Process.demonitor(monitor, [:flush])
    GenServer.reply(from, result)
  end

  # Which waiting operations take bytes of a stream.
  defp competing(:stdout), do: [:stdout, :any, :collect]
  defp competing(:stderr), do: [:stderr, :any]

  # --- reading ------------------------------------------------------------------------------------

  defp serve_all(state) do
    state |> serve_readers() |> serve(:stdin)
  end

  defp serve_readers(state), do: state |> serve(:stdout) |> serve(:stderr)

  defp serve(state, :stdin), do: serve_stdin(state)

  defp serve(%{stderr_mode: :consume} = state, :stderr), do: drain_stderr(state)

  defp serve(state, stream) do
    case Operations.next(state.operations, competing(stream)) do
      nil ->
        state

      %{kind: :collect} = operation ->
        collect(state, operation)

      operation ->
        cond do
          gone?(operation.from) -> pass_over(state, operation, stream)
          operation.kind == :any -> serve_any(state, operation)
          true -> serve_reader(state, operation, stream)
        end
    end
  end

  # What is read for a caller that is dead is lost, and the news of its death may be further back in the
  # mailbox than what made the pipe worth a read.
  defp gone?({pid, _}), do: node(pid) == node() and not Process.alive?(pid)

  # The news, when it comes, has the others served that it kept waiting.
  defp pass_over(state, operation, stream) do
    serve(%{state | operations: Operations.finish(state.operations, operation)}, stream)
  end

  defp serve_reader(state, operation, stream) do
    case read(state, operation.kind, operation.data) do
      {{:error, :eagain}, state} -> state
      {result, state} -> state |> answer(operation, result) |> serve(stream)
    end
  end

  # It takes no bytes of a stream on which somebody has waited longer.
  defp serve_any(state, operation) do
    first? = &(Operations.next(state.operations, competing(&1)) == operation)
    streams = Enum.filter([:stdout, :stderr], first?)

    case read_any(state, streams, operation.data) do
      {{:error, :eagain}, state} -> state
      {:eof, state} when length(streams) == 1 -> state
      {result, state} -> state |> answer(operation, result) |> serve_readers()
    end
  end

  defp read_any(state, [stream], max_bytes), do: read_tagged(state, stream, max_bytes)

  defp read_any(state, [_, _], max_bytes) do
    first = state.any_first
    second = if first == :stdout, do: :stderr, else: :stdout

    case read_tagged(state, first, max_bytes) do
      {{:ok, _} = result, state} ->
        {result, %{state | any_first: second}}

      {not_now, state} ->
        case read_tagged(state, second, max_bytes) do
          {{:ok, _} = result, state} -> {result, %{state | any_first: first}}
          {other, state} -> {worse(not_now, other), state}
        end
    end
  end

  defp read(state, stream, max_bytes) do
    case pipe(state, stream) do
      nil -> {input_failed(state) || {:error, :not_piped}, state}
      pipe -> read(state, stream, pipe, max_bytes)
    end
  end

  defp read(state, _stream, nil, _max_bytes), do: {:eof, state}

  defp read(state, stream, pipe, max_bytes) do
    {result, pipe} = Pipe.read(pipe, max_bytes)
    state = Map.put(state, stream, pipe)

    case result do
      {:ok, bytes} ->
        Counters.add_read(state.counters, stream, byte_size(bytes))
        {result, state}

      {:error, :eagain} ->
        nothing_now(state, stream)

      :eof ->
        {input_failed(state) || :eof, state}

      {:error, _} ->
        {result, state}
    end
  end

  # Nobody is left who could write, unless a process outside of the command's tree was given the pipe,
  # and that is not waited for.
  defp nothing_now(%{exit: {:exited, _, _}, leftovers: :kill} = state, stream) do
    {input_failed(state) || :eof, Map.update!(state, stream, &Pipe.close/1)}
  end

  defp nothing_now(state, _stream), do: {{:error, :eagain}, state}

  defp read_tagged(state, stream, max_bytes) do
    if pipe(state, stream) == nil do
      {:eof, state}
    else
      case read(state, stream, max_bytes) do
        {{:ok, bytes}, state} -> {{:ok, {stream, bytes}}, state}
        other -> other
      end
    end
  end

  # An end of file is one only when both streams are at theirs.
  defp worse(:eof, other), do: other
  defp worse(result, :eof), do: result
  defp worse({:error, :eagain}, other), do: other
  defp worse(result, _), do: result

  # A consumed stderr belongs to the server.
  defp pipe(%{stderr_mode: :consume}, :stderr), do: nil
  defp pipe(state, stream), do: Map.fetch!(state, stream)

  defp input_failed(%{input_failure: nil}), do: nil
  defp input_failed(%{input_failure: failure}), do: {:error, {:input_failed, failure}}

  # --- a consumed stderr --------------------------------------------------------------------------

  defp drain_stderr(%{stderr_mode: :consume} = state) do
    case read(state, :stderr, state.stderr, @bulk) do
      {{:ok, bytes}, state} ->
        send(self(), {:serve, :stderr})
        %{state | tail: tail(state.tail, bytes, state.tail_size)}

      {_eof_or_later, state} ->
        state
    end
  end

  defp drain_stderr(state), do: state

  # A copy, so that a few bytes do not keep a large chunk alive.
  defp tail(_tail, bytes, size) when byte_size(bytes) >= size do
    :binary.copy(binary_part(bytes, byte_size(bytes) - size, size))
  end

  defp tail(tail, bytes, size) do
    keep = min(byte_size(tail), size - byte_size(bytes))
    binary_part(tail, byte_size(tail) - keep, keep) <> bytes
  end

  # --- collecting ---------------------------------------------------------------------------------

  # Condemned: only the end is of interest. What the command still prints is dropped, so that a full pipe
  # does not keep it from ending.
  defp collect(%{verdict: verdict, exit: nil} = state, _operation) when verdict != nil do
    with {{:ok, _}, state} <- read(state, :stdout, state.stdout, @bulk) do
      send(self(), {:serve, :stdout})
      state
    else
      {_eof_or_later, state} -> state
    end
  end

  defp collect(%{verdict: verdict} = state, operation) when verdict != nil do
    answer_and_stop(state, operation, verdict)
  end

  defp collect(state, %{data: {chunks, size, limit}} = operation) do
    case read(state, :stdout, state.stdout, @bulk) do
      {{:ok, bytes}, state} ->
        send(self(), {:serve, :stdout})
        size = size + byte_size(bytes)
        data = {[chunks, bytes], size, limit}
        state = %{state | operations: Operations.update(state.operations, operation, data)}
        if size > limit, do: condemn(state, too_much(data)), else: state

      {:eof, %{exit: nil} = state} ->
        state

      {:eof, state} ->
        answer_and_stop(state, operation, collected(state, chunks))

      {{:error, :eagain}, state} ->
        state

      {{:error, reason}, state} ->
        condemn(state, {:error, reason})
    end
  end

  defp too_much({chunks, _size, limit}) do
    partial = chunks |> IO.iodata_to_binary() |> binary_part(0, limit)
    {:error, {:max_output_exceeded, partial}}
  end

  defp collected(state, chunks) do
    with {:ok, status} <- exit_result(state), do: {IO.iodata_to_binary(chunks), status}
  end

  defp answer_and_stop(state, operation, result) do
    state = answer(state, operation, result)
    # The caller goes on before this process is cleaned up.
    :erlang.yield()
    %{state | stop?: true}
  end

  # Ends the command before its time; the waiting collect is answered when nothing is left of it.
  defp condemn(%{verdict: nil} = state, verdict) do
    state = end_command(%{state | verdict: verdict})
    if state.exit, do: serve(state, :stdout), else: state
  end

  defp condemn(state, _verdict), do: state

  # --- writing ------------------------------------------------------------------------------------

  # While somebody waits for room, the select is armed, and those behind have to wait anyway.
  defp queue_for_stdin(state, from, data) do
    waiting? = Operations.any?(state.operations, [:stdin])
    state = park(state, :stdin, from, data)
    if waiting?, do: state, else: serve_stdin(state)
  end

  defp serve_stdin(state) do
    case Operations.next(state.operations, [:stdin]) do
      nil ->
        state

      %{data: :close} = operation when state.terminal? and state.stdin != nil ->
        write_end_of_file(state, operation)

      %{data: :close} = operation ->
        state |> close_stdin() |> answer(operation, :ok) |> serve_stdin()

      %{data: {_, iovec}} = operation ->
        write(state, operation, iovec)
    end
  end

  defp close_stdin(%{stdin: nil} = state), do: state

  defp close_stdin(state) do
    Native.close(state.stdin)
    %{state | stdin: nil}
  end

  # The character ends the line that is begun; it ends the input only at the start of one (termios(3)).
  defp write_end_of_file(state, operation) do
    with {:ok, character} <- Native.eof_character(state.stdin),
         bytes = if(state.line_start?, do: <<character>>, else: <<character, character>>),
         {:error, :eagain} <- Native.write(state.stdin, [bytes]) do
      state
    else
      # The line is ended; its end of file follows.
      {:partial, _} ->
        send(self(), {:serve, :stdin})
        %{state | line_start?: true}

      _written_or_gone ->
        state |> close_stdin() |> answer(operation, :ok) |> serve_stdin()
    end
  end

  defp write(%{stdin: nil} = state, operation, _iovec) do
    state |> answer(operation, {:error, :closed}) |> serve_stdin()
  end

  defp write(state, operation, iovec) do
    case Native.write(state.stdin, iovec) do
      :ok ->
        state |> count_written(iovec, []) |> answer(operation, :ok) |> serve_stdin()

      {:partial, rest} ->
        send(self(), {:serve, :stdin})
        state = count_written(state, iovec, rest)
        %{state | operations: Operations.update(state.operations, operation, {:begun, rest})}

      {:error, :eagain} when state.exit == nil or state.leftovers == :leave ->
        state

      # Nobody is left who could read.
      {:error, :eagain} ->
        state |> answer(operation, {:error, :epipe}) |> serve_stdin()

      {:error, reason} ->
        state |> answer(operation, {:error, reason}) |> serve_stdin()
    end
  end

  defp count_written(state, iovec, rest) do
    Counters.add_write(state.counters, IO.iodata_length(iovec) - IO.iodata_length(rest))
    follow_lines(state, iovec)
  end

  # Where a write was cut, the rest follows, and its end counts.
  defp follow_lines(%{terminal?: true} = state, iovec) do
    case iovec |> Enum.reverse() |> Enum.find(&(&1 != "")) do
      nil -> state
      bytes -> %{state | line_start?: :binary.last(bytes) == ?\n}
    end
  end

  defp follow_lines(state, _iovec), do: state

  defp fail_input(state, failure) do
    state = condemn(%{state | input_failure: failure}, {:error, {:input_failed, failure}})
    serve_all(state)
  end

  # --- the end ------------------------------------------------------------------------------------

  # Hears what the shepherd says, until it has nothing more to say.
  defp listen(%{exit: nil} = state) do
    case Native.receive_event(state.control) do
      {:exited, how, usage} when state.cgroup == nil -> exited(state, {:exited, how, usage})
      {:exited, how, usage} -> leave_cgroup(state, {:exited, how, usage})
      {:error, :eagain} -> state
      _gone_or_nonsense -> exited(state, state.last_words)
    end
  end

  defp listen(state), do: state

  # The shepherd waits for the end of the socket, removes the cgroup, and exits. What stays, by `leftovers: :leave`,
  # stays in the cgroup, and is not waited for.
  defp leave_cgroup(state, last_words) do
    state = %{state | cgroup_figures: Cgroup.figures(state.cgroup), last_words: last_words}

    if state.leftovers == :leave do
      exited(state, last_words)
    else
      _ = Native.shut(state.control)
      listen(state)
    end
  end

  defp exited(state, exit) do
    if idle_now?(exit, state), do: Native.retire(state.control), else: Native.close(state.control)
    remove_cgroup(state.cgroup, exit, state.leftovers)
    Counters.put_ended(state.counters)
    state = %{state | exit: exit, ended: System.monotonic_time()}
    tell_end(state)
    state = serve_all(state)
    {waiting, operations} = Operations.take_all(state.operations, :exit)
    Enum.each(waiting, &reply(&1, exit_result(state)))
    finish_stop(%{state | operations: operations})
  end

  # Whether the shepherd has nothing more to do.
  defp idle_now?(exit, state) do
    exit != :lost and state.leftovers == :kill and state.cgroup == nil
  end

  # Where the shepherd could not.
  defp remove_cgroup(nil, _exit, _leftovers), do: :ok

  defp remove_cgroup(cgroup, exit, leftovers) do
    if exit == :lost or (leftovers == :kill and File.dir?(cgroup)) do
      spawn(fn -> Cgroup.remove(cgroup) end)
    end
  end

  defp finish_stop(%{stopping?: true} = state) do
    {waiting, operations} = Operations.take_all(state.operations, :stop)
    Enum.each(waiting, &reply(&1, :ok))
    %{state | operations: operations, stop?: true}
  end

  defp finish_stop(state), do: state

  defp end_command(%{exit: nil} = state) do
    # Fails only when the shepherd is gone, which `listen/1` hears.
    _ = Native.end_command(state.control)
    state
  end

  defp end_command(state), do: state

  defp exit_result(%{exit: {:exited, {:exited, code}, _}}), do: {:ok, code}
  defp exit_result(%{exit: {:exited, {:signaled, number, _}, _}}), do: {:ok, 128 + number}
  defp exit_result(%{exit: :lost}), do: {:error, :shepherd_died}

  defp tell_end(%{exit: :lost} = state) do
    Telemetry.exception(state.command, state.os_pid, state.started, :error, :shepherd_died)
  end

  defp tell_end(state) do
    Telemetry.stop(state.command, state.os_pid, state.started, fn -> stats(state) end)
  end

  defp stats(%{started: {system_time, monotonic_time}} = state) do
    until = state.ended || System.monotonic_time()
    duration = System.convert_time_unit(until - monotonic_time, :native, :millisecond)
    cgroup = state.cgroup_figures || Cgroup.figures(state.cgroup)

    stats = %Stats{
      started_at: Stats.started_at(system_time),
      duration_ms: duration,
      cgroup: cgroup
    }

    state.counters |> Counters.into(stats) |> with_exit(state)
  end

  defp info(state) do
    stats = stats(state)

    state
    |> Map.take([:command, :os_pid])
    |> Map.merge(Map.take(stats, [:started_at, :duration_ms, :exit_status, :exit]))
    |> Map.merge(%{pid: self(), bytes: Counters.bytes(state.counters), status: status(state.exit)})
  end

  defp status(nil), do: :running
  defp status({:exited, _, _}), do: :exited
  defp status(:lost), do: :lost

  defp with_exit(stats, %{exit: {:exited, how, {max_rss, user, system}}} = state) do
    {:ok, status} = exit_result(state)

    exit =
      with {:signaled, number, core?} <- how do
        case NetRunner.Signal.name(number) do
          {:ok, name} -> {:signaled, name, core?}
          {:error, :unknown_signal} -> {:signaled, number, core?}
        end
      end

    %{
      stats
      | exit_status: status,
        exit: exit,
        max_rss_bytes: max_rss,
        user_time_us: user,
        system_time_us: system
    }
  end

  defp with_exit(stats, _running_or_lost), do: stats
end
