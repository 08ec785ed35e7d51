defmodule NetRunner.Options do
  # All options, declared once: what they accept, what they are without being given, and the lines of
  # the documentation. Which function takes which follows from the group of an option.

  # {name, group, type, default, text}
  @declared [
    {:cd, :command, :path, nil, "working directory; `nil`: the VM's"},
    {:env, :command, :env, [],
     "environment variables as an enumerable of `{name, value}` of strings, on top of the VM's; " <>
       "`nil` as a value unsets"},
    {:clear_env, :command, :boolean, false,
     "`true`: the command gets the variables of `:env` and no other"},
    {:arg0, :command, :string, nil,
     "what the command is told that it is called (`argv[0]`); `nil`: the executable as it was given"},
    {:umask, :command, {:integer, 0, 0o777}, nil,
     "the permissions that new files do not get (umask(2)), such as `0o077`; `nil`: the VM's"},
    {:stdin, :command, {:stdio, [:pipe, :null, :inherit], [:file]}, nil,
     "where stdin comes from: `:pipe`, written by the VM; `:null`; `:inherit`: the VM's own; `{:file, path}`; " <>
       "`nil`: `:pipe`, or `:null` where an `:input` could be given and is not"},
    {:stdout, :command, {:stdio, [:pipe, :null, :inherit], [:file, :append]}, :pipe,
     "where stdout goes: `:pipe`, read by the VM; `:null`; `:inherit`; `{:file, path}` (made or emptied " <>
       "first) or `{:append, path}`: the kernel writes, the VM copies nothing"},
    {:stderr, :command,
     {:stdio, [:consume, :pipe, :redirect, :disabled, :inherit], [:file, :append]}, :consume,
     "`:consume`: discarded, except for the last `:stderr_tail` bytes; `:pipe`: read on demand, with " <>
       "`NetRunner.Process.read_stderr/2` or by a stream with `:tagged`; `:redirect`: into stdout, in order; `:disabled`: dropped by the " <>
       "kernel; `:inherit`, `{:file, path}`, `{:append, path}`: as for `:stdout`, which may be the same file"},
    {:stderr_tail, :command, :non_negative, 8_192,
     "bytes of a consumed stderr's end that are kept for error messages"},
    {:pipe_size, :command, :non_negative, 1_048_576,
     "bytes that a busy pipe is given (`F_SETPIPE_SZ`, fcntl(2)); where the system refuses, it " <>
       "stays at its 64 KiB (an unprivileged user has `fs.pipe-user-pages-soft` for all pipes together); " <>
       "0: leave it"},
    {:stop_signal, :command, :signal, :sigterm, "the signal that asks the command to end"},
    {:kill_timeout, :command, :non_negative, 5_000,
     "milliseconds between the stop signal and SIGKILL"},
    {:leftovers, :command, {:one_of, [:kill, :leave]}, :kill,
     "what happens to processes that the command started and left running when it exits: `:kill` or `:leave`"},
    {:output_grace, :command, :non_negative, 100,
     "with `leftovers: :leave`, milliseconds after the exit in which `NetRunner.run/2` and streams go on reading " <>
       "what is left behind; then an empty pipe is the end, and a full one is read for one more pipe's size"},
    {:give_up_after, :command, :timeout, :infinity,
     "milliseconds after SIGKILL at which callers stop waiting for a command that the kernel does not let go, such as one " <>
       "that waits for a dead file system: they get `{:error, {:not_ended, os_pid}}`, and the command is still " <>
       "being ended"},
    {:user, :command, :principal, nil,
     "the user that the command runs as, by name or ID, with its groups; the VM has to be root's"},
    {:group, :command, :principal, nil, "the group that the command runs as, by name or ID"},
    {:groups, :command, :principals, nil,
     "the supplementary groups, by name or ID, instead of the user's own"},
    {:nice, :command, {:integer, -20, 19}, nil,
     "the nice value (setpriority(2)): 19 yields to everybody; below the VM's needs the right to"},
    {:rlimits, :command, :rlimits, [],
     "resource limits (setrlimit(2)), such as `[cpu: 10, as: 512_000_000, nofile: 64, core: 0]`; a value is a " <>
       "number in the unit of the man page, `:infinity`, or `{soft, hard}`"},
    {:no_new_privs, :command, :boolean, false,
     "`true`: no set-user-ID program that the command runs gains rights (Linux)"},
    {:pty, :command, :pty, false,
     "`true` or `[rows: 24, cols: 80, echo: true]`: the command runs in a pseudo-terminal, which is its stdin, stdout " <>
       "and stderr (so none of these options goes with it); all that it prints is read as stdout"},
    {:cgroup_path, :command, :path, nil,
     "a path below the mount point of cgroup v2, without `..`: the command runs in a new cgroup there, all of which " <>
       "ends with it, and which is removed then (see `docs/cgroups.md`)"},
    {:cgroup, :command, :limits, [],
     "its limits: `memory_max` and `pids_max` (a number or `:max`), `cpu_max` (`{quota, period}` in microseconds, or " <>
       "`:max`), `cpu_weight` (1 to 10000), `memory_oom_group` (a boolean)"},
    {:owner, :command, :owner, :caller,
     "a pid: when it dies, the command is ended; `nil` or `:none`: nobody; `:caller`: the process that starts it"},
    {:node, :command, :node, nil,
     "a connected Erlang node that has NetRunner: the command runs there (see `docs/nodes.md`); `nil`: here"},
    {:input, :input, :input, nil,
     "what the command reads from stdin: iodata, an enumerable of iodata, or a function that gets a " <>
       "`Collectable` (`&Enum.into(source, &1)`); without it, nothing"},
    {:timeout, :run, :timeout, :infinity,
     "milliseconds after which the command is ended: `{:error, :timeout}`"},
    {:max_output_size, :run, :limit, :infinity,
     "bytes of output (with `:tagged`, of stdout and stderr together) above which the command is ended; what is " <>
       "written elsewhere, as to a file, is not counted"},
    {:tagged, :stream, :boolean, false,
     "`true`: elements are `{:stdout, bytes}` and `{:stderr, bytes}` (`:stderr` is `:pipe` then, unless it is given), " <>
       "and `{:exit, status}` at the end"},
    {:lines, :stream, {:one_of, [:keep, :trim]}, nil,
     "whole lines, with (`:keep`) or without (`:trim`) their newline `\\n` or `\\r\\n`; a last line without one is a " <>
       "line; one longer than 64 bytes refers to the chunk of up to 256 KiB that it came in: who keeps few lines of " <>
       "many copies them (`:binary.copy/1`)"},
    {:exit_status, :raising, {:one_of, [:raise, :ignore]}, :raise,
     "`:raise`: raises `NetRunner.Error` at the end when the exit status is not 0, with `:tagged` (which makes " <>
       "`:ignore` the default) after the `{:exit, status}`; `:ignore`: does not"},
    {:name, :process, :name, nil, "registers the process, as the `:name` of a `GenServer`"},
    {:cmd, :daemon, :string, nil, "the executable; this option has to be given"},
    {:args, :daemon, :list, [], "its arguments, as strings"},
    {:on_output, :daemon, :on_output, :discard,
     "what is done with the output: `:discard`; `:log` (each line, as `:info`) or `{:log, level}`; a function " <>
       "of the bytes, or of `:stdout | :stderr` and the bytes"},
    {:ready, :daemon, :ready, nil,
     "how it is known that the daemon is ready: a function of no argument, or of the command's " <>
       "`NetRunner.Process`; `{:output, regex}`; `{:tcp, host, port}`; `{:unix, path}`; `nil`: it is when the command has " <>
       "started"},
    {:ready_timeout, :daemon, :timeout, 10_000,
     "milliseconds in which it has to be ready, or `:infinity`"},
    {:process_opts, :daemon, :keyword, [],
     "options of the command, as of `NetRunner.Process.start/3`, but without `:owner` and `:name`"},
    {:id, :child, :any, nil,
     "the ID of the child in its supervisor; `nil`: the `:name`, or else `NetRunner.Daemon`"},
    {:restart, :child, {:one_of, [:permanent, :transient, :temporary]}, :permanent,
     "when the supervisor starts it again"},
    {:shutdown, :child, :shutdown, nil,
     "how long the supervisor waits for its end: milliseconds, `:infinity`, or `:brutal_kill`; `nil`: longer than " <>
       "`:kill_timeout`"}
  ]

  @lines for {name, group, _, default, text} <- @declared,
             do: {group, "  * `#{inspect(name)}` - #{text}. Default: `#{inspect(default)}`\n"}

  @moduledoc """
  The options of a command, which all functions that start one take. What further ones a function takes
  stands beside it.

  An option that nobody knows, or of a wrong type, or one that means nothing beside another, raises
  `ArgumentError`. `nil` is as if the option were not given: the value of the `NetRunner.Command` holds, else the
  default. The one exception is `owner: nil`.

      iex> NetRunner.run(~w(true), pty: true, stdout: :null)
      ** (ArgumentError) the options :pty and :stdout exclude each other: the terminal is stdin, stdout and stderr

  An option that the system refuses is an error that names it, and the command is not started:

      iex> NetRunner.run(~w(id), user: "no-such-user")
      {:error, {:user, :enoent}}

  So is a string that no system takes: a variable whose name is empty or has a `=`, a NUL byte in `:env` or in `:cd`.

      iex> NetRunner.run(~w(true), env: [{"A=B", "1"}])
      {:error, {:invalid_env, ~S("A=…" is no name of a variable)}}

  #{for {:command, line} <- @lines, do: line}
  ## Environment: `:env`, `:clear_env`

  The command gets the environment that the VM has when it starts, byte for byte, also where it is not
  valid UTF-8. Its own `PATH` decides where the executable is looked up.

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

  An executable with a `/` that does not begin with one starts at `:cd`. With `:cd` the command's `PWD` is that directory,
  unless `:env` has a `PWD`, or `:clear_env` leaves it out.

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

  The command's own process opens its files: with the VM's rights, also when there is a `:user`; with the
  `:umask`; and from the VM's working directory, wherever `:cd` leads. The same file for stdout and
  stderr is opened once, so that neither writes over the other. It never waits for the other end of a
  FIFO: one that nobody reads cannot be written (`:enxio`), and one that nobody writes is at its end.

  What a command inherits (`:inherit`) always blocks, as programs expect, though the VM sets its own terminal not to: a
  terminal, or a pipe that does not block, is opened anew. A socket cannot be opened anew; one that somebody has
  set not to block is refused (`{:error, {:stdout, :eopnotsupp}}`).

  ## Users: `:user`, `:group`, `:groups`

  A `:user` comes with its primary group and all groups that it is in; `:group` and `:groups` replace those.
  A `:group` alone changes nothing else. An ID that no user has needs a `:group`. The environment stays as it is:
  programs that look into `HOME` or `USER` want them set with `:env`. A VM that is not root's gets
  `{:error, {:user, :eperm}}`.

  ## Limits: `:nice`, `:rlimits`, `:no_new_privs`

      iex> NetRunner.run(~w(nice), nice: 19)
      {"19\\n", 0}
      iex> NetRunner.run(["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"], rlimits: [nofile: {64, 128}, core: 0])
      {"64\\n128\\n0\\n", 0}
      iex> NetRunner.run(["sh", "-c", "while :; do :; done"], rlimits: [cpu: {1, 2}])
      {"", 152}
      iex> NetRunner.run(~w(grep NoNewPrivs /proc/self/status), no_new_privs: true)
      {"NoNewPrivs:\\t1\\n", 0}

  One number is the soft and the hard limit. `:cpu` counts seconds: SIGXCPU at the soft limit, SIGKILL at the hard
  one. The limits hold for each process alone, and what the command starts inherits them.

  ## The end: `:stop_signal`, `:kill_timeout`, `:leftovers`

      iex> {:ok, p} = NetRunner.Process.start("sh", ["-c", "sleep 5 & echo $!"], leftovers: :leave)
      iex> {:ok, pid} = NetRunner.Process.read(p)
      iex> NetRunner.Process.await_exit(p)
      {:ok, 0}
      iex> File.exists?("/proc/" <> String.trim(pid))
      true

  ## Finding it: `:name`

      iex> {:ok, p} = NetRunner.Process.start("cat", [], name: MyApp.Cat)
      iex> NetRunner.Process.alive?(MyApp.Cat)
      true
      iex> NetRunner.Process.start("cat", [], name: MyApp.Cat)
      {:error, {:already_started, p}}
  """

  # The names of setrlimit(2). The system may know fewer.
  @resources ~w(as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack)a

  # What fits into the address of a Unix socket (unix(7)) on every system, with a NUL byte after it.
  @longest_socket_path 103

  @types Map.new(@declared, fn {name, group, type, default, _} ->
           {name, {group, type, default}}
         end)

  @defaults @declared
            |> Enum.group_by(&elem(&1, 1), fn {name, _, _, default, _} -> {name, default} end)
            |> Map.new(fn {group, defaults} -> {group, Map.new(defaults)} end)

  @type group :: :command | :input | :run | :stream | :raising | :process | :daemon | :child

  @doc false
  # The options with all defaults, as a map. Raises `ArgumentError` for what cannot be meant. `defaults`: those of a
  # caller that has others.
  @spec validate!(term(), [group()], keyword()) :: map()
  def validate!(options, groups, defaults \\ []) do
    keyword!(options)
    Enum.each(options, fn {name, _} -> known!(name, groups) end)
    # The first of a name holds, as for `Keyword.get/2`.
    given = options |> given() |> Enum.uniq_by(fn {name, _} -> name end)
    given = for {name, value} <- given, do: {name, check!(name, value)}
    compatible!(given, groups)

    groups
    |> Enum.reduce(%{}, &Map.merge(&2, Map.fetch!(@defaults, &1)))
    |> Map.merge(Map.new(implied(given, groups) ++ defaults))
    |> Map.merge(Map.new(given))
  end

  @doc false
  # Options over others, which they win over: what means nothing beside them goes too.
  @spec merge(keyword(), keyword()) :: keyword()
  def merge(weaker, stronger) do
    keyword!(stronger)
    stronger = given(stronger)
    meaningless = Enum.flat_map(exclusions(stronger), fn {_, names, _} -> names end)
    weaker |> given() |> Keyword.drop(meaningless) |> Keyword.merge(stronger)
  end

  @doc false
  # The names of the options of these groups.
  @spec names([group()]) :: [atom()]
  def names(groups), do: for({name, group, _, _, _} <- @declared, group in groups, do: name)

  @doc false
  # The options of these groups as a list in Markdown.
  @spec documentation([group()]) :: String.t()
  def documentation(groups) do
    for {group, line} <- @lines, group in groups, into: "", do: line
  end

  # Without those that are `nil`. The unknown ones stay, to be complained about.
  defp given(options) do
    Enum.reject(options, fn {name, value} ->
      value == nil and name != :owner and (name == :args or is_map_key(@types, name))
    end)
  end

  # A value may be secret, so it is not shown.
  defp keyword!(options) do
    unless Keyword.keyword?(options) do
      what =
        if is_list(options), do: "a list with an entry that is no option", else: kind(options)

      raise ArgumentError, "options must be a keyword list, got #{what}"
    end
  end

  # A stream of both outputs has to get both, and says the status itself.
  defp implied(given, groups) do
    if given[:tagged],
      do: [stderr: :pipe] ++ if(:raising in groups, do: [exit_status: :ignore], else: []),
      else: []
  end

  # --- options that mean nothing beside others ----------------------------------------------------

  defp compatible!(given, groups) do
    for {option, names, why} <- exclusions(given), name <- names, given[name] != nil do
      both = [option, name] |> Enum.sort() |> Enum.map_join(" and ", &inspect/1)
      raise ArgumentError, "the options #{both} exclude each other: #{why}"
    end

    # A `NetRunner.Command` is for any function.
    on_demand? = :process in groups or :run not in groups

    if given[:stderr] == :pipe and given[:tagged] != true and not on_demand? do
      raise ArgumentError,
            "stderr: :pipe is read on demand, and nobody would read it here: use a stream with tagged: true, " <>
              "or NetRunner.Process"
    end
  end

  # `{option, what means nothing beside it, why}`.
  defp exclusions(given) do
    tagged? = given[:tagged] == true
    stderr = Keyword.get(given, :stderr, if(tagged?, do: :pipe, else: :consume))

    [
      Keyword.get(given, :pty, false) != false &&
        {:pty, [:stdin, :stdout, :stderr, :stderr_tail],
         "the terminal is stdin, stdout and stderr"},
      Keyword.get(given, :stdin, :pipe) != :pipe &&
        {:stdin, [:input], "an input needs a pipe, and stdin is #{inspect(given[:stdin])}"},
      stderr != :consume &&
        {if(given[:stderr], do: :stderr, else: :tagged), [:stderr_tail],
         "only of a consumed stderr is the end kept"}
    ]
    |> Enum.filter(& &1)
  end

  defp known!(name, groups) do
    case @types do
      %{^name => {group, _, _}} ->
        unless group in groups do
          raise ArgumentError, misplaced(name, group)
        end

      %{} ->
        raise ArgumentError, "unknown option #{inspect(name)}; #{instead(name, names(groups))}"
    end
  end

  defp misplaced(:args, _group) do
    "the option :args has no meaning beside a list, which holds the arguments; it is for a NetRunner.Command"
  end

  defp misplaced(name, :command) do
    "the option #{inspect(name)} is one of the command: it belongs into :process_opts"
  end

  defp misplaced(name, group) do
    "the option #{inspect(name)} has no meaning for this function; #{takers(group)} it"
  end

  defp takers(group) when group in [:input, :run],
    do: "NetRunner.run/2, streams and pipelines take"

  defp takers(:stream), do: "streams take"
  defp takers(:raising), do: "NetRunner.stream!/2 and NetRunner.pipeline_stream!/2 take"
  defp takers(:process), do: "NetRunner.Process.start/3 takes"
  defp takers(:daemon), do: "NetRunner.Daemon takes"
  defp takers(:child), do: "the child spec of a NetRunner.Daemon takes"

  # As near as the compiler wants the name of a function to be before it suggests it.
  @near 0.77

  defp instead(name, names) do
    name = Atom.to_string(name)

    {distance, nearest} =
      names |> Enum.map(&{distance(Atom.to_string(&1), name), &1}) |> Enum.max()

    if distance >= @near,
      do: "did you mean #{inspect(nearest)}?",
      else:
        "there are #{Enum.map_join(names, ", ", &inspect/1)}, which NetRunner.Options and the functions explain"
  end

  # A short form of a name, and a long one, are near to it: :environment is meant as :env.
  defp distance(known, name) do
    short? = min(byte_size(known), byte_size(name)) < 3
    start? = String.starts_with?(known, name) or String.starts_with?(name, known)
    if start? and not short?, do: 1.0, else: String.jaro_distance(known, name)
  end

  defp check!(name, value) do
    {_, type, _} = Map.fetch!(@types, name)
    value = normal(type, value)

    unless valid?(type, value) do
      raise ArgumentError,
            "the option #{inspect(name)} must be #{expected(type)}, got: #{shown(type, value)}"
    end

    value
  end

  # Enumerated once, so that the command gets what was checked.
  defp normal(:env, value), do: if(enumerable?(value), do: Enum.to_list(value), else: value)
  defp normal(:owner, :none), do: nil
  defp normal(_type, value), do: value

  # Values of these may be secret.
  defp shown(:env, value) do
    wrong = if is_list(value) and not improper?(value), do: Enum.find(value, &(not variable?(&1)))

    case wrong do
      {name, _} when is_binary(name) ->
        "a value of #{inspect(name)} that is neither a string nor nil"

      nil ->
        kind(value)

      _ ->
        "a list with an entry that is no {name, value}"
    end
  end

  defp shown(type, value) when type in [:input, :keyword], do: kind(value)
  # What is given as :stdin may be meant as :input.
  defp shown({:stdio, _, [:file]}, {kind, _} = value) when kind in [:file, :append],
    do: inspect(value)

  defp shown({:stdio, _, [:file]}, value) when not is_atom(value), do: kind(value)
  defp shown(type, value) when type in [:string, :list], do: no_string(value)
  defp shown(_type, value), do: inspect(value)

  @doc false
  # What stands where a string is expected, in words. Options that were put there may hold secrets.
  @spec no_string(term()) :: String.t()
  def no_string({name, _value}) when is_atom(name),
    do: "the option #{inspect(name)}, which belongs elsewhere"

  def no_string([{name, _value} | _]) when is_atom(name),
    do: "options, such as #{inspect(name)}, which belong elsewhere"

  def no_string(value) when is_binary(value) or is_atom(value) or is_number(value),
    do: inspect(value)

  def no_string(value) do
    if is_list(value) and List.ascii_printable?(value), do: inspect(value), else: kind(value)
  end

  @doc false
  # What a value is, without saying which it is: it may be secret.
  @spec kind(term()) :: String.t()
  def kind(%module{}), do: "a #{inspect(module)}"
  def kind(value) when is_map(value), do: "a map"
  def kind(value) when is_list(value), do: "a list"
  def kind(value) when is_binary(value), do: "a string"
  def kind(value) when is_tuple(value), do: "a tuple"
  def kind(value) when is_function(value), do: inspect(value)
  def kind(value) when is_number(value), do: "a number"
  def kind(value) when is_atom(value), do: "an atom"
  def kind(_value), do: "another term"

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

  defp valid?(:limits, value), do: NetRunner.System.Cgroup.limits?(value)
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

  defp valid?(type, :infinity) when type in [:timeout, :limit], do: true
  defp valid?(:timeout, value), do: is_integer(value) and value >= 0 and value < 0x1_0000_0000
  defp valid?(:limit, value), do: is_integer(value) and value >= 0

  # Whether it is iodata shows when it is used.
  defp valid?(:input, value) do
    is_binary(value) or is_function(value, 1) or enumerable?(value)
  end

  defp valid?(:env, value) do
    is_list(value) and not improper?(value) and Enum.all?(value, &variable?/1)
  end

  defp valid?(:name, value) do
    (is_atom(value) and value != :undefined) or match?({:global, _}, value) or
      match?({:via, module, _} when is_atom(module), value)
  end

  defp valid?(:on_output, {:log, level}) do
    level in [:emergency, :alert, :critical, :error, :warning, :notice, :info, :debug]
  end

  defp valid?(:on_output, value),
    do: value in [:discard, :log] or is_function(value, 1) or is_function(value, 2)

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
    value in [:infinity, :brutal_kill] or valid?(:timeout, value)
  end

  defp variable?({name, value}), do: is_binary(name) and (is_binary(value) or is_nil(value))
  defp variable?(_), do: false

  # Of functions, only those of two arguments are.
  defp enumerable?(value) do
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
  defp expected({:integer, from, to}), do: "an integer from #{from} to #{to}"

  defp expected({:stdio, values, kinds}) do
    (Enum.map(values, &inspect/1) ++ Enum.map(kinds, &"{#{inspect(&1)}, path}"))
    |> Enum.join(", ")
    |> then(&"one of #{&1}")
  end

  defp expected(:principal), do: "a name, or an ID from 0 to 4294967294"
  defp expected(:principals), do: "a list of names and IDs"

  defp expected(:rlimits) do
    "a keyword list of a limit, :infinity or {soft, hard} for any of #{Enum.map_join(@resources, ", ", &inspect/1)}"
  end

  defp expected(:limits) do
    "a keyword list of :memory_max, :pids_max, :cpu_max, :cpu_weight (1 to 10000) and :memory_oom_group"
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

  defp expected(:ready),
    do:
      "a function of no argument or one, {:output, regex}, {:tcp, host, port} with a port from 1 to 65535, " <>
        "{:unix, path} with an absolute path of at most #{@longest_socket_path} bytes"

  defp expected(:shutdown), do: "milliseconds, :infinity or :brutal_kill"

  defp expected(:timeout), do: "milliseconds from 0 to 4294967295, or :infinity"
  defp expected(:limit), do: "a number of bytes, or :infinity"
  defp expected(:input), do: "iodata, an enumerable of iodata, or a function of one argument"
  defp expected(:env), do: "an enumerable of {name, value} of strings, nil as a value to unset"
  defp expected(:name), do: "an atom, {:global, term} or {:via, module, term}"
end
