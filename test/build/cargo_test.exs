defmodule NetRunner.Build.CargoTest do
  # When a project that has NetRunner as a dependency calls cargo, and what it says when that is of no use.
  use ExUnit.Case, async: true

  import NetRunner.Builds

  @moduletag timeout: 1_200_000

  setup_all do: {:ok, NetRunner.Builds.new()}

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
    target = copy(context.target, Path.join(context.root, "target with leftovers"))

    for name <- ~w(libnet_runner.so net_runner_shepherd) do
      File.mkdir_p!(Path.join(target, "release"))
      File.write!(Path.join([target, "release", name]), "from another time")
    end

    env = [{"CARGO_BUILD_TARGET", host()}, {"CARGO_TARGET_DIR", target}]
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

  defp append(path, text), do: File.write!(path, text, [:append])
end
