defmodule NetRunner.BuildTest do
  # NetRunner as a dependency: projects that are made, compiled and released for real, elsewhere.
  use ExUnit.Case, async: true

  @moduletag timeout: 600_000
  @source File.cwd!()

  setup_all do
    root =
      Path.join(System.tmp_dir!(), "net_runner build é #{System.unique_integer([:positive])}")

    File.mkdir_p!(root)
    on_exit(fn -> File.rm_rf!(root) end)
    # A copy of the sources alone, as in a fresh clone.
    clone = Path.join(root, "net_runner")
    copy_sources(clone)
    # Cargo's results are shared between the builds here, and every build runs cargo as its own.
    %{root: root, clone: clone, target: Path.join(root, "target")}
  end

  defp copy_sources(to) do
    File.mkdir_p!(to)

    # What Hex packs: nothing else is needed.
    for name <- NetRunner.MixProject.project()[:package][:files],
        do: File.cp_r!(Path.join(@source, name), Path.join(to, name))
  end

  defp project(root, name, dependency) do
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

  defp mix(directory, context, args, env) do
    # Without optimizations, which CI's own build has, cargo needs a third of the time.
    env = [
      {"CARGO_PROFILE_RELEASE_LTO", "off"},
      {"CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"},
      {"CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"},
      {"CARGO_TARGET_DIR", context.target},
      {"MIX_ENV", "prod"},
      {"MIX_BUILD_PATH", nil} | env
    ]

    System.cmd("mix", args, cd: directory, env: env, stderr_to_stdout: true)
  end

  defp mix!(directory, context, args, env \\ []) do
    case mix(directory, context, args, env) do
      {output, 0} -> output
      {output, status} -> flunk("mix #{Enum.join(args, " ")} exited with #{status}:\n#{output}")
    end
  end

  test "as a path dependency, and in a release that is moved elsewhere", context do
    # Not the one that other tests may have compiled.
    clone = Path.join(context.root, "net_runner by path")
    copy_sources(clone)
    directory = project(context.root, "by_path", "path: #{inspect(clone)}")
    output = mix!(directory, context, ["compile"])
    assert output =~ "Compiling the native part of NetRunner"

    assert mix!(directory, context, ["run", "-e", "IO.inspect(ByPath.hello())"]) =~
             ~s({"hello\\n", 0})

    # A second time, nothing is to be done.
    refute mix!(directory, context, ["compile"]) =~ "native part"

    # Another project with the same dependency, in another environment, has what it needs.
    other = project(context.root, "other", "path: #{inspect(clone)}")
    elsewhere = Path.join(context.root, "elsewhere")
    env = [{"MIX_BUILD_PATH", elsewhere}, {"MIX_ENV", "dev"}]
    assert mix!(other, context, ["run", "-e", "IO.inspect(Other.hello())"], env) =~ "hello"

    mix!(directory, context, ["release"])
    moved = Path.join(context.root, "moved release")
    File.rename!(Path.join(directory, "_build/prod/rel/by_path"), moved)
    File.rm_rf!(Path.join(directory, "_build"))
    hidden = clone <> " hidden"
    File.rename!(clone, hidden)
    program = Path.join(moved, "bin/by_path")
    script = "{:ok, _} = Application.ensure_all_started(:net_runner); IO.inspect(ByPath.hello())"
    evaluate = &System.cmd(program, ["eval", &1], stderr_to_stdout: true)
    results = {evaluate.(script), evaluate.("NetRunner.Doctor.print()")}
    File.rename!(hidden, clone)
    assert {{~s({"hello\\n", 0}\n), 0}, {report, 0}} = results
    assert report =~ "not needed: this is a release"
    assert report =~ ~r/ok +commands +a shell ran/
  end

  test "as a git dependency", context do
    repository = Path.join(context.root, "repository")
    copy_sources(repository)
    git = fn args -> {_, 0} = System.cmd("git", args, cd: repository, stderr_to_stdout: true) end
    git.(["init", "--quiet"])
    git.(["add", "."])
    git.(~w(-c user.name=test -c user.email=test@localhost commit --quiet -m all))

    url = "file://" <> URI.encode(repository)
    directory = project(context.root, "by_git", "git: #{inspect(url)}")
    mix!(directory, context, ["deps.get"])
    hello = fn -> mix!(directory, context, ["run", "-e", "IO.inspect(ByGit.hello())"]) end
    assert hello.() =~ ~s({"hello\\n", 0})

    # A clean checkout, so that there is nothing in it that could be deleted.
    checkout = Path.join(directory, "deps/net_runner")
    ignored = ["status", "--porcelain", "--ignored"]
    {status, 0} = System.cmd("git", ignored, cd: checkout)
    # The mark of Mix itself, in some versions.
    assert String.trim(status) in ["", "?? .fetch"]

    # Mix compiles a git dependency anew only when it has a reason.
    refute hello.() =~ "native part"

    # That its native part was deleted is one, whoever finds out, in whatever environment.
    File.mkdir_p!(Path.join(directory, "test"))
    File.write!(Path.join(directory, "test/test_helper.exs"), "ExUnit.start()")

    for {environment, args} <- [
          {"prod", ["run", "-e", "IO.inspect(ByGit.hello())"]},
          {"dev", ["compile"]},
          {"dev", ["deps.compile", "net_runner"]},
          {"test", ["test"]}
        ] do
      env = [{"MIX_ENV", environment}]
      mix!(directory, context, ["compile"], env)
      File.rm_rf!(Path.join(directory, "_build/#{environment}/lib/net_runner/priv"))
      assert mix!(directory, context, args, env) =~ "Compiling the native part of NetRunner"
      refute mix!(directory, context, ["compile"], env) =~ "native part"
    end
  end

  test "the source tree is not written to", context do
    clone = Path.join(context.root, "read only")
    copy_sources(clone)
    # Root may write all the same.
    {_, 0} = System.cmd("chmod", ["-R", "a-w", clone])
    on_exit(fn -> System.cmd("chmod", ["-R", "u+w", clone]) end)

    files = fn ->
      for file <- Path.wildcard(Path.join(clone, "**"), match_dot: true),
          do: {file, File.stat!(file).mtime, File.stat!(file).size}
    end

    before = files.()
    directory = project(context.root, "reader", "path: #{inspect(clone)}")
    assert mix!(directory, context, ["run", "-e", "IO.inspect(Reader.hello())"]) =~ "hello"
    assert files.() == before
  end

  test "cargo is called when native/ changed, and only then", context do
    calls = Path.join(context.root, "calls")
    bin = recording_cargo(context.root, "recording")
    clone = Path.join(context.root, "changing")
    copy_sources(clone)
    directory = project(context.root, "rebuilt", "path: #{inspect(clone)}")
    env = [{"PATH", bin <> ":" <> System.get_env("PATH")}, {"CALLS", calls}]

    builds = fn ->
      with {:ok, text} <- File.read(calls),
           do: length(String.split(text, "\n", trim: true)),
           else: (_ -> 0)
    end

    mix!(directory, context, ["compile"], env)
    assert builds.() == 1
    mix!(directory, context, ["compile"], env)
    append(Path.join(clone, "lib/net_runner.ex"), "# changed\n")
    assert mix!(directory, context, ["compile"], env) =~ "net_runner"
    assert builds.() == 1

    for file <- ["native/wire/src/lib.rs", "Cargo.toml"] do
      before = builds.()

      append(
        Path.join(clone, file),
        if(Path.extname(file) == ".rs", do: "// changed\n", else: "# changed\n")
      )

      assert mix!(directory, context, ["compile"], env) =~ "native part"
      assert builds.() == before + 1
      mix!(directory, context, ["compile"], env)
      assert builds.() == before + 1
    end

    # What was deleted comes back.
    File.rm!(Path.join(directory, "_build/prod/lib/net_runner/priv/net_runner_shepherd"))
    before = builds.()
    mix!(directory, context, ["compile"], env)
    assert builds.() == before + 1
    assert mix!(directory, context, ["run", "-e", "IO.inspect(Rebuilt.hello())"], env) =~ "hello"
  end

  test "a folder that cannot be written is named before cargo runs", context do
    calls = Path.join(context.root, "calls of nothing")
    bin = recording_cargo(context.root, "recording nothing")
    directory = project(context.root, "unwritable", "path: #{inspect(context.clone)}")
    # Also root cannot make a folder where a file is.
    build = Path.join(context.root, "unwritable build")
    File.mkdir_p!(build)
    File.touch!(Path.join(build, "net_runner_native"))

    env = [
      {"PATH", bin <> ":" <> System.get_env("PATH")},
      {"CALLS", calls},
      {"CARGO_TARGET_DIR", nil},
      {"MIX_BUILD_PATH", build}
    ]

    assert {output, 1} = mix(directory, context, ["compile"], env)
    assert output =~ "NetRunner cannot write to #{build}/net_runner_native ("
    assert output =~ "make it writable"
    refute File.exists?(calls)
  end

  test "cargo's target may be named, and what was built for another one is not taken", context do
    target = Path.join(context.root, "target with leftovers")

    for name <- ~w(libnet_runner.so net_runner_shepherd) do
      File.mkdir_p!(Path.join(target, "release"))
      File.write!(Path.join([target, "release", name]), "from another time")
    end

    {text, 0} = System.cmd("cargo", ["--version", "--verbose"])
    [_, host] = Regex.run(~r/^host: (\S+)/m, text)
    env = [{"CARGO_BUILD_TARGET", host}, {"CARGO_TARGET_DIR", target}]
    directory = project(context.root, "targeted", "path: #{inspect(context.clone)}")

    assert mix!(directory, context, ["run", "-e", "IO.inspect(Targeted.hello())"], env) =~
             ~s({"hello\\n", 0})
  end

  describe "cargo that" do
    setup context do
      clone = Path.join(context.root, "without #{System.unique_integer([:positive])}")
      copy_sources(clone)
      name = "without_#{System.unique_integer([:positive])}"
      %{directory: project(context.root, name, "path: #{inspect(clone)}")}
    end

    defp sentences(output), do: Enum.filter(String.split(output, "\n"), &(&1 =~ "rustup"))

    test "is missing: one sentence says what to install", context do
      bin = path_without_cargo(context.root, "no cargo")
      assert {output, status} = mix(context.directory, context, ["compile"], [{"PATH", bin}])
      assert status != 0
      assert [sentence] = sentences(output)
      assert sentence =~ "needs cargo 1.85.0 or newer"
      assert sentence =~ "cargo was not found on PATH"
      assert sentence =~ "rustup toolchain install stable"
    end

    test "is too old, or broken: the sentence says that", context do
      bin = path_without_cargo(context.root, "old cargo")
      script(Path.join(bin, "cargo"), "echo 'cargo 1.60.0 (d1fd9fe2c 2022-03-01)'\n")
      assert {output, status} = mix(context.directory, context, ["compile"], [{"PATH", bin}])
      assert status != 0
      assert [sentence] = sentences(output)
      assert sentence =~ "too old (cargo 1.60.0"

      script(Path.join(bin, "cargo"), "echo 'error: no default toolchain' >&2; exit 1\n")
      assert {output, status} = mix(context.directory, context, ["compile"], [{"PATH", bin}])
      assert status != 0
      assert [sentence] = sentences(output)
      assert sentence =~ "does not work (error: no default toolchain)"
    end
  end

  describe "a precompiled native part" do
    setup context do
      packages = Path.join(context.root, "packages")
      # Once for all of them.
      unless File.dir?(packages), do: make_tarball(context, packages)
      [tarball] = Path.wildcard(Path.join(packages, "*.tar.gz"))
      <<sha256::binary-size(64), "  ", _::binary>> = File.read!(tarball <> ".sha256")
      path = [{"PATH", path_without_cargo(context.root, "no cargo for tarballs")}]
      %{tarball: tarball, sha256: sha256, without_cargo: path}
    end

    # In a project that has NetRunner as a dependency; it does the same in NetRunner itself.
    defp make_tarball(context, packages) do
      File.mkdir_p!(packages)
      maker = project(context.root, "maker", "path: #{inspect(context.clone)}")
      output = mix!(maker, context, ["net_runner.precompile", "--output", packages])
      assert output =~ packages <> "/net_runner-" and output =~ ~r/\nSHA-256: [0-9a-f]{64}\n/
    end

    defp configure(directory, setting) do
      File.mkdir_p!(Path.join(directory, "config"))
      line = if setting, do: "config :net_runner, :precompiled, #{inspect(setting)}\n", else: ""
      File.write!(Path.join(directory, "config/config.exs"), "import Config\n" <> line)
    end

    test "is installed without cargo, from a path or a URL, and whenever the configuration changes",
         context do
      directory = project(context.root, "served", "path: #{inspect(context.clone)}")
      setting = [from: context.tarball, sha256: context.sha256]
      configure(directory, setting)
      compile = fn -> mix!(directory, context, ["compile"], context.without_cargo) end

      assert compile.() =~
               "Installing the precompiled native part of NetRunner (#{context.tarball})"

      refute compile.() =~ "native part"
      hello = ["run", "-e", "IO.inspect(Served.hello())"]
      assert mix!(directory, context, hello) == ~s({"hello\\n", 0}\n)

      # What was deleted comes back.
      priv = Path.join(directory, "_build/prod/lib/net_runner/priv")
      File.rm!(Path.join(priv, "net_runner_nif.so"))
      assert compile.() =~ "Installing the precompiled"

      tarball = File.read!(context.tarball)

      url =
        NetRunner.FileServer.start_link(fn "/" <> name ->
          true = name == URI.encode(Path.basename(context.tarball))
          NetRunner.FileServer.ok(tarball)
        end)

      target = NetRunner.MixProject.Precompiled.target()
      name = context.tarball |> Path.basename() |> String.replace(target, "{target}")
      configure(directory, from: url <> "/" <> name, sha256: %{target => context.sha256})
      assert compile.() =~ "native part of NetRunner (#{url}"
      refute compile.() =~ "native part"

      # The environment comes first.
      env = [
        {"NET_RUNNER_PRECOMPILED", context.tarball},
        {"NET_RUNNER_PRECOMPILED_SHA256", context.sha256}
      ]

      output = mix!(directory, context, ["compile"], env ++ context.without_cargo)
      assert output =~ "native part of NetRunner (#{context.tarball})"

      assert mix!(directory, context, ["compile"], [{"NET_RUNNER_PRECOMPILED", "false"}]) =~
               "(cargo build --release)"

      assert mix!(directory, context, hello, context.without_cargo) =~
               "Installing the precompiled"

      configure(directory, nil)
      assert mix!(directory, context, ["compile"]) =~ "(cargo build --release)"
    end

    test "that cannot be put in its place leaves nothing beside it", context do
      build = Path.join(context.root, "build with something in the way")
      priv = Path.join(build, "lib/net_runner/priv")
      File.mkdir_p!(Path.join(priv, "net_runner_shepherd/in the way"))

      env = [
        {"MIX_BUILD_PATH", build},
        {"NET_RUNNER_PRECOMPILED", context.tarball},
        {"NET_RUNNER_PRECOMPILED_SHA256", context.sha256}
      ]

      {output, status} = mix(context.clone, context, ["compile"], env ++ context.without_cargo)
      assert status != 0 and output =~ "Installing the precompiled", output
      assert Path.wildcard(Path.join(priv, "*.tmp")) == []
    end

    test "is installed for a git dependency, too, and anew when the configuration changes",
         context do
      repository = Path.join(context.root, "repository with tarballs")
      copy_sources(repository)

      git = fn args ->
        {_, 0} = System.cmd("git", args, cd: repository, stderr_to_stdout: true)
      end

      git.(["init", "--quiet"])
      git.(["add", "."])
      git.(~w(-c user.name=test -c user.email=test@localhost commit --quiet -m all))

      directory =
        project(context.root, "fetched", "git: #{inspect("file://" <> URI.encode(repository))}")

      configure(directory, from: context.tarball, sha256: context.sha256)
      mix!(directory, context, ["deps.get"])
      hello = ["run", "-e", "IO.inspect(Fetched.hello())"]
      compile = fn -> mix!(directory, context, ["compile"], context.without_cargo) end
      assert compile.() =~ "native part of NetRunner (#{context.tarball})"
      refute compile.() =~ "native part"

      copy = Path.join(context.root, "copy.tar.gz")
      File.cp!(context.tarball, copy)
      configure(directory, from: copy, sha256: context.sha256)
      assert compile.() =~ "native part of NetRunner (#{copy})"
      assert mix!(directory, context, hello) == ~s({"hello\\n", 0}\n)
    end

    test "that is not as configured is not installed, not even in part", context do
      directory = project(context.root, "refusing", "path: #{inspect(context.clone)}")
      priv = Path.join(directory, "_build/prod/lib/net_runner/priv")
      good = [from: context.tarball, sha256: context.sha256]
      truncated = Path.join(context.root, "truncated.tar.gz")
      half = binary_part(File.read!(context.tarball), 0, 100_000)
      File.write!(truncated, half)
      half_sum = NetRunner.MixProject.Precompiled.sha256_of(half)

      url =
        NetRunner.FileServer.start_link(fn _ -> NetRunner.FileServer.status("404 Not Found") end)

      refused = fn setting, env, expected ->
        configure(directory, setting)
        env = env ++ context.without_cargo
        assert {output, status} = mix(directory, context, ["compile"], env)
        assert status != 0
        assert output =~ "NetRunner's native part cannot be installed without cargo: "
        assert output =~ expected
        refute output =~ "secret"
      end

      for {setting, env, expected} <- [
            {[from: context.tarball, sha256: String.duplicate("0", 64)], [],
             "#{context.tarball}: its SHA-256 is #{context.sha256}"},
            {[from: truncated, sha256: context.sha256], [], "it is truncated"},
            {[from: truncated, sha256: half_sum], [], "is not a tarball"},
            {[from: "/no/such/file", sha256: context.sha256], [], "/no/such/file cannot be read"},
            {[from: url <> "/x", sha256: context.sha256], [], "#{url}/x answers 404 Not Found"},
            {[
               from: String.replace(url, "//", "//me:secret@") <> "/x?secret",
               sha256: context.sha256
             ], [], "#{url}/x?… answers 404 Not Found"},
            {good, [{"CARGO_BUILD_TARGET", "aarch64-unknown-linux-musl"}],
             "and this VM needs aarch64-unknown-linux-musl"}
          ] do
        refused.(setting, env, expected)
        refute File.exists?(priv)
      end

      # Nor in place of another one, now or the next time.
      configure(directory, good)
      mix!(directory, context, ["compile"], context.without_cargo)
      assert length(File.ls!(priv)) == 2

      for _ <- 1..2 do
        refused.([from: truncated, sha256: context.sha256], [], "it is truncated")
        refute File.exists?(priv)
      end
    end
  end

  test "two projects that compile the same dependency at once both get it", context do
    clone = Path.join(context.root, "shared")
    copy_sources(clone)

    outputs =
      ["first", "second"]
      |> Enum.map(&project(context.root, &1, "path: #{inspect(clone)}"))
      |> Task.async_stream(
        fn directory ->
          module = directory |> Path.basename() |> Macro.camelize()
          mix!(directory, context, ["run", "-e", "IO.inspect(#{module}.hello())"])
        end,
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, output} -> output end)

    assert Enum.all?(outputs, &(&1 =~ ~s({"hello\\n", 0})))
  end

  test "one project that is compiled twice at once gets it, though Mix deletes the folder",
       context do
    calls = Path.join(context.root, "calls at once")
    bin = recording_cargo(context.root, "recording at once")
    directory = project(context.root, "at_once", "path: #{inspect(context.clone)}")
    # Cargo's files where they are by default.
    env = [
      {"PATH", bin <> ":" <> System.get_env("PATH")},
      {"CALLS", calls},
      {"CARGO_TARGET_DIR", nil}
    ]

    # The dependency alone: what Mix does with the project itself would be its own race.
    compile = fn -> mix!(directory, context, ["deps.compile", "net_runner"], env) end
    first = Task.async(compile)
    NetRunner.Guarantees.Tree.await(fn -> File.exists?(calls) end, 300_000)

    # Elixir 1.14 finds no application yet, and deletes its folder; newer ones wait for each other.
    second = Task.async(compile)
    Task.await_many([first, second], :infinity)

    assert mix!(directory, context, ["run", "-e", "IO.inspect(AtOnce.hello())"], env) =~
             ~s({"hello\\n", 0})
  end

  test "a project that does not start the application is told so", context do
    directory = project(context.root, "unstarted", "path: #{inspect(context.clone)}")
    code = "IO.inspect(Unstarted.hello()); IO.puts(NetRunner.Error.describe(:not_started))"
    output = mix!(directory, context, ["run", "--no-start", "-e", code])
    assert output =~ "{:error, :not_started}"
    assert output =~ "Application.ensure_all_started(:net_runner)"
  end

  # Only what mix itself needs.
  defp path_without_cargo(root, name) do
    bin = Path.join(root, name)
    File.mkdir_p!(bin)

    for program <- ~w(mix elixir erl erlc sh env git dirname basename readlink sed uname cat ls) do
      if found = System.find_executable(program), do: File.ln_s(found, Path.join(bin, program))
    end

    bin
  end

  # A folder for PATH whose cargo notes each build in $CALLS.
  defp recording_cargo(root, name) do
    bin = Path.join(root, name)
    File.mkdir_p!(bin)
    cargo = System.find_executable("cargo")

    script(Path.join(bin, "cargo"), """
    [ "$1" = build ] && echo "$@" >> "$CALLS"
    exec "#{cargo}" "$@"
    """)

    bin
  end

  defp script(path, body) do
    File.write!(path, "#!/bin/sh\n" <> body)
    File.chmod!(path, 0o755)
  end

  defp append(path, text), do: File.write!(path, text, [:append])
end
