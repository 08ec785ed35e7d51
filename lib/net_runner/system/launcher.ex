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
    tries = {@replacements, @in_flight_retries}
    spawn(fields, spec_size(fields), connections, pipe_size, patience, tries)
  end

  defp spawn(fields, size, connections, pipe_size, patience, {replacements, retries}) do
    with {:ok, socket} <- socket() do
      case Native.spawn(socket, fields, size, connections, pipe_size) do
        {:error, :eagain} ->
          with :ok <- await_room(socket, patience) do
            spawn(fields, size, connections, pipe_size, patience, {replacements, retries})
          end

        {:error, :etoomanyrefs} when retries > 0 ->
          :timer.sleep(@in_flight_pause)
          spawn(fields, size, connections, pipe_size, patience, {replacements, retries - 1})

        # The launcher is gone and did not take the request.
        {:error, reason} when reason in [:closed, :epipe, :econnreset] and replacements > 0 ->
          with {:ok, _} <- call({:replace, socket}) do
            spawn(fields, size, connections, pipe_size, patience, {replacements - 1, retries})
          end

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

  defp spec_size(fields) do
    Enum.reduce(fields, 0, fn
      {_, value}, size when is_binary(value) ->
        size + byte_size(value) + 6

      {_, [value | _] = values}, size when is_binary(value) ->
        Enum.reduce(values, size, &(byte_size(&1) + 6 + &2))

      # Numbers, and short lists of them.
      _, size ->
        size + 64
    end)
  end

  @impl true
  def init(_) do
    case start_helper() do
      {:ok, socket, guard} ->
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
      {:ok, socket, guard} ->
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
        :ok ->
          {:ok, socket, guard}

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
    with :ok <- await_greeting(socket) do
      # Selects, so that the end of the helper is noticed.
      case Native.receive_greeting(socket) do
        {:error, :eagain} -> :ok
        _its_end -> {:error, :silent}
      end
    end
  end

  # The setting is for NetRunner's own tests.
  defp helper_path do
    default = Application.app_dir(:net_runner, "priv/net_runner_shepherd")
    Application.get_env(:net_runner, :helper, default)
  end

  defp await_greeting(socket) do
    case Native.receive_greeting(socket) do
      {:ok, greeting, greeting} ->
        :ok

      {:ok, theirs, ours} ->
        {:error, {:mismatch, theirs, ours}}

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

  @rebuild "`mix deps.compile net_runner --force` (in NetRunner itself: `mix compile --force`) builds it anew"

  defp explain({path, {:mismatch, theirs, ours}}) do
    "NetRunner's helper program #{path} (#{theirs}) does not match its native library (#{ours}): #{@rebuild}"
  end

  defp explain({path, :silent}) do
    "NetRunner's helper program #{path} does not answer: it may be of another version or machine; #{@rebuild}"
  end

  defp explain({path, reason}) do
    "NetRunner's helper program #{path} cannot be started: #{NetRunner.Error.describe(reason)}"
  end
end
