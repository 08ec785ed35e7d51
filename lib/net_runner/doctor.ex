defmodule NetRunner.Doctor do
  @moduledoc """
  Says what works on this machine, and what to do where something does not.

  In a project, `mix net_runner.doctor` prints it. In a release, where there is no Mix:

      bin/my_app eval "NetRunner.Doctor.print()"
      bin/my_app eval "NetRunner.Doctor.print() == :ok || System.halt(1)"     # for a health check

  It finds out by trying: it runs commands, leaves a process behind and looks whether it is ended, opens a terminal, makes a
  cgroup and starts a shell in each kind of sandbox. That takes a second or two. It starts the `:net_runner` application if it is not
  started. It also works when the native library does not load: then it says why.

      iex> findings = NetRunner.Doctor.examine()
      iex> for %{topic: :commands} = finding <- findings, do: {finding.state, finding.seen}
      [ok: "a shell ran, and its output and status arrived"]
  """

  alias NetRunner.Doctor.{Examination, Finding}

  @doc """
  Finds out what works here: a list of `NetRunner.Doctor.Finding`.

  The topics depend on the machine: where no command can be run, what needs one is left out.

      iex> hd(NetRunner.Doctor.examine()).topic
      :versions
  """
  @spec examine() :: [Finding.t()]
  # In a process of its own: the ports of `System.cmd/3` leave a message in one that traps exits.
  def examine do
    {caller, answer} = {self(), make_ref()}
    {_pid, monitor} = spawn_monitor(fn -> send(caller, {answer, Examination.run()}) end)

    receive do
      {^answer, findings} ->
        Process.demonitor(monitor, [:flush])
        findings

      {:DOWN, ^monitor, _, _, reason} ->
        exit(reason)
    end
  end

  @doc """
  Prints what works here, and what to do where something does not: the `report/1` of `examine/0`. `:failed` where `failed?/1`
  says so.
  """
  @spec print() :: :ok | :failed
  def print do
    findings = examine()
    findings |> report() |> IO.puts()
    if failed?(findings), do: :failed, else: :ok
  end

  @doc """
  Whether something failed that `docs/guarantees.md` rests on.

      iex> NetRunner.Doctor.failed?([%NetRunner.Doctor.Finding{topic: :terminals, state: :warning, seen: "none"}])
      false
  """
  @spec failed?([Finding.t()]) :: boolean()
  def failed?(findings), do: Enum.any?(findings, &(&1.state == :failed))

  # Columns of the report, and of its first two.
  @width 110
  @indent 28

  @doc """
  Findings as text, for a terminal.

      iex> missing = %NetRunner.Doctor.Finding{topic: :terminals, state: :warning, seen: "none", advice: "mount devpts"}
      iex> NetRunner.Doctor.report([missing]) |> String.split("\\n") |> Enum.map(&String.trim/1) |> Enum.take(2)
      ["warning  terminals         none", "To do: mount devpts"]
  """
  @spec report([Finding.t()]) :: String.t()
  def report(findings), do: Enum.map_join(findings, &row/1) <> "\n" <> summary(findings)

  defp row(finding) do
    state = finding.state |> mark() |> String.pad_trailing(9)
    topic = finding.topic |> Atom.to_string() |> String.replace("_", " ")
    beginning = "  " <> state <> String.pad_trailing(topic, @indent - 11)
    advice = if finding.advice, do: ["To do: " <> finding.advice], else: []
    [first | rest] = Enum.flat_map([finding.seen | advice], &wrap/1)
    Enum.map_join([beginning <> " " <> first | Enum.map(rest, &indent/1)], &(&1 <> "\n"))
  end

  defp mark(:failed), do: "FAILED"
  defp mark(state), do: Atom.to_string(state)

  defp indent(line), do: String.duplicate(" ", @indent + 1) <> line

  # Into lines that fit beside the first two columns.
  defp wrap(text) do
    text
    |> String.split()
    |> Enum.reduce([], fn
      word, [line | lines] when byte_size(line) + byte_size(word) < @width - @indent ->
        [line <> " " <> word | lines]

      word, lines ->
        [word | lines]
    end)
    |> Enum.reverse()
  end

  defp summary(findings) do
    case {count(findings, :failed), count(findings, :warning)} do
      {0, 0} ->
        "Everything works here."

      {0, warnings} ->
        "All that NetRunner's guarantees need works here; #{things(warnings, "other thing")} not."

      {failures, _} ->
        "NetRunner cannot keep its guarantees here: #{things(failures, "thing")} not work that must."
    end
  end

  defp count(findings, state), do: Enum.count(findings, &(&1.state == state))

  defp things(1, noun), do: "1 #{noun} does"
  defp things(number, noun), do: "#{number} #{noun}s do"
end
