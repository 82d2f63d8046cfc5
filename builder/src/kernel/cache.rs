//! Cached kernels: `<cache>/kernel/<key>/`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::Kernel;
use super::prebuilt::Format;
use super::source::SourceInfo;
use super::toolchain::Toolchain;
use crate::digest::Sha256;
use crate::lock::{Lock, TEMPORARY};
use crate::{durable, plain};

const IMAGE: &str = "vmlinux";
const CONFIG: &str = "kernel.config";
const RECORD: &str = "build.json";

/// What `build.json` says of the files beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) image_sha256: Sha256,
    pub(crate) config_sha256: Sha256,
    pub(crate) version: String,
    pub(crate) source: SourceInfo,
    pub(crate) toolchain: Toolchain,
}

/// The place of one kernel.
pub(crate) struct Entry {
    folder: PathBuf,
}

impl Entry {
    pub(crate) fn new(cache: &Path, key: &Sha256) -> Self {
        Self {
            folder: cache.join("kernel").join(key.to_string()),
        }
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.folder.with_extension("lock")
    }

    /// Removes what processes left that were killed while they put a kernel in
    /// its place.
    pub(crate) fn sweep(&self, lock: &Lock) {
        lock.sweep(durable::folder_of(&self.folder));
    }

    /// The kernel kept here, unless it is missing or damaged.
    pub(crate) fn load(&self) -> Option<Kernel> {
        let record = plain::read(&self.folder.join(RECORD)).ok()?;
        let record: Record = serde_json::from_slice(&record).ok()?;
        let config = plain::read_to_string(&self.folder.join(CONFIG)).ok()?;
        let image = self.folder.join(IMAGE);
        let is_whole = Sha256::of_bytes(&config) == record.config_sha256
            && Sha256::of_file(&image).ok()? == record.image_sha256;
        if !is_whole {
            tracing::warn!("{} is damaged: building it again", self.folder.display());
            return None;
        }
        Some(Kernel {
            image,
            format: Format::Elf,
            sha256: record.image_sha256,
            version: Some(record.version),
            memory: None,
            source: record.source,
            config: Some(config),
            config_digest: Some(record.config_sha256),
            toolchain: Some(record.toolchain),
            cached: true,
        })
    }

    /// Puts a kernel here, all of it or nothing; the caller holds the lock.
    pub(crate) fn store(&self, image: &Path, config: &str, record: &Record) -> io::Result<()> {
        let parent = durable::folder_of(&self.folder);
        let key = self.folder.file_name().unwrap_or_default();
        let temporary = tempfile::Builder::new()
            .prefix(&format!("{}{TEMPORARY}", key.display()))
            .tempdir_in(parent)?;
        let path = temporary.path();
        fs::copy(image, path.join(IMAGE))?;
        fs::write(path.join(CONFIG), config)?;
        fs::write(path.join(RECORD), serde_json::to_vec_pretty(record)?)?;
        plain::if_there(fs::remove_dir_all(&self.folder))?;
        durable::rename(path, &self.folder)?;
        // It is there no more.
        let _ = temporary.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::trace;
    use crate::kernel::source::Origin;

    fn store(entry: &Entry, folder: &Path) {
        let image = folder.join("image");
        fs::write(&image, "kernel").unwrap();
        let record = Record {
            image_sha256: Sha256::of_bytes("kernel"),
            config_sha256: Sha256::of_bytes("CONFIG_A=y\n"),
            version: "6.12.57".to_owned(),
            source: SourceInfo {
                origin: Origin::Tarball,
                version: Some("6.12.57".to_owned()),
                sha256: Some(Sha256::of_bytes("tarball")),
            },
            toolchain: Toolchain {
                compiler: "gcc 12".to_owned(),
                linker: "ld 2.40".to_owned(),
            },
        };
        entry.store(&image, "CONFIG_A=y\n", &record).unwrap();
    }

    #[test]
    fn a_kernel_is_kept_whole_and_a_damaged_one_is_not_used() {
        let cache = tempfile::tempdir().unwrap();
        fs::create_dir(cache.path().join("kernel")).unwrap();
        let entry = Entry::new(cache.path(), &Sha256::of_bytes("key"));
        assert!(entry.load().is_none());
        for damage in [IMAGE, CONFIG, RECORD] {
            store(&entry, cache.path());
            let kernel = entry.load().unwrap();
            assert_eq!(kernel.config.as_deref(), Some("CONFIG_A=y\n"));
            assert!(kernel.cached);
            fs::write(entry.folder.join(damage), "kernex").unwrap();
            assert!(entry.load().is_none(), "{damage}");
        }
        let _ = trace::take();
        store(&entry, cache.path());
        let [settled, renamed] = &trace::take()[..] else {
            panic!("other steps");
        };
        let temporary = format!("settled {}.tmp-", Sha256::of_bytes("key"));
        assert!(settled.starts_with(&temporary), "{settled}");
        assert!(renamed.starts_with("renamed "), "{renamed}");
        assert!(entry.load().is_some());
        assert_eq!(
            fs::read_dir(cache.path().join("kernel")).unwrap().count(),
            1
        );
    }
}
