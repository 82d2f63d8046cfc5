use super::super::example::shard;
use super::super::sound;
use super::*;
use crate::digest::Sha256;

/// Shards of one fleet, each on a host of its own.
fn shards() -> Vec<Run> {
    let host = |first: u32| {
        let mut run = shard(first);
        let boot = format!("boot of {first}");
        run.conditions.host.insert(host::BOOT.name.to_owned(), boot);
        run
    };
    vec![host(300), host(0)]
}

#[test]
fn shards_count_as_one_fleet_whose_figures_come_from_all_samples() {
    let shards = shards();
    let (one, other) = (shards[1].headline.clone(), shards[0].headline.clone());
    let merged = merge(shards).unwrap();
    let figures = &merged.run.headline;
    assert_eq!(figures.guests, 600);
    assert_eq!(figures.asked, 600);
    assert_eq!(figures.answered, 600);
    assert_eq!((figures.tried, figures.reached), (600, 598));
    assert_eq!(figures.bytes_a_guest, one.bytes_a_guest);
    assert_eq!(figures.baseline_ratio, one.baseline_ratio);
    assert_eq!(Some(figures.growing), Some(one.growing));
    let slowest = one.least_cpu.unwrap().min(other.least_cpu.unwrap());
    assert_eq!(figures.least_cpu, Some(slowest));
    assert!((figures.peak.unwrap() - one.peak.unwrap()).abs() < 1e-9);

    let run = &merged.run;
    let of_all = |fault: &String| !fault.contains("is not a guest of this stage");
    let faults: Vec<_> = sound::faults(run).into_iter().filter(of_all).collect();
    assert_eq!(faults, <[&str; 0]>::default());
    assert_eq!(run.plan.first.get(), 0);
    assert_eq!(run.plan.stages, [2, 20, 200, 600]);
    assert_eq!((run.conditions.cpus, run.conditions.memory), (4, 48 << 30));
    let last = run.stages.last().unwrap();
    assert_eq!(
        (last.guests, last.starts.len(), last.burns.len()),
        (600, 400, 600)
    );
    assert_eq!(
        (last.over_commit.cpu, last.cpu.values().sum::<f64>()),
        (150.0, 4.0)
    );
    assert_eq!(last.pressure.get("cpu.some"), Some(&95.0));
    assert_eq!(last.run_queue.len(), 3);
    assert_eq!(run.series.last().unwrap().ready, 600);
    assert_eq!(run.storm.as_ref().unwrap().killed.len(), 180);
    assert_eq!(merged.differing, <[&str; 0]>::default());
}

#[test]
fn a_shard_that_began_later_is_later_and_one_with_fewer_stages_stays_at_its_last() {
    let mut shards = shards();
    shards[0].began += 100;
    shards[0].stages.truncate(2);
    shards[0]
        .conditions
        .host
        .insert("thp".to_owned(), "always".to_owned());
    shards[0].hold = None;
    shards[0].outcome = Outcome::Full("no memory".to_owned());
    let merged = merge(shards).unwrap();
    let run = &merged.run;
    let guests: Vec<_> = run.stages.iter().map(|stage| stage.guests).collect();
    assert_eq!(guests, [2, 20, 110, 310]);
    // The second of them had begun when its own run was 25 s old.
    assert_eq!((run.stages[1].began, run.stages[1].grown), (25.0, 126.35));
    assert_eq!(run.stages[2].starts.len(), 90);
    assert_eq!(run.hold, None);
    assert_eq!(
        merged.differing,
        ["thp: madvise (guests g00000 to g00299), always (guests g00300 to g00309)"]
    );
    let why = "guests g00300 to g00309: no memory".to_owned();
    assert_eq!(run.outcome, Outcome::Full(why));
    let moment = run.series.iter().find(|moment| moment.at >= 100.0).unwrap();
    assert_eq!(moment.ready, 101);
}

#[test]
fn bundles_that_are_not_of_one_fleet_are_refused_with_what_differs() {
    type Change = fn(&mut Run);
    let changes: [(Change, &str); 8] = [
        (
            |run| run.fleet = "other".to_owned(),
            "the fleet is tty-burn in one and other in another",
        ),
        (
            |run| {
                run.conditions
                    .artifacts
                    .insert("vmlinux".to_owned(), Sha256::of_bytes(""));
            },
            "an artifact is vmlinux ",
        ),
        (
            |run| {
                run.conditions.artifacts.remove("base.qcow2");
            },
            "base.qcow2 missing",
        ),
        (
            |run| {
                run.conditions
                    .guest
                    .insert("sharing".to_owned(), "none".to_owned());
            },
            "sharing is all in one and none in another",
        ),
        (
            |run| run.conditions.guest_memory += 1,
            "the RAM of a guest is 67108864",
        ),
        (
            |run| *run = shard(150),
            "one has guests g00000 to g00299 and another has g00150 to g00449",
        ),
        (
            |run| *run = shard(300),
            "guests g00000 to g00299 and guests g00300 to g00599 ran on one host",
        ),
        (
            |run| run.began += 10_000,
            "the run of guests g00000 to g00299 was over before",
        ),
    ];
    for (change, said) in changes {
        let mut runs = shards();
        runs.reverse();
        if said.contains("one host") {
            runs[0] = shard(0);
        }
        change(&mut runs[1]);
        let error = merge(runs).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn figures_that_somebody_made_up_stay_at_the_largest() {
    let mut runs = shards();
    for run in &mut runs {
        run.began = 5;
        run.conditions.memory = u64::MAX;
        run.conditions.cpus = u32::MAX;
        run.stages[3].guests = 100;
        run.stages[3].memory.bytes = u64::MAX;
        run.stages[3].predicted = Some(u64::MAX);
        run.events[0].at_ms = u64::MAX;
        run.hold.as_mut().unwrap().restarts = u64::MAX;
    }
    let run = merge(runs).unwrap().run;
    assert_eq!(run.conditions.memory, u64::MAX);
    assert_eq!(run.stages[3].memory.bytes, u64::MAX);
}
