//! What others can set on a shepherd and its commands inherit: a command may do so to its parent, and everybody who
//! is the same user, or root. (renice(1), prlimit(1), taskset(1), chrt(1), ionice(1), choom(1), a move to another
//! cgroup.)

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
pub use linux::Attributes;

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
pub use elsewhere::Attributes;

#[cfg(all(target_os = "linux", not(net_runner_posix)))]
mod linux {
    use std::ffi::CStr;

    /// As many resources as the kernel limits (RLIM_NLIMITS).
    const LIMITS: u32 = 16;

    /// 8,192 processors: more than any kernel is built for.
    const CPU_MASK: usize = 1024;

    /// Policy, nice value, priority and clamps (`struct sched_attr`, as far as it reaches since Linux 5.3).
    const SCHEDULING: usize = 56;

    const FILES: [&CStr; 3] = [
        c"/proc/self/cgroup",
        c"/proc/self/oom_score_adj",
        c"/proc/self/coredump_filter",
    ];

    /// The bytes of all that, as the kernel gives them; what cannot be read is missing each time.
    #[derive(PartialEq, Eq)]
    pub struct Attributes(Vec<u8>);

    impl Attributes {
        pub fn of_this_process() -> Attributes {
            let mut all = Vec::with_capacity(1024);
            limits(&mut all);
            scheduling(&mut all);
            for path in FILES {
                contents(path, &mut all);
            }
            Attributes(all)
        }
    }

    fn limits(all: &mut Vec<u8>) {
        for resource in 0..LIMITS {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: getrlimit(2) writes the struct.
            unsafe { libc::getrlimit(resource as _, &mut limit) };
            all.extend_from_slice(&limit.rlim_cur.to_ne_bytes());
            all.extend_from_slice(&limit.rlim_max.to_ne_bytes());
        }
    }

    fn scheduling(all: &mut Vec<u8>) {
        const WHO_PROCESS: libc::c_int = 1;
        let mut policy = [0_u8; SCHEDULING];
        let mut cpus = [0_u8; CPU_MASK];
        // SAFETY: each call is about this process; those that write get a buffer, and its size.
        let numbers = unsafe {
            libc::syscall(
                libc::SYS_sched_getattr,
                0,
                policy.as_mut_ptr(),
                SCHEDULING,
                0,
            );
            libc::syscall(libc::SYS_sched_getaffinity, 0, CPU_MASK, cpus.as_mut_ptr());
            [
                libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0),
                libc::prctl(libc::PR_GET_TIMERSLACK).into(),
            ]
        };
        all.extend_from_slice(&policy);
        all.extend(cpus.iter().rev().skip_while(|byte| **byte == 0));
        for number in numbers {
            all.extend_from_slice(&number.to_ne_bytes());
        }
    }

    /// By system calls: `std::fs` asks for the size of the file and for more memory.
    fn contents(path: &CStr, all: &mut Vec<u8>) {
        let mut bytes = [0_u8; 512];
        // SAFETY: open(2), read(2) and close(2), with a string and a buffer that live.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if fd == -1 {
                return;
            }
            while let length @ 1.. = libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) {
                all.extend_from_slice(&bytes[..length as usize]);
            }
            libc::close(fd);
        }
    }
}

#[cfg(any(not(target_os = "linux"), net_runner_posix))]
mod elsewhere {
    /// Nobody but the process itself can set its limits; its nice value alone can be another.
    #[derive(PartialEq, Eq)]
    pub struct Attributes(libc::c_int);

    impl Attributes {
        pub fn of_this_process() -> Attributes {
            // SAFETY: getpriority(2) on this process.
            Attributes(unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) })
        }
    }
}
