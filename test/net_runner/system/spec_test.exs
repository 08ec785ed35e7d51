defmodule NetRunner.Process.SpecTest do
  # What a command gets of its VM, whoever the VM is: its environment, its rights, its directory. Each
  # VM is one of its own, started for the test.
  use ExUnit.Case, async: true

  @root? NetRunner.Guarantees.Tree.root?()

  describe "the environment" do
    # The same name as UTF-8 and as Latin-1, bytes that are neither, and a value of each kind.
    @variables [
      {"é", "UTF-8: é"},
      {<<0xE9>>, <<"Latin-1: ", 0xE9>>},
      {<<"cut ", 0xC3>>, <<0xFF, 0xC3>>},
      {"EMPTY", ""},
      {"LINES", "a\nb=c\n"},
      {"LONG", String.duplicate("x", 100_000)}
    ]

    for locale <- ["C", "C.UTF-8"] do
      test "is the VM's, byte for byte, with LC_ALL=#{locale}" do
        env = [{"LC_ALL", unquote(locale)} | @variables]
        [vms, commands] = environments("[]", env)
        assert commands == vms
        for {name, value} <- @variables, do: assert((name <> "=" <> value) in vms)
      end

      test "changes by bytes, with LC_ALL=#{locale}" do
        env = [{"LC_ALL", unquote(locale)} | @variables]

        [vms, commands] =
          environments(~S([{<<0xC3, 0xA9>>, "changed"}, {<<"cut ", 0xC3>>, nil}]), env)

        refute "é=changed" in vms
        gone = ["é=UTF-8: é", <<"cut ", 0xC3, ?=, 0xFF, 0xC3>>]
        assert gone -- vms == []
        assert commands == Enum.sort(["é=changed" | vms -- gone])
      end
    end

    test "has what System.put_env/2 changed" do
      code = """
      System.put_env("NEW", "new")
      System.delete_env("OLD")
      IO.inspect(NetRunner.run(["sh", "-c", "echo ${NEW-none} ${OLD-none}"]))
      """

      assert vm(code, env: [{"OLD", "old"}]) == ~S({"new none\n", 0}) <> "\n"
    end
  end

  describe "PWD" do
    setup do
      root = NetRunner.Temporary.path("pwd")

      File.mkdir_p!(Path.join(root, "real/below"))
      File.ln_s!("real/below", Path.join(root, "link"))
      on_exit(fn -> File.rm_rf(root) end)
      {:ok, root: root}
    end

    test "is the directory of :cd, with its links", %{root: root} do
      assert pwd(cd: root) == root
      assert pwd(cd: root <> "//link/./") == root <> "/link"
      assert pwd(cd: "/..") == "/"
      # By name this would be another directory.
      assert NetRunner.run(["printenv", "PWD"], cd: root <> "/link/..") == {"", 1}
      assert NetRunner.run(["sh", "-c", "pwd"], cd: root <> "/link") == {root <> "/link\n", 0}
      assert NetRunner.run(["sh", "-c", "pwd"], cd: root <> "/link/..") == {root <> "/real\n", 0}
    end

    test "starts at the VM's directory, where :cd does not begin with a slash", %{root: root} do
      code = """
      for cd <- ["below", "./below/", "..", "../link", <<0xC3, 0xA9>>] do
        # In numbers: how the VM prints other characters depends on its locale.
        options = [binaries: :as_binaries, limit: :infinity, width: :infinity]
        IO.inspect(NetRunner.run(["printenv", "PWD"], cd: cd), options)
      end
      """

      File.mkdir_p!(Path.join(root, "real/é"))
      directory = root <> "/real"
      paths = ["/real/below", "/real/below", "", "/link", "/real/é"]

      for locale <- ["C", "C.UTF-8"] do
        lines =
          vm(code, cd: directory, env: [{"LC_ALL", locale}]) |> String.split("\n", trim: true)

        assert Enum.map(lines, &(&1 |> Code.eval_string() |> elem(0))) ==
                 for(path <- paths, do: {root <> path <> "\n", 0})
      end
    end

    test "is what :env says, and the VM's where there is no :cd", %{root: root} do
      assert pwd(cd: root, env: [{"PWD", "mine"}]) == "mine"
      assert NetRunner.run(["printenv", "PWD"], cd: root, env: [{"PWD", nil}]) == {"", 1}
      assert NetRunner.run(["/usr/bin/env"], cd: root, clear_env: true) == {"", 0}
      assert pwd([]) == System.get_env("PWD")
    end

    defp pwd(options) do
      {output, 0} = NetRunner.run(["printenv", "PWD"], options)
      String.trim_trailing(output, "\n")
    end
  end

  test "thousands of :groups keep their order, and take a time that grows with their number" do
    gids = Enum.to_list(20_000..1//-1)
    options = NetRunner.Options.validate!([groups: gids], [:command])
    # A list that is copied for each of them takes seconds.
    assert {microseconds, {:ok, fields}} =
             :timer.tc(fn -> NetRunner.System.Spec.build(["true"], options) end)

    assert {:groups, gids} in fields
    assert microseconds < 1_000_000
  end

  unless @root?,
    do: @tag(skip: "only root can start a VM with other groups, or a command as another user")

  test "a user comes with its own groups, and without those of the VM" do
    code = ~S|IO.inspect(NetRunner.run(~w(id -G), user: "nobody"))|
    {groups, 0} = NetRunner.run(~w(id -G nobody))
    assert vm(code, groups: [4, 20]) == inspect({groups, 0}) <> "\n"
  end

  describe "a VM without rights" do
    unless @root?, do: @describetag(skip: "only root can start a VM as another user")

    test "hears which option the system refused" do
      for {options, reason} <- [
            {[user: "daemon"], {:user, :eperm}},
            {[user: "daemon", groups: []], {:groups, :eperm}},
            {[user: 12_345, group: "daemon"], {:user, :eperm}},
            {[group: "daemon"], {:group, :eperm}},
            {[groups: ["daemon"]], {:groups, :eperm}},
            {[nice: -5], {:nice, :eacces}},
            {[rlimits: [core: 0, nofile: 1_000_000_000]], {:rlimits, :eperm}},
            {[stdout: {:file, "/nobody-may-write-here"}], {:stdout, :eacces}},
            {[cd: "/root"], {:cd, :eacces}}
          ] do
        code = "IO.inspect(NetRunner.run(~w(id), #{inspect(options)}))"
        assert vm(code, user: "nobody") == inspect({:error, reason}) <> "\n"
      end
    end

    test "in a directory that it may not enter is told so" do
      directory = NetRunner.Temporary.path("spec")

      File.mkdir!(directory)
      {"", 0} = System.cmd("chown", ["nobody", directory])
      on_exit(fn -> File.rmdir(directory) end)

      # A VM of OTP 27 would not start there. That the directory cannot be looked at afterwards is an error of chmod/2
      # in some versions, and the code server says so too for each module that it looks for.
      code = ~s|_ = File.chmod(".", 0); IO.inspect(NetRunner.run(~w(true)))|
      assert vm(code, user: "nobody", cd: directory) =~ inspect({:error, {:cwd, :eacces}})
    end
  end

  # What the VM and what its command have in /proc/PID/environ.
  defp environments(changes, env) do
    code = """
    {commands, 0} = NetRunner.run(~w(cat /proc/self/environ), env: #{changes})
    IO.puts(Base.encode16(File.read!("/proc/self/environ")))
    IO.puts(Base.encode16(commands))
    """

    for line <- String.split(vm(code, env: env)) do
      line |> Base.decode16!() |> String.split(<<0>>, trim: true) |> Enum.sort()
    end
  end

  # What a VM prints that runs this code.
  defp vm(code, options) do
    code = "{:ok, _} = Application.ensure_all_started(:net_runner)\n" <> code
    root = to_string(:code.root_dir())
    bin = Path.join(root, "erts-#{:erlang.system_info(:version)}/bin")

    libraries =
      Path.join(Mix.Project.build_path(), "lib") <> ":" <> Path.dirname(:code.lib_dir(:elixir))

    env = [
      {"ROOTDIR", root},
      {"BINDIR", bin},
      {"EMU", "beam"},
      {"PROGNAME", "erl"},
      {"HOME", "/nowhere"},
      {"ERL_LIBS", libraries} | options[:env] || []
    ]

    # Not by way of `erl`: a shell drops variables whose names it could not write.
    command =
      [Path.join(bin, "erlexec"), "-noshell" | ~w(-s elixir start_cli -extra -e)] ++ [code]

    {output, 0} = NetRunner.run(command, Keyword.put(options, :env, env))
    output
  end
end
