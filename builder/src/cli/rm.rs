//! `imgbuild rm`.

use clap::Args;

use super::launch::fleet_name;
use super::{Context, Exit, Failure};
use crate::fleet::remove::{Survivors, remove, remove_all};
use crate::units::counted;

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Name of the fleet to remove
    #[arg(value_parser = fleet_name, required_unless_present = "all_fleets")]
    fleet: Option<String>,

    /// Remove every fleet of yours on this host that has no supervisor
    #[arg(long, conflicts_with = "fleet")]
    all_fleets: bool,

    /// Kill the guests that still run
    #[arg(long)]
    force: bool,
}

impl Rm {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let survivors = if self.force {
            Survivors::Kill
        } else {
            Survivors::Spare
        };
        let directories = &context.directories;
        let Some(fleet) = &self.fleet else {
            let mut exit = Exit::Done;
            for (fleet, removed) in remove_all(directories, survivors, &context.interrupt)? {
                match removed {
                    Ok(killed) => {
                        tracing::info!("removed {fleet}");
                        report_killed(killed);
                    }
                    Err(error) => {
                        tracing::error!("{error}");
                        exit = Exit::PartOfFleet;
                    }
                }
            }
            return Ok(exit);
        };
        report_killed(remove(fleet, directories, survivors)?);
        Ok(Exit::Done)
    }
}

fn report_killed(killed: u64) {
    if killed > 0 {
        tracing::info!("killed {}", counted(killed, "guest"));
    }
}
