//! Host settings that imgbuild may write, and their one owner.
//!
//! Sysctls and KSM's settings belong to the whole host, so several fleets share
//! them. [`Owner`] records the old value, the value that imgbuild wrote, and the
//! holders. When the last holder releases a setting, the old value is restored,
//! unless somebody else has changed the setting since, or guests of any fleet still
//! need it.

use serde::{Deserialize, Serialize};

mod drive;
mod error;
mod file;
mod guests;
mod holder;
mod knob;
mod ksm;
mod ksmd;
mod module;
mod outcome;
mod owner;
mod record;
mod restore;
mod script;
mod store;

pub(crate) use error::SettingsError;
pub(crate) use holder::Holder;
pub(crate) use knob::Knob;
pub(crate) use module::{Module, load_module};
pub(crate) use outcome::{
    Applied, Held, Keeper, Left, Outcome, Reason, Report, Restored, StillMerged,
};
pub(crate) use owner::Owner;
pub(crate) use script::script;

/// A value for a knob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// What to write.
    pub knob: Knob,
    /// The value; of a [limit](Knob::is_limit) the least that will do.
    pub value: i64,
}

impl Setting {
    /// `knob` at `value`, of which the kernel keeps no more than a `long`.
    pub fn of(knob: Knob, value: u64) -> Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        Self { knob, value }
    }
}

/// The order in which settings are written, each knob once: KSM's `run` last,
/// and before it what the kernel takes only while nothing is merged.
///
/// Of several values for a limit the greatest counts, of others the last.
fn in_order(settings: &[Setting]) -> Vec<Setting> {
    let mut ordered: Vec<Setting> = Vec::with_capacity(settings.len());
    for &setting in settings {
        match ordered.iter_mut().find(|other| other.knob == setting.knob) {
            Some(other) if setting.knob.is_limit() => other.value = other.value.max(setting.value),
            Some(other) => other.value = setting.value,
            None => ordered.push(setting),
        }
    }
    ordered.sort_by_key(|setting| setting.knob.turn());
    ordered
}

#[cfg(test)]
mod tests;
