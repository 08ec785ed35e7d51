//! The life of a shepherd, as pure data: what it does next, and when.
//!
//! ```text
//!  Idle ──► Running ──► Dead ──► EndingLeftovers ───┐
//!   ▲  │       │          │                         ├──► LeavingCgroup ──► Gone
//!   │  │       │          └────► HoldingLeftovers ──┤
//!   │  │       └ (a tracer holds it) ────▲          │
//!   │  └ (did not start) ─────────────────► Between ◄
//!   └────────────────────────────────────────┴─────────────────────────► Gone
//! ```
//!
//! `Life::event` takes what happened and gives the next life and the actions that follow, in their order. Nothing here
//! reads a clock or calls the system; `shepherd.rs` does. What belongs to one command is in the variants, so `Idle` cannot
//! hold anything of the command before.

use crate::backoff::Backoff;
use crate::failure::Failure;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::ffi::CString;
use std::time::{Duration, Instant};
use wire::{Exit, Leftovers, Request, Target};

/// What is known of a command that has started.
#[derive(Debug, Clone)]
pub struct Command {
    pub pid: Pid,
    pub stop_signal: i32,
    pub kill_timeout: Duration,
    pub leftovers: Leftovers,
    pub cgroup: Option<CString>,
}

/// Whether the VM may still ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    There,
    /// It closed its end of the control socket, died, or sent what is no request.
    Gone,
}

/// How far the end of a command has come that NetRunner ends.
#[derive(Debug)]
pub enum Ending {
    /// Nobody has asked for it.
    No,
    /// The same, and the tree is stopped. It goes on before it ends.
    Suspended,
    /// The stop signal is sent; SIGKILL follows at that time. `None`: never.
    Stopping { kill_at: Option<Instant> },
    /// SIGKILL is sent, again and again: there are processes that it does not reach at once (see `Backoff`).
    Killing { again_at: Instant, backoff: Backoff },
}

#[derive(Debug)]
pub enum Life {
    /// No command and no child. Waits for the VM to begin one.
    Idle,
    /// The command has started, and is not known to be dead.
    Running {
        command: Command,
        vm: Vm,
        ending: Ending,
    },
    /// Signals to its group are sent: the command can be reaped. Until then its PID, and the number of its group,
    /// is given to nobody else.
    Dead { command: Command, vm: Vm },
    /// What the command left gets SIGKILL. The exit is reported when there is no child; `None`: it is not known.
    EndingLeftovers {
        exit: Option<Exit>,
        cgroup: Option<CString>,
        vm: Vm,
        again_at: Instant,
        backoff: Backoff,
    },
    /// The exit is reported. What the command left may live on, and stays below this shepherd: given on to the
    /// launcher it would pass for what a killed shepherd left.
    HoldingLeftovers { cgroup: Option<CString>, vm: Vm },
    /// The VM reads the figures of the cgroup before it closes its end. Race: late figures.
    LeavingCgroup { cgroup: CString },
    /// Nothing is left of the command. May this shepherd serve another?
    Between,
    /// The process ends.
    Gone,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    Started(Command),
    /// `cgroup`: the one that was made for it.
    NotStarted {
        failure: Failure,
        cgroup: Option<CString>,
    },
    /// The VM was gone before the command started.
    Abandoned {
        cgroup: Option<CString>,
    },
    Asked(Request),
    VmGone,
    /// There is no helper above this process: who would end the command if this shepherd was killed?
    ParentGone,
    /// What `Life::until` says has come.
    TimeOver,
    /// The command is dead, and was not reaped.
    CommandDied,
    /// The same, but somebody who traces the command keeps it from being reaped (ptrace(2)); how it exited is all that is
    /// known.
    CommandHeld(Exit),
    /// How the command exited, as far as the kernel told.
    Reaped(Option<Exit>),
    /// Dead children were reaped, and others are left.
    ChildrenLeft,
    /// The kernel says that there is no child (ECHILD).
    NoChild,
    /// Whether this shepherd may serve another command.
    Checked {
        may_serve_again: bool,
    },
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Tell the VM.
    Report(wire::Event),
    /// To the command alone.
    Signal(Pid, i32),
    /// To the process group that the command leads.
    SignalGroup(Pid, i32),
    /// To each process of the tree.
    SignalTree(i32),
    /// Stop the tree, or let it go on: all that is in the cgroup, where it has one.
    Suspend(Option<CString>),
    Resume(Option<CString>),
    /// To every child, and the groups that they lead.
    SignalAll(i32),
    /// SIGKILL to the command and the group that it leads.
    Kill(Pid),
    /// SIGKILL to every child and the groups that they lead.
    KillAll,
    KillCgroup(CString),
    RemoveCgroup(CString),
}

type Next = (Life, Vec<Action>);

impl Life {
    /// What follows from an event, at this time.
    pub fn event(self, event: Event, now: Instant) -> Next {
        match (self, event) {
            // --- a command begins -----------------------------------------------------------------
            (Life::Idle, Event::Started(command)) => {
                let pid = command.pid.as_raw();
                let running = Life::Running {
                    command,
                    vm: Vm::There,
                    ending: Ending::No,
                };
                (running, vec![Action::Report(wire::Event::Started { pid })])
            }
            (Life::Idle, Event::NotStarted { failure, cgroup }) => {
                let Failure { step, errno } = failure;
                let errno = errno as i32;
                let report = Action::Report(wire::Event::Failed { step, errno });
                // Before the VM hears of it, and may make another of this name. Race: abandoned begin.
                let remove = cgroup.map(Action::RemoveCgroup);
                (Life::Between, remove.into_iter().chain([report]).collect())
            }
            (Life::Idle, Event::Abandoned { cgroup }) => {
                let remove = cgroup.map(Action::RemoveCgroup);
                (Life::Gone, remove.into_iter().collect())
            }
            (Life::Idle, Event::VmGone) => (Life::Gone, vec![]),

            // --- it runs --------------------------------------------------------------------------
            (
                Life::Running {
                    command,
                    vm,
                    ending,
                },
                event,
            ) => running(command, vm, ending, event, now),

            // --- it is dead -----------------------------------------------------------------------
            (Life::Dead { command, vm }, Event::Reaped(exit)) => reaped(command, vm, exit, now),

            // --- what it left ---------------------------------------------------------------------
            (
                Life::EndingLeftovers {
                    exit,
                    cgroup,
                    vm,
                    mut backoff,
                    ..
                },
                Event::ChildrenLeft,
            ) => {
                let again_at = now + backoff.next();
                let ending = Life::EndingLeftovers {
                    exit,
                    cgroup,
                    vm,
                    again_at,
                    backoff,
                };
                (ending, vec![Action::KillAll])
            }
            (
                Life::EndingLeftovers {
                    exit, cgroup, vm, ..
                },
                Event::NoChild,
            ) => {
                let (report, vm) = report(exit, vm);
                let (life, rest) = nothing_left(cgroup, vm);
                (life, report.into_iter().chain(rest).collect())
            }
            (Life::HoldingLeftovers { cgroup, vm }, Event::NoChild) => {
                let (life, actions) = nothing_left(cgroup, vm);
                (life, actions.into_iter().collect())
            }
            (Life::LeavingCgroup { cgroup }, Event::VmGone) => {
                (Life::Gone, vec![Action::RemoveCgroup(cgroup)])
            }

            // --- the next one ---------------------------------------------------------------------
            (Life::Between, Event::Checked { may_serve_again }) => {
                let next = if may_serve_again {
                    Life::Idle
                } else {
                    Life::Gone
                };
                (next, vec![])
            }

            // What was asked came too late, and there is nothing to do about what else may happen.
            (life, _) => (life, vec![]),
        }
    }

    /// The command, while it is not known to be dead.
    pub fn command(&self) -> Option<&Command> {
        match self {
            Life::Running { command, .. } => Some(command),
            _ => None,
        }
    }

    /// When there is something to do though nothing happens.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Life::Running { ending, .. } => match ending {
                Ending::No | Ending::Suspended => None,
                Ending::Stopping { kill_at } => *kill_at,
                Ending::Killing { again_at, .. } => Some(*again_at),
            },
            Life::EndingLeftovers { again_at, .. } => Some(*again_at),
            _ => None,
        }
    }
}

fn running(command: Command, vm: Vm, ending: Ending, event: Event, now: Instant) -> Next {
    match event {
        Event::Asked(Request::Signal { number, to }) => {
            let signal = match to {
                Target::Command => Action::Signal(command.pid, number),
                Target::Group => Action::SignalGroup(command.pid, number),
                Target::Tree => Action::SignalTree(number),
            };
            let same = Life::Running {
                command,
                vm,
                ending,
            };
            (same, vec![signal])
        }
        Event::Asked(Request::Suspend) => suspend(command, vm, ending),
        Event::Asked(Request::Resume) => resume(command, vm, ending),
        Event::Asked(Request::End) => stop(command, vm, ending, now),
        // Nobody may begin a command while another runs: this is no VM of ours.
        Event::Asked(Request::Begin) | Event::VmGone => stop(command, Vm::Gone, ending, now),
        // Race: orphan under a dead launcher.
        Event::ParentGone => kill(command, vm, ending, now),
        Event::TimeOver => match ending {
            Ending::No | Ending::Suspended => unchanged(command, vm, ending),
            Ending::Stopping { .. } | Ending::Killing { .. } => kill(command, vm, ending, now),
        },
        Event::CommandDied => {
            let actions = leave_behind(&command, &ending);
            (Life::Dead { command, vm }, actions)
        }
        Event::CommandHeld(exit) => match command.leftovers {
            // Who traces it may be a leftover as any other.
            Leftovers::Kill => kill(command, vm, ending, now),
            // The zombie is one.
            Leftovers::Leave => {
                let actions = leave_behind(&command, &ending);
                let (report, vm) = report(Some(exit), vm);
                let holding = Life::HoldingLeftovers {
                    cgroup: command.cgroup,
                    vm,
                };
                (holding, actions.into_iter().chain(report).collect())
            }
        },
        // It has started, it is not reaped, and so there is a child.
        Event::Started(_)
        | Event::NotStarted { .. }
        | Event::Abandoned { .. }
        | Event::Reaped(_)
        | Event::ChildrenLeft
        | Event::NoChild
        | Event::Checked { .. } => unchanged(command, vm, ending),
    }
}

fn unchanged(command: Command, vm: Vm, ending: Ending) -> Next {
    let same = Life::Running {
        command,
        vm,
        ending,
    };
    (same, vec![])
}

/// Also what was forked since it was suspended before. What is to end is not stopped.
fn suspend(command: Command, vm: Vm, ending: Ending) -> Next {
    match ending {
        Ending::No | Ending::Suspended => {
            let stop = Action::Suspend(command.cgroup.clone());
            let suspended = Life::Running {
                command,
                vm,
                ending: Ending::Suspended,
            };
            (suspended, vec![stop])
        }
        Ending::Stopping { .. } | Ending::Killing { .. } => unchanged(command, vm, ending),
    }
}

/// Also what somebody else has stopped.
fn resume(command: Command, vm: Vm, ending: Ending) -> Next {
    let go_on = Action::Resume(command.cgroup.clone());
    let ending = match ending {
        Ending::No | Ending::Suspended => Ending::No,
        Ending::Stopping { .. } | Ending::Killing { .. } => ending,
    };
    let running = Life::Running {
        command,
        vm,
        ending,
    };
    (running, vec![go_on])
}

fn resume_suspended(command: &Command, ending: &Ending) -> Option<Action> {
    matches!(ending, Ending::Suspended).then(|| Action::Resume(command.cgroup.clone()))
}

/// The stop signal, once.
fn stop(command: Command, vm: Vm, ending: Ending, now: Instant) -> Next {
    if matches!(ending, Ending::Stopping { .. } | Ending::Killing { .. }) {
        return unchanged(command, vm, ending);
    }
    let resume = resume_suspended(&command, &ending);
    // What is in the group of the command belongs to it: leftovers are what stays when a command exits by itself, and
    // what left its group before.
    let signal = |number| match command.leftovers {
        Leftovers::Kill => Action::SignalAll(number),
        Leftovers::Leave => Action::SignalGroup(command.pid, number),
    };
    // A stopped program acts on a signal only when it goes on.
    let stop = [signal(command.stop_signal), signal(Signal::SIGCONT as i32)];
    let actions = resume.into_iter().chain(stop).collect();
    // A time beyond what the clock can count is for ever.
    let kill_at = now.checked_add(command.kill_timeout);
    let stopping = Life::Running {
        command,
        vm,
        ending: Ending::Stopping { kill_at },
    };
    (stopping, actions)
}

/// SIGKILL, and the next try when that does not do.
fn kill(command: Command, vm: Vm, ending: Ending, now: Instant) -> Next {
    let resume = resume_suspended(&command, &ending);
    let mut backoff = match ending {
        Ending::Killing { backoff, .. } => backoff,
        Ending::No | Ending::Suspended | Ending::Stopping { .. } => Backoff::new(),
    };
    // The command leads its group: it leads a session, so it cannot leave.
    let mut actions = vec![Action::Kill(command.pid)];
    match command.leftovers {
        Leftovers::Kill => {
            actions.extend(command.cgroup.clone().map(Action::KillCgroup));
            actions.push(Action::KillAll);
        }
        // SIGKILL needs no process to go on; what is left may.
        Leftovers::Leave => actions.extend(resume),
    }
    let ending = Ending::Killing {
        again_at: now + backoff.next(),
        backoff,
    };
    let killing = Life::Running {
        command,
        vm,
        ending,
    };
    (killing, actions)
}

/// What becomes of its group when the command is dead. It stays only where it may, and the command exited by itself; then it
/// goes on, since nobody could resume it any more.
fn leave_behind(command: &Command, ending: &Ending) -> Vec<Action> {
    let by_itself = matches!(ending, Ending::No | Ending::Suspended);
    if command.leftovers == Leftovers::Leave && by_itself {
        resume_suspended(command, ending).into_iter().collect()
    } else {
        vec![Action::Kill(command.pid)]
    }
}

fn reaped(command: Command, vm: Vm, exit: Option<Exit>, now: Instant) -> Next {
    let Command {
        leftovers, cgroup, ..
    } = command;
    match leftovers {
        Leftovers::Kill => {
            let kill = cgroup.clone().map(Action::KillCgroup);
            let ending = Life::EndingLeftovers {
                exit,
                cgroup,
                vm,
                again_at: now,
                backoff: Backoff::new(),
            };
            (ending, kill.into_iter().collect())
        }
        Leftovers::Leave => {
            let (report, vm) = report(exit, vm);
            let holding = Life::HoldingLeftovers { cgroup, vm };
            (holding, report.into_iter().collect())
        }
    }
}

/// Where it is not known how the command exited, the VM hears of its end by the end of this shepherd.
fn report(exit: Option<Exit>, vm: Vm) -> (Option<Action>, Vm) {
    match exit {
        Some(exit) => (Some(Action::Report(wire::Event::Exited(exit))), vm),
        None => (None, Vm::Gone),
    }
}

fn nothing_left(cgroup: Option<CString>, vm: Vm) -> (Life, Option<Action>) {
    match (cgroup, vm) {
        (Some(cgroup), Vm::There) => (Life::LeavingCgroup { cgroup }, None),
        (Some(cgroup), Vm::Gone) => (Life::Gone, Some(Action::RemoveCgroup(cgroup))),
        (None, Vm::There) => (Life::Between, None),
        (None, Vm::Gone) => (Life::Gone, None),
    }
}

#[cfg(test)]
mod tests;
