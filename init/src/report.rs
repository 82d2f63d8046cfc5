//! The answer to the command `status`.

use core::fmt;

use crate::fields::{after, number};
use crate::json::Object;
use crate::protocol::{DeviceState, IdentityState};

/// A guest's own account of itself. `S` is the string type: `&str` in the
/// guest, `String` on the host.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Report<S> {
    /// Its id; empty before it has one.
    pub id: S,
    /// `parked`, `poised` or `ready`.
    pub phase: S,
    /// Milliseconds since its kernel started; of a clone, since it was told to take
    /// its identity.
    pub uptime_ms: u64,
    /// Its identity, once it is ready.
    pub identity: Option<IdentityState>,
    /// Its disk, once it is ready.
    pub disk: Option<DeviceState>,
    /// Its network interface, once it is ready.
    pub net: Option<DeviceState>,
    /// Its SSH server, once it is ready.
    pub ssh: Option<DeviceState>,
    /// Its burn.
    pub burn: BurnReport,
    /// Its memory.
    pub memory: Memory,
    /// Milliseconds that its CPUs were ready to run and did not, all CPUs
    /// together (`steal` in proc_stat(5)); 0 where the hypervisor does not say.
    pub steal_ms: u64,
}

/// The CPU burn.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct BurnReport {
    /// Share of the time that each thread burns, in percent.
    pub duty: u8,
    /// Number of threads.
    pub threads: u16,
    /// Rounds of work done by all threads together since the start.
    pub rounds: u64,
    /// Rounds a second since the duty was last set.
    pub rate: u64,
}

/// The guest's memory in KiB, as /proc/meminfo has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "host"), derive(serde::Deserialize))]
pub struct Memory {
    /// `MemTotal`: what the kernel manages.
    pub total_kib: u64,
    /// `MemFree`: what nothing uses.
    pub free_kib: u64,
    /// `MemAvailable`: what a program could have.
    pub available_kib: u64,
}

impl Memory {
    /// Reads /proc/meminfo; a line that is missing or garbled counts as 0.
    pub fn parse(meminfo: &str) -> Self {
        let value = |name| number(after(meminfo, name), 0);
        Self {
            total_kib: value("MemTotal"),
            free_kib: value("MemFree"),
            available_kib: value("MemAvailable"),
        }
    }
}

/// Ticks of `steal` in /proc/stat, a hundredth of a second each (`USER_HZ`).
pub fn steal_ticks(stat: &str) -> u64 {
    // cpu user nice system idle iowait irq softirq steal …
    number(stat.split('\n').next().unwrap_or_default(), 8)
}

impl Report<&str> {
    /// Writes it as one JSON object.
    pub fn write_json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        Object::write(out, &|object| {
            object.text("id", self.id)?;
            object.text("phase", self.phase)?;
            object.number("uptime_ms", self.uptime_ms)?;
            if let Some(identity) = self.identity {
                object.text("identity", identity.as_str())?;
            }
            for (name, device) in self.devices() {
                if let Some(device) = device {
                    object.text(name, device.as_str())?;
                }
            }
            object.object("burn", &|burn| {
                burn.number("duty", self.burn.duty.into())?;
                burn.number("threads", self.burn.threads.into())?;
                burn.number("rounds", self.burn.rounds)?;
                burn.number("rate", self.burn.rate)
            })?;
            object.object("memory", &|memory| {
                memory.number("total_kib", self.memory.total_kib)?;
                memory.number("free_kib", self.memory.free_kib)?;
                memory.number("available_kib", self.memory.available_kib)
            })?;
            object.number("steal_ms", self.steal_ms)
        })
    }

    fn devices(&self) -> [(&'static str, Option<DeviceState>); 3] {
        [("disk", self.disk), ("net", self.net), ("ssh", self.ssh)]
    }
}

/// `key=value` words.
impl fmt::Display for Report<&str> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "id={} phase={} uptime_ms={} burn={} threads={} rounds={} rate={}",
            self.id,
            self.phase,
            self.uptime_ms,
            self.burn.duty,
            self.burn.threads,
            self.burn.rounds,
            self.burn.rate,
        )?;
        for (name, device) in self.devices() {
            if let Some(device) = device {
                write!(f, " {name}={}", device.as_str())?;
            }
        }
        if let Some(identity) = self.identity {
            write!(f, " identity={}", identity.as_str())?;
        }
        write!(
            f,
            " memory_kib={} free_kib={} available_kib={} steal_ms={}",
            self.memory.total_kib, self.memory.free_kib, self.memory.available_kib, self.steal_ms,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString as _};

    fn report() -> Report<&'static str> {
        Report {
            id: "g00000",
            phase: "ready",
            uptime_ms: 1234,
            identity: Some(IdentityState::Applied),
            disk: Some(DeviceState::Up),
            net: Some(DeviceState::Absent),
            ssh: Some(DeviceState::Failed),
            burn: BurnReport {
                duty: 100,
                threads: 1,
                rounds: 7,
                rate: 3,
            },
            memory: Memory {
                total_kib: 60_000,
                free_kib: 50_000,
                available_kib: 51_000,
            },
            steal_ms: 10,
        }
    }

    #[test]
    fn the_host_reads_what_a_guest_writes() {
        let mut json = String::new();
        report().write_json(&mut json).unwrap();
        let read: Report<String> = serde_json::from_str(&json).unwrap();
        assert_eq!(read.id, "g00000");
        assert_eq!(read.identity, Some(IdentityState::Applied));
        assert_eq!(read.memory, report().memory);
        assert_eq!(read.burn, report().burn);
    }

    #[test]
    fn words_leave_out_what_a_parked_guest_lacks() {
        let parked = Report {
            phase: "parked",
            identity: None,
            disk: None,
            net: None,
            ssh: None,
            ..report()
        };
        assert_eq!(
            parked.to_string(),
            "id=g00000 phase=parked uptime_ms=1234 burn=100 threads=1 rounds=7 rate=3 \
             memory_kib=60000 free_kib=50000 available_kib=51000 steal_ms=10"
        );
        assert!(
            report()
                .to_string()
                .contains(" disk=up net=absent ssh=failed identity=applied ")
        );
    }

    #[test]
    fn proc_files_are_read_however_garbled() {
        let meminfo =
            "MemTotal:          57344 kB\nMemFree:  50000 kB\nMemAvailable:    51000 kB\n";
        assert_eq!(
            Memory::parse(meminfo),
            Memory {
                total_kib: 57_344,
                free_kib: 50_000,
                available_kib: 51_000
            }
        );
        for garbled in ["", "MemTotal", "MemTotal: -1 kB", "\0\u{fffd}"] {
            assert_eq!(Memory::parse(garbled), Memory::default(), "{garbled:?}");
        }
        assert_eq!(steal_ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1\n"), 8);
        for garbled in ["", "cpu", "cpu 1 2 3 4 5 6 7", "cpu 1 2 3 4 5 6 7 x"] {
            assert_eq!(steal_ticks(garbled), 0, "{garbled:?}");
        }
    }
}
