//! What a sandboxed command may touch. The shepherd prepares everything before the process is made; the new process
//! applies it with system calls alone, and never the shepherd itself: nothing of it is left for the next command.

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod capabilities;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod filter;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod landlock;

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub use linux::Sandbox;

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub use elsewhere::Sandbox;

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod linux {
    use super::filter::Filter;
    use super::landlock::Ruleset;
    use super::{capabilities, filter, landlock};
    use crate::failure::{at, Failure};
    use std::os::fd::RawFd;
    use wire::{Part, Step};

    pub struct Sandbox {
        ruleset: Option<Ruleset>,
        filter: Option<Filter>,
        capabilities: bool,
    }

    impl Sandbox {
        /// `terminal`: the one that the command gets.
        pub fn prepare(spec: &wire::Sandbox, terminal: Option<RawFd>) -> Result<Sandbox, Failure> {
            Ok(Sandbox {
                ruleset: landlock::ruleset(spec, terminal)?,
                filter: filter::filter(spec).map_err(at(Step::Sandbox(Part::Filter)))?,
                capabilities: spec.capabilities,
            })
        }

        /// While the process may still do so: before it changes the user.
        pub fn limit_capabilities(&self) {
            if self.capabilities {
                capabilities::empty_bounding_set();
            }
        }

        /// When nothing is left to do that needs one.
        pub fn give_up_capabilities(&self) -> Result<(), Failure> {
            if self.capabilities {
                capabilities::give_up().map_err(at(Step::Sandbox(Part::Capabilities)))?;
            }
            Ok(())
        }

        /// The last step before `execve(2)`. `fds`: the numbers from 3 on that the command gets, in ascending order.
        pub fn enforce(&self, fds: impl Iterator<Item = RawFd>) -> Result<(), Failure> {
            if let Some(ruleset) = &self.ruleset {
                ruleset.enforce()?;
            }
            if let Some(filter) = &self.filter {
                filter.install().map_err(at(Step::Sandbox(Part::Filter)))?;
            }
            close_at_exec(fds);
            Ok(())
        }
    }

    /// Every descriptor of the helper is close-on-exec from its birth: this is a second line of defence, and a kernel
    /// that does not know the call (before Linux 5.11) changes nothing.
    fn close_at_exec(fds: impl Iterator<Item = RawFd>) {
        let mut first = 3;
        for fd in fds.chain([RawFd::MAX]) {
            if first < fd {
                let (from, to) = (first as libc::c_uint, (fd - 1) as libc::c_uint);
                // SAFETY: close_range(2) with this flag closes nothing now.
                unsafe {
                    libc::syscall(libc::SYS_close_range, from, to, libc::CLOSE_RANGE_CLOEXEC)
                };
            }
            first = fd.saturating_add(1);
        }
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
mod elsewhere {
    use crate::failure::Failure;
    use nix::errno::Errno;
    use std::os::fd::RawFd;
    use wire::{Part, Step};

    /// Other systems have none: a command that asks for one is not started.
    pub enum Sandbox {}

    impl Sandbox {
        pub fn prepare(
            _spec: &wire::Sandbox,
            _terminal: Option<RawFd>,
        ) -> Result<Sandbox, Failure> {
            Err(Failure {
                step: Step::Sandbox(Part::System),
                errno: Errno::ENOSYS,
            })
        }

        pub fn limit_capabilities(&self) {
            match *self {}
        }

        pub fn give_up_capabilities(&self) -> Result<(), Failure> {
            match *self {}
        }

        pub fn enforce(&self, _fds: impl Iterator<Item = RawFd>) -> Result<(), Failure> {
            match *self {}
        }
    }
}
