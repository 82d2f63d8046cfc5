//! A snapshot as a file of JSON, which a user can read before sending it.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_json::error::Category;
use tempfile::Builder;

use super::{Host, SCHEMA};
use crate::sample::source::reason;
use crate::{durable, text};

/// Most bytes of a snapshot; one of a large host has some 30 kB.
const LIMIT: u64 = 4 << 20;

/// Why a snapshot was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It could not be written.
    #[error(
        "cannot write the snapshot {path}: {why}; name a file in a folder that you may write to"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It could not be read.
    #[error("cannot read the snapshot {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It is too long.
    #[error("{path} is longer than {LIMIT} bytes, so it is not a snapshot of a host; {NEXT}")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It ends too early.
    #[error("the snapshot {path} is cut off after {length} bytes; copy it again, or {NEXT}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        length: usize,
    },
    /// It is something else.
    #[error("{path} is not a snapshot of a host: {why}; {NEXT}")]
    Other {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A newer imgbuild wrote it.
    #[error(
        "the snapshot {path} has schema {found}, written by imgbuild {imgbuild}; this imgbuild \
         reads schema {SCHEMA}: use that version or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// The imgbuild that wrote it, as far as it tells.
        imgbuild: String,
    },
    /// It lacks something, or has something of another type.
    #[error("the snapshot {path} does not match schema {SCHEMA}: {why}; {NEXT}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        why: String,
    },
}

/// What a user can do about a file that is of no use.
const NEXT: &str = "make one with `imgbuild check --snapshot FILE`";

impl Host {
    /// Writes the snapshot to `path`, readable by all, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), SnapshotError> {
        let failed = |error: &io::Error| SnapshotError::Write {
            path: path.to_owned(),
            why: reason(error),
        };
        self.write(path).map_err(|error| failed(&error))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        // A rename would put a file in the place of `/dev/stdout`.
        if path.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("there is something that is not a file"));
        }
        let text = text::json_pretty(self)? + "\n";
        let new = durable::beside(&Builder::new(), path, text.as_bytes())?;
        new.as_file()
            .set_permissions(Permissions::from_mode(0o644))?;
        durable::persist(new, path).map(drop)
    }

    /// Reads a snapshot from `path`.
    pub fn load(path: &Path) -> Result<Self, SnapshotError> {
        let text = read(path)?;
        let path = || path.to_owned();
        let document: Value = serde_json::from_slice(&text).map_err(|error| {
            if error.classify() == Category::Eof && !text.is_empty() {
                SnapshotError::Truncated {
                    path: path(),
                    length: text.len(),
                }
            } else {
                SnapshotError::Other {
                    path: path(),
                    why: format!("it is not JSON ({error})"),
                }
            }
        })?;
        let Some(schema) = document.get("schema").and_then(Value::as_u64) else {
            return Err(SnapshotError::Other {
                path: path(),
                why: "it has no number named `schema`".to_owned(),
            });
        };
        if schema > u64::from(SCHEMA) {
            let imgbuild = document.get("imgbuild").and_then(Value::as_str);
            return Err(SnapshotError::Newer {
                path: path(),
                found: schema,
                imgbuild: imgbuild.unwrap_or("of an unknown version").to_owned(),
            });
        }
        let shape = |why| SnapshotError::Shape { path: path(), why };
        // From the text once more, since this error tells the line.
        let host: Self = serde_json::from_slice(&text).map_err(|error| shape(error.to_string()))?;
        let full = serde_json::to_value(&host).map_err(|error| shape(error.to_string()))?;
        match missing(&document, &full) {
            None => Ok(host),
            Some(field) => Err(shape(format!("the field `{field}` is missing"))),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SnapshotError> {
    let failed = |error: io::Error| SnapshotError::Read {
        path: path.to_owned(),
        why: reason(&error),
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    io::Read::read_to_end(&mut io::Read::take(file, LIMIT + 1), &mut text).map_err(failed)?;
    if text.len() as u64 > LIMIT {
        return Err(SnapshotError::TooLong {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// The first field of `full` that is not in `given`: serde takes a field that is
/// missing for a `None`, and a check would then not see what the host had.
fn missing(given: &Value, full: &Value) -> Option<String> {
    let below = |name: String, given: Option<&Value>, full: &Value| match given {
        None => Some(name),
        Some(given) => missing(given, full).map(|field| format!("{name}.{field}")),
    };
    match full {
        Value::Object(fields) => fields
            .iter()
            .find_map(|(name, full)| below(name.clone(), given.get(name), full)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(place, full)| below(place.to_string(), given.get(place), full)),
        _ => None,
    }
}
