defmodule NetRunner.HungFileSystem do
  @moduledoc false
  # A file system (FUSE) that can be made to answer no more. What asks it then hangs in the kernel, and is not to be killed
  # (state D), until its server ends.

  import ExUnit.Callbacks, only: [on_exit: 1]

  @script Path.expand("../guarantees/hung_fs.py", __DIR__)

  @doc "Why a test cannot have one here; `nil` when it can."
  def missing do
    unless File.exists?("/dev/fuse") and NetRunner.Guarantees.Tree.root?(),
      do: "needs root and /dev/fuse"
  end

  @doc "Mounts one, for the test that calls. It hangs from the moment that the file `stop` exists."
  def mount do
    root = NetRunner.Temporary.path("hung")

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
    {:ok, "mounted\n"} = NetRunner.Process.read(server)
    %{server: server, mount_point: mount_point, stop: stop}
  end
end
