//! The helpers' ends of their sockets: frames in, frames out, descriptors beside a request.

use nix::errno::Errno;
use nix::sys::socket::{recvmsg, send, ControlMessageOwned, MsgFlags};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use wire::{Event, Request, MAX_FDS, REQUEST_SIZE, START};

pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag and fails with EBADF when nothing is open there.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Sends bytes; the other end being gone is an error, not a SIGPIPE.
pub fn send_bytes(socket: BorrowedFd, bytes: &[u8]) -> nix::Result<usize> {
    send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)
}

/// Tells the VM. When nobody is there to hear it, the closed socket is noticed elsewhere.
pub fn send_event(socket: BorrowedFd, event: Event) {
    let _ = send_bytes(socket, &event.encode());
}

/// What the control socket gave.
pub enum Control {
    Request(Request),
    /// Nothing to read now.
    Nothing,
    /// The VM closed its end, or is gone, or does not speak this protocol.
    Ended,
}

pub fn receive_request(socket: BorrowedFd) -> Control {
    let mut frame = [0; REQUEST_SIZE];
    match nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
        Ok(length) => Request::decode(&frame[..length]).map_or(Control::Ended, Control::Request),
        Err(Errno::EAGAIN | Errno::EINTR) => Control::Nothing,
        Err(_) => Control::Ended,
    }
}

/// What the launcher's socket gave.
pub enum Start {
    /// The descriptors of one command, and whether some were lost because the table was full.
    Fds {
        fds: Vec<OwnedFd>,
        lost: bool,
    },
    Nothing,
    Ended,
}

pub fn receive_start(socket: BorrowedFd) -> Start {
    let mut byte = [0; 1];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_DONTWAIT | cloexec_flag();
    let (length, fds, lost) =
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => (
                message.bytes,
                take_fds(&message),
                message.flags.contains(MsgFlags::MSG_CTRUNC),
            ),
            Err(Errno::EAGAIN | Errno::EINTR) => return Start::Nothing,
            Err(_) => return Start::Ended,
        };
    if length == 1 && byte[0] == START {
        Start::Fds { fds, lost }
    } else {
        Start::Ended
    }
}

fn take_fds(message: &nix::sys::socket::RecvMsg<()>) -> Vec<OwnedFd> {
    let mut fds = Vec::with_capacity(MAX_FDS);
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just made these descriptors for this process.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    #[cfg(not(target_os = "linux"))]
    for fd in &fds {
        use nix::fcntl::{fcntl, FcntlArg, FdFlag};
        let _ = fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    }
    fds
}

#[cfg(target_os = "linux")]
fn cloexec_flag() -> MsgFlags {
    MsgFlags::MSG_CMSG_CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn cloexec_flag() -> MsgFlags {
    MsgFlags::empty()
}

/// The errno that a lost descriptor stands for.
pub fn lost_descriptor_errno() -> i32 {
    Errno::EMFILE as i32
}

/// The first descriptor of a START: the command's control socket.
pub fn control_of(fds: &[OwnedFd]) -> Option<BorrowedFd<'_>> {
    fds.first().map(|fd| fd.as_fd())
}
