//! What this system lets the helper do, found by doing it. `NetRunner.Doctor` runs this role and reads a line for each call:
//! `NAME ok`, `NAME ok VALUE`, or `NAME ERRNO`.

use crate::{sandbox, sys, tree};
use nix::errno::Errno;
use std::process::ExitCode;

pub fn run() -> ExitCode {
    let subreaper = if sys::ADOPTS {
        sys::become_subreaper()
    } else {
        Err(Errno::ENOSYS)
    };
    say("subreaper", subreaper.map(|()| String::new()));
    say("pidfd", tree::try_pidfds().map(|()| String::new()));
    // Nothing has this number.
    let close_range = sys::close_range(i32::MAX);
    say("close_range", close_range.map(|()| String::new()));
    let landlock = sandbox::landlock_abi();
    say("landlock", landlock.map(|abi| format!(" {abi}")));
    ExitCode::SUCCESS
}

fn say(name: &str, result: nix::Result<String>) {
    match result {
        Ok(value) => println!("{name} ok{value}"),
        Err(errno) => println!("{name} {errno:?}"),
    }
}
