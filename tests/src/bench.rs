//! Measurements for `just bench`.

use std::fmt;
use std::process::Command;

use serde::Serialize;

use crate::stand_in::QEMU;

pub mod build;
pub mod check;
pub mod density;
pub mod disk;
mod distribution;
pub mod fleet;
pub mod guest;
pub mod memory;
pub mod runqlat;

/// One measurement beside its alternative.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// Unit of the values.
    pub unit: &'static str,
    /// What imgbuild does.
    pub ours: Samples,
    /// What a user would otherwise run.
    pub other: Samples,
    /// What that is.
    pub other_is: &'static str,
    /// The budget, if this row has one.
    pub budget: Option<Budget>,
}

/// A promise about a row.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Our mean is at most this.
    AtMost(f64),
    /// Our mean is at least this.
    AtLeast(f64),
    /// Our mean is at least this many times the other's.
    TimesOther(f64),
}

/// Repeated measurements of one value.
#[derive(Debug, Clone, Serialize)]
pub struct Samples {
    /// Number of measurements.
    pub n: usize,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub deviation: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Samples {
    /// Summarizes measurements, of which there is at least one.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let n = f64::from(u32::try_from(values.len()).expect("few values"));
        let mean = values.iter().sum::<f64>() / n;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / n;
        Self {
            n: values.len(),
            mean,
            deviation: variance.sqrt(),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl Row {
    /// The table's first line.
    #[must_use]
    pub fn header() -> String {
        format!(
            "{:<34} {:>12} {:>12} {:>8}  {:<14} other is",
            "what", "ours", "other", "ratio", "budget"
        )
    }

    /// Whether the budget is missed.
    #[must_use]
    pub fn missed(&self) -> bool {
        match self.budget {
            None => false,
            Some(Budget::AtMost(most)) => self.ours.mean > most,
            Some(Budget::AtLeast(least)) => self.ours.mean < least,
            Some(Budget::TimesOther(times)) => self.ours.mean < times * self.other.mean,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let budget = match self.budget {
            None => String::new(),
            Some(Budget::AtMost(most)) => format!("≤ {most}"),
            Some(Budget::AtLeast(least)) => format!("≥ {least}"),
            Some(Budget::TimesOther(times)) => format!("≥ {times} ×"),
        };
        let verdict = match (self.budget, self.missed()) {
            (None, _) => "",
            (_, true) => " MISSED",
            (_, false) => " ok",
        };
        write!(
            f,
            "{:<34} {:>12.3} {:>12.3} {:>8.2}  {:<14} {}",
            format!("{}, {}", self.what, self.unit),
            self.ours.mean,
            self.other.mean,
            self.ours.mean / self.other.mean,
            budget + verdict,
            self.other_is,
        )
    }
}

/// Where the numbers come from.
#[must_use]
pub fn host() -> serde_json::Value {
    let first_line = |program: &str, argument: &str| {
        Command::new(program)
            .arg(argument)
            .output()
            .ok()
            .and_then(|output| {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.lines().next().map(str::to_owned)
            })
    };
    serde_json::json!({
        "kernel": first_line("uname", "-sr"),
        "qemu": first_line(QEMU, "--version"),
        "compiler": first_line("gcc", "--version"),
        "cpus": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
    })
}
