defmodule NetRunner.Run.Capture do
  @moduledoc false
  # Runs a command and finds out everything about it: `NetRunner.capture/2`, and `NetRunner.run!/2`.
  #
  # Its life: the command is started; the caller reads from whichever stream has something, keeps what has to be kept, and
  # calls `:on_output`; at the end of the output it waits for the end of the command, and asks its server how it ended. A
  # timeout, a limit or a token that ends the command only tells the server why. The caller reads on, so what the command
  # prints while it is being ended is kept as well. The server keeps the first reason.
  #
  # The command's server ends it when the caller dies.

  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Report, Server, Stats}
  alias NetRunner.Result
  alias NetRunner.Run.{CancelToken, Input, Kept, Progress}

  @chunk 524_288
  @chunk_for_callback 65_536

  # `idle`: ms that a read waits. `lost`: why nothing more can be read, where that is not the end of the output.
  @enforce_keys [:server, :command, :options, :os_pid, :started, :kept, :idle, :progress]
  defstruct @enforce_keys ++ [lost: nil]

  @type t :: %__MODULE__{
          server: pid(),
          command: [String.t()],
          options: map(),
          os_pid: pos_integer() | nil,
          started: {DateTime.t(), monotonic_ms :: integer()},
          kept: Kept.t(),
          idle: timeout(),
          progress: Progress.t(),
          lost: nil | :node | :closed
        }

  @typedoc "What producing the input failed with, as it was raised, thrown or exited with."
  @type failure :: {:error | :exit | :throw, term(), Exception.stacktrace()}

  @doc "Runs a command to its end."
  @spec run([String.t()], map(), Input.t()) ::
          {:ok, Result.t(), failure() | nil} | {:error, term()}
  def run(command, options, input) do
    # Nobody else can get the result.
    options = %{options | owner: options.owner || self()}
    extra = [input: Input.for_server(input), grace?: true, captured_by: self()]
    started = {DateTime.utc_now(), now()}

    with false <- CancelToken.cancelled?(options.cancel),
         {:ok, server} <- Server.start(command, options, extra) do
      feeder = Input.feed(input, server)

      capture = %__MODULE__{
        server: server,
        command: command,
        options: options,
        os_pid: os_pid(server),
        started: started,
        kept: Kept.new(options),
        idle: options.idle_timeout,
        progress: Progress.start(options, input, server, command)
      }

      capture |> read_all(feeder) |> finish(feeder)
    else
      true -> {:error, :cancelled}
      {:error, reason} -> {:error, reason}
    end
  end

  defp os_pid(server), do: with({:error, _gone} <- Command.os_pid(server), do: nil)

  # --- reading ------------------------------------------------------------------------------------

  defp read_all(%{server: server, options: %{cancel: token}} = capture, feeder) do
    :ok = CancelToken.attach(token, server)
    read(capture)
  catch
    # Of `:on_output`.
    kind, reason ->
      watch = Input.watch(feeder)
      _ = Command.stop(server)
      Progress.stop(capture.progress)
      _ = Input.await_end(watch)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp read(capture) do
    case Command.read_any_idle(capture.server, chunk_size(capture), capture.idle) do
      {:ok, {stream, bytes}} ->
        capture |> keep(stream, bytes) |> hand_on(stream, bytes) |> read()

      {:error, :timeout} ->
        :ok = Server.end_captured(capture.server, :idle_timeout)
        read(%{capture | idle: :infinity})

      {:error, {:node, :disconnected}} ->
        %{capture | lost: :node}

      {:error, :closed} ->
        %{capture | lost: :closed}

      # Also where the input has failed.
      _end_of_output ->
        capture
    end
  end

  defp chunk_size(%{options: %{on_output: nil}}), do: @chunk
  defp chunk_size(_capture), do: @chunk_for_callback

  defp keep(%{kept: before} = capture, stream, bytes) do
    kept = Kept.add(before, stream, bytes)

    if kept.exceeded != before.exceeded,
      do: Server.end_captured(capture.server, {:output_limit, kept.exceeded})

    %{capture | kept: kept}
  end

  defp hand_on(%{options: %{on_output: callback}} = capture, stream, bytes) do
    cond do
      callback == nil -> :ok
      is_function(callback, 1) -> callback.(bytes)
      true -> callback.(stream, bytes)
    end

    capture
  end

  # --- the end ------------------------------------------------------------------------------------

  defp finish(%{server: server} = capture, feeder) do
    ending = Command.await_exit(server)
    watch = Input.watch(feeder)
    # Counted afterwards: no more is kept of it than there was.
    consumed = consumed(capture)
    account = Command.account(server)
    capture = keep_consumed(capture, consumed, account)
    _ = Command.stop(server)
    Progress.stop(capture.progress)
    failure = input_failure(account, Input.await_end(watch))
    {:ok, result(capture, account, outcome(capture, ending, account, failure)), failure}
  end

  # The server knew first, or the feeder failed when that was gone.
  defp input_failure(%{input_failure: {:error, {:input_failed, failure}}}, _feeder), do: failure
  defp input_failure(_account, {:error, {:input_failed, failure}}), do: failure
  defp input_failure(_account, :ok), do: nil

  defp outcome(_capture, {:error, {:not_ended, _}}, _account, _failure), do: :not_ended

  defp outcome(capture, _ending, %{outcome: :ended}, failure) do
    # What came to light only when the command had exited, and would have ended it.
    cond do
      capture.kept.exceeded != nil -> {:output_limit, capture.kept.exceeded}
      failure != nil -> {:input_failed, Report.exception(failure)}
      true -> :ended
    end
  end

  defp outcome(_capture, _ending, %{outcome: :stopped}, _failure), do: :cancelled
  defp outcome(_capture, _ending, %{outcome: outcome}, _failure), do: outcome
  defp outcome(%{lost: :node}, _ending, _gone, _failure), do: :node_lost
  defp outcome(_capture, _ending, {:error, {:node, _}}, _failure), do: :node_lost
  # Its server is gone: the owner has died, or somebody has stopped it.
  defp outcome(_capture, _ending, {:error, :closed}, _failure), do: :cancelled

  defp consumed(%{options: %{stderr: :consume, pty: false}} = capture),
    do: Command.failure(capture.server)[:stderr]

  defp consumed(_capture), do: nil

  defp keep_consumed(capture, tail, %{stats: stats}) when tail != nil,
    do: %{capture | kept: Kept.put_consumed(capture.kept, tail, stats.bytes_err)}

  defp keep_consumed(capture, _tail, _account), do: capture

  defp result(capture, account, outcome) do
    kept = Kept.fields(capture.kept)
    stats = stats(capture, account)

    %Result{
      command: capture.command,
      os_pid: capture.os_pid,
      started_at: stats.started_at,
      duration_ms: stats.duration_ms,
      outcome: outcome,
      status: stats.exit_status,
      exit: stats.exit,
      stdout: kept.stdout,
      stderr: kept.stderr,
      output: kept.output,
      dropped: kept.dropped,
      stats: stats
    }
  end

  defp stats(_capture, %{stats: stats}), do: stats

  # Of what nobody can be asked any more, what was seen here.
  defp stats(%{started: {started_at, started}}, {:error, _gone}) do
    %Stats{started_at: started_at, duration_ms: now() - started}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
