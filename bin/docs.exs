# Checks the documentation, and collects it for `docs.py`. `bin/docs` runs both.
#
# A page is a Markdown file, or what a module says about itself and its functions. Of each: links lead to files and headings
# that are there, functions and modules in backquotes exist and are documented, and code blocks parse. Links to other
# sites are not followed.

defmodule Docs do
  @output "_build/docs"

  def run do
    config = NetRunner.MixProject.project()[:docs]
    extras = for {path, options} <- config[:extras], do: {Atom.to_string(path), options}
    paths = for {path, _} <- extras, do: path
    pages = Enum.map(paths, &file_page/1)
    modules = for module <- modules(), do: module_page(module)
    others = for path <- ["fuzz/README.md"], do: file_page(path)
    all = Enum.reject(pages ++ modules ++ others, &is_nil/1)
    titles = Map.new(all, &{&1.path, slugs(&1.text)})
    missing = paths -- Enum.map(all, & &1.path)
    unlisted = Path.wildcard("docs/*.md") -- paths

    problems =
      for(path <- missing, do: "mix.exs lists #{path}, which is not there") ++
        for(path <- unlisted, do: "mix.exs does not list #{path}") ++
        Enum.flat_map(all, &problems(&1, titles))

    collect(config, extras, pages, modules)
    Enum.each(problems, &IO.puts(:stderr, &1))
    blocks = all |> Enum.map(&length(blocks(&1.text))) |> Enum.sum()
    links = all |> Enum.map(&length(links(&1.text))) |> Enum.sum()

    IO.puts(
      "#{length(all)} pages, #{links} links, #{blocks} code blocks: #{length(problems)} problems"
    )

    if problems != [], do: exit({:shutdown, 1})
  end

  # --- pages ------------------------------------------------------------------------------------------

  defp file_page(path) do
    with {:ok, text} <- File.read(path), do: %{path: path, text: text}, else: (_ -> nil)
  end

  defp modules do
    :ok = Application.ensure_loaded(:net_runner)
    {:ok, modules} = :application.get_key(:net_runner, :modules)
    for module <- modules, module_doc(module) != nil, do: module
  end

  defp module_doc(module) do
    case Code.fetch_docs(module) do
      {:docs_v1, _, _, _, %{"en" => text}, _, entries} -> {text, entries}
      _hidden -> nil
    end
  end

  defp module_page(module) do
    {text, entries} = module_doc(module)

    functions =
      for {{kind, name, arity}, _, signature, %{"en" => doc}, _} <- Enum.sort(entries),
          kind in [:function, :macro, :type, :callback],
          do: "\n## #{heading(kind, name, arity, signature)}\n\n" <> doc

    %{path: inspect(module), text: "# #{inspect(module)}\n\n#{text}\n#{functions}"}
  end

  defp heading(kind, name, arity, signature) when kind in [:function, :macro],
    do: String.replace(Enum.join(signature, " "), "\\", "\\\\") <> heading_suffix(name, arity)

  defp heading(kind, name, arity, _), do: "#{kind} #{name}/#{arity}"
  defp heading_suffix(name, arity), do: " `#{name}/#{arity}`"

  # --- problems ---------------------------------------------------------------------------------------

  defp problems(page, titles) do
    for problem <-
          Enum.flat_map(links(page.text), &link_problem(&1, page, titles)) ++
            name_problems(page) ++
            example_problems(page.text) ++ Enum.flat_map(blocks(page.text), &block_problem/1),
        do: "#{page.path}: #{problem}"
  end

  # What is indented behind a list belongs to its last item: there it is prose, and loses the lines that begin with a brace.
  defp example_problems(text) do
    for [_, line] <- Regex.scan(~r/^ *(?:[*+-]|\d+\.) .*\n(?:(?: +.*)?\n)*?( +iex>.*)$/m, text),
        do:
          "an example belongs to the list above it, a sentence must stand between them: #{String.trim(line)}"
  end

  # Without code, in which brackets mean something else.
  defp links(text) do
    for [_, target] <- Regex.scan(~r/\]\(([^)\s]+)(?:\s+"[^"]*")?\)/, prose(text)), do: target
  end

  defp prose(text) do
    text
    |> String.replace(~r/^ *(```|~~~).*?^ *\1\s*$/ms, "")
    |> String.replace(~r/^(?: {4}| *\t).*$/m, "")
    |> String.replace(~r/`[^`\n]*`/, "")
  end

  defp link_problem("http" <> _, _page, _titles), do: []

  defp link_problem(link, page, titles) do
    {path, anchor} =
      case String.split(link, "#", parts: 2) do
        [path] -> {path, nil}
        [path, anchor] -> {path, anchor}
      end

    target =
      if path == "",
        do: page.path,
        else: page.path |> Path.dirname() |> Path.join(path) |> plain()

    cond do
      not Map.has_key?(titles, target) and not File.exists?(target) ->
        ["there is no #{target} (#{link})"]

      anchor == nil or not Map.has_key?(titles, target) ->
        []

      anchor not in titles[target].github ->
        ["#{target} has no heading ##{anchor} (#{link})"]

      anchor not in titles[target].ex_doc ->
        [
          "ExDoc has another anchor for the heading of #{link}: letters, digits and spaces give the same one"
        ]

      true ->
        []
    end
  end

  defp plain(path), do: path |> Path.expand() |> Path.relative_to_cwd()

  defp slugs(text) do
    headings =
      for [_, heading] <-
            Regex.scan(
              ~r/^\#{1,6} +(.+?)\s*$/m,
              String.replace(text, ~r/^ *```.*?^ *```\s*$/ms, "")
            ),
          do:
            heading |> String.replace(~r/[`*]/, "") |> String.replace(~r/\[(.*?)\]\(.*?\)/, "\\1")

    %{
      github:
        for(
          heading <- headings,
          do:
            heading
            |> String.downcase()
            |> String.replace(~r/[^\w\s-]/u, "")
            |> String.replace(" ", "-")
        ),
      ex_doc:
        for(
          heading <- headings,
          do: heading |> String.replace(~r/\W+/u, "-") |> String.trim("-") |> String.downcase()
        )
    }
  end

  # `NetRunner.run/2`, `NetRunner.Process`, `t:NetRunner.Result.t/0`
  @name ~r/`(?:(c|t):)?(NetRunner(?:\.[A-Z]\w*)*)(?:\.([a-z_]\w*[?!]?)\/(\d+))?`/

  # Pages about the inside name what ExDoc hides.
  @inside ~w(docs/internals.md docs/testing.md CONTRIBUTING.md)

  defp name_problems(%{path: path}) when path in @inside, do: []

  defp name_problems(page) do
    for [whole | parts] <- Regex.scan(@name, page.text),
        [kind, module | function] = parts,
        problem = name_problem(kind, Module.concat([module]), function),
        uniq: true,
        do: "#{whole} #{problem}"
  end

  defp name_problem(kind, module, function) do
    case {Code.ensure_loaded(module), module_doc_of(module), function} do
      {{:error, _}, _, _} ->
        "does not exist"

      {_, nil, _} ->
        "is not documented"

      {_, _, []} ->
        nil

      {_, {_, entries}, [name, arity]} ->
        function_problem(kind, entries, name, String.to_integer(arity))
    end
  end

  # An exception or a struct of its own may have no page, but does exist.
  defp module_doc_of(module), do: if(Code.ensure_loaded?(module), do: module_doc(module))

  defp function_problem(kind, entries, name, arity) do
    kinds = %{"" => [:function, :macro], "t" => [:type, :opaque], "c" => [:callback]}[kind]

    found =
      Enum.any?(entries, fn {{entry_kind, entry, entry_arity}, _, _, doc, metadata} ->
        lowest = entry_arity - Map.get(metadata, :defaults, 0)

        entry_kind in kinds and Atom.to_string(entry) == name and arity in lowest..entry_arity and
          doc != :hidden
      end)

    unless found, do: "does not exist, or is not documented"
  end

  # --- code blocks ------------------------------------------------------------------------------------

  # {language, code}, also of those that are indented in a list.
  defp blocks(text) do
    fenced =
      for [_, indent, language, code] <-
            Regex.scan(~r/^( *)```([\w-]*)[^\n]*\n(.*?)^ *```\s*$/ms, text),
          do: {language, String.replace(code, ~r/^#{indent}/m, "")}

    doctests =
      for [block] <- Regex.scan(~r/(?:^ {4,}.*\n(?:\s*\n)*)+/m, text),
          block =~ "iex>",
          do: {"elixir", block}

    fenced ++ doctests
  end

  defp block_problem({"elixir", code}) do
    if code =~ ~r/^\s*iex>/m,
      do: code |> expressions() |> Enum.flat_map(&parse/1),
      else: parse(code)
  end

  defp block_problem({shell, code}) when shell in ["sh", "bash", "shell", "console"] do
    script = String.replace(code, ~r/^\s*\$ /m, "")

    case System.cmd("bash", ["-n", "-c", script], stderr_to_stdout: true) do
      {_, 0} -> []
      {text, _} -> ["a #{shell} block does not parse: #{String.trim(text)}"]
    end
  end

  defp block_problem({_language, _code}), do: []

  # What somebody types at the prompt, each with its further lines.
  defp expressions(code) do
    code
    |> String.split("\n")
    |> Enum.reduce([], fn line, expressions ->
      case {Regex.run(~r/^\s*(iex|\.\.\.)(?:\(\d+\))?> ?(.*)$/, line), expressions} do
        {[_, "iex", typed], _} -> [typed | expressions]
        {[_, "...", typed], [last | rest]} -> [last <> "\n" <> typed | rest]
        _ -> expressions
      end
    end)
    |> Enum.reverse()
  end

  defp parse(code) do
    case Code.string_to_quoted(code) do
      {:ok, _} ->
        []

      {:error, {_, message, token}} ->
        ["a block does not parse (#{message(message)}#{token}):\n#{code}"]
    end
  end

  defp message({before, behind}), do: before <> behind
  defp message(message), do: message

  # --- for docs.py ------------------------------------------------------------------------------------

  # A line for each page: group, path, file of its source, file to write; with tabs between them.
  defp collect(config, extras, pages, modules) do
    source = Path.join(@output, "source")
    File.rm_rf!(source)
    File.mkdir_p!(source)

    pages =
      for page <- pages, page != nil do
        {group(config[:groups_for_extras], page.path), page, file_name(page.path, extras)}
      end

    groups =
      for {group, modules} <- config[:groups_for_modules],
          do: {group, Enum.map(modules, &inspect/1)}

    modules =
      for page <- modules,
          do: {group(groups, page.path) || "Modules", page, page.path <> ".html"}

    # As ExDoc has them.
    order = ["Modules" | for({group, _} <- config[:groups_for_modules], do: to_string(group))]

    modules =
      Enum.sort_by(modules, fn {group, _, _} -> Enum.find_index(order, &(&1 == group)) end)

    lines =
      for {{group, page, file}, number} <- Enum.with_index(pages ++ modules) do
        File.write!(Path.join(source, "#{number}.md"), page.text)
        Enum.join([group, page.path, "#{number}.md", file], "\t") <> "\n"
      end

    names = for {_, _, file} <- pages ++ modules, do: file

    if names != Enum.uniq(names),
      do: raise("two pages are called #{hd(names -- Enum.uniq(names))}")

    File.write!(Path.join(source, "pages.tsv"), lines)
  end

  defp file_name(path, extras) do
    {_, options} = List.keyfind!(extras, path, 0)

    (options[:filename] || path |> Path.basename() |> Path.rootname() |> String.downcase()) <>
      ".html"
  end

  defp group(groups, path),
    do: Enum.find_value(groups, fn {group, paths} -> if path in paths, do: to_string(group) end)
end

Docs.run()
