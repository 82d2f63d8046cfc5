//! Finds QEMU among this host's programs, once, and names it by its absolute path
//! from then on.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf, absolute};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{MACHINE, answer, machine_types};
use crate::interrupt::Interrupt;
use crate::notes::Notes;
use crate::process::{ProcessError, debian_package, find, may_run};
use crate::units::Version;

/// What PATH is searched for: the name that QEMU gives it, then the one of
/// distributions that have no other emulator.
const NAMES: [&str; 2] = ["qemu-system-x86_64", "qemu-kvm"];
/// Where distributions put it that keep it off PATH, or out of the PATH of a
/// service: RHEL and its kin the first, where libvirt and systemd look, too.
const PLACES: [&str; 3] = [
    "/usr/libexec/qemu-kvm",
    "/usr/bin/qemu-kvm",
    "/usr/libexec/qemu-system-x86_64",
];
/// What execvp(3) searches where there is no PATH.
const PATH: &str = "/bin:/usr/bin";

/// What `--version` begins with, whatever a distribution adds.
const GREETING: &str = "QEMU emulator version ";

/// A program that runs guests, or is to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    notes: Option<Notes>,
}

/// A path that was given and leads to no QEMU.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is nothing, or nothing that can be looked at.
    #[error("no QEMU at {}: {source}; {NEXT}", path.display())]
    Absent {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a device or a pipe.
    #[error("no QEMU at {}: it is not a file; {NEXT}", .0.display())]
    NotAFile(PathBuf),
    /// This user may not run it.
    #[error("{} cannot be run: {source}; `chmod +x` it, or {NEXT}", path.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not print its version as QEMU does.
    #[error("{} is not QEMU: {why}; {NEXT}", path.display())]
    NotQemu {
        /// The path.
        path: PathBuf,
        /// What it did instead.
        why: String,
    },
    /// The user asked to stop.
    #[error("interrupted while {} was asked for its version", .0.display())]
    Interrupted(PathBuf),
}

/// What a user can do about it.
const NEXT: &str = "give --qemu (IMGBUILD_QEMU) the path of a QEMU for x86-64, such as \
                    /usr/bin/qemu-system-x86_64";

impl Program {
    /// The program at `path`, which must print QEMU's version, or have printed it
    /// before: its answers are noted in the cache folder `cache`.
    pub fn given(path: &Path, cache: &Path, interrupt: &Interrupt) -> Result<Self, ProgramError> {
        let absent = |source| ProgramError::Absent {
            path: path.to_path_buf(),
            source,
        };
        let path = absolute(path).map_err(absent)?;
        let metadata = path.metadata().map_err(|source| ProgramError::Absent {
            path: path.clone(),
            source,
        })?;
        if !metadata.is_file() {
            return Err(ProgramError::NotAFile(path));
        }
        if let Err(errno) = accessat(CWD, &path, Access::EXEC_OK, AtFlags::EACCESS) {
            let source = errno.into();
            return Err(ProgramError::NotExecutable { path, source });
        }
        let program = Self { path, notes: None }.remembered(cache);
        match program.version(interrupt) {
            Ok(line) if is_qemu(&line) => Ok(program),
            // It will say what it is when the host has time for it.
            Err(ProcessError::Starved { .. }) => Ok(program),
            Ok(line) => Err(ProgramError::NotQemu {
                why: format!("its --version is {:?}", shortened(&line)),
                path: program.path,
            }),
            Err(ProcessError::Interrupted { .. }) => Err(ProgramError::Interrupted(program.path)),
            Err(error) => Err(ProgramError::NotQemu {
                why: shortened(&error.to_string()),
                path: program.path,
            }),
        }
    }

    /// The one that is installed: by its names in PATH, else where distributions
    /// put it.
    pub fn installed() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_else(|| OsString::from(PATH));
        Self::among(&path, &PLACES.map(Path::new))
    }

    fn among(path: &OsStr, places: &[&Path]) -> Option<Self> {
        NAMES
            .iter()
            .find_map(|name| find(name, path))
            .or_else(|| {
                places
                    .iter()
                    .find(|place| may_run(place))
                    .map(|place| place.to_path_buf())
            })
            .and_then(|found| absolute(found).ok())
            .map(|path| Self { path, notes: None })
    }

    /// The same, whose answers are noted in the cache folder `cache`.
    pub fn remembered(self, cache: &Path) -> Self {
        Self {
            notes: Some(Notes::kept_in(cache.join("qemu"))),
            ..self
        }
    }

    /// The error that none is installed.
    pub fn missing() -> ProcessError {
        let [program, _] = NAMES;
        ProcessError::Missing {
            program: program.to_owned(),
            package: debian_package(program).to_owned(),
        }
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The first line of its `--version`.
    pub fn version(&self, interrupt: &Interrupt) -> Result<String, ProcessError> {
        self.noted("version", || {
            let text = answer(&self.path, &["--version"], interrupt)?;
            Ok(text.lines().next().unwrap_or_default().trim().to_owned())
        })
    }

    /// Whether it has the machine type that guests use, by `-machine help`.
    pub fn has_microvm(&self, interrupt: &Interrupt) -> Result<bool, ProcessError> {
        self.noted(MACHINE, || {
            let list = answer(&self.path, &["-machine", "help"], interrupt)?;
            Ok(machine_types(&list).contains(MACHINE))
        })
    }

    /// What `ask` gives, or gave before the program's file last changed. A script
    /// is asked each time: it does not change with the QEMU that it starts.
    fn noted<T: Serialize + DeserializeOwned>(
        &self,
        about: &str,
        ask: impl FnOnce() -> Result<T, ProcessError>,
    ) -> Result<T, ProcessError> {
        match &self.notes {
            Some(notes) if is_elf(&self.path) => notes.recall(&self.path, about, |_| ask()),
            _ => ask(),
        }
    }
}

/// Whether a file begins as programs do that are not scripts (elf(5)).
fn is_elf(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && &magic == b"\x7fELF"
}

/// The version in `QEMU emulator version 7.2.19 (Debian …)`.
pub(crate) fn version_in(line: &str) -> Option<Version> {
    Version::at_start_of(line.strip_prefix(GREETING)?)
}

/// Whether a line is how QEMU tells its version.
fn is_qemu(line: &str) -> bool {
    version_in(line).is_some()
}

/// What a program that may be anything said, as part of a line.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    let text = text.replace(|c: char| c.is_control(), " ");
    text.chars().take(MOST).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Writes a script, by another process: a child that another test starts
    /// meanwhile would have it open for writing, and it could not be run.
    pub(crate) fn program(path: &Path, script: &str, mode: u32) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let written = Command::new("sh")
            .args([
                "-c",
                "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod \"$2\" \"$0\"",
            ])
            .arg(path)
            .args([script, &format!("{mode:o}")])
            .status();
        assert!(written.unwrap().success());
    }

    #[test]
    fn versions_compare_by_number() {
        let read = |version| version_in(&format!("QEMU emulator version {version}"));
        assert_eq!(read("7.2.19 (Debian 1:7.2+dfsg-7)"), Some(Version(7, 2)));
        assert_eq!(read("10.0.50"), Some(Version(10, 0)));
        assert!(read("10.0") > read("7.2"));
        for garbled in ["", "7", "x.y", ".", "99999999999.1"] {
            assert_eq!(read(garbled), None, "{garbled}");
        }
        assert_eq!(version_in("qemu 7.2"), None);
    }

    #[test]
    fn its_own_name_in_path_goes_before_others_and_those_before_known_places() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let path = env::join_paths([at("one"), at("two")]).unwrap();
        let places = [at("libexec/qemu-kvm"), at("libexec/qemu-system-x86_64")];
        let places = places.each_ref().map(PathBuf::as_path);
        let found = || Program::among(&path, &places).map(|program| program.path);
        assert_eq!(found(), None);
        for next in [
            "libexec/qemu-system-x86_64",
            "libexec/qemu-kvm",
            "one/qemu-kvm",
            "two/qemu-system-x86_64",
            "one/qemu-system-x86_64",
        ] {
            // Files that nobody may run, and what is not a file, are passed by.
            program(&at(next), "", 0o644);
            assert_ne!(found(), Some(at(next)));
            fs::remove_file(at(next)).unwrap();
            fs::create_dir(at(next)).unwrap();
            assert_ne!(found(), Some(at(next)));
            fs::remove_dir(at(next)).unwrap();
            program(&at(next), "", 0o755);
            assert_eq!(found(), Some(at(next)));
        }
    }

    #[test]
    fn what_is_given_must_be_a_qemu() {
        let interrupt = Interrupt::never().unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("mine");
        let refused = |part: &str| {
            let error = Program::given(&path, root.path(), &interrupt)
                .unwrap_err()
                .to_string();
            let path = path.display().to_string();
            for said in [path.as_str(), part, "--qemu", "IMGBUILD_QEMU"] {
                assert!(error.contains(said), "{said}: {error}");
            }
        };
        refused("No such file");
        fs::create_dir(&path).unwrap();
        refused("not a file");
        fs::remove_dir(&path).unwrap();
        for (script, mode, part) in [
            ("", 0o644, "chmod +x"),
            ("echo hello; echo more", 0o755, "its --version is \"hello\""),
            ("", 0o755, "its --version is \"\""),
            ("echo qemu-img version 7.2.19", 0o755, "qemu-img"),
            (
                "echo the moon is full >&2; exit 7",
                0o755,
                "the moon is full",
            ),
            ("printf '\\033[31mred\\n'", 0o755, "[31mred"),
        ] {
            program(&path, script, mode);
            refused(part);
        }
        program(&path, "echo QEMU emulator version 9.1.0", 0o755);
        let given = Program::given(&path, root.path(), &interrupt).unwrap();
        assert_eq!(given.path(), path);
        assert_eq!(
            given.version(&interrupt).unwrap(),
            "QEMU emulator version 9.1.0"
        );
    }
    #[test]
    fn a_qemu_that_did_not_change_is_asked_once() {
        let interrupt = Interrupt::never().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let installed = Program::installed().unwrap().remembered(cache.path());
        let version = installed.version(&interrupt).unwrap();
        assert!(is_qemu(&version) && installed.has_microvm(&interrupt).unwrap());
        // From now on the note answers.
        let notes: Vec<_> = fs::read_dir(cache.path().join("qemu")).unwrap().collect();
        assert_eq!(notes.len(), 2);
        for note in notes {
            let path = note.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let forged = text.replace(&version, "QEMU emulator version 99.9");
            fs::write(&path, forged.replace("true", "false")).unwrap();
        }
        let again = installed.version(&interrupt).unwrap();
        assert_eq!(again, "QEMU emulator version 99.9");
        assert!(!installed.has_microvm(&interrupt).unwrap());
        // Of a note that makes no sense, nothing is believed.
        for note in fs::read_dir(cache.path().join("qemu")).unwrap() {
            fs::write(note.unwrap().path(), "\0").unwrap();
        }
        assert_eq!(installed.version(&interrupt).unwrap(), version);
    }

    #[test]
    fn a_script_is_asked_each_time() {
        let interrupt = Interrupt::never().unwrap();
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("qemu");
        let script = format!(
            "echo x >> {0}/asked; echo QEMU emulator version 9.$(wc -l < {0}/asked).0",
            root.path().display()
        );
        program(&path, &script, 0o755);
        let notes = Some(Notes::kept_in(root.path().join("notes")));
        let script = Program { path, notes };
        for times in 1..3 {
            let version = script.version(&interrupt).unwrap();
            assert_eq!(version_in(&version), Some(Version(9, times)));
        }
    }
}
