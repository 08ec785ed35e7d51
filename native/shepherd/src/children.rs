//! Finding and ending the children of this process.
//!
//! A PID is only ever signalled here while it names a child that this process has not reaped:
//! until then the kernel gives the number to nobody else, not as a PID and not as a process group.
//! Descendants further down are never signalled by number. They become children, as soon as
//! their parent is gone, because the helpers are child subreapers.

use crate::sys::{self, Dead};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{getpgid, getpid, getsid, Pid};
use std::sync::OnceLock;

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
            Err(Errno::ECHILD) => return Left::None,
            // Any other error says nothing about children. (The guard has seen that the call works.)
            Ok(None) | Err(_) => return Left::Some,
        }
    }
}

/// The children of this process, dead ones that are not yet reaped among them.
///
/// `/proc/self/task/TID/children` may miss some while others are taken from the list (proc(5)). That
/// happens when they are reaped, and nobody but this process does that, when it is not here. The slow way
/// is for kernels that were built without it; the slowest for systems without a /proc of use.
///
/// What /proc says is not believed: a number is used only when the kernel says that it names a child.
///
/// Where no orphans are given to a helper, it has no need of the list.
pub fn list() -> Vec<Pid> {
    if !sys::ADOPTS {
        return Vec::new();
    }
    let listed = if has_proc() {
        list_in_proc(getpid())
    } else {
        None
    };
    let is_child = |pid: &Pid| sys::dead_child(Some(*pid)).is_ok();
    match listed {
        Some(pids) => pids.into_iter().filter(is_child).collect(),
        None => (1..=HIGHEST_PID)
            .map(Pid::from_raw)
            .filter(is_child)
            .collect(),
    }
}

/// The most that kernel.pid_max can be. To ask about each number takes half a second.
const HIGHEST_PID: libc::pid_t = 1 << 22;

/// Whether /proc is there, and is that of this process's own PID namespace, as the first who asked has seen it:
/// the guard, for all that it forks. The numbers in another one name other processes.
pub fn has_proc() -> bool {
    static HAS_PROC: OnceLock<bool> = OnceLock::new();
    *HAS_PROC.get_or_init(|| !sys::ADOPTS || proc_is_ours().unwrap_or(false))
}

/// Seen from an outer namespace, a process has more than one number (NSpid, since Linux 4.1).
fn proc_is_ours() -> Option<bool> {
    let own = getpid().to_string();
    let number = std::fs::read_link("/proc/self").ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let is_only = numbers.is_none_or(|numbers| numbers.trim() == own);
    Some(number.to_str()? == own && is_only)
}

fn list_in_proc(parent: Pid) -> Option<Vec<Pid>> {
    match std::fs::read_to_string(format!("/proc/self/task/{parent}/children")) {
        Ok(text) => Some(
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok().map(Pid::from_raw))
                .collect(),
        ),
        Err(_) => list_by_parent(parent),
    }
}

fn list_by_parent(parent: Pid) -> Option<Vec<Pid>> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| parent_of(*pid) == Some(parent));
    Some(pids.collect())
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let parent = stat(pid)?.split_ascii_whitespace().nth(1)?.parse().ok();
    parent.map(Pid::from_raw)
}

/// What /proc says of a process, from its state on.
fn stat(pid: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the last ")" ends it.
    stat.rsplit_once(')').map(|(_, rest)| rest.to_owned())
}

/// Whether a child is dead, though waitid(2) does not say so: somebody traces it, and has not taken note of its death
/// (ptrace(2)).
pub fn is_held_zombie(child: Pid) -> bool {
    has_proc() && stat(child).is_some_and(|stat| stat.trim_start().starts_with('Z'))
}

/// SIGKILL to a child, and to the process group that has its number: at once to all of it, so that no fork
/// of a member slips through.
///
/// To both: a child may have led a group and moved to another since, with others still in the first.
pub fn kill(child: Pid) {
    // SAFETY: kill(2) touches no memory.
    unsafe {
        libc::kill(-child.as_raw(), libc::SIGKILL);
        libc::kill(child.as_raw(), libc::SIGKILL);
    }
}

/// SIGKILL to every child and its group.
pub fn kill_all() {
    list().into_iter().for_each(kill);
}

/// A signal to every child and to the groups that they lead, once to each: a second one may mean another
/// thing to a program.
pub fn signal_all(number: i32) {
    let mut children = list();
    children.sort_unstable();
    for &child in &children {
        let target = match getpgid(Some(child)) {
            Ok(group) if group == child => -child.as_raw(),
            Ok(group) if children.binary_search(&group).is_ok() && leads_group(group) => continue,
            _ => child.as_raw(),
        };
        // SAFETY: as in `kill`.
        unsafe { libc::kill(target, number) };
    }
}

fn leads_group(child: Pid) -> bool {
    getpgid(Some(child)) == Ok(child)
}

/// A signal to the process group that a child leads.
pub fn signal_group(leader: Pid, number: i32) {
    // SAFETY: as in `kill`.
    unsafe { libc::kill(-leader.as_raw(), number) };
}

/// Whether a process that may be signalled is in the group that this one led.
pub fn has_group(leader: Pid) -> bool {
    nix::sys::signal::killpg(leader, None).is_ok()
}

/// A signal to one child.
pub fn signal(child: Pid, number: i32) {
    // SAFETY: as in `kill`.
    unsafe { libc::kill(child.as_raw(), number) };
}

/// A helper is whoever is in the session of this process: a command leaves it before it does
/// anything else, and cannot come back.
pub fn is_stranger(pid: Pid) -> bool {
    getsid(Some(pid)) != getsid(None)
}

/// Ends, with SIGKILL, every child that is not a helper, and says whether there was one. Their own children come
/// up when they die, and are found when those are reaped.
pub fn kill_strangers() -> bool {
    let strangers: Vec<Pid> = list()
        .into_iter()
        .filter(|child| is_stranger(*child))
        .collect();
    strangers.iter().copied().for_each(kill);
    !strangers.is_empty()
}

/// Lets every helper go on that somebody may have stopped.
pub fn continue_helpers() {
    for child in list() {
        if !is_stranger(child) {
            signal(child, Signal::SIGCONT as i32);
        }
    }
}
