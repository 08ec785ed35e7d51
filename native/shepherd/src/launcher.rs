//! The launcher: one per VM. Keeps spare shepherds, forked ahead of need.
//!
//! A spare waits on the launcher's own socket, so a request wakes it directly, with the fork long
//! done. That it is taken shows in memory that both share, and the launcher is not woken for it, until the last is
//! taken: on a machine with few processors it would run when the command starts. Then it forks the next, when there is
//! time. Requests that come while there is no spare are taken by the launcher itself, which forks a shepherd for
//! each: many at once start faster so. Where no process can be forked it is the one to report it.
//!
//! A spare dies with its launcher, so that the end of the launcher is the end of the socket; from
//! its first request on it is a shepherd, has let go of the socket, and outlives it.

use crate::attributes::Attributes;
use crate::children;
use crate::shepherd::{self, Parent};
use crate::socket::{self, Start};
use crate::watch::Watch;
use crate::{signals, sys};
use nix::sys::signal::Signal;
use nix::sys::socket::Shutdown;
use nix::unistd::{fork, getpid, getppid, ForkResult, Pid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use wire::{Event, Step, NO_PROC};

/// One is started while another is in the hands of a request.
const SPARES: usize = if cfg!(all(target_os = "linux", not(net_runner_posix))) {
    2
} else {
    0
};

/// Whether a spare waits, for each. The launcher sets it, and the spare takes it back.
type Waiting = &'static [AtomicBool];

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
    spares_bell: OwnedFd,
    waiting: Waiting,
    /// Who that was.
    spares: [Pid; SPARES],
    /// Tells the shepherds that this launcher takes no more requests.
    retired: &'static AtomicBool,
    watch: Watch,
    pause: Duration,
    ended: bool,
}

/// What a child does.
enum Task {
    /// Waits, as this spare.
    Wait(usize),
    /// Serves on this control socket.
    Serve(OwnedFd),
}

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    // The guard has seen that these work.
    let _ = sys::become_subreaper();
    let _ = sys::signal_at_parents_death(Some(Signal::SIGCHLD));
    let (Ok((bell, spares_bell)), Ok(flags)) = (
        sys::nonblocking_pipe(),
        sys::shared_flags::<{ 1 + SPARES }>(),
    ) else {
        return ExitCode::FAILURE;
    };
    let [retired, waiting @ ..] = flags;
    let own_pid = getpid();
    let mut launcher = Launcher {
        socket,
        bell,
        spares_bell,
        waiting,
        spares: [own_pid; SPARES],
        retired,
        watch: Watch::default(),
        pause: BEFORE_NEXT_FORK,
        ended: false,
    };
    if launcher.greet().is_err() {
        return ExitCode::SUCCESS;
    }
    // Without a guard nobody would clean up after this launcher: it takes no more requests, so
    // that the VM starts a new pair, and stays for the shepherds that it has.
    while !launcher.ended && getppid() == guard {
        if let Some(task) = launcher.turn() {
            return launcher.work(task, own_pid);
        }
    }
    let orphaned = !launcher.ended;
    retired.store(true, SeqCst);
    // Tells the VM and the spares; one that has just taken a request serves it.
    let _ = nix::sys::socket::shutdown(launcher.socket.as_raw_fd(), Shutdown::Both);
    let Launcher { watch, socket, .. } = launcher;
    // Race: request at a withdrawn launcher. What nobody has taken is lost now, and the VM asks again.
    drop(socket);
    if orphaned {
        return watch.keep(|dead| dead.exited_with(0) || dead.exited_with(ENDED.into()));
    }
    // The VM is gone, or has replaced this launcher. The shepherds notice by themselves; the guard
    // adopts them.
    ExitCode::SUCCESS
}

impl Launcher {
    fn greet(&self) -> nix::Result<usize> {
        let note = if children::has_proc() { "" } else { NO_PROC };
        let greeting = [wire::GREETING, note].concat();
        socket::send_bytes(self.socket.as_fd(), greeting.as_bytes())
    }

    /// Waits for something to happen, and sees to that. A missing spare is forked when nothing happened for a
    /// while. `Some` in a child.
    fn turn(&mut self) -> Option<Task> {
        let spares = self.count_spares();
        let alone = spares == 0;
        let missing = spares != SPARES;
        let news = if alone { &self.socket } else { &self.bell };
        let times = [missing.then_some(self.pause), self.watch.time_left()];
        let timeout = times.into_iter().flatten().min();
        if signals::wait([news.as_fd()], timeout).is_err() {
            self.ended = true;
        }
        while matches!(nix::unistd::read(&self.bell, &mut [0; 64]), Ok(1..)) {}
        self.reap();
        if alone {
            match socket::receive_start(self.socket.as_fd()) {
                Start::Nothing => {}
                Start::Ended => self.ended = true,
                Start::Control(control) => return self.fork_shepherd(control?),
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

    fn fork_spare(&mut self) -> Option<Task> {
        let spare = self.waiting.iter().position(|waits| !waits.load(SeqCst))?;
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

    fn reap(&mut self) {
        let Launcher {
            spares,
            waiting,
            ended,
            watch,
            ..
        } = self;
        watch.look(|dead| {
            let was_spare = (0..SPARES)
                .any(|spare| spares[spare] == dead.pid && waiting[spare].swap(false, SeqCst));
            let told_end = was_spare && dead.exited_with(ENDED.into());
            *ended |= told_end;
            told_end || dead.exited_with(0)
        });
    }

    fn fork_shepherd(&mut self, control: OwnedFd) -> Option<Task> {
        // SAFETY: as in `fork_spare`.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => return Some(Task::Serve(control)),
            Ok(ForkResult::Parent { .. }) => {}
            Err(errno) => {
                let (step, errno) = (Step::Fork, errno as i32);
                socket::send_event(control.as_fd(), Event::Failed { step, errno });
            }
        }
        None
    }

    fn work(self, task: Task, launcher: Pid) -> ExitCode {
        let Launcher {
            socket,
            bell,
            spares_bell,
            waiting,
            retired,
            ..
        } = self;
        // Nothing of the launcher's may take the place of a command's descriptors, where few are allowed.
        drop(bell);
        let _ = sys::become_subreaper();
        let attributes = Attributes::of_this_process();
        let control = match task {
            Task::Serve(control) => control,
            Task::Wait(spare) => match wait_as_spare(&socket, launcher) {
                Ok(control) => {
                    take(waiting, spare, &spares_bell);
                    control
                }
                Err(exit_code) => return exit_code,
            },
        };
        drop((socket, spares_bell));
        let parent = Parent { launcher, retired };
        shepherd::run(control, &parent, &attributes);
        ExitCode::SUCCESS
    }
}

/// Waits for a request, and dies with its launcher.
fn wait_as_spare(socket: &OwnedFd, launcher: Pid) -> Result<OwnedFd, ExitCode> {
    let _ = sys::signal_at_parents_death(Some(Signal::SIGKILL));
    if getppid() != launcher {
        return Err(ExitCode::SUCCESS);
    }
    loop {
        match socket::await_start(socket.as_fd()) {
            Start::Control(Some(control)) => return Ok(control),
            // The next spare has the launcher's limit of today.
            Start::Control(None) => return Err(ExitCode::SUCCESS),
            Start::Nothing => {}
            Start::Ended => return Err(ExitCode::from(ENDED)),
        }
    }
}

fn take(waiting: Waiting, spare: usize, bell: &OwnedFd) {
    waiting[spare].store(false, SeqCst);
    // Of two that are taken at the same time, at least one sees that no other is left.
    if !waiting.iter().any(|waits| waits.load(SeqCst)) {
        // When the bell is full, it rings anyway.
        let _ = nix::unistd::write(bell, &[0]);
    }
}
