//! Writes a bundle, again after each stage, so that a run that is killed at any
//! moment leaves a whole bundle of what it reached.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::files::{BUNDLE, HISTOGRAMS, PAGE, RUN, SAMPLES, SHA256SUMS, read_sums, sums};
use super::open::{OpenError, open_with_sums};
use super::types::Run;
use super::{histograms, samples};
use crate::digest::Sha256;
use crate::plain::if_there;
use crate::staging::{Staging, StagingError};
use crate::text;

/// The folder that a run writes its bundle into.
#[derive(Debug)]
pub struct Bundle {
    folder: PathBuf,
    /// Digest of the list of digests that this run wrote last or resumes from.
    written: Option<Sha256>,
}

/// A bundle that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder cannot be replaced, or its parent does not take a new one.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// There is one already.
    #[error(
        "{} holds a bundle already; `imgbuild density --resume {}` continues its run, and another \
         folder is chosen with --bundle",
        path.display(), path.display()
    )]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// Somebody else wrote it meanwhile.
    #[error(
        "cannot write the bundle {}: another program changed it since this run wrote it last; \
         move it away, and the run writes a new one",
        path.display()
    )]
    Changed {
        /// The folder.
        path: PathBuf,
    },
    /// A file of it could not be written.
    #[error(
        "cannot write {file} of the bundle {}: {source}; the bundle is as it was before, so free \
         space or choose another folder with --bundle",
        path.display()
    )]
    File {
        /// The folder.
        path: PathBuf,
        /// The file.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A figure has no value that JSON can hold.
    #[error(
        "cannot write the bundle {}: the run has a figure that is not a number ({source}); this is \
         a bug of imgbuild",
        path.display()
    )]
    NotANumber {
        /// The folder.
        path: PathBuf,
        /// What the JSON reader says of it.
        source: serde_json::Error,
    },
}

impl Bundle {
    /// A bundle in a folder that is not there or empty.
    pub fn create(folder: &Path) -> Result<Self, WriteError> {
        let bundle = Self {
            folder: folder.to_owned(),
            written: None,
        };
        if bundle.found().is_some() && (BUNDLE.listed)(folder).is_some() {
            let path = bundle.folder;
            return Err(WriteError::Taken { path });
        }
        // A run that could not write its bundle is refused before it begins.
        drop(Staging::new(folder, BUNDLE)?);
        Ok(bundle)
    }

    /// The bundle of a run that is to be continued, and what that reached.
    pub fn resume(folder: &Path) -> Result<(Self, Run), OpenError> {
        let (run, sums) = open_with_sums(folder)?;
        let bundle = Self {
            folder: folder.to_owned(),
            written: Some(Sha256::of_bytes(sums)),
        };
        Ok((bundle, run))
    }

    /// Puts a bundle of what was reached in the place of the one before, with the
    /// page that shows it, where there is one.
    pub fn write(&mut self, run: &Run, page: Option<&str>) -> Result<(), WriteError> {
        let path = || self.folder.clone();
        if self
            .found()
            .is_some_and(|found| Some(found) != self.written)
        {
            return Err(WriteError::Changed { path: path() });
        }
        let mut json = text::json_pretty(run).expect("a run is plain data");
        json.push('\n');
        // JSON has no name for NaN: what a reader is going to find counts.
        let run: Run = serde_json::from_str(&json).map_err(|source| WriteError::NotANumber {
            path: path(),
            source,
        })?;
        let (samples, histograms) = (samples::csv(&run), histograms::csv(&run));
        let mut files = BTreeMap::from([
            (RUN, &*json),
            (SAMPLES, &*samples),
            (HISTOGRAMS, &*histograms),
        ]);
        files.extend(page.map(|page| (PAGE, page)));
        let sums = sums(&files);
        files.insert(SHA256SUMS, &sums);
        let staging = Staging::new(&self.folder, BUNDLE)?;
        for (file, text) in files {
            write_new(&staging.path().join(file), text).map_err(|source| WriteError::File {
                path: path(),
                file,
                source,
            })?;
        }
        staging.commit()?;
        self.written = Some(Sha256::of_bytes(&sums));
        Ok(())
    }

    /// Digest of the list of digests that is there.
    fn found(&self) -> Option<Sha256> {
        let sums = if_there(read_sums(&self.folder)).ok()??;
        Some(Sha256::of_bytes(sums))
    }
}

/// Writes a file that those may read whom the umask lets.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::example::example;
    use super::super::open::open;
    use super::*;
    use crate::durable::tests::Small;
    use crate::rights;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn each_checkpoint_is_a_whole_bundle_that_replaces_the_one_before() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        let mut run = example();
        let last = run.stages.pop().unwrap();
        let mut bundle = Bundle::create(&folder).unwrap();
        assert_eq!(names(parent.path()), <[&str; 0]>::default());
        bundle.write(&run, None).unwrap();
        assert_eq!(names(&folder), [SHA256SUMS, HISTOGRAMS, RUN, SAMPLES]);
        let first = fs::read_to_string(folder.join(SAMPLES)).unwrap();
        run.stages.push(last);
        bundle.write(&run, Some("<!doctype html>")).unwrap();
        assert_eq!(names(&folder), [SHA256SUMS, HISTOGRAMS, PAGE, RUN, SAMPLES]);
        let second = fs::read_to_string(folder.join(SAMPLES)).unwrap();
        assert!(second.len() > first.len());
        assert_eq!(names(parent.path()), ["bundle"]);
        let back: Run = serde_json::from_slice(&fs::read(folder.join(RUN)).unwrap()).unwrap();
        assert_eq!(back, run);
    }

    #[test]
    fn nothing_is_replaced_but_what_this_run_wrote() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        let run = example();
        let mut bundle = Bundle::create(&folder).unwrap();
        bundle.write(&run, None).unwrap();
        let error = Bundle::create(&folder).unwrap_err().to_string();
        assert!(error.contains("holds a bundle already"), "{error}");

        let mut other = Bundle::create(&parent.path().join("other")).unwrap();
        other.write(&example(), Some("page")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(parent.path().join("other"), &folder).unwrap();
        let error = bundle.write(&run, None).unwrap_err();
        assert!(matches!(error, WriteError::Changed { .. }), "{error}");

        let others = parent.path().join("others");
        fs::create_dir(&others).unwrap();
        fs::write(others.join("notes"), "mine").unwrap();
        let error = Bundle::create(&others).unwrap_err().to_string();
        assert!(
            error.contains("--bundle") && error.contains("is not empty"),
            "{error}"
        );
        assert_eq!(names(&others), ["notes"]);
    }

    #[test]
    fn a_bundle_that_cannot_be_written_leaves_the_one_before() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        let mut run = example();
        let mut bundle = Bundle::create(&folder).unwrap();
        bundle.write(&run, None).unwrap();
        run.lasted = f64::NAN;
        let error = bundle.write(&run, None).unwrap_err();
        assert!(matches!(error, WriteError::NotANumber { .. }), "{error}");
        assert_eq!(names(parent.path()), ["bundle"]);
        let kept: Run = serde_json::from_slice(&fs::read(folder.join(RUN)).unwrap()).unwrap();
        assert_eq!(kept, example());
    }

    #[test]
    fn a_full_disk_leaves_the_bundle_before_and_is_reported() {
        if !rights::may_mount() {
            return;
        }
        let small = Small::mount(256);
        let folder = small.0.path().join("bundle");
        let mut run = example();
        let stages = std::mem::take(&mut run.stages);
        run.series.clear();
        run.hold = None;
        let mut bundle = Bundle::create(&folder).unwrap();
        bundle.write(&run, None).unwrap();
        let before = run.clone();
        run.stages = stages;
        let error = bundle.write(&run, None).unwrap_err().to_string();
        for said in ["No space left", "/bundle", "as it was before", "--bundle"] {
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(open(&folder).unwrap(), before);
        assert_eq!(names(small.0.path()), ["bundle"]);
        // It is written again once there is room.
        bundle.write(&before, Some("page")).unwrap();
        assert_eq!(open(&folder).unwrap(), before);
    }

    #[test]
    fn those_may_read_it_whom_the_umask_lets() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("bundle");
        let probe = parent.path().join("probe");
        fs::write(&probe, "").unwrap();
        let mut bundle = Bundle::create(&folder).unwrap();
        bundle.write(&example(), None).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions();
        for name in names(&folder) {
            assert_eq!(mode(&folder.join(name)), mode(&probe));
        }
        let others = Permissions::from_mode(0o002);
        assert_eq!(mode(&folder).mode() & others.mode(), 0);
    }
}
