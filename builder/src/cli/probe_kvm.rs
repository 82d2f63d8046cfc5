//! `imgbuild probe-kvm`, which `check` and `launch` start: what it tries may hang.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::host::kvm::{Step, take};

/// Arguments of `probe-kvm`.
#[derive(Debug, Args)]
pub struct ProbeKvm {
    /// The control group to try it in
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,

    /// What to try
    #[arg(required = true)]
    steps: Vec<Step>,
}

impl ProbeKvm {
    /// Runs without any of what other verbs set up: the signal that ends it must.
    pub fn run(self) -> ExitCode {
        match take(&self.steps, self.cgroup.as_deref(), &mut io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("probe-kvm: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
