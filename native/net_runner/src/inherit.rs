//! The VM's own stdin, stdout or stderr for a command.
//!
//! A command expects a descriptor that blocks. Whether one does is a property of the open file, which all who have it share
//! (`O_NONBLOCK`, fcntl(2)), and the VM sets its terminal to "does not block". So a terminal, and a pipe that does
//! not block, is opened anew for the command: what one of both sets then does not reach the other. What cannot be opened
//! anew and does not block is refused: the command would lose output, or take "nothing yet" for an error.

use crate::spawn;
use nix::errno::Errno;
use nix::fcntl::{fcntl, open as open_path, FcntlArg, OFlag};
use nix::sys::stat::{fstat, Mode, SFlag};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// For `number` 0, 1 or 2.
pub fn open(number: usize) -> nix::Result<OwnedFd> {
    let fd = match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    };
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    let blocks = !flags.contains(OFlag::O_NONBLOCK);
    let terminal = rustix::termios::isatty(fd);
    if !terminal && (blocks || !is_kind(fd, &[SFlag::S_IFIFO, SFlag::S_IFSOCK])) {
        // A file or a device such as /dev/null blocks in any case; a file also has an offset, which is to be shared.
        return spawn::clone(fd);
    }
    match open_anew(fd, number, flags & OFlag::O_ACCMODE, terminal) {
        Err(_) if blocks => spawn::clone(fd),
        opened => opened,
    }
}

fn is_kind(fd: BorrowedFd, kinds: &[SFlag]) -> bool {
    let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    kind.is_ok_and(|kind| kinds.contains(&kind))
}

fn open_anew(fd: BorrowedFd, number: usize, access: OFlag, terminal: bool) -> nix::Result<OwnedFd> {
    if is_kind(fd, &[SFlag::S_IFSOCK]) {
        return Err(Errno::EOPNOTSUPP);
    }
    // Does not wait for a serial line's carrier, or for the other end of a pipe.
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let link = format!("/proc/self/fd/{number}");
    let opened = open_path(link.as_str(), flags, Mode::empty()).or_else(|errno| {
        if !terminal {
            return Err(errno);
        }
        // Without /proc; or the terminal is that of another user (su(1)), who has let this one use it.
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
    // Fails where the terminal is not that of this session.
    rustix::termios::tcgetsid(terminal).map_err(crate::io::from_rustix)?;
    open_path(c"/dev/tty", flags, Mode::empty())
}

/// The name may mean another terminal here (a mount namespace of its own).
fn same(terminal: BorrowedFd, opened: OwnedFd) -> nix::Result<OwnedFd> {
    if fstat(terminal)?.st_rdev == fstat(&opened)?.st_rdev {
        Ok(opened)
    } else {
        Err(Errno::ENXIO)
    }
}
