//! Probes KVM in a process of its own and kills that process if KVM hangs, because
//! a system call that does not return cannot be given up in any other way.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::probe::{Execution, Extremes, Instruction, Outcome, Probe};
use super::step::{Shown, Step};
use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError, Stream};

/// The verb of this program that takes steps.
pub(crate) const PROBE_VERB: &str = "probe-kvm";

/// What a step gets of the process's own clock. It takes a few milliseconds, and
/// some ten times as long on a CPU that is emulated.
const STEP_LIMIT: Duration = Duration::from_millis(500);

/// How the process is started that tries KVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prober {
    /// A program and its first arguments; the steps to take follow.
    words: Vec<OsString>,
}

#[derive(Debug)]
enum Stop {
    Failed(String),
    Overdue(String),
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(why) => Self::Failed(why),
            Stop::Overdue(why) => Self::Overdue(why),
        }
    }
}

impl Prober {
    /// This program once more, by the verb that is for this alone; by a name that
    /// leads to it even where its file was replaced.
    pub fn this_program() -> Self {
        Self::started_by(["/proc/self/exe", PROBE_VERB])
    }

    fn started_by<const N: usize>(words: [&str; N]) -> Self {
        Self {
            words: words.map(OsString::from).into(),
        }
    }

    /// Runs ring-0 code on `/dev/kvm`.
    pub fn run(&self, interrupt: &Interrupt) -> Outcome {
        let mut gathered = Gathered::default();
        let missed = |step: Step, gathered: &mut Gathered| {
            if let Step::Instruction(program) = step {
                gathered.instruction(program.name, Execution::TimedOut);
            }
        };
        match self.take(Step::all(), None, interrupt, &mut gathered, missed) {
            Ok(()) => gathered.outcome(),
            Err(stop) => stop.into(),
        }
    }

    /// Times how long a machine takes to make in the control group at `cgroup`; or
    /// says why it cannot be found out.
    pub fn vm_create_in(&self, cgroup: &Path, interrupt: &Interrupt) -> Result<Extremes, String> {
        let mut gathered = Gathered::default();
        let step = [Step::VmCreate].into_iter();
        let taken = self.take(step, Some(cgroup), interrupt, &mut gathered, |_, _| {});
        match (taken, gathered.vm_create_ns) {
            (Ok(()), Some(extremes)) => Ok(extremes),
            (Ok(()), None) => Err(hangs(Step::VmCreate)),
            (Err(Stop::Failed(why) | Stop::Overdue(why)), _) => Err(why),
        }
    }

    /// Takes steps, and gathers what they show. One that hangs is `missed`, and
    /// another process goes on with the next.
    fn take(
        &self,
        steps: impl Iterator<Item = Step>,
        cgroup: Option<&Path>,
        interrupt: &Interrupt,
        gathered: &mut Gathered,
        missed: impl Fn(Step, &mut Gathered),
    ) -> Result<(), Stop> {
        let mut left: VecDeque<Step> = steps.collect();
        while !left.is_empty() {
            let (mut opened, mut failed) = (false, None);
            let command = self.command(&left, cgroup);
            let ended = process::run_while_heard(command, STEP_LIMIT, interrupt, |stream, line| {
                // What it says on stderr is kept by who watches it.
                match serde_json::from_str(line) {
                    Ok(shown) if stream == Stream::Stdout => match shown {
                        Shown::Opened(api) => {
                            opened = true;
                            gathered.api = Some(api);
                        }
                        Shown::Failed(why) => failed = Some(why),
                        shown => {
                            if let Some(step) = left.pop_front() {
                                gathered.add(step, shown);
                            }
                        }
                    },
                    _ => {}
                }
            });
            let at = left.front().copied();
            match (ended, failed, at) {
                (_, Some(why), _) => return Err(Stop::Failed(why)),
                (Err(ProcessError::TooSlow { .. }), None, Some(step)) if opened => {
                    missed(step, gathered);
                    left.pop_front();
                }
                (Err(ProcessError::TooSlow { .. }), None, _) => {
                    return Err(Stop::Failed(hangs("opening /dev/kvm")));
                }
                (Err(ProcessError::Starved { wall, had, .. }), None, _) => {
                    return Err(Stop::Overdue(format!(
                        "the probe got a CPU for {had:.1?} in {wall:.1?}: this host is too busy to \
                         probe"
                    )));
                }
                (Err(ProcessError::Failed { status, .. }), None, _) => {
                    return Err(Stop::Failed(format!(
                        "the probe's process failed, {status}"
                    )));
                }
                (Err(error), None, _) => return Err(Stop::Failed(error.to_string())),
                (Ok(()), None, None) => {}
                (Ok(()), None, Some(step)) => {
                    return Err(Stop::Failed(format!(
                        "the probe's process ended before {step}"
                    )));
                }
            }
        }
        Ok(())
    }

    fn command(&self, steps: &VecDeque<Step>, cgroup: Option<&Path>) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words);
        if let Some(cgroup) = cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command.args(steps.iter().map(Step::to_string));
        command
    }
}

fn hangs(what: impl std::fmt::Display) -> String {
    format!("{what} does not end: KVM hangs; the kernel's log (dmesg) may say why")
}

/// What steps have shown so far.
#[derive(Debug, Default)]
struct Gathered {
    api: Option<i32>,
    host_ns: Option<f64>,
    ring0_ns: Option<f64>,
    exits_per_second: Option<f64>,
    instructions: Vec<Instruction>,
    vm_create_ns: Option<Extremes>,
}

impl Gathered {
    fn add(&mut self, step: Step, shown: Shown) {
        match (step, shown) {
            (_, Shown::HostLoop(ns)) => self.host_ns = Some(ns),
            (_, Shown::GuestLoop(ns)) => self.ring0_ns = ns,
            (_, Shown::Exits(rate)) => self.exits_per_second = rate,
            (_, Shown::VmCreate(times)) => self.vm_create_ns = Some(times),
            (Step::Instruction(program), Shown::Instruction(result)) => {
                self.instruction(program.name, result);
            }
            (_, Shown::Instruction(_) | Shown::Opened(_) | Shown::Failed(_)) => {}
        }
    }

    fn instruction(&mut self, name: &str, result: Execution) {
        let name = name.to_owned();
        self.instructions.push(Instruction { name, result });
    }

    fn outcome(self) -> Outcome {
        let (Some(api), Some(host_ns)) = (self.api, self.host_ns) else {
            return Outcome::Failed(hangs(Step::HostLoop));
        };
        Outcome::Ran(Probe {
            api,
            ring0_ns: self.ring0_ns,
            host_ns,
            exits_per_second: self.exits_per_second,
            instructions: self.instructions,
            vm_create_ns: self.vm_create_ns,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::env::current_exe;
    use std::iter;

    use super::*;
    use crate::host::kvm::code::assemble;
    use crate::host::kvm::{access, measure};

    /// A process that answers each step as `cases` of a shell say, or else as a
    /// sound KVM does.
    fn answering(cases: &str) -> Prober {
        let script = format!(
            "echo '{{\"opened\":12}}'
             for step; do case $step in
             {cases}
             host-loop) echo '{{\"host-loop\":0.25}}' ;;
             guest-loop) echo '{{\"guest-loop\":0.5}}' ;;
             exits) echo '{{\"exits\":500000.0}}' ;;
             vm-create) echo '{{\"vm-create\":{{\"least\":3,\"most\":9}}}}' ;;
             *) echo '{{\"instruction\":\"ran\"}}' ;;
             esac; done"
        );
        Prober::started_by(["sh", "-c", &script, "sh"])
    }

    /// What a prober tells that gets a CPU: others on this host may leave it none
    /// for a while, which tells nothing of the prober.
    fn told(prober: &Prober) -> Outcome {
        let interrupt = Interrupt::never().unwrap();
        let mut outcomes = iter::repeat_with(|| prober.run(&interrupt));
        let is_told = |outcome: &Outcome| !matches!(outcome, Outcome::Overdue(_));
        outcomes.find(is_told).unwrap()
    }

    fn outcome(cases: &str) -> Outcome {
        told(&answering(cases))
    }

    fn ran(cases: &str) -> Probe {
        match outcome(cases) {
            Outcome::Ran(probe) => probe,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_step_is_gathered() {
        let probe = ran("");
        assert_eq!((probe.api, probe.ring0_ns), (12, Some(0.5)));
        assert_eq!(probe.exits_per_second, Some(500_000.0));
        assert_eq!(probe.vm_create_ns, Some(Extremes { least: 3, most: 9 }));
        assert_eq!(probe.instructions.len(), 10);
        assert!(!probe.emulates() && probe.broken().next().is_none());
    }

    #[test]
    fn steps_that_hang_asleep_or_not_are_reported_and_all_others_too() {
        let probe = ran("'MOV CR3') sleep 100 ;; XRSTOR) while :; do :; done ;;");
        let broken: Vec<_> = probe
            .broken()
            .map(|instruction| (instruction.name.as_str(), &instruction.result))
            .collect();
        let timed_out = &Execution::TimedOut;
        assert_eq!(broken, [("MOV CR3", timed_out), ("XRSTOR", timed_out)]);
        assert_eq!(probe.instructions.len(), 10);
        assert_eq!(probe.exits_per_second, Some(500_000.0));

        let probe = ran("guest-loop) sleep 100 ;; exits) sleep 100 ;;");
        assert!(probe.emulates());
        assert_eq!(probe.exits_per_second, None);
        assert!(probe.broken().next().is_none());
    }

    #[test]
    fn what_fails_is_reported_as_it_was_said() {
        for (cases, expected) in [
            (
                "INT3) echo '{\"failed\":\"KVM_CREATE_VCPU: no memory\"}'; exit ;;",
                "KVM_CREATE_VCPU: no memory",
            ),
            ("CPUID) kill -9 $$ ;;", "SIGKILL"),
            ("CPUID) exit ;;", "ended before CPUID"),
        ] {
            let Outcome::Failed(why) = outcome(cases) else {
                panic!("{cases}");
            };
            assert!(why.contains(expected), "{why}");
        }
        let prober = Prober::started_by(["sh", "-c", "sleep 100"]);
        let outcome = told(&prober);
        let Outcome::Failed(why) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.starts_with("opening /dev/kvm does not end"), "{why}");
    }

    #[test]
    fn a_host_without_a_cpu_for_it_is_too_busy_to_tell() {
        let outcome = process::tests::starved(|words| {
            Prober::started_by(words).run(&Interrupt::never().unwrap())
        });
        let Outcome::Overdue(why) = outcome else {
            panic!("{outcome:?}");
        };
        assert!(why.contains("too busy to probe"), "{why}");
    }

    #[test]
    fn a_machine_is_made_in_the_control_group_that_was_named() {
        let prober = Prober::started_by([
            "sh",
            "-c",
            "test \"$1 $2 $3 $4\" = '--cgroup /a/group vm-create ' && echo '{\"opened\":12}' && \
             echo '{\"vm-create\":{\"least\":3,\"most\":9}}'",
            "sh",
        ]);
        let interrupt = Interrupt::never().unwrap();
        let made = prober.vm_create_in(Path::new("/a/group"), &interrupt);
        assert_eq!(made, Ok(Extremes { least: 3, most: 9 }));
    }

    /// This host's own KVM, in this process: it does not hang.
    #[test]
    fn this_host_is_reported_as_it_is() {
        let steps: Vec<Step> = Step::all().collect();
        let mut said = Vec::new();
        measure::take(&steps, None, &mut said).unwrap();
        let lines = String::from_utf8(said).unwrap();
        let mut lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let first: Shown = lines.next().unwrap();
        if access(Path::new("/")).is_err() {
            assert!(
                matches!(&first, Shown::Failed(why) if why.contains("/dev/kvm")),
                "{first:?}"
            );
            return;
        }
        assert_eq!(first, Shown::Opened(12));
        let mut gathered = Gathered {
            api: Some(12),
            ..Gathered::default()
        };
        for (step, shown) in steps.iter().zip(lines) {
            gathered.add(*step, shown);
        }
        let Outcome::Ran(probe) = gathered.outcome() else {
            panic!("the host's loop is not reported");
        };
        assert!(probe.host_ns > 0.0 && probe.host_ns < 20.0, "{probe:?}");
        assert!(probe.ring0_ns.is_none_or(|ns| ns > 0.0), "{probe:?}");
        assert_eq!(probe.instructions.len(), 10);
        let times = probe.vm_create_ns.unwrap();
        assert!(0 < times.least && times.least <= times.most, "{probe:?}");
        // No KVM gives an instruction another meaning; it runs it or stops.
        let wrong = |instruction: &&Instruction| instruction.result == Execution::Wrong;
        assert_eq!(probe.broken().find(wrong), None);
        if !probe.emulates() {
            assert_eq!(probe.broken().next(), None);
            assert!(probe.exits_per_second.is_some_and(|exits| exits > 1e3));
        }
    }

    /// What [`a_guest_that_never_exits_is_killed`] has another process do.
    #[test]
    #[ignore = "does not end"]
    fn runs_a_guest_that_never_exits() {
        println!("begins");
        measure::tests::run(|| assemble!("22:", "jmp 22b"));
    }

    #[test]
    fn a_guest_that_never_exits_is_killed() {
        if access(Path::new("/")).is_err() {
            eprintln!("SKIPPED: /dev/kvm does not open");
            return;
        }
        let name = "host::kvm::prober::tests::runs_a_guest_that_never_exits";
        let interrupt = Interrupt::never().unwrap();
        let mut begun = false;
        let error = process::tests::error_of(|| {
            let mut command = Command::new(current_exe().unwrap());
            command.args(["--exact", name, "--ignored", "--nocapture"]);
            process::run_while_heard(command, STEP_LIMIT, &interrupt, |_, line| {
                begun |= line.ends_with("begins");
            })
        });
        assert!(
            begun && matches!(error, ProcessError::TooSlow { .. }),
            "{error}"
        );
    }
}
