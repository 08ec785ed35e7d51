defmodule NetRunner.System.Cgroup do
  @moduledoc false
  # The VM's part in a command's cgroup (cgroups(7), version 2): it makes the directory and sets the limits before the
  # command starts, in the process that starts it, and reads the figures when the command has exited. The child joins
  # the cgroup before it becomes the command. The shepherd ends what is in it and removes it, so that it is gone also
  # when the VM is.
  #
  # A cgroup that exists and is only joined (`cgroup: [join: path]`) is somebody else's: the VM and the shepherd do none of
  # this to it, and its figures are not those of the command.

  alias NetRunner.Options.Kind

  @mountinfo "/proc/self/mountinfo"

  @removal_tries 200
  @removal_pause 5

  # {limit, file, controller}
  @limits [
    memory_max: {"memory.max", "memory"},
    memory_high: {"memory.high", "memory"},
    memory_low: {"memory.low", "memory"},
    memory_swap_max: {"memory.swap.max", "memory"},
    memory_oom_group: {"memory.oom.group", "memory"},
    pids_max: {"pids.max", "pids"},
    cpu_max: {"cpu.max", "cpu"},
    cpu_weight: {"cpu.weight", "cpu"},
    cpu_idle: {"cpu.idle", "cpu"},
    io_weight: {"io.weight", "io"},
    cpuset_cpus: {"cpuset.cpus", "cpuset"}
  ]

  @bytes ~w(memory_max memory_high memory_low memory_swap_max)a

  # What the kernel counts, by its name in which file.
  @events %{
    "low" => :memory_low_events,
    "high" => :memory_high_events,
    "max" => :memory_max_events,
    "oom" => :memory_oom_events,
    "oom_kill" => :memory_oom_kills,
    "oom_group_kill" => :memory_oom_group_kills
  }

  @cpu %{
    "usage_usec" => :cpu_usage_us,
    "user_usec" => :cpu_user_us,
    "system_usec" => :cpu_system_us,
    "nr_throttled" => :cpu_throttled_count,
    "throttled_usec" => :cpu_throttled_us
  }

  @single [
    memory_current_bytes: "memory.current",
    memory_peak_bytes: "memory.peak",
    memory_swap_peak_bytes: "memory.swap.peak",
    pids_current: "pids.current",
    pids_peak: "pids.peak"
  ]

  @type t :: Path.t() | nil

  @doc """
  What is wrong with the value of `:cgroup`; `nil`: nothing is. It is limits with values that the kernel accepts, or a
  cgroup to join and nothing else.
  """
  @spec problem(term()) :: String.t() | nil
  def problem([{:join, path}]) when is_binary(path), do: nil

  def problem(limits) do
    if Keyword.keyword?(limits),
      do: Enum.find_value(limits, &problem_of/1),
      else: Kind.shown(limits)
  end

  defp problem_of({name, value} = limit) do
    cond do
      limit?(limit) -> nil
      name == :join and is_binary(value) -> ":join beside limits"
      true -> Kind.shown([limit])
    end
  end

  @doc "Whether these say that a cgroup is only joined."
  @spec joins?(term()) :: boolean()
  def joins?(limits), do: match?([{:join, _}], limits)

  @doc "The names of the limits."
  @spec names() :: [atom()]
  def names, do: Keyword.keys(@limits)

  defp limit?({name, :max}) when name in [:pids_max, :cpu_max | @bytes], do: true
  defp limit?({name, bytes}) when name in @bytes, do: is_integer(bytes) and bytes >= 0
  defp limit?({:pids_max, number}), do: is_integer(number) and number >= 0
  defp limit?({name, weight}) when name in [:cpu_weight, :io_weight], do: weight in 1..10_000
  defp limit?({name, on?}) when name in [:memory_oom_group, :cpu_idle], do: is_boolean(on?)
  defp limit?({:cpuset_cpus, cpus}), do: is_binary(cpus) and cpus?(cpus)

  defp limit?({:cpu_max, {quota, period}}) do
    (quota == :max or (is_integer(quota) and quota >= 1_000)) and period in 1_000..1_000_000
  end

  defp limit?(_), do: false

  # Numbers and ranges, such as `0-2,7`.
  defp cpus?(cpus) do
    cpus
    |> String.split(",")
    |> Enum.all?(fn part ->
      case Regex.run(~r/\A([0-9]{1,5})(?:-([0-9]{1,5}))?\z/, part) do
        [_, _cpu] -> true
        [_, first, last] -> String.to_integer(first) <= String.to_integer(last)
        nil -> false
      end
    end)
  end

  @doc "The cgroup that the command is only to join, where the options say so."
  @spec joined(map()) :: {:ok, Path.t() | nil} | {:error, term()}
  def joined(%{cgroup: [join: path]}) do
    with {:ok, parts} <- parts(path, "the path to :join"),
         {:ok, mount} <- mount_point() do
      directory = Path.join([mount | parts])

      if File.exists?(Path.join(directory, "cgroup.procs")),
        do: {:ok, directory},
        else: failure("there is no #{directory}, and :join is for a cgroup that exists")
    end
  end

  def joined(_options), do: {:ok, nil}

  @doc "Makes the cgroup, if the options ask for one."
  @spec create(map()) :: {:ok, t()} | {:error, term()}
  def create(%{cgroup_path: nil, cgroup: [join: _path]}), do: {:ok, nil}

  def create(%{cgroup_path: nil}) do
    {:error,
     {:invalid_cgroup_path, "limits (:cgroup) need a :cgroup_path for the cgroup they are for"}}
  end

  def create(%{cgroup_path: path, cgroup: limits}) do
    with {:ok, parts} <- parts(path, "the :cgroup_path"),
         {:ok, mount} <- mount_point(),
         :ok <- make_parents(mount, Enum.drop(parts, -1)),
         directory = Path.join([mount | parts]),
         :ok <- delegate(mount, Enum.drop(parts, -1), limits),
         :ok <- make(directory) do
      case set(directory, limits) do
        :ok ->
          {:ok, directory}

        error ->
          remove(directory)
          error
      end
    end
  end

  @doc "For a command that did not start, or whose shepherd was killed."
  @spec remove(Path.t()) :: :ok
  def remove(directory) do
    _ = put(directory, "cgroup.kill", "1")
    remove(directory, @removal_tries)
  end

  # Race: busy cgroup.
  defp remove(directory, tries) do
    # No wildcard: its name may hold characters that mean something there.
    with {:ok, names} <- File.ls(directory) do
      for name <- names, path = Path.join(directory, name), File.dir?(path), do: remove(path, 1)
    end

    with {:error, reason} when reason in [:ebusy, :eexist] and tries > 1 <- File.rmdir(directory) do
      Process.sleep(@removal_pause)
      remove(directory, tries - 1)
    else
      _ -> :ok
    end
  end

  @doc "What the kernel has counted. A figure that it does not count in this cgroup is missing."
  @spec figures(Path.t()) :: %{atom() => non_neg_integer()}
  def figures(directory) do
    single =
      for {key, file} <- @single,
          {number, _} <- [Integer.parse(read(directory, file))],
          do: {key, number}

    keyed = keyed(directory, "cpu.stat", @cpu) ++ keyed(directory, "memory.events", @events)
    Map.new(keyed ++ single)
  end

  defp keyed(directory, file, keys) do
    for line <- String.split(read(directory, file), "\n"),
        [name, number] <- [String.split(line)],
        key = keys[name],
        do: {key, String.to_integer(number)}
  end

  defp read(directory, file) do
    case File.read(Path.join(directory, file)) do
      {:ok, text} -> text
      {:error, _} -> ""
    end
  end

  # --- the path ---------------------------------------------------------------------------------------

  defp parts(path, what) do
    parts = Path.split(path)

    cond do
      path == "" ->
        invalid("#{what} is empty")

      String.contains?(path, <<0>>) ->
        invalid("#{what} contains a NUL byte: #{inspect(path)}")

      Path.type(path) != :relative ->
        invalid("#{what} must be relative, got: #{inspect(path)}")

      Enum.any?(parts, &(&1 in [".", ".."])) ->
        invalid("#{what} must be without . and .., got: #{inspect(path)}")

      true ->
        {:ok, parts}
    end
  end

  defp invalid(message), do: {:error, {:invalid_cgroup_path, message}}

  # proc(5): behind a lone "-" are the type, the source and the options of the file system. In a hybrid layout, version 2
  # is mounted beside version 1, in a directory of its own.
  defp mount_point do
    with {:ok, text} <- File.read(@mountinfo),
         [mount | _] <- for(line <- String.split(text, "\n"), mount = cgroup2(line), do: mount) do
      {:ok, mount}
    else
      {:error, full} when full in [:emfile, :enfile] -> {:error, full}
      _ -> failure("no cgroup file system of version 2 is mounted")
    end
  end

  defp cgroup2(line) do
    with [mount, system] <- String.split(line, " - ", parts: 2),
         "cgroup2 " <> _ <- system,
         [_id, _parent, _device, _root, point | _] <- String.split(mount, " ") do
      unescape(point)
    else
      _ -> nil
    end
  end

  # Blanks and some other characters are written as octal numbers.
  defp unescape(point) do
    Regex.replace(~r/\\([0-7]{3})/, point, fn _, digits -> <<String.to_integer(digits, 8)>> end)
  end

  # --- the directories --------------------------------------------------------------------------------

  defp make_parents(mount, parts) do
    directory = Path.join([mount | parts])

    with {:error, reason} <- File.mkdir_p(directory) do
      failure("#{directory} cannot be created: #{NetRunner.Error.system_error(reason)}")
    end
  end

  # A directory that exists already may hold processes of others, which would be ended.
  defp make(directory) do
    case File.mkdir(directory) do
      :ok ->
        :ok

      {:error, :eexist} ->
        failure("#{directory} exists already; each command needs one of its own")

      {:error, reason} ->
        failure("#{directory} cannot be created: #{NetRunner.Error.system_error(reason)}")
    end
  end

  # A cgroup has a controller only if each cgroup above it hands the controller down.
  defp delegate(mount, parents, limits) do
    controllers = limits |> Enum.map(fn {name, _} -> elem(@limits[name], 1) end) |> Enum.uniq()
    directories = Enum.scan([mount | parents], &Path.join(&2, &1))

    for(directory <- directories, controller <- controllers, do: {directory, controller})
    |> Enum.find_value(:ok, fn {directory, controller} ->
      with :ok <- hand_down(directory, controller), do: nil
    end)
  end

  defp hand_down(directory, controller) do
    cond do
      controller in String.split(read(directory, "cgroup.subtree_control")) ->
        :ok

      controller not in String.split(read(directory, "cgroup.controllers")) ->
        failure("the controller #{inspect(controller)} is not available in #{directory}")

      true ->
        with {:error, reason} <- put(directory, "cgroup.subtree_control", "+" <> controller) do
          failure(
            "the controller #{inspect(controller)} cannot be enabled below #{directory}: " <>
              NetRunner.Error.system_error(reason)
          )
        end
    end
  end

  defp set(directory, limits) do
    Enum.find_value(limits, :ok, fn {name, value} ->
      {file, _} = @limits[name]

      with {:error, reason} <- put(directory, file, text(value)) do
        failure("#{inspect(name)} cannot be set: #{NetRunner.Error.system_error(reason)}")
      else
        :ok -> nil
      end
    end)
  end

  defp put(directory, file, text), do: File.write(Path.join(directory, file), text)

  defp text(true), do: "1"
  defp text(false), do: "0"
  defp text({quota, period}), do: "#{quota} #{period}"
  defp text(value), do: "#{value}"

  defp failure(message), do: {:error, {:cgroup, message}}
end
