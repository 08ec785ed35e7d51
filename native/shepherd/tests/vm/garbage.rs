//! What is no request, from whoever has the VM's end of a socket, ends the command that it concerns, and nothing else.

use super::*;
use nix::poll::{poll, PollFd, PollFlags};
use wire::{Request, Step, Target};

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
