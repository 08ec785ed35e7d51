//! How soon there is something to read, where there was nothing.
//!
//! A program that answers what it is asked does so within microseconds. To be told of it by the VM
//! (`enif_select`) takes several times as long: a poll thread wakes, and then a scheduler. So where a program
//! has answered quickly several times, the next read looks for the answer for a moment by itself; and does so no
//! longer, once it has looked in vain. It does not sleep meanwhile: to wake takes long, above all where the
//! processor is a virtual one.

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::time::{clock_gettime, ClockId};
use rustler::Env;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// From the read that found nothing to the one that found something. In it is the time that the VM takes to tell.
const QUICK: Duration = Duration::from_micros(100);

/// So many quick answers in a row are no chance.
const ENOUGH: u32 = 8;

/// A twentieth of what a NIF may take, and of what the VM gives a process at a time.
const MOMENT: Duration = Duration::from_micros(50);
const PERCENT_OF_TIMESLICE: i32 = 5;

#[derive(Default)]
pub struct Pace {
    /// When a read found nothing, in nanoseconds; 0 when it found something.
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

    /// A read found nothing. Whether there is something now, where it was worth to look for it.
    pub fn comes_soon(&self, env: Env, fd: BorrowedFd) -> bool {
        if self.quick_answers.load(Relaxed) >= ENOUGH {
            rustler::schedule::consume_timeslice(env, PERCENT_OF_TIMESLICE);
            let until = now() + MOMENT.as_nanos() as u64;
            while now() < until {
                // Where the program waits for this processor.
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
