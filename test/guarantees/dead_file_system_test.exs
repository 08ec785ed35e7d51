defmodule NetRunner.Guarantees.DeadFileSystemTest do
  # The VM's working directory lies on a file system that has ceased to answer: commands wait, the VM does not.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree

  @script Path.expand("hung_fs.py", __DIR__)
  @possible File.exists?("/dev/fuse") and System.cmd("id", ["-u"]) == {"0\n", 0}

  # Elsewhere the working directory is opened to be read, which the file system of this test does not do.
  @tag skip: if(@possible, do: Tree.needs_linux(), else: "needs root and /dev/fuse")
  test "starts wait on a dirty scheduler" do
    root = Path.join(System.tmp_dir!(), "nr-hung-#{System.unique_integer([:positive])}")
    mount_point = Path.join(root, "mounted")
    stop = Path.join(root, "stop")
    File.mkdir_p!(mount_point)

    on_exit(fn ->
      System.cmd("umount", ["-l", mount_point], stderr_to_stdout: true)
      File.rm(stop)
      File.rmdir(mount_point)
      File.rmdir(root)
    end)

    {:ok, server} = NetRunner.Process.start("python3", ["-E", @script, mount_point, stop])
    assert {:ok, "mounted\n"} = NetRunner.Process.read(server)

    # More commands than schedulers. Modules are not looked for in the working directory: that would wait too.
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    :code.del_path(~c".")
    :ok = File.cd(#{inspect(mount_point)})
    {"there\\n", 0} = NetRunner.run(~w(echo there))
    File.touch!(#{inspect(stop)})
    for _ <- 1..4, do: spawn(fn -> NetRunner.run(~w(echo hangs)) end)
    for _ <- 1..20, do: Process.sleep(20)
    IO.puts("the VM goes on")
    Process.sleep(:infinity)
    """

    [elixir | args] = Tree.elixir(code)
    args = ["--erl", "+S 2:2" | args]
    {:ok, vm} = NetRunner.Process.start(elixir, args, env: Tree.elixir_env(), kill_timeout: 0)
    reader = Task.async(fn -> NetRunner.Process.read(vm) end)
    assert Task.await(reader, 60_000) == {:ok, "the VM goes on\n"}

    # Without its server the file system says so, and what hung there ends.
    NetRunner.Process.stop(server)
    NetRunner.Process.stop(vm)
  end
end
