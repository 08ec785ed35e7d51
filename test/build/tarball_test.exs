defmodule NetRunner.Build.TarballTest do
  # Projects that install a precompiled native part.
  use ExUnit.Case, async: true

  import NetRunner.Builds

  @moduletag timeout: 1_200_000

  setup_all do: {:ok, NetRunner.Builds.new()}

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

      commit_all(repository)

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
end
