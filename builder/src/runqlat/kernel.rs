//! What imgbuild and its program in the kernel agree on: `builder/bpf/runqlat.bpf.c`.

use super::types::{Cause, Class};
use super::waits::{BUCKETS, Waits};

/// Groups of threads: of no guest, of guests that are in none of the others, and from
/// here on those that imgbuild names.
pub(super) const FIRST: u32 = 2;
/// Groups that can be named; the number behind the last one is what an idle CPU has.
pub(super) const NAMED: u32 = 5;
/// A process that is no guest.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// Classes and causes, by their numbers in the kernel.
pub(super) const CLASSES: [Class; 4] = [Class::Vcpu, Class::Vmm, Class::Io, Class::Other];
pub(super) const CAUSES: [Cause; 5] = [
    Cause::Same,
    Cause::OtherGuest,
    Cause::Host,
    Cause::Quota,
    Cause::Nobody,
];

/// A value of `processes`: group, slot, whether it is a parent of the group, whether
/// its children are of the group.
pub(super) type Process = [u32; 4];

/// A value of `waits` and of `guests`.
pub(super) type Counted = [u64; 4 + BUCKETS];

pub(super) fn waits(counted: &Counted) -> Waits {
    let [count, nanoseconds, longest, above, buckets @ ..] = *counted;
    Waits {
        count,
        nanoseconds,
        longest,
        above,
        buckets,
    }
}

/// A value of `first`.
pub(super) type First = [u64; 9];

/// The first wait that was longer than the threshold; `None` while there was none.
pub(super) fn first(value: &First) -> Option<Long> {
    let [claimed, nanoseconds, rest @ ..] = *value;
    // Two, once all of it is written.
    if claimed < 2 {
        return None;
    }
    let bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let name = |at: usize| {
        let bytes = bytes.get(at..at + 16)?;
        let name = bytes.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    Some(Long {
        nanoseconds,
        cpu: number(0)?,
        thread: (number(4)?, number(8)?, name(24)?),
        cause: *CAUSES.get(number(12)? as usize)?,
        behind: (number(16)?, number(20)?, name(40)?),
    })
}

/// A wait longer than the threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Long {
    pub nanoseconds: u64,
    pub cpu: u32,
    /// Thread, process and name of who waited.
    pub thread: (u32, u32, String),
    pub cause: Cause,
    /// The same of who had the CPU last.
    pub behind: (u32, u32, String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_long_wait_is_read_once_it_is_written() {
        let two = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let text = |text: &str| {
            let mut bytes = [0; 16];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            let half = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
            [half(0), half(8)]
        };
        let [name, rest] = text("CPU 0/TCG");
        let [behind, none] = text("a\u{1b}[31m");
        let value = [
            2,
            7_000,
            two(3, 11),
            two(10, 2),
            two(21, 20),
            name,
            rest,
            behind,
            none,
        ];
        let long = first(&value).unwrap();
        assert_eq!((long.nanoseconds, long.cpu), (7_000, 3));
        assert_eq!(long.thread, (11, 10, "CPU 0/TCG".to_owned()));
        assert_eq!(long.cause, Cause::Host);
        assert_eq!(long.behind, (21, 20, "a\u{1b}[31m".to_owned()));
        for claimed in [0, 1] {
            let mut value = value;
            value[0] = claimed;
            assert_eq!(first(&value), None);
        }
        let mut unknown = value;
        unknown[3] = two(10, 99);
        assert_eq!(first(&unknown), None);
    }
}
