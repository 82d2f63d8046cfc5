//! What a run would do and cost: what `--dry-run` prints.

use std::fmt;

use serde::Serialize;

use super::plan::{Experiment, baseline_guests};
use super::predicted;
use crate::bundle::types::Goal;
use crate::launch::LaunchOptions;
use crate::trial::readiness::Report;
use crate::units::{ByteSize, counted};

/// A run that is not begun.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Foresight {
    /// Whether the host takes the guests asked for.
    pub ready: bool,
    /// The answer of the checks, in a sentence.
    pub verdict: String,
    pub goal: Goal,
    pub stages: Vec<Expected>,
    /// Guests asked at most at a stage; all without.
    pub sample: Option<u32>,
    pub seed: u64,
    /// Guests of the baseline, where that is measured.
    pub baseline: Option<u32>,
}

/// A stage that is to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Expected {
    pub guests: u32,
    /// Host memory that its guests are expected to take, in bytes.
    pub memory: Option<u64>,
}

impl Foresight {
    pub(crate) fn of(report: &Report, options: &LaunchOptions, experiment: &Experiment) -> Self {
        let a_guest = predicted(report, options.machine.sharing);
        let once = report.want.cost.memory_once;
        let expected = |guests: &u32| Expected {
            guests: *guests,
            memory: a_guest
                .map(|bytes| bytes.saturating_mul((*guests).into()).saturating_add(once)),
        };
        // Nobody knows how far a run comes that fills its host.
        let stages = experiment.stages.iter();
        let stages = match experiment.goal {
            Goal::Count => stages.map(expected).collect(),
            Goal::Fill => stages.rev().skip(1).rev().map(expected).collect(),
        };
        Self {
            ready: report.ready,
            verdict: report.verdict.clone(),
            goal: experiment.goal,
            stages,
            sample: experiment.answering.most(),
            seed: experiment.seed,
            baseline: experiment
                .wants_baseline()
                .then(|| baseline_guests(options.guests.count())),
        }
    }
}

impl fmt::Display for Foresight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.verdict)?;
        for stage in &self.stages {
            write!(f, "{:>8}", counted(stage.guests.into(), "guest"))?;
            match stage.memory.and_then(ByteSize::new) {
                Some(memory) => writeln!(f, "  about {memory} of host memory")?,
                None => writeln!(f)?,
            }
        }
        if self.goal == Goal::Fill {
            writeln!(f, "and on until no more guests fit")?;
        }
        match self.sample {
            Some(most) => write!(f, "At each stage {most} guests at most are asked")?,
            None => write!(f, "At each stage all guests are asked")?,
        }
        write!(f, " and logged in to, chosen by seed {}.", self.seed)?;
        if let Some(guests) = self.baseline {
            write!(
                f,
                "\nAt the end the reference experiment's way, with {guests} guests."
            )?;
        }
        Ok(())
    }
}
