//! Process 1 of a command's PID namespace: a copy of the process that makes the command. It does nothing but wait for the
//! end of the shepherd's pipe. When it is gone, the kernel has ended everything in the namespace (pid_namespaces(7)).

use nix::errno::Errno;
use std::os::fd::RawFd;

/// Makes it a child of the shepherd, in the namespace that this process has made for its children. `pid` is in memory that the
/// shepherd sees. In the new process this does not return.
///
/// No allocation, no lock, no formatting.
pub fn start(lifeline: RawFd, pid: *mut libc::pid_t) -> nix::Result<()> {
    let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
    // SAFETY: a fork by the system call, which writes the number to memory that lives. The child makes system calls alone.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, pid, 0, 0) };
    if Errno::result(made)? == 0 {
        run(lifeline)
    }
    Ok(())
}

fn run(lifeline: RawFd) -> ! {
    // SAFETY: system calls on numbers and a struct of this process, which is a copy and nobody else's. What fails
    // here changes nothing: the shepherd ends this process by SIGKILL, too.
    unsafe {
        // By its session, the helpers above the shepherd know that it is not one of them.
        libc::setsid();
        // The kernel reaps the processes that it adopts.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        libc::chdir(c"/".as_ptr());
        if lifeline > 0 {
            libc::syscall(libc::SYS_close_range, 0, lifeline - 1, 0);
        }
        libc::syscall(libc::SYS_close_range, lifeline + 1, libc::c_uint::MAX, 0);
        let mut end = libc::pollfd {
            fd: lifeline,
            events: libc::POLLIN,
            revents: 0,
        };
        // Interrupted by nothing: every signal is blocked.
        while libc::poll(&mut end, 1, -1) != 1 {}
        libc::_exit(0)
    }
}
