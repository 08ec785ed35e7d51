//! What those above the shepherds, the launcher and the guard, do about their children.
//!
//! They reap; they end what a killed shepherd left, which is given to them; and they let a helper go on that
//! somebody stopped, since nobody would end its command otherwise.

use crate::children::{self, Left};
use crate::signals;
use crate::sys::{self, Change, Dead};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long to wait before the next try to end what is not gone yet. The next death wakes the helper earlier. A
/// program that forks faster than it is found is found again; one that the kernel holds (state D), or that may
/// not be signalled (a set-user-ID program), is asked again, until it is gone.
pub struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_secs(1);

    pub fn new() -> Backoff {
        Backoff(Backoff::FIRST)
    }

    pub fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Backoff::LAST);
        pause
    }
}

/// Somebody may have had a reason to stop a helper, for less than this.
const LONGEST_STOP: Duration = Duration::from_secs(5);

/// A helper that was stopped.
struct Stopped {
    helper: Pid,
    /// When it is let go on; `None` when that is done.
    until: Option<Instant>,
}

/// What a launcher or a guard remembers of its children.
#[derive(Default)]
pub struct Watch {
    /// When to look again for what is no helper, while some are left.
    strangers: Option<(Instant, Backoff)>,
    stopped: Vec<Stopped>,
}

impl Watch {
    /// Sees to all that happened to the children. When one did not end well (`well` says so), or was no helper,
    /// somebody was killed who held processes of a command: they are children now, and are ended.
    pub fn look(&mut self, mut well: impl FnMut(&Dead) -> bool) -> Left {
        let now = Instant::now();
        let mut suspicious = matches!(self.strangers, Some((again, _)) if again <= now);
        let left = children::reap(|dead| {
            suspicious |= children::is_stranger(dead.pid) || !well(dead);
            self.stopped.retain(|stopped| stopped.helper != dead.pid);
        });
        if left == Left::None {
            self.strangers = None;
        } else if suspicious {
            self.end_strangers(now);
        }
        while let Some((child, change)) = sys::changed_child() {
            self.note(child, change, now);
        }
        self.continue_stopped(now);
        left
    }

    fn end_strangers(&mut self, now: Instant) {
        self.strangers = children::kill_strangers().then(|| {
            let mut backoff = self
                .strangers
                .take()
                .map_or_else(Backoff::new, |(_, backoff)| backoff);
            (now + backoff.next(), backoff)
        });
    }

    fn note(&mut self, child: Pid, change: Change, now: Instant) {
        let known = self.stopped.iter().position(|one| one.helper == child);
        match (change, known) {
            // The processes of commands may do as they like.
            _ if children::is_stranger(child) => {}
            (Change::Stopped, None) => self.stopped.push(Stopped {
                helper: child,
                until: Some(now + LONGEST_STOP),
            }),
            // Somebody means it. Without this shepherd its command is ended by this process.
            (Change::Stopped, Some(at)) if self.stopped[at].until.is_none() => {
                children::signal(child, Signal::SIGKILL as i32);
            }
            (Change::Continued, Some(at)) if self.stopped[at].until.is_some() => {
                self.stopped.swap_remove(at);
            }
            (Change::Stopped | Change::Continued, _) => {}
        }
    }

    fn continue_stopped(&mut self, now: Instant) {
        for stopped in &mut self.stopped {
            if stopped.until.is_some_and(|until| until <= now) {
                stopped.until = None;
                children::signal(stopped.helper, Signal::SIGCONT as i32);
            }
        }
    }

    /// Until when `look` has nothing to do unless something happens.
    pub fn time_left(&self) -> Option<Duration> {
        let strangers = self.strangers.as_ref().map(|(again, _)| *again);
        let stopped = self.stopped.iter().filter_map(|stopped| stopped.until);
        let next = stopped.chain(strangers).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Reaps, and ends what no shepherd holds any more, until no child is left.
    pub fn keep(mut self, mut well: impl FnMut(&Dead) -> bool) -> ExitCode {
        while self.look(&mut well) == Left::Some {
            if signals::wait([], self.time_left()).is_err() {
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}
