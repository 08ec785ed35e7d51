//! The launcher: one per VM. Keeps spare shepherds, forked ahead of need.
//!
//! A spare waits on the launcher's own socket, so a request wakes it directly, with the fork long
//! done. That it is taken shows in memory that both share, and the launcher is not woken for it, until the last is
//! taken: on a machine with few processors it would run when the command starts. Then it forks the next, when there is
//! time. Requests that come while there is no spare are taken by the launcher itself, which forks a shepherd for
//! each: many at once start faster so. Where no process can be forked it is the one to report it.
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
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use wire::{Event, Step};

/// One waits while one serves a request and one, that has served the last, comes back.
const SPARES: usize = if cfg!(target_os = "linux") { 3 } else { 0 };

/// Whether a spare waits, for each. The launcher sets it, and the spare takes it back.
type Waiting = &'static [AtomicBool; SPARES];

/// A command that was just taken is about to start: a fork at once would take the CPU from it.
const BEFORE_NEXT_FORK: Duration = Duration::from_millis(2);

/// After a fork that failed: no process is left.
const AFTER_FAILED_FORK: Duration = Duration::from_millis(100);

/// The exit code of a spare that found the VM's end closed.
const ENDED: u8 = 3;

struct Launcher {
    socket: OwnedFd,
    /// Rung by the spare that is taken last.
    bell: OwnedFd,
    /// Where shepherds offer themselves: their PID, and a socket on which they wait for an answer.
    free: OwnedFd,
    spares_ends: SparesEnds,
    waiting: Waiting,
    /// Who that was.
    spares: [Pid; SPARES],
    pause: Duration,
    ended: bool,
}

/// What a shepherd has of its launcher.
struct SparesEnds {
    bell: OwnedFd,
    free: OwnedFd,
    waiting: Waiting,
}

/// What a shepherd does next.
enum Task {
    /// Waits, as this spare.
    Wait(usize),
    /// The descriptors that came with a request.
    Serve(Vec<OwnedFd>),
}

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    sys::become_subreaper();
    let (Ok((bell, spares_bell)), Ok((free, spares_free)), Ok(waiting)) =
        (sys::nonblocking_pipe(), socket::pair(), sys::shared_flags())
    else {
        return ExitCode::FAILURE;
    };
    if socket::send_bytes(socket.as_fd(), wire::GREETING.as_bytes()).is_err() {
        return ExitCode::SUCCESS;
    }
    let own_pid = getpid();
    let mut launcher = Launcher {
        socket,
        bell,
        free,
        spares_ends: SparesEnds {
            bell: spares_bell,
            free: spares_free,
            waiting,
        },
        waiting,
        spares: [own_pid; SPARES],
        pause: BEFORE_NEXT_FORK,
        ended: false,
    };
    // Without a guard nobody would clean up after this launcher: it takes no more requests, so
    // that the VM starts a new pair, and stays for the shepherds that it has.
    while !launcher.ended && getppid() == guard {
        if let Some(task) = launcher.turn() {
            return launcher.keep_shepherding(own_pid, task);
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
    /// while. `Some` in a child.
    fn turn(&mut self) -> Option<Task> {
        let spares = self.count_spares();
        let alone = spares == 0;
        let missing = spares < SPARES;
        let news = if alone { &self.socket } else { &self.bell };
        let news = [news.as_fd(), self.free.as_fd()];
        if signals::wait(&news, missing.then_some(self.pause)).is_err() {
            self.ended = true;
        }
        while matches!(nix::unistd::read(&self.bell, &mut [0; 64]), Ok(1..)) {}
        self.answer_free_shepherds();
        self.reap();
        if alone {
            match socket::receive_start(self.socket.as_fd()) {
                Start::Nothing => {}
                Start::Ended => self.ended = true,
                Start::Fds { fds, lost } => return self.fork_shepherd(fds, lost),
            }
        }
        if missing && self.count_spares() == spares && !self.ended {
            return self.fork_spare();
        }
        None
    }

    fn count_spares(&self) -> usize {
        self.waiting
            .iter()
            .filter(|waits| waits.load(SeqCst))
            .count()
    }

    fn missing_spare(&self) -> Option<usize> {
        self.waiting.iter().position(|waits| !waits.load(SeqCst))
    }

    fn fork_spare(&mut self) -> Option<Task> {
        let spare = self.missing_spare()?;
        self.waiting[spare].store(true, SeqCst);
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                shepherd::rehearse();
                return Some(Task::Wait(spare));
            }
            Ok(ForkResult::Parent { child }) => {
                self.spares[spare] = child;
                self.pause = BEFORE_NEXT_FORK;
            }
            Err(_) => {
                self.waiting[spare].store(false, SeqCst);
                self.pause = AFTER_FAILED_FORK;
            }
        }
        None
    }

    fn answer_free_shepherds(&mut self) {
        let mut pid = [0; 4];
        while let Some(shepherd) = socket::receive_with_fd(self.free.as_fd(), &mut pid, false) {
            // Not answered, it reads the end of its socket.
            let Some(spare) = self.missing_spare() else {
                continue;
            };
            self.waiting[spare].store(true, SeqCst);
            self.spares[spare] = Pid::from_raw(i32::from_ne_bytes(pid));
            let answer = [spare as u8];
            if socket::send_with_fd(shepherd.as_fd(), &answer, self.socket.as_fd()).is_err() {
                // Dead meanwhile.
                self.waiting[spare].store(false, SeqCst);
            }
        }
    }

    fn reap(&mut self) {
        let Launcher {
            spares,
            waiting,
            ended,
            ..
        } = self;
        children::reap_and_clean(|dead| {
            let was_spare = (0..SPARES)
                .any(|spare| spares[spare] == dead.pid && waiting[spare].swap(false, SeqCst));
            let told_end = was_spare && dead.exited_with(ENDED.into());
            *ended |= told_end;
            told_end || dead.exited_with(0)
        });
    }

    fn fork_shepherd(&mut self, fds: Vec<OwnedFd>, lost: bool) -> Option<Task> {
        if lost {
            report_failure(&fds, Step::Receive, Errno::EMFILE);
            return None;
        }
        // SAFETY: as in `fork_spare`.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => return Some(Task::Serve(fds)),
            Ok(ForkResult::Parent { .. }) => {}
            Err(errno) => report_failure(&fds, Step::Fork, errno),
        }
        None
    }

    /// One command after the other, as long as there is need of a spare in between.
    fn keep_shepherding(self, launcher: Pid, mut task: Task) -> ExitCode {
        let Launcher {
            mut socket,
            spares_ends,
            bell,
            free,
            ..
        } = self;
        drop((bell, free));
        sys::become_subreaper();
        loop {
            let fds = match task {
                Task::Serve(fds) => fds,
                Task::Wait(spare) => match spares_ends.wait_as(spare, &socket, launcher) {
                    Ok(fds) => fds,
                    Err(exit_code) => return exit_code,
                },
            };
            drop(socket);
            shepherd::run(fds);
            match spares_ends.offer() {
                Some((spare, again)) => {
                    task = Task::Wait(spare);
                    socket = again;
                }
                None => return ExitCode::SUCCESS,
            }
        }
    }
}

impl SparesEnds {
    /// Waits for a request, and dies with its launcher.
    fn wait_as(
        &self,
        spare: usize,
        socket: &OwnedFd,
        launcher: Pid,
    ) -> Result<Vec<OwnedFd>, ExitCode> {
        sys::die_with_parent(true);
        if getppid() != launcher {
            return Err(ExitCode::SUCCESS);
        }
        loop {
            match socket::await_start(socket.as_fd()) {
                Start::Fds { fds, lost: false } => {
                    sys::die_with_parent(false);
                    self.take(spare);
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

    fn take(&self, spare: usize) {
        self.waiting[spare].store(false, SeqCst);
        // Of two that are taken at the same time, at least one sees that no other is left.
        if !self.waiting.iter().any(|waits| waits.load(SeqCst)) {
            // When the bell is full, it rings anyway.
            let _ = nix::unistd::write(&self.bell, &[0]);
        }
    }

    /// The place of a spare that is missing, and the launcher's socket.
    fn offer(&self) -> Option<(usize, OwnedFd)> {
        if self.waiting.iter().all(|waits| waits.load(SeqCst)) {
            return None;
        }
        let (waiting, launchers) = socket::pair().ok()?;
        let pid = getpid().as_raw().to_ne_bytes();
        socket::send_with_fd(self.free.as_fd(), &pid, launchers.as_fd()).ok()?;
        drop(launchers);
        let mut spare = [0];
        let socket = socket::receive_with_fd(waiting.as_fd(), &mut spare, true)?;
        Some((spare[0].into(), socket))
    }
}

fn report_failure(fds: &[OwnedFd], step: Step, errno: Errno) {
    let control: Option<BorrowedFd> = socket::control_of(fds);
    if let Some(control) = control {
        let errno = errno as i32;
        socket::send_event(control, Event::Failed { step, errno });
    }
}
