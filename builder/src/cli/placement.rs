//! The flags that say where guests run.

use clap::Args;

use crate::placement::{Pin, PlacementSpec, pin};
use crate::units::ByteSize;

/// Least and most CPUs of `--cpu-max`: the least quota that the kernel takes,
/// and more than any host has.
const CPUS: std::ops::RangeInclusive<f64> = 0.01..=65_536.0;

/// Where guests run, and with what share of the host.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Placement")]
pub(crate) struct Placement {
    /// Pin each guest, with all threads of its QEMU, to one CPU: a core for each
    /// in turn (spread), core after core (compact), or in turn from a list such
    /// as 0-3,8 [default: any CPU]
    #[arg(long, value_name = "spread|compact|LIST", env = "IMGBUILD_PIN",
        value_parser = pin::parse)]
    pin: Option<Pin>,

    /// Use only the CPUs and the memory of this NUMA node [default: of any]
    #[arg(long, value_name = "NODE", env = "IMGBUILD_NUMA_NODE")]
    numa_node: Option<u32>,

    /// Nice value of the guests, -20 to 19; it sets the CPU weight of the fleet's
    /// cgroup, too [default: imgbuild's own]
    #[arg(long, value_name = "N", env = "IMGBUILD_NICE", allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-20..=19),
        conflicts_with = "cpu_weight")]
    nice: Option<i32>,

    /// CPU weight of the fleet's cgroup, 1 to 10000 [default: the kernel's, 100]
    #[arg(long, value_name = "WEIGHT", env = "IMGBUILD_CPU_WEIGHT",
        value_parser = clap::value_parser!(u64).range(1..=10_000))]
    cpu_weight: Option<u64>,

    /// Limit of the fleet's CPU time, in CPUs, such as 1.5 [default: no limit]
    #[arg(long, value_name = "CPUS", env = "IMGBUILD_CPU_MAX", value_parser = cpu_max)]
    cpu_max: Option<f64>,

    /// Limit of the fleet's memory, such as 8G; the kernel kills guests of a fleet
    /// that needs more [default: no limit]
    #[arg(long, value_name = "SIZE", env = "IMGBUILD_MEMORY_MAX")]
    memory_max: Option<ByteSize>,
}

impl From<Placement> for PlacementSpec {
    fn from(flags: Placement) -> Self {
        Self {
            pin: flags.pin,
            numa_node: flags.numa_node,
            nice: flags.nice,
            cpu_weight: flags.cpu_weight,
            cpu_max: flags.cpu_max,
            memory_max: flags.memory_max,
        }
    }
}

fn cpu_max(text: &str) -> Result<f64, String> {
    let cpus = text.parse().ok().filter(|cpus| CPUS.contains(cpus));
    cpus.ok_or_else(|| {
        let (least, most) = (CPUS.start(), CPUS.end());
        format!("give a number of CPUs from {least} to {most}, such as 1.5")
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(help_expected = true)]
    struct Line {
        #[command(flatten)]
        placement: Placement,
    }

    fn read(flags: &[&str]) -> Result<PlacementSpec, clap::Error> {
        let line = Line::try_parse_from([&["x"], flags].concat())?;
        Ok(line.placement.into())
    }

    #[test]
    fn flags_become_a_specification() {
        Line::command().debug_assert();
        let spec = read(&[
            "--pin",
            "2,0-1",
            "--numa-node",
            "1",
            "--nice",
            "-5",
            "--cpu-max",
            "1.5",
            "--memory-max",
            "8G",
        ]);
        let expected = PlacementSpec {
            pin: Some(Pin::List(vec![2, 0, 1])),
            numa_node: Some(1),
            nice: Some(-5),
            cpu_weight: None,
            cpu_max: Some(1.5),
            memory_max: ByteSize::new(8 << 30),
        };
        assert_eq!(spec.unwrap(), expected);
        assert_eq!(read(&[]).unwrap(), PlacementSpec::default());
        assert_eq!(
            read(&["--cpu-weight", "10000"]).unwrap().cpu_weight,
            Some(10_000)
        );
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for flags in [
            ["--pin", ""],
            ["--pin", "3-1"],
            ["--numa-node", "-1"],
            ["--nice", "20"],
            ["--nice", "-21"],
            ["--cpu-weight", "0"],
            ["--cpu-weight", "10001"],
            ["--cpu-max", "0"],
            ["--cpu-max", "nan"],
            ["--cpu-max", "inf"],
            ["--cpu-max", "-1"],
            ["--memory-max", "0"],
        ] {
            assert!(read(&flags).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn two_ways_to_give_a_share_conflict() {
        let error = read(&["--nice", "5", "--cpu-weight", "50"]).unwrap_err();
        assert_eq!(error.kind(), clap::error::ErrorKind::ArgumentConflict);
    }
}
