defmodule NetRunner.DocumentationTest do
  # The examples in the documentation run, and give what they say.
  use ExUnit.Case, async: true

  doctest NetRunner
  doctest NetRunner.Process
  doctest NetRunner.Command
  doctest NetRunner.Options
  doctest NetRunner.Signal
  doctest NetRunner.Error
  doctest NetRunner.Process.Stats
  doctest NetRunner.Result
end
