//! The guard: parent of the launcher.
//!
//! It waits for its children and does nothing else. When a launcher is killed, its shepherds
//! become children of the guard and go on; when a shepherd is killed too, so do the processes
//! of its command, and the guard ends those. It exits when no child is left.

use crate::children::{self, Reaped};
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
    loop {
        if let Progress::NoneLeft = reap_and_clean() {
            return ExitCode::SUCCESS;
        }
        if signals::wait(&[], None).is_err() {
            return ExitCode::FAILURE;
        }
    }
}

pub enum Progress {
    SomeLeft,
    NoneLeft,
}

/// Reaps every dead child. When one did not end well (a helper killed, or a process that a
/// killed helper left), ends what came up from below it.
pub fn reap_and_clean() -> Progress {
    let mut suspicious = false;
    loop {
        match children::reap_one() {
            Reaped::Child(status) => suspicious |= !sys::exited_well(status),
            Reaped::NoneLeft => return Progress::NoneLeft,
            Reaped::NoneDead if suspicious => {
                children::kill_strangers();
                return Progress::SomeLeft;
            }
            Reaped::NoneDead => return Progress::SomeLeft,
        }
    }
}
