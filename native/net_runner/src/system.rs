//! The environment of the VM, the system's users and groups, and the names of resource limits.

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use rustler::sys::{enif_get_string, ErlNifCharEncoding};
use rustler::Term;
use std::ffi::{c_char, c_int, c_uint, CStr, CString};

extern "C" {
    /// erl_driver(3). The VM keeps an environment of its own; no other call gives its bytes.
    fn erl_drv_getenv(key: *const c_char, value: *mut c_char, size: *mut usize) -> c_int;
}

/// Strings that are longer are left to the slow way.
const SHORT_STRING: usize = 4096;

/// Appends a list of characters if it is short and all ASCII; whether it was. One call of the VM for a whole string is
/// several times faster than one for each character.
pub fn append_ascii(list: Term, buffer: &mut Vec<u8>) -> bool {
    let start = buffer.len();
    buffer.reserve(SHORT_STRING);
    // SAFETY: SHORT_STRING bytes behind the buffer's content are reserved, and the VM says how many of them it has written,
    // the NUL included.
    unsafe {
        let end = buffer.as_mut_ptr().add(start);
        let written = enif_get_string(
            list.get_env().as_c_arg(),
            list.as_c_arg(),
            end.cast(),
            SHORT_STRING as c_uint,
            ErlNifCharEncoding::ERL_NIF_LATIN1,
        );
        let Some(length) = usize::try_from(written).ok().and_then(|n| n.checked_sub(1)) else {
            return false;
        };
        buffer.set_len(start + length);
    }
    let ascii = buffer[start..].is_ascii();
    if !ascii {
        buffer.truncate(start);
    }
    ascii
}

/// Appends the value of a variable of the VM's environment, byte for byte; whether there is such a variable.
pub fn append_variable(name: &CStr, buffer: &mut Vec<u8>) -> bool {
    let mut room = 256;
    loop {
        buffer.reserve(room);
        let mut size = buffer.capacity() - buffer.len();
        // SAFETY: `size` bytes behind the buffer's content are reserved.
        let result = unsafe {
            let end = buffer.as_mut_ptr().add(buffer.len());
            erl_drv_getenv(name.as_ptr(), end.cast(), &mut size)
        };
        match result {
            0 => {
                // SAFETY: the VM wrote `size` bytes there.
                unsafe { buffer.set_len(buffer.len() + size) };
                return true;
            }
            // There was too little room. OTP 25 does not say how much is needed.
            1.. => room *= 2,
            _ => return false,
        }
    }
}

/// The IDs with which a user runs programs.
pub struct Account {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
}

/// `None`: there is no such user.
pub fn account_by_name(name: &str) -> nix::Result<Option<Account>> {
    User::from_name(name)?.map(account).transpose()
}

pub fn account_by_id(uid: u32) -> nix::Result<Option<Account>> {
    User::from_uid(Uid::from_raw(uid))?.map(account).transpose()
}

fn account(user: User) -> nix::Result<Account> {
    let name = CString::new(user.name).map_err(|_| Errno::EINVAL)?;
    Ok(Account {
        uid: user.uid,
        gid: user.gid,
        groups: groups(&name, user.gid)?,
    })
}

#[cfg(not(target_os = "macos"))]
fn groups(user: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    nix::unistd::getgrouplist(user, gid)
}

/// On macOS a user may be in more groups than a process can have; the system looks them up by itself.
#[cfg(target_os = "macos")]
fn groups(_user: &CStr, gid: Gid) -> nix::Result<Vec<Gid>> {
    Ok(vec![gid])
}

pub fn group_by_name(name: &str) -> nix::Result<Option<Gid>> {
    Ok(Group::from_name(name)?.map(|group| group.gid))
}

/// The number of a resource of setrlimit(2) by its name there, in lower case and without RLIMIT_.
pub fn resource(name: &str) -> Option<u64> {
    let number = match name {
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "nofile" => libc::RLIMIT_NOFILE,
        "stack" => libc::RLIMIT_STACK,
        #[cfg(not(target_os = "openbsd"))]
        "as" => libc::RLIMIT_AS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        #[cfg(target_os = "linux")]
        "locks" => libc::RLIMIT_LOCKS,
        #[cfg(target_os = "linux")]
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        #[cfg(target_os = "linux")]
        "nice" => libc::RLIMIT_NICE,
        #[cfg(target_os = "linux")]
        "rtprio" => libc::RLIMIT_RTPRIO,
        #[cfg(target_os = "linux")]
        "rttime" => libc::RLIMIT_RTTIME,
        #[cfg(target_os = "linux")]
        "sigpending" => libc::RLIMIT_SIGPENDING,
        _ => return None,
    };
    Some(number as u64)
}
