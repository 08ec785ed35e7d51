//! A sandboxed command has no capabilities, also when it is root's.

use nix::errno::Errno;

/// What `execve(2)` could give back to root. Only who has CAP_SETPCAP may do this; for all others nothing can be
/// regained anyway, since a sandbox implies `no_new_privs`.
pub fn empty_bounding_set() {
    for capability in 0..64 {
        // SAFETY: prctl(2) on this process.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if dropped == -1 {
            // The kernel knows no more of them, or this may not be done.
            return;
        }
    }
}

/// As the kernel reads it, in version 3 (capset(2)).
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;

impl Header {
    fn of_this_process() -> Header {
        Header {
            version: VERSION,
            pid: 0,
        }
    }
}

/// Effective, permitted and inheritable, twice: 64 bits each.
type Sets = [u32; 6];

/// Of the first 32.
pub fn is_effective(capability: u32) -> bool {
    let mut header = Header::of_this_process();
    let mut sets: Sets = [0; 6];
    // SAFETY: capget(2) reads the header, and writes three pairs of numbers.
    unsafe { libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()) };
    sets[0] & (1 << capability) != 0
}

pub fn give_up() -> nix::Result<()> {
    let none = 0;
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
    // SAFETY: prctl(2) on this process. (A kernel before 4.3 has no ambient set.)
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, none, none, none) };
    let header = Header::of_this_process();
    let sets: Sets = [0; 6];
    // SAFETY: capset(2) reads the header, and three pairs of numbers.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, sets.as_ptr()) };
    Errno::result(result).map(drop)
}
