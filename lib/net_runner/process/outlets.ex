defmodule NetRunner.Process.Outlets do
  @moduledoc false
  # A command's stdout and stderr, as its server sees them, and who waits for their bytes.
  #
  # A stream is read when somebody asks for its bytes. Two streams are read by the server itself: a stderr that is
  # consumed, of which only the last bytes are kept; and the output of a command that is being ended, which is
  # discarded, so that a full pipe does not keep the command from ending.
  #
  # Functions return the new outlets and what is to be done: answers; `{:again, stream}`, to go on after other messages;
  # `{:condemn, cause}`, to end the command; and `{:collected, operation, result}`.

  alias NetRunner.Process.{Collector, Counters, Lifecycle, Operations, Pipe}
  alias NetRunner.System.Native

  # How much the server reads at once for itself, or for a caller that wants everything.
  @bulk 524_288

  defmodule Outlet do
    @moduledoc false
    # `demand`: who gets the bytes. `left`: how many more bytes will be read.
    @enforce_keys [:pipe, :demand]
    defstruct [:pipe, :demand, left: :infinity]

    @type t :: %__MODULE__{
            pipe: Pipe.t(),
            demand: :readers | {:tail, binary(), size :: non_neg_integer()} | {:discard, error()},
            left: non_neg_integer() | :infinity
          }
    @type error :: {:error, term()}
  end

  # `writers`: who may still write. `:running`: the command. `:left_behind`: processes that it has left, and that are
  # waited for. `:lingering`: the same, but they are not waited for any more. `:gone`: nobody, except a process outside of
  # the command's tree that was given the pipe; that is not waited for.
  # `first`: the stream that `read_any` tries first. It changes, so that none starves.
  @enforce_keys [:stdout, :stderr, :counters]
  defstruct [
    :stdout,
    :stderr,
    :counters,
    writers: :running,
    first: :stdout,
    queue: Operations.new()
  ]

  @type stream :: :stdout | :stderr
  @type t :: %__MODULE__{
          stdout: Outlet.t() | nil,
          stderr: Outlet.t() | nil,
          counters: Counters.t(),
          writers: :running | :left_behind | :lingering | :gone,
          first: stream(),
          queue: Operations.t()
        }

  @type effect ::
          {:reply, Operations.operation(), term()}
          | {:again, stream()}
          | {:condemn, Lifecycle.cause()}
          | {:collected, Operations.operation(), binary() | {:error, term()}}

  @doc "`tail`: how many of its last bytes are kept of a stderr that is consumed; `nil`: it is not consumed."
  @spec new(Pipe.t() | nil, Pipe.t() | nil, non_neg_integer() | nil, Counters.t()) :: t()
  def new(stdout, stderr, tail, counters) do
    %__MODULE__{
      stdout: stdout && %Outlet{pipe: stdout, demand: :readers},
      stderr:
        stderr && %Outlet{pipe: stderr, demand: if(tail, do: {:tail, "", tail}, else: :readers)},
      counters: counters
    }
  end

  # --- what callers ask ---------------------------------------------------------------------------

  @doc "A caller's read: its result if it has one at once; otherwise it is queued."
  @spec read(t(), GenServer.from(), stream() | :any, pos_integer()) ::
          {:reply, term(), t()} | {:wait, t(), [effect()]}
  def read(outlets, from, :any, max_bytes) do
    if gone?(from) or Operations.any?(outlets.queue, competing(:stdout) ++ competing(:stderr)) do
      {outlets, effects} = outlets |> park(:any, from, max_bytes) |> serve_all()
      {:wait, outlets, effects}
    else
      case take_any(outlets, [:stdout, :stderr], max_bytes) do
        {{:error, :eagain}, outlets} -> {:wait, park(outlets, :any, from, max_bytes), []}
        {result, outlets} -> {:reply, result, outlets}
      end
    end
  end

  def read(outlets, from, stream, max_bytes) do
    competes? = gone?(from) or Operations.any?(outlets.queue, competing(stream))

    if competes? and gives_bytes?(outlets, stream) do
      {:wait, park(outlets, stream, from, max_bytes), []}
    else
      case take(outlets, stream, max_bytes) do
        {{:error, :eagain}, outlets} -> {:wait, park(outlets, stream, from, max_bytes), []}
        {result, outlets} -> {:reply, result, outlets}
      end
    end
  end

  @doc "Collects all of stdout for a caller, until its end."
  @spec collect(t(), GenServer.from(), non_neg_integer() | :infinity) :: {t(), [effect()]}
  def collect(outlets, from, limit) do
    outlets |> park(:collect, from, Collector.new(limit)) |> serve(:stdout)
  end

  @doc "The descriptor of stdout, for a caller that reads it by itself as long as something is there."
  @spec lend(t()) :: {:ok, Native.fd()} | :no
  def lend(%{stdout: %Outlet{demand: :readers, pipe: pipe}, writers: :running} = outlets) do
    if pipe.terminal? or pipe.fd == nil or Operations.any?(outlets.queue, competing(:stdout)),
      do: :no,
      else: {:ok, pipe.fd}
  end

  def lend(_outlets), do: :no

  @doc "Sets the size of the terminal, if the command has one and is there."
  @spec set_window_size(t(), non_neg_integer(), non_neg_integer()) :: :ok | {:error, atom()}
  def set_window_size(
        %{stdout: %Outlet{pipe: %Pipe{terminal?: true, fd: fd}}} = outlets,
        rows,
        columns
      ) do
    cond do
      outlets.writers == :gone -> {:error, :esrch}
      fd == nil -> {:error, :closed}
      true -> Native.set_window_size(fd, rows, columns)
    end
  end

  def set_window_size(_outlets, _rows, _columns), do: {:error, :enotty}

  # --- what happens to the command ------------------------------------------------------------------

  @doc "Goes on with a stream that may have something to read."
  @spec serve(t(), stream()) :: {t(), [effect()]}
  def serve(outlets, stream) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: {:tail, _, _}} -> consume(outlets, stream)
      %Outlet{demand: {:discard, _}} -> discard(outlets, stream)
      _on_demand -> serve_next(outlets, stream)
    end
  end

  @spec serve_all(t()) :: {t(), [effect()]}
  def serve_all(outlets) do
    {outlets, first} = serve(outlets, :stdout)
    {outlets, second} = serve(outlets, :stderr)
    {outlets, first ++ second}
  end

  @doc "The command is to end: what it still prints is discarded, and readers get this error."
  @spec discard_all(t(), {:error, term()}) :: {t(), [effect()]}
  def discard_all(outlets, error) do
    # Race: read under a discard.
    Counters.put_access(outlets.counters, :nobody)
    outlets |> map(&stop_reading(&1, error)) |> serve_all()
  end

  # A consumed stderr is read on: its last bytes are for an error message, which may follow.
  defp stop_reading(%Outlet{demand: :readers} = outlet, error),
    do: %{outlet | demand: {:discard, error}}

  defp stop_reading(outlet, _error), do: outlet

  @doc "The command has exited; see `writers`."
  @spec writers(t(), :left_behind | :gone | :lingering) :: {t(), [effect()]}
  def writers(outlets, :left_behind), do: serve_all(%{outlets | writers: :left_behind})

  # What is in the pipes now is the rest. Race: rest without an end.
  def writers(outlets, writers) do
    Counters.put_access(outlets.counters, :server)
    outlets = map(outlets, &%{&1 | left: Pipe.rest(&1.pipe)})
    serve_all(%{outlets | writers: writers})
  end

  @doc "Closes both, even if somebody may still write. Answers nobody."
  @spec close(t()) :: t()
  def close(outlets) do
    Counters.put_access(outlets.counters, :nobody)
    map(outlets, &%{&1 | pipe: Pipe.close(&1.pipe)})
  end

  @doc "Takes out a caller that died: `nil` if it does not wait here, `:collector` if it was to get all the output."
  @spec drop_caller(t(), reference()) :: {t(), [effect()]} | :collector | nil
  def drop_caller(outlets, monitor) do
    case Operations.drop_caller(outlets.queue, monitor) do
      {nil, _} -> nil
      {%{kind: :collect}, _} -> :collector
      # The next in the queue may have its turn now.
      {_operation, queue} -> serve_all(%{outlets | queue: queue})
    end
  end

  @doc "The last bytes of a stderr that is consumed."
  @spec tail(t()) :: binary()
  def tail(%{stderr: %Outlet{demand: {:tail, tail, _}}}), do: tail
  def tail(_outlets), do: ""

  @doc "The stream that has this descriptor."
  @spec stream_of(t(), Native.fd()) :: stream() | nil
  def stream_of(%{stdout: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stdout
  def stream_of(%{stderr: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stderr
  def stream_of(_outlets, _fd), do: nil

  # --- the queues ---------------------------------------------------------------------------------

  # The kinds of operations that take bytes of a stream.
  defp competing(:stdout), do: [:stdout, :any, :collect]
  defp competing(:stderr), do: [:stderr, :any]

  defp park(outlets, kind, {pid, _} = from, data) do
    %{outlets | queue: Operations.park(outlets.queue, kind, from, data, Process.monitor(pid))}
  end

  # Race: dead reader first.
  defp gone?({pid, _}), do: node(pid) == node() and not Process.alive?(pid)

  defp serve_next(outlets, stream) do
    case Operations.next(outlets.queue, competing(stream)) do
      nil ->
        {outlets, []}

      %{kind: :collect} = operation ->
        serve_collect(outlets, operation)

      operation ->
        cond do
          # On both streams somebody may have waited behind it.
          gone?(operation.from) -> outlets |> finish(operation) |> serve_all()
          operation.kind == :any -> serve_any(outlets, operation, stream)
          true -> serve_reader(outlets, operation, stream)
        end
    end
  end

  defp serve_reader(outlets, operation, stream) do
    case take(outlets, operation.kind, operation.data) do
      {{:error, :eagain}, outlets} ->
        {outlets, []}

      {result, outlets} ->
        outlets |> finish(operation) |> serve(stream) |> reply(operation, result)
    end
  end

  # It takes bytes only of streams on which nobody has waited longer.
  defp serve_any(outlets, operation, stream) do
    first? = &(Operations.next(outlets.queue, competing(&1)) == operation)
    streams = Enum.filter([:stdout, :stderr], first?)

    case take_any(outlets, streams, operation.data) do
      {{:error, :eagain}, outlets} -> serve_end(outlets, stream)
      {:eof, outlets} when length(streams) == 1 -> serve_end(outlets, stream)
      {result, outlets} -> outlets |> finish(operation) |> serve_all() |> reply(operation, result)
    end
  end

  # An end is there for all. Who waits behind one that waits for the other stream need not wait for that.
  defp serve_end(outlets, stream) do
    operation = Operations.next(outlets.queue, [stream])

    if operation == nil or gives_bytes?(outlets, stream),
      do: {outlets, []},
      else: serve_reader(outlets, operation, stream)
  end

  # Whether there can be any for readers.
  defp gives_bytes?(outlets, stream) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: :readers, pipe: %Pipe{fd: fd}} -> fd != nil
      _discarded_consumed_or_not_piped -> false
    end
  end

  defp finish(outlets, operation) do
    %{outlets | queue: Operations.finish(outlets.queue, operation)}
  end

  defp reply({outlets, effects}, operation, result) do
    {outlets, [{:reply, operation, result} | effects]}
  end

  # --- collecting ---------------------------------------------------------------------------------

  defp serve_collect(outlets, %{data: collector} = operation) do
    case take(outlets, :stdout, @bulk) do
      {{:ok, bytes}, outlets} ->
        {fits, collector} = Collector.add(collector, bytes)
        outlets = %{outlets | queue: Operations.update(outlets.queue, operation, collector)}

        if fits == :ok,
          do: {outlets, [{:again, :stdout}]},
          else: break_off(outlets, operation, {:max_output_exceeded, Collector.output(collector)})

      {{:error, :eagain}, outlets} ->
        {outlets, []}

      # The output is complete, but the status is not known yet.
      {end_of_file, %{writers: :running} = outlets}
      when end_of_file in [:eof, {:error, :not_piped}] ->
        {outlets, []}

      {end_of_file, outlets} when end_of_file in [:eof, {:error, :not_piped}] ->
        {finish(outlets, operation), [{:collected, operation, Collector.output(collector)}]}

      {{:error, reason}, outlets} ->
        break_off(outlets, operation, {:read_failed, reason})
    end
  end

  # Where the command has exited, there is nothing left to end, and so nothing that would have it answered later.
  defp break_off(%{writers: :running} = outlets, _operation, cause),
    do: {outlets, [{:condemn, cause}]}

  defp break_off(outlets, operation, cause) do
    {finish(outlets, operation), [{:collected, operation, Lifecycle.error(cause)}]}
  end

  # --- what nobody asks for -----------------------------------------------------------------------

  defp consume(outlets, stream) do
    %Outlet{demand: {:tail, tail, size}} = outlet = Map.fetch!(outlets, stream)

    case read_pipe(outlets, stream, outlet, @bulk) do
      {{:ok, bytes}, outlets} ->
        outlet = %{Map.fetch!(outlets, stream) | demand: {:tail, tail(tail, bytes, size), size}}
        {Map.replace!(outlets, stream, outlet), [{:again, stream}]}

      {_eof_or_later, outlets} ->
        {outlets, []}
    end
  end

  # Copied, so that a few bytes do not keep a large chunk alive.
  defp tail(_tail, bytes, size) when byte_size(bytes) >= size do
    :binary.copy(binary_part(bytes, byte_size(bytes) - size, size))
  end

  defp tail(tail, bytes, size) do
    keep = min(byte_size(tail), size - byte_size(bytes))
    binary_part(tail, byte_size(tail) - keep, keep) <> bytes
  end

  # Readers are answered at once; a collect is answered when the command is over.
  defp discard(outlets, stream) do
    %Outlet{demand: {:discard, error}} = outlet = Map.fetch!(outlets, stream)

    case Operations.next(outlets.queue, competing(stream)) do
      %{kind: :collect} = operation when outlets.writers != :running ->
        output = Collector.output(operation.data)
        {finish(outlets, operation), [{:collected, operation, output}]}

      %{kind: kind} = operation when kind != :collect ->
        outlets |> finish(operation) |> serve(stream) |> reply(operation, error)

      _nobody ->
        case read_pipe(outlets, stream, outlet, @bulk) do
          {{:ok, _bytes}, outlets} -> {outlets, [{:again, stream}]}
          {_eof_or_later, outlets} -> {outlets, []}
        end
    end
  end

  # --- taking bytes -------------------------------------------------------------------------------

  defp take(outlets, stream, max_bytes) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: :readers} = outlet -> read_pipe(outlets, stream, outlet, max_bytes)
      %Outlet{demand: {:discard, error}} -> {error, outlets}
      # A consumed stderr belongs to the server.
      _not_piped -> {{:error, :not_piped}, outlets}
    end
  end

  defp take_any(outlets, [stream], max_bytes), do: take_tagged(outlets, stream, max_bytes)

  defp take_any(%{first: first} = outlets, [_, _], max_bytes) do
    second = if first == :stdout, do: :stderr, else: :stdout

    case take_tagged(outlets, first, max_bytes) do
      {{:ok, _} = result, outlets} ->
        {result, %{outlets | first: second}}

      {not_now, outlets} ->
        case take_tagged(outlets, second, max_bytes) do
          {{:ok, _} = result, outlets} -> {result, %{outlets | first: first}}
          {other, outlets} -> {worse(not_now, other), outlets}
        end
    end
  end

  defp take_tagged(outlets, stream, max_bytes) do
    case take(outlets, stream, max_bytes) do
      {{:ok, bytes}, outlets} -> {{:ok, {stream, bytes}}, outlets}
      {{:error, :not_piped}, outlets} -> {:eof, outlets}
      other -> other
    end
  end

  # `read_any` is at its end only when both streams are.
  defp worse(:eof, other), do: other
  defp worse(result, :eof), do: result
  defp worse({:error, :eagain}, other), do: other
  defp worse(result, _), do: result

  defp read_pipe(outlets, stream, %Outlet{left: 0} = outlet, _max_bytes) do
    {:eof, Map.replace!(outlets, stream, %{outlet | pipe: Pipe.close(outlet.pipe)})}
  end

  defp read_pipe(outlets, stream, outlet, max_bytes) do
    {result, pipe} = Pipe.read(outlet.pipe, min(max_bytes, outlet.left))

    case result do
      {:ok, bytes} ->
        size = byte_size(bytes)
        Counters.add_read(outlets.counters, stream, size)
        left = if outlet.left == :infinity, do: :infinity, else: outlet.left - size
        {result, Map.replace!(outlets, stream, %{outlet | pipe: pipe, left: left})}

      {:error, :eagain} when outlets.writers in [:gone, :lingering] ->
        {:eof, Map.replace!(outlets, stream, %{outlet | pipe: Pipe.close(pipe)})}

      _eof_or_error ->
        {result, Map.replace!(outlets, stream, %{outlet | pipe: pipe})}
    end
  end

  defp map(outlets, change) do
    for stream <- [:stdout, :stderr], reduce: outlets do
      outlets -> Map.update!(outlets, stream, &(&1 && change.(&1)))
    end
  end
end
