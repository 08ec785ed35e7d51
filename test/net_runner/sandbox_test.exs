defmodule NetRunner.SandboxTest do
  # What the option says, and that every way to run a command takes it. Whether it holds is in
  # `test/guarantees/sandbox_test.exs`.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Sandbox
  alias NetRunner.Sandbox.{Policy, Preset, Refusal}

  @layers [:filesystem, :network, :signals, :system_calls, :capabilities]

  @linux Tree.needs_linux()

  if @linux, do: @moduletag(skip: @linux), else: doctest(Sandbox)

  defp policy(option) do
    {:ok, policy} = Policy.parse(option)
    policy
  end

  defp problem(option) do
    {:error, problem} = Policy.parse(option)
    problem
  end

  describe "what the option says" do
    test "without :exec, what may be read or written may be executed" do
      assert policy(read: ["/a"], write: ["/b"]).paths == [
               {:executable, :required, ["/a"]},
               {:writable, :required, ["/b"]},
               {:executable, :required, ["/b"]}
             ]
    end

    test "with :exec, only what is in it" do
      assert policy(read: ["/a"], write: ["/b"], exec: ["/c"]).paths == [
               {:executable, :required, ["/c"]},
               {:readable, :required, ["/a"]},
               {:writable, :required, ["/b"]}
             ]

      assert policy(read: ["/a"], exec: []).paths == [{:readable, :required, ["/a"]}]
    end

    test "a preset is the paths that it stands for, which need not exist" do
      preset = {:executable, :optional, Preset.paths(:system)}

      assert policy(read: ["/a", "/b", :system, "/c"]).paths == [
               {:executable, :required, ["/a", "/b"]},
               preset,
               {:executable, :required, ["/c"]}
             ]

      assert policy(exec: [:system]).paths == [preset]
    end

    test "a preset is absolute paths, and neither /etc nor a place of secrets or of processes" do
      for path <- Sandbox.preset(:system) do
        assert "/" <> _ = path
        assert Path.expand(path) == path

        for secret <-
              ~w(/ /etc /etc/shadow /etc/gshadow /etc/ssl /etc/ssl/private /etc/ssh /etc/sudoers),
            do: refute(String.starts_with?(secret <> "/", path <> "/"))

        refute path =~ ~r{^/(proc|sys|dev|root|home|run|var|tmp|opt|srv|mnt)}
      end

      # pip stops without it.
      assert "/etc/debian_version" in Sandbox.preset(:system)
    end

    test "all layers are in force that are not given up" do
      assert Policy.in_force(policy([])) == @layers
      assert Policy.in_force(policy(network: :unix)) == @layers
      assert Policy.in_force(policy(network: true)) == @layers -- [:network]
      assert Policy.in_force(policy(without: [:network])) == @layers -- [:network]
      assert Policy.in_force(policy(without: @layers)) == []

      asked = [processes: :own, tmp: :private, metadata: :locked]
      assert Policy.in_force(policy(asked)) == @layers ++ [:processes, :tmp, :metadata]
    end

    test "nil is as if it were not given" do
      keys = [:read, :write, :exec, :network, :processes, :tmp, :metadata, :without]
      assert policy(for key <- keys, do: {key, nil}) == policy([])
      assert policy(network: [connect: [443], bind: nil]) == policy(network: [connect: [443]])
      assert policy(network: [connect: nil]) == policy([])
      assert policy(tmp: [size: nil]) == policy(tmp: :private)
    end

    test "what the shepherd gets" do
      option = [
        read: ["/a", "/b"],
        write: ["/c"],
        exec: [],
        network: [connect: [443, 80], bind: [0]],
        processes: :own,
        tmp: [size: 4096],
        metadata: :locked,
        without: [:signals]
      ]

      assert Policy.fields(policy(option)) == [
               sandbox: {[:filesystem, :system_calls, :capabilities], :ports},
               readable: ["/a", "/b"],
               writable: ["/c"],
               connect: [443, 80],
               bind: [0],
               own_processes: true,
               private_tmp: {4096, false},
               locked_metadata: true
             ]

      all = [:filesystem, :signals, :system_calls, :capabilities]

      for {network, name} <- [
            nil: :none,
            false: :none,
            true: :all,
            unix: :unix,
            loopback: :loopback
          ] do
        assert Policy.fields(policy(network: network)) == [sandbox: {all, name}]
      end

      assert policy(network: :loopback, without: [:network]).network == :all
    end

    test "what a private /tmp would lose is not what :write may name" do
      for tmp <- [:private, [size: 4096]], path <- ["/tmp", "/tmp/", "/usr/../tmp", "/dev/shm"] do
        assert problem(tmp: tmp, write: ["/a", path]) ==
                 "the path #{inspect(path)} in :write is replaced by :tmp, and what is written there is lost: name a path below it, or leave out one of them"
      end

      # Below them, above them, and without a private one, it is kept.
      assert policy(tmp: :private, write: ["/tmp/a", "/dev/shm/a", "/", "/tmp_a"])
      assert policy(tmp: nil, write: ["/tmp", "/dev/shm"])
      assert policy(tmp: :private, read: ["/tmp"], exec: ["/tmp"])
    end

    test "what is in the private /tmp is executed as beneath any other path" do
      assert {:private, _, true} = policy(tmp: :private).tmp
      assert {:private, 1, true} = policy(tmp: [size: 1], exec: ["/a", "/tmp"]).tmp
      assert {:private, _, false} = policy(tmp: :private, exec: ["/a"]).tmp
    end

    test "a path is found by the number that the shepherd counts" do
      policy = policy(read: ["/a"], write: ["/b"], exec: ["/c"])
      assert for(index <- 0..3, do: Policy.path(policy, index)) == ["/c", "/a", "/b", nil]
      # The last number that it has stands for all above it.
      assert Policy.path(policy(read: List.duplicate("/a", 65_537)), 65_535) == nil
    end

    test "what is wrong is said" do
      assert problem(:x) =~ ~r/^it must be a keyword list of :read, .*, got: an atom$/
      assert problem([:read]) =~ "got: a list"
      assert problem(raed: ["/a"]) =~ "there is no key :raed; the keys are :read, :write,"
      assert problem(read: ["/a"], read: ["/b"]) == "the key :read is given more than once"
      assert problem(read: "/a") == ~s(:read must be a list of paths, got: "/a")
      assert problem(read: ["/a" | "/b"]) =~ "must be a list of paths"
      assert problem(read: ~c"/usr") =~ ":read must be a list of paths, got: the charlist "
      assert problem(read: ["a"]) =~ ~s(the path "a" in :read is not absolute \(Path.expand/1)
      assert problem(write: [""]) =~ "not absolute"
      assert problem(exec: ["/a\0"]) == ~S(the path "/a\0" in :exec contains a NUL byte)

      assert problem(read: [:home]) ==
               ":read must be a list of strings and :system; it contains :home"

      assert problem(read: [~c"/a"]) =~
               ":read must be a list of strings and :system; it contains "

      assert problem(write: [:system]) =~ ":write must not name :system"

      for path <- ~w(/proc/self /proc//self/fd /proc/thread-self/root /dev/fd/3 /dev/stdin),
          do:
            assert(
              problem(read: [path]) =~ "would mean a process of NetRunner and not the command"
            )

      for network <- [:none, "x", [], [443]],
          do: assert(problem(network: network) =~ ":network must be false, :unix,")

      assert problem(network: [listen: [1]]) =~ "there is no key :listen; the keys are :connect"
      assert problem(network: [bind: [1], bind: [2]]) =~ "the key :bind is given more than once"

      for {ports, wrong} <- [
            {80, ", got: 80"},
            {[0], "; it contains 0"},
            {["443"], ~s(; it contains "443")}
          ],
          do:
            assert(
              problem(network: [connect: ports]) ==
                "in :network, :connect must be a list of ports from 1 to 65535" <> wrong
            )

      assert problem(network: [bind: [65_536]]) =~ "ports from 0 to 65535; it contains 65536"
      assert problem(processes: :shared) == ":processes must be :own or left out, got: :shared"
      assert problem(metadata: true) == ":metadata must be :locked or left out, got: true"

      for tmp <- [true, [size: 1, mode: 2], []],
          do: assert(problem(tmp: tmp) =~ ":tmp must be :private, [size: bytes] or left out")

      assert problem(tmp: [sizes: 1]) == "in :tmp, there is no key :sizes; the key is :size"
      assert problem(write: [:sytem]) == ":write must be a list of strings; it contains :sytem"

      for size <- [0, -1, 1.5, "1G"],
          do: assert(problem(tmp: [size: size]) =~ "at least 1, got: #{inspect(size)}")

      for without <- [:network, [:signals | :network]],
          do: assert(problem(without: without) =~ ":without must be a list of layers")

      for wrong <- [:signal, "signals", :processes],
          do: assert(problem(without: [:network, wrong]) =~ ":without contains #{inspect(wrong)}")

      assert policy(without: [:signals, :signals]).layers == Policy.layers() -- [:signals]
    end

    test "is checked before anything starts, with the name of the option" do
      message = ~r/^the option :sandbox is wrong: the path "etc" in :read is not absolute/

      for function <- ways(["true"], sandbox: [read: ["etc"]]),
          do: assert_raise(ArgumentError, message, function)
    end

    test "excludes what the kernel would end" do
      message = ~r/the option :sandbox with processes: :own excludes leftovers: :leave/
      options = [sandbox: [processes: :own], leftovers: :leave]
      for function <- ways(["true"], options), do: assert_raise(ArgumentError, message, function)
      assert {"", 0} = run("true", sandbox: [read: [:system], processes: :own], leftovers: :kill)
      assert {"", 0} = run("true", sandbox: [read: [:system]], leftovers: :leave)
    end
  end

  defp run(script, options), do: NetRunner.run(["/bin/sh", "-c", script], options)

  defp ways([cmd | args] = command, options) do
    [
      fn -> NetRunner.run(command, options) end,
      fn -> NetRunner.run!(command, options) end,
      fn -> NetRunner.capture(command, options) end,
      fn -> NetRunner.stream(command, options) end,
      fn -> NetRunner.stream!(command, options) end,
      fn -> NetRunner.shell("true", options) end,
      fn -> NetRunner.cmd(cmd, args, options) end,
      fn -> NetRunner.pipeline([command, command], options) end,
      fn -> Command.start(cmd, args, options) end,
      fn -> Command.start_link(cmd, args, options) end,
      fn -> NetRunner.Daemon.start_link(cmd: cmd, args: args, process_opts: options) end,
      fn -> NetRunner.Command.new(cmd, args, options) end
    ]
  end

  describe "a sentence for what cannot be enforced" do
    test "names the path" do
      policy = policy(read: ["/a"], write: ["/b"])
      assert Refusal.sentence(0, :enoent, policy) =~ ~s("/a" of the sandbox does not exist)
      assert Refusal.sentence(1, :enotdir, policy) =~ ~s("/b" of the sandbox leads through a file)
      assert Refusal.sentence(255, :enoent, policy) =~ "one of the paths"
      assert Refusal.sentence(0, :enosys, policy) =~ "openat2(2)"
      assert Refusal.sentence(0, :eio, policy) =~ "cannot be opened: I/O error (:eio)"

      assert Refusal.sentence(0, :eacces, policy) =~
               "cannot be opened: permission denied (:eacces)"
    end

    test "says what to change" do
      says = fn part, errno -> Refusal.sentence(part, errno, policy([])) end
      assert says.(:signals, :eprotonosupport) =~ "needs Linux 6.12"
      assert says.(:signals, :eprotonosupport) =~ "`without: [:signals]` gives it up"
      assert says.(:ports, :eprotonosupport) =~ "needs Linux 6.7"
      refute says.(:ports, :eprotonosupport) =~ "without:"
      assert says.(:filesystem, :enosys) =~ "CONFIG_SECURITY_LANDLOCK"
      assert says.(:filesystem, :eopnotsupp) =~ "lsm="
      assert says.(:filesystem, :e2big) =~ "17th"
      assert says.(:filter, :enosys) =~ "x86-64"
      assert says.(:filter, :einval) =~ "CONFIG_SECCOMP_FILTER"
      assert says.(:system, :enosys) =~ "on Linux only"
      assert says.(:user, :eopnotsupp) =~ "CAP_SYS_ADMIN"
      assert says.(:proc, :eperm) =~ "masked"
      assert says.(:proc, :enoent) =~ "mount -t proc"
      assert says.(:mounts, :estale) =~ "replaced"
      assert says.(:capabilities, :eperm) =~ "cannot be enforced"

      for part <- [:user, :processes, :mounts, :tmp, :metadata, :loopback],
          do: assert(says.(part, :eperm) =~ "kernel.unprivileged_userns_clone")
    end

    test "is the error of a start, everywhere" do
      file = NetRunner.Temporary.path("sandbox")

      File.write!(file, "")
      on_exit(fn -> File.rm(file) end)

      for {path, problem} <- [
            {"/no/such/path", "does not exist"},
            {file <> "/x", "not a directory"},
            {"/proc/#{System.pid()}/root", "leads into a process"}
          ],
          more <- [[], [tmp: :private], [metadata: :locked], [processes: :own]] do
        options = [sandbox: [read: [:system, path]] ++ more]
        assert {:error, {:sandbox, sentence}} = NetRunner.run(["true"], options)
        assert sentence =~ inspect(path) and sentence =~ problem
        assert {:error, {:sandbox, ^sentence}} = Command.start("true", [], options)
        assert {:error, {:sandbox, ^sentence}} = NetRunner.capture(["true"], options)
        error = assert_raise NetRunner.Error, fn -> NetRunner.run!(["true"], options) end
        assert Exception.message(error) == "`true` failed: " <> sentence
      end
    end

    test "a command that cannot start leaves nothing in its namespace" do
      for sandbox <- [[read: [:system]], [read: [:system], processes: :own, tmp: :private]] do
        assert NetRunner.run(["/no/such/program"], sandbox: sandbox) == {:error, :enoent}
        assert NetRunner.run(["/etc/passwd"], sandbox: sandbox) == {:error, :eacces}
        assert {:error, {:cd, :enoent}} = run("true", sandbox: sandbox, cd: "/no/such/directory")
      end

      # Process 1 and the shell.
      processes = "cd /proc; for process in [0-9]*; do echo $process; done"
      assert run(processes, sandbox: [read: [:system], processes: :own]) == {"1\n2\n", 0}
    end
  end

  describe "what this machine can enforce" do
    # A VM of its own, which says what it sees.
    defp seen(code, wrap \\ [], options) do
      start = "{:ok, _} = Application.ensure_all_started(:net_runner); "
      command = wrap ++ Tree.elixir(start <> "IO.write(inspect(#{code}, limit: :infinity))")
      options = [env: Tree.elixir_env(), timeout: 300_000] ++ options
      {text, 0} = NetRunner.run(command, options)
      {term, _} = Code.eval_string(text)
      term
    end

    test "is found out by trying" do
      support = seen("NetRunner.Sandbox.support()", sandbox: [read: ["/"]])
      for layer <- @layers ++ [:ports], do: assert(support[layer] == :ok)

      # In a sandbox there are no namespaces to be had.
      for name <- [:processes, :tmp, :metadata, :loopback] do
        assert {:missing, sentence} = support[name]
        assert sentence =~ "seccomp profile must allow unshare"
      end
    end

    # Of root, execve(2) makes permitted what is inheritable (capabilities(7)); and in a user namespace, which a VM without
    # CAP_SYS_ADMIN has made, the bounding set is full again.
    for {name, wrap, keys} <- [
          {"inheritable ones", ["--inh-caps=+net_raw"], []},
          {"a user namespace", ["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"],
           [processes: :own]}
        ] do
      @wrap wrap
      @keys keys
      @tag Tree.skip(if(not Tree.root?(), do: "only root has capabilities to give up"))
      test "leaves a command no capability of root's, also with #{name}" do
        show = ["grep", "-E", "^Cap(Inh|Prm|Eff|Bnd|Amb)", "/proc/self/status"]
        sandbox = [read: [:system, "/proc"]] ++ @keys
        code = "NetRunner.run(#{inspect(show)}, sandbox: #{inspect(sandbox)})"
        assert {text, 0} = seen(code, ["setpriv"] ++ @wrap, [])
        lines = String.split(text, "\n", trim: true)
        assert length(lines) == 5
        for line <- lines, do: assert(line =~ ~r/^Cap...:\t0+$/)
        # Without the sandbox it has some.
        assert {text, 0} = seen("NetRunner.run(#{inspect(show)})", ["setpriv"] ++ @wrap, [])
        refute text =~ ~r/^CapEff:\t0+$/m
      end
    end

    test "is one of sixteen, one inside the other" do
      nest = """
      import ctypes, os, struct, sys
      libc = ctypes.CDLL(None)
      libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
      for _ in range(int(sys.argv[1])):  # landlock_create_ruleset, landlock_restrict_self
          ruleset = libc.syscall(444, struct.pack("QQQ", 0, 0, 1), 24, 0)
          assert libc.syscall(446, ruleset, 0) == 0
          os.close(ruleset)
      os.execvp(sys.argv[2], sys.argv[2:])
      """

      run = ~S|NetRunner.run(["true"], sandbox: [read: [:system]])|
      assert seen(run, ["python3", "-c", nest, "15"], []) == {"", 0}
      assert {:error, {:sandbox, sentence}} = seen(run, ["python3", "-c", nest, "16"], [])
      assert sentence =~ "17th sandbox"
    end
  end

  describe "a command in a sandbox" do
    test "is one in every way to run a command" do
      secret = NetRunner.Temporary.path("secret")

      File.write!(secret, "secret")
      on_exit(fn -> File.rm(secret) end)
      command = ["/bin/sh", "-c", "cat #{secret} 2>/dev/null || echo refused"]

      for more <- [[], [processes: :own, tmp: :private, metadata: :locked, network: :loopback]] do
        options = [sandbox: [read: [:system]] ++ more]
        assert NetRunner.run(command, options) == {"refused\n", 0}
        assert NetRunner.run!(command, options) == "refused\n"
        assert {:ok, %{stdout: "refused\n"}} = NetRunner.capture(command, options)
        assert command |> NetRunner.stream!(options) |> Enum.join() == "refused\n"
        assert {:ok, stream} = NetRunner.stream(command, options)
        assert Enum.join(stream) == "refused\n"
        assert NetRunner.cmd("/bin/sh", tl(command), options) == {"refused\n", 0}
        assert NetRunner.pipeline([command, ["cat"]], options) == {"refused\n", [0, 0]}

        assert NetRunner.pipeline([
                 ["true"],
                 NetRunner.Command.new("/bin/sh", tl(command), options)
               ]) ==
                 {"refused\n", [0, 0]}

        {:ok, p} = Command.start("/bin/sh", tl(command), options)
        assert Command.read(p) == {:ok, "refused\n"}
        Command.stop(p)
        owner = self()

        {:ok, daemon} =
          NetRunner.Daemon.start_link(
            cmd: "/bin/sh",
            args: ["-c", "cat #{secret} 2>/dev/null || echo refused; exec sleep 1000"],
            on_output: &send(owner, {:output, &1}),
            process_opts: options
          )

        assert_receive {:output, "refused\n"}, 60_000
        GenServer.stop(daemon)
      end

      assert NetRunner.run(command) == {"secret", 0}
    end

    test "says in its statistics what is in force" do
      sandbox = [read: [:system], processes: :own, without: [:signals]]
      expected = (@layers -- [:signals]) ++ [:processes]
      {:ok, p} = Command.start("cat", [], sandbox: sandbox)
      assert Command.stats(p).sandbox == expected
      assert Command.info(p).sandbox == expected
      assert inspect(Command.stats(p)) =~ "sandbox: filesystem network"
      Command.stop(p)

      assert {:ok, %{stats: %{sandbox: ^expected}}} =
               NetRunner.capture(["true"], sandbox: sandbox)

      assert {:ok, %{stats: %{sandbox: nil}}} = NetRunner.capture(["true"])
    end

    test "leaves nothing of it to the next command of its shepherd" do
      all = [
        read: [:system],
        processes: :own,
        tmp: :private,
        metadata: :locked,
        network: :loopback
      ]

      show =
        "grep -E 'Cap|Seccomp|NoNew|NSpid' /proc/self/status; readlink /proc/$$/ns/*; readlink /proc/$PPID/ns/*"

      # (What belongs to a shepherd, an ordinary user does not see.)
      {before, _} = run(show, [])
      [_, namespaces] = String.split(before, "ipc:", parts: 2)
      assert {_, 0} = run("true", sandbox: all)
      assert {:error, :enoent} = NetRunner.run(["/no/such/program"], sandbox: all)
      {later, _} = run(show, [])
      assert [_, ^namespaces] = String.split(later, "ipc:", parts: 2)
      assert later =~ "Seccomp:\t0\n" or before =~ ~r/Seccomp:\t[^0]/
    end

    test "what is only to be read in the private /tmp is not written, and its :cd shows nothing" do
      folder = "/tmp/#{NetRunner.Temporary.name("sandbox")}"

      File.mkdir_p!(Path.join(folder, "read"))
      File.mkdir_p!(Path.join(folder, "write"))
      File.write!(Path.join(folder, "secret"), "")
      File.write!(Path.join(folder, "read/file"), "text")
      on_exit(fn -> File.rm_rf!(folder) end)

      beside = folder <> "_beside"

      script =
        "ls; cat read/file; (echo x > read/file) 2>&1 | grep -o 'Read-only'; echo y > write/file; echo z > #{beside}"

      sandbox = [read: [:system, folder <> "/read"], write: [folder <> "/write"], tmp: :private]
      assert {"read\nwrite\ntextRead-only\n", 0} = run(script, cd: folder, sandbox: sandbox)
      assert File.read!(Path.join(folder, "read/file")) == "text"
      assert File.read!(Path.join(folder, "write/file")) == "y\n"
      refute File.exists?(beside)
    end

    for tmp <- ["/tmp", "/var/tmp"], keys <- [[], [tmp: :private], [metadata: :locked]] do
      test "what is to be read in a directory that may be written is written, too (#{tmp}, #{inspect(keys)})" do
        folder = Path.join(unquote(tmp), NetRunner.Temporary.name("sandbox"))
        [file, directory] = for name <- ~w(file directory), do: Path.join(folder, name)
        File.mkdir_p!(Path.join(directory, "below"))
        File.write!(file, "old\n")
        on_exit(fn -> File.rm_rf!(folder) end)

        script =
          "echo new >> file && mv file moved && touch directory/below/1 && mv directory gone"

        read = [:system, file, directory, Path.join(directory, "below")]
        sandbox = [read: read, write: [folder]] ++ unquote(keys)
        assert run(script, cd: folder, sandbox: sandbox) == {"", 0}
        assert File.read!(Path.join(folder, "moved")) == "old\nnew\n"
        assert File.exists?(Path.join(folder, "gone/below/1"))
      end
    end

    test "writes a file that is named itself in the private /tmp, and cannot replace it" do
      folder = "/tmp/#{NetRunner.Temporary.name("sandbox")}"
      file = Path.join(folder, "file")
      File.mkdir_p!(folder)
      File.write!(file, "old\n")
      on_exit(fn -> File.rm_rf!(folder) end)

      script = "echo new > other; mv other file 2>&1 | grep -o busy; echo written > file"
      sandbox = [read: [:system], write: [file], tmp: :private]
      assert {"busy\n", 0} = run(script, cd: folder, sandbox: sandbox)
      assert File.read!(file) == "written\n"
    end

    test "gets its further descriptors, whatever their numbers" do
      all = [processes: :own, tmp: :private, metadata: :locked]
      fds = Map.new(3..40, &{&1, {:input, {:file, "/etc/hostname"}}})
      {name, 0} = NetRunner.run(["cat", "/etc/hostname"])

      for more <- [[], all], number <- [3, 4, 5, 6, 7, 8, 9, 40] do
        options = [sandbox: [read: [:system]] ++ more, fds: fds]
        bash = "cat <&\"$0\"; [ $(ls /proc/self/fd 2>/dev/null | wc -w) -le 42 ]"
        assert NetRunner.run(["bash", "-c", bash, "#{number}"], options) == {name, 0}
      end
    end

    test "in processes of its own, the stop signal reaches also what has left its group" do
      file = NetRunner.Temporary.path("sandbox")

      on_exit(fn -> File.rm(file) end)
      daemon = "trap 'echo asked to end; exit' TERM; echo up; while :; do sleep 0.05; done"

      script =
        "trap 'while :; do grep -q asked \"$1\" && exit 3; sleep 0.05; done' TERM; (setsid sh -c \"$0\" &); " <>
          "while :; do sleep 0.05; done"

      File.write!(file, "")
      sandbox = [read: [:system, file], processes: :own]

      {:ok, p} =
        Command.start("/bin/sh", ["-c", script, daemon, file],
          sandbox: sandbox,
          stdout: {:append, file},
          kill_timeout: 60_000
        )

      Tree.await(fn -> File.read!(file) == "up\n" end)
      # Its parent is gone: process 1 has it.
      monitor = Command.monitor(p)
      Command.stop(p)
      assert_receive {:DOWN, ^monitor, :process, ^p, {:exit, 3}}, 60_000
      assert File.read!(file) == "up\nasked to end\n"
    end
  end
end
