//! What was measured of shards, as of one fleet.

use std::collections::BTreeMap;

use super::super::figures::bytes;
use super::super::types::{
    Baseline, Conditions, GuestReply, Hold, MemoryFigures, OverCommit, Run, RunQueue, Stage, Storm,
};
use super::sum;
use crate::control::types::{KsmState, MemoryParts};

/// Has a run's times begin when the fleet's first shard did.
pub(super) fn shift(run: &mut Run, began: u64) {
    let late = run.began.saturating_sub(began);
    let by = bytes(late);
    run.began = began;
    run.lasted += by;
    for stage in &mut run.stages {
        for time in [
            &mut stage.began,
            &mut stage.grown,
            &mut stage.settled,
            &mut stage.ended,
        ] {
            *time += by;
        }
        for start in &mut stage.starts {
            start.process += by;
        }
    }
    if let Some(hold) = &mut run.hold {
        hold.began += by;
        hold.ended += by;
    }
    if let Some(storm) = &mut run.storm {
        storm.began += by;
        storm.ended += by;
    }
    for moment in &mut run.series {
        moment.at += by;
    }
    for event in &mut run.events {
        event.at_ms = event.at_ms.saturating_add(late.saturating_mul(1_000));
    }
}

/// A shard's part of a stage.
struct Part<'a> {
    stage: &'a Stage,
    conditions: &'a Conditions,
    /// Whether the shard grew to it, or had no more to grow.
    grew: bool,
}

pub(super) fn stages(shards: &[Run]) -> Vec<Stage> {
    let longest = sum::most(shards.iter().map(|run| run.stages.len()));
    let parts = |place: usize| {
        shards.iter().filter_map(move |run| {
            let own = run.stages.get(place);
            Some(Part {
                stage: own.or(run.stages.last())?,
                conditions: &run.conditions,
                grew: own.is_some(),
            })
        })
    };
    (0..longest)
        .map(|place| stage(&parts(place).collect::<Vec<_>>()))
        .collect()
}

fn stage(parts: &[Part]) -> Stage {
    let all = || parts.iter().map(|part| part.stage);
    // One that had no more to grow says nothing about when it grew.
    let grew = || parts.iter().filter(|part| part.grew).map(|part| part.stage);
    Stage {
        guests: sum::count(all().map(|stage| stage.guests)),
        ready: sum::count(all().map(|stage| stage.ready)),
        began: sum::least(grew().map(|stage| stage.began)),
        grown: sum::most(grew().map(|stage| stage.grown)),
        settled: sum::most(grew().map(|stage| stage.settled)),
        ended: sum::most(grew().map(|stage| stage.ended)),
        ksm_state: ksm_state(all().map(|stage| stage.ksm_state)),
        memory: memory(all().map(|stage| &stage.memory)),
        ksm: totals(all().map(|stage| &stage.ksm), u64::saturating_add),
        starts: grew().flat_map(|stage| &stage.starts).copied().collect(),
        answers: all().flat_map(|stage| &stage.answers).cloned().collect(),
        deadline: all().filter_map(|stage| stage.deadline).reduce(f64::max),
        logins: all().flat_map(|stage| &stage.logins).cloned().collect(),
        burns: all().flat_map(|stage| &stage.burns).copied().collect(),
        cpu: totals(all().map(|stage| &stage.cpu), |a: f64, b: f64| a + b),
        wakeups: sum::all_shares(all().map(|stage| stage.wakeups)),
        // A host under pressure is not relieved by another that is not.
        pressure: totals(all().map(|stage| &stage.pressure), f64::max),
        over_commit: over_commit(parts),
        predicted: predicted(parts),
        run_queue: run_queue(parts),
    }
}

/// A value of each name, from those of all that have it.
fn totals<'a, K: Ord + Clone + 'a, V: Copy + 'a>(
    maps: impl Iterator<Item = &'a BTreeMap<K, V>>,
    with: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let mut totals: BTreeMap<K, V> = BTreeMap::new();
    for (name, value) in maps.flatten() {
        let total = totals
            .get(name)
            .map_or(*value, |total| with(*total, *value));
        totals.insert(name.clone(), total);
    }
    totals
}

/// Settled where all are.
fn ksm_state(states: impl Iterator<Item = Option<KsmState>>) -> Option<KsmState> {
    let states: Vec<_> = states.collect::<Option<_>>()?;
    if states.contains(&KsmState::Merging) {
        return Some(KsmState::Merging);
    }
    let first = *states.first()?;
    states.iter().all(|state| *state == first).then_some(first)
}

fn memory<'a>(figures: impl Iterator<Item = &'a MemoryFigures>) -> MemoryFigures {
    let figures: Vec<_> = figures.collect();
    let all = || figures.iter();
    MemoryFigures {
        bytes: sum::of(all().map(|memory| memory.bytes)),
        count: sum::count(all().map(|memory| memory.count)),
        parts: MemoryParts {
            cannot_merge: sum::of(all().map(|memory| memory.parts.cannot_merge)),
            shared_by_all: sum::of(all().map(|memory| memory.parts.shared_by_all)),
            kernel: sum::of(all().map(|memory| memory.parts.kernel)),
            ksm: sum::of(all().map(|memory| memory.parts.ksm)),
        },
        available: sum::all(all().map(|memory| memory.available)),
        charged: sum::all(all().map(|memory| memory.charged)),
    }
}

fn over_commit(parts: &[Part]) -> OverCommit {
    let each = || parts.iter().map(|part| (part, &part.stage.over_commit));
    let disks = |part: &Part| f64::from(part.stage.guests) * bytes(part.conditions.guest_disk);
    // What they take is what they are, divided by this ratio.
    let taken = each().map(|(part, over)| {
        let disk = over.disk.filter(|ratio| *ratio > 0.0)?;
        Some(disks(part) / disk)
    });
    let taken = sum::all_shares(taken).filter(|taken| *taken > 0.0);
    let all_disks: f64 = each().map(|(part, _)| disks(part)).sum();
    OverCommit {
        cpu: sum::ratio(each().map(|(part, over)| (over.cpu, part.conditions.cpus.into()))),
        memory: sum::ratio(each().map(|(part, over)| (over.memory, bytes(part.conditions.memory)))),
        disk: taken.map(|taken| all_disks / taken),
    }
}

/// What a guest was to cost on average.
fn predicted(parts: &[Part]) -> Option<u64> {
    let whole = |part: &Part| {
        Some(
            part.stage
                .predicted?
                .saturating_mul(part.stage.guests.into()),
        )
    };
    let guests = sum::of(parts.iter().map(|part| part.stage.guests.into()));
    sum::all(parts.iter().map(whole))?.checked_div(guests)
}

fn run_queue(parts: &[Part]) -> Vec<RunQueue> {
    let mut queues: Vec<RunQueue> = Vec::new();
    for queue in parts.iter().flat_map(|part| &part.stage.run_queue) {
        let is_same = |other: &&mut RunQueue| {
            (&other.source, &other.class, &other.cause)
                == (&queue.source, &queue.class, &queue.cause)
        };
        let Some(known) = queues.iter_mut().find(is_same) else {
            queues.push(queue.clone());
            continue;
        };
        let length = known.buckets.len().max(queue.buckets.len());
        known.buckets.resize(length, 0);
        for (known, count) in known.buckets.iter_mut().zip(&queue.buckets) {
            *known = known.saturating_add(*count);
        }
    }
    queues
}

/// The baselines of all hosts; `None` where one has none.
pub(super) fn baseline(shards: &[Run]) -> Option<Baseline> {
    let baselines: Vec<_> = shards
        .iter()
        .map(|run| run.baseline.as_ref())
        .collect::<Option<_>>()?;
    let all = || baselines.iter();
    let first = baselines.first()?;
    Some(Baseline {
        guests: sum::count(all().map(|baseline| baseline.guests)),
        ready: sum::count(all().map(|baseline| baseline.ready)),
        growing: sum::most(all().map(|baseline| baseline.growing)),
        made_of: first.made_of.clone(),
        argv: first.argv.clone(),
        memory: memory(all().map(|baseline| &baseline.memory)),
        ksm_state: ksm_state(all().map(|baseline| baseline.ksm_state)),
        peak: sum::of(all().map(|baseline| baseline.peak)),
        logins: replies(all().map(|baseline| &baseline.logins)),
    })
}

/// The time that all were kept; `None` where one was not.
pub(super) fn hold(shards: &[Run]) -> Option<Hold> {
    let holds: Vec<_> = shards
        .iter()
        .map(|run| run.hold.as_ref())
        .collect::<Option<_>>()?;
    let all = || holds.iter();
    let [first, last] = [0, 1].map(|end: usize| memory(all().map(|hold| &hold.memory[end])));
    Some(Hold {
        began: sum::least(all().map(|hold| hold.began)),
        ended: sum::most(all().map(|hold| hold.ended)),
        memory: [first, last],
        answers: replies(all().map(|hold| &hold.answers)),
        replaced: sum::count(all().map(|hold| hold.replaced)),
        restarts: sum::of(all().map(|hold| hold.restarts)),
    })
}

/// The kill on all hosts; `None` where there was none on one.
pub(super) fn storm(shards: &[Run]) -> Option<Storm> {
    let storms: Vec<_> = shards
        .iter()
        .map(|run| run.storm.as_ref())
        .collect::<Option<_>>()?;
    let all = || storms.iter();
    let resumed: Option<Vec<_>> = all().map(|storm| storm.resumed).collect();
    Some(Storm {
        began: sum::least(all().map(|storm| storm.began)),
        ended: sum::most(all().map(|storm| storm.ended)),
        guests: sum::count(all().map(|storm| storm.guests)),
        killed: all().flat_map(|storm| &storm.killed).copied().collect(),
        resumed: resumed.map(sum::most),
        back: replies(all().map(|storm| &storm.back)),
        lost: all().flat_map(|storm| &storm.lost).copied().collect(),
    })
}

fn replies<'a>(replies: impl Iterator<Item = &'a Vec<GuestReply>>) -> Vec<GuestReply> {
    replies.flatten().cloned().collect()
}
