//! The sockets that the bytes travel on.

use nix::sys::socket::{socketpair, AddressFamily, MsgFlags, SockFlag, SockType};
use std::os::fd::OwnedFd;

/// Makes the other end being gone an error, not a SIGPIPE.
#[cfg(not(target_vendor = "apple"))]
pub const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;

/// No such flag there; nor is it missed: the VM ignores SIGPIPE, and the helpers block it.
#[cfg(target_vendor = "apple")]
pub const NO_SIGNAL: MsgFlags = MsgFlags::empty();

/// Whether what was sent at once is received at once.
pub const KEEPS_MESSAGES: bool = cfg!(not(target_vendor = "apple"));

/// Two connected sockets, close-on-exec, with message boundaries and an end of file.
#[cfg(not(target_vendor = "apple"))]
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
}

/// Only streams are there, which serve: all frames have a fixed size, and descriptors keep requests apart.
#[cfg(target_vendor = "apple")]
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{fcntl, FcntlArg, FdFlag};
    let kind = SockType::Stream;
    let (one, other) = socketpair(AddressFamily::Unix, kind, None, SockFlag::empty())?;
    for end in [&one, &other] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((one, other))
}
