//! Handing a command to a shepherd: the VM's part of a start.

use crate::atoms;
use crate::fd::Fd;
use crate::idle;
use crate::inherit;
use crate::pipe;
use crate::system;
use crate::terminal::{self, Settings};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{sendmsg, ControlMessage, MsgFlags};
use nix::sys::stat::{fchmod, Mode};
use nix::unistd::{fchown, Uid};
use rustler::{Atom, Decoder, Env, Error, ListIterator, NifResult, Term};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use wire::socket::{self, Begin, NO_SIGNAL};
use wire::{Confinement, Leftovers, Network, Sandbox, SpecWriter, Tag, NEW_SHEPHERD};

/// What the VM keeps of a command: its ends of the control socket and of the pipes.
pub struct VmSide {
    pub control: OwnedFd,
    /// What the shepherd has put on itself.
    pub confinement: Option<Confinement>,
    pub stdio: [Option<OwnedFd>; 3],
    /// By their numbers in the command.
    pub further: Vec<(u8, OwnedFd)>,
}

/// Where one standard descriptor of a command leads, as the Elixir side says.
enum Stdio<'a> {
    Pipe,
    Null,
    Redirect,
    Inherit,
    /// A descriptor of the VM, such as one end of a pipe to another command.
    Fd(&'a Fd),
    File(Tag, rustler::Binary<'a>),
    /// The terminal of `Connections`.
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

/// Where a further descriptor leads, as Elixir says it.
enum Further<'a> {
    /// A pipe that the command reads.
    Input,
    /// One that it writes.
    Output,
    File(Tag, rustler::Binary<'a>),
}

impl<'a> Decoder<'a> for Further<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        match term.decode::<Atom>() {
            Ok(kind) if kind == atoms::input() => Ok(Further::Input),
            Ok(kind) if kind == atoms::output() => Ok(Further::Output),
            Ok(_) => Err(Error::BadArg),
            Err(_) => match term.decode::<Stdio<'a>>()? {
                Stdio::File(tag, path) => Ok(Further::File(tag, path)),
                _ => Err(Error::BadArg),
            },
        }
    }
}

/// How a command is connected: its three standard descriptors, the terminal if they are one, and further ones.
pub struct Connections<'a> {
    stdio: [Stdio<'a>; 3],
    terminal: Option<Settings>,
    further: Vec<(u8, Further<'a>)>,
}

impl<'a> Decoder<'a> for Connections<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (standard, further): (Term, Vec<(u8, Further)>) = term.decode()?;
        let (stdio, terminal) = decode_standard(standard)?;
        Ok(Connections {
            stdio,
            terminal,
            further,
        })
    }
}

fn decode_standard(term: Term) -> NifResult<([Stdio; 3], Option<Settings>)> {
    if let Ok((kind, rows, columns, echo)) = term.decode::<(Atom, u16, u16, bool)>() {
        if kind != atoms::terminal() {
            return Err(Error::BadArg);
        }
        let settings = Settings {
            rows,
            columns,
            echo,
        };
        let stdio = [Stdio::Terminal, Stdio::Terminal, Stdio::Terminal];
        return Ok((stdio, Some(settings)));
    }
    let (stdin, stdout, stderr) = term.decode()?;
    Ok(([stdin, stdout, stderr], None))
}

impl Connections<'_> {
    pub fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Whether something may be inherited that takes any time to copy, or to close.
    pub fn may_wait(&self) -> bool {
        let mut inherited = (0..)
            .zip(&self.stdio)
            .filter(|(_, stdio)| matches!(stdio, Stdio::Inherit));
        inherited.any(|(number, _)| inherit::may_wait(number))
    }
}

/// Why a command could not be submitted.
pub enum Failure {
    /// What was to be taken from the VM, by its name in the error.
    Of(Atom, Errno),
    Other(Errno),
}

impl Failure {
    /// A full table, or no memory, is not the fault of what was to be taken.
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

/// Makes the pipes, and sends the command to a shepherd: an idle one or, where there is none, a new one of the launcher's.
pub fn submit(
    env: Env,
    launcher: BorrowedFd,
    cwd: OwnedFd,
    (mut spec, user): (SpecWriter, Option<Uid>),
    connections: &Connections,
) -> Result<VmSide, Failure> {
    let mut passed = Passed {
        fds: Vec::with_capacity(3 + connections.further.len()),
        user,
    };
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
    let mut further = Vec::with_capacity(connections.further.len());
    for (number, kind) in &connections.further {
        let end = connect_further(*number, kind, &mut spec, &mut passed)?;
        further.extend(end.map(|end| (*number, end)));
    }
    let spec = spec.finish();
    let confinement = Confinement::of(&spec);
    let control = send(launcher, Begin::new(spec, cwd, passed.fds), confinement)?;
    Ok(VmSide {
        control,
        confinement,
        stdio,
        further,
    })
}

/// What the command gets, in the order of the spec.
struct Passed {
    fds: Vec<OwnedFd>,
    /// Whom the command runs as, if that is said.
    user: Option<Uid>,
}

impl Passed {
    /// A pipe that the VM has made. The command's user can open it by name (/dev/stdout, /dev/fd/3), also where another user has the
    /// other end. Nobody else gets at that name: it leads through /proc/PID/fd, which only who may trace the process can use (proc(5)).
    fn push_pipe(&mut self, fd: OwnedFd, spec: &mut SpecWriter) {
        if self.user.is_some() {
            let _ = fchmod(&fd, Mode::from_bits_truncate(0o666));
        }
        self.push(fd, spec);
    }

    /// A terminal that the VM has made. It has a name for all, and belongs to the command's user, if the VM may give it away.
    fn push_terminal(&mut self, fd: OwnedFd, spec: &mut SpecWriter) {
        if self.user.is_some() {
            let _ = fchown(&fd, self.user, None);
        }
        self.push(fd, spec);
    }

    fn push(&mut self, fd: OwnedFd, spec: &mut SpecWriter) {
        self.fds.push(fd);
        spec.flag(Tag::Passed);
    }
}

/// Sends `Begin`, and gives the control socket of the shepherd that gets it.
fn send(
    launcher: BorrowedFd,
    mut begin: Begin,
    confinement: Option<Confinement>,
) -> nix::Result<OwnedFd> {
    while let Some(control) = idle::take(confinement) {
        match begin.send(control.as_fd()) {
            Ok(()) => return Ok(control),
            // Race: dead idle shepherd. EAGAIN: somebody stopped it, and its socket is full of what it has not read.
            Err(Errno::EPIPE | Errno::ECONNRESET | Errno::EAGAIN) => {}
            Err(errno) => return Err(errno),
        }
    }
    let (control, shepherds_control) = socket::pair()?;
    // Race: unread begin. It is there before anybody could have missed it.
    begin.send(control.as_fd())?;
    sendmsg::<()>(
        launcher.as_raw_fd(),
        &[IoSlice::new(&[NEW_SHEPHERD])],
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
    passed: &mut Passed,
) -> Result<Option<OwnedFd>, Failure> {
    let refused = Failure::of([atoms::stdin(), atoms::stdout(), atoms::stderr()][number]);
    match stdio {
        Stdio::Pipe => return connect_pipe(number == 0, spec, passed).map(Some),
        Stdio::Null => spec.flag(Tag::Null),
        Stdio::Redirect => spec.flag(Tag::Redirected),
        Stdio::File(tag, path) => spec.string(*tag, path).map_err(|_| Errno::EINVAL)?,
        Stdio::Inherit => {
            passed.push(inherit::open(number).map_err(&refused)?, spec);
        }
        Stdio::Fd(fd) => {
            let inside = fd.enter(env).ok_or(refused(Errno::EBADF))?;
            passed.push_pipe(pipe::duplicate(inside.as_fd()).map_err(&refused)?, spec);
        }
        Stdio::Terminal => return Err(refused(Errno::EINVAL)),
    }
    Ok(None)
}

/// A pipe that the command reads, or one that it writes.
fn connect_pipe(
    input: bool,
    spec: &mut SpecWriter,
    passed: &mut Passed,
) -> Result<OwnedFd, Failure> {
    let (read, write) = pipe::new()?;
    let (ours, theirs) = if input { (write, read) } else { (read, write) };
    pipe::set_nonblocking(ours.as_fd())?;
    passed.push_pipe(theirs, spec);
    Ok(ours)
}

/// As `connect`, for a descriptor that is no standard one.
fn connect_further(
    number: u8,
    kind: &Further,
    spec: &mut SpecWriter,
    passed: &mut Passed,
) -> Result<Option<OwnedFd>, Failure> {
    spec.number(Tag::Fd, number.into());
    match kind {
        Further::Input => connect_pipe(true, spec, passed).map(Some),
        Further::Output => connect_pipe(false, spec, passed).map(Some),
        Further::File(tag, path) => {
            spec.string(*tag, path).map_err(|_| Errno::EINVAL)?;
            Ok(None)
        }
    }
}

/// The VM writes to one copy of the master and reads from another, so that each is selected for one event only.
fn connect_terminal(
    settings: &Settings,
    spec: &mut SpecWriter,
    passed: &mut Passed,
) -> Result<[Option<OwnedFd>; 3], Failure> {
    let (master, slave) = terminal::open(settings).map_err(Failure::of(atoms::pty()))?;
    for _ in 0..2 {
        passed.push_terminal(pipe::duplicate(slave.as_fd())?, spec);
    }
    passed.push_terminal(slave, spec);
    spec.flag(Tag::Terminal);
    let written = pipe::duplicate(master.as_fd())?;
    Ok([Some(written), Some(master), None])
}

/// Writes the fields that the Elixir side gave, each `{name, value}`; see `NetRunner.System.Native.field/0`.
pub fn write_spec(fields: ListIterator, size: usize) -> NifResult<(SpecWriter, Option<Uid>)> {
    let mut writer = SpecWriter::with_capacity(size);
    let mut user = None;
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
        } else if name == atoms::joined_cgroup() {
            string(&mut writer, Tag::JoinedCgroup, value)?;
        } else if name == atoms::umask() {
            writer.number(Tag::Umask, value.decode()?);
        } else if name == atoms::nice() {
            writer.number(Tag::Nice, value.decode::<i64>()? as u64);
        } else if name == atoms::rlimit() {
            let (resource, soft, hard): (Term, u64, u64) = value.decode()?;
            // A resource that this system does not have.
            let unknown = || Error::Term(Box::new((atoms::rlimits(), atoms::einval())));
            let resource = system::resource(&resource.atom_to_string()?).ok_or_else(unknown)?;
            writer.numbers(Tag::Rlimit, &[resource, soft, hard]);
        } else if name == atoms::uid() {
            let uid: u32 = value.decode()?;
            user = Some(Uid::from_raw(uid));
            writer.number(Tag::Uid, uid.into());
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
        } else if name == atoms::sandbox() {
            let (layers, network): (Vec<Atom>, Atom) = value.decode()?;
            let numbers = [self::layers(&layers)?, self::network(network)?.to_number()];
            writer.numbers(Tag::Sandbox, &numbers);
        } else if name == atoms::readable() {
            strings(&mut writer, Tag::Readable, value)?;
        } else if name == atoms::writable() {
            strings(&mut writer, Tag::Writable, value)?;
        } else if name == atoms::executable() {
            strings(&mut writer, Tag::Executable, value)?;
        } else if name == atoms::readable_if_there() {
            strings(&mut writer, Tag::ReadableIfThere, value)?;
        } else if name == atoms::executable_if_there() {
            strings(&mut writer, Tag::ExecutableIfThere, value)?;
        } else if name == atoms::connect() {
            writer.numbers(Tag::Connect, &value.decode::<Vec<u64>>()?);
        } else if name == atoms::bind() {
            writer.numbers(Tag::Bind, &value.decode::<Vec<u64>>()?);
        } else if name == atoms::own_processes() {
            writer.flag(Tag::OwnProcesses);
        } else if name == atoms::private_tmp() {
            let (size, executable): (u64, bool) = value.decode()?;
            writer.numbers(Tag::PrivateTmp, &[size, executable.into()]);
        } else if name == atoms::locked_metadata() {
            writer.flag(Tag::LockedMetadata);
        } else {
            return Err(Error::BadArg);
        }
    }
    Ok((writer, user))
}

fn layers(names: &[Atom]) -> NifResult<u64> {
    names.iter().try_fold(0, |layers, name| {
        let layer = match *name {
            name if name == atoms::filesystem() => Sandbox::FILESYSTEM,
            name if name == atoms::signals() => Sandbox::SIGNALS,
            name if name == atoms::system_calls() => Sandbox::SYSTEM_CALLS,
            name if name == atoms::capabilities() => Sandbox::CAPABILITIES,
            _ => return Err(Error::BadArg),
        };
        Ok(layers | layer)
    })
}

fn network(name: Atom) -> NifResult<Network> {
    let networks = [
        (atoms::none(), Network::None),
        (atoms::unix(), Network::Unix),
        (atoms::loopback(), Network::Loopback),
        (atoms::ports(), Network::Ports),
        (atoms::all(), Network::All),
    ];
    let found = networks.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, network)| network).ok_or(Error::BadArg)
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

/// The VM's current working directory. Its file system may have to be asked, and may never answer.
pub fn working_directory() -> Result<OwnedFd, Failure> {
    #[cfg(all(target_os = "linux", not(net_runner_posix)))]
    let access = OFlag::O_PATH;
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    let access = OFlag::O_RDONLY;
    let flags = access | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(c".", flags, Mode::empty()).map_err(Failure::of(atoms::cwd()))
}

/// The same, without asking a file system: `None` if the kernel does not have it in its cache, or cannot tell (before
/// Linux 5.12).
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
