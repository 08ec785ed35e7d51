# The start of a command, its server, and what is told of it.
callers = "test/net_runner/process/callers_test.exs"
process = "test/net_runner/process_test.exs"
run = "test/net_runner_test.exs"
stream = "test/net_runner/run/stream_test.exs"
ending = "test/guarantees/ending_test.exs"
launcher = "test/net_runner/system/launcher_test.exs"
reuse = "test/guarantees/reuse_test.exs"
telemetry = "test/net_runner/telemetry_test.exs"
info = "test/net_runner/info_test.exs"

server = [
  {"the_end_of_the_application_closes_a_capture",
   "  def handle_info(:application_stops, %{captor: captor} = state) when captor != nil,\n    do: cancel(state)\n",
   "", ["test/guarantees/application_stop_test.exs"]},
  {"what_came_in_time_is_too_late",
   "state |> outlets(Outlets.serve_all(state.outlets)) |> and_then(&Waiters.expire(&1, monitor))",
   "Waiters.expire(state, monitor)", [callers]},
  {"stderr_is_not_drained_from_the_start",
   "    |> and_then(&outlets(&1, Outlets.serve(&1.outlets, :stderr)))\n", "", [run]},
  {"the_exit_is_not_heard", "    |> and_then(&listen/1)\n  end\n\n  # --- what callers ask",
   "  end\n\n  # --- what callers ask", [process]},
  {"a_collect_that_comes_after_the_give_up_waits",
   "do: answer(state, :collect, Lifecycle.result(state.life)),", "do: {:noreply, state},",
   [ending]},
  {"a_runs_timeout_is_not_armed",
   "        if boot.rest_of_timeout != :infinity, do: arm(:expired, boot.rest_of_timeout)\n", "",
   [run]},
  {"an_exit_that_is_not_heard_yet_is_a_timeout",
   "    |> listen()\n    |> and_then(&life(&1, {:end, cause(state, :timeout), next}))",
   "    |> life({:end, cause(state, :timeout), next})", [callers]},
  {"a_stream_that_nobody_enumerates_stays",
   "next = if state.stream == :offered, do: {:stop, :normal}, else: :stay", "next = :stay",
   [ending]},
  {"nobody_sees_that_a_consumer_died", "monitor in [state.owner, state.consumer, state.captor]",
   "monitor in [state.owner, state.captor]", [callers]},
  {"a_capture_outlives_its_caller", "monitor in [state.owner, state.consumer, state.captor]",
   "monitor in [state.owner, state.consumer]", [callers]},
  {"a_terminal_without_input_waits_for_it", "{:none, terminal} when terminal != false ->",
   "{:none, terminal} when terminal == 1 ->", [process]},
  {"a_linked_parent_does_not_wait_for_the_command",
   "life(state, {:end, :stopped, {:stop, shutdown(reason)}})", "{:stop, shutdown(reason), state}",
   [ending]},
  {"an_owner_that_dies_is_missed", "monitor in [state.owner, state.consumer, state.captor]",
   "monitor in [state.consumer, state.captor]", [process]},
  {"a_command_without_an_owner_has_its_name", "    |> and_then(&give_up_name/1)\n", "", [ending]},
  {"who_writes_to_a_command_without_an_owner_waits", "    |> and_then(&leave_inputs/1)\n", "",
   [ending]},
  {"the_input_of_a_command_without_an_owner_ends", "    |> and_then(&leave_inputs/1)\n",
   "    |> and_then(&inlet(&1, Inlet.give_up(&1.inlet, {:error, :closed})))\n", [ending]},
  {"a_terminal_without_an_owner_does_not_hang_up", "    |> and_then(&hang_up/1)\n", "", [ending]},
  {"who_asks_takes_what_was_discarded_for_all", "outlets: Outlets.forget_asker(state.outlets)",
   "outlets: state.outlets", [ending]},
  {"a_task_that_had_enough_fails_the_input",
   "      ^unwanted -> inlet(state, Inlet.feed(state.inlet, []))\n", "", [callers]},
  {"a_killed_feeder_is_swallowed", "      ^unwanted -> inlet(state, Inlet.feed(state.inlet, []))",
   "      other when other == :killed or is_tuple(other) and elem(other, 0) == :shutdown -> {:noreply, state}",
   [stream]},
  {"a_feeder_dies_with_the_server", "do: Process.unlink(feeder)", "do: feeder", [ending, stream]},
  {"handlers_that_have_returned_are_waited_for",
   "{ref, :handled}, %{announcer: ref} = state), do: life(state, :announced)",
   "{ref, :handled}, %{announcer: ref} = state), do: {:noreply, state}", [telemetry]},
  {"handlers_that_are_dead_are_waited_for",
   "%{announcer: ref} = state),\n    do: life(state, :announced)",
   "%{announcer: ref} = state),\n    do: {:noreply, state}", [telemetry]},
  {"a_crash_reason_of_a_parent_is_logged", "defp shutdown(reason), do: {:shutdown, reason}",
   "defp shutdown(reason), do: reason", [ending]},
  {"secrets_in_crash_reports",
   "do: Fault.hide(status, \"the state of a command, which may hold secrets\")", "do: status",
   [callers]}
]

requests = [
  {"a_command_that_was_continued_alone_is_never_idle",
   "{:reply, result, %{state | outlets: Outlets.pause(state.outlets, false)}}",
   "{:reply, result, state}", ["test/net_runner/process/suspend_test.exs"]},
  {"await_exit_has_no_timeout", "wait(state, :exit, from, timeout)",
   "wait(state, :exit, from, (_ = timeout; :infinity))", [process]},
  {"a_stream_is_enumerated_twice",
   "def handle({:hand_over, _owner}, _from, %{stream: :taken} = state) do",
   "def handle({:hand_over, _owner}, _from, %{stream: :twice} = state) do", [stream]},
  {"hand_over_keeps_the_old_owner",
   "{:reply, :ok, %{state | stream: :taken, owner: Process.monitor(owner)}}",
   "_ = owner\n    {:reply, :ok, %{state | stream: :taken}}", [stream]},
  {"a_stream_without_owner_can_be_enumerated_twice",
   "%{state | stream: :taken, consumer: Process.monitor(consumer)}",
   "%{state | consumer: Process.monitor(consumer)}", [stream, callers]},
  {"an_input_that_attaches_late_is_left",
   "if(Lifecycle.given_up?(state.life), do: see_feeder_off(state), else: state)", "state",
   [ending]},
  {"a_signal_after_the_exit_is_an_error_of_the_socket",
   "defp told({:error, gone}) when gone in [:epipe, :econnreset, :closed], do: {:error, :esrch}",
   "defp told({:error, gone}) when gone == :never, do: {:error, :esrch}", [process, callers]}
]

state = [
  {"a_failed_input_of_a_command_that_is_over_is_swallowed",
   "state = %{state | input_failure: {:error, {:input_failed, failure}}}",
   "state = %{state | input_failure: nil}", [callers, stream, run]},
  {"what_cannot_be_polled_passes_for_a_dead_shepherd", "{:error, :emfile} ->",
   "{:error, :never} ->", ["test/net_runner/system/descriptors_of_the_vm_test.exs"]},
  {"a_condemned_run_has_output",
   "with nil <- Lifecycle.verdict(state.life) || state.input_failure || stopped(state.life),",
   "with nil <- state.input_failure || stopped(state.life),", [run]},
  {"handlers_that_hang_are_waited_for", "    arm(:announced, Announcer.patience())\n", "",
   [telemetry]},
  {"an_exit_in_a_cgroup_is_not_waited_for",
   "state |> life({:exited, exit}) |> and_then(&listen/1)", "state |> life({:exited, exit})",
   ["test/net_runner/system/cgroup_test.exs"]},
  {"what_is_over_is_listed", "    Counters.put_ended(state.counters)\n", "", [info]},
  {"the_last_of_two_callers_is_left",
   "{waiting, waiters} = Operations.take_all(state.waiters, who)\n    Enum.each(waiting, &Caller.reply(&1, result))",
   "{waiting, waiters} = Operations.take_all(state.waiters, who)\n    Enum.each(Enum.take(waiting, 1), &Caller.reply(&1, result))",
   [process]},
  {"the_feeder_of_what_was_given_up_is_left", ":ok = Usher.see_off(usher)", "_ = usher", [ending]}
]

boot = [
  {"a_command_is_not_read_when_the_callers_application_stops",
   "    if user = Process.whereis(:user), do: Process.group_leader(self(), user)\n", "    :ok\n",
   ["test/guarantees/application_stop_test.exs"]},
  {"a_wait_longer_than_a_receive_takes", "|> min(@longest_wait)", "|> max(0 * @longest_wait)",
   [launcher]},
  {"an_owner_that_dies_during_a_slow_start_is_missed",
   "{:DOWN, ref, :process, _, _} when is_map_key(wanted_by, ref) ->",
   "{:DOWN, ref, :process, :none, _} when is_map_key(wanted_by, ref) ->", [launcher]},
  {"a_consumer_that_dies_during_a_slow_start_is_missed", "for ref <- [owner, consumer, captor],",
   "for ref <- [owner, captor],", [launcher]},
  {"a_slow_start_has_no_timeout", "          remaining(deadline) -> {:error, :timeout}",
   "          (_ = deadline; :infinity) -> {:error, :timeout}", [launcher]},
  {"a_request_that_nobody_took_is_waited_for", "if Native.withdraw(control),",
   "if Native.withdraw(control) && false,", [launcher]},
  {"a_dead_launcher_is_not_replaced_for_a_request", "failed == :not_taken and attempts > 1,",
   "failed == :not_taken and attempts > 100,", [launcher]},
  {"a_shepherd_of_a_failed_start_ends", "        Native.retire(control)\n", "", [reuse]},
  {"the_cgroup_of_a_failed_start_stays", "      if cgroup, do: Cgroup.remove(cgroup)\n", "",
   ["test/net_runner/system/cgroup_test.exs"]},
  {"one_file_for_both_is_opened_twice", "  defp stderr({_, _} = file, file), do: :redirect\n", "",
   [run]},
  {"given_up_before_the_kill", "options.kill_timeout + options.give_up_after",
   "options.give_up_after", [ending, callers]},
  {"a_process_has_a_grace", "if(extra[:grace?], do: options.output_grace, else: :none)",
   "options.output_grace", [ending]},
  {"a_run_has_no_grace", "if(extra[:grace?], do: options.output_grace, else: :none)", ":none",
   [ending]},
  {"a_slow_handler_of_the_start_keeps_the_command",
   "Announcer.await_start(announcer, wanted_by, remaining(elem(patience, 1)))",
   "Announcer.await_start(announcer, wanted_by, :infinity)", [telemetry]},
  {"a_terminal_does_not_echo", "Keyword.get(settings, :echo, true)",
   "Keyword.get(settings, :echo, false)", [process]},
  {"rows_and_columns_change_places",
   "{:terminal, Keyword.get(settings, :rows, 24), Keyword.get(settings, :cols, 80),",
   "{:terminal, Keyword.get(settings, :cols, 80), Keyword.get(settings, :rows, 24),", [process]},
  {"a_failed_step_is_not_named", "defp not_started(step, errno), do: {step, errno}",
   "defp not_started(_step, errno), do: errno", [run]},
  {"a_timeout_does_not_wait_for_the_start", "if Native.withdraw(control),",
   "if Native.withdraw(control) || true,", [reuse]}
]

exit_and_report = [
  {"process/exit", "a_signal_is_its_number", "do: 128 + number", "do: number", [run]},
  {"process/report", "a_command_that_is_over_grows_older", "defp ended_at(%Exit{at: at}), do: at",
   "defp ended_at(%Exit{}), do: System.monotonic_time()", [callers]},
  {"process/report", "the_figures_of_a_removed_cgroup",
   "defp cgroup_figures(%Exit{cgroup: figures}, _cgroup) when figures != nil, do: figures\n", "",
   ["test/net_runner/system/cgroup_test.exs"]},
  {"process/report", "a_lost_command_has_exited", "defp status({:lost, _at}), do: :lost",
   "defp status({:lost, _at}), do: :exited", [info]}
]

for {file, {id, old, new, tests}} <-
      Enum.map(server, &{"process/server", &1}) ++
        Enum.map(requests, &{"process/requests", &1}) ++
        Enum.map(state, &{"process/state", &1}) ++
        Enum.map(boot, &{"process/boot", &1}) ++
        Enum.map(exit_and_report, fn {file, id, old, new, tests} ->
          {file, {id, old, new, tests}}
        end) do
  %{id: id, file: "lib/net_runner/#{file}.ex", old: old, new: new, tests: tests, limit: 180}
end
