//! `imgbuild api-schema`.

use clap::{Args, ValueEnum};

use super::output::print_as_it_is;
use super::{Exit, Failure};
use crate::{bundle, control, runqlat, text};

/// Arguments of `api-schema`.
#[derive(Debug, Args)]
pub(super) struct ApiSchema {
    /// What to print the schema of
    #[arg(long, value_name = "DOCUMENTS", default_value = "interface")]
    of: Documents,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Documents {
    /// The control interface of a fleet
    Interface,
    /// run.json of a bundle that `density` writes
    Run,
    /// What `runqlat --json` prints
    Runqlat,
}

impl ApiSchema {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let schema = match self.of {
            Documents::Interface => control::schema::schema(),
            Documents::Run => bundle::schema::schema(),
            Documents::Runqlat => runqlat::types::schema(),
        };
        print_as_it_is(&text::json_pretty(&schema)?)?;
        Ok(Exit::Done)
    }
}
