defmodule NetRunner.Process.Inlet do
  @moduledoc false
  # A command's stdin, as its server sees it: the descriptor, and who waits to write to it.
  #
  # Writes are done in the order of their calls, and the bytes of two writes are never mixed. Race: half a write.
  # Functions return the new inlet and what is to be done: answers, and `{:again, :stdin}`, to go on after other
  # messages.

  alias NetRunner.Process.{Counters, Operations}
  alias NetRunner.System.Native

  # `stdin`: the descriptor; `:closed` when the VM has closed it; `:none` when the command's stdin leads elsewhere.
  # `readers`: whether somebody may be left who reads. `line`: for a terminal, whether the input is at the start of a
  # line, which decides how its end is written.
  @enforce_keys [:stdin, :line, :counters]
  defstruct [:stdin, :line, :counters, readers: :present, queue: Operations.new()]

  @type t :: %__MODULE__{
          stdin: Native.fd() | :closed | :none,
          line: :not_a_terminal | :at_start | :begun,
          counters: Counters.t(),
          readers: :present | :gone,
          queue: Operations.t()
        }

  @type effect :: {:reply, Operations.operation(), term()} | {:again, :stdin}

  @spec new(Native.fd() | nil, boolean(), Counters.t()) :: t()
  def new(stdin, terminal?, counters) do
    line = if terminal?, do: :at_start, else: :not_a_terminal
    %__MODULE__{stdin: stdin || :none, line: line, counters: counters}
  end

  @doc """
  A caller's write: its result if there is room for all of it, as there mostly is; otherwise it is queued.
  """
  @spec write(t(), GenServer.from(), [binary()]) ::
          {:reply, term(), t()} | {:wait, t(), [effect()]}
  def write(%{stdin: :none} = inlet, _from, _iovec), do: {:reply, {:error, :not_piped}, inlet}
  def write(%{stdin: :closed} = inlet, _from, _iovec), do: {:reply, {:error, :closed}, inlet}
  def write(%{readers: :gone} = inlet, _from, _iovec), do: {:reply, {:error, :epipe}, inlet}

  def write(inlet, from, iovec) do
    # If somebody waits for room already, stdin is selected, and this write has to wait its turn.
    if Operations.any?(inlet.queue, [:stdin]) do
      {:wait, park(inlet, from, {:fresh, iovec}), []}
    else
      case Native.write(inlet.stdin, iovec) do
        :ok ->
          {:reply, :ok, written(inlet, iovec, [])}

        {:partial, rest} ->
          inlet = inlet |> written(iovec, rest) |> park(from, {:begun, rest})
          {:wait, inlet, [{:again, :stdin}]}

        {:error, :eagain} ->
          {:wait, park(inlet, from, {:fresh, iovec}), []}

        {:error, reason} ->
          {:reply, {:error, reason}, inlet}
      end
    end
  end

  @doc "Closes stdin, after the writes that were called before are done."
  @spec close(t(), GenServer.from()) :: {:reply, :ok, t()} | {:wait, t(), [effect()]}
  def close(%{stdin: none} = inlet, _from) when none in [:closed, :none], do: {:reply, :ok, inlet}

  def close(inlet, from) do
    waiting? = Operations.any?(inlet.queue, [:stdin])
    inlet = park(inlet, from, :close)
    {inlet, effects} = if waiting?, do: {inlet, []}, else: serve(inlet)
    {:wait, inlet, effects}
  end

  @doc "Writes what no caller waits for, and then closes stdin."
  @spec feed(t(), [binary()]) :: {t(), [effect()]}
  def feed(inlet, iovec) do
    queue =
      inlet.queue
      |> Operations.park(:stdin, nil, {:fresh, iovec}, nil)
      |> Operations.park(:stdin, nil, :close, nil)

    serve(%{inlet | queue: queue})
  end

  @doc "Goes on with the queue, as far as there is room."
  @spec serve(t()) :: {t(), [effect()]}
  def serve(inlet) do
    case Operations.next(inlet.queue, [:stdin]) do
      nil -> {inlet, []}
      %{data: :close} = operation -> serve_close(inlet, operation)
      %{data: {_, iovec}} = operation -> serve_write(inlet, operation, iovec)
    end
  end

  @doc "The command is over, and nobody is left who could read: whoever waits for room gets `:epipe`."
  @spec readers_gone(t()) :: {t(), [effect()]}
  def readers_gone(inlet), do: serve(%{inlet | readers: :gone})

  @doc "The command is given up: stdin is closed, and whoever waits for room gets this error."
  @spec give_up(t(), {:error, term()}) :: {t(), [effect()]}
  def give_up(inlet, error) do
    {waiting, queue} = Operations.take_all(inlet.queue, :stdin)
    {shut(%{inlet | queue: queue}), Enum.map(waiting, &{:reply, &1, error})}
  end

  @doc "Takes out a caller that died; `nil` if it does not wait here."
  @spec drop_caller(t(), reference()) :: {t(), [effect()]} | nil
  def drop_caller(inlet, monitor) do
    case Operations.drop_caller(inlet.queue, monitor) do
      {nil, _} -> nil
      {_operation, queue} -> serve(%{inlet | queue: queue})
    end
  end

  # --- closing ------------------------------------------------------------------------------------

  defp serve_close(%{line: line} = inlet, operation)
       when line != :not_a_terminal and inlet.stdin != :closed and inlet.readers == :present do
    write_end_of_file(inlet, operation)
  end

  defp serve_close(inlet, operation), do: inlet |> shut() |> answer(operation, :ok)

  # At the start of a line, the character ends the input; elsewhere it ends the line, and it takes a second one to end
  # the input (termios(3)).
  defp write_end_of_file(inlet, operation) do
    with {:ok, character} <- Native.eof_character(inlet.stdin),
         bytes = if(inlet.line == :at_start, do: <<character>>, else: <<character, character>>),
         {:error, :eagain} <- Native.write(inlet.stdin, [bytes]) do
      {inlet, []}
    else
      # Only the first of two was written: the line is ended, the input not yet.
      {:partial, _} -> {%{inlet | line: :at_start}, [{:again, :stdin}]}
      _written_or_gone -> inlet |> shut() |> answer(operation, :ok)
    end
  end

  defp shut(%{stdin: none} = inlet) when none in [:closed, :none], do: inlet

  defp shut(inlet) do
    Native.close(inlet.stdin)
    %{inlet | stdin: :closed}
  end

  # --- writing ------------------------------------------------------------------------------------

  defp serve_write(%{stdin: :closed} = inlet, operation, _iovec),
    do: answer(inlet, operation, {:error, :closed})

  defp serve_write(%{readers: :gone} = inlet, operation, _iovec),
    do: answer(inlet, operation, {:error, :epipe})

  defp serve_write(inlet, operation, iovec) do
    case Native.write(inlet.stdin, iovec) do
      :ok ->
        inlet |> written(iovec, []) |> answer(operation, :ok)

      {:partial, rest} ->
        inlet = written(inlet, iovec, rest)
        queue = Operations.update(inlet.queue, operation, {:begun, rest})
        {%{inlet | queue: queue}, [{:again, :stdin}]}

      {:error, :eagain} ->
        {inlet, []}

      {:error, reason} ->
        answer(inlet, operation, {:error, reason})
    end
  end

  defp written(inlet, iovec, rest) do
    Counters.add_write(inlet.counters, IO.iodata_length(iovec) - IO.iodata_length(rest))
    follow_lines(inlet, iovec)
  end

  # After a partial write this is about the wrong end, but the rest follows and puts it right.
  defp follow_lines(%{line: :not_a_terminal} = inlet, _iovec), do: inlet

  defp follow_lines(inlet, iovec) do
    case iovec |> Enum.reverse() |> Enum.find(&(&1 != "")) do
      nil -> inlet
      bytes -> %{inlet | line: if(:binary.last(bytes) == ?\n, do: :at_start, else: :begun)}
    end
  end

  # --- the queue ----------------------------------------------------------------------------------

  defp park(inlet, {pid, _} = from, data) do
    %{inlet | queue: Operations.park(inlet.queue, :stdin, from, data, Process.monitor(pid))}
  end

  # Answers, and goes on with the next.
  defp answer(inlet, operation, result) do
    {inlet, effects} = serve(%{inlet | queue: Operations.finish(inlet.queue, operation)})
    {inlet, [{:reply, operation, result} | effects]}
  end
end
