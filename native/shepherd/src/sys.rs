//! What differs between Linux and other POSIX systems, and the calls that nix has no safe form for.

use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use wire::Exit;

/// Makes this process the one that orphans below it are given to, instead of process 1.
/// (prctl(2), PR_SET_CHILD_SUBREAPER; not inherited by children.)
#[cfg(target_os = "linux")]
pub fn become_subreaper() {
    // A kernel before 3.4 has no subreapers; then only process groups hold the tree together.
    let _ = nix::sys::prctl::set_child_subreaper(true);
}

/// Other systems have no subreapers: there only process groups hold a command's tree together.
#[cfg(not(target_os = "linux"))]
pub fn become_subreaper() {}

/// Whether the kernel sends this process SIGKILL when its parent dies (prctl(2), PR_SET_PDEATHSIG).
#[cfg(target_os = "linux")]
pub fn die_with_parent(yes: bool) {
    let signal = yes.then_some(nix::sys::signal::Signal::SIGKILL);
    // Fails only for what is no signal.
    let _ = nix::sys::prctl::set_pdeathsig(signal);
}

/// Only spares need it, and elsewhere there are none.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(_yes: bool) {}

/// A pipe, close-on-exec, neither end of which ever blocks.
pub fn nonblocking_pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
    let (read, write) = nix::unistd::pipe()?;
    // No other thread is there that could fork between these calls.
    for end in [&read, &write] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok((read, write))
}

/// Closes every descriptor from `first` on: what the VM had open without close-on-exec.
pub fn close_from(first: i32) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the numbers belong to nobody in this process: it has just started.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
        if closed == 0 {
            return;
        }
    }
    // SAFETY: sysconf(3) only reads a limit.
    let limit = unsafe { libc::sysconf(libc::_SC_OPEN_MAX) };
    for fd in first..i32::try_from(limit).unwrap_or(i32::MAX).min(65_536) {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}

/// Whether a child of the guard or the launcher ended as a helper does that has nothing left.
pub fn exited_well(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(_, 0))
}

/// Reaps a child that is known to be dead, with the kernel's account of it.
pub fn reap_with_usage(pid: Pid) -> nix::Result<Exit> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types that wait4(2) writes.
    let reaped = unsafe { libc::wait4(pid.as_raw(), &mut status, 0, &mut usage) };
    nix::errno::Errno::result(reaped)?;
    Ok(Exit {
        result: if libc::WIFSIGNALED(status) {
            Err(libc::WTERMSIG(status) as u8)
        } else {
            Ok(libc::WEXITSTATUS(status) as u8)
        },
        core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        max_rss_bytes: max_rss_bytes(&usage),
        user_time_us: microseconds(usage.ru_utime),
        system_time_us: microseconds(usage.ru_stime),
    })
}

/// getrusage(2): kilobytes on Linux and the BSDs, bytes on macOS.
fn max_rss_bytes(usage: &libc::rusage) -> u64 {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss as u64 * unit
}

fn microseconds(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64
}

/// Runs `child` in a new process that shares this one's memory until it calls `execve(2)` or exits,
/// while this one waits: vfork(2) with a stack of its own. Nothing is copied, whatever the size.
///
/// # Safety
/// `child` must not allocate, lock, unwind or return; `argument` must be valid for it.
#[cfg(target_os = "linux")]
pub unsafe fn spawn(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
) -> nix::Result<Pid> {
    const STACK_SIZE: usize = 64 * 1024;
    let mut stack = Vec::<u128>::with_capacity(STACK_SIZE / size_of::<u128>());
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, lives until the child has left it (CLONE_VFORK),
    // and u128 is aligned as the ABI asks; the caller answers for the rest.
    let pid = unsafe {
        let top = stack.as_mut_ptr().add(stack.capacity()).cast();
        libc::clone(child, top, flags, argument)
    };
    nix::errno::Errno::result(pid).map(Pid::from_raw)
}

/// Elsewhere: a fork. What the child writes at `argument` must be shared memory (see `Shared`),
/// and a pipe that `execve(2)` closes tells when it is done.
///
/// # Safety
/// As above.
#[cfg(not(target_os = "linux"))]
pub unsafe fn spawn(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
) -> nix::Result<Pid> {
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let (started, starting) = nonblocking_pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let code = child(argument);
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(starting);
            let mut fds = [PollFd::new(started.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::NONE)?;
            Ok(child)
        }
    }
}
