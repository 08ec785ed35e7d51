defmodule NetRunner.Daemon.Handler do
  @moduledoc false
  # The process that runs a user's code for a daemon's output: the callback, or Logger with its handlers. Either may
  # be slow, hang, or kill it. So nobody waits for it but by an event, and it may be killed at any time.
  #
  # It is given one piece of work at a time, and says when that is done.

  require Logger

  alias NetRunner.Daemon.Text
  alias NetRunner.Process.Context
  alias NetRunner.Run.Lines

  # A longer line is logged in pieces.
  @longest_line 8_192

  # `output`: the process that hands it work.
  @enforce_keys [:output, :sink, :metadata]
  defstruct [:output, :sink, :metadata, lines: %{}]

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
  @spec start_link({:log, Logger.level()} | fun(), keyword()) :: pid()
  def start_link(sink, metadata) do
    context = Context.capture()
    handler = %__MODULE__{output: self(), sink: sink, metadata: metadata}

    start = fn ->
      Context.adopt(context)
      loop(handler)
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

  defp loop(%{output: output} = handler) do
    receive do
      {__MODULE__, work} ->
        handler = handle(handler, work)
        send(output, {self(), :done})
        loop(handler)

      # A callback has made this process trap exits.
      {:EXIT, ^output, reason} ->
        exit(reason)
    end
  end

  defp handle(%{sink: {:log, _}} = handler, {:piece, stream, bytes}) do
    lines = Map.get(handler.lines, stream) || Lines.new(:trim, @longest_line)
    {lines, begun} = Lines.push(lines, bytes)
    log(handler, stream, lines)
    put_in(handler.lines[stream], begun)
  end

  defp handle(%{sink: callback} = handler, {:piece, stream, bytes}) do
    try do
      if is_function(callback, 1), do: callback.(bytes), else: callback.(stream, bytes)
    catch
      kind, reason ->
        Logger.error(
          "the :on_output function of a daemon failed, and goes on with the next piece of output: " <>
            Exception.format(kind, reason, __STACKTRACE__),
          handler.metadata
        )
    end

    handler
  end

  defp handle(handler, :end) do
    for {stream, begun} <- handler.lines, do: log(handler, stream, Lines.last(begun))
    %{handler | lines: %{}}
  end

  defp handle(handler, {:died, reason}) do
    Logger.error(
      "the process that handles a daemon's output died and was started again; " <>
        "its :on_output function may be the cause: #{inspect(reason)}",
      handler.metadata
    )

    handler
  end

  defp handle(handler, {:dropped, bytes}) do
    Logger.warning(
      "#{bytes} bytes of a daemon's last output were dropped: :on_output was too slow for a command that ends",
      handler.metadata
    )

    handler
  end

  defp log(%{sink: {:log, level}} = handler, stream, lines) do
    metadata = [stream: stream] ++ handler.metadata

    # A copy each: log handlers may keep a line, and should not keep the piece that it was read with.
    Enum.each(lines, &Logger.log(level, :binary.copy(Text.valid(&1)), metadata))
  end
end
