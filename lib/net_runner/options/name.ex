defmodule NetRunner.Options.Name do
  @moduledoc false
  # Whether an option is one of a function; and what to say when it is not.

  alias NetRunner.Options
  alias NetRunner.Options.Declared

  # What gives the same elsewhere.
  @of_system_cmd %{
    into: "streams go into any collectable with Enum.into/2",
    stderr_to_stdout: "here it is stderr: :redirect",
    use_stdio: "here it is stdin: :inherit, stdout: :inherit, stderr: :inherit",
    parallelism: "leave it out, as it has no effect"
  }

  @names for {name, group, _type, _default} <- Declared.all(), do: {name, group}

  # The groups of each option, by its name.
  @groups Enum.group_by(@names, &elem(&1, 0), &elem(&1, 1))

  @doc "The names of the options of these groups."
  @spec names([Options.group()]) :: [atom()]
  def names(groups) do
    for {name, group} <- @names, group in groups, uniq: true, do: name
  end

  @doc "Raises unless the name is that of an option of these groups. `others`: further names that the caller knows."
  @spec known!(atom(), [Options.group()], [atom()]) :: :ok
  def known!(name, groups, others \\ []) do
    case @groups do
      %{^name => [first | _] = known} ->
        unless Enum.any?(known, &(&1 in groups)) do
          raise ArgumentError, misplaced(name, first)
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
end
