//! A fleet's numbers in Prometheus's text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>), with names and
//! units as Prometheus has them (<https://prometheus.io/docs/practices/naming/>).

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum as _;
use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use rustix::time::{ClockId, clock_gettime};

use super::types::{Fleet, KsmState, Memory};
use crate::guest::Phase;
use crate::sample::ksm::{Ksm, PAGE};
use crate::sample::processes;

/// The media type of the text.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the supervisor's process takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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

/// How long threads of a class waited for a CPU, since that was first asked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Distribution {
    /// What the threads do: `vcpu`, `vmm` or `io`.
    pub class: &'static str,
    /// Seconds, and waits that were no longer.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    /// Seconds of all waits.
    pub sum: f64,
}

/// Gives the distributions; none where they cannot be had.
pub(crate) trait RunQueue: Send + Sync {
    fn read(&self) -> Vec<Distribution>;
}

/// What is told of a fleet.
#[derive(Debug)]
pub(crate) struct Readings<'a> {
    pub fleet: &'a Fleet,
    pub process: Process,
    /// Connections to the fleet that ended in an error.
    pub broken: u64,
    /// What the fleet costs, if that could be read, and seconds since it was.
    pub memory: Option<(&'a Memory, f64)>,
    pub ksm: Option<Ksm>,
    pub run_queue: Vec<Distribution>,
}

/// Labels and a value.
type Sample = (Vec<(&'static str, String)>, f64);

/// The text.
pub(crate) fn text(readings: &Readings<'_>) -> String {
    let mut families = Families {
        fleet: readings.fleet.fleet.clone(),
        all: Vec::new(),
    };
    families.states(readings.fleet);
    families.supervisor(readings);
    if let Some((memory, age)) = readings.memory {
        families.memory(memory, age);
    }
    if let Some(ksm) = &readings.ksm {
        families.ksm(ksm);
    }
    families.run_queue(&readings.run_queue);
    let encoded = TextEncoder::new().encode_to_string(&families.all);
    encoded.expect("every family has a name and a sample")
}

/// The metrics, all of one fleet.
struct Families {
    fleet: String,
    all: Vec<MetricFamily>,
}

impl Families {
    fn states(&mut self, fleet: &Fleet) {
        // Who serves this supervises them.
        let phases = Phase::value_variants().iter();
        let states = phases.filter(|phase| **phase != Phase::Unsupervised);
        self.gauges(
            "imgbuild_guests",
            "Number of guests in each state.",
            states.map(|phase| {
                let count = fleet.counts.get(phase).copied().unwrap_or(0);
                (vec![("state", phase.name().to_owned())], f64::from(count))
            }),
        );
        self.gauge(
            "imgbuild_guests_wanted",
            "Number of guests that the fleet is to have.",
            f64::from(fleet.wanted),
        );
        self.gauge(
            "imgbuild_held_back",
            "1 while guests cannot be started for now.",
            f64::from(u8::from(fleet.held_back.is_some())),
        );
        self.counter(
            "imgbuild_guest_starts_total",
            "Number of times that a start of a guest was begun.",
            float(fleet.totals.starts),
        );
        self.counter(
            "imgbuild_restarts_total",
            "Number of times that a guest was started again.",
            float(fleet.totals.restarts),
        );
        self.counter(
            "imgbuild_unresponsive_total",
            "Number of times that a guest answered too late.",
            float(fleet.totals.unresponsive),
        );
        self.gauge(
            "imgbuild_burning_guests",
            "Number of guests whose duty is above 0, as they last reported.",
            f64::from(fleet.burn.guests),
        );
        self.counter(
            "imgbuild_burn_rounds_total",
            "Rounds of work of the guests, as they reported; each scrape asks 100 of them.",
            float(fleet.totals.rounds),
        );
    }

    fn supervisor(&mut self, readings: &Readings<'_>) {
        self.counter(
            "imgbuild_broken_connections_total",
            "Number of connections that broke, were too slow, or were not HTTP.",
            float(readings.broken),
        );
        self.gauge(
            "imgbuild_supervisor_resident_memory_bytes",
            "Resident memory of the supervisor, in bytes.",
            float(readings.process.resident),
        );
        self.counter(
            "imgbuild_supervisor_cpu_seconds_total",
            "CPU time of the supervisor, in seconds.",
            readings.process.cpu.as_secs_f64(),
        );
    }

    fn memory(&mut self, memory: &Memory, age: f64) {
        let parts = memory.parts;
        let part = |(name, bytes): (&str, u64)| (vec![("part", name.to_owned())], float(bytes));
        self.gauges(
            "imgbuild_memory_bytes",
            "What the fleet costs its host in memory, by parts that add up, in bytes.",
            [
                ("cannot_merge", parts.cannot_merge),
                ("shared_by_all", parts.shared_by_all),
                ("kernel", parts.kernel),
                ("ksm", parts.ksm),
            ]
            .into_iter()
            .map(part),
        );
        self.gauge(
            "imgbuild_memory_guests",
            "Number of guests that have a process, whose memory was read.",
            f64::from(memory.count),
        );
        self.gauge(
            "imgbuild_memory_age_seconds",
            "Time since the fleet's memory was read, in seconds; it is read as often as \
             takes a hundredth of the time.",
            age,
        );
        if let Some(available) = memory.host_available {
            self.gauge(
                "imgbuild_host_available_memory_bytes",
                "Memory that the host could give to processes when the fleet's was read, in bytes.",
                float(available),
            );
        }
        if let Some(ksm) = memory.ksm {
            self.gauge(
                "imgbuild_ksm_settled",
                "1 once KSM's last passes found nothing more to merge.",
                f64::from(u8::from(ksm == KsmState::Settled)),
            );
        }
    }

    /// What KSM counts on the whole host (kernel document admin-guide/mm/ksm).
    fn ksm(&mut self, ksm: &Ksm) {
        self.gauge(
            "imgbuild_ksm_running",
            "1 while KSM merges pages on this host.",
            f64::from(u8::from(ksm.runs())),
        );
        let pages = [
            ("shared", ksm.pages_shared),
            ("sharing", ksm.pages_sharing),
            ("unshared", ksm.pages_unshared),
            ("volatile", ksm.pages_volatile),
        ];
        self.gauges(
            "imgbuild_ksm_pages_bytes",
            "Memory in KSM's pages of each kind on this host, in bytes; `sharing` is saved.",
            pages.into_iter().filter_map(|(kind, pages)| {
                let bytes = pages?.saturating_mul(PAGE);
                Some((vec![("kind", kind.to_owned())], float(bytes)))
            }),
        );
        if let Some(scans) = ksm.full_scans {
            self.counter(
                "imgbuild_ksm_full_scans_total",
                "Passes of KSM over all memory on this host.",
                float(scans),
            );
        }
    }

    fn run_queue(&mut self, distributions: &[Distribution]) {
        let metrics = distributions.iter().map(|one| {
            let mut histogram = Histogram::default();
            histogram.set_sample_count(one.count);
            histogram.set_sample_sum(one.sum);
            let buckets = one.buckets.iter().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(*bound);
                bucket.set_cumulative_count(*count);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            let mut metric = self.metric(vec![("class", one.class.to_owned())]);
            metric.set_histogram(histogram);
            metric
        });
        self.all.extend(family(
            "imgbuild_run_queue_wait_seconds",
            "How long threads of guests waited for a CPU, since that was first asked for, in \
             seconds.",
            MetricType::HISTOGRAM,
            metrics.collect(),
        ));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [(Vec::new(), value)].into_iter());
    }

    fn gauges(&mut self, name: &str, help: &str, samples: impl Iterator<Item = Sample>) {
        let metrics = samples.map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = self.metric(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.all
            .extend(family(name, help, MetricType::GAUGE, metrics.collect()));
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = self.metric(Vec::new());
        metric.set_counter(counter);
        self.all
            .extend(family(name, help, MetricType::COUNTER, vec![metric]));
    }

    /// A metric of the fleet with these labels besides.
    fn metric(&self, labels: Vec<(&'static str, String)>) -> Metric {
        let fleet = [("fleet", self.fleet.clone())];
        let pairs = fleet.into_iter().chain(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value);
            pair
        });
        Metric::from_label(pairs.collect())
    }
}

/// A family, unless it has no sample.
fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> Option<MetricFamily> {
    if metrics.is_empty() {
        return None;
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    Some(family)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has nothing but floats"
)]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::picture::tests::fleet;
    use crate::control::types::{BurnTotals, MemoryParts, Stage, Totals};

    fn memory() -> Memory {
        Memory {
            api: 1,
            fleet: "f".to_owned(),
            bytes: 10,
            count: 2,
            bytes_a_guest: Some(5),
            parts: MemoryParts {
                cannot_merge: 1,
                shared_by_all: 2,
                kernel: 3,
                ksm: 4,
            },
            page_tables: 0,
            kernel_stacks: 0,
            supervisor: 0,
            handed: 0,
            cgroup: None,
            host_available: Some(99),
            ksm: Some(KsmState::Merging),
            guests: Vec::new(),
        }
    }

    #[test]
    fn it_is_as_prometheus_reads_it() {
        let fleet = Fleet {
            wanted: 3,
            counts: BTreeMap::from([(Phase::Ready, 2), (Phase::Planned, 1)]),
            totals: Totals {
                restarts: 5,
                unresponsive: 1,
                starts: 7,
                rounds: 77,
            },
            burn: BurnTotals {
                guests: 2,
                rounds: 9,
            },
            ..fleet(Stage::Up, &[])
        };
        let memory = memory();
        let text = text(&Readings {
            fleet: &fleet,
            process: Process {
                cpu: Duration::from_millis(1500),
                resident: 4096,
            },
            broken: 6,
            memory: Some((&memory, 1.5)),
            ksm: Some(Ksm {
                run: Some(1),
                pages_sharing: Some(2),
                full_scans: Some(8),
                ..Ksm::default()
            }),
            run_queue: vec![Distribution {
                class: "vcpu",
                buckets: vec![(2e-6, 3), (4e-6, 5)],
                count: 6,
                sum: 0.25,
            }],
        });
        for line in [
            "# HELP imgbuild_guests Number of guests in each state.\n# TYPE imgbuild_guests gauge",
            r#"imgbuild_guests{fleet="f",state="planned"} 1"#,
            r#"imgbuild_guests{fleet="f",state="ready"} 2"#,
            r#"imgbuild_guests{fleet="f",state="failed"} 0"#,
            r#"imgbuild_guest_starts_total{fleet="f"} 7"#,
            r#"imgbuild_burn_rounds_total{fleet="f"} 77"#,
            r#"imgbuild_supervisor_cpu_seconds_total{fleet="f"} 1.5"#,
            r#"imgbuild_memory_bytes{fleet="f",part="shared_by_all"} 2"#,
            r#"imgbuild_memory_age_seconds{fleet="f"} 1.5"#,
            r#"imgbuild_ksm_settled{fleet="f"} 0"#,
            r#"imgbuild_ksm_pages_bytes{fleet="f",kind="sharing"} 8192"#,
            "# TYPE imgbuild_run_queue_wait_seconds histogram",
            r#"imgbuild_run_queue_wait_seconds_bucket{fleet="f",class="vcpu",le="0.000002"} 3"#,
            r#"imgbuild_run_queue_wait_seconds_bucket{fleet="f",class="vcpu",le="+Inf"} 6"#,
            r#"imgbuild_run_queue_wait_seconds_sum{fleet="f",class="vcpu"} 0.25"#,
            r#"imgbuild_run_queue_wait_seconds_count{fleet="f",class="vcpu"} 6"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("unsupervised"), "{text}");
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let fleet = fleet(Stage::Up, &[]);
        let text = text(&Readings {
            fleet: &fleet,
            process: Process::default(),
            broken: 0,
            memory: None,
            ksm: None,
            run_queue: Vec::new(),
        });
        for name in ["imgbuild_memory", "ksm", "run_queue"] {
            assert!(!text.contains(name), "{text}");
        }
        assert!(
            text.contains("imgbuild_supervisor_resident_memory_bytes{"),
            "{text}"
        );
    }
}
