//! `imgbuild launch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::{Context, DEFAULT_OUT, Exit, Failure, print};
use crate::fleet::launch::{LaunchEvent, LaunchOptions, Summary, launch};
use crate::fleet::readiness::Canaries;
use crate::progress;
use crate::recipe;
use crate::units::ByteSize;
use crate::vmm::{Accel, Net, Sharing};

/// Arguments of `launch`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Launch {
    /// The output folder to launch guests from
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Number of guests
    #[arg(long, value_name = "N", env = "IMGBUILD_COUNT",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,

    /// Name of the fleet [default: the recipe's]
    #[arg(long, value_name = "FLEET", env = "IMGBUILD_NAME", value_parser = fleet_name)]
    name: Option<String>,

    /// End the fleet this long after its start [default: at Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep: Option<Duration>,

    #[command(flatten)]
    how: Guests,

    /// Your own ssh-ed25519 key to log in with, private, or public if your agent
    /// holds the other half [default: one made for the fleet]
    #[arg(long, value_name = "PATH", env = "IMGBUILD_SSH_KEY")]
    ssh_key: Option<PathBuf>,

    /// Change host settings for as long as the fleet lives: sysctls, KSM, limits
    #[arg(long)]
    fix: bool,

    /// Do not try two guests first, to see whether they come up and what one
    /// costs
    #[arg(long)]
    no_canary: bool,

    /// Launch on a host that is not ready
    #[arg(long)]
    force: bool,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// How guests are run.
#[derive(Debug, Args)]
pub(super) struct Guests {
    /// What runs the guests' code
    #[arg(long, default_value = "kvm", env = "IMGBUILD_ACCEL")]
    pub accel: Accel,

    /// What kernel samepage merging (KSM) may merge
    #[arg(long, default_value = "guest", env = "IMGBUILD_SHARING")]
    pub sharing: Sharing,

    /// How guests are connected
    #[arg(long, default_value = "user", env = "IMGBUILD_NET")]
    pub net: Net,

    /// RAM of a guest, such as 128M [default: the recipe's]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_MEMORY",
        value_parser = recipe::guest_memory)]
    pub memory: Option<ByteSize>,
}

impl Launch {
    pub fn run(self, context: &Context) -> Result<Exit, Failure> {
        let options = LaunchOptions {
            out: self.out,
            count: self.count,
            name: self.name,
            keep: self.keep,
            accel: self.how.accel,
            sharing: self.how.sharing,
            net: self.how.net,
            memory: self.how.memory,
            ssh_key: self.ssh_key,
            canaries: if self.no_canary {
                Canaries::Kept
            } else {
                Canaries::KeptOrFresh
            },
            fix: self.fix,
            force: self.force,
        };
        let mut printer = Printer::new(self.json, self.count);
        let summary = launch(
            &options,
            &context.directories,
            &context.interrupt,
            &mut |event| printer.event(event),
        )?;
        printer.outcome?;
        Ok(exit(&summary))
    }
}

/// The exit code that a launch leads to.
fn exit(summary: &Summary) -> Exit {
    if summary.interrupted {
        Exit::Interrupted
    } else if summary.ready == summary.count && summary.silent == 0 {
        Exit::Done
    } else if summary.ready == 0 && summary.exited == 0 {
        Exit::Failed
    } else {
        Exit::PartOfFleet
    }
}

/// Prints events as they come, and a bar while guests start.
struct Printer {
    json: bool,
    bar: ProgressBar,
    /// The first failure to print.
    outcome: Result<(), Failure>,
}

impl Printer {
    fn new(json: bool, count: u32) -> Self {
        Self {
            json,
            bar: progress::bar(count.into(), "guests ready"),
            outcome: Ok(()),
        }
    }

    fn event(&mut self, event: &LaunchEvent) {
        let line = if self.json {
            serde_json::to_string(event).map_err(Failure::from)
        } else {
            Ok(sentence(event))
        };
        match event {
            LaunchEvent::Check(report) if report.ready => tracing::info!("{}", report.verdict),
            LaunchEvent::Fleet {
                ssh_config: Some(config),
                ..
            } => tracing::info!(
                "log in with `imgbuild ssh`, or ssh -F '{}'",
                config.display()
            ),
            _ => {}
        }
        if let LaunchEvent::Guest {
            state, ready_after, ..
        } = event
            && (ready_after.is_some() || *state == "failed")
        {
            self.bar.inc(1);
            if Some(self.bar.position()) == self.bar.length() {
                self.bar.finish_and_clear();
            }
        }
        let printed = line.and_then(|line| {
            if line.is_empty() {
                Ok(())
            } else {
                print(&line)
            }
        });
        if self.outcome.is_ok() {
            self.outcome = printed;
        }
    }
}

/// An event for people; empty for what the progress bar shows already.
fn sentence(event: &LaunchEvent) -> String {
    match event {
        LaunchEvent::Check(_) | LaunchEvent::Fleet { .. } => String::new(),
        LaunchEvent::Guest {
            id,
            state,
            ready_after,
            burn,
            reason,
            ..
        } => match (*state, reason, ready_after, burn) {
            (_, Some(reason), ..) => format!("{id} {state}: {reason}"),
            ("ready", None, Some(seconds), _) => format!("{id} ready after {seconds:.2} s"),
            ("ready", None, None, Some(burn)) => {
                format!("{id} burned {} rounds, duty {} %", burn.rounds, burn.duty)
            }
            ("exited", ..) => format!("{id} exited"),
            _ => String::new(),
        },
        LaunchEvent::Summary(summary) => format!(
            "{}: {} of {} ready in {:.1} s, {} burning, {} failed, {} exited, {} not started, \
             {} without an answer; all stopped",
            summary.fleet,
            summary.ready,
            summary.count,
            summary.start_seconds,
            summary.burning,
            summary.failed,
            summary.exited,
            summary.planned,
            summary.silent
        ),
    }
}

/// A fleet's name, as a recipe's.
pub(super) fn fleet_name(text: &str) -> Result<String, String> {
    if recipe::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 32 characters of a-z, 0-9 and -, starting with a letter".to_owned())
    }
}
