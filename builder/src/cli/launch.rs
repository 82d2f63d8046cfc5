//! `imgbuild launch`.

use std::io::{IsTerminal as _, stderr};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use super::output::Form;
use super::placement::Placement;
use super::qemu::QemuArgs;
use super::{Context, DEFAULT_OUT, Exit, Failure};
use crate::cli::launch::printer::Printer;
use crate::fleet::supervise::{Attachment, Ending};
use crate::guest::{BurnAt, Restart};
use crate::launch::{LaunchOptions, Launched, OnUnready, Summary, launch, resume};
use crate::net::tap::Subnet;
use crate::store::spec::HostSettings;
use crate::store::users::Users;
use crate::trial::readiness::Canaries;
use crate::units::{ByteSize, GuestRange, counted};
use crate::vmm::{Accel, Choice, Lifetime, Net, Sharing, StartMethod};
use crate::{outlet, recipe};

mod printer;

/// Arguments of `launch`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(super) struct Launch {
    /// The output folder to launch guests from
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Number of guests; needed unless --resume is given
    #[arg(long, value_name = "N", env = "IMGBUILD_COUNT", required_unless_present = "resume",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: Option<u32>,

    /// Number of the first guest [default: 0]
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(..100_000))]
    first: u32,

    /// Name of the fleet [default: the recipe's]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_NAME", value_parser = fleet_name)]
    name: Option<String>,

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
    how: Guests,

    #[command(flatten)]
    supervision: Supervision,

    #[command(flatten)]
    network: Network,

    #[command(flatten)]
    placement: Placement,

    /// Your own ssh-ed25519 key to log in with: private, or public if your agent
    /// holds the private key [default: one made for the fleet]
    #[arg(
        long,
        value_name = "PATH",
        env = "IMGBUILD_SSH_KEY",
        help_heading = "Network"
    )]
    ssh_key: Option<PathBuf>,

    /// Change host settings for as long as the fleet lives: sysctls, KSM, limits
    #[arg(long, help_heading = "Host")]
    fix: bool,

    /// Do not start two guests first, to see whether they come up and what one
    /// costs
    #[arg(long, help_heading = "Host")]
    no_canary: bool,

    /// Launch even if the host is not ready
    #[arg(long, help_heading = "Host")]
    force: bool,
}

/// When guests are started, and started again.
#[derive(Debug, Args)]
#[command(next_help_heading = "Supervision")]
struct Supervision {
    /// Which guests to start again when they end
    #[arg(long, default_value = "always", env = "IMGBUILD_RESTART")]
    restart: Restart,

    /// How guests come up [default: clone where it pays: from 4 guests on]
    #[arg(long, env = "IMGBUILD_START")]
    start: Option<StartMethod>,

    /// When guests begin to run the burn load of their recipe
    #[arg(long, default_value = "start", env = "IMGBUILD_BURN_AT")]
    burn_at: BurnAt,

    /// Check a quiet guest for a sign of life this often; 0s: never
    #[arg(long, value_name = "DURATION", default_value = "60s", env = "IMGBUILD_HEALTH",
        value_parser = humantime::parse_duration)]
    health: Duration,

    /// Memory of the host that stays free [default: a tenth, 1G at most]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_KEEP_FREE")]
    keep_free: Option<ByteSize>,

    /// Maximum starts a second [default: no limit]
    #[arg(long, value_name = "N", env = "IMGBUILD_RATE", value_parser = rate)]
    rate: Option<f64>,

    /// Maximum guests that boot at a time [default: CPUs + 1]
    #[arg(long, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// Run guest N as user id UID + N; 0: run all as yourself [default: 0; for
    /// root: ids that are free, if possible from 2000000 up]
    #[arg(long, value_name = "UID", env = "IMGBUILD_RUN_AS_BASE",
        value_parser = clap::value_parser!(u32).range(..=LAST_BASE))]
    run_as_base: Option<u32>,

    /// Serve Prometheus metrics at this address, such as 127.0.0.1:9200 [default:
    /// do not]
    #[arg(long, value_name = "ADDRESS", env = "IMGBUILD_METRICS")]
    metrics: Option<SocketAddr>,
}

/// How guests reach others.
#[derive(Debug, Args)]
#[command(next_help_heading = "Network")]
struct Network {
    /// Let guests connect to the outside, with --net user
    #[arg(long)]
    net_outbound: bool,
}

/// Ids are 32 bits, and the last one is none (setresuid(2)).
const LAST_BASE: i64 = 0xffff_fffe - 100_000;

/// How guests are run.
#[derive(Debug, Args)]
pub(crate) struct Guests {
    #[command(flatten)]
    pub qemu: QemuArgs,

    /// Accelerator that runs the guests' code
    #[arg(long, default_value = "kvm", env = "IMGBUILD_ACCEL")]
    pub accel: Accel,

    /// Memory that kernel samepage merging (KSM) may merge
    #[arg(long, default_value = "guest", env = "IMGBUILD_SHARING")]
    pub sharing: Sharing,

    /// How guests are connected
    #[arg(long, default_value = "user", env = "IMGBUILD_NET")]
    pub net: Net,

    /// RAM of a guest, such as 128M [default: the recipe's]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_MEMORY",
        value_parser = recipe::guest_memory)]
    pub memory: Option<ByteSize>,

    /// Addresses of the guests' links, with --net tap [default: 10.213.0.0/16, or
    /// the next /16 up that is free]
    #[arg(
        long,
        value_name = "NETWORK/PREFIX",
        env = "IMGBUILD_TAP_SUBNET",
        help_heading = "Network"
    )]
    tap_subnet: Option<Subnet>,
}

impl Guests {
    pub(super) fn machine(&self) -> Choice {
        Choice {
            accel: self.accel,
            sharing: self.sharing,
            net: self.net,
            memory: self.memory,
        }
    }

    /// The taps' addresses that the user chose.
    pub(super) fn tap_subnet(&self) -> Result<Option<Subnet>, Failure> {
        if self.tap_subnet.is_some() && self.net != Net::Tap {
            return Err(Failure::usage("--tap-subnet goes with --net tap".into()));
        }
        Ok(self.tap_subnet)
    }
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
            let options = self.options(context)?;
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

    fn options(self, context: &Context) -> Result<LaunchOptions, Failure> {
        let (supervision, network) = (self.supervision, self.network);
        if network.net_outbound && self.how.net != Net::User {
            return Err(Failure::usage("--net-outbound goes with --net user".into()));
        }
        let end = self.first.saturating_add(self.count.unwrap_or(1));
        let guests =
            GuestRange::new(self.first, end).map_err(|error| Failure::usage(error.to_string()))?;
        let tap_subnet = self.how.tap_subnet()?;
        Ok(LaunchOptions {
            out: self.out,
            guests,
            name: self.name,
            keep: self.keep,
            qemu: (self.how.qemu).program(&context.directories.cache, &context.interrupt)?,
            machine: self.how.machine(),
            start: supervision.start,
            ssh_key: self.ssh_key,
            outbound: network.net_outbound.into(),
            tap_subnet,
            restart: supervision.restart,
            burn_at: supervision.burn_at,
            health: Some(supervision.health).filter(|period| !period.is_zero()),
            keep_free: supervision.keep_free.map(ByteSize::bytes),
            rate: supervision.rate,
            parallel: supervision.parallel.map(usize::from),
            placement: self.placement.into(),
            users: match supervision.run_as_base {
                Some(0) => Users::Own,
                Some(base) => Users::From(base),
                None => users(),
            },
            metrics: supervision.metrics,
            canaries: if self.no_canary {
                Canaries::Kept
            } else {
                Canaries::KeptOrFresh
            },
            settings: if self.fix {
                HostSettings::Fixed
            } else {
                HostSettings::Kept
            },
            unready: if self.force {
                OnUnready::GoOn
            } else {
                OnUnready::Refuse
            },
            lifetime: Lifetime::Own,
        })
    }
}

/// Under which user ids guests run, unless the user says.
pub(super) fn users() -> Users {
    if rustix::process::geteuid().is_root() {
        Users::Apart
    } else {
        Users::Own
    }
}

/// A number of starts a second.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("use a number above 0, such as 20 or 0.5".to_owned()),
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
