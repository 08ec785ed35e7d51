//! The guard: parent of the launcher.
//!
//! It sees whether the system has what the guarantees rest on. Then it waits for its children and does nothing
//! else. When a launcher is killed, its shepherds become children of the guard and go on; when a shepherd is killed
//! too, so do the processes of its command, and the guard ends those. It exits when no child is left.

use crate::children;
use crate::watch::{Watch, LONGEST_STOP};
use crate::{launcher, signals, socket, sys};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::{fork, getpid, setsid, ForkResult};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;
use wire::CANNOT;

/// A call that this system refuses: a kernel that is too old, or a filter of system calls (seccomp(2)).
struct Refused {
    call: &'static str,
    errno: Errno,
}

pub fn run(socket: OwnedFd) -> ExitCode {
    let guard = getpid();
    match become_guard() {
        Ok(ForkResult::Child) => launcher::run(socket, guard),
        Ok(ForkResult::Parent { child: launcher }) => {
            drop(socket);
            // Nobody above it would continue it. It goes without where the system refuses (RLIMIT_SIGPENDING).
            let _ = signals::continue_in_each(LONGEST_STOP);
            Watch::default().attend_until_childless(|dead| {
                if dead.pid == launcher {
                    // What it knew of those that somebody stopped is gone with it.
                    children::continue_helpers();
                }
                dead.exit_code == Some(0)
            })
        }
        Err(Refused { call, errno }) => {
            let sentence = format!("{CANNOT}{call} failed: {}", errno.desc());
            // When the VM is gone, nobody needs to know.
            let _ = socket::send_bytes(socket.as_fd(), sentence.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Becomes the guard, and forks the launcher.
fn become_guard() -> Result<ForkResult, Refused> {
    let refused = |call| move |errno| Refused { call, errno };
    // The VM made this process with posix_spawn(3), so it leads no process group and setsid works.
    setsid().map_err(refused("setsid"))?;
    signals::take_over().map_err(refused("rt_sigaction or rt_sigprocmask"))?;
    sys::become_subreaper().map_err(refused("prctl(PR_SET_CHILD_SUBREAPER)"))?;
    // A guard that somebody stopped goes on when the VM is dead, at once, and lets the other helpers go on.
    sys::signal_at_parents_death(Some(Signal::SIGCONT))
        .map_err(refused("prctl(PR_SET_PDEATHSIG)"))?;
    match sys::dead_child(None) {
        Ok(_) | Err(Errno::ECHILD) => {}
        Err(errno) => return Err(refused("waitid")(errno)),
    }
    nix::unistd::getsid(None).map_err(refused("getsid"))?;
    signals::wait([], Some(Duration::ZERO)).map_err(refused("pselect6"))?;
    sys::become_opaque();
    children::has_proc();
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    unsafe { fork() }.map_err(refused("fork"))
}
