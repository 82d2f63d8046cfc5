//! `imgbuild ps`.

use std::io::{self, IsTerminal as _};

use clap::Args;

use super::output::{print, print_json, print_text};
use super::target::{Target, chosen};
use super::{Context, Exit, Failure};
use crate::control::bridge::Detail;
use crate::control::select::Selector;
use crate::control::unsupervised::{self, unsupervised};
use crate::guest::Phase;
use crate::report;
use crate::report::fleet::{Width, headline, table};
use crate::store::folder::Found;

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Guests, such as g00007, 7, 100-199 or 'g000*' [default: all]
    guests: Vec<Selector>,

    #[command(flatten)]
    target: Target,

    /// List only guests in this state; repeat it for several [default: all states]
    #[arg(long, value_name = "STATE")]
    state: Vec<Phase>,

    /// Show what the fleet costs this host in memory: a guest, in all, and its parts
    #[arg(long, conflicts_with = "state")]
    memory: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Ps {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = self.target.find_anywhere(context)?;
        if self.memory {
            return self.show_memory(context, &found);
        }
        let client = found
            .is_supervised()
            .then(|| context.client(&found.name, &found.paths));
        let mut fleet = match &client {
            Some(client) => client.fleet(Detail::Whole)?,
            None => unsupervised(&found)?,
        };
        let chosen = chosen(&self.guests, &fleet)?;
        // The table does not have what they burned.
        if let Some(client) = client.filter(|_| self.json) {
            fleet = client.fleet_with_rounds(fleet, &chosen)?;
        }
        // Both are in order.
        let mut chosen = chosen.into_iter().peekable();
        fleet.guests.retain(|guest| {
            let is_chosen = chosen.next_if_eq(&guest.id).is_some();
            is_chosen && (self.state.is_empty() || self.state.contains(&guest.state))
        });
        if self.json {
            print_json(&fleet)?;
        } else {
            let width = if io::stdout().is_terminal() {
                Width::Cut
            } else {
                Width::Whole
            };
            print(&headline(&fleet))?;
            print_text(&table(&fleet, width))?;
        }
        Ok(Exit::Done)
    }

    fn show_memory(&self, context: &Context, found: &Found) -> Result<Exit, Failure> {
        let (fleet, mut memory) = if found.is_supervised() {
            let client = context.client(&found.name, &found.paths);
            (client.fleet(Detail::Whole)?, client.memory()?)
        } else {
            (unsupervised(found)?, unsupervised::memory(found)?)
        };
        let chosen = chosen(&self.guests, &fleet)?;
        memory.guests.retain(|guest| chosen.contains(&guest.id));
        if self.json {
            print_json(&memory)?;
        } else {
            print_text(&report::memory::memory(&memory))?;
        }
        Ok(Exit::Done)
    }
}
