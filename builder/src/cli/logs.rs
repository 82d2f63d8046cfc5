//! `imgbuild logs`.

use std::io;
use std::path::Path;

use clap::Args;

use super::output::{Verbatim, is_reader_gone};
use super::target::Target;
use super::{Context, Exit, Failure};
use crate::control::select;
use crate::interrupt::Interrupt;
use crate::store::logs;
use crate::units::GuestIndex;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// The guest, such as g00007 or 7
    #[arg(value_parser = select::one)]
    guest: GuestIndex,

    #[command(flatten)]
    target: Target,

    /// Print only the last N lines [default: all that are kept]
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    tail: usize,

    /// Follow the log until interrupted
    #[arg(long)]
    follow: bool,

    /// Print its QEMU's stderr instead of the console's log
    #[arg(long)]
    vmm: bool,
}

impl Logs {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let paths = self.target.find_anywhere(context)?.paths;
        let log = if self.vmm {
            paths.error(self.guest)
        } else {
            paths.log(self.guest)
        };
        match self.print(&log, &context.interrupt) {
            Err(error) if !is_reader_gone(&error) => Err(error.into()),
            _ if context.interrupt.requested() => Ok(Exit::Interrupted),
            _ => Ok(Exit::Done),
        }
    }

    fn print(&self, log: &Path, interrupt: &Interrupt) -> io::Result<()> {
        let mut output = Verbatim::new();
        if self.follow {
            let print = |bytes: &[u8]| output.write(bytes);
            logs::follow(log, self.tail, io::stdout(), interrupt, print)?;
        } else {
            output.write(&logs::tail(log, self.tail)?)?;
        }
        output.finish()
    }
}
