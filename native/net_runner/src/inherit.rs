//! The VM's own stdin, stdout or stderr, for a command that inherits it.
//!
//! Commands expect descriptors that block. Whether a descriptor blocks is a property of the open file (`O_NONBLOCK`,
//! fcntl(2)), which all processes that have it share; and the VM makes its terminal non-blocking. So a terminal, or a pipe
//! that does not block, is opened again for the command: then the VM and the command do not change it for each other. A
//! descriptor that does not block and cannot be opened again is refused: the command would lose output, or would take
//! "nothing yet" for an error.

use crate::errno::from_rustix;
use crate::pipe;
use nix::errno::Errno;
use nix::fcntl::{fcntl, open as open_path, FcntlArg, OFlag};
use nix::sys::stat::{fstat, Mode, SFlag};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

fn standard(number: usize) -> BorrowedFd<'static> {
    match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    }
}

/// Whether it is a file: the file system is told when a copy of it is closed (on NFS, or one that a program has made), and may
/// never answer.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub fn may_wait(number: usize) -> bool {
    use rustix::fs::{statx, AtFlags, FileType, StatxFlags};
    // Without asking the file system.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(found) = statx(standard(number), c"", flags, StatxFlags::TYPE) else {
        return true;
    };
    !matches!(
        FileType::from_raw_mode(found.stx_mode.into()),
        FileType::Fifo | FileType::Socket | FileType::CharacterDevice
    )
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub fn may_wait(_number: usize) -> bool {
    true
}

/// For `number` 0, 1 or 2.
pub fn open(number: usize) -> nix::Result<OwnedFd> {
    let fd = standard(number);
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let blocks = !flags.contains(OFlag::O_NONBLOCK);
    let terminal = rustix::termios::isatty(fd);
    if !terminal && (blocks || !is_kind(fd, &[SFlag::S_IFIFO, SFlag::S_IFSOCK])) {
        // A file or a device such as /dev/null blocks in any case; a file also has an offset, which is to be shared.
        return pipe::duplicate(fd);
    }
    match open_again(fd, number, flags & OFlag::O_ACCMODE, terminal) {
        Err(_) if blocks => pipe::duplicate(fd),
        opened => opened,
    }
}

fn is_kind(fd: BorrowedFd, kinds: &[SFlag]) -> bool {
    let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    kind.is_ok_and(|kind| kinds.contains(&kind))
}

fn open_again(
    fd: BorrowedFd,
    number: usize,
    access: OFlag,
    terminal: bool,
) -> nix::Result<OwnedFd> {
    if is_kind(fd, &[SFlag::S_IFSOCK]) {
        return Err(Errno::EOPNOTSUPP);
    }
    // O_NONBLOCK: do not wait for a serial line's carrier, or for somebody to open the other end of a pipe.
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let link = format!("/proc/self/fd/{number}");
    let opened = open_path(link.as_str(), flags, Mode::empty()).or_else(|errno| {
        if !terminal {
            return Err(errno);
        }
        // There is no /proc; or the terminal belongs to another user (after su(1)), and may be used but not opened.
        by_name(fd, flags).or_else(|_| controlling(fd, flags))
    })?;
    fcntl(opened.as_fd(), FcntlArg::F_SETFL(access))?;
    Ok(opened)
}

fn by_name(terminal: BorrowedFd, flags: OFlag) -> nix::Result<OwnedFd> {
    let name = nix::unistd::ttyname(terminal)?;
    let opened = open_path(&name, flags, Mode::empty())?;
    same(terminal, opened)
}

fn controlling(terminal: BorrowedFd, flags: OFlag) -> nix::Result<OwnedFd> {
    // Fails if it is not the controlling terminal of this session, which /dev/tty is.
    rustix::termios::tcgetsid(terminal).map_err(from_rustix)?;
    open_path(c"/dev/tty", flags, Mode::empty())
}

/// In another mount namespace, the name may be that of another terminal.
fn same(terminal: BorrowedFd, opened: OwnedFd) -> nix::Result<OwnedFd> {
    if fstat(terminal)?.st_rdev == fstat(&opened)?.st_rdev {
        Ok(opened)
    } else {
        Err(Errno::ENXIO)
    }
}
