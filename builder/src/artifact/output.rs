//! The files of an output folder as they are written.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use super::manifest::FileRecord;
use super::{BASE, INITRAMFS, OVERLAYS};
use crate::artifact::BuildError;
use crate::artifact::files::{create_read_only, write_read_only};
use crate::artifact::trees::check_memory;
use crate::digest::Sha256;
use crate::disk::base::write_base;
use crate::disk::ext4::Ext4;
use crate::disk::overlay::{self, Overlay, write_overlays};
use crate::disk::qcow2::Backing;
use crate::initramfs::pack;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::recipe::Recipe;
use crate::staging::Staging;
use crate::tree::Tree;
use crate::units::{ByteSize, GuestRange};

/// The files of an output folder as they are written.
pub(super) struct Output<'a> {
    staging: &'a Staging,
    pub(super) files: BTreeMap<String, FileRecord>,
}

impl<'a> Output<'a> {
    pub(super) fn new(staging: &'a Staging) -> Self {
        Self {
            staging,
            files: BTreeMap::new(),
        }
    }

    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), BuildError> {
        let path = self.staging.path().join(name);
        write_read_only(&path, bytes).map_err(|source| BuildError::Output { path, source })?;
        self.files.insert(
            name.to_owned(),
            FileRecord {
                sha256: Sha256::of_bytes(bytes),
                size: bytes.len() as u64,
            },
        );
        Ok(())
    }

    pub(super) fn copy(&mut self, from: &Path, name: &str) -> Result<(), BuildError> {
        let bytes = fs::read(from).map_err(|source| BuildError::Output {
            path: from.to_path_buf(),
            source,
        })?;
        self.write(name, &bytes)
    }

    pub(super) fn initramfs(
        &mut self,
        recipe: &Recipe,
        tree: &Tree,
        epoch: u32,
    ) -> Result<(), BuildError> {
        let path = self.staging.path().join(INITRAMFS);
        let file = match create_read_only(&path) {
            Ok(file) => file,
            Err(source) => return Err(BuildError::Output { path, source }),
        };
        let stats = pack(tree, epoch, file).map_err(|source| BuildError::Pack { path, source })?;
        check_memory(recipe, tree.memory(), stats.packed)?;
        let record = self.record(INITRAMFS)?;
        self.files.insert(INITRAMFS.to_owned(), record);
        Ok(())
    }

    pub(super) fn base(
        &mut self,
        ext4: &Ext4,
        tree: Option<&Tree>,
        interrupt: &Interrupt,
    ) -> Result<(), BuildError> {
        let path = self.staging.path().join(BASE);
        write_base(&path, ext4, tree, interrupt)?;
        let record = self.record(BASE)?;
        self.files.insert(BASE.to_owned(), record);
        Ok(())
    }

    /// Writes overlays, all of the same bytes, and records the first for all.
    pub(super) fn overlays(
        &mut self,
        count: u32,
        size: ByteSize,
        interrupt: &Interrupt,
    ) -> Result<(), BuildError> {
        let path = self.staging.path().join(OVERLAYS);
        let made = DirBuilder::new().mode(0o755).create(&path);
        made.map_err(|source| BuildError::Output {
            path: path.clone(),
            source,
        })?;
        // Relative, so that the folder can be moved.
        let backing = Backing::new(Path::new("..").join(BASE))?;
        let overlay = Overlay::new(&backing, size)?;
        let guests = GuestRange::first(count).expect("the command line bounds the count");
        let bar = progress::bar(count.into(), "overlays");
        write_overlays(&path, guests, &overlay, interrupt, || bar.inc(1))?;
        bar.finish_and_clear();
        let mut first = None;
        for guest in guests.iter() {
            let name = format!("{OVERLAYS}/{}", overlay::name(guest));
            let record = match &first {
                Some(record) => FileRecord::clone(record),
                None => first.insert(self.record(&name)?).clone(),
            };
            self.files.insert(name, record);
        }
        Ok(())
    }

    /// Hashes a file of the folder.
    fn record(&self, name: &str) -> Result<FileRecord, BuildError> {
        let path = self.staging.path().join(name);
        let hash = || {
            Ok(FileRecord {
                sha256: Sha256::of_file(&path)?,
                size: fs::metadata(&path)?.len(),
            })
        };
        hash().map_err(|source| BuildError::Output {
            path: path.clone(),
            source,
        })
    }
}
