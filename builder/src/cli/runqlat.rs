//! `imgbuild runqlat`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};
use indicatif::ProgressBar;

use super::output::{print_as_it_is, print_json};
use super::target::Target;
use super::{Context, Exit, Failure};
use crate::interrupt::Interrupt;
use crate::progress;
use crate::report;
use crate::runqlat::types::Measured;
use crate::runqlat::{By, Measuring, Options, Selection};
use crate::store::folder;

/// Where control groups are (kernel document admin-guide/cgroup-v2).
const CGROUPS: &str = "/sys/fs/cgroup";
/// How often it is looked whether a wait was too long.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the time that has passed is shown.
const SECOND: Duration = Duration::from_secs(1);

/// Arguments of `runqlat`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose"))]
pub(super) struct Runqlat {
    #[command(flatten)]
    target: Target,

    /// Measure these processes instead of a fleet; repeat it for several
    #[arg(long, value_name = "PID", group = "whose", conflicts_with = "fleet")]
    pid: Vec<u32>,

    /// Measure the processes of this control group and of those in it: a folder, or
    /// its path below /sys/fs/cgroup
    #[arg(long, value_name = "GROUP", group = "whose", conflicts_with = "fleet")]
    cgroup: Option<PathBuf>,

    /// Measure all threads of the host
    #[arg(long, group = "whose", conflicts_with = "fleet")]
    all: bool,

    /// Measure for this long; Ctrl-C ends it sooner
    #[arg(long = "for", value_name = "DURATION", default_value = "10s",
        value_parser = humantime::parse_duration)]
    time: Duration,

    /// Print what was measured each time this has passed
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,

    /// Show a distribution for each guest, class of threads, or cause
    #[arg(long, value_name = "WHAT")]
    by: Option<By>,

    /// Count the waits that are longer than this
    #[arg(long, value_name = "DURATION", default_value = "10ms",
        value_parser = humantime::parse_duration)]
    threshold: Duration,

    /// End at the first wait longer than this, and say who waited, on which CPU, and
    /// behind whom
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration,
        conflicts_with_all = ["threshold", "interval"])]
    stop_above: Option<Duration>,

    /// Print one JSON object for each time that was measured
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_millis(10) {
        return Err("use 10ms or more".to_owned());
    }
    Ok(time)
}

impl Runqlat {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let selection = self.selection(context)?;
        let mut measuring = Measuring::start(Options {
            selection,
            by: self.by,
            threshold: self.stop_above.unwrap_or(self.threshold),
            stop: self.stop_above.is_some(),
        })?;
        if let Some(why) = measuring.instead() {
            tracing::warn!(
                "each thread's mean is reported instead of the distribution of its waits, and no \
                 cause: BPF is not to be had: {why}"
            );
        }
        let bar = progress::bar(self.time.as_secs(), "seconds measured");
        let exit = self.measure(&mut measuring, &bar, &context.interrupt);
        bar.finish_and_clear();
        exit
    }

    /// Prints what is measured until the time is over, or the user asks to stop.
    fn measure(
        &self,
        measuring: &mut Measuring,
        bar: &ProgressBar,
        interrupt: &Interrupt,
    ) -> Result<Exit, Failure> {
        let began = Instant::now();
        let end = began.checked_add(self.time);
        loop {
            let now = Instant::now();
            let next = self.interval.and_then(|time| now.checked_add(time));
            let until = [end, next].into_iter().flatten().min();
            let mut tick = || bar.set_position(began.elapsed().as_secs());
            let is_over = self.wait(measuring, until, interrupt, &mut tick)?;
            self.show(&measuring.read()?)?;
            if interrupt.requested() {
                return Ok(Exit::Interrupted);
            }
            if is_over || end.is_some_and(|end| Instant::now() >= end) {
                return Ok(Exit::Done);
            }
        }
    }

    fn selection(&self, context: &Context) -> Result<Selection, Failure> {
        if self.all {
            let found = folder::list(&context.directories)?;
            let here = found.into_iter().filter(|found| !found.is_elsewhere());
            return Ok(Selection::All(here.collect()));
        }
        if let Some(folder) = &self.cgroup {
            let below = Path::new(CGROUPS).join(folder);
            let is_folder = folder.join("cgroup.procs").exists();
            return Ok(Selection::Cgroup(if is_folder {
                folder.clone()
            } else {
                below
            }));
        }
        if self.pid.is_empty() {
            return Ok(Selection::Fleet(self.target.find(context)?));
        }
        Ok(Selection::Pids(self.pid.clone()))
    }

    /// Waits until then, or until a wait was too long, which ends it all.
    fn wait(
        &self,
        measuring: &Measuring,
        until: Option<Instant>,
        interrupt: &Interrupt,
        tick: &mut impl FnMut(),
    ) -> Result<bool, Failure> {
        let pause = if self.stop_above.is_some() {
            PAUSE
        } else {
            SECOND
        };
        loop {
            tick();
            if measuring.is_over()? {
                return Ok(true);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let pause = left.map_or(pause, |left| left.min(pause));
            if pause.is_zero() || interrupt.wait(pause) {
                return Ok(false);
            }
        }
    }

    fn show(&self, measured: &Measured) -> Result<(), Failure> {
        if self.json {
            print_json(measured)
        } else {
            print_as_it_is(&report::runqlat::report(measured, self.by))
        }
    }
}
