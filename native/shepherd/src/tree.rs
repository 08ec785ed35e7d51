//! Signals to all that is below this process, however deep.
//!
//! What is further down than a child may be reaped by its parent at any time, and its number given to somebody else. So a process
//! is signalled by pidfd (pidfd_open(2)), which names the same process for ever: found in /proc, opened, and looked at again,
//! whether what has the number now is below this process. What is forked meanwhile may be missed.

use crate::children;
use std::collections::BTreeSet;

/// A program that forks all the time has an end that is not reached. Those that are stopped fork no more.
const MOST_ROUNDS: usize = 100;

/// A signal to each process of the tree, once.
pub fn signal(number: i32) {
    if !children::has_proc() || round(number, &mut BTreeSet::new()).is_none() {
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

/// As `signal`, until no process is found that has not got it.
pub fn signal_until_all(number: i32) {
    if !children::has_proc() {
        return children::signal_all(number);
    }
    let mut signalled = BTreeSet::new();
    for _ in 0..MOST_ROUNDS {
        match round(number, &mut signalled) {
            Some(0) => return,
            Some(_) => {}
            None => return children::signal_all(number),
        }
    }
}

/// Signals what is found and was not signalled before; how many these were. `None`: this system cannot do it.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn round(number: i32, signalled: &mut BTreeSet<libc::pid_t>) -> Option<usize> {
    let before = signalled.len();
    for pid in processes::below(std::process::id() as libc::pid_t)? {
        if signalled.contains(&pid) {
            continue;
        }
        match processes::signal(pid, number) {
            Ok(true) => {
                signalled.insert(pid);
            }
            // Gone, or another's.
            Ok(false) => {}
            Err(nix::errno::Errno::ENOSYS) => return None,
            // It may not be signalled, and asking again would not change that.
            Err(_) => {
                signalled.insert(pid);
            }
        }
    }
    Some(signalled.len() - before)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn round(_number: i32, _signalled: &mut BTreeSet<libc::pid_t>) -> Option<usize> {
    None
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
    use crate::children;
    use nix::errno::Errno;
    use nix::unistd::Pid;
    use std::collections::BTreeMap;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    /// The processes below this one, parents before their children.
    pub fn below(root: libc::pid_t) -> Option<Vec<libc::pid_t>> {
        let mut children = BTreeMap::<libc::pid_t, Vec<libc::pid_t>>::new();
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let pid = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some((pid, parent)) = pid.and_then(|pid| Some((pid, parent_of(pid)?))) {
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

    /// Whether it was signalled: it is still there, and below this process.
    pub fn signal(pid: libc::pid_t, number: i32) -> nix::Result<bool> {
        let process = match open(pid) {
            Ok(process) => process,
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(false),
            Err(errno) => return Err(errno),
        };
        if !is_below(pid, std::process::id() as libc::pid_t) {
            return Ok(false);
        }
        match send(&process, number) {
            Err(Errno::ESRCH) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Walks up to the root, and then looks at each step once more. A process that has the same parent both times has had it
    /// all the time, since it would have got another parent when that one died. So no process on the way was replaced.
    fn is_below(pid: libc::pid_t, root: libc::pid_t) -> bool {
        let mut way = vec![(
            pid,
            match parent_of(pid) {
                Some(parent) => parent,
                None => return false,
            },
        )];
        while let Some(&(_, parent)) = way.last() {
            if parent == root {
                return way
                    .iter()
                    .all(|&(pid, parent)| parent_of(pid) == Some(parent));
            }
            match parent_of(parent) {
                Some(next) if parent > 1 => way.push((parent, next)),
                _ => return false,
            }
        }
        false
    }

    fn parent_of(pid: libc::pid_t) -> Option<libc::pid_t> {
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
                assert!(is_below(*pid, root) && is_below(*pid, own));
            }
            let other_pid = other.id() as libc::pid_t;
            assert!(is_below(other_pid, own) && !is_below(other_pid, root));
            assert!(!is_below(root, root) && !is_below(1, own));
            // A parent that is stopped does not exit when its child is killed.
            for pid in &found {
                assert_eq!(signal(*pid, libc::SIGSTOP), Ok(true));
            }
            for pid in found.iter().rev() {
                assert_eq!(signal(*pid, libc::SIGKILL), Ok(true));
            }
            shell.wait().unwrap();
            other.kill().unwrap();
            other.wait().unwrap();
            assert_eq!(signal(root, libc::SIGKILL), Ok(false));
        }
    }
}
