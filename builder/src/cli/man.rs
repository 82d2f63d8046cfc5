//! `imgbuild man`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Cli, Exit, Failure};

/// Arguments of `man`.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Folder to write one page a verb into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        fs::create_dir_all(&self.folder)?;
        // The date of a page would make it differ from day to day.
        clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), self.folder)?;
        Ok(Exit::Done)
    }
}
