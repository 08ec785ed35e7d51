//! Finding and ending the children of this process.
//!
//! A PID is signalled only while it names a child that this process has not reaped: until then the kernel gives the number
//! to nobody else, neither as a PID nor as a process group. Descendants further down are never signalled by number; they
//! become children when their parents are gone, because the helpers are child subreapers. Race: reused PID.

use crate::sys::{self, Dead};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitPidFlag};
use nix::unistd::{getpgid, getpid, getsid, Pid};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use wire::Exit;

/// What is left after dead children were reaped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    /// Children that live.
    Alive,
    /// Others may be dead, too: there was no time to look.
    Unseen,
    /// No child at all: the kernel's own word for it (ECHILD).
    None,
}

/// For how long this process does nothing but reap. Race: no end of the dead.
const LONGEST_REAP: Duration = Duration::from_millis(20);

/// Reaps children that are dead; `see` gets each while it is still a zombie.
pub fn reap(see: impl FnMut(&Dead)) -> Left {
    reap_until(None, see)
}

/// Reaps all but this one. When it is dead, too, it stays a zombie, and so may others.
pub fn reap_all_but(command: Pid) -> Left {
    reap_until(Some(command), |_| {})
}

fn reap_until(stays: Option<Pid>, mut see: impl FnMut(&Dead)) -> Left {
    let until = Instant::now() + LONGEST_REAP;
    loop {
        match sys::dead_child(None) {
            Ok(Some(dead)) if Some(dead.pid) == stays => return Left::Alive,
            Ok(Some(dead)) => {
                see(&dead);
                let _ = waitpid(dead.pid, Some(WaitPidFlag::WNOHANG));
            }
            Err(Errno::ECHILD) => return Left::None,
            // Any other error says nothing about children. (The guard has seen that the call works.)
            Ok(None) | Err(_) => return Left::Alive,
        }
        if Instant::now() >= until {
            return Left::Unseen;
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

pub fn parent_of(pid: Pid) -> Option<Pid> {
    let parent = stat(pid)?.split_ascii_whitespace().nth(1)?.parse().ok();
    parent.map(Pid::from_raw)
}

/// Its state, a letter of proc_pid_stat(5).
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn state_of(pid: libc::pid_t) -> Option<char> {
    stat(Pid::from_raw(pid))?.trim_start().chars().next()
}

/// The processor time that it has used, in the kernel and outside, in ticks.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn ticks_of(pid: libc::pid_t) -> Option<u64> {
    let stat = stat(Pid::from_raw(pid))?;
    // utime and stime, the 14th and 15th field of proc(5); the state is the third.
    let mut times = stat.split_ascii_whitespace().skip(11);
    let mut next = || times.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// What /proc says of a process, from its state on.
fn stat(pid: Pid) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the last ")" ends it.
    stat.rsplit_once(')').map(|(_, rest)| rest.to_owned())
}

/// How a child has exited that is dead, though waitid(2) does not say so: somebody traces it, and has not taken note of
/// its death (ptrace(2)). `None`: it is not so, or cannot be told. What /proc says of a zombie is all that is known, its
/// memory is not.
pub fn held_zombie(child: Pid) -> Option<Exit> {
    if !has_proc() {
        return None;
    }
    exit_in_stat(&stat(child)?, ticks_per_second())
}

/// From the fields of proc_pid_stat(5): 3 (state), 14 and 15 (times), 52 (status as of waitpid(2)).
fn exit_in_stat(from_state: &str, ticks_per_second: u64) -> Option<Exit> {
    let fields: Vec<&str> = from_state.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    if fields.first() != Some(&"Z") {
        return None;
    }
    let time = |field| Some(number(field)?.saturating_mul(1_000_000) / ticks_per_second);
    Some(sys::exit_of(
        number(52)? as libc::c_int,
        0,
        time(14)?,
        time(15)?,
    ))
}

fn ticks_per_second() -> u64 {
    // SAFETY: sysconf(3) touches no memory of this process.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).map_or(100, |ticks| ticks.max(1))
}

/// SIGKILL to a child, and to the process group that has its number. Race: fork under SIGKILL.
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

/// Helpers are the processes in the session of this process: a command leaves that session before it does anything else,
/// and cannot come back.
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

#[cfg(test)]
pub mod tests {
    use super::*;
    use nix::sys::wait::{waitid, Id};
    use std::process::Command;
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::thread::sleep;

    /// The children of the process that runs the tests are those of one test at a time.
    pub fn own_children() -> MutexGuard<'static, ()> {
        static CHILDREN: Mutex<()> = Mutex::new(());
        CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn who_reaps_sees_to_other_things_in_between() {
        let _own = own_children();
        for _ in 0..2 {
            // `reap` is what waits for it.
            #[allow(clippy::zombie_processes)]
            let child = Command::new("true").spawn().unwrap();
            let child = Id::Pid(Pid::from_raw(child.id() as libc::pid_t));
            waitid(child, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        }
        for left in [Left::Unseen, Left::Unseen, Left::None] {
            assert_eq!(reap(|_| sleep(LONGEST_REAP)), left);
        }
    }

    /// A process that somebody else traced, after `exit 3` and after SIGKILL.
    #[test]
    fn what_proc_says_of_a_zombie_is_how_it_exited() {
        let stat = |state, status| {
            format!(" {state} 1 2 3 0 -1 4228364 0 0 0 0 25 50 0 0 20 0 1 0 9 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 {status}\n")
        };
        let exit = exit_in_stat(&stat("Z", 3 << 8), 100).unwrap();
        assert_eq!(exit.result, Ok(3));
        assert_eq!((exit.user_time_us, exit.system_time_us), (250_000, 500_000));
        let exit = exit_in_stat(&stat("Z", 9), 100).unwrap();
        assert_eq!((exit.result, exit.core_dumped), (Err(9), false));
        assert_eq!(exit_in_stat(&stat("t", 0), 100), None);
        assert_eq!(exit_in_stat(" Z 1 2", 100), None);
    }
}
