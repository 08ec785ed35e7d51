defmodule NetRunner.Sandbox.Policy do
  @moduledoc false
  # What the option `:sandbox` says, checked, and the fields that the shepherd reads. Pure.

  alias NetRunner.Options.Kind
  alias NetRunner.Sandbox.Preset
  alias NetRunner.System.Native

  @layers [:filesystem, :network, :signals, :system_calls, :capabilities]

  # In the order of the documentation.
  @keys [:read, :write, :exec, :network, :processes, :tmp, :metadata, :without]

  @tmp_size 512 * 1024 * 1024

  # What `tmp: :private` replaces.
  @of_tmp ["/tmp", "/dev/shm"]

  @enforce_keys [:layers, :paths, :network, :processes, :tmp, :metadata]
  defstruct @enforce_keys

  # `layers`: those that are not given up. `paths`: what is allowed beneath which paths, in the order in which the shepherd
  # gets them; those of a preset (`:optional`) need not exist. `tmp`: the size of a private one, and whether what is in it
  # may be executed.
  @type layer :: NetRunner.Sandbox.layer()
  @type in_force :: NetRunner.Sandbox.in_force()
  @type access :: :readable | :writable | :executable
  @type t :: %__MODULE__{
          layers: [layer()],
          paths: [{access(), :required | :optional, [Path.t()]}],
          network:
            :none
            | :unix
            | :loopback
            | {:ports, connect :: [port_number()], bind :: [port_number()]}
            | :all,
          processes: :shared | :own,
          tmp: :shared | {:private, bytes :: pos_integer(), executable? :: boolean()},
          metadata: :open | :locked
        }
  @typep port_number :: 0..65_535

  @doc "The layers that can be given up."
  @spec layers() :: [layer()]
  def layers, do: @layers

  @doc "The names of the layers that are in force, in the order of the documentation."
  @spec in_force(t()) :: [in_force()]
  def in_force(policy) do
    policy.layers ++
      if(policy.processes == :own, do: [:processes], else: []) ++
      if(policy.tmp != :shared, do: [:tmp], else: []) ++
      if(policy.metadata == :locked, do: [:metadata], else: [])
  end

  @doc "Whether nothing can be left when the command has exited."
  @spec ends_all?(t()) :: boolean()
  def ends_all?(policy), do: policy.processes == :own

  @doc "Reads the option, or says what is wrong with it."
  @spec parse(term()) :: {:ok, t()} | {:error, String.t()}
  def parse(option) do
    if Keyword.keyword?(option),
      do: option |> given() |> Enum.map(&given_within/1) |> parse_keys(),
      else: {:error, "it must be a keyword list of #{names(@keys)}, got: #{Kind.of(option)}"}
  end

  defp given(keywords), do: Enum.reject(keywords, &match?({_, nil}, &1))

  # The keys of these have keys of their own. What is left of none is what it is without any.
  defp given_within({key, [{_, _} | _] = keywords}) when key in [:network, :tmp] do
    case {key, given(keywords)} do
      {:network, []} -> {key, false}
      {:tmp, []} -> {key, :private}
      {key, keywords} -> {key, keywords}
    end
  end

  defp given_within(key_and_value), do: key_and_value

  defp parse_keys(option) do
    with :ok <- check_once(option), :ok <- check_all(option), :ok <- check_lost(option) do
      given_up = Keyword.get(option, :without, [])
      network = if :network in given_up, do: :all, else: network(option[:network])

      layers = Enum.reject(@layers, &(&1 in given_up or (&1 == :network and network == :all)))

      {:ok,
       %__MODULE__{
         layers: layers,
         network: network,
         paths: allowed(option),
         processes: Keyword.get(option, :processes, :shared),
         tmp: tmp(option[:tmp], Keyword.get(option, :exec, ["/tmp"])),
         metadata: Keyword.get(option, :metadata, :open)
       }}
    end
  end

  # One of two lists would be ignored.
  defp check_once(option) do
    keys = Keyword.keys(option)

    case keys -- Enum.uniq(keys) do
      [] -> :ok
      [key | _] -> {:error, "the key #{inspect(key)} is given more than once"}
    end
  end

  defp check_all(option) do
    Enum.find_value(option, :ok, fn {key, value} ->
      with problem when problem != nil <- problem(key, value), do: {:error, problem}
    end)
  end

  # The command would write into a directory that is gone when it is over, and nobody would hear of it.
  defp check_lost(option) do
    case option[:tmp] && Enum.find(option[:write] || [], &(Path.expand(&1) in @of_tmp)) do
      nil ->
        :ok

      path ->
        {:error,
         "the path #{inspect(path, binaries: :as_strings)} in :write is replaced by :tmp, and what is written there is lost: name a path below it, or leave out one of them"}
    end
  end

  defp problem(key, paths) when key in [:read, :write, :exec] do
    cond do
      not proper_list?(paths) ->
        "#{inspect(key)} must be a list of paths, got: #{Kind.no_string(paths)}"

      paths != [] and List.ascii_printable?(paths) ->
        "#{inspect(key)} must be a list of paths, got: the charlist #{inspect(paths)}"

      true ->
        Enum.find_value(paths, &path_problem(key, &1))
    end
  end

  defp problem(:network, value) when value in [false, true, :unix, :loopback], do: nil

  defp problem(:network, [_ | _] = ports) do
    with true <- Keyword.keyword?(ports), :ok <- check_once(ports) do
      Enum.find_value(ports, &ports_problem/1)
    else
      false -> network_problem(ports)
      {:error, problem} -> "in :network, #{problem}"
    end
  end

  defp problem(:network, value), do: network_problem(value)

  defp problem(:processes, :own), do: nil
  defp problem(:metadata, :locked), do: nil
  defp problem(:tmp, :private), do: nil

  defp problem(:tmp, [{:size, size}]) do
    if not is_integer(size) or size not in 1..0x7FFF_FFFF_FFFF_FFFF,
      do: "the size of :tmp must be a number of bytes, at least 1, got: #{Kind.no_string(size)}"
  end

  defp problem(:tmp, [{key, _value}]) when is_atom(key),
    do: "in :tmp, there is no key #{inspect(key)}; the key is :size"

  defp problem(:processes, value),
    do: ":processes must be :own or left out, got: #{Kind.no_string(value)}"

  defp problem(:metadata, value),
    do: ":metadata must be :locked or left out, got: #{Kind.no_string(value)}"

  defp problem(:tmp, value),
    do: ":tmp must be :private, [size: bytes] or left out, got: #{Kind.no_string(value)}"

  defp problem(:without, layers) do
    case proper_list?(layers) && Enum.reject(layers, &(&1 in @layers)) do
      false ->
        ":without must be a list of layers, got: #{Kind.no_string(layers)}"

      [] ->
        nil

      [wrong | _] ->
        "the layers are #{names(@layers)}; :without contains #{Kind.no_string(wrong)}"
    end
  end

  defp problem(key, _value), do: "there is no key #{inspect(key)}; the keys are #{names(@keys)}"

  defp network_problem(value) do
    ":network must be false, :unix, :loopback, true or [connect: ports, bind: ports], got: #{Kind.no_string(value)}"
  end

  defp ports_problem({:connect, ports}), do: ports_problem(:connect, ports, 1)
  defp ports_problem({:bind, ports}), do: ports_problem(:bind, ports, 0)

  defp ports_problem({key, _ports}),
    do: "in :network, there is no key #{inspect(key)}; the keys are :connect, :bind"

  defp ports_problem(key, ports, first) do
    must_be = "in :network, #{inspect(key)} must be a list of ports from #{first} to 65535"

    case proper_list?(ports) && Enum.reject(ports, &(&1 in first..65_535)) do
      false -> "#{must_be}, got: #{Kind.no_string(ports)}"
      [] -> nil
      [wrong | _] -> "#{must_be}; it contains #{Kind.no_string(wrong)}"
    end
  end

  defp proper_list?(value), do: is_list(value) and not List.improper?(value)

  defp names(atoms), do: Enum.map_join(atoms, ", ", &inspect/1)

  defp path_problem(:write, :system),
    do: ":write must not name :system: the command could change the programs of the system"

  defp path_problem(_key, :system), do: nil

  defp path_problem(key, path) when is_binary(path) do
    problem =
      cond do
        :binary.match(path, <<0>>) != :nomatch ->
          "contains a NUL byte"

        not String.starts_with?(path, "/") ->
          "is not absolute (Path.expand/1 makes it so)"

        of_a_process?(path) ->
          "would mean a process of NetRunner and not the command; name the path that it leads to"

        true ->
          nil
      end

    problem && "the path #{inspect(path, binaries: :as_strings)} in #{inspect(key)} #{problem}"
  end

  defp path_problem(:write, path),
    do: ":write must be a list of strings; it contains #{Kind.no_string(path)}"

  defp path_problem(key, path),
    do:
      "#{inspect(key)} must be a list of strings and :system; it contains #{Kind.no_string(path)}"

  # Most paths have neither name in them, and are not looked at closer: that takes longer than all else here.
  defp of_a_process?(path) do
    :binary.match(path, ["/proc", "/dev"]) != :nomatch and of_a_process_expanded?(path)
  end

  defp of_a_process_expanded?(path) do
    case path |> Path.expand() |> String.split("/", trim: true) do
      ["proc", name | _] -> name in ["self", "thread-self"]
      ["dev", name | _] -> name in ["fd", "stdin", "stdout", "stderr"]
      _other -> false
    end
  end

  defp network(value) when value in [nil, false], do: :none
  defp network(true), do: :all
  defp network(name) when is_atom(name), do: name

  defp network(ports),
    do: {:ports, Keyword.get(ports, :connect, []), Keyword.get(ports, :bind, [])}

  # Like every other path: with `:exec`, only what is beneath its paths is executed.
  defp tmp(nil, _exec), do: :shared
  defp tmp(:private, exec), do: {:private, @tmp_size, "/tmp" in exec}
  defp tmp([size: size], exec), do: {:private, size, "/tmp" in exec}

  # Without `:exec`, what may be read may be executed.
  defp allowed(option) do
    read = Keyword.get(option, :read, [])
    write = Keyword.get(option, :write, [])

    case Keyword.fetch(option, :exec) do
      {:ok, exec} ->
        paths(:executable, exec) ++ paths(:readable, read) ++ paths(:writable, write)

      :error ->
        paths(:executable, read) ++ paths(:writable, write) ++ paths(:executable, write)
    end
  end

  defp paths(_access, []), do: []

  defp paths(access, [:system | paths]),
    do: [{access, :optional, Preset.paths(:system)} | paths(access, paths)]

  defp paths(access, paths) do
    {required, paths} = Enum.split_while(paths, &(&1 != :system))
    [{access, :required, required} | paths(access, paths)]
  end

  @doc "What the shepherd reads."
  @spec fields(t()) :: [Native.field()]
  def fields(policy) do
    # The network is a layer by what it is limited to.
    layers = policy.layers -- [:network]

    [{:sandbox, {layers, network_name(policy.network)}} | path_fields(policy.paths)] ++
      port_fields(policy.network) ++
      if(policy.processes == :own, do: [{:own_processes, true}], else: []) ++
      tmp_fields(policy.tmp) ++
      if(policy.metadata == :locked, do: [{:locked_metadata, true}], else: [])
  end

  defp network_name({:ports, _, _}), do: :ports
  defp network_name(name), do: name

  defp port_fields({:ports, connect, bind}), do: [{:connect, connect}, {:bind, bind}]
  defp port_fields(_name), do: []

  defp tmp_fields(:shared), do: []
  defp tmp_fields({:private, size, executable?}), do: [{:private_tmp, {size, executable?}}]

  defp path_fields(paths) do
    for {access, presence, paths} <- paths, do: {field(access, presence), paths}
  end

  defp field(access, :required), do: access
  defp field(:readable, :optional), do: :readable_if_there
  defp field(:executable, :optional), do: :executable_if_there

  # What the shepherd counts up to.
  @last_index 65_535

  @doc "The path with this index, as the shepherd counts them: one of those from the last index on is not known."
  @spec path(t(), non_neg_integer()) :: Path.t() | nil
  def path(_policy, @last_index), do: nil

  def path(policy, index) do
    policy.paths |> Enum.flat_map(&elem(&1, 2)) |> Enum.at(index)
  end
end
