defmodule NetRunner.Process do
  @moduledoc """
  One running command, read and written on demand.

  `start/3` returns when the command has been started. What it prints stays in the kernel's pipe until
  `read/2` asks for it: when nobody asks, the pipe fills, the command's own `write(2)` blocks, and the
  VM's memory does not grow. `write/2` returns when everything is in the pipe, so a command that reads
  slowly slows its writer down.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.write(p, "hello")
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "hello"}
      iex> NetRunner.Process.close_stdin(p)
      :ok
      iex> NetRunner.Process.read(p)
      :eof
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> NetRunner.Process.stop(p)
      :ok

  The process belongs to its caller (see `:owner`): when that dies, the command and everything it
  started are ended, and the process stops. After the exit of the command it can still be read to the
  end and asked for its statistics, until `stop/1`.

  Reads, writes and all else may be called from any process, at the same time. Reads of one stream
  are served in the order of their calls; so are writes, and the bytes of two writes are never mixed.

  Where the process itself is gone, all functions return `{:error, :closed}` (`stop/1`: `:ok`,
  `alive?/1`: `false`); where the connection to its node is, `{:error, {:node, :disconnected}}`.
  """

  alias NetRunner.{Command, Options, Signal}
  alias NetRunner.Process.{Counters, Server, Stats}

  @default_read 65_535

  # What one read allocates at the most.
  @max_read 16_777_216
  @groups [:command, :process]

  @typedoc "A process that runs a command: its pid, or the name it is registered under."
  @type t :: GenServer.server()

  @typedoc "A system error by its POSIX name in lower case, such as `:enoent`."
  @type posix :: atom()

  @typedoc "Why a command could not be started."
  @type start_error ::
          posix()
          | {NetRunner.System.Native.step(), posix()}
          | {:invalid_cmd | :invalid_args | :invalid_env | :invalid_cd, String.t()}
          | {:already_started, pid()}
          | {:node, NetRunner.System.Node.reason()}
          | :launcher_died
          | :shepherd_died
          | :not_started

  @typedoc "The process is gone, or its node is out of reach."
  @type gone :: :closed | {:node, :disconnected}

  @typedoc "What `info/1` tells."
  @type info :: %{
          pid: pid(),
          os_pid: pos_integer(),
          command: [String.t()],
          started_at: DateTime.t(),
          duration_ms: non_neg_integer(),
          bytes: Counters.bytes(),
          status: :running | :exited | :lost,
          exit_status: 0..255 | nil,
          exit: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()} | nil
        }

  @typedoc "Why nothing can be read: `:input_failed` only where a stream feeds the command."
  @type read_error ::
          gone()
          | :not_piped
          | {:not_ended, os_pid :: pos_integer()}
          | {:input_failed, {:error | :exit | :throw, term(), Exception.stacktrace()}}
          | posix()

  @doc """
  Starts a command: an executable, its arguments, and options.

  The executable is looked up on `PATH` (the command's own, where `:env` sets one) as `execvp(3)` does;
  with a slash in it, it is a path, which is relative to `:cd` where that is given.

      iex> {:ok, p} = NetRunner.Process.start("true")
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> NetRunner.Process.start("no-such-program")
      {:error, :enoent}
      iex> NetRunner.Process.start("true", [], cd: "/nowhere")
      {:error, {:cd, :enoent}}

  The executable, its arguments and options may be a `NetRunner.Command`; arguments are then added to
  its own, and can be left out:

      iex> cat = NetRunner.Command.new("cat", ["-n"])
      iex> {:ok, _p} = NetRunner.Process.start(cat, stderr: :disabled)
      iex> {:ok, _p} = NetRunner.Process.start(cat, ["-A"])

  ## Options

  `NetRunner.Options` has examples.

  #{Options.documentation(@groups)}
  """
  @spec start(String.t() | Command.t(), [String.t()] | keyword(), keyword()) ::
          {:ok, pid()} | {:error, start_error()}
  def start(executable, args \\ [], options \\ []) do
    {command, options} = command(executable, args, options)
    Server.start(command, options)
  end

  @doc """
  As `start/3`, and links the process to the caller once the command has started.

      iex> {:ok, p} = NetRunner.Process.start_link("true")
      iex> NetRunner.Process.stop(p)
      :ok
  """
  @spec start_link(String.t() | Command.t(), [String.t()] | keyword(), keyword()) ::
          {:ok, pid()} | {:error, start_error()}
  def start_link(executable, args \\ [], options \\ []) do
    {command, options} = command(executable, args, options)
    Server.start(command, options, link: self())
  end

  # Of a `NetRunner.Command` the arguments may be left out before the options.
  defp command(%Command{} = command, [{_, _} | _] = options, []),
    do: command(command, [], options)

  defp command(%Command{} = command, args, options) do
    {command, options} = command |> Command.append(args) |> Command.unfold(options, @groups)
    {command, Options.validate!(options, @groups)}
  end

  defp command(executable, args, options) do
    {[executable | args], Options.validate!(options, @groups)}
  end

  @doc """
  Reads what the command has printed to stdout: at least one byte, at most `max_bytes`. Waits while
  there is nothing, and returns `:eof` at the end, again and again. One read gives 16 MiB at the most.
  """
  @spec read(t(), pos_integer()) :: {:ok, binary()} | :eof | {:error, read_error()}
  def read(process, max_bytes \\ @default_read) when is_integer(max_bytes) and max_bytes > 0 do
    call(process, {:read, :stdout, min(max_bytes, @max_read)})
  end

  @doc """
  As `read/2`, from stderr; for a command that was started with `stderr: :pipe`. Else
  `{:error, :not_piped}`.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo oops >&2"], stderr: :pipe)
      iex> NetRunner.Process.read_stderr(p)
      {:ok, "oops\\n"}
  """
  @spec read_stderr(t(), pos_integer()) ::
          {:ok, binary()} | :eof | {:error, read_error()}
  def read_stderr(process, max_bytes \\ @default_read)
      when is_integer(max_bytes) and max_bytes > 0 do
    call(process, {:read, :stderr, min(max_bytes, @max_read)})
  end

  @doc """
  Reads from whichever of stdout and stderr has something; `:eof` when both are at their end. Between
  the two streams no order is kept: they are two pipes.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo oops >&2"], stderr: :pipe)
      iex> NetRunner.Process.read_any(p)
      {:ok, {:stderr, "oops\\n"}}
      iex> NetRunner.Process.read_any(p)
      :eof
  """
  @spec read_any(t(), pos_integer()) ::
          {:ok, {:stdout | :stderr, binary()}} | :eof | {:error, read_error()}
  def read_any(process, max_bytes \\ @default_read)
      when is_integer(max_bytes) and max_bytes > 0 do
    call(process, {:read, :any, min(max_bytes, @max_read)})
  end

  @doc false
  # As `read_any/2`, but the answer comes as a message: see `:gen_server.check_response/2`.
  @spec request_any(t(), pos_integer()) :: :gen_server.request_id()
  def request_any(process, max_bytes) do
    :gen_server.send_request(process, {:read, :any, min(max_bytes, @max_read)})
  end

  @doc """
  Writes iodata to the command's stdin; returns when all of it is in the pipe.

  Raises `ArgumentError` for what is no iodata. `{:error, :epipe}`: the command closed its stdin or is gone. `{:error, :closed}`: `close_stdin/1` was called.
  """
  @spec write(t(), iodata()) ::
          :ok | {:error, :epipe | gone() | :not_piped | {:not_ended, pos_integer()} | posix()}
  def write(process, iodata), do: call(process, {:write, iovec!(iodata)})

  # Neither the message nor the stacktrace of the failed call shows what is written, which may be secret.
  defp iovec!(iodata) do
    :erlang.iolist_to_iovec(iodata)
  rescue
    ArgumentError ->
      wrong =
        if is_list(iodata),
          do: "a list with something else in it",
          else: Options.kind(iodata)

      raise ArgumentError, "what is written to stdin must be iodata, got: #{wrong}"
  end

  @doc """
  Closes the command's stdin, after the writes that were called before it. The command sees the end of
  its input. `:ok` also when it was closed before.

  A terminal (`:pty`) has no end that could be closed: it is sent its end-of-file character (Ctrl-D, termios(3)),
  which a program sees that reads lines, or reads keys and takes this one for an end, as shells do. Sent before
  the program has set its terminal up, it may get lost, as with a person who types ahead.
  """
  @spec close_stdin(t()) :: :ok | {:error, gone()}
  def close_stdin(process), do: call(process, :close_stdin)

  @doc """
  Sends a signal to the command itself, by name or number (see `NetRunner.Signal`).

  `{:error, :esrch}`: it has exited. What else it started is not signalled; that is ended when the
  command exits (see `:leftovers`).

      iex> {:ok, p} = NetRunner.Process.start("sleep", ["100"])
      iex> NetRunner.Process.kill(p, :sigterm)
      :ok
      iex> NetRunner.Process.await_exit(p)
      {:ok, 143}
      iex> NetRunner.Process.kill(p, :sigwhat)
      {:error, :unknown_signal}
  """
  @spec kill(t(), Signal.t()) :: :ok | {:error, :unknown_signal | :esrch | gone() | posix()}
  def kill(process, signal \\ :sigterm) do
    with {:ok, number} <- Signal.resolve(signal), do: call(process, {:kill, number})
  end

  @doc """
  Waits until the command has exited and (with `leftovers: :kill`) everything it started is gone. A
  signal gives 128 + its number.

  After `timeout` milliseconds `{:error, :timeout}`; the command goes on. Any number of callers may wait.
  """
  @spec await_exit(t(), timeout()) ::
          {:ok, 0..255}
          | {:error, :timeout | :shepherd_died | {:not_ended, pos_integer()} | gone()}
  def await_exit(process, timeout \\ :infinity)
      when timeout == :infinity or (is_integer(timeout) and timeout >= 0) do
    call(process, {:await_exit, timeout})
  end

  @doc """
  The command's PID in the operating system.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> is_integer(NetRunner.Process.os_pid(p))
      true
  """
  @spec os_pid(t()) :: pos_integer() | {:error, gone()}
  def os_pid(process), do: call(process, :os_pid)

  @doc """
  Whether the command still runs.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.alive?(p)
      true
  """
  @spec alive?(t()) :: boolean()
  def alive?(process), do: call(process, :alive?) == true

  @doc """
  What was counted so far, as a `NetRunner.Process.Stats`.

      iex> {:ok, p} = NetRunner.Process.start("echo", ["hello"])
      iex> NetRunner.Process.read(p)
      {:ok, "hello\\n"}
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> %{bytes_out: 6, exit_status: 0} = NetRunner.Process.stats(p)
  """
  @spec stats(t()) :: Stats.t() | {:error, gone()}
  def stats(process), do: call(process, :stats)

  @doc """
  What the command is and how it stands, as a map:

    * `pid`, `os_pid`, `command` (`[executable | args]`), `started_at` (`DateTime` in UTC) and `bytes`, as in
      `NetRunner.list/0`;
    * `status`: `:running`, `:exited`, or `:lost` where its shepherd was killed, and the command with it;
    * `exit_status`, `exit` and `duration_ms`, as in `NetRunner.Process.Stats`.

        iex> {:ok, p} = NetRunner.Process.start("cat", ["-u"])
        iex> NetRunner.Process.write(p, "hello")
        :ok
        iex> %{command: ["cat", "-u"], status: :running, bytes: %{in: 5, out: 0, err: 0}} = NetRunner.Process.info(p)
  """
  @spec info(t()) :: info() | {:error, gone()}
  def info(process), do: call(process, :info)

  @doc """
  Sets the size of the terminal of a command that was started with `:pty`. The kernel tells the
  program in its foreground with SIGWINCH (ioctl_tty(2)). `{:error, :enotty}`: there is no terminal; `{:error, :eio}`:
  no program has it open any more.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "read line; stty size"], pty: [echo: false])
      iex> NetRunner.Process.set_window_size(p, 50, 132)
      :ok
      iex> NetRunner.Process.write(p, "go\\n")
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "50 132\\r\\n"}
  """
  @spec set_window_size(t(), 0..65_535, 0..65_535) :: :ok | {:error, :enotty | :closed | posix()}
  def set_window_size(process, rows, columns) when rows in 0..65_535 and columns in 0..65_535 do
    call(process, {:set_window_size, rows, columns})
  end

  @doc """
  Stops the process. A command that still runs is ended with all that it started: `:stop_signal`, and
  after `:kill_timeout` SIGKILL. What it prints meanwhile is discarded. Returns when nothing is left; where the
  process ends before that (its `:owner` died), at once, while the ending goes on.

  `{:error, {:not_ended, os_pid}}`: the time of `:give_up_after` has passed. The command is still being ended, and is
  listed by `NetRunner.list/0` until that succeeds.
  """
  @spec stop(t()) :: :ok | {:error, {:not_ended, os_pid :: pos_integer()}}
  def stop(process) do
    case call(process, :stop) do
      {:error, {:not_ended, _os_pid}} = not_ended -> not_ended
      # It had ended before it was asked.
      _stopped_or_gone -> :ok
    end
  end

  @doc """
  Raises: a process is not a child of a supervisor. It does not end when its command does, so a supervisor would not
  restart it; `NetRunner.Daemon` is made for that.

      iex> NetRunner.Process.child_spec([])
      ** (ArgumentError) a NetRunner.Process cannot be supervised: it stays when its command has exited, so that its output can still be read. Use {NetRunner.Daemon, cmd: "…", args: […]} as the child
  """
  @spec child_spec(term()) :: no_return()
  def child_spec(_argument) do
    raise ArgumentError,
          "a NetRunner.Process cannot be supervised: it stays when its command has exited, so that its " <>
            "output can still be read. Use {NetRunner.Daemon, cmd: \"…\", args: […]} as the child"
  end

  @doc false
  # As `stop/1`, but returns at once, and the process stays. `:asked`: what the command printed and prints can
  # still be read; `:stopped`: it is discarded.
  @spec end_command(t(), :asked | :stopped) :: :ok | {:error, gone()}
  def end_command(process, cause \\ :asked), do: call(process, {:end_command, cause})

  @doc false
  # For whoever enumerates: where stdout can be read without the process.
  @spec lend_stdout(t()) ::
          {:ok, NetRunner.System.Native.fd(), Counters.t()} | :no | {:error, gone()}
  def lend_stdout(process), do: call(process, :lend_stdout)

  @doc false
  # To the one process that enumerates its stream, as its owner, where that is not nil.
  @spec hand_over(t(), pid() | nil) :: :ok | {:error, :already_enumerated | gone()}
  def hand_over(process, owner), do: call(process, {:hand_over, owner})

  @doc false
  # From its feeder, which exits with the same when that is known.
  @spec input_failed(t(), {:error | :exit | :throw, term(), Exception.stacktrace()}) ::
          :ok | {:error, gone()}
  def input_failed(process, failure), do: call(process, {:input_failed, failure})

  @doc false
  # What is known of a command that failed, as fields of `NetRunner.Error`.
  @spec failure(t()) :: [exit: term(), stderr: binary()]
  def failure(process) do
    # Empty where the process is gone meanwhile.
    with {:error, _} <- call(process, :failure), do: []
  end

  @doc false
  # What ended the command before its time, as `{:error, reason}`, if something did.
  @spec verdict(t()) :: {:error, term()} | nil
  def verdict(process), do: call(process, :verdict)

  @doc false
  # All that the command prints, and its status. The process stops with that.
  @spec collect(t(), non_neg_integer() | :infinity, timeout()) ::
          {binary(), 0..255} | {:error, term()}
  def collect(process, max_output_size, timeout \\ :infinity) do
    call(process, {:collect, max_output_size, timeout})
  end

  defp call(process, request) do
    GenServer.call(process, request, :infinity)
  catch
    :exit, {{:nodedown, _}, {GenServer, :call, _}} -> {:error, {:node, :disconnected}}
    # It was not there, or ended before it could answer.
    :exit, {_reason, {GenServer, :call, _}} -> {:error, :closed}
  end
end
