defmodule Soak.Runner do
  @moduledoc false
  # Rounds of actions by a few workers; after each, a look at what is left, and a sample.

  alias NetRunner.Guarantees.Nodes
  alias Soak.{Actions, Harm, Peer, Plan, Proc, Watch}

  @workers 8

  # An action that takes longer hangs.
  @longest_action 300_000

  # Errors that a start may give while the helpers are being replaced.
  @of_storms [:shepherd_died, :launcher_died, :not_started]

  def new(directory) do
    harm = Harm.new()
    epmd = "ERL_EPMD_PORT" |> System.fetch_env!() |> String.to_integer() |> Nodes.start_epmd()
    cgroup = NetRunner.Guarantees.Tree.cgroup_root()

    %{
      harm: harm,
      peer: Peer.start(epmd),
      cgroup: cgroup,
      root?: NetRunner.Guarantees.Tree.root?(),
      directory: directory
    }
  end

  @doc "What cannot be done here, and why."
  def not_possible(context) do
    if(context.cgroup, do: [], else: ["run_cgroup: no cgroup v2 that can be written is mounted"]) ++
      if(context.root?, do: [], else: ["run_user: becoming another user needs root"])
  end

  @doc "Runs for so long, writes the samples to a file, and gives the findings."
  def run(context, seed, milliseconds, csv) do
    begin = now()
    # In memory, the samples themselves would grow.
    {:ok, file} = File.open(csv, [:write, :raw])
    :ok = :file.write(file, "metric,milliseconds,value,who\n")
    run = %{file: file, findings: [], excused: 0, round: 0}
    rounds(context, seed, begin, begin + milliseconds, run)
  end

  defp rounds(context, seed, begin, until, run) do
    results = round(context, seed, run.round)
    left = for what <- Watch.settle(context), do: {:left, what}

    lines =
      for {name, value, who} <- Watch.sample(), do: "#{name},#{now() - begin},#{value},#{who}\n"

    :ok = :file.write(run.file, lines)

    findings = for({:finding, text} <- results, do: text) ++ left

    for finding <- findings,
        do:
          IO.puts(
            "FINDING in round #{run.round}: #{inspect(finding, limit: :infinity, printable_limit: 2_000)}"
          )

    run = %{
      run
      | findings: run.findings ++ findings,
        excused: run.excused + Enum.count(results, &(&1 == :excused)),
        round: run.round + 1
    }

    progress(run, begin)

    # What is left would be found again and again.
    if left != [] or :hangs in results or now() >= until,
      do: Map.delete(run, :file),
      else: rounds(restarted(context, run.round - 1), seed, begin, until, run)
  end

  defp now, do: System.monotonic_time(:millisecond)

  defp progress(run, begin) do
    if rem(run.round, 10) == 0 do
      seconds = div(now() - begin, 1_000)
      actions = run.round * Plan.round_size()
      memory = div(:erlang.memory(:total), 1024)

      IO.puts(
        "#{seconds} s: #{actions} actions, #{length(run.findings)} findings, #{run.excused} excused, " <>
          "#{memory} KiB, #{Proc.fds()} descriptors"
      )
    end
  end

  # --- a round --------------------------------------------------------------------------------------

  defp round(context, seed, round) do
    first = round * Plan.round_size()

    first..(first + Plan.round_size() - 1)
    |> Task.async_stream(&attempt(context, seed, &1),
      max_concurrency: @workers,
      timeout: :infinity,
      ordered: false
    )
    |> Enum.flat_map(fn {:ok, results} -> results end)
  end

  @doc "Does one action; gives what was wrong."
  def attempt(context, seed, number) do
    {kind, x} = Plan.action(seed, number)
    before = Harm.now(context.harm)
    {pid, monitor} = spawn_monitor(fn -> exit(do_action(kind, x, context)) end)

    result =
      receive do
        {:DOWN, ^monitor, :process, _, reason} -> reason
      after
        @longest_action -> hangs(pid, monitor)
      end

    case result do
      :done ->
        []

      {:raised, kind_of_error, error, stack} ->
        if excused?(Harm.since(context.harm, before), error),
          do: [:excused],
          else: [finding(kind, x, Exception.format(kind_of_error, error, stack))]

      {:hangs, where} ->
        [finding(kind, x, "hangs: #{inspect(where)}"), :hangs]

      # Linked to something that died.
      reason ->
        [finding(kind, x, "died: #{inspect(reason)}")]
    end
  end

  defp finding(kind, x, text),
    do: {:finding, "action #{x.number} (#{kind}, #{inspect(x)}): #{text}"}

  defp do_action(kind, x, context) do
    Actions.perform(kind, x, context)

    case Process.info(self(), :messages) do
      {:messages, []} -> :done
      {:messages, messages} -> {:raised, :error, {:messages_left, messages}, []}
    end
  catch
    kind_of_error, error -> {:raised, kind_of_error, error, __STACKTRACE__}
  end

  defp hangs(pid, monitor) do
    where = Process.info(pid, [:current_stacktrace, :messages, :links])
    Process.exit(pid, :kill)
    receive do: ({:DOWN, ^monitor, :process, _, _} -> {:hangs, where})
  end

  # What a deadly storm ended is seen in many ways. That nothing is left is looked at all the same.
  defp excused?(:deadly, error), do: error != {:badmatch, :late}
  defp excused?(:calm, _error), do: false
  defp excused?(:storm, error), do: of_storm?(error)

  # The error may have come a long way.
  defp of_storm?(%NetRunner.Error{reason: reason}), do: of_storm?(reason)

  defp of_storm?({kind, error}) when kind in [:badmatch, :case_clause, :error],
    do: of_storm?(error)

  defp of_storm?({:command, _index, reason}), do: of_storm?(reason)
  defp of_storm?({error, stack}) when is_list(stack), do: of_storm?(error)
  defp of_storm?(reason), do: reason in @of_storms

  # --- the application ------------------------------------------------------------------------------

  # All helpers end, and nothing of the application stays.
  defp restarted(context, round) do
    if Plan.restart_after?(round) do
      :ok = stop_application(context)
      {:ok, _} = Application.ensure_all_started(:net_runner)
    end

    context
  end

  @doc "Stops it, and waits for the end of the helpers."
  def stop_application(context) do
    sessions = Harm.sessions(context.harm)
    :ok = Application.stop(:net_runner)
    Proc.await(fn -> NetRunner.Guarantees.Tree.helpers(%{sessions: sessions}) == [] end)
  end
end
