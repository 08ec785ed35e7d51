defmodule NetRunner.Stream do
  @moduledoc false
  # The output of a command as an enumerable: `start` begins the command (in the process that
  # enumerates), `next` reads a chunk, `stop` ends what still runs.

  alias NetRunner.{Error, Input}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Server

  @chunk 262_144

  @doc "A lazy enumerable that starts the command when it is enumerated, and raises what goes wrong."
  @spec lazy([String.t()], map(), Input.t()) :: Enumerable.t()
  def lazy(command, options, input) do
    Stream.resource(
      fn ->
        case start(command, options, input) do
          {:ok, server} -> server
          {:error, reason} -> raise Error, reason: reason, command: command
        end
      end,
      fn server -> next(server, &ended(&1, command, options.exit_status)) end,
      &Command.stop/1
    )
  end

  @doc "An enumerable of a command that has been started; never raises for its status."
  @spec running(pid(), Input.t()) :: Enumerable.t()
  def running(server, input) do
    Stream.resource(
      fn ->
        Input.feed(input, server)
        server
      end,
      fn server -> next(server, fn _ -> :ok end) end,
      &Command.stop/1
    )
  end

  @spec start([String.t()], map(), Input.t()) :: {:ok, pid()} | {:error, Command.start_error()}
  def start(command, options, input) do
    with {:ok, server} <- Server.start(command, options, input: Input.for_server(input)) do
      Input.feed(input, server)
      {:ok, server}
    end
  end

  defp next(server, at_end) do
    case Command.read(server, @chunk) do
      {:ok, bytes} ->
        {[bytes], server}

      # Nothing to read where stdout leads elsewhere.
      end_of_file when end_of_file in [:eof, {:error, :not_piped}] ->
        at_end.(server)
        {:halt, server}

      {:error, {:input_failed, {kind, reason, stack}}} ->
        :erlang.raise(kind, reason, stack)

      {:error, reason} ->
        raise Error, reason: reason, command: []
    end
  end

  defp ended(server, command, on_failure) do
    case Command.await_exit(server) do
      {:ok, 0} ->
        :ok

      {:ok, _} when on_failure == :ignore ->
        :ok

      {:ok, status} ->
        raise Error,
          reason: :exit_status,
          command: command,
          status: status,
          exit: Command.stats(server).exit,
          stderr: GenServer.call(server, :stderr_tail)

      {:error, reason} ->
        raise Error, reason: reason, command: command
    end
  end
end
