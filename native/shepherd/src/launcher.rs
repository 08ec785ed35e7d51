//! The launcher: one per VM. Keeps spare shepherds, forked ahead of need.
//!
//! A spare waits on the launcher's own socket, so a request wakes it directly, with the fork long
//! done. It says on a pipe that it has taken one, and the launcher forks the next. When no spare
//! can be forked (no process left), the launcher takes the requests itself, to try again for
//! each and to report the failure.
//!
//! A spare dies with its launcher, so that the end of the launcher is the end of the socket; from
//! its first request on it is a shepherd, and outlives it.

use crate::children::{self, Reaped};
use crate::guard;
use crate::socket::{self, Start};
use crate::{shepherd, signals, sys};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{fork, getpid, getppid, ForkResult, Pid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use wire::{Event, Step};

/// One is started while another is in the hands of a request.
const SPARES: usize = if cfg!(target_os = "linux") { 2 } else { 0 };

/// The exit code of a spare that found the VM's end closed.
const ENDED: u8 = 3;

struct Launcher {
    socket: OwnedFd,
    /// Where spares say that they have taken a request: their PID, four bytes.
    taken: OwnedFd,
    taken_by_spare: OwnedFd,
    spares: Vec<Pid>,
    ended: bool,
}

/// Who goes on after a fork.
enum Role {
    Launcher,
    Spare,
    /// Of this command; the descriptors that came with its request.
    Shepherd(Vec<OwnedFd>),
}

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    sys::become_subreaper();
    if socket::send_bytes(socket.as_fd(), wire::GREETING.as_bytes()).is_err() {
        return ExitCode::SUCCESS;
    }
    let Ok((taken, taken_by_spare)) = sys::nonblocking_pipe() else {
        return ExitCode::FAILURE;
    };
    let mut launcher = Launcher {
        socket,
        taken,
        taken_by_spare,
        spares: Vec::with_capacity(SPARES),
        ended: false,
    };
    let own_pid = getpid();
    // Without a guard nobody would clean up after this launcher: it takes no more requests, so
    // that the VM starts a new pair, and stays for the shepherds that it has.
    while !launcher.ended && getppid() == guard {
        match launcher.turn() {
            Role::Launcher => {}
            Role::Spare => return launcher.wait_as_spare(own_pid),
            Role::Shepherd(fds) => {
                drop(launcher);
                return shepherd::run(fds);
            }
        }
    }
    let orphaned = !launcher.ended;
    launcher.end_spares();
    drop(launcher);
    if orphaned {
        return guard::keep_watch();
    }
    // The VM is gone, or has replaced this launcher. The shepherds notice by themselves; the guard
    // adopts them.
    ExitCode::SUCCESS
}

impl Launcher {
    /// Forks what is missing, waits for something to happen, and sees to it.
    fn turn(&mut self) -> Role {
        while self.spares.len() < SPARES {
            // SAFETY: this process has one thread, so the child may do whatever the parent may.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => return Role::Spare,
                Ok(ForkResult::Parent { child }) => self.spares.push(child),
                Err(_) => break,
            }
        }
        let alone = self.spares.is_empty();
        let news = if alone { &self.socket } else { &self.taken };
        if signals::wait(Some(news.as_fd()), None).is_err() {
            self.ended = true;
        }
        self.forget_busy_spares();
        self.reap();
        if alone {
            return self.serve();
        }
        Role::Launcher
    }

    fn forget_busy_spares(&mut self) {
        let mut pid = [0; 4];
        while nix::unistd::read(&self.taken, &mut pid) == Ok(pid.len()) {
            let pid = Pid::from_raw(i32::from_ne_bytes(pid));
            self.spares.retain(|spare| *spare != pid);
        }
    }

    fn reap(&mut self) {
        let mut suspicious = false;
        while let Reaped::Child(status) = children::reap_one() {
            self.spares.retain(|spare| Some(*spare) != status.pid());
            match status {
                WaitStatus::Exited(_, code) if code == ENDED.into() => self.ended = true,
                status => suspicious |= !sys::exited_well(status),
            }
        }
        if suspicious {
            children::kill_strangers();
        }
    }

    /// Takes a request itself.
    fn serve(&mut self) -> Role {
        match socket::receive_start(self.socket.as_fd()) {
            // SAFETY: as in `turn`.
            Start::Fds { fds, lost: false } => match unsafe { fork() } {
                Ok(ForkResult::Child) => return Role::Shepherd(fds),
                Ok(ForkResult::Parent { .. }) => {}
                Err(errno) => report_failure(&fds, Step::Fork, errno),
            },
            Start::Fds { fds, lost: true } => report_failure(&fds, Step::Receive, Errno::EMFILE),
            Start::Nothing => {}
            Start::Ended => self.ended = true,
        }
        Role::Launcher
    }

    fn end_spares(&self) {
        for spare in &self.spares {
            children::signal(*spare, Signal::SIGKILL as i32);
        }
    }

    fn wait_as_spare(self, launcher: Pid) -> ExitCode {
        sys::die_with_parent(true);
        if getppid() != launcher {
            return ExitCode::SUCCESS;
        }
        sys::become_subreaper();
        loop {
            match socket::await_start(self.socket.as_fd()) {
                Start::Fds { fds, lost: false } => {
                    sys::die_with_parent(false);
                    self.say_taken();
                    drop(self);
                    return shepherd::run(fds);
                }
                // The next spare has the launcher's limit of today.
                Start::Fds { fds, lost: true } => {
                    report_failure(&fds, Step::Receive, Errno::EMFILE);
                    return ExitCode::SUCCESS;
                }
                Start::Nothing => {}
                Start::Ended => return ExitCode::from(ENDED),
            }
        }
    }

    fn say_taken(&self) {
        // The pipe has room for thousands; what fails here only delays the next spare, until the
        // exit of this one is reaped.
        let _ = nix::unistd::write(&self.taken_by_spare, &getpid().as_raw().to_ne_bytes());
    }
}

fn report_failure(fds: &[OwnedFd], step: Step, errno: Errno) {
    let control: Option<BorrowedFd> = socket::control_of(fds);
    if let Some(control) = control {
        let errno = errno as i32;
        socket::send_event(control, Event::Failed { step, errno });
    }
}
