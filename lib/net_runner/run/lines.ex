defmodule NetRunner.Run.Lines do
  @moduledoc false
  # Lines out of chunks that were cut anywhere. A line may be longer than any number of chunks; what is
  # not whole yet is kept in the pieces in which it came. Where lines have a longest size, longer ones come in pieces
  # of that size, cut between characters where they are UTF-8, and no more than that is kept.

  alias NetRunner.System.Native

  # Some 100 microseconds for a NIF call, however short the lines are.
  @at_once 2048

  @enforce_keys [:trim?, :longest]
  defstruct [:trim?, :longest, pieces: [], chunk: ""]

  @type t :: %__MODULE__{
          trim?: boolean(),
          longest: pos_integer() | :infinity,
          pieces: [binary()],
          chunk: binary()
        }

  @spec new(:keep | :trim, longest :: pos_integer() | :infinity) :: t()
  def new(newlines, longest \\ :infinity),
    do: %__MODULE__{trim?: newlines == :trim, longest: longest}

  @doc "Takes a chunk, and gives all lines that it completes."
  @spec push(t(), binary()) :: {[binary()], t()}
  def push(lines, chunk), do: lines |> add(chunk) |> drain([])

  defp drain(lines, drained) do
    case next(lines) do
      {[], lines} -> {drained |> Enum.reverse() |> Enum.concat(), lines}
      {whole, lines} -> drain(lines, [whole | drained])
    end
  end

  @doc "Takes a chunk; `next/1` gives its lines. Not before `next/1` has said that there are no more."
  @spec add(t(), binary()) :: t()
  def add(%__MODULE__{chunk: ""} = lines, chunk), do: %{lines | chunk: chunk}

  @doc "The next whole lines; none when another chunk is needed."
  @spec next(t()) :: {[binary()], t()}
  def next(%__MODULE__{chunk: ""} = lines), do: {[], lines}

  def next(%__MODULE__{} = lines) do
    case Native.lines(lines.chunk, @at_once, lines.trim?) do
      {[], rest} ->
        begun(%{lines | pieces: [rest | lines.pieces], chunk: ""})

      {[first | others], rest} when lines.pieces != [] ->
        {cut(lines, [join(lines, first) | others]), %{lines | pieces: [], chunk: rest}}

      {whole, rest} ->
        {cut(lines, whole), %{lines | chunk: rest}}
    end
  end

  defp begun(%{longest: :infinity} = lines), do: {[], lines}

  defp begun(lines) do
    {whole, [rest]} = cut(lines, [join(lines, "")]) |> Enum.split(-1)
    # A copy, so that a few bytes do not keep a large chunk alive.
    {whole, %{lines | pieces: [:binary.copy(rest)]}}
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

  defp cut(%{longest: :infinity}, whole), do: whole
  defp cut(%{longest: longest}, whole), do: Enum.flat_map(whole, &pieces(&1, longest))

  defp pieces(line, longest) when byte_size(line) <= longest, do: [line]

  defp pieces(line, longest) do
    {piece, rest} = :erlang.split_binary(line, boundary(line, longest, 3))
    [piece | pieces(rest, longest)]
  end

  # A character of UTF-8 has three bytes after its first at the most.
  defp boundary(line, at, back) do
    if back > 0 and :binary.at(line, at) in 0b1000_0000..0b1011_1111,
      do: boundary(line, at - 1, back - 1),
      else: at
  end

  defp without_return(bytes) do
    if :binary.last(bytes) == ?\r, do: binary_part(bytes, 0, byte_size(bytes) - 1), else: bytes
  end
end
