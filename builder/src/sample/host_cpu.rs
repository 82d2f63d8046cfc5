//! What all CPUs of the host did, by `/proc/stat` (proc_stat(5)).

use std::fs;

/// Ticks in a second: `USER_HZ` of every architecture here (time(7)).
const TICKS: f64 = 100.0;

/// CPU seconds of the whole host since its boot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HostCpu {
    pub busy: f64,
    pub idle: f64,
}

impl HostCpu {
    /// Up to now; `None` where the kernel does not tell.
    pub(crate) fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// The line of all CPUs; guests' time is part of the user's.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = (line.split_ascii_whitespace().take(8))
            .map(|field| field.parse().ok())
            .collect::<Option<_>>()?;
        let [user, nice, system, idle, iowait, irq, softirq, steal] = *ticks else {
            return None;
        };
        #[expect(clippy::cast_precision_loss, reason = "ticks of years")]
        let seconds = |ticks: u64| ticks as f64 / TICKS;
        let busy = [nice, system, irq, softirq, steal];
        Some(Self {
            busy: seconds(busy.into_iter().fold(user, u64::saturating_add)),
            idle: seconds(idle.saturating_add(iowait)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_s_counters_are_read_as_the_kernel_writes_them() {
        let stat = "cpu  100 20 30 4000 50 6 7 8 90 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        let host = HostCpu::parse(stat).unwrap();
        assert!((host.busy - 1.71).abs() < 1e-9, "{host:?}");
        assert!((host.idle - 40.5).abs() < 1e-9, "{host:?}");
        for torn in [
            "",
            "cpu ",
            "cpu  1 2 3",
            "cpu  1 2 3 4 5 6 7 x 9",
            "cpu0 1 2 3 4 5 6 7 8",
        ] {
            assert_eq!(HostCpu::parse(torn), None, "{torn}");
        }
        let most = format!("cpu {}", "18446744073709551615 ".repeat(8));
        assert!(HostCpu::parse(&most).is_some());
    }
}
