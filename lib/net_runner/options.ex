defmodule NetRunner.Options do
  # All options, declared once: what they accept, what they are without being given, and the lines of
  # the documentation. Which function takes which follows from the group of an option.

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

  @moduledoc """
  The options of a command. Every function that starts a command takes them; the documentation of a function lists what it
  takes in addition.

  They are checked first. An unknown option, a value of the wrong type, and options that exclude each other raise `ArgumentError`. An
  option that is `nil` counts as not given: the value of the `NetRunner.Command` applies, or else the default. (The one exception is `owner: nil`.)

      iex> NetRunner.run(~w(true), pty: true, stdout: :null)
      ** (ArgumentError) the options :pty and :stdout exclude each other: the terminal is stdin, stdout and stderr

  Then the system has its say. When it refuses an option, the command is not started, and the error names the option:

      iex> NetRunner.run(~w(id), user: "no-such-user")
      {:error, {:user, :enoent}}

  A string that no operating system accepts is such an error too: a variable whose name is empty or contains `=`, or a NUL byte in `:env` or
  `:cd`.

      iex> NetRunner.run(~w(true), env: [{"A=B", "1"}])
      {:error, {:invalid_env, ~S("A=…" is not the name of a variable)}}

  ## All options

  #{for {:command, line} <- @lines, do: line}
  ## Environment: `:env`, `:clear_env`

  The command gets the environment that the VM has when it starts, byte for byte, even where it is not valid UTF-8. The executable is looked up
  on the command's own `PATH`.

      iex> NetRunner.run(["sh", "-c", "echo $GREETING ${HOME-nowhere}"], env: %{"GREETING" => "hi", "HOME" => nil})
      {"hi nowhere\\n", 0}
      iex> NetRunner.run(["/usr/bin/env"], clear_env: true, env: [{"A", "1"}])
      {"A=1\\n", 0}

  ## Directory, name, permissions: `:cd`, `:arg0`, `:umask`

      iex> NetRunner.run(~w(pwd), cd: "/")
      {"/\\n", 0}
      iex> NetRunner.run(["sh", "-c", "echo $0"], arg0: "my-shell")
      {"my-shell\\n", 0}
      iex> NetRunner.run(["sh", "-c", "umask"], umask: 0o077)
      {"0077\\n", 0}

  An executable that contains a `/` but does not begin with one is relative to `:cd`. With `:cd`, the variable `PWD` of the command is that
  directory, unless `:env` sets it or `:clear_env` removes it.

  ## Standard descriptors: `:stdin`, `:stdout`, `:stderr`

      iex> file = Path.join(System.tmp_dir!(), "net_runner_example")
      iex> NetRunner.run(~w(seq 3), stdout: {:file, file})
      {"", 0}
      iex> NetRunner.run(~w(wc -l), stdin: {:file, file})
      {"3\\n", 0}
      iex> NetRunner.run(~w(seq 4), stdout: {:append, file})
      {"", 0}
      iex> File.rm!(file)
      iex> NetRunner.run(~w(cat), stdin: {:file, "/nowhere"})
      {:error, {:stdin, :enoent}}
      iex> NetRunner.run(["sh", "-c", "echo one; echo two >&2"], stderr: :redirect)
      {"one\\ntwo\\n", 0}
      iex> {:ok, p} = NetRunner.Process.start("true", [], stdout: :null)
      iex> NetRunner.Process.read(p)
      {:error, :not_piped}

  `docs/input_output.md` says who opens these files, with which rights, and what happens to descriptors that are inherited.

  ## Further descriptors: `:fds`

  A command has only the descriptors 0, 1, 2 and those that are named here. Use `{:input, iodata}` to pass a secret: it is in no argument list, in
  no environment, and in nothing that NetRunner shows. It is written while the command runs; after it, the command reads the end of file.

      iex> NetRunner.run(["sh", "-c", "read password <&3; echo ${#password}"], fds: %{3 => {:input, "secret\\n"}})
      {"6\\n", 0}
      iex> NetRunner.run(["sh", "-c", "cat <&7"], fds: %{7 => {:input, {:file, "/nowhere"}}})
      {:error, {:fd, 7, :enoent}}
      iex> NetRunner.run(~w(true), fds: %{3 => :input})
      ** (ArgumentError) :input and :output of the option :fds are written and read by calls, which need a NetRunner.Process; this function takes {:input, iodata} and files

  With `:pty`, these descriptors are pipes and files all the same.

  ## Users: `:user`, `:group`, `:groups`

  A `:user` brings its primary group and its supplementary groups; `:group` and `:groups` replace these. A `:group` alone changes only the group.
  An ID that belongs to no user needs a `:group` as well. The environment does not change: set `HOME` or `USER` with `:env` for programs that use
  them. In a VM that does not run as root the error is `{:error, {:user, :eperm}}`.

  ## Limits: `:nice`, `:rlimits`, `:no_new_privs`

      iex> NetRunner.run(~w(nice), nice: 19)
      {"19\\n", 0}
      iex> NetRunner.run(["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"], rlimits: [nofile: {64, 128}, core: 0])
      {"64\\n128\\n0\\n", 0}
      iex> NetRunner.run(["sh", "-c", "while :; do :; done"], rlimits: [cpu: {1, 2}])
      {"", 152}
      iex> NetRunner.run(~w(grep NoNewPrivs /proc/self/status), no_new_privs: true)
      {"NoNewPrivs:\\t1\\n", 0}

  One number is both the soft and the hard limit. `:cpu` counts seconds: the process gets SIGXCPU at the soft limit and SIGKILL at the hard one.
  Each process has these limits for itself, and what the command starts inherits them. (`:cgroup` limits all of them together.)

  ## The end: `:stop_signal`, `:kill_timeout`, `:leftovers`

  `docs/ending.md` describes how a command is ended, and `docs/guarantees.md` what happens to the processes that it started.

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "sleep 5 & echo $!"], leftovers: :leave)
      iex> {:ok, pid} = NetRunner.Process.read(p)
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> File.exists?("/proc/" <> String.trim(pid))
      true

  ## Finding a process again: `:name`

      iex> {:ok, p} = NetRunner.Process.start("cat", [], name: MyApp.Cat)
      iex> NetRunner.Process.alive?(MyApp.Cat)
      true
      iex> NetRunner.Process.start("cat", [], name: MyApp.Cat)
      {:error, {:already_started, p}}
  """
  @moduledoc since: "0.1.0"

  alias NetRunner.Options.Kind
  alias NetRunner.Run.CancelToken
  alias NetRunner.Sandbox.Policy
  alias NetRunner.System.{Cgroup, Descriptors}

  # The names of setrlimit(2). The system may know fewer.
  @resources ~w(as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack)a

  # What fits into the address of a Unix socket (unix(7)) on every system, with a NUL byte after it.
  @longest_socket_path 103

  # An option may mean something else in another group.
  @types Enum.group_by(@declared, &elem(&1, 0), fn {_, group, type, _, _} -> {group, type} end)

  @defaults @declared
            |> Enum.group_by(&elem(&1, 1), fn {name, _, _, default, _} -> {name, default} end)
            |> Map.new(fn {group, defaults} -> {group, Map.new(defaults)} end)

  @typedoc false
  @type group ::
          :command
          | :input
          | :run
          | :progress
          | :capture
          | :cmd
          | :stream
          | :raising
          | :process
          | :daemon
          | :child

  @doc false
  # The options with all defaults, as a map. Raises `ArgumentError` for what cannot be meant. `defaults`: those of a
  # caller that has others.
  @spec validate!(term(), [group()], keyword()) :: map()
  def validate!(options, groups, defaults \\ []) do
    keyword!(options, groups)
    Enum.each(options, fn {name, _} -> known!(name, groups) end)
    # The first of a name holds, as for `Keyword.get/2`.
    given = options |> given() |> Enum.uniq_by(fn {name, _} -> name end)
    given = for {name, value} <- given, do: {name, check!(name, value, groups)}
    compatible!(given, groups)

    groups
    |> Enum.reduce(%{}, &Map.merge(&2, Map.fetch!(@defaults, &1)))
    |> Map.merge(Map.new(implied(given, groups) ++ defaults))
    |> Map.merge(Map.new(given))
  end

  # They mean nothing where no output comes to the VM. A stream reads stdout, and with `:tagged` stderr.
  @of_a_stream [:lines, :max_chunk_size]
  @of_output [:idle_timeout, :on_output, :keep, :interleave] ++ @of_a_stream

  @doc false
  # Options over others, which they win over: what means nothing beside them goes too.
  @spec merge(keyword(), keyword()) :: keyword()
  def merge(weaker, stronger) do
    keyword!(stronger)
    stronger = given(stronger)
    meaningless = Enum.flat_map(exclusions(stronger), fn {_, names, _} -> names end)
    weaker = weaker |> given() |> Keyword.drop(meaningless)
    weaker |> Keyword.drop(of_no_output(weaker, stronger)) |> Keyword.merge(stronger)
  end

  # Those of the weaker for an output that the stronger send elsewhere.
  defp of_no_output(weaker, stronger) do
    both = Keyword.merge(weaker, stronger)

    cond do
      not Enum.any?([:stdout, :stderr, :pty], &Keyword.has_key?(stronger, &1)) -> []
      to_vm?(both, :stdout) -> []
      to_vm?(both, :stderr) -> if both[:tagged], do: [], else: @of_a_stream
      true -> @of_output
    end
  end

  @doc false
  # The names of the options of these groups.
  @spec names([group()]) :: [atom()]
  def names(groups) do
    Enum.uniq(for {name, group, _, _, _} <- @declared, group in groups, do: name)
  end

  @doc false
  # The options of these groups as a list in Markdown.
  @spec documentation([group()]) :: String.t()
  def documentation(groups) do
    for {group, line} <- @lines, group in groups, into: "", do: line
  end

  # What a function's own documentation says of the options that every command takes.
  @common [
    cd: "the working directory",
    env: "environment variables, added to the VM's, such as `%{\"LANG\" => \"C\"}`",
    stderr: "`:redirect` (into stdout), `:disabled`, `{:file, path}`, …"
  ]

  @doc false
  # The options of a function, short enough to be read in `iex`: its own, and the names of those of every command.
  @spec summary([group()]) :: String.t()
  def summary(groups) do
    {common, others} =
      [:command] |> names() |> Enum.sort() |> Enum.split_with(&Keyword.has_key?(@common, &1))

    documentation(groups -- [:command]) <>
      Enum.map_join(common, &"  * `#{inspect(&1)}` - #{@common[&1]}\n") <>
      "\nand all others of `NetRunner.Options`: #{Enum.map_join(others, ", ", &"`#{inspect(&1)}`")}.\n"
  end

  # Without those that are `nil`. The unknown ones stay, to be complained about.
  defp given(options) do
    Enum.reject(options, fn {name, value} ->
      value == nil and name != :owner and (name == :args or is_map_key(@types, name))
    end)
  end

  # A value may be secret, so it is not shown.
  @doc false
  @spec keyword!(term(), [group()] | :with_args) :: :ok
  def keyword!(options, groups \\ []) do
    unless Keyword.keyword?(options) do
      raise ArgumentError, "options must be a keyword list, got #{no_keyword(options, groups)}"
    end

    :ok
  end

  # As `System.cmd/3` takes its arguments.
  defp no_keyword([word | _], groups) when is_binary(word),
    do: "a list of strings: #{as_arguments(groups)}"

  defp no_keyword(options, _groups) when is_list(options),
    do: "a list with an entry that is not an option"

  defp no_keyword(options, _groups), do: Kind.of(options)

  defp as_arguments(:with_args), do: "the arguments are given as args: […]"

  defp as_arguments(groups) do
    if :daemon in groups,
      do: ~s(the command is given as cmd: "…", args: […]),
      else:
        "the arguments of a command stand beside its executable, [executable | args], such as " <>
          ~s(["echo", "hi"]; NetRunner.cmd/3 takes them as System.cmd/3 does)
  end

  # A stream of both outputs has to get both, and says the status itself. A capture has both.
  defp implied(given, groups) do
    cond do
      given[:tagged] && :raising in groups -> [stderr: :pipe, exit_status: :ignore]
      given[:tagged] || captured?(groups) -> [stderr: :pipe]
      true -> []
    end
  end

  # A `NetRunner.Command` is for any function.
  defp captured?(groups), do: :capture in groups and :run not in groups

  # --- options that mean nothing beside others ----------------------------------------------------

  defp compatible!(given, groups) do
    piped? = captured?(groups) and given[:pty] in [nil, false]

    if piped? and given[:stderr] == nil and given[:stderr_tail] != nil do
      raise ArgumentError,
            "the option :stderr_tail has no meaning here: a capture returns all of stderr"
    end

    given = if piped?, do: Keyword.put_new(given, :stderr, :pipe), else: given

    for {option, names, why} <- exclusions(given),
        name <- names,
        given[name] not in [nil, false, :infinity] do
      both = [option, name] |> Enum.sort() |> Enum.map_join(" and ", &inspect/1)
      raise ArgumentError, "the options #{both} exclude each other: #{why}"
    end

    # A capture reads both, as a stream does with `:tagged`.
    read = if :capture in groups or given[:tagged], do: [:stdout, :stderr], else: [:stdout]

    for option <- @of_output, given[option] not in [nil, false, :infinity] do
      unless Enum.any?(read, &to_vm?(given, &1)) do
        raise ArgumentError,
              "the option #{inspect(option)} has no meaning here: there is no output to read, as " <>
                if(read == [:stdout],
                  do: "stdout is not a pipe to the VM",
                  else: "neither stdout nor stderr is a pipe to the VM"
                )
      end
    end

    for stream <- [:stdout, :stderr], limited?(given[:max_output_size], stream) do
      unless to_vm?(given, stream) do
        raise ArgumentError,
              "the limit of #{inspect(stream)} in :max_output_size has no meaning here: NetRunner does not read that stream"
      end
    end

    # A `NetRunner.Command` is for any function.
    on_demand? = :process in groups or not Enum.any?([:run, :cmd], &(&1 in groups))

    if given[:stderr] == :pipe and given[:tagged] != true and not on_demand? do
      raise ArgumentError,
            "stderr: :pipe is read on demand, and nobody would read it here: use NetRunner.capture/2, " <>
              "a stream with tagged: true, or NetRunner.Process"
    end

    if given[:log_prefix] != nil and not logs?(given[:on_output]) do
      raise ArgumentError,
            "the option :log_prefix is for lines that are logged: it needs on_output: :log"
    end

    if given[:leftovers] == :leave and Policy.ends_all?(given[:sandbox]) do
      raise ArgumentError,
            "the option :sandbox with processes: :own excludes leftovers: :leave: the kernel ends everything that the command leaves running"
    end

    if :process not in groups and Descriptors.on_demand?(given[:fds] || %{}) do
      raise ArgumentError,
            ":input and :output of the option :fds are written and read by calls, which need a NetRunner.Process; " <>
              "this function takes {:input, iodata} and files"
    end
  end

  # Whether it is read there, by who reads that stream. All of a terminal is stdout.
  defp to_vm?(given, stream) do
    if given[:pty] in [nil, false],
      do: Keyword.get(given, stream, :pipe) == :pipe,
      else: stream == :stdout
  end

  defp limited?(limits, stream),
    do: is_list(limits) and Keyword.get(limits, stream, :infinity) != :infinity

  defp logs?(on_output), do: on_output == :log or match?({:log, _}, on_output)

  # `{option, what means nothing beside it, why}`.
  defp exclusions(given) do
    tagged? = given[:tagged] == true
    stderr = Keyword.get(given, :stderr, if(tagged?, do: :pipe, else: :consume))

    [
      Keyword.get(given, :pty, false) != false &&
        {:pty, [:stdin, :stdout, :stderr, :stderr_tail],
         "the terminal is stdin, stdout and stderr"},
      Keyword.get(given, :stdin, :pipe) != :pipe &&
        {:stdin, [:input],
         "an :input is written into a pipe, but stdin is #{inspect(given[:stdin])}"},
      Cgroup.joins?(given[:cgroup]) &&
        {:cgroup, [:cgroup_path],
         ":join is for a cgroup that exists, and :cgroup_path creates one"},
      given[:on_line] != nil && {:on_line, [:on_output], "only one of them can get the output"},
      stderr != :consume &&
        {if(given[:stderr], do: :stderr, else: :tagged), [:stderr_tail],
         "the end of stderr is kept only with stderr: :consume"},
      given[:keep] != nil &&
        {:keep, [:max_output_size],
         "with :keep the command runs to its end, and a part of each stream is dropped"},
      given[:keep] != nil &&
        {:keep, [:interleave],
         "with :keep each stream has a head and a tail of its own, which have no common order"},
      {given[:interleave], given[:stderr]} == {true, :consume} &&
        {:interleave, [:stderr], "with stderr: :consume only the end of stderr is kept"},
      given[:lines] != nil && {:lines, [:max_chunk_size], "lines are never cut"}
    ]
    |> Enum.filter(& &1)
  end

  # What gives the same elsewhere.
  @of_system_cmd %{
    into: "streams go into any collectable with Enum.into/2",
    stderr_to_stdout: "here it is stderr: :redirect",
    use_stdio: "here it is stdin: :inherit, stdout: :inherit, stderr: :inherit",
    parallelism: "leave it out, as it has no effect"
  }

  @doc false
  # Raises unless the name is that of an option of these groups. `others`: further names that the caller knows.
  @spec known!(atom(), [group()], [atom()]) :: :ok
  def known!(name, groups, others \\ []) do
    case @types do
      %{^name => meanings} ->
        unless Enum.any?(meanings, fn {group, _} -> group in groups end) do
          raise ArgumentError, misplaced(name, meanings |> hd() |> elem(0))
        end

      %{} when is_map_key(@of_system_cmd, name) ->
        raise ArgumentError,
              "#{inspect(name)} is an option of NetRunner.cmd/3 only; #{@of_system_cmd[name]}"

      %{} ->
        raise ArgumentError,
              "unknown option #{inspect(name)}; #{instead(name, Enum.uniq(names(groups) ++ others), groups)}"
    end

    :ok
  end

  defp misplaced(:args, _group) do
    "the option :args has no meaning here, where the arguments stand beside the executable; in a call with a NetRunner.Command, it adds some"
  end

  defp misplaced(name, :command) do
    "the option #{inspect(name)} is one of the command: it belongs in :process_opts"
  end

  defp misplaced(name, group) do
    "the option #{inspect(name)} has no meaning for this function; #{takers(group)} it"
  end

  defp takers(group) when group in [:input, :run],
    do: "NetRunner.run/2, capture/2, streams and pipelines take"

  defp takers(:stream), do: "streams take"

  defp takers(:progress),
    do: "NetRunner.run/2, run!/2, shell/2, capture/2, stream/2 and stream!/2 take"

  defp takers(:capture), do: "NetRunner.capture/2 takes"
  defp takers(:cmd), do: "NetRunner.cmd/3 takes"
  defp takers(:raising), do: "NetRunner.stream!/2 and NetRunner.pipeline_stream!/2 take"
  defp takers(:process), do: "NetRunner.Process.start/3 takes"
  defp takers(:daemon), do: "NetRunner.Daemon takes"
  defp takers(:child), do: "the child spec of a NetRunner.Daemon takes"

  # As near as the compiler wants the name of a function to be before it suggests it.
  @near 0.77

  # What other libraries call them.
  @elsewhere %{
    command: :cmd,
    executable: :cmd,
    cwd: :cd,
    dir: :cd,
    chdir: :cd,
    uid: :user,
    gid: :group,
    delay_to_sigkill: :kill_timeout,
    arg: :args,
    arguments: :args
  }

  # A daemon takes the options of its command apart from its own.
  defp instead(name, names, groups) do
    of_command = if :daemon in groups, do: names([:command]), else: []
    meant = meant(name, names) || meant(name, of_command)

    cond do
      meant == nil ->
        "the options are #{Enum.map_join(names, ", ", &inspect/1)} (see NetRunner.Options and the documentation of the function)"

      meant in names ->
        "did you mean #{inspect(meant)}?"

      true ->
        "did you mean #{inspect(meant)}? It is one of the command, and belongs in :process_opts"
    end
  end

  defp meant(_name, []), do: nil

  defp meant(name, names) do
    case @elsewhere do
      %{^name => same} -> if same in names, do: same
      %{} -> nearest(name, names)
    end
  end

  defp nearest(name, names) do
    name = Atom.to_string(name)

    {distance, nearest} =
      names |> Enum.map(&{distance(Atom.to_string(&1), name), &1}) |> Enum.max()

    if distance >= @near, do: nearest
  end

  # A short form of a name, and a long one, are near to it: :environment is meant as :env.
  defp distance(known, name) do
    short? = min(byte_size(known), byte_size(name)) < 3
    start? = String.starts_with?(known, name) or String.starts_with?(name, known)
    if start? and not short?, do: 1.0, else: String.jaro_distance(known, name)
  end

  defp check!(name, value, groups) do
    types = for {group, type} <- Map.fetch!(@types, name), group in groups, do: type
    value = normal(hd(types), value)

    unless Enum.any?(types, &valid?(&1, value)) do
      raise ArgumentError, "the option #{inspect(name)} #{complaint(types, value)}"
    end

    value
  end

  # Its keys have values of their own, and the message is about one of them.
  defp complaint([:sandbox], value) do
    {:error, problem} = Policy.parse(value)
    "is wrong: #{problem}"
  end

  defp complaint(types, value) do
    expected = types |> Enum.map(&expected/1) |> Enum.uniq() |> Enum.join("; or ")
    "must be #{expected}, got: #{shown(hd(types), value)}"
  end

  # Within an option as well, `nil` is as if it were not given, and the first of a name holds.
  defp normal(type, [_ | _] = value)
       when type in [:pty, :rlimits, :limits, :limit, :output_limits] do
    if Keyword.keyword?(value),
      do: value |> Enum.reject(&match?({_, nil}, &1)) |> Enum.uniq_by(&elem(&1, 0)),
      else: value
  end

  defp normal(:sandbox, value) when is_list(value) do
    with {:error, _problem} <- Policy.parse(value), do: value, else: ({:ok, policy} -> policy)
  end

  # Enumerated once, so that the command gets what was checked.
  defp normal(:env, value), do: if(enumerable?(value), do: Enum.to_list(value), else: value)
  # As a child spec hides it.
  defp normal(:fds, value) when is_function(value, 2), do: normal(:fds, Map.new(value))

  defp normal(:fds, value) when is_map(value) and not is_struct(value),
    do: Map.reject(value, &match?({_, nil}, &1))

  defp normal(:owner, :none), do: nil
  defp normal(_type, value), do: value

  # Values of these may be secret.
  defp shown(:env, value) do
    wrong = if is_list(value) and not improper?(value), do: Enum.find(value, &(not variable?(&1)))

    case wrong do
      {name, _} when is_binary(name) ->
        "a value of #{inspect(name)} that is neither a string nor nil"

      {name, _} when is_atom(name) ->
        "the name #{inspect(name)}, which is not a string"

      nil ->
        Kind.of(value)

      _ ->
        "a list with an entry that is not {name, value}"
    end
  end

  defp shown(:fds, value), do: Descriptors.problem(value)
  defp shown(:limits, value), do: Cgroup.problem(value)

  defp shown(type, value) when type in [:input, :keyword], do: Kind.of(value)
  # What is given as :stdin may be meant as :input.
  defp shown({:stdio, _, [:file]}, {kind, _} = value) when kind in [:file, :append],
    do: inspect(value)

  defp shown({:stdio, _, [:file]}, value) when not is_atom(value), do: Kind.of(value)
  defp shown(type, value) when type in [:string, :list, :executable], do: Kind.no_string(value)

  defp shown(:command, [executable | args] = value) when is_binary(executable) do
    problem = if not improper?(value), do: Kind.no_strings(args)
    if problem, do: "one in which #{problem}", else: Kind.shown(value)
  end

  defp shown(_type, value), do: Kind.shown(value)

  defp valid?(:path, value), do: is_binary(value)
  defp valid?({:one_of, values}, value), do: value in values
  defp valid?(:boolean, value), do: is_boolean(value)
  defp valid?(:string, value), do: c_string?(value)

  defp valid?({:integer, from, to}, value) do
    is_integer(value) and value >= from and value <= to
  end

  defp valid?({:stdio, _, kinds}, {kind, path}), do: kind in kinds and c_string?(path)
  defp valid?({:stdio, values, _}, value), do: value in values
  defp valid?(:principal, value), do: principal?(value)

  defp valid?(:principals, value) do
    is_list(value) and not improper?(value) and Enum.all?(value, &principal?/1)
  end

  defp valid?(:rlimits, value) do
    Keyword.keyword?(value) and
      Enum.all?(value, fn {name, limit} -> name in @resources and limit?(limit) end)
  end

  defp valid?(:limits, value), do: Cgroup.problem(value) == nil
  defp valid?(:fds, value), do: Descriptors.problem(value) == nil
  defp valid?(:sandbox, value), do: is_struct(value, Policy)
  defp valid?(:pty, value) when is_boolean(value), do: true

  defp valid?(:pty, value) do
    Keyword.keyword?(value) and
      Enum.all?(value, fn
        {size, number} when size in [:rows, :cols] -> number in 1..65_535
        {:echo, echo?} -> is_boolean(echo?)
        _ -> false
      end)
  end

  defp valid?(:non_negative, value), do: is_integer(value) and value >= 0 and value < 0x8000_0000
  defp valid?(:signal, value), do: match?({:ok, _}, NetRunner.Signal.resolve(value))

  defp valid?(:owner, value), do: value in [nil, :caller] or is_pid(value)
  defp valid?(:node, value), do: is_atom(value)
  defp valid?(:list, value), do: is_list(value)
  defp valid?(:keyword, value), do: Keyword.keyword?(value)

  defp valid?(type, :infinity) when type in [:timeout, :limit, :output_limits], do: true
  defp valid?(:timeout, value), do: is_integer(value) and value >= 0 and value < 0x1_0000_0000
  defp valid?(:limit, value), do: is_integer(value) and value >= 0

  defp valid?(:output_limits, [{_, _} | _] = limits) do
    Keyword.keyword?(limits) and
      Enum.all?(limits, fn {name, limit} ->
        name in [:stdout, :stderr, :total] and valid?(:limit, limit)
      end)
  end

  defp valid?(:output_limits, value), do: value == [] or valid?(:limit, value)

  defp valid?(:keep, {end_of_it, size}) when end_of_it in [:head, :tail],
    do: is_integer(size) and size >= 0

  defp valid?(:keep, {head, tail}) do
    is_integer(head) and head >= 0 and is_integer(tail) and tail >= 0
  end

  defp valid?(:keep, _value), do: false

  defp valid?(:callback, value), do: is_function(value, 1) or is_function(value, 2)

  defp valid?(:cancel_token, value),
    do: is_struct(value, CancelToken) and CancelToken.here?(value)

  defp valid?(:lines, {newlines, separator}) do
    newlines in [:keep, :trim] and is_binary(separator) and separator != ""
  end

  defp valid?(:lines, value), do: value in [:keep, :trim]

  # A NUL in it is the same error as everywhere, when it is started.
  defp valid?(:executable, value), do: is_binary(value)

  # Whether it is iodata shows when it is used.
  defp valid?(:input, value) do
    is_binary(value) or is_function(value, 1) or enumerable?(value)
  end

  defp valid?(:env, value) do
    is_list(value) and not improper?(value) and Enum.all?(value, &variable?/1)
  end

  defp valid?(:name, value) do
    (is_atom(value) and value not in [false, true, :undefined]) or match?({:global, _}, value) or
      match?({:via, module, _} when is_atom(module), value)
  end

  defp valid?(:on_output, {:log, level}) do
    level in [:emergency, :alert, :critical, :error, :warning, :notice, :info, :debug]
  end

  defp valid?(:on_output, value),
    do: value in [:discard, :log] or is_function(value, 1) or is_function(value, 2)

  defp valid?(:on_line, value), do: is_function(value, 1) or is_function(value, 2)

  defp valid?(:statuses, value) do
    is_list(value) and not improper?(value) and Enum.all?(value, &(&1 in 0..255))
  end

  defp valid?(:command, value) do
    is_list(value) and value != [] and not improper?(value) and Enum.all?(value, &c_string?/1)
  end

  defp valid?(:ready, {:output, pattern}), do: is_struct(pattern, Regex)

  defp valid?(:ready, {:tcp, host, port}) do
    port in 1..65_535 and (host_name?(host) or :inet.is_ip_address(host))
  end

  defp valid?(:ready, {:unix, path}) do
    c_string?(path) and Path.type(path) == :absolute and byte_size(path) <= @longest_socket_path
  end

  defp valid?(:ready, value),
    do: is_function(value, 0) or is_function(value, 1)

  defp valid?(:any, _value), do: true

  defp valid?(:shutdown, value) do
    value in [:infinity, :brutal_kill] or (value != 0 and valid?(:timeout, value))
  end

  defp variable?({name, value}), do: is_binary(name) and (is_binary(value) or is_nil(value))
  defp variable?(_), do: false

  @doc false
  # Of functions, only those of two arguments are.
  @spec enumerable?(term()) :: boolean()
  def enumerable?(value) do
    is_function(value, 2) or Enumerable.impl_for(value) not in [nil, Enumerable.Function]
  end

  defp host_name?(host) when is_list(host), do: host != [] and List.ascii_printable?(host)
  defp host_name?(host), do: host != "" and c_string?(host) and String.valid?(host)

  defp improper?(value), do: is_list(value) and List.improper?(value)

  defp c_string?(value), do: is_binary(value) and :binary.match(value, <<0>>) == :nomatch

  # The last ID means "no change" to the system calls.
  defp principal?(value),
    do: (c_string?(value) and String.valid?(value)) or value in 0..0xFFFF_FFFE

  defp limit?({soft, hard}), do: number?(soft) and number?(hard) and soft <= hard
  defp limit?(value), do: number?(value)

  # In the order of terms, `:infinity` comes after all numbers.
  defp number?(value), do: value == :infinity or value in 0..0x7FFF_FFFF_FFFF_FFFF

  defp expected(:path), do: "a path as a string"
  defp expected(:boolean), do: "true or false"
  defp expected(:string), do: "a string without a NUL byte"
  # Of access rights.
  defp expected({:integer, 0, 0o777}), do: "an integer from 0 to 0o777 (511)"
  defp expected({:integer, from, to}), do: "an integer from #{from} to #{to}"

  defp expected({:stdio, values, kinds}) do
    (Enum.map(values, &inspect/1) ++ Enum.map(kinds, &"{#{inspect(&1)}, path}"))
    |> Enum.join(", ")
    |> then(&"one of #{&1}")
  end

  defp expected(:principal), do: "a name, or an ID from 0 to 4294967294"
  defp expected(:principals), do: "a list of names and IDs"

  defp expected(:rlimits) do
    "a keyword list with a limit, :infinity or {soft, hard} (soft <= hard) for any of #{Enum.map_join(@resources, ", ", &inspect/1)}"
  end

  defp expected(:limits) do
    "[join: path], or a keyword list of #{Enum.map_join(Cgroup.names(), ", ", &inspect/1)} with the values that docs/cgroups.md lists"
  end

  defp expected(:fds) do
    "a map of numbers from 3 to 255 to :input, :output, {:input, iodata}, {:input, {:file, path}}, " <>
      "{:output, {:file, path}} or {:append, {:file, path}}"
  end

  defp expected(:pty), do: "true, false, or a keyword list of :rows, :cols (1 to 65535) and :echo"
  defp expected({:one_of, values}), do: "one of #{Enum.map_join(values, ", ", &inspect/1)}"
  defp expected(:non_negative), do: "an integer from 0 to 2147483647"
  defp expected(:signal), do: "a signal, such as :sigterm or 15"
  defp expected(:owner), do: "a pid, :none or :caller"
  defp expected(:node), do: "the name of a node, such as :\"name@host\""
  defp expected(:list), do: "a list of strings"
  defp expected(:keyword), do: "a keyword list"

  defp expected(:on_output),
    do: ":discard, :log, {:log, level}, or a function of one or two arguments"

  defp expected(:on_line), do: "a function of one or two arguments"
  defp expected(:statuses), do: "a list of statuses from 0 to 255"
  defp expected(:command), do: "a list [executable | args] of strings without a NUL byte"

  defp expected(:ready),
    do:
      "a function of no argument or one, {:output, regex}, {:tcp, host, port} with a port from 1 to 65535, " <>
        "{:unix, path} with an absolute path of at most #{@longest_socket_path} bytes"

  # As a supervisor takes it.
  defp expected(:shutdown), do: "milliseconds from 1 to 4294967295, :infinity or :brutal_kill"

  defp expected(:timeout), do: "milliseconds from 0 to 4294967295, or :infinity"
  defp expected(:limit), do: "a number of bytes, or :infinity"

  defp expected(:output_limits),
    do: "a number of bytes, :infinity, or a keyword list of them for :stdout, :stderr and :total"

  defp expected(:keep),
    do: "{:head, bytes}, {:tail, bytes} or {head_bytes, tail_bytes}"

  defp expected(:callback), do: "a function of one or two arguments"
  defp expected(:cancel_token), do: "a token that NetRunner.cancel_token/0 has made on this node"

  defp expected(:lines),
    do: ":keep, :trim, or {:keep | :trim, separator} with a separator that is not empty"

  defp expected(:executable),
    do: "a string (arguments belong in :args) or a NetRunner.Command"

  defp expected(:input), do: "iodata, an enumerable of iodata, or a function of one argument"

  defp expected(:env),
    do: "an enumerable of {name, value} with strings (the value nil unsets a variable)"

  defp expected(:name), do: "an atom, {:global, term} or {:via, module, term}"
end
