//! The helpers' ends of their sockets: frames in, frames out, descriptors beside a request.

use crate::signals;
use nix::errno::Errno;
use nix::sys::socket::{recv, send, MsgFlags};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;
use wire::socket::{NO_SIGNAL, ONE_MORE};
use wire::{Event, Request, MAX_FDS, MAX_SHORT_SPEC, NEW_SHEPHERD, REQUEST_SIZE};

pub use wire::socket::pair;

pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag and fails with EBADF when nothing is open there.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// Sends bytes; the other end being gone is an error, not a SIGPIPE.
pub fn send_bytes(socket: BorrowedFd, bytes: &[u8]) -> nix::Result<usize> {
    send(socket.as_raw_fd(), bytes, NO_SIGNAL)
}

/// How long it is tried to tell the VM something.
const PAUSE: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 100;

/// Tells the VM; whether that was possible. Nobody may be there to hear it, or the system has had no memory for it for too
/// long. Race: unheard report.
#[must_use]
pub fn send_event(socket: BorrowedFd, event: Event) -> bool {
    send_patiently(|| send_bytes(socket, &event.encode()))
}

fn send_patiently(mut send: impl FnMut() -> nix::Result<usize>) -> bool {
    for _ in 0..PATIENCE {
        match send() {
            Ok(_) => return true,
            Err(Errno::EINTR) => {}
            // No event tells when there is room.
            Err(Errno::ENOBUFS | Errno::ENOMEM | Errno::EAGAIN) => std::thread::sleep(PAUSE),
            Err(_) => return false,
        }
    }
    false
}

/// What the control socket gave.
pub enum Control {
    Request(Request),
    /// Nothing to read now.
    Nothing,
    /// The VM closed its end, or is gone, or does not speak this protocol.
    Closed,
}

pub fn receive_request(socket: BorrowedFd) -> Control {
    request(socket, MsgFlags::MSG_DONTWAIT)
}

/// As `receive_request`, but waits for it.
pub fn await_request(socket: BorrowedFd) -> Control {
    request(socket, MsgFlags::empty())
}

fn request(socket: BorrowedFd, flags: MsgFlags) -> Control {
    let mut frame = [0; REQUEST_SIZE + ONE_MORE];
    match nix::sys::socket::recv(socket.as_raw_fd(), &mut frame, flags) {
        Ok(length) => Request::decode(&frame[..length]).map_or(Control::Closed, Control::Request),
        Err(Errno::EAGAIN | Errno::EINTR) => Control::Nothing,
        Err(_) => Control::Closed,
    }
}

/// What a command needs to begin.
pub struct Begin {
    /// The spec, or nothing, where it is in a file.
    pub spec: Vec<u8>,
    pub fds: Vec<OwnedFd>,
    /// Some descriptors were lost. Race: full table.
    pub lost: bool,
}

/// Waits until a command is there to be received; `false` when the VM has closed its end. Skips everything else.
/// Race: late request. When nothing comes for so long, the function beside that is called, once.
pub fn await_begin(socket: BorrowedFd, mut when_idle: Option<(Duration, fn())>) -> bool {
    let mut request = [0; REQUEST_SIZE];
    loop {
        if let Some((longest, function)) = when_idle {
            if !signals::is_readable_within(socket, longest) {
                function();
                when_idle = None;
            }
        }
        let length = match recv(socket.as_raw_fd(), &mut request, MsgFlags::MSG_PEEK) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(_) => return false,
        };
        match Request::decode(&request[..length]) {
            Ok(Request::Begin) => return true,
            Ok(_) if receive_with_fds(socket, REQUEST_SIZE, 0).is_ok() => {}
            Ok(_) | Err(_) => return false,
        }
    }
}

/// Whether the VM still wants the command of the `Begin` that was read last.
pub enum Wanted {
    Yes,
    /// It has taken that back, and does the rest itself.
    No,
    /// It has closed its end, or is gone.
    ByNobody,
}

pub fn is_wanted(socket: BorrowedFd) -> Wanted {
    let mut request = [0; REQUEST_SIZE];
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut request, peek) {
        Ok(0) => Wanted::ByNobody,
        Ok(length) if Request::decode(&request[..length]) == Ok(Request::End) => Wanted::No,
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Wanted::Yes,
        // ECONNRESET: it has closed its end with something unread.
        Err(_) => Wanted::ByNobody,
    }
}

/// The command that is there.
pub fn receive_begin(socket: BorrowedFd) -> Option<Begin> {
    let (mut message, fds, lost) =
        receive_with_fds(socket, REQUEST_SIZE + MAX_SHORT_SPEC, 0).ok()?;
    if message.len() < REQUEST_SIZE {
        return None;
    }
    let spec = message.split_off(REQUEST_SIZE);
    Some(Begin { spec, fds, lost })
}

/// What the launcher's socket gave.
pub enum LauncherRequest {
    /// The control socket of a new shepherd; `None` when it was lost because the table was full.
    NewShepherd(Option<OwnedFd>),
    Nothing,
    /// The VM closed its end, or is gone, or does not speak this protocol.
    Closed,
}

pub fn receive_launcher_request(socket: BorrowedFd) -> LauncherRequest {
    launcher_request(socket, libc::MSG_DONTWAIT)
}

/// As `receive_launcher_request`, but waits for it.
pub fn await_launcher_request(socket: BorrowedFd) -> LauncherRequest {
    launcher_request(socket, 0)
}

fn launcher_request(socket: BorrowedFd, flags: libc::c_int) -> LauncherRequest {
    match receive_with_fds(socket, 1 + ONE_MORE, flags) {
        Ok((message, mut fds, _)) if message == [NEW_SHEPHERD] => {
            LauncherRequest::NewShepherd(fds.pop())
        }
        Err(Errno::EAGAIN | Errno::EINTR) => LauncherRequest::Nothing,
        Ok(_) | Err(_) => LauncherRequest::Closed,
    }
}

/// Bytes, the descriptors beside them, and whether some of those are missing. recvmsg(2) by hand: when some descriptors did not fit
/// into the table of this process, nix gives none, and those that did fit would stay open for ever.
fn receive_with_fds(
    socket: BorrowedFd,
    capacity: usize,
    flags: libc::c_int,
) -> nix::Result<(Vec<u8>, Vec<OwnedFd>, bool)> {
    const SPACE: usize = 1040;
    #[repr(align(8))]
    struct Space([u8; SPACE]);
    const {
        // SAFETY: CMSG_SPACE only computes.
        let needed = unsafe { libc::CMSG_SPACE((MAX_FDS * size_of::<RawFd>()) as u32) };
        assert!(needed as usize <= SPACE);
    };
    let mut space = Space([0; SPACE]);
    // Only the system writes here: every page that is touched is this process's for its life.
    let mut bytes = Vec::<u8>::with_capacity(capacity);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: capacity,
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
    let length = Errno::result(length)?;
    // SAFETY: the system wrote so many.
    unsafe { bytes.set_len(length as usize) };
    let mut fds = Vec::new();
    // SAFETY: the kernel filled the control buffer; the macros walk it as cmsg(3) says, and the
    // descriptors in it were made for this process just now.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&message);
        while let Some(part) = header.as_ref() {
            if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
                let length: usize = part.cmsg_len as _;
                let size = length - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..size / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(at).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&message, header);
        }
    }
    #[cfg(any(not(target_os = "linux"), net_runner_posix))]
    for fd in &fds {
        use nix::fcntl::{fcntl, FcntlArg, FdFlag};
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((bytes, fds, message.msg_flags & libc::MSG_CTRUNC != 0))
}

/// Close-on-exec from birth, where the system can.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
const RECEIVE_CLOEXEC: libc::c_int = libc::MSG_CMSG_CLOEXEC;
#[cfg(any(not(target_os = "linux"), net_runner_posix))]
const RECEIVE_CLOEXEC: libc::c_int = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// What comes of it, and how often it was tried.
    fn tried(mut answers: impl Iterator<Item = nix::Result<usize>>) -> (bool, u32) {
        let mut times = 0;
        let sent = send_patiently(|| {
            times += 1;
            answers.next().unwrap()
        });
        (sent, times)
    }

    #[test]
    fn nobody_wants_anything_whose_end_is_closed() {
        for unread in [false, true] {
            let (vm, shepherd) = pair().unwrap();
            assert!(matches!(is_wanted(shepherd.as_fd()), Wanted::Yes));
            if unread {
                send_bytes(shepherd.as_fd(), b"report").unwrap();
            }
            drop(vm);
            assert!(matches!(is_wanted(shepherd.as_fd()), Wanted::ByNobody));
        }
    }

    #[test]
    fn what_the_system_has_no_memory_for_is_sent_when_it_has_some() {
        let lacks = [Errno::ENOBUFS, Errno::ENOMEM, Errno::EINTR, Errno::EAGAIN];
        let answers = lacks.into_iter().map(Err).chain([Ok(32)]);
        assert_eq!(tried(answers), (true, 5));
    }

    #[test]
    fn what_cannot_be_sent_is_given_up() {
        assert_eq!(
            tried(std::iter::repeat(Err(Errno::ENOBUFS))),
            (false, PATIENCE)
        );
        assert_eq!(tried(std::iter::repeat(Err(Errno::EPIPE))), (false, 1));
    }
}
