defmodule NetRunner.ErrorTest do
  use ExUnit.Case, async: true

  import NetRunner.Error, only: [describe: 1]

  alias NetRunner.Error

  @moduletag :tmp_dir

  describe "the message of a stream's error" do
    test "names the status and quotes the end of stderr" do
      assert failure(["sh", "-c", "echo first >&2; echo 'it''s bad' >&2; exit 3"]) ==
               "`sh -c 'echo first >&2; echo '\\''it'\\'''\\''s bad'\\'' >&2; exit 3'` exited with status 3; " <>
                 "the end of its stderr: first\nits bad"

      assert failure(["false"]) == "`false` exited with status 1"

      assert failure(["sh", "-c", "echo >&2; false"]) ==
               "`sh -c 'echo >&2; false'` exited with status 1"
    end

    test "quotes no more than :stderr_tail, and shows that there is something that is no text" do
      script = "printf 'lost\\377kept\\n' >&2; exit 1"

      assert failure(["sh", "-c", script], stderr_tail: 6) =~
               ~r/the end of its stderr: \x{FFFD}kept\z/u

      assert failure(["sh", "-c", script], stderr_tail: 0) =~ ~r/exited with status 1\z/
    end

    test "carries as many of the last bytes as were asked for, also when they come in pieces" do
      script = "printf 0123456789 >&2; head -c 100000 /dev/zero >&2; printf end >&2; exit 2"
      tail = &raised(["sh", "-c", script], &1).stderr
      zeros = &:binary.copy(<<0>>, &1)

      assert tail.([]) == zeros.(8_189) <> "end"
      assert tail.(stderr_tail: 2) == "nd"
      assert tail.(stderr_tail: 1_000_000) == "0123456789" <> zeros.(100_000) <> "end"
      assert tail.(stderr: :disabled) == ""

      # A pause, so that most pieces are read by themselves; the result is the same if some are not.
      script = "for i in 1 2 3 4 5; do printf abc$i >&2; sleep 0.02; done; exit 1"

      for size <- [4, 6, 8, 19, 20, 21] do
        expected = String.slice("abc1abc2abc3abc4abc5", -min(size, 20), 20)
        assert raised(["sh", "-c", script], stderr_tail: size).stderr == expected
      end
    end

    test "has the command as a shell takes it" do
      for word <- [
            "a,b",
            "",
            "a b",
            "$HOME",
            "a;b",
            "*",
            "~",
            "a\"b",
            "a\\b",
            "a\nb",
            "a\n",
            "don't"
          ] do
        error = %Error{reason: :exit_status, command: ["printf", "%s", word], status: 1}
        [_, quoted] = Regex.run(~r/\A`printf %s (.*)` exited/s, Exception.message(error))
        assert NetRunner.run(["sh", "-c", "printf %s #{quoted}"]) == {word, 0}
      end
    end

    test "tells a signal from a status of the same number" do
      assert failure(["sh", "-c", "kill -9 $$"]) ==
               "`sh -c 'kill -9 $$'` was ended by SIGKILL (status 137)"

      assert failure(["bash", "-c", "kill -40 $$"]) =~ "was ended by SIGRTMIN+6 (status 168)"
      assert failure(["sh", "-c", "exit 143"]) =~ "exited with status 143 (128 + SIGTERM)"
      assert failure(["sh", "-c", "exit 255"]) =~ ~r/exited with status 255\z/
      assert %Error{exit: {:signaled, :sigkill, false}} = raised(["sh", "-c", "kill -9 $$"])
      assert %Error{exit: {:exited, 143}} = raised(["sh", "-c", "exit 143"])
    end

    test "says that a core was dumped" do
      error = %Error{reason: :exit_status, command: ["a"], status: 139}

      assert Exception.message(%{error | exit: {:signaled, :sigsegv, true}}) ==
               "`a` was ended by SIGSEGV (status 139, core dumped)"

      assert Exception.message(%{error | exit: {:signaled, 77, false}, status: 205}) ==
               "`a` was ended by signal 77 (status 205)"

      assert Exception.message(error) == "`a` was ended by SIGSEGV (status 139)"
    end

    test "shortens long commands, and shows odd ones" do
      long = String.duplicate("x", 10_000)
      assert failure(["false", long]) =~ ~r/\A`false x{200}…` exited/
      assert String.length(failure(["false" | List.duplicate(long, 100)])) < 1_100

      assert failure(["false", "a b", <<255>>, "", "a\nb"]) =~
               "`false 'a b' <<255>> '' 'a\nb'` exited"

      # Nothing that a terminal would obey.
      assert failure(["sh", "-c", "printf '\\033[2Jgone\\007\\r\\nline' >&2; exit 1", "\e[31m"]) =~
               ~S|"\e[31m"` exited with status 1; the end of its stderr: ?[2Jgone?| <> "\nline"

      assert Exception.message(%Error{reason: :closed, command: []}) =~ "The command failed: "
      assert Exception.message(%Error{reason: :closed, command: :odd}) =~ "`:odd` failed: "
    end
  end

  describe "each reason reads like a sentence" do
    test "of a command that cannot be started", %{tmp_dir: dir} do
      file = Path.join(dir, "file")
      File.write!(file, "")

      assert failure(["no-such"]) =~ "`no-such` failed: there is no such executable"
      assert failure([file]) =~ "failed: it may not be executed (:eacces)"
      assert failure([dir]) =~ "failed: it may not be executed (:eacces)"

      assert failure(["echo", String.duplicate("x", 3_000_000)]) =~
               "larger than the system allows"

      assert failure([]) =~ "The command failed: a command is a list"
      assert failure([""]) =~ "the executable is an empty string"
      assert failure(["echo", 1]) =~ "failed: argument 1 is not a string"
      assert failure(["echo", "a\0"]) =~ "failed: argument 1 contains a NUL byte"
      assert failure(["true"], cd: "/nowhere") =~ "directory (:cd) cannot be used: no such file"
      assert failure(["true"], cd: "/etc/passwd") =~ "cannot be used: not a directory (:enotdir)"
      assert failure(["true"], cd: "/\0") =~ "the :cd directory contains a NUL byte"
      assert failure(["true"], env: [{"a=b", "c"}]) =~ ~s("a=…" is not the name of a variable)
      assert failure(["true"], user: "no-such-user") =~ "there is no such user (:user)"
      assert failure(["true"], group: "no-such-group") =~ "there is no such group (:group)"

      assert failure(["true"], stdout: {:file, "/nowhere/x"}) =~
               "the system refused the option :stdout"

      # Above fs.nr_open, which is refused to root, too.
      assert failure(["true"], rlimits: [nofile: 1_000_000_000_000]) =~
               "the option :rlimits: only root may raise a hard limit, and nobody may raise that of nofile above"

      assert describe({:nice, :eacces}) =~ "only root may ask for a lower value"

      assert describe({:cgroup, "the directory exists"}) == "the directory exists"

      assert failure(["true"], node: :nobody@nowhere) =~ "its node (:node) is not connected"
    end

    test "of one that was started" do
      assert {:error, :timeout} = run_error = NetRunner.run(["sleep", "9"], timeout: 10)
      assert described(run_error) == "it did not end within :timeout"

      assert described(NetRunner.run(["echo", "a"], max_output_size: 1)) =~
               ":max_output_size allows"

      {:ok, p} = NetRunner.Process.start("true")
      {:ok, 0} = NetRunner.Process.await_exit(p)
      assert described(NetRunner.Process.kill(p)) == "it has exited (:esrch)"
      assert described(NetRunner.Process.kill(p, :sigwhat)) =~ "no such signal"
      assert described(NetRunner.Process.write(p, "a")) =~ "it closed its stdin, or ended"
      assert described(NetRunner.Process.read_stderr(p)) =~ "not connected to the VM by a pipe"
      assert described(NetRunner.Process.set_window_size(p, 1, 1)) =~ "it has no terminal"
      NetRunner.Process.stop(p)
      assert described(NetRunner.Process.read(p)) =~ "closed"

      {:ok, p} = NetRunner.Process.start("cat", [], name: NetRunner.ErrorTest.Name)
      taken = NetRunner.Process.start("cat", [], name: NetRunner.ErrorTest.Name)
      assert described(taken) == "its :name is already registered, by #{inspect(p)}"
      NetRunner.Process.stop(p)
    end

    test "of an input that fails" do
      {:ok, stream} = NetRunner.stream(["cat"], input: Stream.map([1], fn _ -> raise "no" end))
      assert_raise RuntimeError, "no", fn -> Enum.to_list(stream) end

      assert describe({:input_failed, {:error, %RuntimeError{message: "no"}, []}}) ==
               "its :input could not be produced: ** (RuntimeError) no"
    end

    test "of the system and of NetRunner itself" do
      for {reason, text} <- [
            emfile: "ulimit -n",
            enfile: "the system has no free file descriptors",
            eagain: "ulimit -u",
            enomem: "not enough memory",
            eio: "I/O error",
            enoexec: "exec format error",
            launcher_died: "while the command was started",
            shepherd_died: "the command with it",
            not_started: "Application.ensure_all_started(:net_runner)",
            closed: "closed",
            no_errno: ":no_errno"
          ] do
        assert {reason, describe(reason) =~ text} == {reason, true}
      end

      assert describe({:setup, :eperm}) =~ "could not be set up: operation not permitted (:eperm)"

      assert describe({:exit_status, 1, stderr: "cannot bind\n"}) ==
               "it exited with status 1 before it was ready; the end of its stderr: cannot bind"

      assert describe({:signal, :sigsegv, stderr: ""}) ==
               "it was ended by SIGSEGV before it was ready"

      assert describe({:odd, {1, 2}}) == "{:odd, {1, 2}}"
      assert describe({:error, :enoent}) == describe(:enoent)
    end
  end

  test "is raised with a reason alone" do
    assert_raise Error, "The command failed: boom", fn -> raise Error, "boom" end
    assert_raise Error, ~r/no such executable/, fn -> raise Error, :enoent end
  end

  describe "of any fields" do
    # Of each kind, those that are missing, and those that nobody expects.
    @reasons [
      :exit_status,
      nil,
      :timeout,
      :enoent,
      :no_reason,
      "text",
      <<255>>,
      {:cd, {:odd, 1}},
      {:node, :odd},
      {:node, {:version, nil}},
      {:node, {:node, nil}},
      {:user, nil},
      {:stdin, [:a | :b]},
      {:input_failed, :odd},
      {:input_failed, {:odd, nil, nil}},
      {:input_failed, {:error, :badarg, [:odd]}},
      {:input_failed, {:exit, {:a, 1}, []}},
      {:command, 1, :enoent},
      {:command, nil, {:command, 0, :exit_status}},
      {:max_output_exceeded, nil},
      {:exit_status, nil, stderr: nil},
      {:signal, "x", stderr: <<255>>},
      %{a: 1},
      [1 | 2]
    ]
    @commands [
      nil,
      [],
      ["a", 1, nil, <<255>>],
      ["a" | "b"],
      "a b",
      %{},
      NetRunner.Command.new("a"),
      [["a"], ["b"]]
    ]
    @statuses [nil, 0, 3, -1, 128, 129, 143, 168, 1000, 1.5, "3", :odd]
    @exits [
      nil,
      {:exited, 3},
      {:exited, nil},
      {:signaled, :sigterm, false},
      {:signaled, 77, true},
      {:signaled, nil, nil},
      {:signaled, "x", :odd},
      {:signaled, [1 | 2], 1},
      :odd
    ]
    @stderrs ["", "bad\n", <<255>>, <<"a", 0xC3>>, nil, :odd, ["a"], <<1::3>>]

    test "a message is made, and is text" do
      for reason <- @reasons, status <- @statuses, exit <- @exits do
        valid_message(reason: reason, status: status, exit: exit, command: ["a"])
      end

      for reason <- [:exit_status, :closed], command <- @commands, stderr <- @stderrs do
        valid_message(reason: reason, status: 1, command: command, stderr: stderr)
      end

      assert Exception.message(%Error{}) == "The command failed"

      assert Exception.message(%Error{reason: :exit_status}) ==
               "The command failed, and its exit status is not known"

      assert Exception.message(%Error{reason: :exit_status, exit: {:signaled, :sigterm, false}}) ==
               "The command was ended by SIGTERM"

      assert Exception.message(%Error{reason: :exit_status, exit: {:exited, 3}}) ==
               "The command exited with status 3"

      assert Exception.message(%Error{reason: {:command, 2, :enoent}}) =~
               "The command (index 2 in its pipeline) failed: there is no such executable"

      assert describe({:command, 2, :eio}) =~ "the command with index 2 of the pipeline"
    end

    defp valid_message(fields) do
      message = Exception.message(struct!(Error, fields))
      assert {fields, String.valid?(message)} == {fields, true}
    end
  end

  defp failure(command, options \\ []), do: Exception.message(raised(command, options))

  defp raised(command, options \\ []) do
    assert_raise Error, fn -> command |> NetRunner.stream!(options) |> Stream.run() end
  end

  defp described({:error, reason}), do: describe(reason)
end
