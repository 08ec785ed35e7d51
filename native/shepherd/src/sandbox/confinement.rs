//! What this process has put on itself, for all commands that it starts.

use super::capabilities;
use super::filter::Program;
use nix::errno::Errno;
use std::sync::OnceLock;
use wire::Confinement;

static OWN: OnceLock<Confinement> = OnceLock::new();

/// Puts it on, unless it is on. EPROTO where something else is: such a command belongs to another shepherd.
pub fn put_on(wanted: Option<Confinement>) -> nix::Result<()> {
    match (OWN.get().copied(), wanted) {
        (own, wanted) if own == wanted => Ok(()),
        (None, Some(confinement)) => {
            let program = Program::of(confinement)?;
            if confinement.capabilities {
                capabilities::empty_bounding_set();
            }
            crate::sys::give_up_new_privileges()?;
            program.install()?;
            // There is one thread: nobody has set it since.
            let _ = OWN.set(confinement);
            Ok(())
        }
        _ => Err(Errno::EPROTO),
    }
}
