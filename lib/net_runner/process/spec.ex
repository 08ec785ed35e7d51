defmodule NetRunner.Process.Spec do
  @moduledoc false
  # From a command and its options to the fields that the shepherd reads, checking what comes from
  # outside on the way.

  alias NetRunner.Process.Native

  # What execvp(3) searches when there is no PATH.
  @default_path "/bin:/usr/bin"

  @type command :: [String.t()]

  @doc "The fields, or what is wrong with the command."
  @spec build(command(), map()) :: {:ok, [Native.field()]} | {:error, term()}
  def build([executable | args] = command, options) do
    with :ok <- check_executable(executable),
         :ok <- check_args(args),
         {:ok, env} <- environment(options.env),
         {:ok, cd} <- directory(options.cd) do
      {:ok, stop_signal} = NetRunner.Signal.resolve(options.stop_signal)

      {:ok,
       [
         {:file, executable},
         {:search_path, Map.get(env, "PATH", @default_path)},
         {:args, command},
         {:env, Enum.map(env, fn {name, value} -> name <> "=" <> value end)},
         {:stop_signal, stop_signal},
         {:kill_timeout, options.kill_timeout},
         {:leftovers, options.leftovers} | cd
       ]}
    end
  end

  def build(command, _options) do
    {:error,
     {:invalid_cmd,
      "a command is a list [executable | args] of strings, got: #{inspect(command)}"}}
  end

  defp check_executable(executable) do
    cond do
      not is_binary(executable) ->
        invalid_cmd("the executable must be a string, got: #{inspect(executable)}")

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
        {:error, {:invalid_args, "arguments must be a list, got: #{inspect(args)}"}}

      bad = Enum.find_index(args, &(not is_binary(&1))) ->
        bad_argument("argument #{bad + 1} is not a string", Enum.at(args, bad))

      bad = Enum.find_index(args, &nul?/1) ->
        bad_argument("argument #{bad + 1} contains a NUL byte", Enum.at(args, bad))

      true ->
        :ok
    end
  end

  defp proper_list?(args), do: is_list(args) and List.improper?(args) == false

  defp environment(changes) do
    Enum.reduce_while(changes, {:ok, System.get_env()}, fn {name, value}, {:ok, env} ->
      cond do
        name == "" or String.contains?(name, "=") ->
          {:halt, invalid_env("#{inspect(name)} is no name of a variable")}

        nul?(name) or (is_binary(value) and nul?(value)) ->
          {:halt, invalid_env("the variable #{inspect(name)} contains a NUL byte")}

        value == nil ->
          {:cont, {:ok, Map.delete(env, name)}}

        true ->
          {:cont, {:ok, Map.put(env, name, value)}}
      end
    end)
  end

  defp directory(nil), do: {:ok, []}

  defp directory(path) do
    if nul?(path),
      do: {:error, {:invalid_cd, "the :cd directory contains a NUL byte: #{inspect(path)}"}},
      else: {:ok, [{:cd, path}]}
  end

  defp nul?(string), do: :binary.match(string, <<0>>) != :nomatch

  defp invalid_cmd(message), do: {:error, {:invalid_cmd, message}}
  defp invalid_env(message), do: {:error, {:invalid_env, message}}
  defp bad_argument(what, value), do: {:error, {:invalid_args, "#{what}: #{inspect(value)}"}}
end
