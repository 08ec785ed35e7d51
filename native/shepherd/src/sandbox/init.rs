//! Process 1 of a command's PID namespace. It does nothing but wait for the end of the shepherd's pipe. When it is gone, the
//! kernel has ended everything in the namespace (pid_namespaces(7)).
//!
//! It shares the shepherd's memory, as to copy that takes longer than all else that it does. So it uses nothing but its stack, and makes
//! only calls that do not fail: a failure would be written to the shepherd's `errno`. Where the command could do something to the shepherd
//! through it, it is a copy.

use crate::failure::{at, Failure};
use crate::sys;
use nix::errno::Errno;
use nix::sys::stat::stat;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use wire::{Access, Step};

pub struct Process1 {
    /// It lives until the other end is closed.
    lifeline: OwnedFd,
    /// Where it shares the memory.
    stack: Option<*mut libc::c_void>,
}

impl Process1 {
    pub fn prepare(lifeline: OwnedFd, sandbox: &wire::Sandbox) -> Result<Process1, Failure> {
        let stack = if cannot_be_touched(sandbox) && knows_close_range() {
            Some(sys::stack_of_process_1().map_err(at(Step::Fork))?)
        } else {
            None
        };
        Ok(Process1 { lifeline, stack })
    }

    /// Makes it a child of the shepherd, in the namespace that this process has made for its children. `pid` is in memory that
    /// the shepherd sees.
    ///
    /// No allocation, no lock, no formatting.
    pub fn start(&self, pid: *mut libc::pid_t) -> nix::Result<()> {
        let flags = libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
        let lifeline = self.lifeline.as_raw_fd();
        let made = match self.stack {
            // SAFETY: the process makes system calls alone; nobody else is on the stack, because a shepherd starts no other command
            // before this process was reaped. The kernel writes the number to memory that lives.
            Some(stack) => unsafe {
                let argument = ptr::without_provenance_mut(lifeline as usize);
                libc::clone(run, stack, flags | libc::CLONE_VM, argument, pid).into()
            },
            None => {
                // SAFETY: a fork by the system call, which writes the number. The child makes system calls alone.
                let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, pid, 0, 0) };
                if made == 0 {
                    wait_and_exit(lifeline)
                }
                made
            }
        };
        Errno::result(made).map(drop)
    }
}

/// Whether the command can do nothing to process 1. As the shepherd is not dumpable, its memory is open only to who has CAP_SYS_PTRACE
/// outside of the namespace (ptrace(2)), and its files in /proc belong to root (proc(5)). One of them is `oom_score_adj`, which is the same
/// for all processes that share memory.
fn cannot_be_touched(sandbox: &wire::Sandbox) -> bool {
    sandbox.capabilities && sandbox.filesystem && !may_write_in_proc(sandbox)
}

/// No path leads into the /proc of the namespace, which is mounted later, but that of /proc itself and those that lead everywhere.
fn may_write_in_proc(sandbox: &wire::Sandbox) -> bool {
    let identity = |path| stat(path).map(|it| (it.st_dev, it.st_ino));
    let (Ok(root), Ok(proc)) = (identity(c"/"), identity(c"/proc")) else {
        return true;
    };
    let mut writable = sandbox
        .paths
        .iter()
        .filter(|allowed| allowed.access == Access::Write);
    writable.any(|allowed| identity(allowed.path).is_ok_and(|it| it == root || it == proc))
}

/// Linux 5.9, where no filter of system calls refuses it.
fn knows_close_range() -> bool {
    let none = libc::c_uint::MAX;
    // SAFETY: no descriptor has this number.
    unsafe { libc::syscall(libc::SYS_close_range, none, none, 0) == 0 }
}

extern "C" fn run(lifeline: *mut libc::c_void) -> libc::c_int {
    wait_and_exit(lifeline.addr() as RawFd)
}

fn wait_and_exit(lifeline: RawFd) -> ! {
    // SAFETY: system calls on numbers and a struct of this process. What fails here changes nothing: the shepherd ends this process
    // by SIGKILL, too.
    unsafe {
        // By its session, the helpers above the shepherd know that it is not one of them.
        libc::setsid();
        // The kernel reaps the processes that it adopts.
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{AllowedPath, Network};

    /// Landlock would keep a command with capabilities from its memory, too. That is not to be relied upon alone.
    #[test]
    fn memory_is_shared_only_if_the_command_has_neither_capabilities_nor_a_way_into_proc() {
        let sandbox = |capabilities, filesystem, path| wire::Sandbox {
            filesystem,
            signals: true,
            system_calls: true,
            capabilities,
            network: Network::None,
            paths: vec![AllowedPath {
                path,
                access: Access::Write,
                required: true,
            }],
            connect: Vec::new(),
            bind: Vec::new(),
            own_processes: true,
            private_tmp: None,
            locked_metadata: false,
        };
        assert!(cannot_be_touched(&sandbox(true, true, c"/tmp")));
        assert!(!cannot_be_touched(&sandbox(false, true, c"/tmp")));
        assert!(!cannot_be_touched(&sandbox(true, false, c"/tmp")));
        assert!(!cannot_be_touched(&sandbox(true, true, c"/usr/..")));
    }
}
