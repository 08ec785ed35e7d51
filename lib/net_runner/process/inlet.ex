defmodule NetRunner.Process.Inlet do
  @moduledoc false
  # A command's stdin, as its server sees it: the descriptor, and who waits to write to it.
  #
  # Writes are done in the order of their calls, and the bytes of two writes are never mixed. Race: half a write.
  # Functions return the new inlet and what is to be done: answers, and `{:again, :stdin}`, to go on after other
  # messages.

  alias NetRunner.Process.{Caller, Guest, Operations}
  alias NetRunner.System.Native

  # `stdin`: the descriptor; `:closed` when the VM has closed it.
  # `readers`: whether somebody may be left who reads. `line`: for a terminal, whether the input is at the start of a
  # line, which decides how its end is written. `window`: where a feeder lays what is to be written; `nil` when there is
  # no feeder that does so. `left`: the descriptor that is open until the server stops, though nobody may write. `received`: of the guests that were turned away, how many have come; `nil` where there are no
  # guests.
  @enforce_keys [:stdin, :line]
  defstruct [
    :stdin,
    :line,
    :window,
    :left,
    readers: :present,
    received: nil,
    queue: Operations.new()
  ]

  @type t :: %__MODULE__{
          stdin: Native.fd() | :closed,
          line: :not_a_terminal | :at_start | :begun,
          window: Native.window() | nil,
          left: Native.fd() | nil,
          readers: :present | :gone,
          received: non_neg_integer() | nil,
          queue: Operations.t()
        }

  @type effect :: {:reply, Operations.operation(), term()} | {:again, :stdin}

  @spec new(Native.fd(), boolean()) :: t()
  def new(stdin, terminal?) do
    line = if terminal?, do: :at_start, else: :not_a_terminal
    %__MODULE__{stdin: stdin, line: line}
  end

  @doc """
  A caller's write, with so many ms: its result if there is room for all of it, as there mostly is; otherwise it is
  queued.
  """
  @spec write(t(), GenServer.from(), [binary()], timeout()) ::
          {:reply, term(), t()} | {:wait, t(), [effect()]}
  def write(%{stdin: :closed} = inlet, _, _, _), do: {:reply, {:error, :closed}, inlet}
  def write(%{readers: :gone} = inlet, _, _, _), do: {:reply, {:error, :epipe}, inlet}

  def write(%__MODULE__{} = inlet, from, iovec, timeout) do
    waiting? = waiting?(inlet)
    inlet = queue_window(inlet)

    cond do
      # If somebody waits for room already, stdin is selected, and this write has to wait its turn.
      waiting? ->
        {:wait, park(inlet, from, {:fresh, iovec}, timeout), []}

      waiting?(inlet) ->
        {inlet, effects} = inlet |> park(from, {:fresh, iovec}, timeout) |> serve()
        {:wait, inlet, effects}

      true ->
        write_at_once(inlet, from, iovec, timeout)
    end
  end

  defp waiting?(%__MODULE__{} = inlet), do: Operations.any?(inlet.queue, [:stdin])

  defp write_at_once(%__MODULE__{} = inlet, from, iovec, timeout \\ :infinity) do
    case Native.write(inlet.stdin, iovec) do
      :ok ->
        {:reply, :ok, inlet |> follow_lines(iovec, size(iovec)) |> let_guests_in()}

      {:partial, rest} ->
        done = size(iovec) - size(rest)
        inlet = inlet |> follow_lines(iovec, done) |> park(from, {:begun, rest, done}, timeout)
        {:wait, inlet, [{:again, :stdin}]}

      {:error, :guests} ->
        {:wait, park(inlet, from, {:fresh, iovec}, timeout), [{:again, :stdin}]}

      {:error, :eagain} ->
        {:wait, park(inlet, from, {:fresh, iovec}, timeout), []}

      {:error, reason} ->
        {:reply, {:error, reason}, refuse(inlet)}
    end
  end

  @doc "Callers may write by themselves while nobody waits, from the end of this call on: the descriptor, or `nil` where they may not."
  @spec invite_guests(t()) :: {Native.fd() | nil, t()}
  def invite_guests(
        %{line: :not_a_terminal, readers: :present, window: nil, stdin: stdin} = inlet
      )
      when stdin != :closed,
      do: {stdin, keep_guests_out(%{inlet | received: inlet.received || 0})}

  def invite_guests(%__MODULE__{} = inlet), do: {nil, inlet}

  @doc "A caller comes that was turned away."
  @spec receive_guest(t()) :: t()
  def receive_guest(%{received: nil} = inlet), do: inlet
  def receive_guest(%__MODULE__{} = inlet), do: %{inlet | received: Guest.count(inlet.received)}

  @doc "For good: the server alone knows what can be written from now on."
  @spec send_guests_away(t()) :: t()
  def send_guests_away(%{received: nil} = inlet), do: inlet

  def send_guests_away(%__MODULE__{} = inlet), do: %{keep_guests_out(inlet) | received: nil}

  defp keep_guests_out(%__MODULE__{} = inlet) do
    # What one does that is inside is done at the same time as this.
    _ = Native.keep_guests_out(inlet.stdin)
    inlet
  end

  defp let_guests_in(%{received: nil} = inlet), do: inlet

  defp let_guests_in(%__MODULE__{} = inlet) do
    :ok = Guest.let_in(inlet.stdin, inlet.received)
    inlet
  end

  @doc "Closes stdin, after the writes that were called before are done."
  @spec close(t(), GenServer.from()) :: {:reply, :ok, t()} | {:wait, t(), [effect()]}
  def close(%{stdin: :closed} = inlet, _from), do: {:reply, :ok, inlet}

  def close(%__MODULE__{} = inlet, from) do
    waiting? = waiting?(inlet)
    inlet = inlet |> queue_window() |> park(from, :close)
    {inlet, effects} = if waiting?, do: {inlet, []}, else: serve(inlet)
    {:wait, inlet, effects}
  end

  @doc "Writes what no caller waits for, and then closes stdin."
  @spec feed(t(), [binary()]) :: {t(), [effect()]}
  def feed(%__MODULE__{} = inlet, iovec) do
    inlet |> park(nil, {:fresh, iovec}) |> park(nil, :close) |> serve()
  end

  @doc "Takes what a feeder lays into this window."
  @spec attach(t(), Native.window() | nil) :: t()
  def attach(%__MODULE__{} = inlet, window), do: %{send_guests_away(inlet) | window: window}

  @doc "The feeder has laid something into the window. What waits already comes first, and then this."
  @spec fed(t()) :: {t(), [effect()]}
  def fed(%__MODULE__{} = inlet), do: if(waiting?(inlet), do: {inlet, []}, else: serve(inlet))

  @doc "Goes on with the queue, as far as there is room; then with the window."
  @spec serve(t()) :: {t(), [effect()]}
  def serve(%__MODULE__{} = inlet) do
    case Operations.next(inlet.queue, [:stdin]) do
      nil -> inlet |> let_guests_in() |> serve_window()
      %{data: :close} = operation -> serve_close(inlet, operation)
      %{data: {:fresh, iovec}} = operation -> serve_write(inlet, operation, iovec, 0)
      %{data: {:begun, rest, done}} = operation -> serve_write(inlet, operation, rest, done)
    end
  end

  @doc "The command is over, and nobody is left who could read: whoever waits for room gets `:epipe`."
  @spec readers_gone(t()) :: {t(), [effect()]}
  def readers_gone(%__MODULE__{} = inlet), do: serve(%{send_guests_away(inlet) | readers: :gone})

  @doc "The command is given up: stdin is closed, and whoever waits for room gets this error."
  @spec give_up(t(), {:error, term()}) :: {t(), [effect()]}
  def give_up(%__MODULE__{} = inlet, error) do
    {waiting, queue} = Operations.take_all(inlet.queue, :stdin)
    {shut(%{inlet | queue: queue}), Enum.map(waiting, &{:reply, &1, error})}
  end

  @doc "Nobody may write any more, and who waits gets `:closed`. The descriptor closes with the server."
  @spec leave(t()) :: {t(), [effect()]}
  def leave(%{stdin: :closed} = inlet), do: {inlet, []}

  def leave(%__MODULE__{} = inlet) do
    {waiting, queue} = Operations.take_all(inlet.queue, :stdin)
    left = %{inlet | stdin: :closed, left: inlet.stdin, received: nil, queue: queue}
    {refuse(left), Enum.map(waiting, &{:reply, &1, {:error, :closed}})}
  end

  @doc "Takes out a caller that died; `nil` if it does not wait here."
  @spec drop_caller(t(), reference()) :: {t(), [effect()]} | nil
  def drop_caller(%__MODULE__{} = inlet, monitor) do
    case Operations.drop_caller(inlet.queue, monitor) do
      {nil, _} ->
        nil

      {operation, queue} ->
        Caller.forget(operation)
        serve(%{inlet | queue: queue})
    end
  end

  @doc """
  The time of a write is over: what is not in the pipe of it is withdrawn. `nil` when it does not wait here.
  """
  @spec expire(t(), reference()) :: {t(), [effect()]} | nil
  def expire(%__MODULE__{} = inlet, monitor) do
    case Operations.withdraw(inlet.queue, monitor) do
      {nil, _} ->
        nil

      {operation, queue} ->
        {inlet, effects} = serve(%{inlet | queue: queue})
        {inlet, [{:reply, operation, {:error, {:timeout, done(operation.data)}}} | effects]}
    end
  end

  defp done({:fresh, _iovec}), do: 0
  defp done({:begun, _rest, done}), do: done

  # --- closing ------------------------------------------------------------------------------------

  defp serve_close(%{line: line} = inlet, operation)
       when line != :not_a_terminal and inlet.stdin != :closed and inlet.readers == :present do
    write_end_of_file(inlet, operation)
  end

  defp serve_close(%__MODULE__{} = inlet, operation),
    do: inlet |> shut() |> answer(operation, :ok)

  # At the start of a line, the character ends the input; elsewhere it ends the line, and it takes a second one to end
  # the input (termios(3)).
  defp write_end_of_file(%__MODULE__{} = inlet, operation) do
    with {:ok, character} <- Native.eof_character(inlet.stdin),
         bytes = if(inlet.line == :at_start, do: <<character>>, else: <<character, character>>),
         {:error, :eagain} <- Native.write_uncounted(inlet.stdin, [bytes]) do
      {inlet, []}
    else
      # Only the first of two was written: the line is ended, the input not yet.
      {:partial, _} -> {%{inlet | line: :at_start}, [{:again, :stdin}]}
      _written_or_gone -> inlet |> shut() |> answer(operation, :ok)
    end
  end

  @doc "Closes stdin. Answers nobody."
  @spec shut(t()) :: t()
  def shut(%{left: left} = inlet) when left != nil do
    Native.close(left)
    %{inlet | left: nil}
  end

  def shut(%{stdin: :closed} = inlet), do: inlet

  def shut(%__MODULE__{} = inlet) do
    Native.close(inlet.stdin)
    refuse(%{inlet | stdin: :closed, received: nil})
  end

  # --- writing ------------------------------------------------------------------------------------

  # `done`: how many bytes of it are in the pipe.
  defp serve_write(%{stdin: :closed} = inlet, operation, _iovec, _done),
    do: answer(inlet, operation, {:error, :closed})

  defp serve_write(%{readers: :gone} = inlet, operation, _iovec, _done),
    do: answer(inlet, operation, {:error, :epipe})

  defp serve_write(%__MODULE__{} = inlet, operation, iovec, done) do
    case Native.write(inlet.stdin, iovec) do
      :ok ->
        inlet |> follow_lines(iovec, size(iovec)) |> answer(operation, :ok)

      {:partial, rest} ->
        now = size(iovec) - size(rest)
        inlet = follow_lines(inlet, iovec, now)
        queue = Operations.update(inlet.queue, operation, {:begun, rest, done + now})
        {%{inlet | queue: queue}, [{:again, :stdin}]}

      {:error, :eagain} ->
        {inlet, []}

      {:error, :guests} ->
        {inlet, [{:again, :stdin}]}

      {:error, reason} ->
        inlet |> refuse() |> answer(operation, {:error, reason})
    end
  end

  defp size(iovec), do: IO.iodata_length(iovec)

  # The rest of a write may be withdrawn, so what counts is the last byte that was written.
  defp follow_lines(%{line: :not_a_terminal} = inlet, _iovec, _size), do: inlet
  defp follow_lines(%__MODULE__{} = inlet, _iovec, 0), do: inlet

  defp follow_lines(%__MODULE__{} = inlet, iovec, size) do
    %{inlet | line: if(last_byte(iovec, size) == ?\n, do: :at_start, else: :begun)}
  end

  defp last_byte([part | parts], size) when byte_size(part) < size,
    do: last_byte(parts, size - byte_size(part))

  defp last_byte([part | _parts], size), do: :binary.at(part, size - 1)

  # --- the window ---------------------------------------------------------------------------------

  # What lies in the window was produced before whatever is asked for now.
  defp queue_window(%{window: nil} = inlet), do: inlet

  defp queue_window(%__MODULE__{} = inlet) do
    case Native.take(inlet.window) do
      "" -> inlet
      bytes -> park(inlet, nil, {:fresh, [bytes]})
    end
  end

  # Once: what is laid there from now on comes with a message of its own, so that other messages get their turn.
  defp serve_window(%{window: nil} = inlet), do: {inlet, []}
  defp serve_window(%{stdin: :closed} = inlet), do: {refuse(inlet), []}
  defp serve_window(%{readers: :gone} = inlet), do: {refuse(inlet), []}

  defp serve_window(%__MODULE__{} = inlet) do
    case Native.take(inlet.window) do
      "" ->
        {inlet, []}

      bytes ->
        case write_at_once(inlet, nil, [bytes]) do
          {:reply, _written_or_refused, inlet} -> {inlet, []}
          {:wait, inlet, effects} -> {inlet, effects}
        end
    end
  end

  # The feeder hears of it when it lays the next piece there.
  defp refuse(%{window: nil} = inlet), do: inlet

  defp refuse(%__MODULE__{} = inlet) do
    Native.close_window(inlet.window)
    %{inlet | window: nil}
  end

  # --- the queue ----------------------------------------------------------------------------------

  defp park(inlet, from, data, timeout \\ :infinity)

  # What nobody waits for.
  defp park(%__MODULE__{} = inlet, nil, data, :infinity) do
    %{inlet | queue: Operations.park(inlet.queue, :stdin, nil, data, nil)}
  end

  defp park(%__MODULE__{} = inlet, from, data, timeout) do
    %{inlet | queue: Caller.park(inlet.queue, :stdin, from, data, timeout)}
  end

  # Answers, and goes on with the next.
  defp answer(%__MODULE__{} = inlet, operation, result) do
    {inlet, effects} = serve(%{inlet | queue: Operations.finish(inlet.queue, operation)})
    {inlet, [{:reply, operation, result} | effects]}
  end
end
