defmodule NetRunner.Daemon.Handler do
  @moduledoc false
  # The process that runs a user's code for a daemon's output: the callback, or Logger with its handlers. Either may
  # be slow, hang, or kill it. So nobody waits for it but by an event, and it may be killed at any time.
  #
  # It is given one piece of work at a time, and says when that is done.

  require Logger

  alias NetRunner.Text
  alias NetRunner.Process.Context
  alias NetRunner.Run.Lines

  # A longer line comes in pieces: for logs, which people read, and for functions.
  @longest_logged 8_192
  @longest_line 65_536

  # `output`: the process that hands it work. `progress`: counts each line, or piece, that is done with.
  @enforce_keys [:output, :sink, :metadata, :progress]
  defstruct [:output, :sink, :metadata, :progress, lines: %{}]

  @typedoc "What is done with the output; `prefix` stands before each line that is logged."
  @type sink ::
          {:log, Logger.level(), prefix :: String.t()}
          | {:lines, (binary() -> term()) | (:stdout | :stderr, binary() -> term())}
          | (binary() -> term())
          | (:stdout | :stderr, binary() -> term())

  @typedoc """
  A piece of output; the end of it; the reason why the last handler died; the number of bytes that were dropped because the
  handler was slow.
  """
  @type work ::
          {:piece, :stdout | :stderr, binary()}
          | :end
          | {:died, term()}
          | {:dropped, pos_integer()}

  @doc "Starts one, linked to the caller and on behalf of it."
  @spec start_link(sink(), keyword(), :counters.counters_ref()) :: pid()
  def start_link(sink, metadata, progress) do
    context = Context.capture()
    handler = %__MODULE__{output: self(), sink: sink, metadata: metadata, progress: progress}

    start = fn ->
      Context.adopt(context)
      :erlang.hibernate(__MODULE__, :loop, [handler])
    end

    # Chunks must not outlive their use.
    :erlang.spawn_opt(start, [:link, {:fullsweep_after, 8}])
  end

  @doc "Hands it work. It sends `{handler, :done}` to the caller when it is ready for more."
  @spec work(pid(), work()) :: :ok
  def work(handler, work) do
    send(handler, {__MODULE__, work})
    :ok
  end

  @doc false
  # Race: upgraded while it waits. A line that has begun would be lost.
  @spec loop(%__MODULE__{}) :: no_return()
  def loop(%{output: output} = handler) do
    receive do
      {__MODULE__, work} ->
        handler = handle(handler, work)
        send(output, {self(), :done})
        :erlang.hibernate(__MODULE__, :loop, [handler])

      # A callback has made this process trap exits.
      {:EXIT, ^output, reason} ->
        exit(reason)
    end
  end

  defp handle(%{sink: callback} = handler, {:piece, stream, bytes}) when is_function(callback) do
    call(handler, callback, stream, bytes)
    handler
  end

  defp handle(%{sink: sink} = handler, {:piece, stream, bytes}) do
    lines = Map.get(handler.lines, stream) || Lines.new(:trim, longest(sink))
    {lines, begun} = Lines.push(lines, bytes)
    hand_on(handler, stream, lines)
    put_in(handler.lines[stream], begun)
  end

  defp handle(handler, :end) do
    for {stream, begun} <- handler.lines, do: hand_on(handler, stream, Lines.last(begun))
    %{handler | lines: %{}}
  end

  defp handle(handler, {:died, reason}) do
    Logger.error(
      "the process that handles the output of the daemon #{handler.metadata[:command]} died and was started again; " <>
        "its function (:on_output, :on_line) may be the cause: #{inspect(reason)}",
      handler.metadata
    )

    handler
  end

  defp handle(handler, {:dropped, bytes}) do
    Logger.warning(
      "#{bytes} bytes of the last output of the daemon #{handler.metadata[:command]} were dropped: its function " <>
        "(:on_output, :on_line), or the log, was too slow while the command ended",
      handler.metadata
    )

    handler
  end

  defp longest({:log, _level, _prefix}), do: @longest_logged
  defp longest({:lines, _callback}), do: @longest_line

  # A copy each: who gets a line may keep it, and should not keep the piece that it was read with.
  defp hand_on(%{sink: {:log, level, prefix}} = handler, stream, lines) do
    metadata = [stream: stream] ++ handler.metadata

    Enum.each(lines, fn line ->
      Logger.log(level, prefix <> :binary.copy(Text.valid(line)), metadata)
      :counters.add(handler.progress, 1, 1)
    end)
  end

  defp hand_on(%{sink: {:lines, callback}} = handler, stream, lines) do
    Enum.each(lines, &call(handler, callback, stream, :binary.copy(&1)))
  end

  defp call(handler, callback, stream, bytes) do
    if is_function(callback, 1), do: callback.(bytes), else: callback.(stream, bytes)
  catch
    kind, reason ->
      Logger.error(
        "the #{name(handler.sink)} function of the daemon #{handler.metadata[:command]} failed, " <>
          "and goes on with the next piece of output: " <>
          Exception.format(kind, reason, __STACKTRACE__),
        handler.metadata
      )
  after
    :counters.add(handler.progress, 1, 1)
  end

  defp name({:lines, _callback}), do: ":on_line"
  defp name(_callback), do: ":on_output"
end
