//! A command's specification: written by the NIF, read by the shepherd.
//!
//! It is a sequence of fields, each a tag byte, a length of four bytes, and the value. Strings are NUL-terminated, so
//! that the shepherd can pass them to system calls without a copy.

use crate::Malformed;
use std::ffi::CStr;

/// The fields of a specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// The executable: a path, or a name to be found on `SearchPath`.
    File = 1,
    /// Directories, separated by `:`.
    SearchPath,
    /// One argument; the first is `argv[0]`.
    Arg,
    /// One `NAME=value`.
    Env,
    /// Any number of `NAME=value`, each NUL-terminated.
    Environment,
    /// The command's working directory, relative to the VM's.
    Cd,
    /// Where the three standard descriptors lead, in their order; see [`Stdio`]. Behind an `Fd`: where that one does.
    Passed,
    Null,
    Redirected,
    ReadFile,
    WriteFile,
    AppendFile,
    StopSignal,
    /// Milliseconds between the stop signal and SIGKILL.
    KillTimeout,
    Leftovers,
    Umask,
    Nice,
    /// Three numbers: the resource, the soft limit, the hard limit.
    Rlimit,
    Uid,
    Gid,
    /// Any number of group IDs, which replace the supplementary ones.
    Groups,
    NoNewPrivs,
    /// Standard input is a terminal, and becomes the command's controlling one.
    Terminal,
    /// The directory of the cgroup that the command joins. The shepherd removes it when the command is over.
    Cgroup,
    /// One that the command only joins.
    JoinedCgroup,
    /// The number of a further descriptor.
    Fd,
    /// Two numbers: the layers of a sandbox (see [`Sandbox`]) and its [`Network`]. Before all other fields of the sandbox.
    Sandbox,
    /// Paths beneath which the sandbox allows something; see [`Access`].
    Readable,
    Writable,
    Executable,
    /// The same, for paths that need not exist.
    ReadableIfThere,
    ExecutableIfThere,
    /// The TCP ports that it may connect to, and bind.
    Connect,
    Bind,
    /// A PID namespace of its own.
    OwnProcesses,
    /// Two numbers: a size, and 1 if it is executable; see the struct of this name.
    PrivateTmp,
    /// All mounts are read-only, but for what is writable.
    LockedMetadata,
}

impl Tag {
    const ALL: [Tag; 37] = [
        Tag::File,
        Tag::SearchPath,
        Tag::Arg,
        Tag::Env,
        Tag::Environment,
        Tag::Cd,
        Tag::Passed,
        Tag::Null,
        Tag::Redirected,
        Tag::ReadFile,
        Tag::WriteFile,
        Tag::AppendFile,
        Tag::StopSignal,
        Tag::KillTimeout,
        Tag::Leftovers,
        Tag::Umask,
        Tag::Nice,
        Tag::Rlimit,
        Tag::Uid,
        Tag::Gid,
        Tag::Groups,
        Tag::NoNewPrivs,
        Tag::Terminal,
        Tag::Cgroup,
        Tag::JoinedCgroup,
        Tag::Fd,
        Tag::Sandbox,
        Tag::Readable,
        Tag::Writable,
        Tag::Executable,
        Tag::ReadableIfThere,
        Tag::ExecutableIfThere,
        Tag::Connect,
        Tag::Bind,
        Tag::OwnProcesses,
        Tag::PrivateTmp,
        Tag::LockedMetadata,
    ];

    fn from_byte(byte: u8) -> Option<Tag> {
        Tag::ALL.into_iter().find(|tag| *tag as u8 == byte)
    }
}

/// The fields of a specification, in their order.
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(Tag, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let field = self.split();
        // Where one ends wrongly, nothing more can be told.
        self.bytes = field.map_or(&[], |(_, _, rest)| rest);
        Some(field.map(|(tag, value, _)| (tag, value)).ok_or(Malformed))
    }
}

impl<'a> Fields<'a> {
    fn split(&self) -> Option<(Tag, &'a [u8], &'a [u8])> {
        let (&tag, rest) = self.bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
        Some((Tag::from_byte(tag)?, value, rest))
    }
}

/// Where one of the command's descriptors leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio<'a> {
    Null,
    /// A descriptor that came with the request.
    Passed,
    /// Where stdout leads; for stderr.
    Redirected,
    Read(&'a CStr),
    /// Created, or truncated.
    Write(&'a CStr),
    Append(&'a CStr),
}

impl<'a> Stdio<'a> {
    fn decode(tag: Tag, value: &'a [u8]) -> Result<Stdio<'a>, Malformed> {
        match tag {
            Tag::Passed => Ok(Stdio::Passed),
            Tag::Null => Ok(Stdio::Null),
            Tag::Redirected => Ok(Stdio::Redirected),
            Tag::ReadFile => Ok(Stdio::Read(string(value)?)),
            Tag::WriteFile => Ok(Stdio::Write(string(value)?)),
            Tag::AppendFile => Ok(Stdio::Append(string(value)?)),
            _ => Err(Malformed),
        }
    }
}

/// What happens to the processes that a command leaves behind when it exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    Kill,
    Leave,
}

impl Leftovers {
    pub fn to_number(self) -> u64 {
        match self {
            Leftovers::Kill => 0,
            Leftovers::Leave => 1,
        }
    }

    fn from_number(number: u64) -> Result<Leftovers, Malformed> {
        match number {
            0 => Ok(Leftovers::Kill),
            1 => Ok(Leftovers::Leave),
            _ => Err(Malformed),
        }
    }
}

/// A limit of setrlimit(2). `u64::MAX` is "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    pub resource: u64,
    pub soft: u64,
    pub hard: u64,
}

/// What a sandboxed command may do beneath a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    /// And read.
    Write,
    /// And read.
    Execute,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedPath<'a> {
    pub access: Access,
    /// Whether it is an error when it does not exist.
    pub required: bool,
    pub path: &'a CStr,
}

/// Which sockets a sandboxed command may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    None,
    /// `AF_UNIX`.
    Unix,
    /// Those of the Internet, in a network namespace of its own.
    Loopback,
    /// TCP to and on the ports that the sandbox lists.
    Ports,
    All,
}

impl Network {
    const ALL: [Network; 5] = [
        Network::None,
        Network::Unix,
        Network::Loopback,
        Network::Ports,
        Network::All,
    ];

    pub fn to_number(self) -> u64 {
        self as u64
    }

    fn from_number(number: u64) -> Result<Network, Malformed> {
        let found = Network::ALL.into_iter().find(|one| *one as u64 == number);
        found.ok_or(Malformed)
    }
}

/// An empty `/tmp` and `/dev/shm` of the command's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrivateTmp {
    /// The most bytes that each holds.
    pub size: u64,
    /// Whether programs in them may be executed.
    pub executable: bool,
}

/// What a shepherd puts on itself, so that the commands that it starts are born with it: it is alike for many of them, and takes
/// as long as half a start. It is never taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// A filter (seccomp(2)) refuses the system calls of the layer of this name,
    pub system_calls: bool,
    /// those for other networks,
    pub network: Network,
    /// and, with [`Network::Ports`], those to listen.
    pub listens: bool,
    /// The filter leaves out what it takes to make namespaces. The command adds that.
    pub namespaces: bool,
    /// `execve(2)` gives no capabilities back.
    pub capabilities: bool,
}

impl Confinement {
    /// That of the shepherd of this command. Of a spec that cannot be decoded it is none, and no shepherd starts that.
    pub fn of(spec: &[u8]) -> Option<Confinement> {
        let mut sandbox: Option<Sandbox> = None;
        for field in (Fields { bytes: spec }) {
            let (tag, value) = field.ok()?;
            match tag {
                Tag::Sandbox => sandbox = Some(Sandbox::decode(value).ok()?),
                // Those that a confinement depends on.
                Tag::Bind | Tag::OwnProcesses | Tag::PrivateTmp | Tag::LockedMetadata => {
                    sandbox.as_mut()?.add(tag, value).ok()?
                }
                _ => {}
            }
        }
        sandbox?.confinement()
    }
}

/// What a command may touch.
#[derive(Debug, PartialEq, Eq)]
pub struct Sandbox<'a> {
    /// The layers: what of the following is limited.
    pub filesystem: bool,
    pub signals: bool,
    pub system_calls: bool,
    pub capabilities: bool,
    pub network: Network,
    pub paths: Vec<AllowedPath<'a>>,
    pub connect: Vec<u16>,
    pub bind: Vec<u16>,
    pub own_processes: bool,
    pub private_tmp: Option<PrivateTmp>,
    pub locked_metadata: bool,
}

impl<'a> Sandbox<'a> {
    /// The bits of the layers in [`Tag::Sandbox`].
    pub const FILESYSTEM: u64 = 1;
    pub const SIGNALS: u64 = 2;
    pub const SYSTEM_CALLS: u64 = 4;
    pub const CAPABILITIES: u64 = 8;
    const LAYERS: u64 = 15;

    /// `None` where no call is refused.
    pub fn confinement(&self) -> Option<Confinement> {
        let refuses = self.system_calls || self.network != Network::All;
        refuses.then(|| Confinement {
            system_calls: self.system_calls,
            network: self.network,
            listens: self.network == Network::Ports && !self.bind.is_empty(),
            namespaces: self.has_namespaces(),
            capabilities: self.capabilities,
        })
    }

    pub fn has_namespaces(&self) -> bool {
        self.network == Network::Loopback || self.has_mounts()
    }

    /// Whether it has mounts of its own.
    pub fn has_mounts(&self) -> bool {
        self.own_processes || self.private_tmp.is_some() || self.locked_metadata
    }

    fn decode(value: &[u8]) -> Result<Sandbox<'a>, Malformed> {
        let [layers, network] = numbers(value)?[..] else {
            return Err(Malformed);
        };
        if layers & !Self::LAYERS != 0 {
            return Err(Malformed);
        }
        Ok(Sandbox {
            filesystem: layers & Self::FILESYSTEM != 0,
            signals: layers & Self::SIGNALS != 0,
            system_calls: layers & Self::SYSTEM_CALLS != 0,
            capabilities: layers & Self::CAPABILITIES != 0,
            network: Network::from_number(network)?,
            paths: Vec::new(),
            connect: Vec::new(),
            bind: Vec::new(),
            own_processes: false,
            private_tmp: None,
            locked_metadata: false,
        })
    }

    /// Takes one of the fields that follow the first one.
    fn add(&mut self, tag: Tag, value: &'a [u8]) -> Result<(), Malformed> {
        let mut allow = |access, required| {
            let path = string(value)?;
            self.paths.push(AllowedPath {
                access,
                required,
                path,
            });
            Ok(())
        };
        match tag {
            Tag::Readable => allow(Access::Read, true)?,
            Tag::Writable => allow(Access::Write, true)?,
            Tag::Executable => allow(Access::Execute, true)?,
            Tag::ReadableIfThere => allow(Access::Read, false)?,
            Tag::ExecutableIfThere => allow(Access::Execute, false)?,
            Tag::Connect => self.connect = ports(value)?,
            Tag::Bind => self.bind = ports(value)?,
            Tag::OwnProcesses => self.own_processes = true,
            Tag::PrivateTmp => {
                let [size, executable @ (0 | 1)] = numbers(value)?[..] else {
                    return Err(Malformed);
                };
                let executable = executable == 1;
                self.private_tmp = Some(PrivateTmp { size, executable });
            }
            Tag::LockedMetadata => self.locked_metadata = true,
            _ => return Err(Malformed),
        }
        Ok(())
    }
}

fn ports(value: &[u8]) -> Result<Vec<u16>, Malformed> {
    let ports = numbers(value)?.into_iter().map(u16::try_from);
    ports.collect::<Result<_, _>>().map_err(|_| Malformed)
}

/// Writes a specification, field by field.
#[derive(Default)]
pub struct SpecWriter {
    bytes: Vec<u8>,
}

impl SpecWriter {
    pub fn with_capacity(bytes: usize) -> SpecWriter {
        SpecWriter {
            bytes: Vec::with_capacity(bytes),
        }
    }

    /// A string field. A string that contains a NUL, or is longer than a length field can say, is refused.
    pub fn string(&mut self, tag: Tag, value: &[u8]) -> Result<(), Malformed> {
        let length = u32::try_from(value.len() + 1).map_err(|_| Malformed)?;
        if value.contains(&0) {
            return Err(Malformed);
        }
        self.header(tag, length);
        self.bytes.extend_from_slice(value);
        self.bytes.push(0);
        Ok(())
    }

    /// A field of any number of strings, each NUL-terminated already.
    pub fn strings(&mut self, tag: Tag, block: &[u8]) -> Result<(), Malformed> {
        let length = u32::try_from(block.len()).map_err(|_| Malformed)?;
        if block.last().is_some_and(|last| *last != 0) {
            return Err(Malformed);
        }
        self.header(tag, length);
        self.bytes.extend_from_slice(block);
        Ok(())
    }

    pub fn number(&mut self, tag: Tag, value: u64) {
        self.numbers(tag, &[value]);
    }

    pub fn numbers(&mut self, tag: Tag, values: &[u64]) {
        self.header(tag, size_of_val(values) as u32);
        for value in values {
            self.bytes.extend_from_slice(&value.to_ne_bytes());
        }
    }

    pub fn flag(&mut self, tag: Tag) {
        self.header(tag, 0);
    }

    fn header(&mut self, tag: Tag, length: u32) {
        self.bytes.push(tag as u8);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A specification as the shepherd reads it. The strings are borrowed from the message.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec<'a> {
    pub file: &'a CStr,
    pub search_path: Option<&'a CStr>,
    pub args: Vec<&'a CStr>,
    pub env: Vec<&'a CStr>,
    pub cd: Option<&'a CStr>,
    pub stdio: [Stdio<'a>; 3],
    /// The further descriptors by their numbers, from 3 on.
    pub fds: Vec<(u8, Stdio<'a>)>,
    pub stop_signal: i32,
    pub kill_timeout_ms: u64,
    pub leftovers: Leftovers,
    pub umask: Option<u32>,
    pub nice: Option<i32>,
    pub rlimits: Vec<Rlimit>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Option<Vec<u32>>,
    pub no_new_privs: bool,
    pub terminal: bool,
    pub cgroup: Option<&'a CStr>,
    pub joined_cgroup: Option<&'a CStr>,
    pub sandbox: Option<Sandbox<'a>>,
}

impl<'a> Spec<'a> {
    pub fn decode(bytes: &'a [u8]) -> Result<Spec<'a>, Malformed> {
        let mut file = None;
        let mut seen = Vec::with_capacity(3);
        let mut further = None;
        let mut spec = Spec {
            file: c"",
            search_path: None,
            args: Vec::new(),
            env: Vec::new(),
            cd: None,
            stdio: [Stdio::Null; 3],
            fds: Vec::new(),
            stop_signal: 15,
            kill_timeout_ms: 5000,
            leftovers: Leftovers::Kill,
            umask: None,
            nice: None,
            rlimits: Vec::new(),
            uid: None,
            gid: None,
            groups: None,
            no_new_privs: false,
            terminal: false,
            cgroup: None,
            joined_cgroup: None,
            sandbox: None,
        };
        for field in (Fields { bytes }) {
            let (tag, value) = field?;
            match tag {
                Tag::File => file = Some(string(value)?),
                Tag::SearchPath => spec.search_path = Some(string(value)?),
                Tag::Arg => spec.args.push(string(value)?),
                Tag::Env => spec.env.push(string(value)?),
                Tag::Environment => {
                    for variable in value.split_inclusive(|byte| *byte == 0) {
                        spec.env.push(string(variable)?);
                    }
                }
                Tag::Cd => spec.cd = Some(string(value)?),
                Tag::Fd => further = Some(further_number(value)?),
                tag @ (Tag::Passed
                | Tag::Null
                | Tag::Redirected
                | Tag::ReadFile
                | Tag::WriteFile
                | Tag::AppendFile) => {
                    let stdio = Stdio::decode(tag, value)?;
                    match further.take() {
                        Some(number) => spec.fds.push((number, stdio)),
                        None => seen.push(stdio),
                    }
                }
                Tag::StopSignal => spec.stop_signal = small(value)?,
                Tag::KillTimeout => spec.kill_timeout_ms = number(value)?,
                Tag::Leftovers => spec.leftovers = Leftovers::from_number(number(value)?)?,
                Tag::Umask => spec.umask = Some(small(value)?),
                // A negative one travels as its two's complement.
                Tag::Nice => spec.nice = Some(number(value)? as i64 as i32),
                Tag::Rlimit => {
                    let [resource, soft, hard] = numbers(value)?[..] else {
                        return Err(Malformed);
                    };
                    spec.rlimits.push(Rlimit {
                        resource,
                        soft,
                        hard,
                    });
                }
                Tag::Uid => spec.uid = Some(small(value)?),
                Tag::Gid => spec.gid = Some(small(value)?),
                Tag::Groups => {
                    let groups = numbers(value)?.into_iter().map(u32::try_from);
                    spec.groups = Some(groups.collect::<Result<_, _>>().map_err(|_| Malformed)?);
                }
                Tag::NoNewPrivs => spec.no_new_privs = true,
                Tag::Terminal => spec.terminal = true,
                Tag::Cgroup => spec.cgroup = Some(string(value)?),
                Tag::JoinedCgroup => spec.joined_cgroup = Some(string(value)?),
                Tag::Sandbox => spec.sandbox = Some(Sandbox::decode(value)?),
                tag @ (Tag::Readable
                | Tag::Writable
                | Tag::Executable
                | Tag::ReadableIfThere
                | Tag::ExecutableIfThere
                | Tag::Connect
                | Tag::Bind
                | Tag::OwnProcesses
                | Tag::PrivateTmp
                | Tag::LockedMetadata) => {
                    spec.sandbox.as_mut().ok_or(Malformed)?.add(tag, value)?
                }
            }
        }
        if seen.len() > 3 || further.is_some() {
            return Err(Malformed);
        }
        spec.stdio = std::array::from_fn(|at| seen.get(at).copied().unwrap_or(Stdio::Null));
        spec.file = file.ok_or(Malformed)?;
        Ok(spec)
    }
}

fn string(value: &[u8]) -> Result<&CStr, Malformed> {
    CStr::from_bytes_with_nul(value).map_err(|_| Malformed)
}

fn numbers(value: &[u8]) -> Result<Vec<u64>, Malformed> {
    value.chunks(size_of::<u64>()).map(number).collect()
}

fn number(value: &[u8]) -> Result<u64, Malformed> {
    value
        .try_into()
        .map(u64::from_ne_bytes)
        .map_err(|_| Malformed)
}

/// The standard descriptors have no number.
fn further_number(value: &[u8]) -> Result<u8, Malformed> {
    let number = small(value)?;
    if number > 2 {
        Ok(number)
    } else {
        Err(Malformed)
    }
}

fn small<T: TryFrom<u64>>(value: &[u8]) -> Result<T, Malformed> {
    number(value)?.try_into().map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::ffi::CString;

    fn c_bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(1..=255u8, 0..40)
    }

    proptest! {
        #[test]
        fn a_spec_survives_the_wire(
            file in c_bytes(), args in vec(c_bytes(), 0..8), env in vec(c_bytes(), 0..8),
            timeout: u64, signal in 1..64u64, fd in 3..=255u8, nice in -20..20i32, groups in vec(any::<u32>(), 0..4),
            layers in 0..16u64, network in 0..5usize, connect in vec(any::<u16>(), 0..4), bind in vec(any::<u16>(), 0..4),
        ) {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, &file).unwrap();
            args.iter().for_each(|arg| writer.string(Tag::Arg, arg).unwrap());
            let (block, single) = env.split_at(env.len() / 2);
            let block: Vec<u8> = block.iter().flat_map(|pair| [&pair[..], b"\0"].concat()).collect();
            writer.strings(Tag::Environment, &block).unwrap();
            single.iter().for_each(|pair| writer.string(Tag::Env, pair).unwrap());
            writer.number(Tag::KillTimeout, timeout);
            writer.number(Tag::StopSignal, signal);
            writer.flag(Tag::Passed);
            writer.string(Tag::AppendFile, &file).unwrap();
            writer.flag(Tag::Redirected);
            writer.number(Tag::Fd, fd.into());
            writer.string(Tag::ReadFile, &file).unwrap();
            writer.number(Tag::Nice, nice as i64 as u64);
            writer.numbers(Tag::Rlimit, &[1, timeout, u64::MAX]);
            writer.numbers(Tag::Groups, &groups.iter().map(|g| *g as u64).collect::<Vec<_>>());
            writer.number(Tag::Leftovers, Leftovers::Leave.to_number());
            writer.numbers(Tag::Sandbox, &[layers, Network::ALL[network].to_number()]);
            writer.string(Tag::Writable, &file).unwrap();
            writer.string(Tag::ExecutableIfThere, &file).unwrap();
            writer.numbers(Tag::Connect, &connect.iter().map(|port| (*port).into()).collect::<Vec<_>>());
            writer.numbers(Tag::Bind, &bind.iter().map(|port| (*port).into()).collect::<Vec<_>>());
            writer.numbers(Tag::PrivateTmp, &[timeout, 1]);
            writer.flag(Tag::OwnProcesses);
            let bytes = writer.finish();
            let spec = Spec::decode(&bytes).unwrap();
            prop_assert_eq!(spec.file.to_bytes(), &file[..]);
            prop_assert_eq!(spec.args.iter().map(|a| a.to_bytes().to_vec()).collect::<Vec<_>>(), args);
            prop_assert_eq!(spec.env.iter().map(|e| e.to_bytes().to_vec()).collect::<Vec<_>>(), env);
            prop_assert_eq!(spec.kill_timeout_ms, timeout);
            prop_assert_eq!(spec.stop_signal as u64, signal);
            prop_assert_eq!(spec.stdio[0], Stdio::Passed);
            prop_assert!(matches!(spec.stdio[1], Stdio::Append(path) if path.to_bytes() == file));
            prop_assert_eq!(spec.stdio[2], Stdio::Redirected);
            prop_assert!(matches!(spec.fds[..], [(number, Stdio::Read(path))]
                if number == fd && path.to_bytes() == file));
            prop_assert_eq!(spec.nice, Some(nice));
            let unlimited = Rlimit { resource: 1, soft: timeout, hard: u64::MAX };
            prop_assert_eq!(spec.rlimits, vec![unlimited]);
            prop_assert_eq!(spec.groups, Some(groups));
            prop_assert_eq!(spec.leftovers, Leftovers::Leave);
            let file = CString::new(file).unwrap();
            let allowed = |access, required| AllowedPath { access, required, path: &file };
            let sandbox = Sandbox {
                filesystem: layers & 1 != 0,
                signals: layers & 2 != 0,
                system_calls: layers & 4 != 0,
                capabilities: layers & 8 != 0,
                network: Network::ALL[network],
                paths: vec![allowed(Access::Write, true), allowed(Access::Execute, false)],
                connect,
                bind,
                own_processes: true,
                private_tmp: Some(PrivateTmp { size: timeout, executable: true }),
                locked_metadata: false,
            };
            prop_assert_eq!(Confinement::of(&bytes), sandbox.confinement());
            prop_assert_eq!(spec.sandbox, Some(sandbox));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Spec::decode(&bytes);
        }

        #[test]
        fn a_cut_spec_never_decodes_to_a_longer_one(args in vec(c_bytes(), 1..8), cut: prop::sample::Index) {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, b"x").unwrap();
            args.iter().for_each(|arg| writer.string(Tag::Arg, arg).unwrap());
            let bytes = writer.finish();
            if let Ok(spec) = Spec::decode(&bytes[..cut.index(bytes.len())]) {
                prop_assert!(spec.args.len() < args.len());
            }
        }
    }

    #[test]
    fn a_string_with_a_nul_is_refused_and_a_block_that_ends_without_one() {
        let mut writer = SpecWriter::default();
        assert_eq!(
            writer.strings(Tag::Environment, b"A=1\0B=2"),
            Err(Malformed)
        );
        assert_eq!(writer.string(Tag::Arg, b"a\0b"), Err(Malformed));
    }

    #[test]
    fn a_further_descriptor_is_none_of_the_standard_ones_and_leads_somewhere() {
        for (number, leads) in [(2, true), (256, true), (3, false)] {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, b"x").unwrap();
            writer.number(Tag::Fd, number);
            if leads {
                writer.flag(Tag::Passed);
            }
            assert_eq!(Spec::decode(&writer.finish()), Err(Malformed));
        }
    }

    #[test]
    fn what_a_shepherd_puts_on_itself_depends_on_no_path_and_no_size() {
        let confinement = |fields: &[(Tag, &[u64])]| {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, b"x").unwrap();
            for (tag, numbers) in fields {
                writer.numbers(*tag, numbers);
            }
            Confinement::of(&writer.finish())
        };
        let (none, ports, all) = (0, Network::Ports.to_number(), Network::All.to_number());
        let plain = confinement(&[(Tag::Sandbox, &[15, none])]).unwrap();
        let namespaces = Confinement {
            namespaces: true,
            ..plain
        };
        for field in [
            (Tag::PrivateTmp, &[1, 0][..]),
            (Tag::OwnProcesses, &[]),
            (Tag::LockedMetadata, &[]),
        ] {
            let fields = [(Tag::Sandbox, &[15, none][..]), field];
            assert_eq!(confinement(&fields), Some(namespaces));
        }
        let listens =
            |fields: &[(Tag, &[u64])]| confinement(fields).map(|confinement| confinement.listens);
        assert_eq!(
            listens(&[(Tag::Sandbox, &[15, ports]), (Tag::Bind, &[80])]),
            Some(true)
        );
        assert_eq!(
            listens(&[(Tag::Sandbox, &[15, ports]), (Tag::Connect, &[80])]),
            Some(false)
        );
        assert_eq!(confinement(&[(Tag::Sandbox, &[11, all])]), None);
        assert_eq!(confinement(&[]), None);
        assert_eq!(confinement(&[(Tag::Sandbox, &[16, none])]), None);
    }

    #[test]
    fn a_sandbox_begins_with_its_layers_and_has_no_unknown_one() {
        let spec = |write: fn(&mut SpecWriter)| {
            let mut writer = SpecWriter::default();
            writer.string(Tag::File, b"x").unwrap();
            write(&mut writer);
            Spec::decode(&writer.finish()).map(drop)
        };
        assert_eq!(
            spec(|writer| writer.numbers(Tag::Sandbox, &[15, 0])),
            Ok(())
        );
        let malformed: [fn(&mut SpecWriter); 5] = [
            |writer| writer.numbers(Tag::Sandbox, &[16, 0]),
            |writer| writer.numbers(Tag::Sandbox, &[15, 5]),
            |writer| writer.numbers(Tag::Sandbox, &[15]),
            |writer| writer.flag(Tag::OwnProcesses),
            |writer| {
                writer.numbers(Tag::Sandbox, &[15, 3]);
                writer.numbers(Tag::Connect, &[65_536]);
            },
        ];
        for write in malformed {
            assert_eq!(spec(write), Err(Malformed));
        }
    }

    #[test]
    fn a_spec_without_an_executable_is_malformed() {
        assert_eq!(Spec::decode(&[]), Err(Malformed));
    }
}
