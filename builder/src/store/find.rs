//! Finds the fleet that the user means.

use super::folder::{self, FolderError, Found, Place};
use crate::directories::Directories;

/// Why no fleet is meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error("there is no fleet; `imgbuild launch --count N` starts one")]
    NoFleet,
    /// There is none of that name.
    #[error("there is no fleet named {name}; fleets: {}", fleets.join(", "))]
    Unknown {
        name: String,
        /// The fleets that there are.
        fleets: Vec<String>,
    },
    /// There is more than one, and none was named.
    #[error("there are several fleets: {}; choose one with --fleet", fleets.join(", "))]
    Several {
        /// The fleets that there are.
        fleets: Vec<String>,
    },
    /// It is another host's, which shares the state folder.
    #[error("the fleet {name} is on host {host}: run imgbuild there")]
    Elsewhere { name: String, host: String },
    /// The fleets' folders could not be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// The fleet called `name`, or the only one of this host; supervised or not.
pub(crate) fn find(name: Option<&str>, directories: &Directories) -> Result<Found, FindError> {
    let found = find_anywhere(name, directories)?;
    match &found.place {
        Place::Here { .. } => Ok(found),
        Place::Elsewhere { host } => Err(FindError::Elsewhere {
            host: host.clone(),
            name: found.name,
        }),
    }
}

/// The same, or that of another host where this one has none.
pub(crate) fn find_anywhere(
    name: Option<&str>,
    directories: &Directories,
) -> Result<Found, FindError> {
    choose(name, folder::list(directories)?)
}

/// Those of this host come first in `found`. One whose name nobody chose is meant
/// only by that name.
fn choose(name: Option<&str>, mut found: Vec<Found>) -> Result<Found, FindError> {
    found.retain(|found| !folder::is_private(&found.name) || name == Some(&found.name));
    if name.is_none()
        && let Some(others) = found.iter().position(Found::is_elsewhere)
        && others > 0
    {
        found.truncate(others);
    }
    let fleets = |found: Vec<Found>| found.into_iter().map(|found| found.name).collect();
    match (name, found.len()) {
        (_, 0) => Err(FindError::NoFleet),
        (Some(name), _) => match found.iter().position(|found| found.name == name) {
            Some(at) => Ok(found.swap_remove(at)),
            None => Err(FindError::Unknown {
                name: name.to_owned(),
                fleets: fleets(found),
            }),
        },
        (None, 1) => Ok(found.swap_remove(0)),
        (None, _) => Err(FindError::Several {
            fleets: fleets(found),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::tests::directories;
    use super::super::folder::{Paths, Supervised};
    use super::*;

    #[test]
    fn the_only_fleet_of_this_host_need_not_be_named() {
        let (_temporary, directories) = directories();
        // Names in capitals are those of another host's fleets.
        for (name, fleets, chosen) in [
            (None, &["a"][..], Ok("a")),
            (Some("b"), &["a", "b"], Ok("b")),
            (
                None,
                &["a", "b"],
                Err("several fleets: a, b; choose one with --fleet"),
            ),
            (
                Some("c"),
                &["a", "b"],
                Err("no fleet named c; fleets: a, b"),
            ),
            (None, &[], Err("there is no fleet")),
            (
                Some("c"),
                &[],
                Err("there is no fleet; `imgbuild launch --count N`"),
            ),
            (None, &["a", "B"], Ok("a")),
            (Some("B"), &["a", "B"], Ok("B")),
            (None, &["B"], Ok("B")),
            (None, &["B", "C"], Err("several fleets: B, C")),
            (None, &["a", "run-0123abcd"], Ok("a")),
            (None, &["run-0123abcd"], Err("there is no fleet")),
            (Some("run-0123abcd"), &["run-0123abcd"], Ok("run-0123abcd")),
            (None, &["run-5"], Ok("run-5")),
        ] {
            let place = |name: &str| {
                if name.chars().all(char::is_uppercase) {
                    let host = "h".to_owned();
                    return Place::Elsewhere { host };
                }
                let supervised = Supervised::No;
                Place::Here { supervised }
            };
            let found = fleets
                .iter()
                .map(|name| Found {
                    name: (*name).to_owned(),
                    paths: Paths::of(name, &directories),
                    place: place(name),
                })
                .collect();
            match (choose(name, found), chosen) {
                (Ok(found), Ok(name)) => assert_eq!(found.name, name),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{name:?} of {fleets:?} is {found:?}"),
            }
        }
    }
}
