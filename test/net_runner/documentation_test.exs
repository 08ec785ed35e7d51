defmodule NetRunner.DocumentationTest do
  # The examples in the documentation run, and give what they say.
  use ExUnit.Case, async: true

  doctest NetRunner
  doctest NetRunner.Process
  doctest NetRunner.Command
  # With what only Linux has among the examples.
  unless NetRunner.Guarantees.Tree.needs_linux(), do: doctest(NetRunner.Options)
  doctest NetRunner.Signal
  doctest NetRunner.Error
  doctest NetRunner.Process.Stats
end
