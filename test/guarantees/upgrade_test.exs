defmodule NetRunner.Guarantees.UpgradeTest do
  # The code of a running VM is upgraded: `:code.purge/1` kills each process that still waits in the code before the last. Not
  # async, because it kills what waits in functions of the library, such as callers of `run/2`.
  use ExUnit.Case, async: false

  import NetRunner.Guarantees.Tree, only: [await: 1, needs_its_code: 0, skip: 1]

  @moduletag skip(needs_its_code())

  alias NetRunner.Process, as: Command
  alias NetRunner.Daemon.Handler
  alias NetRunner.Process.{Feeder, Usher}
  alias NetRunner.Run.{CancelToken, Pipeline}

  # As what release_handler does with a changed module, twice.
  defp upgrade(modules) do
    for _ <- 1..2, module <- modules do
      :code.purge(module)
      {:module, ^module} = :code.load_file(module)
    end
  end

  test "a feeder that produces nothing is not left" do
    test = self()

    stuck =
      Stream.repeatedly(fn ->
        send(test, {:feeder, self()})
        Process.sleep(:infinity)
      end)

    fifo = NetRunner.Temporary.path("fifo")
    {_, 0} = System.cmd("mkfifo", [fifo])
    on_exit(fn -> File.rm(fifo) end)

    run = Task.async(fn -> NetRunner.run(["sh", "-c", "read a < $0", fifo], input: stuck) end)
    assert_receive {:feeder, feeder}, 60_000
    monitor = Process.monitor(feeder)
    upgrade([Feeder, Usher])
    File.write!(fifo, "go on\n")
    assert Task.await(run, 60_000) == {"", 0}
    assert_received {:DOWN, ^monitor, :process, _, :killed}
  end

  test "a token still ends what runs under it" do
    token = NetRunner.cancel_token()
    capture = Task.async(fn -> NetRunner.capture(["sleep", "1000"], cancel: token) end)
    await(fn -> NetRunner.Registry.get({:token, token.ref}) != [] end)
    upgrade([CancelToken])
    NetRunner.cancel(token)
    assert {:ok, %{outcome: :cancelled}} = Task.await(capture, 60_000)
  end

  test "a command of a pipeline that is lost still ends the others" do
    plan = Pipeline.plan([["sleep", "1000"], ["sleep", "1000"]], [], [:input, :run, :command])
    {:ok, [{first, _}, {last, _}] = members, nil} = Pipeline.start(plan)
    upgrade([Pipeline])
    Process.exit(first, :kill)
    assert Command.await_exit(last, 60_000) == {:ok, 143}
    Pipeline.stop(members)
  end

  test "a daemon goes on, and its output is read" do
    test = self()

    {:ok, daemon} = NetRunner.Daemon.start_link(cmd: "cat", on_line: &send(test, {:line, &1}))

    monitor = Process.monitor(daemon)
    :ok = NetRunner.Daemon.write(daemon, "ab")

    await(fn ->
      NetRunner.Daemon.stats(daemon).bytes_out == 2 and
        not Enum.any?(
          Process.list(),
          &match?({_, {Handler, _, _}}, Process.info(&1, :current_function))
        )
    end)

    upgrade([NetRunner.Daemon, NetRunner.Daemon.Output, Handler])
    assert NetRunner.Daemon.write(daemon, "c\n") == :ok
    assert_receive {:line, "abc"}, 60_000
    refute_received {:DOWN, ^monitor, _, _, _}
    GenServer.stop(daemon)
  end

  test "a command that runs goes on, and is served" do
    {:ok, p} = Command.start("cat", [])
    {:ok, modules} = :application.get_key(:net_runner, :modules)
    # The native code is not upgraded while the VM runs.
    upgrade(modules -- [NetRunner.System.Native])
    assert Command.write(p, "abc") == :ok
    assert Command.read(p) == {:ok, "abc"}
    assert Command.close_stdin(p) == :ok
    assert Command.await_exit(p, 60_000) == {:ok, 0}
    assert NetRunner.run(["echo", "a"]) == {"a\n", 0}
    Command.stop(p)
  end
end
