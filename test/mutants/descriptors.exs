# Further descriptors, the options of daemons that are about their output and their end, cgroups that are joined.
fds = ["test/net_runner/fds_test.exs"]
daemon = ["test/net_runner/daemon/options_test.exs"]
cgroup = ["test/net_runner/system/cgroup_test.exs"]

in_file = fn file, mutants ->
  for {id, old, new, tests} <- mutants,
      do: %{id: id, file: file, old: old, new: new, tests: tests}
end

Enum.concat([
  in_file.("native/shepherd/src/command.rs", [
    {"a_further_descriptor_is_closed_before_it_is_copied",
     "last.map_or(0, |number| RawFd::from(number) + 1)", "last.map_or(0, |_| 0)", fds},
    {"a_file_that_was_opened_on_its_number_stays_close_on_exec", "if fd == target {",
     "if fd == target && fd > 9999 {", fds}
  ]),
  in_file.("lib/net_runner/process/state.ex", [
    {"further_descriptors_do_not_hear_of_the_end",
     "and_then(result, &fd(&1, number, output(&1.fds[number], what)))",
     "and_then(result, fn state -> _ = {number, what, &output/2}; {:noreply, state} end)", fds}
  ]),
  in_file.("lib/net_runner/process/waiters.ex", [
    {"a_dead_reader_of_a_further_descriptor_waits_on",
     "nil <- find_fd(state, & &1.drop_caller(&2, monitor)),", "", fds},
    {"a_read_of_a_further_descriptor_has_no_time",
     "nil <- find_fd(state, & &1.expire(&2, monitor)),", "", fds}
  ]),
  in_file.("lib/net_runner/process/outlets.ex", [
    {"a_further_descriptor_is_not_closed", "    {close(outlets), effects}",
     "    {outlets, effects}", fds}
  ]),
  in_file.("lib/net_runner/system/descriptors.ex", [
    {"the_input_of_a_further_descriptor_is_shown", "_iodata}), do: {:input, :hidden}",
     "iodata}), do: {:input, iodata}", fds}
  ]),
  in_file.("lib/net_runner/daemon/stop_command.ex", [
    {"a_stop_command_empties_the_daemons_files", "stdout: :null, ", "", daemon},
    {"a_stop_command_has_no_time", "|> Map.put(:timeout, options.kill_timeout)",
     "|> Map.put(:timeout, 60_000 + options.kill_timeout)", daemon}
  ]),
  in_file.("lib/net_runner/daemon.ex", [
    {"a_stop_command_is_not_run", "%{exit: exit} = state = run_stop_command(state)",
     "_ = &run_stop_command/1\n    %{exit: exit} = state", daemon},
    {"every_status_is_abnormal", "if status(how) in ok_statuses", "if status(how) in []", daemon}
  ]),
  in_file.("lib/net_runner/process/boot.ex", [
    {"a_cgroup_is_not_joined", "[{:joined_cgroup, joined} | fields]",
     "if(joined, do: fields, else: [])", cgroup},
    {"a_joined_cgroup_is_removed", "{:joined_cgroup, joined}", "{:cgroup, joined}", cgroup}
  ])
])
