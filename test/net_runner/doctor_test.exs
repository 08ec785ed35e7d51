defmodule NetRunner.DoctorTest do
  # What it says of this machine and this VM, and how.
  use ExUnit.Case, async: false

  import ExUnit.CaptureIO

  alias NetRunner.Doctor
  alias NetRunner.Doctor.Finding
  alias NetRunner.Guarantees.Tree

  # It runs commands that only Linux has.
  @moduletag Tree.linux_only()

  unless Tree.needs_linux(), do: doctest(Doctor)

  test "of this machine it says that commands and guarantees work" do
    findings = Doctor.examine()
    refute Doctor.failed?(findings)
    states = for finding <- findings, do: {finding.topic, finding.state}

    for topic <- ~w(versions library helper application commands leftovers subreaper)a,
        do: assert({topic, :ok} in states)

    assert length(Enum.uniq_by(findings, & &1.topic)) == length(findings)

    for finding <- findings do
      assert %Finding{seen: seen} = finding
      assert String.printable?(seen) and seen != ""
      assert finding.state == :ok or is_binary(finding.advice)
    end

    # A cgroup without the limits that everybody wants is not all right.
    cgroups = Enum.find(findings, &(&1.topic == :cgroups))

    with [_, limits] <- Regex.run(~r/limits there: ([^;]*)/, cgroups.seen) do
      usable? = ~w(memory pids) -- String.split(limits, ", ") == []
      assert cgroups.state == if(usable?, do: :ok, else: :warning)
    end

    # One screen, and nothing is left behind.
    report = Doctor.report(findings)
    assert report |> String.split("\n") |> Enum.map(&String.length/1) |> Enum.max() <= 120
    assert Path.wildcard("/sys/fs/cgroup/**/net_runner_doctor_#{System.pid()}_*") == []
    Tree.await(&Tree.at_rest?/0, 60_000, &Tree.helpers/0)
  end

  test "leaves no message in a process that traps exits" do
    Process.flag(:trap_exit, true)
    _ = NetRunner.Doctor.examine()
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "the report has a line for each finding, and says at the end whether all is well" do
    ok = %Finding{topic: :commands, state: :ok, seen: "seen"}
    warning = %Finding{topic: :close_range, state: :warning, seen: "x", advice: "do it"}
    failed = %Finding{topic: :library, state: :failed, seen: String.duplicate("long ", 40)}
    assert Doctor.report([ok]) =~ ~r/^  ok       commands +seen\n\nEverything works here.$/

    assert Doctor.report([ok, warning]) =~
             ~r/^  warning  close range +x\n +To do: do it\n.*1 other thing does not.$/ms

    assert Doctor.report([warning, warning]) =~ "2 other things do not."
    assert Doctor.report([failed, warning]) =~ ~r/^  FAILED   library +long long .*\n +long/

    assert Doctor.report([failed]) =~
             "NetRunner cannot keep its guarantees here: 1 thing does not"

    refute Doctor.failed?([ok, warning])
    assert Doctor.failed?([ok, failed])
  end

  test "cargo is not needed where a precompiled native part is configured, and not turned off" do
    on_exit(fn ->
      Application.delete_env(:net_runner, :precompiled)
      System.delete_env("NET_RUNNER_PRECOMPILED")
    end)

    for {configured, variable, needed?} <- [
          {nil, nil, true},
          {false, nil, true},
          {[from: "/x"], nil, false},
          {[from: "/x"], "false", true},
          {nil, "/x", false}
        ] do
      Application.put_env(:net_runner, :precompiled, configured)
      if variable, do: System.put_env("NET_RUNNER_PRECOMPILED", variable)
      seen = Enum.find(Doctor.examine(), &(&1.topic == :cargo)).seen
      assert {configured, variable, seen =~ "not needed"} == {configured, variable, not needed?}
      System.delete_env("NET_RUNNER_PRECOMPILED")
    end
  end

  describe "the mix task" do
    setup do
      Mix.shell(Mix.Shell.Process)
      on_exit(fn -> Mix.shell(Mix.Shell.IO) end)
    end

    test "prints the report" do
      assert Mix.Tasks.NetRunner.Doctor.run([]) == nil
      assert_received {:mix_shell, :info, [report]}
      assert report =~ "a shell ran"
      assert capture_io(fn -> assert Doctor.print() == :ok end) =~ "a shell ran"
    end

    test "exits with 1 when something failed" do
      Application.put_env(:net_runner, :helper, "/no/such/helper")
      on_exit(fn -> Application.delete_env(:net_runner, :helper) end)
      assert catch_exit(Mix.Tasks.NetRunner.Doctor.run([])) == {:shutdown, 1}
      assert_received {:mix_shell, :info, [report]}
      assert report =~ ~r/FAILED +helper +.*no such file/
    end

    test "takes no arguments" do
      assert_raise Mix.Error, ~r/no arguments/, fn ->
        Mix.Tasks.NetRunner.Doctor.run(["--help"])
      end
    end
  end
end
