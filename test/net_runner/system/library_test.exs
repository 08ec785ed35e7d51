defmodule NetRunner.System.LibraryTest do
  # Where the library lies, and whether it loads: each in a VM of its own, with a copy of the application.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  setup do
    root = NetRunner.Temporary.path("library")

    on_exit(fn -> File.rm_rf(root) end)
    {:ok, root: root}
  end

  test "starts under a path beyond ASCII, whatever the locale", %{root: root} do
    application = copy(Path.join(root, "Straße é"))
    code = ~S|IO.inspect(NetRunner.run(~w(echo hello)))|

    for locale <- ["C", "C.UTF-8"] do
      assert vm(application, "{:ok, _} = #{start()}; " <> code, locale) =~ ~S({"hello\n", 0})
    end
  end

  describe "an application whose native library does not load" do
    test "because it is missing says so", %{root: root} do
      application = copy(root)
      File.rm!(Path.join(application, "priv/net_runner_nif.so"))
      assert_says_so(application, "No such file or directory")
    end

    test "because it is corrupt, or of another machine, says so", %{root: root} do
      application = copy(root)
      File.write!(Path.join(application, "priv/net_runner_nif.so"), "not an ELF file")
      assert_says_so(application, "file too short")
    end

    # As in an escript, whose modules are in no folder of an application.
    test "because there is no folder for it says so, and what to do", %{root: root} do
      modules = Path.join(root, "modules")
      copy(Application.app_dir(:net_runner, "ebin"), modules)
      code = "IO.inspect(NetRunner.System.Native.loaded())"
      {output, 0} = NetRunner.run(["elixir", "-pa", modules, "-e", code], stderr: :redirect)
      assert output =~ "which an escript does not contain"
      assert output =~ "ERL_LIBS"
    end
  end

  test "a hot upgrade of the native library is refused, and what is loaded goes on", %{root: root} do
    code = """
    {:ok, _} = #{start()}
    {:ok, p} = NetRunner.Process.start("cat", [])
    IO.inspect(:code.load_file(NetRunner.System.Native))
    :ok = NetRunner.Process.write(p, "still ")
    {:ok, "still "} = NetRunner.Process.read(p)
    IO.inspect(NetRunner.run(~w(echo there)))
    Logger.flush()
    """

    output = vm(copy(root), code)
    assert output =~ "{:error, :on_load_failure}"
    assert output =~ "cannot be replaced while the VM runs"
    assert output =~ ~S({"there\n", 0})
  end

  defp assert_says_so(application, why) do
    code = """
    {:error, {:net_runner, reason}} = #{start()}
    IO.puts(Application.format_error(reason))
    {:error, :not_started} = NetRunner.run(~w(true))
    {:error, :not_started} = NetRunner.pipeline([~w(true), ~w(true)])
    """

    output = vm(application, code)
    assert output =~ ~r/NetRunner's native library does not load \(.*#{why}/
    assert output =~ "mix deps.compile net_runner --force"
    refute output =~ "undef"
  end

  defp start, do: "Application.ensure_all_started(:net_runner)"

  defp copy(directory) do
    application = Path.join(directory, "net_runner")
    File.mkdir_p!(application)
    from = Application.app_dir(:net_runner)
    for part <- ~w(ebin priv), do: copy(Path.join(from, part), Path.join(application, part))
    application
  end

  defp copy(from, to) do
    File.mkdir_p!(to)

    for file <- File.ls!(from), File.regular?(Path.join(from, file)) do
      File.cp!(Path.join(from, file), Path.join(to, file))
    end
  end

  # What a VM prints that runs this code with that copy.
  defp vm(application, code, locale \\ "C.UTF-8") do
    env = [
      {"ERL_LIBS", Path.dirname(application)},
      {"LC_ALL", locale},
      {"ERL_CRASH_DUMP", "/dev/null"}
    ]

    {output, _} = NetRunner.run(["elixir", "-e", code], env: env, stderr: :redirect)
    output
  end

  test "when the application has started, the first command loads no module of it" do
    code = """
    {:ok, _} = Application.ensure_all_started(:net_runner)
    # What the VM calls for a function of a module that is not loaded. (The rest of the library is loaded meanwhile.)
    {:module, _} = Code.ensure_loaded(:error_handler)
    1 = :erlang.trace_pattern({:error_handler, :undefined_function, 3}, true, [:local])
    # Tracing is not switched off again: on OTP 25 that can crash a VM while a traced process is in a dirty NIF.
    :erlang.trace(:all, true, [:call])
    {"hello\n", 0} = NetRunner.run(~w(echo hello))
    reference = :erlang.trace_delivered(:all)
    receive do: ({:trace_delivered, :all, ^reference} -> :ok)
    {:messages, traced} = Process.info(self(), :messages)
    late = for {:trace, _, :call, {_, _, [module | _]}} <- traced, inspect(module) =~ "NetRunner", do: module
    IO.write(inspect(late))
    """

    assert NetRunner.run(Tree.elixir(code)) == {"[]", 0}
  end
end
