defmodule NetRunner.Run.Stream do
  @moduledoc false
  # The output of a command as an enumerable.
  #
  # Its life: the command is started (`lazy/3`: when the enumeration starts) and belongs to who
  # enumerates. Chunks are read as they are asked for, split into lines where that is wanted, until the
  # end of the output; then the end of the command is awaited. An enumeration that stops earlier ends
  # the command.

  require Logger

  alias NetRunner.Error
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Server
  alias NetRunner.Run.{Input, Lines, Pipeline, Progress, Reader}

  # What is split next should still be in the CPU's cache.
  @chunk_of_lines 262_144

  @enforce_keys [:server, :members, :feeder, :on_exit, :tagged?, :lines, :left, :reader, :chunk]
  defstruct @enforce_keys ++ [progress: nil, splitting: nil, failure: nil, ended?: false]

  # `server`: that of the command whose output is read, the last of the `members`. `on_exit`: for each of them, what is done
  # with a status that is not 0; `:log` if nobody would see it otherwise. `lines`: the splitter of each stream, or `nil` for
  # chunks as they come. `left`: how many bytes may still come. `chunk`: how many are read at once. `splitting`: the stream
  # whose last chunk still has lines. `failure`: what is raised after the last element.
  @type t :: %__MODULE__{
          server: pid(),
          members: [Pipeline.member(), ...],
          feeder: pid() | nil,
          on_exit: [:raise | :ignore | :log, ...],
          tagged?: boolean(),
          lines: %{(:stdout | :stderr) => Lines.t()} | nil,
          left: non_neg_integer() | :infinity | :exceeded,
          reader: Reader.t(),
          chunk: pos_integer(),
          progress: Progress.t(),
          splitting: :stdout | :stderr | nil,
          failure: Exception.t() | nil,
          ended?: boolean()
        }

  @doc "A lazy enumerable that starts the command when it is enumerated, and raises what goes wrong."
  @spec lazy(term(), map(), Input.t()) :: Enumerable.t()
  def lazy(command, options, input) do
    enumerable(fn ->
      extra = [input: Input.for_server(input), grace?: true, consumer: self()]

      case Server.start(command, options, extra) do
        {:ok, server} ->
          progress = Progress.start(options, input, server, command)
          feeder = Input.feed(input, server)
          stream = new([{server, command}], feeder, options, [options.exit_status])
          %{stream | progress: progress}

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

    with {:ok, server} <- Server.start(command, options, extra) do
      owner = fn -> if(options.owner == :caller, do: self()) end

      enumerable =
        enumerable(fn ->
          case Command.hand_over(server, owner.()) do
            :ok ->
              on_exit = if options.tagged, do: :ignore, else: :log
              progress = Progress.start(options, input, server, command)
              stream = new([{server, command}], Input.feed(input, server), options, [on_exit])
              %{stream | progress: progress}

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
  @spec tagged(pid(), term(), pid() | nil, :keep | :trim | nil) :: Enumerable.t()
  def tagged(server, command, feeder, lines) do
    options = %{
      tagged: true,
      lines: lines,
      max_output_size: :infinity,
      max_chunk_size: @chunk_of_lines
    }

    enumerable(fn -> new([{server, command}], feeder, options, [:ignore]) end)
  end

  @doc "As `lazy/3`, of what the last of several commands prints."
  @spec pipeline(Pipeline.t()) :: Enumerable.t()
  def pipeline(plan) do
    enumerable(fn ->
      case Pipeline.start(plan) do
        {:ok, members, feeder} -> new(members, feeder, plan.options, plan.on_exit)
        {:error, reason, command} -> raise Error, reason: reason, command: command
      end
    end)
  end

  defp enumerable(start), do: Stream.resource(start, &next/1, &stop/1)

  defp stop(stream) do
    _ = Pipeline.stop(stream.members)
    :ok = Progress.stop(stream.progress)
    _ = stream.feeder |> Input.watch() |> Input.await_end()
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
      on_exit: on_exit,
      tagged?: options.tagged,
      left: options.max_output_size,
      chunk: if(lines, do: @chunk_of_lines, else: options.max_chunk_size),
      lines: lines && %{stdout: lines, stderr: lines}
    }
  end

  defp next(%__MODULE__{ended?: true} = stream) do
    await_input!(stream)
    if stream.failure, do: raise(stream.failure)
    {:halt, stream}
  end

  # The bytes that were allowed have been given, as lines or not.
  defp next(%__MODULE__{left: :exceeded, splitting: nil, lines: nil} = stream),
    do: failed({:max_output_exceeded, ""}, List.last(stream.members))

  defp next(%__MODULE__{left: :exceeded, splitting: nil} = stream), do: last_lines(stream)

  defp next(%__MODULE__{splitting: nil} = stream) do
    case read(stream) do
      {:ok, {kind, bytes}} -> spend(stream, kind, bytes)
      # Nothing to read where stdout leads elsewhere.
      end_of_file when end_of_file in [:eof, {:error, :not_piped}] -> finish(stream)
      {:error, reason} -> broken_off(stream, reason)
    end
  end

  # Bit by bit, so that a chunk full of short lines is not in memory as lines all at once.
  defp next(%__MODULE__{splitting: kind} = stream) do
    {whole, lines} = Lines.next(stream.lines[kind])
    splitting = if whole != [], do: kind
    stream = %{stream | lines: %{stream.lines | kind => lines}, splitting: splitting}
    {tag(stream, kind, whole), stream}
  end

  defp read(%{tagged?: true} = stream), do: Command.read_any(stream.server, stream.chunk)

  defp read(stream) do
    with {:ok, bytes} <- Reader.read(stream.reader, stream.chunk),
         do: {:ok, {:stdout, bytes}}
  end

  defp spend(%{left: :infinity} = stream, kind, bytes), do: chunk(stream, kind, bytes)

  defp spend(%{left: left} = stream, kind, bytes) when byte_size(bytes) <= left,
    do: chunk(%{stream | left: left - byte_size(bytes)}, kind, bytes)

  defp spend(%{left: left} = stream, kind, bytes),
    do: chunk(%{stream | left: :exceeded}, kind, binary_part(bytes, 0, left))

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
    case Pipeline.await(stream.members) do
      {:ok, statuses} ->
        log_failure(stream, statuses)
        failure = failure(stream, statuses)
        {exit_element(stream, statuses), %{stream | ended?: true, failure: failure}}

      {:error, reason, member} ->
        failed(reason, member)
    end
  end

  defp last_lines(%{lines: lines} = stream) do
    last = Enum.flat_map([:stdout, :stderr], &tag(stream, &1, Lines.last(lines[&1])))
    {last, %{stream | lines: nil}}
  end

  defp exit_element(%{tagged?: false}, _statuses), do: []
  defp exit_element(_stream, [status]), do: [{:exit, status}]
  defp exit_element(_stream, statuses), do: [{:exit, statuses}]

  @sigpipe 141

  # A command that wrote on when the next had enough was ended by SIGPIPE, which is no failure.
  defp failure(stream, statuses) do
    last = List.last(stream.members)

    Enum.zip([stream.members, statuses, stream.on_exit])
    |> Enum.find_value(fn {member, status, on_exit} ->
      if on_exit == :raise and status != 0 and (status != @sigpipe or member == last),
        do: error(:exit_status, member, status: status)
    end)
  end

  defp log_failure(%{on_exit: [:log], members: [{_, command} = member]}, [status])
       when status != 0 do
    :exit_status
    |> error(member, status: status)
    |> Exception.message()
    |> Logger.warning(command: Error.command_line(command))
  end

  defp log_failure(_stream, _statuses), do: :ok

  # An input may fail when its command has exited already.
  defp await_input!(%{members: [{first, _} = member | _]} = stream) do
    watch = Input.watch(stream.feeder)
    verdict = Command.verdict(first)
    _ = Pipeline.stop(stream.members)

    case {verdict, Input.await_end(watch)} do
      {{:error, {:input_failed, _} = reason}, _} -> failed(reason, member)
      {_, {:error, reason}} -> failed(reason, member)
      {_, :ok} -> :ok
    end
  end

  # The output cannot be read, which ends all commands. Why, shows in the first that it happened to.
  @spec broken_off(t(), term()) :: no_return()
  defp broken_off(stream, reason) do
    case Pipeline.await(stream.members) do
      {:error, reason, member} -> failed(reason, member)
      {:ok, _statuses} -> failed(reason, List.last(stream.members))
    end
  end

  @spec failed(term(), Pipeline.member()) :: no_return()
  defp failed({:input_failed, {kind, reason, stack}}, _member) do
    :erlang.raise(kind, reason, stack)
  end

  defp failed(reason, member), do: raise(error(reason, member, []))

  # With what else is known of it: how it ended, and the end of its stderr.
  defp error(reason, {server, command}, fields) do
    Error.exception([reason: reason, command: command] ++ fields ++ Command.failure(server))
  end
end
