//! `imgbuild probe-kvm`, which only `check` and `launch` run and no help lists: a
//! call to KVM may hang, and ending its process is the only way to give it up.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::host::kvm::{PROBE_VERB, Step, take};

/// Probe KVM.
#[derive(Debug, Parser)]
#[command(name = PROBE_VERB, help_expected = true)]
pub(super) struct ProbeKvm {
    /// The control group to probe it in
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,

    /// Steps to take
    #[arg(required = true)]
    steps: Vec<Step>,
}

impl ProbeKvm {
    /// The command that a command line is, if it is this one.
    pub(super) fn of(line: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut words = line.skip(1).peekable();
        (words.peek()? == PROBE_VERB).then(|| Self::parse_from(words))
    }

    /// Runs without any of what other verbs set up: nothing is to catch the signal
    /// that ends it.
    pub(super) fn run(self) -> ExitCode {
        match take(&self.steps, self.cgroup.as_deref(), &mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{PROBE_VERB}: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_verb_is_taken_for_it() {
        let of = |line: &str| ProbeKvm::of(line.split(' ').map(OsString::from));
        assert!(of("imgbuild").is_none());
        assert!(of("imgbuild check probe-kvm").is_none());
        let command = of("imgbuild probe-kvm --cgroup /a exits vm-create").unwrap();
        assert_eq!(
            (command.steps.len(), command.cgroup),
            (2, Some("/a".into()))
        );
    }
}
