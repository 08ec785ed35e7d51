//! Starting the helper, and asking it for a shepherd.

use crate::atoms;
use crate::fd::Fd;
use crate::idle;
use crate::inherit;
use crate::system;
use crate::terminal::{self, Settings};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use rustler::{Atom, Decoder, Env, Error, ListIterator, NifResult, Term};
use std::ffi::{CStr, CString};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use wire::socket::{self, Begin, NO_SIGNAL};
use wire::{Leftovers, SpecWriter, Tag, LAUNCHER_FD, START};

/// Starts the helper program and returns the VM's end of its socket.
pub fn start_helper(path: &[u8]) -> nix::Result<(OwnedFd, Pid)> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let (ours, theirs) = socket::pair()?;
    let pid = spawn_helper(&path, theirs.as_fd())?;
    Ok((ours, pid))
}

const HELPER_ARGUMENTS: [&CStr; 2] = [c"net_runner_shepherd", c"launcher"];

#[cfg(not(any(target_os = "openbsd", net_runner_posix)))]
fn spawn_helper(path: &CStr, socket: BorrowedFd) -> nix::Result<Pid> {
    use nix::spawn::{posix_spawn, PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
    use nix::sys::signal::{SigSet, Signal};
    let mut actions = PosixSpawnFileActions::init()?;
    // The helper keeps nothing of the VM's: a reader of the VM's output must see its end.
    for target in 0..=2 {
        actions.add_open(target, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    actions.add_dup2(socket.as_raw_fd(), LAUNCHER_FD)?;
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
    let no_environment: [&CStr; 0] = [];
    posix_spawn(
        path,
        &actions,
        &attributes,
        &HELPER_ARGUMENTS,
        &no_environment,
    )
}

/// For OpenBSD nix has no posix_spawn(3). The signals are left to the helper, which sees to them before all else.
#[cfg(any(target_os = "openbsd", net_runner_posix))]
fn spawn_helper(path: &CStr, socket: BorrowedFd) -> nix::Result<Pid> {
    use std::{mem::MaybeUninit, ptr};
    let checked = |result: libc::c_int| match result {
        0 => Ok(()),
        errno => Err(Errno::from_raw(errno)),
    };
    let [name, role] = HELPER_ARGUMENTS.map(|argument| argument.as_ptr().cast_mut());
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
                socket.as_raw_fd(),
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

/// The VM's ends of a command's descriptors.
pub struct Ends {
    pub control: OwnedFd,
    pub stdio: [Option<OwnedFd>; 3],
}

/// Where one standard descriptor of a command leads, as Elixir says it.
enum Stdio<'a> {
    Pipe,
    Null,
    Redirect,
    Inherit,
    /// A descriptor of the VM, such as one end of a pipe to another command.
    Fd(&'a Fd),
    File(Tag, rustler::Binary<'a>),
    /// The terminal that `Terminal` opened.
    Terminal,
}

impl<'a> Decoder<'a> for Stdio<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok(kind) = term.decode::<Atom>() {
            let kinds = [
                (atoms::pipe(), Stdio::Pipe),
                (atoms::null(), Stdio::Null),
                (atoms::redirect(), Stdio::Redirect),
                (atoms::inherit(), Stdio::Inherit),
                (atoms::terminal(), Stdio::Terminal),
            ];
            let found = kinds.into_iter().find(|(name, _)| *name == kind);
            return found.map(|(_, kind)| kind).ok_or(Error::BadArg);
        }
        let (kind, value): (Atom, Term) = term.decode()?;
        let tag = if kind == atoms::fd() {
            return Ok(Stdio::Fd(value.decode()?));
        } else if kind == atoms::read() {
            Tag::ReadFile
        } else if kind == atoms::file() {
            Tag::WriteFile
        } else if kind == atoms::append() {
            Tag::AppendFile
        } else {
            return Err(Error::BadArg);
        };
        Ok(Stdio::File(tag, value.decode()?))
    }
}

/// How a command is connected: its three standard descriptors, and the terminal that they may be.
pub struct Connections<'a> {
    stdio: [Stdio<'a>; 3],
    terminal: Option<Settings>,
}

impl<'a> Decoder<'a> for Connections<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        if let Ok((kind, rows, columns, echo)) = term.decode::<(Atom, u16, u16, bool)>() {
            if kind != atoms::terminal() {
                return Err(Error::BadArg);
            }
            return Ok(Connections {
                stdio: [Stdio::Terminal, Stdio::Terminal, Stdio::Terminal],
                terminal: Some(Settings {
                    rows,
                    columns,
                    echo,
                }),
            });
        }
        let (stdin, stdout, stderr) = term.decode()?;
        Ok(Connections {
            stdio: [stdin, stdout, stderr],
            terminal: None,
        })
    }
}

impl Connections<'_> {
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }
}

/// Why a command could not be handed over.
pub enum Failure {
    /// What was to be taken from the VM, by its name in the error.
    Of(Atom, Errno),
    Other(Errno),
}

impl Failure {
    /// That a table is full is nobody's fault.
    fn of(name: Atom) -> impl Fn(Errno) -> Failure {
        move |errno| match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Failure::Other(errno),
            errno => Failure::Of(name, errno),
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure::Other(errno)
    }
}

/// Makes the pipes and hands the command over to a shepherd: an idle one, or another, from the launcher.
pub fn spawn(
    env: Env,
    launcher: BorrowedFd,
    cwd: OwnedFd,
    mut spec: SpecWriter,
    connections: &Connections,
) -> Result<Ends, Failure> {
    let mut passed = Vec::with_capacity(3);
    let stdio = match &connections.terminal {
        Some(settings) => connect_terminal(settings, &mut spec, &mut passed)?,
        None => {
            let mut ends = [None, None, None];
            for (number, stdio) in connections.stdio.iter().enumerate() {
                ends[number] = connect(env, number, stdio, &mut spec, &mut passed)?;
            }
            ends
        }
    };
    let begin = Begin::new(spec.finish(), cwd, passed);
    let control = hand_over(launcher, begin)?;
    Ok(Ends { control, stdio })
}

/// Gives the control socket of the shepherd that was asked.
fn hand_over(launcher: BorrowedFd, mut begin: Begin) -> nix::Result<OwnedFd> {
    while let Some(control) = idle::take() {
        match begin.send(control.as_fd()) {
            Ok(()) => return Ok(control),
            // Its shepherd died meanwhile, with its launcher or alone; or somebody stopped it (EAGAIN), and what it
            // was told last is still there.
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
    let (control, shepherds_control) = socket::pair()?;
    begin.send(control.as_fd())?;
    sendmsg::<()>(
        launcher.as_raw_fd(),
        &[IoSlice::new(&[START])],
        &[ControlMessage::ScmRights(&[shepherds_control.as_raw_fd()])],
        NO_SIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(control)
}

/// Writes where one standard descriptor leads, adds what the command gets to `passed`, and returns
/// what the VM keeps.
fn connect(
    env: Env,
    number: usize,
    stdio: &Stdio,
    spec: &mut SpecWriter,
    passed: &mut Vec<OwnedFd>,
) -> Result<Option<OwnedFd>, Failure> {
    let refused = Failure::of([atoms::stdin(), atoms::stdout(), atoms::stderr()][number]);
    match stdio {
        Stdio::Pipe => {
            let (read, write) = pipe()?;
            let (ours, theirs) = if number == 0 {
                (write, read)
            } else {
                (read, write)
            };
            set_nonblocking(ours.as_fd())?;
            passed.push(theirs);
            spec.flag(Tag::Passed);
            return Ok(Some(ours));
        }
        Stdio::Null => spec.flag(Tag::Null),
        Stdio::Redirect => spec.flag(Tag::Redirected),
        Stdio::File(tag, path) => spec.string(*tag, path).map_err(|_| Errno::EINVAL)?,
        Stdio::Inherit => {
            passed.push(inherit::open(number).map_err(&refused)?);
            spec.flag(Tag::Passed);
        }
        Stdio::Fd(fd) => {
            let inside = fd.enter(env).ok_or(refused(Errno::EBADF))?;
            passed.push(clone(inside.as_fd()).map_err(&refused)?);
            spec.flag(Tag::Passed);
        }
        Stdio::Terminal => return Err(refused(Errno::EINVAL)),
    }
    Ok(None)
}

/// The VM writes to one copy of the master and reads from another, so that each is selected for one thing.
fn connect_terminal(
    settings: &Settings,
    spec: &mut SpecWriter,
    passed: &mut Vec<OwnedFd>,
) -> nix::Result<[Option<OwnedFd>; 3]> {
    let (master, slave) = terminal::open(settings)?;
    for _ in 0..2 {
        passed.push(clone(slave.as_fd())?);
        spec.flag(Tag::Passed);
    }
    passed.push(slave);
    spec.flag(Tag::Passed);
    spec.flag(Tag::Terminal);
    let written = clone(master.as_fd())?;
    Ok([Some(written), Some(master), None])
}

pub fn clone(fd: BorrowedFd) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned()
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Writes the fields that Elixir gave: `{name, value}`, the value a binary, a number, or a list of
/// binaries.
pub fn write_spec(fields: ListIterator, size: usize) -> NifResult<SpecWriter> {
    let mut writer = SpecWriter::with_capacity(size);
    for field in fields {
        let (name, value): (Atom, Term) = field.decode()?;
        if name == atoms::file() {
            string(&mut writer, Tag::File, value)?;
        } else if name == atoms::search_path() {
            string(&mut writer, Tag::SearchPath, value)?;
        } else if name == atoms::args() {
            strings(&mut writer, Tag::Arg, value)?;
        } else if name == atoms::env() {
            strings(&mut writer, Tag::Env, value)?;
        } else if name == atoms::environment() {
            let block: rustler::Binary = value.decode()?;
            writer
                .strings(Tag::Environment, &block)
                .map_err(|_| Error::BadArg)?;
        } else if name == atoms::cd() {
            string(&mut writer, Tag::Cd, value)?;
        } else if name == atoms::cgroup() {
            string(&mut writer, Tag::Cgroup, value)?;
        } else if name == atoms::umask() {
            writer.number(Tag::Umask, value.decode()?);
        } else if name == atoms::nice() {
            writer.number(Tag::Nice, value.decode::<i64>()? as u64);
        } else if name == atoms::rlimit() {
            let (resource, soft, hard): (Term, u64, u64) = value.decode()?;
            // One that this system does not have.
            let unknown = || Error::Term(Box::new((atoms::rlimits(), atoms::einval())));
            let resource = system::resource(&resource.atom_to_string()?).ok_or_else(unknown)?;
            writer.numbers(Tag::Rlimit, &[resource, soft, hard]);
        } else if name == atoms::uid() {
            writer.number(Tag::Uid, value.decode()?);
        } else if name == atoms::gid() {
            writer.number(Tag::Gid, value.decode()?);
        } else if name == atoms::groups() {
            writer.numbers(Tag::Groups, &value.decode::<Vec<u64>>()?);
        } else if name == atoms::no_new_privs() {
            writer.flag(Tag::NoNewPrivs);
        } else if name == atoms::stop_signal() {
            writer.number(Tag::StopSignal, value.decode()?);
        } else if name == atoms::kill_timeout() {
            writer.number(Tag::KillTimeout, value.decode()?);
        } else if name == atoms::leftovers() {
            let leftovers = if value.decode::<Atom>()? == atoms::leave() {
                Leftovers::Leave
            } else {
                Leftovers::Kill
            };
            writer.number(Tag::Leftovers, leftovers.to_number());
        } else {
            return Err(Error::BadArg);
        }
    }
    Ok(writer)
}

fn string(writer: &mut SpecWriter, tag: Tag, value: Term) -> NifResult<()> {
    let value: rustler::Binary = value.decode()?;
    writer.string(tag, &value).map_err(|_| Error::BadArg)
}

fn strings(writer: &mut SpecWriter, tag: Tag, values: Term) -> NifResult<()> {
    for value in values.decode::<ListIterator>()? {
        string(writer, tag, value)?;
    }
    Ok(())
}

#[cfg(not(any(target_vendor = "apple", net_runner_posix)))]
pub fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

#[cfg(any(target_vendor = "apple", net_runner_posix))]
pub fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let pair = nix::unistd::pipe()?;
    set_cloexec(pair.0.as_fd())?;
    set_cloexec(pair.1.as_fd())?;
    Ok(pair)
}

#[cfg(any(target_vendor = "apple", net_runner_posix))]
fn set_cloexec(fd: BorrowedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map(drop)
}

fn set_nonblocking(fd: BorrowedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// The VM's working directory, as it is now, under whatever name. The file system that it is on may have to be asked,
/// and may not answer.
pub fn working_directory() -> Result<OwnedFd, Failure> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    let access = OFlag::O_PATH;
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    let access = OFlag::O_RDONLY;
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(c".", flags, Mode::empty()).map_err(Failure::of(atoms::cwd()))
}

/// The same, when the kernel has all that it takes; `None`: it has not, or cannot tell (before Linux 5.12).
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn working_directory_at_hand() -> Option<OwnedFd> {
    use rustix::fs::{openat2, Mode, OFlags, ResolveFlags, CWD};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, c".", flags, Mode::empty(), ResolveFlags::CACHED).ok()
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn working_directory_at_hand() -> Option<OwnedFd> {
    None
}
