defmodule Mix.Tasks.Compile.NetRunnerNative do
  @moduledoc false
  # The compiler step that builds native/ with cargo and puts the NIF and the helper program into
  # priv/. It lives in mix.exs because it has to run before anything in lib/ is compiled, also when
  # NetRunner is a dependency.

  use Mix.Task.Compiler

  @source __DIR__
  @cargo_floor "1.91.0"
  @stamp "native.md5"

  # Counts the changes of how cargo is called.
  @recipe "2"

  @impl true
  def run(_args) do
    priv = Path.join(@source, "priv")
    digest = digest()

    if up_to_date?(priv, digest) do
      {:noop, []}
    else
      build(priv)
      File.write!(Path.join(priv, @stamp), digest)
      # The build structure links or copies priv/, which may not have been there before.
      Mix.Project.build_structure()
      {:ok, []}
    end
  end

  @impl true
  def clean do
    for name <- [@stamp | Enum.map(artifacts(), fn {_, to} -> to end)] do
      File.rm(Path.join([@source, "priv", name]))
    end
  end

  defp up_to_date?(priv, digest) do
    File.read(Path.join(priv, @stamp)) == {:ok, digest} and
      Enum.all?(artifacts(), fn {_, to} -> File.regular?(Path.join(priv, to)) end)
  end

  # What the result depends on: the sources, the manifests, and the machine.
  defp digest do
    files =
      Path.wildcard(Path.join(@source, "native/**/*.{rs,toml}")) ++
        Enum.map(["Cargo.toml", "Cargo.lock"], &Path.join(@source, &1))

    parts =
      for file <- Enum.sort(files), do: [Path.relative_to(file, @source), 0, File.read!(file)]

    machine = List.to_string(:erlang.system_info(:system_architecture))
    :erlang.md5([@recipe, machine, parts]) |> Base.encode16(case: :lower)
  end

  defp build(priv) do
    cargo = cargo!()
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(Mix.Project.app_path(), "native")
    Mix.shell().info("Compiling the native part of NetRunner (cargo build --release)")

    common = ["--release", "--locked", "--target-dir", target]
    run!(cargo, ["build", "--package", "net_runner"] ++ common)

    # Linked statically, the helper forks a third faster and takes half the memory for each command. Not every
    # system has a static C library.
    static = ["rustc", "--package", "shepherd"] ++ common ++ ~w(-- -C target-feature=+crt-static)

    unless match?({:unix, :linux}, :os.type()) and cargo(cargo, static) == 0 do
      run!(cargo, ["build", "--package", "shepherd"] ++ common)
    end

    install(Path.join(target, "release"), priv)
  end

  defp run!(cargo, args) do
    status = cargo(cargo, args)

    if status != 0 do
      Mix.raise(
        "cargo could not build NetRunner's native part (exit #{status}); its output above says why"
      )
    end
  end

  defp cargo(cargo, args) do
    options = [cd: @source, stderr_to_stdout: true, into: IO.stream(:stdio, :line)]
    {_, status} = System.cmd(cargo, args, options)
    status
  end

  # By rename, so that a VM that runs from the old files keeps them. Several VMs may install at once.
  defp install(release, priv) do
    File.mkdir_p!(priv)

    for {from, to} <- artifacts() do
      target = Path.join(priv, to)
      temporary = "#{target}.#{System.pid()}.tmp"
      File.cp!(Path.join(release, from), temporary)
      File.rename!(temporary, target)
    end
  end

  defp artifacts do
    library =
      if match?({:unix, :darwin}, :os.type()), do: "libnet_runner.dylib", else: "libnet_runner.so"

    [{library, "net_runner_nif.so"}, {"net_runner_shepherd", "net_runner_shepherd"}]
  end

  defp cargo! do
    cargo = System.find_executable("cargo") || Mix.raise(advice("cargo was not found on PATH"))
    {output, _} = System.cmd(cargo, ["--version"], stderr_to_stdout: true)

    with [_, version] <- Regex.run(~r/^cargo (\d+\.\d+\.\d+)/, output),
         false <- Version.compare(version, @cargo_floor) == :lt do
      cargo
    else
      true -> Mix.raise(advice("the cargo on PATH is too old (#{String.trim(output)})"))
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

  def project do
    [
      app: :net_runner,
      version: "0.1.0",
      elixir: "~> 1.14",
      description: "Runs operating-system commands with backpressure, and leaves nothing running",
      compilers: [:net_runner_native | Mix.compilers()],
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
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
