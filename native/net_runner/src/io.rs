//! Non-blocking reads and writes of a descriptor.

use crate::errno::from_rustix;
use crate::fd::{Fd, Inside, Interest};
use crate::terminal;
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::uio::writev;
use rustler::{Encoder, Env, Error, ListIterator, NewBinary, NifResult, OwnedBinary, Term};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

/// A pipe through which so many bytes have come gets more memory.
const BUSY: u64 = 128 * 1024;

/// What one `writev(2)` takes at the most (IOV_MAX).
const MAX_PARTS: usize = 1024;

/// So many bytes are written whole or not at all (pipe(7)): POSIX promises 512.
const PIPE_BUF: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

/// What each item of a list costs beside its bytes: to decode one takes as long as to copy so many bytes.
pub const ITEM: usize = 256;

/// The result of a read or a write that did not fail.
pub enum Outcome<'a> {
    Data(Term<'a>),
    EndOfFile,
    /// Nothing was done, as it would hold this scheduler for too long.
    TooLong,
    Written,
    /// Some was written, and this is left. Nothing is selected: the caller tries again by itself.
    Partial(Term<'a>),
}

/// How much is read at once when the last read gave no sign that there is more. The buffer is on the stack. To ask how much
/// there is (FIONREAD) would take the pipe's lock once more, for which the writer may be waiting.
const GUESS: usize = 32 * 1024;

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The process that the VM tells when it is worth another try. While that waits, guests are kept out.
    Server,
    /// Any other, which is inside the door, and asks the server when nothing is to be had.
    Guest,
}

/// What can be known of a descriptor without reading.
pub enum Ahead {
    Something,
    EndOfFile,
}

/// Looks whether there is something to read, or the end has come: then nobody has the other end open any more. Where neither
/// is so, the VM will tell.
pub fn look_ahead(env: Env, fd: &Fd) -> Result<Ahead, Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    let mut fds = [PollFd::new(inside.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Err(errno) => Err(wait_if_again(errno, &inside, Interest::Read)),
        Ok(0) => Err(wait_if_again(Errno::EAGAIN, &inside, Interest::Read)),
        Ok(_) => Ok(match fds[0].revents() {
            Some(events) if events.contains(PollFlags::POLLIN) => Ahead::Something,
            _ => Ahead::EndOfFile,
        }),
    }
}

/// Reads at most `max_bytes`, or nothing (`TooLong`) when more than `budget` bytes would be moved.
pub fn read<'a>(
    env: Env<'a>,
    fd: &Fd,
    max_bytes: usize,
    budget: usize,
    who: Who,
) -> Result<Outcome<'a>, Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    let available = if fd.plenty.load(Ordering::Relaxed) {
        available(&inside).min(max_bytes)
    } else {
        0
    };
    if available > budget {
        return Ok(Outcome::TooLong);
    }
    let read = if available <= GUESS {
        let room = max_bytes.min(GUESS);
        let mut read = read_small(env, &inside, room);
        if matches!(read, Err(Errno::EAGAIN)) && fd.pace.comes_soon(env, inside.as_fd()) {
            read = read_small(env, &inside, room);
        }
        fd.plenty
            .store(matches!(read, Ok((GUESS, _))), Ordering::Relaxed);
        read
    } else {
        read_large(env, &inside, available)
    };
    match read {
        Ok((0, _)) => Ok(Outcome::EndOfFile),
        Ok((length, data)) => {
            fd.pace.found();
            if fd.read.add(length) >= BUSY && fd.pipe_size.load(Ordering::Relaxed) != 0 {
                grow_pipe(fd, &inside);
            }
            Ok(Outcome::Data(data))
        }
        // No process has the slave open any more.
        Err(Errno::EIO) if fd.is_terminal() => Ok(Outcome::EndOfFile),
        Err(errno) if who == Who::Guest => Err(Failure::Errno(errno)),
        Err(errno) => Err(wait_if_again(errno, &inside, Interest::Read)),
    }
}

/// For a guest: writes all of a list of binaries, or nothing, which a pipe promises for so many bytes as `PIPE_BUF`. `Again`
/// when there are more.
pub fn write_whole<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> Result<Outcome<'a>, Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    if fd.is_terminal() || !is_written_whole(iovec.decode()?) {
        return Err(Failure::Again);
    }
    let parts = parts(iovec, PIPE_BUF)?;
    loop {
        match writev(&inside, &parts) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Failure::Errno(errno)),
            Ok(all) => {
                fd.written.add(all);
                return Ok(Outcome::Written);
            }
        }
    }
}

/// Whether a pipe takes this list in one `writev(2)`, all of it or nothing.
fn is_written_whole(list: ListIterator) -> bool {
    let mut total = 0;
    for (before, item) in list.enumerate() {
        total += item
            .decode::<rustler::Binary>()
            .map_or(0, |binary| binary.len());
        if total > PIPE_BUF || before == MAX_PARTS {
            return false;
        }
    }
    true
}

/// Writes a list of binaries until all is written, the pipe is full, or `budget` bytes are written.
pub fn write<'a>(
    env: Env<'a>,
    fd: &Fd,
    iovec: Term<'a>,
    budget: usize,
) -> Result<Outcome<'a>, Failure> {
    let (outcome, written) = write_uncounted(env, fd, iovec, budget)?;
    fd.written.add(written);
    Ok(outcome)
}

/// The same, and how many bytes were written.
pub fn write_uncounted<'a>(
    env: Env<'a>,
    fd: &Fd,
    iovec: Term<'a>,
    budget: usize,
) -> Result<(Outcome<'a>, usize), Failure> {
    let inside = fd.enter(env).ok_or(Failure::Closed)?;
    // Race: half a write. What a guest writes must not come between two parts of this.
    if !is_written_whole(iovec.decode()?) && !fd.guests.shut() {
        return Err(Failure::Guests);
    }
    // The kernel would accept the bytes, and keep them for a reader that may never come.
    if fd.is_terminal() && terminal::is_hung_up(inside.as_fd()) {
        return Err(Failure::Errno(Errno::EPIPE));
    }
    let mut left = iovec;
    let mut written = 0;
    while written < budget {
        if left.is_empty_list() {
            break;
        }
        match writev(&inside, &parts(left, budget - written)?) {
            Ok(count) => {
                written += count;
                left = skip(env, left, count)?;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                if grow_pipe(fd, &inside) {
                    continue;
                }
                if written == 0 {
                    return Err(wait_if_again(Errno::EAGAIN, &inside, Interest::Write));
                }
                break;
            }
            Err(errno) if written == 0 => return Err(Failure::Errno(errno)),
            // The next write finds it again.
            Err(_) => break,
        }
    }
    let outcome = if left.is_empty_list() {
        Outcome::Written
    } else {
        Outcome::Partial(left)
    };
    Ok((outcome, written))
}

pub enum Failure {
    /// Selected: the VM tells when another try is worth it.
    Again,
    /// A guest is inside: another try is worth it at once.
    Guests,
    Closed,
    Errno(Errno),
    BadArgument,
}

impl From<Error> for Failure {
    fn from(_: Error) -> Failure {
        Failure::BadArgument
    }
}

/// Race: ready before the select.
fn wait_if_again(errno: Errno, inside: &Inside, interest: Interest) -> Failure {
    match errno {
        Errno::EAGAIN | Errno::EINTR => match inside.select(interest) {
            Ok(()) => Failure::Again,
            Err(errno) => Failure::Errno(errno),
        },
        errno => Failure::Errno(errno),
    }
}

/// How many bytes a read would give now; 0 when it cannot be told.
fn available(inside: &Inside) -> usize {
    unread(inside).unwrap_or(0)
}

/// How many bytes can be read (FIONREAD, pipe(7)).
pub fn unread(inside: &Inside) -> nix::Result<usize> {
    let count = rustix::io::ioctl_fionread(inside).map_err(from_rustix)?;
    Ok(count as usize)
}

fn read_small<'a>(env: Env<'a>, inside: &Inside, room: usize) -> nix::Result<(usize, Term<'a>)> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); GUESS];
    loop {
        match rustix::io::read(inside, &mut buffer[..room]) {
            Ok((filled, _)) => {
                let mut binary = NewBinary::new(env, filled.len());
                binary.as_mut_slice().copy_from_slice(filled);
                return Ok((filled.len(), binary.into()));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(from_rustix(errno)),
        }
    }
}

fn read_large<'a>(env: Env<'a>, inside: &Inside, size: usize) -> nix::Result<(usize, Term<'a>)> {
    let mut binary = OwnedBinary::new(size).ok_or(Errno::ENOMEM)?;
    let length = loop {
        match nix::unistd::read(inside, binary.as_mut_slice()) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    // Less than was there only if somebody else reads the same pipe.
    if length < size {
        binary.realloc_or_copy(length);
    }
    Ok((length, binary.release(env).to_term(env)))
}

/// Gives the pipe the size that was asked for, once. If the kernel refuses (pipe(7) has limits for an unprivileged user),
/// it stays as it is.
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
fn grow_pipe(fd: &Fd, inside: &Inside) -> bool {
    use nix::fcntl::{fcntl, FcntlArg};
    let size = fd.pipe_size.swap(0, Ordering::Relaxed);
    let change = FcntlArg::F_SETPIPE_SZ(size as libc::c_int);
    size != 0 && fcntl(inside, change).is_ok()
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
fn grow_pipe(_fd: &Fd, _inside: &Inside) -> bool {
    false
}

/// The first binaries of a list, for one `writev(2)` of at most `budget` bytes, without a copy. Only the first may be cut to
/// fit.
fn parts<'a>(list: Term<'a>, budget: usize) -> NifResult<Vec<IoSlice<'a>>> {
    let mut parts = Vec::with_capacity(16);
    let mut left = budget;
    for item in list.decode::<ListIterator>()?.take(MAX_PARTS) {
        let binary: rustler::Binary<'a> = item.decode()?;
        let bytes = binary.as_slice();
        if bytes.len() > left {
            if parts.is_empty() {
                parts.push(IoSlice::new(&bytes[..left]));
            }
            break;
        }
        left -= bytes.len();
        parts.push(IoSlice::new(bytes));
    }
    Ok(parts)
}

/// What is left of a list of binaries behind its first `count` bytes, and the empty binaries that follow those.
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

/// What the bytes and the items of a list of binaries cost. Stops counting when the limit is passed.
pub fn cost_up_to(list: ListIterator, limit: usize) -> usize {
    let mut total = 0;
    for item in list {
        total += ITEM
            + item
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
        use crate::atoms::{eof, ok, partial, too_long};
        match self {
            Outcome::Data(data) => (ok(), data.in_env(env)).encode(env),
            Outcome::TooLong => too_long().encode(env),
            Outcome::EndOfFile => eof().encode(env),
            Outcome::Written => ok().encode(env),
            Outcome::Partial(left) => (partial(), left.in_env(env)).encode(env),
        }
    }
}
