defmodule Mix.Tasks.Compile.NetRunnerNative do
  @moduledoc false
  # The compiler step that builds native/ with cargo and installs the NIF and the helper program. It lives in mix.exs
  # because it has to run before anything in lib/ is compiled, also when NetRunner is a dependency.
  #
  # Nothing is written into the source tree, which may be read-only, or shared by projects and machines. The results
  # go to priv/ of the compiled application, so that Mix notices when they were deleted with the rest of it.
  # Cargo's own files are beside the applications: Mix deletes the application's folder before it compiles
  # a dependency anew, and another `mix compile` may do so while cargo is still at work here.

  use Mix.Task.Compiler

  @source __DIR__
  @cargo_floor "1.85.0"

  # Increment this when cargo is called in another way.
  @recipe "4"

  # musl's targets link statically by default, and cargo makes no shared library then.
  @dynamic "-C target-feature=-crt-static"

  @impl true
  def run(_args) do
    digest = digest()

    if up_to_date?(digest) do
      {:noop, []}
    else
      build()
      write_whole(stamp(), &File.write!(&1, digest))
      {:ok, []}
    end
  end

  # Mix runs the compilers of a git dependency only as long as its application is missing, but it loads this file every
  # time, before it looks for that. So without what was deleted it must find no application. (Called when Mix knows
  # where this project is compiled to: while it asks for `project/0`, it says what is true of the project above.)
  def notice_deleted(_env, _bytecode) do
    if File.exists?(stamp()) and not installed?(priv()) do
      File.rm(Path.join(Mix.Project.app_path(), "ebin/net_runner.app"))
    end
  end

  @impl true
  def clean do
    for file <- [stamp() | Enum.map(artifacts(), fn {_, to} -> Path.join(priv(), to) end)] do
      File.rm(file)
    end

    File.rm_rf(beside_applications())
  end

  defp priv, do: Path.join(Mix.Project.app_path(), "priv")
  defp stamp, do: Path.join(Mix.Project.manifest_path(), "compile.net_runner_native")
  defp beside_applications, do: Path.expand("../../net_runner_native", Mix.Project.app_path())

  defp up_to_date?(digest) do
    File.read(stamp()) == {:ok, digest} and installed?(priv())
  end

  defp installed?(priv) do
    Enum.all?(artifacts(), fn {_, to} -> File.regular?(Path.join(priv, to)) end)
  end

  # What the result depends on: the sources, the manifests, the machine, and what it is built for.
  defp digest do
    files =
      Path.wildcard(Path.join(@source, "native/**/*.{rs,toml}")) ++
        Enum.map(["Cargo.toml", "Cargo.lock"], &Path.join(@source, &1))

    parts =
      for file <- Enum.sort(files), do: [Path.relative_to(file, @source), 0, File.read!(file)]

    machine = List.to_string(:erlang.system_info(:system_architecture))
    settings = for name <- ~w(CARGO_BUILD_TARGET RUSTFLAGS), do: [System.get_env(name, ""), 0]
    :erlang.md5([@recipe, machine, 0, settings, parts]) |> Base.encode16(case: :lower)
  end

  defp build do
    {cargo, host} = cargo!()
    directory = System.get_env("CARGO_TARGET_DIR") || beside_applications()
    Enum.each([directory, Mix.Project.manifest_path(), Mix.Project.app_path()], &writable!/1)
    Mix.shell().info("Compiling the native part of NetRunner (cargo build --release)")

    # The target is always named: so it is known where cargo puts the results, whatever its configuration says.
    target = System.get_env("CARGO_BUILD_TARGET") || host
    common = ~w(--release --locked --target-dir) ++ [directory, "--target", target]
    {config, env} = if target =~ "musl", do: linked_dynamically(target), else: {[], []}
    run!(cargo, ["build", "--package", "net_runner"] ++ config ++ common, env)

    # Linked statically, the helper forks a third faster and takes half the memory for each command. Not every
    # system has a static C library.
    static = ["rustc", "--package", "shepherd"] ++ common ++ ~w(-- -C target-feature=+crt-static)

    unless target =~ "linux" and cargo(cargo, static) == 0 do
      run!(cargo, ["build", "--package", "shepherd"] ++ common)
    end

    install(Path.join([directory, target, "release"]))
  end

  # A configuration is added to the user's own. But cargo takes no flags from it when there are some in the environment.
  defp linked_dynamically(target) do
    case System.get_env("RUSTFLAGS") do
      nil -> {["--config", "target.#{target}.rustflags=#{inspect(String.split(@dynamic))}"], []}
      flags -> {[], [{"RUSTFLAGS", flags <> " " <> @dynamic}]}
    end
  end

  # Cargo takes a minute, and its own message does not say who wanted to write there.
  defp writable!(directory) do
    probe = Path.join(directory, ".net_runner.#{System.pid()}.tmp")

    with :ok <- File.mkdir_p(directory),
         :ok <- File.touch(probe),
         :ok <- File.rm(probe) do
      :ok
    else
      {:error, reason} ->
        Mix.raise(
          "NetRunner cannot write to #{directory} (#{:file.format_error(reason)}), where its native part is " <>
            "compiled: make it writable, or set MIX_BUILD_PATH to a folder that is, and run the command again."
        )
    end
  end

  defp run!(cargo, args, env \\ []) do
    status = cargo(cargo, args, env)

    if status != 0 do
      Mix.raise(
        "cargo could not build NetRunner's native part (exit #{status}); its output above says why"
      )
    end
  end

  defp cargo(cargo, args, env \\ []) do
    options = [cd: @source, env: env, stderr_to_stdout: true, into: IO.stream(:stdio, :line)]
    {_, status} = System.cmd(cargo, args, options)
    status
  end

  defp install(release) do
    # A link to a priv/ in the source tree that is no longer there: earlier versions installed into that.
    if match?({:ok, _}, File.read_link(priv())) and not File.exists?(priv()), do: File.rm!(priv())

    for {from, to} <- artifacts() do
      write_whole(Path.join(priv(), to), &File.cp!(Path.join(release, from), &1))
    end
  end

  # By rename, so that a VM that runs from the old file keeps it, and that several VMs may install at once.
  defp write_whole(path, write) do
    File.mkdir_p!(Path.dirname(path))
    temporary = "#{path}.#{System.pid()}.tmp"
    write.(temporary)
    File.rename!(temporary, path)
  end

  defp artifacts do
    library =
      if match?({:unix, :darwin}, :os.type()), do: "libnet_runner.dylib", else: "libnet_runner.so"

    [{library, "net_runner_nif.so"}, {"net_runner_shepherd", "net_runner_shepherd"}]
  end

  # Cargo, and the target that it builds for when it is not told otherwise.
  defp cargo! do
    cargo = System.find_executable("cargo") || Mix.raise(advice("cargo was not found on PATH"))
    {output, _} = System.cmd(cargo, ["--version", "--verbose"], stderr_to_stdout: true)
    [first_line | _] = String.split(output, "\n")

    with [_, version] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, first_line),
         {:new_enough, true} <- {:new_enough, Version.compare(version, @cargo_floor) != :lt},
         [_, host] <- Regex.run(~r/^host: (\S+)/m, output) do
      {cargo, host}
    else
      {:new_enough, false} -> Mix.raise(advice("the cargo on PATH is too old (#{first_line})"))
      nil -> Mix.raise(advice("`cargo --version` does not work (#{String.trim(output)})"))
    end
  end

  defp advice(problem) do
    "NetRunner is partly written in Rust and needs cargo #{@cargo_floor} or newer to compile, but " <>
      "#{problem}: install a current Rust toolchain (rustup does it: `rustup toolchain install " <>
      "stable`) and run the command again."
  end
end

defmodule NetRunner.MixProject do
  use Mix.Project

  # After the callback of Mix.Project, which makes this the current project.
  @after_compile {Mix.Tasks.Compile.NetRunnerNative, :notice_deleted}

  def project do
    [
      app: :net_runner,
      version: "0.1.0",
      elixir: "~> 1.14",
      description: "Runs operating-system commands with backpressure, and leaves nothing running",
      compilers: [:net_runner_native | Mix.compilers()],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      test_ignore_filters: [&String.starts_with?(&1, ["test/mutants/", "test/soak/"])],
      package: package(),
      deps: []
    ]
  end

  def application do
    [mod: {NetRunner.Application, []}, extra_applications: [:logger]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  defp package do
    [
      licenses: ["Apache-2.0"],
      files: ~w(lib native Cargo.toml Cargo.lock mix.exs README.md LICENSE docs)
    ]
  end
end
