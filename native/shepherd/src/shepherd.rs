//! A shepherd: starts one command after the other, holds the whole tree of each, and reports its end.
//!
//! What it does, and when, is `Life`'s: this file perceives what happens, tells `Life` of it, and carries out what
//! follows. Its one thread is always in one of these places: it waits for a command (`socket::await_begin`), for news of the
//! command that runs (`hold`), for the end of what that left (`await_leftovers`), or for the VM to have read the
//! figures of a cgroup.
//!
//! The command stays a zombie until the signals to its process group are sent. Race: reused PID.

use crate::attributes::Attributes;
use crate::backoff::Backoff;
use crate::cgroup;
use crate::children::{self, Left};
use crate::command::{self, Init, Started};
use crate::failure::{at, Failure};
use crate::life::{Action, Command, Event, Life, Vm};
use crate::sandbox;
use crate::socket::{self, Begin, Control, Wanted};
use crate::{signals, sys, tree};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::select::FdSet;
use nix::sys::signal::Signal;
use nix::sys::socket::{shutdown, Shutdown};
use nix::sys::stat::Mode;
use nix::unistd::{getppid, Pid};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use wire::{Leftovers, Spec, SpecWriter, Step, Tag};

/// A ruleset holds its directories when they are deleted: until then, their file system cannot be made read-only.
const LONGEST_KEPT: Duration = Duration::from_secs(1);

/// Who is above a shepherd, and ends what is left of its command if it is killed.
pub struct Parent {
    pub launcher: Pid,
    /// Whether the launcher takes no more requests: the VM has another one, or will.
    pub withdrawn: &'static AtomicBool,
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

    fn takes_requests(&self) -> bool {
        getppid() == self.launcher && !self.withdrawn.load(SeqCst)
    }
}

/// Serves one command after the other, as long as the VM keeps the socket.
///
/// `attributes` are those that this process was born with. When a command has changed them, the next would get them:
/// then this is the end.
pub fn run(control: OwnedFd, parent: &Parent, attributes: &Attributes) {
    let mut shepherd = Shepherd::new(control.as_fd(), parent);
    loop {
        match &shepherd.life {
            Life::Idle => shepherd.await_command(),
            Life::Running { .. } => shepherd.hold(),
            Life::Dead { command, .. } => {
                // Process 1 of its namespace begins to end. It is gone when the command was reaped, not earlier.
                shepherd.init = None;
                let exit = sys::reap_with_usage(command.pid).ok();
                // Otherwise its end is that of all children.
                if shepherd.killed && (!sys::ADOPTS || command.leftovers == Leftovers::Leave) {
                    await_end_of_group(command.pid);
                }
                shepherd.exit = None;
                shepherd.killed = false;
                shepherd.event(Event::Reaped(exit));
            }
            Life::EndingLeftovers { .. } | Life::HoldingLeftovers { .. } => {
                shepherd.await_leftovers();
            }
            Life::LeavingCgroup { .. } => match socket::await_request(shepherd.control) {
                // It may be there from before the exit.
                Control::Request(request) => shepherd.event(Event::Asked(request)),
                Control::Closed => shepherd.event(Event::VmGone),
                Control::Nothing => {}
            },
            Life::Between => {
                // While it is idle it has no child, and nobody needs it when its parent is gone.
                // Race: parent died first. Race: retired too late.
                let _ = sys::signal_at_parents_death(Some(Signal::SIGKILL));
                // Those above this process end a helper that is stopped again (see `Watch`), and signals that wait take from
                // what its user may have waiting (RLIMIT_SIGPENDING). That is not the next command's doing.
                let may_serve_again = parent.takes_requests()
                    && !signals::was_signalled()
                    && Attributes::of_this_process() == *attributes;
                shepherd.event(Event::Checked { may_serve_again });
            }
            Life::Gone => return,
        }
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
    // Not the working directory: its file system may have ceased to answer, and there would be no spare then.
    let cwd = nix::fcntl::open(c"/", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    wire::socket::send_begin(vm.as_fd(), &nowhere.finish(), &[cwd.as_raw_fd()])?;
    static WITHDRAWN: AtomicBool = AtomicBool::new(false);
    let parent = Parent {
        launcher: getppid(),
        withdrawn: &WITHDRAWN,
    };
    let mut shepherd = Shepherd::new(control.as_fd(), &parent);
    if let Some(begin) = socket::receive_begin(control.as_fd()) {
        shepherd.start(begin);
    }
    children::reap(|_| {});
    signals::wait([], Some(Duration::ZERO)).map(drop)
}

struct Shepherd<'a> {
    control: BorrowedFd<'a>,
    parent: &'a Parent,
    life: Life,
    /// Readable when the command is dead. Until that was seen.
    exit: Option<OwnedFd>,
    /// Process 1 of the command's PID namespace. Until the command is dead.
    init: Option<Init>,
    /// The command's terminal, where it has one. Until its exit is reported. Race: terminal for nobody.
    terminal: Option<OwnedFd>,
    /// The command's group has got SIGKILL.
    killed: bool,
    /// Something could not be told to the VM, which is as good as gone. Race: unheard report.
    unheard: bool,
}

impl<'a> Shepherd<'a> {
    fn new(control: BorrowedFd<'a>, parent: &'a Parent) -> Shepherd<'a> {
        Shepherd {
            control,
            parent,
            life: Life::Idle,
            exit: None,
            init: None,
            terminal: None,
            killed: false,
            unheard: false,
        }
    }

    fn await_command(&mut self) {
        let keeps = sandbox::keeps_ruleset();
        let when_idle = keeps.then_some((LONGEST_KEPT, sandbox::let_ruleset_go as fn()));
        if !socket::await_begin(self.control, when_idle) {
            return self.event(Event::VmGone);
        }
        // While it has a command, the death of its parent only wakes it. Race: parent dies beside a request.
        let _ = sys::signal_at_parents_death(Some(Signal::SIGCHLD));
        let Some(mut begin) = socket::receive_begin(self.control) else {
            return self.event(Event::VmGone);
        };
        // Race: timeout beside the start. Race: abandoned begin.
        match socket::is_wanted(self.control) {
            Wanted::Yes => self.start(begin),
            // The VM removes the cgroup, and may have made another of this name by now.
            Wanted::No => self.event(Event::VmGone),
            Wanted::ByNobody => {
                let _ = receive_rest(&mut begin);
                let cgroup = own_cgroup(&begin.spec);
                self.event(Event::Abandoned { cgroup });
            }
        }
    }

    fn event(&mut self, event: Event) {
        let life = std::mem::replace(&mut self.life, Life::Gone);
        let (life, actions) = life.event(event, Instant::now());
        self.life = life;
        for action in actions {
            self.killed |= matches!(action, Action::Kill(_));
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Report(event) => self.report(event),
            Action::Signal(command, number) => children::signal(command, number),
            Action::SignalGroup(command, number) => children::signal_group(command, number),
            Action::SignalTree(number) => match self.group_at_most() {
                Some(group) => children::signal_group(group, number),
                None => tree::signal(number),
            },
            Action::Suspend(cgroup) => self.suspend(cgroup.as_deref(), true),
            Action::Resume(cgroup) => self.suspend(cgroup.as_deref(), false),
            Action::SignalAll(number) => match self.group_at_most() {
                Some(group) => children::signal_group(group, number),
                None => self.signal_all(number),
            },
            Action::Kill(command) => children::kill(command),
            Action::KillAll => children::kill_all(),
            Action::KillCgroup(cgroup) => cgroup::kill(&cgroup),
            Action::RemoveCgroup(cgroup) => cgroup::remove(&cgroup),
        }
    }

    /// What cannot be told ends the socket: the reading side at once, as if the VM had closed its end; and the whole, so that
    /// the VM is told that much, when the command is over. Race: unheard report.
    fn report(&mut self, event: wire::Event) {
        let over = !matches!(event, wire::Event::Started { .. });
        if over {
            self.terminal = None;
        }
        // Nothing after what is missing: the VM would take it for something else.
        self.unheard = self.unheard || !socket::send_event(self.control, event);
        if self.unheard {
            let side = if over { Shutdown::Both } else { Shutdown::Read };
            let _ = shutdown(self.control.as_raw_fd(), side);
        }
    }

    /// In a PID namespace, it is process 1 that adopts.
    fn signal_all(&self, number: i32) {
        children::signal_all(number);
        if let Some(init) = &self.init {
            tree::signal_below(init.pid, number);
        }
    }

    /// The command's group, where nothing else of its tree can be found.
    fn group_at_most(&self) -> Option<Pid> {
        let command = self.life.command()?;
        (!sys::ADOPTS).then_some(command.pid)
    }

    /// Stops all that is below this process, or lets it go on.
    fn suspend(&self, cgroup: Option<&CStr>, suspended: bool) {
        let by_cgroup = cgroup.is_some_and(|cgroup| cgroup::freeze(cgroup, suspended));
        match (by_cgroup, suspended, self.group_at_most()) {
            (true, true, _) => {}
            (false, true, Some(group)) => children::signal_group(group, libc::SIGSTOP),
            (false, true, None) => tree::stop_all(),
            // Also what somebody has stopped by itself goes on.
            (_, false, Some(group)) => children::signal_group(group, libc::SIGCONT),
            (_, false, None) => tree::resume_all(),
        }
    }

    fn start(&mut self, mut begin: Begin) {
        let event = match start_command(&mut begin) {
            Ok((command, started, terminal)) => {
                self.exit = started.exit;
                self.init = started.init;
                self.terminal = terminal;
                Event::Started(command)
            }
            Err(failure) => {
                let cgroup = own_cgroup(&begin.spec);
                Event::NotStarted { failure, cgroup }
            }
        };
        // From here on the spec and the command's ends of the pipes, except for a terminal, are gone from this process.
        drop(begin);
        self.event(event);
    }

    /// Waits for news of the command, and tells `Life`.
    fn hold(&mut self) {
        if self.command_is_dead() {
            return self.event(Event::CommandDied);
        }
        if !self.parent.is_there() {
            self.event(Event::ParentGone);
        }
        let has_exited = match self.reap_and_wait() {
            Ok(has_exited) => has_exited,
            // Cannot happen with good arguments; if it does, nothing may stay.
            Err(_) => {
                self.event(Event::ParentGone);
                false
            }
        };
        // Race: exit beside the end of the VM.
        if self.command_is_dead() {
            return self.event(Event::CommandDied);
        }
        if has_exited {
            self.see_held_exit();
        }
        if self.listens() {
            match socket::receive_request(self.control) {
                Control::Request(request) => self.event(Event::Asked(request)),
                Control::Closed => self.event(Event::VmGone),
                Control::Nothing => {}
            }
        }
        if self.time_left() == Some(Duration::ZERO) {
            self.event(Event::TimeOver);
        }
    }

    /// Reaps what died below the command and was given to this process. Then waits until something happens, or the time is
    /// over. Whether the command has exited, as far as that shows.
    fn reap_and_wait(&self) -> nix::Result<bool> {
        let left = self.life.command().map(|it| children::reap_all_but(it.pid));
        let timeout = match left {
            Some(Left::Unseen) => Some(Duration::ZERO),
            _ => self.time_left(),
        };
        let control = self.listens().then_some(self.control);
        let exit = self.exit.as_ref().map(AsFd::as_fd);
        let ready = signals::wait(control.into_iter().chain(exit), timeout)?;
        Ok(is_in(&ready, exit))
    }

    fn listens(&self) -> bool {
        matches!(self.life, Life::Running { vm: Vm::There, .. })
    }

    fn time_left(&self) -> Option<Duration> {
        let until = self.life.until()?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// The command has exited, though the kernel does not say so to its parent. Race: held zombie.
    fn see_held_exit(&mut self) {
        self.exit = None;
        let held = |command: &Command| children::held_zombie(command.pid);
        if let Some(exit) = self.life.command().and_then(held) {
            self.event(Event::CommandHeld(exit));
        }
    }

    fn command_is_dead(&self) -> bool {
        let dead = |command: &Command| !matches!(sys::dead_child(Some(command.pid)), Ok(None));
        self.life.command().is_some_and(dead)
    }

    /// Dead children are reaped, and each may bring up others, until the kernel says that there is none.
    fn await_leftovers(&mut self) {
        match children::reap(|_| {}) {
            Left::None => self.event(Event::NoChild),
            Left::Unseen => self.event(Event::ChildrenLeft),
            Left::Alive => {
                self.event(Event::ChildrenLeft);
                let _ = signals::wait([], self.time_left());
            }
        }
    }
}

/// What has started.
fn start_command(begin: &mut Begin) -> Result<(Command, Started, Option<OwnedFd>), Failure> {
    let (cwd, passed) = receive_rest(begin)?;
    let spec = Spec::decode(&begin.spec).map_err(|_| receive_failure(Errno::EPROTO))?;
    let started = command::start(&spec, &cwd, &passed)?;
    let command = Command {
        pid: started.pid,
        stop_signal: spec.stop_signal,
        kill_timeout: Duration::from_millis(spec.kill_timeout_ms),
        leftovers: spec.leftovers,
        cgroup: spec.cgroup.map(CStr::to_owned),
    };
    let terminal = spec.terminal.then(|| passed.into_iter().next());
    Ok((command, started, terminal.flatten()))
}

/// The working directory, and what is for the command. A spec that is in a file is read.
fn receive_rest(begin: &mut Begin) -> Result<(OwnedFd, Vec<OwnedFd>), Failure> {
    let mut fds = std::mem::take(&mut begin.fds).into_iter();
    let cwd = fds.next().filter(|_| !begin.lost);
    let cwd = cwd.ok_or(receive_failure(Errno::EMFILE))?;
    if begin.spec.is_empty() {
        begin.spec = read_spec(fds.next())?;
    }
    Ok((cwd, fds.collect()))
}

/// The cgroup that the VM has made for this command.
fn own_cgroup(spec: &[u8]) -> Option<CString> {
    let spec = Spec::decode(spec).ok()?;
    spec.cgroup.map(CStr::to_owned)
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

/// A spec that is too long for a message.
fn read_spec(fd: Option<OwnedFd>) -> Result<Vec<u8>, Failure> {
    let mut file = std::fs::File::from(fd.ok_or(receive_failure(Errno::EPROTO))?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| {
        receive_failure(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
    })?;
    Ok(bytes)
}

fn receive_failure(errno: Errno) -> Failure {
    at(Step::Receive)(errno)
}

fn is_in(ready: &FdSet, fd: Option<BorrowedFd>) -> bool {
    fd.is_some_and(|fd| ready.contains(fd))
}
