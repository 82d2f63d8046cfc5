//! `imgbuild top`.

use clap::Args;

use super::target::Target;
use super::{Context, Exit, Failure};
use crate::top;

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    target: Target,
}

impl Top {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = self.target.find(context)?;
        if top::show(&found, &context.directories, &context.interrupt)? {
            Ok(Exit::Done)
        } else {
            Ok(Exit::Interrupted)
        }
    }
}
