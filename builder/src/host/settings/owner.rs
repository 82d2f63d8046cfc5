//! The one owner of host settings: writes them, and records their old values.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Change;
use super::store::Store;
use super::{
    Applied, Holder, Outcome, Reason, Report, Setting, SettingsError, file, in_order, restore,
};

/// How long ksmd gets to forget the pages of guests that have ended. It does so
/// in one pass, which takes it little time when few are left.
const PATIENCE: Duration = Duration::from_secs(10);

/// The one owner of the settings of the host.
///
/// Its record is `/run/imgbuild/settings.json`, and is locked during any change,
/// so any number of processes may have an owner each.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(super) root: PathBuf,
    pub(crate) patience: Duration,
}

/// What to do about a setting.
enum Plan {
    Nothing(Outcome),
    /// It is as wanted, by imgbuild's doing.
    Join {
        now: i64,
    },
    Write {
        found: i64,
    },
}

impl Owner {
    /// The owner of the settings below `root`, which is `/` on a live system.
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            patience: PATIENCE,
        }
    }

    /// Writes `settings` for `holder`, in the order that the kernel needs, and
    /// says of each what became of it: one that does not take does not stop the
    /// others.
    ///
    /// What each was is on disk before it is written, so that it can be put back
    /// whenever this process dies.
    pub(crate) fn apply(
        &self,
        settings: &[Setting],
        holder: &Holder,
    ) -> Result<Vec<Applied>, SettingsError> {
        let settings = in_order(settings);
        let Some(mut store) = self.store_for(&settings)? else {
            let as_it_is = |&setting| match self.plan(setting, None, holder) {
                Plan::Nothing(outcome) => applied(setting, outcome),
                Plan::Join { now } | Plan::Write { found: now } => {
                    applied(setting, Outcome::Already { now })
                }
            };
            return Ok(settings.iter().map(as_it_is).collect());
        };
        store.record.drop_holders(&self.root, |_| false);
        self.carry_out(&mut store, settings, holder)
    }

    /// Writes settings, and records what they were before.
    pub(super) fn carry_out(
        &self,
        store: &mut Store,
        settings: Vec<Setting>,
        holder: &Holder,
    ) -> Result<Vec<Applied>, SettingsError> {
        let mut plans = Vec::with_capacity(settings.len());
        for setting in settings {
            let change = store.record.change(setting.knob);
            let plan = self.plan(setting, change, holder);
            claim(store, setting, &plan, holder);
            plans.push((setting, plan));
        }
        store.save()?;
        let carried_out = plans.into_iter().map(|(setting, plan)| {
            let outcome = match plan {
                Plan::Nothing(outcome) => outcome,
                Plan::Join { now } => {
                    let old = store.record.change(setting.knob).map_or(now, Change::back);
                    Outcome::Held { old, now }
                }
                Plan::Write { found } => self.write(store, setting, found),
            };
            applied(setting, outcome)
        });
        let outcomes = carried_out.collect();
        store.save()?;
        Ok(outcomes)
    }

    /// Has `holder` hold all that imgbuild has changed and that still is so: who
    /// starts while it is rests on it, whoever asked for it.
    pub(crate) fn join(&self, holder: &Holder) -> Result<(), SettingsError> {
        let Some(mut store) = Store::existing(&self.root)? else {
            return Ok(());
        };
        store.record.drop_holders(&self.root, |_| false);
        for change in &mut store.record.changes {
            if file::read(&self.root, change.knob).is_ok_and(|found| change.is_ours(found)) {
                change.add_holder(holder);
            }
        }
        store.save()
    }

    /// Lets go of what `holder` held, and puts back what nobody holds any more,
    /// unless guests of others live. Dead fleets hold nothing.
    ///
    /// For a fleet's end, after its guests are gone.
    pub(crate) fn release(&self, holder: &Holder) -> Result<Report, SettingsError> {
        self.put_back(|other| other == holder)
    }

    /// Puts back what no living fleet holds, unless guests of others live:
    /// `imgbuild check --restore`.
    pub(crate) fn restore(&self) -> Result<Report, SettingsError> {
        self.put_back(|holder| *holder == Holder::User)
    }

    fn put_back(&self, lets_go: impl Fn(&Holder) -> bool) -> Result<Report, SettingsError> {
        let Some(mut store) = Store::existing(&self.root)? else {
            return Ok(Report::default());
        };
        store.record.drop_holders(&self.root, lets_go);
        restore::put_back(&self.root, self.patience, &mut store)
    }

    /// The record, made if one of `settings` is to be written; `None` if none is
    /// and there has never been one.
    fn store_for(&self, settings: &[Setting]) -> Result<Option<Store>, SettingsError> {
        let mut writes = false;
        for &Setting { knob, value } in settings {
            let found = file::read(&self.root, knob);
            if found.is_err() || found.is_ok_and(|found| suffices(knob, found, value)) {
                continue;
            }
            writes = true;
            match file::may_write(&self.root, knob) {
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    let what = knob.to_string();
                    return Err(SettingsError::Denied { what, source });
                }
                // The others come out with the write itself.
                _ => {}
            }
        }
        if writes {
            Store::create(&self.root).map(Some)
        } else {
            Store::existing(&self.root)
        }
    }

    fn plan(&self, setting: Setting, change: Option<&Change>, holder: &Holder) -> Plan {
        let Setting { knob, value } = setting;
        let refused = |why| Plan::Nothing(Outcome::Refused { why });
        let found = match file::read(&self.root, knob) {
            Ok(found) => found,
            Err(error) => return refused(Reason::of(knob, &error)),
        };
        if !knob.settable().contains(&value) {
            let (low, high) = knob.settable().into_inner();
            return refused(Reason::Range { low, high });
        }
        let ours = change.filter(|change| change.is_ours(found));
        if suffices(knob, found, value) {
            return match ours {
                Some(_) => Plan::Join { now: found },
                None => Plan::Nothing(Outcome::Already { now: found }),
            };
        }
        if !knob.range().contains(&found) {
            return refused(Reason::Irreversible { found });
        }
        let others = ours.into_iter().flat_map(|change| &change.holders);
        let by: Vec<_> = others
            .filter(|other| *other != holder && (!knob.is_rate() || **other == Holder::User))
            .cloned()
            .collect();
        if !knob.is_limit() && !by.is_empty() {
            return refused(Reason::Held { by, value: found });
        }
        Plan::Write { found }
    }

    /// Writes a setting that the record announces, and records what came of it.
    fn write(&self, store: &mut Store, setting: Setting, found: i64) -> Outcome {
        let Setting { knob, value } = setting;
        let written = file::write(&self.root, knob, value);
        let now = match (&written, file::read(&self.root, knob)) {
            (_, Ok(now)) => now,
            (Err(_), Err(_)) => found,
            // The record knows both values that it may have.
            (Ok(()), Err(error)) => {
                let why = Reason::of(knob, &error);
                return Outcome::Refused { why };
            }
        };
        let mut change = match store.record.change(knob) {
            Some(change) => change.clone(),
            None => Change::new(knob, found),
        };
        change.writing = None;
        change.written = now;
        let old = change.back();
        if change.is_back(now) {
            store.record.forget(knob);
        } else {
            store.record.put(change);
        }
        match written {
            Err(error) => Outcome::Refused {
                why: Reason::of(knob, &error),
            },
            Ok(()) if now == found => Outcome::Refused {
                why: Reason::Ignored { now },
            },
            Ok(()) => Outcome::Written { old, now },
        }
    }
}

/// Whether a knob at `found` serves those who need `value`.
fn suffices(knob: super::Knob, found: i64, value: i64) -> bool {
    found == value || (knob.is_limit() && found > value)
}

/// Announces in the record what `plan` is about to do.
fn claim(store: &mut Store, setting: Setting, plan: &Plan, holder: &Holder) {
    let known = store.record.change(setting.knob);
    let mut change = match (plan, known) {
        (Plan::Nothing(_), _) | (Plan::Join { .. }, None) => return,
        (Plan::Join { .. }, Some(known)) => known.clone(),
        (Plan::Write { found }, Some(known)) if known.is_ours(*found) => Change {
            written: *found,
            writing: Some(setting.value),
            ..known.clone()
        },
        // What somebody else made of it since is what to put back.
        (Plan::Write { found }, known) => Change {
            writing: Some(setting.value),
            holders: known.map_or_else(Vec::new, |known| known.holders.clone()),
            ..Change::new(setting.knob, *found)
        },
    };
    change.add_holder(holder);
    store.record.put(change);
}

fn applied(setting: Setting, outcome: Outcome) -> Applied {
    Applied {
        knob: setting.knob,
        wanted: setting.value,
        outcome,
    }
}
