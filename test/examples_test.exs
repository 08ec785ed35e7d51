defmodule NetRunner.ExamplesTest do
  # The scripts in examples/ run, and their attacks fail with errors that say why.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  @moduletag Tree.linux_only()
  @examples Path.expand("../examples", __DIR__)

  missing = fn programs ->
    found = fn program ->
      Enum.any?(["/usr/bin", "/usr/local/bin", "/bin"], &File.exists?(Path.join(&1, program)))
    end

    with [_ | _] = missing <- Enum.reject(programs, found),
         do: "not installed: #{Enum.join(missing, ", ")}",
         else: (_ -> nil)
  end

  @tag Tree.skip(missing.(~w(bash gcc git python3)))
  test "agent_shell.exs: a coding agent's shell" do
    sections = run("agent_shell.exs")
    assert sections["Builds a C project, and runs it"] == "sum: 42\n[exit status 0]"
    assert sections["Keeps it in git"] == "commit: A program that adds\n[exit status 0]"
    assert sections["Looks at it with python3"] == "lines of C: 4\n[exit status 0]"

    assert sections["Prints far too much"] =~
             ~r/^1\n2\n.*bytes left out.*\n1000000\n\[exit status 0\]$/s

    assert byte_size(sections["Prints far too much"]) < 9_000

    assert sections["Reads the key"] =~
             ~r/(Permission denied|No such file or directory)\n\[exit status 1\]$/

    assert sections["Sends the project away"] =~ ~r/PermissionError.*\n\[exit status 1\]$/

    assert sections["Kills the application"] =~
             ~r/(Operation not permitted|No such process)\n\[exit status 1\]$/
  end

  if reason = missing.(["gm"]), do: @tag(skip: reason <> "; bin/setup installs it")

  test "convert.exs: an image of a stranger's" do
    sections = run("convert.exs")
    assert sections["An image, with /usr/bin/gm"] =~ ~r/^PNG, \d+ bytes$/
    # That GraphicsMagick does what the picture asks for, without a sandbox, is shown below.
    assert sections["An image that refers to a secret"] =~ ~r/^failed: .*secret.ppm/
  end

  if reason = missing.(["gm"]), do: @tag(skip: reason <> "; bin/setup installs it")

  test "without a sandbox, the picture of convert.exs holds the secret" do
    directory = NetRunner.Temporary.path("convert")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)

    [secret, picture, stolen] =
      for name <- ~w(secret.ppm picture.svg stolen.ppm), do: Path.join(directory, name)

    File.write!(secret, ["P6 2 1 255\n", <<255, 0, 0, 255, 0, 0>>])

    File.write!(picture, """
    <svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="2" height="1">
      <image xlink:href="#{secret}" width="2" height="1"/>
    </svg>
    """)

    assert {_, 0} = NetRunner.run(["gm", "convert", picture, "-depth", "8", stolen])
    assert File.read!(stolen) =~ <<255, 0, 0>>
  end

  @tag Tree.skip(missing.(~w(gzip)))
  test "log_filter.exs: lines of a compressed log" do
    counts = "/cart: 413\n/: 412\n/checkout: 412\n/login: 412\n/search: 412"
    assert run("log_filter.exs")["Failed requests"] == counts
  end

  @tag Tree.skip(missing.(~w(python3)))
  test "supervised.exs: a server under a supervisor" do
    sections = run("supervised.exs")
    assert sections["Started"] == "HTTP/1.0 200 OK"
    # The log, which says that it was killed, is here as well.
    restarted = sections["Killed, and started again"]
    assert restarted =~ ":sigkill" and restarted =~ "HTTP/1.0 200 OK"
    assert restarted =~ "another process: true"
    assert sections["Stopped"] == "commands that run: 0"
  end

  # What a script prints below each of its titles.
  defp run(script) do
    start = "{:ok, _} = Application.ensure_all_started(:net_runner)"
    command = Tree.elixir(start) ++ ["-r", Path.join(@examples, script)]
    # Its commands are of the system, and its own VM need not be.
    assert {output, 0} =
             NetRunner.run(command, env: Tree.elixir_env(), stderr: :redirect, timeout: 240_000)

    for section <- String.split(output, "== ", trim: true), into: %{} do
      [title, text] = String.split(section, "\n", parts: 2)
      {title, String.trim(text)}
    end
  end
end
