//! The sockets that the frames travel on.

use crate::{Request, MAX_SHORT_SPEC};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{getrlimit, rlim_t, Resource};
use nix::sys::socket::{
    send, sendmsg, shutdown, socketpair, AddressFamily, ControlMessage, MsgFlags, Shutdown,
    SockFlag, SockType,
};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// With this flag, to send to a socket whose other end is closed is an error, not a SIGPIPE.
#[cfg(not(any(target_vendor = "apple", net_runner_posix)))]
pub const NO_SIGNAL: MsgFlags = MsgFlags::MSG_NOSIGNAL;

/// Apple's systems have no such flag, and need none here: the VM ignores SIGPIPE, and the helpers block it.
#[cfg(any(target_vendor = "apple", net_runner_posix))]
pub const NO_SIGNAL: MsgFlags = MsgFlags::empty();

/// Whether what was sent by one call is received by one call.
pub const KEEPS_MESSAGES: bool = cfg!(not(any(target_vendor = "apple", net_runner_posix)));

/// Room beyond a frame, so that a message that is too long is not taken for a good one without its end.
pub const ONE_MORE: usize = KEEPS_MESSAGES as usize;

/// Two connected sockets that keep messages apart and have an end of file. Race: born without close-on-exec.
#[cfg(not(any(target_vendor = "apple", net_runner_posix)))]
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
}

/// Apple's systems have only streams for this. They do: all frames have a fixed size, and a stream is not read beyond a
/// frame that has descriptors beside it.
#[cfg(any(target_vendor = "apple", net_runner_posix))]
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{fcntl, FcntlArg, FdFlag};
    let kind = SockType::Stream;
    let (one, other) = socketpair(AddressFamily::Unix, kind, None, SockFlag::empty())?;
    for end in [&one, &other] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((one, other))
}

/// The message that makes a shepherd start a command.
pub struct Begin {
    /// Empty once it is in a file.
    spec: Vec<u8>,
    /// The working directory, the file with the spec where there is one, and what the command gets.
    fds: Vec<OwnedFd>,
}

impl Begin {
    pub fn new(spec: Vec<u8>, cwd: OwnedFd, passed: Vec<OwnedFd>) -> Begin {
        // And the spec's, where it is in a file.
        let mut fds = Vec::with_capacity(2 + passed.len());
        fds.push(cwd);
        fds.extend(passed);
        Begin { spec, fds }
    }

    /// Sends it, without waiting for room. A spec that is too long for a message travels as a file.
    pub fn send(&mut self, control: BorrowedFd) -> nix::Result<()> {
        if self.spec.len() > MAX_SHORT_SPEC {
            self.write_spec_to_file()?;
        }
        match self.try_send(control) {
            // This system gives sockets little room (net.core.wmem_default).
            Err(Errno::EMSGSIZE) if !self.spec.is_empty() => {
                self.write_spec_to_file()?;
                self.try_send(control)
            }
            result => result,
        }
    }

    fn try_send(&self, control: BorrowedFd) -> nix::Result<()> {
        let fds: Vec<RawFd> = self.fds.iter().map(|fd| fd.as_raw_fd()).collect();
        send_begin(control, &self.spec, &fds)
    }

    fn write_spec_to_file(&mut self) -> nix::Result<()> {
        // A write beyond this limit would be a signal (SIGXFSZ), which ends the VM.
        let (limit, _) = getrlimit(Resource::RLIMIT_FSIZE)?;
        if self.spec.len() as rlim_t > limit {
            return Err(Errno::EFBIG);
        }
        self.fds.insert(1, file_of(&self.spec)?);
        self.spec = Vec::new();
        Ok(())
    }
}

/// Sends a `Begin`, without waiting for room.
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

/// Takes a `Begin` back: whether nobody has read it, and nobody will carry it out, because a shepherd looks for an `End` behind it when it
/// has read it. Race: timeout beside the start.
pub fn withdraw(control: BorrowedFd) -> bool {
    take_back(control, unread(control))
}

/// `before`: what was unread then.
fn take_back(control: BorrowedFd, before: Option<libc::c_int>) -> bool {
    // Only where nobody has read it: requests must still reach a command that has started.
    if before == Some(0) {
        return false;
    }
    // The request says that this VM lives, and removes the command's cgroup itself.
    let end = Request::End.encode();
    let flags = NO_SIGNAL | MsgFlags::MSG_DONTWAIT;
    if send(control.as_raw_fd(), &end, flags).is_err()
        || shutdown(control.as_raw_fd(), Shutdown::Write).is_err()
    {
        return false;
    }
    match (before, unread(control)) {
        (Some(before), Some(now)) => was_unread(before, now),
        // Not known there.
        _ => true,
    }
}

/// From what a socket held before a request was sent behind a `Begin`, and what it holds now. If nobody has read the `Begin`, it holds more,
/// by that request. A `Begin` takes up no less than a request: if less was there before, it was being freed, after it was read (of a
/// message that it frees, Linux counts one byte for a moment: `sock_wfree`).
fn was_unread(before: libc::c_int, now: libc::c_int) -> bool {
    let request = now - before;
    request > 0 && request <= before
}

/// How much of what was sent has not been received (SIOCOUTQ: tcp(7) describes it, and Linux has it for local sockets, too).
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn unread(socket: BorrowedFd) -> Option<libc::c_int> {
    let mut unread: libc::c_int = 0;
    // SAFETY: ioctl(2) writes a number.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) };
    Some(if result == 0 { unread } else { 0 })
}

/// Not known there.
#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn unread(_socket: BorrowedFd) -> Option<libc::c_int> {
    None
}

/// A file without a name that holds the bytes. Its offset is 0.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn file_of(bytes: &[u8]) -> nix::Result<OwnedFd> {
    use nix::sys::memfd::{memfd_create, MFdFlags};
    let name = c"net_runner_spec";
    // Some systems insist on this flag (vm.memfd_noexec); Linux before 6.3 does not know it.
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | no_exec)
        .or_else(|_| memfd_create(name, MFdFlags::MFD_CLOEXEC))?;
    write_at_zero(fd.as_fd(), bytes)?;
    Ok(fd)
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn file_of(bytes: &[u8]) -> nix::Result<OwnedFd> {
    use nix::fcntl::{fcntl, FcntlArg, FdFlag};
    let template = std::env::temp_dir().join("net_runner_spec_XXXXXX");
    let (fd, path) = nix::unistd::mkstemp(&template)?;
    nix::unistd::unlink(&path)?;
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    write_at_zero(fd.as_fd(), bytes)?;
    Ok(fd)
}

/// Leaves the offset at 0: the shepherd reads from there, as both share the open file.
fn write_at_zero(fd: BorrowedFd, bytes: &[u8]) -> nix::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        written += nix::sys::uio::pwrite(fd, &bytes[written..], written as libc::off_t)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MAX_FDS, REQUEST_SIZE};
    use nix::sys::socket::{recv, recvmsg, setsockopt, sockopt, ControlMessageOwned};
    use std::fs::File;
    use std::io::{IoSliceMut, Read};
    use std::sync::mpsc::{channel, Receiver, Sender};
    use std::thread;

    /// What a shepherd gets: the bytes behind the frame, and the descriptors.
    fn receive(control: &OwnedFd) -> (Vec<u8>, Vec<File>) {
        let mut bytes = vec![0; REQUEST_SIZE + MAX_SHORT_SPEC];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
        let length = message.bytes;
        let mut fds = Vec::new();
        for part in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: they were made for this process just now.
                fds.extend(received.into_iter().map(|fd| unsafe {
                    use std::os::fd::FromRawFd;
                    File::from_raw_fd(fd)
                }));
            }
        }
        bytes.truncate(length);
        (bytes.split_off(REQUEST_SIZE), fds)
    }

    fn begin(spec: &[u8]) -> Begin {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        Begin::new(spec.to_vec(), null(), vec![null()])
    }

    /// A thread that receives one `Begin` after the other, each from its own socket, and says of each whether it is carried out. (It has the
    /// socket still.)
    fn shepherd() -> (Sender<OwnedFd>, Receiver<(bool, OwnedFd)>) {
        let (next, sockets) = channel::<OwnedFd>();
        let (carries_out, carried_out) = channel();
        thread::spawn(move || {
            for socket in sockets {
                receive(&socket);
                let mut request = [0; REQUEST_SIZE];
                let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
                let end = recv(socket.as_raw_fd(), &mut request, peek);
                let carried_out = end == Err(Errno::EAGAIN);
                carries_out.send((carried_out, socket)).unwrap();
            }
        });
        (next, carried_out)
    }

    /// The VM's end of a socket with a `Begin` for this shepherd.
    fn begun(shepherd: &Sender<OwnedFd>) -> OwnedFd {
        let (vm, other) = pair().unwrap();
        shepherd.send(other).unwrap();
        begin(&[7; 500]).send(vm.as_fd()).unwrap();
        vm
    }

    #[test]
    #[cfg_attr(
        not(all(target_os = "linux", not(net_runner_posix))),
        ignore = "not known there"
    )]
    fn what_is_being_freed_is_not_taken_back() {
        let (shepherd, carried_out) = shepherd();
        let mut seen = 0;
        // It is seen rarely where other threads need the processors.
        for _ in 0..50_000 {
            let vm = begun(&shepherd);
            let all = unread(vm.as_fd());
            let mut before = all;
            while before == all && before != Some(0) {
                before = unread(vm.as_fd());
            }
            let (carried_out, _open) = carried_out.recv().unwrap();
            assert!(carried_out);
            assert!(!take_back(vm.as_fd(), before));
            seen += u32::from(before != Some(0));
            if seen == 5 {
                break;
            }
        }
    }

    #[test]
    fn less_than_a_request_is_what_is_left_of_one_that_was_read() {
        let request = 768;
        for (before, now) in [(4352, 4352 + request), (request, 2 * request)] {
            assert!(was_unread(before, now));
        }
        // It was read: before, meanwhile, or at that very moment.
        for (before, now) in [(1, request), (1, 1 + request), (4352, request), (4352, 0)] {
            assert!(!was_unread(before, now));
        }
    }

    #[test]
    fn a_short_spec_travels_in_the_message() {
        let (vm, shepherd) = pair().unwrap();
        begin(b"short").send(vm.as_fd()).unwrap();
        let (spec, fds) = receive(&shepherd);
        // Elsewhere than on Linux, all travel as a file.
        let expected = if KEEPS_MESSAGES {
            (&b"short"[..], 2)
        } else {
            (&[][..], 3)
        };
        assert_eq!((&spec[..], fds.len()), expected);
    }

    #[test]
    fn a_spec_that_the_socket_has_no_room_for_travels_as_a_file() {
        let sent = [7; 20_000];
        let (vm, shepherd) = pair().unwrap();
        setsockopt(&vm, sockopt::SndBuf, &4096).unwrap();
        begin(&sent).send(vm.as_fd()).unwrap();
        let (spec, mut fds) = receive(&shepherd);
        assert!(spec.is_empty());
        assert_eq!(fds.len(), 3);
        let mut read = Vec::new();
        fds[1].read_to_end(&mut read).unwrap();
        assert_eq!(read, sent);
    }
}
