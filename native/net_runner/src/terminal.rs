//! Pseudo-terminals (pty(7)): the VM keeps the master, the command gets the slave.

use crate::errno::from_rustix;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
use nix::sys::termios::InputFlags;
use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, SpecialCharacterIndices};
use rustix::pty::{grantpt, openpt, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a terminal is set when the command starts.
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
    let mut attributes = tcgetattr(&slave)?;
    // A backspace takes back a character, however many bytes it has.
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    attributes.input_flags.insert(InputFlags::IUTF8);
    if !settings.echo {
        attributes
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL);
    }
    tcsetattr(&slave, SetArg::TCSANOW, &attributes)?;
    Ok((master, slave))
}

fn flags(flags: OFlag) -> OpenptFlags {
    OpenptFlags::from_bits_retain(flags.bits() as _)
}

/// Opens the slave without its name: /dev/pts may be that of another mount namespace (ioctl_tty(2)).
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn open_slave(master: &OwnedFd, birth: OFlag) -> nix::Result<OwnedFd> {
    rustix::pty::ioctl_tiocgptpeer(master, flags(birth)).map_err(from_rustix)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn open_slave(master: &OwnedFd, birth: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::open(
        slave_name(master)?.as_c_str(),
        birth,
        nix::sys::stat::Mode::empty(),
    )
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn slave_name(master: &OwnedFd) -> nix::Result<std::ffi::CString> {
    use std::sync::{Mutex, PoisonError};
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: ptsname(3) gives a string that stays until it is called again; not every system has ptsname_r(3).
    unsafe {
        let name = libc::ptsname(std::os::fd::AsRawFd::as_raw_fd(master));
        if name.is_null() {
            return Err(Errno::last());
        }
        Ok(std::ffi::CStr::from_ptr(name).to_owned())
    }
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
