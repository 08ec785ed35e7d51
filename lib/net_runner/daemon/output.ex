defmodule NetRunner.Daemon.Output do
  @moduledoc false
  # The process that reads what a daemon's command prints, and has it handled.
  #
  # It reads the next piece when the handler has dealt with the last one. So what a slow callback does not keep up
  # with waits in the kernel's pipe, and the command waits too; the VM's memory does not grow. Once the command has been
  # told to end (`read_ahead/1`), it reads as fast as it can, and the handler gets what it has time for: nothing in this VM
  # keeps a command from ending. When it is given up, it logs how much was not handled.
  #
  # It runs no user's code and waits for nothing but messages, so it answers at once, whatever a callback does. It is
  # linked to the daemon, and ends with `{:shutdown, {:ended, tail}}`, where `tail` is the end of stderr: when all that was
  # printed has been handled, or when it is given up (`give_up/1`, `give_up_if_stuck/1`). A GenServer, as nothing else may end it. Race: upgraded while it
  # waits.

  use GenServer

  alias NetRunner.Daemon.Handler
  alias NetRunner.{Log, Text}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Context, Fault}

  @chunk 65_536

  # What is kept of each stream for a match that is longer than a piece.
  @window 8_192

  # What is read ahead of the handler, in bytes. A small piece costs more memory than its bytes.
  @ahead 1_048_576
  @least 256

  @enforce_keys [:daemon, :process, :sink, :metadata, :watch, :tail_of, :tail_size]
  defstruct @enforce_keys ++
              [
                # A request that has not been answered; `nil`; `:ended`, when nothing more can be read.
                request: nil,
                ahead?: false,
                handler: nil,
                # What the handler does now, and what it will do then.
                work: nil,
                queue: :queue.new(),
                queued: 0,
                dropped: 0,
                windows: %{},
                tail: "",
                # How often the handler got on by a line or a piece, and how often it had at the last `give_up_if_stuck/1`. When it
                # is stuck, only the rest is read, and then it is given up.
                progress: nil,
                progress_before: nil,
                stuck?: false
              ]

  @type options :: [
          sink: :discard | Handler.sink(),
          metadata: keyword(),
          watch: nil | {Regex.t(), message :: term()},
          tail_of: :stdout | :stderr | nil,
          tail_size: non_neg_integer()
        ]

  @doc """
  Starts to read. The message of `:watch` is sent to the caller when its regex matches for the first time. The tail is
  that of the stream `:tail_of`.
  """
  @spec start_link(pid(), options()) :: pid()
  def start_link(process, options) do
    output = struct!(__MODULE__, [daemon: self(), process: process] ++ options)

    # Chunks must not outlive their use.
    {:ok, pid} =
      GenServer.start(__MODULE__, {output, Context.capture()}, spawn_opt: [fullsweep_after: 8])

    pid
  end

  @doc "From now on, it does not wait for the handler before it reads."
  @spec read_ahead(pid()) :: :ok
  def read_ahead(output) do
    send(output, :read_ahead)
    :ok
  end

  @doc "As `give_up/1`, if the handler has not got on by a line or a piece since this was called before; but first the rest is read, for the tail."
  @spec give_up_if_stuck(pid()) :: :ok
  def give_up_if_stuck(output) do
    send(output, :give_up_if_stuck)
    :ok
  end

  @doc "Ends it at once, and its handler."
  @spec give_up(pid()) :: :ok
  def give_up(output) do
    send(output, :give_up)
    :ok
  end

  # The link is its own, so that the daemon's end is a message as any other: OTP would log that of a parent.
  @impl true
  def init({output, context}) do
    Process.flag(:trap_exit, true)
    Process.link(output.daemon)
    Context.adopt(context)
    {:ok, %{output | progress: :counters.new(1, [])}, {:continue, :begin}}
  end

  @impl true
  def handle_continue(:begin, output), do: go_on(output)

  @impl true
  def handle_info({:EXIT, daemon, reason}, %{daemon: daemon} = output),
    do: {:stop, {:shutdown, reason}, output}

  def handle_info(:give_up, output), do: given_up(output)

  def handle_info(:give_up_if_stuck, output) do
    case :counters.get(output.progress, 1) do
      same when same == output.progress_before and output.stuck? -> given_up(output)
      same when same == output.progress_before -> go_on(%{output | ahead?: true, stuck?: true})
      progress -> go_on(%{output | progress_before: progress})
    end
  end

  def handle_info(message, output), do: message |> handle(output) |> go_on()

  # Of whoever has got hold of this pid.
  @impl true
  def handle_call(_request, _from, output), do: {:reply, {:error, :closed}, output}
  @impl true
  def handle_cast(_request, output), do: {:noreply, output}

  # Not by the link alone: a callback may have made it trap exits.
  @impl true
  def terminate(_reason, output) do
    if output.handler, do: Process.exit(output.handler, :kill)
  end

  # In crash reports: it holds what the command printed.
  if Version.match?(System.version(), ">= 1.17.0-dev"), do: @impl(true)

  def format_status(status),
    do: Fault.hide(status, "the output of a daemon, which may hold secrets")

  defp go_on(output) do
    case output |> hand_on() |> ask() do
      %{request: :ended, work: nil} = output -> ended(output)
      %{request: :ended, stuck?: true} = output -> given_up(output)
      output -> {:noreply, output}
    end
  end

  defp given_up(output) do
    pieces = [output.work | :queue.to_list(output.queue)]

    case Enum.sum(for {:piece, _, bytes} <- pieces, do: byte_size(bytes)) + output.dropped do
      0 ->
        :ok

      lost ->
        Log.write(
          :warning,
          "up to #{lost} bytes of the last output of the daemon #{output.metadata[:command]} were not handled: its function " <>
            "(:on_output, :on_line), or the log, was too slow or hung when the command had ended",
          output.metadata
        )
    end

    ended(output)
  end

  defp ended(output), do: {:stop, {:shutdown, {:ended, output.tail}}, output}

  defp handle({handler, :done}, %{handler: handler} = output), do: %{output | work: nil}

  # The piece that it died of is passed over.
  defp handle({:EXIT, handler, reason}, %{handler: handler} = output) do
    # Unless that was the news of another death: else there might be no end of it.
    news = if match?({:died, _}, output.work), do: [], else: [{:died, reason}]
    queue = Enum.reduce(news, output.queue, &:queue.in_r/2)
    %{output | handler: nil, work: nil, queue: queue}
  end

  defp handle(:read_ahead, output), do: %{output | ahead?: true}

  defp handle(message, %{request: request} = output) when request not in [nil, :ended] do
    case :gen_server.check_response(message, request) do
      {:reply, {:ok, {stream, bytes}}} -> take(%{output | request: nil}, stream, bytes)
      {:reply, _eof_or_error} -> finish(output)
      {:error, _gone} -> finish(output)
      # Of whoever has got hold of this pid.
      :no_reply -> output
    end
  end

  defp handle(_message, output), do: output

  # --- reading ------------------------------------------------------------------------------------

  defp ask(%{request: nil, work: work, ahead?: ahead?} = output) when work == nil or ahead? do
    %{output | request: Command.request_any(output.process, @chunk)}
  end

  defp ask(output), do: output

  defp take(output, stream, bytes) do
    output |> keep_tail(stream, bytes) |> watch(stream, bytes) |> queue(stream, bytes)
  end

  defp keep_tail(%{tail_of: stream, tail_size: size} = output, stream, bytes) do
    %{output | tail: Text.last(output.tail <> Text.last(bytes, size), size)}
  end

  defp keep_tail(output, _other_stream, _bytes), do: output

  defp watch(%{watch: nil} = output, _stream, _bytes), do: output

  defp watch(%{watch: {regex, message}} = output, stream, bytes) do
    text = Map.get(output.windows, stream, "") <> bytes

    if matches?(regex, text) do
      send(output.daemon, message)
      %{output | watch: nil, windows: %{}}
    else
      put_in(output.windows[stream], Text.last(text, @window))
    end
  end

  # A regex for UTF-8 takes no other bytes, and a piece can end inside of a character.
  defp matches?(regex, text) do
    Regex.match?(regex, text)
  rescue
    ArgumentError -> Regex.match?(regex, Text.valid(text))
  end

  # --- having it handled --------------------------------------------------------------------------

  defp queue(%{sink: :discard} = output, _stream, _bytes), do: output

  defp queue(output, stream, bytes) do
    if output.queued + cost(bytes) > @ahead do
      %{output | dropped: output.dropped + byte_size(bytes)}
    else
      output = tell_dropped(output)
      queue = :queue.in({:piece, stream, bytes}, output.queue)
      %{output | queue: queue, queued: output.queued + cost(bytes)}
    end
  end

  defp tell_dropped(%{dropped: 0} = output), do: output

  defp tell_dropped(%{dropped: bytes} = output) do
    %{output | queue: :queue.in({:dropped, bytes}, output.queue), dropped: 0}
  end

  defp cost(bytes), do: max(byte_size(bytes), @least)

  defp finish(%{sink: :discard} = output), do: %{output | request: :ended}

  defp finish(output) do
    output = tell_dropped(output)
    %{output | request: :ended, queue: :queue.in(:end, output.queue)}
  end

  defp hand_on(%{work: nil} = output) do
    case :queue.out(output.queue) do
      {:empty, _} ->
        output

      {{:value, work}, queue} ->
        handler =
          output.handler || Handler.start_link(output.sink, output.metadata, output.progress)

        Handler.work(handler, work)
        %{paid_for(output, work) | handler: handler, work: work, queue: queue}
    end
  end

  defp hand_on(output), do: output

  defp paid_for(output, {:piece, _, bytes}), do: %{output | queued: output.queued - cost(bytes)}
  defp paid_for(output, _other_work), do: output
end
