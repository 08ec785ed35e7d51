defmodule NetRunner.Options.Kind do
  @moduledoc false
  # Values in the words of an error message.

  @doc "What stands where a string is expected. Options that were put there may hold secrets."
  @spec no_string(term()) :: String.t()
  def no_string({name, _value}) when is_atom(name),
    do: "the option #{inspect(name)}; options are a list of their own, after the arguments"

  def no_string([{name, _value} | _]) when is_atom(name),
    do: "options, such as #{inspect(name)}; they are a list of their own, after the arguments"

  def no_string([word | _]) when is_binary(word), do: "a list that begins with a string"

  def no_string(value) when is_binary(value) or is_atom(value) or is_number(value),
    do: inspect(value)

  def no_string(value) do
    if is_list(value) and List.ascii_printable?(value), do: inspect(value), else: of(value)
  end

  @doc "The value itself, or what it is where something in it looks like options or variables, which may hold secrets."
  @spec shown(term()) :: String.t()
  def shown(value), do: if(secret?(value), do: of(value), else: inspect(value))

  defp secret?({name, _value}) when name in [:env, :input, :fds], do: true
  defp secret?({name, value}) when is_binary(name) and is_binary(value), do: true
  defp secret?([first | rest]), do: secret?(first) or secret?(rest)
  defp secret?(value) when is_tuple(value), do: value |> Tuple.to_list() |> secret?()
  defp secret?(value) when is_struct(value), do: false
  defp secret?(value) when is_map(value), do: value |> Map.to_list() |> secret?()
  defp secret?(_value), do: false

  @doc "What is wrong with the first of these arguments that is no string, or `nil`."
  @spec no_strings([term()]) :: String.t() | nil
  def no_strings(args) do
    index = Enum.find_index(args, &(not is_binary(&1)))
    index && "argument #{index + 1} is not a string: #{no_string(Enum.at(args, index))}"
  end

  @doc "What a value is, without saying which it is: it may be secret."
  @spec of(term()) :: String.t()
  def of(%module{}), do: "a #{inspect(module)}"
  def of(value) when is_map(value), do: "a map"
  def of(value) when is_list(value), do: "a list"
  def of(value) when is_binary(value), do: "a string"
  def of(value) when is_tuple(value), do: "a tuple"
  def of(value) when is_function(value), do: inspect(value)
  def of(value) when is_pid(value), do: "a process"
  def of(value) when is_bitstring(value), do: "a bitstring whose bits are no whole bytes"
  def of(value) when is_number(value), do: "a number"
  def of(value) when is_atom(value), do: "an atom"
  def of(_value), do: "another term"
end
