defmodule Soak.Plan do
  @moduledoc false
  # What a run does: action number N of a seed is always the same, whatever happened before it.

  # How often each kind is done, beside the others.
  @usual [
    run_true: 40,
    run_input: 20,
    run_enumerable: 8,
    run_function: 6,
    run_input_fails: 4,
    run_timeout: 10,
    run_limit: 6,
    run_refused: 8,
    run_status: 10,
    run_wide: 2,
    run_options: 8,
    run_files: 6,
    run_user: 2,
    run_cgroup: 4,
    run_leftovers: 8,
    run_leave: 6,
    cmd: 6,
    stream_all: 10,
    stream_early: 10,
    stream_lines: 8,
    stream_crash: 6,
    stream_tagged: 6,
    stream_abandoned: 4,
    pipeline: 8,
    pipeline_early: 4,
    pipeline_refused: 2,
    process_talk: 12,
    process_parked: 6,
    process_signals: 8,
    process_unread: 6,
    process_outputs: 6,
    process_writer_crash: 6,
    process_listing: 4,
    server_crash: 8,
    owner_crash: 10,
    shepherd_crash: 8,
    shape_crash: 2,
    pty_talk: 8,
    pty_signal: 4,
    daemon: 6,
    daemon_exit: 3,
    daemon_crash: 3,
    peer_run: 4,
    peer_process: 3,
    peer_caller_crash: 2,
    peer_cut: 2,
    peer_crash: 1
  ]

  # What harms the helpers that all commands share.
  @storms [
    idle_crash: 8,
    launcher_crash: 3,
    guard_crash: 3,
    both_crash: 3,
    launcher_server_crash: 1,
    launcher_stopped: 3
  ]

  # Numbers of actions between two samples.
  @round 300

  # The phases of so many rounds: in stormy ones, helpers are harmed; then come usual ones; in the rest, the gentle ones,
  # nothing is done that costs a shepherd its life, so that each serves thousands of commands and its memory can be followed. (It
  # keeps what the largest specification took, so there are no large ones.)
  @period 50
  @stormy 6
  @usual_until 25

  @gentle ~w(run_true run_input run_enumerable run_function run_status run_options run_files stream_all
             stream_lines stream_tagged pipeline process_talk process_outputs process_listing pty_talk)a

  def round_size, do: @round
  def kinds, do: Keyword.keys(@usual ++ @storms)
  def storms, do: Keyword.keys(@storms)

  @doc "The phase that this action is in."
  def phase(number) do
    case rem(div(number, @round), @period) do
      round when round < @stormy -> :stormy
      round when round < @usual_until -> :usual
      _ -> :gentle
    end
  end

  @doc "Whether the application is restarted after this round."
  def restart_after?(round), do: rem(round, @period) == @stormy - 1

  @doc "What the action with this number is: its kind, and what it needs to choose."
  def action(seed, number) do
    state = :rand.seed_s(:exsss, {seed, number, 0})
    weights = weights(phase(number))
    total = weights |> Keyword.values() |> Enum.sum()
    {at, state} = :rand.uniform_s(total, state)
    {choice, state} = :rand.uniform_s(1_000, state)
    {count, state} = :rand.uniform_s(8, state)
    {pause, state} = :rand.uniform_s(40, state)
    # Up to 2 MiB, small ones as often as large ones.
    {exponent, state} = :rand.uniform_s(22, state)
    {size, _} = :rand.uniform_s(Integer.pow(2, exponent - 1), state)

    {kind(weights, at),
     %{number: number, choice: choice - 1, count: count, pause: pause, size: size}}
  end

  defp weights(:stormy), do: @usual ++ @storms
  defp weights(:usual), do: @usual
  defp weights(:gentle), do: Keyword.take(@usual, @gentle)

  defp kind([{kind, weight} | _], at) when at <= weight, do: kind
  defp kind([{_, weight} | rest], at), do: kind(rest, at - weight)
end
