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

  pages =
    for page <- ["README.md" | Path.wildcard("#{@root}/{docs,examples}/*.{md,livemd}")],
        page = Path.relative_to(page, @root),
        File.read!(Path.join(@root, page)) =~ "```elixir\n",
        do: page

  describe "the examples run" do
    for page <- pages do
      @tag NetRunner.Guarantees.Tree.linux_only()
      @tag timeout: 300_000, capture_log: true
      test "in #{page}" do
        run_page(unquote(page), File.read!(Path.join(@root, unquote(page))))
      end
    end
  end

  test "an example that does not give what it says fails with its page and line" do
    page = """
    ```elixir
    one = 1
    ```
    <!-- not run: it would raise -->
    ```elixir
    raise "this"
    ```
    ```elixir
    ^one = 1

    ^one =
      2
    ```
    """

    says = ~r/page\.md:11: .*no match of right hand side value:\s+2/s
    assert_raise ExUnit.AssertionError, says, fn -> run_page("page.md", page) end

    unparsable = String.replace(page, ~s(raise "this"), "raise (")
    assert_raise TokenMissingError, ~r/page\.md:\d/, fn -> run_page("page.md", unparsable) end
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

  # The elixir blocks of a page are one script: they run in order and share their variables, and what stands left of a
  # `=` must match. The line `<!-- not run: REASON -->` right above a block says why it cannot run here; it must parse
  # all the same. A page that needs files makes a folder of its own and calls it `work`; it is removed at the end.
  defp run_page(name, page) do
    block = ~r/(?:^ *<!-- not run: ([^\n]+) -->\n)?^ *```elixir\n(.*?)^ *```$/ms

    # All blocks are parsed before anything runs, so one that does not parse is told of first.
    expressions =
      for [_, {_, not_run}, {at, bytes}] <- Regex.scan(block, page, return: :index),
          line = 1 + length(:binary.matches(binary_part(page, 0, at), "\n")),
          code = binary_part(page, at, bytes),
          quoted = Code.string_to_quoted!(code, file: name, line: line),
          not_run == 0,
          expression <- expressions(quoted),
          do: {line(expression, line), expression}

    # What they print is for the reader of the page.
    ExUnit.CaptureIO.capture_io(fn ->
      start = {[], Code.env_for_eval(file: name)}
      {bindings, _} = Enum.reduce(expressions, start, &run_expression(&1, &2, name))
      if work = bindings[:work], do: File.rm_rf!(work)
    end)
  end

  defp run_expression({line, expression}, {bindings, env}, name) do
    {_, bindings, env} = Code.eval_quoted_with_env(expression, bindings, env)
    {bindings, env}
  catch
    kind, reason ->
      if work = bindings[:work], do: File.rm_rf!(work)
      called = Enum.take_while(__STACKTRACE__, fn frame -> elem(frame, 0) != :erl_eval end)
      flunk("#{name}:#{line}: #{Exception.format(kind, reason, called)}")
  end

  defp expressions({:__block__, _, expressions}), do: expressions
  defp expressions(expression), do: [expression]

  defp line({_, meta, _}, _) when is_list(meta), do: Keyword.fetch!(meta, :line)
  defp line(_, line_of_block), do: line_of_block

  defp downcase_first(<<first::utf8, rest::binary>>), do: String.downcase(<<first::utf8>>) <> rest
end
