# The helpers and the NIF (Rust).
stop_signal = ["test/guarantees/stop_signal_test.exs"]

[
  %{
    id: "no_sigcont_after_the_stop_signal",
    file: "native/shepherd/src/shepherd.rs",
    old: "            self.signal_all(Signal::SIGCONT as i32);\n",
    new: "",
    tests: stop_signal
  },
  %{
    id: "orphans_in_other_groups_get_no_stop_signal",
    file: "native/shepherd/src/shepherd.rs",
    old: "Leftovers::Kill => children::signal_all(number),",
    new: "Leftovers::Kill => children::signal_group(self.command, number),",
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
    old: "Err(Errno::EIO) if fd.terminal",
    new: "Err(Errno::EIO) if !fd.terminal",
    tests: ["test/net_runner/process_test.exs"]
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
    file: "native/shepherd/src/shepherd.rs",
    old: "Leftovers::Leave => children::signal_group(self.command, number),",
    new: "Leftovers::Leave => { let _ = number; }",
    tests: stop_signal
  }
]
