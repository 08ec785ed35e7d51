//! Finding and ending the children of this process.
//!
//! A PID is only ever signalled here while it names a child that this process has not reaped:
//! until then the kernel gives the number to nobody else, not as a PID and not as a process group.
//! Descendants further down are never signalled by number. They become children, as soon as
//! their parent is gone, because the helpers are child subreapers.

use crate::sys::{self, Dead};
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{getpid, getsid, Pid};

/// What is left after dead children were reaped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Some,
    /// No child at all: the kernel's own word for it (ECHILD).
    None,
}

/// Reaps every child that is dead; `look` sees each while it is still a zombie.
pub fn reap(mut look: impl FnMut(&Dead)) -> Left {
    loop {
        match sys::dead_child(None) {
            Ok(Some(dead)) => {
                look(&dead);
                let _ = waitpid(dead.pid, Some(WaitPidFlag::WNOHANG));
            }
            Ok(None) => return Left::Some,
            Err(_) => return Left::None,
        }
    }
}

/// As `reap`, for the helpers above the shepherds. When a child did not end well (`well` says so), or was
/// no helper, somebody was killed who held processes of a command: they are children now, and are
/// ended.
pub fn reap_and_clean(mut well: impl FnMut(&Dead) -> bool) -> Left {
    let mut suspicious = false;
    let left = reap(|dead| suspicious |= is_stranger(dead.pid) || !well(dead));
    if suspicious && left == Left::Some {
        kill_strangers();
    }
    left
}

/// The children of this process, dead ones that are not yet reaped among them.
///
/// `/proc/self/task/TID/children` may miss some while others are taken from the list (proc(5)). That
/// happens when they are reaped, and nobody but this process does that, when it is not here. The slow way
/// is for kernels that were built without it.
///
/// What /proc says is not believed: it may be that of another PID namespace, where the numbers name
/// somebody else.
pub fn list() -> Vec<Pid> {
    let me = getpid();
    let mut pids = match std::fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        Ok(text) => text
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
            .collect(),
        Err(_) => list_by_parent(me),
    };
    pids.retain(|pid| sys::dead_child(Some(*pid)).is_ok());
    pids
}

fn list_by_parent(parent: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| parent_of(*pid) == Some(parent))
        .collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the last ")" ends it.
    let (_, after_name) = stat.rsplit_once(')')?;
    let parent = after_name.split_ascii_whitespace().nth(1)?;
    parent.parse().ok().map(Pid::from_raw)
}

/// Sends a signal to the process group that a child leads, at once to all of it, so that no fork
/// of a member slips through; or to the child alone, when it leads none.
pub fn signal(child: Pid, number: i32) {
    // SAFETY: kill(2) touches no memory.
    unsafe {
        if libc::kill(-child.as_raw(), number) == -1 {
            libc::kill(child.as_raw(), number);
        }
    }
}

/// A helper is whoever is in the session of this process: a command leaves it before it does
/// anything else, and cannot come back.
fn is_stranger(child: Pid) -> bool {
    getsid(Some(child)) != getsid(None)
}

/// Ends, with SIGKILL, every child that is not a helper. Their own children come up when they die,
/// and are found when those are reaped.
fn kill_strangers() {
    for child in list() {
        if is_stranger(child) {
            signal(child, Signal::SIGKILL as i32);
        }
    }
}
