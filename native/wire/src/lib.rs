//! The bytes between the NIF and the helper program, encoded and decoded in one place, and the
//! sockets that they travel on.
//!
//! There are three conversations:
//!
//! - the launcher to the NIF, once: [`GREETING`], so that a NIF and a helper of different versions find out before any
//!   command is started; or [`CANNOT`] and the reason, from a helper that cannot do its work on this system;
//! - the NIF to the launcher: one byte, [`NEW_SHEPHERD`], for each new shepherd, with the shepherd's end of a control
//!   socket beside it (`SCM_RIGHTS`);
//! - the NIF and a shepherd, on the control socket: [`Request`] one way, [`Event`] the other. The first request for a
//!   command is [`Request::Begin`]. Behind it, in the same message, is the [`Spec`]; beside it are file descriptors: the
//!   working directory, those for the command's stdin, stdout and stderr, and those for its further descriptors. A spec
//!   that is too long for a message is in a file, whose descriptor is the second one. When the command is over, the same
//!   socket may carry another `Begin`.
//!
//! All frames have a fixed size, so that they also work where the socket is a stream.

mod frame;
pub mod socket;
mod spec;

pub use frame::{Event, Exit, Malformed, Part, Request, Step, Target, EVENT_SIZE, REQUEST_SIZE};
pub use spec::{
    Access, AllowedPath, Confinement, Leftovers, Network, PrivateTmp, Rlimit, Sandbox, Spec,
    SpecWriter, Stdio, Tag,
};

/// What the launcher says first. Increment the number with every change of the frames or of the spec.
pub const GREETING: &str = concat!("net_runner ", env!("CARGO_PKG_VERSION"), " protocol 11");

/// What follows the greeting where /proc is missing or is that of another PID namespace.
pub const NO_PROC: &str = "; no /proc";

/// What the helper says instead of its greeting when the system refuses a call that the guarantees rest on. The reason
/// follows.
pub const CANNOT: &str = "net_runner cannot: ";

/// The one byte that asks the launcher for a shepherd, whose end of the control socket travels beside it.
pub const NEW_SHEPHERD: u8 = b'S';

/// The most descriptors that come with a `Begin`: the working directory, the file with a long spec, three standard ones,
/// and further ones. One message has room for so many (`SCM_MAX_FD`, unix(7)).
pub const MAX_FDS: usize = 253;

/// A spec of up to this size is sent in the message. Where sockets keep no messages apart, none is.
pub const MAX_SHORT_SPEC: usize = if socket::KEEPS_MESSAGES { 32 * 1024 } else { 0 };

/// The number of the launcher's socket in the helper when it starts.
pub const LAUNCHER_FD: i32 = 3;
