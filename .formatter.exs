[inputs: ["mix.exs", ".formatter.exs", "{lib,test,bench,demo}/**/*.{ex,exs}"], line_length: 98]
