//! Takes the probe's steps one after another in a process of their own. KVM may
//! hang in any of them, and the parent then ends that process.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::code::{self, Feature, PORT, Program, RIGHT, WRONG};
use super::machine::{CallError, Exit, Hypervisor};
use super::probe::{EMULATED_NS, Execution, Extremes};
use super::step::{Shown, Step};

/// First turns of the counting loop: few enough for a CPU that emulates.
const FIRST_TURNS: u64 = 500;
/// Most turns: a real CPU runs them in a tenth of a millisecond.
const MOST_TURNS: u64 = 200_000;
/// What the loop should take at most.
const LOOP_TIME: Duration = Duration::from_millis(1);
/// Runs of a loop of which the best counts.
const LOOPS: usize = 3;
/// How much longer the loop is that decides.
const LONGER: u64 = 10;

/// Exits before they are counted: the first ones fill caches and tables, and take
/// many times as long.
const WARM_UP: u32 = 20;
/// Exits that are counted at least.
const EXITS: u32 = 50;
/// How long they are counted at least.
const EXITS_TIME: Duration = Duration::from_millis(2);

/// Machines that are made to see how long that takes.
const CREATIONS: usize = 3;

/// Takes `steps` in the control group at `cgroup`, or else in its own, and writes
/// a line as each of them ends.
pub(crate) fn take(steps: &[Step], cgroup: Option<&Path>, out: &mut impl Write) -> io::Result<()> {
    if let Some(cgroup) = cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    let mut say = |shown: &Shown| {
        writeln!(out, "{}", serde_json::to_string(shown)?)?;
        out.flush()
    };
    let failed = |error: CallError| Shown::Failed(error.to_string());
    let hypervisor = match Hypervisor::open() {
        Ok(hypervisor) => hypervisor,
        Err(error) => return say(&failed(error)),
    };
    say(&Shown::Opened(hypervisor.api()))?;
    for step in steps {
        let shown = try_out(*step, &hypervisor).unwrap_or_else(failed);
        say(&shown)?;
        if matches!(shown, Shown::Failed(_)) {
            break;
        }
    }
    Ok(())
}

fn try_out(step: Step, hypervisor: &Hypervisor) -> Result<Shown, CallError> {
    Ok(match step {
        Step::HostLoop => Shown::HostLoop(host_loop()),
        Step::GuestLoop => Shown::GuestLoop(guest_loop(hypervisor)?),
        Step::VmCreate => Shown::VmCreate(vm_create(hypervisor)?),
        Step::Exits => Shown::Exits(exits(hypervisor)?),
        Step::Instruction(program) => Shown::Instruction(execute(hypervisor, program)?),
    })
}

/// Nanoseconds an instruction of the counting loop in the guest.
fn guest_loop(hypervisor: &Hypervisor) -> Result<Option<f64>, CallError> {
    let mut machine = hypervisor.machine(code::counting_loop(), Feature::Baseline)?;
    best_loop(|turns| {
        machine.restart(turns)?;
        let start = cpu_time();
        let exit = machine.run();
        let time = cpu_time().saturating_sub(start);
        Ok((verdict(exit) == Execution::Ran).then_some(time))
    })
}

/// Nanoseconds an instruction of the loop that `run` runs so many turns of: the
/// best of several runs, since a host that is itself a guest is stopped now and
/// then, and is charged for it; and without the way in and out, which takes such
/// a host as long as thousands of instructions.
fn best_loop<E>(mut run: impl FnMut(u64) -> Result<Option<Duration>, E>) -> Result<Option<f64>, E> {
    let mut best_of = |turns, runs| -> Result<Option<Duration>, E> {
        let times = (0..runs)
            .map(|_| run(turns))
            .collect::<Result<Option<Vec<_>>, E>>()?;
        Ok(times.and_then(|times| times.into_iter().min()))
    };
    // The first run also fills the TLB and whatever tables map the guest's memory.
    let Some(way) = best_of(1, LOOPS)? else {
        return Ok(None);
    };
    let Some(first) = best_of(FIRST_TURNS, 1)? else {
        return Ok(None);
    };
    let turns = affordable_turns(first.saturating_sub(way));
    let mut figure = |turns, runs| -> Result<Option<f64>, E> {
        let time = best_of(turns, runs)?;
        Ok(time.map(|time| nanoseconds_an_instruction(time.saturating_sub(way), turns)))
    };
    let Some(figures) = figure(turns, LOOPS)? else {
        return Ok(None);
    };
    if figures <= EMULATED_NS {
        return Ok(Some(figures));
    }
    // In more turns, what stops it now and then is less of the whole.
    Ok(figure(turns * LONGER, 1)?.map(|longer| longer.min(figures)))
}

/// Nanoseconds an instruction of the counting loop here: the best of several
/// runs, as caches and clocks warm up.
fn host_loop() -> f64 {
    (0..LOOPS)
        .map(|_| {
            let start = cpu_time();
            code::count(MOST_TURNS);
            nanoseconds_an_instruction(cpu_time().saturating_sub(start), MOST_TURNS)
        })
        .fold(f64::INFINITY, f64::min)
}

/// Turns that fit into [`LOOP_TIME`], by what the first ones took.
fn affordable_turns(first: Duration) -> u64 {
    let fit = u128::from(FIRST_TURNS) * LOOP_TIME.as_nanos() / first.as_nanos().max(1);
    u64::try_from(fit)
        .unwrap_or(MOST_TURNS)
        .clamp(FIRST_TURNS, MOST_TURNS)
}

#[expect(clippy::cast_precision_loss, reason = "there are few turns")]
fn nanoseconds_an_instruction(time: Duration, turns: u64) -> f64 {
    time.as_secs_f64() * 1e9 / (turns * code::LOOP_INSTRUCTIONS) as f64
}

/// Exits a second of a loop of port writes.
fn exits(hypervisor: &Hypervisor) -> Result<Option<f64>, CallError> {
    let mut machine = hypervisor.machine(code::exit_loop(), Feature::Baseline)?;
    Ok(count_exits(cpu_time, || {
        matches!(machine.run(), Exit::Out { .. })
    }))
}

/// How often `exit` ends in a second by this clock, once it is warm; `None` if
/// that once fails.
fn count_exits(clock: impl Fn() -> Duration, mut exit: impl FnMut() -> bool) -> Option<f64> {
    for _ in 0..WARM_UP {
        exit().then_some(())?;
    }
    let start = clock();
    let mut exits = 0_u32;
    loop {
        exit().then_some(())?;
        exits += 1;
        let time = clock().saturating_sub(start);
        if exits >= EXITS && time >= EXITS_TIME {
            return Some(f64::from(exits) / time.as_secs_f64());
        }
    }
}

/// Nanoseconds that making a machine takes. What makes it slow sleeps: in the
/// kernel a new machine's threads join their maker's control groups.
fn vm_create(hypervisor: &Hypervisor) -> Result<Extremes, CallError> {
    let mut extremes = Extremes {
        least: u64::MAX,
        most: 0,
    };
    for _ in 0..CREATIONS {
        let start = Instant::now();
        let vm = hypervisor.create_vm()?;
        let time = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        drop(vm);
        extremes.least = extremes.least.min(time);
        extremes.most = extremes.most.max(time);
    }
    Ok(extremes)
}

/// Runs the program for one instruction on a machine of its own.
fn execute(hypervisor: &Hypervisor, program: &Program) -> Result<Execution, CallError> {
    if !hypervisor.has(program.feature) {
        return Ok(Execution::Unsupported);
    }
    let mut machine = hypervisor.machine((program.code)(), program.feature)?;
    Ok(verdict(machine.run()))
}

/// CPU time of this thread, guest code included.
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::from_secs(tv_sec.cast_unsigned()) + Duration::from_nanos(tv_nsec.cast_unsigned())
}

/// What an exit says of the program.
fn verdict(exit: Exit) -> Execution {
    match exit {
        Exit::Out {
            port: PORT,
            value: RIGHT,
        } => Execution::Ran,
        Exit::Out {
            port: PORT,
            value: WRONG,
        } => Execution::Wrong,
        Exit::Out { port, value } => Execution::OtherExit {
            exit: format!("a write of {value:#x} to port {port:#x}"),
        },
        Exit::InternalError { suberror } => Execution::InternalError { suberror },
        Exit::Shutdown => Execution::TripleFault,
        Exit::Other(exit) => Execution::OtherExit { exit },
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::host::kvm::access;
    use crate::host::kvm::code::assemble;

    /// How this host's KVM runs a program; `None` where it has no KVM.
    pub(crate) fn run(code: fn() -> &'static [u8]) -> Option<Exit> {
        let ran = Hypervisor::open().and_then(|hypervisor| {
            let mut machine = hypervisor.machine(code(), Feature::Baseline)?;
            Ok(machine.run())
        });
        match (ran, access(Path::new("/"))) {
            (Ok(exit), Ok(())) => Some(exit),
            (Err(CallError { call, .. }), Err(_)) => {
                assert_eq!(call, "open of /dev/kvm");
                None
            }
            odd => panic!("{odd:?}"),
        }
    }

    #[test]
    fn program_says_right_or_wrong() {
        let programs: [fn() -> &'static [u8]; 2] = [
            || assemble!("mov al, {right}", "out {port}, al", { right = RIGHT, port = PORT }),
            || assemble!("mov al, {wrong}", "out {port}, al", { wrong = WRONG, port = PORT }),
        ];
        for (program, expected) in programs.into_iter().zip([Execution::Ran, Execution::Wrong]) {
            let execution = run(program).map(verdict);
            assert!(execution.is_none() || execution == Some(expected));
        }
    }

    #[test]
    fn fault_without_a_handler_is_not_taken_for_right() {
        let execution = run(|| assemble!("mov ebx, [0x1ff000]")).map(verdict);
        assert!(
            matches!(execution, Some(Execution::TripleFault) | None),
            "{execution:?}"
        );
    }

    #[test]
    fn every_exit_says_something_else() {
        let out = |port, value| Exit::Out { port, value };
        assert_eq!(verdict(out(PORT, RIGHT)), Execution::Ran);
        assert_eq!(verdict(out(PORT, WRONG)), Execution::Wrong);
        for odd in [
            out(PORT, 0),
            out(PORT + 1, RIGHT),
            Exit::Other("KVM_EXIT_HLT".into()),
        ] {
            assert!(matches!(verdict(odd), Execution::OtherExit { .. }));
        }
        let suberror = 1;
        assert_eq!(
            verdict(Exit::InternalError { suberror }),
            Execution::InternalError { suberror }
        );
        assert_eq!(verdict(Exit::Shutdown), Execution::TripleFault);
    }

    #[test]
    fn loop_is_as_long_as_time_allows() {
        let turns = |nanoseconds| affordable_turns(Duration::from_nanos(nanoseconds));
        assert_eq!(turns(0), MOST_TURNS);
        assert_eq!(turns(6_000), 83_333);
        assert_eq!(turns(400_000), 1_250);
        assert_eq!(turns(300_000_000), FIRST_TURNS);
    }

    /// Nanoseconds an instruction of runs that take `ns` an instruction, and so
    /// many microseconds more each (the last figure holds for all others too);
    /// and their CPU time.
    fn looped(ns: f64, more: &[u64]) -> (f64, Duration) {
        let (mut runs, mut all) = (0, Duration::ZERO);
        let figure = best_loop(|turns| {
            let more = Duration::from_micros(more[runs.min(more.len() - 1)]);
            let instructions = f64::from(u32::try_from(turns * code::LOOP_INSTRUCTIONS).unwrap());
            let time = Duration::from_secs_f64(instructions * ns / 1e9) + more;
            runs += 1;
            all += time;
            Ok::<_, CallError>(Some(time))
        });
        (figure.unwrap().unwrap(), all)
    }

    #[test]
    fn stolen_time_does_not_look_like_emulation() {
        for more in [
            // A long first run, and each of the others is stopped.
            &[5_000, 100][..],
            &[200_000, 100],
            &[20_000, 40],
            // All but one are stopped.
            &[3_000, 2, 2, 10_000, 10_000, 10_000, 2, 10_000],
            &[60_000, 2, 2, 60_000, 60_000, 60_000, 60_000, 100],
        ] {
            let (figure, _) = looped(0.3, more);
            assert!(figure <= EMULATED_NS, "{more:?}: {figure:?}");
        }
    }

    #[test]
    fn the_way_in_and_out_is_not_the_loop_s() {
        for way in [2, 260, 2_000] {
            let (figure, _) = looped(3.0, &[50_000, way]);
            assert!((2.9..3.1).contains(&figure), "{way} µs: {figure}");
        }
    }

    #[test]
    fn emulation_is_detected_within_a_hundredth_of_a_second() {
        for more in [&[2][..], &[2_000, 2], &[2, 2, 2, 5_000, 2]] {
            let (figure, all) = looped(700.0, more);
            assert!(figure > 690.0, "{more:?}: {figure:?}");
            assert!(all < Duration::from_millis(16), "{more:?}: {all:?}");
        }
    }

    #[test]
    fn loop_that_ends_otherwise_has_no_figure() {
        for good in 0..8 {
            let mut runs = 0;
            let figure = best_loop(|turns| {
                runs += 1;
                let time = Duration::from_micros(turns);
                Ok::<_, CallError>((runs <= good).then_some(time))
            });
            assert_eq!(figure.unwrap(), None, "{good}");
        }
    }

    /// Exits a second where the first ones take 4 ms and all others 200 µs, as
    /// on a CPU that is emulated.
    #[test]
    fn exits_are_counted_once_they_are_warm() {
        let (now, exits) = (Cell::new(Duration::ZERO), Cell::new(0));
        let exit = || {
            exits.set(exits.get() + 1);
            let time = if exits.get() <= 5 { 4_000 } else { 200 };
            now.set(now.get() + Duration::from_micros(time));
            true
        };
        let rate = count_exits(|| now.get(), exit).unwrap();
        assert!((4_999.0..5_001.0).contains(&rate), "{rate}");
        assert!(now.get() < Duration::from_millis(50));
        // Where they are fast there are enough of them, too.
        let (now, exits) = (Cell::new(Duration::ZERO), Cell::new(0));
        let exit = || {
            exits.set(exits.get() + 1);
            now.set(now.get() + Duration::from_micros(1));
            true
        };
        assert!(count_exits(|| now.get(), exit).is_some());
        assert!(exits.get() > 2_000, "{exits:?}");
        assert_eq!(count_exits(|| Duration::ZERO, || false), None);
    }
}
