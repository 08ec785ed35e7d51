defmodule NetRunner.Guarantees.SandboxLeavesNothingTest do
  # Many sandboxed commands leave no descriptor, no mount, no process and no namespace behind: of the VM, of its helpers, of the machine.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Sandbox.World

  @moduletag Tree.linux_only()

  @kinds ~w(pid pid_for_children mnt user net ipc)

  setup do
    {:ok, tree: Tree.new(), world: World.new(List.first(World.actors()))}
  end

  for {name, keys} <- [
        first_step: [],
        second_step: [processes: :own, tmp: :private, metadata: :locked, network: :loopback]
      ] do
    test "500 commands, #{name}", %{tree: tree, world: world} do
      ctx = World.fixture(world, [])
      allowed = [read: [:system], write: [ctx.work]]

      # It starts something that would outlive it, and makes a file where it has a place of its own for it.
      file = "/tmp/#{NetRunner.Temporary.name("left")}"
      command = ["sh", "-c", "(setsid sleep 1000 &); echo x > #{file} 2>/dev/null; echo hi"]
      options = [sandbox: allowed ++ unquote(keys), cd: ctx.work, env: Tree.env(tree)]

      # What the first few leave stays the same with the many.
      run(command, options, 8)
      before = left(tree)
      run(command, options, 500)
      Tree.await(fn -> left(tree) == before end, 60_000, fn -> {before, left(tree)} end)

      assert before.processes == []
      assert before.namespaces == Enum.uniq(namespaces(System.pid()))
      refute File.exists?(file)
      World.clear(ctx)
    end
  end

  for {name, command} <- [
        orphans: ["sh", "-c", "for i in $(seq 20); do setsid sleep 1000 & done"],
        # clone(2) with CLONE_PARENT and SIGCHLD: a child of the command's parent, with one of its own.
        sibling: [
          "python3",
          "-c",
          """
          import ctypes, os, platform, time
          clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
          for _ in range(10):
              if ctypes.CDLL(None).syscall(clone, 0x8000 | 17, 0, 0, 0, 0) == 0:
                  os.fork()
                  time.sleep(1000)
          """
        ]
      ] do
    test "when the exit is told, nothing is left in the namespace: #{name}", %{tree: tree} do
      options = [sandbox: [read: ["/"], processes: :own, tmp: :private], env: Tree.env(tree)]

      for _ <- 1..10 do
        assert NetRunner.run(unquote(command), options) == {"", 0}
        assert Tree.processes(tree) == []
      end
    end
  end

  test "what a command has mounted is nobody else's, also while it runs", %{world: world} do
    ctx = World.fixture(world, [])
    mounts = World.mounts()

    sandbox = [
      read: [:system],
      write: [ctx.work],
      processes: :own,
      tmp: :private,
      metadata: :locked
    ]

    script = "cat /proc/self/mountinfo; echo end; read line"
    {:ok, p} = NetRunner.Process.start("sh", ["-c", script], sandbox: sandbox, cd: ctx.work)
    {:ok, {inside, _}} = NetRunner.Process.read_until(p, "end\n", timeout: 60_000)
    assert inside =~ ~r{ /tmp rw[^\n]* - tmpfs } and inside =~ " #{ctx.work} "
    assert World.mounts() == mounts
    :ok = NetRunner.Process.stop(p)
    World.clear(ctx)
  end

  test "commands that are killed, and starts that fail, leave nothing", %{
    tree: tree,
    world: world
  } do
    ctx = World.fixture(world, [])
    options = [cd: ctx.work, env: Tree.env(tree), kill_timeout: 100]
    keys = [processes: :own, tmp: :private, metadata: :locked, network: :loopback]
    good = [read: [:system], write: [ctx.work]] ++ keys

    try_all = fn ->
      assert {:error, {:sandbox, _}} =
               NetRunner.run(~w(true), [sandbox: [read: ["/no/such"]] ++ keys] ++ options)

      assert {:error, :enoent} = NetRunner.run(~w(/no/such/program), [sandbox: good] ++ options)
      assert {:error, reason} = NetRunner.run([ctx.program], [sandbox: good] ++ options)
      assert reason in [:eacces, :enoent]

      assert {:error, {:cd, _}} =
               NetRunner.run(~w(true), Keyword.put([sandbox: good] ++ options, :cd, "/no/such"))

      assert {:error, :timeout} =
               NetRunner.run(~w(sleep 1000), [sandbox: good, timeout: 20] ++ options)

      {:ok, p} =
        NetRunner.Process.start(
          "sh",
          ["-c", "trap '' TERM; sleep 1000 & echo ready; wait"],
          [sandbox: good] ++ options
        )

      assert NetRunner.Process.read(p) == {:ok, "ready\n"}
      :ok = Tree.kill(Tree.shepherd(p))
      assert {:error, :shepherd_died} = NetRunner.Process.await_exit(p, 60_000)
      :ok = NetRunner.Process.stop(p)
    end

    try_all.()
    # What a killed shepherd leaves is ended by the launcher, which nobody waits for.
    Tree.await(fn -> Tree.processes(tree) == [] end)
    before = left(tree)
    for _ <- 1..10, do: try_all.()
    Tree.await(fn -> left(tree) == before end, 60_000, fn -> {before, left(tree)} end)
    assert before.processes == []
    World.clear(ctx)
  end

  defp run(command, options, count) do
    1..count
    |> Task.async_stream(fn _ -> NetRunner.run(command, options) end,
      max_concurrency: 4,
      timeout: 120_000
    )
    |> Enum.each(fn {:ok, result} -> assert result == {"hi\n", 0} end)
  end

  # At rest: only the guard, the launcher and the two spare shepherds are there.
  defp left(tree) do
    Tree.await(fn -> Tree.at_rest?() and rehearsed?() end, 60_000, fn ->
      Enum.map(Tree.helpers(), &{&1, descriptors(&1)})
    end)

    helpers = Tree.helpers()

    %{
      processes: Tree.processes(tree),
      fds: Tree.fds(),
      fds_of_helpers: helpers |> Enum.map(&descriptors/1) |> Enum.sort(),
      mounts: World.mounts(),
      namespaces: [System.pid() | helpers] |> Enum.flat_map(&namespaces/1) |> Enum.uniq()
    }
  end

  # The files of a helper belong to root, and its namespaces cannot be seen by others.
  defp descriptors(pid), do: with({:ok, names} <- File.ls("/proc/#{pid}/fd"), do: length(names))

  defp namespaces(pid) do
    for kind <- @kinds, {:ok, name} <- [File.read_link("/proc/#{pid}/ns/#{kind}")], do: name
  end

  # A new spare holds as many descriptors as the launcher, or more, until it has rehearsed a start.
  defp rehearsed? do
    counts = for pid <- Tree.helpers(), count = descriptors(pid), is_integer(count), do: count

    case Enum.sort(counts) do
      [_guard, spare, spare, launcher] -> spare < launcher
      # Where these files cannot be seen, nothing can be told, nor compared.
      unseen -> length(unseen) < 4
    end
  end
end
