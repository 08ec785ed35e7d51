defmodule NetRunner.Process.Sink do
  @moduledoc false
  # A command's stdin as a `Collectable`.

  alias NetRunner.Error
  alias NetRunner.Process.Client

  @enforce_keys [:process, :close?]
  defstruct [:process, :close?]

  @type t :: %__MODULE__{process: GenServer.server(), close?: boolean()}

  @doc "Writes an element, or raises."
  @spec write!(t(), iodata()) :: t()
  def write!(sink, iodata) do
    case Client.call(sink.process, {:write, Client.iovec!(iodata), :infinity}) do
      :ok -> sink
      {:error, reason} -> raise(error(sink.process, reason))
    end
  end

  @doc "All elements are written."
  @spec finish(t()) :: t()
  def finish(%{close?: false} = sink), do: sink

  def finish(sink) do
    case Client.call(sink.process, :close_stdin) do
      :ok -> sink
      {:error, reason} -> raise(error(sink.process, reason))
    end
  end

  defp error(process, reason) do
    with %{command: command} <- Client.call(process, {:tell, :info}),
         [_ | _] = known <- Client.call(process, :failure) do
      struct!(Error, [reason: reason, command: command] ++ known)
    else
      {:error, _gone} -> Error.exception(reason: reason, command: [])
    end
  end

  defimpl Collectable do
    alias NetRunner.Process.Sink

    def into(sink) do
      {sink,
       fn
         sink, {:cont, iodata} -> Sink.write!(sink, iodata)
         sink, :done -> Sink.finish(sink)
         _sink, :halt -> :ok
       end}
    end
  end
end
