//! Pipes, and copies of descriptors.

use crate::errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use std::os::fd::{BorrowedFd, OwnedFd};

/// The end to read from and the end to write to. Race: born without close-on-exec.
#[cfg(not(any(target_vendor = "apple", net_runner_posix)))]
pub fn new() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

#[cfg(any(target_vendor = "apple", net_runner_posix))]
pub fn new() -> nix::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::FdFlag;
    let (read, write) = nix::unistd::pipe()?;
    for end in [&read, &write] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((read, write))
}

pub fn set_nonblocking(fd: BorrowedFd) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop)
}

/// Another number for the same open file.
pub fn duplicate(fd: BorrowedFd) -> nix::Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(errno::from_io)
}
