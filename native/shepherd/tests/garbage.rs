//! What is no request, from whoever has the VM's end of a socket, ends the command that it concerns, and nothing else.
//! The tests are the VM of the real helper program.
#![cfg(all(target_os = "linux", not(net_runner_posix)))]

use nix::poll::{poll, PollFd, PollFlags};
use nix::sys::socket::{
    recv, sendmsg, setsockopt, sockopt::ReceiveTimeout, ControlMessage, MsgFlags,
};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use wire::socket::{pair, Begin, NO_SIGNAL};
use wire::{Event, Request, SpecWriter, Step, Tag, Target, GREETING, LAUNCHER_FD, NEW_SHEPHERD};

/// Leaves room for a machine that is ten times slower.
const PATIENCE: TimeVal = TimeVal::new(60, 0);

struct Helper {
    launcher: OwnedFd,
    guard: Child,
}

impl Helper {
    fn start() -> Helper {
        let (launcher, theirs) = pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_net_runner_shepherd"));
        command.arg("launcher").stdin(Stdio::null());
        let number = theirs.as_raw_fd();
        // SAFETY: dup2(2) only, on a descriptor that is open until the program has started.
        unsafe {
            command.pre_exec(move || match nix::libc::dup2(number, LAUNCHER_FD) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        let guard = command.spawn().unwrap();
        drop(theirs);
        let helper = Helper { launcher, guard };
        let greeting = receive(&helper.launcher).unwrap();
        assert!(greeting.starts_with(GREETING.as_bytes()));
        helper
    }

    /// The control socket of a new shepherd.
    fn shepherd(&self) -> OwnedFd {
        let (control, theirs) = pair().unwrap();
        let fds = [theirs.as_raw_fd()];
        let parts = [IoSlice::new(&[NEW_SHEPHERD])];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.launcher.as_raw_fd(), &parts, &rights, NO_SIGNAL, None).unwrap();
        control
    }

    /// All helpers are gone; nothing may be left of any command.
    fn end(mut self) {
        drop(self.launcher);
        assert!(self.guard.wait().unwrap().success());
    }
}

/// `None`: the other end is closed.
fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    setsockopt(socket, ReceiveTimeout, &PATIENCE).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(0) => return None,
            Ok(length) => return Some(bytes[..length].to_vec()),
            // Told once, before what was said earlier: something of ours was not read (unix(7)).
            Err(nix::errno::Errno::ECONNRESET) => {}
            Err(errno) => panic!("nothing came: {errno}"),
        }
    }
}

fn event(control: &OwnedFd) -> Option<Event> {
    receive(control).map(|bytes| Event::decode(&bytes).unwrap())
}

fn begin(control: &OwnedFd, spec: Vec<u8>) {
    let cwd = File::open("/").unwrap().into();
    Begin::new(spec, cwd, vec![]).send(control.as_fd()).unwrap();
}

fn spec(arguments: &[&str]) -> Vec<u8> {
    let mut spec = SpecWriter::default();
    spec.string(Tag::File, arguments[0].as_bytes()).unwrap();
    spec.string(Tag::SearchPath, b"/usr/bin:/bin").unwrap();
    for argument in arguments {
        spec.string(Tag::Arg, argument.as_bytes()).unwrap();
    }
    spec.finish()
}

/// The PID of the command.
fn start(control: &OwnedFd, arguments: &[&str]) -> i32 {
    begin(control, spec(arguments));
    match event(control) {
        Some(Event::Started { pid }) => pid,
        other => panic!("{other:?}"),
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) {
    nix::sys::socket::send(socket.as_raw_fd(), bytes, NO_SIGNAL).unwrap();
}

fn assert_serves(control: &OwnedFd) {
    start(control, &["sh", "-c", "exit 7"]);
    assert!(matches!(event(control), Some(Event::Exited(exit)) if exit.result == Ok(7)));
}

/// What no VM sends to a shepherd that has a command.
fn garbage() -> Vec<Vec<u8>> {
    let signal = Request::Signal {
        number: 0,
        to: Target::Command,
    }
    .encode();
    let long = [&signal[..], b"x"].concat();
    let with_spec = [&Request::Begin.encode()[..], &spec(&["true"])].concat();
    vec![
        b"x".to_vec(),
        b"no request".to_vec(),
        vec![0; 8],
        vec![0xff; 8],
        vec![0xff; 100_000],
        signal[..7].to_vec(),
        long,
        Request::Begin.encode().to_vec(),
        with_spec,
    ]
}

#[test]
fn a_command_is_ended_when_its_vm_says_what_is_no_request() {
    let helper = Helper::start();
    for bytes in garbage() {
        let control = helper.shepherd();
        start(&control, &["sleep", "1000"]);
        send(&control, &bytes);
        // As if the VM was gone: the stop signal.
        match event(&control) {
            Some(Event::Exited(exit)) => assert_eq!(exit.result, Err(15), "{bytes:?}"),
            other => panic!("{other:?} after {bytes:?}"),
        }
        // And it serves nobody any more.
        assert_eq!(event(&control), None);
    }
    assert_serves(&helper.shepherd());
    helper.end();
}

#[test]
fn a_shepherd_that_is_told_no_request_first_goes_without_a_word() {
    let helper = Helper::start();
    for bytes in [&b"x"[..], b"no request", &[0; 8], &[0xff; 60_000]] {
        let control = helper.shepherd();
        send(&control, bytes);
        assert_eq!(event(&control), None);
    }
    assert_serves(&helper.shepherd());
    helper.end();
}

#[test]
fn a_spec_that_cannot_be_read_fails_with_eproto_and_the_next_is_served() {
    let helper = Helper::start();
    let control = helper.shepherd();
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    let mut too_short = spec(&["true"]);
    cut(&mut too_short);
    let unknown_tag = vec![0xff, 0, 0, 0, 0];
    let too_long = vec![1, 0xff, 0xff, 0xff, 0xff];
    // More than fits into a message, so it travels in a file.
    let zeros = vec![0; 100_000];
    for bytes in [too_short, unknown_tag, too_long, zeros] {
        begin(&control, bytes);
        let step = Step::Receive;
        let errno = nix::errno::Errno::EPROTO as i32;
        assert_eq!(event(&control), Some(Event::Failed { step, errno }));
        assert_serves(&control);
    }
    drop(control);
    helper.end();
}

#[test]
fn a_command_without_descriptors_fails() {
    let helper = Helper::start();
    let control = helper.shepherd();
    wire::socket::send_begin(control.as_fd(), &spec(&["true"]), &[]).unwrap();
    assert!(matches!(
        event(&control),
        Some(Event::Failed {
            step: Step::Receive,
            ..
        })
    ));
    assert_serves(&control);
    drop(control);
    helper.end();
}

/// The launcher belongs to one VM. When that speaks another language, it is as good as gone.
#[test]
fn what_is_no_request_ends_the_launcher_but_no_command() {
    let mut helper = Helper::start();
    let control = helper.shepherd();
    start(&control, &["sleep", "1000"]);
    send(&helper.launcher, b"no request");
    assert_eq!(receive(&helper.launcher), None);
    let mut news = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut news, 100u16), Ok(0));
    send(&control, &Request::End.encode());
    assert!(matches!(event(&control), Some(Event::Exited(_))));
    drop(control);
    assert!(helper.guard.wait().unwrap().success());
}
