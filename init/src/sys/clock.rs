//! Clocks, by system call: rustix would add a parser for the vDSO, and the clocks
//! are read only a few times a second.

use rustix::fs::Timespec;

use super::syscall;

const CLOCK_GETTIME: usize = 228;
const CLOCK_MONOTONIC: usize = 1;
const CLOCK_BOOTTIME: usize = 7;

/// Nanoseconds since the kernel started, a suspension of the guest not counted.
pub(crate) fn monotonic_ns() -> u64 {
    read(CLOCK_MONOTONIC)
}

/// Milliseconds since the kernel started.
pub(crate) fn boottime_ms() -> u64 {
    read(CLOCK_BOOTTIME) / 1_000_000
}

fn read(clock: usize) -> u64 {
    let mut time = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let arguments = [clock, (&raw mut time).expose_provenance(), 0, 0];
    // It fails for a clock that the kernel lacks only; these it always has.
    //
    // SAFETY: clock_gettime(2) writes one timespec to the second argument.
    let _ = unsafe { syscall(CLOCK_GETTIME, arguments) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
