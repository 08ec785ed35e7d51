defmodule NetRunner.Options.Declared do
  @moduledoc false
  # All options, declared once: what they accept, what they are without being given, and the lines of
  # the documentation. Which function takes which follows from the group of an option.

  alias NetRunner.Options

  # {name, group, type, default, text}
  @declared [
    {:cd, :command, :path, nil, "the working directory; `nil`: the VM's"},
    {:env, :command, :env, [],
     "environment variables, as an enumerable of `{name, value}` with strings, added to the VM's; the value `nil` unsets a variable"},
    {:clear_env, :command, :boolean, false,
     "`true`: the command gets only the variables of `:env`"},
    {:arg0, :command, :string, nil,
     "passed to the command as `argv[0]`; `nil`: the executable as it was given"},
    {:umask, :command, {:integer, 0, 0o777}, nil,
     "permission bits removed from new files (umask(2)), such as `0o077`; `nil`: the VM's"},
    {:stdin, :command, {:stdio, [:pipe, :null, :inherit], [:file]}, nil,
     "where stdin comes from: `:pipe`, written by the VM; `:null`; `:inherit`, the VM's own; or `{:file, path}`. `nil`: " <>
       "`:null` for functions that take `:input` and get none (except `NetRunner.cmd/3`), otherwise `:pipe`"},
    {:stdout, :command, {:stdio, [:pipe, :null, :inherit], [:file, :append]}, :pipe,
     "where stdout goes: `:pipe`, read by the VM; `:null`; `:inherit`, the VM's own; `{:file, path}` (created or emptied " <>
       "first); or `{:append, path}`. Into a file the kernel writes, and the VM copies nothing"},
    {:stderr, :command,
     {:stdio, [:consume, :pipe, :redirect, :disabled, :inherit], [:file, :append]}, :consume,
     "`:consume`: discarded, except for the last `:stderr_tail` bytes; `:pipe`: read on demand, with " <>
       "`NetRunner.Process.read_stderr/3` or by a stream with `:tagged`; `:redirect`: into stdout, in the exact order; `:disabled`: discarded by the " <>
       "kernel; `:inherit`, `{:file, path}`, `{:append, path}`: as for `:stdout`. The file may be the same as that of stdout"},
    {:stderr_tail, :command, :non_negative, 8_192,
     "with `stderr: :consume`, the number of bytes at the end of stderr that are kept for error messages"},
    {:pipe_size, :command, :non_negative, 1_048_576,
     "bytes of a pipe that is busy (`F_SETPIPE_SZ`, fcntl(2)). Where the system refuses, the pipe stays " <>
       "at its 64 KiB (an unprivileged user has `fs.pipe-user-pages-soft` for all pipes together). 0: never changed"},
    {:stop_signal, :command, :signal, :sigterm, "the signal that asks the command to end"},
    {:kill_timeout, :command, :non_negative, 5_000,
     "milliseconds from the stop signal to SIGKILL"},
    {:leftovers, :command, {:one_of, [:kill, :leave]}, :kill,
     "what happens to processes that the command started and left running when it exits: `:kill` or `:leave`"},
    {:output_grace, :command, :non_negative, 100,
     "with `leftovers: :leave`, milliseconds after the exit during which `NetRunner.run/2`, `NetRunner.capture/2` and streams still wait for " <>
       "output of processes that were left running. After that they read only what is already in the pipe"},
    {:give_up_after, :command, :timeout, :infinity,
     "milliseconds after SIGKILL at which callers stop waiting for a command that the kernel cannot end yet, such as one " <>
       "that waits for a dead file system. They get `{:error, {:not_ended, os_pid}}`, while NetRunner keeps trying"},
    {:user, :command, :principal, nil,
     "the user that the command runs as, by name or ID, with the groups of that user; requires a VM that runs as root. " <>
       "That user, with all its processes, can open the pipes and the terminal of the command by name (`/dev/stdout`)"},
    {:group, :command, :principal, nil, "the group that the command runs as, by name or ID"},
    {:groups, :command, :principals, nil,
     "the supplementary groups, by name or ID, instead of those of the user"},
    {:nice, :command, {:integer, -20, 19}, nil,
     "the nice value (setpriority(2)): 19 is the lowest priority. A lower value than the VM's needs privileges"},
    {:rlimits, :command, :rlimits, [],
     "resource limits (setrlimit(2)), such as `[cpu: 10, as: 512_000_000, nofile: 64, core: 0]`. A limit is a " <>
       "number in the unit of the man page, `:infinity`, or `{soft, hard}`"},
    {:no_new_privs, :command, :boolean, false,
     "`true`: set-user-ID programs give the command no privileges (Linux)"},
    {:sandbox, :command, :sandbox, nil,
     "what the command may touch, such as `[read: [:system], write: [folder], network: false]` (see `NetRunner.Sandbox`; Linux)"},
    {:pty, :command, :pty, false,
     "`true` or `[rows: 24, cols: 80, echo: true]`: the command runs in a pseudo-terminal, which is its stdin, stdout " <>
       "and stderr (so it excludes these options). Everything that it prints is read as stdout"},
    {:fds, :command, :fds, %{},
     "further descriptors of the command, as a map from their numbers (3 to 255) to `{:input, iodata}`, which the command " <>
       "reads to its end; `{:input, {:file, path}}`, `{:output, {:file, path}}` (created or emptied first) or `{:append, {:file, path}}`; " <>
       "and, for a `NetRunner.Process`, `:input` and `:output`, which you write and read on demand"},
    {:cgroup_path, :command, :path, nil,
     "a path below the mount point of cgroup v2, without `..`: the command runs in a new cgroup there. When it is over, " <>
       "everything in this cgroup is killed, and the cgroup is removed (see `docs/cgroups.md`)"},
    {:cgroup, :command, :limits, [],
     "limits of that cgroup: `memory_max`, `memory_high`, `memory_low`, `memory_swap_max` (bytes or `:max`), `pids_max` (a number or " <>
       "`:max`), `cpu_max` (`{quota, period}` in microseconds, or `:max`), `cpu_weight` and `io_weight` (1 to 10000), `cpuset_cpus` " <>
       "(such as `\"0-2,7\"`), `cpu_idle` and `memory_oom_group` (booleans). Or, without a `:cgroup_path`, `[join: path]`: the command " <>
       "joins an existing cgroup, which is neither changed nor killed nor removed"},
    {:owner, :command, :owner, :caller,
     "a pid: when this process dies, the command is ended. `:caller`: the process that starts it; `nil` or `:none`: nobody, and it ends with the application that has started it. " <>
       "The death of the caller ends it, too, where nobody else can get the result (see `docs/ending.md`)"},
    {:node, :command, :node, nil,
     "a connected Erlang node that has NetRunner, on which the command runs (see `docs/nodes.md`); `nil`: this one"},
    {:input, :input, :input, nil,
     "what the command reads from stdin: iodata, an enumerable of iodata, or a function that gets a " <>
       "`Collectable` (`&Enum.into(source, &1)`). `nil`: stdin is empty"},
    {:timeout, :run, :timeout, :infinity,
     "milliseconds after which the command is ended: `{:error, :timeout}`, or, where a function raises, `NetRunner.Error`"},
    {:max_output_size, :run, :limit, :infinity,
     "bytes of output (with `:tagged`, of stdout and stderr together) above which the command is ended. Output that " <>
       "does not come to the VM, such as that into a file, is not counted"},
    {:progress, :progress, :boolean, false,
     "`true`: while the command runs, a line on the VM's stderr, if that is a terminal, shows the bytes written to it and read " <>
       "from it and their rates; where the size of `:input` is known (iodata, or a `File.Stream`), also a bar and the time left. The line is " <>
       "cleared at the end. What your code prints to the terminal meanwhile appears beside it. When several commands show progress at the same time, one line is shown"},
    {:timeout, :capture, :timeout, :infinity,
     "milliseconds after which the command is ended; the outcome is `:timeout`"},
    {:idle_timeout, :capture, :timeout, :infinity,
     "milliseconds without output after which the command is ended; the outcome is `:idle_timeout`. The time counts only while " <>
       "NetRunner waits on empty pipes: not while `:on_output` works, and not when the command has closed both of its outputs (a terminal, `:pty`, is open until it exits)"},
    {:max_output_size, :capture, :output_limits, :infinity,
     "bytes of output above which the command is ended: a number for both streams together, or any of `[stdout: …, " <>
       "stderr: …, total: …]`; the outcome is `{:output_limit, :stdout | :stderr | :total}`"},
    {:keep, :capture, :keep, nil,
     "what is kept of each stream, while the command runs to its end: `{:head, bytes}`, `{:tail, bytes}` or " <>
       "`{head_bytes, tail_bytes}`; `nil`: everything"},
    {:on_output, :capture, :callback, nil,
     "a function of the bytes, or of `:stdout | :stderr` and the bytes, called in the calling process as output comes, in pieces " <>
       "of up to 64 KiB. When it raises, the command is ended and the exception raised again"},
    {:cancel, :capture, :cancel_token, nil,
     "a token of `NetRunner.cancel_token/0`, with which `NetRunner.cancel/1` ends the command"},
    {:interleave, :capture, :boolean, false,
     "`true`: the result has `output`, the pieces of both streams in the order in which NetRunner read them, instead of " <>
       "`stdout` and `stderr`"},
    {:timeout, :cmd, :timeout, :infinity,
     "milliseconds after which the command is ended and `NetRunner.Error` raised"},
    {:tagged, :stream, :boolean, false,
     "`true`: the elements are `{:stdout, bytes}` and `{:stderr, bytes}`, and at the end `{:exit, status}`; " <>
       "`:stderr` is then `:pipe`, unless it is given"},
    {:lines, :stream, :lines, nil,
     "whole lines, with (`:keep`) or without (`:trim`) their newline (LF or CRLF). Or pieces that end with another separator: " <>
       "`{:keep | :trim, separator}`, such as `{:trim, <<0>>}`. A last line without a newline is a line as well. A line of more than 64 bytes refers to " <>
       "the chunk of up to 256 KiB that it came in: copy it (`:binary.copy/1`) if you keep a few lines of many"},
    {:max_chunk_size, :stream, {:integer, 1, 16_777_216}, 524_288,
     "the largest size of an element in bytes, without `:lines`"},
    {:exit_status, :raising, {:one_of, [:raise, :ignore]}, :raise,
     "`:raise`: raises `NetRunner.Error` at the end if the exit status is not 0; `:ignore`: does not. With `:tagged`, " <>
       "`:ignore` is the default, and `:raise` raises after the `{:exit, status}`"},
    {:name, :process, :name, nil, "registers the process, like the `:name` of a `GenServer`"},
    {:cmd, :daemon, :executable, nil,
     "the executable, or a `NetRunner.Command`; `:args` are then appended to its arguments, and `:process_opts` win " <>
       "over its options. Required"},
    {:args, :daemon, :list, [], "its arguments, as strings"},
    {:on_output, :daemon, :on_output, :discard,
     "what is done with the output: `:discard`; `:log` (each line, as `:info`) or `{:log, level}`; a function " <>
       "of the bytes, or of `:stdout | :stderr` and the bytes"},
    {:on_line, :daemon, :on_line, nil,
     "instead of `:on_output`: a function of a whole line, or of `:stdout | :stderr` and the line, without its newline. A line " <>
       "of more than 64 KiB comes in pieces"},
    {:log_prefix, :daemon, :string, nil,
     "text before each line that `on_output: :log` logs, such as `\"[redis] \"`"},
    {:logger_metadata, :daemon, :keyword, [],
     "Logger metadata for everything that is logged for the daemon, in addition to `:command`, `:os_pid` and `:stream`"},
    {:ok_statuses, :daemon, :statuses, [0],
     "the exit statuses that count as a normal exit; for a signal, 128 + its number"},
    {:stop_command, :daemon, :command, nil,
     "a command `[executable | args]` that stops the daemon, such as `~w(nginx -s quit)`. It runs with the daemon's own " <>
       "options. When it fails, or the daemon has not ended within `:kill_timeout`, the stop signal follows"},
    {:ready, :daemon, :ready, nil,
     "how to tell that the daemon is ready: a function of no argument, or of the command's " <>
       "`NetRunner.Process`; `{:output, regex}`; `{:tcp, host, port}`; `{:unix, path}`; `nil`: it is ready when the command has " <>
       "started"},
    {:ready_timeout, :daemon, :timeout, 10_000,
     "milliseconds within which it has to be ready, or `:infinity`"},
    {:process_opts, :daemon, :keyword, [],
     "the options of the command, as for `NetRunner.Process.start/3`, but without `:owner` and `:name`"},
    {:id, :child, :any, nil,
     "the ID of the child in its supervisor; `nil`: the `:name`, or else `NetRunner.Daemon`"},
    {:restart, :child, {:one_of, [:permanent, :transient, :temporary]}, :permanent,
     "when the supervisor starts it again"},
    {:shutdown, :child, :shutdown, nil,
     "how long the supervisor waits for the daemon to end: milliseconds, `:infinity`, or `:brutal_kill`; `nil`: longer than " <>
       "`:kill_timeout`"}
  ]

  @lines for {name, group, _, default, text} <- @declared,
             do: {group, "  * `#{inspect(name)}` - #{text}. Default: `#{inspect(default)}`\n"}

  @all for {name, group, type, default, _text} <- @declared, do: {name, group, type, default}

  @doc "All options: `{name, group, type, default}`."
  @spec all() :: [{atom(), Options.group(), type :: term(), default :: term()}]
  def all, do: @all

  @doc "The options of these groups as a list in Markdown."
  @spec documentation([Options.group()]) :: String.t()
  def documentation(groups) do
    for {group, line} <- @lines, group in groups, into: "", do: line
  end

  # What a function's own documentation says of the options that every command takes.
  @common [
    cd: "the working directory",
    env: "environment variables, added to the VM's, such as `%{\"LANG\" => \"C\"}`",
    stderr: "`:redirect` (into stdout), `:disabled`, `{:file, path}`, …"
  ]

  @doc "The options of a function, short enough to be read in `iex`: its own, and the names of those of every command."
  @spec summary([Options.group()]) :: String.t()
  def summary(groups) do
    {common, others} =
      for({name, :command, _type, _default} <- @all, do: name)
      |> Enum.sort()
      |> Enum.split_with(&Keyword.has_key?(@common, &1))

    documentation(groups -- [:command]) <>
      Enum.map_join(common, &"  * `#{inspect(&1)}` - #{@common[&1]}\n") <>
      "\nand all others of `NetRunner.Options`: #{Enum.map_join(others, ", ", &"`#{inspect(&1)}`")}.\n"
  end
end
