//! The helper program of NetRunner. One program, three roles, each a fork of the one before:
//!
//! - the **guard** starts the launcher and adopts what a killed launcher or shepherd leaves behind;
//! - the **launcher** (one per VM) keeps shepherds at hand for the VM's requests;
//! - a **shepherd** (one per command, one command after the other) starts the command, holds its whole tree, and
//!   reports its end.
//!
//! All three stay in the session that the guard makes, and every command gets a session of its
//! own before anything else. So `getsid(2)` tells a helper from a process of a command, always.
//!
//! Beside them, `net_runner_shepherd probe` says what the system lets them do, and exits.
//!
//! No helper has a terminal, a handler that does anything, or a thread. They block every signal
//! and end when their socket does; only SIGKILL ends them earlier, and then the next one up cleans.

mod attributes;
mod backoff;
mod cgroup;
mod children;
mod command;
mod failure;
mod guard;
mod launcher;
mod life;
mod probe;
mod sandbox;
mod shepherd;
mod signals;
mod socket;
mod spares;
mod sys;
mod tree;
mod watch;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

/// EX_USAGE of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if std::env::args_os().skip(1).eq(["probe"]) {
        return probe::run();
    }
    if std::env::args_os().count() != 2 || !socket::is_open(wire::LAUNCHER_FD) {
        eprintln!(
            "{}: a part of NetRunner, which starts it; it does nothing when run by hand.",
            wire::GREETING
        );
        return ExitCode::from(USAGE);
    }
    // SAFETY: the descriptor is open (checked above), was put there for this program by the VM,
    // and nothing else in this process knows its number.
    let socket = unsafe { OwnedFd::from_raw_fd(wire::LAUNCHER_FD) };
    sys::close_from(socket.as_raw_fd() + 1);
    guard::run(socket)
}
