defmodule Soak.Report do
  @moduledoc false
  # What a run has shown: the trends, as a table, files and a plot.

  alias Soak.{Trend, Watch}

  # What is loaded, opened and allocated for the first time is no trend.
  @warm_up 0.2

  # In a panel of the plot.
  @most_points 150

  @doc "The samples of a file: `[{metric, milliseconds, value, who}]`."
  def read(csv) do
    for line <- csv |> File.stream!() |> Stream.drop(1) do
      [metric, time, value, who] = line |> String.trim() |> String.split(",")
      {String.to_existing_atom(metric), String.to_integer(time), String.to_integer(value), who}
    end
  end

  @doc "The trend of each metric: `[%{metric: …, …}]`."
  def trends([]), do: []

  def trends(samples) do
    first = samples |> Enum.map(&elem(&1, 1)) |> Enum.min()
    last = samples |> Enum.map(&elem(&1, 1)) |> Enum.max()
    warm = first + (last - first) * @warm_up

    for {metric, unit, tolerance} <- Watch.metrics() do
      series = for {^metric, time, value, who} <- samples, time >= warm, do: {time, value, who}

      row = %{metric: metric, unit: unit, tolerance: tolerance, samples: length(series)}

      # The growth over an hour makes long and short runs comparable; judged is that in the run itself.
      case Trend.of(series) do
        {:ok, trend} ->
          Map.merge(row, %{
            median: trend.median,
            growth: trend.growth,
            per_hour: trend.slope * 3_600_000,
            z: trend.z,
            grows: Trend.grows?(trend, tolerance)
          })

        :too_few ->
          Map.merge(row, %{median: nil, growth: nil, per_hour: nil, z: nil, grows: false})
      end
    end
  end

  def table(trends) do
    [
      "| metric | median | growth in the run | per hour | z | tolerated | |\n",
      "|---|---|---|---|---|---|---|\n"
      | for row <- trends do
          "| #{row.unit} | #{show(row.median)} | #{show(row.growth)} | #{show(row.per_hour)} | #{show(row.z)} | " <>
            "#{row.tolerance} | #{verdict(row)} |\n"
        end
    ]
  end

  defp verdict(%{median: nil}), do: "too few samples"
  defp verdict(%{grows: true}), do: "**grows**"
  defp verdict(_), do: "flat"

  defp show(nil), do: "-"
  defp show(number), do: Bench.show(number)

  def json(run, trends, facts) do
    rows =
      for row <- trends, do: Map.new(row, fn {key, value} -> {to_string(key), value(value)} end)

    findings = Enum.map(run.findings, &inspect/1)
    [Bench.json([facts | rows]), "\n", for(text <- findings, do: [Bench.json(text), "\n"])]
  end

  defp value(atom) when is_atom(atom) and atom not in [nil, true, false], do: "#{atom}"
  defp value(nil), do: "-"
  defp value(value), do: value

  @doc "One panel for each metric, over minutes."
  def plot(samples, file, title) do
    panels =
      for {metric, unit, _} <- Watch.metrics(),
          points = for({^metric, time, value, _} <- samples, do: {time / 60_000, value}),
          points != [],
          do: {unit, Enum.take_every(points, div(length(points), @most_points) + 1)}

    Bench.series(file, title, "minutes", panels)
  end
end
