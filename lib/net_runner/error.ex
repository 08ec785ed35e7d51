defmodule NetRunner.Error do
  @moduledoc """
  Raised by functions that do not return `{:error, reason}`, such as `NetRunner.run!/2` and `NetRunner.stream!/2`, when a command cannot
  be started, is ended by NetRunner, or does not exit with 0.

  Fields:

    * `reason`: `:exit_status` when the command ran and failed; otherwise what other functions return as `{:error, reason}`. For a command
      of a pipeline that could not be started it is `{:command, index, reason}`, with an index that counts from 0;
    * `command`: `[executable | args]`;
    * `status`: the exit status, or 128 + the number of the signal; `nil` when the command did not start;
    * `exit`: `{:exited, code}` or `{:signaled, name, core_dumped?}`, if known. With it you can tell a command that was ended by SIGTERM from
      a shell that exits with 143 because SIGTERM ended the program that it ran;
    * `stderr`: the last bytes that the command wrote to stderr, if they were kept (`:stderr_tail`). Of the result of a capture, it is
      the last 8 KiB of what the capture has kept;
    * `stderr_dropped`: how many bytes of stderr the capture has dropped (`:keep`, `:max_output_size`);
    * `stdout`: the last 8 KiB of what it wrote to stdout, if that was collected, as `NetRunner.run!/2` and
      `NetRunner.Result.ok!/1` do.

  `inspect/1` gives one line with the message, and does not show what the command printed to stdout.

  The message is a sentence:

      iex> error = %NetRunner.Error{reason: :exit_status, command: ["make", "all"], status: 2, stderr: "no rule"}
      iex> Exception.message(error)
      "`make all` exited with status 2; the end of its stderr: no rule"
      iex> Exception.message(%{error | status: 137, exit: {:signaled, :sigkill, false}, stderr: ""})
      "`make all` was ended by SIGKILL (status 137)"
      iex> Exception.message(%{error | reason: {:cd, :enoent}, status: nil, stderr: ""})
      "`make all` failed: the working directory (:cd) cannot be used: no such file or directory (:enoent)"
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.{Signal, Text}

  defexception [:reason, :command, :status, :exit, stderr: "", stderr_dropped: 0, stdout: ""]

  @type t :: %__MODULE__{
          reason: term(),
          command: [String.t()],
          status: non_neg_integer() | nil,
          exit: {:exited, 0..255} | {:signaled, atom() | pos_integer(), boolean()} | nil,
          stderr: binary(),
          stderr_dropped: non_neg_integer(),
          stdout: binary()
        }

  # What is no command may hold options that were put there, whose values may be secret.
  @impl true
  def exception(fields) when is_list(fields),
    do: struct!(__MODULE__, Keyword.replace_lazy(fields, :command, &words/1))

  def exception(reason), do: %__MODULE__{reason: reason}

  defp words(command) do
    if is_list(command) and not List.improper?(command),
      do: Enum.map(command, &plain/1),
      else: nil
  end

  # A `NetRunner.Command`, which shows no secret by itself.
  defp plain(%{cmd: _, args: _, opts: _} = command) when is_struct(command), do: command
  defp plain(word) when is_binary(word) or is_atom(word) or is_number(word), do: word
  defp plain(_other), do: "…"

  # In a message, of one word of the command and of the command.
  @longest_word 200
  @longest_command 1_000

  # Bytes of output that are kept in an error.
  @tail 8_192

  # Made of any fields: whoever handles an error must not get another one from it.
  @impl true
  def message(%__MODULE__{reason: {:command, index, reason}} = error) do
    "#{subject(error.command)} (index #{inspect(index)} in its pipeline) " <>
      "#{what_happened(%{error | reason: reason})}#{stderr(error.stderr, error.stderr_dropped)}"
  end

  def message(%__MODULE__{} = error) do
    "#{subject(error.command)} #{what_happened(error)}#{stderr(error.stderr, error.stderr_dropped)}"
  end

  defp what_happened(%{reason: :exit_status} = error), do: how_it_ended(error.exit, error.status)

  defp what_happened(%{reason: nil}), do: "failed"

  defp what_happened(%{reason: :enoent, command: [executable | _]}) when is_binary(executable) do
    hint =
      if executable =~ " ",
        do:
          "; all of #{inspect(executable)} was taken for its name: each argument is a string of its own in the list"

    "failed: #{describe(:enoent)}#{hint}"
  end

  defp what_happened(%{reason: reason}), do: "failed: #{describe(reason)}"

  defp how_it_ended({:signaled, signal, core?}, status) do
    known =
      if(is_integer(status), do: ["status #{status}"], else: []) ++
        if(core? == true, do: ["core dumped"], else: [])

    details = if known != [], do: " (#{Enum.join(known, ", ")})", else: ""
    "was ended by #{signal_name(signal)}#{details}"
  end

  # Of a program that ended itself, or of a shell that reports what ended another.
  defp how_it_ended(exit, status) when is_integer(status) and status > 128 do
    case {Signal.name(status - 128), exit} do
      {{:ok, name}, nil} -> "was ended by #{signal_name(name)} (status #{status})"
      {{:ok, name}, _} -> "exited with status #{status} (128 + #{signal_name(name)})"
      {{:error, :unknown_signal}, _} -> "exited with status #{status}"
    end
  end

  defp how_it_ended(_exit, status) when is_integer(status), do: "exited with status #{status}"
  defp how_it_ended({:exited, code}, _) when is_integer(code), do: "exited with status #{code}"
  defp how_it_ended(_exit, _status), do: "failed, and its exit status is not known"

  defp signal_name(name) when is_atom(name), do: name |> Atom.to_string() |> String.upcase()
  defp signal_name(number), do: "signal #{inspect(number)}"

  defp stderr(bytes, dropped \\ 0)

  defp stderr(bytes, dropped) when is_binary(bytes) do
    case bytes |> Text.legible() |> String.trim() do
      "" -> ""
      text when dropped in [0, nil] -> "; the end of its stderr: #{text}"
      text -> "; of its stderr, of which #{inspect(dropped)} bytes were dropped: #{text}"
    end
  end

  defp stderr(_unknown, _dropped), do: ""

  defp subject(none) when none in [nil, []], do: "The command"
  defp subject(command), do: "`#{line(command)}`"

  defp line(command) do
    line =
      if is_list(command) and not List.improper?(command),
        do: Enum.map_join(command, " ", &(&1 |> word() |> shortened(@longest_word))),
        else: inspect(command)

    shortened(line, @longest_command)
  end

  @doc false
  # A command as a shell would read it, on one line and not too long: for logs, and for who inspects.
  @spec command_line([String.t()]) :: String.t()
  def command_line(command), do: one_line(line(command))

  @doc false
  @spec one_line(String.t()) :: String.t()
  def one_line(text), do: String.replace(text, ["\r\n", "\n", "\r"], "\\n")

  @doc false
  # The end of some output, as much of it as an error keeps.
  @spec tail(binary()) :: binary()
  def tail(bytes) do
    size = min(byte_size(bytes), @tail)
    :binary.copy(binary_part(bytes, byte_size(bytes), -size))
  end

  defp word(word) when is_binary(word) do
    cond do
      word =~ ~r/\A[A-Za-z0-9_@%+=:,.\/-]+\z/ ->
        word

      String.printable?(word) and Text.legible(word) == word ->
        "'" <> String.replace(word, "'", "'\\''") <> "'"

      true ->
        inspect(word)
    end
  end

  defp word(word), do: inspect(word)

  defp shortened(text, longest) do
    if String.length(text) > longest, do: String.slice(text, 0, longest) <> "…", else: text
  end

  @doc """
  Puts the reason of an `{:error, reason}` into words.

      iex> NetRunner.Error.describe(:enoent)
      "there is no such executable, or its interpreter (the #! line) does not exist (:enoent)"
      iex> NetRunner.Error.describe({:cd, :enotdir})
      "the working directory (:cd) cannot be used: not a directory (:enotdir)"
      iex> NetRunner.Error.describe(:timeout)
      "it did not end within :timeout"
  """
  @spec describe(term()) :: String.t()
  def describe({:command, index, reason}) do
    "the command with index #{inspect(index)} of the pipeline could not be started: #{describe(reason)}"
  end

  def describe({:cd, reason}),
    do: "the working directory (:cd) cannot be used: #{within(reason)}"

  def describe({:fd, number, reason}),
    do: "its descriptor #{inspect(number)} (:fds) cannot be opened: #{within(reason)}"

  def describe({:node, reason}), do: "its node (:node) #{describe_node(reason)}"

  def describe({:cwd, reason}) do
    "the VM's own working directory, where a command starts from, cannot be used: #{within(reason)}"
  end

  def describe({:setup, reason}), do: "its process could not be set up: #{within(reason)}"

  def describe({:user, :enoent}) do
    "there is no such user (:user); for an ID that belongs to no user, give a :group as well"
  end

  def describe({option, :enoent}) when option in [:group, :groups],
    do: "there is no such group (#{inspect(option)})"

  def describe({:pty, reason}),
    do: "no pseudo-terminal (:pty) can be made where the VM runs: #{within(reason)}"

  def describe({:max_output_exceeded, _}), do: "it printed more than :max_output_size allows"
  def describe({tag, message}) when is_atom(tag) and is_binary(message), do: message

  def describe({:rlimits, :eperm}) do
    "the system refused the option :rlimits: only root may raise a hard limit, and nobody may raise that of nofile above fs.nr_open (:eperm)"
  end

  def describe({:nice, :eacces}) do
    "the system refused the option :nice: only root may ask for a lower value than the VM's (:eacces)"
  end

  def describe({option, reason})
      when option in [:stdin, :stdout, :stderr, :cgroup, :nice, :rlimits, :groups, :group] or
             option in [:user, :no_new_privs] do
    "the system refused the option #{inspect(option)}: #{within(reason)}"
  end

  def describe({:input_failed, {kind, reason, stack}})
      when kind in [:error, :exit, :throw] and is_list(stack),
      do: "its :input could not be produced: #{Exception.format_banner(kind, reason, stack)}"

  def describe({:input_failed, %__MODULE__{reason: {:input_failed, _} = reason}}),
    do: describe(reason)

  def describe({:input_failed, exception}) when is_exception(exception),
    do: "its :input could not be produced: #{Exception.format_banner(:error, exception)}"

  def describe({:output_limit, which}) when which in [:stdout, :stderr, :total],
    do: "it printed more than :max_output_size allows (#{inspect(which)})"

  def describe({:exit_status, status, [stderr: stderr]}),
    do: "it #{how_it_ended(nil, status)} before it was ready#{stderr(stderr)}"

  def describe({:signal, signal, [stderr: stderr]}),
    do: "it was ended by #{signal_name(signal)} before it was ready#{stderr(stderr)}"

  def describe({:exit_status, status}), do: "it #{how_it_ended(nil, status)}"
  def describe({:signal, signal}), do: "it was ended by #{signal_name(signal)}"

  def describe({:timeout, written}) when is_integer(written),
    do: "the write timed out after #{written} bytes; the rest was not written"

  def describe({:already_started, pid}), do: "its :name is already registered, by #{inspect(pid)}"
  def describe(:timeout), do: "it did not end within :timeout"
  def describe(:idle_timeout), do: "it printed nothing for as long as :idle_timeout"
  def describe(:cancelled), do: "it was cancelled"

  def describe(:oom_killed),
    do: "the kernel killed it because its cgroup had used all the memory that it may use"

  def describe(:closed) do
    "its NetRunner.Process is gone (it was stopped, or its owner has died), or this side has closed the pipe (:closed)"
  end

  def describe(:busy), do: "another process gets its output as messages (NetRunner.Process.ask/2)"

  def describe(:too_long),
    do: "the pattern was not found in the next :max_bytes bytes of its output"

  def describe(:already_enumerated) do
    "its stream is already being enumerated, and can be enumerated only once; a stream of " <>
      "NetRunner.stream!/2 starts the command each time"
  end

  def describe(:stream_over) do
    "its stream was enumerated before, and can be enumerated only once, or the process that it belonged to is gone; " <>
      "a stream of NetRunner.stream!/2 starts the command each time"
  end

  def describe({:not_ended, os_pid}) do
    "SIGKILL did not end it within :give_up_after (PID #{os_pid}); it may be waiting for a file " <>
      "system or a device that does not answer"
  end

  def describe(:not_piped),
    do: "that stream of the command is not connected to the VM by a pipe (:not_piped)"

  def describe(:epipe), do: "it closed its stdin, or ended, before all was written (:epipe)"
  def describe(:esrch), do: "it has exited (:esrch)"
  def describe(:enotty), do: "it has no terminal (:enotty); the option :pty gives it one"

  def describe(:unknown_signal),
    do: "there is no such signal; it is a number or a name such as :sigterm (NetRunner.Signal)"

  def describe(:emfile),
    do: "the VM has no free file descriptors (:emfile); `ulimit -n` is its limit"

  def describe(:enfile), do: "the system has no free file descriptors (:enfile)"

  def describe(:eagain),
    do: "the system's limit of processes or memory is reached (:eagain); see `ulimit -u`"

  def describe(:e2big),
    do:
      "its arguments and environment are larger than the system allows (:e2big): all of them together (ARG_MAX), or one of " <>
        "them (on Linux 128 KiB; execve(2))"

  def describe(:efbig),
    do:
      "its arguments and environment are larger than a file that the VM may write (:efbig); `ulimit -f` is its limit"

  def describe(:launcher_died),
    do:
      "NetRunner's launcher died while the command was started, or cannot be started (the log says why)"

  def describe(:shepherd_died),
    do:
      "NetRunner's helper process for the command (its shepherd) was killed, and the command with it"

  def describe(:malformed),
    do:
      "its shepherd process sent something that is not a message of NetRunner's protocol (:malformed)"

  def describe(:not_started) do
    "the :net_runner application is not started; add it to your application's dependencies (without `runtime: false`), " <>
      "or call Application.ensure_all_started(:net_runner), which says why it does not start"
  end

  # As they stand alone, they are about the executable.
  def describe(:enoent),
    do: "there is no such executable, or its interpreter (the #! line) does not exist (:enoent)"

  def describe(:eacces),
    do:
      "it may not be executed (:eacces): it needs the x permission and must not be a directory, and a :sandbox must allow " <>
        "it and its interpreter to be executed, as `read: [:system]` does for the system's programs"

  # As a call returns it.
  def describe({:error, reason}), do: describe(reason)

  def describe(reason) when is_atom(reason), do: system_error(reason)
  def describe(reason) when is_binary(reason), do: Text.legible(reason)
  def describe(reason), do: inspect(reason)

  @doc false
  # An error of the system about anything but an executable: a directory, a file, a user.
  @spec system_error(term()) :: String.t()
  # Erlang's own text, "not owner", is that of old systems.
  def system_error(:eperm), do: "operation not permitted (:eperm)"

  def system_error(reason) when is_atom(reason) do
    case :file.format_error(reason) do
      ~c"unknown POSIX error" ++ _ -> inspect(reason)
      text -> "#{text} (#{inspect(reason)})"
    end
  end

  def system_error(reason), do: describe(reason)

  defp within(reason) when reason in [:enoent, :eacces], do: system_error(reason)
  defp within(reason), do: describe(reason)

  defp describe_node(:not_connected), do: "is not connected: call Node.connect/1 first"

  defp describe_node(:disconnected),
    do: "lost its connection to this one, and the command was ended"

  defp describe_node(:no_net_runner), do: "does not have NetRunner"

  defp describe_node(:not_started) do
    "does not run the :net_runner application: call Application.ensure_all_started(:net_runner) there"
  end

  defp describe_node({:version, theirs}) when is_binary(theirs) do
    "has NetRunner #{theirs}, and this one #{Application.spec(:net_runner, :vsn)}: " <>
      "both need the same version"
  end

  defp describe_node(reason), do: "failed: #{within(reason)}"
end

defimpl Inspect, for: NetRunner.Error do
  def inspect(error, _options) do
    message = error |> Exception.message() |> NetRunner.Error.one_line()

    shown =
      if String.length(message) > 500, do: String.slice(message, 0, 500) <> "…", else: message

    "#NetRunner.Error<#{shown}>"
  end
end
