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
    use std::hash::{DefaultHasher, Hasher};

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

    /// Hashes of all that. `None`: could not be read. Nothing is allocated: of each page that the launcher writes to between two forks,
    /// each shepherd has a copy.
    #[derive(PartialEq, Eq)]
    pub struct Attributes {
        numbers: u64,
        files: [Option<u64>; FILES.len()],
    }

    impl Attributes {
        pub fn of_this_process() -> Attributes {
            let mut numbers = DefaultHasher::new();
            limits(&mut numbers);
            scheduling(&mut numbers);
            Attributes {
                numbers: numbers.finish(),
                files: FILES.map(contents),
            }
        }

        /// Whether somebody has changed them since these were noted. A file that cannot be read, because too many are
        /// open, may still say the same.
        pub fn differ_from(&self, noted: &Attributes) -> bool {
            let mut files = self.files.iter().zip(&noted.files);
            self.numbers != noted.numbers
                || files.any(|both| matches!(both, (Some(now), Some(then)) if now != then))
        }
    }

    fn limits(all: &mut DefaultHasher) {
        for resource in 0..LIMITS {
            let mut limit = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            // SAFETY: getrlimit(2) writes the struct.
            unsafe { libc::getrlimit(resource as _, &mut limit) };
            all.write_u64(limit.rlim_cur);
            all.write_u64(limit.rlim_max);
        }
    }

    fn scheduling(all: &mut DefaultHasher) {
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
                set_io_priority(libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0)),
                libc::prctl(libc::PR_GET_TIMERSLACK).into(),
            ]
        };
        all.write(&policy);
        all.write(&cpus);
        for number in numbers {
            all.write_i64(number);
        }
    }

    /// Before Linux 6.0, a process that has set none has another until its first I/O (no class, or best effort, with 4)
    /// than after it (no class, with 0).
    fn set_io_priority(given: libc::c_long) -> libc::c_long {
        const BEST_EFFORT: libc::c_long = 2;
        const NORMAL: libc::c_long = 4;
        match (given >> 13, given & 0x1fff) {
            (0, _) | (BEST_EFFORT, NORMAL) => 0,
            _ => given,
        }
    }

    /// By system calls: `std::fs` asks for the size of the file and for more memory.
    fn contents(path: &CStr) -> Option<u64> {
        let mut all = DefaultHasher::new();
        let mut bytes = [0_u8; 512];
        // SAFETY: open(2), read(2) and close(2), with a string and a buffer that live.
        unsafe {
            let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if fd == -1 {
                return None;
            }
            let end = loop {
                match libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) {
                    length @ 1.. => all.write(&bytes[..length as usize]),
                    end => break end,
                }
            };
            libc::close(fd);
            (end == 0).then(|| all.finish())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn attributes(numbers: u64, file: Option<u64>) -> Attributes {
            Attributes {
                numbers,
                files: [file, None, None],
            }
        }

        #[test]
        fn what_cannot_be_read_has_not_changed_and_is_not_the_same_either() {
            let noted = attributes(1, Some(1));
            let same = attributes(1, Some(1));
            assert!(!same.differ_from(&noted) && same == noted);
            assert!(attributes(1, Some(2)).differ_from(&noted));
            assert!(attributes(2, None).differ_from(&noted));
            let unread = attributes(1, None);
            assert!(!unread.differ_from(&noted) && unread != noted);
            assert!(!noted.differ_from(&unread));
        }

        #[test]
        fn an_io_priority_that_was_never_set_is_the_same_before_and_after_the_first_io() {
            let of = |class: libc::c_long, level| set_io_priority(class << 13 | level);
            assert_eq!([of(0, 4), of(2, 4)], [of(0, 0); 2]);
            for set in [of(1, 4), of(2, 0), of(2, 7), of(3, 0)] {
                assert_ne!(set, of(0, 0));
            }
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

        pub fn differ_from(&self, noted: &Attributes) -> bool {
            self != noted
        }
    }
}
