//! A door for guests of something that has an owner: they come in while nobody waits for the owner. Whoever is turned
//! away goes to the owner, and is counted, so that the door does not open again before the owner has received it: a
//! later guest would be served first.

#[cfg(test)]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(test))]
use std::sync::atomic::{AtomicU64, Ordering};

const SHUT: u64 = 1 << 63;

/// How many were turned away, modulo 2^31, is counted in the bits below `SHUT`; who is inside, in the low half.
const TURNED_AWAY: u64 = 1 << 32;
const INSIDE: u64 = TURNED_AWAY - 1;

pub struct Door {
    state: AtomicU64,
}

impl Default for Door {
    fn default() -> Door {
        Door {
            state: AtomicU64::new(0),
        }
    }
}

impl Door {
    /// The caller is inside until it drops the result; `None` when the door is shut.
    pub fn enter(&self) -> Option<Visit<'_>> {
        let enter = |state| (state & SHUT == 0).then_some(state + 1);
        self.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter)
            .is_ok()
            .then(|| Visit { door: self })
    }

    /// For a guest that has not entered, or has found nothing inside: from now on, it waits for the owner. Race: turned
    /// away, and not received.
    pub fn turn_away(&self) {
        let turn_away = |state: u64| {
            let count = state.wrapping_add(TURNED_AWAY) & !INSIDE & !SHUT;
            Some(SHUT | count | state & INSIDE)
        };
        let _ = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, turn_away);
    }

    /// Lets nobody in any more. Whether nobody is inside: what those did who were is seen then.
    #[must_use]
    pub fn shut(&self) -> bool {
        self.state.fetch_or(SHUT, Ordering::AcqRel) & INSIDE == 0
    }

    /// Opens it, if so many have come to the owner, modulo 2^31, as were turned away.
    pub fn open(&self, received: u32) {
        let open = |state: u64| {
            let turned_away = (state & !SHUT) / TURNED_AWAY;
            (turned_away == u64::from(received)).then_some(state & !SHUT)
        };
        let _ = self
            .state
            .fetch_update(Ordering::Release, Ordering::Relaxed, open);
    }
}

/// Of a guest that is inside.
pub struct Visit<'a> {
    door: &'a Door,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.door.state.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    //! Under loom, as those of `Gate`.
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU32;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Default)]
    struct Shared {
        door: Door,
        /// What only the owner touches while the door is shut and nobody inside. Guests look at it.
        owned: UnsafeCell<u32>,
        /// The owner's mailbox.
        sent: AtomicU32,
    }

    impl Shared {
        /// Whether it was served inside.
        fn visit(&self, finds_something: bool) -> bool {
            let served = self.door.enter().is_some_and(|_visit| {
                // SAFETY: loom checks that the owner does not write meanwhile.
                self.owned
                    .with(|owned| assert_eq!(unsafe { *owned } % 2, 0));
                finds_something
            });
            if !served {
                self.door.turn_away();
                self.sent.fetch_add(1, Ordering::SeqCst);
            }
            served
        }

        fn own(&self) {
            if self.door.shut() {
                for _ in 0..2 {
                    // SAFETY: loom checks that nobody else is here.
                    self.owned.with_mut(|owned| unsafe { *owned += 1 });
                }
            }
        }
    }

    #[test]
    fn nobody_is_inside_while_the_owner_works() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let guest = {
                let shared = shared.clone();
                thread::spawn(move || shared.visit(true))
            };
            shared.own();
            shared.door.open(0);
            let served = guest.join().unwrap();
            // It stays shut for one that was turned away and that nobody has received.
            assert_eq!(shared.door.enter().is_some(), served);
        });
    }

    #[test]
    fn it_opens_when_all_are_received_that_were_turned_away() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let guest = {
                let shared = shared.clone();
                thread::spawn(move || {
                    assert!(!shared.visit(false));
                    // Served inside only behind its own first request.
                    if shared.visit(true) {
                        assert_eq!(shared.sent.load(Ordering::SeqCst), 1);
                        return true;
                    }
                    false
                })
            };
            let received = shared.sent.load(Ordering::SeqCst);
            shared.door.open(received);
            let inside = guest.join().unwrap();
            assert!(!inside || received == 1);
            shared.door.open(shared.sent.load(Ordering::SeqCst));
            assert!(shared.door.enter().is_some());
        });
    }

    #[test]
    fn the_count_of_those_turned_away_wraps() {
        loom::model(|| {
            let door = Door::default();
            door.state.store(!SHUT & !INSIDE, Ordering::Relaxed);
            let visit = door.enter();
            assert!(visit.is_some());
            door.turn_away();
            assert!(!door.shut());
            door.open((1 << 31) - 1);
            assert!(door.enter().is_none());
            drop(visit);
            assert!(door.shut());
            door.open(0);
            assert!(door.enter().is_some());
        });
    }
}
