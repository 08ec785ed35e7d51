//! The cgroup of a command that does not start is removed, also when the VM that made it is gone. Any empty directory does for
//! one here.

use super::*;
use std::fs::{create_dir, remove_dir};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::Request;

struct Cgroup(PathBuf);

impl Cgroup {
    fn make(name: &str) -> Cgroup {
        let name = format!("net_runner_{name}_{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        create_dir(&path).unwrap();
        Cgroup(path)
    }

    fn spec(&self, tag: Tag, length: usize) -> Vec<u8> {
        let mut spec = SpecWriter::default();
        spec.string(Tag::File, b"/bin/true").unwrap();
        spec.string(Tag::Arg, &vec![b'x'; length]).unwrap();
        let path = self.0.as_os_str().as_encoded_bytes();
        spec.string(tag, path).unwrap();
        spec.finish()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = remove_dir(&self.0);
    }
}

/// A shepherd that gets all this, and then the end of the socket.
fn abandon(helper: &Helper, spec: Vec<u8>, requests: &[Request]) {
    let (control, theirs) = pair().unwrap();
    begin(&control, spec);
    for request in requests {
        send(&control, &request.encode());
    }
    drop(control);
    helper.give(theirs);
}

#[test]
fn it_goes_when_the_vm_was_gone_before_the_start() {
    // The second is too long for a message, and travels in a file.
    for length in [1, 100_000] {
        let helper = Helper::start();
        let cgroup = Cgroup::make("gone");
        abandon(&helper, cgroup.spec(Tag::Cgroup, length), &[]);
        let since = Instant::now();
        while cgroup.0.exists() {
            assert!(since.elapsed().as_secs() < PATIENCE.tv_sec() as u64);
            std::thread::sleep(Duration::from_millis(5));
        }
        helper.end();
    }
}

#[test]
fn it_is_gone_when_the_vm_hears_that_the_command_did_not_start() {
    let helper = Helper::start();
    let control = helper.shepherd();
    let cgroup = Cgroup::make("failed");
    // It cannot be joined.
    begin(&control, cgroup.spec(Tag::Cgroup, 1));
    assert!(matches!(event(&control), Some(Event::Failed { .. })));
    assert!(!cgroup.0.exists());
    assert_serves(&control);
    drop(control);
    helper.end();
}

#[test]
fn it_stays_when_it_is_somebody_elses_or_the_vm_takes_the_command_back() {
    let helper = Helper::start();
    let cgroup = Cgroup::make("stays");
    abandon(&helper, cgroup.spec(Tag::JoinedCgroup, 1), &[]);
    // A VM that lives removes it, and may have made another of the name.
    abandon(&helper, cgroup.spec(Tag::Cgroup, 1), &[Request::End]);
    assert_serves(&helper.shepherd());
    helper.end();
    assert!(cgroup.0.exists());
}
