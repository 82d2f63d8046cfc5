//! What no two fleets of a host may have in common: user ids, networks of taps,
//! ports of the loopback.
//!
//! A record says what each fleet has, whichever state folder the fleet is in: that
//! of root's fleets is in `/run/imgbuild`, that of another user's fleets in the
//! runtime folder. A launch holds a lock on its folder from reading it until the
//! choice is written, so that two launches at the same time choose differently.
//! Entries of fleets that are gone are dropped, so the death of a process leaves
//! nothing taken.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::folder::{self, Paths};
use super::orphans::{self, GuestUsers, Mark};
use super::spec::FleetSpec;
use crate::any_path;
use crate::directories::Directories;
use crate::host::user_ids::IdRange;
use crate::lock;
use crate::net::tap::{self, Subnet};
use crate::private::{Others as Reach, Private, PrivateError};
use crate::units::Instance;
use record::Record;

mod record;

const ROOTS: &str = "/run/imgbuild";
const RECORD: &str = "fleets.json";
/// How long the end of a fleet waits for it. What is not given back then, the
/// next to choose takes back.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a fleet has that no other may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Its name.
    pub fleet: String,
    /// The folder of what it keeps.
    #[serde(with = "any_path")]
    pub state: PathBuf,
    /// Tells it from another of that name and folder.
    pub instance: Instance,
    /// User ids of its guests, if they have their own.
    pub users: Option<IdRange>,
    /// The inode of the network namespace whose addresses and ports it has.
    pub network: u64,
    /// The taps' addresses.
    pub taps: Option<Subnet>,
    /// Ports of the loopback.
    pub ports: Vec<u16>,
}

impl Claim {
    /// What a spec says that its fleet has, in the network of this thread.
    pub fn of(spec: &FleetSpec, state: &Path, users: Option<IdRange>) -> Self {
        Self {
            fleet: spec.name.clone(),
            state: state.to_path_buf(),
            instance: spec.instance,
            users,
            network: network(),
            taps: spec.tap_subnet,
            ports: spec.ports.clone(),
        }
    }

    fn is_of(&self, fleet: &Path, instance: Instance) -> bool {
        self.state == fleet && self.instance == instance
    }

    /// Whether the fleet is still there: as a folder, a guest or a tap. One that
    /// is being launched has its folder locked, and no spec yet.
    fn lives(&self, ours: Option<&Path>) -> bool {
        let is_launched = || ours != Some(&*self.state) && folder::is_locked(&self.state);
        let users = self.users.map_or_else(
            || GuestUsers::Owner(geteuid().as_raw()),
            |ids| GuestUsers::From(ids.first),
        );
        let mark = Mark {
            instance: self.instance,
            users,
        };
        let has_guests =
            || orphans::living(Path::new("/"), mark).map_or(true, |living| !living.is_empty());
        folder::holds(&self.state, self.instance)
            || is_launched()
            || has_guests()
            || tap::are_there(self.instance)
    }
}

/// What other fleets have.
#[derive(Debug, Default)]
pub struct Others(Vec<Claim>);

impl Others {
    /// User ids, and whose they are.
    pub fn users(&self) -> impl Iterator<Item = (&str, IdRange)> {
        let claims = self.0.iter();
        claims.filter_map(|claim| Some((&*claim.fleet, claim.users?)))
    }

    /// Taps' addresses in the network of this thread, and whose they are.
    pub fn taps(&self) -> impl Iterator<Item = (&str, Subnet)> {
        self.here()
            .filter_map(|claim| Some((&*claim.fleet, claim.taps?)))
    }

    /// Ports in the network of this thread.
    pub fn ports(&self) -> BTreeSet<u16> {
        let ports = self.here().flat_map(|claim| &claim.ports);
        ports.copied().collect()
    }

    fn here(&self) -> impl Iterator<Item = &Claim> {
        let here = network();
        self.0.iter().filter(move |claim| claim.network == here)
    }
}

/// The network namespace of this thread; of those that cannot be distinguished, one.
fn network() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |namespace| namespace.ino())
}

/// The record was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// It, or its folder, is not as imgbuild would have left it.
    #[error(
        "cannot find out which ports, user ids and tap networks other fleets have: {}, which \
         records them, {why}: {remedy}",
        path.display()
    )]
    Untrusted {
        /// The record or its folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What the user may do about it.
        remedy: String,
    },
    /// The system refused.
    #[error(
        "cannot use {}, which records the ports, user ids and tap networks of all fleets: \
         {source}; let this user read it and write to its folder",
        path.display()
    )]
    Failed {
        /// The record or its folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl From<PrivateError> for ClaimsError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::Refused { path, why, remedy } => Self::Untrusted { path, why, remedy },
            PrivateError::Failed { path, source } => Self::Failed { path, source },
        }
    }
}

/// Where it stands what fleets have.
#[derive(Debug)]
pub struct Register {
    /// The record's folder, the first that serves.
    folders: Vec<PathBuf>,
    /// The folder of this user's fleets. What they have counts even where the
    /// record does not say, as after an update of imgbuild.
    fleets: PathBuf,
}

impl Register {
    /// That of this user's fleets.
    pub fn of(directories: &Directories) -> Self {
        Self::with(&directories.runtime, directories.fleets())
    }

    /// That of a fleet with these folders.
    pub fn beside(fleet: &Paths) -> Self {
        let parent = |path: &Path| path.parent().expect("a fleet is in a folder").to_path_buf();
        Self::with(&parent(fleet.runtime()), parent(fleet.path()))
    }

    fn with(runtime: &Path, fleets: PathBuf) -> Self {
        // In a user namespace that the host's root is not in, /run may be the
        // host's all the same.
        let is_ours = |folder: &Path| folder.metadata().is_ok_and(|folder| folder.uid() == 0);
        let roots = Path::new(ROOTS);
        let has_roots = geteuid().is_root() && roots.parent().is_some_and(is_ours);
        let folders = has_roots.then_some(roots).into_iter().chain([runtime]);
        Self {
            folders: folders.map(Path::to_path_buf).collect(),
            fleets,
        }
    }

    /// What all fleets have now, as far as it can be seen; it may be other things
    /// in a moment.
    pub fn look(&self) -> Others {
        let recorded = self.existing().map(|folder| Record::read(&folder, RECORD));
        let mut claims = match recorded {
            Some(Ok(record)) => record.claims,
            // Who is to choose hears of it.
            Some(Err(_)) | None => Vec::new(),
        };
        claims.retain(|claim| claim.lives(None));
        self.others(claims, None)
    }

    /// Waits for the turn of a fleet to choose for as long as `may_wait` says so;
    /// `None` if it has not come by then.
    pub fn turn(
        &self,
        fleet: &Path,
        may_wait: impl Fn() -> bool,
    ) -> Result<Option<Turn>, ClaimsError> {
        let folder = self.make()?;
        let Some(lock) = locked(&folder, may_wait)? else {
            return Ok(None);
        };
        let mut record = Record::read(&folder, RECORD)?;
        record.claims.retain(|claim| claim.lives(Some(fleet)));
        let others = self.others(record.claims.clone(), Some(fleet));
        Ok(Some(Turn {
            folder,
            record,
            others,
            fleet: fleet.to_path_buf(),
            _lock: lock,
        }))
    }

    /// Gives back what a fleet had that is over.
    pub fn give_back(&self, fleet: &Path, instance: Instance) {
        if let Err(error) = self.forget(fleet, instance) {
            tracing::warn!(
                "the fleet's user ids, ports and networks of taps stay reserved for now: {error}"
            );
        }
    }

    fn forget(&self, fleet: &Path, instance: Instance) -> Result<(), ClaimsError> {
        let Some(folder) = self.existing() else {
            return Ok(());
        };
        let until = Instant::now() + PATIENCE;
        let Some(_lock) = locked(&folder, || Instant::now() < until)? else {
            return Ok(());
        };
        let mut record = Record::read(&folder, RECORD)?;
        record.claims.retain(|claim| !claim.is_of(fleet, instance));
        record.write(&folder, RECORD)
    }

    /// The record's folder, where there is one that may be used.
    fn existing(&self) -> Option<Private> {
        let mut folders = self.folders.iter();
        folders.find_map(|folder| Private::open(folder, Reach::Look).ok().flatten())
    }

    /// The first folder that serves, made where it is not there.
    fn make(&self) -> Result<Private, ClaimsError> {
        let mut last = None;
        for folder in &self.folders {
            match Private::make(folder, Reach::Look) {
                Err(PrivateError::Failed { path, source }) if is_closed(&source) => {
                    last = Some(PrivateError::Failed { path, source });
                }
                made => return Ok(made?),
            }
        }
        Err(last.expect("there is a folder to try").into())
    }

    /// What is recorded, and what the specs say that are not, but for `fleet`'s.
    fn others(&self, mut claims: Vec<Claim>, fleet: Option<&Path>) -> Others {
        for spec in folder::specs(&self.fleets) {
            let state = self.fleets.join(&spec.name);
            if !claims
                .iter()
                .any(|claim| claim.is_of(&state, spec.instance))
            {
                let users = spec.run_as_base.map(IdRange::whole);
                claims.push(Claim::of(&spec, &state, users));
            }
        }
        claims.retain(|claim| Some(&*claim.state) != fleet);
        Others(claims)
    }
}

/// The right to choose, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    folder: Private,
    record: Record,
    others: Others,
    fleet: PathBuf,
    _lock: File,
}

impl Turn {
    /// What other fleets have, and this one must not choose.
    pub fn others(&self) -> &Others {
        &self.others
    }

    /// What this fleet has chosen before.
    pub fn own(&self, instance: Instance) -> Option<&Claim> {
        let mut claims = self.record.claims.iter();
        claims.find(|claim| claim.is_of(&self.fleet, instance))
    }

    /// Records what the fleet has now: from here on others choose something else.
    pub fn take(mut self, claim: Claim) -> Result<(), ClaimsError> {
        let claims = &mut self.record.claims;
        claims.retain(|other| !other.is_of(&claim.state, claim.instance));
        claims.push(claim);
        self.record.write(&self.folder, RECORD)
    }
}

/// Whether a folder failed because this process may make none there.
fn is_closed(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Locks the record: its folder, so that no file stays for that.
fn locked(folder: &Private, may_wait: impl Fn() -> bool) -> Result<Option<File>, ClaimsError> {
    let failed = |source| ClaimsError::Failed {
        path: folder.path().to_path_buf(),
        source,
    };
    let lock = File::open(folder.within(".")).map_err(failed)?;
    let mut said = false;
    let is_locked = lock::wait(&lock, || {
        let waits = may_wait();
        if waits && !said {
            tracing::info!("waiting for another fleet to choose its ports, user ids and addresses");
            said = true;
        }
        waits
    });
    Ok(is_locked.map_err(failed)?.then_some(lock))
}

#[cfg(test)]
mod tests;
