defmodule NetRunner.Daemon do
  @moduledoc """
  A command that runs as long as its supervisor wants it: a database, a proxy, a tunnel, a language server.

      children = [
        {NetRunner.Daemon,
         cmd: "redis-server",
         args: ["--port", "6390"],
         name: MyApp.Redis,
         on_output: :log,
         ready: {:tcp, "localhost", 6390},
         process_opts: [cd: "/var/lib/my_app", kill_timeout: 10_000]}
      ]

      Supervisor.start_link(children, strategy: :rest_for_one)

  Its life: start the command, wait until it is ready (see `:ready`), and only then return
  to the supervisor, which goes on with the next child. Read what the command prints for as long as it runs. When
  the command exits, exit too, with a reason that says how. When the supervisor wants it to
  stop, end the command, and return when nothing that it started is left.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "sleep", args: ["100"])
      iex> NetRunner.Daemon.alive?(daemon)
      true
      iex> GenServer.stop(daemon)
      :ok

  ## How it ends

  | the command | the daemon exits with | `:permanent` | `:transient` | `:temporary` |
  |---|---|---|---|---|
  | exits with 0 | `:normal` | restarted | over | over |
  | exits with `n` | `{:exit_status, n}` | restarted | restarted | over |
  | is ended by a signal | `{:signal, name_or_number}` | restarted | restarted | over |
  | loses its helper process | `:shepherd_died` | restarted | restarted | over |
  | loses the connection to its `:node` | `{:node, :disconnected}` | restarted | restarted | over |

  What the command printed before it ended has been handed to `:on_output` by then. `:permanent` is the default;
  `Supervisor.child_spec({NetRunner.Daemon, …}, restart: :transient)` changes it.

  Stopped by its supervisor (or by `GenServer.stop/1`), it sends the `:stop_signal` of `:process_opts`
  (SIGTERM), after `:kill_timeout` SIGKILL, and hands on what the command printed meanwhile. The child spec
  gives it more time for that (`:shutdown`) than it needs. A daemon that is killed, by
  `shutdown: :brutal_kill` or with the VM, has its command ended all the same, by the command's
  shepherd; only nobody waits for that then.

  ## Output

  Both outputs are read all the time, unless `:process_opts` say otherwise, so the command never blocks because
  nobody reads. They are read on demand, though: the next piece when the last one has been logged, or the callback has
  returned. With a callback that is slower than the command, the command waits, and no memory fills.

  `:log` logs whole lines with the metadata `:command` (the executable and its arguments), `:os_pid` and `:stream`
  (`:stdout` or `:stderr`). A line of more than 8 KiB is logged in pieces. A function gets pieces of
  any size up to 64 KiB, one at a time. One that raises is logged, and gets the next piece nonetheless.

  ## Ready

    * a function is called again and again, 50 ms after it has returned, in a process of its own. The daemon
      is ready when it returns `true`, `:ok` or `{:ok, _}`. It gets nothing, or the command's
      `NetRunner.Process`, with which it can write to the command. When it raises, that counts as not yet;
    * `{:output, regex}`: when what was printed to stdout or to stderr matches; it is matched against the last
      8 KiB and more;
    * `{:tcp, host, port}`: when a connection can be made (it is closed at once). Whoever else listens there
      passes for the daemon.

  When `:ready_timeout` is over before, the command is ended and `{:error, {:not_ready, message}}` returned. When
  the command exits before, the error is how: `{:error, {:exit_status, 0}}`.
  """

  use GenServer

  require Logger

  alias NetRunner.Daemon.{Output, Ready}
  alias NetRunner.Options
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Server, Stats}

  @groups [:daemon, :process]

  # Milliseconds for what the command printed at its end, when it is stopped.
  @last_output 2_000

  # What stopping takes beside :kill_timeout, at the most; the supervisor would kill the daemon after that.
  @stop_margin @last_output + 3_000

  @enforce_keys [:process, :parent, :sink, :metadata]
  defstruct [:output | @enforce_keys]

  @typedoc "A daemon: its pid, or the name it is registered under."
  @type t :: GenServer.server()

  @typedoc "Why a daemon did not start."
  @type start_error ::
          Command.start_error()
          | {:not_ready, message :: String.t()}
          | {:exit_status, 0..255}
          | {:signal, atom() | pos_integer()}
          | {:already_started, pid()}
          | :shepherd_died

  @doc """
  The child spec. Its `:id` is the `:name`, or `NetRunner.Daemon`; its `:shutdown` is longer than `:kill_timeout`.

      iex> NetRunner.Daemon.child_spec(cmd: "cat", process_opts: [kill_timeout: 1_000]).shutdown
      6000
      iex> NetRunner.Daemon.child_spec(cmd: "cat", on_ouput: :log)
      ** (ArgumentError) unknown option :on_ouput; did you mean :on_output?
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    %{name: name, process_opts: process_opts} = validate!(options)

    %{
      id: name || __MODULE__,
      start: {__MODULE__, :start_link, [options]},
      shutdown: process_opts.kill_timeout + @stop_margin
    }
  end

  @doc """
  Starts a daemon, linked to the caller; returns when it is ready.

      iex> NetRunner.Daemon.start_link(cmd: "no-such-program")
      {:error, :enoent}
      iex> {:error, {:not_ready, message}} =
      ...>   NetRunner.Daemon.start_link(cmd: "cat", ready: {:output, ~r/hello/}, ready_timeout: 50)
      iex> message
      "it did not become ready within 50 ms: its output did not match ~r/hello/"

  Wrong options raise `ArgumentError`.

  ## Options

  #{Options.documentation(@groups)}
  """
  @spec start_link(keyword()) :: {:ok, pid()} | {:error, start_error()}
  def start_link(options) do
    options = validate!(options)
    name = if options.name, do: [name: options.name], else: []

    # It links itself, so that one that does not start takes nobody along.
    case GenServer.start(__MODULE__, {options, self()}, name) do
      {:error, {:shutdown, {:not_started, reason}}} -> {:error, reason}
      result -> result
    end
  end

  @doc """
  The command's PID in the operating system.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat")
      iex> is_integer(NetRunner.Daemon.os_pid(daemon))
      true
  """
  @spec os_pid(t()) :: pos_integer() | {:error, Command.gone()}
  def os_pid(daemon), do: with({:ok, process} <- process(daemon), do: Command.os_pid(process))

  @doc """
  Whether the daemon is there and its command runs.

      iex> NetRunner.Daemon.alive?(:no_such_daemon)
      false
  """
  @spec alive?(t()) :: boolean()
  def alive?(daemon) do
    case process(daemon) do
      {:ok, process} -> Command.alive?(process)
      {:error, _} -> false
    end
  end

  @doc """
  Writes iodata to the command's stdin; returns when all of it is in the pipe, so that a command that reads slowly
  slows its writer down, and nobody else. Errors as of `NetRunner.Process.write/2`.

      iex> test = self()
      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat", on_output: &send(test, &1))
      iex> NetRunner.Daemon.write(daemon, ["hel", "lo"])
      :ok
      iex> receive do: (bytes -> bytes)
      "hello"
  """
  @spec write(t(), iodata()) ::
          :ok | {:error, :epipe | :not_piped | Command.gone() | Command.posix()}
  def write(daemon, iodata) do
    with {:ok, process} <- process(daemon), do: Command.write(process, iodata)
  end

  @doc """
  What was counted for the command, as of `NetRunner.Process.stats/1`.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat")
      iex> NetRunner.Daemon.write(daemon, "hello")
      iex> %NetRunner.Process.Stats{bytes_in: 5} = NetRunner.Daemon.stats(daemon)
  """
  @spec stats(t()) :: Stats.t() | {:error, Command.gone()}
  def stats(daemon), do: with({:ok, process} <- process(daemon), do: Command.stats(process))

  defp process(daemon) do
    {:ok, GenServer.call(daemon, :process, :infinity)}
  catch
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
  end

  defp validate!(options) do
    options = Options.validate!(options, @groups)

    if options.cmd == nil do
      raise ArgumentError, "the option :cmd is missing: give the executable as a string"
    end

    if Keyword.has_key?(options.process_opts, :owner) do
      raise ArgumentError,
            "the option :owner has no meaning in :process_opts: the command belongs to its daemon"
    end

    process_opts = Options.validate!(options.process_opts, [:command], stderr: :pipe)
    %{options | process_opts: process_opts}
  end

  # --- the process --------------------------------------------------------------------------------

  @impl true
  def init({options, parent}) do
    Process.flag(:trap_exit, true)
    Process.link(parent)
    command = [options.cmd | options.args]

    with {:ok, process} <- Server.start(command, options.process_opts),
         {:ok, state} <- begin(process, command, parent, options) do
      {:ok, state}
    else
      # A shutdown, so that nothing is logged: the caller gets the reason.
      {:error, reason} ->
        Process.unlink(parent)
        {:stop, {:shutdown, {:not_started, reason}}}
    end
  end

  defp begin(process, command, parent, options) do
    state = %__MODULE__{
      process: process,
      parent: parent,
      sink: if(options.on_output == :log, do: {:log, :info}, else: options.on_output),
      metadata: [command: command, os_pid: Command.os_pid(process)]
    }

    ready = Ready.start(options.ready, process, options.ready_timeout)
    result = await_ready(read_output(state, Ready.watch(options.ready, ready)), options, ready)
    Ready.stop(ready)
    result
  end

  defp await_ready(%{output: output} = state, options, ready) do
    case Ready.await(ready) do
      :ready ->
        {:ok, state}

      {:error, reason} ->
        end_command(state)
        {:error, reason}

      {:EXIT, ^output, {:ended, how}} ->
        Command.stop(state.process)
        {:error, how}

      {:EXIT, ^output, reason} ->
        log_output_died(state, reason)
        state |> read_output(Ready.watch(options.ready, ready)) |> await_ready(options, ready)

      {:EXIT, _pid, reason} ->
        end_command(state)
        {:error, reason}
    end
  end

  defp read_output(state, watch \\ nil) do
    %{state | output: Output.start_link(state.process, state.sink, state.metadata, watch)}
  end

  @impl true
  def handle_call(:process, _from, state), do: {:reply, state.process, state}

  @impl true
  def handle_info({:EXIT, output, {:ended, how}}, %{output: output} = state) do
    Command.stop(state.process)
    reason = if how == {:exit_status, 0}, do: :normal, else: how
    {:stop, reason, %{state | output: nil}}
  end

  def handle_info({:EXIT, output, reason}, %{output: output} = state) do
    log_output_died(state, reason)
    {:noreply, read_output(state)}
  end

  def handle_info({:EXIT, parent, reason}, %{parent: parent} = state), do: {:stop, reason, state}
  def handle_info({:EXIT, _linked, :normal}, state), do: {:noreply, state}
  def handle_info({:EXIT, _linked, reason}, state), do: {:stop, reason, state}

  def handle_info(message, state) do
    Logger.warning("a daemon received a message that nobody expected: #{inspect(message)}")
    {:noreply, state}
  end

  @impl true
  def terminate(_reason, %{output: nil}), do: :ok
  def terminate(_reason, state), do: end_command(state)

  # The output is read on meanwhile, so that what the command says at its end is not lost, and it
  # is not stopped by a full pipe.
  defp end_command(%{process: process, output: output}) do
    _ = Command.end_command(process)
    _ = Command.await_exit(process)

    receive do
      {:EXIT, ^output, _} -> :ok
    after
      @last_output ->
        Process.unlink(output)
        Process.exit(output, :kill)
    end

    Command.stop(process)
  end

  defp log_output_died(state, reason) do
    Logger.error(
      "the process that reads a daemon's output died and is started again; " <>
        "its :on_output function can be the cause: #{inspect(reason)}",
      state.metadata
    )
  end
end
