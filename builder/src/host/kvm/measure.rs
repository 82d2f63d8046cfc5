//! The probe's programs, run one after another.

use std::time::{Duration, Instant};

use super::code::{self, Feature, PORT, PROGRAMS, Program, RIGHT, WRONG};
use super::deadline::{Watch, cpu_time};
use super::machine::{CallError, Exit, Hypervisor};
use super::probe::{Execution, Extremes, Instruction, Probe, is_emulated};

/// All of it, in real time. The limits below are of CPU time, and less than
/// this together: only a virtual CPU that cannot be interrupted, or a very busy
/// host, takes longer.
pub(super) const BOUND: Duration = Duration::from_millis(1500);
/// The first turns of the loop, on a CPU that emulates each instruction.
const FIRST_LOOP_LIMIT: Duration = Duration::from_millis(300);
/// The loop whose length is chosen by the first.
const LOOP_LIMIT: Duration = Duration::from_millis(50);
/// The longer loop that decides whether a slow one is emulated.
const LONG_LOOP_LIMIT: Duration = Duration::from_millis(150);
/// How long exits are counted.
const EXITS_TIME: Duration = Duration::from_millis(5);
/// A program for one instruction.
const PROGRAM_LIMIT: Duration = Duration::from_millis(80);

/// First turns of the counting loop: few enough for a CPU that emulates.
const FIRST_TURNS: u64 = 1_000;
/// Most turns: on a real CPU, the way in and out is less than a hundredth.
const MOST_TURNS: u64 = 1_000_000;
/// What the loop should take at most.
const LOOP_TIME: Duration = Duration::from_millis(5);
/// Runs of the loop of which the best counts.
const LOOPS: usize = 3;
/// How much longer the loop is that decides.
const LONGER: u64 = 10;

/// Machines that are made to see how long that takes.
const CREATIONS: usize = 3;

/// Runs everything.
pub(super) fn probe(watch: &Watch) -> Result<Probe, CallError> {
    let hypervisor = Hypervisor::open()?;
    let host_ns = host();
    let ring0_ns = ring0(&hypervisor, watch, host_ns)?;
    let instructions = PROGRAMS
        .iter()
        .map(|program| {
            Ok(Instruction {
                name: program.name.into(),
                result: execute(&hypervisor, watch, program)?,
            })
        })
        .collect::<Result<_, CallError>>()?;
    Ok(Probe {
        api: hypervisor.api(),
        ring0_ns,
        host_ns,
        exits_per_second: exits(&hypervisor, watch)?,
        instructions,
        vm_create_ns: vm_create(&hypervisor)?,
    })
}

/// Nanoseconds that making a machine takes. What makes it slow sleeps: in the
/// kernel a new machine's threads join their maker's control groups.
fn vm_create(hypervisor: &Hypervisor) -> Result<Option<Extremes>, CallError> {
    let times = (0..CREATIONS)
        .map(|_| {
            let start = Instant::now();
            let _vm = hypervisor.create_vm()?;
            Ok(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
        })
        .collect::<Result<Vec<_>, CallError>>()?;
    let extremes = times.iter().min().zip(times.iter().max());
    Ok(extremes.map(|(&least, &most)| Extremes { least, most }))
}

/// Nanoseconds an instruction of the counting loop in the guest.
fn ring0(hypervisor: &Hypervisor, watch: &Watch, host_ns: f64) -> Result<Option<f64>, CallError> {
    let mut machine = hypervisor.machine(code::counting_loop(), Feature::Baseline)?;
    best_loop(host_ns, |turns, limit| {
        machine.restart(turns)?;
        let start = cpu_time();
        let exit = machine.run_for(watch, "the counting loop", limit);
        let time = cpu_time().saturating_sub(start);
        Ok((verdict(exit) == Execution::Ran).then_some(time))
    })
}

/// Nanoseconds an instruction of the loop that `run` runs so many turns of, for
/// at most so long: the best of several runs, since a host that is itself a
/// guest is stopped now and then, and is charged for it.
fn best_loop<E>(
    host_ns: f64,
    mut run: impl FnMut(u64, Duration) -> Result<Option<Duration>, E>,
) -> Result<Option<f64>, E> {
    let Some(first) = run(FIRST_TURNS, FIRST_LOOP_LIMIT)? else {
        return Ok(None);
    };
    // The first run also filled the TLB and whatever tables map the guest's
    // memory: it may have been long, and leave few turns.
    let turns = affordable_turns(first);
    let mut figures = Vec::new();
    for _ in 0..LOOPS {
        let time = run(turns, LOOP_LIMIT)?;
        figures.extend(time.map(|time| nanoseconds_an_instruction(time, turns)));
    }
    let best = |figures: &[f64]| figures.iter().copied().reduce(f64::min);
    // In more turns, what way in and out cost is less of the whole.
    if is_emulated(best(&figures), host_ns) {
        let turns = turns * LONGER;
        let time = run(turns, LONG_LOOP_LIMIT)?;
        figures.extend(time.map(|time| nanoseconds_an_instruction(time, turns)));
    }
    Ok(best(&figures))
}

/// Nanoseconds an instruction of the counting loop here: the best of several
/// runs, as caches and clocks warm up.
fn host() -> f64 {
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
#[expect(clippy::cast_precision_loss, reason = "there are few exits")]
fn exits(hypervisor: &Hypervisor, watch: &Watch) -> Result<Option<f64>, CallError> {
    let mut machine = hypervisor.machine(code::exit_loop(), Feature::Baseline)?;
    let start = cpu_time();
    let writes = machine.count_writes(watch, "the loop of port writes", EXITS_TIME);
    let time = cpu_time().saturating_sub(start);
    Ok(match writes {
        Ok(0) | Err(_) => None,
        Ok(writes) => Some(writes as f64 / time.as_secs_f64()),
    })
}

/// Runs the program for one instruction on a machine of its own.
fn execute(
    hypervisor: &Hypervisor,
    watch: &Watch,
    program: &Program,
) -> Result<Execution, CallError> {
    if !hypervisor.has(program.feature) {
        return Ok(Execution::Unsupported);
    }
    let mut machine = hypervisor.machine((program.code)(), program.feature)?;
    Ok(verdict(machine.run_for(watch, program.name, PROGRAM_LIMIT)))
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
        Exit::TimedOut => Execution::TimedOut,
        Exit::Other(exit) => Execution::OtherExit { exit },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::kvm::access;
    use crate::host::kvm::code::assemble;
    use crate::host::kvm::deadline::watched;

    /// How this host's KVM runs a program; `None` where it has no KVM.
    fn run(code: fn() -> &'static [u8]) -> Option<Exit> {
        let result = watched(Duration::from_secs(60), move |watch| {
            let hypervisor = Hypervisor::open()?;
            let mut machine = hypervisor.machine(code(), Feature::Baseline)?;
            let limit = Duration::from_millis(50);
            Ok::<_, CallError>(machine.run_for(watch, "a test", limit))
        })
        .unwrap();
        match (result, access(Path::new("/"))) {
            (Ok(exit), Ok(())) => Some(exit),
            (Err(CallError { call, .. }), Err(_)) => {
                assert_eq!(call, "open of /dev/kvm");
                None
            }
            odd => panic!("{odd:?}"),
        }
    }

    #[test]
    fn endless_program_is_ended() {
        let exit = run(|| assemble!("22:", "jmp 22b"));
        assert!(matches!(exit, Some(Exit::TimedOut) | None), "{exit:?}");
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
        assert_eq!(verdict(Exit::TimedOut), Execution::TimedOut);
    }

    #[test]
    fn loop_is_as_long_as_time_allows() {
        let turns = |nanoseconds| affordable_turns(Duration::from_nanos(nanoseconds));
        assert_eq!(turns(0), MOST_TURNS);
        assert_eq!(turns(30_000), 166_666);
        assert_eq!(turns(2_000_000), 2_500);
        assert_eq!(turns(300_000_000), FIRST_TURNS);
    }

    /// Nanoseconds an instruction of runs that take `ns` an instruction, and so
    /// many microseconds more each (the last figure holds for all others too);
    /// and their CPU time.
    fn looped(ns: f64, more: &[u64]) -> (Option<f64>, Duration) {
        let (mut runs, mut all) = (0, Duration::ZERO);
        let figure = best_loop(0.3, |turns, limit| {
            let more = Duration::from_micros(more[runs.min(more.len() - 1)]);
            let instructions = f64::from(u32::try_from(turns * code::LOOP_INSTRUCTIONS).unwrap());
            let time = Duration::from_secs_f64(instructions * ns / 1e9) + more;
            runs += 1;
            all += time.min(limit);
            Ok::<_, CallError>((time <= limit).then_some(time))
        });
        (figure.unwrap(), all)
    }

    #[test]
    fn stolen_time_does_not_look_like_emulation() {
        for more in [
            // A long first run leaves few turns, each of which is stopped.
            &[5_000, 100][..],
            &[200_000, 100],
            &[20_000, 40],
            // All but one are stopped.
            &[3_000, 10_000, 10_000, 2, 10_000],
            &[3_000, 60_000, 60_000, 60_000, 200],
        ] {
            let (figure, _) = looped(0.3, more);
            assert!(figure.is_some(), "{more:?}");
            assert!(!is_emulated(figure, 0.3), "{more:?}: {figure:?}");
        }
    }

    #[test]
    fn emulation_is_told_within_a_tenth_of_a_second() {
        for more in [&[2][..], &[2_000, 2], &[50_000, 2]] {
            let (figure, all) = looped(360.0, more);
            assert!(figure.is_some_and(|ns| ns > 359.0), "{figure:?}");
            assert!(is_emulated(figure, 0.3), "{more:?}");
            assert!(all < Duration::from_millis(100), "{more:?}: {all:?}");
        }
    }

    #[test]
    fn loop_that_never_ends_has_no_figure() {
        assert_eq!(looped(0.3, &[400_000]).0, None);
        assert_eq!(looped(0.3, &[2, 400_000]).0, None);
    }

    #[test]
    fn limits_together_fit_into_the_bound() {
        let programs = u32::try_from(PROGRAMS.len()).unwrap();
        let loops = LOOP_LIMIT * u32::try_from(LOOPS).unwrap() + LONG_LOOP_LIMIT;
        let all = FIRST_LOOP_LIMIT + loops + EXITS_TIME + PROGRAM_LIMIT * programs;
        assert!(all < BOUND, "{all:?}");
    }
}
