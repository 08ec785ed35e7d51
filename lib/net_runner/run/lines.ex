defmodule NetRunner.Run.Lines do
  @moduledoc false
  # Lines out of chunks that were cut anywhere. A line may be longer than any number of chunks; what is
  # not whole yet is kept in the pieces in which it came.

  alias NetRunner.System.Native

  # Some 100 microseconds for a NIF call, however short the lines are.
  @at_once 2048

  @enforce_keys [:trim?]
  defstruct [:trim?, pieces: [], chunk: ""]

  @type t :: %__MODULE__{trim?: boolean(), pieces: [binary()], chunk: binary()}

  @spec new(:keep | :trim) :: t()
  def new(newlines), do: %__MODULE__{trim?: newlines == :trim}

  @doc "Takes a chunk; `next/1` gives its lines. Not before `next/1` has said that there are no more."
  @spec add(t(), binary()) :: t()
  def add(%__MODULE__{chunk: ""} = lines, chunk), do: %{lines | chunk: chunk}

  @doc "The next whole lines; none when another chunk is needed."
  @spec next(t()) :: {[binary()], t()}
  def next(%__MODULE__{chunk: ""} = lines), do: {[], lines}

  def next(%__MODULE__{} = lines) do
    case Native.lines(lines.chunk, @at_once, lines.trim?) do
      {[], rest} ->
        {[], %{lines | pieces: [rest | lines.pieces], chunk: ""}}

      {[first | others], rest} when lines.pieces != [] ->
        {[join(lines, first) | others], %{lines | pieces: [], chunk: rest}}

      {whole, rest} ->
        {whole, %{lines | chunk: rest}}
    end
  end

  @doc "The last line, where no newline ended it."
  @spec last(t()) :: [binary()]
  def last(%__MODULE__{pieces: []}), do: []
  def last(%__MODULE__{pieces: pieces}), do: [pieces |> Enum.reverse() |> IO.iodata_to_binary()]

  # The chunk border may be in the middle of a newline of two bytes.
  defp join(%{trim?: true, pieces: [last | earlier], chunk: <<?\n, _::binary>>}, "") do
    [without_return(last) | earlier] |> Enum.reverse() |> IO.iodata_to_binary()
  end

  defp join(%{pieces: pieces}, first), do: IO.iodata_to_binary(Enum.reverse([first | pieces]))

  defp without_return(bytes) do
    if :binary.last(bytes) == ?\r, do: binary_part(bytes, 0, byte_size(bytes) - 1), else: bytes
  end
end
