//! Opening what a path leads to, and nothing else that may be there later (`O_PATH`).

use nix::errno::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

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

/// Which file it is. On most local file systems no other file gets the same as long as somebody holds this one (its inode) and nothing
/// is mounted or unmounted; see `is_lasting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: (u32, u32),
    number: u64,
}

pub struct Found {
    pub kind: libc::mode_t,
    /// How many names it has.
    pub links: u32,
    /// Whether it is what is mounted there, and not something in it.
    pub is_root: bool,
    pub identity: Identity,
    /// When something of its inode was changed last, since 1970.
    pub changed: Duration,
}

/// What is open.
pub fn look_at(fd: BorrowedFd) -> nix::Result<Found> {
    look(fd.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// Where a path leads. As when it is opened (`O_PATH`), nothing is mounted for that: it might take for ever (autofs(5)).
pub fn look_for(path: &CStr) -> nix::Result<Found> {
    look(libc::AT_FDCWD, path, libc::AT_NO_AUTOMOUNT)
}

/// As `look_for`, and a symbolic link is what is found.
pub fn look_for_link(path: &CStr) -> nix::Result<Found> {
    let flags = libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
    look(libc::AT_FDCWD, path, flags)
}

/// A path that need not exist leads there.
pub fn is_nowhere(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES)
}

/// `struct statx`, as far as it is used.
#[repr(C)]
struct Statx {
    _mask: u32,
    _size_of_a_block: u32,
    attributes: u64,
    links: u32,
    _user: u32,
    _group: u32,
    mode: u16,
    number: u64,
    _size: u64,
    _blocks: u64,
    _attributes_mask: u64,
    _accessed_and_made: [u64; 4],
    changed_seconds: i64,
    changed_nanoseconds: u32,
    _modified: [u32; 5],
    _device_that_it_is: [u32; 2],
    device: [u32; 2],
    _rest: [u64; 14],
}

const _: () = assert!(size_of::<Statx>() == 256);

fn look(directory: RawFd, path: &CStr, flags: libc::c_int) -> nix::Result<Found> {
    const MOUNT_ROOT: u64 = 0x2000;
    const WANTED: u32 = libc::STATX_TYPE | libc::STATX_NLINK | libc::STATX_INO | libc::STATX_CTIME;
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
    };
    Ok(Found {
        kind: libc::mode_t::from(found.mode) & libc::S_IFMT,
        links: found.links,
        is_root: found.attributes & MOUNT_ROOT != 0,
        identity,
        changed: Duration::new(
            found.changed_seconds.try_into().unwrap_or(0),
            found.changed_nanoseconds,
        ),
    })
}

/// ext4, XFS, Btrfs, tmpfs, overlayfs, SquashFS and EROFS (statfs(2)).
const LASTING: [u32; 7] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0x794C_7630,
    0x7371_7368,
    0xE0F5_E1E2,
];

/// Whether, as long as somebody holds a file, whatever is found with its number is that. On other file systems, such as /proc and
/// those of a network or of a program, it may be another inode: of the same file, when the kernel has forgotten the path, or of a
/// new one. So it may, on overlayfs, for a lower file with several names. (What is mounted is held by its mount.)
pub fn is_lasting(fd: &OwnedFd, found: &Found) -> bool {
    let has_one_name = found.kind == libc::S_IFDIR || found.links == 1;
    found.is_root || has_one_name && is_on_lasting(fd.as_fd())
}

pub fn is_on_lasting(fd: BorrowedFd) -> bool {
    LASTING.contains(&file_system(fd))
}

/// Whether it is a file of /proc, or of a mount of the same kind.
pub fn is_of_proc(fd: BorrowedFd) -> bool {
    file_system(fd) == libc::PROC_SUPER_MAGIC as u32
}

/// Whether it is a file of devpts(5), or of a mount of the same kind.
pub fn is_of_terminals(fd: BorrowedFd) -> bool {
    file_system(fd) == libc::DEVPTS_SUPER_MAGIC as u32
}

/// 0 where it is not known.
fn file_system(fd: BorrowedFd) -> u32 {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs(2) writes the struct when it succeeds.
    unsafe {
        if libc::fstatfs(fd.as_raw_fd(), found.as_mut_ptr()) == 0 {
            found.assume_init().f_type as u32
        } else {
            0
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_which_file_it_is_where_inodes_last_and_it_has_one_name() {
        let is_lasting = |path| {
            let fd = follow(path).unwrap();
            let found = look_at(fd.as_fd()).unwrap();
            let several = Found { links: 2, ..found };
            (is_lasting(&fd, &found), is_lasting(&fd, &several))
        };
        assert_eq!(is_lasting(c"/"), (true, true));
        assert_eq!(is_lasting(c"/proc"), (true, true));
        assert_eq!(is_lasting(c"/dev/null"), (true, false));
        assert_eq!(is_lasting(c"/proc/sys"), (false, false));
        assert_eq!(is_lasting(c"/proc/cpuinfo"), (false, false));
    }
}
