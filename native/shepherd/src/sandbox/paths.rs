//! Opening what a path leads to, and nothing else that may be there later (`O_PATH`).

use nix::errno::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

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

/// Whether it is a file of /proc, or of a mount of the same kind.
pub fn is_of_proc(fd: &OwnedFd) -> bool {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs(2) writes the struct when it succeeds.
    unsafe {
        libc::fstatfs(fd.as_raw_fd(), found.as_mut_ptr()) == 0
            && found.assume_init().f_type == libc::PROC_SUPER_MAGIC
    }
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
