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
    old: "if getpgid(Some(child)) != Ok(self.command) {",
    new: "if getpgid(Some(child)) == Ok(self.command) {",
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
    file: "native/net_runner/src/spawn.rs",
    old: "            Err(Errno::EPIPE | Errno::ECONNRESET) => {}\n",
    new: "",
    tests: ["test/guarantees/reuse_test.exs"]
  }
]
