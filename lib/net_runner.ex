defmodule NetRunner do
  @moduledoc """
  Runs operating-system commands, with backpressure, and leaves nothing running.

      iex> NetRunner.run(~w(echo hello))
      {"hello\\n", 0}
      iex> NetRunner.run(~w(tr a-z A-Z), input: "hello")
      {"HELLO", 0}
      iex> NetRunner.stream!(~w(seq 1 1000000)) |> Stream.take(1) |> Enum.map(&binary_part(&1, 0, 4))
      ["1\\n2\\n"]

  A command is a list `[executable | args]`, or a `NetRunner.Command`. No shell is involved: the command gets its arguments
  exactly as they are given.

  The life of a command: it is started; what it prints waits in a pipe of the kernel until you take it, so a slow reader makes
  the command wait and the VM's memory does not grow; it exits by itself, or NetRunner ends it, because of a timeout, a
  consumer that stopped early or crashed, or the end of the VM. When it is over, nothing that it started is left running.

  These are the ways to run one:

    * `run/2` waits for the end and returns everything that the command printed, and its exit status; `run!/2` raises when
      the status is not 0, and `shell/2` runs a script;
    * `capture/2` returns everything that is known about the command, however it ended;
    * `stream!/2` and `stream/2` give its output piece by piece, as fast as the pieces are consumed;
    * `pipeline/2` and `pipeline_stream!/2` run several commands, each reading what the one before it prints;
    * `cmd/3` has the arguments and results of `System.cmd/3`;
    * `NetRunner.Process` reads and writes on demand, sends signals, and waits;
    * `NetRunner.Daemon` runs a command under a supervisor.

  `NetRunner.Options` lists the options of every command.
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.{Command, Error, Options, Result, Top}
  alias NetRunner.Process.{Client, Listing, Server}
  alias NetRunner.Run.{CancelToken, Capture, Cmd, Input, Pipeline, Progress}

  @typedoc "`[executable | args]`, or a command as a value."
  @type command :: [String.t()] | Command.t()

  @typedoc "Why a command gave no result."
  @type error ::
          NetRunner.Process.start_error()
          | :timeout
          | {:max_output_exceeded, partial :: binary()}
          | {:not_ended, os_pid :: pos_integer()}
          | :shepherd_died
          | atom()

  @typedoc "A command that runs, as `list/0` describes it: a struct that can be used like a map."
  @type running :: %{
          required(:pid) => pid(),
          required(:os_pid) => pos_integer(),
          required(:command) => [String.t()],
          required(:started_at) => DateTime.t(),
          required(:bytes) => %{
            in: non_neg_integer(),
            out: non_neg_integer(),
            err: non_neg_integer()
          },
          optional(:__struct__) => module()
        }

  @typedoc "What `cancel_token/0` returns."
  @opaque cancel_token :: CancelToken.t()

  # The options of a capture that a run does not have.
  @nothing_more %{
    keep: nil,
    idle_timeout: :infinity,
    on_output: nil,
    cancel: nil,
    interleave: false
  }

  @run_groups [:input, :run, :progress, :command]
  @capture_groups [:input, :capture, :progress, :command]
  @stream_groups [:input, :run, :stream, :progress, :command]
  @raising_groups [:input, :run, :stream, :raising, :progress, :command]
  @pipeline_groups [:input, :run, :command]
  @pipeline_stream_groups [:input, :run, :stream, :raising, :command]

  @doc """
  Runs a command to its end and returns `{stdout, exit_status}`, or `{:error, reason}`.

      iex> NetRunner.run(~w(echo hello))
      {"hello\\n", 0}
      iex> NetRunner.run(~w(tr a-z A-Z), input: "hello")
      {"HELLO", 0}
      iex> NetRunner.run(~w(sleep 100), timeout: 100)
      {:error, :timeout}
      iex> NetRunner.run(~w(yes), max_output_size: 4)
      {:error, {:max_output_exceeded, "y\\ny\\n"}}
      iex> NetRunner.run(~w(no-such-program))
      {:error, :enoent}

  When it returns, the command and everything that it started are gone. For a command that was ended by a signal, the status
  is 128 + the number of the signal. A wrong option raises `ArgumentError`, and a failure while `:input` is produced is raised again.

  The pattern `{output, status}` matches `{:error, reason}` too, so match that first.

  ## Options

  #{Options.Declared.summary(@run_groups)}
  """
  @spec run(command(), keyword()) :: {stdout :: binary(), 0..255} | {:error, error()}
  def run(command, options \\ []) do
    {command, options} = unfold(command, options, @run_groups)
    options = Options.validate!(options, @run_groups)
    input = Input.new(options)
    # Nobody else can get the result.
    options = %{options | owner: options.owner || self()}
    extra = [input: Input.for_server(input), grace?: true, consumer: self()]

    with {:ok, server} <- Server.start(command, options, extra) do
      progress = if options.progress, do: Progress.start(options, input, server, command)
      feeder = input |> Input.feed(server) |> Input.watch()
      result = Client.call(server, {:collect, options.max_output_size, :infinity})
      if progress, do: Progress.stop(progress)
      Input.result(result, feeder)
    end
  end

  defp unfold(%Command{} = command, options, groups), do: Command.unfold(command, options, groups)
  defp unfold(command, options, _groups), do: {command, options}

  @doc """
  Like `run/2`, but returns only stdout, and raises `NetRunner.Error` unless the status is 0.

      iex> NetRunner.run!(~w(echo hello))
      "hello\\n"
      iex> NetRunner.run!(["sh", "-c", "echo bad >&2; exit 3"])
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad

      iex> NetRunner.run!(~w(sleep 100), timeout: 50)
      ** (NetRunner.Error) `sleep 100` failed: it did not end within :timeout

  The exception has the status, the last `:stderr_tail` bytes of stderr and the last 8 KiB of stdout, also after a timeout or
  when a limit was passed. A failure while `:input` is produced is raised as it is. The options are those of `run/2`.
  """
  @spec run!(command(), keyword()) :: binary()
  def run!(command, options \\ []) do
    {command, options} = unfold(command, options, @run_groups)
    options = Options.validate!(options, @run_groups)
    # Of a run, only what is returned is limited.
    limits = [stdout: options.max_output_size]
    captured = Map.merge(options, Map.put(@nothing_more, :max_output_size, limits))

    case Capture.run(command, captured, Input.new(options)) do
      {:ok, _result, {kind, reason, stack}} -> :erlang.raise(kind, reason, stack)
      {:ok, result, nil} -> stdout!(result)
      {:error, reason} -> raise Error, reason: reason, command: command
    end
  end

  defp stdout!(%{outcome: {:output_limit, _}} = result) do
    raise %{error(result) | reason: {:max_output_exceeded, result.stdout}}
  end

  defp stdout!(%{outcome: :cancelled} = result), do: raise(%{error(result) | reason: :closed})
  defp stdout!(result), do: if(Result.ok?(result), do: result.stdout, else: raise(error(result)))

  # What is kept of stderr is its end.
  defp error(result), do: %{Result.error(result) | stderr_dropped: 0}

  @doc """
  Runs a script with `/bin/sh`, and returns the same as `run/2`. The script sees the elements of the list `:args` as `"$1"`,
  `"$2"` and so on.

      iex> NetRunner.shell("seq 3 | wc -l")
      {"3\\n", 0}
      iex> NetRunner.shell(~S(echo "$2, $1"), args: ["a b", "$(reboot)"])
      {"$(reboot), a b\\n", 0}

  Put values that come from elsewhere into `:args`, never into the script, because the shell executes everything in the script:
  with the script `"wc -l \#{name}"`, a file whose name is `x; rm -r ~` removes your home directory. `"$1"`, in double quotes,
  is only a value, whatever it contains:

      iex> NetRunner.shell(~S(printf '<%s>' "$1"), args: ["x; echo gone"])
      {"<x; echo gone>", 0}

  The program that gets the value may still take one that begins with `-` for an option. Most programs accept `--` before it:
  `wc -l -- "$1"`.

  The options are those of `run/2`, and `:args`.
  """
  @spec shell(String.t(), keyword()) :: {stdout :: binary(), 0..255} | {:error, error()}
  def shell(script, options \\ []) do
    # No function clause, whose error would show the options.
    unless is_binary(script) do
      raise ArgumentError,
            "the script must be a string, got: #{Options.Kind.no_string(script)} (a command as a list is for NetRunner.run/2)"
    end

    Options.keyword!(options, :with_args)

    if :binary.match(script, <<0>>) == :nomatch,
      do: run(Command.new("/bin/sh", ["-c" | end_of_options(script)] ++ [script, "sh"]), options),
      else: {:error, {:invalid_args, "the script contains a NUL byte"}}
  end

  # The shell would take such a script for options of its own, and run none (sh(1p)).
  defp end_of_options(<<sign, _::binary>>) when sign in [?-, ?+], do: ["--"]
  defp end_of_options(_script), do: []

  @doc """
  Runs a command and returns everything that is known about it, however it ended: `{:ok, %NetRunner.Result{}}`. For callers
  that have to explain what happened.

      iex> {:ok, result} = NetRunner.capture(["sh", "-c", "echo out; echo bad >&2; sleep 100"], timeout: 2_000)
      iex> {result.outcome, result.stdout, result.stderr, result.exit}
      {:timeout, "out\\n", "bad\\n", {:signaled, :sigterm, false}}

  It returns when the command and everything that it started are gone. `{:error, reason}`, with the reasons of `run/2`, means
  that the command was not started. (`:timeout` is then the time that was over before it had started, and `:cancelled` a
  token that was cancelled before.)

  A command that NetRunner ends is read to the end of its output, so the result has what the command printed while it was
  being ended. `:stderr` is `:pipe` here by default. Without a limit everything is kept. When `:max_output_size` is passed, the
  command is ended; with `:keep` it runs to its end:

      iex> {:ok, result} = NetRunner.capture(~w(seq 1000), max_output_size: [stdout: 6])
      iex> {result.outcome, result.stdout}
      {{:output_limit, :stdout}, "1\\n2\\n3\\n"}
      iex> {:ok, result} = NetRunner.capture(~w(seq 1000), keep: {4, 9})
      iex> {result.outcome, result.stdout, result.dropped}
      {:ended, "1\\n2\\n999\\n1000\\n", %{stdout: 3880, stderr: 0}}

  Output while it comes, and a way to stop the command:

      iex> token = NetRunner.cancel_token()
      iex> {:ok, result} =
      ...>   NetRunner.capture(["sh", "-c", "echo begun; sleep 100"], cancel: token, on_output: fn _ -> NetRunner.cancel(token) end)
      iex> {result.outcome, result.stdout}
      {:cancelled, "begun\\n"}

  Memory is needed for what is kept, and for one piece of output. While `:on_output` works, the command waits.

  ## Options

  #{Options.Declared.summary(@capture_groups)}
  """
  @spec capture(command(), keyword()) ::
          {:ok, Result.t()} | {:error, NetRunner.Process.start_error() | :timeout | :cancelled}
  def capture(command, options \\ []) do
    {command, options} = unfold(command, options, @capture_groups)
    options = Options.validate!(options, @capture_groups)

    with {:ok, result, _failure} <- Capture.run(command, options, Input.new(options)),
         do: {:ok, result}
  end

  @doc """
  Makes a token for the option `:cancel` of `capture/2`. It can be given to any number of captures, at the same time and one
  after the other. The captures must be called on this node (their commands may run on others). A token needs no cleanup.

      iex> token = NetRunner.cancel_token()
      iex> NetRunner.cancel(token)
      :ok
      iex> NetRunner.capture(~w(true), cancel: token)
      {:error, :cancelled}
  """
  @spec cancel_token() :: cancel_token()
  def cancel_token, do: CancelToken.new()

  @doc """
  Ends the commands of all captures with this token, now and later. Captures that run get the outcome `:cancelled`, and those
  that have not started return `{:error, :cancelled}`. A command that has already exited is not affected. It does not wait for their
  end, and can be called any number of times, from any process, on any node. (When the token's node cannot be reached from there, nothing is
  cancelled.)

      iex> NetRunner.cancel(NetRunner.cancel_token())
      :ok
  """
  @spec cancel(cancel_token()) :: :ok
  def cancel(%CancelToken{} = token), do: CancelToken.cancel(token)

  def cancel(_other) do
    raise ArgumentError, "a token to cancel with comes from NetRunner.cancel_token/0"
  end

  @doc """
  Returns the output of a command as a stream of binaries of any size. The command starts when the stream is enumerated, and is
  ended when the consumer stops early, raises, or dies.

      iex> NetRunner.stream!(~w(sort), input: ["c\\n", "a\\n"]) |> Enum.join()
      "a\\nc\\n"
      iex> NetRunner.stream!(~w(seq 3), lines: :trim) |> Enum.to_list()
      ["1", "2", "3"]
      iex> NetRunner.stream!(["sh", "-c", "echo out; exit 3"], tagged: true) |> Enum.to_list()
      [{:stdout, "out\\n"}, {:exit, 3}]

  The stream raises `NetRunner.Error` when the command cannot be started and, at the end, when it did not exit with 0. For the
  status it does not raise with `exit_status: :ignore`, nor with `tagged: true` (where the status is the last element), unless
  `exit_status: :raise` is given as well.

      iex> NetRunner.stream!(["sh", "-c", "echo bad >&2; exit 3"]) |> Enum.to_list()
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad

  A failure while `:input` is produced is raised in the consumer. When `:timeout` or `:max_output_size` is passed, the command is
  ended, and the stream raises `NetRunner.Error`.

  ## Options

  #{Options.Declared.summary(@raising_groups)}
  """
  @spec stream!(command(), keyword()) :: Enumerable.t()
  def stream!(command, options \\ []) do
    {command, options} = unfold(command, options, @raising_groups)
    options = Options.validate!(options, @raising_groups)
    NetRunner.Run.Stream.lazy(command, options, Input.new(options))
  end

  @doc """
  Starts a command at once and returns `{:ok, stream}` with the stream of its output, or `{:error, reason}`.

  The stream can be enumerated only once. It does not raise for the exit status: a status other than 0 is logged as a warning, or,
  with `tagged: true`, is the last element. It does raise when `:timeout` or `:max_output_size` ended the command. The command belongs to
  the caller until another process enumerates the stream, and then to that process.

      iex> {:ok, stream} = NetRunner.stream(~w(sort), input: ["c\\n", "a\\n"])
      iex> Enum.join(stream)
      "a\\nc\\n"
      iex> NetRunner.stream(~w(no-such-program))
      {:error, :enoent}

  ## Options

  #{Options.Declared.summary(@stream_groups)}
  """
  @spec stream(command(), keyword()) ::
          {:ok, Enumerable.t()} | {:error, NetRunner.Process.start_error()}
  def stream(command, options \\ []) do
    {command, options} = unfold(command, options, @stream_groups)
    options = Options.validate!(options, @stream_groups)
    NetRunner.Run.Stream.running(command, options, Input.new(options))
  end

  for name <- [:run, :run!, :capture, :stream, :stream!] do
    @doc false
    # Without it, the error of an undefined function would show the options.
    @deprecated "That is the form of System.cmd/3: call NetRunner.cmd/3, or #{name}([executable | args], options)"
    @spec unquote(name)(term(), term(), term()) :: no_return()
    def unquote(name)(_executable, _args, _options) do
      raise ArgumentError,
            "#{unquote(name)} takes [executable | args] and options; with the arguments of System.cmd/3, call NetRunner.cmd/3"
    end
  end

  @doc """
  Runs several commands, each reading what the one before it prints. Returns what the last one printed, and the exit status of
  each. The kernel connects them by pipes: only the input of the first and the output of the last pass through the VM.

      iex> NetRunner.pipeline([~w(printf b\\\\na\\\\nb\\\\n), ~w(sort), ~w(uniq)])
      {"a\\nb\\n", [0, 0, 0]}
      iex> NetRunner.pipeline([~w(false), ~w(wc -c)])
      {"0\\n", [1, 0]}
      iex> NetRunner.pipeline([~w(yes), ~w(head -n 1)])
      {"y\\n", [141, 0]}

  In the last example, `yes` kept writing after `head` had stopped reading, and was ended by SIGPIPE (128 + 13).

  All commands have ended when this returns. When one cannot be started, when the process that runs one is killed, or when
  `:timeout` or `:max_output_size` is passed, the others are ended too. The errors are those of `run/2`. The error of a
  command that cannot be started has its index, counted from 0:

      iex> NetRunner.pipeline([~w(yes), ~w(no-such-program), ~w(cat)])
      {:error, {:command, 1, :enoent}}

  The options are those of `run/2`, without `:pty`, `:node` and `:cgroup_path`. `:timeout` limits the pipeline as a whole. `:input`
  and `:stdin` are for the first command, `:stdout` and `:max_output_size` for the last; all others apply to every command. The
  options of a `NetRunner.Command` win over those of the call, and its `:timeout` limits that command in addition. An option
  of a `NetRunner.Command` that has no meaning at its place, such as the `:stdin` of the second command, raises `ArgumentError`.

  ## Options

  #{Options.Declared.summary(@pipeline_groups)}
  """
  @spec pipeline([command()], keyword()) ::
          {stdout :: binary(), [0..255]}
          | {:error, error() | {:command, index :: non_neg_integer(), error()}}
  def pipeline(commands, options \\ []) do
    case commands |> Pipeline.plan(options, @pipeline_groups) |> Pipeline.run() do
      {:error, {:input_failed, {kind, reason, stack}}} -> :erlang.raise(kind, reason, stack)
      result -> result
    end
  end

  @doc """
  Returns the output of a pipeline as a stream, like `stream!/2` for a single command: the commands start when the stream is
  enumerated, and all are ended when the consumer stops early.

      iex> NetRunner.pipeline_stream!([~w(seq 1000000), ~w(grep 99999)], lines: :trim) |> Enum.take(2)
      ["99999", "199999"]

  The stream raises `NetRunner.Error` at the end for the first command that did not exit with 0. SIGPIPE does not count as a
  failure, except for the last command; nor does any status of a `NetRunner.Command` with `exit_status: :ignore`. With
  `tagged: true`, the last element is `{:exit, [status, …]}`. `:tagged` and `:lines` apply to the output of the last command.

  ## Options

  #{Options.Declared.summary(@pipeline_stream_groups)}
  """
  @spec pipeline_stream!([command()], keyword()) :: Enumerable.t()
  def pipeline_stream!(commands, options \\ []) do
    commands |> Pipeline.plan(options, @pipeline_stream_groups) |> NetRunner.Run.Stream.pipeline()
  end

  @doc """
  Lists the commands that run in this VM, the oldest first. Each is a map, which IEx prints on one line:

    * `pid`: its `NetRunner.Process`;
    * `os_pid`: its PID in the operating system;
    * `command`: `[executable | args]`;
    * `started_at`: a `DateTime` in UTC;
    * `bytes`: `%{in: …, out: …, err: …}`, the numbers of bytes written to its stdin, read from its stdout and from its
      stderr so far.

  The processes of the commands are not asked, so a busy one delays nobody. A command that has exited is not listed, even if
  its output can still be read.

      iex> {:ok, p} = NetRunner.Process.start("cat", ["-u"])
      iex> NetRunner.Process.write(p, "hello")
      :ok
      iex> Enum.find(NetRunner.list(), &(&1.pid == p)) |> Map.take([:command, :bytes])
      %{command: ["cat", "-u"], bytes: %{in: 5, out: 0, err: 0}}
      iex> NetRunner.Process.stop(p)
      :ok
      iex> Enum.find(NetRunner.list(), &(&1.pid == p))
      nil
  """
  @spec list() :: [running()]
  defdelegate list, to: Listing

  @doc """
  Shows the commands that run in this VM, on a terminal as a table that is drawn anew every second until you press Enter:

           PID      TIME    CPU    MEMORY        IN       OUT STATE    COMMAND
         41225      0:12   100%    1.2 MB       0 B    1.3 GB running  yes
         41231      0:07     3%   28.4 MB   12.9 MB    4.1 MB sleeping gzip -9
      2 commands are running.
      Press Enter to leave.

  `CPU` is that of the last second, in percent of one core. `CPU` and `MEMORY` (resident memory; what processes share
  counts in each) are those of the command and of everything that it started, and `STATE` is that of the command itself; all
  three need Linux. `OUT` is what was read from stdout and stderr.

  When the output is not a terminal, it prints the table once, with the CPU since the start of each command.
  """
  @spec top() :: :ok
  defdelegate top, to: Top, as: :run

  @doc """
  Runs a command as `System.cmd/3` does, and returns `{collected, exit_status}`. The arguments, options, results and exceptions
  are those of Elixir 1.18, also on older versions, so that a program can change from one to the other by search and replace.

      iex> NetRunner.cmd("echo", ["hello"])
      {"hello\\n", 0}
      iex> NetRunner.cmd("sh", ["-c", "echo $A; pwd; exit 3"], env: [{"A", "b"}], cd: "/usr", into: [], lines: 1024)
      {["b", "/usr"], 3}
      iex> NetRunner.cmd("no-such-program", [])
      ** (ErlangError) Erlang error: :enoent

  Two things are better: a program that prints faster than `:into` collects has to wait, so memory does not grow; and when the
  collectable raises or the caller dies, the command is ended.

  ## Options

    * `:into` - what the output is collected into, any `Collectable`. Default: `""`
    * `:lines` - a number greater than 0: whole lines are collected, without their newline, instead of pieces of any size. Lines
      are never cut, whatever the number
    * `:cd` - the working directory
    * `:env` - an enumerable of `{name, value}` with strings, added to the VM's environment; `nil` and `""` unset a variable
    * `:arg0` - passed to the command as `argv[0]`
    * `:stderr_to_stdout` - `true`: stderr is collected too. `false`, the default: stderr is that of the VM
    * `:use_stdio` - `false`: stdin and stdout are those of the VM too, and nothing is collected. Default: `true`
    * `:parallelism` - accepted, but has no effect

  In addition it takes the options of `NetRunner.Options`, `:input`, and `:timeout` (milliseconds after which the command is ended
  and `NetRunner.Error` raised). The options for stdin, stdout and stderr cannot be combined with `use_stdio: false`, nor another
  `:stderr` with `:stderr_to_stdout`.

      iex> NetRunner.cmd("tr", ["a-z", "A-Z"], input: "hello", nice: 19)
      {"HELLO", 0}
      iex> try do
      ...>   NetRunner.cmd("sleep", ["100"], timeout: 50)
      ...> rescue
      ...>   error in NetRunner.Error -> error.reason
      ...> end
      :timeout

  It starts the `:net_runner` application if necessary, so it works in a Mix task, in the body of a module and in
  `config/runtime.exs`.

  The executable is looked up on the VM's `PATH`. Stdin is a pipe into which nothing is written and which is never closed, so a
  command that reads to the end of its input never returns; with `:input`, and with `run/2`, stdin is closed. When the executable was found
  but cannot be started, the status is the number of the system's error, as with `System.cmd/3` (2 for a `:cd` that does not exist), and a
  sentence on stderr says why. Where an option that `System.cmd/3` does not have is the reason, `NetRunner.Error` is raised.

  ## Differences from `System.cmd/3`

    * A process that the command leaves running when it exits is ended, and not waited for. For a program that puts itself
      into the background, use `leftovers: :leave`.
    * A NUL byte in an argument, in `:arg0` or in `:cd` raises `ArgumentError`; a port cuts the string there. An empty name in
      `:env` raises too.
    * An option that is `nil` counts as not given.
    * A mistake in `:env`, an unknown option, and an argument of the wrong type raise `ArgumentError`, which shows no value that may
      be secret.
    * An executable text file without `#!` is run by `/bin/sh`, as execvp(3) does; with `System.cmd/3` its status is 8.
    * The command does not inherit that the VM ignores SIGPIPE: one that writes to a closed pipe is ended, as in a shell.
    * With `use_stdio: false`, the command does not get the pipes of a port as its descriptors 3 and 4.
  """
  @spec cmd(String.t(), [String.t()], keyword()) :: {Collectable.t(), 0..255}
  def cmd(executable, args, options \\ []) do
    Cmd.run(executable, args, options)
  end
end
