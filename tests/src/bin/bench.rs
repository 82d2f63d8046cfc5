//! `just bench`: every budget, measured beside what a user would otherwise
//! run, in one run; a table on stdout and `bench.json` in the target folder.
//!
//! Timings on a shared machine are noisy: read the ratios, not the seconds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use imgbuild_tests::bench::{self, Row};
use serde_json::json;

/// Measure every budget of imgbuild.
#[derive(Parser)]
#[command(name = "bench", help_expected = true)]
struct Arguments {
    /// Leave out the kernel build, which takes minutes
    #[arg(long)]
    skip_kernel: bool,

    /// Where to write the JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut rows = Vec::new();
    let mut take = |measured: Vec<Row>| {
        for row in measured {
            println!("{row}");
            rows.push(row);
        }
    };
    println!("{}", Row::header());
    take(bench::disk::overlays());
    take(bench::build::initramfs());
    take(bench::build::warm());
    take(bench::check::all());
    take(bench::guest::all());
    take(bench::density::all());
    take(bench::fleet::all());
    if !arguments.skip_kernel {
        take(bench::build::kernel());
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
