//! Finds out what is left of a fleet that nothing supervises.

use std::path::Path;

use super::document::read_spec;
use super::error::FolderError;
use super::remains::Remains;
use crate::host_id::{HostId, Relation};
use crate::store::orphans::{self, Mark};
use crate::store::spec::FleetSpec;

/// What is left of the fleet in the folder `state`.
pub(super) fn remains_of(
    spec: &FleetSpec,
    state: &Path,
    host: &HostId,
) -> Result<Remains, FolderError> {
    if spec.unfinished {
        return Ok(Remains::Launch);
    }
    if host.relation(&spec.host) != Relation::ThisBoot {
        return Ok(Remains::Files);
    }
    let living = Mark::of(spec, state)
        .and_then(|mark| orphans::living(Path::new("/"), mark))
        .map_err(|source| FolderError::Guests {
            name: spec.name.clone(),
            source,
        })?;
    let living = u32::try_from(living.len()).unwrap_or(u32::MAX);
    Ok(Remains::Fleet { living })
}

/// The same, as far as it can be found out on this host.
pub(crate) fn remains_in(state: &Path) -> Remains {
    let Ok(host) = HostId::this() else {
        return Remains::Unclear;
    };
    let found = read_spec(state).and_then(|spec| remains_of(&spec, state, &host));
    found.unwrap_or(Remains::Unclear)
}
