//! The life of a shepherd in any order of what may happen beside it.

use super::*;
use nix::errno::Errno;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
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
    BeginInVain {
        cgroup: bool,
    },
    /// The VM is gone when that is read.
    BeginAndGo {
        cgroup: bool,
    },
    Signal(i32, Target),
    Suspend,
    Resume,
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
        1 => any::<bool>().prop_map(|cgroup| Step::BeginInVain { cgroup }),
        1 => any::<bool>().prop_map(|cgroup| Step::BeginAndGo { cgroup }),
        2 => (1..32i32, select(&Target::ALL)).prop_map(|(number, to)| Step::Signal(number, to)),
        1 => Just(Step::Suspend),
        1 => Just(Step::Resume),
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
    suspended: bool,
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
            suspended: false,
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
            Action::SignalTree(_) => assert_ne!(self.command, Process::Reaped),
            Action::Suspend(cgroup) => {
                assert_ne!(self.command, Process::Reaped);
                assert_eq!(cgroup.is_some(), self.cgroup);
                self.suspended = true;
            }
            Action::Resume(cgroup) => {
                assert_eq!(cgroup.is_some(), self.cgroup);
                self.suspended = false;
            }
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
                assert!(!self.cgroup, "the VM may make it again");
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
        self.command == Process::Reaped && self.orphans.iter().all(|one| *one == Process::Reaped)
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
            Step::Begin { .. } | Step::BeginInVain { .. } | Step::BeginAndGo { .. }
                if self.vm == Vm::Gone => {}
            Step::Begin {
                leave,
                cgroup,
                kill_timeout,
                hardness,
            } => match self.life {
                Life::Idle => self.begin(leave, cgroup, kill_timeout, hardness),
                _ => self.ask(Request::Begin),
            },
            Step::BeginInVain { cgroup } => {
                if let Life::Idle = self.life {
                    self.begun += 1;
                    let cgroup = self.make_cgroup(cgroup);
                    let (step, errno) = (StartStep::Exec, Errno::ENOENT);
                    let failure = Failure { step, errno };
                    self.event(Event::NotStarted { failure, cgroup });
                }
            }
            Step::BeginAndGo { cgroup } => {
                if let Life::Idle = self.life {
                    self.vm = Vm::Gone;
                    let cgroup = self.make_cgroup(cgroup);
                    self.event(Event::Abandoned { cgroup });
                }
            }
            Step::Signal(number, to) => self.ask(Request::Signal { number, to }),
            Step::Suspend => self.ask(Request::Suspend),
            Step::Resume => self.ask(Request::Resume),
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
        (self.leave, self.suspended) = (leave, false);
        let cgroup = self.make_cgroup(cgroup);
        self.event(Event::Started(Command {
            pid: Pid::from_raw(self.pid),
            stop_signal: 15,
            kill_timeout: kill_timeout.map_or(Duration::MAX, |ms| Duration::from_millis(ms.into())),
            leftovers: if leave {
                Leftovers::Leave
            } else {
                Leftovers::Kill
            },
            cgroup,
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

    /// The VM does, where the command is to have one.
    fn make_cgroup(&mut self, wanted: bool) -> Option<CString> {
        self.cgroup = wanted;
        self.cgroups += usize::from(wanted);
        wanted.then(|| c"/cgroup".to_owned())
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
        let may_be_suspended = match &self.life {
            Life::Running { ending, .. } => match ending {
                Ending::No | Ending::Stopping { .. } => false,
                Ending::Suspended => true,
                Ending::Killing { .. } => !self.leave,
            },
            // All of it is killed.
            _ => !self.leave,
        };
        assert!(may_be_suspended || !self.suspended, "{:?}", self.life);
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
