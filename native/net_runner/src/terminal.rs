//! Pseudo-terminals (pty(7)): the VM keeps the master, the command gets the slave.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, SpecialCharacterIndices};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

/// How a terminal is when the command finds it.
pub struct Settings {
    pub rows: u16,
    pub columns: u16,
    pub echo: bool,
}

/// The master, which never blocks, and the slave.
pub fn open(settings: &Settings) -> nix::Result<(OwnedFd, OwnedFd)> {
    let birth = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(birth | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = open_slave(&master, birth)?;
    set_window_size(slave.as_fd(), settings.rows, settings.columns)?;
    if !settings.echo {
        let mut attributes = tcgetattr(&slave)?;
        attributes
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ECHONL);
        tcsetattr(&slave, SetArg::TCSANOW, &attributes)?;
    }
    // SAFETY: `into_raw_fd` gives the number up.
    let master = unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) };
    Ok((master, slave))
}

/// Without a look at /dev/pts, which may be that of another mount namespace (ioctl_tty(2)).
#[cfg(target_os = "linux")]
fn open_slave(master: &nix::pty::PtyMaster, flags: OFlag) -> nix::Result<OwnedFd> {
    // SAFETY: TIOCGPTPEER takes flags and gives a new descriptor.
    unsafe {
        let slave = libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits());
        Errno::result(slave).map(|number| OwnedFd::from_raw_fd(number))
    }
}

#[cfg(not(target_os = "linux"))]
fn open_slave(master: &nix::pty::PtyMaster, flags: OFlag) -> nix::Result<OwnedFd> {
    static LOCK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _held = LOCK.lock();
    // SAFETY: ptsname(3) is not reentrant; `LOCK` keeps other calls of this library out.
    let name = unsafe { nix::pty::ptsname(master) }?;
    nix::fcntl::open(name.as_str(), flags, nix::sys::stat::Mode::empty())
}

/// The kernel sends SIGWINCH to the foreground process group when the size changes.
pub fn set_window_size(terminal: BorrowedFd, rows: u16, columns: u16) -> nix::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads the struct.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    Errno::result(result).map(drop)
}

/// The character that ends the input of whoever reads lines (termios(3), VEOF).
pub fn end_of_file_character(terminal: BorrowedFd) -> nix::Result<u8> {
    let attributes = tcgetattr(terminal)?;
    Ok(attributes.control_chars[SpecialCharacterIndices::VEOF as usize])
}
