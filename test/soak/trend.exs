defmodule Soak.Trend do
  @moduledoc false
  # Whether a series of samples grows. Two points say nothing: each sample is noisy. So all pairs of samples are looked at.
  #
  # A series is a list of `{time, value, who}`. Only samples of the same `who` are compared: the memory of one launcher says
  # nothing about that of the next.
  #
  #   * The Theil-Sen slope is the median of the slopes of all pairs. A few outliers do not move it.
  #   * The Mann-Kendall test counts in how many pairs the later value is the larger one, and in how many the smaller
  #     one, and says how unlikely the difference is without a trend (`z`, in standard deviations).
  #
  # A series grows when both say so: the trend is beyond chance, and it amounts to more than what is tolerated.

  @type sample :: {time :: number(), value :: number(), who :: term()}
  @type t :: %{slope: float(), growth: float(), z: float(), median: number()}

  # One in 3,000 by chance. Samples that lie close together are alike, so the real number is larger.
  @beyond_chance 3.4

  # Fewer samples say nothing.
  @fewest 8

  @doc "The trend of a series; `growth`: what the slope amounts to over the longest time of one `who`."
  @spec of([sample()]) :: {:ok, t()} | :too_few
  def of(samples) do
    groups = samples |> Enum.group_by(&elem(&1, 2)) |> Map.values()
    groups = for group <- groups, length(group) >= @fewest, do: Enum.sort(group)
    if groups == [], do: :too_few, else: {:ok, trend(groups)}
  end

  @doc "Whether it grows by more than is tolerated."
  @spec grows?(t(), number()) :: boolean()
  def grows?(trend, tolerance), do: trend.z > @beyond_chance and trend.growth > tolerance

  defp trend(groups) do
    longest = groups |> Enum.map(&span/1) |> Enum.max()
    slopes = Enum.flat_map(groups, &slopes/1)
    slope = median(slopes)

    # The statistics of independent groups add up.
    {score, variance} =
      Enum.reduce(groups, {0, 0.0}, fn group, {score, variance} ->
        values = Enum.map(group, &elem(&1, 1))
        {score + score(values), variance + variance(values)}
      end)

    %{
      slope: slope / 1,
      growth: slope * longest / 1,
      z: z(score, variance),
      median: median(for group <- groups, {_, value, _} <- group, do: value)
    }
  end

  defp span([{first, _, _} | _] = group), do: elem(List.last(group), 0) - first

  # Beyond this many samples of one, every other one is left out: the pairs are the square of them.
  @most 1_000

  defp slopes(group) do
    if length(group) > @most, do: slopes(Enum.take_every(group, 2)), else: pairs(group)
  end

  defp pairs([]), do: []

  defp pairs([{time, value, _} | later]) do
    for({then, value_then, _} <- later, then > time, do: (value_then - value) / (then - time)) ++
      pairs(later)
  end

  defp score([]), do: 0

  defp score([value | later]) do
    Enum.reduce(later, 0, fn
      other, sum when other > value -> sum + 1
      other, sum when other < value -> sum - 1
      _equal, sum -> sum
    end) + score(later)
  end

  # Without what ties take off.
  defp variance(values) do
    n = length(values)
    ties = values |> Enum.frequencies() |> Map.values() |> Enum.map(&spread/1) |> Enum.sum()
    (spread(n) - ties) / 18
  end

  defp spread(n), do: n * (n - 1) * (2 * n + 5)

  defp z(_score, variance) when variance <= 0, do: 0.0
  defp z(score, variance) when score > 0, do: (score - 1) / :math.sqrt(variance)
  defp z(score, variance) when score < 0, do: (score + 1) / :math.sqrt(variance)
  defp z(_score, _variance), do: 0.0

  defp median(values) do
    sorted = Enum.sort(values)
    Enum.at(sorted, div(length(sorted), 2))
  end
end
