defmodule NetRunner.System.Launcher do
  @moduledoc false
  # Keeps the launcher running: the helper program that forks a shepherd for each command.
  #
  # Its life: start the helper, receive its greeting (a NIF and a helper of different versions find out here), publish
  # the launcher's socket in an ETS table, and wait. When the launcher dies, its socket becomes readable, and a new helper
  # is started. Commands that run are not touched by that: each has a shepherd of its own.
  #
  # `submit/4` runs in the process that wants the command, which becomes the owner of the command's descriptors; this
  # process is asked only when the launcher is gone or its socket is full.

  use GenServer

  alias NetRunner.Log
  alias NetRunner.System.Native

  @table __MODULE__
  @greeting_timeout 5_000
  @retry_after 100

  # A helper that lived for less than this is not replaced at once: the next one would hardly live longer.
  @shortest_life 20

  # Descriptors in flight are limited by RLIMIT_NOFILE (unix(7), ETOOMANYREFS). No event tells when there are
  # fewer, so the sender tries again for a while.
  @in_flight_retries 500
  @in_flight_pause 2

  # How many launchers in a row are tried that somebody kills.
  @replacements 10

  # What the helper says instead of its greeting, followed by a reason; and what may follow the greeting.
  @cannot "net_runner cannot: "
  @no_proc "; no /proc"

  @without_proc "NetRunner finds no /proc of its own PID namespace. It still ends everything that its " <>
                  "commands leave behind, but finding it takes up to a second of CPU time for each command that " <>
                  "leaves something. Mount one in the namespace of the VM: `mount -t proc proc /proc`"

  # Race: room taken by others.
  @rounds 1_000

  # While the supervisor restarts this process, nobody answers, and no event tells when somebody does.
  @restart_retries 200
  @restart_pause 5

  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Makes the table, which the calling process owns. The application counts as started as long as the table is there.
  """
  def create_table do
    :ets.new(@table, [:named_table, :public, read_concurrency: true])
    :ok
  end

  @doc "Takes no commands from now on, as the application is about to stop."
  @spec close() :: :ok
  def close do
    :ets.insert(@table, {:closed, true})
    :ok
  end

  @doc "Whether the application takes commands: it has started, and is not about to stop."
  @spec open?() :: boolean()
  def open? do
    not :ets.member(@table, :closed)
  rescue
    ArgumentError -> false
  end

  @doc """
  Sends a command to a shepherd; see `NetRunner.System.Native.submit/5`. The calling process owns the result.

  `patience` says how long this may wait: until a process with one of these monitors dies, and until this
  `System.monotonic_time(:millisecond)`, or `:infinity`.
  """
  def submit(fields, connections, pipe_size, patience \\ {%{}, :infinity}) do
    left = %{rounds: @rounds, in_flight: @in_flight_retries, replacements: @replacements}
    submit(fields, size(fields, connections), connections, pipe_size, patience, left)
  end

  defp submit(fields, size, connections, pipe_size, patience, left) do
    again = &submit(fields, size, connections, pipe_size, patience, %{left | &1 => left[&1] - 1})

    with {:ok, socket} <- socket(patience) do
      case Native.submit(socket, fields, size, connections, pipe_size) do
        {:error, :eagain} when left.rounds > 0 ->
          with :ok <- await_room(socket, patience), do: again.(:rounds)

        {:error, :etoomanyrefs} when left.in_flight > 0 ->
          Process.sleep(@in_flight_pause)
          again.(:in_flight)

        # The launcher is gone, and nobody took the request.
        {:error, reason} when reason in [:closed, :epipe, :econnreset] and left.replacements > 0 ->
          with {:ok, _} <- ask_for_socket({:replace, socket}, patience), do: again.(:replacements)

        {:error, reason} when reason in [:closed, :epipe, :econnreset] ->
          {:error, :launcher_died}

        result ->
          result
      end
    end
  end

  # The next try finds the successor of one that is gone.
  defp await_room(socket, patience) do
    with :gone <- ask({:await_room, socket}, patience), do: :ok
  end

  defp socket(patience) do
    case :ets.lookup(@table, :socket) do
      [{:socket, socket}] -> {:ok, socket}
      [] -> ask_for_socket(:socket, patience)
    end
  rescue
    ArgumentError -> {:error, :not_started}
  end

  defp ask_for_socket(request, patience, retries \\ @restart_retries) do
    with :gone <- ask(request, patience) do
      if retries == 0 or :ets.whereis(@table) == :undefined do
        {:error, :not_started}
      else
        Process.sleep(@restart_pause)
        ask_for_socket(request, patience, retries - 1)
      end
    end
  end

  # Not a call: this process may be busy, or wait for a helper, for longer than the caller has patience.
  defp ask(request, {wanted_by, deadline}) do
    monitor = Process.monitor(__MODULE__)
    GenServer.cast(__MODULE__, {request, {self(), monitor}})

    receive do
      {^monitor, answer} ->
        Process.demonitor(monitor, [:flush])
        answer

      # The GenServer died; the next try finds the one that follows.
      {:DOWN, ^monitor, :process, _, _} ->
        :gone

      # Race: owner dies during the start.
      {:DOWN, ref, :process, _, _} when is_map_key(wanted_by, ref) ->
        {:error, :closed}
    after
      remaining(deadline) -> {:error, :timeout}
    end
  end

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))

  # Bytes around each value, and of a number.
  @field 8

  # To make a pipe takes as long as to look at so many items.
  @pipe 128

  defp size(fields, {_standard, further}) do
    for {_number, kind} <- further, reduce: spec_size(fields) do
      {bytes, items} ->
        case kind do
          {_, path} -> {bytes + byte_size(path) + 2 * @field, items + 1}
          _pipe -> {bytes + 2 * @field, items + @pipe}
        end
    end
  end

  defp spec_size(fields) do
    Enum.reduce(fields, {0, 0}, fn
      {_, value}, {bytes, items} when is_binary(value) ->
        {bytes + byte_size(value) + @field, items + 1}

      {_, values}, {bytes, items} when is_list(values) ->
        {Enum.reduce(values, bytes, &(size_of(&1) + @field + &2)), items + length(values)}

      {_, _numbers}, {bytes, items} ->
        {bytes + 4 * @field, items + 1}
    end)
  end

  defp size_of(value) when is_binary(value), do: byte_size(value)
  defp size_of(_number), do: 0

  @impl true
  def init(_) do
    # Idle shepherds of the launcher that was lost with the process before this one.
    Native.let_idle_go()

    case start_helper() do
      {:ok, socket, guard, notes} ->
        # Only here: later helpers on this system would say the same.
        if notes == @no_proc, do: Log.write(:warning, @without_proc)

        state = %{
          socket: nil,
          guard: nil,
          since: nil,
          retry: nil,
          waiting_for_room: [],
          waiting_for_start: []
        }

        {:ok, publish(state, socket, guard)}

      {:error, reason} ->
        {:stop, explain(reason)}
    end
  end

  @impl true
  def handle_cast({:socket, who}, state), do: {:noreply, answer_when_tried(who, state)}

  # Race: replaced already.
  def handle_cast({{:replace, socket}, who}, %{socket: socket} = state) do
    {:noreply, answer_when_tried(who, withdraw(state))}
  end

  def handle_cast({{:replace, _older}, who}, state), do: {:noreply, answer_when_tried(who, state)}

  def handle_cast({{:await_room, socket}, who}, state) do
    if socket == state.socket and Native.await_room(socket) == :ok do
      {:noreply, %{state | waiting_for_room: [who | state.waiting_for_room]}}
    else
      answer(who, :ok)
      {:noreply, state}
    end
  end

  def handle_cast(request, state), do: {:noreply, pass_over(request, state)}

  @impl true
  def handle_call(request, _from, state),
    do: {:reply, {:error, :closed}, pass_over(request, state)}

  defp pass_over(message, state) do
    Log.unknown(__MODULE__, message)
    state
  end

  defp answer({pid, monitor}, answer), do: send(pid, {monitor, answer})

  @impl true
  def handle_info({:select, socket, _, :ready_output}, %{socket: socket} = state) do
    {:noreply, release_waiting(state)}
  end

  # The launcher sends nothing after its greeting, so readable means that it is gone.
  def handle_info({:select, socket, _, :ready_input}, %{socket: socket} = state) do
    lived = System.monotonic_time(:millisecond) - state.since
    state = withdraw(state)
    {:noreply, if(lived < @shortest_life, do: retry_later(state), else: ensure(state))}
  end

  # From a socket that was replaced. Race: late select.
  def handle_info({:select, _, _, _}, state), do: {:noreply, state}

  def handle_info(:retry, state) do
    state = ensure(%{state | retry: nil})
    Enum.each(state.waiting_for_start, &answer(&1, socket_of(state)))
    {:noreply, %{state | waiting_for_start: []}}
  end

  def handle_info(message, state), do: {:noreply, pass_over(message, state)}

  # While another try is due, the answer is what that comes to.
  defp answer_when_tried(who, %{socket: nil, retry: retry} = state) when retry != nil do
    %{state | waiting_for_start: [who | state.waiting_for_start]}
  end

  defp answer_when_tried(who, %{} = state) do
    state = ensure(state)
    answer(who, socket_of(state))
    state
  end

  defp socket_of(%{socket: nil}), do: {:error, :launcher_died}
  defp socket_of(%{socket: socket}), do: {:ok, socket}

  # A start of the helper fails when the system is out of descriptors, processes or memory. It is tried again, so that
  # commands start again once there is room.
  defp ensure(%{socket: nil, retry: nil} = state) do
    case start_helper() do
      {:ok, socket, guard, _notes} ->
        publish(state, socket, guard)

      {:error, reason} ->
        Log.write(:error, explain(reason))
        retry_later(state)
    end
  end

  defp ensure(%{} = state), do: state

  defp retry_later(%{} = state) do
    %{state | retry: Process.send_after(self(), :retry, @retry_after)}
  end

  defp publish(%{} = state, socket, guard) do
    :ets.insert(@table, {:socket, socket})
    %{state | socket: socket, guard: guard, since: System.monotonic_time(:millisecond)}
  end

  defp withdraw(%{} = state) do
    Log.write(
      :warning,
      "NetRunner's launcher (of guard process #{state.guard}) died; starting a new one"
    )

    :ets.delete(@table, :socket)
    Native.close(state.socket)
    # Race: retired too late.
    Native.let_idle_go()
    release_waiting(%{state | socket: nil, guard: nil})
  end

  defp release_waiting(%{} = state) do
    Enum.each(state.waiting_for_room, &answer(&1, :ok))
    %{state | waiting_for_room: []}
  end

  defp start_helper do
    path = helper_path()

    with {:ok, socket, guard} <- Native.start_helper(path) do
      case hear_greeting(socket) do
        {:ok, notes} ->
          {:ok, socket, guard, notes}

        {:error, reason} ->
          # The close ends the helper.
          Native.close(socket)
          {:error, {path, reason}}
      end
    else
      {:error, reason} -> {:error, {path, reason}}
    end
  end

  defp hear_greeting(socket) do
    with {:ok, notes} <- await_greeting(socket) do
      # This selects the socket, so that the launcher's death is noticed.
      case Native.receive_greeting(socket) do
        {:error, :eagain} -> {:ok, notes}
        _its_end -> {:error, :silent}
      end
    end
  end

  @doc "Where the helper program is. The setting is for NetRunner's own tests."
  @spec helper_path() :: Path.t()
  def helper_path do
    Application.get_env(:net_runner, :helper) ||
      Path.join(Native.path_bytes(:code.lib_dir(:net_runner)), "priv/net_runner_shepherd")
  end

  defp await_greeting(socket) do
    case Native.receive_greeting(socket) do
      {:ok, @cannot <> reason, _ours} ->
        {:error, {:cannot, reason}}

      {:ok, theirs, ours} ->
        case String.split(theirs, ours, parts: 2) do
          ["", notes] when notes in ["", @no_proc] -> {:ok, notes}
          _ -> {:error, {:mismatch, theirs, ours}}
        end

      {:error, :eagain} ->
        receive do
          {:select, ^socket, _, :ready_input} -> await_greeting(socket)
        after
          @greeting_timeout -> {:error, :silent}
        end

      :eof ->
        {:error, :silent}

      {:error, reason} ->
        {:error, reason}
    end
  end

  defp explain({path, {:cannot, reason}}) do
    "NetRunner's helper program #{path} cannot do its work on this system: #{reason}. It needs this call to end " <>
      "everything that a command starts. Linux has it since version 3.4; a container's filter of system calls (seccomp) " <>
      "must allow it"
  end

  @rebuild "`mix deps.compile net_runner --force` (in NetRunner itself: `mix compile --force`) rebuilds it"

  defp explain({path, {:mismatch, theirs, ours}}) do
    "NetRunner's helper program #{path} (#{theirs}) does not match its native library (#{ours}): #{@rebuild}"
  end

  defp explain({path, :silent}) do
    "NetRunner's helper program #{path} does not answer: it may be of another version or machine; #{@rebuild}"
  end

  defp explain({path, reason}) do
    sentence =
      "NetRunner's helper program #{path} cannot be started: #{NetRunner.Error.describe(reason)}"

    if reason in [:enoent, :eacces, :enoexec], do: "#{sentence}; #{@rebuild}", else: sentence
  end
end
