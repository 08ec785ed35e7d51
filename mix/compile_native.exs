defmodule Mix.Tasks.Compile.NetRunnerNative do
  @moduledoc false
  # The compiler step that installs the NIF and the helper program: built from native/ with cargo, or, where one is
  # configured, from a tarball that was built elsewhere. mix.exs loads it, because it has to run before anything in lib/
  # is compiled, also when NetRunner is a dependency.
  #
  # Nothing is written into the source tree, which may be read-only, or shared by projects and machines. The results
  # go to priv/ of the compiled application, so that Mix notices when they were deleted with the rest of it.
  # Cargo's own files are beside the applications: Mix deletes the application's folder before it compiles
  # a dependency anew, and another `mix compile` may do so while cargo is still at work here.

  use Mix.Task.Compiler

  alias NetRunner.MixProject.Precompiled

  @source Path.dirname(__DIR__)
  @cargo_floor "1.85.0"

  # Increment this when cargo is called in another way.
  @recipe "5"

  # musl's targets link statically by default, and cargo makes no shared library then.
  @dynamic "-C target-feature=-crt-static"

  # What `mix net_runner.precompile` asks for.
  @impl true
  def run(["--precompile", directory]) do
    precompile(directory)
    {:ok, []}
  end

  def run(_args) do
    setting = Precompiled.setting()
    state = {settings(setting), digest(setting)}

    if recorded() == state and installed?(priv()) do
      {:noop, []}
    else
      File.rm(stamp())
      if setting == nil, do: build(), else: install_precompiled(setting)
      record(state)
      {:ok, []}
    end
  end

  # Mix runs the compilers of a git dependency only as long as its application is missing, but it loads this file every
  # time, before it looks for that. So when what is installed was deleted, or another tarball (or none) is configured
  # since, it must find no application. (Called when Mix knows where this project is compiled to: while it asks for
  # `project/0`, it says what is true of the project above.)
  def notice_change(_env, _bytecode) do
    with {settings, _digest} <- recorded() do
      unless settings == settings(Precompiled.setting()) and installed?(priv()) do
        File.rm(Path.join(Mix.Project.app_path(), "ebin/net_runner.app"))
      end
    end
  end

  @impl true
  def clean do
    for file <- [stamp() | Enum.map(programs(), &Path.join(priv(), &1))], do: File.rm(file)

    File.rm_rf(beside_applications())
  end

  defp priv, do: Path.join(Mix.Project.app_path(), "priv")
  defp stamp, do: Path.join(Mix.Project.manifest_path(), "compile.net_runner_native")
  defp beside_applications, do: Path.expand("../../net_runner_native", Mix.Project.app_path())

  defp recorded do
    with {:ok, text} <- File.read(stamp()),
         [settings, digest] <- String.split(text, "\n", trim: true),
         do: {settings, digest},
         else: (_ -> nil)
  end

  defp record({settings, digest}) do
    write_whole(stamp(), &File.write!(&1, [settings, "\n", digest, "\n"]))
  end

  defp installed?(priv) do
    Enum.all?(programs(), &File.regular?(Path.join(priv, &1)))
  end

  defp settings(setting), do: md5(:erlang.term_to_binary(setting))

  # What the result depends on beside the settings: the sources, the machine, and what it is built for.
  defp digest(setting) do
    machine = List.to_string(:erlang.system_info(:system_architecture))
    names = if setting == nil, do: ~w(CARGO_BUILD_TARGET RUSTFLAGS), else: ~w(CARGO_BUILD_TARGET)
    settings = for name <- names, do: [System.get_env(name, ""), 0]
    md5([@recipe, machine, 0, settings, sources()])
  end

  # The sources and the manifests. The path to the source is no pattern: it may hold characters that mean something there.
  defp sources do
    found =
      for path <- :filelib.wildcard(~c"native/**/*.{rs,toml}", String.to_charlist(@source)),
          path = List.to_string(path),
          # An editor's, which may be a link to nowhere.
          not String.contains?(path, "/."),
          do: path

    files = ["Cargo.toml", "Cargo.lock" | found]
    md5(for file <- Enum.sort(files), do: [file, 0, File.read!(Path.join(@source, file))])
  end

  defp md5(iodata), do: iodata |> :erlang.md5() |> Base.encode16(case: :lower)

  # --- with cargo -------------------------------------------------------------------------------------

  defp build do
    {release, _target} = cargo_build()
    install(for {name, path} <- built(release), do: {name, &File.cp!(path, &1)})
  end

  # Where cargo has put the results, and what they are for.
  defp cargo_build do
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

    {Path.join([directory, target, "release"]), target}
  end

  # A configuration is added to the user's own. But cargo takes no flags from it when there are some in the environment.
  defp linked_dynamically(target) do
    case System.get_env("RUSTFLAGS") do
      nil -> {["--config", "target.#{target}.rustflags=#{inspect(String.split(@dynamic))}"], []}
      flags -> {[], [{"RUSTFLAGS", flags <> " " <> @dynamic}]}
    end
  end

  @build_path "where its native part is compiled: make it writable, or set MIX_BUILD_PATH to a folder that is, and run " <>
                "the command again."

  # Cargo takes a minute, and its own message does not say who wanted to write there.
  defp writable!(directory, advice \\ @build_path) do
    probe = directory |> Path.join(".net_runner") |> temporary()

    with :ok <- File.mkdir_p(directory),
         :ok <- File.touch(probe),
         :ok <- File.rm(probe) do
      :ok
    else
      {:error, reason} ->
        Mix.raise(
          "NetRunner cannot write to #{directory} (#{:file.format_error(reason)}), #{advice}"
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

  defp built(release) do
    library =
      if match?({:unix, :darwin}, :os.type()), do: "libnet_runner.dylib", else: "libnet_runner.so"

    [
      {"net_runner_nif.so", Path.join(release, library)},
      {"net_runner_shepherd", Path.join(release, "net_runner_shepherd")}
    ]
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
      "stable`) and run the command again. Without Rust, it can be " <>
      "installed from a tarball (`config :net_runner, :precompiled`): `mix net_runner.precompile` makes one."
  end

  # --- from a tarball ---------------------------------------------------------------------------------

  defp install_precompiled(setting) do
    target = Precompiled.target()

    with {:ok, {_, from} = location, sha256} <- Precompiled.parse(setting, target),
         shown = Precompiled.without_secrets(from),
         Mix.shell().info("Installing the precompiled native part of NetRunner (#{shown})"),
         {:ok, tarball} <- Precompiled.fetch(location),
         {:ok, programs} <- within(from, Precompiled.unpack(tarball, sha256, wanted(target))) do
      install(for {name, bytes} <- programs, do: {name, &File.write!(&1, bytes)})
    else
      {:error, sentence} ->
        sentence = Precompiled.without_secrets(sentence)
        Mix.raise("NetRunner's native part cannot be installed without cargo: #{sentence}.")
    end
  end

  defp within(from, {:error, sentence}), do: {:error, "#{from}: #{sentence}"}
  defp within(_from, ok), do: ok

  defp wanted(target) do
    nif = List.to_string(:erlang.system_info(:nif_version))
    Map.merge(facts(target), %{nif: nif, glibc: Precompiled.glibc_here()})
  end

  defp facts(target),
    do: %{version: NetRunner.MixProject.project()[:version], target: target, sources: sources()}

  defp precompile(directory) do
    writable!(directory, "where the tarball goes: name another folder with `--output`.")
    {release, target} = cargo_build()
    programs = for {name, path} <- built(release), do: {name, File.read!(path)}
    {_, library} = List.keyfind!(programs, "net_runner_nif.so", 0)
    needs = %{nif: nif_version(), glibc: Precompiled.glibc(library)}
    facts = target |> Precompiled.canonical() |> facts() |> Map.merge(needs)
    path = Precompiled.pack(directory, programs, facts)
    Mix.shell().info([path, "\nSHA-256: ", Precompiled.sha256_of(File.read!(path))])
  end

  # Rustler's feature says for which version of the VM's interface the library is compiled.
  defp nif_version do
    manifest = File.read!(Path.join(@source, "native/net_runner/Cargo.toml"))
    [_, major, minor] = Regex.run(~r/"nif_version_(\d+)_(\d+)"/, manifest)
    "#{major}.#{minor}"
  end

  # --- install ----------------------------------------------------------------------------------------

  defp programs, do: ~w(net_runner_nif.so net_runner_shepherd)

  # All are written before the first one is put in its place.
  defp install(programs) do
    # A link to a priv/ in the source tree that is no longer there: earlier versions installed into that.
    if match?({:ok, _}, File.read_link(priv())) and not File.exists?(priv()), do: File.rm!(priv())

    put_in_place(
      for {name, write} <- programs do
        {Path.join(priv(), name),
         fn path ->
           write.(path)
           File.chmod!(path, 0o755)
         end}
      end
    )
  end

  defp write_whole(path, write), do: put_in_place([{path, write}])

  # By rename, so that a VM that runs from the old file keeps it, and that several VMs may install at once. When one cannot
  # be written, such as on a full disk, nothing of it stays.
  defp put_in_place(files) do
    files = for {path, write} <- files, do: {path, temporary(path), write}

    try do
      for {path, temporary, write} <- files do
        File.mkdir_p!(Path.dirname(path))
        write.(temporary)
      end

      for {path, temporary, _write} <- files, do: File.rename!(temporary, path)
    after
      for {_path, temporary, _write} <- files, do: File.rm(temporary)
    end
  end

  # In containers that share the folder, VMs may have the same PID.
  defp temporary(path), do: "#{path}.#{System.pid()}.#{:rand.uniform(1_000_000_000)}.tmp"
end
