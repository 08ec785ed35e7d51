//! The sockets that the bytes travel on.

use crate::Request;
use nix::sys::socket::{
    sendmsg, socketpair, AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType,
};
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

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

/// Asks a shepherd for a command, without waiting for room. A spec that is long is empty here, and in a file.
pub fn send_begin(control: BorrowedFd, spec: &[u8], fds: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(
        control.as_raw_fd(),
        &[IoSlice::new(&Request::Begin.encode()), IoSlice::new(spec)],
        &[ControlMessage::ScmRights(fds)],
        NO_SIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )
    .map(drop)
}
