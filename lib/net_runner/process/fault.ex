defmodule NetRunner.Process.Fault do
  @moduledoc false
  # What is told of a fault in NetRunner. A stacktrace, and the terms of an exception, hold arguments: the environment, what
  # was to be written, and more that may be secret.

  @doc "What was raised, and in which function."
  @spec sentence(String.t(), :error | :exit | :throw, term(), Exception.stacktrace()) ::
          String.t()
  def sentence(what_happened, kind, reason, [{module, function, arguments, _} | _]) do
    # By nothing that may not be loaded, such as a protocol: that may be the fault.
    what_happened <>
      " because of a fault in NetRunner: " <>
      name(what(kind, reason)) <>
      " in " <>
      name(module) <> "." <> name(function) <> "/" <> Integer.to_string(arity(arguments))
  end

  @doc "A process's status, as `c:GenServer.format_status/1` gets it, without its secrets; `state` is told in the place of the state."
  @spec hide(map(), String.t()) :: map()
  def hide(status, state) do
    status
    |> Map.replace(:state, state)
    |> Map.replace(:message, "hidden")
    |> Map.replace(:log, [])
  end

  defp name(atom) do
    case Atom.to_string(atom) do
      "Elixir." <> name -> name
      name -> name
    end
  end

  defp what(:error, %exception{}), do: exception
  defp what(:error, reason) when is_atom(reason), do: reason

  defp what(:error, reason) when is_tuple(reason) and is_atom(elem(reason, 0)),
    do: elem(reason, 0)

  defp what(kind, _reason), do: kind

  defp arity(arguments) when is_list(arguments), do: length(arguments)
  defp arity(arity), do: arity
end
