//! A fleet whose supervisor died, as far as its folder and the processes tell.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use super::api::types::{API_VERSION, Desired, Fleet, Guest, Stage};
use super::folder::{self, FolderError, Found};
use super::guest::Phase;
use super::orphans;
use crate::units::{GuestIndexError, GuestRange};

/// Why a fleet without a supervisor cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum UnsupervisedError {
    /// Its folder does not tell what it is.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// It has more guests than there are.
    #[error(transparent)]
    Guests(#[from] GuestIndexError),
    /// Processes could not be looked at.
    #[error("cannot look for living guests in /proc: {0}")]
    Processes(io::Error),
}

/// The fleet: a guest that lives is `unresponsive`, since nobody asks it, and
/// the others are `exited`.
pub fn unsupervised(found: &Found) -> Result<Fleet, UnsupervisedError> {
    let spec = folder::read_spec(&found.path)?;
    let living =
        orphans::living(Path::new("/"), spec.instance).map_err(UnsupervisedError::Processes)?;
    let pids: HashMap<_, _> = living.into_iter().map(|one| (one.guest, one.pid)).collect();
    let mut counts = BTreeMap::new();
    let mut guests = Vec::new();
    for index in GuestRange::first(spec.count)?.iter() {
        let pid = pids.get(&index).copied();
        let (state, reason) = match pid {
            Some(_) => (Phase::Unresponsive, "nothing supervises it"),
            None => (Phase::Exited, "its supervisor died"),
        };
        *counts.entry(state).or_default() += 1;
        let port = spec.ports.get(index.get() as usize);
        guests.push(Guest {
            id: index.to_string(),
            state,
            desired: Desired::Up,
            pid,
            for_seconds: 0.0,
            ready_after: None,
            restarts: 0,
            unresponsive: 0,
            reason: Some(reason.to_owned()),
            ssh: port.map(|port| format!("127.0.0.1:{port}")),
            burn: None,
        });
    }
    Ok(Fleet {
        api: API_VERSION,
        fleet: spec.name,
        stage: if pids.is_empty() {
            Stage::Lost
        } else {
            Stage::Orphaned
        },
        supervisor: None,
        wanted: spec.count,
        counts,
        held_back: None,
        guests,
    })
}
