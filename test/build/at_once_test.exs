defmodule NetRunner.Build.AtOnceTest do
  # Several compile NetRunner at once.
  use ExUnit.Case, async: true

  import NetRunner.Builds

  @moduletag timeout: 1_200_000

  setup_all do: {:ok, NetRunner.Builds.new()}

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

  # The first waits in cargo for the second, and that for the end of the first: what Mix does with Elixir's code in both at
  # once would be its own race.
  test "one project that is compiled twice at once gets it, though Mix deletes the folder",
       context do
    calls = Path.join(context.root, "calls at once")
    bin = waiting_cargo(context.root)
    directory = project(context.root, "at_once", "path: #{inspect(context.clone)}")
    # Cargo's files where they are by default.
    build = Path.join(directory, "_build/prod")
    File.mkdir_p!(build)
    copy(context.target, Path.join(build, "net_runner_native"))

    env = [
      {"PATH", bin <> ":" <> System.get_env("PATH")},
      {"CALLS", calls},
      {"CARGO_TARGET_DIR", nil}
    ]

    await_call = fn number ->
      NetRunner.Guarantees.Tree.await(fn -> number in calls(calls) end, 300_000)
    end

    # The dependency alone, for the same reason.
    compile = fn -> mix!(directory, context, ["deps.compile", "net_runner"], env) end
    first = Task.async(compile)
    await_call.("1")

    # Elixir 1.14 finds no application yet, and deletes its folder; newer ones wait for each other.
    second = Task.async(compile)
    unless function_exported?(Mix.Project, :with_build_lock, 2), do: await_call.("2")
    File.touch!(calls <> ".1")
    Task.await(first, :infinity)
    File.touch!(calls <> ".2")
    Task.await(second, :infinity)

    assert mix!(directory, context, ["run", "-e", "IO.inspect(AtOnce.hello())"], env) =~
             ~s({"hello\\n", 0})
  end

  defp calls(file) do
    with {:ok, text} <- File.read(file), do: String.split(text, "\n"), else: (_ -> [])
  end

  # A folder for PATH whose cargo numbers each build in $CALLS, and waits until the test lets it go on: the first time when it has
  # built something, and then before. It gives up where the test's VM has ended.
  defp waiting_cargo(root) do
    bin = folder(root, "waiting")
    cargo = System.find_executable("cargo")

    script(Path.join(bin, "cargo"), """
    wait_for_test() {
      echo $1 >> "$CALLS"
      while [ -e "$CALLS" ] && [ ! -e "$CALLS.$1" ]; do
        kill -0 #{System.pid()} || exit
        sleep 0.05
      done
    }

    [ "$1" = build ] || exec "#{cargo}" "$@"
    [ ! -e "$CALLS" ] || wait_for_test 2
    "#{cargo}" "$@" || exit
    [ -e "$CALLS" ] || wait_for_test 1
    """)

    bin
  end
end
