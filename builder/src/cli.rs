//! The command line: arguments in, a library call, output out.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use self::probe_kvm::ProbeKvm;
use crate::directories::Directories;
use crate::interrupt::Interrupt;
use crate::text::{is_printable, printable_lines};
use crate::{outlet, process, progress};

mod act;
mod api_schema;
mod build;
mod check;
mod compare;
mod completions;
mod console;
mod cp;
mod density;
mod exit;
mod inputs;
mod kernel;
mod launch;
mod list;
mod logging;
mod logs;
mod man;
mod output;
mod placement;
mod probe_kvm;
mod ps;
mod qemu;
mod report;
mod rm;
mod run;
mod runqlat;
mod ssh;
mod suggest;
mod target;
mod top;
mod user;
mod verify;
mod wait;

pub use exit::{Exit, Failure};

/// Output folder of the reference recipe.
const DEFAULT_OUT: &str = "out/tty-burn";

/// Build tiny guests for VM density experiments and launch fleets of them.
#[derive(Debug, Parser)]
#[command(
    name = "imgbuild",
    version,
    help_expected = true,
    max_term_width = 80,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 host not ready, \
                  4 only part of the fleet, 130 interrupted."
)]
pub struct Cli {
    #[command(flatten)]
    talk: Talk,

    #[command(subcommand)]
    verb: Verb,
}

/// How much is said on stderr, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
struct Talk {
    /// Report errors only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Report details, too
    #[arg(short, long, global = true)]
    verbose: bool,

    /// Format of messages on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "text",
        env = "IMGBUILD_LOG_FORMAT"
    )]
    log_format: LogFormat,

    /// As root, act as this user, on that user's fleets and folders
    #[arg(long, global = true, value_name = "NAME", help_heading = "User")]
    user: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// One sentence a line
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build tty-burn, the reference guest that burns CPU, and boot it once
    TtyBurn(build::TtyBurn),
    /// Build any recipe, built-in or from a file
    Build(build::Build),
    /// List the built-in recipes
    List(list::List),
    /// Re-hash an output folder, or check a bundle, and report what differs
    Verify(verify::Verify),
    /// Check whether this host is ready, for how many guests, and what limits
    /// them
    Check(check::Check),
    /// Start a fleet of guests and keep it until Ctrl-C
    Launch(launch::Launch),
    /// Grow a fleet in stages, measure it at each, and write all of it down
    Density(density::Density),
    /// Run one throw-away guest: a command in it, or a session with it
    Run(run::Run),
    /// Report a run of `density` from its bundle, or from those of its shards
    Report(report::Report),
    /// Put the bundles of several runs side by side
    Compare(compare::Compare),
    /// Log in to a guest of a running fleet, or run a command on all
    #[command(
        override_usage = "imgbuild ssh [OPTIONS] <GUEST> [-- <COMMAND>...]\n       \
        imgbuild ssh [OPTIONS] --all -- <COMMAND>..."
    )]
    Ssh(ssh::Ssh),
    /// Copy a file into a guest or out of it, or to or from several
    Cp(cp::Cp),
    /// List the guests of a fleet
    Ps(ps::Ps),
    /// Watch a fleet on a full screen: its state, what it uses, each guest
    Top(top::Top),
    /// Measure how long guests wait for a CPU, and who has it meanwhile
    Runqlat(runqlat::Runqlat),
    /// Wait until guests are ready
    Wait(wait::Wait),
    /// Power guests off; with --all, end the fleet
    #[command(override_usage = "imgbuild stop [OPTIONS] <GUESTS>...\n       \
        imgbuild stop [OPTIONS] --all")]
    Stop(act::Stop),
    /// Kill guests; `launch --restart` decides whether they start again
    #[command(override_usage = "imgbuild kill [OPTIONS] <GUESTS>...\n       \
        imgbuild kill [OPTIONS] --all")]
    Kill(act::Kill),
    /// Power guests off and start them again
    #[command(override_usage = "imgbuild restart [OPTIONS] <GUESTS>...\n       \
        imgbuild restart [OPTIONS] --all")]
    Restart(act::Restart),
    /// Change the number of guests
    Scale(act::Scale),
    /// Attach to a guest's console; Ctrl-] detaches
    Console(console::Console),
    /// Print the log of a guest's console
    Logs(logs::Logs),
    /// Remove what is left of a fleet whose supervisor died
    #[command(override_usage = "imgbuild rm [OPTIONS] <FLEET>\n       \
        imgbuild rm [OPTIONS] --all-fleets")]
    Rm(rm::Rm),
    /// Build a kernel, configure it, or fetch its source
    Kernel(kernel::Kernel),
    /// Print the JSON Schema of a fleet's control interface, or of other JSON
    ApiSchema(api_schema::ApiSchema),
    /// Print a shell's completion script
    Completions(completions::Completions),
    /// Write the man pages
    Man(man::Man),
}

/// What every verb is given.
struct Context {
    directories: Directories,
    interrupt: Interrupt,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    if let Some(command) = ProbeKvm::of(env::args_os()) {
        return command.run();
    }
    let mut cli = read(env::args_os()).unwrap_or_else(|error| end(&error));
    if matches!(cli.verb, Verb::Top(_)) && io::stderr().is_terminal() {
        // Messages would be written over its screen.
        (cli.talk.quiet, cli.talk.verbose) = (true, false);
    }
    logging::install(&cli.talk);
    if let Some(user) = &cli.talk.user
        && let Err(error) = user::act_as(user)
    {
        tracing::error!("{error}");
        return Exit::Usage.into();
    }
    if cli.talk.quiet {
        progress::hide();
    }
    let interrupt = match Interrupt::install() {
        Ok(interrupt) => interrupt,
        Err(error) => {
            tracing::error!("cannot handle signals: {error}");
            return Exit::Failed.into();
        }
    };
    // It may come to hold keys, and the password in a kernel's address.
    if let Err(error) = process::leave_no_core() {
        tracing::warn!("cannot turn off core files, and one would hold keys: {error}");
    }
    // From here on what is said takes a thread, for which the end waits.
    match outlet::start() {
        Ok(()) => logging::report_losses(&cli.talk),
        Err(error) => tracing::warn!("output may wait for a slow reader: {error}"),
    }
    let exit = run(cli.verb, &interrupt).unwrap_or_else(|failure| failure.report(&interrupt));
    // The verb reported what failed to leave.
    let _ = outlet::finish(&interrupt);
    exit.into()
}

/// Ends with what clap says, which may quote the command line and the
/// environment: without colours where a terminal would obey those.
fn end(error: &clap::Error) -> ! {
    let ours = |(name, _): &(OsString, OsString)| name.as_bytes().starts_with(b"IMGBUILD_");
    let settings = env::vars_os().filter(ours).map(|(_, value)| value);
    let mut quoted = env::args_os().chain(settings);
    if quoted.all(|word| is_printable(&word.to_string_lossy())) {
        error.exit();
    }
    let said = printable_lines(&error.to_string());
    // Nobody is left to hear that nobody reads it.
    let _ = if error.use_stderr() {
        io::stderr().write_all(said.as_bytes())
    } else {
        io::stdout().write_all(said.as_bytes())
    };
    std::process::exit(error.exit_code());
}

fn read(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let mut command = Cli::command();
    let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
    let matches = command.try_get_matches_from_mut(&line);
    let matches = matches.map_err(|error| suggest::sift(error, &command, &line))?;
    if let Some((verb, matches)) = matches.subcommand()
        && let Some(launch) = command.find_subcommand_mut(verb)
        && verb == "launch"
    {
        launch::refuse_beside_resume(launch, matches)?;
    }
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn run(verb: Verb, interrupt: &Interrupt) -> Result<Exit, Failure> {
    let context = Context {
        directories: Directories::from_environment()?,
        interrupt: interrupt.clone(),
    };
    match verb {
        Verb::TtyBurn(command) => command.run(&context),
        Verb::Build(command) => command.run(&context),
        Verb::List(command) => command.run(),
        Verb::Verify(command) => command.run(),
        Verb::Check(command) => command.run(&context),
        Verb::Launch(command) => command.run(&context),
        Verb::Density(command) => command.run(&context),
        Verb::Run(command) => command.run(&context),
        Verb::Report(command) => command.run(),
        Verb::Compare(command) => command.run(),
        Verb::Ssh(command) => command.run(&context),
        Verb::Cp(command) => command.run(&context),
        Verb::Ps(command) => command.run(&context),
        Verb::Top(command) => command.run(&context),
        Verb::Runqlat(command) => command.run(&context),
        Verb::Wait(command) => command.run(&context),
        Verb::Stop(command) => command.run(&context),
        Verb::Kill(command) => command.run(&context),
        Verb::Restart(command) => command.run(&context),
        Verb::Scale(command) => command.run(&context),
        Verb::Console(command) => command.run(&context),
        Verb::Logs(command) => command.run(&context),
        Verb::Rm(command) => command.run(&context),
        Verb::Kernel(command) => command.run(&context),
        Verb::ApiSchema(command) => command.run(),
        Verb::Completions(command) => command.run(),
        Verb::Man(command) => command.run(),
    }
}
