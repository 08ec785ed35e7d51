defmodule NetRunner.Options do
  alias NetRunner.Options.{Combination, Declared, Kind, Name, Value}

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

  #{Declared.documentation([:command])}
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

  @names for {name, _group, _type, _default} <- Declared.all(), uniq: true, do: name

  @defaults Declared.all()
            |> Enum.group_by(&elem(&1, 1), fn {name, _, _, default} -> {name, default} end)
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
    Enum.each(options, fn {name, _} -> Name.known!(name, groups) end)
    # The first of a name holds, as for `Keyword.get/2`.
    given = options |> given() |> Enum.uniq_by(fn {name, _} -> name end)
    given = for {name, value} <- given, do: {name, Value.check!(name, value, groups)}
    if given != [], do: Combination.check!(given, groups, captured?(groups))

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
    weaker |> given() |> Combination.without_meaningless(stronger) |> Keyword.merge(stronger)
  end

  # Without those that are `nil`. The unknown ones stay, to be complained about.
  defp given(options) do
    Enum.reject(options, fn {name, value} ->
      value == nil and name != :owner and (name == :args or name in @names)
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
end
