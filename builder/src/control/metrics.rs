//! A fleet's numbers in Prometheus's text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum as _;
use rustix::time::{ClockId, clock_gettime};

use super::types::Fleet;
use crate::guest::Phase;
use crate::sample::processes;

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the supervisor's process takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Bytes of memory that are its own or shared, and present.
    pub resident: u64,
}

impl Process {
    /// This process; what cannot be read is 0.
    pub(crate) fn own() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let resident = processes::bytes(Path::new("/proc/self"), "status", &["VmRSS"]);
        Self {
            cpu: Duration::try_from(cpu).unwrap_or_default(),
            resident: resident.unwrap_or(0),
        }
    }
}

/// The text, `broken` being how many connections to the fleet ended in an error. A
/// fleet's name needs no escapes: it is of a-z, 0-9 and -.
pub(crate) fn text(fleet: &Fleet, process: Process, broken: u64) -> String {
    let name = &fleet.fleet;
    let mut text = String::new();
    head(
        &mut text,
        "imgbuild_guests",
        "gauge",
        "Number of guests in each state.",
    );
    // Who serves this supervises them.
    let phases = Phase::value_variants().iter();
    for phase in phases.filter(|phase| **phase != Phase::Unsupervised) {
        let count = fleet.counts.get(phase).copied().unwrap_or(0);
        let state = phase.name();
        line(
            &mut text,
            &format!("imgbuild_guests{{fleet=\"{name}\",state=\"{state}\"}} {count}"),
        );
    }
    let held_back = u64::from(fleet.held_back.is_some());
    for (metric, kind, help, value) in [
        (
            "imgbuild_guests_wanted",
            "gauge",
            "Number of guests that the fleet is to have.",
            fleet.wanted.into(),
        ),
        (
            "imgbuild_held_back",
            "gauge",
            "1 while guests cannot be started for now.",
            held_back,
        ),
        (
            "imgbuild_restarts_total",
            "counter",
            "Number of times that a guest was started again.",
            fleet.totals.restarts,
        ),
        (
            "imgbuild_unresponsive_total",
            "counter",
            "Number of times that a guest answered too late.",
            fleet.totals.unresponsive,
        ),
        (
            "imgbuild_burning_guests",
            "gauge",
            "Number of guests whose duty is above 0, as they last reported.",
            fleet.burn.guests.into(),
        ),
        (
            "imgbuild_burn_rounds",
            "gauge",
            "Rounds of work of the guests, each since its last start, as last reported.",
            fleet.burn.rounds,
        ),
        (
            "imgbuild_broken_connections_total",
            "counter",
            "Number of connections that broke, were too slow, or were not HTTP.",
            broken,
        ),
        (
            "imgbuild_supervisor_resident_memory_bytes",
            "gauge",
            "Resident memory of the supervisor, in bytes.",
            process.resident,
        ),
    ] {
        head(&mut text, metric, kind, help);
        line(&mut text, &format!("{metric}{{fleet=\"{name}\"}} {value}"));
    }
    let metric = "imgbuild_supervisor_cpu_seconds_total";
    head(
        &mut text,
        metric,
        "counter",
        "CPU time of the supervisor, in seconds.",
    );
    let seconds = process.cpu.as_secs_f64();
    line(
        &mut text,
        &format!("{metric}{{fleet=\"{name}\"}} {seconds}"),
    );
    text
}

fn head(text: &mut String, metric: &str, kind: &str, help: &str) {
    line(text, &format!("# HELP {metric} {help}"));
    line(text, &format!("# TYPE {metric} {kind}"));
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes what is written");
}
