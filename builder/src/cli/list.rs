//! `imgbuild list`.

use clap::Args;

use super::output::{print, print_as_it_is};
use super::{Exit, Failure};
use crate::recipe::built_in;
use crate::text;

/// Arguments of `list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Print the resolved recipes as one JSON array
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let recipes = built_in::recipes()?;
        if self.json {
            print_as_it_is(&text::json_pretty(&recipes)?)?;
        } else {
            for recipe in recipes {
                print(&format!("{:16} {}", recipe.name, recipe.description))?;
            }
        }
        Ok(Exit::Done)
    }
}
