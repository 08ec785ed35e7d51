defmodule NetRunner.Daemon.Output do
  @moduledoc false
  # The process that reads what a daemon's command prints, and hands it on.
  #
  # It reads the next piece when the last one has been dealt with. So what a slow callback does not keep up
  # with waits in the kernel's pipe, and the command waits too; the VM's memory does not grow.
  #
  # It is linked to the daemon, and ends with `{:ended, how}` when the output is at its end and
  # the command has exited. When it ends in another way (a callback can have it killed), the daemon
  # starts another.

  require Logger

  alias NetRunner.Process, as: Command
  alias NetRunner.Run.Lines

  @chunk 65_536

  # What is kept of each stream for a match that is longer than a piece.
  @window 8_192

  # A longer line is logged in pieces.
  @longest_line 8_192

  defstruct [:process, :metadata, :sink, :watch, lines: %{}, windows: %{}]

  @type how :: {:exit_status, 0..255} | {:signal, atom() | pos_integer()} | term()

  @doc """
  Starts to read. `watch` is `nil`, or `{regex, pid, message}`: the message is sent to the pid at the
  first match.
  """
  @spec start_link(pid(), term(), keyword(), nil | {Regex.t(), pid(), term()}) :: pid()
  def start_link(process, sink, metadata, watch) do
    output = %__MODULE__{process: process, sink: sink, metadata: metadata, watch: watch}
    # As the server's: chunks must not outlive their use.
    :erlang.spawn_opt(fn -> read(output) end, [:link, {:fullsweep_after, 8}])
  end

  defp read(output) do
    case Command.read_any(output.process, @chunk) do
      {:ok, {stream, bytes}} ->
        output |> watch(stream, bytes) |> hand_on(stream, bytes) |> read()

      :eof ->
        finish(output)
        exit({:ended, how_it_ended(output.process)})

      {:error, reason} ->
        finish(output)
        exit({:ended, reason})
    end
  end

  defp finish(output) do
    for {stream, begun} <- output.lines, do: log(output, stream, Lines.last(begun))
  end

  defp how_it_ended(process) do
    with {:ok, _} <- Command.await_exit(process),
         %{exit: how} <- Command.stats(process) do
      case how do
        {:exited, code} -> {:exit_status, code}
        {:signaled, signal, _} -> {:signal, signal}
      end
    else
      {:error, reason} -> reason
    end
  end

  # --- watching -----------------------------------------------------------------------------------

  defp watch(%{watch: nil} = output, _stream, _bytes), do: output

  defp watch(%{watch: {regex, pid, message}} = output, stream, bytes) do
    text = Map.get(output.windows, stream, "") <> bytes

    if matches?(regex, text) do
      send(pid, message)
      %{output | watch: nil, windows: %{}}
    else
      size = min(byte_size(text), @window)
      window = :binary.copy(binary_part(text, byte_size(text) - size, size))
      put_in(output.windows[stream], window)
    end
  end

  # A regex for UTF-8 takes no other bytes, and a piece can end inside of a character.
  defp matches?(regex, text) do
    Regex.match?(regex, text)
  rescue
    ArgumentError -> Regex.match?(regex, valid(text))
  end

  # --- handing on ---------------------------------------------------------------------------------

  defp hand_on(%{sink: :discard} = output, _stream, _bytes), do: output

  defp hand_on(%{sink: {:log, _level}} = output, stream, bytes) do
    {lines, begun} =
      output.lines |> Map.get(stream, Lines.new(:trim, @longest_line)) |> Lines.push(bytes)

    log(output, stream, lines)
    put_in(output.lines[stream], begun)
  end

  defp hand_on(%{sink: callback} = output, stream, bytes) do
    try do
      if is_function(callback, 1), do: callback.(bytes), else: callback.(stream, bytes)
    catch
      kind, reason ->
        Logger.error(
          "the :on_output function of a daemon failed, and goes on with the next piece of output: " <>
            Exception.format(kind, reason, __STACKTRACE__),
          output.metadata
        )
    end

    output
  end

  defp log(%{sink: {:log, level}} = output, stream, lines) do
    metadata = [stream: stream] ++ output.metadata
    # A copy each: handlers may keep a line, and should not keep the piece that it was read with.
    Enum.each(lines, &Logger.log(level, :binary.copy(valid(&1)), metadata))
  end

  # With a U+FFFD for each byte that is no UTF-8.
  defp valid(text) do
    if String.valid?(text) do
      text
    else
      for piece <- String.chunk(text, :valid), into: "" do
        if String.valid?(piece), do: piece, else: String.duplicate("\uFFFD", byte_size(piece))
      end
    end
  end
end
