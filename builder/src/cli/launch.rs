//! `imgbuild launch`.

use std::io::{IsTerminal as _, stderr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use super::output::Form;
use super::{Context, DEFAULT_OUT, Exit, Failure};
use crate::cli::launch::printer::Printer;
use crate::fleet::supervise::{Attachment, Ending};
use crate::launch::{Launched, Summary, launch, resume};
use crate::units::counted;
use crate::{outlet, recipe};

mod printer;
mod shape;

pub(super) use shape::{Guests, Shape, users};

/// Arguments of `launch`.
#[derive(Debug, Args)]
pub(super) struct Launch {
    /// The output folder to launch guests from
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Number of guests; needed unless --resume is given
    #[arg(long, value_name = "N", env = "IMGBUILD_COUNT", required_unless_present = "resume",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: Option<u32>,

    /// Supervise the fleet in the background, and return
    #[arg(long)]
    detach: bool,

    /// Resume a fleet whose supervisor died: adopt its guests
    #[arg(long, value_name = "FLEET", value_parser = fleet_name)]
    resume: Option<String>,

    /// With --resume, keep supervising when all guests have ended, as after --detach
    #[arg(long, requires = "resume", conflicts_with = "detach")]
    background: bool,

    /// End the fleet this long after its start [default: at Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep: Option<Duration>,

    /// End the fleet when guests cannot be started and its start makes no
    /// progress for this long [default: 10m, or never where stderr is a terminal]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
        conflicts_with_all = ["detach", "background"])]
    patience: Option<Duration>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    shape: Shape,
}

/// What is of use beside `--resume`, besides what every verb takes.
const BESIDE_RESUME: [&str; 5] = ["resume", "detach", "background", "patience", "json"];

/// How long a launch that nobody watches waits for a start that goes no further.
pub(super) const UNWATCHED: Duration = Duration::from_secs(10 * 60);

/// Refuses what is given beside `--resume` and would change the fleet. What the
/// environment says is for fleets that are launched.
pub(crate) fn refuse_beside_resume(
    command: &mut Command,
    matches: &ArgMatches,
) -> Result<(), clap::Error> {
    let Some(fleet) = matches.get_one::<String>("resume") else {
        return Ok(());
    };
    let is_refused = |id: &str| {
        !BESIDE_RESUME.contains(&id) && matches.value_source(id) == Some(ValueSource::CommandLine)
    };
    let refused: Vec<_> = command
        .get_arguments()
        .filter(|argument| !argument.is_global_set() && is_refused(argument.get_id().as_str()))
        .map(|argument| format!("'{argument}'"))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let message = format!(
        "'--resume {fleet}' cannot be used with {}: {fleet} keeps the options that it was launched \
         with; to change them, end the fleet with `imgbuild rm --force {fleet}` and launch it \
         again",
        refused.join(", ")
    );
    Err(command.error(ErrorKind::ArgumentConflict, message))
}

impl Launch {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let attachment = match (self.detach, self.background) {
            (true, _) => Attachment::Detached,
            (false, true) => Attachment::Background,
            (false, false) => Attachment::Foreground {
                patience: (self.patience)
                    .or_else(|| (!stderr().is_terminal()).then_some(UNWATCHED)),
            },
        };
        let count = self.count.filter(|_| self.resume.is_none());
        let form = if self.json { Form::Json } else { Form::Text };
        let mut printer = Printer::new(form, count);
        let Context {
            directories,
            interrupt,
        } = context;
        let mut emit = |event| printer.event(&event);
        let launched = if let Some(name) = &self.resume {
            resume(name, attachment, directories, interrupt, &mut emit)?
        } else {
            let mut options = (self.shape).options(self.out, self.count.unwrap_or(1), context)?;
            options.keep = self.keep;
            launch(&options, attachment, directories, interrupt, &mut emit)?
        };
        outlet::finish(interrupt)?;
        Ok(match launched {
            Launched::Detached => Exit::Done,
            Launched::Over(summary) => {
                if summary.ending == Ending::Stuck {
                    tracing::error!("{}", stuck(&summary));
                }
                exit(&summary)
            }
        })
    }
}

/// The exit code that a launch leads to.
fn exit(summary: &Summary) -> Exit {
    let tally = &summary.tally;
    if summary.ending == Ending::Interrupted {
        Exit::Interrupted
    } else if summary.ending == Ending::Stopped
        || (tally.ready + tally.stopped == tally.count && tally.silent == 0)
    {
        Exit::Done
    } else if tally.ready == 0 && tally.exited == 0 && summary.ending != Ending::Stuck {
        Exit::Failed
    } else {
        Exit::PartOfFleet
    }
}

/// Why a launch that was stuck has ended.
fn stuck(summary: &Summary) -> String {
    let tally = &summary.tally;
    let why = (tally.held_back.as_ref()).map_or_else(String::new, |why| format!(": {why}"));
    format!(
        "the start made no progress, with {} of {} not started{why}; launch fewer, or wait longer \
         with --patience",
        tally.planned,
        counted(tally.count as u64, "guest")
    )
}

/// A fleet's name, as a recipe's.
pub(crate) fn fleet_name(text: &str) -> Result<String, String> {
    if recipe::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 32 characters of a-z, 0-9 and -, starting with a letter".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{Cli, read};

    /// How `launch --resume f` goes with these arguments.
    fn resumed(arguments: &[&str]) -> Result<Cli, clap::Error> {
        let line = ["imgbuild", "launch", "--resume", "f"];
        read(line.iter().chain(arguments))
    }

    #[test]
    fn a_fleet_is_resumed_as_it_was_launched() {
        let mut command = Cli::command();
        command.build();
        let launch = command.find_subcommand("launch").unwrap();
        let mut refused = 0;
        for argument in launch.get_arguments() {
            let id = argument.get_id().as_str();
            if argument.is_global_set() || BESIDE_RESUME.contains(&id) || id == "help" {
                continue;
            }
            let values = argument.get_possible_values();
            let value = values.first().map_or("1", |value| value.get_name());
            let value = match id {
                "name" => "g",
                "keep" | "health" => "1s",
                "memory" => "64M",
                "metrics" => "127.0.0.1:1",
                "tap_subnet" => "10.0.0.0/16",
                _ => value,
            };
            let flag = argument.get_long().map(|flag| format!("--{flag}"));
            let words: Vec<_> = flag
                .as_deref()
                .into_iter()
                .chain(argument.get_action().takes_values().then_some(value))
                .collect();
            let error = resumed(&words).expect_err(id);
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
            assert_eq!(error.exit_code(), 2);
            let error = error.to_string();
            let named = flag.as_deref().unwrap_or("[OUT]");
            for said in [named, "--resume f", "keeps the options", "rm --force f"] {
                assert!(error.contains(said), "{words:?}: {error}");
            }
            refused += 1;
        }
        assert!(refused > 25, "{refused}");
    }

    #[test]
    fn what_does_not_change_the_fleet_goes_with_resume() {
        for words in [
            &["--detach", "--json"][..],
            &["--background", "--verbose", "--log-format", "json"],
            &["-q"],
            &["--patience", "1m"],
        ] {
            resumed(words).unwrap();
        }
    }
}
