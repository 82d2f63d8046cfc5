//! The form of the record of claims.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Claim, ClaimsError};
use crate::host_id::BootId;
use crate::private::Private;

/// The version of the form that this program writes and reads.
const SCHEMA: u32 = 1;
/// Most bytes of a record: all ports that there are take a third of one MiB.
const LIMIT: u64 = 4 << 20;

/// What the fleets of this boot have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    schema: u32,
    /// The boot: no fleet outlives it.
    boot_id: BootId,
    pub claims: Vec<Claim>,
}

impl Record {
    /// What is recorded in this folder; nothing, if that is of an earlier boot.
    pub(super) fn read(folder: &Private, name: &str) -> Result<Self, ClaimsError> {
        let path = folder.path().join(name);
        let boot_id = BootId::of(Path::new("/")).map_err(|source| ClaimsError::Failed {
            path: path.clone(),
            source,
        })?;
        let new = Self {
            schema: SCHEMA,
            boot_id,
            claims: Vec::new(),
        };
        let Some(bytes) = folder.read(name, LIMIT)? else {
            return Ok(new);
        };
        let untrusted = |why, remedy: &str| ClaimsError::Untrusted {
            path: path.clone(),
            why,
            remedy: remedy.to_owned(),
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| {
            let why = format!("is not a record of fleets ({error})");
            untrusted(why, "find out who changed it, and remove it")
        })?;
        match record.schema {
            _ if record.boot_id != new.boot_id => Ok(new),
            SCHEMA => Ok(record),
            schema => Err(untrusted(
                format!("has version {schema}, and this imgbuild knows version {SCHEMA}"),
                "use the imgbuild that launched those fleets",
            )),
        }
    }

    /// Puts this record in the place of the one there; without claims there is
    /// none.
    pub(super) fn write(&self, folder: &Private, name: &str) -> Result<(), ClaimsError> {
        let written = if self.claims.is_empty() {
            folder.remove(name)
        } else {
            let bytes = serde_json::to_vec(self).map_err(std::io::Error::from);
            bytes.and_then(|bytes| folder.replace(name, &bytes, || {}))
        };
        written.map_err(|source| ClaimsError::Failed {
            path: folder.path().join(name),
            source,
        })
    }
}
