//! The launcher: one per VM. Keeps spare shepherds, forked ahead of need.
//!
//! A spare waits on the launcher's own socket, so a request wakes it directly, with the fork long
//! done. It says on a pipe that it has taken one, and the launcher forks the next when there is time. Requests
//! that come while there is no spare are taken by the launcher itself, which forks a shepherd for each: many
//! at once start faster so. Where no process can be forked it is the one to report it.
//!
//! A spare dies with its launcher, so that the end of the launcher is the end of the socket; from
//! its first request on it is a shepherd, has let go of the socket, and outlives it. When its
//! command is over and nothing is left of it, it offers itself as a spare again, which saves a fork
//! and the page faults that follow one, and gets the socket once more; or is not needed, and exits.

use crate::children;
use crate::guard;
use crate::socket::{self, Start};
use crate::{shepherd, signals, sys};
use nix::errno::Errno;
use nix::sys::socket::Shutdown;
use nix::unistd::{fork, getpid, getppid, ForkResult, Pid};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;
use wire::{Event, Step, START};

/// One is started while another is in the hands of a request.
const SPARES: usize = if cfg!(target_os = "linux") { 2 } else { 0 };

/// A command that was just taken is about to start: a fork at once would take the CPU from it.
const BEFORE_NEXT_FORK: Duration = Duration::from_millis(2);

/// After a fork that failed: no process is left.
const AFTER_FAILED_FORK: Duration = Duration::from_millis(100);

/// The exit code of a spare that found the VM's end closed.
const ENDED: u8 = 3;

struct Launcher {
    socket: OwnedFd,
    /// Where spares say that they have taken a request: their PID. A pipe has room for it, always.
    taken: OwnedFd,
    /// Where shepherds offer themselves: their PID, and a socket on which they wait for an answer.
    free: OwnedFd,
    spares_ends: SparesEnds,
    spares: Vec<Pid>,
    pause: Duration,
    ended: bool,
}

/// The other ends of `taken` and `free`.
struct SparesEnds {
    taken: OwnedFd,
    free: OwnedFd,
}

/// Who goes on after a fork.
enum Role {
    Launcher,
    Spare,
    /// Of this command first; the descriptors that came with its request.
    Shepherd(Vec<OwnedFd>),
}

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    sys::become_subreaper();
    let (Ok((taken, spares_taken)), Ok((free, spares_free))) =
        (sys::nonblocking_pipe(), socket::pair())
    else {
        return ExitCode::FAILURE;
    };
    if socket::send_bytes(socket.as_fd(), wire::GREETING.as_bytes()).is_err() {
        return ExitCode::SUCCESS;
    }
    let mut launcher = Launcher {
        socket,
        taken,
        free,
        spares_ends: SparesEnds {
            taken: spares_taken,
            free: spares_free,
        },
        spares: Vec::with_capacity(SPARES),
        pause: BEFORE_NEXT_FORK,
        ended: false,
    };
    let own_pid = getpid();
    // Without a guard nobody would clean up after this launcher: it takes no more requests, so
    // that the VM starts a new pair, and stays for the shepherds that it has.
    while !launcher.ended && getppid() == guard {
        match launcher.turn() {
            Role::Launcher => {}
            Role::Spare => {
                shepherd::rehearse();
                return launcher.keep_shepherding(own_pid, None);
            }
            Role::Shepherd(fds) => return launcher.keep_shepherding(own_pid, Some(fds)),
        }
    }
    let orphaned = !launcher.ended;
    // Tells the spares; one that has just taken a request serves it.
    let _ = nix::sys::socket::shutdown(launcher.socket.as_raw_fd(), Shutdown::Both);
    drop(launcher);
    if orphaned {
        return guard::keep_watch();
    }
    // The VM is gone, or has replaced this launcher. The shepherds notice by themselves; the guard
    // adopts them.
    ExitCode::SUCCESS
}

impl Launcher {
    /// Waits for something to happen, and sees to that. A missing spare is forked when nothing happened for a
    /// while; what is asked until then goes to a shepherd that is forked for it, which starts many commands at once faster
    /// than spares do, that have to tell of themselves.
    fn turn(&mut self) -> Role {
        let spares = self.spares.len();
        let alone = spares == 0;
        let missing = spares < SPARES;
        let news = if alone { &self.socket } else { &self.taken };
        let news = [news.as_fd(), self.free.as_fd()];
        if signals::wait(&news, missing.then_some(self.pause)).is_err() {
            self.ended = true;
        }
        self.forget_busy_spares();
        self.answer_free_shepherds();
        self.reap();
        if alone {
            if let Some(role) = self.serve() {
                return role;
            }
        }
        if missing && self.spares.len() == spares && !self.ended && self.fork_spare() {
            return Role::Spare;
        }
        Role::Launcher
    }

    /// Whether this is the child.
    fn fork_spare(&mut self) -> bool {
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => return true,
            Ok(ForkResult::Parent { child }) => {
                self.spares.push(child);
                self.pause = BEFORE_NEXT_FORK;
            }
            Err(_) => self.pause = AFTER_FAILED_FORK,
        }
        false
    }

    fn forget_busy_spares(&mut self) {
        let mut pid = [0; 4];
        while nix::unistd::read(&self.taken, &mut pid) == Ok(pid.len()) {
            let pid = Pid::from_raw(i32::from_ne_bytes(pid));
            self.spares.retain(|spare| *spare != pid);
        }
    }

    fn answer_free_shepherds(&mut self) {
        let mut pid = [0; 4];
        while let Some(waiting) = socket::receive_with_fd(self.free.as_fd(), &mut pid, false) {
            // It has said that it was taken before it was free again, and may have been a spare until then.
            self.forget_busy_spares();
            // Not answered, or dead meanwhile: it reads the end of its socket.
            if self.spares.len() < SPARES
                && socket::send_with_fd(waiting.as_fd(), &[START], self.socket.as_fd()).is_ok()
            {
                self.spares.push(Pid::from_raw(i32::from_ne_bytes(pid)));
            }
        }
    }

    fn reap(&mut self) {
        let Launcher { spares, ended, .. } = self;
        children::reap_and_clean(|dead| {
            let spare = spares.iter().position(|spare| *spare == dead.pid);
            let was_spare = spare.map(|at| spares.swap_remove(at)).is_some();
            let told_end = was_spare && dead.exited_with(ENDED.into());
            *ended |= told_end;
            told_end || dead.exited_with(0)
        });
    }

    /// Takes a request itself, if there is one.
    fn serve(&mut self) -> Option<Role> {
        match socket::receive_start(self.socket.as_fd()) {
            // SAFETY: as in `fork_spare`.
            Start::Fds { fds, lost: false } => match unsafe { fork() } {
                Ok(ForkResult::Child) => return Some(Role::Shepherd(fds)),
                Ok(ForkResult::Parent { .. }) => {}
                Err(errno) => report_failure(&fds, Step::Fork, errno),
            },
            Start::Fds { fds, lost: true } => report_failure(&fds, Step::Receive, Errno::EMFILE),
            Start::Nothing => return None,
            Start::Ended => self.ended = true,
        }
        Some(Role::Launcher)
    }

    /// One command after the other, each but the first as a spare, as long as there is need of one.
    fn keep_shepherding(self, launcher: Pid, mut first: Option<Vec<OwnedFd>>) -> ExitCode {
        let Launcher {
            mut socket,
            spares_ends,
            taken,
            free,
            ..
        } = self;
        drop((taken, free));
        sys::become_subreaper();
        loop {
            let fds = match first.take() {
                Some(fds) => fds,
                None => match spares_ends.wait_for_command(&socket, launcher) {
                    Ok(fds) => fds,
                    Err(exit_code) => return exit_code,
                },
            };
            drop(socket);
            shepherd::run(fds);
            match spares_ends.offer() {
                Some(again) => socket = again,
                None => return ExitCode::SUCCESS,
            }
        }
    }
}

impl SparesEnds {
    /// As a spare; it dies with its launcher.
    fn wait_for_command(&self, socket: &OwnedFd, launcher: Pid) -> Result<Vec<OwnedFd>, ExitCode> {
        sys::die_with_parent(true);
        if getppid() != launcher {
            return Err(ExitCode::SUCCESS);
        }
        loop {
            match socket::await_start(socket.as_fd()) {
                Start::Fds { fds, lost: false } => {
                    sys::die_with_parent(false);
                    // The pipe has room for thousands, and there are few spares.
                    let _ = nix::unistd::write(&self.taken, &getpid().as_raw().to_ne_bytes());
                    return Ok(fds);
                }
                // The next spare has the launcher's limit of today.
                Start::Fds { fds, lost: true } => {
                    report_failure(&fds, Step::Receive, Errno::EMFILE);
                    return Err(ExitCode::SUCCESS);
                }
                Start::Nothing => {}
                Start::Ended => return Err(ExitCode::from(ENDED)),
            }
        }
    }

    /// The launcher's socket, when another spare is needed.
    fn offer(&self) -> Option<OwnedFd> {
        let (waiting, launchers) = socket::pair().ok()?;
        let pid = getpid().as_raw().to_ne_bytes();
        socket::send_with_fd(self.free.as_fd(), &pid, launchers.as_fd()).ok()?;
        drop(launchers);
        socket::receive_with_fd(waiting.as_fd(), &mut [0], true)
    }
}

fn report_failure(fds: &[OwnedFd], step: Step, errno: Errno) {
    let control: Option<BorrowedFd> = socket::control_of(fds);
    if let Some(control) = control {
        let errno = errno as i32;
        socket::send_event(control, Event::Failed { step, errno });
    }
}
