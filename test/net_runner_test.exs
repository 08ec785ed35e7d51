defmodule NetRunnerTest do
  # Not async: it changes the environment of the VM.
  use ExUnit.Case, async: false

  setup do
    directory = NetRunner.Temporary.path("run")

    File.mkdir!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  describe "run" do
    test "gives output and status; 128 + number for a signal" do
      assert NetRunner.run(["sh", "-c", "echo out; exit 3"]) == {"out\n", 3}
      assert NetRunner.run(["sh", "-c", "kill -KILL $$"]) == {"", 137}
    end

    test "gives an empty stdin without :input" do
      assert NetRunner.run(~w(cat)) == {"", 0}
      assert NetRunner.run(~w(cat), stdin: :pipe) == {"", 0}
    end

    test "writes iodata, enumerables, and maps and files as what they enumerate", %{
      directory: directory
    } do
      file = Path.join(directory, "file")
      File.write!(file, "from a file\n")

      for {input, output} <- [
            {"text", "text"},
            {["a", ?b, ["c"]], "abc"},
            {[], ""},
            {Stream.map(1..3, &to_string/1), "123"},
            {MapSet.new(["one"]), "one"},
            {File.stream!(file), "from a file\n"}
          ] do
        assert NetRunner.run(~w(cat), input: input) == {output, 0}
      end
    end

    test "raises, throws or exits as the producer of its input does, and ends the command" do
      failing = fn failure ->
        Stream.map(1..3, fn n -> if n == 2, do: failure.(), else: "x" end)
      end

      assert_raise RuntimeError, "no more", fn ->
        NetRunner.run(~w(cat), input: failing.(fn -> raise "no more" end))
      end

      assert catch_throw(NetRunner.run(~w(cat), input: failing.(fn -> throw(:ball) end))) == :ball
      assert catch_exit(NetRunner.run(~w(cat), input: failing.(fn -> exit(:gone) end))) == :gone
    end

    test "does not mind a command that leaves its input unread" do
      assert NetRunner.run(~w(true), input: String.duplicate("x", 1_000_000)) == {"", 0}
      assert NetRunner.run(~w(true), input: Stream.cycle(["x"])) == {"", 0}
      assert NetRunner.run(~w(head -c 3), input: Stream.cycle(["ab"])) == {"aba", 0}
    end

    test "ends the command when its time is over, also one that does not listen" do
      assert NetRunner.run(~w(sleep 100), timeout: 50) == {:error, :timeout}
      deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
      assert NetRunner.run(deaf, timeout: 50, kill_timeout: 50) == {:error, :timeout}
      assert NetRunner.run(~w(true), timeout: 60_000) == {"", 0}
    end

    test "lets a command that its timeout interrupts print its last words into a full pipe", %{
      directory: directory
    } do
      mark = Path.join(directory, "ended")

      script =
        "trap 'head -c 300000 /dev/zero; echo yes > #{mark}; exit' TERM; echo; while :; do sleep 0.05; done"

      assert NetRunner.run(["sh", "-c", script], timeout: 2_000) == {:error, :timeout}
      assert File.read!(mark) == "yes\n"
    end

    test "ends the command when it prints too much, and gives what was allowed" do
      assert NetRunner.run(~w(yes), max_output_size: 5) ==
               {:error, {:max_output_exceeded, "y\ny\ny"}}

      assert NetRunner.run(~w(printf abc), max_output_size: 3) == {"abc", 0}

      assert NetRunner.run(~w(printf abc), max_output_size: 2) ==
               {:error, {:max_output_exceeded, "ab"}}
    end

    test "does not let a command wait that writes much to stderr" do
      script = "head -c 1000000 /dev/zero >&2; echo done"
      assert NetRunner.run(["sh", "-c", script], timeout: 20_000) == {"done\n", 0}
    end

    test "has stderr consumed, in stdout, or dropped" do
      command = ["sh", "-c", "echo one; echo two >&2; echo three"]

      for mode <- [:consume, :disabled] do
        assert NetRunner.run(command, stderr: mode) == {"one\nthree\n", 0}
      end

      assert NetRunner.run(command, stderr: :redirect) == {"one\ntwo\nthree\n", 0}
    end

    test "with another owner ends when that dies" do
      owner = spawn(fn -> receive do: (:go -> :ok) end)
      task = Task.async(fn -> NetRunner.run(~w(sleep 100), owner: owner) end)
      send(owner, :go)
      assert Task.await(task) == {:error, :closed}
    end

    test "is an error when somebody stops its process, as the rest of its output is lost" do
      command = [
        "sh",
        "-c",
        "trap 'echo rest; exit 0' TERM; echo x >&2; while :; do sleep 0.05; done"
      ]

      task = Task.async(fn -> NetRunner.run(command) end)
      printed? = &(&1.command == command and &1.bytes.err > 0)
      NetRunner.Guarantees.Tree.await(fn -> Enum.any?(NetRunner.list(), printed?) end)
      %{pid: server} = Enum.find(NetRunner.list(), printed?)
      assert NetRunner.Process.stop(server) == :ok
      assert Task.await(task) == {:error, :closed}
    end
  end

  describe "the command's environment" do
    test "is the VM's, with what :env sets and unsets" do
      name = "NET_RUNNER_TEST_#{System.unique_integer([:positive])}"
      System.put_env(name, "from the VM")
      show = ["sh", "-c", "echo \"${#{name}-none}\" ${NET_RUNNER_NEW-none}"]

      assert NetRunner.run(show) == {"from the VM none\n", 0}

      assert NetRunner.run(show, env: [{name, "other"}, {"NET_RUNNER_NEW", "new"}]) ==
               {"other new\n", 0}

      assert NetRunner.run(show, env: %{name => nil}) == {"none none\n", 0}
      assert NetRunner.run(show, env: [{name, ""}]) == {" none\n", 0}
      System.delete_env(name)
      assert NetRunner.run(show) == {"none none\n", 0}
      assert NetRunner.run(["/usr/bin/env"], clear_env: true, env: [{"A", "ä"}]) == {"A=ä\n", 0}
    end

    test "passes byte for byte, whatever encoding the VM was started with" do
      bytes = <<"a", 0xFF, "b", 0xC3, 0xA9, 0xC3>>

      script = """
      {:ok, _} = Application.ensure_all_started(:net_runner)
      {out, 0} = NetRunner.run(["sh", "-c", "printf %s/%s/%s \\"$RAW\\" \\"$VALID\\" \\"$LATIN\\""])
      IO.puts(Base.encode16(out))
      """

      for locale <- ["C", "C.UTF-8"] do
        {output, 0} =
          NetRunner.run(
            [
              "elixir",
              "-pa",
              Path.dirname(Application.app_dir(:net_runner)) <> "/net_runner/ebin",
              "-e",
              script
            ],
            env: [{"LC_ALL", locale}, {"RAW", bytes}, {"VALID", "é"}, {"LATIN", <<0xE9>>}],
            stderr: :redirect
          )

        assert output =~ Base.encode16(bytes <> "/é/" <> <<0xE9>>)
      end
    end

    test "decides with its PATH where the executable is looked up", %{directory: directory} do
      program = Path.join(directory, "net-runner-program")
      File.write!(program, "#!/bin/sh\necho found\n")
      File.chmod!(program, 0o755)

      assert NetRunner.run(~w(net-runner-program)) == {:error, :enoent}
      path = "/nowhere:#{directory}:/usr/bin"
      assert NetRunner.run(~w(net-runner-program), env: [{"PATH", path}]) == {"found\n", 0}
      # As sh(1), it passes over what is too long for a name, or for a path.
      for long <- ["/" <> String.duplicate("x", 300), String.duplicate("/x", 2_500)] do
        path = "#{long}:#{directory}:/usr/bin"
        assert NetRunner.run(~w(net-runner-program), env: [{"PATH", path}]) == {"found\n", 0}
      end

      # Without one, where execvp(3) looks.
      assert NetRunner.run(["sh", "-c", "echo $0"], env: [{"PATH", nil}]) == {"sh\n", 0}
      # A script without #! goes to the shell.
      File.write!(program, "echo $1\n")
      assert NetRunner.run([program, "for the shell"]) == {"for the shell\n", 0}
    end
  end

  describe "a file that the kernel cannot run" do
    setup %{directory: directory} do
      program = Path.join(directory, "program")
      File.write!(program, "")
      File.chmod!(program, 0o755)
      %{program: program, witness: Path.join(directory, "witness")}
    end

    test "is not given to the shell when it is a program for another machine", context do
      %{program: program, witness: witness} = context
      <<start::binary-size(18), _machine::binary-size(2), rest::binary>> = File.read!("/bin/true")
      File.write!(program, [start, <<0xFFFF::16>>, rest])
      assert NetRunner.run([program]) == {:error, :enoexec}
      # Found on PATH, too.
      path = Path.dirname(program) <> ":/usr/bin:/bin"
      assert NetRunner.run(["program"], env: [{"PATH", path}]) == {:error, :enoexec}

      # A shell would skip what it does not understand, and do the rest.
      File.write!(program, "\x7fELF\ntouch #{witness}\n")
      assert NetRunner.run([program]) == {:error, :enoexec}
      refute File.exists?(witness)
    end

    test "is not given to the shell when its first line is no text", context do
      %{program: program, witness: witness} = context
      File.write!(program, "MZ\0\ntouch #{witness}\n")
      assert NetRunner.run([program]) == {:error, :enoexec}
      refute File.exists?(witness)
    end

    test "is a script when it is text, whatever follows its first line, or empty", context do
      %{program: program} = context
      assert NetRunner.run([program]) == {"", 0}
      File.write!(program, "echo $1; exit 3\n\0\0\0")
      assert NetRunner.run([program, "text"]) == {"text\n", 3}
      File.write!(program, String.duplicate("#", 500) <> "\necho long")
      assert NetRunner.run([program]) == {"long\n", 0}
    end
  end

  describe "the command's directory" do
    test "is the VM's or the one of :cd, from where relative executables start", %{
      directory: directory
    } do
      assert NetRunner.run(~w(pwd)) == {File.cwd!() <> "\n", 0}
      assert NetRunner.run(~w(pwd), cd: directory) == {directory <> "\n", 0}
      File.write!(Path.join(directory, "program"), "#!/bin/sh\necho here\n")
      File.chmod!(Path.join(directory, "program"), 0o755)
      assert NetRunner.run(~w(./program), cd: directory) == {"here\n", 0}
    end

    test "follows the VM's when that changes", %{directory: directory} do
      File.mkdir!(Path.join(directory, "below"))

      File.cd!(directory, fn ->
        assert NetRunner.run(~w(pwd)) == {directory <> "\n", 0}
        assert NetRunner.run(~w(pwd), cd: "below") == {directory <> "/below\n", 0}
        assert NetRunner.run(~w(pwd), cd: "..") == {Path.dirname(directory) <> "\n", 0}
      end)

      assert NetRunner.run(~w(pwd)) == {File.cwd!() <> "\n", 0}
    end
  end

  describe "where the standard descriptors lead" do
    test "files are read and written by the kernel", %{directory: directory} do
      [input, output] = for name <- ["in", "out"], do: Path.join(directory, name)
      File.write!(input, "b\na\n")
      assert NetRunner.run(~w(sort), stdin: {:file, input}, stdout: {:file, output}) == {"", 0}
      assert File.read!(output) == "a\nb\n"
      assert NetRunner.run(~w(echo c), stdout: {:append, output}) == {"", 0}
      assert File.read!(output) == "a\nb\nc\n"
      assert NetRunner.run(~w(echo d), stdout: {:file, output}) == {"", 0}
      assert File.read!(output) == "d\n"

      both = ["sh", "-c", "echo out; echo err >&2; echo out"]
      assert NetRunner.run(both, stdout: {:file, output}, stderr: {:file, output}) == {"", 0}
      assert File.read!(output) == "out\nerr\nout\n"
    end

    test "a name of a file starts at the VM's directory, not at :cd", %{directory: directory} do
      relative = NetRunner.Temporary.name("relative")
      on_exit(fn -> File.rm(relative) end)
      assert NetRunner.run(~w(pwd), stdout: {:file, relative}, cd: directory) == {"", 0}
      assert File.read!(relative) == directory <> "\n"
    end

    test "a file that cannot be opened is named", %{directory: directory} do
      assert NetRunner.run(~w(cat), stdin: {:file, "/nowhere"}) == {:error, {:stdin, :enoent}}
      assert NetRunner.run(~w(cat), stdout: {:file, directory}) == {:error, {:stdout, :eisdir}}

      assert NetRunner.run(~w(cat), stderr: {:append, "/nowhere/x"}) ==
               {:error, {:stderr, :enoent}}

      fifo = Path.join(directory, "fifo")
      {"", 0} = NetRunner.run(["mkfifo", fifo])
      # Nobody reads it; a shell would wait here.
      assert NetRunner.run(~w(true), stdout: {:file, fifo}) == {:error, {:stdout, :enxio}}
    end

    test ":null, and a stream without output ends with its command" do
      assert NetRunner.run(~w(echo lost), stdout: :null) == {"", 0}
      assert Enum.to_list(NetRunner.stream!(~w(echo lost), stdout: :null)) == []

      assert_raise NetRunner.Error, fn ->
        Enum.to_list(NetRunner.stream!(~w(false), stdout: :null))
      end
    end

    test ":inherit is the VM's own" do
      script = """
      {:ok, _} = Application.ensure_all_started(:net_runner)
      {"", 0} = NetRunner.run(["sh", "-c", "cat; echo err >&2"], stdin: :inherit, stdout: :inherit, stderr: :inherit)
      """

      ebin = Path.join(Application.app_dir(:net_runner), "ebin")
      # Without -noinput the VM would read its stdin itself.
      shell = "echo hello | elixir --erl -noinput -pa #{ebin} -e '#{script}'"
      assert NetRunner.run(["sh", "-c", shell], stderr: :redirect) == {"hello\nerr\n", 0}
    end
  end

  describe "how the command runs" do
    test "arg0, umask, nice value and limits are set" do
      assert NetRunner.run(["sh", "-c", "echo $0"], arg0: "called") == {"called\n", 0}
      assert NetRunner.run(["sh", "-c", "umask"], umask: 0o027) == {"0027\n", 0}
      assert NetRunner.run(~w(nice), nice: 5) == {"5\n", 0}
      limits = [nofile: {20, 30}, core: 0, cpu: 10]
      show = ["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -t"]
      assert NetRunner.run(show, rlimits: limits) == {"20\n30\n0\n10\n", 0}
      assert NetRunner.run(["sh", "-c", "while :; do :; done"], rlimits: [cpu: 1]) == {"", 137}
    end

    @tag NetRunner.Guarantees.Tree.linux_only()
    test "without new privileges when that is asked for" do
      flag = ["grep", "NoNewPrivs", "/proc/self/status"]
      assert NetRunner.run(flag) == {"NoNewPrivs:\t0\n", 0}
      assert NetRunner.run(flag, no_new_privs: true) == {"NoNewPrivs:\t1\n", 0}
    end

    test "the shepherd keeps none of it for its next command" do
      for _ <- 1..4, do: NetRunner.run(~w(true), umask: 0, nice: 3, rlimits: [core: 0], cd: "/")
      show = ["sh", "-c", "umask; nice; pwd"]
      own = System.cmd(hd(show), tl(show))
      for _ <- 1..4, do: assert(NetRunner.run(show) == own)
    end
  end

  if NetRunner.Guarantees.Tree.root?() do
    describe "as another user" do
      test "with its groups, or others" do
        assert NetRunner.run(["id", "-un"], user: "nobody") == {"nobody\n", 0}
        assert NetRunner.run(["id", "-G"], user: "nobody") == {"65534\n", 0}
        assert NetRunner.run(["id", "-u"], user: 65_534) == {"65534\n", 0}
        assert NetRunner.run(["id", "-g"], user: "nobody", group: "daemon") == {"1\n", 0}

        assert NetRunner.run(["id", "-G"], user: "nobody", groups: ["daemon", 42]) ==
                 {"65534 1 42\n", 0}

        assert NetRunner.run(["id", "-u"], user: 54_321, group: 54_321) == {"54321\n", 0}
      end

      test "that does not exist, or without the right to" do
        assert NetRunner.run(~w(id), user: "no-such-user") == {:error, {:user, :enoent}}
        assert NetRunner.run(~w(id), user: 54_321) == {:error, {:user, :enoent}}
        assert NetRunner.run(~w(id), group: "no-such-group") == {:error, {:group, :enoent}}
        assert NetRunner.run(~w(id), groups: ["no-such-group"]) == {:error, {:groups, :enoent}}
      end
    end
  else
    @tag skip: "only root may run commands as another user"
    test "as another user" do
    end
  end

  test "a refusal to change the user names the option" do
    unless NetRunner.Guarantees.Tree.root?() do
      assert {:error, {step, :eperm}} = NetRunner.run(~w(id), user: "root")
      assert step in [:groups, :group, :user]
    end
  end
end
