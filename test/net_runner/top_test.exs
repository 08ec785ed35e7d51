defmodule NetRunner.TopTest do
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command
  alias NetRunner.Test.Terminal
  alias NetRunner.Top.Usage

  @linux Tree.needs_linux()

  describe "what is no terminal" do
    test "gets the table once" do
      {:ok, p} = Command.start("cat", ["-u", "/dev/stdin"])
      :ok = Command.write(p, "hello")
      printed = capture_io(fn -> assert NetRunner.top() == :ok end)
      refute printed =~ "\e"
      assert ["PID", "TIME" | _] = printed |> String.split("\n") |> hd() |> String.split()
      assert line(printed, Command.os_pid(p)) =~ ~r" 5 B +0 B .+ cat -u /dev/stdin$"
      Command.stop(p)
    end

    test "is also the stdout of a VM whose stdin is one" do
      [elixir | args] =
        Tree.elixir("Application.ensure_all_started(:net_runner); :ok = NetRunner.top()")

      script = ["sh", "-c", ~S("$@" > /dev/null && echo over), "sh", elixir | args]
      assert NetRunner.run(script, env: Tree.elixir_env(), pty: true) == {"over\r\n", 0}
    end
  end

  describe "a terminal" do
    test "has the table anew every second, until Enter" do
      vm =
        Terminal.start("""
        {:ok, _} = NetRunner.Process.start("sleep", ["1000"])
        IO.puts("before")
        :ok = NetRunner.top()
        IO.write("over")
        """)

      tables = for _ <- 1..3, do: Terminal.until(vm, "Press Enter to leave.\r\n")
      Terminal.type(vm, "")
      # Up over the one before: its head, the command, how many there are, and how to leave.
      for table <- tl(tables), do: assert(String.starts_with?(table, "\e[4A\r\e[J"))

      assert ["before", head, command, "1 command is running.", "Press Enter to leave." | rest] =
               Terminal.screen(Enum.join(tables) <> Terminal.until(vm, "over"))

      assert head =~ ~r/^ +PID +TIME/
      assert command =~ ~r/0 B sleeping sleep 1000$/
      assert List.last(rest) == "over"
      assert {:ok, 0} = Command.await_exit(vm)
    end

    test "is left as it is when who looks is killed", %{test: test} do
      go = Path.join(System.tmp_dir!(), "net_runner #{System.pid()} #{test}")
      on_exit(fn -> File.rm(go) end)

      vm =
        Terminal.start("""
        await = fn await, done? -> done?.() || (Process.sleep(20) && await.(await, done?)) end
        looks? = fn pid ->
          with {_, stack} <- Process.info(pid, :current_stacktrace), do: Enum.any?(stack, &(elem(&1, 0) == NetRunner.Top))
        end
        viewer = spawn(fn -> NetRunner.top() end)
        await.(await, fn -> File.exists?(#{inspect(go)}) end)
        true = Enum.any?(Process.list(), looks?)
        Process.exit(viewer, :kill)
        await.(await, fn -> not Enum.any?(Process.list(), looks?) end)
        IO.write("over")
        System.halt(0)
        """)

      printed = Terminal.until(vm, "Press Enter to leave.\r\n")
      File.touch!(go)
      screen = Terminal.screen(printed <> Terminal.until(vm, "over"))
      assert [_head, "No command is running.", "Press Enter to leave.", "over"] = screen
      assert {:ok, 0} = Command.await_exit(vm)
    end

    test "is left at the end of the input" do
      [elixir | args] =
        Tree.elixir("Application.ensure_all_started(:net_runner); IO.inspect(NetRunner.top())")

      script = ["sh", "-c", ~S("$@" < /dev/null), "sh", elixir | args]
      {printed, 0} = NetRunner.run(script, env: Tree.elixir_env(), pty: true)
      assert String.ends_with?(printed, ":ok\r\n")
    end

    test "is IEx' own" do
      vm = Terminal.start_iex()
      Terminal.until(vm, "iex(1)> ")
      Terminal.type(vm, "Application.ensure_all_started(:net_runner) |> elem(0)")
      Terminal.until(vm, "iex(2)> ")
      Terminal.type(vm, "NetRunner.top()")
      for _ <- 1..2, do: Terminal.until(vm, "Press Enter to leave.")
      Terminal.type(vm, "")
      assert Terminal.until(vm, "iex(3)> ") =~ ":ok"
      Terminal.type(vm, "40 + 2")
      assert Terminal.until(vm, "iex(4)> ") =~ "42"
      Command.stop(vm)
    end
  end

  describe "what a command uses" do
    @describetag Tree.skip(@linux)

    test "is that of everything it started, also of what has no parent left" do
      # Two processes hold 32 MiB each; the second is nobody's child.
      python = "import time; data = bytearray(33554432); print(flush=True); time.sleep(1000)"
      script = ~S[python3 -c "$1" & (setsid python3 -c "$1" &) ; wait]
      {:ok, p} = Command.start("sh", ["-c", script, "sh", python])
      for _ <- 1..2, do: {:ok, "\n"} = Command.read(p, 1)
      os_pid = Command.os_pid(p)
      assert %Usage{state: "sleeping", memory: memory} = Usage.of(os_pid)
      assert memory > 2 * 33_554_432
      Command.stop(p)
      assert Usage.of(os_pid) == nil
    end

    test "counts the CPU time of its children, also when they have ended" do
      script = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done); echo; read line"
      {:ok, p} = Command.start("sh", ["-c", script])
      {:ok, "\n"} = Command.read(p)
      assert %Usage{cpu_ms: cpu_ms} = Usage.of(Command.os_pid(p))
      assert cpu_ms >= 20
      Command.stop(p)
    end

    test "has the state of the command" do
      {:ok, p} = Command.start("cat")
      :ok = Command.kill(p, :sigstop)
      Tree.await(fn -> Usage.of(Command.os_pid(p)).state == "stopped" end)
      Command.stop(p)
    end
  end

  defp line(printed, os_pid) do
    printed |> String.split("\n") |> Enum.find(&(&1 =~ ~r/^ *#{os_pid} /))
  end
end
