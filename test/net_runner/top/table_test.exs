defmodule NetRunner.Top.TableTest do
  use ExUnit.Case, async: true

  alias NetRunner.Process.Listing
  alias NetRunner.Top.{Table, Usage}

  @start ~U[2026-01-01 12:00:00.000000Z]

  defp entry(os_pid, command \\ ["yes"]) do
    %Listing{
      pid: :erlang.list_to_pid(~c"<0.#{rem(os_pid, 1_000)}.0>"),
      os_pid: os_pid,
      command: command,
      started_at: @start,
      bytes: %{in: 5, out: 1_200_000_000, err: 100_000_000}
    }
  end

  defp usage(cpu_ms), do: %Usage{state: "running", cpu_ms: cpu_ms, memory: 1_234_567}

  defp sample(seconds, commands),
    do: %{at: DateTime.add(@start, seconds), ms: seconds * 1_000, commands: commands}

  test "without an earlier look, the CPU is that since the start" do
    now = sample(62, [{entry(41_225), usage(31_000)}, {entry(7, ["gzip", "-9"]), nil}])

    assert Table.lines(nil, now, 100, :infinity) == [
             "     PID      TIME    CPU    MEMORY        IN       OUT STATE    COMMAND",
             "   41225      1:02    50%    1.2 MB       5 B    1.3 GB running  yes",
             "       7      1:02      -         -       5 B    1.3 GB -        gzip -9",
             "2 commands are running."
           ]
  end

  test "after one, it is that since then" do
    earlier = sample(60, [{entry(1), usage(31_000)}, {entry(2), nil}])
    now = sample(62, for(pid <- 1..3, do: {entry(pid), usage(32_900)}))

    cpu =
      for line <- Table.lines(earlier, now, 100, :infinity), do: Enum.at(String.split(line), 2)

    assert cpu == ["CPU", "95%", "53%", "53%", "are"]
    # Something has ended, and what it used is not with the others.
    assert [_, line, _] = Table.lines(now, sample(63, [{entry(1), usage(1)}]), 100, :infinity)
    assert line =~ " 0% "
  end

  test "what does not fit is cut, and counted" do
    commands = for pid <- 1..30, do: {entry(pid, ["echo", String.duplicate("é", 200)]), usage(1)}
    lines = Table.lines(nil, sample(1, commands), 80, 24)
    assert length(lines) == 22
    assert List.last(lines) == "30 commands are running; 10 do not fit."
    for line <- lines, do: assert(String.length(line) <= 80)
    assert Table.lines(nil, sample(1, []), 80, 24) |> List.last() == "No command is running."
    assert Table.lines(nil, sample(1, commands), 10, 1) |> length() == 3
  end

  test "a command cannot do anything to the terminal" do
    command = ["sh", "-c", "printf '\e[2J\a'\nls", "\u009b2J"]

    text =
      nil |> Table.lines(sample(1, [{entry(1, command), nil}]), 200, :infinity) |> Enum.join("\n")

    refute String.replace(text, "\n", "") =~ ~r/[[:cntrl:]]/u
    refute text =~ "\u009b"
    assert text =~ "[2J"
  end
end
