//! The QEMU of a fleet, as it was at the launch: its path, version and digest, which
//! the fleet keeps for as long as it lives.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer_of;
use super::reach::Barrier;
use crate::any_path;
use crate::digest::Sha256;
use crate::digest::memo::Memo;
use crate::interrupt::Interrupt;
use crate::notes::Identity;
use crate::process::ProcessError;

/// A QEMU, by its path and what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emulator {
    /// Its absolute path.
    #[serde(with = "any_path")]
    pub path: PathBuf,
    /// The first line of its `--version`, where it printed one.
    pub version: Option<String>,
    /// The digest of its file.
    pub sha256: Sha256,
}

/// A QEMU that guests cannot be started with.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Its file cannot be read.
    #[error(
        "cannot read {}, which guests were to run on: {source}; --qemu names another QEMU",
        path.display()
    )]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not there any more.
    #[error(
        "{}, the QEMU that the fleet was launched with, is out of reach ({source}): no guest can be \
         started until it is back",
        path.display()
    )]
    Gone {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The user that a guest runs as may not run it.
    #[error(
        "user {uid}, which a guest is to run as, cannot run {}: {source}; {}, or run guests under \
         your own user (--run-as-base 0)",
        path.display(),
        remedy(barrier.as_deref())
    )]
    Closed {
        /// Its path.
        path: PathBuf,
        /// The user.
        uid: u32,
        /// What keeps it from that, where a mode tells.
        barrier: Option<Box<Barrier>>,
        /// What came of it.
        source: ProcessError,
    },
}

/// What lets a user run a program.
fn remedy(barrier: Option<&Barrier>) -> String {
    barrier.map_or_else(
        || {
            "see that it may read that file and its libraries, and pass the folders above"
                .to_owned()
        },
        Barrier::to_string,
    )
}

/// Where it stands, since somebody wrote another in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// As it was.
    Same,
    /// It is another file, or has other content.
    Replaced,
}

impl Emulator {
    /// What `program` is now; `memo` may know its digest.
    pub fn of(program: &Path, version: Option<&str>, memo: &Memo) -> Result<Self, EmulatorError> {
        let sha256 = memo
            .of_file(program)
            .map_err(|source| EmulatorError::Unreadable {
                path: program.to_path_buf(),
                source,
            })?;
        Ok(Self {
            path: program.to_path_buf(),
            version: version.map(str::to_owned),
            sha256,
        })
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match &self.version {
            Some(version) => format!("{version}, {}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// Says that another stands in its place, and what that leads to.
    pub fn replaced(&self) -> String {
        format!(
            "{} was replaced since the fleet was launched with {}: guests that are started from \
             now on run on the new one; to run all on one, end the fleet and launch it again",
            self.path.display(),
            self.version.as_deref().unwrap_or("it")
        )
    }

    /// Whether its file is still the one that it was.
    pub fn standing(&self) -> Result<Standing, EmulatorError> {
        let now = Sha256::of_file(&self.path).map_err(|source| self.gone(source))?;
        Ok(if now == self.sha256 {
            Standing::Same
        } else {
            Standing::Replaced
        })
    }

    /// Whether it can be run by the user `uid`, which takes more than a look at
    /// modes: folders above it, access lists, and its libraries. One that the
    /// host was too busy to tell of is tried by the guests themselves.
    pub fn runs_as(&self, uid: u32, interrupt: &Interrupt) -> Result<(), EmulatorError> {
        let mut command = Command::new(&self.path);
        command.arg("--version").current_dir("/").gid(uid).uid(uid);
        match answer_of(command, interrupt) {
            Ok(_) | Err(ProcessError::Starved { .. }) => Ok(()),
            Err(source) => Err(EmulatorError::Closed {
                path: self.path.clone(),
                uid,
                barrier: Barrier::before(&self.path, uid).map(Box::new),
                source,
            }),
        }
    }

    fn gone(&self, source: io::Error) -> EmulatorError {
        EmulatorError::Gone {
            path: self.path.clone(),
            source,
        }
    }
}

/// Watches the file of a QEMU from one start of a guest to the next.
#[derive(Debug)]
pub struct Watch {
    last: Mutex<Option<Identity>>,
}

impl Watch {
    /// Watches it from now on.
    pub fn new(emulator: &Emulator) -> Self {
        Self {
            last: Mutex::new(Identity::at(&emulator.path).ok()),
        }
    }

    /// Where it stands since this was asked last; by its file's times, since
    /// reading all of it would hold up guests that live.
    pub fn look(&self, emulator: &Emulator) -> Result<Standing, EmulatorError> {
        let now = Identity::at(&emulator.path).map_err(|source| emulator.gone(source))?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.replace(now) {
            Some(last) if last != now => Ok(Standing::Replaced),
            _ => Ok(Standing::Same),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::super::program::tests::program;
    use super::*;
    use crate::rights;

    fn emulator() -> (TempDir, Emulator) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("qemu");
        program(&path, "echo QEMU emulator version 7.2.0", 0o755);
        let memo = Memo::in_cache(&folder.path().join("cache"));
        let emulator = Emulator::of(&path, Some("QEMU emulator version 7.2.0"), &memo).unwrap();
        (folder, emulator)
    }

    #[test]
    fn one_that_was_replaced_is_reported_once_and_one_that_is_gone_each_time() {
        let (_folder, emulator) = emulator();
        let watch = Watch::new(&emulator);
        let look = || watch.look(&emulator);
        assert_eq!(look().unwrap(), Standing::Same);
        assert_eq!(emulator.standing().unwrap(), Standing::Same);

        program(&emulator.path, "echo QEMU emulator version 8.0.0", 0o755);
        assert_eq!(look().unwrap(), Standing::Replaced);
        assert_eq!(look().unwrap(), Standing::Same);
        // Another supervisor knows the digest alone.
        assert_eq!(emulator.standing().unwrap(), Standing::Replaced);
        let warning = emulator.replaced();
        let path = emulator.path.display().to_string();
        for part in [&path, "QEMU emulator version 7.2.0", "launch it again"] {
            assert!(warning.contains(part), "{part}: {warning}");
        }

        fs::remove_file(&emulator.path).unwrap();
        for error in [
            look().unwrap_err(),
            look().unwrap_err(),
            emulator.standing().unwrap_err(),
        ] {
            assert!(matches!(error, EmulatorError::Gone { .. }), "{error}");
            assert!(error.to_string().contains(&path), "{error}");
        }
        program(&emulator.path, "echo QEMU emulator version 7.2.0", 0o755);
        assert_eq!(emulator.standing().unwrap(), Standing::Same);
    }

    #[test]
    fn a_user_who_cannot_reach_it_is_reported_before_a_guest_is_started() {
        if !rights::is_root("be another user") {
            return;
        }
        let (folder, emulator) = emulator();
        let interrupt = Interrupt::never().unwrap();
        emulator.runs_as(2_000_000, &interrupt).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let error = emulator.runs_as(2_000_000, &interrupt).unwrap_err();
        let error = error.to_string();
        let closed = format!("the folder {} has mode 0700", folder.path().display());
        for part in ["2000000", &closed, "chmod o+x", "--run-as-base 0"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
