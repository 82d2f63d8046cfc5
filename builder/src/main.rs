//! Parses the command line, dispatches, sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    imgbuild::cli::main()
}
