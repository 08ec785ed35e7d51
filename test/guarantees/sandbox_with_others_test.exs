defmodule NetRunner.Guarantees.SandboxWithOthersTest do
  # A sandbox together with the other options and in every way to run a command: each does what it does without the other.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.{Nodes, Tree}
  alias NetRunner.Sandbox.World
  alias NetRunner.{Command, Daemon, Result}

  @moduletag Tree.linux_only()
  @moduletag :capture_log

  @sandboxes [
    first_step: [],
    second_step: [processes: :own, tmp: :private, metadata: :locked]
  ]

  setup_all do
    {:ok, world: World.new(List.first(World.actors()))}
  end

  setup %{world: world} do
    ctx = World.fixture(world, [])
    on_exit(fn -> World.clear(ctx) end)
    {:ok, ctx: ctx, secret: Path.join(ctx.outside, "secret")}
  end

  for {step, keys} <- @sandboxes do
    describe "#{step}:" do
      @describetag keys: keys

      test "run, run!, shell, cmd", %{secret: secret} = context do
        options = options(context)
        assert NetRunner.run(["cat", secret], options) == {"", 1}

        assert NetRunner.shell("cat \"$1\" || echo refused", [args: [secret]] ++ options) ==
                 {"refused\n", 0}

        assert {_, 1} = NetRunner.cmd("cat", [secret], [stderr_to_stdout: true] ++ options)

        error = assert_raise NetRunner.Error, fn -> NetRunner.run!(["cat", secret], options) end
        assert Exception.message(error) =~ ~r/Permission denied|No such file/

        assert NetRunner.run!(["cat", "mine"], options) == "mine\n"
      end

      test "capture, with stats that say what is in force", %{secret: secret} = context do
        assert {:ok, %Result{status: 1, stdout: "", stderr: stderr} = result} =
                 NetRunner.capture(["cat", secret], options(context))

        assert stderr =~ ~r/Permission denied|No such file/

        assert Enum.sort(result.stats.sandbox -- ~w(processes tmp metadata)a) ==
                 ~w(capabilities filesystem network signals system_calls)a

        assert {:ok, %Result{stats: %{sandbox: nil}}} = NetRunner.capture(~w(true))
      end

      test "streams", %{secret: secret} = context do
        options = options(context)
        assert ["mine\n"] = NetRunner.stream!(["cat", "mine"], options) |> Enum.to_list()

        assert_raise NetRunner.Error, fn ->
          NetRunner.stream!(["cat", secret], options) |> Enum.to_list()
        end

        {:ok, stream} = NetRunner.stream(["cat", secret], [tagged: true] ++ options)
        assert Enum.to_list(stream) |> List.last() == {:exit, 1}

        # Of an endless one.
        assert NetRunner.stream!(["yes"], options) |> Enum.take(1) != []
      end

      test "a pipeline", %{secret: secret} = context do
        commands = [["cat", secret], ["cat"], ["wc", "-c"]]
        assert {out, [1, 0, 0]} = NetRunner.pipeline(commands, options(context))
        assert String.trim(out) == "0"
        assert {_, [0, 0, 0]} = NetRunner.pipeline(commands)
      end

      test "a command as a value, whose sandbox a call can replace",
           %{secret: secret} = context do
        command = Command.new("cat", [secret], sandbox: sandbox(context))
        assert NetRunner.run(command) == {"", 1}
        assert {out, 0} = NetRunner.run(command, sandbox: [read: [:system, context.ctx.outside]])
        assert out =~ context.ctx.secret
      end

      test "a process: signals to it and its tree, a pause, more descriptors", context do
        options = options(context)
        script = "trap 'exit 7' TERM; sleep 1000 & read line <&3; echo $line; wait"

        {:ok, p} =
          NetRunner.Process.start(
            "sh",
            ["-c", script],
            [fds: %{3 => {:input, "given\n"}}] ++ options
          )

        assert NetRunner.Process.read(p) == {:ok, "given\n"}
        :ok = NetRunner.Process.suspend(p)
        Tree.await_stopped(NetRunner.Process.os_pid(p))
        :ok = NetRunner.Process.resume(p)
        :ok = NetRunner.Process.kill(p, :sigterm, to: :group)
        assert NetRunner.Process.await_exit(p, 60_000) == {:ok, 7}
        :ok = NetRunner.Process.stop(p)
      end

      test "a daemon", %{secret: secret} = context do
        test = self()
        script = "cat #{secret} 2>&1; echo ready; exec sleep 1000"

        {:ok, daemon} =
          Daemon.start_link(
            cmd: "sh",
            args: ["-c", script],
            on_line: &send(test, {:line, &1}),
            process_opts: options(context)
          )

        assert_receive {:line, line}
        assert line =~ ~r/Permission denied|No such file/
        assert_receive {:line, "ready"}
        os_pid = Daemon.os_pid(daemon)
        :ok = GenServer.stop(daemon)
        assert Tree.stat(os_pid) == nil
      end

      test "the end: a timeout, a limit, a program that ignores the polite signal", context do
        tree = %Tree{mark: context.ctx.mark}
        options = [env: Tree.env(tree), kill_timeout: 100] ++ options(context)

        stubborn = [
          "sh",
          "-c",
          "trap '' TERM; sleep 1000 & (setsid sleep 1000 &); echo ready; while :; do sleep 1; done"
        ]

        assert NetRunner.run(stubborn, [timeout: 500] ++ options) == {:error, :timeout}
        assert Tree.processes(tree) == []

        assert {:error, {:max_output_exceeded, _}} =
                 NetRunner.run(["yes"], [max_output_size: 1_000] ++ options)

        assert {:ok, %{outcome: :idle_timeout}} =
                 NetRunner.capture(stubborn, [idle_timeout: 300] ++ options)

        assert Tree.processes(tree) == []

        {:ok, p} = NetRunner.Process.start("sh", tl(stubborn), options)
        assert NetRunner.Process.read(p) == {:ok, "ready\n"}
        assert length(Tree.processes(tree)) >= 3
        :ok = NetRunner.Process.stop(p)
        assert Tree.processes(tree) == []
      end

      test "what exits by itself leaves nothing, and has its status, its usage and its signal",
           context do
        tree = %Tree{mark: context.ctx.mark}
        options = [env: Tree.env(tree)] ++ options(context)

        script =
          "sleep 1000 & (setsid sleep 1000 &) ; x=0; while [ $x -lt 20000 ]; do x=$((x+1)); done; exit 9"

        assert {:ok, %{status: 9, exit: {:exited, 9}, stats: stats}} =
                 NetRunner.capture(["sh", "-c", script], options)

        assert stats.user_time_us > 0 and stats.max_rss_bytes > 500_000
        assert Tree.processes(tree) == []

        assert {:ok, %{exit: {:signaled, :sigsegv, _}, status: 139}} =
                 NetRunner.capture(["sh", "-c", "kill -SEGV $$"], [rlimits: [core: 0]] ++ options)
      end

      test "limits of resources", context do
        assert NetRunner.run(
                 ["sh", "-c", "ulimit -n"],
                 [rlimits: [nofile: 64]] ++ options(context)
               ) == {"64\n", 0}
      end

      test "a terminal of its own, and its size", context do
        script =
          "stty size; echo to the terminal > $(tty); (echo to another > /dev/tty) 2>/dev/null || echo refused"

        assert {out, 0} =
                 NetRunner.run(
                   ["sh", "-c", script],
                   [pty: [rows: 33, cols: 99]] ++ options(context)
                 )

        assert out == "33 99\r\nto the terminal\r\nrefused\r\n"
      end

      test "its files for stdin, stdout and stderr are opened by NetRunner, and are given to it",
           %{secret: secret} = context do
        out = Path.join(context.ctx.outside, "out")
        options = [stdin: {:file, secret}, stdout: {:file, out}] ++ options(context)
        {:ok, p} = NetRunner.Process.start("cat", [], options)
        assert NetRunner.Process.await_exit(p, 60_000) == {:ok, 0}
        :ok = NetRunner.Process.stop(p)
        assert File.read!(out) == File.read!(secret)
      end

      # docs/sandbox.md: what is open before is not mounted anew.
      test "beneath a directory that it is given, nothing is locked", %{ctx: ctx} = context do
        target = Path.join(ctx.outside, "target")
        sandbox = World.sandbox(ctx, [], context.keys)
        options = [stdin: {:file, ctx.outside}, sandbox: sandbox]
        assert NetRunner.run([ctx.program, "change_mode_of_stdin"], options) == {"done\n", 0}
        arguments = ["change_mode_beneath_stdin", "target"]
        assert NetRunner.run([ctx.program | arguments], options) == {"done\n", 0}
        assert Bitwise.band(File.stat!(target).mode, 0o777) == 0o777
      end

      test "a directory in which nothing may be read", context do
        options = Keyword.put(options(context), :cd, "/var")

        assert NetRunner.run(["sh", "-c", "pwd; ls 2>/dev/null || echo refused"], options) ==
                 {"/var\nrefused\n", 0}
      end

      test "a program that may not be executed is an error before the start", context do
        assert {:error, reason} = NetRunner.run([context.ctx.program, "who"], options(context))
        assert reason in [:eacces, :enoent]
      end

      unless Tree.root?() and Tree.cgroup_root() != nil do
        @tag skip: "needs root and a cgroup file system of version 2 that can be written"
      end

      test "a cgroup", context do
        path = "net_runner_test/#{context.ctx.mark}"
        options = [cgroup_path: path] ++ options(context)
        {:ok, p} = NetRunner.Process.start("cat", [], options)
        assert File.read!("/proc/#{NetRunner.Process.os_pid(p)}/cgroup") =~ path
        :ok = NetRunner.Process.close_stdin(p)
        assert NetRunner.Process.await_exit(p, 60_000) == {:ok, 0}
        assert NetRunner.Process.stats(p).cgroup != nil
        :ok = NetRunner.Process.stop(p)
        Tree.await(fn -> not File.exists?(Path.join(Tree.cgroup_root(), path)) end)
      end

      test "another node", %{secret: secret} = context do
        epmd = Nodes.start_epmd()
        {caller, _} = Nodes.start(epmd)
        {worker, node} = Nodes.start(epmd)
        for peer <- [caller, worker], do: Nodes.start_net_runner(peer)
        true = Nodes.call(caller, :net_kernel, :connect_node, [node])
        options = [node: node] ++ options(context)
        assert Nodes.call(caller, NetRunner, :run, [["cat", secret], options]) == {"", 1}
        assert Nodes.call(caller, NetRunner, :run, [["cat", "mine"], options]) == {"mine\n", 0}

        missing = [node: node, sandbox: [read: ["/no/such/path"]]]

        assert {:error, {:sandbox, sentence}} =
                 Nodes.call(caller, NetRunner, :run, [["cat"], missing])

        assert sentence =~ "/no/such/path"
      end

      test "it is inherited, and stays", %{secret: secret} = context do
        nested =
          "import os, sys; os.fork() and os.wait() and sys.exit(0); os.execlp('sh', 'sh', '-c', 'cat #{secret} || (setsid cat #{secret}; true)')"

        assert {out, 0} = NetRunner.run(["python3", "-c", nested], options(context))
        refute out =~ "SECRET"
      end
    end
  end

  test "what it starts and leaves stays in the sandbox", %{ctx: ctx, secret: secret} = context do
    script = "(read go < fifo; cat #{secret} > stolen; echo tried > done) & exit 0"
    {_, 0} = System.cmd("mkfifo", [Path.join(ctx.work, "fifo")])
    options = [leftovers: :leave] ++ options(Map.put(context, :keys, []))
    assert NetRunner.run(["sh", "-c", script], options) == {"", 0}
    File.write!(Path.join(ctx.work, "fifo"), "go\n")
    Tree.await(fn -> File.read(Path.join(ctx.work, "done")) == {:ok, "tried\n"} end)
    assert File.read!(Path.join(ctx.work, "stolen")) == ""
  end

  test "a seventeenth sandbox, one in the other, is an error", %{ctx: ctx} do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    IO.inspect(NetRunner.run(["echo", "hi"]))
    IO.inspect(NetRunner.run(["echo", "hi"], sandbox: [read: [:system]]), width: 1_000)
    """

    nested = fn count ->
      command = [ctx.program, "nest", "#{count}" | Tree.elixir(code)]
      assert {out, 0} = NetRunner.run(command, env: Tree.elixir_env(), timeout: 120_000)
      String.split(out, "\n", trim: true)
    end

    hi = ~S({"hi\n", 0})
    assert nested.(15) == [hi, hi]
    assert [^hi, "{:error, {:sandbox, " <> sentence] = nested.(16)
    assert sentence =~ "17th"
    # And a program inside has room for fifteen of its own.
    sandbox = World.sandbox(ctx, [], [])
    assert NetRunner.run([ctx.program, "nest", "20"], sandbox: sandbox) == {"15 E2BIG\n", 0}
  end

  test "NetRunner works in a sandbox, and makes sandboxes there, but no namespaces", %{ctx: ctx} do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    IO.inspect(NetRunner.run(["echo", "hi"]))
    IO.inspect(NetRunner.run(["cat", "/etc/passwd"], sandbox: [read: ["/usr", "/lib", "/lib64"]]))
    {:error, {:sandbox, _}} = NetRunner.run(["echo", "hi"], sandbox: [read: ["/"], processes: :own])
    File.read(#{inspect(Path.join(ctx.outside, "secret"))}) |> IO.inspect()
    """

    # Wherever Elixir is, but not what lies in /tmp.
    read =
      for name <- File.ls!("/"), name not in ~w(tmp proc), File.dir?("/" <> name), do: "/" <> name

    sandbox = [
      read: [Mix.Project.build_path() | read],
      write: [ctx.work],
      processes: :own,
      tmp: :private
    ]

    env = [{"HOME", ctx.work} | Tree.elixir_env()]
    options = [sandbox: sandbox, cd: ctx.work, env: env, timeout: 120_000]
    assert {out, 0} = NetRunner.run(Tree.elixir(code), options)
    assert out == ~s({"hi\\n", 0}\n{"", 1}\n{:error, :enoent}\n)
  end

  describe "process 1 of its own processes" do
    # Overwrites all that it may write.
    @overwrite """
    try:
        memory = open("/proc/1/mem", "r+b", buffering=0)
    except OSError as error:
        print(type(error).__name__)
    else:
        for line in open("/proc/1/maps"):
            addresses, access = line.split()[:2]
            first, last = (int(address, 16) for address in addresses.split("-"))
            if access.startswith("rw"):
                print("shared") if access[3] == "s" else None
                memory.seek(first)
                memory.write(bytes(last - first))
        print("overwritten")
    """

    @all_but_capabilities [:filesystem, :network, :signals, :system_calls]

    defp overwrite(without) do
      sandbox = [processes: :own, without: without]
      python = ["python3", "-S", "-E", "-c", @overwrite]
      {said, 0} = NetRunner.run(python, sandbox: sandbox)
      assert NetRunner.run(~w(echo next), sandbox: sandbox) == {"next\n", 0}
      said
    end

    test "has memory that the command cannot touch" do
      assert overwrite(@all_but_capabilities) == "PermissionError\n"

      # That was a copy. The shepherd's own memory is where the files are limited, too.
      script = "(exec 3<>/proc/1/mem) 2>&- && echo opened || echo refused"
      sandbox = [read: [:system], processes: :own]
      assert NetRunner.run(["sh", "-c", script], sandbox: sandbox) == {"refused\n", 0}
    end

    unless Tree.may_trace?(), do: @tag(skip: "needs CAP_SYS_PTRACE")

    test "has memory of its own where the command can touch it" do
      assert overwrite([:capabilities | @all_but_capabilities]) == "overwritten\n"
    end

    # As root, the command may write there, if it may write anywhere.
    for keys <- [
          [],
          [write: ["/proc"]],
          [write: ["/"]],
          [without: [:filesystem]],
          [without: @all_but_capabilities]
        ] do
      @keys keys
      test "has an oom_score_adj that is not its shepherd's: #{inspect(keys)}" do
        script = "echo 1000 2>&- >/proc/1/oom_score_adj; echo tried; read line"
        sandbox = Keyword.merge([read: [:system], processes: :own], @keys)
        {:ok, p} = NetRunner.Process.start("sh", ["-c", script], sandbox: sandbox)
        on_exit(fn -> NetRunner.Process.stop(p) end)
        assert NetRunner.Process.read(p) == {:ok, "tried\n"}

        [own, launchers] =
          for pid <- [Tree.shepherd(p), Tree.current_launcher()],
              do: File.read!("/proc/#{pid}/oom_score_adj")

        assert own == launchers
      end
    end
  end

  test "wrong paths are errors before the start, in sentences", %{ctx: ctx} do
    for path <- ["/no/such/path", Path.join(ctx.outside, "target/beneath")],
        key <- [:read, :write, :exec] do
      assert {:error, {:sandbox, sentence}} =
               NetRunner.run(~w(true),
                 sandbox: [{key, [:system, path] -- if(key == :write, do: [:system], else: [])}]
               )

      assert sentence =~ inspect(path)
    end

    # Also where there are more than a byte can count.
    paths = List.duplicate(ctx.work, 300) ++ ["/no/such/path"]

    for keys <- [[], [tmp: :private, without: [:filesystem]]] do
      assert {:error, {:sandbox, sentence}} =
               NetRunner.run(~w(true), sandbox: [read: [:system | paths]] ++ keys)

      assert sentence =~ ~s("/no/such/path")
    end

    for sandbox <- [
          [read: ["relative"]],
          [write: "/tmp"],
          [read: [:sytem]],
          [reed: []],
          [network: :lan],
          [without: [:files]],
          [read: [:system], read: ["/tmp"]],
          [network: [connect: [80], connect: [443]]]
        ] do
      assert_raise ArgumentError, ~r/sandbox/, fn -> NetRunner.run(~w(true), sandbox: sandbox) end
    end
  end

  # It would be the shepherd's, and not the command's.
  test "no path leads to what /proc says of the process that opens it", %{ctx: ctx} do
    for path <- ~w(/proc/self /proc/./self /proc/../proc/thread-self/fd //dev//fd) do
      assert_raise ArgumentError, ~r"would mean a process of NetRunner", fn ->
        NetRunner.run(~w(true), sandbox: [read: [:system, path]])
      end
    end

    link = Path.join(ctx.work, "link")
    File.ln_s!("/proc/self", link)

    for path <- [link, link <> "/status"], key <- [:read, :write] do
      sandbox = Keyword.update([read: [:system]], key, [path], &(&1 ++ [path]))
      assert {:error, {:sandbox, sentence}} = NetRunner.run(~w(true), sandbox: sandbox)
      assert sentence =~ inspect(path) and sentence =~ "leads into a process"
    end
  end

  test "what may be written covers nothing that is the command's own" do
    sandbox = [read: [:system], write: ~w(/dev /proc)]
    sandbox = sandbox ++ [processes: :own, tmp: :private, metadata: :locked]
    name = NetRunner.Temporary.name("sandbox")
    on_exit(fn -> File.rm("/dev/shm/" <> name) end)
    script = "echo > /dev/shm/#{name} && ls /dev/shm; ls /proc | grep -c '^[0-9]'"
    assert {output, 0} = NetRunner.shell(script, sandbox: sandbox)
    assert [^name, processes] = String.split(output)
    assert String.to_integer(processes) < 10
    refute File.exists?("/dev/shm/" <> name)
  end

  test "empty files take no more of a private /tmp than it may hold", %{ctx: ctx} do
    count = "i=0; while echo -n > /tmp/$i; do i=$((i+1)); done; echo $i"
    options = [sandbox: World.sandbox(ctx, [], tmp: [size: 1_000_000]), timeout: 60_000]
    {output, 0} = NetRunner.shell("{ #{count}; } 2> /dev/null", options)
    assert (output |> String.trim() |> String.to_integer()) in 1_000..6_000
  end

  test "a file may be written when the sandbox names only it", %{ctx: ctx} do
    target = Path.join(ctx.outside, "target")
    sandbox = [read: [:system], write: [target]]
    assert {"", 0} = NetRunner.run(["sh", "-c", "echo new > #{target}"], sandbox: sandbox)
    assert File.read!(target) == "new\n"
    assert {"", 2} = NetRunner.run(["sh", "-c", "echo new > #{target}2"], sandbox: sandbox)
    refute File.exists?(target <> "2")
  end

  test "layers are given up by name, and no others", %{secret: secret} do
    sandbox = [read: [:system], without: [:filesystem]]

    assert {:ok, %{status: 0, stats: stats}} =
             NetRunner.capture(["cat", secret], sandbox: sandbox)

    assert Enum.sort(stats.sandbox) == ~w(capabilities network signals system_calls)a
  end

  defp sandbox(%{ctx: ctx, keys: keys}), do: [read: [:system], write: [ctx.work]] ++ keys

  defp options(%{ctx: ctx} = context) do
    [sandbox: sandbox(context), cd: ctx.work]
    |> Keyword.put(:env, %{"PATH" => "/usr/local/bin:/usr/bin:/bin"})
  end
end
