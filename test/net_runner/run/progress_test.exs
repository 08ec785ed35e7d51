defmodule NetRunner.Run.ProgressTest do
  # On a real terminal, which is the stderr of another VM.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Test.Terminal

  @moduletag :tmp_dir

  # Runs until the test says so, and reads its stdin then.
  defp command(dir),
    do: inspect(["sh", "-c", "until [ -e #{dir}/go ]; do sleep 0.05; done; wc -c"])

  # Not `File.touch!/1`, which looks at the file again when it has made it: it may be gone by then.
  defp go(dir), do: File.write!(Path.join(dir, "go"), "")

  # The lines that are left on the terminal.
  defp ends(vm, printed) do
    lines = Terminal.screen(printed <> Terminal.until(vm, "over"))
    assert {:ok, 0} = Command.await_exit(vm)
    lines
  end

  describe "a terminal shows how far it is, and then no more, of" do
    for {name, call} <- [
          run: "NetRunner.run(command, options) |> elem(0)",
          run!: "NetRunner.run!(command, options)",
          capture: "command |> NetRunner.capture(options) |> elem(1) |> Map.fetch!(:stdout)",
          stream!: "command |> NetRunner.stream!(options) |> Enum.join()",
          stream: "command |> NetRunner.stream(options) |> elem(1) |> Enum.join()"
        ] do
      test "#{name}", %{tmp_dir: dir} do
        path = Path.join(dir, "input")
        File.write!(path, String.duplicate("a line of the input\n", 200_000))

        vm =
          Terminal.start("""
          command = #{command(dir)}
          options = [input: File.stream!(#{inspect(path)}), pipe_size: 0, progress: true]
          IO.puts("it read " <> String.trim(#{unquote(call)}))
          IO.write("over")
          """)

        # The pipe is full, and the command reads nothing.
        printed = Terminal.until(vm, ~r/sh  \[\.+\]   1%  in \d\d\.\d kB, [^\r]+ left\e\[K/)
        go(dir)
        assert ends(vm, printed) == ["it read 4000000", "over"]
      end
    end
  end

  test "iodata has a size, and an enumerable has none", %{tmp_dir: dir} do
    vm =
      Terminal.start("""
      data = :binary.copy("x", 4_000_000)
      for input <- [[data, data], Stream.take([data], 1)] do
        {:ok, _} = NetRunner.capture(#{command(dir)}, input: input, pipe_size: 0, progress: true)
        File.rm!(#{inspect(Path.join(dir, "go"))})
      end
      IO.write("over")
      """)

    printed = Terminal.until(vm, ~r/sh  \[\.+\]   0%  in \d\d\.\d kB, [^\r]+ left\e\[K/)
    go(dir)
    printed = printed <> Terminal.until(vm, ~r/sh  in \d\d\.\d kB, [^\r]+\/s  0:\d\d\e\[K/)
    go(dir)
    assert ends(vm, printed) == ["over"]
  end

  test "a line is cleared also when the caller is killed" do
    vm =
      Terminal.start("""
      caller = spawn(fn -> NetRunner.run!(~w(sleep 1000), progress: true) end)
      IO.gets("")
      progress = Process.monitor(NetRunner.Run.Progress)
      Process.exit(caller, :kill)
      receive do: ({:DOWN, ^progress, _, _, _} -> :ok)
      IO.write("over")
      """)

    printed = Terminal.until(vm, ~r/sleep  out 0 B[^\r]+\e\[K/)
    Terminal.type(vm, "")
    lines = ends(vm, printed)
    assert List.last(lines) == "over"
    refute Enum.join(lines) =~ "sleep"
  end

  test "a line is cleared when a consumer stops early, and when a callback raises", %{
    tmp_dir: dir
  } do
    vm =
      Terminal.start("""
      command = fn go -> ["sh", "-c", "echo a; until [ -e $0 ]; do sleep 0.05; done; echo b; sleep 1000", go] end
      later = fn "b\\n" -> true; _ -> false end
      true = command.("#{dir}/first") |> NetRunner.stream!(progress: true) |> Enum.any?(later)
      IO.puts("first")
      try do
        NetRunner.capture(command.("#{dir}/go"), progress: true, on_output: &if(later.(&1), do: raise("enough")))
      rescue
        error -> IO.puts(error.message)
      end
      IO.write("over")
      """)

    drawn = Terminal.until(vm, "sh  out 2 B")
    File.write!(Path.join(dir, "first"), "")
    first = Terminal.until(vm, "first")
    again = Terminal.until(vm, "sh  out 2 B")
    go(dir)
    assert ends(vm, drawn <> first <> again) == ["first", "enough", "over"]
  end

  test "of two, one is drawn, and then the other" do
    vm =
      Terminal.start("""
      run = fn name -> spawn_monitor(fn -> NetRunner.run(["sleep", "1000"], arg0: name, progress: true) end) end
      {first, monitor} = run.("a")
      IO.gets("")
      NetRunner.run(["sh", "-c", "sleep 0.5"], progress: true)
      IO.puts("second")
      Process.exit(first, :kill)
      receive do: ({:DOWN, ^monitor, _, _, _} -> :ok)
      NetRunner.run(["sh", "-c", "until [ -e /proc/self/no ]; do sleep 0.1; done"], timeout: 1_500, progress: true)
      IO.write("over")
      """)

    first = Terminal.until(vm, ~r/sleep  out 0 B[^\r]+\e\[K/)
    Terminal.type(vm, "")
    second = Terminal.until(vm, "second")
    refute second =~ "sh  out"
    assert Terminal.until(vm, "over") =~ "sh  out 0 B"
    assert first =~ "sleep"
    assert {:ok, 0} = Command.await_exit(vm)
  end

  test "a terminal that takes nothing does not hold up the end of a command", %{tmp_dir: dir} do
    ended = Path.join(dir, "ended")

    vm =
      Terminal.start("""
      spawn(fn -> IO.write(:standard_error, :binary.copy("x", 1_000_000)) end)
      Process.sleep(200)
      {:error, :timeout} = NetRunner.run(~w(sleep 1000), timeout: 500, progress: true)
      File.write!(#{inspect(ended)}, inspect(NetRunner.list()))
      IO.gets("")
      """)

    # Nothing is read meanwhile.
    Tree.await(fn -> File.read(ended) == {:ok, "[]"} end)
    Command.stop(vm)
  end

  test "what is no terminal gets nothing, and an option that is off starts nothing", %{
    tmp_dir: dir
  } do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    "" = NetRunner.run!(~w(sleep 0.5), progress: true)
    IO.write("over")
    """

    env = Tree.elixir_env()
    assert {:ok, result} = NetRunner.capture(Tree.elixir(code), env: env)
    assert {result.stdout, result.stderr} == {"over", ""}

    # On a terminal that is its stdin and stdout alone.
    errors = Path.join(dir, "errors")
    [elixir | args] = Tree.elixir(code)
    script = ["sh", "-c", ~S(file="$1"; shift; "$@" 2> "$file"), "sh", errors, elixir | args]
    assert NetRunner.run(script, env: env, pty: true) == {"over", 0}
    assert File.read!(errors) == ""

    for off <- [%{progress: false}, %{}] do
      assert NetRunner.Run.Progress.start(off, :none, self(), ["true"]) == nil
    end
  end
end
