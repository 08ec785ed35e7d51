//! File descriptors as resources of the VM. The only place that talks to the resource API.
//!
//! The life of an [`Fd`]: while its [`Gate`] is open, calls that use the descriptor enter and leave. After a close, the
//! last one calls `enif_select(STOP)`. When no poll thread uses the number any more, the VM calls [`stop`], which closes
//! it. So a number is closed once, never while a call uses it, and never while the VM polls it.
//!
//! The process that made an `Fd` is monitored: when it dies, [`down`] closes the `Fd`. One that was never closed and is
//! garbage was never selected (a select keeps it alive), and [`destroy`] closes the number.
//!
//! `docs/internals.md` has the table of states, and the races.

use crate::idle;
use crate::pace::Pace;
use gate::{Door, Gate};
use nix::errno::Errno;
use rustler::sys::{
    c_int, c_void, enif_alloc_resource, enif_get_resource, enif_make_resource,
    enif_monitor_process, enif_open_resource_type_x, enif_release_resource, enif_select, enif_self,
    ErlNifEnv, ErlNifMonitor, ErlNifPid, ErlNifResourceFlags, ErlNifResourceType,
    ErlNifResourceTypeInit, ErlNifSelectFlags, ERL_NIF_SELECT_READ, ERL_NIF_SELECT_STOP,
    ERL_NIF_SELECT_WRITE,
};
use rustler::{Decoder, Env, Error, NifResult, Term};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use wire::Confinement;

/// In the result of `enif_select` (erl_nif.h): the VM cannot poll this number.
const INVALID_EVENT: c_int = 1 << 2;

/// The resource type, once the library is loaded.
static TYPE: AtomicPtr<ErlNifResourceType> = AtomicPtr::new(ptr::null_mut());

pub struct Fd {
    /// Used by those inside the gate, and given up in `stop` or `destroy`.
    number: ManuallyDrop<OwnedFd>,
    gate: Gate,
    /// For processes other than the server, which is the one that waits for it.
    pub guests: Door,
    /// What all calls together have read, and what they have written.
    pub read: Traffic,
    pub written: Traffic,
    /// The size that the pipe gets once it is busy; 0 when it has got it, or is to stay as it is.
    pub pipe_size: AtomicU32,
    /// The last read filled its buffer, so there may be more.
    pub plenty: AtomicBool,
    /// How soon answers come.
    pub pace: Pace,
    kind: Kind,
}

#[derive(Default)]
pub struct Traffic {
    bytes: AtomicU64,
    calls: AtomicU64,
}

impl Traffic {
    /// Counts a call that has moved so many bytes. How many all calls before have moved.
    pub fn add(&self, bytes: usize) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed)
    }

    /// Bytes, and calls.
    pub fn so_far(&self) -> (u64, u64) {
        (
            self.bytes.load(Ordering::Relaxed),
            self.calls.load(Ordering::Relaxed),
        )
    }
}

/// What a descriptor is open on.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Nothing of the others.
    Plain,
    /// With the size that it may be given.
    Pipe(u32),
    /// The master of a pseudo-terminal.
    Terminal,
    /// The control socket of a shepherd, which has put this on itself.
    Control(Option<Confinement>),
}

#[derive(Clone, Copy)]
pub enum Interest {
    Read,
    Write,
}

/// Registers the resource type; called once, from the library's load function.
pub fn register(env: Env) -> bool {
    let init = ErlNifResourceTypeInit {
        dtor: destroy as *const _,
        stop: stop as *const _,
        down: down as *const _,
        members: 3,
        dyncall: ptr::null(),
    };
    // SAFETY: called from load, with a NUL-terminated name and callbacks of the right types.
    let registered = unsafe {
        enif_open_resource_type_x(
            env.as_c_arg(),
            c"net_runner_fd".as_ptr(),
            &init,
            ErlNifResourceFlags::ERL_NIF_RT_CREATE,
            ptr::null_mut(),
        )
    };
    TYPE.store(registered.cast_mut(), Ordering::Release);
    !registered.is_null()
}

/// Gives a descriptor to the VM, owned by the calling process.
pub fn into_term<'a>(env: Env<'a>, fd: OwnedFd, kind: Kind) -> NifResult<Term<'a>> {
    let pipe_size = if let Kind::Pipe(size) = kind { size } else { 0 };
    let value = Fd {
        number: ManuallyDrop::new(fd),
        gate: Gate::default(),
        guests: Door::default(),
        pipe_size: AtomicU32::new(pipe_size),
        read: Traffic::default(),
        written: Traffic::default(),
        plenty: AtomicBool::new(false),
        pace: Pace::default(),
        kind,
    };
    // SAFETY: the memory is of the type's size and aligned for it (the VM aligns to 8 bytes or
    // more, `Fd` needs 8); it is written before anybody sees it; the term keeps it afterwards.
    unsafe {
        let resource = enif_alloc_resource(TYPE.load(Ordering::Acquire), size_of::<Fd>());
        resource.cast::<Fd>().write(value);
        let term = enif_make_resource(env.as_c_arg(), resource);
        let mut owner = MaybeUninit::<ErlNifPid>::uninit();
        let mut monitor = MaybeUninit::<ErlNifMonitor>::uninit();
        let monitored = !enif_self(env.as_c_arg(), owner.as_mut_ptr()).is_null()
            && enif_monitor_process(
                env.as_c_arg(),
                resource,
                owner.as_ptr(),
                monitor.as_mut_ptr(),
            ) == 0;
        enif_release_resource(resource);
        // Race: dead owner of a new descriptor. `destroy` closes it.
        if monitored {
            Ok(Term::new(env, term))
        } else {
            Err(Error::BadArg)
        }
    }
}

impl<'a> Decoder<'a> for &'a Fd {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let mut resource = ptr::null();
        // SAFETY: the type is registered; the term lives as long as the environment, and keeps
        // the resource alive so long.
        unsafe {
            let kind = TYPE.load(Ordering::Acquire);
            let env = term.get_env().as_c_arg();
            if enif_get_resource(env, term.as_c_arg(), kind, &mut resource) == 0 {
                return Err(Error::BadArg);
            }
            Ok(&*resource.cast::<Fd>())
        }
    }
}

/// A call that is inside the gate of a descriptor; it leaves when this is dropped.
pub struct Inside<'fd, 'env> {
    fd: &'fd Fd,
    env: Env<'env>,
}

impl Fd {
    /// Keeps the descriptor open until the result is dropped; `None` when it is closed.
    pub fn enter<'env>(&self, env: Env<'env>) -> Option<Inside<'_, 'env>> {
        self.gate.enter().then(|| Inside { fd: self, env })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self.kind, Kind::Terminal)
    }

    /// Closes it, now or when the last one inside leaves. Does nothing when it is closed already.
    pub fn close(&self, env: Env) {
        self.close_in(env.as_c_arg());
    }

    /// Closes it for its users, but keeps the number open, among the idle control sockets.
    pub fn retire(&self, env: Env) {
        if self.gate.retire() {
            self.stop_select(env.as_c_arg());
        }
    }

    fn close_in(&self, env: *mut ErlNifEnv) {
        if self.gate.close() {
            self.stop_select(env);
        }
    }

    /// Called once, by the last one. Race: closed under a poll.
    fn stop_select(&self, env: *mut ErlNifEnv) {
        // The VM calls `stop` at once, or when no poll thread uses the number any more; it does so also for a number
        // that was never selected.
        if self.select(env, ERL_NIF_SELECT_STOP) < 0 {
            // Race: limit raised under the VM. It has never polled such a number.
            self.let_go(self.number.as_raw_fd());
        }
    }

    /// Nobody uses the number any more, and nobody else closes it.
    fn let_go(&self, number: RawFd) {
        // SAFETY: called once, for the number of this resource, by the last one or for it.
        let number = unsafe { OwnedFd::from_raw_fd(number) };
        if let (true, Kind::Control(confinement)) = (self.gate.is_kept(), self.kind) {
            idle::put(number, confinement);
        }
    }

    fn select(&self, env: *mut ErlNifEnv, mode: ErlNifSelectFlags) -> c_int {
        // SAFETY: the number is open, `self` is the resource that it belongs to, and a null PID
        // means the calling process.
        unsafe {
            enif_select(
                env,
                self.number.as_raw_fd() as _,
                mode,
                ptr::from_ref(self).cast_mut().cast(),
                ptr::null(),
                rustler::types::atom::undefined().as_c_arg(),
            )
        }
    }
}

impl Inside<'_, '_> {
    /// Has the VM send `{:select, fd, :undefined, :ready_input | :ready_output}` to the calling
    /// process, once, when the descriptor is ready.
    ///
    /// Somebody waits from now on, and has the next turn: guests are kept out.
    pub fn select(&self, interest: Interest) -> nix::Result<()> {
        let _ = self.fd.guests.shut();
        let mode = match interest {
            Interest::Read => ERL_NIF_SELECT_READ,
            Interest::Write => ERL_NIF_SELECT_WRITE,
        };
        match self.fd.select(self.env.as_c_arg(), mode) {
            // Race: limit raised under the VM.
            failed if failed < 0 && failed & INVALID_EVENT != 0 => Err(Errno::EMFILE),
            failed if failed < 0 => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
}

impl AsRawFd for Inside<'_, '_> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.number.as_raw_fd()
    }
}

impl AsFd for Inside<'_, '_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.number.as_fd()
    }
}

impl Drop for Inside<'_, '_> {
    fn drop(&mut self) {
        if self.fd.gate.leave() {
            self.fd.stop_select(self.env.as_c_arg());
        }
    }
}

// The callbacks below hold no code that can panic.

/// No poll thread uses the number any more.
unsafe extern "C" fn stop(_env: *mut ErlNifEnv, fd: *mut c_void, event: c_int, _direct: c_int) {
    // SAFETY: the VM passes the resource, alive during the call.
    unsafe { &*fd.cast::<Fd>() }.let_go(event);
}

/// The process that owns the descriptor died.
unsafe extern "C" fn down(
    env: *mut ErlNifEnv,
    fd: *mut c_void,
    _owner: *const ErlNifPid,
    _monitor: *const ErlNifMonitor,
) {
    // SAFETY: the VM passes the resource, alive during the call.
    unsafe { &*fd.cast::<Fd>() }.close_in(env);
}

/// Nobody has a reference any more.
unsafe extern "C" fn destroy(_env: *mut ErlNifEnv, fd: *mut c_void) {
    // SAFETY: nobody else sees the resource any more. If it was never closed, its number is still open.
    unsafe {
        let fd = &mut *fd.cast::<Fd>();
        if fd.gate.is_open() {
            ManuallyDrop::drop(&mut fd.number);
        }
    }
}
