//! The helpers' ends of their sockets: frames in, frames out, descriptors beside a request.

use nix::errno::Errno;
use nix::sys::socket::{send, sendmsg, ControlMessage, MsgFlags};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use wire::socket::NO_SIGNAL;
use wire::{Event, Request, MAX_FDS, MAX_SHORT_SPEC, REQUEST_SIZE, START};

pub use wire::socket::pair;

pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag and fails with EBADF when nothing is open there.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Sends bytes; the other end being gone is an error, not a SIGPIPE.
pub fn send_bytes(socket: BorrowedFd, bytes: &[u8]) -> nix::Result<usize> {
    send(socket.as_raw_fd(), bytes, NO_SIGNAL)
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
    request(socket, MsgFlags::MSG_DONTWAIT)
}

/// As `receive_request`, but waits for it.
pub fn await_request(socket: BorrowedFd) -> Control {
    request(socket, MsgFlags::empty())
}

fn request(socket: BorrowedFd, flags: MsgFlags) -> Control {
    let mut frame = [0; REQUEST_SIZE];
    match nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, flags) {
        Ok(length) => Request::decode(&frame[..length]).map_or(Control::Ended, Control::Request),
        Err(Errno::EAGAIN | Errno::EINTR) => Control::Nothing,
        Err(_) => Control::Ended,
    }
}

/// The first request and what stands behind it: the command's spec, or nothing, where that is in a file.
pub fn receive_begin(socket: BorrowedFd) -> Option<Vec<u8>> {
    // Nothing is written here but by the system: every page that is touched is this process's for its life.
    let mut message = Vec::<u8>::with_capacity(REQUEST_SIZE + MAX_SHORT_SPEC);
    let room = message.spare_capacity_mut();
    // SAFETY: recv(2) writes at most `room.len()` bytes there, and says how many.
    unsafe {
        let length = libc::recv(
            socket.as_raw_fd(),
            room.as_mut_ptr().cast(),
            room.len(),
            libc::MSG_DONTWAIT,
        );
        message.set_len(usize::try_from(length).ok()?);
    }
    let begin = message.get(..REQUEST_SIZE)?;
    matches!(Request::decode(begin), Ok(Request::Begin)).then(|| message.split_off(REQUEST_SIZE))
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
    start(socket, libc::MSG_DONTWAIT)
}

/// As `receive_start`, but waits for it.
pub fn await_start(socket: BorrowedFd) -> Start {
    start(socket, 0)
}

fn start(socket: BorrowedFd, flags: libc::c_int) -> Start {
    let mut byte = 0u8;
    match receive_with_fds(socket, std::slice::from_mut(&mut byte), flags) {
        Ok((1, fds, lost)) if byte == START => Start::Fds { fds, lost },
        Err(Errno::EAGAIN | Errno::EINTR) => Start::Nothing,
        Ok(_) | Err(_) => Start::Ended,
    }
}

/// Bytes and the descriptors beside them. recvmsg(2) by hand: when some descriptors did not fit
/// into the table of this process, nix gives none, and those that did fit would stay open for ever.
fn receive_with_fds(
    socket: BorrowedFd,
    bytes: &mut [u8],
    flags: libc::c_int,
) -> nix::Result<(isize, Vec<OwnedFd>, bool)> {
    const SPACE: usize = 64;
    #[repr(align(8))]
    struct Space([u8; SPACE]);
    const {
        // SAFETY: CMSG_SPACE only computes.
        let needed = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) };
        assert!(needed as usize <= SPACE);
    };
    let mut space = Space([0; SPACE]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all-zero bytes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.0.as_mut_ptr().cast();
    message.msg_controllen = SPACE as _;
    let flags = flags | RECEIVE_CLOEXEC;
    // SAFETY: the message points to live buffers of the sizes it states.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    Errno::result(length)?;
    let mut fds = Vec::with_capacity(MAX_FDS);
    // SAFETY: the kernel filled the control buffer; the macros walk it as cmsg(3) says, and the
    // descriptors in it were made for this process just now.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(part) = header.as_ref() {
            if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
                let length: usize = part.cmsg_len as _;
                let bytes = length - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    #[cfg(not(target_os = "linux"))]
    for fd in &fds {
        use nix::fcntl::{fcntl, FcntlArg, FdFlag};
        fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((length, fds, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// Sends bytes and one descriptor, without waiting for room.
pub fn send_with_fd(socket: BorrowedFd, bytes: &[u8], fd: BorrowedFd) -> nix::Result<()> {
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::ScmRights(&[fd.as_raw_fd()])],
        NO_SIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )
    .map(drop)
}

/// What `send_with_fd` sent; `None` when there is nothing now, or nothing any more.
pub fn receive_with_fd(socket: BorrowedFd, bytes: &mut [u8], wait: bool) -> Option<OwnedFd> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    loop {
        match receive_with_fds(socket, bytes, flags) {
            Ok((length, mut fds, false)) if length as usize == bytes.len() => return fds.pop(),
            Err(Errno::EINTR) => {}
            _ => return None,
        }
    }
}

/// Close-on-exec from birth, where the system can.
#[cfg(target_os = "linux")]
const RECEIVE_CLOEXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(not(target_os = "linux"))]
const RECEIVE_CLOEXEC: libc::c_int = 0;

/// The first descriptor of a START: the command's control socket.
pub fn control_of(fds: &[OwnedFd]) -> Option<BorrowedFd<'_>> {
    fds.first().map(|fd| fd.as_fd())
}
