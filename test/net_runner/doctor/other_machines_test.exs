defmodule NetRunner.Doctor.OtherMachinesTest do
  # What it says of machines that lack something: VMs with a build that is damaged, under limits, with filters of system calls,
  # of other users.
  use ExUnit.Case, async: true

  alias NetRunner.Guarantees.Tree

  # It runs commands that only Linux has.
  @moduletag Tree.linux_only()
  @moduletag timeout: 600_000

  setup_all do
    directory = NetRunner.Temporary.path("doctor")

    File.mkdir_p!(directory)
    on_exit(fn -> File.rm_rf!(directory) end)
    %{directory: directory}
  end

  # A copy of this build, for everybody to read.
  defp build(context) do
    copy = Path.join(context.directory, "build#{System.unique_integer([:positive])}/net_runner")
    File.mkdir_p!(copy)

    for part <- ~w(ebin priv),
        do: File.cp_r!(Application.app_dir(:net_runner, part), Path.join(copy, part))

    {_, 0} = System.cmd("chmod", ["-R", "a+rX", context.directory])
    copy
  end

  # Each finding of another VM, as {state, what was seen, what to do} by topic.
  defp examine(build, options \\ []) do
    code = """
    #{options[:before]}
    findings = NetRunner.Doctor.examine()
    found = for f <- findings, into: %{}, do: {f.topic, {f.state, f.seen, f.advice}}
    IO.puts("found " <> Base.encode64(:erlang.term_to_binary({found, NetRunner.Doctor.failed?(findings)})))
    """

    elixir = ["elixir", "-pa", Path.join(build, "ebin"), "-e", code]

    assert {output, 0} =
             NetRunner.run(Keyword.get(options, :prefix, []) ++ elixir,
               env: Tree.elixir_env() ++ [{"HOME", "/"}],
               stderr: :redirect,
               cd: "/",
               timeout: 300_000
             )

    [_, text] = Regex.run(~r/^found (.*)$/m, output)
    text |> Base.decode64!() |> :erlang.binary_to_term()
  end

  describe "a build" do
    test "without the helper is told how to get it", context do
      build = build(context)
      File.rm!(Path.join(build, "priv/net_runner_shepherd"))
      assert {found, true} = examine(build)
      assert {:failed, seen, advice} = found.helper
      assert seen =~ "#{build}/priv/net_runner_shepherd cannot be executed: no such file"
      assert advice =~ "mix deps.compile net_runner --force"
      assert {:failed, seen, _} = found.application
      assert seen =~ "does not start: NetRunner's helper program #{build}/priv"
      assert {:ok, _, _} = found.library
      # As in `bin/app eval`, nobody has loaded the application.
      assert {:ok, "NetRunner " <> <<digit, _::binary>>, _} = found.versions
      assert digit in ?0..?9
      # The rest is there, but for what needs a command.
      assert Map.has_key?(found, :processes)
      refute Map.has_key?(found, :commands)
    end

    test "with a helper that is none", context do
      build = build(context)
      helper = Path.join(build, "priv/net_runner_shepherd")
      File.rm!(helper)
      File.write!(helper, "#!/bin/sh\necho from another time; exit 3\n")
      File.chmod!(helper, 0o755)
      assert {found, true} = examine(build)
      assert {:failed, seen, _} = found.helper
      assert seen =~ "exits with status 3, and says: from another time"
      assert {:failed, _, _} = found.application

      File.write!(helper, "#!/bin/sh\nexit 8\n")
      assert {%{helper: {:failed, seen, _}}, true} = examine(build)
      assert seen =~ "exits with status 8, and says nothing"
    end

    test "whose library does not load says why", context do
      build = build(context)
      library = Path.join(build, "priv/net_runner_nif.so")
      File.rm!(library)
      File.write!(library, "no library")
      assert {found, true} = examine(build)
      assert {:failed, seen, _} = found.library
      assert seen =~ "NetRunner's native library does not load"
      assert {:failed, seen, _} = found.application
      assert seen =~ "does not load"
      assert {:ok, _, _} = found.helper
      assert {:ok, _, _} = found.pidfd
    end
  end

  describe "a filter of system calls" do
    # The helper program behind it, for both of its roles.
    defp filtered(context, calls) do
      helper = Path.join(context.directory, "helper#{System.unique_integer([:positive])}")
      script = Path.expand("../../support/filtered_helper.py", __DIR__)
      python = System.find_executable("python3")
      real = Application.app_dir(:net_runner, "priv/net_runner_shepherd")
      command = [python, "-S", "-E", script, real] ++ calls ++ ["--"]
      File.write!(helper, "#!/bin/sh\nexec #{Enum.join(command, " ")} \"$@\"\n")
      File.chmod!(helper, 0o755)
      "Application.put_env(:net_runner, :helper, #{inspect(helper)})"
    end

    test "that refuses subreapers takes away what the guarantees need", context do
      build = Application.app_dir(:net_runner)
      assert {found, true} = examine(build, before: filtered(context, ["prctl=36"]))
      assert {:failed, "refused (EPERM)", advice} = found.subreaper
      assert advice =~ "seccomp"
      assert {:failed, seen, _} = found.application
      assert seen =~ "prctl(PR_SET_CHILD_SUBREAPER) failed"
    end

    test "that refuses pidfds, close_range and Landlock takes away other things", context do
      calls = ~w(pidfd_open close_range landlock_create_ruleset)
      build = Application.app_dir(:net_runner)
      assert {found, false} = examine(build, before: filtered(context, calls))
      assert {:warning, "refused (EPERM)", advice} = found.pidfd
      assert advice =~ "to: :tree"
      assert {:warning, "refused (EPERM)", _} = found.close_range
      assert {:warning, seen, advice} = found.landlock
      assert seen == "the sandbox cannot limit filesystem, ports, signals"
      assert advice =~ "needs Landlock, which this kernel does not have"
      assert {:ok, _, _} = found.leftovers
    end
  end

  test "few descriptors are worth a warning", context do
    assert {found, false} = examine(build(context), prefix: ["prlimit", "--nofile=200:200"])
    assert {:warning, seen, advice} = found.descriptors
    assert seen =~ ~r/^RLIMIT_NOFILE is 200: about \d\d commands at once$/
    assert advice =~ "LimitNOFILE"
  end

  unless Tree.root?(), do: @tag(skip: "becoming another user needs root")

  test "another user may lack cgroups and large pipes, and commands work", context do
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    # 16 pages each, of fs.pipe-user-pages-soft.
    pages = String.to_integer(String.trim(File.read!("/proc/sys/fs/pipe-user-pages-soft")))
    fill = "pipes = for _ <- 1..#{div(pages, 16) + 100}, do: NetRunner.System.Native.pipe()"
    start = "{:ok, _} = Application.ensure_all_started(:net_runner)"
    before = "#{start}\n#{fill}\nProcess.put(:pipes, pipes)"
    assert {found, false} = examine(build(context), prefix: user, before: before)
    assert {:ok, _, _} = found.commands
    assert {:ok, _, _} = found.leftovers
    assert {:ok, "the :net_runner application was started", nil} = found.application
    assert {:warning, seen, advice} = found.pipes
    assert seen =~ "less than 65536 bytes"
    assert advice =~ "fs.pipe-user-pages-soft"
    assert {:warning, _, advice} = found.cgroups
    assert advice =~ "Delegate=yes"
  end

  unless Tree.root?(), do: @tag(skip: "a PID namespace needs root")

  test "a container's VM is seen to be in one, and to be process 1", context do
    assert {found, false} = examine(build(context), prefix: ~w(unshare --pid --fork --mount-proc))

    assert {:ok, seen, nil} = found.container
    assert seen =~ "in a container (a PID namespace of its own); the VM is process 1"
    assert {:ok, _, _} = found.leftovers
    assert {:ok, _, _} = found.proc

    # One that has the /proc of the machine.
    assert {found, false} = examine(build(context), prefix: ~w(unshare --pid --fork))
    assert {:warning, _, advice} = found.proc
    assert advice =~ "mount -t proc proc /proc"
  end
end
