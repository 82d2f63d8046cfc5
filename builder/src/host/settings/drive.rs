//! Sets ksmd's rate over and over, as one fleet after another needs it.

use std::fmt;

use super::store::Store;
use super::{Holder, Knob, Outcome, Owner, Reason, Setting, SettingsError, file};

/// Why a fleet does not set ksmd's rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undriven {
    /// Another one does, for all of the host: KSM's counters are of all of it.
    Other(Holder),
    /// The user has set it, and holds it.
    User,
    /// Somebody else runs KSM, at the rate that they chose.
    NotOurs,
    /// The kernel, or whoever else has set it since, keeps it from being set.
    Refused { knob: Knob, why: Reason },
}

impl fmt::Display for Undriven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(holder) => write!(f, "{holder} sets it for all fleets"),
            Self::User => f.write_str(
                "`imgbuild check --fix` has set it, and `imgbuild check --restore` restores it",
            ),
            Self::NotOurs => f.write_str("KSM runs at it for somebody else than imgbuild"),
            Self::Refused { knob, why } => write!(f, "{knob}: {why}"),
        }
    }
}

impl Owner {
    /// Sets ksmd's rate for the fleet `holder`, unless that is another's to do: the
    /// first fleet that does goes on with it for as long as it lives. A rate that
    /// imgbuild neither set nor turned KSM on for is left alone.
    pub(crate) fn drive(
        &self,
        rate: &[Setting],
        holder: &Holder,
    ) -> Result<Result<(), Undriven>, SettingsError> {
        let Some(mut store) = Store::existing(&self.root)? else {
            return Ok(Err(Undriven::NotOurs));
        };
        store.record.drop_holders(&self.root, |_| false);
        if let Some(why) = self.is_kept_from(&store, rate, holder) {
            return Ok(Err(why));
        }
        store.record.driver = Some(holder.clone());
        let applied = self.carry_out(&mut store, rate.to_vec(), holder)?;
        // Whoever needs KSM to run needs it to run at some rate.
        let run = store.record.change(Knob::KsmRun);
        let all = run.map_or_else(Vec::new, |run| run.holders.clone());
        let changes = store.record.changes.iter_mut();
        for change in changes.filter(|change| rate.iter().any(|one| one.knob == change.knob)) {
            for holder in &all {
                change.add_holder(holder);
            }
        }
        store.save()?;
        let refused = applied
            .into_iter()
            .find_map(|applied| match applied.outcome {
                Outcome::Refused { why } => Some(Undriven::Refused {
                    knob: applied.knob,
                    why,
                }),
                Outcome::Already { .. } | Outcome::Held { .. } | Outcome::Written { .. } => None,
            });
        Ok(refused.map_or(Ok(()), Err))
    }

    fn is_kept_from(&self, store: &Store, rate: &[Setting], holder: &Holder) -> Option<Undriven> {
        // One that is back at what it was before, as a slow rate may be, is nobody else's.
        let is_ours = |knob| {
            let change = store.record.change(knob)?;
            let found = file::read(&self.root, knob).ok()?;
            Some(change.is_ours(found) || change.is_back(found))
        };
        let is_driven = store.record.driver.as_ref() == Some(holder)
            || rate.iter().any(|one| is_ours(one.knob) == Some(true))
            || is_ours(Knob::KsmRun) == Some(true);
        for &Setting { knob, .. } in rate {
            match is_ours(knob) {
                None if !is_driven => return Some(Undriven::NotOurs),
                Some(false) => {
                    let why = Reason::Changed;
                    return Some(Undriven::Refused { knob, why });
                }
                None | Some(true) => {}
            }
            let change = store.record.change(knob);
            if change.is_some_and(|change| change.holders.contains(&Holder::User)) {
                return Some(Undriven::User);
            }
        }
        let driver = store.record.driver.as_ref();
        let other = driver.filter(|driver| *driver != holder);
        other.cloned().map(Undriven::Other)
    }
}
