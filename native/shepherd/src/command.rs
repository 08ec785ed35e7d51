//! Starting the command: everything is prepared before the process is made, and between that and
//! `execve(2)` only system calls happen.

use crate::failure::{at, Failure};
use crate::sandbox::Sandbox;
use crate::sys::Spawned;
use crate::{cgroup, children, signals, sys};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use nix::unistd::{getpid, getppid, Pid};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::slice::Iter;
use wire::{Leftovers, Part, Rlimit, Spec, Stdio, Step};

/// What the new process needs, as the system calls want it.
struct Plan<'a> {
    shepherd: Pid,
    cwd: RawFd,
    /// What becomes of 0, 1 and 2.
    stdio: [Source; 3],
    /// And of further numbers.
    fds: Vec<(RawFd, Source)>,
    /// The paths to try, in order.
    candidates: Vec<*const libc::c_char>,
    /// For a script without `#!`: `/bin/sh`, the candidate, and the arguments after `argv[0]`.
    shell_args: Vec<*const libc::c_char>,
    args: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// Where the process joins its cgroup.
    members: Option<CString>,
    sandbox: Option<Sandbox>,
    spec: &'a Spec<'a>,
    /// Where a process between this one and the command runs the command's.
    stack: *mut libc::c_void,
    report: *mut Report,
}

/// What the new processes write for the shepherd.
struct Report {
    /// Why the command did not start.
    failure: Option<Failure>,
    /// The command and process 1 of its PID namespace, where a process in between has made them.
    command: libc::pid_t,
    init: libc::pid_t,
}

/// A command that has started.
pub struct Started {
    pub pid: Pid,
    /// Readable when it is dead; see `Spawned`.
    pub exit: Option<OwnedFd>,
    /// Of its PID namespace, where it has one of its own.
    pub init: Option<Init>,
}

/// Process 1 of the command's PID namespace, a child of the shepherd.
pub struct Init {
    pub pid: Pid,
    /// It ends when this is closed.
    _lifeline: OwnedFd,
}

#[derive(Clone, Copy)]
enum Source {
    /// The helper's own, `/dev/null`.
    Null,
    Fd(RawFd),
    Stdout,
    File {
        path: *const libc::c_char,
        flags: libc::c_int,
    },
}

const SHELL: &CStr = c"/bin/sh";

/// Starts the command of `spec`. `cwd` is the VM's working directory; `passed` are the
/// descriptors that it gets, in the order of their use: those for its stdio first.
pub fn start(spec: &Spec, cwd: &OwnedFd, passed: &[OwnedFd]) -> Result<Started, Failure> {
    let candidates = candidates(spec.file, spec.search_path);
    let mut shell_args = vec![SHELL.as_ptr(), ptr::null()];
    shell_args.extend(pointers(spec.args.get(1..).unwrap_or_default()));
    let mut passed = passed.iter();
    let stdio = stdio_sources(spec, &mut passed)?;
    let lowest = lowest_out_of_the_way(spec);
    let moved = out_of_the_way(lowest, passed)?;
    let mut fds = further_sources(spec, &moved)?;
    fds.sort_unstable_by_key(|(number, _)| *number);
    let terminal = terminal(spec, &stdio[0]);
    let (sandbox, lifeline) = Sandbox::prepare(spec, cwd.as_fd(), terminal, lowest)?
        .map_or((None, None), |(sandbox, lifeline)| {
            (Some(sandbox), lifeline)
        });
    let mut report = sys::Shared::new(Report {
        failure: None,
        command: 0,
        init: 0,
    })
    .map_err(at(Step::Fork))?;
    let mut plan = Plan {
        shepherd: getpid(),
        cwd: cwd.as_raw_fd(),
        stdio,
        fds,
        candidates: candidates.iter().map(|path| path.as_ptr()).collect(),
        shell_args,
        args: pointers(&spec.args),
        env: pointers(&spec.env),
        members: spec.cgroup.or(spec.joined_cgroup).map(cgroup::members),
        sandbox,
        spec,
        stack: ptr::null_mut(),
        report: report.as_ptr(),
    };
    let flags = plan.sandbox.as_ref().map_or(0, Sandbox::flags);
    let first = if plan.has_own_processes() {
        plan.stack = sys::second_stack().map_err(at(Step::Fork))?;
        make_command
    } else {
        become_command
    };
    // SAFETY: both make system calls only and do not return; `plan` and all that it points to outlive the wait for
    // `execve(2)`.
    let spawned = unsafe { sys::spawn(first, ptr::from_mut(&mut plan).cast(), flags) }
        .map_err(|errno| not_made(errno, flags))?;
    // SAFETY: the new processes have gone their own way; they wrote through this pointer.
    let report = unsafe { ptr::read_volatile(report.as_ptr()) };
    if let Some(lifeline) = lifeline {
        return started_by(spawned, report, lifeline);
    }
    match report.failure {
        None => Ok(Started {
            pid: spawned.pid,
            exit: spawned.exit,
            init: None,
        }),
        Some(failure) => {
            let _ = waitpid(spawned.pid, None);
            Err(failure)
        }
    }
}

/// `namespaces`: those into which it would have been born.
fn not_made(errno: Errno, namespaces: libc::c_int) -> Failure {
    match errno {
        Errno::EAGAIN | Errno::ENOMEM => at(Step::Fork)(errno),
        _ if namespaces == 0 => at(Step::Fork)(errno),
        _ => at(Step::Sandbox(Part::User))(errno),
    }
}

/// The process in between has made the command, or has failed.
fn started_by(between: Spawned, report: Report, lifeline: OwnedFd) -> Result<Started, Failure> {
    let ended = waitpid(between.pid, None);
    let failure = match ended {
        Ok(WaitStatus::Exited(_, 0)) => report.failure,
        // Race: killed in between.
        _ => report.failure.or(Some(at(Step::Fork)(Errno::EINTR))),
    };
    let Some(failure) = failure else {
        let pid = Pid::from_raw(report.command);
        return Ok(Started {
            pid,
            exit: sys::exit_of_child(pid),
            init: Some(Init {
                pid: Pid::from_raw(report.init),
                _lifeline: lifeline,
            }),
        });
    };
    // Process 1 ends when all others of its namespace are reaped.
    for pid in [report.command, report.init] {
        if pid > 0 {
            children::kill(Pid::from_raw(pid));
            let _ = waitpid(Pid::from_raw(pid), None);
        }
    }
    Err(failure)
}

/// The terminal that the command gets.
fn terminal(spec: &Spec, stdin: &Source) -> Option<RawFd> {
    match stdin {
        Source::Fd(terminal) if spec.terminal => Some(*terminal),
        _ => None,
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

fn stdio_sources(spec: &Spec, passed: &mut Iter<OwnedFd>) -> Result<[Source; 3], Failure> {
    let mut sources = [Source::Null; 3];
    for (source, stdio) in sources.iter_mut().zip(&spec.stdio) {
        *source = self::source(stdio, passed)?;
    }
    Ok(sources)
}

/// Above all numbers of further descriptors. What is needed later must not lie on one that the command is to get, and be
/// closed before it is used.
fn lowest_out_of_the_way(spec: &Spec) -> RawFd {
    let last = spec.fds.iter().map(|(number, _)| *number).max();
    last.map_or(0, |number| RawFd::from(number) + 1)
}

/// What was passed for the further descriptors.
fn out_of_the_way(lowest: RawFd, passed: Iter<OwnedFd>) -> Result<Vec<OwnedFd>, Failure> {
    passed
        .map(|fd| sys::copy_to_at_least(fd, lowest).map_err(at(Step::Receive)))
        .collect()
}

fn further_sources(spec: &Spec, passed: &[OwnedFd]) -> Result<Vec<(RawFd, Source)>, Failure> {
    let mut passed = passed.iter();
    spec.fds
        .iter()
        .map(|(number, stdio)| Ok((RawFd::from(*number), source(stdio, &mut passed)?)))
        .collect()
}

fn source(stdio: &Stdio, passed: &mut Iter<OwnedFd>) -> Result<Source, Failure> {
    let missing = at(Step::Receive)(Errno::EPROTO);
    let file = |path: &CStr, flags| Source::File {
        path: path.as_ptr(),
        flags,
    };
    Ok(match *stdio {
        Stdio::Null => Source::Null,
        Stdio::Passed => Source::Fd(passed.next().ok_or(missing)?.as_raw_fd()),
        Stdio::Redirected => Source::Stdout,
        Stdio::Read(path) => file(path, libc::O_RDONLY),
        Stdio::Write(path) => file(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
        Stdio::Append(path) => file(path, libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND),
    })
}

extern "C" fn become_command(plan: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `start` passes a live plan and does not touch it until this process is gone from it.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    let failure = match set_up(plan) {
        Ok(()) => at(Step::Exec)(exec(plan)),
        Err(failure) => failure,
    };
    give_up(plan, failure)
}

/// A command with a PID namespace is made by this process: it leaves its own processes for those of the new namespace,
/// where the first that it makes is process 1, and the second the command. Both are children of the shepherd.
extern "C" fn make_command(plan: *mut libc::c_void) -> libc::c_int {
    let argument = plan;
    // SAFETY: as above.
    let plan = unsafe { &mut *plan.cast::<Plan>() };
    match make_processes(plan, argument) {
        // SAFETY: as in `give_up`.
        Ok(()) => unsafe { libc::_exit(0) },
        Err(failure) => give_up(plan, failure),
    }
}

fn give_up(plan: &Plan, failure: Failure) -> ! {
    // SAFETY: `start` reads it when this process has ended.
    unsafe { (*plan.report).failure = Some(failure) };
    // SAFETY: leaves at once, without running anything that belongs to the shepherd.
    unsafe { libc::_exit(127) }
}

/// As `set_up`.
fn make_processes(plan: &Plan, argument: *mut libc::c_void) -> Result<(), Failure> {
    // The processes that it makes must not look like helpers.
    nix::unistd::setsid().map_err(at(Step::Setup))?;
    has_shepherd(plan)?;
    let Some(sandbox) = &plan.sandbox else {
        return Ok(());
    };
    sandbox.map_user()?;
    // SAFETY: `report` lives as long as the plan.
    let (init, command) = unsafe {
        (
            &raw mut (*plan.report).init,
            &raw mut (*plan.report).command,
        )
    };
    sandbox.start_init(init)?;
    // SAFETY: as in `start`; the second stack is nobody else's.
    unsafe { sys::spawn_sibling(become_command, argument, plan.stack, command) }
        .map_err(at(Step::Fork))
}

/// No allocation, no lock, no formatting from here on: the memory is the shepherd's.
fn set_up(plan: &Plan) -> Result<(), Failure> {
    let spec = plan.spec;
    nix::unistd::setsid().map_err(at(Step::Setup))?;
    if !plan.has_own_processes() {
        // Race: before setsid.
        has_shepherd(plan)?;
        if let Some(sandbox) = &plan.sandbox {
            sandbox.map_user()?;
        }
    }
    if let Some(members) = &plan.members {
        join(members).map_err(at(Step::Cgroup))?;
    }
    if let Some(umask) = spec.umask {
        // SAFETY: umask(2) cannot fail.
        unsafe { libc::umask(umask as libc::mode_t) };
    }
    // The names of files, too, start at the VM's working directory.
    // SAFETY: `cwd` is open.
    done(unsafe { libc::fchdir(plan.cwd) }).map_err(at(Step::Cwd))?;
    for (target, step) in [(0, Step::Stdin), (1, Step::Stdout), (2, Step::Stderr)] {
        connect(plan.stdio[target], target as RawFd).map_err(at(step))?;
    }
    for (target, source) in &plan.fds {
        connect(*source, *target).map_err(at(Step::Fd(*target as u8)))?;
    }
    if spec.terminal {
        // SAFETY: tty_ioctl(4); this process leads a session without a terminal.
        done(unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) }).map_err(at(Step::Setup))?;
    }
    if let Some(sandbox) = &plan.sandbox {
        sandbox.enter_namespaces()?;
    }
    if let Some(cd) = spec.cd {
        // SAFETY: a NUL-terminated string of the spec.
        done(unsafe { libc::chdir(cd.as_ptr()) }).map_err(at(Step::Cd))?;
    }
    if let Some(nice) = spec.nice {
        // SAFETY: setpriority(2) on this process.
        done(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map_err(at(Step::Nice))?;
    }
    for limit in &spec.rlimits {
        set_limit(limit).map_err(at(Step::Rlimits))?;
    }
    if let Some(sandbox) = &plan.sandbox {
        sandbox.limit_capabilities();
    }
    change_user(spec)?;
    if let Some(sandbox) = &plan.sandbox {
        sandbox.give_up_capabilities()?;
    }
    if spec.no_new_privs || plan.sandbox.is_some() {
        sys::give_up_new_privileges().map_err(at(Step::NoNewPrivs))?;
    }
    if spec.leftovers == Leftovers::Kill {
        // The last line of defence, for when all helpers are killed at once. Race: signal taken back.
        // Race: parent died first.
        let _ = sys::signal_at_parents_death(Some(Signal::SIGKILL));
        if !plan.has_own_processes() {
            has_shepherd(plan)?;
        }
    }
    signals::unblock_all().map_err(at(Step::Setup))?;
    if let Some(sandbox) = &plan.sandbox {
        sandbox.enforce(plan.fds.iter().map(|(number, _)| *number))?;
    }
    Ok(())
}

impl Plan<'_> {
    /// Then its parent has no number there, and process 1 ends it with the shepherd.
    fn has_own_processes(&self) -> bool {
        self.sandbox
            .as_ref()
            .is_some_and(Sandbox::has_own_processes)
    }
}

fn has_shepherd(plan: &Plan) -> Result<(), Failure> {
    if getppid() == plan.shepherd {
        Ok(())
    } else {
        Err(at(Step::Setup)(Errno::ESRCH))
    }
}

fn done(result: libc::c_int) -> nix::Result<()> {
    Errno::result(result).map(drop)
}

/// "0" is the process that writes (cgroups(7)).
fn join(members: &CStr) -> nix::Result<()> {
    // SAFETY: open(2), write(2) and close(2), with a string and a buffer that live.
    unsafe {
        let fd = Errno::result(libc::open(
            members.as_ptr(),
            libc::O_WRONLY | libc::O_CLOEXEC,
        ))?;
        let written = Errno::result(libc::write(fd, c"0".as_ptr().cast(), 1));
        libc::close(fd);
        written.map(drop)
    }
}

/// The descriptor that results is not close-on-exec.
fn connect(source: Source, target: RawFd) -> nix::Result<()> {
    match source {
        Source::Null => Ok(()),
        // SAFETY: dup2(2) on numbers that this process owns.
        Source::Fd(fd) => done(unsafe { libc::dup2(fd, target) }),
        // SAFETY: as above.
        Source::Stdout => done(unsafe { libc::dup2(1, target) }),
        Source::File { path, flags } => {
            // Opened without waiting: a FIFO that nobody has at its other end would hold the
            // start for ever. Then it is as a shell would have opened it.
            let birth = libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
            // SAFETY: the path is a NUL-terminated string of the spec; the numbers are ours.
            unsafe {
                let fd = opened(path, flags | birth)?;
                done(libc::fcntl(fd, libc::F_SETFL, flags & libc::O_APPEND))?;
                if fd == target {
                    // The lowest free number, which may be the one. A copy onto itself stays close-on-exec.
                    return done(libc::fcntl(fd, libc::F_SETFD, 0));
                }
                done(libc::dup2(fd, target))
            }
        }
    }
}

/// Waits, as open(2) does without O_NONBLOCK, for another process that has a lease on the file to give it up, or for the
/// kernel to take it away (fcntl(2), "Leases").
///
/// # Safety
/// The path is a NUL-terminated string.
unsafe fn opened(path: *const libc::c_char, flags: libc::c_int) -> nix::Result<RawFd> {
    const PAUSE: libc::timespec = libc::timespec {
        tv_sec: 0,
        tv_nsec: 10_000_000,
    };
    /// A minute. The kernel gives a holder 45 s (/proc/sys/fs/lease-break-time).
    const MOST_PAUSES: usize = 6_000;
    let mut pauses = 0;
    loop {
        // SAFETY: the caller promises a string.
        match Errno::result(unsafe { libc::open(path, flags, 0o666) }) {
            // SAFETY: as above.
            Err(Errno::EAGAIN) if pauses < MOST_PAUSES && unsafe { is_regular(path) } => {
                // SAFETY: nanosleep(2) reads the struct.
                unsafe { libc::nanosleep(&PAUSE, std::ptr::null_mut()) };
                pauses += 1;
            }
            result => return result,
        }
    }
}

/// # Safety
/// The path is a NUL-terminated string.
unsafe fn is_regular(path: *const libc::c_char) -> bool {
    // SAFETY: stat(2) writes the struct, which is valid with any bits; the caller promises a string.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        libc::stat(path, &mut status) == 0 && status.st_mode & libc::S_IFMT == libc::S_IFREG
    }
}

fn set_limit(limit: &Rlimit) -> nix::Result<()> {
    let value = |number| match number {
        u64::MAX => libc::RLIM_INFINITY,
        number => number as libc::rlim_t,
    };
    let limits = libc::rlimit {
        rlim_cur: value(limit.soft),
        rlim_max: value(limit.hard),
    };
    // SAFETY: setrlimit(2) reads the struct.
    done(unsafe { libc::setrlimit(limit.resource as _, &limits) })
}

/// The groups first: without the user's rights they could not be changed any more.
fn change_user(spec: &Spec) -> Result<(), Failure> {
    if let Some(groups) = &spec.groups {
        // SAFETY: setgroups(2) reads as many IDs as there are.
        done(unsafe { libc::setgroups(groups.len() as _, groups.as_ptr()) })
            .map_err(at(Step::Groups))?;
    }
    if let Some(gid) = spec.gid {
        // SAFETY: setgid(2) touches no memory; there is one thread, so glibc's broadcast of the
        // change to others has nobody to reach.
        done(unsafe { libc::setgid(gid) }).map_err(at(Step::Group))?;
    }
    if let Some(uid) = spec.uid {
        // SAFETY: as above.
        done(unsafe { libc::setuid(uid) }).map_err(at(Step::User))?;
    }
    Ok(())
}

/// Why a candidate is not there, if so. Half as dear as an execve(2) that does not find it.
fn absence(path: *const libc::c_char) -> Option<Errno> {
    // SAFETY: a NUL-terminated string.
    let found = unsafe { libc::access(path, libc::F_OK) } == 0;
    (!found)
        .then(Errno::last)
        .filter(|errno| is_passed_over(*errno))
}

/// After which errors the search goes on. As execvp(3): no such file, or a directory whose file system does not answer any
/// more. And as sh(1): a path that is too long (ENAMETOOLONG), in which no program can be.
fn is_passed_over(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::ESTALE
            | Errno::ENODEV
            | Errno::ETIMEDOUT
            | Errno::ENAMETOOLONG
    )
}

/// As execvp(3): goes on to the next candidate when one is not there, remembers that one was
/// there but not allowed, and gives a script without `#!` to the shell.
fn exec(plan: &mut Plan) -> Errno {
    let search = plan.candidates.len() > 1;
    let mut failure = Errno::ENOENT;
    for at in 0..plan.candidates.len() {
        let candidate = plan.candidates[at];
        let absent = if search { absence(candidate) } else { None };
        let errno = absent.unwrap_or_else(|| {
            // SAFETY: null-terminated arrays of NUL-terminated strings, alive until the exec.
            unsafe { libc::execve(candidate, plan.args.as_ptr(), plan.env.as_ptr()) };
            Errno::last()
        });
        match errno {
            Errno::ENOEXEC => return exec_script(plan, candidate),
            Errno::EACCES => failure = errno,
            Errno::ENOENT | Errno::ENOTDIR if search => {}
            // Said only when the program is nowhere else, either.
            errno if search && is_passed_over(errno) => {
                if failure == Errno::ENOENT {
                    failure = errno;
                }
            }
            errno => return errno,
        }
    }
    failure
}

/// Gives a file that the kernel does not know how to run to the shell, if it can be a script.
fn exec_script(plan: &mut Plan, file: *const libc::c_char) -> Errno {
    match is_text(file) {
        Ok(true) => {
            plan.shell_args[1] = file;
            // SAFETY: as in `exec`.
            unsafe { libc::execve(SHELL.as_ptr(), plan.shell_args.as_ptr(), plan.env.as_ptr()) };
            Errno::last()
        }
        Ok(false) => Errno::ENOEXEC,
        Err(errno) => errno,
    }
}

/// As bash does: no text has a NUL in its first line. A program for another machine is none, either, whatever
/// stands in it: a shell would run some of that.
fn is_text(file: *const libc::c_char) -> nix::Result<bool> {
    const ELF: &[u8] = b"\x7fELF";
    let mut head = [0; 128];
    // SAFETY: open(2), read(2) and close(2), with a string and a buffer that live.
    let length = unsafe {
        let fd = Errno::result(libc::open(file, libc::O_RDONLY | libc::O_CLOEXEC))?;
        let length = Errno::result(libc::read(fd, head.as_mut_ptr().cast(), head.len()));
        libc::close(fd);
        length?
    };
    let head = head.get(..length as usize).unwrap_or_default();
    let mut line = head.iter().take_while(|byte| **byte != b'\n');
    Ok(!head.starts_with(ELF) && !line.any(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_directory_of_the_search_path_is_passed_over_and_so_is_one_that_is_too_long() {
        for errno in [
            Errno::ESTALE,
            Errno::ENODEV,
            Errno::ETIMEDOUT,
            Errno::ENAMETOOLONG,
        ] {
            assert!(is_passed_over(errno));
        }
        for errno in [Errno::EACCES, Errno::ENOEXEC, Errno::E2BIG, Errno::ELOOP] {
            assert!(!is_passed_over(errno));
        }
    }
}
