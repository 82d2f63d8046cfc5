//! `imgbuild density`.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::launch::Shape;
use super::output::{print_as_it_is, print_json, print_text};
use super::{Context, DEFAULT_OUT, Exit, Failure};
use crate::bundle::types::{Baseline, Goal, GuestReply, Outcome, Run, Stage, Storm};
use crate::bundle::{Bundle, files, merge};
use crate::density::plan::{self, Answering, BaselineWanted};
use crate::density::{self, DensityError, Experiment, Foresight};
use crate::guest::Restart;
use crate::launch::{LaunchOptions, foresee};
use crate::{page, report};

/// Guests that a host has to take where the fleet grows until no more fit.
const AT_LEAST: u32 = 10;

/// Arguments of `density`.
#[derive(Debug, Args)]
pub(super) struct Density {
    /// The output folder to launch guests from
    #[arg(default_value = DEFAULT_OUT)]
    out: PathBuf,

    /// Grow the fleet to so many guests
    #[arg(long, value_name = "N", conflicts_with = "fill", required_unless_present = "fill",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: Option<u32>,

    /// Grow the fleet until no more guests fit
    #[arg(long)]
    fill: bool,

    #[command(flatten)]
    how: How,

    #[command(flatten)]
    shape: Shape,
}

/// How it is measured.
#[derive(Debug, Args)]
#[command(next_help_heading = "Experiment")]
struct How {
    /// Numbers of guests at which the fleet is measured on its way [default: 1, 10,
    /// 100, 300, 1000, 3000, …]
    #[arg(long, value_name = "N,N…", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    stages: Option<Vec<u32>>,

    /// Measure the reference experiment's way, too: at 100 guests, or as many as the
    /// fleet has
    #[arg(long)]
    baseline: bool,

    /// Guests that are asked for their status and logged in to at a stage: all, or
    /// so many at most, chosen by the seed [default: 1000]
    #[arg(long, value_name = "all|N")]
    answering: Option<Asked>,

    /// Keep the full fleet for this long, and replace guests that end
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    hold: Option<Duration>,

    /// At the end, kill this share of the guests and the supervisor, and see who
    /// comes back
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    storm: Option<u8>,

    /// Chooses the guests that are asked and killed
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,

    /// Wait for KSM to settle at a stage for this long at most
    #[arg(long, value_name = "DURATION", default_value = "15m",
        value_parser = humantime::parse_duration)]
    settle: Duration,

    /// Where to write the bundle: a new folder [default: density-FLEET-TIME]
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,

    /// Resume the run of this bundle, with the options that it began with
    #[arg(long, value_name = "BUNDLE", conflicts_with = "bundle")]
    resume: Option<PathBuf>,

    /// Print what would be done, and start no guest
    #[arg(long)]
    dry_run: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The guests that are asked, as typed.
#[derive(Debug, Clone, Copy)]
struct Asked(Answering);

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.parse()) {
            ("all", _) => Ok(Self(Answering::All)),
            (_, Ok(most)) if most > 0 => Ok(Self(Answering::Sample(most))),
            _ => Err("use all, or a number of guests above 0".to_owned()),
        }
    }
}

fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text);
    match number.parse() {
        Ok(percent) if (1..=100).contains(&percent) => Ok(percent),
        _ => Err("use a percentage from 1 to 100, such as 30%".to_owned()),
    }
}

impl Density {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let how = self.how;
        let count = self.count.filter(|_| !self.fill);
        let options = self
            .shape
            .options(self.out, count.unwrap_or(AT_LEAST), context)?;
        if how.storm.is_some() && options.restart == Restart::Never {
            return Err(Failure::usage(
                "--storm kills guests to see them come back, which --restart never forbids"
                    .to_owned(),
            ));
        }
        let experiment = how.experiment(count);
        if how.dry_run {
            return dry_run(&options, &experiment, how.json, context);
        }
        let (mut bundle, earlier, folder) = if let Some(folder) = how.resume {
            let (bundle, run) = Bundle::resume(&folder)?;
            (bundle, Some(run), folder)
        } else {
            let folder = how.bundle.unwrap_or_else(|| default_folder(&options));
            (Bundle::create(&folder)?, None, folder)
        };
        let mut save = |run: &Run| {
            let page = page::render(run);
            bundle.write(run, Some(&page)).map_err(DensityError::from)
        };
        let run = density::run(
            &options,
            &experiment,
            earlier,
            &context.directories,
            &context.interrupt,
            &mut save,
        );
        let place = || {
            let folder = folder.display();
            tracing::info!("the bundle is {folder}; its page is {folder}/report.html");
        };
        let run = run.inspect_err(|_| {
            if folder.join(files::RUN).exists() {
                place();
            }
        })?;
        let exit = exit(&run);
        if how.json {
            print_json(&json!({
                "bundle": folder.to_string_lossy(),
                "outcome": run.outcome,
                "headline": run.headline,
            }))?;
        } else {
            print_as_it_is(&report::run::report(&merge(vec![run])?))?;
        }
        place();
        Ok(exit)
    }
}

impl How {
    fn experiment(&self, count: Option<u32>) -> Experiment {
        let baseline = if self.baseline {
            BaselineWanted::Yes
        } else {
            BaselineWanted::No
        };
        Experiment {
            goal: count.map_or(Goal::Fill, |_| Goal::Count),
            stages: plan::stages(self.stages.as_deref(), count, baseline),
            answering: (self.answering).map_or(Answering::Sample(plan::ASKED), |asked| asked.0),
            seed: self.seed,
            hold: self.hold,
            storm: self.storm,
            baseline,
            settle: self.settle,
            command: density::command(
                env::args_os().map(|word| word.to_string_lossy().into_owned()),
            ),
        }
    }
}

/// Prints what a run would do, and what each stage would cost.
fn dry_run(
    options: &LaunchOptions,
    experiment: &Experiment,
    json: bool,
    context: &Context,
) -> Result<Exit, Failure> {
    let report = foresee(options, &context.directories, &context.interrupt)?;
    let expected = Foresight::of(&report, options, experiment);
    if json {
        print_json(&expected)?;
    } else {
        print_text(&expected.to_string())?;
    }
    Ok(if expected.ready {
        Exit::Done
    } else {
        Exit::HostNotReady
    })
}

/// A folder in the current one, by the fleet's name and the time.
fn default_folder(options: &LaunchOptions) -> PathBuf {
    let fleet = (options.name.as_deref()).or_else(|| options.out.file_name()?.to_str());
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let time = time.replace([':', '-'], "");
    PathBuf::from(format!("density-{}-{time}", fleet.unwrap_or("fleet")))
}

/// The exit code that a run leads to.
fn exit(run: &Run) -> Exit {
    let good = |replies: &[GuestReply]| replies.iter().all(|reply| reply.failed.is_none());
    let stage =
        |stage: &Stage| stage.ready == stage.guests && good(&stage.answers) && good(&stage.logins);
    let storm =
        |storm: &Storm| good(&storm.back) && storm.lost.is_empty() && storm.resumed.is_some();
    let baseline = |baseline: &Baseline| baseline.ready == baseline.guests;
    let is_whole = run.stages.iter().all(stage)
        && run.hold.as_ref().is_none_or(|hold| good(&hold.answers))
        && run.storm.as_ref().is_none_or(storm)
        && run.baseline.as_ref().is_none_or(baseline);
    match run.outcome {
        Outcome::Interrupted => Exit::Interrupted,
        Outcome::Failed(_) | Outcome::Running => Exit::Failed,
        Outcome::Full(_) if run.plan.goal == Goal::Count => Exit::PartOfFleet,
        Outcome::Full(_) | Outcome::Complete if is_whole => Exit::Done,
        Outcome::Full(_) | Outcome::Complete => Exit::PartOfFleet,
    }
}
