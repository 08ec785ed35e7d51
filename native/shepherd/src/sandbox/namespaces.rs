//! Namespaces (namespaces(7)): processes, mounts and a network of the command's own.
//!
//! The shepherd finds out what is needed, and makes every string; the new process makes system calls alone. It has
//! CAP_SYS_ADMIN, or is created in a user namespace, in which it has that.

use super::capabilities;
use super::landlock::Ruleset;
use super::paths;
use crate::failure::{at, Failure};
use nix::errno::Errno;
use std::cell::Cell;
use std::ffi::{CStr, CString, OsStr};
use std::iter;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;
use wire::{Access, Network, Part, Spec, Step};

pub struct Namespaces {
    /// The maps of a user namespace, where one is needed.
    user: Option<Maps>,
    loopback: bool,
    mounts: Option<Mounts>,
}

/// The own user and group, mapped to themselves (user_namespaces(7)).
struct Maps {
    uid: CString,
    gid: CString,
}

struct Mounts {
    /// The VM's working directory, by path: what was open before leads into the tree of before.
    directory: CString,
    /// What is allowed in a `/proc` of its own.
    proc: Option<Access>,
    tmp: Option<Tmp>,
    locked: bool,
    binds: Vec<Bind>,
    /// Made in the private `/tmp` where it is still missing when all else is there, from the top: the way to the working
    /// directory of the command.
    directories: Vec<CString>,
}

struct Tmp {
    /// Of tmpfs(5).
    options: CString,
    executable: bool,
}

/// A path that is mounted anew: what would be hidden by the private `/tmp`, or else read-only. Landlock allows whatever is
/// beneath the private `/tmp`, so that what is only to be read there must not be writable itself.
struct Bind {
    /// Without links.
    path: CString,
    identity: Identity,
    /// What has to be made for it in the private `/tmp`, from the top.
    parents: Vec<CString>,
    is_directory: bool,
    writable: bool,
    /// In the private `/tmp`.
    in_private: bool,
    /// The new process's copy of the mount, before it is put in its place.
    tree: Cell<RawFd>,
}

/// Which file it is: its device and its number. Whatever else is at its path when it is mounted was put there since.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(libc::dev_t, libc::ino_t);

const REPLACED: Errno = Errno::ESTALE;

const TMP: &CStr = c"/tmp";
const SHM: &CStr = c"/dev/shm";
const PROC: &CStr = c"/proc";

/// `None` where no namespace is asked for. `cwd`: the VM's working directory.
pub fn namespaces(spec: &Spec, cwd: BorrowedFd) -> Result<Option<Namespaces>, Failure> {
    let Some(sandbox) = &spec.sandbox else {
        return Ok(None);
    };
    if !sandbox.has_namespaces() {
        return Ok(None);
    }
    let user = if may_administrate() {
        None
    } else {
        // One that is mapped alone cannot become another.
        if spec.uid.is_some() || spec.gid.is_some() || spec.groups.is_some() {
            return Err(at(Step::Sandbox(Part::User))(Errno::EOPNOTSUPP));
        }
        Some(Maps::own())
    };
    let mounts = if sandbox.has_mounts() {
        Some(Mounts::new(spec, sandbox, cwd)?)
    } else {
        None
    };
    Ok(Some(Namespaces {
        user,
        loopback: sandbox.network == Network::Loopback,
        mounts,
    }))
}

/// Whether this process may make namespaces of any kind.
fn may_administrate() -> bool {
    const SYS_ADMIN: u32 = 21;
    capabilities::is_effective(SYS_ADMIN)
}

impl Maps {
    fn own() -> Maps {
        let line = |id: u32| CString::new(format!("{id} {id} 1")).unwrap_or_default();
        // SAFETY: neither touches memory, nor fails.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        Maps {
            uid: line(uid),
            gid: line(gid),
        }
    }
}

impl Mounts {
    fn new(spec: &Spec, sandbox: &wire::Sandbox, cwd: BorrowedFd) -> Result<Mounts, Failure> {
        let link = format!("/proc/self/fd/{}", cwd.as_raw_fd());
        let directory = std::fs::read_link(link).map_err(|error| match errno_of(&error) {
            // The descriptor is open: it is /proc that is missing.
            Errno::ENOENT => at(Step::Sandbox(Part::Proc))(Errno::ENOENT),
            errno => at(Step::Cwd)(errno),
        })?;
        let tmp = sandbox.private_tmp.as_ref().map(|tmp| Tmp {
            options: options(tmp.size),
            executable: tmp.executable,
        });
        let hidden = Hidden::by(&tmp);
        let mut binds = Vec::new();
        let mut proc = sandbox.own_processes.then_some(Access::Read);
        // With everything writable there is nothing to lock.
        let mut locked = sandbox.locked_metadata;
        for (index, allowed) in sandbox.paths.iter().enumerate() {
            // A preset has nothing that is hidden, or written.
            if !allowed.required {
                continue;
            }
            let step = Step::SandboxPath(u16::try_from(index).unwrap_or(u16::MAX));
            let path = std::fs::canonicalize(as_path(allowed.path))
                .map_err(|error| at(step)(errno_of(&error)))?;
            let writable = allowed.access == Access::Write;
            locked &= !(writable && path == Path::new("/"));
            if writable && path == as_path(PROC) {
                proc = proc.map(|_| Access::Write);
            }
            add_bind(&mut binds, path, writable, &hidden, locked).map_err(at(step))?;
        }
        // Those above come before those below.
        binds.sort_by(|one, other| one.path.cmp(&other.path));
        let binds = without_covered(binds);
        let working = spec.cd.map(|cd| directory.join(as_path(cd)));
        let directories = iter::once(&directory)
            .chain(&working)
            .filter(|_| tmp.is_some())
            // One that does not exist is an error of its own, when it is gone to.
            .filter_map(|path| std::fs::canonicalize(path).ok())
            .flat_map(|path| hidden.way_to(&path).unwrap_or_default())
            .collect();
        Ok(Mounts {
            directory: c_string(directory),
            proc,
            tmp,
            locked,
            binds,
            directories,
        })
    }
}

/// Of tmpfs(5). An empty file counts nothing in its size, but takes a kilobyte of memory: so many of them are as much as may
/// be in files, and some more for what is mounted into a small one.
fn options(size: u64) -> CString {
    const OF_A_FILE: u64 = 1024;
    const ALWAYS: u64 = 4096;
    let inodes = ALWAYS + size / OF_A_FILE;
    CString::new(format!("mode=1777,size={size},nr_inodes={inodes}")).unwrap_or_default()
}

/// The directories that a private `/tmp` hides.
struct Hidden(Vec<PathBuf>);

impl Hidden {
    fn by(tmp: &Option<Tmp>) -> Hidden {
        let directories = [TMP, SHM].into_iter().filter(|_| tmp.is_some());
        let real = directories.filter_map(|path| std::fs::canonicalize(as_path(path)).ok());
        Hidden(real.collect())
    }

    /// From below the directory that is hidden down to the path itself. `None`: it is not hidden.
    fn way_to(&self, path: &Path) -> Option<Vec<CString>> {
        let directory = self
            .0
            .iter()
            .find(|directory| path.starts_with(directory))?;
        let way = path.ancestors().take_while(|above| above != directory);
        let mut way: Vec<_> = way.map(|above| c_string(above.to_owned())).collect();
        way.reverse();
        Some(way)
    }
}

/// Adds a path where it would be hidden, or could not be written.
fn add_bind(
    binds: &mut Vec<Bind>,
    path: PathBuf,
    writable: bool,
    hidden: &Hidden,
    locked: bool,
) -> nix::Result<()> {
    let (parents, in_private) = match hidden.way_to(&path) {
        Some(mut way) => match way.pop() {
            Some(_path) => (way, true),
            // The private one itself.
            None => return Ok(()),
        },
        None if locked && writable && path != Path::new("/") => (Vec::new(), false),
        None => return Ok(()),
    };
    let path = c_string(path);
    let found = nix::sys::stat::fstat(paths::exact(&path)?)?;
    let kind = found.st_mode & libc::S_IFMT;
    // A device can be written on a read-only mount, and the terminals' would not find them as a mount of its own.
    if !in_private && kind != libc::S_IFDIR && kind != libc::S_IFREG {
        return Ok(());
    }
    match binds.iter_mut().find(|bind| bind.path == path) {
        Some(bind) => bind.writable |= writable,
        None => binds.push(Bind {
            path,
            identity: Identity(found.st_dev, found.st_ino),
            parents,
            is_directory: kind == libc::S_IFDIR,
            writable,
            in_private,
            tree: Cell::new(-1),
        }),
    }
    Ok(())
}

/// What is in a directory that is mounted, too, comes with it. One that may be written makes all in it writable, as it does where
/// nothing is mounted.
fn without_covered(binds: Vec<Bind>) -> Vec<Bind> {
    let mut left: Vec<Bind> = Vec::with_capacity(binds.len());
    for bind in binds {
        let path = as_path(&bind.path);
        let above = left
            .iter()
            .rfind(|above| path.starts_with(as_path(&above.path)));
        if above.is_none_or(|above| bind.writable && !above.writable) {
            left.push(bind);
        }
    }
    left
}

fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

fn c_string(path: PathBuf) -> CString {
    // Paths of the system have no NUL.
    CString::new(path.into_os_string().into_vec()).unwrap_or_default()
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

impl Namespaces {
    /// With which flags the new process is born.
    pub fn flags(&self) -> libc::c_int {
        // It shares this process's memory, and could not leave the user namespace later (unshare(2)).
        if self.user.is_some() {
            libc::CLONE_NEWUSER
        } else {
            0
        }
    }

    /// Whether it has a user namespace, and so all capabilities in it.
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    // --- the new process: no allocation, no lock, no formatting --------------------------------------

    /// Maps the user, where there is a user namespace. Before the process makes any other namespace.
    pub fn map_user(&self) -> Result<(), Failure> {
        match &self.user {
            Some(maps) => maps.write().map_err(at(Step::Sandbox(Part::User))),
            None => Ok(()),
        }
    }

    /// A network and mounts of its own; what is newly mounted is added to the ruleset. After the files of the command are open: one that is
    /// open for writing keeps its mount from becoming read-only.
    pub fn enter(&self, ruleset: Option<&Ruleset>) -> Result<(), Failure> {
        if self.loopback {
            raise_loopback().map_err(at(Step::Sandbox(Part::Loopback)))?;
        }
        match &self.mounts {
            Some(mounts) => mounts.make(ruleset),
            None => Ok(()),
        }
    }
}

/// The children of this process are in a PID namespace of their own from now on.
pub fn leave_processes() -> nix::Result<()> {
    // SAFETY: unshare(2) touches no memory.
    done(unsafe { libc::unshare(libc::CLONE_NEWPID) })
}

fn done(result: libc::c_int) -> nix::Result<()> {
    Errno::result(result).map(drop)
}

impl Maps {
    /// The files in /proc belong to root as long as the memory of this process must not be looked at, and this is
    /// the memory of the shepherd. So a copy of the process writes them, which may be looked at for that time.
    fn write(&self) -> nix::Result<()> {
        // SAFETY: a fork by the system call. The child makes system calls and leaves.
        let child =
            Errno::result(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
        if child == 0 {
            let code = self
                .write_own()
                .err()
                .map_or(0, |errno| errno as libc::c_int);
            // SAFETY: leaves without running anything of the parent's.
            unsafe { libc::_exit(code) }
        }
        let mut status = 0;
        // SAFETY: waitpid(2) writes the status.
        Errno::result(unsafe { libc::waitpid(child as libc::pid_t, &mut status, 0) })?;
        if !libc::WIFEXITED(status) {
            return Err(Errno::EINTR);
        }
        match libc::WEXITSTATUS(status) {
            0 => Ok(()),
            errno => Err(Errno::from_raw(errno)),
        }
    }

    fn write_own(&self) -> nix::Result<()> {
        // The copy must not keep descriptors open.
        // SAFETY: nothing of this copy uses a descriptor; prctl(2) on it.
        unsafe {
            libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0);
            done(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))?;
        }
        write_file(c"/proc/self/setgroups", c"deny")?;
        write_file(c"/proc/self/uid_map", &self.uid)?;
        write_file(c"/proc/self/gid_map", &self.gid)
    }
}

fn write_file(path: &CStr, text: &CStr) -> nix::Result<()> {
    // SAFETY: open(2), write(2) and close(2), with strings that live.
    unsafe {
        let fd = Errno::result(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        let written = libc::write(fd, text.as_ptr().cast(), text.count_bytes());
        let result = Errno::result(written).map(drop);
        libc::close(fd);
        result
    }
}

/// A new network namespace has one interface, which is down.
fn raise_loopback() -> nix::Result<()> {
    // SAFETY: unshare(2) touches no memory; all-zero bytes are a valid ifreq; ioctl(2) reads and writes it.
    unsafe {
        done(libc::unshare(libc::CLONE_NEWNET))?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        let socket = Errno::result(libc::socket(libc::AF_INET, kind, 0))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = *from as libc::c_char;
        }
        let asked = done(libc::ioctl(
            socket,
            libc::SIOCGIFFLAGS as _,
            &raw mut request,
        ));
        let raised = asked.and_then(|()| {
            request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
            done(libc::ioctl(
                socket,
                libc::SIOCSIFFLAGS as _,
                &raw const request,
            ))
        });
        libc::close(socket);
        raised
    }
}

/// `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const READ_ONLY: u64 = 1;
const NO_SET_ID: u64 = 2;
const NO_DEVICES: u64 = 4;
const RECURSIVE: libc::c_uint = 0x8000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const FROM_EMPTY_PATH: libc::c_uint = 4;
const TO_EMPTY_PATH: libc::c_uint = 0x40;

impl Mounts {
    fn make(&self, ruleset: Option<&Ruleset>) -> Result<(), Failure> {
        // SAFETY: unshare(2) touches no memory.
        done(unsafe { libc::unshare(libc::CLONE_NEWNS) })
            .map_err(at(Step::Sandbox(Part::Mounts)))?;
        // First of all: or else what root mounts here is mounted in the host.
        let private = libc::MS_REC | libc::MS_PRIVATE;
        mount(None, c"/", private, None).map_err(at(Step::Sandbox(Part::Mounts)))?;
        for bind in &self.binds {
            bind.copy().map_err(at(Step::Sandbox(Part::Mounts)))?;
        }
        if self.locked {
            set_attributes(libc::AT_FDCWD, c"/", READ_ONLY)
                .map_err(at(Step::Sandbox(Part::Metadata)))?;
        }
        // Before what is the command's own: one that is writable must not cover that, as the machine's /dev would.
        self.put(false)?;
        if let Some(tmp) = &self.tmp {
            self.make_tmp(tmp).map_err(at(Step::Sandbox(Part::Tmp)))?;
        }
        if self.proc.is_some() {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            mount(Some(c"proc"), PROC, flags, None).map_err(at(Step::Sandbox(Part::Proc)))?;
        }
        self.put(true)?;
        for directory in &self.directories {
            make_directory(directory).map_err(at(Step::Sandbox(Part::Tmp)))?;
        }
        // SAFETY: a string that lives.
        done(unsafe { libc::chdir(self.directory.as_ptr()) }).map_err(at(Step::Cwd))?;
        match ruleset {
            Some(ruleset) => self.allow(ruleset),
            None => Ok(()),
        }
    }

    fn put(&self, in_private: bool) -> Result<(), Failure> {
        for bind in &self.binds {
            if bind.in_private == in_private {
                bind.put().map_err(at(Step::Sandbox(Part::Mounts)))?;
            }
        }
        Ok(())
    }

    fn allow(&self, ruleset: &Ruleset) -> Result<(), Failure> {
        if let Some(access) = self.proc {
            ruleset.allow_mount(PROC, &[access])?;
        }
        if let Some(Tmp { executable, .. }) = self.tmp {
            let access: &[Access] = if executable {
                &[Access::Write, Access::Execute]
            } else {
                &[Access::Write]
            };
            for directory in [TMP, SHM] {
                ruleset.allow_mount(directory, access)?;
            }
        }
        Ok(())
    }

    fn make_tmp(&self, tmp: &Tmp) -> nix::Result<()> {
        let flags = libc::MS_NOSUID | libc::MS_NODEV;
        mount(Some(c"tmpfs"), TMP, flags, Some(&tmp.options))?;
        match mount(Some(c"tmpfs"), SHM, flags, Some(&tmp.options)) {
            // There is nothing to hide.
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }
}

impl Bind {
    fn copy(&self) -> nix::Result<()> {
        let found = paths::exact(&self.path).map_err(|_| REPLACED)?;
        let stat = nix::sys::stat::fstat(&found)?;
        if Identity(stat.st_dev, stat.st_ino) != self.identity {
            return Err(REPLACED);
        }
        let flags =
            OPEN_TREE_CLONE | RECURSIVE | (libc::AT_EMPTY_PATH | libc::O_CLOEXEC) as libc::c_uint;
        let (found, empty) = (found.as_raw_fd(), c"".as_ptr());
        // SAFETY: open_tree(2) reads the string.
        let tree = unsafe { libc::syscall(libc::SYS_open_tree, found, empty, flags) };
        let tree = Errno::result(tree)? as RawFd;
        self.tree.set(tree);
        if self.writable {
            Ok(())
        } else {
            set_attributes(tree, c"", READ_ONLY | NO_SET_ID | NO_DEVICES)
        }
    }

    fn put(&self) -> nix::Result<()> {
        for parent in &self.parents {
            make_directory(parent)?;
        }
        if is_missing(&self.path) {
            if self.is_directory {
                make_directory(&self.path)?;
            } else {
                make_file(&self.path)?;
            }
        }
        let target = paths::exact(&self.path).map_err(|_| REPLACED)?;
        let tree = self.tree.get();
        let empty = c"".as_ptr();
        // SAFETY: move_mount(2) reads the strings; the descriptor is this process's.
        unsafe {
            let moved = libc::syscall(
                libc::SYS_move_mount,
                tree,
                empty,
                target.as_raw_fd(),
                empty,
                FROM_EMPTY_PATH | TO_EMPTY_PATH,
            );
            Errno::result(moved)?;
            done(libc::close(tree))
        }
    }
}

fn is_missing(path: &CStr) -> bool {
    // SAFETY: access(2) reads the string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == -1 }
}

/// Whatever the umask is. One that is there stays as it is.
fn make_directory(path: &CStr) -> nix::Result<()> {
    // SAFETY: umask(2) touches no memory, mkdir(2) reads the string.
    let made = unsafe {
        let umask = libc::umask(0);
        let made = done(libc::mkdir(path.as_ptr(), 0o755));
        libc::umask(umask);
        made
    };
    match made {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

fn make_file(path: &CStr) -> nix::Result<()> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: open(2) reads the string; the descriptor is closed at once.
    unsafe {
        let fd = Errno::result(libc::open(path.as_ptr(), flags, 0o600))?;
        done(libc::close(fd))
    }
}

fn mount(
    kind: Option<&CStr>,
    target: &CStr,
    flags: libc::c_ulong,
    options: Option<&CStr>,
) -> nix::Result<()> {
    let pointer = |string: Option<&CStr>| string.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: mount(2) reads the strings.
    done(unsafe {
        libc::mount(
            pointer(kind),
            target.as_ptr(),
            pointer(kind),
            flags,
            pointer(options).cast(),
        )
    })
}

/// A mount, and all below it.
fn set_attributes(directory: RawFd, path: &CStr, set: u64) -> nix::Result<()> {
    let attributes = Attributes {
        set,
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    // SAFETY: mount_setattr(2) reads the string and the struct.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            RECURSIVE | libc::AT_EMPTY_PATH as libc::c_uint,
            &attributes,
            size_of::<Attributes>(),
        )
    };
    Errno::result(result).map(drop)
}
