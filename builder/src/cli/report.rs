//! `imgbuild report`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{print_as_it_is, print_json, print_text};
use super::{Exit, Failure};
use crate::bundle::{Merged, merge, open, samples};
use crate::{durable, page, report};

/// Arguments of `report`.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Bundles that `density` wrote: one, or the shards of one fleet, which are
    /// reported as one run
    #[arg(required = true, value_name = "BUNDLE")]
    bundles: Vec<PathBuf>,

    #[command(flatten)]
    form: Form,
}

/// In which form a run is printed.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Form {
    /// Print every sample as CSV
    #[arg(long)]
    csv: bool,

    /// Print the run as one JSON object, as run.json has it
    #[arg(long)]
    json: bool,

    /// Write a page to this file, replacing it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let runs = self.bundles.iter().map(|folder| open(folder));
        let merged = merge(runs.collect::<Result<_, _>>()?)?;
        let Merged { run, .. } = &merged;
        if self.form.json {
            print_json(run)?;
        } else if self.form.csv {
            print_text(samples::csv(run).trim_end())?;
        } else if let Some(file) = &self.form.html {
            write_page(file, &page::render(run))?;
        } else {
            print_as_it_is(&report::run::report(&merged))?;
        }
        Ok(Exit::Done)
    }
}

/// A page that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the page {}: {source}; choose another file with --html", path.display())]
struct PageError {
    path: PathBuf,
    source: io::Error,
}

/// Writes a page where the user wants it.
pub(super) fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    // A pipe or a link stays what it is.
    let is_replaced = fs::symlink_metadata(path).map_or(true, |found| found.is_file());
    let written = if is_replaced {
        durable::replace_for_all(path, page.as_bytes()).map(drop)
    } else {
        fs::write(path, page)
    };
    written.map_err(|source| PageError {
        path: path.to_owned(),
        source,
    })?;
    Ok(())
}
