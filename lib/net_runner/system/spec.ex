defmodule NetRunner.System.Spec do
  @moduledoc false
  # Checks a command and its options, and makes the fields that the shepherd reads.

  alias NetRunner.Options.Kind
  alias NetRunner.Sandbox.{Policy, Refusal}
  alias NetRunner.Signal
  alias NetRunner.System.Native

  # The search path of execvp(3) when there is no PATH.
  @default_path "/bin:/usr/bin"

  @type command :: [String.t()]

  @doc "The fields, or what is wrong with the command."
  @spec build(command(), map()) :: {:ok, [Native.field()]} | {:error, term()}
  def build(command, %{} = options) do
    with :ok <- check_words(command),
         {:ok, cd} <- directory(options.cd),
         {:ok, environment} <- environment(options),
         {:ok, account} <- account(options) do
      [executable | args] = command

      {:ok,
       [
         {:file, executable},
         {:args, if(options.arg0, do: [options.arg0 | args], else: command)},
         {:stop_signal, stop_signal(options.stop_signal)},
         {:kill_timeout, options.kill_timeout},
         {:leftovers, options.leftovers}
       ] ++ environment ++ cd ++ account ++ settings(options) ++ sandbox(options.sandbox)}
    end
  end

  @doc "What is wrong with the command, as far as nobody has to be asked: what `build/2` would say."
  @spec check(command(), map()) :: :ok | {:error, term()}
  def check(command, %{} = options) do
    with :ok <- check_words(command),
         {:ok, _cd} <- directory(options.cd),
         {:ok, _changes} <- check_env(options.env),
         do: :ok
  end

  defp check_words([executable | args]) when not is_integer(executable) do
    with :ok <- check_executable(executable), do: check_args(args)
  end

  defp check_words(command) do
    hint = if is_binary(command), do: " (NetRunner.shell/2 runs a line of shell script)", else: ""

    invalid_cmd(
      "a command is a list [executable | args] of strings, got: #{Kind.no_string(command)}#{hint}"
    )
  end

  defp check_executable(executable) do
    cond do
      match?([word | _] when is_binary(word), executable) ->
        invalid_cmd(
          "the executable must be a string, got: a list; its arguments are a list of their own, after it"
        )

      not is_binary(executable) ->
        invalid_cmd("the executable must be a string, got: #{Kind.no_string(executable)}")

      executable == "" ->
        invalid_cmd("the executable is an empty string")

      nul?(executable) ->
        invalid_cmd("the executable contains a NUL byte: #{inspect(executable)}")

      true ->
        :ok
    end
  end

  defp check_args(args) do
    cond do
      not proper_list?(args) ->
        {:error, {:invalid_args, "arguments must be a list, got: #{Kind.no_string(args)}"}}

      not Enum.all?(args, &is_binary/1) ->
        {:error, {:invalid_args, Kind.no_strings(args)}}

      bad = Enum.find_index(args, &nul?/1) ->
        value = Kind.no_string(Enum.at(args, bad))
        {:error, {:invalid_args, "argument #{bad + 1} contains a NUL byte: #{value}"}}

      true ->
        :ok
    end
  end

  defp proper_list?(args), do: is_list(args) and List.improper?(args) == false

  defp environment(%{env: changes, clear_env: clear?, cd: cd}) do
    with {:ok, changes} <- check_env(changes) do
      changes = if clear?, do: changes, else: Map.merge(pwd(cd), changes)

      {inherited, path} =
        if clear?, do: {"", nil}, else: Native.environment(:os.env(), Map.keys(changes))

      set = for {name, value} <- changes, value != nil, do: name <> "=" <> value

      {:ok,
       [
         {:environment, inherited},
         {:env, set},
         {:search_path, Map.get(changes, "PATH", path) || @default_path}
       ]}
    end
  end

  # With `:cd`, the VM's own PWD would be wrong for the command (POSIX). Symbolic links in `:cd` stay, as after a
  # shell's `cd`.
  defp pwd(nil), do: %{}
  defp pwd("/" <> _ = path), do: %{"PWD" => absolute([], path)}

  defp pwd(path) do
    case :file.get_cwd() do
      {:ok, cwd} ->
        base = cwd |> Native.path_bytes() |> String.split("/", trim: true)
        %{"PWD" => absolute(Enum.reverse(base), path)}

      # The VM's working directory was removed.
      {:error, _} ->
        %{"PWD" => nil}
    end
  end

  # `base`: the names of a directory without links, the last one first, so a `..` there only takes away a name. A `..`
  # behind a name in `path`, which may be a link, needs the kernel: then there is no PWD, and a program that wants to
  # know asks (getcwd(3)).
  defp absolute(base, path) do
    names = path |> String.split("/", trim: true) |> Enum.reject(&(&1 == "."))
    {ups, names} = Enum.split_while(names, &(&1 == ".."))
    base = Enum.drop(base, length(ups))
    if ".." in names, do: nil, else: "/" <> Enum.join(Enum.reverse(base, names), "/")
  end

  defp check_env([]), do: {:ok, %{}}

  defp check_env(changes) do
    Enum.reduce_while(changes, {:ok, %{}}, fn {name, value}, {:ok, checked} ->
      cond do
        name == "" ->
          {:halt, invalid_env("the name of a variable must not be empty")}

        # What follows the "=" may be meant as the value, and may be secret.
        :binary.match(name, "=") != :nomatch ->
          [name, _] = :binary.split(name, "=")
          {:halt, invalid_env("#{inspect(name <> "=…")} is not the name of a variable")}

        nul?(name) or (is_binary(value) and nul?(value)) ->
          {:halt, invalid_env("the variable #{inspect(name)} contains a NUL byte")}

        true ->
          {:cont, {:ok, Map.put(checked, name, value)}}
      end
    end)
  end

  defp directory(nil), do: {:ok, []}

  defp directory(path) do
    if nul?(path),
      do: {:error, {:invalid_cd, "the :cd directory contains a NUL byte: #{inspect(path)}"}},
      else: {:ok, [{:cd, path}]}
  end

  # A user brings its groups, unless the options name others.
  defp account(%{user: nil} = options) do
    with {:ok, gid} <- group(options.group),
         {:ok, groups} <- groups(options.groups, nil) do
      {:ok, gid ++ groups}
    end
  end

  defp account(%{} = options) do
    with {:ok, uid, gid, groups} <- user(options.user, options.group),
         {:ok, gid} <- group(options.group || gid),
         {:ok, groups} <- groups(options.groups, groups) do
      {:ok, [{:uid, uid} | gid ++ groups]}
    end
  end

  defp user(user, group) do
    case Native.user(user) do
      {:ok, _, _, _} = found -> found
      # An ID without an account will do if the options name a group.
      {:error, :enoent} when is_integer(user) and group != nil -> {:ok, user, nil, []}
      {:error, reason} -> {:error, {:user, reason}}
    end
  end

  defp group(nil), do: {:ok, []}

  defp group(group) do
    with {:ok, gid} <- group_id(group, :group), do: {:ok, [{:gid, gid}]}
  end

  defp groups(nil, nil), do: {:ok, []}
  defp groups(nil, default), do: {:ok, [{:groups, default}]}

  defp groups(groups, _default) do
    with {:ok, gids} <- group_ids(groups, []), do: {:ok, [{:groups, gids}]}
  end

  defp group_ids([], gids), do: {:ok, Enum.reverse(gids)}

  defp group_ids([group | groups], gids) do
    with {:ok, gid} <- group_id(group, :groups), do: group_ids(groups, [gid | gids])
  end

  @doc "Names the option that is to blame for a failed start: the groups may have come with `:user`."
  @spec blame(term(), map()) :: term()
  def blame({{:sandbox, what}, errno}, options),
    do: {:sandbox, Refusal.sentence(what, errno, options.sandbox)}

  def blame({:group, reason}, %{group: nil}), do: {:user, reason}
  def blame({:groups, reason}, %{groups: nil}), do: {:user, reason}
  def blame(reason, _options), do: reason

  defp group_id(gid, _option) when is_integer(gid), do: {:ok, gid}

  defp group_id(name, option) do
    with {:error, reason} <- Native.group(name), do: {:error, {option, reason}}
  end

  @unlimited 0xFFFF_FFFF_FFFF_FFFF

  defp settings(%{} = options) do
    umask = for umask <- List.wrap(options.umask), do: {:umask, umask}
    nice = for nice <- List.wrap(options.nice), do: {:nice, nice}
    privileges = if options.no_new_privs, do: [{:no_new_privs, true}], else: []

    rlimits =
      for {resource, limit} <- options.rlimits do
        {soft, hard} = if is_tuple(limit), do: limit, else: {limit, limit}
        {:rlimit, {resource, limit(soft), limit(hard)}}
      end

    umask ++ nice ++ privileges ++ rlimits
  end

  defp sandbox(nil), do: []
  defp sandbox(policy), do: Policy.fields(policy)

  @sigterm Signal.resolve!(:sigterm)

  # What most commands have. Otherwise `NetRunner.Signal` is to be loaded.
  defp stop_signal(:sigterm), do: @sigterm
  defp stop_signal(signal), do: Signal.resolve!(signal)

  defp limit(:infinity), do: @unlimited
  defp limit(number), do: number

  defp nul?(string), do: :binary.match(string, <<0>>) != :nomatch

  defp invalid_cmd(message), do: {:error, {:invalid_cmd, message}}
  defp invalid_env(message), do: {:error, {:invalid_env, message}}
end
