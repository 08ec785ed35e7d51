//! What differs between Linux and other POSIX systems, and the calls that nix has no safe form for.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::AtomicBool;
use wire::Exit;

/// Whether the system gives orphans to the helpers. Where it does not, a shepherd has no child but its command, and
/// nobody looks after the command of one that was killed.
pub const ADOPTS: bool = cfg!(all(target_os = "linux", not(net_runner_posix)));

/// Makes this process the one that orphans below it are given to, instead of process 1.
/// (prctl(2), PR_SET_CHILD_SUBREAPER, since Linux 3.4; not inherited by children.)
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Other systems have no subreapers: there only process groups hold a command's tree together.
#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn become_subreaper() -> nix::Result<()> {
    Ok(())
}

/// Which signal the kernel sends this process when its parent dies (prctl(2), PR_SET_PDEATHSIG). It does
/// so again when the next parent dies, too.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn signal_at_parents_death(signal: Option<Signal>) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)
}

/// Elsewhere a helper finds out when it next wakes.
#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn signal_at_parents_death(_signal: Option<Signal>) -> nix::Result<()> {
    Ok(())
}

/// Keeps processes of the same user from reading this one's memory, tracing it, or taking its descriptors
/// (prctl(2), PR_SET_DUMPABLE). What this process forks inherits it; a command does not.
pub fn become_opaque() {
    // A kernel that refuses leaves things as they are everywhere else.
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    let _ = nix::sys::prctl::set_dumpable(false);
}

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

/// A copy, close-on-exec, on the lowest free number from `lowest` on.
pub fn copy_to_at_least(fd: &OwnedFd, lowest: RawFd) -> nix::Result<OwnedFd> {
    use nix::fcntl::{fcntl, FcntlArg};
    use std::os::fd::FromRawFd;
    match fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(lowest)) {
        // SAFETY: made for this process just now.
        Ok(copy) => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
        // The limit of descriptors is not above it.
        Err(Errno::EINVAL) => Err(Errno::EMFILE),
        Err(errno) => Err(errno),
    }
}

/// Closes every descriptor from `first` on: what the VM had open without close-on-exec.
pub fn close_from(first: RawFd) {
    if close_range(first).is_ok() {
        return;
    }
    let close = |fd: RawFd| {
        // SAFETY: the numbers belong to nobody in this process: it has just started.
        unsafe { libc::close(fd) };
    };
    match open_fds() {
        Some(fds) => fds.into_iter().filter(|fd| *fd >= first).for_each(close),
        None => (first..highest_fd()).for_each(close),
    }
}

/// close_range(2), since Linux 5.9. From a process that has just started, or with numbers that nobody has.
pub fn close_range(first: RawFd) -> nix::Result<()> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    {
        // SAFETY: the numbers belong to nobody in this process, as the caller knows.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
        Errno::result(closed).map(drop)
    }
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    {
        let _ = first;
        Err(Errno::ENOSYS)
    }
}

/// What the system lists. The descriptor that reads the list may be in it, and is closed by then.
fn open_fds() -> Option<Vec<RawFd>> {
    let directory = if cfg!(all(target_os = "linux", not(net_runner_posix))) {
        "/proc/self/fd"
    } else {
        "/dev/fd"
    };
    let mut fds = Vec::new();
    for entry in std::fs::read_dir(directory).ok()? {
        fds.push(entry.ok()?.file_name().to_str()?.parse().ok()?);
    }
    Some(fds)
}

/// A limit may have been lowered after a descriptor was opened, so the hard one counts. Without any, it is what
/// Linux allows a process at most unless somebody raised that (fs.nr_open).
fn highest_fd() -> RawFd {
    const MOST: RawFd = 1 << 20;
    // SAFETY: all-zero bytes are a valid rlimit, and getrlimit(2) writes one.
    let hard = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_max
    };
    RawFd::try_from(hard).map_or(MOST, |hard| hard.min(MOST))
}

/// A child that is dead and not yet reaped.
pub struct Dead {
    pub pid: Pid,
    /// `None` when a signal ended it.
    pub exit_code: Option<i32>,
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
    let exit_code = (info.si_code == libc::CLD_EXITED).then_some(status);
    Ok((pid != 0).then(|| Dead {
        pid: Pid::from_raw(pid),
        exit_code,
    }))
}

/// What became of a child that somebody stopped or continued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Stopped,
    Continued,
}

/// The next child that stopped or went on since this was asked, if any.
pub fn changed_child() -> Option<(Pid, Change)> {
    // SAFETY: all-zero bytes are a valid siginfo_t, and stay when there is nothing to tell.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
    // SAFETY: the pointer is to a live value of the type that waitid(2) writes.
    Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &mut info, flags) }).ok()?;
    // SAFETY: waitid(2) fills this, or leaves it at zero.
    let pid = unsafe { info.si_pid() };
    let change = match info.si_code {
        libc::CLD_CONTINUED => Change::Continued,
        _ => Change::Stopped,
    };
    (pid != 0).then(|| (Pid::from_raw(pid), change))
}

/// Reaps a child that is known to be dead, with the kernel's account of it.
pub fn reap_with_usage(pid: Pid) -> nix::Result<Exit> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types that wait4(2) writes.
    let reaped = unsafe { libc::wait4(pid.as_raw(), &mut status, 0, &mut usage) };
    Errno::result(reaped)?;
    Ok(exit_of(
        status,
        max_rss_bytes(&usage),
        microseconds(usage.ru_utime),
        microseconds(usage.ru_stime),
    ))
}

/// From a status as of waitpid(2).
pub fn exit_of(
    status: libc::c_int,
    max_rss_bytes: u64,
    user_time_us: u64,
    system_time_us: u64,
) -> Exit {
    Exit {
        result: if libc::WIFSIGNALED(status) {
            Err(libc::WTERMSIG(status) as u8)
        } else {
            Ok(libc::WEXITSTATUS(status) as u8)
        },
        core_dumped: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
        max_rss_bytes,
        user_time_us,
        system_time_us,
    }
}

/// getrusage(2): kilobytes on Linux and the BSDs, bytes on macOS.
fn max_rss_bytes(usage: &libc::rusage) -> u64 {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    usage.ru_maxrss as u64 * unit
}

fn microseconds(time: libc::timeval) -> u64 {
    time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64
}

/// A process that `spawn` made.
pub struct Spawned {
    pub pid: Pid,
    /// Readable when it is dead, also when somebody who traces it keeps waitid(2) from seeing that. `None` where
    /// the system has no such thing, or no room for it.
    pub exit: Option<OwnedFd>,
}

/// Runs `child` in a new process that shares this one's memory until it calls `execve(2)` or exits,
/// while this one waits: vfork(2) with a stack of its own. Nothing is copied, whatever the size.
///
/// `namespaces`: the flags of clone(2) for those into which it is born.
///
/// # Safety
/// `child` must not allocate, lock, unwind or return; `argument` must be valid for it.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub unsafe fn spawn(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
    namespaces: libc::c_int,
) -> nix::Result<Spawned> {
    use std::os::fd::FromRawFd;
    let top = stack_top(&CHILD_STACK)?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces;
    let mut exit: RawFd = -1;
    let mut clone = |flags| {
        // SAFETY: nobody else is on the stack, which is there until this process ends; the child has left it
        // when clone(2) returns (CLONE_VFORK). The caller answers for the rest.
        Errno::result(unsafe { libc::clone(child, top, flags, argument, &raw mut exit) })
    };
    let pid = match clone(flags | libc::CLONE_PIDFD) {
        // No room for one more descriptor, or a kernel that does not know the flag.
        Err(Errno::EMFILE | Errno::ENFILE | Errno::EINVAL) => clone(flags)?,
        result => result?,
    };
    Ok(Spawned {
        pid: Pid::from_raw(pid),
        // SAFETY: the kernel made it just now, for this process. (Before Linux 5.2 it does not.)
        exit: (exit != -1).then(|| unsafe { OwnedFd::from_raw_fd(exit) }),
    })
}

/// In a process that `spawn` made: makes another one in the same way, which is the child of this one's parent. Its number is
/// written to `pid`. Returns when that has called `execve(2)` or exited.
///
/// # Safety
/// As above. `stack` is the second one, and nobody else is on it.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub unsafe fn spawn_sibling(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
    stack: *mut libc::c_void,
    pid: *mut libc::pid_t,
) -> nix::Result<()> {
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_PARENT
        | libc::CLONE_PARENT_SETTID
        | libc::SIGCHLD;
    // SAFETY: the caller answers for all of it.
    Errno::result(unsafe { libc::clone(child, stack, flags, argument, pid) }).map(drop)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub unsafe fn spawn_sibling(
    _child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    _argument: *mut libc::c_void,
    _stack: *mut libc::c_void,
    _pid: *mut libc::pid_t,
) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}

/// A stack for `spawn_sibling`.
pub fn second_stack() -> nix::Result<*mut libc::c_void> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    return stack_top(&SIBLING_STACK);
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    return Err(Errno::ENOSYS);
}

/// A stack for process 1 of a PID namespace.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn stack_of_process_1() -> nix::Result<*mut libc::c_void> {
    stack_top(&PROCESS_1_STACK)
}

/// Readable when a child is dead that was not reaped. `None` as in `Spawned`.
pub fn exit_of_child(pid: Pid) -> Option<OwnedFd> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    {
        use std::os::fd::FromRawFd;
        // SAFETY: pidfd_open(2) touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
        // SAFETY: it was made just now, close-on-exec, and is nobody else's.
        (fd != -1).then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    {
        let _ = pid;
        None
    }
}

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
type Stack = std::sync::atomic::AtomicPtr<libc::c_void>;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
static CHILD_STACK: Stack = Stack::new(std::ptr::null_mut());
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
static SIBLING_STACK: Stack = Stack::new(std::ptr::null_mut());
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
static PROCESS_1_STACK: Stack = Stack::new(std::ptr::null_mut());

/// The end of a stack on which a new process runs that shares the memory. A shepherd has one of each kind for its
/// life. Below it is a page that nobody may touch: running over the stack ends the new process and changes nothing.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn stack_top(known: &Stack) -> nix::Result<*mut libc::c_void> {
    use nix::sys::mman::{mmap_anonymous, mprotect, MapFlags, ProtFlags};
    use std::num::NonZeroUsize;
    use std::sync::atomic::Ordering::Relaxed;
    const SIZE: NonZeroUsize = NonZeroUsize::new(64 * 1024).unwrap();
    /// As large as a page is on any system.
    const GUARD: usize = 64 * 1024;

    let top = known.load(Relaxed);
    if !top.is_null() {
        return Ok(top);
    }
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_STACK | MapFlags::MAP_NORESERVE;
    let whole = SIZE.saturating_add(GUARD);
    // SAFETY: new memory, at an address that the kernel chooses; the top is its end, and a page's beginning.
    let top = unsafe {
        let bottom = mmap_anonymous(None, whole, access, flags)?;
        mprotect(bottom, GUARD, ProtFlags::PROT_NONE)?;
        bottom.byte_add(whole.get()).as_ptr()
    };
    known.store(top, Relaxed);
    Ok(top)
}

/// Elsewhere: a fork. What the child tells its parent must be in memory that both share (see
/// `Shared`), and a pipe that `execve(2)` closes tells when it is done.
///
/// # Safety
/// As above.
#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub unsafe fn spawn(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
    _namespaces: libc::c_int,
) -> nix::Result<Spawned> {
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let (started, starting) = nonblocking_pipe()?;
    // Above all numbers that the command can ask for, where the limit of descriptors allows it; and only there: as long as this
    // process has another one, the pipe does not end.
    let starting = copy_to_at_least(&starting, 256).unwrap_or(starting);
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
            Ok(Spawned {
                pid: child,
                exit: None,
            })
        }
    }
}

/// A value that a process made by `spawn` can write, and its parent read.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub struct Shared<T>(Box<T>);

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
impl<T> Shared<T> {
    pub fn new(value: T) -> nix::Result<Shared<T>> {
        Ok(Shared(Box::new(value)))
    }

    pub fn as_ptr(&mut self) -> *mut T {
        &mut *self.0
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub struct Shared<T>(std::ptr::NonNull<T>);

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
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

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
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

/// The processes that this one forks from now on do not have the shared flags, the first of which is this.
pub fn keep_from_forks(first: &'static AtomicBool) {
    // SAFETY: madvise(2) of the page that `shared_flags` has mapped.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::madvise(first.as_ptr().cast(), 1, libc::MADV_DONTFORK);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = first;
}

/// No program below this process gains rights by a set-user-ID bit (prctl(2), PR_SET_NO_NEW_PRIVS).
pub fn give_up_new_privileges() -> nix::Result<()> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    return nix::sys::prctl::set_no_new_privs();
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    return Err(Errno::ENOSYS);
}
