defmodule NetRunner.Process.Outlets do
  @moduledoc false
  # A command's stdout and stderr, as its server sees them, and who waits for their bytes.
  #
  # Of each stream, bytes are read when somebody asks for them (on demand), or by the server: a consumed stderr,
  # of which the end is kept, and what a command prints that is being ended, which is discarded so that a full
  # pipe does not keep it from ending.
  #
  # Functions give the new outlets and what is to be done: answers, `{:again, stream}` where going on at once would keep
  # other messages waiting, `{:condemn, cause}` where the command has to end, and `{:collected, operation, result}`.

  alias NetRunner.Process.{Collector, Counters, Lifecycle, Operations, Pipe}
  alias NetRunner.System.Native

  # What is read at once of what nobody has asked for in pieces.
  @bulk 524_288

  defmodule Outlet do
    @moduledoc false
    # `demand`: whose the bytes are. `left`: how many more are read.
    @enforce_keys [:pipe, :demand]
    defstruct [:pipe, :demand, left: :infinity]

    @type t :: %__MODULE__{
            pipe: Pipe.t(),
            demand: :readers | {:tail, binary(), size :: non_neg_integer()} | {:discard, error()},
            left: non_neg_integer() | :infinity
          }
    @type error :: {:error, term()}
  end

  # `writers`: who may still write. `:running`: the command. `:left_behind`: what it left, while that is waited for.
  # `:lingering`: the same, but an empty pipe is its end. `:gone`: nobody, unless a process outside of
  # the command's tree was given the pipe, and that is not waited for.
  # `first`: the stream that `read_any` looks at first, so that none starves.
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

  @doc "`tail`: how many bytes are kept of the end of a stderr that is consumed; `nil`: it is not."
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

  @doc "A read that a caller has asked for: what it comes to at once, or it is queued."
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
    if gone?(from) or Operations.any?(outlets.queue, competing(stream)) do
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

  @doc "The descriptor of stdout, for a caller that reads by itself what is there."
  @spec lend(t()) :: {:ok, Native.fd()} | :no
  def lend(%{stdout: %Outlet{demand: :readers, pipe: pipe}, writers: :running} = outlets) do
    if pipe.terminal? or pipe.fd == nil or Operations.any?(outlets.queue, competing(:stdout)),
      do: :no,
      else: {:ok, pipe.fd}
  end

  def lend(_outlets), do: :no

  @doc "Sets the size of the terminal, where there is one, and a program to tell."
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
    # Before the first byte is discarded: whoever reads by itself looks at it after each read.
    Counters.put_access(outlets.counters, :nobody)
    outlets |> map(&stop_reading(&1, error)) |> serve_all()
  end

  # A tail is for error messages, of which one may follow.
  defp stop_reading(%Outlet{demand: :readers} = outlet, error),
    do: %{outlet | demand: {:discard, error}}

  defp stop_reading(outlet, _error), do: outlet

  @doc "The command has exited; see `writers`."
  @spec writers(t(), :left_behind | :gone | :lingering) :: {t(), [effect()]}
  def writers(outlets, :left_behind), do: serve_all(%{outlets | writers: :left_behind})

  # What is in the pipes now is the rest. What comes later was written by somebody who is not waited for, and who may
  # write for ever.
  def writers(outlets, writers) do
    Counters.put_access(outlets.counters, :server)
    outlets = map(outlets, &%{&1 | left: Pipe.rest(&1.pipe)})
    serve_all(%{outlets | writers: writers})
  end

  @doc "Closes both, whoever may still write; nobody is answered."
  @spec close(t()) :: t()
  def close(outlets) do
    Counters.put_access(outlets.counters, :nobody)
    map(outlets, &%{&1 | pipe: Pipe.close(&1.pipe)})
  end

  @doc "Takes out a caller that died; `nil` when it does not wait here, `:collector` when it was to get all."
  @spec drop_caller(t(), reference()) :: {t(), [effect()]} | :collector | nil
  def drop_caller(outlets, monitor) do
    case Operations.drop_caller(outlets.queue, monitor) do
      {nil, _} -> nil
      {%{kind: :collect}, _} -> :collector
      # Whoever stood behind it may be served now.
      {_operation, queue} -> serve_all(%{outlets | queue: queue})
    end
  end

  @doc "The end of a stderr that is consumed."
  @spec tail(t()) :: binary()
  def tail(%{stderr: %Outlet{demand: {:tail, tail, _}}}), do: tail
  def tail(_outlets), do: ""

  @doc "Whether a stream's descriptor is this one."
  @spec stream_of(t(), Native.fd()) :: stream() | nil
  def stream_of(%{stdout: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stdout
  def stream_of(%{stderr: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stderr
  def stream_of(_outlets, _fd), do: nil

  # --- the queues ---------------------------------------------------------------------------------

  # Which waiting operations take bytes of a stream.
  defp competing(:stdout), do: [:stdout, :any, :collect]
  defp competing(:stderr), do: [:stderr, :any]

  defp park(outlets, kind, {pid, _} = from, data) do
    %{outlets | queue: Operations.park(outlets.queue, kind, from, data, Process.monitor(pid))}
  end

  # What is read for a caller that is dead is lost, and the news of its death may be further back in the
  # mailbox than what made the pipe worth a read.
  defp gone?({pid, _}), do: node(pid) == node() and not Process.alive?(pid)

  defp serve_next(outlets, stream) do
    case Operations.next(outlets.queue, competing(stream)) do
      nil ->
        {outlets, []}

      %{kind: :collect} = operation ->
        serve_collect(outlets, operation)

      operation ->
        cond do
          # The news, when it comes, has the others served that it kept waiting.
          gone?(operation.from) -> outlets |> finish(operation) |> serve(stream)
          operation.kind == :any -> serve_any(outlets, operation)
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

  # It takes no bytes of a stream on which somebody has waited longer.
  defp serve_any(outlets, operation) do
    first? = &(Operations.next(outlets.queue, competing(&1)) == operation)
    streams = Enum.filter([:stdout, :stderr], first?)

    case take_any(outlets, streams, operation.data) do
      {{:error, :eagain}, outlets} -> {outlets, []}
      {:eof, outlets} when length(streams) == 1 -> {outlets, []}
      {result, outlets} -> outlets |> finish(operation) |> serve_all() |> reply(operation, result)
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
          else: too_much(outlets, operation, collector)

      {{:error, :eagain}, outlets} ->
        {outlets, []}

      # The status is not known yet.
      {end_of_file, %{writers: :running} = outlets}
      when end_of_file in [:eof, {:error, :not_piped}] ->
        {outlets, []}

      {end_of_file, outlets} when end_of_file in [:eof, {:error, :not_piped}] ->
        {finish(outlets, operation), [{:collected, operation, Collector.output(collector)}]}

      {{:error, reason}, outlets} ->
        {outlets, [{:condemn, {:read_failed, reason}}]}
    end
  end

  defp too_much(outlets, operation, collector) do
    cause = {:max_output_exceeded, Collector.output(collector)}

    if outlets.writers == :running,
      do: {outlets, [{:condemn, cause}]},
      else: {finish(outlets, operation), [{:collected, operation, {:error, cause}}]}
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

  # A copy, so that a few bytes do not keep a large chunk alive.
  defp tail(_tail, bytes, size) when byte_size(bytes) >= size do
    :binary.copy(binary_part(bytes, byte_size(bytes) - size, size))
  end

  defp tail(tail, bytes, size) do
    keep = min(byte_size(tail), size - byte_size(bytes))
    binary_part(tail, byte_size(tail) - keep, keep) <> bytes
  end

  # Readers are answered at once; a collect when the command is over.
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

  # An end of file is one only when both streams are at theirs.
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
