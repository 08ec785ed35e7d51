defmodule NetRunner do
  @moduledoc """
  Runs operating-system commands: with backpressure, with nothing ever left running.

      iex> NetRunner.run(~w(echo hello))
      {"hello\\n", 0}
      iex> NetRunner.run(~w(tr a-z A-Z), input: "hello")
      {"HELLO", 0}
      iex> NetRunner.stream!(~w(seq 1 1000000)) |> Stream.take(1) |> Enum.map(&binary_part(&1, 0, 4))
      ["1\\n2\\n"]

  A command is a list `[executable | args]`, or a `NetRunner.Command`. No shell is involved: the command gets its arguments
  exactly as they are given.

  Four ways to run one:

    * `run/2` waits for the end and returns everything it printed, and its exit status; `run!/2` raises when that is not 0,
      and `shell/2` runs a script;
    * `capture/2` returns everything that is known about it, however it ended;
    * `stream!/2` and `stream/2` give its output piece by piece, as fast as the pieces are consumed;
    * `NetRunner.Process` reads and writes on demand, sends signals, and waits.

  When a command is over, nothing that it started is left running, whatever ended it: its own exit, a
  timeout, a consumer that stopped early or crashed, the death of the VM.
  """

  alias NetRunner.{Command, Error, Options, Result, Top}
  alias NetRunner.Process.{Listing, Server}
  alias NetRunner.Run.{CancelToken, Capture, Cmd, Input, Pipeline, Progress}

  @typedoc "`[executable | args]`, or a command that was made before."
  @type command :: [String.t()] | Command.t()

  @typedoc "Why a command gave no result."
  @type error ::
          NetRunner.Process.start_error()
          | :timeout
          | {:max_output_exceeded, partial :: binary()}
          | :shepherd_died
          | atom()

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

  `NetRunner.Options` has examples of those that every command takes.

  #{Options.documentation(@run_groups)}
  """
  @spec run(command(), keyword()) :: {stdout :: binary(), 0..255} | {:error, error()}
  def run(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @run_groups)
    options = Options.validate!(options, @run_groups)
    input = Input.new(options)
    # Nobody else can get the result.
    options = %{options | owner: options.owner || self()}
    extra = [input: Input.for_server(input), grace?: true]

    with {:ok, server} <- Server.start(command, options, extra) do
      progress = Progress.start(options, input, server, command)
      feeder = input |> Input.feed(server) |> Input.watch()
      result = NetRunner.Process.collect(server, options.max_output_size)
      Progress.stop(progress)
      Input.result(result, feeder)
    end
  end

  @doc """
  As `run/2`, but returns stdout alone, and raises `NetRunner.Error` unless the status is 0.

      iex> NetRunner.run!(~w(echo hello))
      "hello\\n"
      iex> NetRunner.run!(["sh", "-c", "echo bad >&2; exit 3"])
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad

      iex> NetRunner.run!(~w(sleep 100), timeout: 50)
      ** (NetRunner.Error) `sleep 100` failed: it did not end within :timeout

  The error has the status, the last `:stderr_tail` bytes of stderr and the last 8 KiB of stdout, also where the reason is a
  timeout or a limit. A failure while `:input` is produced is raised as it is.

  ## Options

  #{Options.documentation(@run_groups)}
  """
  @spec run!(command(), keyword()) :: binary()
  def run!(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @run_groups)
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
    raise %{Result.error(result) | reason: {:max_output_exceeded, result.stdout}}
  end

  defp stdout!(%{outcome: :cancelled} = result),
    do: raise(%{Result.error(result) | reason: :closed})

  defp stdout!(result), do: Result.ok!(result).stdout

  @doc """
  Runs a script with `/bin/sh`, and returns what `run/2` does. The list `:args` is what the script sees as `"$1"`, `"$2"` and
  so on.

      iex> NetRunner.shell("seq 3 | wc -l")
      {"3\\n", 0}
      iex> NetRunner.shell(~S(echo "$2, $1"), args: ["a b", "$(reboot)"])
      {"$(reboot), a b\\n", 0}

  Put a value that comes from elsewhere into `:args`, never into the script. Everything in the script is run: a
  file with the name `x; rm -r ~` in `"wc -l \#{name}"` removes your files. As `"$1"`, with the double quotes, it is a
  name and nothing else, whatever is in it:

      iex> NetRunner.shell(~S(printf '<%s>' "$1"), args: ["x; echo gone"])
      {"<x; echo gone>", 0}

  A value that begins with `-` may still be taken for an option by the program that gets it: `wc -l -- "$1"`.

  Options are those of `run/2`, and `:args`.
  """
  @spec shell(String.t(), keyword()) :: {stdout :: binary(), 0..255} | {:error, error()}
  def shell(script, options \\ []) do
    # No function clause, whose error would show the options.
    unless is_binary(script) do
      raise ArgumentError,
            "the script must be a string, got: #{Options.Kind.no_string(script)} (a command as a list is for NetRunner.run/2)"
    end

    shell = Command.new("/bin/sh", ["-c", script, "sh"])
    run(shell, options)
  end

  @doc """
  Runs a command to its end, however it ends, and returns everything that was seen of it: `{:ok, %NetRunner.Result{}}`.
  For callers who have to explain what happened.

      iex> {:ok, result} = NetRunner.capture(["sh", "-c", "echo out; echo bad >&2; sleep 100"], timeout: 2_000)
      iex> {result.outcome, result.stdout, result.stderr, result.exit}
      {:timeout, "out\\n", "bad\\n", {:signaled, :sigterm, false}}

  It returns when the command and everything that it started are gone. `{:error, reason}`, as of `run/2`, means that the command
  was not started (`{:error, :timeout}`: it had not when that had passed; `{:error, :cancelled}`: its token was
  cancelled before).

  What NetRunner ends is read to its end, so what a command prints on its way out is in the result. There is no limit
  unless one is given. With `:max_output_size` the command is ended, with `:keep` it runs on:

      iex> {:ok, result} = NetRunner.capture(~w(seq 1000), max_output_size: [stdout: 6])
      iex> {result.outcome, result.stdout}
      {{:output_limit, :stdout}, "1\\n2\\n3\\n"}
      iex> {:ok, result} = NetRunner.capture(~w(seq 1000), keep: {4, 9})
      iex> {result.outcome, result.stdout, result.dropped}
      {:ended, "1\\n2\\n999\\n1000\\n", %{stdout: 3880, stderr: 0}}

  Progress, and a way to stop:

      iex> token = NetRunner.cancel_token()
      iex> {:ok, result} =
      ...>   NetRunner.capture(["sh", "-c", "echo begun; sleep 100"], cancel: token, on_output: fn _ -> NetRunner.cancel(token) end)
      iex> {result.outcome, result.stdout}
      {:cancelled, "begun\\n"}

  `:stderr` is `:pipe` here, unless it is given. Memory is bounded by what is kept, and a piece of output. A slow
  `:on_output` makes the command wait.

  ## Options

  #{Options.documentation(@capture_groups)}
  """
  @spec capture(command(), keyword()) ::
          {:ok, Result.t()} | {:error, NetRunner.Process.start_error() | :timeout | :cancelled}
  def capture(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @capture_groups)
    options = Options.validate!(options, @capture_groups)

    with {:ok, result, _failure} <- Capture.run(command, options, Input.new(options)),
         do: {:ok, result}
  end

  @doc """
  A token for the option `:cancel` of `capture/2`. It may be given to any number of captures, at the same time and one after
  the other, that are called on this node (their commands may run on others). A token that is no longer used needs no cleanup.

      iex> token = NetRunner.cancel_token()
      iex> NetRunner.cancel(token)
      :ok
      iex> NetRunner.capture(~w(true), cancel: token)
      {:error, :cancelled}
  """
  @spec cancel_token() :: cancel_token()
  def cancel_token, do: CancelToken.new()

  @doc """
  Ends the commands of all captures with this token, now and later: captures that run have the outcome `:cancelled`, and those
  that have not started return `{:error, :cancelled}`. A command that has exited is not affected. Can be called any number of times,
  from any process, on any node; does not wait.

      iex> NetRunner.cancel(NetRunner.cancel_token())
      :ok
  """
  @spec cancel(cancel_token()) :: :ok
  def cancel(%CancelToken{} = token), do: CancelToken.cancel(token)

  @doc """
  A stream of the output of a command, in binaries of any size. The command starts when the stream is
  enumerated and ends when the consumer stops early, raises, or dies.

      iex> NetRunner.stream!(~w(sort), input: ["c\\n", "a\\n"]) |> Enum.join()
      "a\\nc\\n"
      iex> NetRunner.stream!(~w(seq 3), lines: :trim) |> Enum.to_list()
      ["1", "2", "3"]
      iex> NetRunner.stream!(["sh", "-c", "echo out; exit 3"], tagged: true) |> Enum.to_list()
      [{:stdout, "out\\n"}, {:exit, 3}]

  Raises `NetRunner.Error` when the command cannot be started and, at the end, when it did not exit with
  0. It does not with `exit_status: :ignore`, nor with `:tagged`, where the status is the last element, unless
  `exit_status: :raise` is given as well.

      iex> NetRunner.stream!(["sh", "-c", "echo bad >&2; exit 3"]) |> Enum.to_list()
      ** (NetRunner.Error) `sh -c 'echo bad >&2; exit 3'` exited with status 3; the end of its stderr: bad

  A failure while `:input` is produced is raised in the consumer. A command that passes `:timeout` or
  `:max_output_size` is ended, and `NetRunner.Error` says which.

  ## Options

  #{Options.documentation(@raising_groups)}
  """
  @spec stream!(command(), keyword()) :: Enumerable.t()
  def stream!(command, options \\ []) do
    {command, options} = Command.unfold(command, options, @raising_groups)
    options = Options.validate!(options, @raising_groups)
    NetRunner.Run.Stream.lazy(command, options, Input.new(options))
  end

  @doc """
  Starts a command and returns `{:ok, stream}` of its output, or `{:error, reason}`. The stream does not raise for
  the exit status, but it does when `:timeout` or `:max_output_size` ended the command. It can be enumerated only
  once. The command belongs to the caller until another
  process enumerates the stream, and then to that. A status other than 0 is logged as a warning, with
  `:tagged` it is the last element.

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
    NetRunner.Run.Stream.running(command, options, Input.new(options))
  end

  @doc """
  Runs commands whose outputs and inputs are joined, and returns what the last one printed, and the exit status
  of each. Between them are pipes of the kernel: no byte goes through the VM but the input of the first
  and the output of the last.

      iex> NetRunner.pipeline([~w(printf b\\\\na\\\\nb\\\\n), ~w(sort), ~w(uniq)])
      {"a\\nb\\n", [0, 0, 0]}
      iex> NetRunner.pipeline([~w(false), ~w(wc -c)])
      {"0\\n", [1, 0]}
      iex> NetRunner.pipeline([~w(yes), ~w(head -n 1)])
      {"y\\n", [141, 0]}

  In the last example, `yes` kept writing after `head` had stopped reading, and was ended by SIGPIPE (128 + 13).

  All commands have ended when this returns. When one could not be started, its server or its shepherd was killed, or
  `:timeout` or `:max_output_size` was passed, the others are ended too. The errors are those of `run/2`; that of a
  command which could not be started has its index, counted from 0:

      iex> NetRunner.pipeline([~w(yes), ~w(no-such-program), ~w(cat)])
      {:error, {:command, 1, :enoent}}

  The options are those of `run/2`, without `:pty`, `:node` and `:cgroup_path`. `:timeout` is one for the whole pipeline.
  `:input` and `:stdin` are those of the first command, `:stdout` and `:max_output_size` those of the last; all others hold
  for each command. A `NetRunner.Command` brings options of its own, which are stronger, and its own `:timeout`
  beside that of the pipeline. An option of its own that has no meaning where it stands, such as the `:stdin` of the
  second command, raises `ArgumentError`.

  ## Options

  #{Options.documentation(@pipeline_groups)}
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
  The stream of `pipeline/2`, as `stream!/2` is that of `run/2`: lazy, and ending all commands when the
  consumer stops early.

      iex> NetRunner.pipeline_stream!([~w(seq 1000000), ~w(grep 99999)], lines: :trim) |> Enum.take(2)
      ["99999", "199999"]

  Raises `NetRunner.Error` at the end for the first command that did not exit with 0. SIGPIPE is no failure
  of a command that is not the last, and no exit status is one of a `NetRunner.Command` with `exit_status: :ignore`.
  With `:tagged`, the last element is `{:exit, [status, …]}`. `:tagged` and `:lines` are about the output of the last.

  ## Options

  #{Options.documentation(@pipeline_stream_groups)}
  """
  @spec pipeline_stream!([command()], keyword()) :: Enumerable.t()
  def pipeline_stream!(commands, options \\ []) do
    commands |> Pipeline.plan(options, @pipeline_stream_groups) |> NetRunner.Run.Stream.pipeline()
  end

  @doc """
  The commands that run in this VM, those that were started first before the others. Each is a map, which IEx prints on one
  line:

    * `pid`: its `NetRunner.Process`;
    * `os_pid`: its PID in the operating system;
    * `command`: `[executable | args]`;
    * `started_at`: a `DateTime` in UTC;
    * `bytes`: `%{in: …, out: …, err: …}`, the bytes written to its stdin, read from its stdout and from its stderr
      so far.

  Nothing is asked of the commands' processes, so a busy one keeps nobody waiting. A command that has
  exited is not listed, also where its output can still be read.

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
  @spec list() :: [Listing.t()]
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

  Elsewhere than on a terminal, prints the table once, with the CPU since the start of each command.
  """
  @spec top() :: :ok
  defdelegate top, to: Top, as: :run

  @doc """
  `System.cmd/3` of Elixir 1.18, with its arguments, options, results and exceptions, whatever Elixir this is:
  what uses that can use this. Returns `{collected, exit_status}`.

      iex> NetRunner.cmd("echo", ["hello"])
      {"hello\\n", 0}
      iex> NetRunner.cmd("sh", ["-c", "echo $A; pwd; exit 3"], env: [{"A", "b"}], cd: "/usr", into: [], lines: 1024)
      {["b", "/usr"], 3}
      iex> NetRunner.cmd("no-such-program", [])
      ** (ErlangError) Erlang error: :enoent

  What is better than there: a program that prints faster than `:into` takes it waits, and memory does
  not grow; when the collectable raises or the caller dies, the command is ended.

  ## Options

    * `:into` - what the output is collected into, any `Collectable`. Default: `""`
    * `:lines` - collects whole lines, without their newline, instead of pieces of any size. The number (of
      bytes, greater than 0) is that of `System.cmd/3`; lines of any length are whole
    * `:cd` - the working directory
    * `:env` - an enumerable of `{name, value}` of strings, on top of the VM's environment; `nil` and
      `""` unset
    * `:arg0` - passed to the command as `argv[0]`
    * `:stderr_to_stdout` - `true`: stderr is part of the output. Default: `false`, stderr is that of the VM
    * `:use_stdio` - `false`: stdin and stdout are those of the VM as well, and nothing is collected.
      Default: `true`
    * `:parallelism` - accepted, and of no effect

  Beside these it takes the options of `NetRunner.Options`, `:input`, and `:timeout`: milliseconds after which the command is
  ended and `NetRunner.Error` raised. Those for stdin, stdout and stderr exclude `:stderr_to_stdout` and `use_stdio: false`.

      iex> NetRunner.cmd("tr", ["a-z", "A-Z"], input: "hello", nice: 19)
      {"HELLO", 0}
      iex> try do
      ...>   NetRunner.cmd("sleep", ["100"], timeout: 50)
      ...> rescue
      ...>   error in NetRunner.Error -> error.reason
      ...> end
      :timeout

  It starts the `:net_runner` application where that is not started: in a Mix task, in the body of a module, in
  `config/runtime.exs`.

  The executable is looked for on the VM's `PATH`. Stdin is a pipe into which nothing is written and
  which is never closed, so a command that reads it to its end does not return; with `:input`, and with `run/2`, it is closed.
  A command that cannot be started although its executable was found has, as there, the number of the system's
  error as its status (2 for a `:cd` that does not exist); here a sentence on stderr says why.

  ## Differences

    * What the command leaves running when it exits is ended, and is not waited for. For a program that puts
      itself into the background: `run/2` with `leftovers: :leave`.
    * NUL bytes in an argument, `:arg0` or `:cd` raise `ArgumentError`; a port cuts the string there. So does
      an empty name in `:env`.
    * `nil` for an option is as if it were not given.
    * What is wrong in `:env`, an unknown option, and what is no string, no list or no keyword list where there should be
      one, raise `ArgumentError`, which shows no value that may be secret.
    * An executable text without `#!` is run by `/bin/sh`, as execvp(3) does; there its status is 8.
    * With `use_stdio: false`, a command does not find the pipes of a port as its descriptors 3 and 4.
  """
  @spec cmd(String.t(), [String.t()], keyword()) :: {Collectable.t(), 0..255}
  def cmd(executable, args, options \\ []) do
    Cmd.run(executable, args, options)
  end
end
