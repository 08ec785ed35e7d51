//! The guard: parent of the launcher.
//!
//! It waits for its children and does nothing else. When a launcher is killed, its shepherds
//! become children of the guard and go on; when a shepherd is killed too, so do the processes
//! of its command, and the guard ends those. It exits when no child is left.

use crate::children::{self, Left};
use crate::{launcher, signals, sys};
use nix::unistd::{fork, getpid, setsid, ForkResult};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

pub fn run(socket: OwnedFd) -> ExitCode {
    // The VM made this process with posix_spawn(3), so it leads no process group and setsid works.
    if setsid().is_err() || signals::take_over().is_err() {
        return ExitCode::FAILURE;
    }
    sys::become_subreaper();
    let guard = getpid();
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => launcher::run(socket, guard),
        Ok(ForkResult::Parent { .. }) => {
            drop(socket);
            keep_watch()
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Reaps, and ends what no shepherd holds any more, until no child is left.
pub fn keep_watch() -> ExitCode {
    while children::reap_and_clean(|dead| dead.exited_with(0)) == Left::Some {
        if signals::wait(&[], None).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
