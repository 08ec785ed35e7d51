defmodule NetRunner.CmdTest do
  # `NetRunner.cmd/3` beside `System.cmd/3`: each call is made with both, and both give the same result or raise the
  # same exception. What is expected stands here as well, as Elixir 1.18 has it, so that an older
  # Elixir, which lacks `:lines` and `:use_stdio`, checks all of it.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO
  alias NetRunner.Guarantees.Tree

  @moduletag :tmp_dir

  # What `System.cmd/3` of this Elixir has no idea of.
  @lacks for {option, since} <- [lines: "1.15.0", use_stdio: "1.18.0"],
             Version.compare(System.version(), since) == :lt,
             do: option

  @modules if :use_stdio in @lacks, do: ["NetRunner"], else: ["NetRunner", "System"]

  # {what it shows, arguments of cmd/3, result}
  @results [
    {"output and status", ["echo", ["a b"]], {"a b\n", 0}},
    {"an empty argument", ["printf", ["[%s]", ""]], {"[]", 0}},
    {"an argument that is no UTF-8", ["printf", ["%s", <<255>>]], {<<255>>, 0}},
    {"a status", ["sh", ["-c", "exit 300"]], {"", 44}},
    {"a signal", ["sh", ["-c", "kill -9 $$"]], {"", 137}},
    {"a real-time signal", ["bash", ["-c", "kill -40 $$"]], {"", 168}},
    {"a command that closes its stdout", ["sh", ["-c", "echo a; exec >&-; exit 3"]], {"a\n", 3}},
    {"an absolute path", ["/bin/echo", ["a"]], {"a\n", 0}},
    {"a relative path, below each directory of PATH", ["../bin/echo", ["a"]], {"a\n", 0}},
    {"the name that the command sees", ["bash", ["-c", "cat /proc/self/cmdline"]], :same},
    {":arg0", ["bash", ["-c", "tr '\\0' ' ' < /proc/$$/cmdline"], [arg0: "x"]],
     {"x -c tr '\\0' ' ' < /proc/$$/cmdline ", 0}},
    {":arg0, empty", ["sh", ["-c", "tr '\\0' ' ' < /proc/$$/cmdline"], [arg0: ""]],
     {" -c tr '\\0' ' ' < /proc/$$/cmdline ", 0}},
    {":cd", ["pwd", [], [cd: "/usr"]], {"/usr\n", 0}},
    {":cd twice", ["pwd", [], [cd: "/usr", cd: "/"]], {"/usr\n", 0}},
    {":env", ["sh", ["-c", "echo $A$B"], [env: [{"A", "ü€"}, {"B", "b"}]]], {"ü€b\n", 0}},
    {":env of a map", ["sh", ["-c", "echo $A"], [env: %{"A" => "1"}]], {"1\n", 0}},
    {":env, nil", ["sh", ["-c", "echo ${HOME-none}"], [env: [{"HOME", nil}]]], {"none\n", 0}},
    {":env, empty", ["sh", ["-c", "echo ${HOME-none}"], [env: [{"HOME", ""}]]], {"none\n", 0}},
    {":env, a name twice", ["sh", ["-c", "echo $A"], [env: [{"A", "1"}, {"A", "2"}]]],
     {"2\n", 0}},
    {":env twice", ["sh", ["-c", "echo $A$B"], [env: [{"A", "1"}], env: [{"B", "2"}]]],
     {"1\n", 0}},
    {"a PATH in :env is not searched", ["echo", ["a"], [env: [{"PATH", "/nowhere"}]]],
     {"a\n", 0}},
    {":stderr_to_stdout", ["sh", ["-c", "echo a; echo b >&2; echo c"], [stderr_to_stdout: true]],
     {"a\nb\nc\n", 0}},
    {":stderr_to_stdout, twice",
     ["sh", ["-c", "echo b >&2"], [stderr_to_stdout: true, stderr_to_stdout: false]], {"b\n", 0}},
    {":parallelism", ["echo", ["a"], [parallelism: true]], {"a\n", 0}},
    {":parallelism, false", ["echo", ["a"], [parallelism: false]], {"a\n", 0}},
    {":use_stdio, true", ["echo", ["a"], [use_stdio: true]], {"a\n", 0}},
    {":use_stdio, anything", ["echo", ["a"], [use_stdio: 1]], {"a\n", 0}},
    {":use_stdio, false", ["true", [], [use_stdio: false, stderr_to_stdout: false]], {"", 0}},
    {":use_stdio, nil", ["true", [], [use_stdio: nil]], {"", 0}},
    {":use_stdio, twice", ["echo", ["a"], [use_stdio: true, use_stdio: false]], {"a\n", 0}},
    {":into a list", ["echo", ["a"], [into: []]], {["a\n"], 0}},
    {":into twice", ["echo", ["a"], [into: "", into: []]], {["a\n"], 0}},
    {":into a string", ["echo", ["a"], [into: "> "]], {"> a\n", 0}},
    {":into a set", ["echo", ["a"], [into: MapSet.new()]], {MapSet.new(["a\n"]), 0}},
    {":into a list, no output", ["true", [], [into: []]], {[], 0}},
    {"stdin is a pipe", ["sh", ["-c", "test -p /dev/stdin"]], {"", 0}}
  ]

  @lines [
    {"a\\nb\\r\\n\\nc", ["a", "b", "", "c"]},
    {"a\\n", ["a"]},
    {"\\n\\n", ["", ""]},
    {"", []},
    {"aaaaaaaa\\ncccccccc", ["aaaaaaaa", "cccccccc"]},
    {"aaa\\r\\nb\\rc\\n\\r\\n\\r\\r\\n\\r", ["aaa", "b\rc", "", "\r", "\r"]}
  ]

  # {what it shows, arguments of cmd/3, exception}. What is different, because it would show what may be secret, is in
  # mistakes_test.exs.
  @exceptions [
    {"no such executable", ["no-such-program", []], ErlangError},
    {"no such path", ["/nowhere/x", []], ErlangError},
    {"a path through a file", ["/etc/passwd/x", []], ErlangError},
    {"a name that is too long", ["/" <> String.duplicate("a", 300), []], ErlangError},
    {"no executable file", ["/etc/passwd", []], ErlangError},
    {"no executable, although there is one here", ["./mix.exs", []], ErlangError},
    {"an empty name", ["", []], ErlangError},
    {"a name that is no UTF-8", [<<"/tmp/", 255>>, []], UnicodeConversionError},
    {"a NUL byte in the name", ["a\0b", []], ArgumentError},
    {"an argument that is no string", ["echo", [1]], ArgumentError},
    {"a charlist as an argument", ["echo", [~c"a"]], ArgumentError},
    {"the executable is looked at before the options", ["no-such-program", [], [foo: 1]],
     ErlangError},
    {":cd, no string", ["echo", [], [cd: 1]], ArgumentError},
    {":cd, charlist", ["echo", [], [cd: ~c"/"]], ArgumentError},
    {":arg0, no string", ["echo", [], [arg0: :a]], ArgumentError},
    {":stderr_to_stdout, no boolean", ["echo", [], [stderr_to_stdout: 1]], ArgumentError},
    {":parallelism, no boolean", ["echo", [], [parallelism: 1]], ArgumentError},
    {":into, no collectable", ["echo", [], [into: 1]], Protocol.UndefinedError},
    {":into is looked at before an absolute path", ["/nowhere/x", [], [into: 1]],
     Protocol.UndefinedError},
    {":env, no pairs", ["echo", [], [env: [1]]], ArgumentError},
    {":env, a NUL byte", ["echo", [], [env: [{"a", "b\0c"}]]], ArgumentError},
    {":env, a = in a name", ["echo", [], [env: [{"a=b", "c"}]]], ArgumentError},
    {"stdout as it is and stderr in it", ["true", [], [use_stdio: false, stderr_to_stdout: true]],
     ArgumentError}
  ]

  for {{shows, args, expected}, index} <- Enum.with_index(@results) do
    test "result #{index}: #{shows}" do
      args = unquote(Macro.escape(args))
      result = apply(NetRunner, :cmd, args)
      if comparable?(args), do: assert(result == apply(System, :cmd, args))

      if unquote(Macro.escape(expected)) != :same,
        do: assert(result == unquote(Macro.escape(expected)))
    end
  end

  for {{text, expected}, index} <- Enum.with_index(@lines), max <- [1, 3, 1024] do
    test "lines #{index}, at most #{max} bytes" do
      args = ["printf", [unquote(text)], [lines: unquote(max), into: []]]
      assert apply(NetRunner, :cmd, args) == {unquote(expected), 0}
      if comparable?(args), do: assert(apply(System, :cmd, args) == {unquote(expected), 0})
    end
  end

  for {{shows, args, exception}, index} <- Enum.with_index(@exceptions) do
    test "exception #{index}: #{shows}" do
      args = unquote(Macro.escape(args))
      ours = raised(fn -> apply(NetRunner, :cmd, args) end)
      assert ours.__struct__ == unquote(exception)
      theirs = raised(fn -> apply(System, :cmd, args) end)

      if comparable?(args) do
        assert theirs.__struct__ == unquote(exception)
        assert comparable(ours) == comparable(theirs)
      end
    end
  end

  test "a value of :lines that is no number of bytes" do
    for value <- [0, -1, true, "1"] do
      assert_raise ArgumentError, "invalid option :lines with value #{inspect(value)}", fn ->
        NetRunner.cmd("echo", [], lines: value)
      end
    end
  end

  test "lines that come in pieces, and many", %{tmp_dir: dir} do
    script = "printf aaaa; sleep 0.1; printf 'aa\\nbb\\r'; sleep 0.1; printf '\\nc'; seq 200000"
    {lines, 0} = NetRunner.cmd("sh", ["-c", script], lines: 3, into: [])
    assert ["aaaaaa", "bb", "c1" | numbers] = lines
    assert numbers == Enum.map(2..200_000, &Integer.to_string/1)

    long = String.duplicate("x", 3_000_000)
    path = Path.join(dir, "long")
    File.write!(path, [long, "\n", long])
    assert NetRunner.cmd("cat", [path], lines: 10, into: []) == {[long, long], 0}
  end

  test "a file as the collectable", %{tmp_dir: dir} do
    for module <- [NetRunner, System] do
      path = Path.join(dir, inspect(module))
      assert {%File.Stream{}, 0} = module.cmd("seq", ["100000"], into: File.stream!(path))
      assert File.read!(path) == Enum.map_join(1..100_000, &"#{&1}\n")
    end
  end

  test "the group leader as the collectable" do
    collect = fn module ->
      capture_io(fn -> assert {%IO.Stream{}, 0} = module.cmd("seq", ["3"], into: IO.stream()) end)
    end

    assert collect.(NetRunner) == "1\n2\n3\n"
    assert collect.(System) == "1\n2\n3\n"
  end

  test "a command that cannot be started after all has the number of the error as its status", %{
    tmp_dir: dir
  } do
    script = fn name, text ->
      path = Path.join(dir, name)
      File.write!(path, text)
      File.chmod!(path, 0o755)
      path
    end

    cases = [
      {["ls", [], [cd: "/nowhere"]], 2, "directory (:cd) cannot be used: no such file"},
      {["ls", [], [cd: "/etc/passwd"]], 20, "not a directory"},
      {[script.("lost", "#!/nowhere/sh\n"), []], 2, "its interpreter"},
      {["echo", [String.duplicate("x", 3_000_000)]], 7, "larger than the system allows"},
      {[dir, []], 13, "must not be a directory"}
    ]

    for {args, status, text} <- cases do
      says = capture_io(:stderr, fn -> assert apply(NetRunner, :cmd, args) == {"", status} end)
      assert says =~ text
      assert system_cmd(args) == {"", status}
    end
  end

  # In another VM: of a directory that is none, the runtime system writes to the VM's stderr.
  defp system_cmd([_, _, [cd: _]] = args) do
    [elixir | code] = Tree.elixir("IO.inspect(apply(System, :cmd, #{inspect(args)}))")
    {output, 0} = System.cmd(elixir, code, stderr_to_stdout: true)
    {result, []} = output |> String.split("\n", trim: true) |> List.last() |> Code.eval_string()
    result
  end

  defp system_cmd(args), do: apply(System, :cmd, args)

  test "a text without #! is run by a shell", %{tmp_dir: dir} do
    path = Path.join(dir, "text")
    File.write!(path, "echo a\n")
    File.chmod!(path, 0o755)
    assert NetRunner.cmd(path, []) == {"a\n", 0}
  end

  test "no exception shows a value of :env" do
    for {env, text} <- [
          {[a: "secret"], "a name that is not a UTF-8 string"},
          {[{"a", ~c"secret"}], ~s(the value of "a" is not a UTF-8 string)},
          {[{"a", {"secret"}}], ~s(the value of "a" is not a UTF-8 string)},
          {[{"a", false}], ~s(the value of "a" is not a UTF-8 string)},
          {[{"a", "secret" <> <<255>>}], ~s(the value of "a" is not a UTF-8 string)},
          {["secret"], "an entry that is not {name, value}"},
          {[{"a", "secret\0"}], "contains a NUL byte"}
        ] do
      {error, stack} =
        try do
          NetRunner.cmd("echo", [], env: env)
        rescue
          error -> Exception.blame(:error, error, __STACKTRACE__)
        end

      assert %ArgumentError{} = error
      assert Exception.message(error) =~ text
      refute Exception.format(:error, error, stack) =~ "secret"
      refute Exception.format(:error, error, stack) =~ inspect("secret" <> <<255>>)
    end
  end

  test "nil is as if the option were not given" do
    names =
      ~w(into lines cd env arg0 stderr_to_stdout use_stdio parallelism input timeout nice user node)a

    assert NetRunner.cmd("echo", ["a"], for(name <- names, do: {name, nil})) == {"a\n", 0}
    assert NetRunner.cmd("pwd", [], cd: nil, cd: "/usr") == {"/usr\n", 0}
  end

  describe "options of ours:" do
    test "an input, after which stdin is closed" do
      assert NetRunner.cmd("cat", [], input: "hello") == {"hello", 0}

      assert NetRunner.cmd("cat", [], input: Stream.map(1..3, &"#{&1}\n"), lines: 9, into: []) ==
               {["1", "2", "3"], 0}

      assert NetRunner.cmd("true", [], input: Stream.cycle(["x"])) == {"", 0}

      for into <- ["", []] do
        assert_raise RuntimeError, "no more", fn ->
          NetRunner.cmd("cat", [],
            into: into,
            input: Stream.map([1], fn _ -> raise "no more" end)
          )
        end
      end
    end

    test "a timeout, which raises, and tells the collectable" do
      test = self()

      for options <- [[], [into: []], [into: [], lines: 9]] do
        error =
          assert_raise NetRunner.Error, fn ->
            NetRunner.cmd("sleep", ["100"], [timeout: 50] ++ options)
          end

        assert %{reason: :timeout, command: [_, "100"]} = error
      end

      into = %NetRunner.Sink{fun: fn _, what -> send(test, {:collector, what}) end}
      catch_error(NetRunner.cmd("sleep", ["100"], timeout: 50, into: into))
      assert_received {:collector, :halt}
      assert NetRunner.cmd("echo", ["a"], timeout: 60_000) == {"a\n", 0}
    end

    test "those of a command", %{tmp_dir: dir} do
      assert NetRunner.cmd("nice", [], nice: 19) == {"19\n", 0}
      assert NetRunner.cmd("sh", ["-c", "echo b >&2; echo a"], stderr: :consume) == {"a\n", 0}
      assert NetRunner.cmd("sh", ["-c", "ulimit -c"], rlimits: [core: 0]) == {"0\n", 0}
      assert NetRunner.cmd("sh", ["-c", "test -t 1; echo $?"], pty: true) == {"0\r\n", 0}

      file = Path.join(dir, "out")
      assert NetRunner.cmd("seq", ["3"], stdout: {:file, file}, into: []) == {[], 0}
      assert NetRunner.cmd("cat", [], stdin: {:file, file}) == {"1\n2\n3\n", 0}
      {pid, 0} = NetRunner.cmd("sh", ["-c", "sleep 100 & echo $!"], leftovers: :leave)
      assert File.exists?("/proc/#{String.trim(pid)}")
      NetRunner.cmd("kill", [String.trim(pid)])
    end

    test "what cannot be started because of one of them raises with the reason" do
      for {options, reason} <- [
            {[user: "no-such-user"], {:user, :enoent}},
            {[node: :nobody@nowhere], {:node, :not_connected}},
            {[stdin: {:file, "/nowhere"}], {:stdin, :enoent}}
          ] do
        assert %{reason: ^reason} =
                 assert_raise(NetRunner.Error, fn -> NetRunner.cmd("echo", [], options) end)
      end
    end

    test "what makes no sense beside others is refused" do
      for options <- [
            [stderr: :pipe],
            [stderr: :null],
            [stderr: :consume, stderr_to_stdout: true],
            [use_stdio: false, input: "a"],
            [use_stdio: false, stdout: :null],
            [use_stdio: false, pty: true],
            [input: "a", stdin: :null],
            [timeout: -1],
            [max_output_size: 1],
            [tagged: true]
          ] do
        assert_raise ArgumentError, fn -> NetRunner.cmd("echo", [], options) end
      end
    end
  end

  test "starts the application where it is not: in a script, and in the body of a module" do
    # A VM of its own, that has the code and nothing else.
    code = ~S"""
    nil = Process.whereis(NetRunner.Supervisor)
    {:error, :not_started} = NetRunner.run(["echo", "a"])

    defmodule InItsBody do
      {text, 0} = NetRunner.cmd("echo", ["compiled"])
      @text text
      def text, do: @text
    end

    IO.write(InItsBody.text())
    {"started\n", 0} = NetRunner.cmd("echo", ["started"], into: "", timeout: 60_000)
    :ok = Application.stop(:net_runner)
    {"again\n", 0} = NetRunner.cmd("echo", ["again"])
    IO.write("done")
    """

    args = ["-pa", Application.app_dir(:net_runner, "ebin"), "-e", code]

    assert {output, 0} =
             System.cmd("elixir", args, env: [{"ERL_FLAGS", nil}], stderr_to_stdout: true)

    assert output =~ ~r/^compiled\n.*done$/s
  end

  test "NUL bytes, which a port takes for the end of a string" do
    for args <- [
          ["echo", ["a\0b"]],
          ["echo", [], [arg0: "a\0b"]],
          ["echo", [], [cd: "/\0"]],
          ["echo", [], [env: [{"", "a"}]]]
        ] do
      assert_raise ArgumentError, fn -> apply(NetRunner, :cmd, args) end
    end
  end

  test "when the collectable raises, it is told, and the command is ended" do
    test = self()

    into = fn
      _, :halt -> send(test, :halted)
      _, {:cont, bytes} -> raise "enough: #{String.trim(bytes)}"
    end

    assert_raise RuntimeError, ~r/^enough: \d+$/, fn ->
      NetRunner.cmd("sh", ["-c", "echo $$; exec sleep 100"], into: %NetRunner.Sink{fun: into})
    end

    assert_received :halted

    refute Enum.any?(
             NetRunner.list(),
             &match?(["/" <> _, "-c", "echo $$; exec sleep 100"], &1.command)
           )
  end

  test "no message is left in the mailbox of the caller" do
    NetRunner.cmd("echo", ["a"])
    NetRunner.cmd("sh", ["-c", "sleep 0.01 & exit 3"])
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "what is left running is ended, and not waited for" do
    {pid, 0} = NetRunner.cmd("sh", ["-c", "sleep 100 & echo $!"])
    # Elsewhere than on Linux it is left to process 1, which reaps it when it likes.
    gone = if Tree.needs_linux(), do: [nil, "Z"], else: [nil]
    assert Tree.stat(String.trim(pid))[:state] in gone
  end

  test "stderr is that of the VM, and so are stdin and stdout without :use_stdio", %{tmp_dir: dir} do
    # A VM of its own, whose descriptors are files, and which does not read its stdin itself.
    code = ~S"""
    {:ok, _} = Application.ensure_all_started(:net_runner)
    [module] = System.argv()
    module = Module.concat([module])
    {"out\n", 0} = module.cmd("sh", ["-c", "echo out; echo err >&2"])
    {"", 3} = module.cmd("sh", ["-c", "cat; echo direct; echo more >&2; exit 3"], use_stdio: false)
    """

    input = Path.join(dir, "in")
    File.write!(input, "input\n")

    outputs =
      for module <- @modules do
        [out, err] = for name <- ["out", "err"], do: Path.join(dir, module <> name)

        shell = ~S(exec elixir --erl -noinput -pa "$1" -e "$2" -- "$3" < "$4" > "$5" 2> "$6")
        ebin = Application.app_dir(:net_runner, "ebin")
        words = ["-c", shell, "sh", ebin, code, module, input, out, err]
        assert {"", 0} = System.cmd("sh", words)
        {File.read!(out), File.read!(err)}
      end

    assert outputs == Enum.map(@modules, fn _ -> {"input\ndirect\n", "err\nmore\n"} end)
  end

  defp comparable?([_, _, options]) when is_list(options),
    do: not Enum.any?(@lacks, &List.keymember?(options, &1, 0))

  defp comparable?(_args), do: true

  defp raised(function) do
    {:returned, function.()}
  rescue
    exception -> exception
  end

  defp comparable(%ArgumentError{message: message}) do
    message =
      message
      |> String.replace("NetRunner.cmd", "System.cmd")
      # Ours does not show it.
      |> String.replace(~r/^invalid environment key-value\K.*/, "")

    # What a port finds wrong, it does not explain.
    if message =~ ~r/variable|errors were found at the given arguments|^argument error$/,
      do: ArgumentError,
      else: message
  end

  defp comparable(exception), do: Exception.message(exception)
end
