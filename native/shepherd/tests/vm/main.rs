//! The helper program as its VM sees it: the tests are that VM, and have the other ends of its sockets.
#![cfg(all(target_os = "linux", not(net_runner_posix)))]

mod cgroups;
mod garbage;
mod unheard;

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
use wire::{Event, SpecWriter, Tag, GREETING, LAUNCHER_FD, NEW_SHEPHERD};

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
        self.give(theirs);
        control
    }

    /// A new shepherd gets this end of a control socket.
    fn give(&self, theirs: OwnedFd) {
        let fds = [theirs.as_raw_fd()];
        let parts = [IoSlice::new(&[NEW_SHEPHERD])];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(self.launcher.as_raw_fd(), &parts, &rights, NO_SIGNAL, None).unwrap();
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
