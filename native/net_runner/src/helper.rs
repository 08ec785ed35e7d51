//! Starting the helper program.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::spawn::{posix_spawn, PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use wire::{socket, LAUNCHER_FD};

/// Starts the helper program and returns the VM's end of its socket.
pub fn start(path: &[u8]) -> nix::Result<(OwnedFd, Pid)> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let (ours, theirs) = socket::pair()?;
    let mut actions = PosixSpawnFileActions::init()?;
    // The helper keeps nothing of the VM's: a reader of the VM's output must see its end.
    for target in 0..=2 {
        actions.add_open(target, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    actions.add_dup2(theirs.as_raw_fd(), LAUNCHER_FD)?;
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    let mut ignored = SigSet::empty();
    for signal in Signal::iterator() {
        ignored.add(signal);
    }
    ignored.remove(Signal::SIGKILL);
    ignored.remove(Signal::SIGSTOP);
    attributes.set_sigdefault(&ignored)?;
    attributes.set_sigmask(&SigSet::empty())?;
    let arguments: [&CStr; 2] = [c"net_runner_shepherd", c"launcher"];
    let pid = posix_spawn(
        path.as_c_str(),
        &actions,
        &attributes,
        &arguments,
        &[] as &[&CStr],
    )?;
    Ok((ours, pid))
}
