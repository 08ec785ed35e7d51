//! Finding and ending the children of this process.
//!
//! A PID is only ever signalled here while it names a child that this process has not reaped:
//! until then the kernel gives the number to nobody else, not as a PID and not as a process group.
//! Descendants further down are never signalled by number. They become children, as soon as
//! their parent is gone, because the helpers are child subreapers.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{getpid, getsid, Pid};

/// One child reaped without waiting.
pub enum Reaped {
    Child(WaitStatus),
    /// Children are there, and all of them live.
    NoneDead,
    /// This process has no child at all: the kernel's own word for "nothing left".
    NoneLeft,
}

/// Reaps one child if one is dead.
pub fn reap_one() -> Reaped {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Reaped::NoneDead,
            Ok(status) => return Reaped::Child(status),
            Err(Errno::EINTR) => continue,
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// The children of this process, dead ones that are not yet reaped among them.
///
/// `/proc/self/task/TID/children` is one read, but proc(5) says that it may miss some while others
/// exit. Every such exit brings a SIGCHLD, after which the callers look again. The slow way is for
/// kernels that were built without it.
pub fn list() -> Vec<Pid> {
    let me = getpid();
    match std::fs::read_to_string(format!("/proc/self/task/{me}/children")) {
        Ok(text) => text
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
            .collect(),
        Err(_) => list_by_parent(me),
    }
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

/// Ends, with SIGKILL, every child that is not a helper. A helper is whoever is in the session of
/// this process: a command leaves it before it does anything else, and cannot come back.
///
/// Their own children come up when they die, and with them another SIGCHLD.
pub fn kill_strangers() {
    let own_session = getsid(None);
    for child in list() {
        if getsid(Some(child)) != own_session {
            signal(child, Signal::SIGKILL as i32);
        }
    }
}
