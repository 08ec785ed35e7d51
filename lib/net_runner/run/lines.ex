defmodule NetRunner.Run.Lines do
  @moduledoc false
  # Lines out of chunks that were cut anywhere. A line may be longer than any number of chunks; what is
  # not whole yet is kept in the pieces in which it came. Where lines have a longest size, longer ones come in pieces
  # of that size, cut between characters where they are UTF-8, and no more than that is kept.
  #
  # Lines end with a newline, of one byte or two, or with a separator that was given. One of more bytes than one may be cut by
  # the end of a chunk: so as many bytes as may be its beginning are held back, and come before the next chunk.

  alias NetRunner.System.Native

  # Some 100 microseconds for a NIF call, however short the lines are.
  @at_once 2048

  @enforce_keys [:trim?, :longest, :separator]
  defstruct [:trim?, :longest, :separator, pieces: [], held: "", chunk: ""]

  @type t :: %__MODULE__{
          trim?: boolean(),
          longest: pos_integer() | :infinity,
          separator: :newline | binary(),
          pieces: [binary()],
          held: binary(),
          chunk: binary()
        }

  @spec new(:keep | :trim | {:keep | :trim, separator :: binary()}, pos_integer() | :infinity) ::
          t()
  def new(kind, longest \\ :infinity)

  def new({newlines, separator}, longest),
    do: %__MODULE__{trim?: newlines == :trim, longest: longest, separator: separator}

  def new(newlines, longest),
    do: %__MODULE__{trim?: newlines == :trim, longest: longest, separator: :newline}

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
  def add(%__MODULE__{chunk: "", held: ""} = lines, chunk), do: %{lines | chunk: chunk}

  def add(%__MODULE__{chunk: ""} = lines, chunk),
    do: %{lines | chunk: lines.held <> chunk, held: ""}

  @doc "The next whole lines; none when another chunk is needed."
  @spec next(t()) :: {[binary()], t()}
  def next(%__MODULE__{chunk: ""} = lines), do: {[], lines}

  def next(%__MODULE__{} = lines) do
    case split(lines) do
      {[], rest} ->
        {rest, held} = hold_back(rest, lines.separator)
        begun(%{lines | pieces: [rest | lines.pieces], held: held, chunk: ""})

      {[first | others], rest} when lines.pieces != [] ->
        {cut(lines, [join(lines, first) | others]), %{lines | pieces: [], chunk: rest}}

      {whole, rest} ->
        {cut(lines, whole), %{lines | chunk: rest}}
    end
  end

  defp split(%{separator: :newline} = lines), do: Native.lines(lines.chunk, @at_once, lines.trim?)

  defp split(lines) do
    size = byte_size(lines.separator)
    left_out = if lines.trim?, do: size, else: 0
    split(lines.chunk, 0, {lines.separator, size, left_out}, @at_once, [])
  end

  # Of a line, the start is where the last one ended.
  defp split(chunk, start, {separator, size, left_out} = how, at_most, lines) do
    length = byte_size(chunk) - start

    case at_most > 0 and :binary.match(chunk, separator, scope: {start, length}) do
      {at, ^size} ->
        line = chunk |> binary_part(start, at + size - left_out - start) |> light()
        split(chunk, at + size, how, at_most - 1, [line | lines])

      _no_more ->
        {Enum.reverse(lines), binary_part(chunk, start, length)}
    end
  end

  # As of the lines that the native part makes: a reference takes more memory than a short copy.
  defp light(line) when byte_size(line) <= 64, do: :binary.copy(line)
  defp light(line), do: line

  defp hold_back(rest, :newline), do: {rest, ""}

  defp hold_back(rest, separator) do
    held = min(byte_size(rest), byte_size(separator) - 1)
    :erlang.split_binary(rest, byte_size(rest) - held)
  end

  defp begun(%{longest: :infinity} = lines), do: {[], lines}

  defp begun(lines) do
    {whole, [rest]} = cut(lines, [join(lines, "")]) |> Enum.split(-1)
    # A copy, so that a few bytes do not keep a large chunk alive.
    {whole, %{lines | pieces: [:binary.copy(rest)]}}
  end

  @doc "The last line, where no newline ended it."
  @spec last(t()) :: [binary()]
  def last(%__MODULE__{pieces: pieces, held: held}) do
    case IO.iodata_to_binary(Enum.reverse([held | pieces])) do
      "" -> []
      line -> [line]
    end
  end

  # The chunk border may be in the middle of a newline of two bytes.
  defp join(
         %{separator: :newline, trim?: true, pieces: [last | earlier], chunk: <<?\n, _::binary>>},
         ""
       ) do
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
