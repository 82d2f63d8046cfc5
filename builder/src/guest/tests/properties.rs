//! Random events and times, against a model that knows only what a guest's
//! supervisor sees: whether a VMM lives, and what was asked for.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Something that happens to a guest.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Waits(Duration),
    /// Time passes until the guest is due.
    WaitsUntilDue,
    Ticks,
    /// Its start is tried, and fails where there is a reason.
    Starts(StartMethod, Option<Reason>),
    IsRestored,
    IsNotRestored,
    /// Its console carries a line.
    Says(&'static str),
    /// Its VMM writes a line.
    Complains(&'static str),
    Hears,
    IsMeasured(Chance),
    IsInspected(MachineState),
    IsOutOfReach,
    Ends(End),
    IsAdopted,
    IsGone,
    IsStopped(Duration),
    IsRestarted(Duration),
    IsKilled,
}

fn steps() -> impl Strategy<Value = Step> {
    let grace = || select(vec![Duration::ZERO, GRACE]);
    let method = || select(vec![StartMethod::Boot, StartMethod::Clone]);
    let spawn = Reason::Spawn("no QEMU".to_owned());
    let taken = Reason::Host(Trouble::Taken(PORT.to_owned()));
    let says = [
        READY,
        HEARTBEAT,
        REPLY,
        WHO_AM_I,
        PARKED,
        FATAL,
        PANIC,
        POWER_DOWN,
        POWER_OFF,
        REBOOT,
        "Linux version 6.12",
    ];
    let ends = [End::Code(0), End::Code(1), End::Unknown, OOM, KILLED];
    let machines = [
        MachineState::Running,
        MachineState::Paused,
        MachineState::DiskFailed,
        MachineState::Restoring,
        MachineState::Dead,
    ];
    let chances = [HUNG, STARVED, STOPPED, IDLE, runnable(IDLE)];
    prop_oneof![
        2 => (0..20_000_u64).prop_map(|ms| Step::Waits(Duration::from_millis(ms))),
        12 => Just(Step::WaitsUntilDue),
        12 => Just(Step::Ticks),
        6 => method().prop_map(|method| Step::Starts(method, None)),
        1 => (method(), select(vec![spawn, taken, full_disk()]))
            .prop_map(|(method, why)| Step::Starts(method, Some(why))),
        3 => Just(Step::IsRestored),
        1 => Just(Step::IsNotRestored),
        2 => Just(Step::Says(READY)),
        2 => select(says.to_vec()).prop_map(Step::Says),
        1 => select(vec![KVM, NO_THREAD, PORT, WAITS]).prop_map(Step::Complains),
        1 => Just(Step::Hears),
        6 => select(chances.to_vec()).prop_map(Step::IsMeasured),
        4 => select(machines.to_vec()).prop_map(Step::IsInspected),
        1 => Just(Step::IsOutOfReach),
        4 => select(ends.to_vec()).prop_map(Step::Ends),
        1 => Just(Step::IsAdopted),
        1 => Just(Step::IsGone),
        1 => grace().prop_map(Step::IsStopped),
        1 => grace().prop_map(Step::IsRestarted),
        1 => Just(Step::IsKilled),
    ]
}

/// What a supervisor knows of a guest's VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vmm {
    None,
    Lives,
    /// It was killed, and its end has not been seen.
    Killed,
}

/// What a supervisor knows of a guest.
#[derive(Debug)]
struct Model {
    vmm: Vmm,
    wanted: Desired,
    /// The user wants it started again once that VMM is gone.
    comes_back: bool,
    /// A start was asked for, and has not been tried. A new guest's is.
    is_to_start: bool,
    /// No start of it has come to anything.
    is_new: bool,
    restarts: u32,
    /// Ends that count against it since the user last wanted it started again.
    ends: u32,
    /// Those of them since it was last ready.
    ends_in_boot: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            vmm: Vmm::None,
            wanted: Desired::Up,
            comes_back: false,
            is_to_start: true,
            is_new: true,
            restarts: 0,
            ends: 0,
            ends_in_boot: 0,
        }
    }

    fn lives(&self) -> bool {
        self.vmm != Vmm::None
    }
}

/// A guest beside its model.
struct Pair {
    bench: Bench,
    model: Model,
}

impl Pair {
    fn takes(&mut self, step: &Step) {
        match step {
            Step::Waits(time) => self.bench.waits(*time),
            Step::WaitsUntilDue => {
                let due = self.bench.guest.due();
                self.bench.now = due.map_or(self.bench.now, |due| due.max(self.bench.now));
            }
            Step::Ticks => self.ticks(),
            Step::IsRestored => self.does(&Event::Restored),
            Step::IsNotRestored => self.does(&Event::NotRestored("no".to_owned())),
            Step::Starts(method, failure) => {
                self.starts(*method);
                if let (true, Some(reason)) = (self.model.lives(), failure)
                    && self.bench.guest.phase().is_starting()
                {
                    self.ends(&Event::SpawnFailed(reason.clone()));
                }
            }
            Step::Says(line) => match parse(line.as_bytes()) {
                Ok(message) => self.does(&Event::Message(&message)),
                Err(_) => self.does(&Event::Text(line)),
            },
            Step::Complains(line) => self.does(&Event::VmmText(line)),
            Step::Hears => self.does(&Event::Heard),
            Step::IsMeasured(chance) => self.does(&Event::Chance(*chance)),
            Step::IsInspected(machine) => self.does(&Event::MachineState(*machine)),
            Step::IsOutOfReach => self.does(&Event::OutOfReach),
            Step::Ends(end) => self.ends(&Event::Ended(*end)),
            Step::IsAdopted => {
                if self.bench.guest.phase() == Phase::Planned {
                    self.model.vmm = Vmm::Lives;
                    self.model.is_to_start = false;
                }
                self.does(&Event::Adopted);
            }
            Step::IsGone => {
                if self.bench.guest.phase() == Phase::Planned {
                    self.model.is_to_start = false;
                    self.counts_an_end();
                }
                self.does(&Event::Gone);
            }
            Step::IsStopped(grace) => {
                self.model.wanted = Desired::Down;
                self.model.comes_back = false;
                self.model.is_to_start = false;
                self.model.is_new &= self.model.lives();
                self.does(&Event::Stop(*grace));
            }
            Step::IsRestarted(grace) => {
                self.model.wanted = Desired::Up;
                self.model.comes_back = self.model.lives();
                self.model.ends = 0;
                self.model.ends_in_boot = 0;
                self.does(&Event::Restart(*grace));
                assert!(self.model.lives() || self.model.is_to_start);
            }
            Step::IsKilled => self.does(&Event::Kill),
        }
    }

    /// A tick before its time does nothing; after one, there is nothing left that
    /// is due.
    fn ticks(&mut self) {
        let now = self.bench.now;
        let is_early = self.bench.guest.due().is_none_or(|due| now < due);
        let before = is_early.then(|| format!("{:?}", self.bench.guest));
        self.does(&Event::Tick);
        if let Some(before) = before {
            assert_eq!(format!("{:?}", self.bench.guest), before);
        }
        assert!(self.bench.guest.due().is_none_or(|due| now < due));
    }

    /// Exactly the start that was asked for begins, and one that nobody asked for
    /// does not.
    fn starts(&mut self, method: StartMethod) {
        if std::mem::take(&mut self.model.is_to_start) {
            assert_eq!(self.model.wanted, Desired::Up);
            self.model.vmm = Vmm::Lives;
            self.model.restarts += u32::from(!self.model.is_new);
        }
        self.does(&Event::Start(method));
    }

    fn ends(&mut self, event: &Event<'_>) {
        if !self.model.lives() {
            return self.does(event);
        }
        self.model.vmm = Vmm::None;
        let comes_back = std::mem::take(&mut self.model.comes_back);
        let action = self.bench.does(event);
        let phase = self.bench.guest.phase();
        let reason = self.bench.reason().clone();
        if self.model.wanted == Desired::Down {
            self.model.is_new = false;
            assert_eq!(
                (phase, &reason, action),
                (Phase::Exited, &Reason::Stopped, None)
            );
        } else if comes_back {
            self.model.is_new = false;
            assert_eq!((phase, action), (Phase::Restarting, Some(Action::Spawn)));
        } else if let Reason::Host(_) = reason {
            self.model.restarts -= u32::from(!self.model.is_new);
            let waits = if self.model.is_new {
                Phase::Planned
            } else {
                Phase::Restarting
            };
            assert_eq!(phase, waits);
        } else if reason == Reason::Killed {
            self.model.is_new = false;
        } else {
            self.counts_an_end();
        }
        self.agrees(action);
    }

    fn counts_an_end(&mut self) {
        self.model.is_new = false;
        self.model.ends += 1;
        self.model.ends_in_boot += 1;
    }

    fn does(&mut self, event: &Event<'_>) {
        let guest = &self.bench.guest;
        let (phase, due, late) = (guest.phase(), guest.due(), guest.unresponsive());
        let was_killed = self.model.vmm == Vmm::Killed;
        let action = self.bench.does(event);
        let guest = &self.bench.guest;
        let becomes_late = phase != guest.phase() && guest.phase() == Phase::Unresponsive;
        assert_eq!(guest.unresponsive(), late + u32::from(becomes_late));
        if guest.due() != due {
            assert!(guest.due().is_none_or(|due| due >= self.bench.now));
        }
        if was_killed {
            // Once more only where the user says so.
            let kill = matches!(event, Event::Kill).then_some(Action::Kill);
            assert_eq!(action, kill);
        }
        self.agrees(action);
    }

    /// The guest is as the model has it, and `action` is one that it may ask for.
    fn agrees(&mut self, action: Option<Action>) {
        let (guest, model) = (&self.bench.guest, &mut self.model);
        let phase = guest.phase();
        match action {
            Some(Action::Spawn) => {
                assert!(!model.lives() && model.wanted == Desired::Up, "{model:?}");
                model.is_to_start = true;
            }
            Some(action) => {
                assert!(model.lives(), "{action:?} without a VMM");
                if action == Action::Kill {
                    model.vmm = Vmm::Killed;
                }
            }
            None => {}
        }
        if phase == Phase::Ready {
            model.ends_in_boot = 0;
        }
        assert_eq!(phase.lives(), model.lives());
        assert_eq!(guest.desired(), model.wanted);
        assert_eq!(guest.restarts(), model.restarts);
        // No guest is forgotten, and none is waited for that has nothing to do.
        let is_due = match phase {
            Phase::Exited | Phase::Failed => false,
            Phase::Planned | Phase::Restarting => !model.is_to_start,
            _ => model.vmm == Vmm::Lives,
        };
        assert_eq!(guest.due().is_some(), is_due, "{guest:?}");
        let policy = &self.bench.policy;
        match phase {
            Phase::Failed => {
                assert!(policy.restart == Restart::Never || model.ends >= policy.give_up);
            }
            Phase::Restarting if !model.is_to_start => {
                assert!(model.ends_in_boot < policy.give_up);
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_guest_does_what_its_model_allows(
        restart in select(vec![Restart::Always, Restart::OnFailure, Restart::Never]),
        give_up in 1..=GIVE_UP,
        steps in prop::collection::vec(steps(), 1..200),
    ) {
        let mut pair = Pair {
            bench: Bench::new(restart),
            model: Model::new(),
        };
        pair.bench.policy.give_up = give_up;
        for step in &steps {
            pair.takes(step);
        }
    }
}
