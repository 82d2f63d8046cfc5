//! Lists fleets.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::FolderError;
use super::document::{self, Remnant};
use super::lock::{self, Supervised};
use super::paths::{CONTROL, Paths, SOCKETS, SPEC};
use crate::directories::Directories;
use crate::host_id::Relation;
use crate::plain::if_there;
use crate::private::{Others, Private};
use crate::store::spec::FleetSpec;

/// A fleet that has a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Where its files are.
    pub paths: Paths,
    /// Whose it is.
    pub place: Place,
}

/// Where a fleet lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this host.
    Here {
        /// Whether a process supervises it now.
        supervised: Supervised,
    },
    /// On another host, which this name tells.
    Elsewhere {
        /// The host.
        host: String,
    },
}

impl Found {
    /// The folder of what it keeps.
    pub fn path(&self) -> &Path {
        self.paths.path()
    }

    /// Whether a process of this host supervises it now.
    pub fn is_supervised(&self) -> bool {
        matches!(
            self.place,
            Place::Here {
                supervised: Supervised::By(_)
            }
        )
    }

    /// Whether it is another host's.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.place, Place::Elsewhere { .. })
    }
}

/// The fleets that have a folder, in the order of their names; those of this
/// host before those of others that share the folder.
pub fn list(directories: &Directories) -> Result<Vec<Found>, FolderError> {
    let mut found = Vec::new();
    // Another user could show fleets that are none.
    if Private::open(&directories.state, Others::Look)?.is_none() {
        return Ok(found);
    }
    for host in entries(&directories.fleets_of_hosts())? {
        let Some(folder) = Private::open(&host, Others::Look).ok().flatten() else {
            continue;
        };
        for path in entries(&host)? {
            found.extend(look(&folder, &path, directories));
        }
    }
    found.sort_by(|one, other| key(one).cmp(&key(other)));
    Ok(found)
}

fn key(found: &Found) -> (bool, &str, &Path) {
    (found.is_elsewhere(), &found.name, found.path())
}

fn look(host: &Private, path: &Path, directories: &Directories) -> Option<Found> {
    let name = path.file_name()?.to_str()?;
    let folder = host.folder(name).ok()??;
    let spec = document::read_spec(path);
    let relation = match &spec {
        Ok(spec) => directories.host.relation(&spec.host),
        // As the folder that it is in says.
        Err(_) if host.path() == directories.fleets() => Relation::ThisBoot,
        Err(_) => Relation::Other,
    };
    let place = match relation {
        Relation::ThisBoot | Relation::EarlierBoot => Place::Here {
            supervised: lock::supervised(&folder),
        },
        Relation::Other => Place::Elsewhere {
            host: match &spec {
                Ok(spec) => spec.host.name.clone(),
                Err(_) => host.path().file_name()?.to_string_lossy().into_owned(),
            },
        },
    };
    let is_held = matches!(
        place,
        Place::Here {
            supervised: Supervised::By(_)
        }
    );
    // What nobody holds and has no spec never was a fleet, or is one no more.
    if !is_held && !path.join(SPEC).exists() {
        return None;
    }
    let runtime = match spec {
        Ok(spec) => Some(spec.runtime),
        Err(_) => Remnant::of(path).runtime,
    };
    Some(Found {
        name: name.to_owned(),
        paths: Paths {
            state: path.to_path_buf(),
            runtime: runtime.unwrap_or_else(|| assumed(name, path, directories)),
        },
        place,
    })
}

/// Whether a process has locked the fleet in this folder: it supervises the fleet,
/// or is about to.
pub(crate) fn is_locked(state: &Path) -> bool {
    let folder = Private::open(state, Others::Look).ok().flatten();
    folder.is_some_and(|folder| lock::supervised(&folder) != Supervised::No)
}

/// What the fleets are that have a folder in this one; without those that another
/// version of imgbuild launched.
pub(crate) fn specs(fleets: &Path) -> Vec<FleetSpec> {
    let folders = entries(fleets).unwrap_or_default();
    let specs = folders.iter().map(|folder| document::read_spec(folder));
    specs.filter_map(Result::ok).collect()
}

/// Where the sockets may be of a fleet whose spec does not say: where a new one
/// of its name would have them, unless a fleet that lives has them there.
fn assumed(name: &str, path: &Path, directories: &Directories) -> PathBuf {
    let runtime = directories.runtime.join(name);
    match UnixStream::connect(runtime.join(CONTROL)) {
        Ok(_) => path.join(SOCKETS),
        Err(_) => runtime,
    }
}

/// What is in a folder; nothing in one that is not there.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, FolderError> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let found = if_there(read()).map_err(|source| FolderError::Unreadable {
        path: folder.to_path_buf(),
        source,
    })?;
    Ok(found.unwrap_or_default())
}
