//! A shepherd: starts one command, holds its whole tree, and reports its end.
//!
//! Its life: read the spec, start the command, say `Started` (or `Failed`, and exit). Then serve
//! the control socket until the command exits. When the VM's end of the socket closes, end the
//! tree: the stop signal, `kill_timeout`, SIGKILL. When the command has exited, end what it left
//! (unless it may stay), and only when nothing is left say `Exited`.
//!
//! The command stays a zombie until the signals to its process group are sent: that keeps its PID,
//! and with it the number of its group, from being given to anybody else.

use crate::attributes::Attributes;
use crate::cgroup;
use crate::children::{self, Left};
use crate::command::{self, Failure};
use crate::socket::{self, Begin, Control};
use crate::sys::Spawned;
use crate::watch::Backoff;
use crate::{signals, sys};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::select::FdSet;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{getppid, Pid};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use wire::{Event, Exit, Leftovers, Request, Spec, SpecWriter, Step, Tag};

/// Who is above a shepherd, and ends what is left of its command if it is killed.
pub struct Parent {
    pub launcher: Pid,
    /// Whether the launcher takes no more requests: the VM has another one, or will.
    pub retired: &'static AtomicBool,
}

impl Parent {
    /// A killed launcher is followed by the guard, which is in the session of all helpers.
    /// Where it could do nothing for the command, it does not matter.
    fn is_there(&self) -> bool {
        if !sys::ADOPTS {
            return true;
        }
        let parent = getppid();
        parent == self.launcher || (parent.as_raw() > 0 && !children::is_stranger(parent))
    }

    fn serves_on(&self) -> bool {
        getppid() == self.launcher && !self.retired.load(SeqCst)
    }
}

/// Serves one command after the other, as long as the VM keeps the socket. In between this process has no child.
/// Then nobody would clean up after it if its launcher was gone: it dies with that. While it has a command, it
/// is woken instead.
///
/// `attributes` are those that this process was born with. When a command has changed them, the next would get them:
/// then this is the end.
pub fn run(control: OwnedFd, parent: &Parent, attributes: &Attributes) {
    while let Some(begin) = socket::await_begin(control.as_fd()) {
        let _ = sys::signal_at_parents_death(Some(Signal::SIGCHLD));
        serve(begin, control.as_fd(), parent);
        let _ = sys::signal_at_parents_death(Some(Signal::SIGKILL));
        if !parent.serves_on() || Attributes::of_this_process() != *attributes {
            return;
        }
    }
}

/// One command to its end.
fn serve(begin: Begin, control: BorrowedFd, parent: &Parent) {
    let Begin { spec, fds, lost } = begin;
    let mut fds = fds.into_iter();
    let started = match fds.next() {
        Some(cwd) if !lost => start(spec, cwd, fds),
        _ => Err(receive_failure(Errno::EMFILE)),
    };
    // From here on the spec and the command's ends of the pipes are gone from this process.
    match started {
        Err(Failure { step, errno }) => {
            let errno = errno as i32;
            socket::send_event(control, Event::Failed { step, errno });
        }
        Ok(shepherd) => {
            let pid = shepherd.command.as_raw();
            socket::send_event(control, Event::Started { pid });
            shepherd.watch(control, parent);
        }
    }
}

fn start(
    mut spec: Vec<u8>,
    cwd: OwnedFd,
    mut fds: impl Iterator<Item = OwnedFd>,
) -> Result<Shepherd, Failure> {
    if spec.is_empty() {
        spec = read_spec(fds.next())?;
    }
    let spec = Spec::decode(&spec).map_err(|_| receive_failure(Errno::EPROTO))?;
    let passed: Vec<OwnedFd> = fds.collect();
    let Spawned { pid, exit } = command::start(&spec, &cwd, &passed)?;
    Ok(Shepherd {
        command: pid,
        exit,
        stop_signal: spec.stop_signal,
        kill_timeout: Duration::from_millis(spec.kill_timeout_ms),
        leftovers: spec.leftovers,
        cgroup: spec.cgroup.map(CStr::to_owned),
        stage: Stage::Serving,
        listening: true,
    })
}

fn receive_failure(errno: Errno) -> Failure {
    Failure {
        step: Step::Receive,
        errno,
    }
}

/// Goes through a whole start, of a command that is nowhere, with nobody to hear of it. Afterwards
/// the pages of code, heap and stack that a start touches are in the tables of this process, which
/// saves the next one more than a hundred microseconds of page faults.
pub fn rehearse() {
    // What fails here fails again, and is reported, when it matters.
    let _ = try_to_rehearse();
}

fn try_to_rehearse() -> nix::Result<()> {
    let (vm, control) = socket::pair()?;
    let mut nowhere = SpecWriter::with_capacity(64);
    for tag in [Tag::File, Tag::Arg] {
        // No NUL is in it.
        let _ = nowhere.string(tag, b"");
    }
    let cwd = nix::fcntl::open(c".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    wire::socket::send_begin(vm.as_fd(), &nowhere.finish(), &[cwd.as_raw_fd()])?;
    static RETIRED: AtomicBool = AtomicBool::new(false);
    let parent = Parent {
        launcher: getppid(),
        retired: &RETIRED,
    };
    if let Some(begin) = socket::await_begin(control.as_fd()) {
        serve(begin, control.as_fd(), &parent);
    }
    end_leftovers();
    signals::wait([], Some(Duration::ZERO)).map(drop)
}

/// A spec that is too long for a message.
fn read_spec(fd: Option<OwnedFd>) -> Result<Vec<u8>, Failure> {
    let mut file = std::fs::File::from(fd.ok_or(receive_failure(Errno::EPROTO))?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| {
        receive_failure(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    })?;
    Ok(bytes)
}

struct Shepherd {
    command: Pid,
    /// Readable when the command is dead. Until that was seen.
    exit: Option<OwnedFd>,
    stop_signal: i32,
    kill_timeout: Duration,
    leftovers: Leftovers,
    cgroup: Option<CString>,
    stage: Stage,
    /// Until the VM's end of the socket closes.
    listening: bool,
}

/// How far the end has come while the command lives.
enum Stage {
    Serving,
    /// The VM asked for the end, or is gone; the stop signal is sent; SIGKILL follows then.
    Stopping {
        until: Option<Instant>,
    },
    /// SIGKILL is sent, again and again: there are processes that it does not reach at once (see `Backoff`).
    Killing {
        again: Instant,
        backoff: Backoff,
    },
}

impl Shepherd {
    fn watch(mut self, control: BorrowedFd, parent: &Parent) {
        loop {
            if self.command_is_dead() {
                return self.finish(control);
            }
            if !parent.is_there() {
                // If this process was killed now, its command would be nobody's. There is no time for manners.
                self.kill();
            }
            let listen_to = self.listening.then_some(control);
            let exit = self.exit.as_ref().map(AsFd::as_fd);
            let fds = listen_to.into_iter().chain(exit);
            match signals::wait(fds, self.time_left()).map(|ready| is_in(&ready, exit)) {
                Ok(false) => {}
                Ok(true) => self.see_exit(),
                // Cannot happen with good arguments; if it does, nothing may stay.
                Err(_) => self.kill(),
            }
            self.reap_orphans();
            if self.listening {
                self.serve(control);
            }
            let now = Instant::now();
            match self.stage {
                Stage::Stopping { until: Some(until) } if until <= now => self.kill(),
                Stage::Killing { again, .. } if again <= now => self.kill(),
                Stage::Serving | Stage::Stopping { .. } | Stage::Killing { .. } => {}
            }
        }
    }

    fn time_left(&self) -> Option<Duration> {
        let until = match self.stage {
            Stage::Serving => None,
            Stage::Stopping { until } => until,
            Stage::Killing { again, .. } => Some(again),
        };
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// The command is dead. A process that traces it keeps its death from its parent (ptrace(2)); one that the
    /// command started is a leftover like any other.
    fn see_exit(&mut self) {
        self.exit = None;
        let held = !self.command_is_dead() && children::is_held_zombie(self.command);
        if held && self.leftovers == Leftovers::Kill {
            self.kill();
        }
    }

    fn serve(&mut self, control: BorrowedFd) {
        match socket::receive_request(control) {
            Control::Request(Request::Signal { number }) => {
                children::signal(self.command, number);
            }
            Control::Request(Request::End) => self.stop(),
            Control::Request(Request::Begin) | Control::Nothing => {}
            Control::Ended => {
                self.listening = false;
                self.stop();
            }
        }
    }

    fn stop(&mut self) {
        if let Stage::Serving = self.stage {
            // A stopped program acts on a signal only when it goes on.
            self.signal_all(self.stop_signal);
            self.signal_all(Signal::SIGCONT as i32);
            self.stage = Stage::Stopping {
                // A time beyond what the clock can count is for ever.
                until: Instant::now().checked_add(self.kill_timeout),
            };
        }
    }

    /// Signals the command's group and, where leftovers go with it, its orphans. What is in its group belongs to
    /// it: leftovers are what stays when a command exits by itself, and what left its group before.
    fn signal_all(&self, number: i32) {
        match self.leftovers {
            Leftovers::Kill if sys::ADOPTS => children::signal_all(number),
            Leftovers::Kill | Leftovers::Leave => children::signal_group(self.command, number),
        }
    }

    /// SIGKILL to the same, and the next try when that does not do.
    fn kill(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Serving);
        let mut backoff = match stage {
            Stage::Killing { backoff, .. } => backoff,
            Stage::Serving | Stage::Stopping { .. } => Backoff::new(),
        };
        // The command leads its group: it leads a session, so it cannot leave.
        children::kill(self.command);
        if self.leftovers == Leftovers::Kill {
            if let Some(cgroup) = &self.cgroup {
                cgroup::kill(cgroup);
            }
            children::kill_all();
        }
        self.stage = Stage::Killing {
            again: Instant::now() + backoff.next(),
            backoff,
        };
    }

    fn command_is_dead(&self) -> bool {
        !matches!(sys::dead_child(Some(self.command)), Ok(None))
    }

    /// Reaps what died below the command and was given to this process; never the command.
    fn reap_orphans(&self) {
        while let Ok(Some(dead)) = sys::dead_child(None) {
            if dead.pid == self.command {
                return;
            }
            let _ = nix::sys::wait::waitpid(dead.pid, Some(WaitPidFlag::WNOHANG));
        }
    }

    /// The command is dead and not yet reaped.
    fn finish(self, control: BorrowedFd) {
        match self.leftovers {
            Leftovers::Kill => {
                children::kill(self.command);
                let exit = sys::reap_with_usage(self.command);
                if let Some(cgroup) = &self.cgroup {
                    cgroup::kill(cgroup);
                }
                end_leftovers();
                if !sys::ADOPTS {
                    await_end_of_group(self.command);
                }
                report(control, exit);
            }
            Leftovers::Leave => {
                let ended = !matches!(self.stage, Stage::Serving);
                if ended {
                    children::kill(self.command);
                }
                let exit = sys::reap_with_usage(self.command);
                if ended {
                    await_end_of_group(self.command);
                }
                report(control, exit);
                // They are orphans of this process now, and it stays as long as they do: given
                // on to the launcher they would pass for what a killed shepherd left.
                wait_for_leftovers();
            }
        }
        if let Some(cgroup) = &self.cgroup {
            // The VM reads the cgroup's figures before it closes its end. An `End` from before may still be there.
            while self.listening && !matches!(socket::await_request(control), Control::Ended) {}
            cgroup::remove(cgroup);
        }
    }
}

fn report(control: BorrowedFd, exit: nix::Result<Exit>) {
    if let Ok(exit) = exit {
        socket::send_event(control, Event::Exited(exit));
    }
}

/// SIGKILL to every child, and to every child that comes up when its parent dies, until the
/// kernel says that there is none.
fn end_leftovers() {
    let mut backoff = Backoff::new();
    while children::reap(|_| {}) == Left::Some {
        children::kill_all();
        let _ = signals::wait([], Some(backoff.next()));
    }
}

/// The rest of the command's group has got SIGKILL; it may have children of this process in it, or not. It is asked for
/// only so long: process 1 may take its time to reap it, and when it is gone, its number may become that of another
/// group.
fn await_end_of_group(leader: Pid) {
    const PATIENCE: Duration = Duration::from_secs(1);
    let until = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new();
    loop {
        children::reap(|_| {});
        if !children::has_group(leader) || Instant::now() >= until {
            return;
        }
        let _ = signals::wait([], Some(backoff.next()));
    }
}

fn wait_for_leftovers() {
    while children::reap(|_| {}) == Left::Some {
        let _ = signals::wait([], None);
    }
}

fn is_in(ready: &FdSet, fd: Option<BorrowedFd>) -> bool {
    fd.is_some_and(|fd| ready.contains(fd))
}
