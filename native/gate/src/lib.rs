//! The gate before something that many use at once and somebody closes: who is inside, and who is the last.
//!
//! - **open**: users come and go;
//! - **closed**: nobody can enter any more; who is inside finishes;
//! - **over**: the last one out, or the closer when nobody was inside, was told that it is the last. It alone then
//!   ends what is behind the gate.
//!
//! Races that this guards against:
//!
//! - *Entered late*: a user looks, the gate is closed, the user goes in. One compare-and-exchange does both.
//! - *Closed twice*: the owner closes while it dies. Only one of them closes the gate, or finds itself the last.
//! - *Closed under a user*: a close while a user is inside ends nothing; the user does when it leaves.
//! - *Kept after all*: the gate was closed for good (the owner died), then it is retired. What came first counts.

#[cfg(test)]
use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(test))]
use std::sync::atomic::{AtomicU32, Ordering};

/// In the state: closed by somebody. The bits below `KEPT` count who is inside.
const CLOSED: u32 = 1 << 31;

/// In the state, beside `CLOSED`: what is behind the gate goes on, without it.
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
    /// Whether the caller is inside now; then it must `leave`.
    #[must_use]
    pub fn enter(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & CLOSED == 0 {
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

    /// Whether the caller was the last one out of a closed gate.
    #[must_use]
    pub fn leave(&self) -> bool {
        let before = self.state.fetch_sub(1, Ordering::AcqRel);
        before & CLOSED != 0 && before & !(CLOSED | KEPT) == 1
    }

    /// Closes the gate, when nobody has yet. Whether the caller is the last: nobody is inside.
    #[must_use]
    pub fn close(&self) -> bool {
        self.state.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// As `close`, but what is behind the gate is kept.
    #[must_use]
    pub fn retire(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & CLOSED == 0 {
            match self.state.compare_exchange_weak(
                state,
                state | CLOSED | KEPT,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return state == 0,
                Err(now) => state = now,
            }
        }
        false
    }

    /// For the last: whether what is behind the gate is kept.
    pub fn is_kept(&self) -> bool {
        self.state.load(Ordering::Acquire) & KEPT != 0
    }

    /// Whether it is closed and nobody is inside any more. What those did who were inside is seen then.
    pub fn is_over(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state & CLOSED != 0 && state & !(CLOSED | KEPT) == 0
    }

    /// For whoever collects what nobody refers to any more: whether it was never closed.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED == 0
    }
}

#[cfg(test)]
mod tests {
    //! Under loom, which runs every order in which the threads can go on and every value that a load may see.
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    /// Stands for the descriptor. Loom fails when `end` runs beside a `use_it`, or is not ordered behind it.
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
                self.end();
            }
            true
        }

        fn close(&self) {
            if self.gate.close() {
                self.end();
            }
        }

        fn retire(&self) {
            if self.gate.retire() {
                self.end();
            }
        }

        /// What the VM's `stop` callback does.
        fn end(&self) {
            // SAFETY: loom checks that nobody else is here.
            self.number.with_mut(|number| unsafe {
                if self.gate.is_kept() {
                    (*number).kept += 1;
                } else {
                    (*number).closed += 1;
                }
            });
        }

        fn ends(&self) -> (u32, u32) {
            // SAFETY: as in `use_it`.
            self.number
                .with(|number| unsafe { ((*number).closed, (*number).kept) })
        }
    }

    impl Drop for Shared {
        /// The VM's `dtor` callback.
        fn drop(&mut self) {
            if self.gate.is_open() {
                self.end();
            }
            let (closed, kept) = self.ends();
            assert_eq!(closed + kept, 1, "ended once");
            if let Some(collected) = &self.collected {
                collected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// With three threads beside this one, the orders with more than so many preemptions are left out: they are
    /// too many. (Loom's authors find that two or three show what there is to find.)
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
    fn users_and_a_closer_end_it_once_and_nobody_uses_it_afterwards() {
        model(|| {
            let shared = together(&[use_it, use_it, Shared::close]);
            assert_eq!(shared.ends(), (1, 0));
            assert!(!shared.use_it());
        });
    }

    #[test]
    fn an_owner_that_closes_while_it_dies_ends_it_once() {
        model(|| {
            let shared = together(&[use_it, Shared::close, Shared::close]);
            assert_eq!(shared.ends(), (1, 0));
        });
    }

    /// How a descriptor is taken back that was lent.
    #[test]
    fn when_it_is_over_nobody_is_inside_and_nobody_enters() {
        loom::model(|| {
            let shared = Arc::new(Shared::default());
            let user = {
                let shared = shared.clone();
                thread::spawn(move || {
                    if !shared.gate.enter() {
                        return;
                    }
                    // SAFETY: loom checks that nobody else is here.
                    shared
                        .number
                        .with_mut(|number| unsafe { (*number).kept += 1 });
                    let _ = shared.gate.leave();
                })
            };
            let _ = shared.gate.close();
            if shared.gate.is_over() {
                // SAFETY: as above.
                shared
                    .number
                    .with_mut(|number| unsafe { (*number).kept = 0 });
            }
            user.join().unwrap();
            assert!(shared.gate.is_over());
            // SAFETY: as above. It is ended once, which `drop` wants to see.
            shared.number.with_mut(|number| unsafe {
                *number = Number { closed: 1, kept: 0 };
            });
        });
    }

    #[test]
    fn it_is_kept_or_closed_and_what_came_first_counts() {
        model(|| {
            let shared = together(&[use_it, Shared::retire, Shared::close]);
            let (closed, kept) = shared.ends();
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
            assert_eq!(shared.ends(), (1, 0), "closed first, so never kept");
        });
    }

    #[test]
    fn what_nobody_closed_is_ended_when_it_is_collected() {
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
