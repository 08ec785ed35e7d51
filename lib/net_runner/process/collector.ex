defmodule NetRunner.Process.Collector do
  @moduledoc false
  # All that a command prints, for one caller, as pure data.

  @enforce_keys [:limit]
  defstruct [:limit, size: 0, chunks: []]

  @type t :: %__MODULE__{
          limit: non_neg_integer() | :infinity,
          size: non_neg_integer(),
          chunks: iodata()
        }

  @spec new(non_neg_integer() | :infinity) :: t()
  def new(limit), do: %__MODULE__{limit: limit}

  @doc "Adds a chunk. `:full`: there are more bytes than the limit allows."
  @spec add(t(), binary()) :: {:ok | :full, t()}
  def add(%__MODULE__{} = collector, bytes) do
    size = collector.size + byte_size(bytes)
    collector = %{collector | size: size, chunks: [collector.chunks, bytes]}
    {if(size > collector.limit, do: :full, else: :ok), collector}
  end

  @doc "What was collected; an error with the part that fits, when that is not all."
  # In the order of terms, `:infinity` comes after all numbers.
  @spec result(t()) :: {:ok, binary()} | {:error, {:max_output_exceeded, binary()}}
  def result(%__MODULE__{size: size, limit: limit} = collector) when size > limit do
    {:error, {:max_output_exceeded, binary_part(together(collector), 0, limit)}}
  end

  def result(%__MODULE__{} = collector), do: {:ok, together(collector)}

  defp together(collector), do: IO.iodata_to_binary(collector.chunks)
end
