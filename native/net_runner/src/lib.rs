//! The NIF: pipe descriptors as resources, reads and writes with `enif_select`, and the VM's end of
//! the helper's sockets. The Elixir side of it is `NetRunner.System.Native`.

mod errno;
mod fd;
mod helper;
mod idle;
mod inherit;
mod io;
mod lines;
mod pace;
mod pipe;
mod submit;
mod system;
mod terminal;
mod window;

use fd::{Fd, Interest, Kind};
use io::{Ahead, Failure, Outcome, Who};
use nix::errno::Errno;
use nix::sys::socket::{recv, send, shutdown, MsgFlags, Shutdown};
use rustler::{
    Atom, Binary, Encoder, Env, Error, ListIterator, LocalPid, NifResult, ResourceArc, Term,
};
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use submit::Connections;
use window::{Pushed, Window};
use wire::socket::{NO_SIGNAL, ONE_MORE};
use wire::{Event, Part, Request, Step, Target, EVENT_SIZE, GREETING};

mod atoms {
    rustler::atoms! {
        ok, error, eof, reset, partial, eagain, closed, nil,
        pipe, redirect, null, inherit, terminal, pty, fd, read, append,
        file, search_path, args, env, environment, cd, stop_signal, kill_timeout, leftovers, leave,
        umask, nice, rlimit, uid, gid, groups, no_new_privs, cgroup, joined_cgroup, input, output,
        started, failed, exited, signaled, malformed, too_long,
        receive, fork, setup, cwd, exec, stdin, stdout, stderr, rlimits, group, user, einval,
        command, tree, fed, full, guests,
        sandbox, readable, writable, executable, readable_if_there, executable_if_there, connect, bind,
        own_processes, private_tmp, locked_metadata, all, none, unix, loopback, ports,
        system, filesystem, signals, system_calls, capabilities, filter, processes, proc, mounts, tmp, metadata,
    }
}

/// What a call on a normal scheduler may cost: the bytes that it moves, and [`io::ITEM`] for each item of a list. To copy
/// so many bytes takes some 100 microseconds. For less, the change to a dirty scheduler costs more than it saves.
const SMALL: usize = 512 * 1024;

/// What one call on a dirty scheduler writes at most, so that the process gets to its other messages.
const BUDGET: usize = 1024 * 1024;

rustler::init!("Elixir.NetRunner.System.Native", load = load);

fn load(env: Env, _info: Term) -> bool {
    fd::register(env) && env.register::<Window>().is_ok()
}

fn errno_atom(env: Env, errno: Errno) -> Term {
    // This makes no more atoms than there are errnos that nix knows.
    Atom::from_str(env, &format!("{errno:?}").to_ascii_lowercase())
        .unwrap_or(atoms::malformed())
        .encode(env)
}

fn error_term<'a>(env: Env<'a>, reason: impl Encoder) -> Term<'a> {
    (atoms::error(), reason).encode(env)
}

/// The VM counts calls, not time. A call that moves this much uses up the process's timeslice, so that a process that
/// only reads and writes lets others run.
const MOVED_IN_A_TIMESLICE: usize = 2 * 1024 * 1024;

fn charge(env: Env, bytes: usize) {
    let percent = (bytes * 100 / MOVED_IN_A_TIMESLICE).clamp(1, 100);
    rustler::schedule::consume_timeslice(env, percent as i32);
}

fn answer<'a>(env: Env<'a>, result: Result<Outcome<'a>, Failure>) -> NifResult<Term<'a>> {
    match result {
        Ok(outcome) => Ok(outcome.into_term(env)),
        Err(Failure::Again) => Ok(error_term(env, atoms::eagain())),
        Err(Failure::Guests) => Ok(error_term(env, atoms::guests())),
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
    answer(env, read_some(env, fd, max_bytes, Who::Server))
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_read_bulk<'a>(env: Env<'a>, fd: &Fd, max_bytes: usize) -> NifResult<Term<'a>> {
    answer(env, io::read(env, fd, max_bytes, usize::MAX, Who::Server))
}

/// For a process other than the command's server: waits for nothing.
#[rustler::nif]
fn nif_try_read<'a>(env: Env<'a>, fd: &Fd, max_bytes: usize) -> NifResult<Term<'a>> {
    as_guest(env, fd, || read_some(env, fd, max_bytes, Who::Guest))
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_try_read_bulk<'a>(env: Env<'a>, fd: &Fd, max_bytes: usize) -> NifResult<Term<'a>> {
    as_guest(env, fd, || {
        io::read(env, fd, max_bytes, usize::MAX, Who::Guest)
    })
}

/// As `nif_try_read`. Writes all or nothing.
#[rustler::nif]
fn nif_try_write<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    charge(env, 1);
    as_guest(env, fd, || io::write_whole(env, fd, iovec))
}

fn as_guest<'a>(
    env: Env<'a>,
    fd: &Fd,
    act: impl FnOnce() -> Result<Outcome<'a>, Failure>,
) -> NifResult<Term<'a>> {
    let result = match fd.guests.enter() {
        Some(_visit) => act(),
        None => Err(Failure::Again),
    };
    if !matches!(
        result,
        Ok(Outcome::Data(_) | Outcome::Written | Outcome::TooLong)
    ) {
        fd.guests.turn_away();
    }
    answer(env, result)
}

/// Keeps guests out. False: one is still inside, and what it does comes before what is done from now on.
#[rustler::nif]
fn nif_keep_guests_out(fd: &Fd) -> bool {
    fd.guests.shut()
}

/// Lets them in again, if so many have come to the server as were turned away.
#[rustler::nif]
fn nif_let_guests_in(fd: &Fd, received: u32) -> Atom {
    fd.guests.open(received);
    atoms::ok()
}

/// What was read and what was written so far: bytes and calls. Also of one that is closed.
#[rustler::nif]
fn nif_traffic(fd: &Fd) -> ((u64, u64), (u64, u64)) {
    (fd.read.so_far(), fd.written.so_far())
}

/// Whether there is something to read, or the end has come; takes nothing.
#[rustler::nif]
fn nif_look_ahead<'a>(env: Env<'a>, fd: &Fd) -> Term<'a> {
    match io::look_ahead(env, fd) {
        Ok(Ahead::Something) => atoms::ok().encode(env),
        Ok(Ahead::EndOfFile) => atoms::eof().encode(env),
        Err(Failure::Again) => error_term(env, atoms::eagain()),
        Err(Failure::Errno(errno)) => error_term(env, errno_atom(env, errno)),
        Err(Failure::Closed | Failure::Guests | Failure::BadArgument) => {
            error_term(env, atoms::closed())
        }
    }
}

fn read_some<'a>(
    env: Env<'a>,
    fd: &Fd,
    max_bytes: usize,
    who: Who,
) -> Result<Outcome<'a>, Failure> {
    let result = io::read(env, fd, max_bytes, SMALL, who);
    if let Ok(Outcome::Data(data)) = &result {
        charge(env, data.decode::<rustler::Binary>()?.len());
    }
    result
}

#[rustler::nif]
fn nif_write<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    let cost = io::cost_up_to(iovec.decode()?, SMALL);
    if cost > SMALL {
        return Ok(atoms::too_long().encode(env));
    }
    charge(env, cost);
    answer(env, io::write(env, fd, iovec, SMALL))
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_write_bulk<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    answer(env, io::write(env, fd, iovec, BUDGET))
}

#[rustler::nif]
fn nif_write_uncounted<'a>(env: Env<'a>, fd: &Fd, iovec: Term<'a>) -> NifResult<Term<'a>> {
    let written = io::write_uncounted(env, fd, iovec, SMALL).map(|(outcome, _)| outcome);
    answer(env, written)
}

#[rustler::nif]
fn nif_window() -> ResourceArc<Window> {
    ResourceArc::new(Window::default())
}

#[rustler::nif]
fn nif_push(env: Env, window: ResourceArc<Window>, server: LocalPid, piece: Binary) -> Atom {
    // A server that was killed has closed no window. `Process.alive?/1` would wait until a living one has handled what it
    // was sent, for each piece.
    if !server.is_alive(env) {
        return atoms::closed();
    }
    match window.push(&piece) {
        Pushed::Behind => atoms::ok(),
        // Race: laid, and not told.
        Pushed::First => match env.send(&server, atoms::fed()) {
            Ok(()) => atoms::ok(),
            Err(_) => atoms::closed(),
        },
        Pushed::Full => atoms::full(),
        Pushed::Closed => atoms::closed(),
    }
}

#[rustler::nif]
fn nif_take<'a>(env: Env<'a>, window: ResourceArc<Window>) -> Term<'a> {
    window.take(env)
}

#[rustler::nif]
fn nif_close_window(window: ResourceArc<Window>) -> Atom {
    window.close();
    atoms::ok()
}

#[rustler::nif]
fn nif_close(env: Env, fd: &Fd) -> Atom {
    fd.close(env);
    atoms::ok()
}

/// Closes the control socket for its users, and keeps it for the next command: its shepherd is idle.
#[rustler::nif]
fn nif_retire(env: Env, control: &Fd) -> Atom {
    control.retire(env);
    atoms::ok()
}

/// Lets the idle shepherds go.
#[rustler::nif]
fn nif_let_idle_go() -> Atom {
    idle::clear();
    atoms::ok()
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_start_helper<'a>(env: Env<'a>, path: rustler::Binary) -> NifResult<Term<'a>> {
    match helper::start(&path) {
        Ok((socket, pid)) => {
            let socket = fd::into_term(env, socket, Kind::Plain)?;
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
    match receive(&inside, &mut bytes).0 {
        Ok(0) => atoms::eof().encode(env),
        Ok(length) => {
            let greeting = String::from_utf8_lossy(&bytes[..length]);
            (atoms::ok(), greeting.as_ref(), GREETING).encode(env)
        }
        Err(errno) => again_or_error(env, &inside, errno),
    }
}

/// What the other end said, and whether it was closed with something unread in it (unix(7)).
/// Race: reset before the report. Race: end before the report. Race: unread begin.
fn receive(inside: &fd::Inside, bytes: &mut [u8]) -> (nix::Result<usize>, bool) {
    let (mut reset, mut ended) = (false, false);
    loop {
        match recv(inside.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::ECONNRESET) if !reset => reset = true,
            Ok(0) if !ended => ended = true,
            received => return (received, reset),
        }
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

/// `spec_size` is about the bytes of the fields, `items` how many there are of all lists in them.
#[rustler::nif]
fn nif_submit<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    (spec_size, items): (usize, usize),
    connections: Connections<'a>,
    pipe_size: u32,
) -> NifResult<Term<'a>> {
    let size = spec_size.saturating_add(items.saturating_mul(io::ITEM));
    if size > SMALL || connections.may_wait() {
        return Ok(atoms::too_long().encode(env));
    }
    // On a dirty scheduler if the file system must be asked for the working directory: that may take any time.
    match submit::working_directory_at_hand() {
        Some(cwd) => submit_command(
            env,
            launcher,
            fields,
            spec_size,
            connections,
            pipe_size,
            cwd,
        ),
        None => Ok(atoms::too_long().encode(env)),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn nif_submit_bulk<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    (spec_size, _items): (usize, usize),
    connections: Connections<'a>,
    pipe_size: u32,
) -> NifResult<Term<'a>> {
    match submit::working_directory() {
        Ok(cwd) => submit_command(
            env,
            launcher,
            fields,
            spec_size,
            connections,
            pipe_size,
            cwd,
        ),
        Err(failure) => Ok(failure_term(env, failure)),
    }
}

fn failure_term(env: Env, failure: submit::Failure) -> Term {
    match failure {
        // EAGAIN: the launcher's socket is full.
        submit::Failure::Other(errno) => error_term(env, errno_atom(env, errno)),
        submit::Failure::Of(name, errno) => error_term(env, (name, errno_atom(env, errno))),
    }
}

fn submit_command<'a>(
    env: Env<'a>,
    launcher: &Fd,
    fields: ListIterator<'a>,
    spec_size: usize,
    connections: Connections<'a>,
    pipe_size: u32,
    cwd: OwnedFd,
) -> NifResult<Term<'a>> {
    let Some(inside) = launcher.enter(env) else {
        return Ok(error_term(env, atoms::closed()));
    };
    let spec = submit::write_spec(fields, spec_size)?;
    let side = match submit::submit(env, inside.as_fd(), cwd, spec, &connections) {
        Ok(side) => side,
        Err(failure) => return Ok(failure_term(env, failure)),
    };
    let kind = if connections.is_terminal() {
        Kind::Terminal
    } else {
        Kind::Pipe(pipe_size)
    };
    let term = |end: Option<_>| match end {
        Some(end) => fd::into_term(env, end, kind),
        None => Ok(atoms::nil().encode(env)),
    };
    let control = fd::into_term(env, side.control, Kind::Control(side.confinement))?;
    let [stdin, stdout, stderr] = side.stdio;
    let further = side
        .further
        .into_iter()
        .map(|(number, end)| Ok((number, fd::into_term(env, end, Kind::Pipe(pipe_size))?)))
        .collect::<NifResult<Vec<(u8, Term)>>>()?;
    Ok((
        atoms::ok(),
        control,
        term(stdin)?,
        term(stdout)?,
        term(stderr)?,
        further,
    )
        .encode(env))
}

/// The whole lines of a chunk, and the rest.
#[rustler::nif]
fn nif_lines<'a>(
    env: Env<'a>,
    chunk: rustler::Binary<'a>,
    max_lines: usize,
    trim: bool,
) -> NifResult<(Term<'a>, Term<'a>)> {
    lines::split(env, chunk, max_lines, trim)
}

/// A pipe between two commands: the end that one reads from, and the end that the other writes to.
#[rustler::nif]
fn nif_pipe<'a>(env: Env<'a>) -> NifResult<Term<'a>> {
    match pipe::new() {
        Ok((read, write)) => {
            let read = fd::into_term(env, read, Kind::Plain)?;
            let write = fd::into_term(env, write, Kind::Plain)?;
            Ok((atoms::ok(), read, write).encode(env))
        }
        Err(errno) => Ok(error_term(env, errno_atom(env, errno))),
    }
}

#[rustler::nif]
fn nif_set_window_size<'a>(env: Env<'a>, terminal: &Fd, rows: u16, columns: u16) -> Term<'a> {
    match terminal.enter(env) {
        None => error_term(env, atoms::closed()),
        Some(inside) => done(
            env,
            terminal::set_window_size(inside.as_fd(), rows, columns),
        ),
    }
}

/// How many bytes can be read at once.
#[rustler::nif]
fn nif_unread<'a>(env: Env<'a>, fd: &Fd) -> Term<'a> {
    match fd.enter(env).map(|inside| io::unread(&inside)) {
        None => error_term(env, atoms::closed()),
        Some(Ok(count)) => (atoms::ok(), count).encode(env),
        Some(Err(errno)) => error_term(env, errno_atom(env, errno)),
    }
}

/// The terminal's end-of-file character.
#[rustler::nif]
fn nif_eof_character<'a>(env: Env<'a>, terminal: &Fd) -> Term<'a> {
    match terminal
        .enter(env)
        .map(|inside| terminal::end_of_file_character(inside.as_fd()))
    {
        None => error_term(env, atoms::closed()),
        Some(Ok(character)) => (atoms::ok(), character).encode(env),
        Some(Err(errno)) => error_term(env, errno_atom(env, errno)),
    }
}

/// The variables of the VM (as `:os.env/0` gives them), byte for byte: `NAME=value`, a NUL after each; without
/// those that `except` names, in bytes. And the value of PATH, or nil.
#[rustler::nif]
fn nif_environment<'a>(
    env: Env<'a>,
    variables: ListIterator<'a>,
    except: Vec<rustler::Binary<'a>>,
) -> NifResult<(Term<'a>, Term<'a>)> {
    environment(env, variables, except)
}

/// As `nif_environment`, for a large one.
#[rustler::nif(schedule = "DirtyCpu")]
fn nif_environment_bulk<'a>(
    env: Env<'a>,
    variables: ListIterator<'a>,
    except: Vec<rustler::Binary<'a>>,
) -> NifResult<(Term<'a>, Term<'a>)> {
    environment(env, variables, except)
}

fn environment<'a>(
    env: Env<'a>,
    variables: ListIterator<'a>,
    except: Vec<rustler::Binary<'a>>,
) -> NifResult<(Term<'a>, Term<'a>)> {
    let except: HashSet<&[u8]> = except.iter().map(|name| name.as_slice()).collect();
    let mut block = Vec::with_capacity(4096);
    let mut path = None;
    let mut beyond_ascii = HashSet::new();
    for variable in variables {
        let (name, value): (Term, Term) = variable.decode()?;
        let start = block.len();
        if system::append_ascii(name, &mut block) {
            let name = block.split_off(start);
            if append_variable(&name, Some(value), &except, &mut block) && name == b"PATH" {
                path = Some(start + b"PATH=".len()..block.len() - 1);
            }
            continue;
        }
        // The VM does not tell which bytes it decoded to this name: they were UTF-8, or each byte was a character. There
        // may be a variable of either name.
        let characters: Vec<u32> = name.decode()?;
        let text: Option<String> = characters.iter().map(|c| char::from_u32(*c)).collect();
        let bytes: Option<Vec<u8>> = characters.iter().map(|c| u8::try_from(*c).ok()).collect();
        for name in [text.map(String::into_bytes), bytes].into_iter().flatten() {
            if beyond_ascii.insert(name.clone()) {
                append_variable(&name, None, &except, &mut block);
            }
        }
    }
    let mut binary = rustler::NewBinary::new(env, block.len());
    binary.as_mut_slice().copy_from_slice(&block);
    let block: rustler::Binary = binary.into();
    let path = match path {
        Some(range) => block.make_subbinary(range.start, range.len())?.encode(env),
        None => atoms::nil().encode(env),
    };
    Ok((block.encode(env), path))
}

/// Appends `NAME=value` and a NUL; whether there is such a variable. A `value` beyond ASCII does not tell which bytes it
/// has; those are asked for.
fn append_variable(
    name: &[u8],
    value: Option<Term>,
    except: &HashSet<&[u8]>,
    block: &mut Vec<u8>,
) -> bool {
    if except.contains(name) {
        return false;
    }
    let start = block.len();
    block.extend_from_slice(name);
    block.push(b'=');
    let found = value.is_some_and(|value| system::append_ascii(value, block))
        || CString::new(name).is_ok_and(|name| system::append_variable(&name, block));
    if found {
        block.push(0);
    } else {
        block.truncate(start);
    }
    found
}

/// The user with this name or ID: `{:ok, uid, gid, groups}`. The C library may ask a server for it (nsswitch.conf(5)) and
/// wait for the answer for any time.
#[rustler::nif(schedule = "DirtyIo")]
fn nif_user<'a>(env: Env<'a>, user: Term<'a>) -> NifResult<Term<'a>> {
    let found = match user.decode::<u32>() {
        Ok(uid) => system::account_by_id(uid),
        Err(_) => system::account_by_name(user.decode()?),
    };
    Ok(match found {
        Ok(Some(account)) => {
            let groups: Vec<u32> = account.groups.iter().map(|gid| gid.as_raw()).collect();
            let (uid, gid) = (account.uid.as_raw(), account.gid.as_raw());
            (atoms::ok(), uid, gid, groups).encode(env)
        }
        Ok(None) => error_term(env, errno_atom(env, Errno::ENOENT)),
        Err(errno) => error_term(env, errno_atom(env, errno)),
    })
}

/// The ID of the group with this name. As `nif_user`.
#[rustler::nif(schedule = "DirtyIo")]
fn nif_group<'a>(env: Env<'a>, name: &str) -> Term<'a> {
    match system::group_by_name(name) {
        Ok(Some(gid)) => (atoms::ok(), gid.as_raw()).encode(env),
        Ok(None) => error_term(env, errno_atom(env, Errno::ENOENT)),
        Err(errno) => error_term(env, errno_atom(env, errno)),
    }
}

/// Selects the launcher's socket: the VM tells when it has room.
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
    let mut frame = [0; EVENT_SIZE + ONE_MORE];
    let (received, reset) = receive(&inside, &mut frame);
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
            let step = step_term(env, step);
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

fn step_term(env: Env, step: Step) -> Term {
    let name = match step {
        Step::Receive => atoms::receive(),
        Step::Fork => atoms::fork(),
        Step::Setup => atoms::setup(),
        Step::Cwd => atoms::cwd(),
        Step::Stdin => atoms::stdin(),
        Step::Stdout => atoms::stdout(),
        Step::Stderr => atoms::stderr(),
        Step::Cgroup => atoms::cgroup(),
        Step::Cd => atoms::cd(),
        Step::Nice => atoms::nice(),
        Step::Rlimits => atoms::rlimits(),
        Step::Groups => atoms::groups(),
        Step::Group => atoms::group(),
        Step::User => atoms::user(),
        Step::NoNewPrivs => atoms::no_new_privs(),
        Step::Exec => atoms::exec(),
        Step::Fd(number) => return (atoms::fd(), number).encode(env),
        Step::Sandbox(part) => return (atoms::sandbox(), part_term(part)).encode(env),
        Step::SandboxPath(index) => return (atoms::sandbox(), index).encode(env),
    };
    name.encode(env)
}

fn part_term(part: Part) -> Atom {
    match part {
        Part::System => atoms::system(),
        Part::Filesystem => atoms::filesystem(),
        Part::Signals => atoms::signals(),
        Part::Ports => atoms::ports(),
        Part::Filter => atoms::filter(),
        Part::Capabilities => atoms::capabilities(),
        Part::User => atoms::user(),
        Part::Processes => atoms::processes(),
        Part::Proc => atoms::proc(),
        Part::Mounts => atoms::mounts(),
        Part::Tmp => atoms::tmp(),
        Part::Metadata => atoms::metadata(),
        Part::Loopback => atoms::loopback(),
    }
}

/// `to`: whom it reaches.
#[rustler::nif]
fn nif_send_signal<'a>(env: Env<'a>, control: &Fd, number: i32, to: Atom) -> NifResult<Term<'a>> {
    let to = match to {
        to if to == atoms::command() => Target::Command,
        to if to == atoms::group() => Target::Group,
        to if to == atoms::tree() => Target::Tree,
        _ => return Err(Error::BadArg),
    };
    Ok(ask(env, control, Request::Signal { number, to }))
}

/// Stops the command and all that it started, or lets it go on.
#[rustler::nif]
fn nif_suspend<'a>(env: Env<'a>, control: &Fd, suspended: bool) -> Term<'a> {
    let request = if suspended {
        Request::Suspend
    } else {
        Request::Resume
    };
    ask(env, control, request)
}

fn ask<'a>(env: Env<'a>, control: &Fd, request: Request) -> Term<'a> {
    match control.enter(env) {
        None => error_term(env, atoms::closed()),
        Some(inside) => done(env, send_now(&inside, request)),
    }
}

fn send_now(control: &fd::Inside, request: Request) -> nix::Result<()> {
    let flags = NO_SIGNAL | MsgFlags::MSG_DONTWAIT;
    send(control.as_raw_fd(), &request.encode(), flags).map(drop)
}

/// Has the shepherd end the command, as a close of the socket would; but `Exited` can still be received.
#[rustler::nif]
fn nif_end_command<'a>(env: Env<'a>, control: &Fd) -> Term<'a> {
    let Some(inside) = control.enter(env) else {
        return error_term(env, atoms::closed());
    };
    let sent = match send_now(&inside, Request::End) {
        // Race: full control socket.
        Err(Errno::EAGAIN | Errno::ENOBUFS) => shutdown(inside.as_raw_fd(), Shutdown::Write),
        result => result,
    };
    done(env, sent)
}

/// Whether nobody has read the `Begin` in this control socket, and nobody will carry it out: a shepherd looks whether the socket is shut
/// when it has read it. Race: timeout beside the start.
#[rustler::nif]
fn nif_withdraw(env: Env, control: &Fd) -> bool {
    let Some(inside) = control.enter(env) else {
        return true;
    };
    wire::socket::withdraw(inside.as_fd())
}

/// Shuts the VM's side of the control socket, which the shepherd takes for a close; what it says can still be received.
#[rustler::nif]
fn nif_shut<'a>(env: Env<'a>, control: &Fd) -> Term<'a> {
    match control.enter(env) {
        None => error_term(env, atoms::closed()),
        Some(inside) => done(env, shutdown(inside.as_raw_fd(), Shutdown::Write)),
    }
}
