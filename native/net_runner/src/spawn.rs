//! Starting the helper, and asking it for a shepherd.

use crate::atoms;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::spawn::{posix_spawn, PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{
    send, sendmsg, socketpair, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType,
};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use rustler::{Atom, Error, ListIterator, NifResult, Term};
use std::ffi::{CStr, CString};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use wire::{Leftovers, Request, SpecWriter, Stdio, Tag, LAUNCHER_FD, MAX_FDS, START};

/// Message boundaries and an end of file; macOS has only streams, which serve: all frames have
/// a fixed size, and descriptors keep requests apart.
#[cfg(not(target_os = "macos"))]
const SOCKET_TYPE: SockType = SockType::SeqPacket;
#[cfg(target_os = "macos")]
const SOCKET_TYPE: SockType = SockType::Stream;

/// Starts the helper program and returns the VM's end of its socket.
pub fn start_helper(path: &[u8]) -> nix::Result<(OwnedFd, Pid)> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    let (ours, theirs) = socket_pair()?;
    let mut actions = PosixSpawnFileActions::init()?;
    // The helper keeps nothing of the VM's: a reader of the VM's output must see its end.
    for target in 0..=2 {
        actions.add_open(target, c"/dev/null", OFlag::O_RDWR, Mode::empty())?;
    }
    actions.add_dup2(theirs.as_raw_fd(), LAUNCHER_FD)?;
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
    let arguments: [&CStr; 2] = [c"net_runner_shepherd", c"launcher"];
    let pid = posix_spawn(
        path.as_c_str(),
        &actions,
        &attributes,
        &arguments,
        &[] as &[&CStr],
    )?;
    Ok((ours, pid))
}

/// The VM's ends of a command's descriptors.
pub struct Ends {
    pub control: OwnedFd,
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// Makes the pipes and the control socket and hands the command over to the launcher.
pub fn spawn(
    launcher: BorrowedFd,
    mut spec: SpecWriter,
    stdio: (Atom, Atom, Atom),
) -> nix::Result<Ends> {
    let (control, shepherds_control) = socket_pair()?;
    let mut passed = Vec::with_capacity(3);
    let stdin = connect(0, stdio.0, Tag::Stdin, &mut spec, &mut passed)?;
    let stdout = connect(1, stdio.1, Tag::Stdout, &mut spec, &mut passed)?;
    let stderr = connect(2, stdio.2, Tag::Stderr, &mut spec, &mut passed)?;
    let cwd = working_directory()?;
    let spec = file_of(&spec.finish())?;
    let mut fds: Vec<RawFd> = Vec::with_capacity(MAX_FDS);
    fds.extend([&shepherds_control, &spec, &cwd].map(|fd| fd.as_raw_fd()));
    fds.extend(passed.iter().map(|fd| fd.as_raw_fd()));
    let begin = Request::Begin.encode();
    send(control.as_raw_fd(), &begin, MsgFlags::MSG_NOSIGNAL)?;
    request(launcher, &fds)?;
    Ok(Ends {
        control,
        stdin,
        stdout,
        stderr,
    })
}

fn request(launcher: BorrowedFd, fds: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(
        launcher.as_raw_fd(),
        &[IoSlice::new(&[START])],
        &[ControlMessage::ScmRights(fds)],
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )
    .map(drop)
}

/// Writes where one standard descriptor leads, adds what the command gets to `passed`, and returns
/// what the VM keeps.
fn connect(
    number: RawFd,
    kind: Atom,
    tag: Tag,
    spec: &mut SpecWriter,
    passed: &mut Vec<OwnedFd>,
) -> nix::Result<Option<OwnedFd>> {
    let (leads_to, ours) = if kind == atoms::pipe() {
        let (read, write) = pipe()?;
        let (ours, theirs) = if number == 0 {
            (write, read)
        } else {
            (read, write)
        };
        set_nonblocking(ours.as_fd())?;
        passed.push(theirs);
        (Stdio::Passed, Some(ours))
    } else if kind == atoms::redirect() {
        (Stdio::Stdout, None)
    } else if kind == atoms::null() {
        (Stdio::Null, None)
    } else {
        return Err(Errno::EINVAL);
    };
    spec.number(tag, leads_to.to_number());
    Ok(ours)
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
        } else if name == atoms::cd() {
            string(&mut writer, Tag::Cd, value)?;
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

#[cfg(target_os = "linux")]
fn socket_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SOCKET_TYPE,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

#[cfg(not(target_os = "linux"))]
fn socket_pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::Unix, SOCKET_TYPE, None, SockFlag::empty())?;
    set_cloexec(pair.0.as_fd())?;
    set_cloexec(pair.1.as_fd())?;
    Ok(pair)
}

#[cfg(not(target_os = "macos"))]
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

#[cfg(target_os = "macos")]
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let pair = nix::unistd::pipe()?;
    set_cloexec(pair.0.as_fd())?;
    set_cloexec(pair.1.as_fd())?;
    Ok(pair)
}

#[cfg(not(target_os = "linux"))]
fn set_cloexec(fd: BorrowedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).map(drop)
}

fn set_nonblocking(fd: BorrowedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// The VM's working directory, as it is now, under whatever name.
fn working_directory() -> nix::Result<OwnedFd> {
    #[cfg(target_os = "linux")]
    let access = OFlag::O_PATH;
    #[cfg(not(target_os = "linux"))]
    let access = OFlag::O_RDONLY;
    nix::fcntl::open(
        c".",
        access | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
}

/// A file without a name that holds the bytes, to be read from its start.
#[cfg(target_os = "linux")]
fn file_of(bytes: &[u8]) -> nix::Result<OwnedFd> {
    use nix::sys::memfd::{memfd_create, MFdFlags};
    let fd = memfd_create(c"net_runner_spec", MFdFlags::MFD_CLOEXEC)?;
    write_from_start(fd.as_fd(), bytes)?;
    Ok(fd)
}

#[cfg(not(target_os = "linux"))]
fn file_of(bytes: &[u8]) -> nix::Result<OwnedFd> {
    let template = std::env::temp_dir().join("net_runner_spec_XXXXXX");
    let (fd, path) = nix::unistd::mkstemp(&template)?;
    nix::unistd::unlink(&path)?;
    set_cloexec(fd.as_fd())?;
    write_from_start(fd.as_fd(), bytes)?;
    Ok(fd)
}

/// The offset, which the shepherd shares, stays at the start.
fn write_from_start(fd: BorrowedFd, bytes: &[u8]) -> nix::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        written += nix::sys::uio::pwrite(fd, &bytes[written..], written as libc::off_t)?;
    }
    Ok(())
}
