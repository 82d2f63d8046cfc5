//! `imgbuild rm`.

use clap::Args;

use super::launch::fleet_name;
use super::{Context, Exit, Failure};
use crate::fleet::remove::{Survivors, remove};
use crate::units::counted;

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The fleet
    #[arg(value_parser = fleet_name)]
    fleet: String,

    /// Kill the guests that live
    #[arg(long)]
    force: bool,
}

impl Rm {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let survivors = if self.force {
            Survivors::Kill
        } else {
            Survivors::Spare
        };
        let killed = remove(&self.fleet, &context.directories, survivors)?;
        if killed > 0 {
            tracing::info!("killed {}", counted(killed, "guest"));
        }
        Ok(Exit::Done)
    }
}
