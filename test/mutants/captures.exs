# What a capture keeps and tells, tokens, lines by other separators, and what is logged and told of an end.
capture = "test/net_runner/run/capture_test.exs"
kept = "test/net_runner/run/kept_test.exs"
lines = "test/net_runner/run/lines_test.exs"
stream = "test/net_runner/run/stream_test.exs"
cmd = "test/net_runner/run/cmd_test.exs"
result = "test/net_runner/result_test.exs"
telemetry = "test/net_runner/telemetry_test.exs"

server = [
  {"an_exit_that_was_not_heard_is_a_cancellation",
   "    state |> listen() |> and_then(&life(&1, {:end, {:asked, why}, :stay}))",
   "    life(state, {:end, {:asked, why}, :stay})", [capture]},
  {"a_timeout_that_nobody_sees_is_not_logged", "    |> and_then(&tell_unseen/1)\n", "", [stream]}
]

captures = [
  {"an_idle_command_goes_on",
   "        :ok = Server.end_captured(capture.server, :idle_timeout)\n", "", [capture]},
  {"a_command_that_prints_too_much_goes_on", "if kept.exceeded != before.exceeded,",
   "if kept.exceeded == :never,", [capture]},
  {"a_callback_that_raises_leaves_the_command",
   "      watch = Input.watch(feeder)\n      _ = Command.stop(server)\n      Progress.stop(capture.progress)\n      _ = Input.await_end(watch)\n",
   "      _ = feeder\n", [capture]},
  {"a_limit_seen_after_the_exit_is_none",
   "      capture.kept.exceeded != nil -> {:output_limit, capture.kept.exceeded}\n", "",
   [capture]},
  {"a_command_that_is_not_let_go_has_ended",
   "  defp outcome(_capture, {:error, {:not_ended, _}}, _account, _failure), do: :not_ended\n",
   "", ["test/guarantees/dead_file_system_test.exs"]},
  {"the_end_of_a_consumed_stderr_is_lost",
   "    capture = keep_consumed(capture, consumed, account)\n", "", [capture]},
  {"the_token_is_forgotten_before_the_start",
   "    with false <- CancelToken.cancelled?(options.cancel),", "    with false <- false,",
   [capture]}
]

tokens = [
  {"a_token_is_lost_in_an_upgrade",
   "register(token, server)\n    :erlang.hibernate(__MODULE__, :await_end, [token, server, monitor])",
   "register(token, server)\n    await_end(token, server, monitor)",
   ["test/guarantees/upgrade_test.exs"]},
  {"a_token_is_lost_with_its_registry", "or match?({:EXIT, _, _}, message)",
   "or match?({:never, _, _}, message)", ["test/net_runner/system/node_test.exs"]},
  {"a_token_ends_nothing_that_runs",
   "    for server <- Registry.get({:token, ref}), do: Server.end_captured(server, :cancelled)\n",
   "_ = ref\n", [capture]},
  {"a_token_that_was_cancelled_while_the_command_started_is_missed",
   "if cancelled?(token), do: Server.end_captured(server, :cancelled)", ":ok", [capture]},
  {"a_token_stays_attached", "      {:DOWN, ^monitor, _, _, _} ->\n",
   "      {:never, ^monitor} ->\n", [capture]}
]

keeping = [
  {"what_was_dropped_is_not_counted", "&(&1 + size - fits)", "&(&1 + 0 * (size - fits))", [kept]},
  {"the_later_limit_is_named", "exceeded: kept.exceeded || if(fits < size,",
   "exceeded: (fits < size && nil) || if(fits < size,", [kept, capture]},
  {"the_limit_of_both_streams_is_not_used", "total: less(left.total, fits)", "total: left.total",
   [kept]},
  {"neighbours_are_apart",
   "  defp put({:interleaved, [{stream, piece} | pieces]}, stream, bytes),\n    do: {:interleaved, [{stream, piece <> bytes} | pieces]}\n",
   "", [kept, capture]},
  {"the_end_of_a_stream_is_never_cut", "if byte_size(tail) > 2 * size + @slack,",
   "if byte_size(tail) < 0,", [kept]}
]

splitting = [
  {"a_separator_that_is_cut_is_missed",
   "    held = min(byte_size(rest), byte_size(separator) - 1)",
   "    held = min(0, byte_size(rest))", [lines]},
  {"what_is_held_back_is_lost_at_the_end", "Enum.reverse([held | pieces])",
   "Enum.reverse(pieces)", [lines]}
]

for {file, mutants} <- [
      {"lib/net_runner/process/server.ex", server},
      {"lib/net_runner/process/state.ex",
       [
         {"a_captured_command_that_is_ended_loses_its_output",
          "  def cause(_captured, why), do: {:asked, why}",
          "  def cause(_captured, why), do: why", [capture]}
       ]},
      {"lib/net_runner/run/capture.ex", captures},
      {"lib/net_runner/run/cancel_token.ex", tokens},
      {"lib/net_runner/run/kept.ex", keeping},
      {"lib/net_runner/run/lines.ex", splitting},
      {"lib/net_runner/run/stream.ex",
       [
         {"a_status_that_nobody_sees_is_not_logged", "        log_failure(stream, statuses)\n",
          "", [stream]},
         {"a_chunk_is_as_large_as_it_likes",
          "      chunk: if(lines, do: @chunk_of_lines, else: options.max_chunk_size),",
          "      chunk: @chunk_of_lines,", [stream]}
       ]},
      {"lib/net_runner/run/cmd.ex",
       [
         {"the_application_is_not_started", "      :ok = start_application()\n", "", [cmd]},
         {"a_value_of_the_environment_is_shown",
          "      not utf8?(value) -> invalid_env(\"the value of \#{inspect(name)} is not a UTF-8 string\")",
          "      not utf8?(value) -> invalid_env(\"\#{inspect(value)}\")", [cmd]}
       ]},
      {"lib/net_runner/result.ex",
       [
         {"a_timeout_that_ends_well_is_well",
          "  def ok?(%__MODULE__{outcome: :ended, status: 0}), do: true",
          "  def ok?(%__MODULE__{status: 0}), do: true", [result]}
       ]}
    ],
    {id, old, new, tests} <- mutants,
    do: %{id: id, file: file, old: old, new: new, tests: tests}
