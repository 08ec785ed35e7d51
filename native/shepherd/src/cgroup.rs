//! The end of a command's cgroup (cgroups(7), version 2). The VM makes the directory and sets its
//! limits; the new process joins it before it becomes the command.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// The file that takes the processes of a cgroup.
pub fn members(cgroup: &CStr) -> CString {
    let path = [cgroup.to_bytes(), b"/cgroup.procs"].concat();
    // No NUL is in either part.
    CString::new(path).unwrap_or_default()
}

/// SIGKILL to all that is in it (Linux 5.14). Before that, what is below the shepherd is ended anyway.
pub fn kill(cgroup: &CStr) {
    let _ = std::fs::write(path(cgroup).join("cgroup.kill"), "1");
}

const PAUSE: Duration = Duration::from_millis(5);
const PATIENCE: u32 = 200;

/// Removes the directory, with what the command made in it. Race: busy cgroup.
pub fn remove(cgroup: &CStr) {
    for _ in 0..PATIENCE {
        remove_children(path(cgroup));
        match std::fs::remove_dir(path(cgroup)) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(PAUSE),
            _ => return,
        }
    }
}

fn remove_children(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_children(&entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn path(cgroup: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(cgroup.to_bytes()))
}
