//! `imgbuild compare`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{print_as_it_is, print_json};
use super::report::write_page;
use super::{Exit, Failure};
use crate::bundle::{Comparison, compare, open};
use crate::page;
use crate::report::comparison::{comparison, values};

/// Arguments of `compare`.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// Bundles that `density` wrote, two or more; ratios are to the first
    #[arg(required = true, num_args = 2.., value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,

    /// Compare runs although conditions that matter differ
    #[arg(long)]
    anyway: bool,

    /// Print one JSON object
    #[arg(long, conflicts_with = "html")]
    json: bool,

    /// Write a page with the runs' curves to this file, replacing it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs that differ in what matters.
#[derive(Debug, thiserror::Error)]
#[error("the runs differ in {what}, which may be why their figures differ; --anyway compares them")]
struct Incomparable {
    what: String,
}

impl Compare {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let runs = self.bundles.iter().map(|folder| open(folder));
        let runs: Vec<_> = runs.collect::<Result<_, _>>()?;
        let compared = compare(&runs);
        if !self.anyway {
            refuse(&compared)?;
        }
        let names = names(&self.bundles);
        if self.json {
            print_json(&json!({
                "bundles": names,
                "differing": compared.differing,
                "figures": compared.figures,
            }))?;
        } else if let Some(file) = &self.html {
            let runs: Vec<_> = names.into_iter().zip(runs).collect();
            write_page(file, &page::compare(&runs))?;
        } else {
            print_as_it_is(&comparison(&names, &compared))?;
        }
        Ok(Exit::Done)
    }
}

/// Bundles by their own names, or as they were typed where two have the same.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let own = folders.iter().map(|folder| folder.file_name());
    let own: BTreeSet<_> = own.flatten().collect();
    let are_apart = own.len() == folders.len();
    let name = |folder: &PathBuf| {
        let name = folder.file_name().filter(|_| are_apart);
        name.unwrap_or(folder.as_os_str())
            .to_string_lossy()
            .into_owned()
    };
    folders.iter().map(name).collect()
}

fn refuse(compared: &Comparison) -> Result<(), Incomparable> {
    let what = compared
        .obstacles()
        .map(|obstacle| format!("{} ({})", obstacle.title, values(&obstacle.values)));
    let what: Vec<_> = what.collect();
    if what.is_empty() {
        return Ok(());
    }
    let what = what.join("; ");
    Err(Incomparable { what })
}
