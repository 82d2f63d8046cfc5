//! `just bench`: every budget, measured beside what a user would otherwise
//! run, in one run; a table on stdout and `bench.json` in the target folder.
//!
//! Timings on a shared machine are noisy: read the ratios, not the seconds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use imgbuild_tests::bench::{self, Row};
use serde_json::json;

/// Measure every budget of imgbuild.
#[derive(Parser)]
#[command(name = "bench", help_expected = true)]
struct Arguments {
    /// Measure only these parts [default: all]
    #[arg(value_enum)]
    parts: Vec<Part>,

    /// Leave out the kernel build, which takes minutes
    #[arg(long)]
    skip_kernel: bool,

    /// Where to write the JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

/// A part of the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Overlays
    Disk,
    /// Initramfs and warm builds
    Build,
    /// `imgbuild check`
    Check,
    /// One guest
    Guest,
    /// Two guests of a fleet
    Density,
    /// Fleets and their supervisor
    Fleet,
    /// Fleets of 100 and 300 beside the reference experiment's way: half an hour
    Memory,
    /// Run-queue latency
    Runqlat,
    /// The kernel from its source
    Kernel,
}

impl Part {
    fn measure(self) -> Vec<Row> {
        match self {
            Self::Disk => bench::disk::overlays(),
            Self::Build => [bench::build::initramfs(), bench::build::warm()].concat(),
            Self::Check => bench::check::all(),
            Self::Guest => bench::guest::all(),
            Self::Density => bench::density::all(),
            Self::Fleet => bench::fleet::all(),
            Self::Memory => bench::memory::all(),
            Self::Runqlat => bench::runqlat::all(),
            Self::Kernel => bench::build::kernel(),
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let parts = Part::value_variants().iter().copied();
    let parts = parts.filter(|part| {
        let is_left_out = arguments.skip_kernel && *part == Part::Kernel;
        !is_left_out && (arguments.parts.is_empty() || arguments.parts.contains(part))
    });
    let mut rows: Vec<Row> = Vec::new();
    println!("{}", Row::header());
    for part in parts {
        for row in part.measure() {
            println!("{row}");
            rows.push(row);
        }
    }
    let report = json!({ "host": bench::host(), "rows": rows });
    if let Err(error) = std::fs::write(&arguments.json, format!("{report:#}\n")) {
        eprintln!("error: {}: {error}", arguments.json.display());
        return ExitCode::FAILURE;
    }
    let missed = rows.iter().filter(|row| row.missed()).count();
    println!("\n{missed} missed; JSON in {}", arguments.json.display());
    ExitCode::SUCCESS
}
