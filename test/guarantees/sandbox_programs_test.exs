# Programs of every day in a sandbox, in a folder of their own and without a network: they do what they do without it.
for actor <- NetRunner.Sandbox.World.actors() do
  defmodule Module.concat(NetRunner.Guarantees.SandboxProgramsTest, Macro.camelize("#{actor}")) do
    use ExUnit.Case, async: true

    alias NetRunner.Guarantees.Tree
    alias NetRunner.Sandbox.World

    @moduletag Tree.linux_only()
    @actor actor

    # What is below the home of somebody, such as the shims of a version manager, cannot be read in the sandbox.
    @path "/usr/local/bin:/usr/bin:/bin"

    missing = fn program ->
      directories = String.split(@path, ":")

      if Enum.any?(directories, &File.exists?(Path.join(&1, program))),
        do: nil,
        else: "#{program} is not in any of #{@path}"
    end

    setup_all do
      {:ok, world: World.new(@actor)}
    end

    setup %{world: world} do
      ctx = World.fixture(world, [])
      on_exit(fn -> World.clear(ctx) end)
      {:ok, ctx: ctx}
    end

    for {name, sandbox} <- [
          step_1: [],
          step_2: [processes: :own, tmp: :private, metadata: :locked]
        ] do
      describe "#{name}:" do
        @describetag sandbox: sandbox

        @tag Tree.skip(missing.("python3"))
        test "python3 with threads, pools, asyncio and programs", context do
          assert run(context, ["python3", "-c", in_python()]) ==
                   {"threads 45\nasyncio 3\nprogram hi\n", 0}
        end

        @tag Tree.skip(missing.("git"))
        test "git: init, commit, clone, gc", context do
          script = """
          set -e
          git init -q one
          cd one
          git config user.email a@example.org
          git config user.name A
          echo hello > file
          git add file
          git commit -q -m first
          git gc -q
          cd ..
          git clone -q one two
          git -C two log --format=%s
          """

          assert run(context, ["sh", "-c", script]) == {"first\n", 0}
        end

        @tag Tree.skip(missing.("gcc"))
        test "gcc, and what it has compiled", context do
          script = """
          set -e
          printf '#include <stdio.h>\\nint main(void) { puts("compiled"); }\\n' > a.c
          gcc -O2 -o a a.c
          ./a
          """

          assert run(context, ["sh", "-c", script], exec: [context.ctx.work]) == {"compiled\n", 0}
        end

        test "tar and gzip", context do
          script =
            "mkdir in out && echo text > in/file && tar czf a.tgz in && tar xzf a.tgz -C out && cat out/in/file"

          assert run(context, ["sh", "-c", script]) == {"text\n", 0}
        end

        @tag Tree.skip(missing.("node"))
        test "node with workers and programs", context do
          assert run(context, ["node", "-e", in_node()]) == {"program hi\nworker 42\nforked\n", 0}
        end
      end
    end

    @tag Tree.skip(missing.("python3"))
    test "a pool of processes, which needs a /dev/shm of its own", %{ctx: ctx} do
      # Other ways than "fork" need a socket, which newer Pythons prefer.
      code =
        "import multiprocessing as m\nwith m.get_context('fork').Pool(2) as p: print(p.map(abs, [-1, -2]))"

      context = %{ctx: ctx, sandbox: [tmp: :private]}
      assert run(context, ["python3", "-c", code]) == {"[1, 2]\n", 0}
      # Without one, Python says what it is refused.
      assert {"", 1} = run(%{context | sandbox: []}, ["python3", "-c", code])
    end

    # The table of docs/sandbox.md: what a program misses, and the keys that give it.
    for {name, script, keys} <- [
          {"a /tmp", "mktemp -p /tmp", [tmp: :private]},
          {"a /dev/shm", "echo 1 > /dev/shm/1", [tmp: :private]},
          {"a /proc", "cat /proc/uptime", [processes: :own]},
          {"its terminal as /dev/tty", "echo 1 > /dev/tty", [write: ["/dev/tty"], pty: true]},
          {"terminals to give to others",
           "python3 -c 'import pty, os, sys; sys.exit(pty.spawn([\"stty\", \"-a\"]) != 0)'",
           [write: ["/dev/ptmx", "/dev/pts"]]},
          {"terminals to give to others, with nothing else that can be written",
           "python3 -c 'import pty, os, sys; sys.exit(pty.spawn([\"stty\", \"-a\"]) != 0)'",
           [write: ["/dev/ptmx", "/dev/pts"], metadata: :locked]},
          {"to write what /proc says of it", "echo 0 > /proc/self/coredump_filter",
           [write: ["/proc"], processes: :own]},
          {"a server of its own", "python3 -c 'import multiprocessing as m; m.Manager()'",
           [network: :unix, tmp: :private]},
          {"a file as /dev/stdin", "cat /dev/stdin", [read: [:input], stdin: :input]}
        ] do
      @tag script: script, keys: keys
      @tag Tree.skip(script =~ "python3" && missing.("python3"))
      test "a program that needs #{name}", %{ctx: ctx, script: script, keys: keys} do
        input = Path.join(Path.dirname(ctx.work), "input")
        File.write!(input, "1")
        File.chmod!(input, 0o644)
        on_exit(fn -> File.rm(input) end)

        stdin = if keys[:stdin], do: [stdin: {:file, input}], else: []
        options = [clear_env: true, env: %{"PATH" => @path}, timeout: 120_000, stderr: :disabled]
        options = Keyword.take(keys, [:pty]) ++ stdin ++ options ++ ctx.actor.user
        options = if keys[:pty], do: Keyword.delete(options, :stderr), else: options

        status = fn sandbox ->
          options = [sandbox: sandbox] ++ options
          {_, status} = ctx.actor.call.(NetRunner, :run, [["sh", "-c", script], options])
          status
        end

        read = for path <- Keyword.get(keys, :read, []), path == :input, do: input
        given = Keyword.drop(keys, [:pty, :stdin, :read]) ++ [read: [:system | read]]
        assert status.(read: [:system]) != 0
        assert status.(given) == 0
      end
    end

    @tag Tree.skip(missing.("node"))
    test "node and WebAssembly with 16 GiB of addresses, as in examples/agent_shell.exs", %{
      ctx: ctx
    } do
      options = [sandbox: [read: [:system]], rlimits: [as: 16 * 1024 * 1024 * 1024]]
      options = options ++ [env: %{"PATH" => @path}, timeout: 120_000] ++ ctx.actor.user

      # V8 reserves 10 GiB for it, also when fetch() is used.
      code = "new WebAssembly.Memory({ initial: 1 }); console.log(1)"

      assert {"1\n", 0} = ctx.actor.call.(NetRunner, :run, [["node", "-e", code], options])
    end

    defp run(%{ctx: ctx, sandbox: sandbox}, command, more \\ []) do
      env = %{"PATH" => @path, "HOME" => ctx.work, "TMPDIR" => ctx.work, "LANG" => "C.UTF-8"}

      paths = if more == [], do: [], else: [exec: [:system | more[:exec]]]
      sandbox = [read: [:system], write: [ctx.work]] ++ paths ++ sandbox
      options = [sandbox: sandbox, cd: ctx.work, env: env, clear_env: true, timeout: 120_000]
      options = options ++ ctx.actor.user

      with {:ok, result} <- ctx.actor.call.(NetRunner, :capture, [command, options]) do
        if result.stderr != "" and result.status != 1, do: IO.puts(result.stderr)
        {result.stdout, result.status}
      end
    end

    defp in_python do
      """
      import asyncio, subprocess, threading
      from concurrent.futures import ThreadPoolExecutor
      with ThreadPoolExecutor(4) as pool:
          print("threads", sum(pool.map(int, range(10))))
      async def add(a, b):
          await asyncio.sleep(0)
          return a + b
      print("asyncio", asyncio.run(add(1, 2)))
      print("program", subprocess.run(["echo", "hi"], capture_output=True, text=True).stdout.strip())
      """
    end

    defp in_node do
      """
      const { execFileSync, fork } = require("child_process");
      const { Worker } = require("worker_threads");
      console.log("program", execFileSync("echo", ["hi"]).toString().trim());
      const worker = new Worker("require('worker_threads').parentPort.postMessage(42)", { eval: true });
      worker.on("message", n => {
        console.log("worker", n);
        require("fs").writeFileSync("child.js", "process.send('forked')");
        fork("child.js").on("message", text => console.log(text));
      });
      """
    end
  end
end
