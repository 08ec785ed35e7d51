//! Control sockets of shepherds whose command is over. The next command takes one of them: then there is nothing
//! to make, and nobody to wake but the shepherd.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Beyond these a shepherd is let go.
const MOST: usize = 8;

static IDLE: Mutex<[Option<OwnedFd>; MOST]> = Mutex::new([const { None }; MOST]);

fn idle() -> MutexGuard<'static, [Option<OwnedFd>; MOST]> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps one, or closes it.
pub fn put(control: OwnedFd) {
    if let Some(place) = idle().iter_mut().find(|place| place.is_none()) {
        *place = Some(control);
    }
}

/// Any of them: they are alike.
pub fn take() -> Option<OwnedFd> {
    idle().iter_mut().find_map(Option::take)
}

/// Closes all: their shepherds end.
pub fn clear() {
    while take().is_some() {}
}
