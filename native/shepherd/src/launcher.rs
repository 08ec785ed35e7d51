//! The launcher: one per VM. Takes a request, forks a shepherd for it, forgets it.

use crate::guard;
use crate::socket::{self, Start};
use crate::{shepherd, signals, sys};
use nix::unistd::{fork, getppid, ForkResult, Pid};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use wire::{Event, Step};

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    sys::become_subreaper();
    if socket::send_bytes(socket.as_fd(), wire::GREETING.as_bytes()).is_err() {
        return ExitCode::SUCCESS;
    }
    loop {
        if signals::wait(Some(socket.as_fd()), None).is_err() {
            return ExitCode::FAILURE;
        }
        match socket::receive_start(socket.as_fd()) {
            Start::Fds { fds, lost: false } => match fork_shepherd(&fds) {
                Fork::Parent => {}
                Fork::Child => {
                    drop(socket);
                    return shepherd::run(fds);
                }
            },
            Start::Fds { fds, lost: true } => {
                report_failure(&fds, Step::Receive, socket::lost_descriptor_errno())
            }
            Start::Nothing => {}
            // The VM is gone, or has replaced this launcher. The shepherds notice by
            // themselves; the guard adopts them.
            Start::Ended => return ExitCode::SUCCESS,
        }
        guard::reap_and_clean();
        // Without a guard nobody would clean up after this launcher: it takes no more requests,
        // so that the VM starts a new pair, and stays for the shepherds that it has.
        if getppid() != guard {
            drop(socket);
            return guard::keep_watch();
        }
    }
}

enum Fork {
    Parent,
    Child,
}

fn fork_shepherd(fds: &[OwnedFd]) -> Fork {
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => Fork::Child,
        Ok(ForkResult::Parent { .. }) => Fork::Parent,
        Err(errno) => {
            report_failure(fds, Step::Fork, errno as i32);
            Fork::Parent
        }
    }
}

fn report_failure(fds: &[OwnedFd], step: Step, errno: i32) {
    if let Some(control) = socket::control_of(fds) {
        socket::send_event(control, Event::Failed { step, errno });
    }
}
