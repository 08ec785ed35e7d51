//! What the VM cannot be told ends the command, and the socket. A VM that has shut its reading side cannot be told anything, and
//! does not see the end of the socket by it: as with a kernel that has no memory for the message.

use super::*;
use nix::poll::{poll, PollFd, PollFlags};
use nix::sys::signal::{kill, Signal};
use nix::sys::socket::{shutdown, Shutdown};
use nix::unistd::{pipe, Pid};
use std::io::{BufRead, BufReader, Read};
use wire::{Request, Target};

/// Runs a script of sh(1); what it writes can be read from the pipe.
fn begin_script(control: &OwnedFd, script: &str, leave: bool) -> BufReader<File> {
    let mut spec = SpecWriter::default();
    spec.string(Tag::File, b"/bin/sh").unwrap();
    for argument in ["sh", "-c", script] {
        spec.string(Tag::Arg, argument.as_bytes()).unwrap();
    }
    spec.flag(Tag::Null);
    spec.flag(Tag::Passed);
    spec.number(Tag::Leftovers, leave.into());
    let (output, theirs) = pipe().unwrap();
    let cwd = File::open("/").unwrap().into();
    let mut begin = Begin::new(spec.finish(), cwd, vec![theirs]);
    begin.send(control.as_fd()).unwrap();
    BufReader::new(output.into())
}

fn stop_hearing(control: &OwnedFd) {
    shutdown(control.as_raw_fd(), Shutdown::Read).unwrap();
}

/// The shepherd has closed its end, or shut it.
fn await_end(control: &OwnedFd) {
    let mut news = [PollFd::new(control.as_fd(), PollFlags::empty())];
    let timeout = 1000 * PATIENCE.tv_sec() as u16;
    assert_eq!(poll(&mut news, timeout), Ok(1), "the socket has no end");
}

#[test]
fn a_command_whose_start_cannot_be_told_is_ended() {
    let helper = Helper::start();
    let control = helper.shepherd();
    stop_hearing(&control);
    let mut output = begin_script(&control, "exec sleep 1000", false);
    await_end(&control);
    // The command had it.
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
    assert_serves(&helper.shepherd());
    helper.end();
}

#[test]
fn an_exit_that_cannot_be_told_ends_the_socket() {
    let helper = Helper::start();
    let control = helper.shepherd();
    start(&control, &["sleep", "1000"]);
    stop_hearing(&control);
    signal(&control, Signal::SIGKILL);
    await_end(&control);
    helper.end();
}

#[test]
fn an_exit_that_cannot_be_told_ends_the_socket_before_what_was_left_ends() {
    let helper = Helper::start();
    let control = helper.shepherd();
    let script = "sleep 1000 & echo $!; exec sleep 1000";
    let mut output = begin_script(&control, script, true);
    assert!(matches!(event(&control), Some(Event::Started { .. })));
    let mut left = String::new();
    output.read_line(&mut left).unwrap();
    stop_hearing(&control);
    signal(&control, Signal::SIGKILL);
    await_end(&control);
    let left = Pid::from_raw(left.trim().parse().unwrap());
    assert_eq!(kill(left, Signal::SIGKILL), Ok(()));
    helper.end();
}

#[test]
fn a_start_that_has_failed_and_cannot_be_told_ends_the_socket() {
    let helper = Helper::start();
    let control = helper.shepherd();
    stop_hearing(&control);
    begin(&control, spec(&["no-such-program"]));
    await_end(&control);
    helper.end();
}

fn signal(control: &OwnedFd, signal: Signal) {
    let number = signal as i32;
    let to = Target::Command;
    send(control, &Request::Signal { number, to }.encode());
}
