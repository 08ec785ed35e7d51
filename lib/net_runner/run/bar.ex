defmodule NetRunner.Run.Bar do
  @moduledoc false
  # What the line of `progress: true` says: pure data, from the bytes that were seen at some times.

  alias NetRunner.Figures

  # Rates are those of the last so many milliseconds.
  @window_ms 5_000
  @longest_name 20

  @enforce_keys [:name, :size, :seen]
  defstruct @enforce_keys

  # `size`: bytes of the input, or `nil` where nobody knows. `seen`: `{ms since the start, bytes in, bytes out}`, the
  # latest first.
  @type seen :: {ms :: non_neg_integer(), non_neg_integer(), non_neg_integer()}
  @type t :: %__MODULE__{name: String.t(), size: pos_integer() | nil, seen: [seen(), ...]}

  @spec new(executable :: String.t(), non_neg_integer() | nil) :: t()
  def new(executable, size) do
    # Not every stderr takes more than ASCII.
    name = executable |> Path.basename() |> String.replace(~r/[^ -~]/, "?")
    name = String.slice(name, 0, @longest_name)
    %__MODULE__{name: name, size: if(size != 0, do: size), seen: [{0, 0, 0}]}
  end

  @doc "Takes in how many bytes have gone in and come out so many milliseconds after the start."
  @spec add(t(), non_neg_integer(), non_neg_integer(), non_neg_integer()) :: t()
  def add(%__MODULE__{seen: seen} = bar, ms, bytes_in, bytes_out) do
    {recent, _old} = Enum.split_while(seen, fn {then, _, _} -> then >= ms - @window_ms end)
    # Without a recent one, there is nothing else to tell a rate from.
    recent = if recent == [], do: [hd(seen)], else: recent
    %{bar | seen: [{ms, bytes_in, bytes_out} | recent]}
  end

  @doc "The line, in less than so many columns."
  @spec line(t(), pos_integer()) :: String.t()
  def line(%__MODULE__{seen: [{ms, bytes_in, bytes_out} | _]} = bar, columns) do
    {rate_in, rate_out} = rates(bar)

    said =
      direction("in", bytes_in, rate_in, bar.size) ++
        direction("out", bytes_out, rate_out, if(bar.size == nil and bytes_in == 0, do: 0)) ++
        [time(bar.size && max(0, bar.size - bytes_in), rate_in, ms)]

    said = Enum.join(said, "  ")

    line =
      Enum.join([bar.name | drawn(bar, bytes_in, columns - String.length(said))] ++ [said], "  ")

    String.slice(line, 0, columns - 1)
  end

  # What has not begun is said only where it is what there is to say.
  defp direction(_name, 0, _rate, nil), do: []

  defp direction(name, bytes, rate, _expected),
    do: ["#{name} #{Figures.bytes(bytes)}, #{Figures.bytes(rate)}/s"]

  defp time(left, rate, _ms) when is_integer(left) and left > 0 and rate > 0,
    # Rounded up: there is some.
    do: "#{Figures.clock(div(left * 1_000, rate) + 999)} left"

  # Not known, or nothing more goes in.
  defp time(_left, _rate, ms), do: Figures.clock(ms)

  defp drawn(%{size: nil}, _bytes, _room), do: []

  defp drawn(%{size: size, name: name}, bytes, room) do
    part = min(bytes, size)
    # Brackets, the percentage, and spaces between all.
    width = min(30, room - String.length(name) - 15)
    percent = String.pad_leading("#{div(100 * part, size)}%", 4)

    if width >= 5 do
      filled = div(width * part, size)
      ["[#{String.duplicate("#", filled)}#{String.duplicate(".", width - filled)}] #{percent}"]
    else
      [String.trim(percent)]
    end
  end

  defp rates(%{seen: [{now, bytes_in, bytes_out} | _] = seen}) do
    {then, in_then, out_then} = List.last(seen)
    ms = max(1, now - then)
    {div((bytes_in - in_then) * 1_000, ms), div((bytes_out - out_then) * 1_000, ms)}
  end
end
