defmodule Soak.TrendTest do
  use ExUnit.Case, async: true

  unless Code.ensure_loaded?(Soak.Trend), do: Code.require_file("trend.exs", __DIR__)
  unless Code.ensure_loaded?(Soak.Plan), do: Code.require_file("plan.exs", __DIR__)
  alias Soak.{Plan, Trend}

  # 100 samples, one a second, with noise of ten to each side.
  defp series(value, who \\ fn _ -> :vm end) do
    :rand.seed(:exsss, {1, 2, 3})
    for time <- 1..100, do: {time, value.(time) + :rand.uniform(21) - 11, who.(time)}
  end

  test "noise and a single step do not grow, a slow growth below the noise does" do
    {:ok, flat} = Trend.of(series(fn _ -> 1_000 end))
    refute Trend.grows?(flat, 0)

    {:ok, outlier} = Trend.of(series(fn time -> if time == 60, do: 9_000, else: 1_000 end))
    refute Trend.grows?(outlier, 0)

    {:ok, slow} = Trend.of(series(fn time -> 1_000 + time / 5 end))
    assert Trend.grows?(slow, 5)
    assert_in_delta slow.growth, 20, 5
    refute Trend.grows?(slow, 30)
  end

  test "one leaked descriptor now and then grows, a constant number does not" do
    {:ok, leak} = Trend.of(for(time <- 1..30, do: {time, 20 + div(time, 7), :vm}))
    assert Trend.grows?(leak, 1)
    {:ok, constant} = Trend.of(for(time <- 1..30, do: {time, 20, :vm}))
    refute Trend.grows?(constant, 0)
  end

  test "each of several that follow one another is compared with itself" do
    # Each grows, and is smaller than the one before.
    falling = series(fn time -> 1_000 - 100 * div(time, 25) + rem(time, 25) * 3 end, &div(&1, 25))
    {:ok, trend} = Trend.of(falling)
    assert_in_delta trend.growth, 72, 20
    assert Trend.grows?(trend, 40)

    rising = series(fn time -> 1_000 * div(time, 25) end, &div(&1, 25))
    {:ok, trend} = Trend.of(rising)
    refute Trend.grows?(trend, 100)

    assert Trend.of([{1, 1, :vm}, {2, 9, :vm}]) == :too_few
  end

  test "the plan of a run follows from its seed alone" do
    of = fn seed -> for number <- 1..500, do: Plan.action(seed, number) end
    assert of.(7) == of.(7)
    assert Enum.reverse(for(number <- 500..1//-1, do: Plan.action(7, number))) == of.(7)
    assert of.(7) != of.(8)
  end

  test "every kind of action turns up, and harm to launcher and guard only in the rounds for it" do
    rounds = for number <- 0..20_000, do: {Plan.phase(number), Plan.action(1, number)}
    seen = rounds |> Enum.map(fn {_, {kind, _}} -> kind end) |> Enum.uniq() |> Enum.sort()
    assert seen == Enum.sort(Plan.kinds())

    for {phase, {kind, _}} <- rounds, kind in Plan.storms(), do: assert(phase == :stormy)
  end
end
