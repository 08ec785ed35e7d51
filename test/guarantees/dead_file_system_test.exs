defmodule NetRunner.Guarantees.DeadFileSystemTest do
  # On a file system that has ceased to answer, such as that of the VM's working directory, commands wait, and the VM does not.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.HungFileSystem

  # Elsewhere the working directory is opened to be read, which the file system of these tests does not do.
  @moduletag Tree.skip(HungFileSystem.missing() || Tree.needs_linux())

  setup do: HungFileSystem.mount()

  test "starts wait on a dirty scheduler", %{server: server} = context do
    # More commands than schedulers. Modules are not looked for in the working directory: that would wait too.
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    :code.del_path(~c".")
    :ok = File.cd(#{inspect(context.mount_point)})
    {"there\\n", 0} = NetRunner.run(~w(echo there))
    File.touch!(#{inspect(context.stop)})
    for _ <- 1..4, do: spawn(fn -> NetRunner.run(~w(echo hangs)) end)
    for _ <- 1..20, do: Process.sleep(20)
    IO.puts("the VM goes on")
    Process.sleep(:infinity)
    """

    vm = start_vm(code)
    assert read(vm) == {:ok, "the VM goes on\n"}

    # Without its server the file system says so, and what hung there ends.
    NetRunner.Process.stop(server)
    NetRunner.Process.stop(vm)
  end

  test "what is inherited from there is copied and closed on a dirty scheduler",
       %{server: server} = context do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    {"", 0} = NetRunner.run(~w(true), stdin: :inherit)
    File.touch!(#{inspect(context.stop)})
    for _ <- 1..4, do: spawn(fn -> NetRunner.run(~w(true), stdin: :inherit) end)
    for _ <- 1..20, do: Process.sleep(20)
    IO.puts("the VM goes on")
    Process.sleep(:infinity)
    """

    vm = start_vm(code, stdin: {:file, Path.join(context.mount_point, "file")})
    assert read(vm) == {:ok, "the VM goes on\n"}
    NetRunner.Process.stop(server)
    NetRunner.Process.stop(vm)
  end

  test "a helper that was started there has spare shepherds, and starts elsewhere go on",
       %{server: server} = context do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    :code.del_path(~c".")
    {"there\\n", 0} = NetRunner.run(~w(echo there))
    :logger.set_primary_config(:level, :none)
    :ok = File.cd(#{inspect(context.mount_point)})
    :ok = Application.stop(:net_runner)
    File.touch!(#{inspect(context.stop)})
    {:ok, _} = Application.ensure_all_started(:net_runner)
    :ok = File.cd("/")

    for _ <- 1..20 do
      # From the launcher and its spares, not from idle shepherds.
      NetRunner.System.Native.let_idle_go()
      {"elsewhere\\n", 0} = NetRunner.run(~w(echo elsewhere), timeout: 60_000)
      Process.sleep(10)
    end

    IO.puts("done")
    Process.sleep(:infinity)
    """

    vm = start_vm(code)
    assert read(vm) == {:ok, "done\n"}
    NetRunner.Process.stop(server)
    NetRunner.Process.stop(vm)
  end

  test "a capture waits no longer than :give_up_after for what the kernel does not let go",
       %{server: server, mount_point: mount_point, stop: stop} do
    File.touch!(stop)
    command = ["sh", "-c", "echo before; cat #{mount_point}/x"]

    result =
      NetRunner.capture(command,
        timeout: 3_000,
        kill_timeout: 50,
        give_up_after: 200,
        input: Stream.cycle(["x"])
      )

    assert {:ok, %{outcome: :not_ended, stdout: "before\n", status: nil, os_pid: os_pid}} = result
    assert Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid))

    # Without its server the file system says so, and what hung there ends.
    NetRunner.Process.stop(server)
    Tree.await(fn -> not Enum.any?(NetRunner.list(), &(&1.os_pid == os_pid)) end)
  end

  test "the application waits at its stop for no longer than :kill_timeout and a few seconds, and says for what",
       %{server: server, mount_point: mount_point, stop: stop} do
    File.touch!(stop)

    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    options = [owner: nil, kill_timeout: 50]
    {:ok, _} = NetRunner.Process.start("cat", [#{inspect(Path.join(mount_point, "x"))}], options)
    IO.gets("")
    :ok = Application.stop(:net_runner)
    IO.puts("stopped")
    Process.sleep(:infinity)
    """

    vm = start_vm(code, stderr: :redirect)
    assert read(server) == {:ok, "does not answer\n"}
    :ok = NetRunner.Process.write(vm, "stop\n")

    said = fn -> NetRunner.Process.read_until(vm, "stopped\n") end
    assert {:ok, {said, _}} = said |> Task.async() |> Task.await(90_000)
    assert said =~ ~r/not ended within their :kill_timeout: `cat .*` \(PID \d+\)/

    NetRunner.Process.stop(server)
    NetRunner.Process.stop(vm)
  end

  defp start_vm(code, options \\ []) do
    [elixir | args] = Tree.elixir(code)
    args = ["--erl", "+S 2:2" | args]
    options = [env: Tree.elixir_env(), kill_timeout: 0] ++ options
    {:ok, vm} = NetRunner.Process.start(elixir, args, options)
    vm
  end

  defp read(vm), do: fn -> NetRunner.Process.read(vm) end |> Task.async() |> Task.await(90_000)
end
