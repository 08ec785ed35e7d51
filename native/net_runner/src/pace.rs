//! How soon a program answers: the time from a read that found nothing to one that found something.
//!
//! A program that answers questions does so within microseconds. To hear of it from the VM (`enif_select`) takes several
//! times as long: a poll thread wakes up, and then a scheduler. So when a program has answered quickly several times in
//! a row, a read that finds nothing polls for a moment before it selects. When it has polled in vain, reads select at
//! once again, until the program has been quick as often as before. It polls without sleeping, as waking up takes long,
//! above all on a virtual processor.

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::time::{clock_gettime, ClockId};
use rustler::Env;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An answer that comes within this time is quick. The time that the VM takes to tell of it is included.
const QUICK: Duration = Duration::from_micros(100);

/// So many quick answers in a row are not a coincidence.
const ENOUGH: u32 = 8;

/// How long a read polls: a twentieth of the millisecond that a NIF may take, and of a process's timeslice.
const MOMENT: Duration = Duration::from_micros(50);
const PERCENT_OF_TIMESLICE: i32 = 5;

#[derive(Default)]
pub struct Pace {
    /// When the last read found nothing, in nanoseconds; 0 when it found something.
    empty_since: AtomicU64,
    quick_answers: AtomicU32,
}

impl Pace {
    /// A read found something.
    pub fn found(&self) {
        let since = self.empty_since.load(Relaxed);
        if since == 0 {
            return;
        }
        self.empty_since.store(0, Relaxed);
        if now().saturating_sub(since) < QUICK.as_nanos() as u64 {
            self.quick_answers.fetch_add(1, Relaxed);
        } else {
            self.quick_answers.store(0, Relaxed);
        }
    }

    /// A read found nothing. Polls, if that is worth it; whether there is something now.
    pub fn comes_soon(&self, env: Env, fd: BorrowedFd) -> bool {
        if self.quick_answers.load(Relaxed) >= ENOUGH {
            rustler::schedule::consume_timeslice(env, PERCENT_OF_TIMESLICE);
            let until = now() + MOMENT.as_nanos() as u64;
            while now() < until {
                // The program may be waiting for this processor.
                std::thread::yield_now();
                let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
                if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
                    return true;
                }
            }
            self.quick_answers.store(0, Relaxed);
        }
        self.empty_since.store(now(), Relaxed);
        false
    }
}

fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}
