use super::*;

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const NETWORKS: [Network; 5] = [
    Network::None,
    Network::Unix,
    Network::Loopback,
    Network::Ports,
    Network::All,
];
/// Bits that the kernel does not read.
const HIGH: u64 = 0xDEAD_BEEF << 32;

/// What the kernel does with the program.
fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let choose = |holds| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => {
                accumulator = match k {
                    NUMBER => number,
                    ARCH => arch,
                    _ => arguments[(k - ARGUMENTS) as usize / 8] as u32,
                }
            }
            AND => accumulator &= k,
            EQUAL => at += choose(accumulator == k),
            AT_LEAST => at += choose(accumulator >= k),
            JUMP => at += k as usize,
            RETURN => return k,
            _ => panic!("unknown instruction {code}"),
        }
    }
}

fn confinement(system_calls: bool, network: Network) -> Confinement {
    Confinement {
        system_calls,
        network,
        listens: false,
        namespaces: false,
        capabilities: false,
    }
}

struct Machine {
    arch: Arch,
    program: Vec<Instruction>,
}

impl Machine {
    fn new(arch: Arch, system_calls: bool, network: Network) -> Machine {
        let program = program(arch, &rules(confinement(system_calls, network)));
        Machine { arch, program }
    }

    /// What comes of a call, with whatever in the upper halves of its arguments.
    fn call(&self, call: Call, arguments: [u64; 6]) -> u32 {
        let number = self.arch.call(call).unwrap();
        let plain = run(&self.program, self.arch.number(), number, arguments);
        let high = arguments.map(|argument| argument | HIGH);
        assert_eq!(run(&self.program, self.arch.number(), number, high), plain);
        plain
    }
}

fn refusal(errno: Errno) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

fn all_programs() -> impl Iterator<Item = (Arch, Vec<&'static Rule>, Vec<Instruction>)> {
    let flags = [false, true];
    let mut all = vec![MAKING_NAMESPACES.iter().collect()];
    for (calls, network) in flags
        .iter()
        .flat_map(|calls| NETWORKS.map(|one| (*calls, one)))
    {
        for (listens, namespaces) in flags.iter().flat_map(|one| flags.map(|two| (*one, two))) {
            all.push(rules(Confinement {
                listens,
                namespaces,
                ..confinement(calls, network)
            }));
        }
    }
    ARCHES.into_iter().flat_map(move |arch| {
        let rules = all.clone().into_iter();
        rules.map(move |rules| (arch, rules.clone(), program(arch, &rules)))
    })
}

#[test]
fn with_namespaces_both_filters_refuse_what_one_refuses_without() {
    for network in NETWORKS {
        let whole = confinement(true, network);
        let of_shepherd = rules(Confinement {
            namespaces: true,
            ..whole
        });
        let names = |rules: &[&Rule]| {
            let mut names: Vec<_> = rules.iter().map(|rule| rule.name).collect();
            names.sort_unstable();
            names
        };
        let both: Vec<_> = of_shepherd.into_iter().chain(&MAKING_NAMESPACES).collect();
        assert_eq!(names(&both), names(&rules(whole)));
    }
}

#[test]
fn every_jump_lands_in_the_program_and_every_path_returns() {
    for (_, _, program) in all_programs() {
        assert!(program.len() < 4096);
        for (at, instruction) in program.iter().enumerate() {
            let next = at + 1;
            let targets = match instruction.code {
                EQUAL | AT_LEAST => vec![
                    next + usize::from(instruction.jt),
                    next + usize::from(instruction.jf),
                ],
                JUMP => vec![next + instruction.k as usize],
                RETURN => vec![],
                _ => vec![next],
            };
            assert!(targets.into_iter().all(|target| target < program.len()));
        }
    }
}

#[test]
fn what_has_no_rule_is_allowed_and_what_is_always_refused_fails() {
    for (arch, rules, program) in all_programs() {
        for number in 0..600 {
            let found: Vec<_> = rules
                .iter()
                .filter(|rule| arch.call(rule.call) == Some(number))
                .collect();
            assert!(found.len() <= 1, "{number}");
            let seen = run(&program, arch.number(), number, [0; 6]);
            match found.first() {
                None => assert_eq!(seen, ALLOWED, "{number}"),
                Some(rule) if rule.conditions.is_empty() => {
                    assert_eq!(seen, refusal(rule.errno), "{}", rule.name);
                }
                Some(_) => {}
            }
        }
    }
}

#[test]
fn another_architecture_and_x32_know_no_call() {
    const I386: u32 = 0x4000_0003;
    for (arch, _, program) in all_programs() {
        for other in [I386, 0, u32::MAX] {
            assert_eq!(run(&program, other, 1, [0; 6]), refusal(Errno::ENOSYS));
        }
        if arch == Arch::X86_64 {
            for number in [X32, X32 + 41, X32 + 520, u32::MAX] {
                assert_eq!(
                    run(&program, arch.number(), number, [0; 6]),
                    refusal(Errno::ENOSYS)
                );
            }
        }
    }
}

fn calls(name: &str) -> Call {
    SYSTEM_CALLS
        .iter()
        .chain(&MAKING_NAMESPACES)
        .find(|rule| rule.name == name)
        .unwrap()
        .call
}

#[test]
fn arguments_decide_where_they_are_to() {
    let eperm = refusal(Errno::EPERM);
    for arch in ARCHES {
        let machine = Machine::new(arch, true, Network::None);
        let first = |name, value| machine.call(calls(name), [value, 0, 0, 0, 0, 0]);
        let second = |name, value| machine.call(calls(name), [0, value, 0, 0, 0, 0]);
        // A thread of the C library, and SIGCHLD.
        assert_eq!(first("clone", 0x003D_0F00), ALLOWED);
        assert_eq!(first("clone", 17), ALLOWED);
        for bit in [17, 25, 26, 27, 28, 29, 30] {
            assert_eq!(first("clone", 17 | 1 << bit), eperm);
        }
        assert_eq!(first("prlimit64", 0), ALLOWED);
        assert_eq!(first("prlimit64", 1), eperm);
        assert_eq!(first("setpriority", 0), ALLOWED);
        assert_eq!(first("setpriority", 1), eperm);
        assert_eq!(first("setpriority", 2), eperm);
        assert_eq!(first("ioprio_set", 1), ALLOWED);
        assert_eq!(first("ioprio_set", 2), eperm);
        assert_eq!(first("ioprio_set", 3), eperm);
        assert_eq!(second("fcntl", 4), ALLOWED);
        assert_eq!(second("fcntl", 1024), eperm);
        assert_eq!(second("fcntl", 1040), eperm);
        assert_eq!(second("ioctl", 0x5401), ALLOWED);
        assert_eq!(second("ioctl", u64::from(TIOCSTI)), eperm);
        assert_eq!(second("ioctl", u64::from(TIOCLINUX)), eperm);
    }
}

/// Whether a socket, or a pair of sockets, can be made of each family, type and protocol.
fn sockets(network: Network, call: Call) -> Vec<(u64, u64, u64)> {
    let eacces = refusal(Errno::EACCES);
    let mut allowed = Vec::new();
    for arch in ARCHES {
        let machine = Machine::new(arch, false, network);
        let mut seen = Vec::new();
        for family in 0..46 {
            for kind in 0..=10 {
                for protocol in [0, 6, 17, 132, 262] {
                    // SOCK_CLOEXEC and SOCK_NONBLOCK.
                    let kind_and_flags = kind | 0o2_004_000;
                    let result = machine.call(call, [family, kind_and_flags, protocol, 0, 0, 0]);
                    match result {
                        ALLOWED => seen.push((family, kind, protocol)),
                        refused => assert_eq!(refused, eacces),
                    }
                }
            }
        }
        assert!(arch == Arch::X86_64 || allowed == seen);
        allowed = seen;
    }
    allowed
}

#[test]
fn only_the_sockets_of_the_network_that_was_asked_for_are_made() {
    let of = |families: &'static [u64]| {
        move |&(family, ..): &(u64, u64, u64)| families.contains(&family)
    };
    assert_eq!(sockets(Network::None, SOCKET), []);
    let pairs = sockets(Network::None, SOCKETPAIR);
    let expected = [1, 5].map(|kind| [0, 6, 17, 132, 262].map(|protocol| (1, kind, protocol)));
    assert_eq!(pairs, expected.concat());
    for call in [SOCKET, SOCKETPAIR] {
        let unix = sockets(Network::Unix, call);
        assert!(!unix.is_empty() && unix.iter().all(of(&[1])));
        assert_eq!(sockets(Network::All, call).len(), 46 * 11 * 5);
    }
    let own = sockets(Network::Loopback, SOCKET);
    assert!(own.iter().all(of(&[2, 10])) && own.len() == 2 * 11 * 5);
    assert_eq!(sockets(Network::Loopback, SOCKETPAIR), pairs);
    let tcp = [(2, 1, 0), (2, 1, 6), (10, 1, 0), (10, 1, 6)];
    assert_eq!(sockets(Network::Ports, SOCKET), tcp);
    assert_eq!(sockets(Network::Ports, SOCKETPAIR), pairs);
}

#[test]
fn where_ports_are_listed_no_connection_is_made_by_sending_and_no_port_taken_by_listening() {
    let eacces = refusal(Errno::EACCES);
    let fast = u64::from(FASTOPEN);
    for arch in ARCHES {
        let machine = Machine::new(arch, false, Network::Ports);
        assert_eq!(machine.call(SENDTO, [0, 0, 0, fast, 0, 0]), eacces);
        assert_eq!(machine.call(SENDTO, [0, 0, fast, 0x4000, 0, 0]), ALLOWED);
        assert_eq!(
            machine.call(SENDMSG, [0, 0, fast | 0x4000, 0, 0, 0]),
            eacces
        );
        assert_eq!(machine.call(SENDMSG, [0, 0, 0x4000, 0, 0, 0]), ALLOWED);
        assert_eq!(machine.call(SENDMMSG, [0, 0, 0, fast, 0, 0]), eacces);
        assert_eq!(machine.call(SETSOCKOPT, [3, 6, 31, 0, 0, 0]), eacces);
        assert_eq!(machine.call(SETSOCKOPT, [3, 6, 1, 31, 31, 31]), ALLOWED);
        assert_eq!(machine.call(LISTEN, [3, 1, 0, 0, 0, 0]), eacces);
        let listens = Machine {
            arch,
            program: program(
                arch,
                &rules(Confinement {
                    listens: true,
                    ..confinement(false, Network::Ports)
                }),
            ),
        };
        assert_eq!(listens.call(LISTEN, [3, 1, 0, 0, 0, 0]), ALLOWED);
    }
}

#[test]
fn without_limits_there_is_no_filter_and_with_any_there_is_no_io_uring() {
    assert!(rules(confinement(false, Network::All)).is_empty());
    for (calls, network) in [
        (true, Network::All),
        (false, Network::None),
        (false, Network::Ports),
    ] {
        let machine = Machine::new(Arch::X86_64, calls, network);
        for rule in &IO_URING {
            assert_eq!(machine.call(rule.call, [0; 6]), refusal(Errno::ENOSYS));
        }
    }
}

/// The numbers in the table are those of the C library, where it has them for the machine that runs the tests.
#[test]
fn the_numbers_are_those_of_this_machine() {
    let Some(arch) = Arch::own() else { return };
    let number = |call| arch.call(call).map(libc::c_long::from);
    macro_rules! assert_numbers {
        ($($name:ident)*) => {
            $(
                let name = stringify!($name).trim_start_matches("SYS_");
                assert_eq!(number(calls(name)), Some(libc::$name), "{name}");
            )*
        };
    }
    assert_numbers! {
        SYS_clone3 SYS_clone SYS_unshare SYS_setns SYS_prlimit64 SYS_setpriority SYS_ioprio_set SYS_ptrace
        SYS_process_vm_readv SYS_process_vm_writev SYS_kcmp SYS_pidfd_getfd SYS_process_madvise SYS_add_key
        SYS_request_key SYS_keyctl SYS_shmget SYS_shmat SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl
        SYS_msgget SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_bpf SYS_perf_event_open
        SYS_userfaultfd SYS_ioctl SYS_open_by_handle_at SYS_fanotify_init SYS_syslog SYS_mount SYS_umount2
        SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick
        SYS_mount_setattr SYS_init_module SYS_delete_module SYS_finit_module SYS_kexec_load SYS_kexec_file_load
        SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime
        SYS_fcntl
    }
    let of_network = [
        (SOCKET, libc::SYS_socket),
        (SOCKETPAIR, libc::SYS_socketpair),
        (LISTEN, libc::SYS_listen),
        (SENDTO, libc::SYS_sendto),
        (SENDMSG, libc::SYS_sendmsg),
        (SENDMMSG, libc::SYS_sendmmsg),
        (SETSOCKOPT, libc::SYS_setsockopt),
        (IO_URING[0].call, libc::SYS_io_uring_setup),
        (IO_URING[1].call, libc::SYS_io_uring_enter),
        (IO_URING[2].call, libc::SYS_io_uring_register),
    ];
    for (call, expected) in of_network {
        assert_eq!(number(call), Some(expected));
    }
    #[cfg(target_arch = "x86_64")]
    assert_numbers! { SYS_iopl SYS_ioperm }
}
