//! What those above the shepherds, the launcher and the guard, do about their children.
//!
//! They reap; they end the processes of a killed shepherd, which become their children; and they continue a helper that
//! somebody stopped, since nobody would end its command otherwise.

use crate::backoff::Backoff;
use crate::children::{self, Left};
use crate::signals;
use crate::sys::{self, Change, Dead};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::iter;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Somebody may have had a reason to stop a helper, for less than this.
pub const LONGEST_STOP: Duration = Duration::from_secs(5);

/// Of how many children that were stopped or continued this process takes note before it does anything else.
const MOST_CHANGES: usize = 100;

/// A helper that was stopped.
struct Stopped {
    helper: Pid,
    /// When it is continued; `None` when that is done.
    until: Option<Instant>,
}

/// What a launcher or a guard remembers of its children.
#[derive(Default)]
pub struct Watch {
    /// When to look again for what is no helper, while some are left.
    strangers: Option<(Instant, Backoff)>,
    stopped: Vec<Stopped>,
    /// There was no time to look at all children.
    unseen: bool,
}

impl Watch {
    /// Sees to all that happened to the children. When the death of a helper was not expected, or the dead was no
    /// helper, somebody was killed who held processes of a command: they are children now, and are ended.
    pub fn attend(&mut self, mut is_expected: impl FnMut(&Dead) -> bool) -> Left {
        let now = Instant::now();
        let mut suspicious = matches!(self.strangers, Some((again, _)) if again <= now);
        let left = children::reap(|dead| {
            suspicious |= children::is_stranger(dead.pid) || !is_expected(dead);
            self.stopped.retain(|stopped| stopped.helper != dead.pid);
        });
        if left == Left::None {
            self.strangers = None;
        } else if suspicious {
            self.end_strangers(now);
        }
        let changes = iter::from_fn(sys::changed_child).take(MOST_CHANGES);
        let seen = changes
            .map(|(child, change)| self.note(child, change, now))
            .count();
        self.unseen = left == Left::Unseen || seen == MOST_CHANGES;
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

    /// Whether what is no helper may be left.
    pub fn has_strangers(&self) -> bool {
        self.strangers.is_some()
    }

    /// Until when `attend` has nothing to do unless something happens.
    pub fn time_left(&self) -> Option<Duration> {
        if self.unseen {
            return Some(Duration::ZERO);
        }
        let strangers = self.strangers.as_ref().map(|(again, _)| *again);
        let stopped = self.stopped.iter().filter_map(|stopped| stopped.until);
        let next = stopped.chain(strangers).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Reaps, and ends what no shepherd holds any more, until no child is left.
    pub fn attend_until_childless(
        mut self,
        mut is_expected: impl FnMut(&Dead) -> bool,
    ) -> ExitCode {
        while self.attend(&mut is_expected) != Left::None {
            if signals::wait([], self.time_left()).is_err() {
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}

#[cfg(all(test, target_os = "linux", not(net_runner_posix)))]
mod tests {
    use super::*;
    use crate::children::tests::own_children;
    use nix::sys::signal::kill;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    /// Leaves room for a machine that is ten times slower.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_dead_stranger_leaves_is_ended_though_it_exited_with_0() {
        let _own = own_children();
        sys::become_subreaper().unwrap();
        // In a session of its own, as a command; what it leaves is in a third.
        let script = "setsid sleep 1000 >&- & echo $!";
        let mut stranger = Command::new("setsid");
        stranger.args(["sh", "-c", script]).stdout(Stdio::piped());
        // `attend` reaps it.
        #[allow(clippy::zombie_processes)]
        let stranger = stranger.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(stranger.stdout.unwrap());
        output.read_line(&mut line).unwrap();
        let left: i32 = line.trim().parse().unwrap();

        let mut watch = Watch::default();
        let since = Instant::now();
        while watch.attend(|dead| dead.exit_code == Some(0)) != Left::None {
            assert!(since.elapsed() < PATIENCE, "{left} lives");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(kill(Pid::from_raw(left), None).is_err());
    }
}
