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
  doctest NetRunner.Result

  test "the races that comments name are those that docs/internals.md tells" do
    root = Path.expand("../..", __DIR__)
    told = Regex.scan(~r/^\*\*(.+?)\.\*\*/m, File.read!(Path.join(root, "docs/internals.md")))
    sources = Path.wildcard(Path.join(root, "{lib,native}/**/*.{ex,rs}"))
    named = for file <- sources, race <- Regex.scan(~r/Race: (.+?)\./, File.read!(file)), do: race

    told = for [_, race] <- told, do: downcase_first(race)
    named = for [_, race] <- named, uniq: true, do: race
    assert told != [] and Enum.sort(told) == Enum.sort(named)
  end

  defp downcase_first(<<first::utf8, rest::binary>>), do: String.downcase(<<first::utf8>>) <> rest
end
