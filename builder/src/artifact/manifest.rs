//! `manifest.json` and `SHA256SUMS`: what an output folder holds and where it
//! came from.
//!
//! Nothing in it depends on the clock, a path, the cache or the number of
//! jobs, so equal inputs give equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MANIFEST, SHA256SUMS};
use crate::digest::Sha256;
use crate::kernel::{Format, SourceInfo, Toolchain};
use crate::recipe::Recipe;
use crate::units::ByteSize;
use crate::{plain, text};

/// The version of the manifest's shape that this program writes and reads.
pub(crate) const MANIFEST_VERSION: u32 = 2;

/// Largest manifest that is read, in bytes: 100,000 overlays need about 14 MiB.
const FILE_MAX: u64 = 64 << 20;

/// What an output folder holds and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Shape of this document; see [`MANIFEST_VERSION`].
    pub manifest_version: u32,
    /// The imgbuild that built it.
    pub imgbuild: String,
    /// The recipe as resolved.
    pub recipe: Recipe,
    /// Options that affect content.
    pub options: Options,
    /// Where the kernel came from.
    pub kernel: KernelRecord,
    /// Kernel command line of a guest, before what the launcher adds.
    pub command_line: String,
    /// The SSH server of the image that guests start, a path in the guest; `None`
    /// where init serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_server: Option<String>,
    /// The recipe's own files that were packed: the root file system as
    /// `rootfs`, the others by path in the guest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, FileRecord>,
    /// Every file but this one and `SHA256SUMS`, by path in the folder.
    pub files: BTreeMap<String, FileRecord>,
}

/// Options of the command line that affect content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Number of overlays.
    pub overlays: u32,
    /// Virtual size of the base and of each overlay.
    pub disk_size: ByteSize,
    /// Timestamp of everything that carries one, in seconds since 1970.
    pub source_date_epoch: u32,
}

/// Where the kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelRecord {
    /// Name of the kernel's file in the folder.
    pub file: String,
    /// ELF with a PVH note, or bzImage.
    pub format: Format,
    /// What it was built from, or where it came from.
    pub source: SourceInfo,
    /// Digest of the configuration asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_digest: Option<Sha256>,
    /// What built it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<Toolchain>,
    /// Least memory of a guest that it starts in, where its file says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// What a guest of it does without, as boot verification found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<Part>,
}

/// What a guest may do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Its disk.
    Disk,
    /// Its network.
    Net,
    /// Its SSH server.
    Ssh,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Net => "network",
            Self::Ssh => "SSH",
        }
    }
}

impl KernelRecord {
    /// What its guests do without, and why, as a sentence; `None` where that is
    /// nothing.
    pub(crate) fn shortfall(&self) -> Option<String> {
        let names: Vec<_> = self.lacks.iter().map(|part| part.name()).collect();
        let (last, others) = names.split_last()?;
        let names = match others {
            [] => (*last).to_owned(),
            others => format!("{} and no {last}", others.join(", no ")),
        };
        Some(format!(
            "guests of this kernel have no {names}, because no driver for them is built into it \
             (CONFIG_VIRTIO_MMIO, CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES, CONFIG_VIRTIO_BLK, \
             CONFIG_VIRTIO_NET, each =y and not =m); their console works"
        ))
    }

    /// Whether somebody can log in to its guests, as far as is known.
    pub(crate) fn serves_ssh(&self) -> bool {
        !self.lacks.contains(&Part::Ssh)
    }
}

/// One file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// SHA-256 of its content.
    pub sha256: Sha256,
    /// Length in bytes.
    pub size: u64,
}

/// A manifest that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not there, or not readable.
    #[error(
        "cannot read {}: {source}; `imgbuild build RECIPE --out {}` builds an output folder there",
        path.display(), path.parent().unwrap_or(path).display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Larger than a manifest can be.
    #[error("{}: {size} bytes; a manifest has at most {FILE_MAX}; build the folder again", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
    /// Not JSON, or not of this shape.
    #[error("{}: {source}; build the folder again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// Of another version.
    #[error(
        "{}: manifest version {found}, and this imgbuild reads {MANIFEST_VERSION}; \
         build the folder again or use the imgbuild that wrote it",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it says.
        found: u64,
    },
    /// Names a file outside the folder.
    #[error("{}: names the file {name:?}, which is outside the output folder; build it again", path.display())]
    Outside {
        /// The manifest.
        path: PathBuf,
        /// The name in it.
        name: String,
    },
    /// Could not be written.
    #[error("{}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Manifest {
    /// Reads the manifest of an output folder, and gives its text beside it.
    pub fn load_with_text(folder: &Path) -> Result<(Self, Vec<u8>), ManifestError> {
        let path = folder.join(MANIFEST);
        let unreadable = |source| ManifestError::Unreadable {
            path: path.clone(),
            source,
        };
        let mut file = plain::open(&path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if size > FILE_MAX {
            return Err(ManifestError::TooLarge { path, size });
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(unreadable)?;
        Ok((Self::parse(&path, &text)?, text))
    }

    /// Parses a manifest's text; `path` names it in messages.
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            manifest_version: u64,
        }
        let path = path.to_path_buf();
        let malformed = |source| ManifestError::Malformed {
            path: path.clone(),
            source,
        };
        let Version { manifest_version } = serde_json::from_slice(text).map_err(malformed)?;
        if manifest_version != u64::from(MANIFEST_VERSION) {
            return Err(ManifestError::Version {
                path,
                found: manifest_version,
            });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(malformed)?;
        let names = manifest.files.keys().chain([&manifest.kernel.file]);
        if let Some(name) = names.into_iter().find(|name| !is_inside(name)) {
            let name = name.clone();
            return Err(ManifestError::Outside { path, name });
        }
        Ok(manifest)
    }

    /// Writes `manifest.json` and `SHA256SUMS` into `folder`.
    pub fn store(&self, folder: &Path) -> Result<(), ManifestError> {
        let mut json = text::json_pretty(self).expect("a manifest is plain data");
        json.push('\n');
        write(&folder.join(MANIFEST), json.as_bytes())?;
        let sums = self.sums(json.as_bytes());
        write(&folder.join(SHA256SUMS), sums.as_bytes())
    }

    /// Writes them again, into a folder that has them and no other name yet.
    pub fn store_again(&self, folder: &Path) -> Result<(), ManifestError> {
        for name in [MANIFEST, SHA256SUMS] {
            let path = folder.join(name);
            fs::remove_file(&path).map_err(|source| ManifestError::Unwritable { path, source })?;
        }
        self.store(folder)
    }

    /// The text of `SHA256SUMS`; `json` is this manifest as it stands on disk.
    pub fn sums(&self, json: &[u8]) -> String {
        let mut sums = String::new();
        for (name, record) in &self.files {
            writeln!(sums, "{}  {name}", record.sha256).expect("a String takes it");
        }
        writeln!(sums, "{}  {MANIFEST}", Sha256::of_bytes(json)).expect("a String takes it");
        sums
    }
}

/// The files of an output folder by its manifest, of whatever version; `None`
/// where it has none that imgbuild wrote.
pub(crate) fn listed(folder: &Path) -> Option<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Listed {
        #[serde(rename = "manifest_version")]
        _version: u64,
        // Only the keys matter, but JSON has no sets.
        files: BTreeMap<String, serde_json::Value>,
    }
    let mut file = plain::open(&folder.join(MANIFEST)).ok()?;
    if file.metadata().ok()?.len() > FILE_MAX {
        return None;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).ok()?;
    let manifest: Listed = serde_json::from_slice(&text).ok()?;
    let own = [MANIFEST, SHA256SUMS].map(str::to_owned);
    Some(manifest.files.into_keys().chain(own).collect())
}

/// Writes a file that is not written again.
fn write(path: &Path, bytes: &[u8]) -> Result<(), ManifestError> {
    super::files::write_read_only(path, bytes).map_err(|source| ManifestError::Unwritable {
        path: path.to_path_buf(),
        source,
    })
}

/// Whether a name from a manifest stays inside its folder.
fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
}
