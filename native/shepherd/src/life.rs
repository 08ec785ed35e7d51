//! The life of a shepherd, as pure data: what it does next, and when.
//!
//! ```text
//!  Idle ──► Running ──► Dead ──► EndingLeftovers ───┐
//!   ▲  │       │          │                         ├──► LeavingCgroup ──► Gone
//!   │  │       │          └────► HoldingLeftovers ──┤
//!   │  │       └ (a tracer holds it) ────▲          │
//!   │  └ (did not start) ─────────────────► Between ◄
//!   └────────────────────────────────────────┴─────────────────────────► Gone
//! ```
//!
//! `Life::event` takes what happened and gives the next life and the actions that follow, in their order. Nothing here
//! reads a clock or calls the system; `shepherd.rs` does. What belongs to one command is in the variants, so `Idle` cannot
//! hold anything of the command before.

use crate::backoff::Backoff;
use crate::command::Failure;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::ffi::CString;
use std::time::{Duration, Instant};
use wire::{Exit, Leftovers, Request};

/// What is known of a command that has started.
#[derive(Debug, Clone)]
pub struct Command {
    pub pid: Pid,
    pub stop_signal: i32,
    pub kill_timeout: Duration,
    pub leftovers: Leftovers,
    pub cgroup: Option<CString>,
}

/// Whether the VM may still ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vm {
    There,
    /// It closed its end of the control socket, died, or sent what is no request.
    Gone,
}

/// How far the end of a command has come that NetRunner ends.
#[derive(Debug)]
pub enum Ending {
    /// Nobody has asked for it.
    No,
    /// The stop signal is sent; SIGKILL follows at that time. `None`: never.
    Stopping { kill_at: Option<Instant> },
    /// SIGKILL is sent, again and again: there are processes that it does not reach at once (see `Backoff`).
    Killing { again_at: Instant, backoff: Backoff },
}

#[derive(Debug)]
pub enum Life {
    /// No command and no child. Waits for the VM to begin one.
    Idle,
    /// The command has started, and is not known to be dead.
    Running {
        command: Command,
        vm: Vm,
        ending: Ending,
    },
    /// Signals to its group are sent: the command can be reaped. Until then its PID, and the number of its group,
    /// is given to nobody else.
    Dead { command: Command, vm: Vm },
    /// What the command left gets SIGKILL. The exit is reported when there is no child; `None`: it is not known.
    EndingLeftovers {
        exit: Option<Exit>,
        cgroup: Option<CString>,
        vm: Vm,
        again_at: Instant,
        backoff: Backoff,
    },
    /// The exit is reported. What the command left may live on, and stays below this shepherd: given on to the
    /// launcher it would pass for what a killed shepherd left.
    HoldingLeftovers { cgroup: Option<CString>, vm: Vm },
    /// The VM reads the figures of the cgroup before it closes its end. Race: late figures.
    LeavingCgroup { cgroup: CString },
    /// Nothing is left of the command. May this shepherd serve another?
    Between,
    /// The process ends.
    Gone,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    Started(Command),
    NotStarted(Failure),
    Asked(Request),
    VmGone,
    /// There is no helper above this process: who would end the command if this shepherd was killed?
    ParentGone,
    /// What `Life::until` says has come.
    TimeOver,
    /// The command is dead, and was not reaped.
    CommandDied,
    /// The same, but somebody who traces the command keeps it from being reaped (ptrace(2)); how it exited is all that is
    /// known.
    CommandHeld(Exit),
    /// How the command exited, as far as the kernel told.
    Reaped(Option<Exit>),
    /// Dead children were reaped, and others are left.
    ChildrenLeft,
    /// The kernel says that there is no child (ECHILD).
    NoChild,
    /// Whether this shepherd may serve another command.
    Checked {
        may_serve_again: bool,
    },
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Action {
    /// Tell the VM.
    Report(wire::Event),
    /// To the command alone.
    Signal(Pid, i32),
    /// To the process group that the command leads.
    SignalGroup(Pid, i32),
    /// To every child, and the groups that they lead.
    SignalAll(i32),
    /// SIGKILL to the command and the group that it leads.
    Kill(Pid),
    /// SIGKILL to every child and the groups that they lead.
    KillAll,
    KillCgroup(CString),
    RemoveCgroup(CString),
}

type Next = (Life, Vec<Action>);

impl Life {
    /// What follows from an event, at this time.
    pub fn event(self, event: Event, now: Instant) -> Next {
        match (self, event) {
            // --- a command begins -----------------------------------------------------------------
            (Life::Idle, Event::Started(command)) => {
                let pid = command.pid.as_raw();
                let running = Life::Running {
                    command,
                    vm: Vm::There,
                    ending: Ending::No,
                };
                (running, vec![Action::Report(wire::Event::Started { pid })])
            }
            (Life::Idle, Event::NotStarted(Failure { step, errno })) => {
                let errno = errno as i32;
                let failed = wire::Event::Failed { step, errno };
                (Life::Between, vec![Action::Report(failed)])
            }
            (Life::Idle, Event::VmGone) => (Life::Gone, vec![]),

            // --- it runs --------------------------------------------------------------------------
            (
                Life::Running {
                    command,
                    vm,
                    ending,
                },
                event,
            ) => running(command, vm, ending, event, now),

            // --- it is dead -----------------------------------------------------------------------
            (Life::Dead { command, vm }, Event::Reaped(exit)) => reaped(command, vm, exit, now),

            // --- what it left ---------------------------------------------------------------------
            (
                Life::EndingLeftovers {
                    exit,
                    cgroup,
                    vm,
                    mut backoff,
                    ..
                },
                Event::ChildrenLeft,
            ) => {
                let again_at = now + backoff.next();
                let ending = Life::EndingLeftovers {
                    exit,
                    cgroup,
                    vm,
                    again_at,
                    backoff,
                };
                (ending, vec![Action::KillAll])
            }
            (
                Life::EndingLeftovers {
                    exit, cgroup, vm, ..
                },
                Event::NoChild,
            ) => {
                let (report, vm) = report(exit, vm);
                let (life, rest) = nothing_left(cgroup, vm);
                (life, report.into_iter().chain(rest).collect())
            }
            (Life::HoldingLeftovers { cgroup, vm }, Event::NoChild) => {
                let (life, actions) = nothing_left(cgroup, vm);
                (life, actions.into_iter().collect())
            }
            (Life::LeavingCgroup { cgroup }, Event::VmGone) => {
                (Life::Gone, vec![Action::RemoveCgroup(cgroup)])
            }

            // --- the next one ---------------------------------------------------------------------
            (Life::Between, Event::Checked { may_serve_again }) => {
                let next = if may_serve_again {
                    Life::Idle
                } else {
                    Life::Gone
                };
                (next, vec![])
            }

            // What was asked came too late, and there is nothing to do about what else may happen.
            (life, _) => (life, vec![]),
        }
    }

    /// The command, while it is not known to be dead.
    pub fn command(&self) -> Option<&Command> {
        match self {
            Life::Running { command, .. } => Some(command),
            _ => None,
        }
    }

    /// When there is something to do though nothing happens.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Life::Running { ending, .. } => match ending {
                Ending::No => None,
                Ending::Stopping { kill_at } => *kill_at,
                Ending::Killing { again_at, .. } => Some(*again_at),
            },
            Life::EndingLeftovers { again_at, .. } => Some(*again_at),
            _ => None,
        }
    }
}

fn running(command: Command, vm: Vm, ending: Ending, event: Event, now: Instant) -> Next {
    match event {
        Event::Asked(Request::Signal { number }) => {
            let signal = Action::Signal(command.pid, number);
            let same = Life::Running {
                command,
                vm,
                ending,
            };
            (same, vec![signal])
        }
        Event::Asked(Request::End) => stop(command, vm, ending, now),
        // Nobody may begin a command while another runs: this is no VM of ours.
        Event::Asked(Request::Begin) | Event::VmGone => stop(command, Vm::Gone, ending, now),
        // Race: orphan under a dead launcher.
        Event::ParentGone => kill(command, vm, ending, now),
        Event::TimeOver => match ending {
            Ending::No => unchanged(command, vm, ending),
            Ending::Stopping { .. } | Ending::Killing { .. } => kill(command, vm, ending, now),
        },
        Event::CommandDied => {
            let kill = kill_group(&command, &ending);
            (Life::Dead { command, vm }, kill.into_iter().collect())
        }
        Event::CommandHeld(exit) => match command.leftovers {
            // Who traces it may be a leftover as any other.
            Leftovers::Kill => kill(command, vm, ending, now),
            // The zombie is one.
            Leftovers::Leave => {
                let kill = kill_group(&command, &ending);
                let (report, vm) = report(Some(exit), vm);
                let holding = Life::HoldingLeftovers {
                    cgroup: command.cgroup,
                    vm,
                };
                (holding, kill.into_iter().chain(report).collect())
            }
        },
        // It has started, it is not reaped, and so there is a child.
        Event::Started(_)
        | Event::NotStarted(_)
        | Event::Reaped(_)
        | Event::ChildrenLeft
        | Event::NoChild
        | Event::Checked { .. } => unchanged(command, vm, ending),
    }
}

fn unchanged(command: Command, vm: Vm, ending: Ending) -> Next {
    let same = Life::Running {
        command,
        vm,
        ending,
    };
    (same, vec![])
}

/// The stop signal, once.
fn stop(command: Command, vm: Vm, ending: Ending, now: Instant) -> Next {
    if !matches!(ending, Ending::No) {
        return unchanged(command, vm, ending);
    }
    // What is in the group of the command belongs to it: leftovers are what stays when a command exits by itself, and
    // what left its group before.
    let signal = |number| match command.leftovers {
        Leftovers::Kill => Action::SignalAll(number),
        Leftovers::Leave => Action::SignalGroup(command.pid, number),
    };
    // A stopped program acts on a signal only when it goes on.
    let actions = vec![signal(command.stop_signal), signal(Signal::SIGCONT as i32)];
    // A time beyond what the clock can count is for ever.
    let kill_at = now.checked_add(command.kill_timeout);
    let stopping = Life::Running {
        command,
        vm,
        ending: Ending::Stopping { kill_at },
    };
    (stopping, actions)
}

/// SIGKILL, and the next try when that does not do.
fn kill(command: Command, vm: Vm, ending: Ending, now: Instant) -> Next {
    let mut backoff = match ending {
        Ending::Killing { backoff, .. } => backoff,
        Ending::No | Ending::Stopping { .. } => Backoff::new(),
    };
    // The command leads its group: it leads a session, so it cannot leave.
    let mut actions = vec![Action::Kill(command.pid)];
    if command.leftovers == Leftovers::Kill {
        actions.extend(command.cgroup.clone().map(Action::KillCgroup));
        actions.push(Action::KillAll);
    }
    let ending = Ending::Killing {
        again_at: now + backoff.next(),
        backoff,
    };
    let killing = Life::Running {
        command,
        vm,
        ending,
    };
    (killing, actions)
}

/// What is in its group when the command is dead. It stays only where it may, and the command exited by itself.
fn kill_group(command: &Command, ending: &Ending) -> Option<Action> {
    let stays = command.leftovers == Leftovers::Leave && matches!(ending, Ending::No);
    (!stays).then_some(Action::Kill(command.pid))
}

fn reaped(command: Command, vm: Vm, exit: Option<Exit>, now: Instant) -> Next {
    let Command {
        leftovers, cgroup, ..
    } = command;
    match leftovers {
        Leftovers::Kill => {
            let kill = cgroup.clone().map(Action::KillCgroup);
            let ending = Life::EndingLeftovers {
                exit,
                cgroup,
                vm,
                again_at: now,
                backoff: Backoff::new(),
            };
            (ending, kill.into_iter().collect())
        }
        Leftovers::Leave => {
            let (report, vm) = report(exit, vm);
            let holding = Life::HoldingLeftovers { cgroup, vm };
            (holding, report.into_iter().collect())
        }
    }
}

/// Where it is not known how the command exited, the VM hears of its end by the end of this shepherd.
fn report(exit: Option<Exit>, vm: Vm) -> (Option<Action>, Vm) {
    match exit {
        Some(exit) => (Some(Action::Report(wire::Event::Exited(exit))), vm),
        None => (None, Vm::Gone),
    }
}

fn nothing_left(cgroup: Option<CString>, vm: Vm) -> (Life, Option<Action>) {
    match (cgroup, vm) {
        (Some(cgroup), Vm::There) => (Life::LeavingCgroup { cgroup }, None),
        (Some(cgroup), Vm::Gone) => (Life::Gone, Some(Action::RemoveCgroup(cgroup))),
        (None, Vm::There) => (Life::Between, None),
        (None, Vm::Gone) => (Life::Gone, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use wire::Step as StartStep;

    /// A process below the shepherd.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Process {
        /// Lives, and takes so many more SIGKILLs: the kernel holds it, or it may not be signalled.
        Alive(u8),
        /// Dead, but traced by this child, which takes no note of it, or by a stranger.
        Held(Tracer),
        Zombie,
        Reaped,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Tracer {
        Child(usize),
        Stranger,
    }

    /// What happens beside the shepherd.
    #[derive(Debug, Clone)]
    enum Step {
        Begin {
            leave: bool,
            cgroup: bool,
            kill_timeout: Option<u16>,
            hardness: u8,
        },
        BeginInVain,
        Signal(i32),
        End,
        VmGone,
        ParentGone,
        /// Also while nothing is awaited of it.
        TimePasses(u16),
        CommandExits,
        CommandDiesTraced {
            by_stranger: bool,
        },
        StrangerLetsGo,
        OrphanComes(u8),
        OrphanExits(usize),
        ShepherdChanged,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<bool>(), any::<bool>(), any::<Option<u16>>(), 0..3u8).prop_map(
                |(leave, cgroup, kill_timeout, hardness)| Step::Begin { leave, cgroup, kill_timeout, hardness }
            ),
            1 => Just(Step::BeginInVain),
            2 => (1..32i32).prop_map(Step::Signal),
            1 => Just(Step::End),
            1 => Just(Step::VmGone),
            1 => Just(Step::ParentGone),
            3 => any::<u16>().prop_map(Step::TimePasses),
            3 => Just(Step::CommandExits),
            1 => any::<bool>().prop_map(|by_stranger| Step::CommandDiesTraced { by_stranger }),
            1 => Just(Step::StrangerLetsGo),
            3 => (0..3u8).prop_map(Step::OrphanComes),
            2 => (0..4usize).prop_map(Step::OrphanExits),
            1 => Just(Step::ShepherdChanged),
        ]
    }

    const EXIT: Exit = Exit {
        result: Ok(0),
        core_dumped: false,
        max_rss_bytes: 0,
        user_time_us: 0,
        system_time_us: 0,
    };

    /// The processes, the VM and the clock, and the shepherd's life among them. It perceives what `shepherd.rs` does.
    struct World {
        life: Life,
        now: Instant,
        /// Of the command that was begun last; PIDs are never used again here.
        pid: i32,
        command: Process,
        orphans: Vec<Process>,
        cgroup: bool,
        leave: bool,
        vm: Vm,
        unchanged: bool,
        begun: usize,
        answered: usize,
        started: usize,
        exited: usize,
        cgroups_removed: usize,
        cgroups: usize,
    }

    impl World {
        fn new() -> World {
            World {
                life: Life::Idle,
                now: Instant::now(),
                pid: 100,
                command: Process::Reaped,
                orphans: vec![],
                cgroup: false,
                leave: false,
                vm: Vm::There,
                unchanged: true,
                begun: 0,
                answered: 0,
                started: 0,
                exited: 0,
                cgroups_removed: 0,
                cgroups: 0,
            }
        }

        fn event(&mut self, event: Event) {
            let life = std::mem::replace(&mut self.life, Life::Gone);
            let (life, actions) = life.event(event, self.now);
            self.life = life;
            for action in actions {
                self.carry_out(action);
            }
        }

        fn carry_out(&mut self, action: Action) {
            match action {
                Action::Signal(pid, _) | Action::SignalGroup(pid, _) => self.may_be_signalled(pid),
                Action::SignalAll(_) => assert!(!self.leave, "leftovers may stay"),
                Action::Kill(pid) => {
                    self.may_be_signalled(pid);
                    sigkill(&mut self.command);
                }
                Action::KillAll => {
                    assert!(!self.leave, "leftovers may stay");
                    sigkill(&mut self.command);
                    self.orphans.iter_mut().for_each(sigkill);
                    self.let_go_of_dead_tracers();
                }
                Action::KillCgroup(_) => assert!(self.cgroup && !self.leave),
                Action::RemoveCgroup(_) => {
                    assert!(self.cgroup && self.childless());
                    self.cgroups_removed += 1;
                    self.cgroup = false;
                }
                Action::Report(wire::Event::Started { pid }) => {
                    assert_eq!((pid, self.answered + 1), (self.pid, self.begun));
                    self.answered += 1;
                    self.started += 1;
                }
                Action::Report(wire::Event::Failed { .. }) => {
                    assert_eq!(self.answered + 1, self.begun);
                    self.answered += 1;
                }
                Action::Report(wire::Event::Exited(_)) => {
                    assert_eq!(self.exited + 1, self.started, "reported twice");
                    assert!(
                        self.leave || self.childless(),
                        "reported while something is left"
                    );
                    self.exited += 1;
                }
            }
        }

        /// The rule: a PID names the command as long as that is not reaped.
        fn may_be_signalled(&self, pid: Pid) {
            assert_eq!(pid.as_raw(), self.pid);
            assert_ne!(
                self.command,
                Process::Reaped,
                "signalled after it was reaped"
            );
        }

        fn childless(&self) -> bool {
            self.command == Process::Reaped
                && self.orphans.iter().all(|one| *one == Process::Reaped)
        }

        fn let_go_of_dead_tracers(&mut self) {
            if let Process::Held(Tracer::Child(tracer)) = self.command {
                if !matches!(self.orphans.get(tracer), Some(Process::Alive(_))) {
                    self.command = Process::Zombie;
                }
            }
        }

        /// One step beside the shepherd, and what it perceives of that.
        fn step(&mut self, step: Step) {
            match step {
                Step::Begin { .. } | Step::BeginInVain if self.vm == Vm::Gone => {}
                Step::Begin {
                    leave,
                    cgroup,
                    kill_timeout,
                    hardness,
                } => match self.life {
                    Life::Idle => self.begin(leave, cgroup, kill_timeout, hardness),
                    _ => self.ask(Request::Begin),
                },
                Step::BeginInVain => {
                    if let Life::Idle = self.life {
                        self.begun += 1;
                        self.event(Event::NotStarted(Failure {
                            step: StartStep::Exec,
                            errno: Errno::ENOENT,
                        }));
                    }
                }
                Step::Signal(number) => self.ask(Request::Signal { number }),
                Step::End => self.ask(Request::End),
                Step::VmGone => self.vm_goes(),
                // An idle shepherd dies with its parent.
                Step::ParentGone => {
                    if let Life::Running { .. } = self.life {
                        self.event(Event::ParentGone);
                    }
                }
                Step::TimePasses(ms) => {
                    self.now += Duration::from_millis(ms.into());
                    if self.life.until().is_some_and(|until| until <= self.now) {
                        self.event(Event::TimeOver);
                    }
                }
                Step::CommandExits => {
                    if let Process::Alive(_) = self.command {
                        self.command = Process::Zombie;
                    }
                }
                Step::CommandDiesTraced { by_stranger } => self.die_traced(by_stranger),
                Step::StrangerLetsGo => {
                    if self.command == Process::Held(Tracer::Stranger) {
                        self.command = Process::Zombie;
                    }
                }
                Step::OrphanComes(hardness) => {
                    // From below the command, or below what it left.
                    if !self.childless() {
                        self.orphans.push(Process::Alive(hardness));
                    }
                }
                Step::OrphanExits(at) => {
                    if let Some(orphan @ Process::Alive(_)) = self.orphans.get_mut(at) {
                        *orphan = Process::Zombie;
                    }
                    self.let_go_of_dead_tracers();
                }
                Step::ShepherdChanged => self.unchanged = false,
            }
            self.go_on();
        }

        fn begin(&mut self, leave: bool, cgroup: bool, kill_timeout: Option<u16>, hardness: u8) {
            assert!(self.childless(), "carried over");
            self.pid += 1;
            self.begun += 1;
            self.orphans.clear();
            self.command = Process::Alive(hardness);
            (self.leave, self.cgroup) = (leave, cgroup);
            self.cgroups += usize::from(cgroup);
            self.event(Event::Started(Command {
                pid: Pid::from_raw(self.pid),
                stop_signal: 15,
                kill_timeout: kill_timeout
                    .map_or(Duration::MAX, |ms| Duration::from_millis(ms.into())),
                leftovers: if leave {
                    Leftovers::Leave
                } else {
                    Leftovers::Kill
                },
                cgroup: cgroup.then(|| c"/cgroup".to_owned()),
            }));
            // Nothing of what was asked of the command before.
            assert!(matches!(
                self.life,
                Life::Running {
                    vm: Vm::There,
                    ending: Ending::No,
                    ..
                }
            ));
            assert_eq!(self.life.until(), None);
        }

        /// The control socket is read only in these states; what is left there is read, and has no effect, later.
        fn ask(&mut self, request: Request) {
            if self.vm == Vm::There && self.listens() {
                self.event(Event::Asked(request));
            }
        }

        fn vm_goes(&mut self) {
            self.vm = Vm::Gone;
            if self.listens() {
                self.event(Event::VmGone);
            }
        }

        fn listens(&self) -> bool {
            matches!(
                self.life,
                Life::Idle | Life::LeavingCgroup { .. } | Life::Running { vm: Vm::There, .. }
            )
        }

        fn die_traced(&mut self, by_stranger: bool) {
            let tracer = self
                .orphans
                .iter()
                .position(|one| matches!(one, Process::Alive(_)));
            let by = match (by_stranger, tracer) {
                (false, Some(child)) => Tracer::Child(child),
                _ => Tracer::Stranger,
            };
            if let (Process::Alive(_), Life::Running { .. }) = (self.command, &self.life) {
                self.command = Process::Held(by);
                self.event(Event::CommandHeld(EXIT));
            }
        }

        /// Until the shepherd would wait.
        fn go_on(&mut self) {
            loop {
                match self.life {
                    Life::Running { .. } if self.command == Process::Zombie => {
                        self.event(Event::CommandDied);
                    }
                    Life::Running { .. } => {
                        self.reap_orphans();
                        return;
                    }
                    Life::Dead { .. } => {
                        assert_eq!(self.command, Process::Zombie);
                        self.command = Process::Reaped;
                        self.event(Event::Reaped(Some(EXIT)));
                    }
                    Life::EndingLeftovers { .. } | Life::HoldingLeftovers { .. } => {
                        self.reap_orphans();
                        if self.command == Process::Zombie {
                            self.command = Process::Reaped;
                        }
                        if !self.childless() {
                            self.event(Event::ChildrenLeft);
                            return;
                        }
                        self.event(Event::NoChild);
                    }
                    Life::LeavingCgroup { .. } if self.vm == Vm::Gone => self.event(Event::VmGone),
                    Life::Between => self.event(Event::Checked {
                        may_serve_again: self.unchanged,
                    }),
                    Life::Idle if self.vm == Vm::Gone => self.event(Event::VmGone),
                    Life::Idle | Life::LeavingCgroup { .. } | Life::Gone => return,
                }
                self.check();
            }
        }

        fn reap_orphans(&mut self) {
            for orphan in &mut self.orphans {
                if *orphan == Process::Zombie {
                    *orphan = Process::Reaped;
                }
            }
        }

        fn check(&self) {
            assert!(self.begun - self.answered <= 1);
            match self.life {
                Life::Idle | Life::Between | Life::Gone => {
                    assert!(self.childless());
                    assert_eq!((self.answered, self.exited), (self.begun, self.started));
                }
                Life::HoldingLeftovers { .. } | Life::LeavingCgroup { .. } => {
                    assert_eq!(self.exited, self.started);
                }
                Life::Running { .. } | Life::Dead { .. } | Life::EndingLeftovers { .. } => {
                    assert_eq!(self.exited + 1, self.started);
                }
            }
        }

        /// The VM is gone. All that is left to do is the shepherd's, apart from what nobody can hurry: a kill timeout
        /// without end, leftovers that may stay, a stranger that holds a zombie.
        fn come_to_the_end(&mut self) {
            self.vm_goes();
            self.go_on();
            for _ in 0..50 {
                self.step(Step::TimePasses(u16::MAX));
                if let (None, Life::Running { .. }) = (self.life.until(), &self.life) {
                    self.step(Step::CommandExits);
                }
                if self.leave {
                    (0..self.orphans.len()).for_each(|at| self.step(Step::OrphanExits(at)));
                }
                self.step(Step::StrangerLetsGo);
            }
            assert!(matches!(self.life, Life::Gone), "{:?}", self.life);
            self.check();
            assert_eq!(self.cgroups_removed, self.cgroups);
        }
    }

    fn sigkill(process: &mut Process) {
        *process = match *process {
            Process::Alive(0) => Process::Zombie,
            Process::Alive(hardness) => Process::Alive(hardness - 1),
            dead => dead,
        };
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn any_order_of_events_ends_with_no_child_and_one_report_for_each_command(steps in vec(any_step(), 0..60)) {
            let mut world = World::new();
            for step in steps {
                world.step(step);
                world.check();
            }
            world.come_to_the_end();
        }
    }
}
