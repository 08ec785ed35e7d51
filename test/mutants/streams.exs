# What is read and written: queues, pipes, what is collected, what is counted.
callers = "test/net_runner/process/callers_test.exs"
process = "test/net_runner/process_test.exs"
run = "test/net_runner_test.exs"
ending = "test/guarantees/ending_test.exs"
schedules = "test/net_runner/process/server_test.exs"
input = "test/net_runner/run/input_test.exs"
guest = "test/net_runner/process/guest_test.exs"

inlet = [
  {"a_write_overtakes_one_that_waits", "do: Operations.any?(inlet.queue, [:stdin])",
   "do: Operations.any?(inlet.queue, [:none])", [process, schedules]},
  {"the_rest_of_a_dead_callers_first_write_is_dropped",
   "park(from, {:begun, rest, done}, timeout)", "park(from, {:fresh, rest}, timeout)", [callers]},
  {"the_rest_of_a_dead_callers_later_write_is_dropped",
   "Operations.update(inlet.queue, operation, {:begun, rest, done + now})",
   "Operations.update(inlet.queue, operation, (_ = done; {:fresh, rest}))",
   [process, schedules, callers]},
  {"a_write_cut_at_first_hangs", "{:wait, inlet, [{:again, :stdin}]}", "{:wait, inlet, []}",
   [callers]},
  {"a_write_cut_later_hangs", "{%{inlet | queue: queue}, [{:again, :stdin}]}",
   "{%{inlet | queue: queue}, []}", [callers]},
  {"stdin_is_not_closed", "    Native.close(inlet.stdin)\n", "", [process]},
  {"a_closed_stdin_is_broken",
   "def write(%{stdin: :closed} = inlet, _, _, _), do: {:reply, {:error, :closed}, inlet}",
   "def write(%{stdin: :closed} = inlet, _, _, _), do: {:reply, {:error, :epipe}, inlet}",
   [process]},
  {"iodata_has_no_end", "|> park(nil, {:fresh, iovec}) |> park(nil, :close) |> serve()",
   "|> park(nil, {:fresh, iovec}) |> serve()", [run]},
  {"what_lies_in_the_window_is_overtaken", "    inlet = queue_window(inlet)\n\n    cond do",
   "    cond do", [input]},
  {"the_end_of_the_input_overtakes_the_window", "inlet |> queue_window() |> park(from, :close)",
   "inlet |> park(from, :close)", [input]},
  {"the_window_is_forgotten_after_a_wait", "nil -> inlet |> let_guests_in() |> serve_window()",
   "nil -> {let_guests_in(inlet), []}", [input]},
  {"a_window_is_taken_while_others_wait",
   "do: if(waiting?(inlet), do: {inlet, []}, else: serve(inlet))",
   "do: inlet |> queue_window() |> serve()", [input]},
  {"a_waiting_write_hangs_after_the_exit",
   "do: serve(%{send_guests_away(inlet) | readers: :gone})",
   "do: {%{send_guests_away(inlet) | readers: :gone}, []}", [callers]},
  {"a_write_after_the_exit_waits_for_a_stranger",
   "  def write(%{readers: :gone} = inlet, _, _, _), do: {:reply, {:error, :epipe}, inlet}\n", "",
   [callers]},
  {"a_queued_write_after_the_exit_waits_for_a_stranger",
   "  defp serve_write(%{readers: :gone} = inlet, operation, _iovec, _done),\n    do: answer(inlet, operation, {:error, :epipe})\n",
   "", [callers]},
  {"a_dead_writer_keeps_others_waiting",
   "        Caller.forget(operation)\n        serve(%{inlet | queue: queue})",
   "        Caller.forget(operation)\n        {%{inlet | queue: queue}, []}", [callers]},
  {"one_end_of_file_in_the_middle_of_a_line", "else: <<character, character>>",
   "else: <<character>>", [process]},
  {"a_terminals_line_never_begins", "do: :at_start, else: :begun",
   "do: :at_start, else: :at_start", [process]},
  {"a_guest_writes_to_a_stranger", "serve(%{send_guests_away(inlet) | readers: :gone})",
   "serve(%{inlet | readers: :gone})", [guest]},
  {"the_next_writer_is_not_served",
   "{inlet, effects} = serve(%{inlet | queue: Operations.finish(inlet.queue, operation)})",
   "{inlet, effects} = {%{inlet | queue: Operations.finish(inlet.queue, operation)}, []}",
   [process]}
]

until = "test/net_runner/process/until_test.exs"
ask = "test/net_runner/process/ask_test.exs"
times = "test/net_runner/process/times_test.exs"

outlets = [
  {"what_was_collected_stays_though_nobody_gets_it", "do: %{operation | data: error}",
   "do: operation", ["test/net_runner/process/outlets_test.exs"]},
  {"a_guest_comes_before_what_is_kept", "asker: nil, stdout: %Outlet{kept: \"\", pipe: pipe}}",
   "asker: nil, stdout: %Outlet{pipe: pipe}}", [until]},
  {"a_stream_reads_on_while_somebody_looks", "if Pipe.keep_guests_out(outlet.pipe) do",
   "if true do", [until]},
  {"what_is_kept_is_not_discarded", "do: %{outlet | demand: {:discard, error}, kept: \"\"}",
   "do: %{outlet | demand: {:discard, error}}", [until]},
  {"an_asker_stays_first", "queue_asker(%{outlets | asker: %{asker | credit: asker.credit - 1}})",
   "queue_asker(%{outlets | asker: asker})", [ask]},
  {"an_exit_is_told_twice", "asker: %{asker | exit: :told}}", "asker: asker}", [ask]},
  {"an_expired_reader_keeps_others_waiting",
   "serve_all(%{outlets | queue: queue}) |> reply(operation, {:error, :timeout})",
   "{%{outlets | queue: queue}, []} |> reply(operation, {:error, :timeout})", [times]},
  {"a_dead_callers_read_is_served",
   "competes? = gone?(from) or Operations.any?(outlets.queue, competing(stream))",
   "competes? = Operations.any?(outlets.queue, competing(stream))", [callers]},
  {"a_dead_callers_read_any_is_served",
   "if gone?(from) or Operations.any?(outlets.queue, competing(:stdout)",
   "if Operations.any?(outlets.queue, competing(:stdout)", [callers]},
  {"a_waiting_dead_reader_is_served", "gone?(operation.from) -> outlets",
   "operation.from == nil -> outlets", [schedules]},
  {"read_any_overtakes_a_reader", "Enum.filter([:stdout, :stderr], first?)",
   "Enum.filter([:stdout, :stderr], &(first?.(&1) or true))", [callers]},
  {"stderr_starves", "{result, %{outlets | first: second}}", "{result, outlets}", [process]},
  {"an_end_of_one_stream_is_one_of_both",
   "      {:eof, outlets} when length(streams) == 1 -> serve_end(outlets, stream)\n", "",
   [callers]},
  {"an_end_behind_a_read_any_is_not_told",
   "{{:error, :eagain}, outlets} -> serve_end(outlets, stream)",
   "{{:error, :eagain}, outlets} -> {outlets, []}", [callers]},
  {"an_end_of_file_hides_what_comes", "defp worse(:eof, other), do: other",
   "defp worse(:eof, _other), do: :eof", [callers]},
  {"a_closed_stdout_is_the_end_of_the_command", "{end_of_file, %{writers: :running} = outlets}",
   "{end_of_file, %{writers: :never} = outlets}", [run, "test/net_runner/run/stream_test.exs"]},
  {"too_much_of_a_command_that_is_over_hangs", "defp break_off(%{writers: :running} = outlets,",
   "defp break_off(%{writers: _} = outlets,", [callers]},
  {"the_tail_grows", "keep = min(byte_size(tail), size - byte_size(bytes))",
   "keep = byte_size(tail)", ["test/net_runner/error_test.exs"]},
  {"stderr_is_drained_once", "{Map.replace!(outlets, stream, outlet), [{:again, stream}]}",
   "{Map.replace!(outlets, stream, outlet), []}", ["test/net_runner/error_test.exs", run]},
  {"what_is_discarded_is_discarded_once",
   "{{:ok, _bytes}, outlets} -> {outlets, [{:again, stream}]}",
   "{{:ok, _bytes}, outlets} -> {outlets, []}", [ending]},
  {"a_guest_goes_on_behind_a_gap", "    Counters.put_discarding(outlets.counters)\n    queue =",
   "    queue =", ["test/net_runner/process/outlets_test.exs"]},
  {"stderr_has_no_tail_after_an_end",
   "defp stop_reading(%Outlet{demand: :readers} = outlet, error)",
   "defp stop_reading(%Outlet{} = outlet, error)", [callers]},
  {"what_was_left_is_read_for_ever", "map(&%{&1 | left: Pipe.rest(&1.pipe)})",
   "map(&%{&1 | left: :infinity})", ["test/net_runner/process/outlets_test.exs"]},
  {"a_guest_reads_what_was_left_for_ever", "outlets |> send_guests_away() |> map(&%{&1 | left:",
   "outlets |> map(&%{&1 | left:", ["test/net_runner/process/outlets_test.exs"]},
  {"a_stranger_that_holds_the_pipe_is_waited_for",
   "when outlets.writers in [:gone, :lingering] ->", "when outlets.writers in [:lingering] ->",
   [callers]},
  {"what_was_left_is_waited_for", "when outlets.writers in [:gone, :lingering] ->",
   "when outlets.writers in [:gone] ->", [callers]},
  {"a_dead_reader_keeps_others_waiting",
   "        Caller.forget(operation)\n        serve_all(%{outlets | queue: queue})",
   "        Caller.forget(operation)\n        {%{outlets | queue: queue}, []}", [callers]},
  {"behind_a_read_any_only_readers_hear_of_an_end", "competing(stream) -- [:any, :collect]",
   "[stream]", [callers]},
  {"read_any_needs_both_streams", "      {{:error, :not_piped}, outlets} -> {:eof, outlets}\n",
   "", ["test/net_runner/process/options_test.exs", process]},
  {"the_pipes_of_a_command_given_up_stay_open",
   "map(%{outlets | received: nil}, &%{&1 | pipe: Pipe.close(&1.pipe)})",
   "map(%{outlets | received: nil}, & &1)", ["test/net_runner/process/outlets_test.exs"]},
  {"more_than_allowed_of_what_was_left", "Pipe.read(outlet.pipe, min(max_bytes, outlet.left))",
   "Pipe.read(outlet.pipe, max_bytes)", ["test/net_runner/process/outlets_test.exs"]},
  {"the_next_reader_is_not_served",
   "outlets |> finish(operation) |> serve(stream) |> reply(operation, result)",
   "{outlets |> finish(operation), []} |> reply(operation, result)", [process]}
]

collector = [
  {"exactly_the_limit_is_too_much", "if(size > collector.limit", "if(size >= collector.limit",
   [run]},
  {"too_much_output_of_what_has_exited_is_enough", "when size > limit do", "when size < 0 do",
   ["test/net_runner/telemetry_test.exs"]},
  {"more_than_the_limit_is_given", "0, limit)", "0, limit + 1)", [run]}
]

counters = [
  {"reads_of_stderr_are_not_counted", "read_count: reads + reads_of_stderr", "read_count: reads",
   ["test/net_runner/info_test.exs"]},
  {"stderr_is_counted_as_stdout", "= read(counters.stderr)", "= read(counters.stdout)",
   ["test/net_runner/info_test.exs"]}
]

pipe = [
  {"a_terminal_closes_at_its_first_end", ":eof when not pipe.terminal? ->", ":eof ->", [callers]}
]

guests = [
  {"a_guest_gives_what_is_discarded",
   "if Counters.discarding?(counters), do: :uninvited, else: {:ok, bytes}", "{:ok, bytes}",
   [guest]},
  {"who_was_turned_away_is_never_received", "Client.call(server, {:turned_away, request})",
   "Client.call(server, request)", [guest]}
]

pipeline = [
  {"a_pipeline_is_not_watched_after_an_upgrade",
   "{ref, :watching})\n    :erlang.hibernate(__MODULE__, :await_failure, [watched, monitor, request])",
   "{ref, :watching})\n    await_failure(watched, monitor, request)",
   ["test/guarantees/upgrade_test.exs"]},
  {"what_a_pipeline_leaves_is_not_told", "result = with :ok <- stop(members), do: result",
   "stop(members)", [ending]},
  {"what_the_stream_of_a_pipeline_leaves_is_not_told", "case left ++ condemned ++ lost do",
   "case condemned ++ left ++ lost do", [ending]}
]

stream = [
  {"a_stream_gives_more_than_allowed", "binary_part(bytes, 0, left))", "bytes)", [ending]},
  {"a_stream_takes_its_limit_for_too_much", "when byte_size(bytes) <= left,",
   "when byte_size(bytes) < left,", [ending, callers]},
  {"sigpipe_in_a_pipeline_is_a_failure", "(status != @sigpipe or member == last)",
   "(status != 0 or member == last)", ["test/net_runner/run/pipeline_test.exs"]},
  {"sigpipe_of_the_last_is_no_failure", "(status != @sigpipe or member == last)",
   "(status != @sigpipe or member == nil)",
   ["test/net_runner/run/pipeline_test.exs", "test/net_runner/run/stream_test.exs"]},
  {"the_last_line_is_lost", "tag(stream, &1, Lines.last(lines[&1]))", "tag(stream, &1, [])",
   ["test/net_runner/run/stream_test.exs"]},
  {"an_input_is_left_when_a_stream_stops",
   "    _ = stream.feeder |> Input.watch() |> Input.await_end()\n", "", [ending, callers]}
]

input_of_a_run = [
  {"what_was_produced_before_a_failure_is_lost",
   "      bytes ->\n        Command.write(server, bytes)", "      _bytes ->\n        :ok",
   [input]},
  {"a_feeder_is_not_let_go", "usher = Usher.start(server)", "usher = self()", [ending, callers]},
  {"an_explicit_pipe_without_input_stays_open",
   "def new(%{input: nil, stdin: :pipe}), do: {:iovec, []}",
   "def new(%{input: nil, stdin: :pipe}), do: :open", [callers]}
]

feeder = [
  {"an_input_that_writes_is_killed", "== {@mark, :writes}", "== {@mark, :produces}", [callers]}
]

usher = [
  {"an_input_has_no_time_for_its_cleanup", "phase: :cleaning_up}, @cleanup)",
   "phase: :cleaning_up}, 0)", [ending]},
  {"an_input_without_a_processor_is_killed", "status != :waiting", "status == :waiting",
   [ending]},
  {"an_input_that_hears_nothing_is_left", "    Process.exit(usher.feeder, :kill)\n", "",
   [callers]}
]

for {file, mutants} <- [
      {"process/inlet", inlet},
      {"process/outlets", outlets},
      {"process/collector", collector},
      {"process/counters", counters},
      {"process/pipe", pipe},
      {"process/feeder", feeder},
      {"process/usher", usher},
      {"process/guest", guests},
      {"run/input", input_of_a_run},
      {"run/stream", stream},
      {"run/pipeline", pipeline}
    ],
    {id, old, new, tests} <- mutants do
  %{id: id, file: "lib/net_runner/#{file}.ex", old: old, new: new, tests: tests, limit: 180}
end
