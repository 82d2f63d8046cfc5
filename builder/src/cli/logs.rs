//! `imgbuild logs`.

use std::io::{self, IsTerminal as _, Write as _};

use clap::Args;

use super::target::Target;
use super::{Context, Exit, Failure};
use crate::fleet::guest::printable;
use crate::fleet::logs;
use crate::units::GuestIndex;

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The guest, such as g00007
    guest: GuestIndex,

    #[command(flatten)]
    target: Target,

    /// Only so many of the last lines [default: all that are kept]
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    tail: usize,

    /// Go on with what is added, until interrupted
    #[arg(long)]
    follow: bool,

    /// What its VMM said instead of its console
    #[arg(long)]
    vmm: bool,
}

impl Logs {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let paths = self.target.find_anywhere(context)?.paths;
        let log = if self.vmm {
            paths.error(self.guest)
        } else {
            paths.log(self.guest)
        };
        if self.follow {
            logs::follow(&log, self.tail, &context.interrupt, write)?;
            return Ok(if context.interrupt.requested() {
                Exit::Interrupted
            } else {
                Exit::Done
            });
        }
        for line in logs::tail(&log, self.tail)? {
            show(line.as_bytes())?;
        }
        Ok(Exit::Done)
    }
}

/// Prints a guest's line: as it is, or without control characters on a terminal.
pub(super) fn show(line: &[u8]) -> Result<(), Failure> {
    Ok(quiet_end(write(&[line, b"\n"].concat()))?)
}

/// Prints what a guest said, made harmless on a terminal.
fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            write!(stdout, "{}{end}", printable(line))?;
        }
    } else {
        stdout.write_all(bytes)?;
    }
    stdout.flush()
}

/// A reader that went away is no failure of ours.
fn quiet_end(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
