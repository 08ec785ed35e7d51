//! Where paths lead, as long as nothing changes on the way: to look at a few directories, instead of at every path.

use super::paths::{self, Identity};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{read_link, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The directories that some paths go through, also by symbolic links. The paths lead to what they did before, and what led nowhere
/// does so, as long as no entry of these directories has changed and nothing was mounted or unmounted.
pub struct Ways {
    directories: Vec<(CString, Stamp)>,
    /// The kernel tells of changes there (proc_pid_mountinfo(5)).
    mounts: File,
}

/// Which directory it is, and when an entry of it, its owner or its permissions were last changed: a time that nobody can set.
#[derive(PartialEq, Eq)]
struct Stamp {
    identity: Identity,
    changed: Duration,
}

/// The times of many kernels go by its clock's ticks. Another change may still get the time of one that is so young.
const YOUNG: Duration = Duration::from_millis(100);

/// As path_resolution(7).
const MOST_LINKS: u32 = 40;

impl Ways {
    /// To be asked before the paths are opened. `None` where a change might not be seen.
    pub fn of<'a>(paths: impl Iterator<Item = &'a CStr>) -> Option<Ways> {
        let mounts = File::open("/proc/thread-self/mountinfo").ok()?;
        if !paths::is_of_proc(mounts.as_fd()) {
            return None;
        }
        let directories = directories(paths, YOUNG)?;
        Some(Ways {
            directories,
            mounts,
        })
    }

    pub fn are_unchanged(&self) -> bool {
        let mut mounts = [PollFd::new(self.mounts.as_fd(), PollFlags::POLLPRI)];
        matches!(poll(&mut mounts, PollTimeout::ZERO), Ok(0))
            && self.directories.iter().all(is_unchanged)
    }
}

fn is_unchanged((directory, stamp): &(CString, Stamp)) -> bool {
    Stamp::of(directory).as_ref() == Some(stamp)
}

impl Stamp {
    fn of(directory: &CStr) -> Option<Stamp> {
        let found = paths::look_for(directory).ok()?;
        Some(Stamp {
            identity: found.identity,
            changed: found.changed,
        })
    }
}

/// Those that the paths go through; `None` where a change might not be seen, such as of one that was changed less than `young` before.
fn directories<'a>(
    paths: impl Iterator<Item = &'a CStr>,
    young: Duration,
) -> Option<Vec<(CString, Stamp)>> {
    let mut noted = BTreeMap::new();
    for path in paths {
        let path = Path::new(OsStr::from_bytes(path.to_bytes()));
        follow(path, |directory| note(directory, &mut noted, young))?;
    }
    Some(noted.into_iter().collect())
}

fn follow(path: &Path, mut note: impl FnMut(&Path) -> Option<()>) -> Option<()> {
    let mut at = PathBuf::new();
    let mut left = reversed(path);
    let mut links = 0;
    while let Some(component) = left.pop() {
        let name = match component.as_bytes() {
            b"/" => {
                at = PathBuf::from("/");
                continue;
            }
            b".." => {
                // Who may not search it may not leave it either.
                note(&at)?;
                at.pop();
                continue;
            }
            name => OsStr::from_bytes(name),
        };
        note(&at)?;
        let next = at.join(name);
        match paths::look_for_link(&c_string(&next)?) {
            Ok(found) if found.kind == libc::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS {
                    return None;
                }
                left.extend(reversed(&read_link(&next).ok()?));
            }
            Ok(_) => at = next,
            Err(errno) if paths::is_nowhere(errno) => return Some(()),
            Err(_) => return None,
        }
    }
    Some(())
}

/// The last one first, in the order in which they are popped.
fn reversed(path: &Path) -> Vec<OsString> {
    let named = path.components().filter(|it| *it != Component::CurDir);
    let mut names: Vec<_> = named.map(|it| it.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

fn note(directory: &Path, noted: &mut BTreeMap<CString, Stamp>, young: Duration) -> Option<()> {
    let directory = c_string(directory)?;
    if noted.contains_key(&directory) {
        return Some(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let stamp = Stamp::of(&directory)?;
    let fd = paths::exact(&directory).ok()?;
    if !paths::is_on_lasting(fd.as_fd()) || stamp.changed + young > now {
        return None;
    }
    noted.insert(directory, stamp);
    Some(())
}

fn c_string(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// More than a tick of any kernel's clock.
    const TICKS: Duration = Duration::from_millis(20);

    struct Work(PathBuf);

    type Change = (&'static str, fn(&Work));

    impl Work {
        fn new(name: &str) -> Work {
            let name = format!("ways-{name}-{}", std::process::id());
            let work = std::env::current_exe().unwrap().with_file_name(name);
            fs::create_dir_all(&work).unwrap();
            Work(work)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        fn directories(&self, name: &str, young: Duration) -> Option<Vec<(CString, Stamp)>> {
            directories([&*c_string(&self.path(name)).unwrap()].into_iter(), young)
        }

        /// Those below it; others may be changed by somebody else.
        fn settled(&self, name: &str) -> Vec<(CString, Stamp)> {
            std::thread::sleep(TICKS);
            let mut all = self.directories(name, Duration::ZERO).unwrap();
            all.retain(|(path, _)| path.to_bytes().starts_with(self.0.as_os_str().as_bytes()));
            all
        }
    }

    impl Drop for Work {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_changed_just_now_may_change_without_a_sign() {
        let work = Work::new("young");
        let hour = Duration::from_secs(3600);
        assert!(work.directories("absent", hour).is_none());
        assert!(work.directories("absent", Duration::ZERO).is_some());
    }

    #[test]
    fn nothing_is_known_of_the_files_of_proc() {
        assert!(directories([c"/proc/sys/kernel"].into_iter(), Duration::ZERO).is_none());
    }

    #[test]
    fn a_loop_of_links_leads_nowhere_that_is_known() {
        let work = Work::new("loop");
        symlink("loop", work.path("loop")).unwrap();
        assert!(work.directories("loop", Duration::ZERO).is_none());
    }

    #[test]
    fn a_directory_that_a_way_leaves_again_is_on_the_way() {
        let work = Work::new("left");
        fs::create_dir_all(work.path("one/in")).unwrap();
        let all = work.settled("one/in/../../one");
        let left = c_string(&work.path("one/in")).unwrap();
        assert!(all.iter().any(|(path, _)| *path == left));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_noticed() {
        let work = Work::new("elsewhere");
        fs::create_dir_all(work.path("one/in")).unwrap();
        fs::create_dir_all(work.path("two/in")).unwrap();
        fs::create_dir_all(work.path("beside")).unwrap();
        symlink("one", work.path("link")).unwrap();
        symlink("../link/./in/../in", work.path("two/link")).unwrap();
        let changes: [Change; 5] = [
            ("what was not there", |work| {
                fs::create_dir(work.path("two/in/absent")).unwrap();
            }),
            ("a directory on the way, moved", |work| {
                fs::rename(work.path("one/in"), work.path("one/out")).unwrap();
                fs::create_dir(work.path("one/in")).unwrap();
            }),
            ("a link behind a link", |work| {
                fs::remove_file(work.path("link")).unwrap();
                symlink("two", work.path("link")).unwrap();
            }),
            ("a link", |work| {
                fs::remove_file(work.path("two/link")).unwrap();
                symlink("in", work.path("two/link")).unwrap();
            }),
            ("the whole tree", |work| {
                fs::rename(work.path("two"), work.path("three")).unwrap();
            }),
        ];
        for (what, change) in changes {
            let mut concerned = work.settled("two/link");
            concerned.extend(work.settled("two/in/absent"));
            fs::write(work.path("beside/file"), "not on the way").unwrap();
            assert!(concerned.iter().all(is_unchanged), "before {what}");
            change(&work);
            assert!(!concerned.iter().all(is_unchanged), "{what}");
        }
    }
}
