//! Signals in the helpers: everything is blocked, and SIGCHLD is let in only while one waits (in the guard SIGCONT, too).

use nix::errno::Errno;
use nix::sys::select::{pselect, FdSet};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::sys::time::TimeSpec;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
use nix::time::ClockId;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Interrupts a wait, and does nothing else. `execve(2)` resets it to the default.
extern "C" fn wake(_signal: libc::c_int) {}

/// Makes every signal's disposition the default, blocks every signal, and gives SIGCHLD a handler
/// that only wakes. The commands inherit the defaults: nothing that the VM ignores leaks to them.
pub fn take_over() -> nix::Result<()> {
    default_dispositions();
    block_all()?;
    // Also for children that stop: those above the shepherds look after a helper that somebody stopped.
    let waking = SigAction::new(SigHandler::Handler(wake), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(Signal::SIGCHLD, &waking) }?;
    Ok(())
}

/// Whether SIGCONT is let in as well, while one waits.
static CONTINUES_ITSELF: AtomicBool = AtomicBool::new(false);

/// From now on the kernel sends this process a SIGCONT in each period, whatever state it is in: a process that is stopped goes
/// on (timer_create(2), signal(7)). The timer is the process's own, and no fork has it. Its signal must be taken, or
/// else there is no other one.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn continue_in_each(period: Duration) -> nix::Result<()> {
    use nix::sys::signal::{SigEvent, SigevNotify};
    use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
    let signal = Signal::SIGCONT;
    let si_value = 0;
    let notify = SigevNotify::SigevSignal { signal, si_value };
    let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
    let period = Expiration::Interval(TimeSpec::from_duration(period));
    timer.set(period, TimerSetTimeFlags::empty())?;
    // To drop it would delete it.
    std::mem::forget(timer);
    let waking = SigAction::new(SigHandler::Handler(wake), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing, so it is async-signal-safe.
    unsafe { sigaction(signal, &waking) }?;
    CONTINUES_ITSELF.store(true, Ordering::Relaxed);
    Ok(())
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn continue_in_each(_period: Duration) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}

/// The size of the kernel's signal set.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
const SET_SIZE: usize = 8;

/// By the system call: the C library refuses to touch the signals that it keeps for itself, which an
/// ancestor of the VM may have ignored.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn default_dispositions() {
    /// At least as large as the kernel's struct on any architecture; all zero is SIG_DFL.
    const DEFAULT: [u64; 8] = [0; 8];
    for number in 1..=64 {
        // SAFETY: reads the struct; SIGKILL and SIGSTOP are refused.
        unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, &DEFAULT, old, SET_SIZE);
        }
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn default_dispositions() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator() {
        // SAFETY: the default disposition runs no code of ours.
        let _ = unsafe { sigaction(signal, &default) };
    }
}

/// Every signal. The C library leaves out those that it keeps for itself (32 and 33 in glibc), and
/// `kill -33` would end a helper.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn every_signal() -> SigSet {
    // SAFETY: a signal set is an array of bits, valid whatever they are.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        std::ptr::write_bytes(&mut set, 0xff, 1);
        SigSet::from_sigset_t_unchecked(set)
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn every_signal() -> SigSet {
    SigSet::all()
}

/// By the system call, for the same reason.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn block_all() -> nix::Result<()> {
    let every = every_signal();
    let set: *const libc::sigset_t = every.as_ref();
    let old = std::ptr::null_mut::<libc::sigset_t>();
    // SAFETY: reads as many bytes of the set as the kernel's have, which are fewer than there are.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            set,
            old,
            SET_SIZE,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn block_all() -> nix::Result<()> {
    every_signal().thread_set_mask()
}

/// Lets every signal in: a command starts with an empty mask.
pub fn unblock_all() -> nix::Result<()> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Whether somebody has signalled this process: what is blocked stays pending (signal(7)), as does the SIGCONT for one that was
/// stopped.
pub fn was_signalled() -> bool {
    const LAST: libc::c_int = 64;
    // SAFETY: a signal set is an array of bits, valid whatever they are; sigpending(2) writes it, sigismember(3) reads it.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending);
        (1..=LAST).any(|number| number != libc::SIGCHLD && libc::sigismember(&pending, number) == 1)
    }
}

/// Waits until a descriptor is readable, for so long at the most; whether it is. Nothing else ends the wait.
pub fn is_readable_within(fd: BorrowedFd, longest: Duration) -> bool {
    let mut set = FdSet::new();
    set.insert(fd);
    let longest = TimeSpec::from_duration(longest);
    pselect(None, &mut set, None, None, &longest, &every_signal()) != Ok(0)
}

/// Waits until a descriptor is readable, a child or the parent changed, or the time is over. Gives the descriptors that are
/// readable; the caller finds out what else happened. Race: lost wake-up.
pub fn wait<'fd>(
    readable: impl IntoIterator<Item = BorrowedFd<'fd>>,
    timeout: Option<Duration>,
) -> nix::Result<FdSet<'fd>> {
    let mut blocked = every_signal();
    blocked.remove(Signal::SIGCHLD);
    if CONTINUES_ITSELF.load(Ordering::Relaxed) {
        blocked.remove(Signal::SIGCONT);
    }
    let mut set = FdSet::new();
    for fd in readable {
        set.insert(fd);
    }
    let timeout = timeout.map(TimeSpec::from_duration);
    match pselect(None, &mut set, None, None, &timeout, &blocked) {
        Ok(_) => Ok(set),
        Err(Errno::EINTR) => Ok(FdSet::new()),
        Err(errno) => Err(errno),
    }
}
