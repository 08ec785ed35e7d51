//! Opening what a path leads to, and nothing else that may be there later (`O_PATH`).

use nix::errno::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Which file it is, and on which mount. Nobody else gets this pair as long as somebody holds the file (its inode) and the mount is
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    number: u64,
    mount: u64,
}

pub struct Found {
    pub kind: libc::mode_t,
    /// `None`: this kernel's numbers of mounts are given again (before Linux 6.8).
    pub identity: Option<Identity>,
}

/// What is open.
pub fn look_at(fd: BorrowedFd) -> nix::Result<Found> {
    look(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// Where a path leads.
pub fn look_for(path: &CStr) -> nix::Result<Found> {
    look(libc::AT_FDCWD, path, 0)
}

/// `struct statx`, as far as it is used.
#[repr(C)]
struct Statx {
    mask: u32,
    _size_of_a_block: u32,
    _attributes: u64,
    _links: u32,
    _user: u32,
    _group: u32,
    mode: u16,
    number: u64,
    _size: u64,
    _blocks: u64,
    _attributes_mask: u64,
    _times: [u64; 8],
    _device_that_it_is: [u32; 2],
    device: [u32; 2],
    mount: u64,
    _rest: [u64; 13],
}

const _: () = assert!(size_of::<Statx>() == 256);

fn look(directory: RawFd, path: &CStr, flags: libc::c_int) -> nix::Result<Found> {
    const UNIQUE_MOUNT: u32 = 0x4000;
    const WANTED: u32 = libc::STATX_TYPE | libc::STATX_INO | UNIQUE_MOUNT;
    let mut found = MaybeUninit::<Statx>::zeroed();
    // SAFETY: statx(2) reads the string, and writes the struct when it succeeds. Zeros are a value of it.
    let found = unsafe {
        let statx = libc::SYS_statx;
        let result = libc::syscall(statx, directory, path.as_ptr(), flags, WANTED, &mut found);
        Errno::result(result)?;
        found.assume_init()
    };
    let identity = Identity {
        device: (found.device[0], found.device[1]),
        number: found.number,
        mount: found.mount,
    };
    Ok(Found {
        kind: libc::mode_t::from(found.mode) & libc::S_IFMT,
        identity: (found.mask & UNIQUE_MOUNT != 0).then_some(identity),
    })
}

/// The kind of a file system, as statfs(2) says it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileSystem(u64);

impl FileSystem {
    pub const PROC: FileSystem = FileSystem(0x9FA0);

    /// Those that give no number of a file again as long as somebody holds the file. Of others it is not known, or the number
    /// is a server's, as with NFS.
    const WITH_NUMBERS_OF_FILES: [u64; 11] = [
        0xEF53,      // ext2 to ext4
        0x5846_5342, // XFS
        0x9123_683E, // Btrfs
        0x0102_1994, // tmpfs, devtmpfs
        0x8584_58F6, // ramfs
        0x794C_7630, // overlayfs
        0xF2F5_2010, // F2FS
        0x7371_7368, // SquashFS
        0xE0F5_E1E2, // EROFS
        0x2FC1_2FC1, // ZFS
        0xCA45_1A4E, // bcachefs
    ];

    /// `None` where it does not say.
    pub fn of(fd: &OwnedFd) -> Option<FileSystem> {
        let mut found = MaybeUninit::<libc::statfs>::uninit();
        // SAFETY: fstatfs(2) writes the struct when it succeeds.
        unsafe {
            let answered = libc::fstatfs(fd.as_raw_fd(), found.as_mut_ptr()) == 0;
            answered.then(|| FileSystem(found.assume_init().f_type as u64))
        }
    }

    pub fn has_numbers_of_files(self) -> bool {
        Self::WITH_NUMBERS_OF_FILES.contains(&self.0)
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
