//! An output folder → guests to start: checked artifacts, overlays,
//! identities.

use std::io;
use std::path::{Path, PathBuf};

use super::folder::Folder;
use super::key::Key;
use super::launch::LaunchError;
use super::supervisor::Plan;
use super::{deadline, identity};
use crate::artifact::{self, Manifest};
use crate::digest::Sha256;
use crate::disk::overlay::{Overlay, write_overlays};
use crate::disk::qcow2::{Backing, BackingFormat};
use crate::host::{self, tsc};
use crate::interrupt::Interrupt;
use crate::units::{ByteSize, GuestRange};
use crate::vmm::{Accel, GuestSpec, Net, Sharing, qemu};

/// The artifacts that a guest runs from, checked against their manifest.
#[derive(Debug)]
pub struct Artifacts {
    /// The output folder, absolute.
    pub folder: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the manifest's text, which names every file's digest.
    pub digest: Sha256,
}

impl Artifacts {
    /// Opens an output folder and re-hashes what guests run from.
    pub fn open(folder: &Path) -> Result<Self, LaunchError> {
        let (manifest, text) = Manifest::load_with_text(folder)?;
        let folder = std::path::absolute(folder)?;
        for file in [
            manifest.kernel.file.as_str(),
            artifact::INITRAMFS,
            artifact::BASE,
        ] {
            let path = folder.join(file);
            let wrong = |reason: String| LaunchError::Artifact {
                path: path.clone(),
                reason,
            };
            let record = manifest
                .files
                .get(file)
                .ok_or_else(|| wrong("not in the manifest".to_owned()))?;
            let found = Sha256::of_file(&path).map_err(|error| wrong(error.to_string()))?;
            if found != record.sha256 {
                return Err(wrong(format!(
                    "sha256 {found}, and the manifest says {}",
                    record.sha256
                )));
            }
        }
        Ok(Self {
            folder,
            manifest,
            digest: Sha256::of_bytes(text),
        })
    }
}

/// What all guests of a fleet have in common.
#[derive(Debug, Clone, Copy)]
pub struct Common<'a> {
    /// The artifacts they run from.
    pub artifacts: &'a Artifacts,
    /// The fleet's folders.
    pub folder: &'a Folder,
    /// What runs their code.
    pub accel: Accel,
    /// What KSM may merge.
    pub sharing: Sharing,
    /// How they are connected.
    pub net: Net,
    /// RAM of each.
    pub memory: ByteSize,
    /// Kernel parameters after the artifacts' own.
    pub parameters: &'a str,
    /// Who may log in to them, and where.
    pub login: Option<&'a Login>,
}

/// How a user logs in to a fleet's guests.
#[derive(Debug, Clone)]
pub struct Login {
    /// The key that they let in.
    pub key: Key,
    /// A loopback port for each guest, in order.
    pub ports: Vec<u16>,
}

impl Common<'_> {
    /// Writes the overlays and identities of `count` guests, and plans them.
    pub fn plan(&self, count: u32, interrupt: &Interrupt) -> Result<Vec<Plan>, LaunchError> {
        let manifest = &self.artifacts.manifest;
        let base = self.artifacts.folder.join(artifact::BASE);
        let backing = Backing::new(base, BackingFormat::Qcow2)?;
        let overlay = Overlay::new(&backing, manifest.options.disk_size)?;
        let guests = GuestRange::first(count)?;
        write_overlays(&self.folder.overlays(), guests, &overlay, interrupt, || {})?;
        let command_line = format!(
            "{} tsc_early_khz={} lapic_khz={} {}",
            manifest.command_line,
            tsc::measure_khz(),
            qemu::LAPIC_KHZ,
            self.parameters
        );
        let authorized_key = self.login.map(|login| login.key.public);
        let deadline = deadline::scaled(count, host::cpus());
        guests
            .iter()
            .map(|index| {
                let identity = identity::create(index, self.net, authorized_key, deadline)
                    .map_err(io::Error::from)?;
                Ok(Plan {
                    index,
                    console: self.folder.console(index),
                    host_key: identity::host_key(&identity),
                    spec: GuestSpec {
                        id: index.to_string(),
                        memory: self.memory,
                        kernel: self.artifacts.folder.join(&manifest.kernel.file),
                        kernel_format: manifest.kernel.format,
                        initramfs: self.artifacts.folder.join(artifact::INITRAMFS),
                        command_line: command_line.trim_end().to_owned(),
                        disk: Some(self.folder.overlay(index)),
                        net: self.net,
                        ssh_port: self
                            .login
                            .and_then(|login| login.ports.get(index.get() as usize).copied()),
                        identity: Some(
                            self.folder
                                .write_identity(index, identity.encode().as_slice())?,
                        ),
                        accel: self.accel,
                        sharing: self.sharing,
                    },
                })
            })
            .collect()
    }
}
