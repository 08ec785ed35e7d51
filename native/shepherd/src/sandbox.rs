//! What a sandboxed command may touch. The shepherd prepares everything before the process is made; the new process
//! applies it with system calls alone. What is alike for many commands, the shepherd has put on itself (`confinement`).

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod capabilities;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod confinement;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod filter;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod init;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod landlock;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod namespaces;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod paths;
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod ways;

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub use landlock::{abi as landlock_abi, keeps_ruleset, let_ruleset_go};
#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub use linux::Sandbox;

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub use elsewhere::{keeps_ruleset, landlock_abi, let_ruleset_go, Sandbox};

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod linux {
    use super::filter::Program;
    use super::init::Process1;
    use super::landlock::Ruleset;
    use super::namespaces::Namespaces;
    use super::{capabilities, confinement, landlock, namespaces};
    use crate::failure::{at, Failure};
    use crate::sys;
    use nix::fcntl::OFlag;
    use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
    use std::sync::Arc;
    use wire::{Confinement, Part, Spec, Step};

    pub struct Sandbox {
        ruleset: Option<Arc<Ruleset>>,
        /// What that of the shepherd leaves out.
        filter: Option<Program>,
        /// Whether it has none.
        capabilities: bool,
        /// Whether it empties the bounding set, which the shepherd has not.
        bounding_set: bool,
        namespaces: Option<Namespaces>,
        process_1: Option<Process1>,
    }

    impl Sandbox {
        /// `None` where the command has none. `cwd`: the VM's working directory. `terminal`: the one that the command
        /// gets. `lowest`: the first number that no descriptor of the command has. Beside the sandbox is the end of a pipe that
        /// keeps the command's PID namespace alive.
        pub fn prepare(
            spec: &Spec,
            cwd: BorrowedFd,
            terminal: Option<RawFd>,
            lowest: RawFd,
        ) -> Result<Option<(Sandbox, Option<OwnedFd>)>, Failure> {
            let confinement = spec.sandbox.as_ref().and_then(wire::Sandbox::confinement);
            let refused = at(Step::Sandbox(Part::Filter));
            confinement::put_on(confinement).map_err(&refused)?;
            let Some(asked) = &spec.sandbox else {
                return Ok(None);
            };
            let filter = match confinement {
                Some(Confinement {
                    system_calls: true,
                    namespaces: true,
                    ..
                }) => Some(Program::of_namespaces().map_err(&refused)?),
                _ => None,
            };
            let namespaces = namespaces::namespaces(spec, cwd)?;
            let has_user = namespaces.as_ref().is_some_and(Namespaces::has_user);
            let (process_1, held) = if asked.own_processes {
                let (read, write) =
                    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(at(Step::Receive))?;
                let read = sys::copy_to_at_least(&read, lowest).map_err(at(Step::Receive))?;
                (Some(Process1::prepare(read, asked)?), Some(write))
            } else {
                (None, None)
            };
            let sandbox = Sandbox {
                ruleset: landlock::ruleset(asked, terminal, lowest)?,
                filter,
                capabilities: asked.capabilities,
                // In a user namespace it is full again.
                bounding_set: asked.capabilities && (confinement.is_none() || has_user),
                namespaces,
                process_1,
            };
            Ok(Some((sandbox, held)))
        }

        /// With which flags of clone(2) the new process is born.
        pub fn flags(&self) -> libc::c_int {
            self.namespaces.as_ref().map_or(0, Namespaces::flags)
        }

        /// Whether the command gets a PID namespace, and so is made by a process in between.
        pub fn has_own_processes(&self) -> bool {
            self.process_1.is_some()
        }

        // --- the new process: no allocation, no lock, no formatting ----------------------------------

        /// Before anything else.
        pub fn map_user(&self) -> Result<(), Failure> {
            self.namespaces
                .as_ref()
                .map_or(Ok(()), Namespaces::map_user)
        }

        /// In the process in between: makes the PID namespace and its process 1.
        pub fn start_init(&self, pid: *mut libc::pid_t) -> Result<(), Failure> {
            let Some(process_1) = &self.process_1 else {
                return Ok(());
            };
            namespaces::leave_processes()
                .and_then(|()| process_1.start(pid))
                .map_err(at(Step::Sandbox(Part::Processes)))
        }

        /// When the files of the command are open.
        pub fn enter_namespaces(&self) -> Result<(), Failure> {
            match &self.namespaces {
                Some(namespaces) => namespaces.enter(self.ruleset.as_deref()),
                None => Ok(()),
            }
        }

        /// While the process may still do so: before it changes the user.
        pub fn limit_capabilities(&self) {
            if self.bounding_set {
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
    use crate::failure::{at, Failure};
    use nix::errno::Errno;
    use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
    use wire::{Part, Spec, Step};

    pub fn landlock_abi() -> nix::Result<libc::c_long> {
        Err(Errno::ENOSYS)
    }

    pub fn keeps_ruleset() -> bool {
        false
    }

    pub fn let_ruleset_go() {}

    /// Other systems have none: a command that asks for one is not started.
    pub enum Sandbox {}

    impl Sandbox {
        pub fn prepare(
            spec: &Spec,
            _cwd: BorrowedFd,
            _terminal: Option<RawFd>,
            _lowest: RawFd,
        ) -> Result<Option<(Sandbox, Option<OwnedFd>)>, Failure> {
            match &spec.sandbox {
                None => Ok(None),
                Some(_) => Err(at(Step::Sandbox(Part::System))(Errno::ENOSYS)),
            }
        }

        pub fn flags(&self) -> libc::c_int {
            match *self {}
        }

        pub fn has_own_processes(&self) -> bool {
            match *self {}
        }

        pub fn map_user(&self) -> Result<(), Failure> {
            match *self {}
        }

        pub fn start_init(&self, _pid: *mut libc::pid_t) -> Result<(), Failure> {
            match *self {}
        }

        pub fn enter_namespaces(&self) -> Result<(), Failure> {
            match *self {}
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
