//! Starting the helper program.

use nix::errno::Errno;
use nix::unistd::Pid;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use wire::{socket, LAUNCHER_FD};

const ARGUMENTS: [&CStr; 2] = [c"net_runner_shepherd", c"launcher"];

/// Starts the helper program and returns the VM's end of its socket.
pub fn start(path: &[u8]) -> nix::Result<(OwnedFd, Pid)> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let (ours, theirs) = socket::pair()?;
    let pid = spawn(&path, theirs.as_fd())?;
    Ok((ours, pid))
}

#[cfg(not(any(target_os = "openbsd", net_runner_posix)))]
fn spawn(path: &CStr, theirs: BorrowedFd) -> nix::Result<Pid> {
    use nix::fcntl::OFlag;
    use nix::spawn::{posix_spawn, PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
    use nix::sys::signal::{SigSet, Signal};
    use nix::sys::stat::Mode;
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
    posix_spawn(path, &actions, &attributes, &ARGUMENTS, &[] as &[&CStr])
}

/// For OpenBSD nix has no posix_spawn(3). The signals are left to the helper, which sees to them before all else.
#[cfg(any(target_os = "openbsd", net_runner_posix))]
fn spawn(path: &CStr, theirs: BorrowedFd) -> nix::Result<Pid> {
    use std::{mem::MaybeUninit, ptr};
    let checked = |result: libc::c_int| match result {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    };
    let [name, role] = ARGUMENTS.map(|argument| argument.as_ptr().cast_mut());
    let arguments = [name, role, ptr::null_mut()];
    let no_environment = [ptr::null_mut()];
    let mut actions = MaybeUninit::uninit();
    let mut pid = 0;
    // SAFETY: the actions are used between their making and their end; the strings and arrays live, and end with null.
    unsafe {
        checked(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
        let actions = actions.as_mut_ptr();
        let mut spawn = || {
            for target in 0..=2 {
                checked(libc::posix_spawn_file_actions_addopen(
                    actions,
                    target,
                    c"/dev/null".as_ptr(),
                    libc::O_RDWR,
                    0,
                ))?;
            }
            checked(libc::posix_spawn_file_actions_adddup2(
                actions,
                theirs.as_raw_fd(),
                LAUNCHER_FD,
            ))?;
            checked(libc::posix_spawn(
                &mut pid,
                path.as_ptr(),
                actions,
                ptr::null(),
                arguments.as_ptr(),
                no_environment.as_ptr(),
            ))
        };
        let spawned = spawn();
        libc::posix_spawn_file_actions_destroy(actions);
        spawned?;
    }
    Ok(Pid::from_raw(pid))
}
