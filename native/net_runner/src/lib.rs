//! The NIF: pipe descriptors as resources, reads and writes with `enif_select`, and the VM's end of
//! the helper's sockets. The Elixir side of it is `NetRunner.Process.Native`.

mod fd;
mod io;
mod spawn;

use fd::{Fd, Interest};
use io::{Failure, Outcome};
use nix::errno::Errno;
use nix::sys::socket::{recv, send, shutdown, MsgFlags, Shutdown};
use rustler::{Atom, Encoder, Env, Error, ListIterator, NifResult, Term};
use std::os::fd::{AsRawFd, BorrowedFd};
use wire::{Event, Request, Step, EVENT_SIZE, GREETING};

mod atoms {
    rustler::atoms! {
        ok, error, eof, reset, partial, eagain, closed, nil,
        pipe, redirect, null,
        file, search_path, args, env, cd, stop_signal, kill_timeout, leftovers, leave,
        started, failed, exited, signaled, malformed, too_large,
        receive, fork, setup, exec,
    }
}

/// What a call on a normal scheduler may move: a copy of this takes some 10 microseconds.
const SMALL: usize = 64 * 1024;

/// What a call on a dirty scheduler writes before it gives the process a chance to do other work.
const BUDGET: usize = 1024 * 1024;

rustler::init!("Elixir.NetRunner.Process.Native", load = load);

fn load(env: Env, _info: Term) -> bool {
    fd::register(env)
}

fn errno_atom(env: Env, errno: Errno) -> Term {
    // As many names as nix knows errnos.
    Atom::from_str(env, &format!("{errno:?}").to_ascii_lowercase())
        .unwrap_or(atoms::malformed())
        .encode(env)
}

fn error_term<'a>(env: Env<'a>, reason: impl Encoder) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

fn answer<'a>(env: Env<'a>, result: Result<Outcome<'a>, Failure>) -> NifResult<Term<'a>> {
    match result {
        Ok(outcome) => Ok(outcome.into_term(env)),
        Err(Failure::Again) => Ok(error_term(env, atoms::eagain())),
        Err(Failure::Closed) => Ok(error_term(env, atoms::closed())),
        Err(Failure::Errno(errno)) => Ok(error_term(env, errno_atom(env, errno))),
        Err(Failure::BadArgument) => Err(Error::BadArg),
    }
}

fn done(env: Env, result: nix::Result<()>) -> Term {
    match result {
        Ok(()) => atoms::ok().encode(env),
        Err(errno) => error_term(env, errno_atom(env, errno)),
    }
}

#[rustler::nif]
fn nif_read<'a>(env: Env<'a>, fd: &Fd, max_bytes: usize) -> NifResult<Term<'a>> {
    answer(env, io::read(env, fd, max_bytes.min(SMALL)))
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_read_bulk<'a>(env: Env<'a>, fd: &Fd, max_bytes: usize) -> NifResult<Term<'a>> {
    answer(env, io::read(env, fd, max_bytes))
}

#[rustler::nif]
fn nif_write<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    if io::size_up_to(iovec.decode()?, SMALL) > SMALL {
        return Ok(atoms::too_large().encode(env));
    }
    answer(env, io::write(env, fd, iovec, SMALL))
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_write_bulk<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    answer(env, io::write(env, fd, iovec, BUDGET))
}

#[rustler::nif]
fn nif_close(env: Env, fd: &Fd) -> Atom {
    fd.close(env);
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_start_helper<'a>(env: Env<'a>, path: rustler::Binary) -> NifResult<Term<'a>> {
    match spawn::start_helper(&path) {
        Ok((socket, pid)) => {
            let socket = fd::into_term(env, socket, 0)?;
            Ok((atoms::ok(), socket, pid.as_raw()).encode(env))
        }
        Err(errno) => Ok(error_term(env, errno_atom(env, errno))),
    }
}

/// The helper's greeting, and the one that this library expects.
#[rustler::nif]
fn nif_receive_greeting<'a>(env: Env<'a>, socket: &Fd) -> Term<'a> {
    let Some(inside) = socket.enter(env) else {
        return error_term(env, atoms::closed());
    };
    let mut bytes = [0; 256];
    match recv(inside.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => atoms::eof().encode(env),
        Ok(length) => {
            let greeting = String::from_utf8_lossy(&bytes[..length]);
            (atoms::ok(), greeting.as_ref(), GREETING).encode(env)
        }
        Err(errno) => again_or_error(env, &inside, errno),
    }
}

fn again_or_error<'a>(env: Env<'a>, inside: &fd::Inside, errno: Errno) -> Term<'a> {
    let errno = match errno {
        Errno::EAGAIN | Errno::EINTR => match inside.select(Interest::Read) {
            Ok(()) => Errno::EAGAIN,
            Err(errno) => errno,
        },
        errno => errno,
    };
    error_term(env, errno_atom(env, errno))
}

#[rustler::nif]
fn nif_spawn<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    spec_size: usize,
    stdio: (Atom, Atom, Atom),
    pipe_size: u32,
) -> NifResult<Term<'a>> {
    if spec_size > SMALL {
        return Ok(atoms::too_large().encode(env));
    }
    spawn_command(env, launcher, fields, spec_size, stdio, pipe_size)
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_spawn_bulk<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    spec_size: usize,
    stdio: (Atom, Atom, Atom),
    pipe_size: u32,
) -> NifResult<Term<'a>> {
    spawn_command(env, launcher, fields, spec_size, stdio, pipe_size)
}

fn spawn_command<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    spec_size: usize,
    stdio: (Atom, Atom, Atom),
    pipe_size: u32,
) -> NifResult<Term<'a>> {
    let Some(inside) = launcher.enter(env) else {
        return Ok(error_term(env, atoms::closed()));
    };
    let spec = spawn::write_spec(fields, spec_size)?;
    // SAFETY: `inside` keeps the number open for longer than this borrow.
    let socket = unsafe { BorrowedFd::borrow_raw(inside.as_raw_fd()) };
    let ends = match spawn::spawn(socket, spec, stdio) {
        Ok(ends) => ends,
        Err(Errno::EAGAIN) => {
            // The launcher has not kept up; its socket is full.
            return Ok(error_term(env, atoms::eagain()));
        }
        Err(errno) => return Ok(error_term(env, errno_atom(env, errno))),
    };
    let pipe_term = |end: Option<_>| match end {
        Some(end) => fd::into_term(env, end, pipe_size),
        None => Ok(atoms::nil().encode(env)),
    };
    let control = fd::into_term(env, ends.control, 0)?;
    let stdin = pipe_term(ends.stdin)?;
    let stdout = pipe_term(ends.stdout)?;
    let stderr = pipe_term(ends.stderr)?;
    Ok((atoms::ok(), control, stdin, stdout, stderr).encode(env))
}

/// Has the VM tell when the launcher's socket has room.
#[rustler::nif]
fn nif_await_room<'a>(env: Env<'a>, launcher: &Fd) -> Term<'a> {
    match launcher.enter(env) {
        None => error_term(env, atoms::closed()),
        Some(inside) => done(env, inside.select(Interest::Write)),
    }
}

#[rustler::nif]
fn nif_receive_event<'a>(env: Env<'a>, control: &Fd) -> Term<'a> {
    let Some(inside) = control.enter(env) else {
        return error_term(env, atoms::closed());
    };
    let mut frame = [0; EVENT_SIZE];
    // A shepherd that exits with a request unread resets the connection (unix(7)): that is told
    // once, before what it had said.
    let (received, reset) = match recv(inside.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
        Err(Errno::ECONNRESET) => (
            recv(inside.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT),
            true,
        ),
        received => (received, false),
    };
    match received {
        Ok(0) if reset => atoms::reset().encode(env),
        Ok(0) => atoms::eof().encode(env),
        Ok(length) => match Event::decode(&frame[..length]) {
            Ok(event) => event_term(env, event),
            Err(_) => error_term(env, atoms::malformed()),
        },
        Err(errno) => again_or_error(env, &inside, errno),
    }
}

fn event_term(env: Env, event: Event) -> Term {
    match event {
        Event::Started { pid } => (atoms::started(), pid).encode(env),
        Event::Failed { step, errno } => {
            let step = match step {
                Step::Receive => atoms::receive(),
                Step::Fork => atoms::fork(),
                Step::Setup => atoms::setup(),
                Step::Cd => atoms::cd(),
                Step::Exec => atoms::exec(),
            };
            (
                atoms::failed(),
                step,
                errno_atom(env, Errno::from_raw(errno)),
            )
                .encode(env)
        }
        Event::Exited(exit) => {
            let how = match exit.result {
                Ok(code) => (atoms::exited(), code).encode(env),
                Err(signal) => (atoms::signaled(), signal, exit.core_dumped).encode(env),
            };
            let usage = (exit.max_rss_bytes, exit.user_time_us, exit.system_time_us);
            (atoms::exited(), how, usage).encode(env)
        }
    }
}

#[rustler::nif]
fn nif_send_signal<'a>(env: Env<'a>, control: &Fd, number: i32) -> Term<'a> {
    send_request(env, control, Request::Signal { number })
}

fn send_request<'a>(env: Env<'a>, control: &Fd, request: Request) -> Term<'a> {
    let Some(inside) = control.enter(env) else {
        return error_term(env, atoms::closed());
    };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    done(
        env,
        send(inside.as_raw_fd(), &request.encode(), flags).map(drop),
    )
}

/// Ends the command as a close does, but its end can still be heard.
#[rustler::nif]
fn nif_end<'a>(env: Env<'a>, control: &Fd) -> Term<'a> {
    match control.enter(env) {
        None => error_term(env, atoms::closed()),
        Some(inside) => done(env, shutdown(inside.as_raw_fd(), Shutdown::Write)),
    }
}
