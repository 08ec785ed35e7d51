defmodule NetRunner.Text do
  @moduledoc false
  # Bytes that are shown to people.

  @doc "With a U+FFFD for each byte that is no UTF-8."
  @spec valid(binary()) :: String.t()
  def valid(bytes) do
    if String.valid?(bytes) do
      bytes
    else
      for piece <- String.chunk(bytes, :valid), into: "" do
        if String.valid?(piece), do: piece, else: String.duplicate("\uFFFD", byte_size(piece))
      end
    end
  end

  @doc """
  As much of these bytes as can be read, and nothing that can do anything to a terminal but end the line and tabulate.

      iex> NetRunner.Text.legible("\\e[2Jgone\\a\\r\\n\\tby \\xFF")
      "?[2Jgone?\\n\\tby \\uFFFD"
  """
  @spec legible(binary()) :: String.t()
  def legible(bytes) do
    text = bytes |> valid() |> String.replace("\r\n", "\n")
    Regex.replace(~r/[^\n\t]+/u, text, &NetRunner.Figures.harmless/1)
  end

  @doc "The last `size` bytes, as a copy, so that a few bytes do not keep a large chunk alive."
  @spec last(binary(), non_neg_integer()) :: binary()
  def last(bytes, size) do
    size = min(byte_size(bytes), size)
    :binary.copy(binary_part(bytes, byte_size(bytes), -size))
  end
end
