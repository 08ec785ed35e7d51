//! Landlock (landlock(7)): which files may be opened, whom a signal reaches, and which TCP ports may be used.
//!
//! The shepherd makes the ruleset, and the new process puts itself under it. By system calls: there are three, and
//! what makes the last one may not allocate.

use super::paths::{self, is_nowhere, Found, Identity};
use super::ways::Ways;
use crate::failure::{at, Failure};
use crate::sys;
use nix::errno::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::{Access, Network, Part, Step};

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
/// Renaming and linking from one directory into another (ABI 2).
const REFER: u64 = 1 << 13;
/// ABI 3.
const TRUNCATE: u64 = 1 << 14;
/// Device control of what is opened inside (ABI 5).
const IOCTL_DEV: u64 = 1 << 15;

const READ: u64 = READ_FILE | READ_DIR;
/// Devices are made by nobody.
const WRITE: u64 = WRITE_FILE
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
    | REFER
    | TRUNCATE;
const ALL: u64 = EXECUTE | READ | WRITE | MAKE_CHAR | MAKE_BLOCK;

/// Those that mean something for what is no directory.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 2;

/// Abstract sockets and signals stay among the processes of the sandbox.
const SCOPES: u64 = 3;

/// The version of Landlock from which on each layer can do what is promised: Linux 6.2, 6.7 and 6.12. (Before 3 a
/// file could be truncated that may not be written.)
const ABI_OF_FILES: libc::c_long = 3;
const ABI_OF_PORTS: libc::c_long = 4;
const ABI_OF_DEVICES: libc::c_long = 5;
const ABI_OF_SIGNALS: libc::c_long = 6;

/// The kernel has Landlock, but is too old for what was asked.
const TOO_OLD: Errno = Errno::EPROTONOSUPPORT;

/// Devices that hold nothing.
const DEVICES: [&CStr; 5] = [
    c"/dev/null",
    c"/dev/zero",
    c"/dev/full",
    c"/dev/random",
    c"/dev/urandom",
];

/// `struct landlock_ruleset_attr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    fs: u64,
    net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// `struct landlock_net_port_attr`.
#[repr(C)]
struct Port {
    allowed: u64,
    port: u64,
}

const RULE_BENEATH: libc::c_int = 1;
const RULE_PORT: libc::c_int = 2;

pub struct Ruleset {
    fd: OwnedFd,
    /// The first of those that were asked for, in whose name it fails.
    part: Part,
}

/// The ruleset of the command before, for one that asks for the same.
struct Kept {
    asked: Vec<u8>,
    /// To its devices, and to those of its paths that need not exist.
    ways: Ways,
    /// What its other paths lead to, in their order.
    places: Vec<Identity>,
    ruleset: Arc<Ruleset>,
    /// How many more commands that mount something it serves.
    uses: u32,
}

/// What a command has mounted stays in its ruleset when it is gone. Then it allows nothing, but the kernel copies every rule for
/// each command.
const USES: u32 = 16;

static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

pub fn keeps_ruleset() -> bool {
    kept().is_some()
}

pub fn let_ruleset_go() {
    *kept() = None;
}

fn kept() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None` when nothing was asked of Landlock. Its descriptor has at least the number `lowest`.
pub fn ruleset(
    sandbox: &wire::Sandbox,
    terminal: Option<RawFd>,
    lowest: RawFd,
) -> Result<Option<Arc<Ruleset>>, Failure> {
    let ports = sandbox.network == Network::Ports;
    let asked = [
        (sandbox.filesystem, Part::Filesystem, ABI_OF_FILES),
        (ports, Part::Ports, ABI_OF_PORTS),
        (sandbox.signals, Part::Signals, ABI_OF_SIGNALS),
    ];
    let mut asked = asked.into_iter().filter(|(asked, ..)| *asked).peekable();
    let Some(&(_, part, _)) = asked.peek() else {
        return Ok(None);
    };
    // A terminal is for one command, and the number may be that of a further descriptor.
    let alike = terminal.is_none() && lowest == 0 && mounts_end(sandbox);
    if alike {
        // Taken: of one that does not serve, changes are told once, and it would pass for unchanged from then on.
        let before = kept().take();
        if let Some(mut before) = before.filter(|before| before.asked == key(sandbox)) {
            if before.serves(sandbox) {
                let ruleset = Arc::clone(&before.ruleset);
                *kept() = Some(before);
                return Ok(Some(ruleset));
            }
        }
    }
    let abi = abi().map_err(at(Step::Sandbox(part)))?;
    for (_, part, needed) in asked {
        if abi < needed {
            return Err(at(Step::Sandbox(part))(TOO_OLD));
        }
    }
    let devices = if abi < ABI_OF_DEVICES { 0 } else { IOCTL_DEV };
    let attributes = Attributes {
        fs: if sandbox.filesystem { ALL | devices } else { 0 },
        net: if ports { BIND_TCP | CONNECT_TCP } else { 0 },
        scoped: if sandbox.signals { SCOPES } else { 0 },
    };
    // Before they are opened.
    let ways = if alike {
        Ways::of(whatever_is_there(sandbox))
    } else {
        None
    };
    let fd = create(&attributes).map_err(at(Step::Sandbox(part)))?;
    let ruleset = Ruleset {
        fd: sys::copy_to_at_least(&fd, lowest).map_err(at(Step::Receive))?,
        part,
    };
    let places = if sandbox.filesystem {
        ruleset.allow_paths(sandbox, terminal, devices)?
    } else {
        Some(Vec::new())
    };
    if ports {
        ruleset
            .allow_ports(sandbox)
            .map_err(at(Step::Sandbox(Part::Ports)))?;
    }
    let ruleset = Arc::new(ruleset);
    if let (Some(ways), Some(places)) = (ways, places) {
        *kept() = Some(Kept {
            asked: key(sandbox),
            ways,
            places,
            ruleset: Arc::clone(&ruleset),
            uses: USES - 1,
        });
    }
    Ok(Some(ruleset))
}

impl Kept {
    fn serves(&mut self, sandbox: &wire::Sandbox) -> bool {
        if self.uses == 0 || !self.is_true_of(sandbox) {
            return false;
        }
        if sandbox.has_mounts() {
            self.uses -= 1;
        }
        true
    }

    fn is_true_of(&self, sandbox: &wire::Sandbox) -> bool {
        let required = sandbox.paths.iter().filter(|allowed| allowed.required);
        // Where files are not limited, there are none.
        self.ways.are_unchanged()
            && self.places.iter().zip(required).all(|(place, allowed)| {
                paths::look_for(allowed.path).is_ok_and(|found| found.identity == *place)
            })
    }
}

/// The devices, and the paths that need not exist.
fn whatever_is_there<'a>(sandbox: &'a wire::Sandbox<'_>) -> impl Iterator<Item = &'a CStr> {
    let paths = sandbox.paths.iter().filter(|allowed| !allowed.required);
    let all = DEVICES.into_iter().chain(paths.map(|allowed| allowed.path));
    all.filter(|_| sandbox.filesystem)
}

/// What a command mounts is added to its ruleset. Whether it is certainly gone when the command is: nobody is left who is in there, and
/// no descriptor that leads there was given to anybody.
fn mounts_end(sandbox: &wire::Sandbox) -> bool {
    let passes_none = !matches!(sandbox.network, Network::Unix | Network::All);
    !sandbox.has_mounts() || (sandbox.own_processes && passes_none)
}

/// What a ruleset depends on, but for what the paths lead to.
fn key(sandbox: &wire::Sandbox) -> Vec<u8> {
    let layers = [
        sandbox.filesystem,
        sandbox.signals,
        sandbox.network == Network::Ports,
        // Whoever mounts other things has another.
        sandbox.own_processes,
        sandbox.private_tmp.is_some(),
    ];
    let mut key = Vec::with_capacity(2048);
    key.extend(layers.map(u8::from));
    for ports in [&sandbox.connect, &sandbox.bind] {
        key.extend(ports.len().to_ne_bytes());
        key.extend(ports.iter().flat_map(|port| port.to_ne_bytes()));
    }
    for path in &sandbox.paths {
        key.extend([path.access as u8, path.required.into()]);
        key.extend(path.path.to_bytes_with_nul());
    }
    key
}

/// The version of Landlock that the kernel has.
pub fn abi() -> nix::Result<libc::c_long> {
    const VERSION: u32 = 1;
    let no_attributes = std::ptr::null::<Attributes>();
    // SAFETY: with this flag, landlock_create_ruleset(2) reads nothing and makes nothing.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, no_attributes, 0, VERSION) };
    Errno::result(abi)
}

fn create(attributes: &Attributes) -> nix::Result<OwnedFd> {
    // SAFETY: landlock_create_ruleset(2) reads the struct. An older kernel takes a larger one than it knows when the
    // rest is zero.
    let fd = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            attributes,
            size_of::<Attributes>(),
            0,
        )
    })?;
    // SAFETY: made for this process just now, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

impl Ruleset {
    /// Gives what the paths lead to that must exist; `None` where it could not be told later whether all paths still lead to the same.
    fn allow_paths(
        &self,
        sandbox: &wire::Sandbox,
        terminal: Option<RawFd>,
        devices: u64,
    ) -> Result<Option<Vec<Identity>>, Failure> {
        let broken = at(Step::Sandbox(Part::Filesystem));
        let mut places = Vec::new();
        let mut lasting = true;
        for path in DEVICES {
            // A root directory may lack some.
            match paths::follow(path) {
                Ok(device) => {
                    let rights = READ | WRITE | devices;
                    let found = self.allow(device.as_fd(), rights).map_err(&broken)?;
                    lasting &= paths::is_lasting(&device, &found);
                }
                Err(errno) => lasting &= is_nowhere(errno),
            }
        }
        if let Some(terminal) = terminal {
            // SAFETY: it came with the request, and is open until the command has started.
            let terminal = unsafe { BorrowedFd::borrow_raw(terminal) };
            self.allow(terminal, READ | WRITE | devices)
                .map_err(&broken)?;
        }
        for (index, allowed) in sandbox.paths.iter().enumerate() {
            let step = Step::SandboxPath(u16::try_from(index).unwrap_or(u16::MAX));
            let rights = rights(allowed.access);
            match paths::follow(allowed.path) {
                // Who names a device means to use it.
                Ok(fd) if allowed.required && is_of_this_process(&fd) => {
                    return Err(at(step)(Errno::ELOOP));
                }
                Ok(fd) => {
                    let found = self.allow(fd.as_fd(), rights | devices).map_err(at(step))?;
                    lasting &= paths::is_lasting(&fd, &found);
                    if allowed.required {
                        // A ruleset holds the files that it names: a large one, deleted, would go on taking its space.
                        lasting &= found.kind == libc::S_IFDIR;
                        places.push(found.identity);
                    }
                }
                Err(errno) if !allowed.required && is_nowhere(errno) => {}
                Err(errno) => return Err(at(step)(errno)),
            }
        }
        Ok(lasting.then_some(places))
    }

    /// In the new process: beneath what it has mounted just now. Where nothing is, nothing is allowed.
    pub fn allow_mount(&self, path: &CStr, access: &[Access]) -> Result<(), Failure> {
        if self.part != Part::Filesystem {
            return Ok(());
        }
        match paths::follow(path) {
            Ok(fd) => self
                .allow(
                    fd.as_fd(),
                    access.iter().fold(0, |all, it| all | rights(*it)),
                )
                .map(drop)
                .map_err(at(Step::Sandbox(self.part))),
            Err(_) => Ok(()),
        }
    }

    /// Beneath what is open. Devices are controlled only where one is named itself, and terminals, which have no name before they
    /// are made, where their directory is.
    fn allow(&self, fd: BorrowedFd, rights: u64) -> nix::Result<Found> {
        let found = paths::look_at(fd)?;
        let allowed = match found.kind {
            libc::S_IFDIR if paths::is_of_terminals(fd) => rights,
            libc::S_IFDIR => rights & !IOCTL_DEV,
            libc::S_IFCHR | libc::S_IFBLK => rights & OF_FILES,
            _ => rights & OF_FILES & !IOCTL_DEV,
        };
        let rule = Beneath {
            allowed,
            parent: fd.as_raw_fd(),
        };
        self.add_rule(RULE_BENEATH, (&raw const rule).cast())?;
        Ok(found)
    }

    fn allow_ports(&self, sandbox: &wire::Sandbox) -> nix::Result<()> {
        let connect = sandbox.connect.iter().map(|port| (CONNECT_TCP, *port));
        let bind = sandbox.bind.iter().map(|port| (BIND_TCP, *port));
        for (allowed, port) in connect.chain(bind) {
            let rule = Port {
                allowed,
                port: port.into(),
            };
            self.add_rule(RULE_PORT, (&raw const rule).cast())?;
        }
        Ok(())
    }

    fn add_rule(&self, kind: libc::c_int, rule: *const libc::c_void) -> nix::Result<()> {
        // SAFETY: landlock_add_rule(2) reads the struct of this kind.
        let result = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                kind,
                rule,
                0,
            )
        };
        Errno::result(result).map(drop)
    }

    /// Puts this process under it, and all that it starts. (A 17th ruleset is refused with E2BIG.)
    pub fn enforce(&self) -> Result<(), Failure> {
        // SAFETY: landlock_restrict_self(2) touches no memory.
        let result =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0) };
        Errno::result(result)
            .map(drop)
            .map_err(at(Step::Sandbox(self.part)))
    }
}

fn rights(access: Access) -> u64 {
    match access {
        Access::Read => READ,
        Access::Write => READ | WRITE,
        Access::Execute => READ | EXECUTE,
    }
}

/// Whether a path like `/proc/self` has led to what /proc says of this process, which is not the command.
fn is_of_this_process(fd: &OwnedFd) -> bool {
    // To ask for the path costs more than all else that is done for it.
    if !paths::is_of_proc(fd.as_fd()) {
        return false;
    }
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let own = format!("/proc/{}", std::process::id());
    std::fs::read_link(link).is_ok_and(|path| path.starts_with(own))
}
