//! Signals to all that is below this process, however deep.
//!
//! What is further down than a child may be reaped by its parent at any time, and its number given to somebody else. So a process
//! is signalled by pidfd (pidfd_open(2)), which names the same process for ever: found in /proc, opened, and looked at again,
//! whether what has the number now is below this process. What is forked meanwhile may be missed.

use crate::children;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A program may start another one and exit faster than it is found. So many rounds are tried to stop it, and for so long at least.
const ROUNDS: usize = 100;
/// For how long at the most to look whether all go on.
const TIME: Duration = Duration::from_millis(500);

/// No event tells that one has stopped that is not a child.
const PAUSE: Duration = Duration::from_millis(1);

/// A signal to each process of the tree, once.
pub fn signal(number: i32) {
    if !children::has_proc() || signal_found(number).is_none() {
        children::signal_all(number);
    }
}

/// A signal to each process below a child of this one.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn signal_below(child: nix::unistd::Pid, number: i32) {
    if children::has_proc() {
        for pid in processes::below(child.as_raw()).unwrap_or_default() {
            let _ = processes::signal(pid, number);
        }
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn signal_below(_child: nix::unistd::Pid, _number: i32) {}

/// Stops all, until no process is there that has not got the signal. Race: always another one.
pub fn stop_all() {
    let found = children::has_proc().then(|| signal_found(libc::SIGSTOP));
    let Some(mut tree) = found.flatten() else {
        return children::signal_all(libc::SIGSTOP);
    };
    let start = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS || start.elapsed() < TIME {
        // What these start is found after they have stopped.
        let moving = tree.any_moves();
        let new = signal_new(libc::SIGSTOP, &mut tree);
        match (new, moving) {
            (true, _) => {}
            (false, true) => std::thread::sleep(PAUSE),
            (false, false) => return,
        }
        rounds += 1;
    }
}

/// Lets all go on, whoever has stopped them. Race: stops with its child.
pub fn resume_all() {
    if !children::has_proc() || signal_found(libc::SIGCONT).is_none() {
        return children::signal_all(libc::SIGCONT);
    }
    let start = Instant::now();
    let mut woken = Woken::new();
    while resume_stopped(&mut woken) && start.elapsed() < TIME {
        std::thread::sleep(PAUSE);
    }
}

/// Those that run, with the processor time, in ticks, that they had when they were first seen to.
type Woken = BTreeMap<libc::pid_t, u64>;

/// What was found so far.
#[derive(Default)]
#[cfg_attr(any(not(target_os = "linux"), net_runner_posix), expect(dead_code))]
struct Tree {
    /// Looked at: signalled, or not below this process.
    known: BTreeSet<libc::pid_t>,
    /// Signalled, and not seen to have stopped.
    moving: BTreeSet<libc::pid_t>,
}

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
impl Tree {
    fn add(&mut self, pid: libc::pid_t, reached: &nix::Result<Reached>) {
        match reached {
            Ok(Reached::Unknown) => return,
            Ok(Reached::Yes) => self.moving.insert(pid),
            // It may not be signalled, and to ask again would not change that.
            Ok(Reached::NotBelow) | Err(_) => false,
        };
        self.known.insert(pid);
    }

    /// One that is in fork(2) stops when it has forked. One in state D may be in vfork(2), and is not awaited.
    fn any_moves(&mut self) -> bool {
        self.moving
            .retain(|pid| matches!(children::state_of(*pid), Some('R' | 'S')));
        !self.moving.is_empty()
    }
}

/// Signals what is found, parents before their children, but children first to let them go on. `None`: this system cannot do it.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn signal_found(number: i32) -> Option<Tree> {
    let mut tree = Tree::default();
    let mut found = processes::below(std::process::id() as libc::pid_t)?;
    if number == libc::SIGCONT {
        found.reverse();
    }
    for pid in found {
        let reached = processes::signal(pid, number);
        if matches!(reached, Err(nix::errno::Errno::ENOSYS)) {
            return None;
        }
        // The parents of this one may have changed since it was found, so it is looked at again.
        if !matches!(reached, Ok(Reached::NotBelow)) {
            tree.add(pid, &reached);
        }
    }
    Some(tree)
}

/// Signals those below this process that are not known. Whether there may be others: there were some, which may have started
/// others before, or one was gone before it could be told whose it was.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn signal_new(number: i32, tree: &mut Tree) -> bool {
    let mut all = processes::all().unwrap_or_default();
    // The newest are the first to go.
    all.reverse();
    let mut more = false;
    for pid in all {
        if tree.known.contains(&pid) {
            continue;
        }
        let reached = processes::signal(pid, number);
        more |= !matches!(reached, Ok(Reached::NotBelow));
        tree.add(pid, &reached);
    }
    more
}

/// Lets those go on that are stopped, children first. Whether one may stop yet, or again: it was stopped, or it has children, and
/// has neither come so far, since it was woken, that it waits for something, nor used any time that would show in its figures.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn resume_stopped(woken: &mut Woken) -> bool {
    let found = processes::below(std::process::id() as libc::pid_t).unwrap_or_default();
    let parents: BTreeSet<_> = found
        .iter()
        .copied()
        .filter_map(processes::parent_of)
        .collect();
    let mut any = false;
    for pid in found.into_iter().rev() {
        any |= match children::state_of(pid) {
            Some('T') => processes::signal(pid, libc::SIGCONT).is_ok(),
            Some('R') if parents.contains(&pid) => {
                let ticks = children::ticks_of(pid).unwrap_or_default();
                ticks <= *woken.entry(pid).or_insert(ticks)
            }
            _ => false,
        };
    }
    any
}

/// Whether a process was signalled.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
enum Reached {
    Yes,
    NotBelow,
    /// It was gone before, or its parents changed.
    Unknown,
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
impl Tree {
    fn any_moves(&mut self) -> bool {
        false
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn signal_found(_number: i32) -> Option<Tree> {
    None
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn signal_new(_number: i32, _tree: &mut Tree) -> bool {
    false
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn resume_stopped(_woken: &mut Woken) -> bool {
    false
}

/// Whether processes can be signalled so, tried on this one with no signal.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn try_pidfds() -> nix::Result<()> {
    let own = processes::open(std::process::id() as libc::pid_t)?;
    processes::send(&own, 0)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn try_pidfds() -> nix::Result<()> {
    Err(nix::errno::Errno::ENOSYS)
}

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod processes {
    use super::Reached;
    use crate::children;
    use nix::errno::Errno;
    use nix::sys::signal::kill;
    use nix::unistd::Pid;
    use std::collections::BTreeMap;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    /// All processes, by number.
    pub fn all() -> Option<Vec<libc::pid_t>> {
        let entries = std::fs::read_dir("/proc").ok()?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Some(pids.collect())
    }

    /// The processes below this one, parents before their children.
    pub fn below(root: libc::pid_t) -> Option<Vec<libc::pid_t>> {
        let mut children = BTreeMap::<libc::pid_t, Vec<libc::pid_t>>::new();
        for pid in all()? {
            if let Some(parent) = parent_of(pid) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut found = children.remove(&root).unwrap_or_default();
        let mut at = 0;
        while let Some(parent) = found.get(at) {
            let more = children.remove(parent).unwrap_or_default();
            found.extend(more);
            at += 1;
        }
        Some(found)
    }

    /// Signals it if it is still there, and below this process.
    pub fn signal(pid: libc::pid_t, number: i32) -> nix::Result<Reached> {
        let process = match open(pid) {
            Ok(process) => process,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(Reached::Unknown),
            Err(errno) => return Err(errno),
        };
        match is_below(pid, std::process::id() as libc::pid_t) {
            Some(true) => {}
            Some(false) => return Ok(Reached::NotBelow),
            None => return Ok(Reached::Unknown),
        }
        match send(&process, number) {
            Err(Errno::ESRCH) => Ok(Reached::Unknown),
            result => result.map(|()| Reached::Yes),
        }
    }

    /// Walks up to the root, and then looks at each step once more. A process that has the same parent both times has had it
    /// all the time, since it would have got another parent when that one died. So no process on the way was replaced.
    /// `None`: one was, or is gone.
    fn is_below(pid: libc::pid_t, root: libc::pid_t) -> Option<bool> {
        let mut way = Vec::new();
        let mut at = pid;
        let below = loop {
            match parent_of(at) {
                Some(parent) => way.push((at, parent)),
                // What may not be looked at (proc(5), hidepid) is another user's.
                None if kill(Pid::from_raw(at), None) != Err(Errno::ESRCH) => return Some(false),
                None => return None,
            }
            at = way.last()?.1;
            if at <= 1 || at == root {
                break at == root;
            }
        };
        let same = |&(pid, parent): &(libc::pid_t, libc::pid_t)| parent_of(pid) == Some(parent);
        way.iter().all(same).then_some(below)
    }

    pub fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
        children::parent_of(Pid::from_raw(pid)).map(Pid::as_raw)
    }

    pub fn open(pid: libc::pid_t) -> nix::Result<OwnedFd> {
        // SAFETY: pidfd_open(2) touches no memory.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: it was made just now, close-on-exec, and is nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }

    pub fn send(process: &OwnedFd, number: i32) -> nix::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: pidfd_send_signal(2) reads no siginfo where that is null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                number,
                info,
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::children::tests::own_children;
        use std::process::{Command, Stdio};

        #[test]
        fn what_is_below_is_found_however_deep_and_nothing_else() {
            let _own = own_children();
            let own = std::process::id() as libc::pid_t;
            let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
            let mut shell = Command::new("sh")
                .args(["-c", "sh -c 'sleep 1000 & echo; wait' & wait"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // The deepest one has started when there is a line.
            std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            let root = shell.id() as libc::pid_t;
            let found = below(root).unwrap();
            assert_eq!(found.len(), 2);
            for pid in &found {
                assert_eq!(
                    (is_below(*pid, root), is_below(*pid, own)),
                    (Some(true), Some(true))
                );
            }
            let other_pid = other.id() as libc::pid_t;
            assert_eq!(is_below(other_pid, own), Some(true));
            assert_eq!(is_below(other_pid, root), Some(false));
            assert_eq!(
                (is_below(root, root), is_below(1, own)),
                (Some(false), Some(false))
            );
            // A parent that is stopped does not exit when its child is killed.
            for pid in &found {
                assert!(matches!(signal(*pid, libc::SIGSTOP), Ok(Reached::Yes)));
            }
            for pid in found.iter().rev() {
                assert!(matches!(signal(*pid, libc::SIGKILL), Ok(Reached::Yes)));
            }
            shell.wait().unwrap();
            other.kill().unwrap();
            other.wait().unwrap();
            assert!(matches!(signal(root, libc::SIGKILL), Ok(Reached::Unknown)));
            assert_eq!(is_below(root, own), None);
        }
    }
}

#[cfg(all(test, target_os = "linux", not(net_runner_posix)))]
mod tests {
    use super::*;
    use crate::children::tests::own_children;
    use nix::sys::signal::{kill, Signal};
    use nix::sys::wait::{waitid, Id, WaitPidFlag};
    use nix::unistd::Pid;
    use std::process::Command;

    #[test]
    fn one_that_was_signalled_is_awaited_until_it_has_stopped_or_is_gone() {
        let _own = own_children();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as libc::pid_t);
        // It may be in state D while it is loaded.
        while children::state_of(pid.as_raw()) != Some('S') {
            std::thread::sleep(PAUSE);
        }
        let mut tree = Tree::default();
        tree.add(pid.as_raw(), &Ok(Reached::Yes));
        assert!(tree.any_moves());
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), stopped).unwrap();
        assert!(!tree.any_moves());
        tree.add(pid.as_raw(), &Ok(Reached::Yes));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!tree.any_moves());
    }

    #[test]
    fn what_is_stopped_goes_on_and_a_parent_that_is_busy_is_not_awaited() {
        let _own = own_children();
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 1000 & echo; while :; do :; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let pid = Pid::from_raw(shell.id() as libc::pid_t);
        let sleep = *processes::below(pid.as_raw()).unwrap().last().unwrap();
        kill(pid, Signal::SIGSTOP).unwrap();
        let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), stopped).unwrap();
        let mut woken = Woken::new();
        assert!(resume_stopped(&mut woken));
        assert_eq!(children::state_of(pid.as_raw()), Some('R'));
        let start = Instant::now();
        while resume_stopped(&mut woken) {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(PAUSE);
        }
        kill(Pid::from_raw(sleep), Signal::SIGKILL).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn what_was_gone_too_early_is_looked_at_again_and_a_stranger_is_not() {
        let mut tree = Tree::default();
        tree.add(2, &Ok(Reached::Unknown));
        tree.add(3, &Ok(Reached::NotBelow));
        tree.add(4, &Err(nix::errno::Errno::EPERM));
        assert_eq!(tree.known, BTreeSet::from([3, 4]));
        assert!(tree.moving.is_empty());
    }
}
