//! The frames on the control socket.

/// Every event has this size.
pub const EVENT_SIZE: usize = 32;

/// Every request has this size.
pub const REQUEST_SIZE: usize = 8;

/// The error for bytes that this version of the protocol does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// The step at which the start of a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Taking the descriptors of the command and reading its specification.
    Receive,
    /// Making the process: `fork(2)` or `clone(2)`.
    Fork,
    /// `setsid(2)`, signals and the like: what does not fail on a healthy system.
    Setup,
    /// Going to the VM's working directory, to which the paths in the options are relative.
    Cwd,
    /// Opening the files of the standard descriptors.
    Stdin,
    Stdout,
    Stderr,
    /// Joining the cgroup.
    Cgroup,
    /// Going to the directory of the option `:cd`.
    Cd,
    Nice,
    Rlimits,
    Groups,
    Group,
    User,
    NoNewPrivs,
    /// `execve(2)`.
    Exec,
    /// Making the descriptor with this number.
    Fd(u8),
    /// A part of the sandbox.
    Sandbox(Part),
    /// Opening the path with this index among those of the sandbox; the last number stands for all above it.
    SandboxPath(u16),
}

/// A part of a sandbox that can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// There is no sandbox on this system.
    System,
    /// Landlock: the file system, signals, TCP ports.
    Filesystem,
    Signals,
    Ports,
    /// seccomp: sockets, and system calls.
    Filter,
    Capabilities,
    /// Namespaces.
    User,
    Processes,
    Proc,
    Mounts,
    Tmp,
    Metadata,
    Loopback,
}

impl Part {
    pub const ALL: [Part; 13] = [
        Part::System,
        Part::Filesystem,
        Part::Signals,
        Part::Ports,
        Part::Filter,
        Part::Capabilities,
        Part::User,
        Part::Processes,
        Part::Proc,
        Part::Mounts,
        Part::Tmp,
        Part::Metadata,
        Part::Loopback,
    ];
}

impl Step {
    /// Those that need no number; a byte tells which, by its place here.
    const PLAIN: [Step; 16] = [
        Step::Receive,
        Step::Fork,
        Step::Setup,
        Step::Cwd,
        Step::Stdin,
        Step::Stdout,
        Step::Stderr,
        Step::Cgroup,
        Step::Cd,
        Step::Nice,
        Step::Rlimits,
        Step::Groups,
        Step::Group,
        Step::User,
        Step::NoNewPrivs,
        Step::Exec,
    ];

    const FD: u8 = u8::MAX;
    const SANDBOX: u8 = u8::MAX - 1;
    const SANDBOX_PATH: u8 = u8::MAX - 2;

    fn encode(self) -> [u8; 3] {
        match self {
            Step::Fd(number) => [Step::FD, number, 0],
            Step::Sandbox(part) => [Step::SANDBOX, part as u8, 0],
            Step::SandboxPath(index) => {
                let [first, second] = index.to_ne_bytes();
                [Step::SANDBOX_PATH, first, second]
            }
            plain => {
                let place = Step::PLAIN.iter().position(|step| *step == plain);
                [place.unwrap_or_default() as u8, 0, 0]
            }
        }
    }

    fn decode([kind, number, second]: [u8; 3]) -> Result<Step, Malformed> {
        match kind {
            Step::FD => Ok(Step::Fd(number)),
            Step::SANDBOX => {
                let part = Part::ALL.get(number as usize).copied();
                part.map(Step::Sandbox).ok_or(Malformed)
            }
            Step::SANDBOX_PATH => {
                let index = u16::from_ne_bytes([number, second]);
                Ok(Step::SandboxPath(index))
            }
            place => Step::PLAIN.get(place as usize).copied().ok_or(Malformed),
        }
    }
}

/// How a command exited, and what the kernel counted for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// `Ok(code)`, or `Err(signal)` when it was killed by a signal.
    pub result: Result<u8, u8>,
    pub core_dumped: bool,
    pub max_rss_bytes: u64,
    pub user_time_us: u64,
    pub system_time_us: u64,
}

/// What a shepherd tells the VM of its command: `Started` and later `Exited`, or `Failed`. When the launcher cannot fork a
/// shepherd, it says `Failed` in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Started { pid: i32 },
    Failed { step: Step, errno: i32 },
    Exited(Exit),
}

/// Whom a signal reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Command,
    /// The process group that the command leads.
    Group,
    /// The command, and all that it started.
    Tree,
}

impl Target {
    pub const ALL: [Target; 3] = [Target::Command, Target::Group, Target::Tree];
}

/// What the VM asks of a shepherd. When the VM's end of the socket closes, that counts as an `End`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Start a command. Race: unread begin.
    Begin,
    Signal {
        number: i32,
        to: Target,
    },
    /// Stops the command's tree, or its cgroup where it has one of its own, until `Resume` or the end.
    Suspend,
    Resume,
    /// End the command: the stop signal, and SIGKILL after `kill_timeout`.
    End,
}

const STARTED: u8 = 1;
const FAILED: u8 = 2;
const EXITED: u8 = 3;
const SIGNALED: u8 = 4;

const SIGNAL: u8 = 1;
const BEGIN: u8 = 3;
const END: u8 = 4;
const SUSPEND: u8 = 5;
const RESUME: u8 = 6;

fn bytes<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&frame[at..at + N]);
    out
}

impl Event {
    pub fn encode(&self) -> [u8; EVENT_SIZE] {
        let mut frame = [0; EVENT_SIZE];
        match *self {
            Event::Started { pid } => {
                frame[0] = STARTED;
                frame[4..8].copy_from_slice(&pid.to_ne_bytes());
            }
            Event::Failed { step, errno } => {
                frame[0] = FAILED;
                frame[1..4].copy_from_slice(&step.encode());
                frame[4..8].copy_from_slice(&errno.to_ne_bytes());
            }
            Event::Exited(exit) => {
                (frame[0], frame[1]) = match exit.result {
                    Ok(code) => (EXITED, code),
                    Err(signal) => (SIGNALED, signal),
                };
                frame[2] = exit.core_dumped.into();
                frame[8..16].copy_from_slice(&exit.max_rss_bytes.to_ne_bytes());
                frame[16..24].copy_from_slice(&exit.user_time_us.to_ne_bytes());
                frame[24..32].copy_from_slice(&exit.system_time_us.to_ne_bytes());
            }
        }
        frame
    }

    pub fn decode(frame: &[u8]) -> Result<Event, Malformed> {
        if frame.len() != EVENT_SIZE {
            return Err(Malformed);
        }
        match frame[0] {
            STARTED => Ok(Event::Started {
                pid: i32::from_ne_bytes(bytes(frame, 4)),
            }),
            FAILED => Ok(Event::Failed {
                step: Step::decode(bytes(frame, 1))?,
                errno: i32::from_ne_bytes(bytes(frame, 4)),
            }),
            kind @ (EXITED | SIGNALED) => Ok(Event::Exited(Exit {
                result: if kind == EXITED {
                    Ok(frame[1])
                } else {
                    Err(frame[1])
                },
                core_dumped: frame[2] != 0,
                max_rss_bytes: u64::from_ne_bytes(bytes(frame, 8)),
                user_time_us: u64::from_ne_bytes(bytes(frame, 16)),
                system_time_us: u64::from_ne_bytes(bytes(frame, 24)),
            })),
            _ => Err(Malformed),
        }
    }
}

impl Request {
    pub fn encode(&self) -> [u8; REQUEST_SIZE] {
        let mut frame = [0; REQUEST_SIZE];
        match *self {
            Request::Begin => frame[0] = BEGIN,
            Request::End => frame[0] = END,
            Request::Suspend => frame[0] = SUSPEND,
            Request::Resume => frame[0] = RESUME,
            Request::Signal { number, to } => {
                (frame[0], frame[1]) = (SIGNAL, to as u8);
                frame[4..8].copy_from_slice(&number.to_ne_bytes());
            }
        }
        frame
    }

    pub fn decode(frame: &[u8]) -> Result<Request, Malformed> {
        if frame.len() != REQUEST_SIZE {
            return Err(Malformed);
        }
        match frame[0] {
            BEGIN => Ok(Request::Begin),
            END => Ok(Request::End),
            SIGNAL => Ok(Request::Signal {
                number: i32::from_ne_bytes(bytes(frame, 4)),
                to: *Target::ALL.get(frame[1] as usize).ok_or(Malformed)?,
            }),
            SUSPEND => Ok(Request::Suspend),
            RESUME => Ok(Request::Resume),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_exit() -> impl Strategy<Value = Exit> {
        (
            any::<Result<u8, u8>>(),
            any::<bool>(),
            any::<u64>(),
            any::<u64>(),
            any::<u64>(),
        )
            .prop_map(|(result, core_dumped, rss, user, system)| Exit {
                result,
                core_dumped,
                max_rss_bytes: rss,
                user_time_us: user,
                system_time_us: system,
            })
    }

    proptest! {
        #[test]
        fn an_event_survives_the_wire(
            exit in any_exit(), pid: i32, errno: i32, step in 0..Step::PLAIN.len(), part in 0..Part::ALL.len(), fd: u8,
            index: u16,
        ) {
            let events = [
                Event::Started { pid },
                Event::Failed { step: Step::PLAIN[step], errno },
                Event::Failed { step: Step::Fd(fd), errno },
                Event::Failed { step: Step::Sandbox(Part::ALL[part]), errno },
                Event::Failed { step: Step::SandboxPath(index), errno },
                Event::Exited(exit),
            ];
            for event in events {
                prop_assert_eq!(Event::decode(&event.encode()), Ok(event));
            }
        }

        #[test]
        fn a_request_survives_the_wire(number: i32) {
            let signals = Target::ALL.map(|to| Request::Signal { number, to });
            let others = [Request::Begin, Request::End, Request::Suspend, Request::Resume];
            for request in signals.into_iter().chain(others) {
                prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
            }
        }

        #[test]
        fn no_bytes_make_a_decoder_panic(frame in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Event::decode(&frame);
            let _ = Request::decode(&frame);
        }
    }
}
