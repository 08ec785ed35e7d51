defmodule NetRunner.System.NativeTest do
  # What the NIF promises the VM: no call holds a scheduler for a millisecond. What a call costs is counted before, in bytes
  # and in items, and more goes to a dirty scheduler.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.System.{Launcher, Native}

  describe "a scheduler is not held" do
    test "by a command with tens of thousands of arguments" do
      arguments = List.duplicate("a", 70_000)
      assert dirty?(:nif_submit_bulk, 5, fn -> NetRunner.run(["true" | arguments]) end)

      # Elsewhere than on Linux, no call tells whether the file system of the working directory has to be asked.
      few = ["true" | Enum.take(arguments, 100)]
      other_system = NetRunner.Guarantees.Tree.needs_linux() != nil
      assert dirty?(:nif_submit_bulk, 5, fn -> NetRunner.run(few) end) == other_system
    end

    test "by a command in thousands of groups" do
      gids = Enum.to_list(1..8_000)
      assert dirty?(:nif_submit_bulk, 5, fn -> NetRunner.run(["true"], groups: gids) end)
    end

    test "by thousands of variables, or by long ones" do
      many = for n <- 1..2_000, do: {~c"N#{n}", ~c"v"}
      long = for n <- 1..10, do: {~c"N#{n}", List.duplicate(?x, 50_000)}
      few = for n <- 1..100, do: {~c"N#{n}", ~c"value of an ordinary length"}

      assert dirty?(:nif_environment_bulk, 2, fn -> Native.environment(many, []) end)
      assert dirty?(:nif_environment_bulk, 2, fn -> Native.environment(long, []) end)
      refute dirty?(:nif_environment_bulk, 2, fn -> Native.environment(few, ["PATH"]) end)

      without = for n <- 1..2_000, do: "N#{n}"
      assert dirty?(:nif_environment_bulk, 2, fn -> Native.environment(few, without) end)
    end

    test "by a write of very many small binaries, all of which arrive" do
      {:ok, read, write} = Native.pipe()
      assert dirty?(:nif_write_bulk, 2, fn -> Native.write(write, List.duplicate("a", 3_000)) end)
      refute dirty?(:nif_write_bulk, 2, fn -> Native.write(write, List.duplicate("a", 100)) end)
      assert Native.read(read, 10_000) == {:ok, String.duplicate("a", 3_100)}
      Native.close(read)
      Native.close(write)
    end

    # Elsewhere, a pipe keeps the size that it has.
    @tag Tree.linux_only()
    test "by a large read, by whatever process" do
      {:ok, p} = Command.start("head", ["-c", "3000000", "/dev/zero"], pipe_size: 1_048_576)
      on_exit(fn -> Command.stop(p) end)
      {:ok, %{stdout: fd}} = Command.invite(p)
      :ok = Native.let_guests_in(fd, 0)
      # The pipe grows when so much has gone through it, and is full then.
      for _ <- 1..8, do: read_some(fd, 32_768)
      Tree.await(fn -> elem(Native.unread(fd), 1) > 900_000 end)
      assert dirty?(:nif_try_read_bulk, 2, fn -> read_some(fd, 900_000) end)
    end
  end

  test "the VM's own monitor sees no long call when a command has tens of thousands of arguments" do
    arguments = List.duplicate("a", 70_000)

    # A busy machine may stop a scheduler at any time; a call that takes too long does so each time.
    assert Enum.any?(1..20, fn _ ->
             :erlang.system_monitor(self(), long_schedule: 1)
             assert NetRunner.run(["true" | arguments]) == {"", 0}
             :erlang.system_monitor(:undefined)
             not long_call?(false)
           end)
  end

  defp long_call?(seen?) do
    receive do
      {:monitor, _pid, :long_schedule, info} ->
        long_call?(seen? or Enum.any?([info[:in], info[:out]], &match?({Native, _, _}, &1)))
    after
      0 -> seen?
    end
  end

  # One that finds nothing is turned away, and so are all after it.
  defp read_some(fd, size) do
    Tree.await(fn -> elem(Native.unread(fd), 1) >= size end)
    assert {:ok, bytes} = Native.try_read(fd, size)
    assert byte_size(bytes) == size
  end

  # Its end with requests unread resets the connection (unix(7)), and the kernel tells that before it gives what was sent.
  test "what a shepherd said is heard, though it ended with something unread" do
    Native.let_idle_go()
    # A shepherd that was changed serves no other command.
    script = "renice -n $(($(nice) + 1)) -p $PPID >&2; echo ready; read line; exit 7"
    fields = [file: "/bin/sh", args: ["sh", "-c", script], env: ["PATH=/usr/bin:/bin"]]

    {:ok, control, stdin, stdout, nil, []} =
      Launcher.submit(fields, {{:pipe, :pipe, :null}, []}, 65_536)

    {:started, os_pid} = await(fn -> Native.receive_event(control) end)
    assert {:ok, "ready\n"} = await(fn -> Native.read(stdout, 100) end)
    shepherd = Tree.parent(os_pid)
    {_, 0} = System.cmd("kill", ["-STOP", "#{shepherd}"])
    Tree.await_stopped(shepherd)

    assert Native.write(stdin, ["go\n"]) == :ok
    Tree.await(fn -> Tree.stat(os_pid)[:state] == "Z" end)
    # It reads one of them before it finds its command dead.
    for _ <- 1..5, do: assert(Native.send_signal(control, 0) == :ok)
    {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
    Tree.await(fn -> Tree.stat(shepherd) == nil end, 60_000)

    assert {:exited, {:exited, 7}, _usage} = Native.receive_event(control)
    # A socket that keeps no messages tells of those that nobody has read.
    assert Native.receive_event(control) == if(Tree.needs_linux(), do: :reset, else: :eof)
    for fd <- [control, stdin, stdout], do: Native.close(fd)
  end

  defp await(fun) do
    with {:error, :eagain} <- fun.() do
      assert_receive {:select, _, _, :ready_input}, 60_000
      await(fun)
    end
  end

  # Whether this function of the NIF was called meanwhile.
  defp dirty?(function, arity, fun) do
    :erlang.trace_pattern({Native, function, arity}, true, [:local])
    :erlang.trace(:new_processes, true, [:call])
    fun |> Task.async() |> Task.await(60_000)

    # Processes that are traced stay so: on OTP 25, switching it off can crash the VM while one of them is in a dirty NIF.
    :erlang.trace(:new_processes, false, [:call])
    :erlang.trace_pattern({Native, function, arity}, false, [:local])
    reference = :erlang.trace_delivered(:all)
    assert_receive {:trace_delivered, :all, ^reference}, 60_000
    called?(function, false)
  end

  defp called?(function, called?) do
    receive do
      {:trace, _, :call, {Native, ^function, _}} -> called?(function, true)
    after
      0 -> called?
    end
  end

  describe "a window" do
    test "tells the server of the first piece alone, and gives all of them at once" do
      window = Native.window()
      assert Native.push(window, self(), "a") == :ok
      assert_received :fed
      assert Native.push(window, self(), "b") == :ok
      refute_received :fed
      assert Native.take(window) == "ab"
      assert Native.take(window) == ""
      assert Native.push(window, self(), "c") == :ok
      assert_received :fed
    end

    test "takes in no more than it holds, and nothing that nobody will write" do
      window = Native.window()
      piece = String.duplicate("x", 4_096)
      for _ <- 1..16, do: assert(Native.push(window, self(), piece) == :ok)
      assert Native.push(window, self(), "x") == :full
      assert byte_size(Native.take(window)) == 65_536
      assert Native.push(window, self(), "x") == :ok
      assert Native.close_window(window) == :ok
      assert Native.push(window, self(), "x") == :closed
      assert Native.take(window) == ""
      {gone, monitor} = spawn_monitor(fn -> :ok end)
      assert_receive {:DOWN, ^monitor, _, _, _}
      assert Native.push(Native.window(), gone, "x") == :closed
    end
  end
end
