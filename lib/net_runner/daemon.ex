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

  Its life: it starts the command, waits until the command is ready (see `:ready`), and only then returns to the supervisor, which
  goes on with the next child. It reads what the command prints for as long as the command runs. When the command exits, the daemon
  exits too, with a reason that says how. When the supervisor stops the daemon, the daemon ends the command, and returns when nothing
  that the command started is left.

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
  | loses its `NetRunner.Process`, which somebody killed | `:closed` | restarted | restarted | over |

  The last three columns are the values of the option `:restart`; `:permanent` is the default.

  An abnormal end is logged once, like that of any `GenServer`, with the command in the report and in the metadata `:command`. A
  normal end is not logged. Before the daemon exits, `:on_output` gets everything that the command has printed. If it then does not return
  for 2 seconds, the rest is given up, and the log says how much that is.

  When its supervisor (or `GenServer.stop/1`) stops the daemon, it sends the command the `:stop_signal` of `:process_opts` (SIGTERM by
  default), and after `:kill_timeout` SIGKILL. What the command prints meanwhile still goes to `:on_output`. The child spec allows more time
  than this needs (`:shutdown`). When a daemon is killed, by `shutdown: :brutal_kill` or together with the VM, the command's helper
  process ends the command all the same, but nobody waits for that.

  ## Output

  Unless `:process_opts` say otherwise, both outputs are read as long as the command runs, so it never hangs because nobody reads. The
  next piece is read when the last one has been logged, or when the callback has returned. So when a callback is slower than the
  command, the command waits, and the VM's memory does not grow.

  `:log` logs whole lines with the metadata `:command` (the executable and its arguments, as one string), `:os_pid` and `:stream`
  (`:stdout` or `:stderr`). A line of more than 8 KiB is logged in pieces. A function gets one piece of up to 64 KiB at a time. When it
  raises, that is logged, and it gets the next piece.

  Callbacks and log handlers run in a process of their own. While one of them hangs, the command waits, but the daemon can still be
  stopped, and still notices that the command has exited.

  ## Ready

  The option `:ready` says when the daemon is ready:

    * a function: when it returns `true`, `:ok` or `{:ok, _}`. It is called in a process of its own, and again 50 ms after it has
      returned anything else. It takes no argument, or the `NetRunner.Process` of the command, to which it can write. When it raises, the
      daemon is not ready yet;
    * `{:output, regex}`: when the regex matches what was printed to stdout or to stderr, of which at least the last 8 KiB are looked at;
    * `{:tcp, host, port}` and `{:unix, path}`: when a connection can be made (it is closed at once). All addresses of a host name are
      tried, IPv6 and IPv4. If one of them answers before the command is started, another program listens there and would be mistaken
      for the daemon, so the start fails with `{:error, {:address_in_use, message}}`.

  When `:ready_timeout` is over first, the command is ended, and the start fails with `{:error, {:not_ready, message}}`. When the
  command ends first, the error says how, with the end of its stderr:
  `{:error, {:exit_status, 1, stderr: "cannot bind: Address already in use\\n"}}`.

  ## Where its functions can be called

  `write/3`, `close_stdin/1`, `kill/3`, `info/1`, `stats/1`, `alive?/1` and `os_pid/1` look up the command without asking the daemon. So
  they can be called from anywhere, even from the daemon's own callbacks, and while it becomes ready or stops. Before the command has been
  started and after it is gone they return `{:error, :closed}` (`alive?/1` returns `false`).

  In the callback and the readiness function, `$callers` and Logger's metadata are those of the process that started the daemon, with the
  daemon itself in front.
  """
  @moduledoc since: "0.1.0"

  use GenServer

  alias NetRunner.Daemon.{Directory, Output, Ready, StopCommand}
  alias NetRunner.{Error, Log, Options, Signal, Text}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.{Context, Server, Stats}

  @groups [:daemon, :process]

  # Milliseconds in which what the command has printed is handled, when it has exited.
  @last_output 2_000

  # What stopping takes beside :kill_timeout, at the most; the supervisor would kill the daemon after that.
  @stop_margin @last_output + 3_000

  # What `receive` takes, in which a supervisor waits.
  @longest_shutdown 4_294_967_295

  # Bytes of stderr in the error of a start, at the most: `inspect/1`, and with it a supervisor's report, cuts the end
  # off what is longer.
  @tail 4_096

  # And as much of it is logged.
  @logged_tail 500

  # The command comes first: it is what a crash report shows first of the state.
  @enforce_keys [:command, :process, :parent, :exit, :output, :stderr] ++
                  [:ok_statuses, :stop, :kill_timeout, :leftovers]
  defstruct @enforce_keys

  @typedoc "A daemon: its pid, or the name it is registered under."
  @type t :: GenServer.server()

  @typedoc """
  Why a daemon did not start.

  When the command ends before it is ready, the error says how it ended, and has the end of its stderr as text: the last
  `:stderr_tail` bytes (at most 4096), with U+FFFD in place of each byte that is not valid UTF-8. With `stderr: :redirect` or `:pty` it is
  the end of both outputs. If stderr does not come to this VM (`:disabled`, a file), it is empty.
  """
  @type start_error ::
          Command.start_error()
          | {:address_in_use, message :: String.t()}
          | {:not_ready, message :: String.t()}
          | {:exit_status, 0..255, [stderr: String.t()]}
          | {:signal, atom() | pos_integer(), [stderr: String.t()]}
          | {:already_started, pid()}
          | :shepherd_died

  @doc """
  Returns the child spec for a supervisor. It takes the options of `start_link/1`, and those of the child:

  #{Options.Declared.documentation([:child])}
  For example:

      iex> NetRunner.Daemon.child_spec(cmd: "cat", process_opts: [kill_timeout: 1_000]).shutdown
      6000
      iex> %{id: :cat, restart: :transient} = NetRunner.Daemon.child_spec(cmd: "cat", id: :cat, restart: :transient)
      iex> NetRunner.Daemon.child_spec(cmd: "cat", on_ouput: :log)
      ** (ArgumentError) unknown option :on_ouput; did you mean :on_output?
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(options) do
    %{name: name, process_opts: process_opts} = child = validate!(options, [:child | @groups])
    # The stop command takes as long at the most, and about a second to be ended.
    times = if child.stop_command, do: 2, else: 1
    shutdown = times * process_opts.kill_timeout + @stop_margin + (times - 1) * 2_000
    shutdown = if shutdown <= @longest_shutdown, do: shutdown, else: :infinity

    %{
      id: with(nil <- child.id, do: name || __MODULE__),
      start:
        {__MODULE__, :start_link,
         [options |> Keyword.drop(Options.Name.names([:child])) |> hide_secrets()]},
      restart: child.restart,
      shutdown: with(nil <- child.shutdown, do: shutdown)
    }
  end

  # A supervisor shows in its reports how it starts its children. A function shows nothing of what it gives.
  defp hide_secrets(options) do
    for {name, value} <- options do
      case {name, value} do
        {:process_opts, options} when is_list(options) ->
          {name, hide_secrets(options)}

        {:cmd, %{opts: options} = command} ->
          {name, %{command | opts: hide_secrets(options)}}

        {secret, value} when secret in [:env, :fds] and value != nil ->
          {name, Options.Hidden.new(value)}

        other ->
          other
      end
    end
  end

  @doc """
  Starts a daemon that is linked to the caller, and returns when it is ready.

      iex> NetRunner.Daemon.start_link(cmd: "no-such-program")
      {:error, :enoent}
      iex> NetRunner.Daemon.start_link(cmd: "cat", args: ["/nowhere"], ready: {:output, ~r/hello/})
      {:error, {:exit_status, 1, stderr: "cat: /nowhere: No such file or directory\\n"}}
      iex> {:error, {:not_ready, message}} =
      ...>   NetRunner.Daemon.start_link(cmd: "cat", ready: {:output, ~r/hello/}, ready_timeout: 50)
      iex> message
      "it did not become ready within 50 ms: its output did not match ~r/hello/"

  Wrong options raise `ArgumentError`.

  ## Options

  #{Options.Declared.documentation(@groups)}
  """
  @spec start_link(keyword()) :: {:ok, pid()} | {:error, start_error()}
  def start_link(options) do
    options = validate!(options, @groups)
    name = if options.name, do: [name: options.name], else: []

    # It links itself, so that one that does not start takes nobody along.
    case GenServer.start(__MODULE__, {options, self(), Context.capture()}, name) do
      {:error, {:shutdown, {:not_started, reason}}} -> {:error, reason}
      result -> result
    end
  end

  @doc """
  Returns the command's PID in the operating system.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat")
      iex> is_integer(NetRunner.Daemon.os_pid(daemon))
      true
  """
  @spec os_pid(t()) :: pos_integer() | {:error, Command.gone()}
  def os_pid(daemon) do
    with {:ok, process} <- Directory.find(daemon), do: Command.os_pid(process)
  end

  @doc """
  Returns whether the daemon exists and its command runs.

      iex> NetRunner.Daemon.alive?(:no_such_daemon)
      false
  """
  @spec alive?(t()) :: boolean()
  def alive?(daemon) do
    case Directory.find(daemon) do
      {:ok, process} -> Command.alive?(process)
      {:error, _} -> false
    end
  end

  @doc """
  Writes iodata to the command's stdin, and returns when all of it is in the pipe. So a command that reads slowly slows down its
  writer, and nobody else. `timeout` and errors are those of `NetRunner.Process.write/3`.

  A callback that writes can deadlock with a command that does not read, because the command may be waiting for the callback to take
  its output. A `timeout` ends such a wait.

      iex> test = self()
      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat", on_output: &send(test, &1))
      iex> NetRunner.Daemon.write(daemon, ["hel", "lo"])
      :ok
      iex> receive do: (bytes -> bytes)
      "hello"
  """
  @spec write(t(), iodata(), timeout()) ::
          :ok
          | {:error,
             :epipe
             | {:timeout, non_neg_integer()}
             | :not_piped
             | {:not_ended, pos_integer()}
             | Command.gone()
             | Command.posix()}
  def write(daemon, iodata, timeout \\ :infinity) do
    with {:ok, process} <- Directory.find(daemon), do: Command.write(process, iodata, timeout)
  end

  @doc """
  Closes the command's stdin, after the writes that were called before, as `NetRunner.Process.close_stdin/1` does. Many programs exit
  then. The daemon exits with them, as with any exit of its command.

      iex> test = self()
      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "sort", on_line: &send(test, {:line, &1}))
      iex> NetRunner.Daemon.write(daemon, "b\\na\\n")
      iex> NetRunner.Daemon.close_stdin(daemon)
      :ok
      iex> receive do: ({:line, line} -> line)
      "a"
  """
  @spec close_stdin(t()) :: :ok | {:error, Command.gone()}
  def close_stdin(daemon) do
    with {:ok, process} <- Directory.find(daemon), do: Command.close_stdin(process)
  end

  @doc """
  Sends the command a signal, for example one that makes it reload its configuration. The options are those of
  `NetRunner.Process.kill/3`.

      iex> test = self()
      iex> script = "trap 'echo again' HUP; echo ready; while :; do sleep 0.1; done"
      iex> {:ok, daemon} =
      ...>   NetRunner.Daemon.start_link(cmd: "sh", args: ["-c", script], ready: {:output, ~r/ready/}, on_line: &send(test, &1))
      iex> NetRunner.Daemon.kill(daemon, :sighup)
      :ok
      iex> receive do: ("again" -> :reloaded)
      :reloaded
  """
  @spec kill(t(), Signal.t(), to: :command | :group | :tree) ::
          :ok | {:error, :unknown_signal | :esrch | Command.gone() | Command.posix()}
  def kill(daemon, signal, options \\ []) do
    with {:ok, process} <- Directory.find(daemon), do: Command.kill(process, signal, options)
  end

  @doc """
  Describes the command and its state, like `NetRunner.Process.info/1`.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat", args: ["-u"])
      iex> %{command: ["cat", "-u"], status: :running} = NetRunner.Daemon.info(daemon)
  """
  @spec info(t()) :: Command.info() | {:error, Command.gone()}
  def info(daemon) do
    with {:ok, process} <- Directory.find(daemon), do: Command.info(process)
  end

  @doc """
  Returns what has been counted for the command, like `NetRunner.Process.stats/1`.

      iex> {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat")
      iex> NetRunner.Daemon.write(daemon, "hello")
      iex> %NetRunner.Process.Stats{bytes_in: 5} = NetRunner.Daemon.stats(daemon)
  """
  @spec stats(t()) :: Stats.t() | {:error, Command.gone()}
  def stats(daemon) do
    with {:ok, process} <- Directory.find(daemon), do: Command.stats(process)
  end

  defp validate!(options, groups) do
    given = unfold(options)
    refuse_owner!(given)
    options = Options.validate!(given, groups)

    if options.cmd == nil do
      raise ArgumentError, "the option :cmd is missing: give the executable as a string"
    end

    refuse_owner!(options.process_opts)

    refuse_own!(options.process_opts)
    process_opts = Options.validate!(options.process_opts, [:command], stderr: :pipe)
    unless prints_to_us?(process_opts), do: Enum.each(readers(given), &refuse_reader!/1)
    %{options | process_opts: process_opts}
  end

  defp prints_to_us?(%{pty: false} = options), do: :pipe in [options.stdout, options.stderr]
  defp prints_to_us?(_terminal), do: true

  defp refuse_owner!(options) do
    if Keyword.keyword?(options) and Keyword.has_key?(options, :owner) do
      raise ArgumentError,
            "the option :owner has no meaning for a daemon: its command belongs to it"
    end
  end

  # Those of the daemon that its command does not have.
  defp refuse_own!(process_opts) do
    own = Options.Name.names([:child | @groups]) -- Options.Name.names([:command])

    if option =
         Keyword.keyword?(process_opts) && Enum.find(Keyword.keys(process_opts), &(&1 in own)) do
      raise ArgumentError,
            "the option #{inspect(option)} is that of the daemon: it belongs beside :process_opts, not in it"
    end
  end

  # The options that want some of the output.
  defp readers(given) do
    for {option, value} <- Keyword.take(given, [:on_output, :on_line, :ready]),
        value not in [nil, :discard] and (option != :ready or match?({:output, _}, value)),
        do: option
  end

  @spec refuse_reader!(atom()) :: no_return()
  defp refuse_reader!(option) do
    raise ArgumentError,
          "the option #{inspect(option)} has no meaning here: no output comes to the daemon, as neither stdout nor stderr is :pipe"
  end

  # The command as a value: what is said beside it is added, or wins.
  defp unfold([{_, _} | _] = options) do
    case List.keyfind(options, :cmd, 0) do
      {:cmd, %NetRunner.Command{} = command} ->
        {_, args} = List.keyfind(options, :args, 0, {:args, []})
        {_, over} = List.keyfind(options, :process_opts, 0, {:process_opts, []})
        command = NetRunner.Command.checked!(command)
        # The command belongs to its daemon.
        command = %{command | opts: Keyword.delete(command.opts, :owner)}

        {[executable | own], process_opts} =
          NetRunner.Command.unfold(command, over || [], [:command])

        for {name, value} <-
              [cmd: executable, args: own ++ (args || []), process_opts: process_opts],
            reduce: options do
          options -> List.keystore(options, name, 0, {name, value})
        end

      _no_command ->
        options
    end
  end

  defp unfold(options), do: options

  # --- the process --------------------------------------------------------------------------------

  # It is linked to four processes, and each `EXIT` is an event: the parent; one that waits for the command's exit; one
  # that reads the output; while it becomes ready, one that tries whether it is.
  #
  # The daemon itself calls nothing of the user's, not even Logger, whose handlers could hang.

  @impl true
  def init({options, parent, context}) do
    Context.adopt(context)
    # In the log of an end that a user must see as well.
    Logger.metadata(command: command_line(options))
    Logger.metadata(options.logger_metadata)

    # Before anything is linked: a socket is linked as well.
    with :ok <- Ready.vacant(options.ready),
         {:ok, process} <- start_command(options, parent),
         :ok <- Directory.put(process) do
      begin(process, parent, options)
    else
      {:error, reason} -> not_started(parent, reason, options)
    end
  end

  defp start_command(options, parent) do
    Process.flag(:trap_exit, true)
    Process.link(parent)
    Server.start([options.cmd | options.args], options.process_opts)
  end

  defp command_line(options), do: Error.command_line([options.cmd | options.args])

  defp begin(process, parent, options) do
    ready = Ready.start(options.ready, process, options.ready_timeout)

    state = %__MODULE__{
      command: command_line(options),
      process: process,
      parent: parent,
      exit: await_exit(process),
      output: read_output(process, options, ready),
      stderr: options.process_opts.stderr,
      ok_statuses: options.ok_statuses,
      stop: StopCommand.new(options),
      kill_timeout: options.process_opts.kill_timeout,
      leftovers: options.process_opts.leftovers
    }

    {result, state} = await_ready(state, ready)
    Ready.stop(ready)

    case result do
      :ready ->
        {:ok, state}

      {:ended, how} ->
        not_started(parent, with_stderr(how, end_command(state)), options)

      {:error, reason} ->
        end_command(state)
        not_started(parent, reason, options)
    end
  end

  # A shutdown, so that no crash is logged: the caller gets the reason. When that is a supervisor which starts the daemon again, it reports it only
  # where reports of SASL are shown, and ends in the end.
  defp not_started(parent, reason, options) do
    # Before the start has failed: who captures the log of a test does so no longer than that.
    if why = why_not_started(reason, [options.cmd | options.args]),
      do: Log.write_and_wait(:warning, "a daemon did not start: #{Error.one_line(why)}")

    Process.unlink(parent)
    {:stop, {:shutdown, {:not_started, reason}}}
  end

  # What a function of the user's gave may be secret, and so is left out.
  defp why_not_started(reason, command) do
    line = Error.command_line(command)

    case reason do
      {:address_in_use, sentence} ->
        "`#{line}`: #{sentence}"

      {:not_ready, _sentence} ->
        "`#{line}` did not become ready; the error of its start says why"

      {how, code, stderr: stderr} ->
        what = if how == :signal, do: "the signal", else: "the exit status"
        said = if stderr == "", do: "", else: ": " <> Text.last(stderr, @logged_tail)
        "`#{line}` ended with #{what} #{code} before it was ready#{said}"

      reason when is_atom(reason) and reason not in [:normal, :shutdown, :killed] ->
        Exception.message(%Error{command: command, reason: reason})

      {step, errno} when is_atom(step) and is_atom(errno) and step != :shutdown ->
        Exception.message(%Error{command: command, reason: reason})

      _of_who_ends_it ->
        nil
    end
  end

  defp await_exit(process), do: spawn_link(__MODULE__, :tell_end, [process])

  @doc false
  @spec tell_end(pid()) :: no_return()
  def tell_end(process), do: exit({:ended, how_it_ended(process)})

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

  defp read_output(process, options, ready) do
    %{pty: pty, stderr: stderr, stderr_tail: tail_size} = options.process_opts

    Output.start_link(process,
      sink: sink(options),
      metadata: [command: command_line(options), os_pid: Command.os_pid(process)],
      watch: Ready.watch(options.ready, ready),
      tail_of: if(pty != false or stderr == :redirect, do: :stdout, else: :stderr),
      tail_size: min(tail_size, @tail)
    )
  end

  defp sink(%{on_line: function}) when function != nil, do: {:lines, function}
  defp sink(%{on_output: :log, log_prefix: prefix}), do: {:log, :info, prefix || ""}
  defp sink(%{on_output: {:log, level}, log_prefix: prefix}), do: {:log, level, prefix || ""}
  defp sink(%{on_output: other}), do: other

  defp await_ready(state, ready) do
    case Ready.await(ready) do
      {{:EXIT, pid, reason}, ready} ->
        with {:go_on, state} <- gone(state, pid, reason), do: await_ready(state, ready)

      ready_or_not ->
        {ready_or_not, state}
    end
  end

  # What it means that a linked process is gone.
  defp gone(%{exit: pid} = state, pid, {:ended, how}), do: {{:ended, how}, %{state | exit: nil}}

  defp gone(%{exit: pid} = state, pid, _killed) do
    {:go_on, %{state | exit: await_exit(state.process)}}
  end

  # The command may run on with its outputs closed.
  defp gone(%{output: pid} = state, pid, {:shutdown, {:ended, _} = tail}) do
    {:go_on, %{state | output: tail}}
  end

  defp gone(%{output: pid} = state, pid, reason) do
    {{:error, reason}, %{state | output: {:ended, ""}}}
  end

  defp gone(%{parent: parent} = state, pid, :normal) when pid != parent, do: {:go_on, state}
  defp gone(state, _pid, reason), do: {{:error, reason}, state}

  defp with_stderr({how, code}, tail) when how in [:exit_status, :signal] do
    {how, code, stderr: Text.valid(tail)}
  end

  defp with_stderr(lost, _tail), do: lost

  @impl true
  def handle_info({:EXIT, pid, reason}, state) do
    case gone(state, pid, reason) do
      {:go_on, state} -> {:noreply, state}
      {{:ended, how}, state} -> {:stop, reason(how, state.ok_statuses), with_last_words(state)}
      {{:error, reason}, state} -> {:stop, reason, state}
    end
  end

  def handle_info(message, state) do
    Log.write(
      :warning,
      "the daemon #{state.command} received a message that it does not know: #{inspect(message)}"
    )

    {:noreply, state}
  end

  @impl true
  def handle_cast(request, state) do
    Log.write(
      :warning,
      "the daemon #{state.command} got a cast that it does not know: #{inspect(request)}"
    )

    {:noreply, state}
  end

  # Its own functions ask the command's process. A mistake must not end the command; `NetRunner.Process` raises.
  @impl true
  def handle_call(_request, {caller, _tag}, state) do
    Log.write(
      :warning,
      "#{inspect(caller)} called the daemon #{state.command}, which answers no calls: " <>
        "use the functions of NetRunner.Daemon, not those of NetRunner.Process"
    )

    {:reply, {:error, {:daemon, state.command}}, state}
  end

  defp reason(how, ok_statuses) do
    if status(how) in ok_statuses, do: :normal, else: how
  end

  defp status({:exit_status, status}), do: status

  # Those of the C library have no name.
  defp status({:signal, number}) when is_integer(number), do: 128 + number

  defp status({:signal, signal}) do
    with {:ok, number} <- Signal.resolve(signal), do: 128 + number
  end

  defp status(_lost), do: nil

  @impl true
  def terminate(_reason, state), do: end_command(state)

  # In crash reports: the stop command has the daemon's environment.
  if Version.match?(System.version(), ">= 1.17.0-dev"), do: @impl(true), else: @doc(false)

  def format_status(%{state: %__MODULE__{stop: %StopCommand{}} = state} = status),
    do: %{status | state: %{state | stop: :hidden}}

  def format_status(status), do: status

  # The log of a crash shows the state, and so what the command said last.
  defp with_last_words(state) do
    state = %{state | output: handled_output(state)}
    tail = end_command(state)
    %{state | output: {:ended, Text.legible(tail)}}
  end

  # The command has exited, and nobody has asked the daemon to stop. So a slow function gets all that was printed, as long as it gets on.
  # What a leftover prints may never end.
  defp handled_output(%{leftovers: :kill, output: output} = state) when is_pid(output) do
    Output.give_up_if_stuck(output)

    receive do
      {:EXIT, ^output, reason} -> {:ended, tail(reason)}
      # It is asked to stop now.
      {:EXIT, _pid, reason} when reason != :normal -> output
    after
      @last_output -> handled_output(state)
    end
  end

  defp handled_output(state), do: state.output

  # Every daemon ends here, whether its command still runs or has exited. Returns the end of stderr.
  #
  # The output is still read, so that what the command prints at its end is not lost, and so that a full pipe does not keep
  # it from ending.
  defp end_command(%{process: process} = state) do
    if is_pid(state.output), do: Output.read_ahead(state.output)
    %{exit: exit} = state = run_stop_command(state)
    _ = Command.end_command(process)
    if exit, do: receive(do: ({:EXIT, ^exit, _} -> :ok))
    tail = last_output(state.output)
    # As of a stderr that the command's process reads itself.
    consumed = state.stderr == :consume && Command.failure(process)[:stderr]
    Command.stop(process)
    if consumed, do: Text.last(consumed, @tail), else: tail
  end

  defp run_stop_command(%{exit: exit, stop: stop} = state) when exit != nil and stop != nil do
    until = System.monotonic_time(:millisecond) + state.kill_timeout

    {patience, complaint} =
      case StopCommand.run(stop) do
        :ok ->
          {max(0, until - System.monotonic_time(:millisecond)),
           "the daemon has not ended within :kill_timeout (#{state.kill_timeout} ms)"}

        # The daemon may have ended in spite of that.
        {:error, sentence} ->
          {0, sentence}
      end

    receive do
      {:EXIT, ^exit, _} -> %{state | exit: nil}
    after
      patience ->
        Log.write(
          :warning,
          ":stop_command did not stop the daemon #{state.command}, which gets its stop signal now: #{complaint}"
        )

        state
    end
  end

  defp run_stop_command(state), do: state

  # Its end may be far: a callback may hang, or a process that the command has left may hold the pipe.
  defp last_output({:ended, tail}), do: tail

  defp last_output(output) do
    receive do
      {:EXIT, ^output, reason} -> tail(reason)
    after
      @last_output ->
        Output.give_up(output)
        receive do: ({:EXIT, ^output, reason} -> tail(reason))
    end
  end

  defp tail({:shutdown, {:ended, tail}}), do: tail
  defp tail(_killed), do: ""
end
