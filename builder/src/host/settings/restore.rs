//! Restores the settings that nobody holds any more.

use std::path::Path;
use std::time::Duration;

use super::record::Change;
use super::store::Store;
use super::{
    Held, Keeper, Knob, Left, Reason, Report, Restored, SettingsError, StillMerged, file, guests,
    ksm,
};

const STOPPED: i64 = 0;
const RUNNING: i64 = 1;
/// ksmd does nothing, and nothing is merged.
const UNMERGED: i64 = 2;

/// Puts back every setting of the record that has no holder, in the reverse
/// order of writing, and records what is left to do. While any guest lives
/// nothing is written, since it may rest on any of them.
pub(crate) fn put_back(
    root: &Path,
    patience: Duration,
    store: &mut Store,
) -> Result<Report, SettingsError> {
    let mut report = Report {
        held: held(store),
        ..Report::default()
    };
    let free_knobs = free(store, |_| true);
    let guests = if free_knobs.is_empty() {
        0
    } else {
        guests::living(root)?
    };
    if guests > 0 {
        for knob in free_knobs {
            keep(root, store, knob, guests, &mut report);
        }
    } else {
        for knob in free(store, |knob| !knob.is_ksm()) {
            put_knob_back(root, store, knob, &mut report);
        }
        put_ksm_back(root, patience, store, &mut report)?;
    }
    store.save()?;
    Ok(report)
}

fn held(store: &Store) -> Vec<Held> {
    let held = store.record.changes.iter();
    held.filter(|change| !change.holders.is_empty())
        .map(|change| Held {
            knob: change.knob,
            wrote: change.wrote(),
            by: change.holders.iter().cloned().map(Keeper::Holder).collect(),
        })
        .collect()
}

/// Knobs that have no holder, the last written first.
fn free(store: &Store, which: impl Fn(Knob) -> bool) -> Vec<Knob> {
    let changes = store.record.changes.iter().rev();
    changes
        .filter(|change| change.holders.is_empty() && which(change.knob))
        .map(|change| change.knob)
        .collect()
}

/// KSM's knobs, `run` last: what the kernel takes only while nothing is merged
/// is written while ksmd stands still.
fn put_ksm_back(
    root: &Path,
    patience: Duration,
    store: &mut Store,
    report: &mut Report,
) -> Result<(), SettingsError> {
    let run = file::read(root, Knob::KsmRun).ok();
    let cleared = if wants_nothing_merged(root, store, run) {
        match clear(root, patience, store) {
            Ok(()) => Ok(()),
            Err(Obstacle::Reason(why)) => Err(why),
            Err(Obstacle::Record(error)) => return Err(error),
        }
    } else {
        Ok(())
    };
    for knob in free(store, |knob| knob.is_ksm() && knob != Knob::KsmRun) {
        match &cleared {
            Err(why) if knob.needs_nothing_merged() && is_ours(root, store, knob) => {
                leave(root, store, knob, why.clone(), report);
            }
            _ => put_knob_back(root, store, knob, report),
        }
    }
    for knob in free(store, |knob| knob == Knob::KsmRun) {
        let place = report.restored.len();
        put_knob_back(root, store, knob, report);
        // It may have been stopped on the way, or not have been changed at all.
        if let (None, Some(from), Ok(to)) = (store.record.change(knob), run, file::read(root, knob))
        {
            report.restored.truncate(place);
            if from != to {
                report.restored.push(Restored { knob, from, to });
            }
        }
        if let (Err(why), Ok(pages @ 1..)) = (&cleared, ksm::pages_shared(root)) {
            let why = why.clone();
            report.merged = Some(StillMerged { pages, why });
        }
    }
    Ok(())
}

/// Whether a knob is to be put back that can be only while nothing is merged,
/// or ksmd is about to stand still, and never to forget what it has merged.
fn wants_nothing_merged(root: &Path, store: &Store, run: Option<i64>) -> bool {
    let bound = free(store, Knob::needs_nothing_merged);
    let stops = store.record.change(Knob::KsmRun).is_some_and(|change| {
        change.holders.is_empty()
            && change.back() == STOPPED
            && run.is_some_and(|run| change.is_ours(run) || change.is_back(run))
    });
    stops || bound.into_iter().any(|knob| is_ours(root, store, knob))
}

fn is_ours(root: &Path, store: &Store, knob: Knob) -> bool {
    let change = store.record.change(knob);
    match (change, file::read(root, knob)) {
        (Some(change), Ok(found)) => change.is_ours(found),
        _ => false,
    }
}

/// Why KSM's books were not cleared.
enum Obstacle {
    /// What is in the way.
    Reason(Reason),
    /// The record could not be written.
    Record(SettingsError),
}

impl From<Reason> for Obstacle {
    fn from(why: Reason) -> Self {
        Self::Reason(why)
    }
}

/// Stops ksmd and has KSM forget what ended processes had merged. `run` stays
/// as it is when it is not imgbuild's.
fn clear(root: &Path, patience: Duration, store: &mut Store) -> Result<(), Obstacle> {
    let run = file::read(root, Knob::KsmRun).map_err(|error| Reason::of(Knob::KsmRun, &error))?;
    let ours = match store.record.change(Knob::KsmRun) {
        Some(change) => change.holders.is_empty() && (change.is_ours(run) || change.is_back(run)),
        // Unmerging makes no difference to a ksmd that stands still.
        None => run == STOPPED,
    };
    if run == RUNNING && ksm::pages_shared(root)? > 0 && ksm::pages_of_the_living(root) == Ok(0) {
        ksm::wait_for_ksmd(root, patience);
    }
    if !ours {
        return match ksm::pages_shared(root)? {
            0 => Ok(()),
            _ => Err(Reason::KsmTaken.into()),
        };
    }
    if run == RUNNING {
        set_run(root, store, STOPPED)?;
    }
    if ksm::pages_shared(root)? > 0 {
        ksm::may_unmerge(root)?;
        set_run(root, store, UNMERGED)?;
    }
    Ok(())
}

/// Writes KSM's `run` on the way to its old value, and has the record know it.
fn set_run(root: &Path, store: &mut Store, value: i64) -> Result<(), Obstacle> {
    let knob = Knob::KsmRun;
    let mut change = match store.record.change(knob) {
        Some(change) => change.clone(),
        None => Change::new(knob, STOPPED),
    };
    change.writing = Some(value);
    store.record.put(change.clone());
    store.save().map_err(Obstacle::Record)?;
    file::write(root, knob, value).map_err(|error| Reason::of(knob, &error))?;
    change.written = value;
    store.record.put(change);
    Ok(())
}

/// Keeps one knob for `guests` if it is still imgbuild's.
fn keep(root: &Path, store: &mut Store, knob: Knob, guests: u64, report: &mut Report) {
    if let Some((wrote, _)) = way_back(root, store, knob, report) {
        report.held.push(Held {
            knob,
            wrote,
            by: vec![Keeper::Guests(guests)],
        });
    }
}

/// What a knob is, and what it is to be again, if it is still imgbuild's;
/// otherwise says why not.
fn way_back(root: &Path, store: &mut Store, knob: Knob, report: &mut Report) -> Option<(i64, i64)> {
    let change = store.record.change(knob)?.clone();
    match file::read(root, knob) {
        Err(error) => leave(root, store, knob, Reason::of(knob, &error), report),
        Ok(found) if change.is_back(found) => store.record.forget(knob),
        Ok(found) if change.is_ours(found) => return Some((found, change.back())),
        Ok(_) => {
            leave(root, store, knob, Reason::Changed, report);
            store.record.forget(knob);
        }
    }
    None
}

/// Puts one knob back if it is still imgbuild's.
fn put_knob_back(root: &Path, store: &mut Store, knob: Knob, report: &mut Report) {
    let Some((from, to)) = way_back(root, store, knob, report) else {
        return;
    };
    let written = file::write(root, knob, to);
    match (written, file::read(root, knob)) {
        (_, Ok(now)) if now == to => {
            store.record.forget(knob);
            report.restored.push(Restored { knob, from, to });
        }
        (Err(error), _) | (Ok(()), Err(error)) => {
            leave(root, store, knob, Reason::of(knob, &error), report);
        }
        (Ok(()), Ok(now)) => leave(root, store, knob, Reason::Ignored { now }, report),
    }
}

/// Reports a knob that is not put back; the record keeps it.
fn leave(root: &Path, store: &Store, knob: Knob, why: Reason, report: &mut Report) {
    if let Some(change) = store.record.change(knob) {
        report.left.push(Left {
            knob,
            found: file::read(root, knob).ok(),
            wrote: change.wrote(),
            old: change.old,
            why,
        });
    }
}
