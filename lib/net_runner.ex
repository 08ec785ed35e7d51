defmodule NetRunner do
  @moduledoc """
  Runs operating-system commands: with backpressure, with nothing ever left running.

      iex> NetRunner.run(~w(echo hello))
      {"hello\\n", 0}
      iex> NetRunner.run(~w(tr a-z A-Z), input: "hello")
      {"HELLO", 0}
      iex> NetRunner.stream!(~w(seq 1 1000000)) |> Stream.take(1) |> Enum.map(&binary_part(&1, 0, 4))
      ["1\\n2\\n"]

  A command is a list `[executable | args]`, or a `NetRunner.Command`. No shell is between: arguments
  arrive as they are.

  Three ways to run one:

    * `run/2` waits for the end and returns everything it printed, and its exit status;
    * `stream!/2` and `stream/2` give what it prints piece by piece, as fast as the pieces are consumed;
    * `NetRunner.Process` reads and writes on demand, signals, waits.

  When a command is over, nothing that it started is left running, whatever ended it: its own exit, a
  timeout, a consumer that stopped early or crashed, the death of the VM.
  """

  alias NetRunner.{Command, Input, Options}
  alias NetRunner.Process.Server

  @typedoc "`[executable | args]`, or a command that was made before."
  @type command :: [String.t()] | Command.t()

  @typedoc "Why a command gave no result."
  @type error ::
          NetRunner.Process.start_error()
          | :timeout
          | {:max_output_exceeded, partial :: binary()}
          | :shepherd_died
          | atom()

  @run_groups [:input, :run, :command]
  @stream_groups [:input, :command]
  @raising_groups [:input, :stream, :command]

  @doc """
  Runs a command to its end and returns `{stdout, exit_status}`. A signal gives status 128 + its number.

  With `:timeout` or `:max_output_size` the command is ended when it passes them; the result comes when
  it is gone, with everything it started:

      iex> NetRunner.run(~w(sleep 100), timeout: 100)
      {:error, :timeout}
      iex> NetRunner.run(["sh", "-c", "yes"], max_output_size: 4)
      {:error, {:max_output_exceeded, "y\\ny\\n"}}

  What cannot be started says why:

      iex> NetRunner.run(~w(no-such-program))
      {:error, :enoent}
      iex> NetRunner.run(~w(true), cd: "/nowhere")
      {:error, {:cd, :enoent}}

  An option that does not exist or has a value of the wrong type raises `ArgumentError`. When producing
  `:input` raises, throws or exits, so does `run/2`.

  ## Options

  #{Options.documentation(@run_groups)}
  """
  @spec run(command(), keyword()) :: {stdout :: binary(), 0..255} | {:error, error()}
  def run(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @run_groups)
    options = Options.validate!(options, @run_groups)
    input = Input.new(options)

    with {:ok, server} <- NetRunner.Stream.start(command, drained(options), input) do
      case collect(server, options) do
        {:error, {:input_failed, {kind, reason, stack}}} -> :erlang.raise(kind, reason, stack)
        result -> result
      end
    end
  end

  defp collect(server, options) do
    GenServer.call(server, {:collect, options.max_output_size, options.timeout}, :infinity)
  catch
    :exit, {{:nodedown, _}, {GenServer, :call, _}} -> {:error, {:node, :disconnected}}
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
  end

  @doc """
  A stream of what a command prints, in binaries of any size. The command starts when the stream is
  enumerated and ends when the consumer stops early, raises, or dies.

      iex> NetRunner.stream!(~w(sort), input: ["c\\n", "a\\n"]) |> Enum.join()
      "a\\nc\\n"

  Raises `NetRunner.Error` when the command cannot be started and, at the end, when it did not exit with
  0, unless `exit_status: :ignore`.

      iex> NetRunner.stream!(["sh", "-c", "echo bad >&2; exit 3"]) |> Enum.to_list()
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad

  A failure while `:input` is produced is raised in the consumer.

  ## Options

  #{Options.documentation(@raising_groups)}
  """
  @spec stream!(command(), keyword()) :: Enumerable.t()
  def stream!(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @raising_groups)
    options = Options.validate!(options, @raising_groups)
    NetRunner.Stream.lazy(command, drained(options), Input.new(options))
  end

  @doc """
  Starts a command and returns `{:ok, stream}` of what it prints, or `{:error, reason}`. The stream does
  not raise for the exit status. It is enumerated once; the command belongs to the caller.

      iex> {:ok, stream} = NetRunner.stream(~w(sort), input: ["c\\n", "a\\n"])
      iex> Enum.join(stream)
      "a\\nc\\n"
      iex> NetRunner.stream(~w(no-such-program))
      {:error, :enoent}

  ## Options

  #{Options.documentation(@stream_groups)}
  """
  @spec stream(command(), keyword()) ::
          {:ok, Enumerable.t()} | {:error, NetRunner.Process.start_error()}
  def stream(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @stream_groups)
    options = Options.validate!(options, @stream_groups)
    input = Input.new(options)

    with {:ok, server} <- Server.start(command, drained(options), input: Input.for_server(input)) do
      {:ok, NetRunner.Stream.running(server, input)}
    end
  end

  # Nobody can read the stderr of these on demand, and the command must not block on it.
  defp drained(%{stderr: :pipe} = options), do: %{options | stderr: :consume}
  defp drained(options), do: options
end
