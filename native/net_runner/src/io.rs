//! Non-blocking reads and writes of a descriptor.

use crate::fd::{Fd, Inside, Interest};
use nix::errno::Errno;
use rustler::sys::{ErlNifEnv, ERL_NIF_TERM};
use rustler::{Encoder, Env, Error, ListIterator, NewBinary, NifResult, OwnedBinary, Term};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::Ordering;

/// A pipe through which so much has come is worth more memory.
const BUSY: u32 = 128 * 1024;

/// What one `writev(2)` takes at the most (IOV_MAX).
const MAX_PARTS: usize = 1024;

/// What a read or a write came to, when it did not fail.
pub enum Outcome<'a> {
    Data(Term<'a>),
    EndOfFile,
    /// Nothing was done: it is too much for the scheduler that called.
    TooLarge,
    Written,
    /// Some was written and this is left; there may be room for more already.
    Partial(Term<'a>),
}

/// What is read, into a buffer on the stack, where nothing says that there is more. The question how much there
/// is (FIONREAD) would take the pipe's lock once more, for which the writer is waiting already.
const GUESS: usize = 32 * 1024;

/// What a read does where nothing is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum IfEmpty {
    /// Looks for a quick answer, and then has the VM tell when there is something.
    Wait,
    /// Says so.
    Return,
}

/// Reads at most `max_bytes`; nothing, and says so, when more than `budget` would have to be moved.
pub fn read<'a>(
    env: Env<'a>,
    fd: &Fd,
    max_bytes: usize,
    budget: usize,
    if_empty: IfEmpty,
) -> Result<Outcome<'a>, Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    let available = if fd.plenty.load(Ordering::Relaxed) {
        available(&inside).min(max_bytes)
    } else {
        0
    };
    if available > budget {
        return Ok(Outcome::TooLarge);
    }
    let read = if available <= GUESS {
        let mut buffer = [MaybeUninit::<u8>::uninit(); GUESS];
        let room = max_bytes.min(buffer.len());
        let start = buffer.as_mut_ptr().cast();
        let mut read = read_into(&inside, start, room);
        if read == Err(Errno::EAGAIN)
            && if_empty == IfEmpty::Wait
            && fd.pace.comes_soon(env, &inside)
        {
            read = read_into(&inside, start, room);
        }
        read.map(|length| {
            let mut binary = NewBinary::new(env, length);
            // SAFETY: read(2) has written `length` bytes of the buffer.
            let filled = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast(), length) };
            binary.as_mut_slice().copy_from_slice(filled);
            fd.plenty.store(length == GUESS, Ordering::Relaxed);
            (length, binary.into())
        })
    } else {
        OwnedBinary::new(available)
            .ok_or(Errno::ENOMEM)
            .and_then(|mut binary| {
                let start = binary.as_mut_slice().as_mut_ptr();
                let length = read_into(&inside, start, available)?;
                // Shorter only when somebody else reads the same pipe.
                if length < available {
                    binary.realloc_or_copy(length);
                }
                Ok((length, binary.release(env).to_term(env)))
            })
    };
    match read {
        Ok((0, _)) => Ok(Outcome::EndOfFile),
        Ok((length, data)) => {
            fd.pace.found();
            // Not counted on when the pipe has its size: the count would overflow.
            if fd.pipe_size.load(Ordering::Relaxed) != 0
                && fd.traffic.fetch_add(length as u32, Ordering::Relaxed) >= BUSY
            {
                grow_pipe(fd, &inside);
            }
            Ok(Outcome::Data(data))
        }
        // Nobody has the terminal open any more.
        Err(Errno::EIO) if fd.terminal => Ok(Outcome::EndOfFile),
        Err(errno) if if_empty == IfEmpty::Return => Err(Failure::Errno(errno)),
        Err(errno) => Err(wait_if_again(errno, &inside, Interest::Read)),
    }
}

/// Writes a list of binaries until all is written, the pipe is full, or `budget` bytes are.
pub fn write<'a>(
    env: Env<'a>,
    fd: &Fd,
    iovec: Term<'a>,
    budget: usize,
) -> Result<Outcome<'a>, Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    let mut left = iovec;
    let mut written = 0;
    while written < budget {
        let Some(parts) = Parts::inspect(env, left)? else {
            return Ok(Outcome::Written);
        };
        match writev(&inside, &parts, budget - written) {
            Ok(count) => {
                written += count;
                left = skip(env, left, count)?;
            }
            Err(Errno::EAGAIN) => {
                if grow_pipe(fd, &inside) {
                    continue;
                }
                if written == 0 {
                    return Err(wait_if_again(Errno::EAGAIN, &inside, Interest::Write));
                }
                break;
            }
            Err(errno) => return Err(Failure::Errno(errno)),
        }
    }
    if left.is_empty_list() {
        Ok(Outcome::Written)
    } else {
        Ok(Outcome::Partial(left))
    }
}

pub enum Failure {
    /// The VM will tell when it is worth another try.
    Again,
    Closed,
    Errno(Errno),
    BadArgument,
}

impl From<Error> for Failure {
    fn from(_: Error) -> Failure {
        Failure::BadArgument
    }
}

fn wait_if_again(errno: Errno, inside: &Inside, interest: Interest) -> Failure {
    match errno {
        Errno::EAGAIN => match inside.select(interest) {
            Ok(()) => Failure::Again,
            Err(errno) => Failure::Errno(errno),
        },
        errno => Failure::Errno(errno),
    }
}

/// How many bytes a read would give now; 0 when it cannot be told.
fn available(inside: &Inside) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(inside.as_raw_fd(), libc::FIONREAD, &mut count) };
    if result == -1 {
        return 0;
    }
    usize::try_from(count).unwrap_or(0)
}

fn read_into(inside: &Inside, start: *mut u8, length: usize) -> nix::Result<usize> {
    loop {
        // SAFETY: the callers own `length` bytes from `start` on.
        let count = unsafe { libc::read(inside.as_raw_fd(), start.cast(), length) };
        match Errno::result(count) {
            Err(Errno::EINTR) => continue,
            result => return result.map(|count| count as usize),
        }
    }
}

/// Gives the pipe the size that was asked for, once. A refusal (the limits of an unprivileged
/// user, pipe(7)) leaves it as it is.
#[cfg(target_os = "linux")]
fn grow_pipe(fd: &Fd, inside: &Inside) -> bool {
    let size = fd.pipe_size.swap(0, Ordering::Relaxed);
    // SAFETY: F_SETPIPE_SZ takes an int.
    size != 0 && unsafe { libc::fcntl(inside.as_raw_fd(), libc::F_SETPIPE_SZ, size) } != -1
}

#[cfg(not(target_os = "linux"))]
fn grow_pipe(_fd: &Fd, _inside: &Inside) -> bool {
    false
}

extern "C" {
    /// erl_nif(3). The releases of Rustler that declare it require a newer Rust than this library does.
    fn enif_inspect_iovec(
        env: *mut ErlNifEnv,
        max_elements: usize,
        list: ERL_NIF_TERM,
        tail: *mut ERL_NIF_TERM,
        iovec: *mut *mut IoVec,
    ) -> libc::c_int;
}

/// The start of `ErlNifIOVec` in erl_nif.h. The VM makes it; more fields follow.
#[repr(C)]
struct IoVec {
    count: libc::c_int,
    size: usize,
    parts: *const libc::iovec,
}

/// The first binaries of a list as `writev(2)` takes them, with nothing copied. The memory is the
/// binaries' own, which the list keeps alive; the vector itself is the environment's, and goes when
/// the NIF returns.
struct Parts(*mut IoVec);

impl Parts {
    /// `None` when the list is empty.
    fn inspect<'a>(env: Env<'a>, list: Term<'a>) -> NifResult<Option<Parts>> {
        if list.is_empty_list() {
            return Ok(None);
        }
        let mut tail = MaybeUninit::uninit();
        // A null pointer asks the VM to allocate one.
        let mut iovec = ptr::null_mut();
        // SAFETY: the term is of this environment, the pointers are to live values.
        let inspected = unsafe {
            enif_inspect_iovec(
                env.as_c_arg(),
                MAX_PARTS,
                list.as_c_arg(),
                tail.as_mut_ptr(),
                &mut iovec,
            )
        };
        if inspected == 0 {
            return Err(Error::BadArg);
        }
        Ok(Some(Parts(iovec)))
    }

    fn slice(&self) -> &[libc::iovec] {
        // SAFETY: the VM filled the vector, and its public layout starts as `IoVec`.
        unsafe {
            let head = &*self.0;
            if head.count <= 0 {
                return &[];
            }
            std::slice::from_raw_parts(head.parts, head.count as usize)
        }
    }
}

/// One `writev(2)` of at most about `budget` bytes: whole parts, but the first is cut to fit.
fn writev(inside: &Inside, parts: &Parts, budget: usize) -> nix::Result<usize> {
    let parts = parts.slice();
    let mut total = 0;
    let fitting = parts
        .iter()
        .take_while(|part| {
            total += part.iov_len;
            total <= budget
        })
        .count();
    loop {
        let count = match parts.first() {
            None => return Ok(0),
            Some(first) if fitting == 0 => {
                let length = first.iov_len.min(budget);
                // SAFETY: the part describes a binary that its list keeps alive.
                unsafe { libc::write(inside.as_raw_fd(), first.iov_base, length) }
            }
            // SAFETY: as above, for each of them.
            Some(_) => unsafe {
                libc::writev(inside.as_raw_fd(), parts.as_ptr(), fitting as libc::c_int)
            },
        };
        match Errno::result(count) {
            Err(Errno::EINTR) => continue,
            result => return result.map(|count| count as usize),
        }
    }
}

/// What is left of a list of binaries after its first `count` bytes, and the empty ones behind.
fn skip<'a>(env: Env<'a>, list: Term<'a>, mut count: usize) -> NifResult<Term<'a>> {
    let mut list = list;
    loop {
        if list.is_empty_list() {
            return Ok(list);
        }
        let (head, tail) = list.list_get_cell()?;
        let binary: rustler::Binary = head.decode()?;
        if count < binary.len() {
            if count == 0 {
                return Ok(list);
            }
            let rest = binary.make_subbinary(count, binary.len() - count)?;
            return Ok(tail.list_prepend(rest.to_term(env)));
        }
        count -= binary.len();
        list = tail;
    }
}

/// The bytes of a list of binaries, up to a limit that is not passed by much.
pub fn size_up_to(list: ListIterator, limit: usize) -> usize {
    let mut total = 0;
    for item in list {
        total += item
            .decode::<rustler::Binary>()
            .map_or(0, |binary| binary.len());
        if total > limit {
            break;
        }
    }
    total
}

impl Outcome<'_> {
    pub fn into_term<'a>(self, env: Env<'a>) -> Term<'a>
    where
        Self: 'a,
    {
        use crate::atoms::{eof, ok, partial, too_large};
        match self {
            Outcome::Data(data) => (ok(), data.in_env(env)).encode(env),
            Outcome::TooLarge => too_large().encode(env),
            Outcome::EndOfFile => eof().encode(env),
            Outcome::Written => ok().encode(env),
            Outcome::Partial(left) => (partial(), left.in_env(env)).encode(env),
        }
    }
}
