//! A launcher and its spares in any order of their steps, and of what may happen beside them.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Where a spare is; the steps between are those at which somebody else may be faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spare {
    Waits,
    /// It has a request, and its flag is set.
    Took,
    Cleared,
    Shepherd,
    Dead(Option<i32>),
    Reaped,
}

/// Where the launcher is in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Begins,
    Waits(Waiting),
    Woke(Waiting),
    Reaped(Waiting),
    Received(Waiting),
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Launcher,
    TimePasses,
    Spare(usize),
    Kill(usize),
    NoProcessIsLeft(bool),
    VmCloses,
    GuardDies,
    SomebodyChangesIt,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Ask),
        12 => Just(Step::Launcher),
        4 => Just(Step::TimePasses),
        12 => (0..6usize).prop_map(Step::Spare),
        2 => (0..6usize).prop_map(Step::Kill),
        1 => any::<bool>().prop_map(Step::NoProcessIsLeft),
    ]
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![8 => Just(None), 1 => Just(Some(Step::VmCloses)), 1 => Just(Some(Step::GuardDies)), 1 => Just(Some(Step::SomebodyChangesIt))];
    (vec(any_step(), 0..100), end, vec(any_step(), 0..20))
        .prop_map(|(first, end, rest)| first.into_iter().chain(end).chain(rest).collect())
}

/// The launcher and its spares, the memory that they share, the bell, and the requests in the socket.
struct World {
    phase: Phase,
    turn: Turn,
    flags: Waiting,
    bell: bool,
    /// By place and state; the index is the PID.
    spares: Vec<(usize, Spare)>,
    requests: usize,
    asked: usize,
    served: usize,
    /// With a spare that was killed, or a launcher that was changed: the VM is told by the end of the control socket, and asks again.
    reset: usize,
    vm_open: bool,
    guard_lives: bool,
    changed: bool,
    can_fork: bool,
}

impl World {
    fn new() -> World {
        World {
            phase: Phase::new(),
            turn: Turn::Begins,
            flags: [false; SPARES],
            bell: false,
            spares: vec![],
            requests: 0,
            asked: 0,
            served: 0,
            reset: 0,
            vm_open: true,
            guard_lives: true,
            changed: false,
            can_fork: true,
        }
    }

    fn event(&mut self, event: Event) {
        let phase = std::mem::replace(&mut self.phase, Phase::VmClosed);
        let (phase, action) = phase.event(event, self.flags);
        self.phase = phase;
        match action {
            None => {}
            Some(Action::Clear { place }) => {
                assert!(self.flags[place]);
                self.flags[place] = false;
            }
            Some(Action::Fork { .. }) if self.changed => self.event(Event::Changed),
            Some(Action::Fork { place }) => {
                assert!(!self.flags[place], "one waits there");
                self.flags[place] = true;
                if self.can_fork {
                    let pid = Pid::from_raw(self.spares.len() as i32);
                    self.spares.push((place, Spare::Waits));
                    self.event(Event::Forked { place, pid });
                } else {
                    self.event(Event::NotForked { place });
                }
            }
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask if self.vm_open => {
                self.requests += 1;
                self.asked += 1;
            }
            Step::Ask => {}
            Step::Launcher => self.launcher(false),
            Step::TimePasses => self.launcher(true),
            Step::Spare(at) if at < self.spares.len() => self.spare(at),
            Step::Kill(at) if at < self.spares.len() => self.kill(at),
            Step::Spare(_) | Step::Kill(_) => {}
            Step::NoProcessIsLeft(so) => self.can_fork = !so,
            Step::VmCloses => self.vm_open = false,
            Step::GuardDies => self.guard_lives = false,
            Step::SomebodyChangesIt => self.changed = true,
        }
        self.check();
    }

    fn launcher(&mut self, time_passes: bool) {
        if !self.is_open() {
            return;
        }
        self.turn = match self.turn {
            Turn::Begins if !self.guard_lives => {
                self.event(Event::GuardGone);
                Turn::Begins
            }
            Turn::Begins => Turn::Waits(self.flags),
            Turn::Waits(before) => {
                let news = if none_waits(&before) {
                    self.requests > 0 || !self.vm_open
                } else {
                    self.bell
                };
                let is_dead = |(_, spare): &(usize, Spare)| matches!(spare, Spare::Dead(_));
                let time_over = time_passes && self.phase.pause(&before).is_some();
                // A signal comes for the death of a child, and of the guard.
                let signal = self.spares.iter().any(is_dead) || !self.guard_lives;
                if !(news || time_over || signal) {
                    return;
                }
                Turn::Woke(before)
            }
            Turn::Woke(before) => {
                self.bell = false;
                self.reap();
                Turn::Reaped(before)
            }
            Turn::Reaped(before) if none_waits(&before) => {
                if self.requests > 0 {
                    self.requests -= 1;
                    if self.changed {
                        self.reset += 1;
                        self.event(Event::Changed);
                    } else {
                        self.served += 1;
                    }
                    Turn::Begins
                } else if self.vm_open {
                    Turn::Received(before)
                } else {
                    self.event(Event::VmClosed);
                    Turn::Begins
                }
            }
            Turn::Reaped(before) | Turn::Received(before) => {
                self.event(Event::Woke { before });
                Turn::Begins
            }
        };
    }

    fn reap(&mut self) {
        for at in 0..self.spares.len() {
            if let (place, Spare::Dead(exit_code)) = self.spares[at] {
                let pid = Pid::from_raw(at as i32);
                if exit_code == Some(VM_CLOSED.into()) {
                    assert!(self.phase.is_expected(pid, exit_code, &self.flags));
                } else if exit_code.is_none() {
                    assert!(!self.phase.is_expected(pid, exit_code, &self.flags));
                }
                self.spares[at] = (place, Spare::Reaped);
                self.event(Event::ChildDied { pid, exit_code });
            }
        }
    }

    fn spare(&mut self, at: usize) {
        let (place, spare) = self.spares[at];
        let next = match spare {
            Spare::Waits if self.requests > 0 => {
                self.requests -= 1;
                Spare::Took
            }
            Spare::Waits if !self.vm_open => Spare::Dead(Some(VM_CLOSED.into())),
            Spare::Took => {
                self.flags[place] = false;
                Spare::Cleared
            }
            Spare::Cleared => {
                self.bell |= none_waits(&self.flags);
                self.served += 1;
                Spare::Shepherd
            }
            Spare::Waits | Spare::Shepherd | Spare::Dead(_) | Spare::Reaped => spare,
        };
        self.spares[at] = (place, next);
    }

    fn kill(&mut self, at: usize) {
        let (place, spare) = self.spares[at];
        match spare {
            Spare::Took | Spare::Cleared => self.reset += 1,
            Spare::Waits | Spare::Shepherd => {}
            Spare::Dead(_) | Spare::Reaped => return,
        }
        self.spares[at] = (place, Spare::Dead(None));
    }

    fn check(&self) {
        let waiting = self
            .spares
            .iter()
            .filter(|(_, spare)| *spare == Spare::Waits);
        assert!(waiting.count() <= SPARES);
        let on_the_way =
            |(_, spare): &&(usize, Spare)| matches!(spare, Spare::Took | Spare::Cleared);
        let on_the_way = self.spares.iter().filter(on_the_way).count();
        assert_eq!(
            self.asked,
            self.requests + on_the_way + self.served + self.reset
        );
    }

    /// All do what they can until nobody can do any more, though no time passes.
    fn settle(&mut self) {
        loop {
            let before = (self.turn, self.served, self.reset, self.spares.clone());
            (0..self.spares.len()).for_each(|at| self.step(Step::Spare(at)));
            self.step(Step::Launcher);
            if before == (self.turn, self.served, self.reset, self.spares.clone()) {
                return;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_request_is_left_while_a_launcher_lives_and_no_more_spares_wait_than_there_may(steps in any_steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
        if world.is_open() {
            prop_assert!(world.vm_open && world.guard_lives);
            prop_assert_eq!(world.requests, 0);
        }
        if world.is_open() && !world.changed {
            // With some time a spare waits again. (That one of two was taken is not told.)
            world.can_fork = true;
            for _ in 0..10 {
                world.step(Step::TimePasses);
                world.settle();
            }
            prop_assert!(!none_waits(&world.flags));
        } else if world.is_open() {
            // That is found before the next fork. (That one of two was taken is not told.)
            for _ in 0..10 {
                world.step(Step::TimePasses);
                world.settle();
            }
            prop_assert!(!world.is_open() || world.turn == Turn::Waits([true; SPARES]));
        } else if !world.vm_open {
            prop_assert_eq!(world.phase, Phase::VmClosed);
        } else {
            prop_assert_eq!(world.phase, Phase::Withdrawn);
        }
    }
}

#[test]
fn where_nobody_asks_there_are_all_spares_soon() {
    let mut world = World::new();
    for _ in 0..10 {
        world.step(Step::TimePasses);
        world.settle();
    }
    assert_eq!(world.flags, [true; SPARES]);
}
