//! A fleet's `spec.json`: read whole or not at all.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::error::FolderError;
use super::paths::{Paths, SPEC};
use crate::store::orphans::{GuestUsers, Mark};
use crate::store::spec::FleetSpec;
use crate::store::spec::file::{SPEC_VERSION, SpecFile};
use crate::units::Instance;
use crate::{any_path, plain};

/// Most bytes of a `spec.json`: a fleet of 100,000 guests takes one MiB.
const SPEC_MAX: u64 = 16 << 20;

/// Reads what the fleet is that keeps its state in this folder, whether it is
/// supervised or not.
pub fn read_spec(state: &Path) -> Result<FleetSpec, FolderError> {
    #[derive(Deserialize)]
    struct Version {
        spec_version: u32,
    }
    let path = state.join(SPEC);
    let bytes = bytes(state).map_err(|source| FolderError::Unreadable {
        path: path.clone(),
        source,
    })?;
    let name = state
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let malformed = |reason: String| FolderError::Spec {
        name: name.clone(),
        path: path.clone(),
        reason,
    };
    if bytes.len() as u64 > SPEC_MAX {
        return Err(malformed(format!("it is larger than {SPEC_MAX} bytes")));
    }
    let Version { spec_version } =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    if spec_version != SPEC_VERSION {
        return Err(FolderError::SpecVersion {
            name,
            path,
            found: spec_version,
        });
    }
    let file: SpecFile =
        serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
    let spec = FleetSpec::try_from(file).map_err(|error| malformed(error.to_string()))?;
    if spec.name != name {
        return Err(malformed(format!("it is that of {}", spec.name)));
    }
    Ok(spec)
}

/// What is known of a fleet by a spec that is not understood, such as another
/// version's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remnant {
    /// What tells its guests from other processes.
    pub mark: Option<Mark>,
    /// Where its sockets are.
    pub runtime: Option<PathBuf>,
}

impl Remnant {
    /// What the spec in this folder tells, whatever it is.
    pub fn of(state: &Path) -> Self {
        let bytes = bytes(state).unwrap_or_default();
        let spec: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |key: &str| Some(spec.get(key)?.as_str()?.to_owned());
        let mark = || {
            // Under whose ids they run has to be known as well, or none is found.
            let base: Option<u32> =
                serde_json::from_value(spec.get("run_as_base")?.clone()).ok()?;
            Some(Mark {
                instance: Instance::try_from(text("instance")?).ok()?,
                users: GuestUsers::of(base, state).ok()?,
            })
        };
        Self {
            mark: mark(),
            runtime: (spec.get("runtime")).and_then(|path| any_path::deserialize(path).ok()),
        }
    }
}

impl Paths {
    /// The same paths, with the sockets where the spec says that they are now.
    pub fn as_they_are(&self) -> Self {
        let runtime = Remnant::of(&self.state).runtime;
        Self {
            state: self.state.clone(),
            runtime: runtime.unwrap_or_else(|| self.runtime.clone()),
        }
    }
}

/// Whether a folder holds that very fleet, as far as it can be seen.
pub(crate) fn holds(state: &Path, instance: Instance) -> bool {
    #[derive(Deserialize)]
    struct Owner {
        instance: Instance,
    }
    match bytes(state) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).is_ok_and(|found: Owner| found.instance == instance)
        }
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What the spec in this folder holds; of one that is larger than any spec, a
/// part that shows it.
fn bytes(state: &Path) -> io::Result<Vec<u8>> {
    plain::read_start(&state.join(SPEC), SPEC_MAX + 1)
}
