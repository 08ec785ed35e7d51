//! Why a command did not start.

use nix::errno::Errno;
use wire::Step;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    pub step: Step,
    pub errno: Errno,
}

/// What makes an errno a failure at this step.
pub fn at(step: Step) -> impl Fn(Errno) -> Failure {
    move |errno| Failure { step, errno }
}
