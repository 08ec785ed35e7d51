defmodule NetRunner.Run.Stream do
  @moduledoc false
  # The output of a command as an enumerable.
  #
  # Its life: the command is started (`lazy/3`: when the enumeration starts) and belongs to who
  # enumerates. Chunks are read as they are asked for, split into lines where that is wanted, until the
  # end of the output; then the end of the command is awaited. An enumeration that stops earlier ends
  # the command.

  alias NetRunner.Error
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Server
  alias NetRunner.Run.{Input, Lines, Pipeline, Reader}

  @chunk 524_288

  # What is split next should still be in the CPU's cache.
  @chunk_of_lines 262_144

  @enforce_keys [:server, :members, :feeder, :on_exit, :tagged?, :lines, :left, :reader]
  defstruct @enforce_keys ++ [splitting: nil, ended?: false]

  # `server`: of the command that is read, the last of the `members`. `on_exit`: what is done with a status
  # that is not 0. `lines`: those of each stream, or `nil` for chunks as they come. `left`: the bytes that may
  # still come. `splitting`: the stream whose chunk is not through.
  @type t :: %__MODULE__{
          server: pid(),
          members: [Pipeline.member(), ...],
          feeder: pid() | nil,
          on_exit: :raise | :ignore,
          tagged?: boolean(),
          lines: %{(:stdout | :stderr) => Lines.t()} | nil,
          left: non_neg_integer() | :infinity | :exceeded,
          reader: Reader.t(),
          splitting: :stdout | :stderr | nil,
          ended?: boolean()
        }

  @doc "A lazy enumerable that starts the command when it is enumerated, and raises what goes wrong."
  @spec lazy(term(), map(), Input.t()) :: Enumerable.t()
  def lazy(command, options, input) do
    enumerable(fn ->
      case Server.start(command, drained(options), input: Input.for_server(input), grace?: true) do
        {:ok, server} ->
          new([{server, command}], Input.feed(input, server), options, options.exit_status)

        {:error, reason} ->
          raise Error, reason: reason, command: command
      end
    end)
  end

  @doc "Starts a command, and gives an enumerable that never raises for its status."
  @spec running(term(), map(), Input.t()) ::
          {:ok, Enumerable.t()} | {:error, Command.start_error()}
  def running(command, options, input) do
    extra = [input: Input.for_server(input), grace?: true, stream?: true]
    deadline = deadline(options.timeout)

    with {:ok, server} <- Server.start(command, drained(options), extra) do
      owner = fn -> if(options.owner == :caller, do: self()) end

      enumerable =
        enumerable(fn ->
          case Command.hand_over(server, owner.()) do
            :ok ->
              new([{server, command}], Input.feed(input, server), options, :ignore)

            {:error, :closed} ->
              reason = if passed?(deadline), do: :timeout, else: :stream_over
              raise Error, reason: reason, command: command

            {:error, reason} ->
              raise Error, reason: reason, command: command
          end
        end)

      {:ok, enumerable}
    end
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  # In the order of terms, `:infinity` comes after all numbers.
  defp passed?(deadline), do: System.monotonic_time(:millisecond) >= deadline

  @doc "What a command prints that has been started, and its status, tagged."
  @spec tagged(pid(), term(), :keep | :trim | nil) :: Enumerable.t()
  def tagged(server, command, lines) do
    enumerable(fn ->
      new(
        [{server, command}],
        nil,
        %{tagged: true, lines: lines, max_output_size: :infinity},
        :ignore
      )
    end)
  end

  @doc "As `lazy/3`, of what the last of several commands prints."
  @spec pipeline(Pipeline.commands(), map(), Input.t()) :: Enumerable.t()
  def pipeline(commands, options, input) do
    enumerable(fn ->
      case Pipeline.start(commands, drained(options), input, options.timeout) do
        {:ok, members, feeder} -> new(members, feeder, options, options.exit_status)
        {:error, reason, command} -> raise Error, reason: reason, command: command
      end
    end)
  end

  # A stderr that nobody reads on demand must not block the command.
  defp drained(%{tagged: true, stderr: :consume} = options), do: %{options | stderr: :pipe}
  defp drained(%{tagged: false} = options), do: consuming_stderr(options)
  defp drained(options), do: options

  @doc "For a command whose stderr nobody reads on demand: it must not block on it."
  @spec consuming_stderr(map()) :: map()
  def consuming_stderr(%{stderr: :pipe} = options), do: %{options | stderr: :consume}
  def consuming_stderr(options), do: options

  defp enumerable(start), do: Stream.resource(start, &next/1, &stop/1)

  defp stop(stream) do
    :ok = Pipeline.stop(stream.members)
    _ = Input.await_end(stream.feeder)
    :ok
  end

  defp new(members, feeder, options, on_exit) do
    lines = options.lines && Lines.new(options.lines)
    {server, _} = List.last(members)

    %__MODULE__{
      server: server,
      reader: if(options.tagged, do: %Reader{server: server}, else: Reader.new(server)),
      members: members,
      feeder: feeder,
      on_exit: if(options.tagged, do: :ignore, else: on_exit),
      tagged?: options.tagged,
      left: options.max_output_size,
      lines: lines && %{stdout: lines, stderr: lines}
    }
  end

  defp next(%__MODULE__{ended?: true} = stream), do: {:halt, stream}

  # The bytes that were allowed have been given, as lines or not.
  defp next(%__MODULE__{left: :exceeded, splitting: nil, lines: nil} = stream),
    do: failed(stream, {:max_output_exceeded, ""})

  defp next(%__MODULE__{left: :exceeded, splitting: nil} = stream), do: last_lines(stream)

  defp next(%__MODULE__{splitting: nil} = stream) do
    case read(stream) do
      {:ok, {kind, bytes}} -> spend(stream, kind, bytes)
      # Nothing to read where stdout leads elsewhere.
      end_of_file when end_of_file in [:eof, {:error, :not_piped}] -> finish(stream)
      {:error, reason} -> failed(stream, reason)
    end
  end

  # Bit by bit, so that a chunk full of short lines is not in memory as lines all at once.
  defp next(%__MODULE__{splitting: kind} = stream) do
    {whole, lines} = Lines.next(stream.lines[kind])
    splitting = if whole != [], do: kind
    stream = %{stream | lines: %{stream.lines | kind => lines}, splitting: splitting}
    {tag(stream, kind, whole), stream}
  end

  defp read(%{tagged?: true} = stream), do: Command.read_any(stream.server, chunk_size(stream))

  defp read(stream) do
    with {:ok, bytes} <- Reader.read(stream.reader, chunk_size(stream)),
         do: {:ok, {:stdout, bytes}}
  end

  defp spend(%{left: :infinity} = stream, kind, bytes), do: chunk(stream, kind, bytes)

  defp spend(%{left: left} = stream, kind, bytes) when byte_size(bytes) <= left,
    do: chunk(%{stream | left: left - byte_size(bytes)}, kind, bytes)

  defp spend(%{left: left} = stream, kind, bytes),
    do: chunk(%{stream | left: :exceeded}, kind, binary_part(bytes, 0, left))

  defp chunk_size(%{lines: nil}), do: @chunk
  defp chunk_size(_stream), do: @chunk_of_lines

  defp chunk(stream, _kind, ""), do: {[], stream}
  defp chunk(%{lines: nil} = stream, kind, bytes), do: {tag(stream, kind, [bytes]), stream}

  defp chunk(stream, kind, bytes) do
    lines = %{stream.lines | kind => Lines.add(stream.lines[kind], bytes)}
    {[], %{stream | lines: lines, splitting: kind}}
  end

  defp tag(%{tagged?: true}, kind, elements), do: Enum.map(elements, &{kind, &1})
  defp tag(_stream, _kind, elements), do: elements

  # The last lines come before what the status may raise.
  defp finish(%{lines: %{}} = stream), do: last_lines(stream)

  defp finish(stream) do
    ends = Enum.map(stream.members, &{&1, await_exit(stream, &1)})

    for {server, _} <- stream.members, {:error, reason} <- [Command.verdict(server)] do
      failed(stream, reason)
    end

    if stream.on_exit == :raise, do: check(ends)
    {exit_element(stream, ends), %{stream | ended?: true}}
  end

  defp last_lines(%{lines: lines} = stream) do
    last = Enum.flat_map([:stdout, :stderr], &tag(stream, &1, Lines.last(lines[&1])))
    {last, %{stream | lines: nil}}
  end

  defp exit_element(%{tagged?: false}, _ends), do: []
  defp exit_element(_stream, [{_, status}]), do: [{:exit, status}]
  defp exit_element(_stream, ends), do: [{:exit, Enum.map(ends, &elem(&1, 1))}]

  @sigpipe 141

  # A command that wrote on when the next had enough was ended by SIGPIPE, which is no failure.
  defp check(ends) do
    {last, _} = List.last(ends)

    for {{server, command} = member, status} <- ends,
        status != 0 and (status != @sigpipe or member == last) do
      details = Command.failure(server)
      raise Error, [reason: :exit_status, command: command, status: status] ++ details
    end
  end

  defp await_exit(stream, {server, _command}) do
    case Command.await_exit(server) do
      {:ok, status} -> status
      {:error, reason} -> failed(stream, reason)
    end
  end

  @spec failed(t(), term()) :: no_return()
  defp failed(_stream, {:input_failed, {kind, reason, stack}}) do
    :erlang.raise(kind, reason, stack)
  end

  defp failed(stream, reason) do
    {server, command} = List.last(stream.members)
    raise Error, [reason: reason, command: command] ++ Command.failure(server)
  end
end
