defmodule NetRunner.Build.DependencyTest do
  # NetRunner as a dependency: projects that are made, compiled and released for real, elsewhere.
  use ExUnit.Case, async: true

  import NetRunner.Builds

  @moduletag timeout: 1_200_000

  setup_all do: {:ok, NetRunner.Builds.new()}

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
    commit_all(repository)
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
      build = Path.join(directory, "_build/#{environment}")
      # What was compiled for one environment is the same in another.
      unless File.dir?(build), do: copy(Path.join(directory, "_build/prod"), build)
      mix!(directory, context, ["compile"], env)
      File.rm_rf!(Path.join(build, "lib/net_runner/priv"))
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

  test "a project that does not start the application is told so", context do
    directory = project(context.root, "unstarted", "path: #{inspect(context.clone)}")
    code = "IO.inspect(Unstarted.hello()); IO.puts(NetRunner.Error.describe(:not_started))"
    output = mix!(directory, context, ["run", "--no-start", "-e", code])
    assert output =~ "{:error, :not_started}"
    assert output =~ "Application.ensure_all_started(:net_runner)"
  end
end
