defmodule NetRunner.Guarantees.ApplicationStopTest do
  # The application stops: `System.stop/1`, as a release does on SIGTERM, or `Application.stop/1`. Each test has a VM of its own.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  # Ends with 0 only if somebody reads all that it prints on its way out, and then writes to a file.
  defp script(out) do
    "trap 'seq 300000 && echo done > #{out}; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
  end

  setup do
    out = NetRunner.Temporary.path("out")
    go = NetRunner.Temporary.path("go")
    on_exit(fn -> for path <- [out, go], do: File.rm(path) end)
    %{out: out, go: go}
  end

  # What a VM prints that runs this code and ends by itself. `start.(script, options)` starts a command in it.
  defp in_vm(code) do
    [executable | args] =
      Tree.elixir("""
      {:ok, _} = Application.ensure_all_started(:net_runner)

      start = fn script, options ->
        {:ok, p} = NetRunner.Process.start("sh", ["-c", script], [kill_timeout: 600_000] ++ options)
        {:ok, "ready\\n"} = NetRunner.Process.read(p)
        p
      end

      defmodule Other do
        use Application
        def start(_type, run), do: Supervisor.start_link([%{id: Agent, start: {Agent, :start_link, [run]}}], strategy: :one_for_one)
      end

      # An application that depends on NetRunner, with a process that runs this.
      start_other = fn run ->
        :ok = :application.load({:application, :other, applications: [:net_runner], mod: {Other, run}})
        :ok = Application.start(:other)
      end

      #{code}
      """)

    {output, status} =
      System.cmd(executable, args, env: Tree.elixir_env(), stderr_to_stdout: true)

    assert {status, output} == {0, output}
    output
  end

  describe "System.stop/1 lets a command finish what it does at its end, and reads what it prints:" do
    for {what, start} <- [
          {"nobody's", "start.(script, owner: nil)"},
          {"one whose owner has just died",
           """
           {owner, _} = spawn_monitor(fn -> start.(script, []) end)
           receive do: ({:DOWN, _, :process, ^owner, :normal} -> :ok)
           """},
          {"one of an application that stops before",
           "start_other.(fn -> start.(script, []) end)"},
          {"nobody's, but started by such an application",
           "start_other.(fn -> start.(script, owner: nil) end)"}
        ] do
      @start start
      test what, %{out: out} do
        in_vm("""
        script = #{inspect(script(out))}
        #{@start}
        System.stop()
        Process.sleep(:infinity)
        """)

        # Nothing is waited for: the VM has waited.
        assert File.read!(out) == "done\n"
      end
    end
  end

  test "Application.stop/1 of the application that owns a command lets it finish, too", %{
    out: out
  } do
    output =
      in_vm("""
      test = self()
      Process.register(test, :test)

      # In place of the package, which cannot be a dependency here.
      defmodule :telemetry do
        def execute(event, _measurements, _metadata), do: send(:test, {:event, List.last(event)})
      end

      start_other.(fn -> send(test, start.(#{inspect(script(out))}, [])) end)
      p = receive do: (p when is_pid(p) -> p)
      ref = NetRunner.Process.monitor(p)
      :ok = Application.stop(:other)
      receive do: ({:DOWN, ^ref, :process, ^p, reason} -> IO.inspect(reason))
      receive do: ({:event, :stop} -> IO.puts("handled"))
      """)

    assert output =~ "{:exit, 7}\nhandled\n"
    assert File.read!(out) == "done\n"
  end

  test "meanwhile no other command starts", %{go: go} do
    script =
      "trap 'while ! [ -e #{go} ]; do sleep 0.01; done; exit' TERM; echo ready; while :; do sleep 0.01; done"

    output =
      in_vm("""
      p = start.(#{inspect(script)}, owner: nil)
      os_pid = NetRunner.Process.os_pid(p)
      stop = Task.async(fn -> Application.stop(:net_runner) end)

      refused = fn refused ->
        with {"", 0} <- NetRunner.run(~w(true)), do: refused.(refused)
      end

      IO.inspect(refused.(refused))
      IO.inspect(NetRunner.capture(~w(true)))
      IO.inspect({File.dir?("/proc/\#{os_pid}"), Task.yield(stop, 0)})
      File.touch!(#{inspect(go)})
      :ok = Task.await(stop, :infinity)
      IO.inspect(File.dir?("/proc/\#{os_pid}"))
      {:ok, _} = Application.ensure_all_started(:net_runner)
      IO.inspect(NetRunner.run(~w(echo again)))
      """)

    assert output =~ "{:error, :not_started}\n{:error, :not_started}\n{true, nil}\n"
    assert output =~ ~s(false\n{"again\\n", 0}\n)
  end

  test "a capture has all that was printed, and the outcome :cancelled", %{out: out} do
    output =
      in_vm("""
      test = self()
      command = ["sh", "-c", #{inspect(script(out))}]
      tell = fn _chunk -> send(test, :ready) end
      capture = Task.async(fn -> NetRunner.capture(command, on_output: tell, kill_timeout: 600_000) end)
      receive do: (:ready -> :ok)
      :ok = Application.stop(:net_runner)
      {:ok, result} = Task.await(capture, :infinity)
      IO.inspect({result.outcome, result.exit, byte_size(result.stdout)})
      """)

    size = byte_size("ready\n" <> Enum.map_join(1..300_000, &"#{&1}\n"))
    assert output =~ "{:cancelled, {:exited, 7}, #{size}}"
    assert File.read!(out) == "done\n"
  end

  test "others hear that their command is closed", %{out: out} do
    output =
      in_vm("""
      p = start.(#{inspect(script(out))}, owner: nil)
      ref = NetRunner.Process.monitor(p)
      waiting = for call <- [&NetRunner.Process.await_exit/1, &NetRunner.Process.read/1],
        do: Task.async(fn -> call.(p) end)
      run = Task.async(fn -> NetRunner.run(~w(sleep 987654)) end)

      ready = fn ready -> if length(NetRunner.list()) < 2, do: ready.(ready) end
      ready.(ready)
      :ok = Application.stop(:net_runner)
      IO.inspect(Task.await_many([run | waiting], :infinity))
      receive do: ({:DOWN, ^ref, :process, ^p, reason} -> IO.inspect(reason))
      """)

    assert output =~ "[error: :closed, error: :closed, error: :closed]\n{:exit, 7}\n"
  end
end
