//! The bytes between the NIF and the helper program, encoded and decoded in one place, and the
//! sockets that they travel on.
//!
//! Three conversations exist:
//!
//! - helper -> NIF, once: [`GREETING`], so that a NIF and a helper that do not match find out
//!   before any command is started;
//! - NIF -> launcher: one [`START`] byte per command, with the file descriptors of that command
//!   beside it (`SCM_RIGHTS`); the first is its control socket;
//! - NIF <-> shepherd, on the control socket: [`Request`] one way, [`Event`] the other. Behind the first request,
//!   in the same message, stands the [`Spec`], where it is short; else it is in a file beside the START.
//!
//! All frames on a socket have a fixed size, so that they also work where the socket is a stream.

mod frame;
pub mod socket;
mod spec;

pub use frame::{Event, Exit, Malformed, Request, Step, EVENT_SIZE, REQUEST_SIZE};
pub use spec::{Leftovers, Rlimit, Spec, SpecWriter, Stdio, Tag};

/// What the helper says first. The number changes with every change of the frames or of the spec.
pub const GREETING: &str = concat!("net_runner ", env!("CARGO_PKG_VERSION"), " protocol 5");

/// The one byte that asks the launcher for a shepherd; the descriptors travel beside it.
pub const START: u8 = b'S';

/// The descriptors of one START: control socket, working directory, a spec that is long, and up to three
/// for the command's stdin, stdout and stderr.
pub const MAX_FDS: usize = 6;

/// What a message on the control socket holds of a spec: all of it or, where there are no messages, nothing.
pub const MAX_SHORT_SPEC: usize = if socket::KEEPS_MESSAGES { 32 * 1024 } else { 0 };

/// The descriptor on which the helper finds its socket to the VM.
pub const LAUNCHER_FD: i32 = 3;
