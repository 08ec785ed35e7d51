//! The bytes between the NIF and the helper program, encoded and decoded in one place, and the
//! sockets that they travel on.
//!
//! Three conversations exist:
//!
//! - helper -> NIF, once: [`GREETING`], so that a NIF and a helper that do not match find out
//!   before any command is started, or why it cannot do its work ([`CANNOT`]);
//! - NIF -> launcher: one [`START`] byte for each new shepherd, with its control socket beside it (`SCM_RIGHTS`);
//! - NIF <-> shepherd, on the control socket: [`Request`] one way, [`Event`] the other. A command begins with
//!   [`Request::Begin`], with the [`Spec`] behind it in the same message, where it is short, and file descriptors
//!   beside it: the working directory, a file with the spec, where that is long, those for the command's
//!   stdin, stdout and stderr, and those for its further descriptors. When a command is over, and the socket still open, another may begin.
//!
//! All frames on a socket have a fixed size, so that they also work where the socket is a stream.

mod frame;
pub mod socket;
mod spec;

pub use frame::{Event, Exit, Malformed, Request, Step, Target, EVENT_SIZE, REQUEST_SIZE};
pub use spec::{Leftovers, Rlimit, Spec, SpecWriter, Stdio, Tag};

/// What the helper says first. The number changes with every change of the frames or of the spec.
pub const GREETING: &str = concat!("net_runner ", env!("CARGO_PKG_VERSION"), " protocol 10");

/// What follows the greeting where /proc is missing or is that of another PID namespace.
pub const NO_PROC: &str = "; no /proc";

/// What the helper says instead, where the system refuses what the guarantees rest on; the reason follows.
pub const CANNOT: &str = "net_runner cannot: ";

/// The one byte that asks the launcher for a shepherd; its control socket travels beside it.
pub const START: u8 = b'S';

/// The descriptors of one command: working directory, a spec that is long, up to three standard ones, and further ones. One
/// message has room for so many (`SCM_MAX_FD`, unix(7)).
pub const MAX_FDS: usize = 253;

/// What a message on the control socket holds of a spec: all of it or, where there are no messages, nothing.
pub const MAX_SHORT_SPEC: usize = if socket::KEEPS_MESSAGES { 32 * 1024 } else { 0 };

/// The descriptor on which the helper finds its socket to the VM.
pub const LAUNCHER_FD: i32 = 3;
