//! What the host and a fleet's processes did between two looks: CPU time by class,
//! context switches, pressure.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::bundle::types::CpuClass;
use crate::sample::host_cpu::HostCpu;
use crate::sample::ksm;
use crate::sample::schedule::Schedule;
use crate::sample::source::Source;
use crate::sample::switches;
use crate::units::GuestIndex;

/// The counters at one time.
#[derive(Debug)]
pub(super) struct Look {
    at: Instant,
    guests: BTreeMap<GuestIndex, Counters>,
    supervisor: f64,
    ksmd: f64,
    host: Option<HostCpu>,
    pressure: BTreeMap<String, u64>,
}

/// The counters of a guest's process.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counters {
    pid: u32,
    cpu: f64,
    switches: u64,
}

/// What happened between two looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Window {
    /// CPU seconds a second, by class.
    pub cpu: BTreeMap<CpuClass, f64>,
    /// CPU seconds a second of each guest.
    pub guests: BTreeMap<GuestIndex, f64>,
    /// Context switches of guests a second.
    pub switches: f64,
    /// Pressure, in percent of the time.
    pub pressure: BTreeMap<String, f64>,
}

impl Look {
    /// At these guests' processes and the supervisor's, now.
    pub(super) fn now(guests: &[(GuestIndex, u32)], supervisor: Option<u32>) -> Self {
        let cpu = |pid: u32| Schedule::own_cpu(pid).as_secs_f64();
        let mut unseen = Vec::new();
        let ksmd = ksm::ksmd(&mut Source::new(Path::new("/"), &mut unseen));
        let counters = |&(guest, pid): &(GuestIndex, u32)| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            let counters = Counters {
                pid,
                cpu: cpu(pid),
                switches: switches::of(&folder).ok()?,
            };
            Some((guest, counters))
        };
        Self {
            at: Instant::now(),
            host: HostCpu::now(),
            pressure: ["cpu", "memory", "io"]
                .iter()
                .filter_map(|what| Some((what, text(&format!("/proc/pressure/{what}"))?)))
                .flat_map(|(what, text)| totals(what, &text))
                .collect(),
            supervisor: supervisor.map_or(0.0, cpu),
            ksmd: ksmd.map_or(0.0, |ksmd| cpu(ksmd.pid)),
            // Last, and always in this order: thousands take a while, and each is
            // looked at as long after its last look as the others.
            guests: guests.iter().filter_map(counters).collect(),
        }
    }

    /// What happened from `before` to this look.
    pub(super) fn since(&self, before: &Self) -> Window {
        let wall = (self.at - before.at).as_secs_f64();
        if wall <= 0.0 {
            return Window::default();
        }
        let same = self.guests.iter().filter_map(|(guest, now)| {
            let then = before.guests.get(guest)?;
            (then.pid == now.pid).then_some((*guest, then, now))
        });
        let (mut guests, mut switched) = (BTreeMap::new(), 0);
        for (guest, then, now) in same {
            guests.insert(guest, (now.cpu - then.cpu).max(0.0) / wall);
            switched += now.switches.saturating_sub(then.switches);
        }
        let rate = |now: f64, then: f64| (now - then).max(0.0) / wall;
        let mut cpu = BTreeMap::from([
            (CpuClass::Guests, guests.values().sum::<f64>()),
            (
                CpuClass::Supervisor,
                rate(self.supervisor, before.supervisor),
            ),
            (CpuClass::Ksm, rate(self.ksmd, before.ksmd)),
        ]);
        if let (Some(now), Some(then)) = (self.host, before.host) {
            let known: f64 = cpu.values().sum();
            cpu.insert(
                CpuClass::Others,
                (rate(now.busy, then.busy) - known).max(0.0),
            );
            cpu.insert(CpuClass::Idle, rate(now.idle, then.idle));
        }
        let micros = wall * 1e6;
        let pressure = self.pressure.iter().filter_map(|(what, now)| {
            let then = before.pressure.get(what)?;
            Some((
                what.clone(),
                100.0 * float(now.saturating_sub(*then)) / micros,
            ))
        });
        Window {
            cpu,
            guests,
            switches: float(switched) / wall,
            pressure: pressure.collect(),
        }
    }

    /// CPU seconds a second that the whole host was busy since `before`.
    pub(super) fn load_since(&self, before: &Self) -> f64 {
        let window = self.since(before);
        let busy = window
            .cpu
            .iter()
            .filter(|(class, _)| **class != CpuClass::Idle);
        busy.map(|(_, cpu)| cpu).sum()
    }
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[expect(clippy::cast_precision_loss, reason = "counters of minutes")]
fn float(number: u64) -> f64 {
    number as f64
}

/// Microseconds for which some or all tasks stalled (kernel document
/// accounting/psi).
fn totals(what: &str, text: &str) -> Vec<(String, u64)> {
    let total = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        let total = rest
            .split(' ')
            .find_map(|field| field.strip_prefix("total="))?;
        Some((format!("{what}.{kind}"), total.trim().parse().ok()?))
    };
    text.lines().filter_map(total).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let psi = "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=1 total=7\nx\n";
        let expected = [("cpu.some".to_owned(), 123), ("cpu.full".to_owned(), 7)];
        assert_eq!(totals("cpu", psi), expected);
    }

    #[test]
    fn a_guest_whose_process_is_another_one_is_left_out() {
        let [first, second] = [0, 1].map(|number| GuestIndex::new(number).unwrap());
        let look = |at, cpus: [(u32, f64); 2]| {
            let counters = |(pid, cpu)| Counters {
                pid,
                cpu,
                switches: 0,
            };
            Look {
                at,
                guests: [first, second]
                    .into_iter()
                    .zip(cpus.map(counters))
                    .collect(),
                supervisor: 1.0,
                ksmd: 0.0,
                host: None,
                pressure: BTreeMap::new(),
            }
        };
        let now = Instant::now();
        let before = look(now, [(7, 1.0), (8, 1.0)]);
        let after = look(now + Duration::from_secs(2), [(7, 2.0), (9, 0.5)]);
        let window = after.since(&before);
        assert_eq!(window.guests, BTreeMap::from([(first, 0.5)]));
        let cpu = window.cpu[&CpuClass::Guests];
        assert!((cpu - 0.5).abs() < 1e-9, "{cpu}");
        assert_eq!(before.since(&after), Window::default());
    }
}
