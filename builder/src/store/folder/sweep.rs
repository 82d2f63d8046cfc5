//! Removes what killed processes left.

use std::fs;
use std::path::Path;

use super::Folder;
use crate::directories::Directories;
use crate::private::{Others, Private};

/// How the folders of trials begin: as no fleet's name does, whose sockets are
/// beside them.
pub(crate) const TRIAL_PREFIX: &str = ".trial-";

/// Removes what trials left whose process was killed, and launches that were
/// before they wrote of a fleet, as far as it can be.
pub(crate) fn sweep(directories: &Directories) {
    // Sockets of a log-in without a session, such as cron's, are elsewhere.
    for runtime in [&directories.runtime, &directories.spare_runtime()] {
        sweep_in(runtime, TRIAL_PREFIX);
    }
    sweep_in(&directories.fleets(), "");
}

/// Removes what has a name that begins so, tells of no fleet, and is nobody's.
fn sweep_in(place: &Path, prefix: &str) {
    let Ok(Some(folder)) = Private::open(place, Others::Look) else {
        return;
    };
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name()) {
        if let Some(name) = name.to_str()
            && name.starts_with(prefix)
            && !place.join(name).join("spec.json").exists()
            && let Err(error) = Folder::sweep(name, &folder)
        {
            tracing::debug!("cannot remove what a killed process left: {error}");
        }
    }
}
