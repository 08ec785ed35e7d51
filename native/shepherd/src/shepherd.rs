//! A shepherd: starts one command, holds its whole tree, and reports its end.
//!
//! Its life: read the spec, start the command, say `Started` (or `Failed`, and exit). Then serve
//! the control socket until the command exits. When the VM's end of the socket closes, end the
//! tree: the stop signal, `kill_timeout`, SIGKILL. When the command has exited, end what it left
//! (unless it may stay), and only when nothing is left say `Exited`.
//!
//! The command stays a zombie until the signals to its process group are sent: that keeps its PID,
//! and with it the number of its group, from being given to anybody else.

use crate::cgroup;
use crate::children::{self, Left};
use crate::command::{self, Failure};
use crate::socket::{self, Begin, Control};
use crate::{signals, sys};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitPidFlag;
use nix::unistd::{getpgid, getppid, Pid};
use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use wire::{Event, Exit, Leftovers, Request, Spec, SpecWriter, Step, Tag};

/// Serves one command after the other, as long as the VM keeps the socket. In between this process has no child.
/// Then nobody would clean up after it if its launcher was gone: it dies with that.
pub fn run(control: OwnedFd, launcher: Pid) {
    while let Some(begin) = socket::await_begin(control.as_fd()) {
        sys::die_with_parent(false);
        serve(begin, control.as_fd());
        sys::die_with_parent(true);
        if getppid() != launcher {
            return;
        }
    }
}

/// One command to its end.
fn serve(begin: Begin, control: BorrowedFd) {
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
            shepherd.watch(control);
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
    Ok(Shepherd {
        command: command::start(&spec, &cwd, &passed)?,
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
    if let Some(begin) = socket::await_begin(control.as_fd()) {
        serve(begin, control.as_fd());
    }
    end_leftovers();
    signals::wait(&[], Some(Duration::ZERO))
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
    Killing,
}

impl Shepherd {
    fn watch(mut self, control: BorrowedFd) {
        loop {
            if self.command_is_dead() {
                return self.finish(control);
            }
            let listen_to = self.listening.then_some(control);
            if signals::wait(listen_to.as_slice(), self.time_left()).is_err() {
                // Cannot happen with good arguments; if it does, nothing may stay.
                self.stage = Stage::Killing;
            }
            self.reap_orphans();
            if self.listening {
                self.serve(control);
            }
            match self.stage {
                Stage::Stopping { until } if until.is_some_and(|until| Instant::now() >= until) => {
                    self.stage = Stage::Killing;
                    self.signal_all(Signal::SIGKILL as i32);
                }
                Stage::Serving | Stage::Stopping { .. } => {}
                Stage::Killing => self.signal_all(Signal::SIGKILL as i32),
            }
        }
    }

    fn time_left(&self) -> Option<Duration> {
        match self.stage {
            Stage::Stopping { until } => {
                until.map(|until| until.saturating_duration_since(Instant::now()))
            }
            Stage::Serving | Stage::Killing => None,
        }
    }

    fn serve(&mut self, control: BorrowedFd) {
        match socket::receive_request(control) {
            Control::Request(Request::Signal { number }) => {
                // SAFETY: kill(2) on the command, which this process has not reaped.
                unsafe { libc::kill(self.command.as_raw(), number) };
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

    /// Signals the command and, where leftovers go with it, its group and its orphans.
    fn signal_all(&self, number: i32) {
        match self.leftovers {
            Leftovers::Kill => {
                children::signal(self.command, number);
                for child in children::list() {
                    if getpgid(Some(child)) != Ok(self.command) {
                        children::signal(child, number);
                    }
                }
            }
            Leftovers::Leave => {
                // SAFETY: as in `serve`.
                unsafe { libc::kill(self.command.as_raw(), number) };
            }
        }
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
                children::signal(self.command, Signal::SIGKILL as i32);
                let exit = sys::reap_with_usage(self.command);
                if let Some(cgroup) = &self.cgroup {
                    cgroup::kill(cgroup);
                }
                end_leftovers();
                report(control, exit);
            }
            Leftovers::Leave => {
                let exit = sys::reap_with_usage(self.command);
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

const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// SIGKILL to every child, and to every child that comes up when its parent dies, until the
/// kernel says that there is none.
fn end_leftovers() {
    let mut pause = FIRST_LOOK;
    while children::reap(|_| {}) == Left::Some {
        for child in children::list() {
            children::signal(child, Signal::SIGKILL as i32);
        }
        // The next death wakes this process earlier. A program that forks faster than it is found
        // is found again; one that the kernel holds (state D), or that may not be signalled, or
        // is not in /proc, is waited for.
        let _ = signals::wait(&[], Some(pause));
        pause = (pause * 2).min(LAST_LOOK);
    }
}

fn wait_for_leftovers() {
    while children::reap(|_| {}) == Left::Some {
        let _ = signals::wait(&[], None);
    }
}
