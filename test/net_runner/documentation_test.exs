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

  @root Path.expand("../..", __DIR__)

  # One after the other, as somebody who reads it would: what is on the left side must match.
  @tag skip: NetRunner.Guarantees.Tree.needs_linux()
  test "the examples in docs/sandbox.md run" do
    page = File.read!(Path.join(@root, "docs/sandbox.md"))
    examples = Regex.scan(~r/^( *)```elixir\n(.*?)^ *```/ms, page)
    assert length(examples) > 10

    bindings =
      for [_, _, code] <- examples, reduce: [] do
        bindings ->
          {_, bindings} = Code.eval_string(code, bindings, file: "docs/sandbox.md")
          bindings
      end

    File.rm_rf!(bindings[:work])
  end

  test "the races that comments name are those that docs/internals.md tells" do
    told = Regex.scan(~r/^\*\*(.+?)\.\*\*/m, File.read!(Path.join(@root, "docs/internals.md")))
    sources = Path.wildcard(Path.join(@root, "{lib,native}/**/*.{ex,rs}"))
    named = for file <- sources, race <- Regex.scan(~r/Race: (.+?)\./, File.read!(file)), do: race

    told = for [_, race] <- told, do: downcase_first(race)
    named = for [_, race] <- named, uniq: true, do: race
    assert told != [] and Enum.sort(told) == Enum.sort(named)
  end

  test "what a page links to is there" do
    pages = ["README.md" | Enum.flat_map(~w(docs fuzz), &Path.wildcard("#{@root}/#{&1}/*.md"))]

    links =
      for page <- Enum.map(pages, &Path.expand(&1, @root)),
          [_, target] <- Regex.scan(~r/\]\(([^)#:]+)(?:#[^)]*)?\)/, File.read!(page)),
          do: {Path.relative_to(page, @root), Path.expand(target, Path.dirname(page))}

    assert links != []
    assert for({page, target} <- links, not File.exists?(target), do: {page, target}) == []
  end

  test "README.md wants the Rust that the build wants" do
    [_, floor] = Regex.run(~r/rust-version = "(.+?)"/, File.read!(Path.join(@root, "Cargo.toml")))
    named = Regex.scan(~r/cargo (\d+\.\d+) or newer/, File.read!(Path.join(@root, "README.md")))
    assert named != [] and Enum.all?(named, fn [_, version] -> version == floor end)
  end

  defp downcase_first(<<first::utf8, rest::binary>>), do: String.downcase(<<first::utf8>>) <> rest
end
