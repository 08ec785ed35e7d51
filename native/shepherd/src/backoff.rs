//! How long to wait before the next try to end what is not gone yet.

use std::time::Duration;

/// The next death wakes the helper earlier. A program that forks faster than it is found is found again; one that the
/// kernel holds (state D), or that may not be signalled (a set-user-ID program), is asked again, until it is gone.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Backoff {
    const FIRST: Duration = Duration::from_millis(10);
    const LAST: Duration = Duration::from_secs(1);

    pub fn new() -> Backoff {
        Backoff(Backoff::FIRST)
    }

    pub fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Backoff::LAST);
        pause
    }
}
