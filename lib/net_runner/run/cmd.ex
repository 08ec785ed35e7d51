defmodule NetRunner.Run.Cmd do
  @moduledoc false
  # `NetRunner.cmd/3`: the arguments, results and exceptions of `System.cmd/3`, in the order in which that
  # one looks at them.

  alias NetRunner.{Error, Options}
  alias NetRunner.Process, as: Command
  alias NetRunner.Process.Server

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

  @spec run(String.t(), [String.t()], keyword()) :: {Collectable.t(), non_neg_integer()}
  def run(executable, args, options) do
    check_command!(executable, args)
    path = find!(executable)
    settings = settings(options)
    {collected, collector} = Collectable.into(settings.into)

    try do
      case Server.start([path | args], command_options(settings)) do
        {:ok, server} -> output(server, settings, collected, collector, [path | args])
        {:error, reason} -> {collected, not_started([path | args], reason)}
      end
    catch
      kind, reason ->
        collector.(collected, :halt)
        :erlang.raise(kind, reason, __STACKTRACE__)
    else
      {collected, status} -> {collector.(collected, :done), status}
    end
  end

  defp check_command!(executable, args) do
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
    {use_stdio?, options} = Keyword.pop(options, :use_stdio, true)

    settings =
      Enum.reduce(options, %{into: "", lines?: false, merge?: false, options: []}, &option/2)

    if settings.merge? and !use_stdio? do
      raise ArgumentError, ~s(cannot use "stderr_to_stdout: true" and "use_stdio: false")
    end

    Map.put(settings, :use_stdio?, use_stdio?)
  end

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

  defp option({:env, env}, settings), do: first(settings, :env, Enum.map(env, &variable/1))

  # Meant for `NetRunner.run/2`. Its value may be secret.
  defp option({:input, _value}, _settings) do
    raise ArgumentError, "invalid option :input; NetRunner.run/2 takes it"
  end

  defp option({name, value}, _settings) do
    raise ArgumentError, "invalid option #{inspect(name)} with value #{inspect(value)}"
  end

  # Of an option that is given twice, the first counts.
  defp first(settings, name, value),
    do: %{settings | options: Keyword.put_new(settings.options, name, value)}

  # An empty value unsets, as `nil` does.
  defp variable({name, value}) when value in [nil, ""], do: {utf8!(name), nil}
  defp variable({name, value}), do: {utf8!(name), utf8!(value)}

  # `System.cmd/3` shows which, but it may be secret.
  defp variable(_other), do: raise(ArgumentError, "invalid environment key-value")

  # As `String.to_charlist/1` raises, but with no stacktrace that shows the value, which may be secret.
  defp utf8!(text) when not is_binary(text),
    do: raise(FunctionClauseError, module: String, function: :to_charlist, arity: 1)

  defp utf8!(text), do: text |> String.to_charlist() |> List.to_string()

  defp command_options(%{use_stdio?: use_stdio?} = settings) when use_stdio? in [nil, false] do
    Options.validate!(
      settings.options ++ [stdin: :inherit, stdout: :inherit, stderr: :inherit],
      [:command]
    )
  end

  # Stdin is a pipe into which nothing is written, and which is not closed.
  defp command_options(settings) do
    stderr = if settings.merge?, do: :redirect, else: :inherit
    Options.validate!(settings.options ++ [stdin: :pipe, stderr: stderr], [:command])
  end

  # --- output ---------------------------------------------------------------------------------------

  # A string takes all at once, so the server can do all of it in one call.
  defp output(server, %{into: into, lines?: false}, collected, collector, command)
       when is_binary(into) do
    case Command.collect(server, :infinity, :infinity) do
      {:error, reason} -> raise Error, reason: reason, command: command
      {"", status} -> {collected, status}
      {bytes, status} -> {collector.(collected, {:cont, bytes}), status}
    end
  end

  defp output(server, settings, collected, collector, command) do
    server
    |> NetRunner.Run.Stream.tagged(command, if(settings.lines?, do: :trim))
    |> Enum.reduce({collected, nil}, fn
      {:stdout, piece}, {collected, nil} -> {collector.(collected, {:cont, piece}), nil}
      {:exit, status}, {collected, nil} -> {collected, status}
    end)
  end

  # --- what cannot be started -------------------------------------------------------------------------

  # What a port finds before it starts anything is raised; of what it finds after that, the number of the
  # error is the status. Nothing else would say what happened, so the sentence goes to stderr.
  defp not_started([path | _] = command, reason) do
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

      {_, reason} when reason in [:launcher_died, :shepherd_died, :not_started] ->
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
