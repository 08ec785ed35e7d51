defmodule NetRunner.Guarantees.HelpersTest do
  # What the helpers do when they cannot do what they usually do.
  use ExUnit.Case, async: false

  alias NetRunner.Guarantees.Tree
  alias NetRunner.Process, as: Command

  @deaf ["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]

  test "a command that is being stopped can still be killed" do
    {:ok, command} = Command.start("sh", @deaf, kill_timeout: 3_600_000)
    {:ok, "ready\n"} = Command.read(command)
    stop = Task.async(fn -> Command.stop(command) end)
    NetRunner.Waiting.await(command, :stop)
    assert Command.kill(command, :sigkill) == :ok
    assert Task.await(stop) == :ok
  end

  test "an end that finds the shepherd's socket full of signals is heard" do
    {:ok, command} = Command.start("sleep", ["1000"])
    shepherd = Tree.shepherd(command)
    {_, 0} = System.cmd("kill", ["-STOP", "#{shepherd}"])
    Tree.await_stopped(shepherd)

    assert Enum.find(1..100_000, fn _ -> Command.kill(command, :sigcont) != :ok end)
    assert Command.kill(command, :sigcont) == {:error, :eagain}
    stop = Task.async(fn -> Command.stop(command) end)
    NetRunner.Waiting.await(command, :stop)
    {_, 0} = System.cmd("kill", ["-CONT", "#{shepherd}"])
    assert Task.await(stop) == :ok
  end

  describe "with a /proc of another PID namespace" do
    @describetag Tree.skip(
                   if(Tree.root?(),
                     do: Tree.needs_linux(),
                     else: "only root can make a PID namespace without a user namespace"
                   )
                 )

    # Its numbers name strangers.
    test "everything a command leaves is ended, nobody else is signalled, and a warning says so once" do
      {:ok, stranger} = Command.start("sleep", ["1000"])

      code = """
      {:ok, _} = Application.ensure_all_started(:net_runner)
      IO.inspect(NetRunner.run(["sh", "-c", "sleep 1000 & echo group"]))
      # The substitution ends when the other session has closed its output.
      script = "x=$(setsid sh -c 'echo session; exec >&-; exec sleep 1000' &); echo $x"
      IO.inspect(NetRunner.run(["sh", "-c", script]))
      IO.inspect(NetRunner.run(["sh", "-c", script <> "; exec sleep 1000"], timeout: 3_000))
      Logger.flush()
      """

      namespace = ~w(unshare --pid --fork --kill-child)
      command = namespace ++ Tree.elixir(code)
      assert {output, 0} = NetRunner.run(command, env: Tree.elixir_env(), timeout: 300_000)

      results =
        Regex.scan(~r/^{.*}$/m, output)
        |> List.flatten()
        |> Enum.map(&(Code.eval_string(&1) |> elem(0)))

      assert results == [{"group\n", 0}, {"session\n", 0}, {:error, :timeout}]

      assert length(String.split(output, "NetRunner finds no /proc of its own PID namespace")) ==
               2

      assert Command.alive?(stranger)
      Command.stop(stranger)
    end
  end
end
