defmodule NetRunner.Run.Cmd do
  @moduledoc false
  # `NetRunner.cmd/3`: the arguments, results and exceptions of `System.cmd/3`, in the order in which that
  # one looks at them.

  alias NetRunner.{Error, Options}
  alias NetRunner.Options.Kind
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Server
  alias NetRunner.Run.Input

  # What a command that could not be started after all has as its status: the system's number of the
  # error. Those that are not the same everywhere stand apart.
  @errno Map.new(
           [eperm: 1, enoent: 2, eio: 5, e2big: 7, enoexec: 8, eacces: 13, enotdir: 20] ++
             [eisdir: 21, einval: 22, etxtbsy: 26] ++
             if(:os.type() == {:unix, :linux},
               do: [eloop: 40, enametoolong: 36, elibbad: 80],
               else: [eloop: 62, enametoolong: 63]
             )
         )

  @groups [:command, :input, :cmd]

  # Options of ours that `System.cmd/3` does not have.
  @ours Options.Name.names(@groups) -- [:cd, :arg0, :env]

  @both @ours ++ [:cd, :arg0, :env, :into, :lines, :stderr_to_stdout, :parallelism]

  @spec run(String.t(), [String.t()], keyword()) :: {Collectable.t(), non_neg_integer()}
  def run(executable, args, options) do
    check_command!(executable, args)
    command = [if(elsewhere?(options), do: executable, else: find!(executable)) | args]
    settings = settings(options)
    {collected, collector} = Collectable.into(settings.into)

    try do
      options = command_options(settings)
      # Nobody else can get the result.
      options = %{options | owner: options.owner || self()}
      # As of `System.cmd/3`, stdin without an input stays open.
      input = if options.input, do: Input.new(options), else: :open
      :ok = start_application()

      extra = [input: Input.for_server(input), grace?: true, consumer: self()]

      case Server.start(command, options, extra) do
        {:ok, server} ->
          feeder = Input.feed(input, server)
          output(server, feeder, settings, collected, collector, command)

        {:error, reason} ->
          {collected, not_started(command, reason, options)}
      end
    catch
      kind, reason ->
        collector.(collected, :halt)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      {collected, status} -> {collector.(collected, :done), status}
    end
  end

  defp elsewhere?(options) do
    Keyword.keyword?(options) and Keyword.get(options, :node) not in [nil, node()]
  end

  # `System.cmd/3` works in a Mix task, in the body of a module and in a configuration. Not in a VM that stops: the
  # application controller would wait for itself.
  defp start_application do
    if Process.whereis(NetRunner.Supervisor) == nil and
         not match?({:stopping, _}, :init.get_status()) do
      _ = Application.ensure_all_started(:net_runner)
    end

    :ok
  end

  defp check_command!(executable, args) do
    unless is_binary(executable) do
      raise ArgumentError,
            "the executable must be a string, and its arguments the list that follows, got: #{Kind.no_string(executable)}"
    end

    unless is_list(args) and not List.improper?(args) do
      raise ArgumentError, "arguments must be a list of strings, got: #{Kind.no_string(args)}"
    end

    if nul?(executable) do
      raise ArgumentError,
            "cannot execute NetRunner.cmd/3 for program with null byte, got: #{inspect(executable)}"
    end

    unless Enum.all?(args, &is_binary/1) do
      raise ArgumentError, "all arguments for NetRunner.cmd/3 must be binaries"
    end
  end

  # The path of the VM counts, not one in `:env`, and a relative path with a slash is looked for below each
  # of its directories. An absolute path is looked at when it is started.
  defp find!(executable) do
    name = String.to_charlist(executable)

    if Path.type(executable) == :absolute do
      executable
    else
      case :os.find_executable(name) do
        false -> :erlang.error(:enoent)
        path -> List.to_string(path)
      end
    end
  end

  # --- options ------------------------------------------------------------------------------------

  defp settings(options) do
    Options.keyword!(options)
    {use_stdio?, options} = Keyword.pop(options, :use_stdio, true)
    use_stdio? = use_stdio? != false
    settings = %{into: "", lines?: false, merge?: false, options: [], ours: []}
    settings = Enum.reduce(options, settings, &option/2)

    if settings.merge? and !use_stdio? do
      raise ArgumentError, ~s(cannot use "stderr_to_stdout: true" and "use_stdio: false")
    end

    Map.put(settings, :use_stdio?, use_stdio?)
  end

  defp option({name, nil}, settings) when name in @both and name != :owner, do: settings
  defp option({:into, into}, settings), do: %{settings | into: into}

  # Lines are never cut, so it does not matter how much of one is kept.
  defp option({:lines, max}, settings) when is_integer(max) and max > 0,
    do: %{settings | lines?: true}

  defp option({:stderr_to_stdout, merge?}, settings) when is_boolean(merge?),
    do: %{settings | merge?: settings.merge? or merge?}

  # Tells a port how to schedule its driver; there is none here.
  defp option({:parallelism, on?}, settings) when is_boolean(on?), do: settings

  defp option({name, text}, settings) when name in [:cd, :arg0] and is_binary(text),
    do: first(settings, name, text)

  defp option({:env, env}, settings) do
    unless Options.Value.enumerable?(env) and not (is_list(env) and List.improper?(env)) do
      raise ArgumentError,
            "the option :env must be an enumerable of {name, value} with strings, got: #{Kind.of(env)}"
    end

    first(settings, :env, Enum.map(env, &variable/1))
  end

  defp option({name, value}, settings) when name in @ours,
    do: %{settings | ours: settings.ours ++ [{name, value}]}

  defp option({name, value}, _settings) do
    # The value of an unknown option may be secret: it may be meant as the :env, or the :input.
    if name not in @both, do: Options.Name.known!(name, @groups, @both ++ [:use_stdio])
    raise ArgumentError, "invalid option #{inspect(name)} with value #{Kind.shown(value)}"
  end

  # Of an option that is given twice, the first counts.
  defp first(settings, name, value),
    do: %{settings | options: Keyword.put_new(settings.options, name, value)}

  # An empty value unsets, as `nil` does. `System.cmd/3` shows what is wrong, but it may be secret.
  defp variable({name, value}) do
    cond do
      not utf8?(name) -> invalid_env("a name that is not a UTF-8 string")
      value in [nil, ""] -> {name, nil}
      not utf8?(value) -> invalid_env("the value of #{inspect(name)} is not a UTF-8 string")
      true -> {name, value}
    end
  end

  defp variable(_other), do: invalid_env("an entry that is not {name, value}")

  defp utf8?(text), do: is_binary(text) and String.valid?(text)

  @spec invalid_env(String.t()) :: no_return()
  defp invalid_env(what), do: raise(ArgumentError, "invalid environment key-value: #{what}")

  @standard [:stdin, :stdout, :stderr, :pty, :input]

  defp command_options(%{use_stdio?: false, ours: ours} = settings) do
    for name <- @standard, ours[name] not in [nil, false] do
      raise ArgumentError, ~s(cannot use #{inspect(name)} and "use_stdio: false")
    end

    inherited = [stdin: :inherit, stdout: :inherit, stderr: :inherit]
    Options.validate!(settings.options ++ ours, @groups, inherited)
  end

  defp command_options(%{ours: ours} = settings) do
    if settings.merge? and ours[:stderr] not in [nil, :redirect] do
      raise ArgumentError, ~s(cannot use "stderr_to_stdout: true" and another :stderr)
    end

    # Stdin is a pipe into which nothing is written, and which is not closed.
    stderr = if settings.merge?, do: :redirect, else: :inherit
    Options.validate!(settings.options ++ ours, @groups, stdin: :pipe, stderr: stderr)
  end

  # --- output ---------------------------------------------------------------------------------------

  # A string takes all at once, so the server can do all of it in one call.
  defp output(server, feeder, %{into: into, lines?: false}, collected, collector, command)
       when is_binary(into) do
    watch = Input.watch(feeder)

    case Input.result(Command.collect(server, :infinity, :infinity), watch) do
      {:error, reason} -> raise Error, reason: reason, command: command
      {"", status} -> {collected, status}
      {bytes, status} -> {collector.(collected, {:cont, bytes}), status}
    end
  end

  defp output(server, feeder, settings, collected, collector, command) do
    server
    |> NetRunner.Run.Stream.tagged(command, feeder, if(settings.lines?, do: :trim))
    |> Enum.reduce({collected, nil}, fn
      {:stdout, piece}, {collected, nil} -> {collector.(collected, {:cont, piece}), nil}
      {:exit, status}, {collected, nil} -> {collected, status}
    end)
  end

  # --- what cannot be started -------------------------------------------------------------------------

  # What a port finds before it starts anything is raised; of what it finds after that, the number of the
  # error is the status. Nothing else would say what happened, so the sentence goes to stderr.
  defp not_started(command, reason, %{node: node}) when node not in [nil, node()],
    do: raise(Error, reason: reason, command: command)

  defp not_started([path | _] = command, reason, _options) do
    case {File.stat(path), reason} do
      {{:error, posix}, _} ->
        :erlang.error(posix)

      {{:ok, %{type: :regular}}, :eacces} ->
        :erlang.error(:eacces)

      {_, {:cd, posix}} when is_map_key(@errno, posix) ->
        status(command, reason, posix)

      {_, posix} when is_map_key(@errno, posix) ->
        status(command, reason, posix)

      {_, {tag, message}} when tag in [:invalid_args, :invalid_env, :invalid_cd] ->
        raise ArgumentError, message

      {_, reason}
      when is_tuple(reason) or
             reason in [:launcher_died, :shepherd_died, :not_started, :timeout, :closed] ->
        raise Error, reason: reason, command: command

      # The system is out of something.
      {_, posix} ->
        :erlang.error(posix)
    end
  end

  defp status(command, reason, posix) do
    IO.puts(:stderr, Exception.message(%Error{reason: reason, command: command}))
    Map.fetch!(@errno, posix)
  end

  defp nul?(text), do: :binary.match(text, <<0>>) != :nomatch
end
