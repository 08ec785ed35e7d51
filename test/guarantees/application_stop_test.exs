defmodule NetRunner.Guarantees.ApplicationStopTest do
  # The application stops: `System.stop/1`, as a release does on SIGTERM, or `Application.stop/1`. Each test has a VM of its own.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  # Ends with 0 only if somebody reads all that it prints on its way out, and then writes to a file.
  defp script(out, lines \\ 300_000) do
    "trap 'seq #{lines} && echo done > #{out}; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
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
          {"one that is named in a registry of an application that stops before",
           """
           start_other.(fn ->
             {:ok, _} = Registry.start_link(keys: :unique, name: Names)
             {:ok, _} = Agent.start_link(fn -> start.(script, name: {:via, Registry, {Names, :x}}) end)
           end)
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
      start_other.(fn -> send(test, start.(#{inspect(script(out))}, [])) end)
      p = receive do: (p when is_pid(p) -> p)
      ref = NetRunner.Process.monitor(p)
      :ok = Application.stop(:other)
      receive do: ({:DOWN, ^ref, :process, ^p, reason} -> IO.inspect(reason))
      """)

    assert output =~ "{:exit, 7}\n"
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
        if NetRunner.run(~w(true)) != {:error, :not_started}, do: refused.(refused)
      end

      refused.(refused)
      meanwhile = {NetRunner.capture(~w(true)), File.dir?("/proc/\#{os_pid}"), Task.yield(stop, 0)}
      File.touch!(#{inspect(go)})
      :ok = Task.await(stop, :infinity)
      there? = File.dir?("/proc/\#{os_pid}")
      {:ok, _} = Application.ensure_all_started(:net_runner)
      # At once: others log in between.
      IO.inspect({meanwhile, there?, NetRunner.run(~w(echo again))})
      """)

    assert output =~ ~S({{{:error, :not_started}, true, nil}, false, {"again\n", 0}})
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
      results = Task.await_many([run | waiting], :infinity)
      reason = receive do: ({:DOWN, ^ref, :process, ^p, reason} -> reason)
      # At once: others log in between.
      IO.inspect({results, reason})
      """)

    assert output =~ "{[error: :closed, error: :closed, error: :closed], {:exit, 7}}\n"
  end

  test "a start that is under way is refused, or its command is closed" do
    output =
      in_vm("""
      loop = fn loop, results ->
        result = NetRunner.run(~w(true))
        results = MapSet.put(results, result)
        if result == {:error, :not_started}, do: results, else: loop.(loop, results)
      end

      for _ <- 1..5 do
        {:ok, _} = Application.ensure_all_started(:net_runner)
        callers = for _ <- 1..20, do: Task.async(fn -> loop.(loop, MapSet.new()) end)
        Process.sleep(50)
        :ok = Application.stop(:net_runner)
        for caller <- callers, do: Task.await(caller, :infinity)
      end
      |> Enum.concat()
      |> Enum.reduce(&MapSet.union/2)
      |> MapSet.difference(MapSet.new([{"", 0}, {:error, :closed}, {:error, :not_started}]))
      |> IO.inspect()
      """)

    assert output =~ "MapSet.new([])" or output =~ "#MapSet<[]>"
  end

  test "daemons stop as if their supervisor stopped them, each with its output and its :stop_command",
       %{
         out: out,
         go: go
       } do
    output =
      in_vm("""
      daemon = {NetRunner.Daemon,
        cmd: "sh", args: ["-c", #{inspect(script(out, 100))}], process_opts: [kill_timeout: 60_000],
        on_line: &send(:test, {:line, &1}), ready: {:output, ~r/ready/}, restart: :transient}
      Process.register(self(), :test)
      stopped_by = [stop_command: ["sh", "-c", "touch #{go}; exit 1"]]
      other = {NetRunner.Daemon, [cmd: "sleep", args: ["987654"], id: :other, restart: :transient] ++ stopped_by}
      {:ok, supervisor} = Supervisor.start_link([daemon, other], strategy: :one_for_one)
      :ok = Application.stop(:net_runner)
      last = receive do
        {:line, "100"} -> "last line"
      after
        60_000 -> "lost"
      end

      # At once: others log in between.
      IO.inspect({last, for({id, pid, _, _} <- Supervisor.which_children(supervisor), do: {id, pid})})
      """)

    assert output =~ ~s({"last line", [{:other, :undefined}, {NetRunner.Daemon, :undefined}]}\n)
    refute output =~ "[error]"
    assert File.exists?(go)
    assert File.read!(out) == "done\n"
  end

  test "an application that stops takes along what nobody owns, and can start again" do
    output =
      in_vm("""
      test = self()
      run = fn -> send(test, start.("echo ready; exec sleep 987654", owner: nil, name: :one)) end
      start_other.(run)
      p = receive do: (p when is_pid(p) -> p)
      ref = NetRunner.Process.monitor(p)
      :ok = Application.stop(:other)
      reason = receive do: ({:DOWN, ^ref, :process, ^p, reason} -> reason)
      # At once: others log in between.
      IO.inspect({reason, Application.start(:other)})
      """)

    assert output =~ "{{:exit, 143}, :ok}"
  end

  test "a callback that hangs does not keep the application for longer than a few seconds" do
    output =
      in_vm("""
      test = self()
      hang = fn _ ->
        send(test, :hangs)
        Process.sleep(:infinity)
      end

      spawn(fn -> NetRunner.capture(~w(echo x), on_output: hang, kill_timeout: 3_600_000) end)
      receive do: (:hangs -> :ok)
      :ok = Application.stop(:net_runner)
      """)

    refute output =~ "have not ended"
  end
end
