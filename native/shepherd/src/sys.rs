//! What differs between Linux and other POSIX systems, and the calls that nix has no safe form for.

use nix::errno::Errno;
use nix::unistd::Pid;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
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

/// A child that is dead and not yet reaped.
pub struct Dead {
    pub pid: Pid,
    /// The code it exited with; `None` when a signal ended it.
    code: Option<i32>,
}

impl Dead {
    pub fn exited_with(&self, code: i32) -> bool {
        self.code == Some(code)
    }
}

/// A dead child (this one, or any), left unreaped; `None` when there is none that is dead. ECHILD:
/// it is no child, or there is no child at all.
pub fn dead_child(which: Option<Pid>) -> nix::Result<Option<Dead>> {
    let (kind, id) = match which {
        Some(pid) => (libc::P_PID, pid.as_raw()),
        None => (libc::P_ALL, 0),
    };
    // SAFETY: all-zero bytes are a valid siginfo_t, and stay when there is nothing to tell.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live value of the type that waitid(2) writes.
    Errno::result(unsafe { libc::waitid(kind, id as libc::id_t, &mut info, flags) })?;
    // SAFETY: waitid(2) fills these two, or leaves them at zero.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let code = (info.si_code == libc::CLD_EXITED).then_some(status);
    Ok((pid != 0).then(|| Dead {
        pid: Pid::from_raw(pid),
        code,
    }))
}

/// Reaps a child that is known to be dead, with the kernel's account of it.
pub fn reap_with_usage(pid: Pid) -> nix::Result<Exit> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types that wait4(2) writes.
    let reaped = unsafe { libc::wait4(pid.as_raw(), &mut status, 0, &mut usage) };
    Errno::result(reaped)?;
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
    Errno::result(pid).map(Pid::from_raw)
}

/// Elsewhere: a fork. What the child tells its parent must be in memory that both share (see
/// `Shared`), and a pipe that `execve(2)` closes tells when it is done.
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

/// A value that a process made by `spawn` can write, and its parent read.
#[cfg(target_os = "linux")]
pub struct Shared<T>(Box<T>);

#[cfg(target_os = "linux")]
impl<T> Shared<T> {
    pub fn new(value: T) -> nix::Result<Shared<T>> {
        Ok(Shared(Box::new(value)))
    }

    pub fn as_ptr(&mut self) -> *mut T {
        &mut *self.0
    }
}

#[cfg(not(target_os = "linux"))]
pub struct Shared<T>(std::ptr::NonNull<T>);

#[cfg(not(target_os = "linux"))]
impl<T> Shared<T> {
    pub fn new(value: T) -> nix::Result<Shared<T>> {
        use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
        let size = std::num::NonZeroUsize::new(size_of::<T>()).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory, at an address that the kernel chooses.
        let memory = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED) }?.cast();
        // SAFETY: a page is large enough, and aligned for anything.
        unsafe { memory.write(value) };
        Ok(Shared(memory))
    }

    pub fn as_ptr(&mut self) -> *mut T {
        self.0.as_ptr()
    }
}

#[cfg(not(target_os = "linux"))]
impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and nobody refers to it any more.
        let _ = unsafe { nix::sys::mman::munmap(self.0.cast(), size_of::<T>()) };
    }
}

/// Flags in memory that all processes which this one forks share with it, for ever; all `false`.
pub fn shared_flags<const N: usize>() -> nix::Result<&'static [AtomicBool; N]> {
    use nix::sys::mman::{mmap_anonymous, MapFlags, ProtFlags};
    let size = std::num::NonZeroUsize::new(N.max(1)).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: new memory, at an address that the kernel chooses; all-zero bytes are `false`, and it is never unmapped.
    unsafe {
        let memory = mmap_anonymous(None, size, access, MapFlags::MAP_SHARED)?;
        Ok(memory.cast().as_ref())
    }
}

/// No program below this process gains rights by a set-user-ID bit (prctl(2), PR_SET_NO_NEW_PRIVS).
pub fn give_up_new_privileges() -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    return nix::sys::prctl::set_no_new_privs();
    #[cfg(not(target_os = "linux"))]
    return Err(Errno::ENOSYS);
}
