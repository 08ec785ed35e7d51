//! What a launcher decides about its spare shepherds, as pure data.
//!
//! ```text
//!  Open ──► VmClosed     (the socket or a spare says so)
//!    └────► Withdrawn    (its guard is gone, or somebody has changed its limits)
//! ```
//!
//! A spare waits until it takes a request from the launcher's socket; then it clears its flag in the memory that it shares
//! with the launcher, rings the bell if it was the last, and is a shepherd. `Phase::event` takes what happened, and which
//! flags are set at that moment, and gives the next phase and what is to be done. Nothing here reads a clock or calls
//! the system; `launcher.rs` does.

use nix::unistd::Pid;
use std::time::Duration;

/// One waits while the other is being replaced.
pub const SPARES: usize = if crate::sys::ADOPTS { 2 } else { 0 };

/// A command that was just taken is about to start: a fork at once would take the CPU from it.
const BEFORE_NEXT_FORK: Duration = Duration::from_millis(2);

/// After a fork that failed: no process is left.
const AFTER_FAILED_FORK: Duration = Duration::from_millis(100);

/// The exit code of a spare that found the VM's end of the socket closed.
pub const VM_CLOSED: u8 = 3;

/// Whose flag is set: each of these spares waits, or died waiting.
pub type Waiting = [bool; SPARES];

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Takes requests.
    Open {
        /// Who was forked for each place last.
        forked: [Option<Pid>; SPARES],
        /// How long nothing may have happened before the next fork.
        pause: Duration,
    },
    /// Without a guard nobody would clean up after this launcher; if somebody has changed its limits, its forks would have
    /// them. It takes no more requests, so that the VM starts a new pair, and stays for the shepherds that it has.
    Withdrawn,
    /// The VM is gone, or has replaced this launcher. The shepherds notice by themselves; the guard adopts them.
    VmClosed,
}

#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// The launcher has waited, and the flags were these before.
    Woke {
        before: Waiting,
    },
    /// `exit_code`: `None` when a signal ended it.
    ChildDied {
        pid: Pid,
        exit_code: Option<i32>,
    },
    Forked {
        place: usize,
        pid: Pid,
    },
    NotForked {
        place: usize,
    },
    VmClosed,
    GuardGone,
    /// Found before a fork, which is not made.
    Changed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Set the flag of this place, and fork a spare for it.
    Fork { place: usize },
    /// Clear the flag: nobody waits there.
    Clear { place: usize },
}

/// The launcher takes requests itself, until there is a spare: many at once start faster so, and where no process can be
/// forked it is the one to report it.
pub fn none_waits(waiting: &Waiting) -> bool {
    !waiting.contains(&true)
}

impl Phase {
    pub fn new() -> Phase {
        Phase::Open {
            forked: [None; SPARES],
            pause: BEFORE_NEXT_FORK,
        }
    }

    pub fn event(self, event: Event, waiting: Waiting) -> (Phase, Option<Action>) {
        let Phase::Open { mut forked, pause } = self else {
            // The first end stays.
            return (self, None);
        };
        match event {
            Event::Woke { before } => {
                let missing = waiting.iter().position(|waits| !waits);
                let fork = missing.filter(|_| waiting == before);
                let action = fork.map(|place| Action::Fork { place });
                (Phase::Open { forked, pause }, action)
            }
            // Race: spare dies in its place.
            Event::ChildDied { pid, exit_code } => match waiting_spare(&forked, &waiting, pid) {
                Some(place) => {
                    forked[place] = None;
                    let next = if exit_code == Some(VM_CLOSED.into()) {
                        Phase::VmClosed
                    } else {
                        Phase::Open { forked, pause }
                    };
                    (next, Some(Action::Clear { place }))
                }
                None => (Phase::Open { forked, pause }, None),
            },
            Event::Forked { place, pid } => {
                forked[place] = Some(pid);
                let pause = BEFORE_NEXT_FORK;
                (Phase::Open { forked, pause }, None)
            }
            Event::NotForked { place } => {
                let pause = AFTER_FAILED_FORK;
                let clear = Action::Clear { place };
                (Phase::Open { forked, pause }, Some(clear))
            }
            Event::VmClosed => (Phase::VmClosed, None),
            Event::GuardGone | Event::Changed => (Phase::Withdrawn, None),
        }
    }

    /// How long to wait until a spare that is missing is forked.
    pub fn pause(&self, waiting: &Waiting) -> Option<Duration> {
        match self {
            Phase::Open { pause, .. } if waiting.contains(&false) => Some(*pause),
            Phase::Open { .. } | Phase::Withdrawn | Phase::VmClosed => None,
        }
    }

    /// Whether a child that ended so has nothing left behind: a shepherd that is done, or a spare whose socket is closed.
    pub fn is_expected(&self, pid: Pid, exit_code: Option<i32>, waiting: &Waiting) -> bool {
        let told_end = exit_code == Some(VM_CLOSED.into());
        exit_code == Some(0) || (told_end && self.is_waiting_spare(pid, waiting))
    }

    fn is_waiting_spare(&self, pid: Pid, waiting: &Waiting) -> bool {
        match self {
            Phase::Open { forked, .. } => waiting_spare(forked, waiting, pid).is_some(),
            Phase::Withdrawn | Phase::VmClosed => true,
        }
    }
}

fn waiting_spare(forked: &[Option<Pid>; SPARES], waiting: &Waiting, pid: Pid) -> Option<usize> {
    (0..SPARES).find(|place| forked[*place] == Some(pid) && waiting[*place])
}

#[cfg(all(test, target_os = "linux", not(net_runner_posix)))]
mod tests;
