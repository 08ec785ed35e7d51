//! Opening what a path leads to, and nothing else that may be there later (`O_PATH`).

use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

const RESOLVE_NO_MAGICLINKS: u64 = 2;
const RESOLVE_NO_SYMLINKS: u64 = 4;

/// `struct open_how`.
#[repr(C)]
struct How {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Symbolic links are followed; those of /proc that lead into a process are not, since this process is not the one that
/// is meant.
pub fn follow(path: &CStr) -> nix::Result<OwnedFd> {
    open(path, RESOLVE_NO_MAGICLINKS)
}

/// No links are followed: a path that was resolved before has none, unless somebody has put one there since.
pub fn exact(path: &CStr) -> nix::Result<OwnedFd> {
    open(path, RESOLVE_NO_SYMLINKS)
}

fn open(path: &CStr, resolve: u64) -> nix::Result<OwnedFd> {
    let how = How {
        flags: (libc::O_PATH | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve,
    };
    // SAFETY: openat2(2) reads the string and the struct.
    let fd = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &how,
            size_of::<How>(),
        )
    })?;
    // SAFETY: made for this process just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}
