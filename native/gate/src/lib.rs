//! A gate in front of something that many threads use at once and one of them closes. It counts who is inside, and
//! tells exactly one that it is the last.
//!
//! - **open**: users enter and leave;
//! - **closing**: nobody can enter any more; those inside finish;
//! - **over**: nobody is inside. The last user to leave was told so, or the closer when nobody was inside. It alone
//!   releases what is behind the gate.
//!
//! `docs/internals.md` has the table of states, and these races: entered late, closed twice, closed under a user, kept
//! after all.

mod door;

pub use door::{Door, Visit};

#[cfg(test)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(test))]
use std::sync::atomic::{AtomicU32, Ordering};

/// The gate is closing, or over. The bits below `KEPT` count who is inside.
const CLOSING: u32 = 1 << 31;

/// Set only together with `CLOSING`: what is behind the gate is kept for another use.
const KEPT: u32 = 1 << 30;

pub struct Gate {
    state: AtomicU32,
}

impl Default for Gate {
    fn default() -> Gate {
        Gate {
            state: AtomicU32::new(0),
        }
    }
}

impl Gate {
    /// Whether the caller is inside now; then it must `leave`. Race: entered late.
    #[must_use]
    pub fn enter(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & CLOSING == 0 {
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Whether the caller was the last one out of a closing gate. Race: closed under a user.
    #[must_use]
    pub fn leave(&self) -> bool {
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        before & CLOSING != 0 && before & !(CLOSING | KEPT) == 1
    }

    /// Closes the gate, if nobody has yet. Whether the caller is the last, as nobody is inside. Race: closed twice.
    #[must_use]
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSING, Ordering::AcqRel) == 0
    }

    /// As `close`, but what is behind the gate is kept. Race: kept after all.
    #[must_use]
    pub fn retire(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & CLOSING == 0 {
            match self.state.compare_exchange_weak(
                state,
                state | CLOSING | KEPT,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return state == 0,
                Err(now) => state = now,
            }
        }
        false
    }

    /// Whether what is behind the gate is kept. For the last.
    pub fn is_kept(&self) -> bool {
        self.state.load(Ordering::Acquire) & KEPT != 0
    }

    /// Whether it was never closed. For the destructor: then nobody was told that it is the last.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSING == 0
    }
}

#[cfg(test)]
mod tests {
    //! Under loom, which runs every order in which the threads can go on and every value that a load may see.
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// Stands for the descriptor. Loom fails when `release` runs beside a `use_it`, or is not ordered behind it.
    #[derive(Default)]
    struct Shared {
        gate: Gate,
        number: UnsafeCell<Number>,
        collected: Option<Arc<loom::sync::atomic::AtomicU32>>,
    }

    #[derive(Default)]
    struct Number {
        closed: u32,
        kept: u32,
    }

    impl Shared {
        /// A call that uses the descriptor: read, write, select.
        fn use_it(&self) -> bool {
            if !self.gate.enter() {
                return false;
            }
            // SAFETY: loom checks that nobody writes meanwhile.
            self.number
                .with(|number| assert_eq!(unsafe { (*number).closed + (*number).kept }, 0));
            if self.gate.leave() {
                self.release();
            }
            true
        }

        fn close(&self) {
            if self.gate.close() {
                self.release();
            }
        }

        fn retire(&self) {
            if self.gate.retire() {
                self.release();
            }
        }

        /// What the VM's `stop` callback does.
        fn release(&self) {
            // SAFETY: loom checks that nobody else is here.
            self.number.with_mut(|number| unsafe {
                if self.gate.is_kept() {
                    (*number).kept += 1;
                } else {
                    (*number).closed += 1;
                }
            });
        }

        fn releases(&self) -> (u32, u32) {
            // SAFETY: as in `use_it`.
            self.number
                .with(|number| unsafe { ((*number).closed, (*number).kept) })
        }
    }

    impl Drop for Shared {
        /// The VM's `dtor` callback.
        fn drop(&mut self) {
            if self.gate.is_open() {
                self.release();
            }
            let (closed, kept) = self.releases();
            assert_eq!(closed + kept, 1, "released once");
            if let Some(collected) = &self.collected {
                collected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// With three threads beside this one there are too many orders, so those with more preemptions than this are left
    /// out. (Loom's authors say that two or three find most of what there is.)
    const PREEMPTIONS: usize = 2;

    fn model(test: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS);
        builder.check(test);
    }

    fn together(actions: &[fn(&Shared)]) -> Arc<Shared> {
        let shared = Arc::new(Shared::default());
        let threads: Vec<_> = actions
            .iter()
            .map(|&action| {
                let shared = shared.clone();
                thread::spawn(move || action(&shared))
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        shared
    }

    fn use_it(shared: &Shared) {
        shared.use_it();
    }

    #[test]
    fn users_and_a_closer_release_it_once_and_nobody_uses_it_afterwards() {
        model(|| {
            let shared = together(&[use_it, use_it, Shared::close]);
            assert_eq!(shared.releases(), (1, 0));
            assert!(!shared.use_it());
        });
    }

    #[test]
    fn an_owner_that_closes_while_it_dies_releases_it_once() {
        model(|| {
            let shared = together(&[use_it, Shared::close, Shared::close]);
            assert_eq!(shared.releases(), (1, 0));
        });
    }

    #[test]
    fn it_is_kept_or_closed_and_what_came_first_counts() {
        model(|| {
            let shared = together(&[use_it, Shared::retire, Shared::close]);
            let (closed, kept) = shared.releases();
            assert_eq!(closed + kept, 1);
        });
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let user = {
                let shared = shared.clone();
                thread::spawn(move || shared.use_it())
            };
            shared.close();
            shared.retire();
            user.join().unwrap();
            assert_eq!(shared.releases(), (1, 0), "closed first, so never kept");
        });
    }

    #[test]
    fn what_nobody_closed_is_released_when_it_is_collected() {
        loom::model(|| {
            let collected = Arc::new(loom::sync::atomic::AtomicU32::new(0));
            let mut shared = Shared::default();
            shared.collected = Some(collected.clone());
            let shared = Arc::new(shared);
            let user = {
                let shared = shared.clone();
                thread::spawn(move || shared.use_it())
            };
            assert!(shared.use_it());
            drop(shared);
            assert!(user.join().unwrap());
            assert_eq!(collected.load(Ordering::Relaxed), 1);
        });
    }
}
