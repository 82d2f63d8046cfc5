//! Finds the fleet, and those of its guests, that a verb acts on.

use clap::Args;

use super::launch::fleet_name;
use super::{Context, Failure};
use crate::control::client::Client;
use crate::control::select::{Selector, select};
use crate::control::types::Fleet;
use crate::store::find::{FindError, find, find_anywhere};
use crate::store::folder::{Found, Paths};
use crate::units::GuestIndex;

/// The fleet.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The fleet [default: the only one]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_FLEET", value_parser = fleet_name)]
    fleet: Option<String>,
}

impl Target {
    pub(super) fn find(&self, context: &Context) -> Result<Found, FindError> {
        find(self.fleet.as_deref(), &context.directories)
    }

    /// The same, or another host's: to be looked at.
    pub(super) fn find_anywhere(&self, context: &Context) -> Result<Found, FindError> {
        find_anywhere(self.fleet.as_deref(), &context.directories)
    }

    pub(super) fn client(&self, context: &Context) -> Result<Client, FindError> {
        let found = self.find(context)?;
        Ok(context.client(&found.name, &found.paths))
    }
}

impl Context {
    pub(crate) fn client(&self, fleet: &str, paths: &Paths) -> Client {
        Client::new(fleet, paths, &self.interrupt)
    }
}

/// The guests of a fleet that the selectors name; all without any.
pub(crate) fn chosen(selectors: &[Selector], fleet: &Fleet) -> Result<Vec<GuestIndex>, Failure> {
    let guests = fleet.guests.iter().map(|guest| guest.id);
    Ok(select(selectors, guests)?)
}
