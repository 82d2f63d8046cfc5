//! Runs make(1) in a kernel tree without the user's environment, so that the same
//! source and configuration give the same bytes.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;

use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};

/// What a build may know of its surroundings: where programs and scratch space are.
const PASSED_ON: [&str; 3] = ["HOME", "PATH", "TMPDIR"];

/// One build: a source tree that is only read, and a folder for all that is made.
pub(crate) struct Make<'a> {
    pub(crate) source: &'a Path,
    pub(crate) output: &'a Path,
    pub(crate) jobs: NonZero<usize>,
    /// Seconds since 1970 that the kernel calls its build time.
    pub(crate) epoch: u64,
    pub(crate) interrupt: &'a Interrupt,
    /// Takes every line that make and its compilers write.
    pub(crate) log: &'a File,
}

impl Make<'_> {
    /// Runs make with `arguments` and hands on each line of its output.
    pub(crate) fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        mut on_line: impl FnMut(&str),
    ) -> Result<(), ProcessError> {
        let mut log = self.log;
        process::run(self.command(arguments), self.interrupt, |_, line| {
            // A log that cannot be written must not end a build that can go on.
            let _ = writeln!(log, "{line}");
            on_line(line);
        })
    }

    /// How many objects `target` needs compiled or assembled: what make would do if
    /// it did not only say so. make may give up where one step needs the result of
    /// another, which for `vmlinux` is after the last object.
    pub(crate) fn count_objects(&self, target: &str) -> Result<u64, ProcessError> {
        let mut objects = 0;
        let command = self.command(["--dry-run", target]);
        let result = process::run(command, self.interrupt, |_, line| {
            let announced = line.split_once("echo '").map(|(_, rest)| rest);
            objects += u64::from(announced.is_some_and(is_object));
        });
        match result {
            Ok(()) | Err(ProcessError::Failed { .. }) => Ok(objects),
            Err(error) => Err(error),
        }
    }

    fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut output = std::ffi::OsString::from("O=");
        output.push(self.output);
        let mut make = clean("make");
        make.arg("-C")
            .arg(self.source)
            .arg(output)
            .arg("ARCH=x86_64")
            .arg(format!("-j{}", self.jobs))
            .args(arguments)
            .env("KBUILD_BUILD_TIMESTAMP", timestamp(self.epoch))
            .env("KBUILD_BUILD_USER", "imgbuild")
            .env("KBUILD_BUILD_HOST", "imgbuild")
            .env("KBUILD_BUILD_VERSION", "1")
            // Set, though empty, it keeps a `+` for local changes out of the version.
            .env("LOCALVERSION", "")
            .env("SOURCE_DATE_EPOCH", self.epoch.to_string());
        make
    }
}

/// Whether kbuild says with this line that it makes an object from C or assembly.
pub(crate) fn is_object(line: &str) -> bool {
    line.starts_with("  CC  ") || line.starts_with("  AS  ")
}

/// A command that sees nothing of the environment but what finds programs.
pub(crate) fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in PASSED_ON {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// RFC 3339, by Howard Hinnant's `civil_from_days`; a form that date(1), which
/// kbuild's scripts call, can read back.
fn timestamp(epoch: u64) -> String {
    let (days, second) = (epoch / 86_400, epoch % 86_400);
    let since_0000 = days + 719_468;
    let (era, day_of_era) = (since_0000 / 146_097, since_0000 % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_build_time_is_a_date() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_767_225_600), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn objects_are_told_from_other_steps() {
        assert!(is_object("  CC      init/main.o") && is_object("  AS      lib/memcpy.o"));
        for line in [
            "  CC [M]  a.o",
            "  AR      built-in.a",
            "  HOSTCC  a",
            "CC      a.o",
            "",
        ] {
            assert!(!is_object(line), "{line}");
        }
    }

    #[test]
    fn the_build_sees_only_its_own_settings() {
        let tree = tempfile::tempdir().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        fs::write(
            tree.path().join("Makefile"),
            "all:\n\t@env; echo O=$(O) ARCH=$(ARCH)\n",
        )
        .unwrap();
        let make = Make {
            source: tree.path(),
            output: Path::new("/some/where"),
            jobs: NonZero::<usize>::MIN,
            epoch: 0,
            interrupt: &Interrupt::never().unwrap(),
            log: log.as_file(),
        };
        let mut lines = Vec::new();
        make.run(["all"], |line| lines.push(line.to_owned()))
            .unwrap();
        for line in [
            "LC_ALL=C",
            "KBUILD_BUILD_USER=imgbuild",
            "O=/some/where ARCH=x86_64",
        ] {
            assert!(lines.iter().any(|seen| seen == line), "{lines:?}");
        }
        // Cargo sets this one for its tests.
        assert!(
            !lines.iter().any(|line| line.starts_with("CARGO")),
            "{lines:?}"
        );
        assert_eq!(
            fs::read_to_string(log.path()).unwrap().lines().count(),
            lines.len()
        );
    }
}
