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
use crate::socket::{self, LauncherRequest};
use crate::spares::{self, Action, Event, Phase, Waiting, SPARES, VM_CLOSED};
use crate::watch::Watch;
use crate::{signals, sys};
use nix::sys::signal::Signal;
use nix::sys::socket::Shutdown;
use nix::unistd::{fork, getpid, getppid, ForkResult, Pid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use wire::{Step, NO_PROC};

/// Whether a spare waits, for each. The launcher sets it, and the spare clears it.
#[derive(Clone, Copy)]
struct Flags(&'static [AtomicBool]);

impl Flags {
    fn now(self) -> Waiting {
        std::array::from_fn(|place| self.0[place].load(SeqCst))
    }

    fn set(self, place: usize, waits: bool) {
        self.0[place].store(waits, SeqCst);
    }
}

struct Launcher {
    socket: OwnedFd,
    /// Rung by the spare that is taken last.
    bell: OwnedFd,
    spares_bell: OwnedFd,
    flags: Flags,
    phase: Phase,
    /// Tells the shepherds that this launcher takes no more requests.
    withdrawn: &'static AtomicBool,
    watch: Watch,
    /// Its own, before any command could change them: those of its shepherds, too.
    attributes: Attributes,
}

/// What a child of the launcher is born for.
enum Task {
    /// To wait for a request, in this place.
    BeSpare(usize),
    /// To serve on this control socket.
    BeShepherd(OwnedFd),
}

pub fn run(socket: OwnedFd, guard: Pid) -> ExitCode {
    let attributes = Attributes::of_this_process();
    // The guard has seen that these work. Race: parent died first. The loop below asks who the parent is.
    let _ = sys::become_subreaper();
    let _ = sys::signal_at_parents_death(Some(Signal::SIGCHLD));
    let (Ok((bell, spares_bell)), Ok(flags)) = (
        sys::nonblocking_pipe(),
        sys::shared_flags::<{ 1 + SPARES }>(),
    ) else {
        return ExitCode::FAILURE;
    };
    let [withdrawn, flags @ ..] = flags;
    let own_pid = getpid();
    let mut launcher = Launcher {
        socket,
        bell,
        spares_bell,
        flags: Flags(flags),
        phase: Phase::new(),
        withdrawn,
        watch: Watch::default(),
        attributes,
    };
    if launcher.greet().is_err() {
        return ExitCode::SUCCESS;
    }
    while let Phase::Open { .. } = launcher.phase {
        if getppid() != guard {
            launcher.event(Event::GuardGone);
        } else if let Some(task) = launcher.turn() {
            return launcher.become_child(task, own_pid);
        }
    }
    withdrawn.store(true, SeqCst);
    // Tells the VM and the spares; one that has just taken a request serves it.
    let _ = nix::sys::socket::shutdown(launcher.socket.as_raw_fd(), Shutdown::Both);
    let Launcher {
        phase,
        watch,
        flags,
        socket,
        ..
    } = launcher;
    // Race: request at a withdrawn launcher. What nobody has taken is lost now, and the VM asks again.
    drop(socket);
    match phase {
        Phase::Withdrawn => watch.attend_until_childless(|dead| {
            phase.is_expected(dead.pid, dead.exit_code, &flags.now())
        }),
        // What it may not signal yet, the guard goes on to end.
        Phase::VmClosed | Phase::Open { .. } if watch.has_strangers() => ExitCode::FAILURE,
        Phase::VmClosed | Phase::Open { .. } => ExitCode::SUCCESS,
    }
}

impl Launcher {
    fn greet(&self) -> nix::Result<usize> {
        let note = if children::has_proc() { "" } else { NO_PROC };
        let greeting = [wire::GREETING, note].concat();
        socket::send_bytes(self.socket.as_fd(), greeting.as_bytes())
    }

    /// Tells `Phase`, and carries out what follows. `Some` in a child.
    fn event(&mut self, event: Event) -> Option<Task> {
        let phase = std::mem::replace(&mut self.phase, Phase::VmClosed);
        let (phase, action) = phase.event(event, self.flags.now());
        self.phase = phase;
        match action? {
            Action::Fork { place } => self.fork_spare(place),
            Action::Clear { place } => {
                self.flags.set(place, false);
                None
            }
        }
    }

    /// Waits for something to happen, and sees to that. A missing spare is forked when nothing happened for a
    /// while. `Some` in a child.
    fn turn(&mut self) -> Option<Task> {
        let before = self.flags.now();
        let no_spare = spares::none_waits(&before);
        let news = if no_spare { &self.socket } else { &self.bell };
        let times = [self.phase.pause(&before), self.watch.time_left()];
        let timeout = times.into_iter().flatten().min();
        if signals::wait([news.as_fd()], timeout).is_err() {
            self.event(Event::VmClosed);
        }
        while matches!(nix::unistd::read(&self.bell, &mut [0; 64]), Ok(1..)) {}
        self.reap();
        if no_spare {
            match socket::receive_launcher_request(self.socket.as_fd()) {
                LauncherRequest::Nothing => {}
                LauncherRequest::Closed => return self.event(Event::VmClosed),
                LauncherRequest::NewShepherd(control) => return self.fork_shepherd(control?),
            }
        }
        self.event(Event::Woke { before })
    }

    fn reap(&mut self) {
        let mut watch = std::mem::take(&mut self.watch);
        watch.attend(|dead| {
            let (pid, exit_code) = (dead.pid, dead.exit_code);
            let is_expected = self.phase.is_expected(pid, exit_code, &self.flags.now());
            self.event(Event::ChildDied { pid, exit_code });
            is_expected
        });
        self.watch = watch;
    }

    /// Its children would have that, and their commands. Race: changed launcher.
    fn was_changed(&self) -> bool {
        Attributes::of_this_process().differ_from(&self.attributes)
    }

    fn fork_spare(&mut self, place: usize) -> Option<Task> {
        if self.was_changed() {
            return self.event(Event::Changed);
        }
        self.flags.set(place, true);
        // SAFETY: this process has one thread, so the child may do whatever the parent may.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                shepherd::rehearse();
                Some(Task::BeSpare(place))
            }
            Ok(ForkResult::Parent { child: pid }) => self.event(Event::Forked { place, pid }),
            Err(_) => self.event(Event::NotForked { place }),
        }
    }

    fn fork_shepherd(&mut self, control: OwnedFd) -> Option<Task> {
        if self.was_changed() {
            // An unread begin: the VM asks the next launcher.
            return self.event(Event::Changed);
        }
        // SAFETY: as in `fork_spare`.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => return Some(Task::BeShepherd(control)),
            Ok(ForkResult::Parent { .. }) => {}
            Err(errno) => {
                let (step, errno) = (Step::Fork, errno as i32);
                let failed = wire::Event::Failed { step, errno };
                // Unheard, it is an unread begin: the VM asks again.
                let _ = socket::send_event(control.as_fd(), failed);
            }
        }
        None
    }

    fn become_child(self, task: Task, launcher: Pid) -> ExitCode {
        let Launcher {
            socket,
            bell,
            spares_bell,
            flags,
            withdrawn,
            attributes,
            ..
        } = self;
        // What was changed between the look of the launcher and the fork. Race: changed launcher.
        if Attributes::of_this_process().differ_from(&attributes) {
            return ExitCode::SUCCESS;
        }
        // Nothing of the launcher's may take the place of a command's descriptors, where few are allowed.
        drop(bell);
        let _ = sys::become_subreaper();
        let control = match task {
            Task::BeShepherd(control) => control,
            Task::BeSpare(place) => match wait_as_spare(&socket, launcher) {
                Ok(control) => {
                    leave_spares(flags, place, &spares_bell);
                    control
                }
                Err(exit_code) => return exit_code,
            },
        };
        drop((socket, spares_bell));
        // A command might reach them through process 1 of its namespace.
        sys::keep_from_forks(withdrawn);
        let parent = Parent {
            launcher,
            withdrawn,
        };
        shepherd::run(control, &parent, &attributes);
        ExitCode::SUCCESS
    }
}

/// Waits for a request, and dies with its launcher. Race: parent died first.
fn wait_as_spare(socket: &OwnedFd, launcher: Pid) -> Result<OwnedFd, ExitCode> {
    let _ = sys::signal_at_parents_death(Some(Signal::SIGKILL));
    if getppid() != launcher {
        return Err(ExitCode::SUCCESS);
    }
    loop {
        match socket::await_launcher_request(socket.as_fd()) {
            LauncherRequest::NewShepherd(Some(control)) => return Ok(control),
            // Race: full table.
            LauncherRequest::NewShepherd(None) => return Err(ExitCode::SUCCESS),
            LauncherRequest::Nothing => {}
            LauncherRequest::Closed => return Err(ExitCode::from(VM_CLOSED)),
        }
    }
}

fn leave_spares(flags: Flags, place: usize, bell: &OwnedFd) {
    // Race: two last spares.
    flags.set(place, false);
    if spares::none_waits(&flags.now()) {
        // A write that finds the pipe full may fail: what is in it wakes the launcher, too.
        let _ = nix::unistd::write(bell, &[0]);
    }
}
