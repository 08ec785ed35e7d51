defmodule NetRunner.System.DescriptorsOfTheVmTest do
  # A VM that has few descriptors left, or more than it knows of: each in a VM of its own.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  @moduletag Tree.linux_only()

  # What the code gives, in a VM that starts with such a limit.
  defp in_vm(limit, code) do
    [elixir | args] = Tree.elixir("IO.write(inspect((#{code}), limit: :infinity))")
    command = ["sh", "-c", "ulimit -Sn #{limit}; exec \"$@\"", "sh", elixir | args]
    {text, 0} = NetRunner.run(command, env: Tree.elixir_env(), timeout: 300_000)
    {result, _} = Code.eval_string(text)
    result
  end

  @start ":logger.set_primary_config(:level, :none); {:ok, _} = Application.ensure_all_started(:net_runner)"

  test "all code is there before the table is full, which ends no command" do
    code = """
    #{@start}
    all = Application.spec(:net_runner, :modules)

    # Of those that are not for tests or for mix.
    of_others =
      for module <- all,
          module.module_info(:compile)[:source] |> to_string() =~ "/lib/net_runner",
          {:ok, {_, [imports: imports]}} = :beam_lib.chunks(:code.which(module), [:imports]),
          {other, _, _} <- imports,
          # For macros and for the doctor.
          match?("Elixir." <> _, Atom.to_string(other)) and other not in [Code, Macro, Module],
          uniq: true,
          do: other

    loaded = fn loaded, n ->
      case Enum.reject(all ++ of_others, &:code.is_loaded/1) do
        missing when missing == [] or n == 0 -> missing
        _ -> Process.sleep(20) && loaded.(loaded, n - 1)
      end
    end

    missing = loaded.(loaded, 3_000)
    {:ok, p} = NetRunner.Process.start("sh", ["-c", "echo hi; exec sleep 1000"], fds: %{4 => :input})

    fill = fn fill, files ->
      case :file.open(~c"/dev/null", [:read, :raw]) do
        {:ok, file} -> fill.(fill, [file | files])
        {:error, :emfile} -> files
      end
    end

    files = fill.(fill, [])
    results = [
      NetRunner.Process.stats(p).bytes_out >= 0,
      NetRunner.Process.read_until(p, "hi"),
      NetRunner.Process.write_fd(p, 4, "x"),
      NetRunner.Process.alive?(p),
      NetRunner.run(~w(true), timeout: 60_000, cd: "/", env: %{"A" => "1"}, input: ["a"], fds: %{3 => {:input, "a"}}),
      NetRunner.run(~w(true), cgroup: [pids_max: 5]) |> elem(1) |> elem(0)
    ]

    Enum.each(files, &:file.close/1)
    {missing, results}
    """

    assert in_vm(70, code) ==
             {[], [true, {:ok, {"", "hi"}}, :ok, true, {:error, :emfile}, :invalid_cgroup_path]}
  end

  test "a first command finds all code of ours that it needs: none is loaded when it is called" do
    code = """
    gather = fn gather, modules ->
      receive do
        {:trace, _, :call, {:error_handler, :undefined_function, [module | _]}} -> gather.(gather, [module | modules])
        {:tell, pid} -> send(pid, {:missed, modules})
      end
    end

    tracer = spawn(fn -> gather.(gather, []) end)
    :erlang.trace_pattern({:error_handler, :undefined_function, 3}, true, [])
    :erlang.trace(:all, true, [:call, {:tracer, tracer}])
    #{@start}
    {"", 0} = NetRunner.run(~w(true))
    delivered = :erlang.trace_delivered(:all)
    receive do: ({:trace_delivered, :all, ^delivered} -> send(tracer, {:tell, self()}))
    receive do: ({:missed, modules} -> Enum.filter(modules, &match?("Elixir.NetRunner" <> _, Atom.to_string(&1))))
    """

    # The application itself; and what loads the native code, for which the VM has a way of its own.
    assert Enum.sort(in_vm(512, code)) == [NetRunner.Application, NetRunner.System.Native]
  end

  # A VM whose limit is raised, and whose next descriptors have numbers above the old one.
  @raise_limit """
  #{@start}
  {_, 0} = System.cmd("prlimit", ["--pid", System.pid(), "--nofile=4096:4096"])
  {"", 0} = NetRunner.run(~w(true))
  files = for _ <- 1..600, {:ok, file} <- [:file.open(~c"/dev/null", [:read, :raw])], do: file
  """

  # Race: limit raised under the VM.
  test "a limit that was raised later gives no number that the VM cannot poll" do
    seconds = "#{100_000 + System.unique_integer([:positive])}.#{System.pid()}"

    code = """
    #{@raise_limit}
    count = fn -> length(File.ls!("/proc/self/fd")) end
    NetRunner.System.Native.let_idle_go()
    before = count.()
    results = for _ <- 1..3, do: NetRunner.run(["sleep", "#{seconds}"])

    settled = fn settled, n ->
      if count.() <= before or n == 0, do: count.() - before, else: Process.sleep(20) && settled.(settled, n - 1)
    end

    more = settled.(settled, 3_000)
    Enum.each(files, &:file.close/1)
    {results, more, NetRunner.list()}
    """

    emfile = {:error, :emfile}
    assert {[^emfile, ^emfile, ^emfile], more, []} = in_vm(512, code)
    assert more <= 0
    Tree.await(fn -> not sleeps?(seconds) end)
  end

  # What is long is handed over by a dirty scheduler. Then the server waits for its turn, behind processes that have more
  # of it, and some of the shepherds are faster.
  test "so does one that has started before the VM finds that" do
    seconds = "#{100_000 + System.unique_integer([:positive])}.#{System.pid()}"

    code = """
    #{@raise_limit}
    NetRunner.System.Native.let_idle_go()
    spin = fn spin, until -> if System.monotonic_time(:millisecond) < until, do: spin.(spin, until) end
    hog = fn hog -> spin.(spin, System.monotonic_time(:millisecond) + 5); Process.sleep(2); hog.(hog) end
    for _ <- 1..System.schedulers_online(), do: :erlang.spawn_opt(fn -> hog.(hog) end, priority: :high)
    env = for n <- 1..10, do: {"LONG\#{n}", String.duplicate("x", 100_000)}
    results = for _ <- 1..80, do: NetRunner.run(["sleep", "#{seconds}"], env: env)
    Enum.each(files, &:file.close/1)
    {Enum.uniq(results), NetRunner.list()}
    """

    assert in_vm(512, code) == {[error: :emfile], []}
    Tree.await(fn -> not sleeps?(seconds) end)
  end

  defp sleeps?(seconds) do
    Enum.any?(Path.wildcard("/proc/[0-9]*/cmdline"), fn file ->
      File.read(file) == {:ok, "sleep\0#{seconds}\0"}
    end)
  end

  test "none stays open for idle shepherds when the application has stopped" do
    code = """
    #{@start}
    count = fn -> length(File.ls!("/proc/self/fd")) end

    # A poll thread closes what was selected, a moment later.
    settled = fn settled, last, times ->
      Process.sleep(20)
      now = count.()
      if now == last and times == 10, do: now, else: settled.(settled, now, if(now == last, do: times + 1, else: 0))
    end

    for _ <- 1..3 do
      {:ok, _} = Application.ensure_all_started(:net_runner)
      for _ <- 1..3, do: {"", 0} = NetRunner.run(~w(true))
      :ok = Application.stop(:net_runner)
      settled.(settled, nil, 0)
    end
    """

    assert [same, same, same] = in_vm(512, code)
  end
end
