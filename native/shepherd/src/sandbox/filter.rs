//! seccomp (seccomp(2)): which system calls are refused, as a program of the kernel's filter machine.
//!
//! The rules are one table, with the numbers of each architecture beside the name. The program is a tree of comparisons,
//! and `tests` interprets it: the kernel walks it once for each number when it is installed, so a row of comparisons would
//! make the start of a command dearer by a tenth of a millisecond.

use nix::errno::Errno;
use std::sync::OnceLock;
use wire::{Confinement, Network};

/// Numbers of a system call: on x86-64, and on 64-bit ARM.
#[derive(Clone, Copy)]
struct Call {
    x86_64: Option<u32>,
    aarch64: Option<u32>,
}

const fn both(x86_64: u32, aarch64: u32) -> Call {
    Call {
        x86_64: Some(x86_64),
        aarch64: Some(aarch64),
    }
}

const fn x86_64(number: u32) -> Call {
    Call {
        x86_64: Some(number),
        aarch64: None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// The one that this program is built for.
    fn own() -> Option<Arch> {
        match std::env::consts::ARCH {
            "x86_64" if cfg!(target_pointer_width = "64") => Some(Arch::X86_64),
            "aarch64" if cfg!(target_endian = "little") => Some(Arch::Aarch64),
            _ => None,
        }
    }

    /// As the kernel says it to the filter (AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64).
    fn number(self) -> u32 {
        match self {
            Arch::X86_64 => 0xC000_003E,
            Arch::Aarch64 => 0xC000_00B7,
        }
    }

    fn call(self, call: Call) -> Option<u32> {
        match self {
            Arch::X86_64 => call.x86_64,
            Arch::Aarch64 => call.aarch64,
        }
    }
}

/// A call is refused when one of the conditions holds, or always where there is none.
struct Rule {
    /// What the tests find it by.
    #[cfg_attr(not(test), expect(dead_code))]
    name: &'static str,
    call: Call,
    conditions: &'static [Condition],
    errno: Errno,
}

/// About the lower 32 bits of an argument: the kernel reads no more of those that are tested here, so whatever is in the
/// upper ones gets past nothing.
#[derive(Clone, Copy)]
struct Condition {
    argument: u32,
    mask: u32,
    refused: Refused,
}

#[derive(Clone, Copy)]
enum Refused {
    These(&'static [u32]),
    AllBut(&'static [u32]),
}

const fn these(argument: u32, values: &'static [u32]) -> Condition {
    Condition {
        argument,
        mask: u32::MAX,
        refused: Refused::These(values),
    }
}

const fn all_but(argument: u32, values: &'static [u32]) -> Condition {
    Condition {
        argument,
        mask: u32::MAX,
        refused: Refused::AllBut(values),
    }
}

/// Any of these bits.
const fn bits(argument: u32, mask: u32) -> Condition {
    Condition {
        argument,
        mask,
        refused: Refused::AllBut(&[0]),
    }
}

/// The type of a socket, without SOCK_NONBLOCK and SOCK_CLOEXEC.
const fn socket_type(argument: u32, values: &'static [u32]) -> Condition {
    Condition {
        argument,
        mask: 0xF,
        refused: Refused::AllBut(values),
    }
}

const fn refuse(name: &'static str, call: Call) -> Rule {
    refuse_if(name, call, &[])
}

const fn refuse_if(name: &'static str, call: Call, conditions: &'static [Condition]) -> Rule {
    Rule {
        name,
        call,
        conditions,
        errno: Errno::EPERM,
    }
}

/// As if the kernel did not know the call: programs then do without.
const fn hide(name: &'static str, call: Call) -> Rule {
    Rule {
        name,
        call,
        conditions: &[],
        errno: Errno::ENOSYS,
    }
}

const fn deny(name: &'static str, call: Call, conditions: &'static [Condition]) -> Rule {
    Rule {
        name,
        call,
        conditions,
        errno: Errno::EACCES,
    }
}

/// What opens and uses sockets outside of this filter's sight: its work is not filtered.
const IO_URING: [Rule; 3] = [
    hide("io_uring_setup", both(425, 425)),
    hide("io_uring_enter", both(426, 426)),
    hide("io_uring_register", both(427, 427)),
];

const SOCKET: Call = both(41, 198);
const SOCKETPAIR: Call = both(53, 199);
const SETSOCKOPT: Call = both(54, 208);
const LISTEN: Call = both(50, 201);
const SENDTO: Call = both(44, 206);
const SENDMSG: Call = both(46, 211);
const SENDMMSG: Call = both(307, 269);

const UNIX: u32 = libc::AF_UNIX as u32;
const INET: u32 = libc::AF_INET as u32;
const INET6: u32 = libc::AF_INET6 as u32;
const STREAM: u32 = libc::SOCK_STREAM as u32;
const SEQPACKET: u32 = libc::SOCK_SEQPACKET as u32;
const TCP: u32 = libc::IPPROTO_TCP as u32;
/// `linux/tcp.h`
const TCP_ULP: u32 = 31;
const FASTOPEN: u32 = libc::MSG_FASTOPEN as u32;

/// One of datagrams can send to any path; of AF_UNIX, SOCK_RAW is the same.
const CONNECTED_PAIR: Rule = deny(
    "socketpair",
    SOCKETPAIR,
    &[all_but(0, &[UNIX]), socket_type(1, &[STREAM, SEQPACKET])],
);

const NO_NETWORK: [Rule; 2] = [deny("socket", SOCKET, &[]), CONNECTED_PAIR];

const UNIX_ONLY: [Rule; 2] = [
    deny("socket", SOCKET, &[all_but(0, &[UNIX])]),
    deny("socketpair", SOCKETPAIR, &[all_but(0, &[UNIX])]),
];

const LOOPBACK_ONLY: [Rule; 2] = [
    deny("socket", SOCKET, &[all_but(0, &[INET, INET6])]),
    CONNECTED_PAIR,
];

/// Landlock sees to the ports, but only where connect(2) or bind(2) is called, and only of TCP. A protocol on top of it (TCP_ULP)
/// can make a socket another one, such as SMC. (No level but TCP's has an option of this number that can be set.)
const TCP_ONLY: [Rule; 6] = [
    deny(
        "socket",
        SOCKET,
        &[
            all_but(0, &[INET, INET6]),
            socket_type(1, &[STREAM]),
            all_but(2, &[0, TCP]),
        ],
    ),
    CONNECTED_PAIR,
    deny("setsockopt", SETSOCKOPT, &[these(2, &[TCP_ULP])]),
    deny("sendto", SENDTO, &[bits(3, FASTOPEN)]),
    deny("sendmsg", SENDMSG, &[bits(2, FASTOPEN)]),
    deny("sendmmsg", SENDMMSG, &[bits(3, FASTOPEN)]),
];

/// Without bind(2), listen(2) takes a port by itself.
const NO_LISTEN: [Rule; 1] = [deny("listen", LISTEN, &[])];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NAMESPACES: u32 = 0x7E02_0000;

/// A lease on a file keeps others from opening it, for as long as fs.lease-break-time says, and again.
const F_SETLEASE: u32 = libc::F_SETLEASE as u32;
/// The same for directories (Linux 6.19).
const F_SETDELEG: u32 = 1040;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

const SYSTEM_CALLS: [Rule; 58] = [
    // Its flags are in memory, where no filter sees them; the C libraries fall back to clone.
    hide("clone3", both(435, 435)),
    refuse("setns", both(308, 268)),
    // The limits and the priorities of others. (Those for one process take threads, too, and are not refused.)
    refuse_if("prlimit64", both(302, 261), &[all_but(0, &[0])]),
    refuse_if("setpriority", both(141, 140), &[all_but(0, &[0])]),
    refuse_if("ioprio_set", both(251, 30), &[all_but(0, &[1])]),
    // Their memory and descriptors.
    refuse("ptrace", both(101, 117)),
    refuse("process_vm_readv", both(310, 270)),
    refuse("process_vm_writev", both(311, 271)),
    refuse("kcmp", both(312, 272)),
    refuse("pidfd_getfd", both(438, 438)),
    refuse("process_madvise", both(440, 440)),
    // Keyrings are shared by user.
    refuse("add_key", both(248, 217)),
    refuse("request_key", both(249, 218)),
    refuse("keyctl", both(250, 219)),
    // System V and POSIX IPC: objects outside of the file system. They are used by numbers that can be guessed.
    refuse("shmget", both(29, 194)),
    refuse("shmat", both(30, 196)),
    refuse("shmctl", both(31, 195)),
    refuse("semget", both(64, 190)),
    refuse("semop", both(65, 193)),
    refuse("semtimedop", both(220, 192)),
    refuse("semctl", both(66, 191)),
    refuse("msgget", both(68, 186)),
    refuse("msgsnd", both(69, 189)),
    refuse("msgrcv", both(70, 188)),
    refuse("msgctl", both(71, 187)),
    refuse("mq_open", both(240, 180)),
    refuse("mq_unlink", both(241, 181)),
    // Large parts of the kernel that programs hardly need.
    refuse("bpf", both(321, 280)),
    refuse("perf_event_open", both(298, 241)),
    refuse("userfaultfd", both(323, 282)),
    // Typing into a terminal.
    refuse_if("ioctl", both(16, 29), &[these(1, &[TIOCSTI, TIOCLINUX])]),
    // Files by handle, watching all of a file system, the log of the kernel.
    refuse("open_by_handle_at", both(304, 265)),
    refuse("fanotify_init", both(300, 262)),
    refuse("syslog", both(103, 116)),
    // Keeping others from a file that may only be read.
    refuse_if(
        "fcntl",
        both(72, 25),
        &[these(1, &[F_SETLEASE, F_SETDELEG])],
    ),
    // A second line of defence behind the capabilities.
    refuse("umount2", both(166, 39)),
    refuse("pivot_root", both(155, 41)),
    refuse("chroot", both(161, 51)),
    refuse("fsopen", both(430, 430)),
    refuse("fsconfig", both(431, 431)),
    refuse("fsmount", both(432, 432)),
    refuse("fspick", both(433, 433)),
    refuse("open_tree_attr", both(467, 467)),
    refuse("init_module", both(175, 105)),
    refuse("delete_module", both(176, 106)),
    refuse("finit_module", both(313, 273)),
    refuse("kexec_load", both(246, 104)),
    refuse("kexec_file_load", both(320, 294)),
    refuse("reboot", both(169, 142)),
    refuse("swapon", both(167, 224)),
    refuse("swapoff", both(168, 225)),
    refuse("acct", both(163, 89)),
    refuse("settimeofday", both(164, 170)),
    refuse("clock_settime", both(227, 112)),
    refuse("adjtimex", both(159, 171)),
    refuse("clock_adjtime", both(305, 266)),
    refuse("iopl", x86_64(172)),
    refuse("ioperm", x86_64(173)),
];

/// The rules of the filter, those of the network first.
fn rules(confinement: Confinement) -> Vec<&'static Rule> {
    let Confinement {
        system_calls,
        network,
        listens,
        namespaces,
        capabilities: _,
    } = confinement;
    let of_network: &'static [Rule] = match network {
        Network::None => &NO_NETWORK,
        Network::Unix => &UNIX_ONLY,
        Network::Loopback => &LOOPBACK_ONLY,
        Network::Ports => &TCP_ONLY,
        Network::All => &[],
    };
    let no_listen = network == Network::Ports && !listens;
    let io_uring = system_calls || network != Network::All;
    let when = |holds: bool, rules: &'static [Rule]| if holds { rules } else { &[] };
    [
        of_network,
        when(no_listen, &NO_LISTEN),
        when(io_uring, &IO_URING),
        when(system_calls, &SYSTEM_CALLS),
        when(system_calls && !namespaces, &MAKING_NAMESPACES),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What the helper needs for namespaces. A command that has some made refuses it when they are there.
const MAKING_NAMESPACES: [Rule; 6] = [
    // A namespace gives capabilities.
    refuse_if("clone", both(56, 220), &[bits(0, NAMESPACES)]),
    refuse("unshare", both(272, 97)),
    refuse("mount", both(165, 40)),
    refuse("open_tree", both(428, 428)),
    refuse("move_mount", both(429, 429)),
    refuse("mount_setattr", both(442, 442)),
];

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// From here on, numbers are those of x32.
const X32: u32 = 0x4000_0000;

const OTHER_NUMBERS: Rule = hide("x32", x86_64(X32));

type Instruction = libc::sock_filter;

const fn instruction(code: u16, k: u32) -> Instruction {
    jump(code, k, 0, 0)
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const ALLOW: Instruction = instruction(RETURN, libc::SECCOMP_RET_ALLOW);

const fn fail(errno: Errno) -> Instruction {
    instruction(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32)
}

fn program(arch: Arch, rules: &[&Rule]) -> Vec<Instruction> {
    // Another architecture's calls have other numbers (`int 0x80`): that would be a way around the filter.
    let mut program = vec![
        instruction(LOAD, ARCH),
        jump(EQUAL, arch.number(), 1, 0),
        fail(Errno::ENOSYS),
        instruction(LOAD, NUMBER),
    ];
    program.extend(tree(&ranges(arch, rules)));
    program
}

/// What happens to the calls from one number on, up to the next of these.
struct Range {
    from: u32,
    body: Vec<Instruction>,
}

/// In ascending order, the first one from 0 on.
fn ranges(arch: Arch, rules: &[&Rule]) -> Vec<Range> {
    let mut numbered: Vec<_> = rules
        .iter()
        .filter_map(|rule| Some((arch.call(rule.call)?, *rule)))
        .collect();
    numbered.sort_unstable_by_key(|(number, _)| *number);
    if arch == Arch::X86_64 {
        // The same calls by other numbers.
        numbered.push((X32, &OTHER_NUMBERS));
    }
    let mut ranges = vec![Range {
        from: 0,
        body: vec![ALLOW],
    }];
    // Neighbours with the same fate are one.
    let mut add = |from, body| {
        if ranges.last().is_some_and(|last| last.body != body) {
            ranges.push(Range { from, body });
        }
    };
    for (at, (number, rule)) in numbered.iter().enumerate() {
        add(*number, body(rule));
        let next = numbered.get(at + 1).map(|(next, _)| *next);
        if *number != X32 && next != Some(number + 1) {
            add(number + 1, vec![ALLOW]);
        }
    }
    ranges
}

/// Finds the range of the number in the accumulator.
fn tree(ranges: &[Range]) -> Vec<Instruction> {
    let (below, above) = match ranges {
        [] => return vec![ALLOW],
        [range] => return range.body.clone(),
        _ => ranges.split_at(ranges.len() / 2),
    };
    let first = above.first().map_or(0, |range| range.from);
    let below = tree(below);
    let mut tree = match u8::try_from(below.len()) {
        Ok(over) => vec![jump(AT_LEAST, first, over, 0)],
        Err(_) => vec![
            jump(AT_LEAST, first, 0, 1),
            instruction(JUMP, below.len() as u32),
        ],
    };
    tree.extend(below);
    tree.extend(self::tree(above));
    tree
}

/// What happens to the call of a rule.
fn body(rule: &Rule) -> Vec<Instruction> {
    if rule.conditions.is_empty() {
        return vec![fail(rule.errno)];
    }
    let length: usize = rule.conditions.iter().map(length).sum();
    // Behind all conditions: allowed, refused.
    let refused = length + 1;
    let mut body = Vec::with_capacity(length + 2);
    for condition in rule.conditions {
        let end = body.len() + self::length(condition);
        body.push(instruction(LOAD, ARGUMENTS + 8 * condition.argument));
        if condition.mask != u32::MAX {
            body.push(instruction(AND, condition.mask));
        }
        let (values, target) = match condition.refused {
            Refused::These(values) => (values, refused),
            Refused::AllBut(values) => (values, end),
        };
        for value in values {
            let over = target - (body.len() + 1);
            body.push(jump(EQUAL, *value, over as u8, 0));
        }
        if let Refused::AllBut(_) = condition.refused {
            let over = refused - (body.len() + 1);
            body.push(instruction(JUMP, over as u32));
        }
    }
    body.extend([ALLOW, fail(rule.errno)]);
    body
}

/// How many instructions a condition takes.
fn length(condition: &Condition) -> usize {
    let mask = usize::from(condition.mask != u32::MAX);
    match condition.refused {
        Refused::These(values) => 1 + mask + values.len(),
        Refused::AllBut(values) => 2 + mask + values.len(),
    }
}

pub struct Program(&'static [Instruction]);

impl Program {
    /// What a shepherd puts on itself.
    pub fn of(confinement: Confinement) -> nix::Result<Program> {
        // Each is made once.
        static PROGRAMS: [OnceLock<Vec<Instruction>>; 40] = [const { OnceLock::new() }; 40];
        let flags = [
            confinement.system_calls,
            confinement.listens,
            confinement.namespaces,
        ];
        let index = flags
            .into_iter()
            .fold(confinement.network as usize, |index, flag| {
                2 * index + usize::from(flag)
            });
        let made = PROGRAMS.get(index).ok_or(Errno::ENOSYS)?;
        Program::once(made, || rules(confinement))
    }

    /// What a command adds that has made its namespaces.
    pub fn of_namespaces() -> nix::Result<Program> {
        static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
        Program::once(&PROGRAM, || MAKING_NAMESPACES.iter().collect())
    }

    /// ENOSYS on an architecture whose numbers are not in the table.
    fn once(
        made: &'static OnceLock<Vec<Instruction>>,
        rules: impl FnOnce() -> Vec<&'static Rule>,
    ) -> nix::Result<Program> {
        let arch = Arch::own().ok_or(Errno::ENOSYS)?;
        Ok(Program(made.get_or_init(|| program(arch, &rules()))))
    }

    /// For this process, and all that it starts. It has given up new privileges before.
    pub fn install(&self) -> nix::Result<()> {
        let program = libc::sock_fprog {
            len: self.0.len() as libc::c_ushort,
            filter: self.0.as_ptr().cast_mut(),
        };
        let mode = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
        // SAFETY: prctl(2) reads the program.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) };
        Errno::result(result).map(drop)
    }
}

#[cfg(test)]
mod tests;
