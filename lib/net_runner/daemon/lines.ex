defmodule NetRunner.Daemon.Lines do
  @moduledoc false
  # Whole lines from pieces of output, as pure data. What is kept between two pieces is the begun line, which
  # is no longer than a line may be: longer ones are cut, between characters where they are UTF-8.

  @max 8_192

  @opaque t :: binary()

  @spec new() :: t()
  def new, do: ""

  @doc "The lines that these bytes complete, without their ends, and what is left."
  @spec push(t(), binary()) :: {[binary()], t()}
  def push(begun, bytes) do
    {lines, [rest]} = (begun <> bytes) |> :binary.split("\n", [:global]) |> Enum.split(-1)
    {pieces, [rest]} = rest |> cut() |> Enum.split(-1)
    # A copy, so that a few bytes do not keep a large chunk alive.
    {Enum.flat_map(lines, &cut(trim(&1))) ++ pieces, :binary.copy(rest)}
  end

  @doc "A last line that has no end."
  @spec finish(t()) :: [binary()]
  def finish(""), do: []
  def finish(begun), do: [begun]

  defp trim(line) do
    size = byte_size(line) - 1
    with <<line::binary-size(size), ?\r>> <- line, do: line
  end

  defp cut(line) when byte_size(line) <= @max, do: [line]

  defp cut(line) do
    size = boundary(line, @max, 3)
    <<piece::binary-size(size), rest::binary>> = line
    [piece | cut(rest)]
  end

  # A character of UTF-8 has three bytes after its first at the most.
  defp boundary(line, at, back) do
    case line do
      <<_::binary-size(at), 0b10::2, _::6, _::binary>> when back > 0 ->
        boundary(line, at - 1, back - 1)

      _ ->
        at
    end
  end
end
