//! Clocks, by system call: rustix would add a parser for the vDSO, and the clocks
//! are read only a few times a second.

use core::sync::atomic::Ordering;
use core::time::Duration;

use rustix::fs::Timespec;
use rustix::io::Errno;

use super::shared::SHARED;
use super::syscall;

const CLOCK_SETTIME: usize = 227;
const CLOCK_GETTIME: usize = 228;
const CLOCK_REALTIME: usize = 0;
const CLOCK_MONOTONIC: usize = 1;
const CLOCK_BOOTTIME: usize = 7;

/// Has the guest's life begin now: what was before is its template's.
pub(crate) fn begin() {
    SHARED.beginning_ms.store(boottime_ms(), Ordering::Relaxed);
}

/// Milliseconds since the guest's life began.
pub(crate) fn age_ms() -> u64 {
    boottime_ms() - SHARED.beginning_ms.load(Ordering::Relaxed)
}

/// Sets the time of day, as the time since 1970.
pub(crate) fn set_realtime(now: Duration) -> Result<(), Errno> {
    let time = Timespec {
        // The kernel takes no time that far in the future.
        tv_sec: now.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: now.subsec_nanos().into(),
    };
    let arguments = [CLOCK_REALTIME, (&raw const time).expose_provenance(), 0, 0];
    // SAFETY: clock_settime(2) reads one timespec from the second argument.
    unsafe { syscall(CLOCK_SETTIME, arguments) }.map(drop)
}

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
