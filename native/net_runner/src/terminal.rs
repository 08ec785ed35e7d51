//! Pseudo-terminals (pty(7)): the VM keeps the master, the command gets the slave.

use crate::io::from_rustix;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, SpecialCharacterIndices};
use rustix::pty::{grantpt, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a terminal is when the command finds it.
pub struct Settings {
    pub rows: u16,
    pub columns: u16,
    pub echo: bool,
}

/// The master, which never blocks, and the slave.
pub fn open(settings: &Settings) -> nix::Result<(OwnedFd, OwnedFd)> {
    let birth = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = openpt(flags(birth | OFlag::O_NONBLOCK)).map_err(from_rustix)?;
    grantpt(&master).map_err(from_rustix)?;
    unlockpt(&master).map_err(from_rustix)?;
    let slave = open_slave(&master, birth)?;
    resize(slave.as_fd(), settings.rows, settings.columns)?;
    if !settings.echo {
        let mut attributes = tcgetattr(&slave)?;
        attributes
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        tcsetattr(&slave, SetArg::TCSANOW, &attributes)?;
    }
    Ok((master, slave))
}

fn flags(flags: OFlag) -> OpenptFlags {
    OpenptFlags::from_bits_retain(flags.bits() as _)
}

/// Without a look at /dev/pts, which may be that of another mount namespace (ioctl_tty(2)).
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn open_slave(master: &OwnedFd, birth: OFlag) -> nix::Result<OwnedFd> {
    rustix::pty::ioctl_tiocgptpeer(master, flags(birth)).map_err(from_rustix)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn open_slave(master: &OwnedFd, birth: OFlag) -> nix::Result<OwnedFd> {
    let name = rustix::pty::ptsname(master, Vec::new()).map_err(from_rustix)?;
    nix::fcntl::open(name.as_c_str(), birth, nix::sys::stat::Mode::empty())
}

/// Sets the size; fails when no program has the terminal open any more.
pub fn set_window_size(master: BorrowedFd, rows: u16, columns: u16) -> nix::Result<()> {
    if is_hung_up(master) {
        return Err(Errno::EIO);
    }
    resize(master, rows, columns)
}

/// The kernel sends SIGWINCH to the foreground process group when the size changes.
fn resize(terminal: BorrowedFd, rows: u16, columns: u16) -> nix::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).map_err(from_rustix)
}

/// Whether no process has the slave open.
pub fn is_hung_up(master: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(master, PollFlags::empty())];
    let polled = poll(&mut fds, PollTimeout::ZERO).is_ok();
    polled && fds[0].any() == Some(true)
}

/// The character that ends the input of whoever reads lines (termios(3), VEOF).
pub fn end_of_file_character(terminal: BorrowedFd) -> nix::Result<u8> {
    let attributes = tcgetattr(terminal)?;
    Ok(attributes.control_chars[SpecialCharacterIndices::VEOF as usize])
}
