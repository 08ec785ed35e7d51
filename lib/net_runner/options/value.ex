defmodule NetRunner.Options.Value do
  @moduledoc false
  # What each option accepts, and what to say of a value that it does not.

  alias NetRunner.Options
  alias NetRunner.Options.{Declared, Kind}
  alias NetRunner.Run.CancelToken
  alias NetRunner.Sandbox.Policy
  alias NetRunner.System.{Cgroup, Descriptors}

  # The names of setrlimit(2). The system may know fewer.
  @resources ~w(as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack)a

  # What fits into the address of a Unix socket (unix(7)) on every system, with a NUL byte after it.
  @longest_socket_path 103

  # An option may mean something else in another group.
  @types Enum.group_by(Declared.all(), &elem(&1, 0), fn {_, group, type, _} -> {group, type} end)

  @doc "The value of an option as it is meant. Raises for what none of these groups accepts."
  @spec check!(atom(), term(), [Options.group()]) :: term()
  def check!(name, value, groups) do
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

  @doc "Of functions, only those of two arguments are."
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
