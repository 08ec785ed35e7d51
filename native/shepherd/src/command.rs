//! Starting the command: everything is prepared before the process is made, and between that and
//! `execve(2)` only system calls happen.

use crate::{signals, sys};
use nix::errno::Errno;
use nix::unistd::{getpid, Pid};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use wire::{Spec, Stdio, Step};

/// Why a command did not start.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    pub step: Step,
    pub errno: Errno,
}

/// What the new process needs, as the system calls want it.
struct Plan {
    shepherd: Pid,
    cwd: RawFd,
    cd: *const libc::c_char,
    /// The descriptors that become 0, 1 and 2; `None` keeps the helper's own, `/dev/null`.
    stdio: [Option<RawFd>; 3],
    /// The paths to try, in order.
    candidates: Vec<*const libc::c_char>,
    /// For a script without `#!`: `/bin/sh`, the candidate, and the arguments after `argv[0]`.
    shell_args: Vec<*const libc::c_char>,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// Written by the new process when it fails.
    failure: Option<Failure>,
}

const SHELL: &CStr = c"/bin/sh";

/// Starts the command of `spec`. `cwd` is the VM's working directory; `passed` are the
/// descriptors for its stdio, in the order of their use.
pub fn start(spec: &Spec, cwd: &OwnedFd, passed: &[OwnedFd]) -> Result<Pid, Failure> {
    let candidates = candidates(spec.file, spec.search_path);
    let mut shell_args = vec![SHELL.as_ptr(), ptr::null()];
    shell_args.extend(pointers(spec.args.get(1..).unwrap_or_default()));
    let mut plan = Plan {
        shepherd: getpid(),
        cwd: cwd.as_raw_fd(),
        cd: spec.cd.map_or(ptr::null(), CStr::as_ptr),
        stdio: stdio(spec, passed)?,
        candidates: candidates.iter().map(|path| path.as_ptr()).collect(),
        shell_args,
        args: pointers(&spec.args),
        env: pointers(&spec.env),
        failure: None,
    };
    // SAFETY: `become_command` makes system calls only and does not return; `plan` and all that
    // it points to outlive the wait for `execve(2)`.
    let pid = unsafe { sys::spawn(become_command, ptr::from_mut(&mut plan).cast()) }.map_err(
        |errno| Failure {
            step: Step::Fork,
            errno,
        },
    )?;
    // SAFETY: the new process has gone its own way; it wrote through the pointer given above.
    match unsafe { ptr::read_volatile(&plan.failure) } {
        None => Ok(pid),
        Some(failure) => {
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(failure)
        }
    }
}

/// The pointers that `execve(2)` takes, with the null at their end.
fn pointers(strings: &[&CStr]) -> Vec<*const libc::c_char> {
    let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
    pointers.push(ptr::null());
    pointers
}

/// As execvp(3): a name without a slash is looked for in every directory of the search path,
/// an empty one of which is the working directory.
fn candidates(file: &CStr, search_path: Option<&CStr>) -> Vec<CString> {
    let file = file.to_bytes();
    let in_directory = |directory: &[u8]| {
        let mut path = directory.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(file);
        // Both parts came from NUL-terminated strings.
        CString::new(path).unwrap_or_default()
    };
    match search_path {
        Some(directories) if !file.contains(&b'/') => directories
            .to_bytes()
            .split(|byte| *byte == b':')
            .map(in_directory)
            .collect(),
        _ => vec![in_directory(b"")],
    }
}

fn stdio(spec: &Spec, passed: &[OwnedFd]) -> Result<[Option<RawFd>; 3], Failure> {
    let missing = Failure {
        step: Step::Receive,
        errno: Errno::EPROTO,
    };
    let mut passed = passed.iter();
    let mut next = || passed.next().map(|fd| fd.as_raw_fd()).ok_or(missing);
    let stdin = match spec.stdin {
        Stdio::Passed => Some(next()?),
        Stdio::Null | Stdio::Stdout => None,
    };
    let stdout = match spec.stdout {
        Stdio::Passed => Some(next()?),
        Stdio::Null | Stdio::Stdout => None,
    };
    let stderr = match spec.stderr {
        Stdio::Passed => Some(next()?),
        Stdio::Stdout => stdout,
        Stdio::Null => None,
    };
    Ok([stdin, stdout, stderr])
}

extern "C" fn become_command(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a live plan and does not touch it until this process is gone from it.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    plan.failure = Some(set_up_and_exec(plan));
    // SAFETY: leaves at once, without running anything that belongs to the shepherd.
    unsafe { libc::_exit(127) }
}

/// Returns only when something failed. No allocation, no lock, no formatting from here on.
fn set_up_and_exec(plan: &mut Plan) -> Failure {
    let at = |step| move |errno| Failure { step, errno };
    let result = nix::unistd::setsid().map_err(at(Step::Setup));
    if let Err(failure) = result {
        return failure;
    }
    // Before setsid(2) this process counts as a helper and nobody would end it. If the shepherd
    // died meanwhile, it ends itself; if it dies later, whoever adopts it sees a stranger.
    if nix::unistd::getppid() != plan.shepherd {
        return at(Step::Setup)(Errno::ESRCH);
    }
    for (target, source) in plan.stdio.iter().enumerate() {
        if let Some(source) = source {
            // SAFETY: dup2(2) on numbers that this process owns; the copy is not close-on-exec.
            if unsafe { libc::dup2(*source, target as RawFd) } == -1 {
                return at(Step::Setup)(Errno::last());
            }
        }
    }
    // SAFETY: `cwd` is open; it is the VM's working directory.
    if unsafe { libc::fchdir(plan.cwd) } == -1 {
        return at(Step::Cd)(Errno::last());
    }
    // SAFETY: `cd` is a NUL-terminated string of the spec.
    if !plan.cd.is_null() && unsafe { libc::chdir(plan.cd) } == -1 {
        return at(Step::Cd)(Errno::last());
    }
    if let Err(errno) = signals::unblock_all() {
        return at(Step::Setup)(errno);
    }
    at(Step::Exec)(exec(plan))
}

/// As execvp(3): goes on to the next candidate when one is not there, remembers that one was
/// there but not allowed, and gives a script without `#!` to the shell.
fn exec(plan: &mut Plan) -> Errno {
    let mut denied = false;
    for &candidate in &plan.candidates {
        // SAFETY: null-terminated arrays of NUL-terminated strings, alive until the exec.
        unsafe { libc::execve(candidate, plan.args.as_ptr(), plan.env.as_ptr()) };
        match Errno::last() {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => denied = true,
            Errno::ENOEXEC => {
                plan.shell_args[1] = candidate;
                // SAFETY: as above.
                unsafe {
                    libc::execve(SHELL.as_ptr(), plan.shell_args.as_ptr(), plan.env.as_ptr())
                };
                return Errno::last();
            }
            errno => return errno,
        }
    }
    if denied {
        Errno::EACCES
    } else {
        Errno::ENOENT
    }
}
