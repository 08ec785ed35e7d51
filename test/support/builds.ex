defmodule NetRunner.Builds do
  @moduledoc false
  # Projects that have NetRunner as a dependency, compiled for real, each module of tests in a folder of its own.

  import ExUnit.Assertions, only: [flunk: 1]
  import ExUnit.Callbacks, only: [on_exit: 1]

  # Without optimizations, which CI's own build has, cargo needs a third of the time.
  @cargo_env [
    {"CARGO_PROFILE_RELEASE_LTO", "off"},
    {"CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"},
    {"CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"}
  ]

  @doc """
  Such a folder (`:root`), with a copy of the sources alone, as in a fresh clone (`:clone`), and what cargo has compiled of them
  before (`:target`): every build runs cargo as its own, but not each has to wait for all crates.
  """
  def new do
    root =
      Path.join(
        System.tmp_dir!(),
        "net_runner build é #{System.pid()} #{System.unique_integer([:positive])}"
      )

    File.mkdir_p!(root)
    on_exit(fn -> File.rm_rf!(root) end)

    context = %{
      root: root,
      # Mix finds its files by patterns, and the path is none.
      clone: Path.join(root, "net_runner {1,2}"),
      target: Path.join(root, "target")
    }

    copy_sources(context.clone)
    copy(compiled(), context.target)
    context
  end

  # Kept from run to run. Cargo knows what is to be compiled again, and lets one after the other do so. Where it needs further
  # options, as for musl, the builds themselves compile what is missing.
  defp compiled do
    target = Path.join(Mix.Project.build_path(), "native_of_builds")
    File.mkdir_p!(target)
    common = ~w(--release --locked --target-dir) ++ [target, "--target", host()]
    cargo(["build", "--package", "net_runner" | common])
    cargo(["rustc", "--package", "shepherd"] ++ common ++ ~w(-- -C target-feature=+crt-static))
    target
  end

  defp cargo(args),
    do: System.cmd("cargo", args, cd: source(), env: @cargo_env, stderr_to_stdout: true)

  @doc "The target that cargo compiles for when it is not told otherwise."
  def host do
    {text, 0} = System.cmd("cargo", ["--version", "--verbose"])
    [_, host] = Regex.run(~r/^host: (\S+)/m, text)
    host
  end

  defp source, do: Path.dirname(Mix.Project.project_file())

  def copy_sources(to) do
    File.mkdir_p!(to)

    # What Hex packs: nothing else is needed.
    for name <- Mix.Project.config()[:package][:files],
        do: copy(Path.join(source(), name), Path.join(to, name))
  end

  @doc "Copies a file or a folder with its times, by which cargo and Mix know what has changed."
  def copy(from, to) do
    {_, 0} = System.cmd("cp", ["-pR", from, to])
    to
  end

  @doc "Makes a repository of a folder."
  def commit_all(repository) do
    for args <- [
          ~w(init --quiet),
          ~w(add .),
          ~w(-c user.name=test -c user.email=test@localhost commit --quiet -m all)
        ],
        do: {_, 0} = System.cmd("git", args, cd: repository, stderr_to_stdout: true)
  end

  def project(root, name, dependency) do
    directory = Path.join(root, name)
    File.mkdir_p!(Path.join(directory, "lib"))

    File.write!(Path.join(directory, "mix.exs"), """
    defmodule #{Macro.camelize(name)}.MixProject do
      use Mix.Project

      def project do
        [app: :#{name}, version: "0.1.0", deps: [{:net_runner, #{dependency}}]]
      end

      def application, do: [extra_applications: [:logger]]
    end
    """)

    File.write!(Path.join(directory, "lib/#{name}.ex"), """
    defmodule #{Macro.camelize(name)} do
      def hello, do: NetRunner.run(~w(echo hello))
    end
    """)

    directory
  end

  def mix(directory, context, args, env) do
    env =
      @cargo_env ++
        [{"CARGO_TARGET_DIR", context.target}, {"MIX_ENV", "prod"}, {"MIX_BUILD_PATH", nil} | env]

    System.cmd("mix", args, cd: directory, env: env, stderr_to_stdout: true)
  end

  def mix!(directory, context, args, env \\ []) do
    case mix(directory, context, args, env) do
      {output, 0} -> output
      {output, status} -> flunk("mix #{Enum.join(args, " ")} exited with #{status}:\n#{output}")
    end
  end

  @doc "A new folder in another one."
  def folder(parent, name) do
    folder = Path.join(parent, name)
    File.mkdir_p!(folder)
    folder
  end

  @doc "A folder for PATH with only what mix itself needs."
  def path_without_cargo(root, name) do
    bin = folder(root, name)

    for program <- ~w(mix elixir erl erlc sh env git dirname basename readlink sed uname cat ls) do
      if found = System.find_executable(program), do: File.ln_s(found, Path.join(bin, program))
    end

    bin
  end

  @doc "A folder for PATH whose cargo notes each build in $CALLS."
  def recording_cargo(root, name) do
    bin = folder(root, name)
    cargo = System.find_executable("cargo")

    script(Path.join(bin, "cargo"), """
    [ "$1" = build ] && echo "$@" >> "$CALLS"
    exec "#{cargo}" "$@"
    """)

    bin
  end

  def script(path, body) do
    File.write!(path, "#!/bin/sh\n" <> body)
    File.chmod!(path, 0o755)
  end
end
