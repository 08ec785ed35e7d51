//! The control sockets of idle shepherds. A start that finds one here makes no socket, and wakes nobody but its shepherd.
//! `docs/internals.md` tells the whole way from one command to the next.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More than so many are not kept.
const MOST: usize = 8;

static IDLE: Mutex<[Option<OwnedFd>; MOST]> = Mutex::new([const { None }; MOST]);

fn idle() -> MutexGuard<'static, [Option<OwnedFd>; MOST]> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a socket, or closes it, which ends its shepherd.
pub fn put(control: OwnedFd) {
    if let Some(place) = idle().iter_mut().find(|place| place.is_none()) {
        *place = Some(control);
    }
}

/// Any of them: they are alike.
pub fn take() -> Option<OwnedFd> {
    idle().iter_mut().find_map(Option::take)
}

/// Closes all, which ends their shepherds.
pub fn clear() {
    while take().is_some() {}
}
