//! Digests of large files, remembered for as long as the file is unchanged.
//!
//! Hashing a kernel tarball takes longer than all other steps of a warm build.

use std::io;
use std::path::Path;

use super::Sha256;
use crate::notes::Notes;

/// Remembered digests, in a folder of the cache.
#[derive(Debug, Clone)]
pub struct Memo(Notes);

impl Memo {
    /// The memo kept in the cache folder `cache`.
    pub fn in_cache(cache: &Path) -> Self {
        Self(Notes::kept_in(cache.join("digests")))
    }

    /// The digest of the file at `path`, from memory if it is unchanged.
    pub fn of_file(&self, path: &Path) -> io::Result<Sha256> {
        self.0.recall(path, "sha256", |path| Sha256::of_file(path))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_that_changes_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let memo = Memo::in_cache(folder.path());
        let path = folder.path().join("file");
        for text in ["one", "two"] {
            fs::write(&path, text).unwrap();
            assert_eq!(memo.of_file(&path).unwrap(), Sha256::of_bytes(text));
        }
        let error = memo.of_file(&folder.path().join("gone")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
