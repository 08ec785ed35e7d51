defmodule NetRunner.Guarantees.ExhaustionTest do
  # Out of descriptors, processes or pipe memory: a clear error, nothing leaked, and the next command
  # works once there is room.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Helper
  alias NetRunner.System.Native

  @pids_cgroup "/sys/fs/cgroup/pids"
  @can_limit_pids File.exists?(@pids_cgroup <> "/cgroup.procs") and
                    System.cmd("id", ["-u"]) == {"0\n", 0}

  setup do
    tree = Tree.new()
    {:ok, tree: tree}
  end

  test "no descriptor left in the VM", %{tree: tree} do
    # Enough for none of the descriptors of a command, for some of them, and for all.
    results =
      for limit <- 10..(Tree.highest_fd() + 12) do
        with_limit(System.pid(), limit, fn -> NetRunner.run(~w(echo hello)) end)
      end

    assert {:error, :emfile} in results
    assert Enum.uniq(results) -- [{:error, :emfile}, {"hello\n", 0}] == []
    assert_clean(tree)
  end

  # A launcher whose limits are changed while it runs is replaced, so these are started with them.
  test "no descriptor left in the helpers" do
    fds = Map.new(3..12, &{&1, {:input, "x"}})

    results =
      for limit <- 4..12 do
        Helper.with_real_after("ulimit -Sn #{limit}", fn ->
          launcher = Tree.current_launcher()
          # The spare shepherds take requests, and where they are too few so does the launcher.
          with_further = at_once(fn -> NetRunner.run(~w(cat /dev/fd/3), fds: fds) end)
          alone = at_once(fn -> NetRunner.run(~w(echo hello)) end)
          # The launcher needs one more than a spare, which has time to be there.
          in_turn =
            for _ <- 1..4 do
              Tree.await(&Tree.at_rest?/0)
              NetRunner.run(~w(echo hello))
            end

          assert Enum.uniq(with_further) -- [{:error, :emfile}, {:error, :launcher_died}] == []
          assert Tree.current_launcher() == launcher
          # Where there are enough for a command, those that need more say what is missing.
          enough? = Enum.all?(alone, &(&1 == {"hello\n", 0}))
          assert not enough? or {:error, :emfile} in with_further
          with_further ++ alone ++ in_turn
        end)
      end

    # Too few for the launcher itself, for the further ones, and enough. (With one limit, a spare is there or is not.)
    assert :not_started in results
    results = results |> Enum.reject(&(&1 == :not_started)) |> Enum.concat()
    assert {:error, :emfile} in results
    assert {"hello\n", 0} in results

    assert Enum.uniq(results) -- [{:error, :emfile}, {:error, :launcher_died}, {"hello\n", 0}] ==
             []
  end

  @tag Tree.linux_only()
  test "no descriptor left in a spare shepherd", %{tree: tree} do
    launcher = Tree.current_launcher()

    # Each of these serves one command.
    results =
      for limit <- 4..12, _ <- 1..2 do
        Tree.await(&Tree.at_rest?/0)
        for spare <- children(launcher), do: lower_limit(spare, limit)
        NetRunner.run(~w(echo hello))
      end

    assert {:error, :emfile} in results
    # One that could not receive the request leaves it to the next.
    assert hd(results) == {"hello\n", 0}
    assert Enum.uniq(results) -- [{:error, :emfile}, {"hello\n", 0}] == []
    assert_clean(tree)
    assert Tree.current_launcher() == launcher
  end

  defp at_once(fun) do
    Native.let_idle_go()
    1..12 |> Enum.map(fn _ -> Task.async(fun) end) |> Task.await_many(60_000)
  end

  # It may have ended.
  defp lower_limit(pid, limit) do
    System.cmd("prlimit", ["--nofile=#{limit}:", "--pid", pid], stderr_to_stdout: true)
  end

  test "no descriptor left in the VM for further ones of the command", %{tree: tree} do
    fds = Map.new(3..12, &{&1, {:input, "x"}})

    results =
      for limit <- 10..(Tree.highest_fd() + 40)//3 do
        with_limit(System.pid(), limit, fn -> NetRunner.run(~w(cat /dev/fd/3), fds: fds) end)
      end

    assert {:error, :emfile} in results
    assert Enum.uniq(results) -- [{:error, :emfile}, {"x", 0}] == []
    assert_clean(tree)
  end

  test "a number above the limit of the helpers", %{tree: tree} do
    Helper.with_real_after("ulimit -Sn 100", fn ->
      for _ <- 1..6 do
        Native.let_idle_go()
        options = [fds: %{200 => {:input, "x"}}]
        assert NetRunner.run(~w(cat /dev/fd/200), options) == {:error, :emfile}
        options = [fds: %{90 => {:input, "x"}}]
        assert NetRunner.run(~w(cat /dev/fd/90), options) == {"x", 0}
      end
    end)

    assert_clean(tree)
  end

  unless @can_limit_pids, do: @tag(skip: "needs root and a pids cgroup (v1) at #{@pids_cgroup}")

  test "no process left for a shepherd or a command", %{tree: tree} do
    cgroup = Path.join(@pids_cgroup, NetRunner.Temporary.name("pids"))
    File.mkdir!(cgroup)
    # The helpers end by themselves.
    on_exit(fn -> Tree.await(fn -> File.rmdir(cgroup) == :ok end) end)

    Helper.with_real_after("echo $$ > #{cgroup}/cgroup.procs", fn ->
      launcher = Tree.current_launcher()
      Tree.await(fn -> length(members(cgroup)) == Tree.resting_helpers() end)

      # Guard and launcher stay, and nothing is forked beside them, also when a spare shepherd has gone. With the spares: no
      # command.
      File.write!(Path.join(cgroup, "pids.max"), "2")
      for _ <- 1..6, do: assert(NetRunner.run(~w(echo hello)) == {:error, :eagain})

      # Without: no shepherd.
      :ok = kill_children(launcher)
      Tree.await(fn -> children(launcher) == [] end)
      for _ <- 1..6, do: assert(NetRunner.run(~w(echo hello)) == {:error, :eagain})

      File.write!(Path.join(cgroup, "pids.max"), "max")
      assert NetRunner.run(~w(echo next)) == {"next\n", 0}
      assert Tree.current_launcher() == launcher
    end)

    assert_clean(tree)
  end

  defp members(cgroup), do: cgroup |> Path.join("cgroup.procs") |> File.read!() |> String.split()

  # Where no shepherd waits ahead of need, there is none.
  defp kill_children(launcher) do
    case children(launcher) do
      [] -> :ok
      children -> Tree.kill(children)
    end
  end

  defp children(pid) do
    "/proc/#{pid}/task/#{pid}/children" |> File.read!() |> String.split()
  end

  test "a command that is longer than a file that the VM may write" do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    Enum.each(Application.spec(:net_runner, :modules), &Code.ensure_loaded/1)
    attempt = fn args -> inspect({NetRunner.run(["true" | args]), NetRunner.run(~w(echo next))}) end
    # What is needed is loaded now: the VM has a file for the code that it compiles, and could not start with this limit.
    IO.puts(attempt.([]))
    {_, 0} = System.cmd("prlimit", ["--fsize=200000", "--pid", System.pid()])
    IO.puts(attempt.(List.duplicate(String.duplicate("x", 100_000), 3)))
    """

    assert NetRunner.run(Tree.elixir(code), env: Tree.elixir_env(), stderr: :redirect) ==
             {~s({{"", 0}, {"next\\n", 0}}\n{{:error, :efbig}, {"next\\n", 0}}\n), 0}
  end

  test "a size that a pipe cannot have is not insisted on", %{tree: tree} do
    options = [pipe_size: 0x7FFF_FFFF]
    assert {output, 0} = NetRunner.run(~w(head -c 3000000 /dev/zero), options)
    assert byte_size(output) == 3_000_000
    assert_clean(tree)
  end

  test "an unprivileged user with all pipe memory taken (pipe-user-pages-soft)" do
    # 100 busy pipes of 1 MiB are more than the 64 MiB that a user may have.
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    open = for _ <- 1..100 do
      {:ok, p} = NetRunner.Process.start("sh", ["-c", "head -c 2000000 /dev/zero; cat"])
      {:ok, _} = NetRunner.Process.read(p, 65_536)
      p
    end
    sizes = for p <- open do
      NetRunner.Process.close_stdin(p)
      read = Stream.repeatedly(fn -> NetRunner.Process.read(p, 1_000_000) end)
      |> Enum.take_while(& &1 != :eof) |> Enum.map(fn {:ok, b} -> byte_size(b) end) |> Enum.sum()
      {:ok, 0} = NetRunner.Process.await_exit(p)
      NetRunner.Process.stop(p)
      read
    end
    true = Enum.all?(sizes, & &1 >= 2_000_000 - 65_536)
    {"next\\n", 0} = NetRunner.run(["echo", "next"])
    IO.puts("all right")
    """

    {user, 0} = System.cmd("id", ["-u"])

    as_nobody =
      if user == "0\n",
        do: ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"],
        else: []

    [executable | args] = as_nobody ++ Tree.elixir(code)

    {output, status} =
      System.cmd(executable, args, stderr_to_stdout: true, env: Tree.elixir_env())

    assert {status, String.contains?(output, "all right")} == {0, true}, output
  end

  defp with_limit(pid, limit, fun) do
    {before, 0} =
      System.cmd("prlimit", ~w(--nofile --output=SOFT --noheadings --raw --pid #{pid}))

    lower = "prlimit --nofile=#{limit}: --pid #{pid}"
    restore = "prlimit --nofile=#{String.trim(before)}: --pid #{pid}"

    # Without a descriptor left nothing can be started that raises the limit, so it is there before.
    script = "#{lower}; echo lowered; read line; #{restore}; echo restored"
    shell = Port.open({:spawn_executable, "/bin/sh"}, [:binary, args: ["-c", script]])
    assert_receive {^shell, {:data, "lowered\n"}}, 60_000

    try do
      fun.()
    after
      Port.command(shell, "\n")
      assert_receive {^shell, {:data, "restored\n"}}, 60_000
    end
  end

  defp assert_clean(tree) do
    Tree.await(fn -> Tree.at_rest?() end, 60_000, fn -> Tree.helpers() end)
    Tree.await(fn -> Tree.fds() <= tree.fds end, 60_000, fn -> {tree.fds, Tree.fd_targets()} end)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
  end
end
