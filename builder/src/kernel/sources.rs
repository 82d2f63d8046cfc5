//! `kernel-config/sources.toml`: where kernel sources come from.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::digest::Sha256;
use crate::download::Address;

/// Where to look for a kernel source that nobody named.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sources {
    /// The one that is the same everywhere.
    pub pinned: Pinned,
    /// Those that a distribution may have installed, in order of preference.
    #[serde(default)]
    pub distribution: Vec<Distribution>,
}

/// A release of kernel.org.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Its version.
    pub version: String,
    /// Its tarball.
    pub url: Address,
    /// The tarball's digest.
    pub sha256: Sha256,
}

/// A tarball that comes with a package, trusted by the package's signature.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Its absolute path; one `*` in the file name stands for any text.
    pub glob: PathBuf,
    /// The package.
    pub package: String,
}

/// A `sources.toml` that cannot be used. Its text is not quoted, as the TOML
/// reader would: an address in it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("the list of kernel sources is malformed, in line {line}: {reason}")]
pub struct SourcesError {
    line: usize,
    reason: String,
}

impl Sources {
    /// Reads the text of a `sources.toml`.
    pub fn parse(text: &str) -> Result<Self, SourcesError> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            SourcesError {
                line: text
                    .bytes()
                    .take(start)
                    .filter(|byte| *byte == b'\n')
                    .count()
                    + 1,
                reason: error.message().to_owned(),
            }
        })
    }

    /// The newest tarball of the first distribution entry that matches any file.
    pub fn installed(&self) -> Option<(&Distribution, PathBuf)> {
        self.distribution
            .iter()
            .find_map(|distribution| Some((distribution, newest(&distribution.glob)?)))
    }
}

fn newest(glob: &Path) -> Option<PathBuf> {
    let pattern = glob.file_name()?.to_str()?;
    let matches = |name: &str| match pattern.split_once('*') {
        Some((before, after)) => name
            .strip_prefix(before)
            .is_some_and(|rest| rest.ends_with(after)),
        None => name == pattern,
    };
    fs::read_dir(glob.parent()?)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| matches(name))
        .max_by(|a, b| compare_versions(a, b))
        .map(|name| glob.with_file_name(name))
}

/// Compares texts with the numbers in them taken as numbers: 6.9 before 6.12.
fn compare_versions(a: &str, b: &str) -> Ordering {
    pieces(a).cmp(pieces(b)).then_with(|| a.cmp(b))
}

fn pieces(text: &str) -> impl Iterator<Item = (u64, &str)> {
    text.split_inclusive(|c: char| !c.is_ascii_digit())
        .map(|piece| {
            let digits = piece.trim_end_matches(|c: char| !c.is_ascii_digit());
            (digits.parse().unwrap_or(0), &piece[digits.len()..])
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(folder: &Path) -> Sources {
        let sha256 = Sha256::of_bytes("");
        let text = format!(
            "[pinned]\nversion = \"6.12.64\"\nurl = \"https://example.org/linux.tar.xz\"\n\
             sha256 = \"{sha256}\"\n\
             [[distribution]]\nglob = \"{0}/linux-*.tar.xz\"\npackage = \"linux-source\"\n\
             [[distribution]]\nglob = \"{0}/other.tar.gz\"\npackage = \"other\"\n",
            folder.display()
        );
        Sources::parse(&text).unwrap()
    }

    #[test]
    fn the_newest_installed_version_wins() {
        let folder = tempfile::tempdir().unwrap();
        let sources = sources(folder.path());
        assert!(sources.installed().is_none());
        for name in [
            "other.tar.gz",
            "linux-6.9.tar.xz",
            "linux-6.12.tar.xz",
            "linux-7.tar.gz",
        ] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let (distribution, path) = sources.installed().unwrap();
        assert_eq!(distribution.package, "linux-source");
        assert_eq!(path, folder.path().join("linux-6.12.tar.xz"));
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        for (older, newer) in [
            ("6.9", "6.12"),
            ("6.12", "6.12.1"),
            ("6.12", "7"),
            ("a1", "a2"),
        ] {
            assert_eq!(
                compare_versions(older, newer),
                Ordering::Less,
                "{older} {newer}"
            );
        }
    }

    #[test]
    fn a_malformed_list_is_refused() {
        for text in [
            "",
            "[pinned]\nversion = \"1\"\nurl = \"no url\"\nsha256 = \"\"\n",
        ] {
            assert!(Sources::parse(text).is_err(), "{text}");
        }
        let text = "[pinned]\nversion = \"1\"\nurl = \"https://me:secret@h:99999\"\n";
        let error = Sources::parse(text).unwrap_err().to_string();
        assert!(error.contains("line 3: the address"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}
