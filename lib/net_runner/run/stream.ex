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
  alias NetRunner.Run.{Borrowed, Input, Lines, Pipeline}

  @chunk 524_288

  # What is split next should still be in the CPU's cache.
  @chunk_of_lines 262_144

  @enforce_keys [:server, :members, :on_exit, :tagged?, :lines]
  defstruct [
    :server,
    :members,
    :on_exit,
    :tagged?,
    :lines,
    :left,
    :borrowed,
    :splitting,
    :failure,
    ended?: false
  ]

  # `server`: of the command that is read, the last of the `members`. `on_exit`: what is done with a status
  # that is not 0, for each of them. `failure`: what is raised for one, when all elements have been given. `lines`: those of each stream, or `nil` for chunks as they come. `left`: the bytes that may
  # still come. `borrowed`: stdout, where it is read without the server. `splitting`: the stream whose chunk is
  # not through.
  @type t :: %__MODULE__{
          server: pid(),
          members: [Pipeline.member(), ...],
          on_exit: [:raise | :ignore, ...],
          tagged?: boolean(),
          lines: %{(:stdout | :stderr) => Lines.t()} | nil,
          left: non_neg_integer() | :infinity,
          borrowed: Borrowed.t() | nil,
          splitting: :stdout | :stderr | nil,
          failure: Exception.t() | nil,
          ended?: boolean()
        }

  @doc "A lazy enumerable that starts the command when it is enumerated, and raises what goes wrong."
  @spec lazy(term(), map(), Input.t()) :: Enumerable.t()
  def lazy(command, options, input) do
    enumerable(fn ->
      case start(command, options, input, options.timeout) do
        {:ok, server} -> new([{server, command}], options, [options.exit_status])
        {:error, reason} -> raise Error, reason: reason, command: command
      end
    end)
  end

  @doc "Starts a command, and gives an enumerable that never raises for its status."
  @spec running(term(), map(), Input.t()) ::
          {:ok, Enumerable.t()} | {:error, Command.start_error()}
  def running(command, options, input) do
    with {:ok, server} <-
           Server.start(command, options,
             input: Input.for_server(input),
             timeout: options.timeout
           ) do
      enumerable =
        enumerable(fn ->
          case Command.hand_over(server, if(options.owner == :caller, do: self())) do
            :ok -> Input.feed(input, server)
            {:error, reason} -> raise Error, reason: reason, command: command
          end

          new([{server, command}], options, [:ignore])
        end)

      {:ok, enumerable}
    end
  end

  @doc "What a command prints that has been started, and its status, tagged."
  @spec tagged(pid(), term(), :keep | :trim | nil) :: Enumerable.t()
  def tagged(server, command, lines) do
    enumerable(fn ->
      new(
        [{server, command}],
        %{tagged: true, lines: lines, max_output_size: :infinity},
        [:ignore]
      )
    end)
  end

  @doc "As `lazy/3`, of what the last of several commands prints."
  @spec pipeline(Pipeline.t()) :: Enumerable.t()
  def pipeline(plan) do
    enumerable(fn ->
      case Pipeline.start(plan) do
        {:ok, members} -> new(members, plan.options, plan.on_exit)
        {:error, reason, command} -> raise Error, reason: reason, command: command
      end
    end)
  end

  @doc "Starts a command and what feeds it. `timeout`: after which it ends, whoever waits for what."
  @spec start(term(), map(), Input.t(), timeout()) ::
          {:ok, pid()} | {:error, Command.start_error()}
  def start(command, options, input, timeout \\ :infinity) do
    extra = [input: Input.for_server(input), timeout: timeout]

    with {:ok, server} <- Server.start(command, options, extra) do
      Input.feed(input, server)
      {:ok, server}
    end
  end

  defp enumerable(start), do: Stream.resource(start, &next/1, &stop/1)

  defp stop(stream) do
    :ok = Pipeline.stop(stream.members)
    Borrowed.return(stream.borrowed)
  end

  defp new(members, options, on_exit) do
    lines = options.lines && Lines.new(options.lines)
    {server, _} = List.last(members)

    %__MODULE__{
      server: server,
      borrowed: if(not options.tagged, do: Borrowed.borrow(server)),
      members: members,
      on_exit: on_exit,
      tagged?: options.tagged,
      left: options.max_output_size,
      lines: lines && %{stdout: lines, stderr: lines}
    }
  end

  defp next(%__MODULE__{ended?: true, failure: nil} = stream), do: {:halt, stream}
  defp next(%__MODULE__{ended?: true, failure: failure}), do: raise(failure)

  defp next(%__MODULE__{splitting: nil} = stream) do
    case read(stream) do
      {{:ok, {kind, bytes}}, stream} -> stream |> spend(byte_size(bytes)) |> chunk(kind, bytes)
      # Nothing to read where stdout leads elsewhere.
      {end_of_file, stream} when end_of_file in [:eof, {:error, :not_piped}] -> finish(stream)
      {{:error, reason}, stream} -> failed(reason, List.last(stream.members))
    end
  end

  # Bit by bit, so that a chunk full of short lines is not in memory as lines all at once.
  defp next(%__MODULE__{splitting: kind} = stream) do
    {whole, lines} = Lines.next(stream.lines[kind])
    splitting = if whole != [], do: kind
    stream = %{stream | lines: %{stream.lines | kind => lines}, splitting: splitting}
    {tag(stream, kind, whole), stream}
  end

  defp read(%{tagged?: true} = stream),
    do: {Command.read_any(stream.server, chunk_size(stream)), stream}

  defp read(%{borrowed: nil} = stream) do
    {with(
       {:ok, bytes} <- Command.read(stream.server, chunk_size(stream)),
       do: {:ok, {:stdout, bytes}}
     ), stream}
  end

  defp read(stream) do
    {result, borrowed} = Borrowed.read(stream.borrowed, chunk_size(stream))
    {with({:ok, bytes} <- result, do: {:ok, {:stdout, bytes}}), %{stream | borrowed: borrowed}}
  end

  defp spend(%{left: :infinity} = stream, _size), do: stream
  defp spend(%{left: left} = stream, size) when size <= left, do: %{stream | left: left - size}

  defp spend(stream, _size) do
    failed({:max_output_exceeded, ""}, List.last(stream.members))
  end

  defp chunk_size(%{lines: nil}), do: @chunk
  defp chunk_size(_stream), do: @chunk_of_lines

  defp chunk(%{lines: nil} = stream, kind, bytes), do: {tag(stream, kind, [bytes]), stream}

  defp chunk(stream, kind, bytes) do
    lines = %{stream.lines | kind => Lines.add(stream.lines[kind], bytes)}
    {[], %{stream | lines: lines, splitting: kind}}
  end

  defp tag(%{tagged?: true}, kind, elements), do: Enum.map(elements, &{kind, &1})
  defp tag(_stream, _kind, elements), do: elements

  # The last lines come before what the status may raise.
  defp finish(%{lines: %{} = lines} = stream) do
    last = Enum.flat_map([:stdout, :stderr], &tag(stream, &1, Lines.last(lines[&1])))
    {last, %{stream | lines: nil}}
  end

  defp finish(stream) do
    case Pipeline.await(stream.members) do
      {:ok, statuses} ->
        failure = failure(stream, statuses)
        {exit_element(stream, statuses), %{stream | ended?: true, failure: failure}}

      {:error, reason, member} ->
        failed(reason, member)
    end
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

  @spec failed(term(), Pipeline.member()) :: no_return()
  defp failed({:input_failed, {kind, reason, stack}}, _member) do
    :erlang.raise(kind, reason, stack)
  end

  defp failed(reason, member), do: raise(error(reason, member, []))

  # With what else is known of it: how it ended, and the end of its stderr.
  defp error(reason, {server, command}, fields) do
    struct!(Error, [reason: reason, command: command] ++ fields ++ Command.failure(server))
  end
end
