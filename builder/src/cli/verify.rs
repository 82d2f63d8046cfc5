//! `imgbuild verify`.

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::output::{print, print_json};
use super::{DEFAULT_OUT, Exit, Failure};
use crate::{artifact, bundle};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The output folder, or the bundle of a run of `density`
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Print the differences as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        if bundle::looks_like_one(&self.out) {
            let differences = bundle::verify(&self.out)?;
            self.report(
                &differences,
                "its files, tables and headline are those of its samples",
            )
        } else {
            let differences = artifact::verify(&self.out)?;
            self.report(&differences, "every file is as its manifest says")
        }
    }

    fn report(
        &self,
        differences: &[impl Display + Serialize],
        praise: &str,
    ) -> Result<Exit, Failure> {
        if self.json {
            print_json(&json!({
                "out": self.out.to_string_lossy(),
                "differences": differences,
            }))?;
        } else {
            for difference in differences {
                print(&difference.to_string())?;
            }
            if differences.is_empty() {
                print(&format!("{}: {praise}", self.out.display()))?;
            }
        }
        Ok(if differences.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        })
    }
}
