//! A fleet whose supervisor died, read from its folder and from the processes.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use super::memory::Processes;
use super::types::{API_VERSION, BurnTotals, Fleet, Guest, Memory, Stage, Totals};
use crate::guest::counts::count;
use crate::guest::{Desired, Phase};
use crate::placement::cgroup::{FleetCgroup, group_name};
use crate::store::folder::{self, FolderError, Found};
use crate::store::journal;
use crate::store::orphans::{self, Mark};

/// Why a fleet without a supervisor cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsupervisedError {
    /// Its folder does not say what it is.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Processes could not be looked at.
    #[error("cannot look for living guests in /proc: {0}")]
    Processes(io::Error),
    /// What they cost could not be read.
    #[error("cannot read in /proc what the fleet's processes cost: {0}")]
    Memory(io::Error),
}

/// What the fleet costs its host in memory.
pub(crate) fn memory(found: &Found) -> Result<Memory, UnsupervisedError> {
    let spec = folder::read_spec(found.path())?;
    let group = group_name(&spec.name, spec.instance);
    let group = FleetCgroup::open(Path::new("/"), &group).ok().flatten();
    let guests = unsupervised(found)?.guests.into_iter();
    let processes = Processes {
        fleet: spec.name,
        guests: guests
            .filter_map(|guest| Some((guest.id, guest.pid?)))
            .collect(),
        supervisor: None,
        handed: 0,
        charged: group.and_then(|group| group.accounted()),
        ksm: None,
    };
    processes.memory().map_err(UnsupervisedError::Memory)
}

/// The fleet: how a guest is that lives is unknown, since nobody asks it. Of
/// another host's guests nothing is known here.
pub(crate) fn unsupervised(found: &Found) -> Result<Fleet, UnsupervisedError> {
    let spec = folder::read_spec(found.path())?;
    if found.is_elsewhere() {
        return Ok(Fleet {
            api: API_VERSION,
            fleet: spec.name,
            host: spec.host.name,
            stage: Stage::Elsewhere,
            supervisor: None,
            wanted: spec.guests.count(),
            counts: BTreeMap::new(),
            held_back: None,
            forced: spec.forced,
            totals: Totals::default(),
            burn: BurnTotals::default(),
            guests: Vec::new(),
        });
    }
    let living = Mark::of(&spec, found.path())
        .and_then(|mark| orphans::living(Path::new("/"), mark))
        .map_err(UnsupervisedError::Processes)?;
    let pids: HashMap<_, _> = living.into_iter().map(|one| (one.guest, one.pid)).collect();
    let history = journal::replay(&found.paths.journal()).unwrap_or_default();
    let mut guests = Vec::new();
    for index in spec.guests.iter() {
        let pid = pids.get(&index).copied();
        let past = history.guests.get(&index);
        let desired = past.map_or(Desired::Up, |past| past.desired);
        let (state, reason) = match (pid, past.and_then(|past| past.last)) {
            (Some(_), _) => (
                Phase::Unsupervised,
                "its process lives, and nothing supervises it",
            ),
            (None, _) if desired == Desired::Down => (Phase::Exited, "it was stopped"),
            (None, Some(_)) => (Phase::Exited, "it is gone, and nothing supervises it"),
            (None, None) => (Phase::Planned, "its supervisor died before it was started"),
        };
        guests.push(Guest {
            id: index,
            state,
            desired,
            pid,
            for_seconds: 0.0,
            ready_after: None,
            restarts: past.map_or(0, |past| past.restarts),
            unresponsive: 0,
            reason: Some(reason.to_owned()),
            ssh: spec.ssh_address(index).map(|address| address.to_string()),
            burn: None,
        });
    }
    Ok(Fleet {
        api: API_VERSION,
        fleet: spec.name,
        host: spec.host.name,
        stage: if pids.is_empty() {
            Stage::Lost
        } else {
            Stage::Orphaned
        },
        supervisor: None,
        wanted: spec.guests.count(),
        counts: count(guests.iter().map(|guest| guest.state)),
        held_back: None,
        forced: spec.forced,
        totals: Totals {
            restarts: guests.iter().map(|guest| u64::from(guest.restarts)).sum(),
            ..Totals::default()
        },
        burn: BurnTotals::default(),
        guests,
    })
}
