//! The base image: the disk that every guest's overlay starts from.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::disk::convert::{ConvertError, convert};
use crate::disk::ext4::{self, Ext4, Ext4Error};
use crate::disk::fill::{FillError, fill};
use crate::disk::qcow2::{Geometry, Qcow2Error};
use crate::durable::folder_of;
use crate::interrupt::Interrupt;
use crate::tree::Tree;

/// Overlays rely on a base that never changes.
const MODE: u32 = 0o444;

/// Why there is no base image.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// No image of this size can be laid out.
    #[error(transparent)]
    Layout(#[from] Qcow2Error),
    /// There is no file system to put into it.
    #[error(transparent)]
    FileSystem(#[from] Ext4Error),
    /// The files do not go into it.
    #[error(transparent)]
    Fill(#[from] FillError),
    /// A file could not be created.
    #[error("cannot create {}: {source}", path.display())]
    Create {
        /// The file, or the folder of a temporary one.
        path: PathBuf,
        source: io::Error,
    },
    /// The image could not be written.
    #[error("cannot make the base image {}: {source}", path.display())]
    Convert { path: PathBuf, source: ConvertError },
}

/// Makes the new file `path` a qcow2 image, read-only, that holds the file
/// system `ext4` with what `tree` has; overlays on it are to have the same size.
///
/// A raw disk is made beside it, sparse, and removed again. On any error no
/// file is left.
pub(crate) fn write_base(
    path: &Path,
    ext4: &Ext4,
    tree: Option<&Tree>,
    interrupt: &Interrupt,
) -> Result<(), BaseError> {
    let geometry = Geometry::of(ext4.size)?;
    let parent = folder_of(path);
    let raw = raw_disk(parent, ext4).map_err(|source| BaseError::Create {
        path: parent.to_owned(),
        source,
    })?;
    ext4::format(raw.path(), ext4, interrupt)?;
    if let Some(tree) = tree {
        fill(raw.as_file(), ext4, tree, interrupt)?;
    }

    let image = create(path)?;
    convert(raw.as_file(), geometry, &image, interrupt).map_err(|source| {
        // The error of the conversion is the one worth reporting.
        let _ = std::fs::remove_file(path);
        BaseError::Convert {
            path: path.to_owned(),
            source,
        }
    })
}

fn raw_disk(folder: &Path, ext4: &Ext4) -> io::Result<tempfile::NamedTempFile> {
    let raw = tempfile::Builder::new()
        .prefix(".base-")
        .suffix(".raw")
        .tempfile_in(folder)?;
    raw.as_file().set_len(ext4.size.bytes())?;
    Ok(raw)
}

fn create(path: &Path) -> Result<File, BaseError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(|source| BaseError::Create {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::disk::tool::{self, ext4};

    fn written(size: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.qcow2");
        write_base(&path, &ext4(size), None, &Interrupt::never().unwrap()).unwrap();
        (dir, path)
    }

    #[test]
    fn a_base_is_a_small_clean_read_only_image() {
        let (dir, base) = written("1G");
        assert!(tool::run("qemu-img", ["check".as_ref(), &*base]).contains("No errors"));
        let meta = fs::metadata(&base).unwrap();
        assert_eq!(meta.mode() & 0o222, 0, "nobody writes to it");
        assert!(meta.len() <= 128 * 1024, "{} bytes", meta.len());
        // The raw disk is gone.
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        let raw = dir.path().join("raw");
        let formats = ["convert", "-O", "raw"].map(AsRef::as_ref);
        tool::run("qemu-img", formats.into_iter().chain([&*base, &*raw]));
        assert_eq!(fs::metadata(&raw).unwrap().size(), 1 << 30);
        tool::run("e2fsck", ["-fn".as_ref(), &*raw]);
    }

    #[test]
    fn two_bases_are_the_same_bytes() {
        let [(_a, first), (_b, second)] = [(); 2].map(|()| written("32M"));
        assert!(fs::read(first).unwrap() == fs::read(second).unwrap());
    }

    #[test]
    fn a_base_that_cannot_be_made_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.qcow2");
        let interrupt = Interrupt::never().unwrap();
        for size in ["64K", "1048577", "5T"] {
            assert!(
                write_base(&path, &ext4(size), None, &interrupt).is_err(),
                "{size}"
            );
        }
        interrupt.raise();
        assert!(write_base(&path, &ext4("1M"), None, &interrupt).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_image_that_is_there_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.qcow2");
        fs::write(&path, "mine").unwrap();
        let error = write_base(&path, &ext4("1M"), None, &Interrupt::never().unwrap()).unwrap_err();
        assert!(
            error.to_string().contains("base.qcow2: File exists"),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
