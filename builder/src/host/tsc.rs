//! The frequency of the host's time-stamp counter (TSC).
//!
//! A guest under TCG reads the host's TSC, and calibrates it against an
//! emulated timer; on a busy host that fails now and then and leaves the guest
//! ticking for ever. `tsc_early_khz=` spares it the calibration (kernel
//! document admin-guide/kernel-parameters).

use std::thread::sleep;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// How long the counter is watched. An error of 1 µs in the clock reads is
/// 50 ppm of this.
const WINDOW: Duration = Duration::from_millis(20);

/// Measures the TSC in kHz, within about 100 ppm.
pub(crate) fn measure_khz() -> u64 {
    let (clock_start, tsc_start) = sample();
    sleep(WINDOW);
    let (clock_end, tsc_end) = sample();
    let nanoseconds = clock_end.saturating_sub(clock_start);
    let ticks = u128::from(tsc_end.saturating_sub(tsc_start));
    u64::try_from(ticks * 1_000_000 / nanoseconds.max(1)).unwrap_or(u64::MAX)
}

/// Reads clock and counter together: the closest pair of several, since the
/// thread may be preempted between the two.
fn sample() -> (u128, u64) {
    (0..8)
        .map(|_| {
            let before = rdtsc();
            let clock = nanoseconds(clock_gettime(ClockId::MonotonicRaw));
            // A move to a CPU with another TSC must not wrap around.
            let width = rdtsc().saturating_sub(before);
            (width, (clock, before + width / 2))
        })
        .min_by_key(|(width, _)| *width)
        .expect("there are samples")
        .1
}

fn nanoseconds(time: Timespec) -> u128 {
    let (seconds, nanoseconds) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    u128::from(seconds) * 1_000_000_000 + u128::from(nanoseconds)
}

fn rdtsc() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (first, second) = (measure_khz(), measure_khz());
        assert!(
            first.abs_diff(second) < first / 100,
            "{first} kHz, then {second} kHz"
        );
        assert!((100_000..20_000_000).contains(&first), "{first} kHz");
    }
}
