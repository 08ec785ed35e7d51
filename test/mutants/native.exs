# The helpers and the NIF (Rust).
stop_signal = ["test/guarantees/stop_signal_test.exs"]

[
  %{
    id: "no_sigcont_after_the_stop_signal",
    file: "native/shepherd/src/life.rs",
    old: "signal(command.stop_signal), signal(Signal::SIGCONT as i32)",
    new: "signal(command.stop_signal)",
    tests: stop_signal
  },
  %{
    id: "orphans_in_other_groups_get_no_stop_signal",
    file: "native/shepherd/src/life.rs",
    old: "Leftovers::Kill => Action::SignalAll(number),",
    new: "Leftovers::Kill => Action::SignalGroup(command.pid, number),",
    tests: stop_signal
  },
  %{
    id: "stdin_ignores_pipe_size",
    file: "native/net_runner/src/lib.rs",
    old: "        term(stdin)?,\n",
    new:
      "        match stdin {\n            Some(end) => fd::into_term(env, end, Kind::Plain)?,\n            None => term(None)?,\n        },\n",
    tests: ["test/net_runner/process/callers_test.exs"]
  },
  %{
    id: "a_guard_that_is_stopped_stays_so",
    file: "native/shepherd/src/guard.rs",
    old: "            let _ = signals::continue_in_each(LONGEST_STOP);\n",
    new: "            let _ = LONGEST_STOP;\n",
    tests: ["test/guarantees/hostile_test.exs"],
    limit: 400
  },
  %{
    id: "a_guard_continues_once",
    file: "native/shepherd/src/signals.rs",
    old: "    CONTINUES_ITSELF.store(true, Ordering::Relaxed);\n",
    new: "",
    tests: ["test/guarantees/hostile_test.exs"],
    limit: 400
  },
  %{
    id: "a_long_command_ends_a_vm_that_may_write_little",
    file: "native/wire/src/socket.rs",
    old: "self.spec.len() as rlim_t > limit",
    new: "self.spec.is_empty() && limit > 0",
    tests: ["test/guarantees/exhaustion_test.exs"]
  },
  %{
    id: "nobody_waits_for_the_end_of_a_lease",
    file: "native/shepherd/src/command.rs",
    old: "MOST_PAUSES: usize = 6_000",
    new: "MOST_PAUSES: usize = 0",
    tests: ["test/net_runner/fds_test.exs"]
  },
  %{
    id: "dead_idle_shepherd_is_not_skipped",
    file: "native/net_runner/src/submit.rs",
    old: "Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EAGAIN) => {}",
    new: "Err(Errno::EAGAIN) => {}",
    tests: ["test/guarantees/reuse_test.exs"]
  },
  %{
    id: "more_idle_shepherds_than_there_is_use_of",
    file: "native/net_runner/src/idle.rs",
    old: "const MOST: usize = 8;",
    new: "const MOST: usize = 64;",
    tests: ["test/guarantees/reuse_test.exs"]
  },
  %{
    id: "commands_start_with_blocked_signals",
    file: "native/shepherd/src/signals.rs",
    old: "SigmaskHow::SIG_SETMASK, Some(&SigSet::empty())",
    new: "SigmaskHow::SIG_SETMASK, Some(&SigSet::all())",
    tests: ["test/net_runner/signal_test.exs"]
  },
  %{
    id: "what_may_not_be_executed_is_not_there",
    file: "native/shepherd/src/command.rs",
    old: "Errno::EACCES => failure = errno,",
    new: "Errno::EACCES => {}",
    tests: ["test/net_runner/bad_input_test.exs", "test/net_runner_test.exs"]
  },
  %{
    id: "a_file_to_append_to_is_written_over",
    file: "native/shepherd/src/command.rs",
    old: "libc::F_SETFL, flags & libc::O_APPEND",
    new: "libc::F_SETFL, 0",
    tests: ["test/net_runner/process/options_test.exs"]
  },
  %{
    id: "the_end_of_a_terminal_is_an_error",
    file: "native/net_runner/src/io.rs",
    old: "Err(Errno::EIO) if fd.is_terminal()",
    new: "Err(Errno::EIO) if !fd.is_terminal()",
    tests: ["test/net_runner/process_test.exs"]
  },
  %{
    id: "a_guest_comes_before_who_waits_natively",
    file: "native/net_runner/src/fd.rs",
    old: "        let _ = self.fd.guests.shut();\n",
    new: "",
    tests: ["test/net_runner/process/guest_test.exs"]
  },
  %{
    id: "a_guest_is_turned_away_and_not_counted",
    file: "native/net_runner/src/lib.rs",
    old: "        fd.guests.turn_away();\n",
    new: "        let _ = fd.guests.shut();\n",
    tests: ["test/net_runner/process/guest_test.exs"]
  },
  %{
    id: "what_may_stay_is_killed",
    file: "native/wire/src/spec.rs",
    old: "Leftovers::Leave => 1,",
    new: "Leftovers::Leave => 0,",
    tests: ["native/wire", "test/guarantees/ending_test.exs"]
  },
  %{
    id: "a_core_is_not_reported",
    file: "native/wire/src/frame.rs",
    old: "                frame[2] = exit.core_dumped.into();\n",
    new: "",
    tests: ["native/wire"]
  },
  %{
    id: "a_spec_is_cut_without_notice",
    file: "native/wire/src/spec.rs",
    old: "if value.contains(&0) {",
    new: "if value.first() == Some(&0) {",
    tests: ["native/wire"]
  },
  %{
    id: "what_may_leave_something_is_not_told_to_end",
    file: "native/shepherd/src/life.rs",
    old: "Leftovers::Leave => Action::SignalGroup(command.pid, number),",
    new: "Leftovers::Leave => Action::Signal(command.pid, 0 * number),",
    tests: stop_signal
  },
  %{
    id: "a_withdrawn_launcher_keeps_its_socket",
    file: "native/shepherd/src/launcher.rs",
    old: "    drop(socket);\n",
    new: "",
    tests: ["test/net_runner/system/launcher_test.exs"],
    limit: 240
  },
  %{
    id: "a_changed_launcher_forks_a_spare",
    file: "native/shepherd/src/launcher.rs",
    old: "        if self.was_changed() {\n            return self.event(Event::Changed);",
    new:
      "        if false && self.was_changed() {\n            return self.event(Event::Changed);",
    tests: ["test/guarantees/reuse_test.exs"],
    limit: 240
  },
  %{
    id: "a_changed_launcher_forks_a_shepherd",
    file: "native/shepherd/src/launcher.rs",
    old: "        if self.was_changed() {\n            // An unread",
    new: "        if false && self.was_changed() {\n            // An unread",
    tests: ["test/guarantees/reuse_test.exs"],
    limit: 240
  },
  %{
    id: "a_change_beside_a_fork_reaches_a_command",
    file: "native/shepherd/src/launcher.rs",
    old: "        if Attributes::of_this_process().differ_from(&attributes) {",
    new: "        if false && Attributes::of_this_process().differ_from(&attributes) {",
    tests: ["test/net_runner/system/launcher_test.exs"],
    limit: 240
  },
  %{
    id: "an_unread_file_counts_as_a_change",
    file: "native/shepherd/src/attributes.rs",
    old: "matches!(both, (Some(now), Some(then)) if now != then)",
    new: "both.0 != both.1",
    tests: ["native/shepherd"]
  },
  %{
    id: "a_begin_that_is_being_freed_was_not_read",
    file: "native/wire/src/socket.rs",
    old: "request > 0 && request <= before",
    new: "request > 0",
    tests: ["native/wire"]
  },
  %{
    id: "a_stranger_that_exits_with_0_is_not_followed_up",
    file: "native/shepherd/src/watch.rs",
    old: "children::is_stranger(dead.pid) || ",
    new: "",
    tests: ["native/shepherd"]
  },
  %{
    id: "what_is_left_is_not_killed",
    file: "native/shepherd/src/life.rs",
    old: "(ending, vec![Action::KillAll])",
    new: "(ending, vec![])",
    tests: ["native/shepherd"]
  },
  %{
    id: "sigkill_is_not_repeated",
    file: "native/shepherd/src/life.rs",
    old: "Ending::Stopping { .. } | Ending::Killing { .. } => kill(command, vm, ending, now),",
    new:
      "Ending::Stopping { .. } => kill(command, vm, ending, now),\n            Ending::Killing { .. } => unchanged(command, vm, ending),",
    tests: ["native/shepherd"]
  },
  %{
    id: "a_spare_that_died_is_taken_for_one_that_waits",
    file: "native/shepherd/src/spares.rs",
    old: "(next, Some(Action::Clear { place }))",
    new: "(next, None)",
    tests: ["native/shepherd"]
  },
  %{
    id: "a_request_that_is_too_long_is_taken_for_a_good_one",
    file: "native/shepherd/src/socket.rs",
    old: "Request::decode(&frame[..length])",
    new: "Request::decode(&frame[..length.min(REQUEST_SIZE)])",
    tests: ["native/shepherd"]
  },
  %{
    id: "pieces_are_laid_for_a_server_that_was_killed",
    file: "native/net_runner/src/lib.rs",
    old: "if !server.is_alive(env) {",
    new: "if !server.is_alive(env) && false {",
    tests: ["test/net_runner/run/input_test.exs"]
  },
  %{
    id: "a_helper_does_nothing_but_reap",
    file: "native/shepherd/src/children.rs",
    old: "        if Instant::now() >= until {",
    new: "        if Instant::now() >= until && stays == Some(Pid::from_raw(0)) {",
    tests: ["native/shepherd"]
  },
  %{
    id: "a_reset_hides_what_was_said_before",
    file: "native/net_runner/src/lib.rs",
    old: "Err(Errno::ECONNRESET) if !reset => reset = true,",
    new: "Err(Errno::ECONNRESET) => return (Ok(0), true),",
    tests: ["test/net_runner/system/native_test.exs"]
  },
  %{
    id: "a_zombie_that_is_held_is_not_reported",
    file: "native/shepherd/src/shepherd.rs",
    old: "children::held_zombie(command.pid);",
    new: "children::held_zombie(command.pid).filter(|_| command.leftovers == Leftovers::Kill);",
    tests: ["test/guarantees/hostile_test.exs"]
  },
  %{
    id: "one_that_has_not_stopped_yet_is_not_awaited",
    file: "native/shepherd/src/tree.rs",
    old: "Ok(Reached::Yes) => self.moving.insert(pid),",
    new: "Ok(Reached::Yes) => false,",
    tests: ["native/shepherd"]
  },
  %{
    id: "one_that_has_stopped_is_awaited",
    file: "native/shepherd/src/tree.rs",
    old: "Some('R' | 'S')",
    new: "Some('R' | 'S' | 'T')",
    tests: ["native/shepherd"]
  },
  %{
    id: "one_that_was_gone_too_early_is_not_looked_at_again",
    file: "native/shepherd/src/tree.rs",
    old: "            Ok(Reached::Unknown) => return,",
    new: "            Ok(Reached::Unknown) => false,",
    tests: ["native/shepherd"]
  },
  %{
    id: "what_stops_again_stays_stopped",
    file: "native/shepherd/src/tree.rs",
    old: "while resume_stopped(&mut woken) && ",
    new: "while false && resume_stopped(&mut woken) && ",
    tests: ["test/net_runner/process/suspend_test.exs"]
  },
  %{
    id: "a_parent_that_is_busy_is_awaited",
    file: "native/shepherd/src/tree.rs",
    old: "ticks <= *woken.entry(pid).or_insert(ticks)",
    new: "ticks >= *woken.entry(pid).or_insert(ticks)",
    tests: ["native/shepherd"]
  },
  %{
    id: "a_terminal_for_nobody_is_at_its_end",
    file: "native/shepherd/src/shepherd.rs",
    old: "                self.terminal = terminal;",
    new: "                drop(terminal);",
    tests: ["test/net_runner/terminal_test.exs"]
  },
  %{
    id: "a_pipe_is_for_the_vms_user_alone",
    file: "native/net_runner/src/submit.rs",
    old: "Mode::from_bits_truncate(0o666)",
    new: "Mode::from_bits_truncate(0o600)",
    tests: ["test/net_runner/fds_test.exs"]
  },
  %{
    id: "a_backspace_takes_back_a_byte",
    file: "native/net_runner/src/terminal.rs",
    old: "attributes.input_flags.insert(InputFlags::IUTF8);",
    new: "attributes.input_flags.remove(InputFlags::IUTF8);",
    tests: ["test/net_runner/terminal_test.exs"]
  },
  %{
    id: "signals_wait_for_the_next_command",
    file: "native/shepherd/src/signals.rs",
    old: "number != libc::SIGCHLD && ",
    new: "number == libc::SIGCONT && ",
    tests: ["test/guarantees/reuse_test.exs"]
  },
  %{
    id: "a_ruleset_is_held_for_ever",
    file: "native/shepherd/src/shepherd.rs",
    old: "let when_idle = keeps.then_some(",
    new: "let when_idle = (keeps && false).then_some(",
    tests: ["test/guarantees/sandbox_reuse_test.exs"]
  },
  %{
    id: "an_exit_before_the_end_of_the_vm_is_not_seen",
    file: "native/shepherd/src/shepherd.rs",
    old: "        // Race: exit beside the end of the VM.\n        if self.command_is_dead() {",
    new: "        if self.command_is_dead() && self.killed {",
    tests: ["test/guarantees/leftovers_test.exs"]
  },
  %{
    id: "a_command_that_was_taken_back_is_started",
    file: "native/shepherd/src/shepherd.rs",
    old: "Wanted::No => self.event(Event::VmGone),",
    new: "Wanted::No => self.start(begin),",
    tests: ["test/guarantees/reuse_test.exs"]
  }
]
