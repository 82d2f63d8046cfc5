//! Finds the programs of e2fsprogs, and recognizes them by the version that they
//! print.
//!
//! BusyBox has a `mke2fs` as well, which ignores some options without a message and
//! writes other bytes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};
use crate::text::printable;

/// Most of what another program says that is quoted, in characters.
const QUOTED: usize = 200;

/// Why a program of e2fsprogs did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum E2fsError {
    /// Another has its name, and comes first.
    #[error(
        "{} is not the {program} of e2fsprogs, and would make other bytes: it says {said:?}; \
         take it out of PATH, or put the folder of e2fsprogs' before it (on Debian, \
         `apt install e2fsprogs` provides /usr/sbin/{program})",
        path.display()
    )]
    Other {
        /// The program that was wanted.
        program: &'static str,
        path: PathBuf,
        /// What it says of itself.
        said: String,
    },
    #[error(transparent)]
    Process(#[from] ProcessError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum E2fs {
    Mke2fs,
    Tune2fs,
}

impl E2fs {
    fn name(self) -> &'static str {
        match self {
            Self::Mke2fs => "mke2fs",
            Self::Tune2fs => "tune2fs",
        }
    }

    /// What has it say its name and version, and change nothing. tune2fs has no
    /// option for that, and says it before it looks at what is not a file system.
    fn question(self) -> &'static [&'static str] {
        match self {
            Self::Mke2fs => &["-V"],
            Self::Tune2fs => &["-l", "/dev/null"],
        }
    }

    /// Whether `said` has its name and version, as in `mke2fs 1.47.0
    /// (5-Feb-2023)`.
    fn is_named_in(self, said: &str) -> bool {
        let version = |line: &str| {
            let rest = line.strip_prefix(self.name())?.strip_prefix(' ')?;
            Some(rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        said.lines()
            .filter_map(version)
            .any(|is_version| is_version)
    }

    /// Runs it on the file `target` with `args` and no environment but this, of
    /// which the PATH says where it is.
    pub(crate) fn run(
        self,
        args: &[String],
        target: &Path,
        environment: &[(&str, OsString)],
        interrupt: &Interrupt,
    ) -> Result<(), E2fsError> {
        let program = || {
            let mut command = Command::new(self.name());
            command.env_clear();
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command
        };
        let mut question = program();
        question.args(self.question());
        let answer = process::capture(question, interrupt)?;
        let said = [answer.stdout, answer.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if !self.is_named_in(&said) {
            let path = environment.iter().find(|(name, _)| *name == "PATH");
            return Err(self.other(path.map_or("".as_ref(), |(_, path)| path), &said));
        }
        let mut command = program();
        command.args(args).arg(target);
        Ok(process::run(command, interrupt, |_, _| {})?)
    }

    fn other(self, path: &OsStr, said: &str) -> E2fsError {
        let program = self.name();
        E2fsError::Other {
            program,
            path: process::find(program, path).unwrap_or_else(|| program.into()),
            said: printable(said.trim()).chars().take(QUOTED).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_e2fsprogs_tells_its_name_and_version() {
        for (program, said) in [
            (
                E2fs::Mke2fs,
                "mke2fs 1.47.0 (5-Feb-2023)\n\tUsing EXT2FS Library version 1.47.0\n",
            ),
            (E2fs::Mke2fs, "warning: odd\nmke2fs 1.43-WIP (18-May-2015)"),
            (E2fs::Tune2fs, "tune2fs 1.47.2 (1-Jan-2025)\n"),
        ] {
            assert!(program.is_named_in(said), "{said}");
        }
        for said in [
            "",
            "mke2fs: invalid option -- 'V'\nBusyBox v1.35.0 multi-call binary.\n\nUsage: mke2fs",
            "toybox 0.8.9",
            "mke2fs is what I am",
            "tune2fs 1.47.0",
        ] {
            assert!(!E2fs::Mke2fs.is_named_in(said), "{said}");
        }
    }

    #[test]
    fn busybox_s_mke2fs_is_refused_by_its_path() {
        let Some(busybox) = process::find("busybox", "/bin:/usr/bin".as_ref()) else {
            eprintln!("SKIPPED: no busybox");
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mke2fs");
        std::os::unix::fs::symlink(busybox, &path).unwrap();
        let raw = tempfile::NamedTempFile::new().unwrap();
        raw.as_file().set_len(1 << 20).unwrap();
        let interrupt = Interrupt::never().unwrap();
        let environment = [("PATH", folder.path().into())];
        let error = E2fs::Mke2fs
            .run(&["-q".to_owned()], raw.path(), &environment, &interrupt)
            .unwrap_err()
            .to_string();
        let path = path.display().to_string();
        for part in [
            &path,
            "BusyBox",
            "apt install e2fsprogs",
            "/usr/sbin/mke2fs",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        // It was asked, and made nothing.
        let bytes = std::fs::read(raw.path()).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}
