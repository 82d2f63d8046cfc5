//! Memory that PID 1 shares with the processes that it makes, so that a connection
//! reads the burn's current counters and not those of the time when it began.

use core::sync::atomic::{AtomicU32, AtomicU64};

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use tty_init::parameters::MAX_THREADS;

/// One page, zero at the start.
#[repr(C, align(4096))]
pub(crate) struct Shared {
    /// Percent of the time to burn; the futex that idle threads sleep on.
    pub duty: AtomicU32,
    /// What a connection wants the duty to be; PID 1 takes it from here.
    pub wanted: AtomicU32,
    /// Burn threads that there are.
    pub threads: AtomicU32,
    /// Milliseconds of uptime when the guest's life began.
    pub beginning_ms: AtomicU64,
    /// Milliseconds of uptime, and rounds done, when the duty was last set.
    pub set_ms: AtomicU64,
    pub set_rounds: AtomicU64,
    /// Rounds done by each thread.
    pub rounds: [AtomicU64; MAX_THREADS as usize],
}

const _: () = assert!(size_of::<Shared>() == 4096, "one page");

/// The page.
pub(crate) static SHARED: Shared = Shared {
    duty: AtomicU32::new(0),
    wanted: AtomicU32::new(0),
    threads: AtomicU32::new(0),
    beginning_ms: AtomicU64::new(0),
    set_ms: AtomicU64::new(0),
    set_rounds: AtomicU64::new(0),
    rounds: [const { AtomicU64::new(0) }; MAX_THREADS as usize],
};

/// Makes the page one that children share rather than copy. To be called
/// before anything is written there.
pub(crate) fn share() -> Result<(), Errno> {
    let place = (&raw const SHARED).cast_mut().cast();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the page is ours alone, aligned and of a page's size; it holds
    // atomics only, which are valid as zero, as they were.
    unsafe {
        mmap_anonymous(
            place,
            size_of::<Shared>(),
            access,
            MapFlags::SHARED | MapFlags::FIXED,
        )
    }
    .map(drop)
}
