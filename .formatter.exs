[inputs: ["mix.exs", ".formatter.exs", "{lib,test,bench}/**/*.{ex,exs}"], line_length: 98]
