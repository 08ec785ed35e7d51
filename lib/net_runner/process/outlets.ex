defmodule NetRunner.Process.Outlets do
  @moduledoc false
  # A command's stdout and stderr, as its server sees them, and who waits for their bytes.
  #
  # A stream is read when somebody asks for its bytes. Two streams are read by the server itself: a stderr that is
  # consumed, of which only the last bytes are kept; and the output of a command that is being ended, which is
  # discarded, so that a full pipe does not keep the command from ending.
  #
  # A `read_until` keeps the bytes of stdout that it has looked at: whoever is next takes them first. While it looks, it
  # holds its place, and nobody behind it is served.
  #
  # Functions return the new outlets and what is to be done: answers; `{:again, stream}`, to go on after other messages;
  # `{:condemn, cause}`, to end the command; `{:collected, operation, result}`; and what the asker is sent.

  alias NetRunner.Process.{Asker, Caller, Collector, Counters, Guest, Lifecycle, Operations, Pipe}
  alias NetRunner.System.Native

  # How much the server reads at once for itself, or for a caller that wants everything.
  @bulk 524_288

  # What an asker is sent at once, and a `read_until` gets to see.
  @piece 65_536

  defmodule Outlet do
    @moduledoc false
    # `demand`: who gets the bytes. `left`: how many more bytes will be read. `kept`: bytes that were read from the pipe,
    # and that nobody has got yet.
    @enforce_keys [:pipe, :demand]
    defstruct [:pipe, :demand, left: :infinity, kept: ""]

    @type t :: %__MODULE__{
            pipe: Pipe.t(),
            demand: :readers | {:tail, binary(), size :: non_neg_integer()} | {:discard, error()},
            left: non_neg_integer() | :infinity,
            kept: binary()
          }
    @type error :: {:error, term()}
  end

  # `writers`: who may still write. `:running`: the command. `:left_behind`: processes that it has left, and that are
  # waited for. `:lingering`: the same, but they are not waited for any more. `:gone`: nobody, except a process outside of
  # the command's tree that was given the pipe; that is not waited for.
  # `clock`: whether the times of `{:idle, ms}` run. `received`: of the guests that were turned away, how many have come;
  # `nil` where there are no guests.
  # `first`: the stream that `read_any` tries first. It changes, so that none starves. `exit`: what an asker is told of
  # the end of the command, when that is known.
  @enforce_keys [:stdout, :stderr, :counters]
  defstruct [
    :stdout,
    :stderr,
    :counters,
    writers: :running,
    clock: :runs,
    received: nil,
    first: :stdout,
    asker: nil,
    exit: nil,
    queue: Operations.new()
  ]

  @type stream :: :stdout | :stderr
  @type t :: %__MODULE__{
          stdout: Outlet.t() | nil,
          stderr: Outlet.t() | nil,
          counters: Counters.t(),
          writers: :running | :left_behind | :lingering | :gone,
          clock: :runs | :stands,
          received: non_neg_integer() | nil,
          first: stream(),
          asker: Asker.t() | nil,
          exit: 0..255 | :shepherd_died | nil,
          queue: Operations.t()
        }

  @type effect ::
          {:reply, Operations.operation(), term()}
          | {:again, stream()}
          | {:condemn, Lifecycle.cause()}
          | {:collected, Operations.operation(), Collector.t() | {:error, term()}}
          | {:answer_caller, GenServer.from(), term()}
          | {:send, pid(), {stream() | :eof | :exit, term()}}

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

  @doc "A caller's read, with so many ms: its result if it has one at once; otherwise it is queued."
  @spec read(t(), GenServer.from(), stream() | :any, pos_integer(), Caller.time()) ::
          {:reply, term(), t()} | {:wait, t(), [effect()]}
  def read(%__MODULE__{} = outlets, from, :any, max_bytes, timeout) do
    if gone?(from) or Operations.any?(outlets.queue, competing(:stdout) ++ competing(:stderr)) do
      {outlets, effects} = outlets |> park(:any, from, max_bytes, timeout) |> serve_all()
      {:wait, outlets, effects}
    else
      case take_any(outlets, [:stdout, :stderr], max_bytes) do
        {{:error, :eagain}, outlets} -> {:wait, park(outlets, :any, from, max_bytes, timeout), []}
        {result, outlets} -> answer(outlets, from, result)
      end
    end
  end

  def read(%__MODULE__{} = outlets, from, stream, max_bytes, timeout) do
    competes? = gone?(from) or Operations.any?(outlets.queue, competing(stream))

    if competes? and gives_bytes?(outlets, stream) do
      {:wait, park(outlets, stream, from, max_bytes, timeout), []}
    else
      case take(outlets, stream, max_bytes) do
        {{:error, :eagain}, outlets} ->
          {:wait, park(outlets, stream, from, max_bytes, timeout), []}

        {result, outlets} ->
          answer(outlets, from, result)
      end
    end
  end

  defp answer(%{asker: nil} = outlets, _from, result),
    do: {:reply, result, let_guests_in(outlets)}

  # What was taken may have been all that stood before the end, of which an asker is told.
  defp answer(%__MODULE__{} = outlets, from, result) do
    {outlets, effects} = serve_all(outlets)
    {:wait, outlets, [{:answer_caller, from, result} | effects]}
  end

  @doc "The command is suspended, or goes on: so do the times that stand still then."
  @spec pause(t(), boolean()) :: t()
  def pause(%__MODULE__{} = outlets, pause?) do
    clock = if pause?, do: :stands, else: :runs
    %{outlets | clock: clock, queue: Operations.map(outlets.queue, &Caller.pause(&1, pause?))}
  end

  @doc "Collects all of stdout for a caller, until its end."
  @spec collect(t(), GenServer.from(), non_neg_integer() | :infinity) :: {t(), [effect()]}
  def collect(%__MODULE__{} = outlets, from, limit) do
    outlets
    |> keep_guests_out()
    |> park(:collect, from, Collector.new(limit), :infinity)
    |> serve(:stdout)
  end

  @doc """
  A caller looks at stdout until it finds what it waits for, in no more than so many bytes. Each time that there is
  something that it has not seen, it gets `{:ok, holder, bytes}`, and then says `look_on/4` or `take_seen/3`.
  """
  @spec hold(t(), GenServer.from(), pos_integer(), timeout()) :: {t(), [effect()]}
  def hold(%__MODULE__{} = outlets, from, limit, timeout) do
    outlets |> park(:hold, from, {0, limit}, timeout) |> serve(:stdout)
  end

  @doc "The holder has not found it in the first `seen` bytes, and waits for more."
  @spec look_on(t(), GenServer.from(), reference(), non_neg_integer()) ::
          {:reply, {:error, term()}, t()} | {:wait, t(), [effect()]}
  def look_on(%__MODULE__{} = outlets, from, holder, seen) do
    case Operations.find(outlets.queue, holder) do
      nil ->
        {:reply, lost_hold(outlets), outlets}

      %{data: {_, limit}} = operation ->
        operation = %{operation | from: from, data: {seen, limit}}
        outlets = %{outlets | queue: Operations.replace(outlets.queue, operation)}
        {outlets, effects} = serve(outlets, :stdout)
        {:wait, outlets, effects}
    end
  end

  @doc "The holder takes the first `size` bytes of what it has seen, and makes room for the next."
  @spec take_seen(t(), reference(), non_neg_integer()) ::
          {:ok | {:error, term()}, t(), [effect()]}
  def take_seen(%__MODULE__{} = outlets, holder, size) do
    case Operations.find(outlets.queue, holder) do
      nil ->
        {lost_hold(outlets), outlets, []}

      operation ->
        outlets = forget(outlets, operation)
        {_, outlets} = take_kept(outlets, :stdout, outlets.stdout, size)
        {outlets, effects} = serve_all(outlets)
        {:ok, outlets, effects}
    end
  end

  # Its time was over while it looked, or what it has seen was discarded.
  defp lost_hold(%{stdout: %Outlet{demand: {:discard, error}}}), do: error
  defp lost_hold(_outlets), do: {:error, :timeout}

  @doc """
  Sends a process so many more pieces of what is piped, and tells it the ends. Only one asks at a time; with 0, it asks no
  more.
  """
  @spec ask(t(), pid(), non_neg_integer()) :: {:ok | {:error, :busy}, t(), [effect()]}
  def ask(%{asker: %{pid: other}} = outlets, pid, count) when other != pid do
    if gone?({other, nil}) do
      {outlets, effects} = drop_asker(outlets)
      {result, outlets, more} = ask(outlets, pid, count)
      {result, outlets, effects ++ more}
    else
      {{:error, :busy}, outlets, []}
    end
  end

  def ask(%{asker: nil} = outlets, _pid, 0), do: {:ok, outlets, []}

  def ask(%__MODULE__{} = outlets, _pid, 0) do
    {outlets, effects} = drop_asker(outlets)
    {:ok, outlets, effects}
  end

  def ask(%__MODULE__{} = outlets, pid, count) do
    # From now on this one waits.
    outlets = keep_guests_out(outlets)
    asker = outlets.asker || new_asker(outlets, pid)
    outlets = queue_asker(%{outlets | asker: %{asker | credit: asker.credit + count}})
    {outlets, told} = tell_exit(outlets)
    {outlets, effects} = serve_all(outlets)
    {:ok, outlets, told ++ effects}
  end

  @doc "Whoever asks gets nothing more, and is told nothing of an end."
  @spec forget_asker(t()) :: t()
  def forget_asker(%{asker: nil} = outlets), do: outlets

  def forget_asker(%{asker: asker} = outlets) do
    Process.demonitor(asker.monitor, [:flush])
    unqueue_asker(%{outlets | asker: nil})
  end

  @doc "The command is over: what an asker is told of it, behind the ends of its streams."
  @spec exited(t(), 0..255 | :shepherd_died) :: {t(), [effect()]}
  def exited(%__MODULE__{} = outlets, exit), do: tell_exit(%{outlets | exit: exit})

  @doc "Callers may read stdout by themselves while nobody waits, from the end of this call on: the descriptor, or `nil` where they may not."
  @spec invite_guests(t()) :: {Native.fd() | nil, t()}
  def invite_guests(
        %{stdout: %Outlet{demand: :readers, pipe: %Pipe{terminal?: false, fd: fd}}} = outlets
      )
      when fd != nil and outlets.writers in [:running, :left_behind],
      do: {fd, keep_guests_out(%{outlets | received: outlets.received || 0})}

  def invite_guests(%__MODULE__{} = outlets), do: {nil, outlets}

  @doc "A caller comes that was turned away from stdout."
  @spec receive_guest(t()) :: t()
  def receive_guest(%{received: nil} = outlets), do: outlets

  def receive_guest(%__MODULE__{} = outlets),
    do: %{outlets | received: Guest.count(outlets.received)}

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
  def serve(%__MODULE__{} = outlets, stream) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: {:tail, _, _}} -> consume(outlets, stream)
      %Outlet{demand: {:discard, _}} -> discard(outlets, stream)
      _on_demand -> serve_next(outlets, stream)
    end
  end

  @spec serve_all(t()) :: {t(), [effect()]}
  def serve_all(%__MODULE__{} = outlets) do
    {outlets, first} = serve(outlets, :stdout)
    {outlets, second} = serve(outlets, :stderr)
    {outlets, first ++ second}
  end

  @doc "The command is to end: what it still prints is discarded, and readers get this error."
  @spec discard_all(t(), {:error, term()}) :: {t(), [effect()]}
  def discard_all(%__MODULE__{} = outlets, error) do
    # Race: read under a discard.
    Counters.put_discarding(outlets.counters)
    queue = Operations.map(outlets.queue, &drop_collected(&1, error))

    %{outlets | queue: queue}
    |> send_guests_away()
    |> map(&stop_reading(&1, error))
    |> serve_all()
  end

  # It may be gigabytes, and who collects gets an error.
  defp drop_collected(%{kind: :collect} = operation, error), do: %{operation | data: error}
  defp drop_collected(operation, _error), do: operation

  # A consumed stderr is read on: its last bytes are for an error message, which may follow.
  defp stop_reading(%Outlet{demand: :readers} = outlet, error),
    do: %{outlet | demand: {:discard, error}, kept: ""}

  defp stop_reading(outlet, _error), do: outlet

  @doc "The command has exited; see `writers`."
  @spec writers(t(), :left_behind | :gone | :lingering) :: {t(), [effect()]}
  def writers(%__MODULE__{} = outlets, :left_behind),
    do: serve_all(%{outlets | writers: :left_behind})

  # What is in the pipes now is the rest. Race: rest without an end.
  def writers(%__MODULE__{} = outlets, writers) do
    outlets = outlets |> send_guests_away() |> map(&%{&1 | left: Pipe.rest(&1.pipe)})
    serve_all(%{outlets | writers: writers})
  end

  @doc "Closes both, even if somebody may still write. Answers nobody."
  @spec close(t()) :: t()
  def close(%__MODULE__{} = outlets) do
    Counters.put_discarding(outlets.counters)
    map(%{outlets | received: nil}, &%{&1 | pipe: Pipe.close(&1.pipe)})
  end

  @doc "Closes both; who waits, and who reads later, gets this error."
  @spec shut(t(), {:error, term()}) :: {t(), [effect()]}
  def shut(%__MODULE__{} = outlets, error) do
    {outlets, effects} = discard_all(outlets, error)
    {close(outlets), effects}
  end

  @doc "Takes out a caller that died; `nil` when it does not wait here."
  @spec drop_caller(t(), reference()) :: {t(), [effect()]} | nil
  def drop_caller(%{asker: %{monitor: monitor}} = outlets, monitor), do: drop_asker(outlets)

  def drop_caller(%__MODULE__{} = outlets, monitor) do
    case Operations.drop_caller(outlets.queue, monitor) do
      {nil, _} ->
        nil

      # The next in the queue may have its turn now.
      {operation, queue} ->
        Caller.forget(operation)
        serve_all(%{outlets | queue: queue})
    end
  end

  @doc "The time of a read is over; `nil` when it does not wait here."
  @spec expire(t(), reference()) :: {t(), [effect()]} | nil
  def expire(%__MODULE__{} = outlets, monitor) do
    case Operations.withdraw(outlets.queue, monitor) do
      {nil, _} ->
        nil

      # The clock was stopped when the message was on its way.
      {%{timer: {:idle, left}}, _} when is_integer(left) ->
        {outlets, []}

      {operation, queue} ->
        serve_all(%{outlets | queue: queue}) |> reply(operation, {:error, :timeout})
    end
  end

  @doc "The last bytes of a stderr that is consumed, as far as it has come; that something is there, nobody may have told yet."
  @spec take_tail(t()) :: {binary(), t(), [effect()]}
  def take_tail(%{stderr: %Outlet{demand: {:tail, _, _}}} = outlets) do
    {outlets, effects} = consume(outlets, :stderr)
    {:tail, tail, _} = outlets.stderr.demand
    {tail, outlets, effects}
  end

  def take_tail(%__MODULE__{} = outlets), do: {"", outlets, []}

  @doc "The stream that has this descriptor."
  @spec stream_of(t(), Native.fd()) :: stream() | nil
  def stream_of(%{stdout: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stdout
  def stream_of(%{stderr: %Outlet{pipe: %Pipe{fd: fd}}}, fd), do: :stderr
  def stream_of(_outlets, _fd), do: nil

  # --- the queues ---------------------------------------------------------------------------------

  # A consumed stderr belongs to the server.
  defp piped?(%__MODULE__{} = outlets, stream) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: {:tail, _, _}} -> false
      outlet -> outlet != nil
    end
  end

  # The kinds of operations that take bytes of a stream.
  defp competing(:stdout), do: [:stdout, :any, :collect, :hold, :ask_stdout]
  defp competing(:stderr), do: [:stderr, :any, :ask_stderr]

  defp park(%__MODULE__{} = outlets, kind, from, data, timeout) do
    queue = Caller.park(outlets.queue, kind, from, data, timeout)

    if outlets.clock == :stands,
      do: pause(%{outlets | queue: queue}, true),
      else: %{outlets | queue: queue}
  end

  # Race: dead reader first. `Process.alive?/1` waits until a signal that kills the reader, sent before, is handled.
  defp gone?({pid, _}), do: node(pid) == node() and not Process.alive?(pid)

  defp serve_next(%__MODULE__{} = outlets, stream) do
    case Operations.next(outlets.queue, competing(stream)) do
      nil -> outlets |> let_guests_in() |> look_for_end(stream)
      operation -> serve_operation(outlets, operation, stream)
    end
  end

  defp serve_operation(%__MODULE__{} = outlets, %{kind: :collect} = operation, _stream),
    do: serve_collect(outlets, operation)

  defp serve_operation(%__MODULE__{} = outlets, %{kind: kind} = operation, stream)
       when kind in [:ask_stdout, :ask_stderr],
       do: serve_asker(outlets, operation, stream)

  # Its caller looks at what it has got.
  defp serve_operation(%__MODULE__{} = outlets, %{kind: :hold, from: nil}, _stream),
    do: {outlets, []}

  defp serve_operation(%__MODULE__{} = outlets, operation, stream) do
    cond do
      # On both streams somebody may have waited behind it.
      gone?(operation.from) -> outlets |> forget(operation) |> serve_all()
      operation.kind == :any -> serve_any(outlets, operation, stream)
      operation.kind == :hold -> serve_hold(outlets, operation)
      true -> serve_reader(outlets, operation, stream)
    end
  end

  defp serve_reader(%__MODULE__{} = outlets, operation, stream) do
    case take(outlets, operation.kind, operation.data) do
      {{:error, :eagain}, outlets} ->
        {outlets, []}

      {result, outlets} ->
        outlets |> finish(operation) |> serve(stream) |> reply(operation, result)
    end
  end

  # It takes bytes only of streams on which nobody has waited longer.
  defp serve_any(%__MODULE__{} = outlets, operation, stream) do
    first? = &(Operations.next(outlets.queue, competing(&1)) == operation)
    streams = Enum.filter([:stdout, :stderr], first?)

    case take_any(outlets, streams, operation.data) do
      {{:error, :eagain}, outlets} -> serve_end(outlets, stream)
      {:eof, outlets} when length(streams) == 1 -> serve_end(outlets, stream)
      {result, outlets} -> outlets |> finish(operation) |> serve_all() |> reply(operation, result)
    end
  end

  # An end is there for all. Who waits behind one that waits for the other stream need not wait for that.
  defp serve_end(%__MODULE__{} = outlets, stream) do
    if gives_bytes?(outlets, stream) do
      {outlets, []}
    else
      case Operations.next(outlets.queue, competing(stream) -- [:any, :collect]) do
        nil -> look_for_end(outlets, stream)
        operation -> serve_operation(outlets, operation, stream)
      end
    end
  end

  # Whether there can be any for readers.
  defp gives_bytes?(%__MODULE__{} = outlets, stream) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: :readers, kept: kept, pipe: %Pipe{fd: fd}} -> kept != "" or fd != nil
      _discarded_consumed_or_not_piped -> false
    end
  end

  defp serve_hold(%__MODULE__{} = outlets, %{from: from, data: {seen, limit}} = operation) do
    case look(outlets, seen, limit) do
      {{:ok, bytes}, outlets} ->
        queue = Operations.replace(outlets.queue, %{operation | from: nil})
        {%{outlets | queue: queue}, [{:answer_caller, from, {:ok, operation.monitor, bytes}}]}

      {{:error, :eagain}, outlets} ->
        {outlets, []}

      {:guests, outlets} ->
        {outlets, [{:again, :stdout}]}

      {end_or_error, outlets} ->
        outlets |> finish(operation) |> serve_all() |> reply(operation, end_or_error)
    end
  end

  # What is behind the first `seen` bytes, where it may be looked at; what is read for that is kept.
  defp look(%{stdout: %Outlet{demand: :readers, kept: kept}} = outlets, seen, limit)
       when byte_size(kept) > seen do
    {{:ok, binary_part(kept, seen, min(byte_size(kept), limit) - seen)}, outlets}
  end

  defp look(%{stdout: %Outlet{demand: :readers, kept: kept} = outlet} = outlets, seen, limit) do
    # What a guest reads that is inside would come behind what is kept.
    if Pipe.keep_guests_out(outlet.pipe) do
      with {{:ok, bytes}, outlets} <-
             read_pipe(outlets, :stdout, outlet, min(@piece, limit - seen)) do
        {{:ok, bytes}, %{outlets | stdout: %{outlets.stdout | kept: kept <> bytes}}}
      end
    else
      {:guests, outlets}
    end
  end

  defp look(%__MODULE__{} = outlets, _seen, _limit), do: take(outlets, :stdout, 1)

  defp finish(%__MODULE__{} = outlets, operation) do
    %{outlets | queue: Operations.finish(outlets.queue, operation)}
  end

  defp forget(%__MODULE__{} = outlets, operation) do
    Caller.forget(operation)
    finish(outlets, operation)
  end

  defp reply({outlets, effects}, operation, result) do
    {outlets, [{:reply, operation, result} | effects]}
  end

  # --- guests -------------------------------------------------------------------------------------

  defp keep_guests_out(%{received: nil} = outlets), do: outlets

  defp keep_guests_out(%__MODULE__{} = outlets) do
    # What one does that is inside is done at the same time as this.
    _ = Pipe.keep_guests_out(outlets.stdout.pipe)
    outlets
  end

  @doc "For good: the server alone knows what can be read from now on."
  @spec send_guests_away(t()) :: t()
  def send_guests_away(%__MODULE__{} = outlets), do: %{keep_guests_out(outlets) | received: nil}

  defp let_guests_in(%{received: nil} = outlets), do: outlets

  # Bytes that are kept come first, and so does who waits.
  defp let_guests_in(%{asker: nil, stdout: %Outlet{kept: "", pipe: pipe}} = outlets) do
    unless Operations.any?(outlets.queue, competing(:stdout)),
      do: Pipe.let_guests_in(pipe, outlets.received)

    outlets
  end

  defp let_guests_in(%__MODULE__{} = outlets), do: outlets

  # --- the asker ----------------------------------------------------------------------------------

  defp new_asker(%__MODULE__{} = outlets, pid) do
    open = Enum.filter([:stdout, :stderr], &piped?(outlets, &1))
    %Asker{pid: pid, monitor: Process.monitor(pid), open: open}
  end

  defp drop_asker(%__MODULE__{} = outlets), do: outlets |> forget_asker() |> serve_all()

  # It stands among the readers of each stream, as one without an answer.
  defp queue_asker(%{asker: %{credit: 0}} = outlets), do: unqueue_asker(outlets)

  defp queue_asker(%__MODULE__{} = outlets) do
    Enum.reduce(outlets.asker.open, outlets, fn stream, outlets ->
      kind = asker_of(stream)

      if Operations.any?(outlets.queue, [kind]),
        do: outlets,
        else: %{outlets | queue: Operations.park(outlets.queue, kind, nil, nil, nil)}
    end)
  end

  defp unqueue_asker(%__MODULE__{} = outlets) do
    Enum.reduce([:ask_stdout, :ask_stderr], outlets, fn kind, outlets ->
      {_, queue} = Operations.take_all(outlets.queue, kind)
      %{outlets | queue: queue}
    end)
  end

  defp asker_of(:stdout), do: :ask_stdout
  defp asker_of(:stderr), do: :ask_stderr

  defp serve_asker(%{asker: asker} = outlets, operation, stream) do
    if gone?({asker.pid, nil}) do
      drop_asker(outlets)
    else
      case take(outlets, stream, @piece) do
        {{:error, :eagain}, outlets} ->
          {outlets, []}

        {{:ok, bytes}, outlets} ->
          # To the end of the queue, where it has credit left: others have waited too.
          outlets = finish(outlets, operation)
          outlets = queue_asker(%{outlets | asker: %{asker | credit: asker.credit - 1}})
          {outlets, [{:send, asker.pid, {stream, bytes}}, {:again, stream}]}

        {_end, outlets} ->
          tell_end(outlets, stream)
      end
    end
  end

  # An end is told without being asked for, as soon as it can be seen without taking anything.
  defp look_for_end(%__MODULE__{asker: nil} = outlets, _stream), do: {outlets, []}

  defp look_for_end(%__MODULE__{} = outlets, stream) do
    outlet = Map.fetch!(outlets, stream)

    cond do
      not Asker.follows?(outlets.asker, stream) -> {outlets, []}
      # One that is inside may take all that stands before the end.
      not Pipe.keep_guests_out(outlet.pipe) -> {outlets, [{:again, stream}]}
      at_end?(outlets, outlet) -> tell_end(outlets, stream)
      true -> {outlets, []}
    end
  end

  defp at_end?(_outlets, %Outlet{kept: kept}) when kept != "", do: false
  defp at_end?(_outlets, %Outlet{left: 0}), do: true

  defp at_end?(%__MODULE__{} = outlets, %Outlet{pipe: pipe}) do
    case Pipe.look_ahead(pipe) do
      :ok -> false
      {:error, :eagain} -> outlets.writers in [:gone, :lingering]
      _eof_or_error -> true
    end
  end

  defp tell_end(%{asker: asker} = outlets, stream) do
    {_, queue} = Operations.take_all(outlets.queue, asker_of(stream))
    asker = %{asker | open: List.delete(asker.open, stream)}
    {outlets, told} = tell_exit(%{outlets | asker: asker, queue: queue})
    {outlets, effects} = serve(outlets, stream)
    {outlets, [{:send, asker.pid, {:eof, stream}} | told] ++ effects}
  end

  defp tell_exit(%{asker: %{open: [], exit: :untold} = asker, exit: exit} = outlets)
       when exit != nil do
    {%{outlets | asker: %{asker | exit: :told}}, [{:send, asker.pid, {:exit, exit}}]}
  end

  defp tell_exit(%__MODULE__{} = outlets), do: {outlets, []}

  # --- collecting ---------------------------------------------------------------------------------

  defp serve_collect(%__MODULE__{} = outlets, %{data: collector} = operation) do
    case take(outlets, :stdout, @bulk) do
      {{:ok, bytes}, outlets} ->
        {fits, collector} = Collector.add(collector, bytes)
        outlets = %{outlets | queue: Operations.update(outlets.queue, operation, collector)}

        if fits == :ok do
          {outlets, [{:again, :stdout}]}
        else
          {:error, exceeded} = Collector.result(collector)
          break_off(outlets, operation, exceeded)
        end

      {{:error, :eagain}, outlets} ->
        {outlets, []}

      # The output is complete, but the status is not known yet.
      {end_of_file, %{writers: :running} = outlets}
      when end_of_file in [:eof, {:error, :not_piped}] ->
        {outlets, []}

      {end_of_file, outlets} when end_of_file in [:eof, {:error, :not_piped}] ->
        {finish(outlets, operation), [{:collected, operation, collector}]}

      {{:error, reason}, outlets} ->
        break_off(outlets, operation, {:read_failed, reason})
    end
  end

  # Where the command has exited, there is nothing left to end, and so nothing that would have it answered later.
  defp break_off(%{writers: :running} = outlets, _operation, cause),
    do: {outlets, [{:condemn, cause}]}

  defp break_off(%__MODULE__{} = outlets, operation, cause) do
    {finish(outlets, operation), [{:collected, operation, Lifecycle.error(cause)}]}
  end

  # --- what nobody asks for -----------------------------------------------------------------------

  defp consume(%__MODULE__{} = outlets, stream) do
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
  defp discard(%__MODULE__{} = outlets, stream) do
    if Asker.follows?(outlets.asker, stream),
      do: tell_end(outlets, stream),
      else: discard_unasked(outlets, stream)
  end

  defp discard_unasked(%__MODULE__{} = outlets, stream) do
    %Outlet{demand: {:discard, error}} = outlet = Map.fetch!(outlets, stream)

    case Operations.next(outlets.queue, competing(stream)) do
      %{kind: :collect} = operation when outlets.writers != :running ->
        {finish(outlets, operation), [{:collected, operation, error}]}

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

  defp take(%__MODULE__{} = outlets, stream, max_bytes) do
    case Map.fetch!(outlets, stream) do
      %Outlet{demand: :readers, kept: ""} = outlet ->
        read_pipe(outlets, stream, outlet, max_bytes)

      %Outlet{demand: :readers} = outlet ->
        take_kept(outlets, stream, outlet, max_bytes)

      %Outlet{demand: {:discard, error}} ->
        {error, outlets}

      _not_piped ->
        {{:error, :not_piped}, outlets}
    end
  end

  # They were counted when they were read.
  defp take_kept(%__MODULE__{} = outlets, stream, %Outlet{kept: kept} = outlet, max_bytes) do
    size = min(byte_size(kept), max_bytes)
    {taken, kept} = :erlang.split_binary(kept, size)
    {{:ok, taken}, Map.replace!(outlets, stream, %{outlet | kept: kept})}
  end

  defp take_any(%__MODULE__{} = outlets, [stream], max_bytes),
    do: take_tagged(outlets, stream, max_bytes)

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

  defp take_tagged(%__MODULE__{} = outlets, stream, max_bytes) do
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

  defp read_pipe(%__MODULE__{} = outlets, stream, %Outlet{left: 0} = outlet, _max_bytes) do
    {:eof, Map.replace!(outlets, stream, %{outlet | pipe: Pipe.close(outlet.pipe)})}
  end

  defp read_pipe(%__MODULE__{} = outlets, stream, outlet, max_bytes) do
    {result, pipe} = Pipe.read(outlet.pipe, min(max_bytes, outlet.left))

    case result do
      {:ok, bytes} ->
        size = byte_size(bytes)
        left = if outlet.left == :infinity, do: :infinity, else: outlet.left - size
        {result, Map.replace!(outlets, stream, %{outlet | pipe: pipe, left: left})}

      {:error, :eagain} when outlets.writers in [:gone, :lingering] ->
        {:eof, Map.replace!(outlets, stream, %{outlet | pipe: Pipe.close(pipe)})}

      _eof_or_error ->
        {result, Map.replace!(outlets, stream, %{outlet | pipe: pipe})}
    end
  end

  defp map(%__MODULE__{} = outlets, change) do
    for stream <- [:stdout, :stderr], reduce: outlets do
      outlets -> Map.update!(outlets, stream, &(&1 && change.(&1)))
    end
  end
end
