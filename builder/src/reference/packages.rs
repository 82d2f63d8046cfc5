//! Debian's packages that the reference's guests are made of: found by apt-cache(8),
//! fetched by apt-get(8) as an ordinary user, kept in the cache, and unpacked. Nothing
//! is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::apt::{self, Record};
use crate::digest::Sha256;
use crate::digest::memo::Memo;
use crate::directories::{Directories, DirectoriesError};
use crate::interrupt::Interrupt;
use crate::lock::{Lock, TEMPORARY};
use crate::process::{self, ProcessError};
use crate::progress;
use crate::system::{Doing as _, SystemError};
use crate::text::printable;

/// The package that needs the newest kernel for clouds, and how that one's name begins.
const NEWEST_KERNEL: &str = "linux-image-cloud-amd64";
const KERNEL: &str = "linux-image-";
/// The programs of a guest.
const BUSYBOX: &str = "busybox-static";
const DROPBEAR: &str = "dropbear-bin";
/// Most packages that these may need; Debian 12's need nine in all.
const MOST: usize = 64;
/// The folder of packages in the cache.
const FOLDER: &str = "packages";

/// The packages are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// This is no Debian.
    #[error(
        "the baseline's guests are made of Debian's packages, and `{0}` is not there to get them: \
         run this on Debian or a distribution made of it, or without --baseline"
    )]
    NoDebian(String),
    /// No repository has one of them.
    #[error(
        "no repository that apt knows has the package {0}, which the baseline's guests are made \
         of: add Debian's main repository, run `apt-get update`, or run without --baseline"
    )]
    Unknown(String),
    /// More than such guests need.
    #[error(
        "the packages of the baseline's guests need more than {MOST} others: run without --baseline"
    )]
    TooMany,
    /// A package came with another content.
    #[error(
        "apt-get fetched no {package} with sha256 {expected}, as the repository's list has it: run \
         `apt-get update` and try again"
    )]
    Digest {
        /// Its name and version.
        package: String,
        /// What the repository's list says.
        expected: Sha256,
    },
    /// A package has not what it should have.
    #[error("Debian's packages for the baseline's guests hold no {0}")]
    NoFile(String),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] DirectoriesError),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
    /// One of apt's programs failed.
    #[error(transparent)]
    Process(ProcessError),
    /// The user asked to stop.
    #[error("interrupted while the packages of the baseline's guests were fetched")]
    Interrupted,
}

impl From<ProcessError> for PackagesError {
    fn from(error: ProcessError) -> Self {
        match error {
            ProcessError::Missing { program, .. } => Self::NoDebian(program),
            ProcessError::Interrupted { .. } => Self::Interrupted,
            other => Self::Process(other),
        }
    }
}

/// What the packages are, before they are fetched.
#[derive(Debug)]
struct Choice {
    kernel: Record,
    /// All others.
    programs: Vec<Record>,
}

/// The packages, unpacked into one folder, which goes with this value.
#[derive(Debug)]
pub(super) struct Packages {
    choice: Choice,
    root: TempDir,
    /// Who sweeps the cache leaves the folder alone until then.
    _lock: Lock,
}

impl Packages {
    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    /// A file that is at the first of these places.
    pub(super) fn file(&self, places: &[&str]) -> Result<PathBuf, PackagesError> {
        let mut places_here = places.iter().map(|place| self.root().join(place));
        places_here
            .find(|place| place.exists())
            .ok_or_else(|| PackagesError::NoFile(places[0].to_owned()))
    }

    /// What the kernel is called: its release.
    pub(super) fn kernel_release(&self) -> &str {
        let name = &self.choice.kernel.name;
        name.strip_prefix(KERNEL).unwrap_or(name)
    }

    /// Each package with its version and digest.
    pub(super) fn made_of(&self) -> BTreeMap<String, String> {
        let all = self.choice.all();
        let said = |record: &Record| format!("{}, sha256 {}", record.version, record.sha256);
        all.map(|record| (record.name.clone(), said(record)))
            .collect()
    }
}

impl Choice {
    fn all(&self) -> impl Iterator<Item = &Record> {
        std::iter::once(&self.kernel).chain(&self.programs)
    }
}

/// Gets and unpacks the packages; those in the cache are not fetched again.
pub(super) fn fetch(
    directories: &Directories,
    interrupt: &Interrupt,
) -> Result<Packages, PackagesError> {
    let choice = choose(|names| ask(names, interrupt))?;
    let cache = directories.open_cache()?.path().join(FOLDER);
    let lock = Lock::acquire(&cache.join("packages.lock"), "packages", interrupt)
        .doing(format!("lock {}", cache.display()))?
        .ok_or(PackagesError::Interrupted)?;
    lock.sweep(&cache);
    let memo = Memo::in_cache(&directories.cache);
    let missing: Vec<_> = choice
        .all()
        .filter(|record| !is_whole(record, &cache, &memo))
        .collect();
    if !missing.is_empty() {
        download(&missing, &cache, interrupt)?;
    }
    let root = temporary(&cache)?;
    let bar = progress::bar(choice.all().count() as u64, "unpacking Debian's packages");
    for record in choice.all() {
        let mut command = Command::new("dpkg-deb");
        command
            .arg("-x")
            .arg(cache.join(record.file()))
            .arg(root.path());
        process::run(command, interrupt, |_, _| {})?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Packages {
        choice,
        root,
        _lock: lock,
    })
}

/// Finds the packages by what `ask` says of some, by their names.
fn choose(
    mut ask: impl FnMut(&[String]) -> Result<Vec<Record>, PackagesError>,
) -> Result<Choice, PackagesError> {
    let one = |records: &[Record], name: &str| {
        let found = records.iter().find(|record| record.name == name);
        found
            .cloned()
            .ok_or_else(|| PackagesError::Unknown(name.to_owned()))
    };
    let first = [NEWEST_KERNEL, BUSYBOX, DROPBEAR].map(str::to_owned);
    let records = ask(&first)?;
    let newest = one(&records, NEWEST_KERNEL)?;
    let kernel = newest.needs.iter().find(|name| name.starts_with(KERNEL));
    let kernel = kernel.ok_or_else(|| PackagesError::Unknown(format!("{KERNEL}…")))?;
    let kernel = one(&ask(std::slice::from_ref(kernel))?, kernel)?;

    let mut programs = vec![one(&records, BUSYBOX)?, one(&records, DROPBEAR)?];
    let mut known: BTreeSet<_> = programs.iter().map(|record| record.name.clone()).collect();
    let mut next = 0;
    while next < programs.len() {
        let needed: BTreeSet<_> = programs[next..]
            .iter()
            .flat_map(|record| &record.needs)
            .collect();
        let unknown: Vec<_> = needed
            .into_iter()
            .filter(|name| !known.contains(*name))
            .cloned()
            .collect();
        next = programs.len();
        if unknown.is_empty() {
            break;
        }
        if known.len() + unknown.len() > MOST {
            return Err(PackagesError::TooMany);
        }
        let records = ask(&unknown)?;
        known.extend(unknown);
        // One that is not known may be a name for others; what a program misses of it,
        // its loader says.
        programs.extend(
            records
                .into_iter()
                .filter(|record| known.contains(&record.name)),
        );
    }
    Ok(Choice { kernel, programs })
}

/// What apt knows of packages; nothing of those that no repository has.
fn ask(names: &[String], interrupt: &Interrupt) -> Result<Vec<Record>, PackagesError> {
    let mut command = Command::new("apt-cache");
    command.args(["show", "--no-all-versions"]).args(names);
    // It fails if it knows none of them.
    let captured = process::capture(command, interrupt)?;
    Ok(apt::records(&String::from_utf8_lossy(&captured.stdout)))
}

fn is_whole(record: &Record, folder: &Path, memo: &Memo) -> bool {
    let found = memo.of_file(&folder.join(record.file()));
    found.is_ok_and(|found| found == record.sha256)
}

/// Fetches packages into the cache.
fn download(missing: &[&Record], cache: &Path, interrupt: &Interrupt) -> Result<(), PackagesError> {
    let names: Vec<_> = missing.iter().map(|record| record.choice()).collect();
    tracing::info!("fetching {} for the baseline", printable(&names.join(" ")));
    let folder = temporary(cache)?;
    let mut command = Command::new("apt-get");
    command
        .current_dir(folder.path())
        .args(["download", "-q"])
        .args(&names);
    process::run(command, interrupt, |_, _| {})?;
    let fetched = digests(folder.path()).doing(format!("read {}", folder.path().display()))?;
    for record in missing {
        let Some(file) = fetched.get(&record.sha256) else {
            return Err(PackagesError::Digest {
                package: record.choice(),
                expected: record.sha256,
            });
        };
        let place = cache.join(record.file());
        fs::rename(file, &place).doing(format!("write {}", place.display()))?;
    }
    Ok(())
}

/// The files in a folder by their digests.
fn digests(folder: &Path) -> io::Result<BTreeMap<Sha256, PathBuf>> {
    let files = fs::read_dir(folder)?.map(|entry| {
        let path = entry?.path();
        Ok((Sha256::of_file(&path)?, path))
    });
    files.collect()
}

fn temporary(cache: &Path) -> Result<TempDir, SystemError> {
    tempfile::Builder::new()
        .prefix(&format!("packages{TEMPORARY}"))
        .tempdir_in(cache)
        .doing(format!("make a folder in {}", cache.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, needs: &[&str]) -> Record {
        Record {
            name: name.to_owned(),
            version: "1".to_owned(),
            sha256: Sha256::of_bytes(name),
            needs: needs.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn repository() -> Vec<Record> {
        vec![
            record(
                NEWEST_KERNEL,
                &["other", "linux-image-6.1.0-56-cloud-amd64"],
            ),
            record(
                "linux-image-6.1.0-56-cloud-amd64",
                &["kmod", "initramfs-tools"],
            ),
            record(BUSYBOX, &[]),
            record(DROPBEAR, &["libc6", "libz", "virtual"]),
            record("libc6", &["libgcc", "libc6"]),
            record("libgcc", &["libc6"]),
            record("libz", &["libc6"]),
            record("kmod", &[]),
        ]
    }

    fn chosen(repository: &[Record]) -> Result<Choice, PackagesError> {
        choose(|names| {
            let known = repository.iter();
            Ok(known
                .filter(|record| names.contains(&record.name))
                .cloned()
                .collect())
        })
    }

    #[test]
    fn a_guest_has_the_newest_kernel_alone_and_its_programs_with_what_they_need() {
        let choice = chosen(&repository()).unwrap();
        let names: Vec<_> = choice.all().map(|record| &*record.name).collect();
        let expected = [
            "linux-image-6.1.0-56-cloud-amd64",
            BUSYBOX,
            DROPBEAR,
            "libc6",
            "libz",
            "libgcc",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_package_that_no_repository_has_is_named() {
        for missing in [
            NEWEST_KERNEL,
            "linux-image-6.1.0-56-cloud-amd64",
            BUSYBOX,
            DROPBEAR,
        ] {
            let mut repository = repository();
            repository.retain(|record| record.name != missing);
            let error = chosen(&repository).unwrap_err().to_string();
            assert!(
                error.contains(missing) && error.contains("apt-get update"),
                "{error}"
            );
        }
    }

    #[test]
    fn packages_without_end_are_not_followed() {
        let mut number = 0;
        let endless = choose(|names| {
            let records = names.iter().map(|name| {
                number += 1;
                let next = format!("linux-image-{number}");
                record(name, &[&next])
            });
            Ok(records.collect())
        });
        assert!(matches!(endless, Err(PackagesError::TooMany)));
    }

    #[test]
    fn a_host_without_apt_is_told_what_is_needed() {
        let missing = ProcessError::Missing {
            program: "apt-cache".to_owned(),
            package: "apt".to_owned(),
        };
        let error = PackagesError::from(missing).to_string();
        assert!(
            error.contains("`apt-cache`") && error.contains("without --baseline"),
            "{error}"
        );
    }
}
