defmodule NetRunner.System.Launcher do
  @moduledoc false
  # Keeps the launcher running: the helper program that forks a shepherd for each command.
  #
  # Its life: start the helper, hear its greeting (a NIF and a helper of different versions find out
  # here), publish its socket in an ETS table, and wait. When the helper dies, the socket says so, and
  # a new one is started. Commands that run are not touched by that: each has a shepherd of its own.
  #
  # `spawn/3` runs in the process that wants the command, which so becomes the owner of its
  # descriptors; this process is only asked when something is in the way.

  use GenServer

  require Logger

  alias NetRunner.System.Native

  @table __MODULE__
  @greeting_timeout 5_000
  @retry_after 100

  # One that lives for less is not replaced at once: the next will hardly do better.
  @shortest_life 20

  # Descriptors in flight are limited by RLIMIT_NOFILE (unix(7), ETOOMANYREFS). There is no event for
  # "fewer now", so the sender tries again for a while.
  @in_flight_retries 500
  @in_flight_pause 2

  # A launcher that is killed again and again.
  @replacements 10

  # What the helper says instead of its greeting, with a reason behind it, and behind its greeting.
  @cannot "net_runner cannot: "
  @no_proc "; no /proc"

  @without_proc "NetRunner finds no /proc of its own PID namespace. It ends whatever its commands leave behind " <>
                  "nonetheless, but to find that takes up to a second of CPU time for each command that leaves " <>
                  "something. Mount one in the namespace of the VM: `mount -t proc proc /proc`"

  # Times that there was room at the launcher, and others took it.
  @rounds 1_000

  # While the supervisor replaces this process, nobody answers, and there is no event to await.
  @restart_retries 200
  @restart_pause 5

  def start_link(_), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc """
  Makes the table; the calling process owns it, and so the application is started for as long as that lives.
  """
  def create_table do
    :ets.new(@table, [:named_table, :public, read_concurrency: true])
    :ok
  end

  @doc """
  Asks for a command; see `NetRunner.System.Native.spawn/5`. The calling process owns the result.

  `patience` is the monitor of whoever the command is for, or `nil`, and `System.monotonic_time(:millisecond)` until
  which there may be waited, or `:infinity`.
  """
  def spawn(fields, connections, pipe_size, patience \\ {nil, :infinity}) do
    left = %{rounds: @rounds, in_flight: @in_flight_retries, replacements: @replacements}
    spawn(fields, spec_size(fields), connections, pipe_size, patience, left)
  end

  defp spawn(fields, size, connections, pipe_size, patience, left) do
    again = &spawn(fields, size, connections, pipe_size, patience, %{left | &1 => left[&1] - 1})

    with {:ok, socket} <- socket() do
      case Native.spawn(socket, fields, size, connections, pipe_size) do
        {:error, :eagain} when left.rounds > 0 ->
          with :ok <- await_room(socket, patience), do: again.(:rounds)

        {:error, :etoomanyrefs} when left.in_flight > 0 ->
          :timer.sleep(@in_flight_pause)
          again.(:in_flight)

        # The launcher is gone and did not take the request.
        {:error, reason} when reason in [:closed, :epipe, :econnreset] and left.replacements > 0 ->
          with {:ok, _} <- call({:replace, socket}), do: again.(:replacements)

        {:error, reason} when reason in [:closed, :epipe, :econnreset] ->
          {:error, :launcher_died}

        result ->
          result
      end
    end
  end

  # Not a call: the launcher may be busy for longer than the caller has patience.
  defp await_room(socket, {owner, deadline}) do
    monitor = Process.monitor(__MODULE__)
    GenServer.cast(__MODULE__, {:await_room, socket, {self(), monitor}})

    receive do
      {^monitor, :try_again} ->
        Process.demonitor(monitor, [:flush])
        :ok

      # The next try finds its successor.
      {:DOWN, ^monitor, :process, _, _} ->
        :ok

      {:DOWN, ^owner, :process, _, _} ->
        {:error, :closed}
    after
      remaining(deadline) -> {:error, :timeout}
    end
  end

  defp remaining(:infinity), do: :infinity
  defp remaining(deadline), do: max(0, deadline - System.monotonic_time(:millisecond))

  defp socket do
    case :ets.lookup(@table, :socket) do
      [{:socket, socket}] -> {:ok, socket}
      [] -> call(:socket)
    end
  rescue
    ArgumentError -> {:error, :not_started}
  end

  defp call(request, retries \\ @restart_retries) do
    GenServer.call(__MODULE__, request, :infinity)
  catch
    :exit, _ when retries > 0 ->
      if :ets.whereis(@table) == :undefined do
        {:error, :not_started}
      else
        :timer.sleep(@restart_pause)
        call(request, retries - 1)
      end

    :exit, _ ->
      {:error, :not_started}
  end

  # What surrounds each value, and what numbers take.
  @field 8

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
    # Of a launcher that ended with the process before this one.
    Native.let_idle_go()

    case start_helper() do
      {:ok, socket, guard, notes} ->
        # Once: later helpers of this system would say the same.
        if notes == @no_proc, do: Logger.warning(@without_proc)

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
  def handle_call(:socket, from, state), do: answer_when_tried(from, state)

  # Somebody found this socket dead. It may have been replaced meanwhile.
  def handle_call({:replace, socket}, from, %{socket: socket} = state) do
    answer_when_tried(from, withdraw(state))
  end

  def handle_call({:replace, _older}, from, state), do: answer_when_tried(from, state)

  @impl true
  def handle_cast({:await_room, socket, who}, state) do
    if socket == state.socket and Native.await_room(socket) == :ok do
      {:noreply, %{state | waiting_for_room: [who | state.waiting_for_room]}}
    else
      try_again(who)
      {:noreply, state}
    end
  end

  defp try_again({pid, monitor}), do: send(pid, {monitor, :try_again})

  @impl true
  def handle_info({:select, socket, _, :ready_output}, %{socket: socket} = state) do
    {:noreply, release_waiting(state)}
  end

  # The helper says nothing after its greeting: this is its end.
  def handle_info({:select, socket, _, :ready_input}, %{socket: socket} = state) do
    lived = System.monotonic_time(:millisecond) - state.since
    state = withdraw(state)
    {:noreply, if(lived < @shortest_life, do: retry_later(state), else: ensure(state))}
  end

  # Of a socket that was replaced.
  def handle_info({:select, _, _, _}, state), do: {:noreply, state}

  def handle_info(:start, state) do
    state = ensure(%{state | retry: nil})
    Enum.each(state.waiting_for_start, &GenServer.reply(&1, socket_of(state)))
    {:noreply, %{state | waiting_for_start: []}}
  end

  def handle_info(message, state) do
    Logger.warning(
      "#{inspect(__MODULE__)} received a message that it does not know: #{inspect(message)}"
    )

    {:noreply, state}
  end

  # While another try is due, the answer is what that comes to.
  defp answer_when_tried(from, %{socket: nil, retry: retry} = state) when retry != nil do
    {:noreply, %{state | waiting_for_start: [from | state.waiting_for_start]}}
  end

  defp answer_when_tried(_from, state) do
    state = ensure(state)
    {:reply, socket_of(state), state}
  end

  defp socket_of(%{socket: nil}), do: {:error, :launcher_died}
  defp socket_of(%{socket: socket}), do: {:ok, socket}

  # Starting fails when the system is out of descriptors, processes or memory; it goes on trying,
  # so that commands start again once there is room.
  defp ensure(%{socket: nil, retry: nil} = state) do
    case start_helper() do
      {:ok, socket, guard, _notes} ->
        publish(state, socket, guard)

      {:error, reason} ->
        Logger.error(explain(reason))
        retry_later(state)
    end
  end

  defp ensure(state), do: state

  defp retry_later(state) do
    %{state | retry: Process.send_after(self(), :start, @retry_after)}
  end

  defp publish(state, socket, guard) do
    :ets.insert(@table, {:socket, socket})
    %{state | socket: socket, guard: guard, since: System.monotonic_time(:millisecond)}
  end

  defp withdraw(state) do
    Logger.warning(
      "NetRunner's launcher (of guard process #{state.guard}) died; starting a new one"
    )

    :ets.delete(@table, :socket)
    Native.close(state.socket)
    # Who would clean up after its shepherds is gone, or will be.
    Native.let_idle_go()
    release_waiting(%{state | socket: nil, guard: nil})
  end

  defp release_waiting(state) do
    Enum.each(state.waiting_for_room, &try_again/1)
    %{state | waiting_for_room: []}
  end

  defp start_helper do
    path = helper_path()

    with {:ok, socket, guard} <- Native.start_helper(path) do
      case greet(socket) do
        {:ok, notes} ->
          {:ok, socket, guard, notes}

        {:error, reason} ->
          # Closed, it ends the helper.
          Native.close(socket)
          {:error, {path, reason}}
      end
    else
      {:error, reason} -> {:error, {path, reason}}
    end
  end

  defp greet(socket) do
    with {:ok, notes} <- await_greeting(socket) do
      # Selects, so that the end of the helper is noticed.
      case Native.receive_greeting(socket) do
        {:error, :eagain} -> {:ok, notes}
        _its_end -> {:error, :silent}
      end
    end
  end

  # The setting is for NetRunner's own tests.
  defp helper_path do
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
      "all that a command starts. Linux has it since version 3.4; a filter of system calls (seccomp), as containers " <>
      "have, must allow it"
  end

  @rebuild "`mix deps.compile net_runner --force` (in NetRunner itself: `mix compile --force`) builds it anew"

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
