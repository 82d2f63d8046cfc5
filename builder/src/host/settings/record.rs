//! The record of changed settings: its form, and when it is trusted.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Holder, Knob};
use crate::host_id::BootId;
use crate::recipe;

/// The version of the form that this program writes and reads.
const SCHEMA: u32 = 1;

/// Most bytes of a record. A fleet takes some 100 in each of the 11 knobs that
/// it holds at most, so nearly a thousand fit.
pub(crate) const LIMIT: u64 = 1024 * 1024;

/// What imgbuild changed in this boot and has not put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    schema: u32,
    /// The boot; at the next one the kernel's defaults are back.
    pub boot_id: BootId,
    /// The fleet that sets ksmd's rate: one at a time does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<Holder>,
    /// In the order in which they were first written.
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub knob: Knob,
    /// What it was before imgbuild first wrote it.
    pub old: i64,
    /// What imgbuild wrote last and read back; `old` until then.
    pub written: i64,
    /// What imgbuild is about to write: recorded before it is, so that the
    /// value is known as imgbuild's whenever this process dies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<i64>,
    pub holders: Vec<Holder>,
}

impl Change {
    /// The change of `knob`, which is `old`, before anything is written.
    pub(super) fn new(knob: Knob, old: i64) -> Self {
        Self {
            knob,
            old,
            written: old,
            writing: None,
            holders: Vec::new(),
        }
    }

    /// What it is to be again.
    pub(super) fn back(&self) -> i64 {
        self.knob.back_to(self.old)
    }

    /// Whether the setting, now at `found`, is imgbuild's to put back.
    pub(super) fn is_ours(&self, found: i64) -> bool {
        !self.is_back(found) && (found == self.written || Some(found) == self.writing)
    }

    /// Whether the setting, now at `found`, needs no putting back.
    pub(super) fn is_back(&self, found: i64) -> bool {
        found == self.old || found == self.back()
    }

    /// What imgbuild wrote, or was about to.
    pub(super) fn wrote(&self) -> i64 {
        self.writing.unwrap_or(self.written)
    }

    pub(super) fn add_holder(&mut self, holder: &Holder) {
        if !self.holders.contains(holder) {
            self.holders.push(holder.clone());
        }
    }
}

impl Record {
    /// That of a boot in which nothing was changed.
    pub(super) fn new(boot_id: BootId) -> Self {
        Self {
            schema: SCHEMA,
            boot_id,
            driver: None,
            changes: Vec::new(),
        }
    }

    /// Reads a record; whatever imgbuild would not have written is an error,
    /// which says what.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("is not a record of settings ({error})"))?;
        if record.schema != SCHEMA {
            let schema = record.schema;
            return Err(format!(
                "has form {schema}, and this imgbuild knows form {SCHEMA}"
            ));
        }
        if let Some(Holder::User) = record.driver {
            return Err("has nobody's process set ksmd's rate".to_owned());
        }
        for (place, change) in record.changes.iter().enumerate() {
            credible(change)?;
            if record.changes[..place]
                .iter()
                .any(|other| other.knob == change.knob)
            {
                return Err(format!("names {} twice", change.knob));
            }
        }
        Ok(record)
    }

    /// The record as it stands in its file.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a record is plain data");
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn change(&self, knob: Knob) -> Option<&Change> {
        self.changes.iter().find(|change| change.knob == knob)
    }

    /// Adds a change, or takes it for the one of that knob.
    pub(super) fn put(&mut self, change: Change) {
        match self
            .changes
            .iter_mut()
            .find(|other| other.knob == change.knob)
        {
            Some(other) => *other = change,
            None => self.changes.push(change),
        }
    }

    /// Forgets the change of `knob`.
    pub(super) fn forget(&mut self, knob: Knob) {
        self.changes.retain(|change| change.knob != knob);
    }

    /// Drops the holders that are no more, and those of whom `lets_go` is true.
    pub(super) fn drop_holders(&mut self, root: &Path, lets_go: impl Fn(&Holder) -> bool) {
        let stays = |holder: &Holder| !lets_go(holder) && holder.lives(root);
        for change in &mut self.changes {
            change.holders.retain(stays);
        }
        self.driver.take_if(|driver| !stays(driver));
    }
}

/// Whether imgbuild could have written `change`.
fn credible(change: &Change) -> Result<(), String> {
    let knob = change.knob;
    for value in [Some(change.old), Some(change.written), change.writing] {
        if let Some(value) = value
            && !knob.range().contains(&value)
        {
            return Err(format!("says that {knob} was {value}, which is impossible"));
        }
    }
    for holder in &change.holders {
        if let Holder::Fleet { name, .. } = holder
            && !recipe::is_name(name)
        {
            return Err(format!("has {knob} held by {name:?}, which is not a fleet"));
        }
    }
    Ok(())
}
