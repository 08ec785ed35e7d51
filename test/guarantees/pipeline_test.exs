defmodule NetRunner.Guarantees.PipelineTest do
  # The rows of the fault matrix for pipelines: three trees of processes, joined, of which one or all fail.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree

  @kill_timeout 100
  @within @kill_timeout + 60_000

  setup do
    {:ok, trees: for(_ <- 1..3, do: Tree.new())}
  end

  # Each passes on what it reads when it is told to end; all ignore SIGTERM, and leave a child behind.
  defp commands(trees) do
    for {tree, number} <- Enum.with_index(trees) do
      reading = if number == 0, do: "read go; echo first", else: "cat"
      session = if Tree.needs_linux(), do: "", else: "setsid"
      script = "trap '' TERM HUP; #{session} sleep 100 & : > $READY; #{reading}"

      NetRunner.Command.new("sh", ["-c", script],
        env: [{"READY", tree.ready_file} | Tree.env(tree)]
      )
    end
  end

  defp options, do: [kill_timeout: @kill_timeout, input: endless_input()]
  defp endless_input, do: Stream.repeatedly(fn -> Process.sleep(:infinity) end)

  defp await_ready(trees), do: Tree.await(fn -> Enum.all?(trees, &Tree.ready?/1) end)

  # A command may be ready before its server has heard that it runs.
  defp await_listed(trees),
    do: Tree.await(fn -> length(NetRunner.list()) == length(trees) end, 60_000, &NetRunner.list/0)

  defp started(trees) do
    test = self()

    pid = spawn(fn -> send(test, {:result, NetRunner.pipeline(commands(trees), options())}) end)
    on_exit(fn -> Process.exit(pid, :kill) end)
    await_ready(trees)
    await_listed(trees)
    pid
  end

  defp assert_clean(trees) do
    left = fn -> Enum.flat_map(trees, &Tree.processes/1) end
    Tree.await(fn -> left.() == [] end, @within, left)
    Tree.await(fn -> Tree.at_rest?() end, @within, fn -> Tree.helpers() end)
    [%{fds: fds} | _] = trees
    Tree.await(fn -> Tree.fds() <= fds end, @within, fn -> {fds, Tree.fd_targets()} end)
    Tree.await(fn -> NetRunner.list() == [] end, @within, &NetRunner.list/0)
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
  end

  # The server and the PID of the command that a tree began with.
  defp running(tree) do
    processes = Tree.processes(tree)
    %{pid: pid, os_pid: os_pid} = Enum.find(NetRunner.list(), &(&1.os_pid in processes))
    {pid, os_pid}
  end

  test "all exit by themselves", %{trees: trees} do
    options = [kill_timeout: @kill_timeout, input: ["go\n"]]
    assert NetRunner.pipeline(commands(trees), options) == {"first\n", [0, 0, 0]}
    assert_clean(trees)
  end

  test "timeout", %{trees: trees} do
    assert NetRunner.pipeline(commands(trees), [timeout: 500] ++ options()) == {:error, :timeout}
    assert Enum.flat_map(trees, &Tree.processes/1) == []
    assert_clean(trees)
  end

  test "max_output_size", %{trees: [tree | _] = trees} do
    flood =
      NetRunner.Command.new("sh", ["-c", "trap '' TERM PIPE; sleep 100 & exec yes"],
        env: Tree.env(tree)
      )

    options = [max_output_size: 1_000, kill_timeout: @kill_timeout]

    assert {:error, {:max_output_exceeded, _}} =
             NetRunner.pipeline([flood, ~w(cat), ~w(cat)], options)

    assert Tree.processes(tree) == []
    assert_clean(trees)
  end

  test "the consumer of its stream stops early", %{trees: [tree | _] = trees} do
    flood =
      NetRunner.Command.new("sh", ["-c", "trap '' TERM; sleep 100 & exec yes"],
        env: Tree.env(tree)
      )

    stream = NetRunner.pipeline_stream!([flood, ~w(cat), ~w(cat)], kill_timeout: @kill_timeout)
    assert [_] = Enum.take(stream, 1)
    assert Tree.processes(tree) == []
    assert_clean(trees)
  end

  test "the caller is killed", %{trees: trees} do
    trees |> started() |> Process.exit(:kill)
    assert_clean(trees)
  end

  test "one command is killed: its neighbours see the ends of their pipes", %{trees: trees} do
    started(trees)
    {_, first} = running(hd(trees))
    Tree.kill(first)
    assert_receive {:result, {"", [137, 0, 0]}}, @within
    assert_clean(trees)
  end

  @tag Tree.linux_only()
  test "one shepherd is killed", %{trees: trees} do
    started(trees)
    {server, _} = running(hd(trees))
    Tree.kill(Tree.shepherd(server))
    assert_receive {:result, {:error, :shepherd_died}}, @within
    assert_clean(trees)
  end

  test "one server is killed", %{trees: trees} do
    started(trees)
    {server, _} = running(List.last(trees))
    Process.exit(server, :kill)
    assert_receive {:result, {:error, :closed}}, @within
    assert_clean(trees)
  end

  # The first waits for its input, and would for ever.
  for {what, reason} <- [server: :closed, shepherd: :shepherd_died] do
    @what what
    @reason reason
    @needs if what == :shepherd, do: Tree.needs_linux()

    @tag Tree.skip(@needs)
    test "the #{what} of one in the middle is killed while the first idles", %{trees: trees} do
      started(trees)
      kill_middle(@what)
      assert_receive {:result, {:error, @reason}}
      assert_clean(trees)
    end

    @tag Tree.skip(@needs)
    test "the #{what} of one in the middle of a stream is killed while the first idles", %{
      trees: trees
    } do
      test = self()
      commands = commands(trees)

      spawn(fn ->
        stream = NetRunner.pipeline_stream!(commands, options())
        error = assert_raise NetRunner.Error, fn -> Enum.to_list(stream) end
        send(test, {:result, error})
      end)

      await_ready(trees)
      await_listed(trees)
      kill_middle(@what)
      assert_receive {:result, %{reason: @reason, command: ["sh" | args]}}
      assert args == Enum.at(commands, 1).args
      assert_clean(trees)
    end
  end

  defp kill_middle(what) do
    # A command may run before its server has listed it.
    Tree.await(fn -> length(NetRunner.list()) == 3 end)
    [_first, %{pid: server}, _last] = NetRunner.list()
    if what == :server, do: Process.exit(server, :kill), else: Tree.kill(Tree.shepherd(server))
  end

  test "the launcher is killed", %{trees: trees} do
    caller = started(trees)
    {server, _} = running(hd(trees))
    Tree.kill(Tree.launcher(server))
    assert NetRunner.run(~w(echo next)) == {"next\n", 0}
    Process.exit(caller, :kill)
    assert_clean(trees)
  end

  test "one that cannot start takes the others with it", %{trees: trees} do
    [first, second, _] = commands(trees)

    assert NetRunner.pipeline([first, second, ~w(no-such-program)], options()) ==
             {:error, {:command, 2, :enoent}}

    assert_clean(trees)
  end

  for {how, what} <- [killed: "is killed with SIGKILL", halted: "halts", stopped: "stops"] do
    @how how
    test "the VM #{what}", %{trees: trees} do
      commands = for %{cmd: cmd, args: args, opts: opts} <- commands(trees), do: {cmd, args, opts}

      vm =
        Tree.run_in_vm("""
        commands = for {cmd, args, opts} <- #{inspect(commands, limit: :infinity)}, do: NetRunner.Command.new(cmd, args, opts)
        spawn(fn ->
          input = Stream.repeatedly(fn -> Process.sleep(:infinity) end)
          NetRunner.pipeline(commands, kill_timeout: #{@kill_timeout}, input: input)
        end)
        """)

      await_ready(trees)
      Tree.end_vm(vm, @how)
      left = fn -> Enum.flat_map(trees, &Tree.processes/1) end
      Tree.await(fn -> left.() == [] end, @within, left)
      Tree.await(fn -> Tree.helpers(vm) == [] end, @within)
    end
  end
end
