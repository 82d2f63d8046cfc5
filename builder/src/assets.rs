//! Recipes and kernel fragments: the embedded ones, or those of a folder.

use std::path::{Path, PathBuf};
use std::{fs, io};

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));
}

/// The guest's PID 1, a static ELF.
pub const INIT: &[u8] = include_bytes!(env!("IMGBUILD_INIT"));

/// Largest kernel fragment or sources file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// A folder of ours that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// The folder or a file in it cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than such a file can be.
    #[error("{}: {size} bytes; such a file has at most {FILE_MAX}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

/// Text files by name, without their extension.
pub type Texts = Vec<(String, String)>;

/// The built-in recipes, by the names of their files.
pub fn recipes() -> Texts {
    texts(embedded::RECIPES)
}

/// The kernel fragments: every `*.config` of `folder`, or the embedded ones.
pub fn fragments(folder: Option<&Path>) -> Result<Texts, AssetError> {
    folder.map_or_else(
        || Ok(texts(embedded::FRAGMENTS)),
        |folder| read_folder(folder, "config"),
    )
}

/// `sources.toml`: the one of `folder`, or the embedded one.
pub fn sources(folder: Option<&Path>) -> Result<String, AssetError> {
    one("sources.toml", embedded::SOURCES, folder)
}

/// `guest.h`, which goes ahead of the kernel's linker script and C files: the
/// one of `folder`, or the embedded one.
pub fn header(folder: Option<&Path>) -> Result<String, AssetError> {
    one("guest.h", embedded::HEADERS, folder)
}

fn one(name: &str, embedded: &[(&str, &str)], folder: Option<&Path>) -> Result<String, AssetError> {
    match folder {
        Some(folder) => read_file(&folder.join(name)),
        None => Ok(embedded
            .iter()
            .find(|(file, _)| *file == name)
            .expect("the build script embeds it")
            .1
            .to_owned()),
    }
}

fn texts(files: &[(&str, &str)]) -> Texts {
    files
        .iter()
        .map(|(file, text)| (stem(Path::new(file)), (*text).to_owned()))
        .collect()
}

fn read_folder(folder: &Path, extension: &str) -> Result<Texts, AssetError> {
    let unreadable = |source| AssetError::Unreadable {
        path: folder.to_path_buf(),
        source,
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| Ok((stem(&path), read_file(&path)?)))
        .collect()
}

fn read_file(path: &Path) -> Result<String, AssetError> {
    let unreadable = |source| AssetError::Unreadable {
        path: path.to_path_buf(),
        source,
    };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_MAX {
        let path = path.to_path_buf();
        return Err(AssetError::TooLarge { path, size });
    }
    fs::read_to_string(path).map_err(unreadable)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_is_a_small_static_elf() {
        assert_eq!(&INIT[..4], b"\x7fELF");
        // It shrinks by half in the initramfs, which is to stay below 72 KiB.
        assert!(INIT.len() < 144 * 1024, "{} bytes", INIT.len());
    }
}
