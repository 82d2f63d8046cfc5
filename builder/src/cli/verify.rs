//! `imgbuild verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{print, print_json};
use super::{DEFAULT_OUT, Exit, Failure};
use crate::artifact;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The output folder
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Print the differences as one JSON object
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let differences = artifact::verify(&self.out)?;
        if self.json {
            print_json(&json!({
                "out": self.out.to_string_lossy(),
                "differences": differences,
            }))?;
        } else {
            for difference in &differences {
                print(&difference.to_string())?;
            }
            if differences.is_empty() {
                print(&format!(
                    "{}: every file is as its manifest says",
                    self.out.display()
                ))?;
            }
        }
        Ok(if differences.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        })
    }
}
