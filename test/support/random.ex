defmodule NetRunner.Random do
  @moduledoc false
  # Random rounds that can be played again: `mix test --seed N` repeats them, and what fails says its round.

  @doc "Calls the function with each number, the random numbers of each round being those of ExUnit's seed."
  @spec rounds(pos_integer(), (pos_integer() -> term())) :: :ok
  def rounds(count, round) do
    seed = ExUnit.configuration()[:seed]

    for number <- 1..count do
      :rand.seed(:exsss, {seed, number, 0})

      try do
        round.(number)
      rescue
        failure in ExUnit.AssertionError ->
          note = "--seed #{seed}, round #{number}: #{failure.message}"
          reraise %{failure | message: note}, __STACKTRACE__
      end
    end

    :ok
  end
end
