//! `imgbuild completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::output::print_text;
use super::{Cli, Exit, Failure};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Shell that the script is for
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<Exit, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "imgbuild", &mut script);
        print_text(String::from_utf8_lossy(&script).trim_end())?;
        Ok(Exit::Done)
    }
}
