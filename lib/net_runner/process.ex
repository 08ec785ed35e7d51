defmodule NetRunner.Process do
  @moduledoc """
  One running command, read and written on demand.

  Its life: `start/3` returns when the command has been started. What the command prints stays in the kernel's pipe until
  somebody reads it with `read/3`. When nobody does, the pipe fills up, the command's `write(2)` blocks, and the VM's memory does
  not grow. `write/3` returns when everything is in the pipe, so a command that reads slowly slows its writer down. After the
  exit of the command, its output can still be read to the end, and its statistics are still there, until `stop/1`.

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

  The process belongs to its caller (see `:owner`). When the owner dies, the command and everything that it started are ended, and
  the process stops. Its `:name` is free at once.

  All functions can be called from any process, at the same time. Reads of one stream that wait are served in the order in which
  they were called, and before later ones. The same is true of writes, and the bytes of two writes are never mixed.

  When the process is gone, all functions return `{:error, :closed}` (`stop/1` returns `:ok`, and `alive?/1` `false`). So do reads, writes and
  `await_exit/2` while the command is ended because the owner died. A call that waits when
  the connection to its node is lost returns `{:error, {:node, :disconnected}}`. Arguments of the wrong type raise; what is no signal is `{:error, :unknown_signal}`.
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.{Command, Options, Signal}
  alias NetRunner.Options.Kind
  alias NetRunner.Process.{Client, Guest, Pattern, Server, Sink, Stats, Until}

  import NetRunner.Process.Client, only: [call: 2]

  @default_read 65_535

  # What one read allocates at the most.
  @max_read 16_777_216

  defguardp is_timeout(value) when value == :infinity or (is_integer(value) and value >= 0)
  defguardp is_size(value) when is_integer(value) and value > 0
  @groups [:command, :process]

  @typedoc "A process that runs a command: its pid, or the name it is registered under."
  @type t :: GenServer.server()

  @typedoc "A system error by its POSIX name in lower case, such as `:enoent`."
  @type posix :: atom()

  @typedoc "A further descriptor of the command, by its number there (see `:fds` in `NetRunner.Options`)."
  @type fd :: 3..255

  @typedoc "Why a command could not be started."
  @type start_error ::
          posix()
          | {option :: atom(), posix()}
          | {:fd, fd(), posix()}
          | {:invalid_cmd | :invalid_args | :invalid_env | :invalid_cd, String.t()}
          | {:invalid_cgroup_path | :cgroup | :sandbox, String.t()}
          | {:already_started, pid()}
          | {:node, atom() | {:version, String.t()} | posix()}
          | :launcher_died
          | :shepherd_died
          | :not_started

  @typedoc "The process is gone, or its node is out of reach."
  @type gone :: :closed | {:node, :disconnected}

  @typedoc "What `info/1` returns."
  @type info :: %{
          pid: pid(),
          os_pid: pos_integer(),
          command: [String.t()],
          started_at: DateTime.t(),
          duration_ms: non_neg_integer(),
          bytes: %{in: non_neg_integer(), out: non_neg_integer(), err: non_neg_integer()},
          status: :running | :exited | :lost,
          exit_status: 0..255 | nil,
          exit: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()} | nil,
          sandbox: [NetRunner.Sandbox.in_force()] | nil
        }

  @typedoc "Why nothing can be read. `:input_failed`: the `:input` of the stream that started the command could not be produced."
  @type read_error ::
          gone()
          | :not_piped
          | {:not_ended, os_pid :: pos_integer()}
          | {:input_failed, {:error | :exit | :throw, term(), Exception.stacktrace()}}
          | posix()

  @doc """
  Starts a command: an executable, its arguments, and options.

  The executable is looked up on `PATH` as `execvp(3)` does (on the command's own `PATH`, if `:env` sets one). If it contains a
  slash, it is a path, which is relative to `:cd` if that is given.

      iex> {:ok, p} = NetRunner.Process.start("true")
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> NetRunner.Process.start("no-such-program")
      {:error, :enoent}
      iex> NetRunner.Process.start("true", [], cd: "/nowhere")
      {:error, {:cd, :enoent}}

  Instead of an executable, a `NetRunner.Command` can be given. Arguments are then appended to its own, and can be left out:

      iex> cat = NetRunner.Command.new("cat", ["-n"])
      iex> {:ok, _p} = NetRunner.Process.start(cat, stderr: :disabled)
      iex> {:ok, _p} = NetRunner.Process.start(cat, ["-A"])

  ## Options

  #{Options.Declared.summary(@groups)}
  """
  @spec start(String.t() | Command.t(), [String.t()] | keyword(), keyword()) ::
          {:ok, pid()} | {:error, start_error()}
  def start(executable, args \\ [], options \\ []) do
    {command, options} = command(executable, args, options)
    Server.start(command, options)
  end

  @doc """
  Like `start/3`, but also links the process to the caller, once the command has started.

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
  Reads what the command has printed to stdout: at least one byte, and at most `max_bytes`, or 16 MiB. It waits while there is
  nothing. At the end it returns `:eof`, each time that it is called.

  After `timeout` milliseconds, which include the time that it waits behind other readers, it returns `{:error, :timeout}` and
  has consumed nothing. With 0 it does not wait.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.read(p, 100, 10)
      {:error, :timeout}
      iex> NetRunner.Process.write(p, "hello")
      iex> NetRunner.Process.read(p, 4, 60_000)
      {:ok, "hell"}
  """
  @spec read(t(), pos_integer(), timeout()) ::
          {:ok, binary()} | :eof | {:error, :timeout | read_error()}
  def read(process, max_bytes \\ @default_read, timeout \\ :infinity) do
    process |> Guest.of() |> Guest.read(process, size!(max_bytes), timeout!(timeout))
  end

  @doc """
  Like `read/3`, but from stderr. The command must have been started with `stderr: :pipe`; otherwise the result is
  `{:error, :not_piped}`.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo oops >&2"], stderr: :pipe)
      iex> NetRunner.Process.read_stderr(p)
      {:ok, "oops\\n"}
  """
  @spec read_stderr(t(), pos_integer(), timeout()) ::
          {:ok, binary()} | :eof | {:error, :timeout | read_error()}
  def read_stderr(process, max_bytes \\ @default_read, timeout \\ :infinity) do
    call(process, {:read, :stderr, size!(max_bytes), timeout!(timeout)})
  end

  @doc """
  Reads from stdout or stderr, whichever has something. Returns `:eof` when both are at their end. The order between the two
  streams is not kept, because they are two pipes. `timeout` is that of `read/3`.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo oops >&2"], stderr: :pipe)
      iex> NetRunner.Process.read_any(p)
      {:ok, {:stderr, "oops\\n"}}
      iex> NetRunner.Process.read_any(p)
      :eof
  """
  @spec read_any(t(), pos_integer(), timeout()) ::
          {:ok, {:stdout | :stderr, binary()}} | :eof | {:error, :timeout | read_error()}
  def read_any(process, max_bytes \\ @default_read, timeout \\ :infinity) do
    call(process, {:read, :any, size!(max_bytes), timeout!(timeout)})
  end

  # What a function clause would refuse without a word: a time is easily given as an option, and what is written must not
  # stand in the error.
  defp timeout!(value) when is_timeout(value), do: value

  defp timeout!(other) do
    raise ArgumentError,
          "the timeout must be milliseconds (an integer, 0 or more) or :infinity, got: #{Kind.shown(other)}"
  end

  defp size!(value) when is_size(value), do: min(value, @max_read)

  defp size!(other) do
    raise ArgumentError,
          "max_bytes must be an integer greater than 0 (the timeout comes after it), got: #{Kind.shown(other)}"
  end

  defp fd!(number) when number in 3..255, do: number

  defp fd!(other) do
    raise ArgumentError,
          "the descriptor must be a number from 3 to 255, as in the option :fds, got: #{Kind.shown(other)}"
  end

  @doc """
  Reads stdout until some text has arrived, such as a prompt, and returns `{:ok, {before, match}}`. What follows the match stays
  for the next reader.

  The `pattern` is a binary, a list of binaries or a regex. The earliest match wins, and of several at the same place the longest.
  The pattern is matched against what has arrived so far, so a regex that ends with `.*` matches whatever happens to be there. A regex
  with the modifier `u` sees only the bytes before the first one that is not valid UTF-8.

  Without a match, all bytes stay readable. It then returns `:eof` when stdout has ended, `{:error, :too_long}` when the pattern
  is not in the next `:max_bytes` bytes, or `{:error, :timeout}`. The other errors are those of `read/3`.

  It keeps its place among the readers: later reads wait until it has returned. The calling process does the matching.

  ## Options

    * `:timeout` - milliseconds, which include the time behind other readers, or `:infinity`, the default
    * `:max_bytes` - the number of bytes in which it looks for the pattern. Default: 65,536

  For example:

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "printf 'Name: '; read name; echo Hello $name"])
      iex> NetRunner.Process.read_until(p, ["Password: ", "Name: "], timeout: 60_000)
      {:ok, {"", "Name: "}}
      iex> NetRunner.Process.write(p, "Joe\\n")
      iex> NetRunner.Process.read_until(p, ~r/J[a-z]+/)
      {:ok, {"Hello ", "Joe"}}
      iex> NetRunner.Process.read_until(p, "never")
      :eof
      iex> NetRunner.Process.read(p)
      {:ok, "\\n"}
  """
  @spec read_until(t(), binary() | [binary(), ...] | Regex.t(), keyword()) ::
          {:ok, {before :: binary(), match :: binary()}}
          | :eof
          | {:error, :timeout | :too_long | read_error()}
  def read_until(process, pattern, options \\ []) do
    %{timeout: timeout, max_bytes: max_bytes} =
      of_call!(options, %{timeout: :infinity, max_bytes: 65_536}, fn
        :timeout, value when is_timeout(value) -> :ok
        :timeout, _value -> "milliseconds (an integer, 0 or more) or :infinity"
        :max_bytes, value when is_size(value) -> :ok
        :max_bytes, _value -> "an integer greater than 0"
      end)

    Until.read(process, Pattern.new!(pattern), max_bytes, timeout)
  end

  # The options of one call, not of a command. The first of a name holds, as in those. `check` gives `:ok`, or what the
  # value must be.
  defp of_call!(options, defaults, check) do
    unless Keyword.keyword?(options) do
      raise ArgumentError,
            "options must be a keyword list, with #{names(defaults)}, got: #{Kind.shown(options)}"
    end

    options
    |> Enum.uniq_by(fn {name, _value} -> name end)
    |> Enum.reduce(defaults, fn {name, value}, all ->
      cond do
        not is_map_key(defaults, name) ->
          raise ArgumentError,
                "unknown option #{inspect(name)}; this function takes #{names(defaults)}"

        value == nil ->
          all

        true ->
          with expected when expected != :ok <- check.(name, value) do
            raise ArgumentError,
                  "the option #{inspect(name)} must be #{expected}, got: #{Kind.shown(value)}"
          end

          Map.put(all, name, value)
      end
    end)
  end

  defp names(defaults),
    do: defaults |> Map.keys() |> Enum.sort() |> Enum.map_join(" and ", &inspect/1)

  @doc """
  Asks for a limited amount of output as messages to the calling process: for a `GenServer` or a LiveView, which must not block.

  The call adds `count` to the credit of the caller. Each piece of output (up to 64 KiB, from any of the piped streams) costs one
  credit, and is sent as

      {:net_runner, process, {:stdout | :stderr, bytes}}

  where `process` is always the pid. Output that was not asked for stays in the kernel, and the command waits. These messages cost
  nothing, and each comes once:

      {:net_runner, process, {:eof, :stdout | :stderr}}
      {:net_runner, process, {:exit, status}}

  `:exit` comes when everything has been delivered and the command is gone. The status is `:shepherd_died` if it is not known.
  `monitor/1` also reports that the `NetRunner.Process` itself has ended before its command.

  Only one process can ask at a time. Others get `{:error, :busy}` until it dies or calls `ask(process, 0)`, which drops its credit:
  after that call nothing more is sent. If it asks again later, it gets the free messages again.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo hello; exit 3"])
      iex> NetRunner.Process.ask(p, 1)
      :ok
      iex> receive do {:net_runner, ^p, message} -> message end
      {:stdout, "hello\\n"}
      iex> receive do {:net_runner, ^p, message} -> message end
      {:eof, :stdout}
      iex> receive do {:net_runner, ^p, message} -> message end
      {:exit, 3}
  """
  @spec ask(t(), non_neg_integer()) :: :ok | {:error, :busy | gone()}
  def ask(process, count), do: call(process, {:ask, count!(count)})

  defp count!(count) when is_integer(count) and count >= 0, do: count

  defp count!(other) do
    raise ArgumentError, "the count must be an integer, 0 or more, got: #{Kind.shown(other)}"
  end

  @doc false
  # As `read_any/3`, but the time stands still while the command is suspended.
  @spec read_any_idle(t(), pos_integer(), timeout()) ::
          {:ok, {:stdout | :stderr, binary()}} | :eof | {:error, :timeout | read_error()}
  def read_any_idle(process, max_bytes, :infinity), do: read_any(process, max_bytes)

  def read_any_idle(process, max_bytes, ms) do
    call(process, {:read, :any, min(max_bytes, @max_read), {:idle, ms}})
  end

  @doc false
  # As `read_any/3`, but the answer comes as a message: see `:gen_server.check_response/2`. A `read/3` that is called before
  # the server has received it may be served first.
  @spec request_any(t(), pos_integer()) :: :gen_server.request_id()
  def request_any(process, max_bytes) do
    :gen_server.send_request(process, {:read, :any, min(max_bytes, @max_read), :infinity})
  end

  @doc false
  # As `await_exit/2`, but the answer comes as a message.
  @spec request_exit(t()) :: :gen_server.request_id()
  def request_exit(process), do: :gen_server.send_request(process, {:await_exit, :infinity})

  @doc """
  Writes iodata to the command's stdin, and returns when all of it is in the pipe.

  `{:error, :epipe}` means that the command closed its stdin or is gone, and `{:error, :closed}` that `close_stdin/1` was called.
  Anything but iodata raises `ArgumentError`.

  After `timeout` milliseconds, which include the time that it waits behind other writers, it returns `{:error, {:timeout, n}}`: the
  first `n` bytes (0 or more) are in the pipe, and the rest is not written. The next write comes right after those `n` bytes.

      iex> {:ok, p} = NetRunner.Process.start("sleep", ["1000"], pipe_size: 0)
      iex> {:error, {:timeout, n}} = NetRunner.Process.write(p, String.duplicate("x", 1_000_000), 10)
      iex> n < 1_000_000
      true
  """
  @spec write(t(), iodata(), timeout()) ::
          :ok
          | {:error,
             :epipe
             | {:timeout, non_neg_integer()}
             | gone()
             | :not_piped
             | {:not_ended, pos_integer()}
             | posix()}
  def write(process, iodata, timeout \\ :infinity) do
    process |> Guest.of() |> Guest.write(process, Client.iovec!(iodata), timeout!(timeout))
  end

  @doc """
  Returns the command's stdin as a `Collectable` of iodata. Each element is written as with `write/3`, and waits in the same way.

  At the end stdin stays open, unless `close: true` is given. When the command no longer reads, collecting raises
  `NetRunner.Error` with the reason that `write/3` would return. When the source raises, stdin stays open in any case, so that the
  command does not mistake half of its input for all of it.

      iex> {:ok, p} = NetRunner.Process.start("sort")
      iex> Enum.into(["b\\n", ["a", ?\\n]], NetRunner.Process.sink(p, close: true))
      iex> NetRunner.Process.read(p)
      {:ok, "a\\nb\\n"}
  """
  @spec sink(t(), close: boolean()) :: Collectable.t()
  def sink(process, options \\ []) do
    %{close: close?} =
      of_call!(options, %{close: false}, fn
        :close, value when is_boolean(value) -> :ok
        :close, _value -> "true or false"
      end)

    %Sink{process: process, close?: close?}
  end

  @doc """
  Closes the command's stdin, after the writes that were called before. The command then reads the end of its input. Returns `:ok`
  even if it was closed before.

  A terminal (`:pty`) cannot be closed for one direction. Instead, it is sent the end-of-file character (Ctrl-D, termios(3)). Programs
  that read lines see the end of their input, and so do programs that read keys and treat this one as the end, such as shells. If it is
  sent before the program has set up its terminal, it may get lost, like keys that a person types too early.

      iex> {:ok, p} = NetRunner.Process.start("wc", ["-c"])
      iex> NetRunner.Process.write(p, "hello")
      iex> NetRunner.Process.close_stdin(p)
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "5\\n"}
  """
  @spec close_stdin(t()) :: :ok | {:error, gone()}
  def close_stdin(process), do: call(process, :close_stdin)

  @doc """
  Like `write/3`, but to a further descriptor that was given to the command as `:input` (see `:fds`). `{:error, :not_piped}` means
  that the command has no such descriptor with this number.

      iex> script = "read name <&4; echo \\"hello, $name\\" >&5"
      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", script], fds: %{4 => :input, 5 => :output})
      iex> NetRunner.Process.write_fd(p, 4, "world\\n")
      :ok
      iex> NetRunner.Process.read_fd(p, 5)
      {:ok, "hello, world\\n"}
      iex> NetRunner.Process.write_fd(p, 6, "world\\n")
      {:error, :not_piped}
  """
  @spec write_fd(t(), fd(), iodata()) ::
          :ok
          | {:error, :epipe | gone() | :not_piped | {:not_ended, pos_integer()} | posix()}
  def write_fd(process, fd, iodata) do
    call(process, {:fd, fd!(fd), {:write, Client.iovec!(iodata), :infinity}})
  end

  @doc """
  Like `read/3`, but from a further descriptor that was given to the command as `:output` (see `:fds`).

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo three >&3"], fds: %{3 => :output})
      iex> NetRunner.Process.read_fd(p, 3)
      {:ok, "three\\n"}
      iex> NetRunner.Process.read_fd(p, 3)
      :eof
  """
  @spec read_fd(t(), fd(), pos_integer(), timeout()) ::
          {:ok, binary()} | :eof | {:error, :timeout | read_error()}
  def read_fd(process, fd, max_bytes \\ @default_read, timeout \\ :infinity) do
    call(process, {:fd, fd!(fd), {:read, size!(max_bytes), timeout!(timeout)}})
  end

  @doc """
  Closes the VM's end of a further descriptor. An `:input` is closed after the writes that were called before, and the command then
  reads the end of file. An `:output` is closed at once: reads return `{:error, :closed}`, and the command gets SIGPIPE if it writes
  to it again. Returns `:ok` even if it was closed before.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "cat <&3"], fds: %{3 => :input})
      iex> NetRunner.Process.write_fd(p, 3, "all")
      :ok
      iex> NetRunner.Process.close_fd(p, 3)
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "all"}
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
  """
  @spec close_fd(t(), fd()) :: :ok | {:error, :not_piped | gone()}
  def close_fd(process, fd), do: call(process, {:fd, fd!(fd), :close})

  @doc """
  Sends the command a signal, given by name or number (see `NetRunner.Signal`).

  `:ok` means that the command's helper process, which sends the signal, has been told. `{:error, :esrch}` means that the command has exited.

      iex> {:ok, p} = NetRunner.Process.start("sleep", ["100"])
      iex> NetRunner.Process.kill(p, :sigterm)
      :ok
      iex> NetRunner.Process.await_exit(p)
      {:ok, 143}
      iex> NetRunner.Process.kill(p, :sigwhat)
      {:error, :unknown_signal}

  ## Options

    * `:to` - whom the signal reaches:
      * `:command`, the default: only the command itself. (What it started is ended when the command exits, see `:leftovers`.)
      * `:group`: the process group that the command leads, which is what Ctrl-C at a terminal reaches. A process is in its parent's
        group unless it leaves that, as daemons and the jobs of an interactive shell do
      * `:tree`: the command and everything that it started and that still runs, each process once. A process that is forked
        at the same time may be missed. SIGCONT to the tree is `resume/1`

  For example:

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "sleep 100; echo interrupted"])
      iex> NetRunner.Process.kill(p, :sigint, to: :group)
      :ok
      iex> NetRunner.Process.await_exit(p)
      {:ok, 130}
  """
  @spec kill(t(), Signal.t(), to: :command | :group | :tree) ::
          :ok | {:error, :unknown_signal | :esrch | gone() | posix()}
  def kill(process, signal \\ :sigterm, options \\ [])

  def kill(_process, [{_, _} | _] = options, []) do
    raise ArgumentError,
          "the signal comes before the options, as in kill(process, :sigterm, to: :group), got: #{Kind.shown(options)}"
  end

  def kill(process, signal, options) do
    %{to: to} =
      of_call!(options, %{to: :command}, fn
        :to, value when value in [:command, :group, :tree] -> :ok
        :to, _value -> ":command, :group or :tree"
      end)

    with {:ok, number} <- Signal.resolve(signal), do: call(process, {:kill, number, to})
  end

  @doc """
  Pauses the command and everything that it started (SIGSTOP), until `resume/1`. If the command has a cgroup of its own (`:cgroup_path`),
  the cgroup is frozen instead, which no process in it can notice or prevent.

  Meanwhile `:timeout` keeps running, and the `:idle_timeout` of `NetRunner.capture/2` does not. Whatever ends the command resumes it first.
  `:ok` means that the command's helper process has been told; it then stops one process after the other, until it finds no new one.
  A process that waits for a child of vfork(2) is in state D, and stops when that wait is over.

  `{:error, :esrch}` means that the command has exited or is being ended.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.suspend(p)
      :ok
      iex> NetRunner.Process.write(p, "hello")
      iex> NetRunner.Process.resume(p)
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "hello"}
  """
  @spec suspend(t()) :: :ok | {:error, :esrch | gone() | posix()}
  def suspend(process), do: call(process, {:suspend, true})

  @doc """
  Lets the command and everything that it started continue (SIGCONT), whoever has stopped them. The errors are those of `suspend/1`.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.kill(p, :sigstop)
      iex> NetRunner.Process.resume(p)
      :ok
  """
  @spec resume(t()) :: :ok | {:error, :esrch | gone() | posix()}
  def resume(process), do: call(process, {:suspend, false})

  @doc """
  Waits until the command has exited and (with `leftovers: :kill`) everything that it started is gone. Returns `{:ok, status}`; for a
  signal, the status is 128 + its number.

  After `timeout` milliseconds it returns `{:error, :timeout}`, and the command goes on. Any number of callers can wait.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "exit 3"])
      iex> NetRunner.Process.await_exit(p)
      {:ok, 3}
  """
  @spec await_exit(t(), timeout()) ::
          {:ok, 0..255}
          | {:error, :timeout | :shepherd_died | {:not_ended, pos_integer()} | gone()}
  def await_exit(process, timeout \\ :infinity) do
    call(process, {:await_exit, timeout!(timeout)})
  end

  @doc """
  Asks for the exit of the command as a message to the calling process. Returns a reference, and exactly one message follows:

      {:DOWN, reference, :process, pid, reason}

  The reason is `{:exit, status}` when the command has exited and (with `leftovers: :kill`) everything that it started is gone. If that is
  already so, the message comes at once. The reason is `:shepherd_died` if the status is not known. Any other reason says why the
  process itself has ended, as with `Process.monitor/1`: `:noproc` (it was gone before), `:noconnection` (its
  node cannot be reached). These messages have `{name, node}` in place of the pid if the process was given so.

  `Process.demonitor(reference, [:flush])` cancels it.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "exit 3"])
      iex> ref = NetRunner.Process.monitor(p)
      iex> receive do {:DOWN, ^ref, :process, ^p, reason} -> reason end
      {:exit, 3}
  """
  @spec monitor(t()) :: reference()
  def monitor(process) do
    case GenServer.whereis(Client.server!(process)) do
      nil ->
        over(:noproc)

      # A monitor of another node needs a VM that is a node itself.
      {_name, node} when node() == :nonode@nohost and node != node() ->
        over(:noconnection)

      server ->
        # Where the server cannot answer, the VM tells why.
        ref = :erlang.monitor(:process, server, alias: :reply_demonitor)
        _ = call(server, {:monitor, ref})
        ref
    end
  end

  defp over(reason) do
    {_pid, ref} = spawn_monitor(:erlang, :exit, [reason])
    ref
  end

  @doc """
  Returns the command's PID in the operating system.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> is_integer(NetRunner.Process.os_pid(p))
      true
  """
  @spec os_pid(t()) :: pos_integer() | {:error, gone()}
  def os_pid(process), do: call(process, {:tell, :os_pid})

  @doc """
  Returns whether the command still runs.

      iex> {:ok, p} = NetRunner.Process.start("cat")
      iex> NetRunner.Process.alive?(p)
      true
  """
  @spec alive?(t()) :: boolean()
  def alive?(process), do: call(process, {:tell, :alive?}) == true

  @doc """
  Returns what has been counted so far, as a `NetRunner.Process.Stats`.

      iex> {:ok, p} = NetRunner.Process.start("echo", ["hello"])
      iex> NetRunner.Process.read(p)
      {:ok, "hello\\n"}
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> %{bytes_out: 6, exit_status: 0} = NetRunner.Process.stats(p)
  """
  @spec stats(t()) :: Stats.t() | {:error, gone()}
  def stats(process), do: call(process, {:tell, :stats})

  @doc """
  Describes the command and its state, as a map:

    * `pid`, `os_pid`, `command` (`[executable | args]`), `started_at` (`DateTime` in UTC) and `bytes`, as in
      `NetRunner.list/0`;
    * `status`: `:running`, `:exited`, or `:lost` if NetRunner's helper process for the command was killed, and the command with it;
    * `exit_status`, `exit`, `duration_ms` and `sandbox`, as in `NetRunner.Process.Stats`.

  For example:

      iex> {:ok, p} = NetRunner.Process.start("cat", ["-u"])
      iex> NetRunner.Process.write(p, "hello")
      :ok
      iex> %{command: ["cat", "-u"], status: :running, bytes: %{in: 5, out: 0, err: 0}} = NetRunner.Process.info(p)
  """
  @spec info(t()) :: info() | {:error, gone()}
  def info(process), do: call(process, {:tell, :info})

  @doc """
  Sets the size of the terminal of a command that was started with `:pty`. The kernel tells the foreground program with SIGWINCH
  (ioctl_tty(2)). `{:error, :enotty}` means that there is no terminal, and `{:error, :eio}` that the command is over, and no program has it open any more.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "read line; stty size"], pty: [echo: false])
      iex> NetRunner.Process.set_window_size(p, 50, 132)
      :ok
      iex> NetRunner.Process.write(p, "go\\n")
      :ok
      iex> NetRunner.Process.read(p)
      {:ok, "50 132\\r\\n"}
  """
  @spec set_window_size(t(), 1..65_535, 1..65_535) :: :ok | {:error, :enotty | gone() | posix()}
  def set_window_size(process, rows, columns) do
    call(
      process,
      {:set_window_size, window_size!("rows", rows), window_size!("columns", columns)}
    )
  end

  # As `pty: [rows: rows, cols: columns]`.
  defp window_size!(_name, size) when size in 1..65_535, do: size

  defp window_size!(name, other) do
    raise ArgumentError,
          "the number of #{name} must be an integer from 1 to 65535, got: #{Kind.shown(other)}"
  end

  @doc """
  Stops the process. A command that still runs is ended with everything that it started: by `:stop_signal`, and after
  `:kill_timeout` by SIGKILL. What it prints meanwhile is discarded. Returns when nothing is left, not even the process.

  `{:error, {:not_ended, os_pid}}` means that `:give_up_after` has passed. NetRunner keeps trying, and `NetRunner.list/0` lists the command
  until it is gone.

      iex> {:ok, p} = NetRunner.Process.start("sleep", ["100"])
      iex> NetRunner.Process.stop(p)
      :ok
  """
  @spec stop(t()) :: :ok | {:error, {:not_ended, os_pid :: pos_integer()}}
  def stop(process) do
    case call(process, :stop) do
      {:error, {:not_ended, _os_pid}} = not_ended -> not_ended
      # It has ended, or had before, or its node is out of reach.
      _closed -> :ok
    end
  end

  @doc """
  Raises, because a process is not a child of a supervisor: it does not end when its command does, so a supervisor would not
  restart it. `NetRunner.Daemon` is made for that.

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
  # How a command that is over has ended, for a capture.
  @spec account(t()) ::
          %{outcome: term(), stats: Stats.t(), input_failure: {:error, term()} | nil}
          | {:error, gone()}
  def account(process), do: call(process, {:tell, :account})

  @doc false
  @spec invite(t()) :: {:ok, Guest.t()} | {:error, gone()}
  def invite(process), do: call(process, :invite)

  @doc false
  # Hands the command over to the one process that enumerates its stream; `owner`: its owner from now on, unless nil.
  @spec hand_over(t(), pid() | nil) :: :ok | {:error, :already_enumerated | gone()}
  def hand_over(process, owner), do: call(process, {:hand_over, owner})

  @doc false
  # Called by the feeder, which then exits with the same failure.
  @spec input_failed(t(), {:error | :exit | :throw, term(), Exception.stacktrace()}) ::
          :ok | {:error, gone()}
  def input_failed(process, failure), do: call(process, {:input_failed, failure})

  @doc false
  # What is known of a command that failed, as fields of `NetRunner.Error`.
  @spec failure(t()) :: [exit: term(), stderr: binary()]
  def failure(process) do
    # Empty if the process is gone.
    with {:error, _} <- call(process, :failure), do: []
  end

  @doc false
  # What ended the command before its time, as `{:error, reason}`, if something did.
  @spec verdict(t()) :: {:error, term()} | nil
  def verdict(process), do: call(process, {:tell, :verdict})

  @doc false
  # All that the command prints, and its status. The process stops with that.
  @spec collect(t(), non_neg_integer() | :infinity, timeout()) ::
          {binary(), 0..255} | {:error, term()}
  def collect(process, max_output_size, timeout \\ :infinity) do
    call(process, {:collect, max_output_size, timeout})
  end
end
