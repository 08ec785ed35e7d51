defmodule NetRunner.Figures do
  @moduledoc false
  # Bytes, times and commands in the few characters that a table or a line of progress has for them.

  @units ["kB", "MB", "GB", "TB"]

  @doc """
      iex> for bytes <- [0, 999, 1_000, 999_999, 12_345_678], do: NetRunner.Figures.bytes(bytes)
      ["0 B", "999 B", "1.0 kB", "1.0 MB", "12.3 MB"]
  """
  @spec bytes(non_neg_integer()) :: String.t()
  def bytes(bytes) when bytes < 1_000, do: "#{bytes} B"
  def bytes(bytes), do: scaled(bytes / 1_000, @units)

  defp scaled(number, [unit | larger]) do
    # From here on it would be rounded to 1000.0.
    if number >= 999.95 and larger != [],
      do: scaled(number / 1_000, larger),
      else: "#{:erlang.float_to_binary(number, decimals: 1)} #{unit}"
  end

  @doc """
      iex> for ms <- [0, 12_999, 754_000, 3_661_000, 200_000_000], do: NetRunner.Figures.clock(ms)
      ["0:00", "0:12", "12:34", "1:01:01", "55:33:20"]
  """
  @spec clock(ms :: integer()) :: String.t()
  def clock(ms) do
    seconds = max(0, div(ms, 1_000))
    {hours, minutes} = {div(seconds, 3_600), rem(div(seconds, 60), 60)}
    last = two(rem(seconds, 60))
    if hours > 0, do: "#{hours}:#{two(minutes)}:#{last}", else: "#{minutes}:#{last}"
  end

  defp two(number), do: String.pad_leading("#{number}", 2, "0")

  @doc """
  A text that cannot do anything to the terminal that it is shown on, such as move the cursor, end the line, or turn the
  direction of what follows.

      iex> NetRunner.Figures.harmless("a\\e[2Jb\\n")
      "a?[2Jb?"
      iex> NetRunner.Figures.harmless("\\u202Egpj.exe\\u2028")
      "?gpj.exe?"
  """
  @spec harmless(String.t()) :: String.t()
  def harmless(text) do
    marks = ~r/[\p{Cc}\p{Zl}\p{Zp}\x{61c}\x{200e}\x{200f}\x{202a}-\x{202e}\x{2066}-\x{2069}]/u
    String.replace(text, marks, "?")
  end

  @doc """
  The beginning of a text, as much of it as fits into so many columns.

      iex> NetRunner.Figures.cut("sleep 100", 8)
      "sleep 1…"
  """
  @spec cut(String.t(), integer()) :: String.t()
  def cut(text, columns) do
    graphemes = String.graphemes(text)

    if Enum.sum(Enum.map(graphemes, &width/1)) <= columns,
      do: text,
      else: IO.iodata_to_binary([fitting(graphemes, columns - 1), "…"])
  end

  # A character that may be wide counts as two columns.
  defp width(grapheme), do: if(byte_size(grapheme) == 1, do: 1, else: 2)

  defp fitting([grapheme | rest], columns) do
    left = columns - width(grapheme)
    if left >= 0, do: [grapheme | fitting(rest, left)], else: []
  end

  defp fitting([], _columns), do: []
end
