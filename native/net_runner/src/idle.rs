//! The control sockets of idle shepherds. A start that finds one here makes no socket, and wakes nobody but its shepherd.
//! `docs/internals.md` tells the whole way from one command to the next.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::Confinement;

/// More than so many are not kept.
const MOST: usize = 8;

/// The control socket of an idle shepherd, and what that has put on itself.
type Idle = (OwnedFd, Option<Confinement>);

/// The one that became idle last is at the end.
static IDLE: Mutex<VecDeque<Idle>> = Mutex::new(VecDeque::new());

fn idle() -> MutexGuard<'static, VecDeque<Idle>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a socket. Where there are enough, the one that has waited longest is closed, which ends its shepherd.
pub fn put(control: OwnedFd, confinement: Option<Confinement>) {
    let mut idle = idle();
    let one_too_many = if idle.len() == MOST {
        idle.pop_front()
    } else {
        None
    };
    idle.push_back((control, confinement));
    // No other start waits for the system to close it.
    drop(idle);
    drop(one_too_many);
}

/// One that has put the same on itself, or nothing yet.
pub fn take(confinement: Option<Confinement>) -> Option<OwnedFd> {
    let mut idle = idle();
    let with = |confinement| idle.iter().rposition(|(_, own)| *own == confinement);
    let at = with(confinement).or_else(|| with(None))?;
    idle.remove(at).map(|(control, _)| control)
}

/// Closes all, which ends their shepherds.
pub fn clear() {
    let all = std::mem::take(&mut *idle());
    drop(all);
}
