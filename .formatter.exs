# So that `defcommand` keeps its look without parentheses: `import_deps: [:net_runner]` takes it over.
locals_without_parens = [defcommand: 2, defcommand: 3]

[
  inputs: ["mix.exs", ".formatter.exs", "{mix,bin,lib,test,bench,demo}/**/*.{ex,exs}"],
  line_length: 98,
  locals_without_parens: locals_without_parens,
  export: [locals_without_parens: locals_without_parens]
]
