//! What a fleet costs its host in memory, as a document of the control interface.

use std::io;
use std::path::Path;

use super::types::{API_VERSION, CgroupMemory, GuestMemory, KsmState, Memory, MemoryParts};
use crate::guest::merging::{KsmSeen, Merging, Population};
use crate::sample::account::{Charged, Group, Process, available};
use crate::sample::ksm::Ksm;
use crate::units::GuestIndex;

/// The processes of a fleet, and where their memory is charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Processes {
    pub fleet: String,
    /// The VMM of each guest that has one.
    pub guests: Vec<(GuestIndex, u32)>,
    pub supervisor: Option<u32>,
    /// Bytes of the files in memory that guests are handed, as far as they are known:
    /// the template, and copies of artifacts.
    pub handed: u64,
    /// The fleet's control group, where it has one with a memory controller.
    pub charged: Option<Charged>,
    /// How far KSM has come, as far as that is known.
    pub ksm: Option<KsmState>,
}

impl Processes {
    /// Reads what they cost now. A guest that ends meanwhile is left out.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let root = Path::new("/");
        let mut guests = Vec::new();
        for &(guest, pid) in &self.guests {
            if let Some(process) = Process::of(root, pid)? {
                guests.push((guest, pid, process));
            }
        }
        let supervisor = self.supervisor.map(|pid| Process::of(root, pid));
        let supervisor = supervisor.transpose()?.flatten();
        let charged = self.charged.as_ref();
        let group = charged.and_then(|charged| Group::of(charged.hierarchy, &charged.folder));
        Ok(Memory {
            host_available: available(),
            ksm: self.ksm,
            ..compose(&self.fleet, &guests, supervisor, self.handed, group)
        })
    }
}

/// The sums over a fleet.
fn compose(
    fleet: &str,
    guests: &[(GuestIndex, u32, Process)],
    supervisor: Option<Process>,
    handed: u64,
    group: Option<Group>,
) -> Memory {
    let sum = |part: fn(&Process) -> u64| -> u64 {
        let parts = guests.iter().map(|(_, _, process)| part(process));
        parts.fold(0, u64::saturating_add)
    };
    let page_tables = sum(|process| process.page_tables);
    let kernel_stacks = sum(|process| process.kernel_stacks);
    let own = sum(Process::own);
    // Not its proportional part: whoever asks maps imgbuild as well.
    let supervisor = supervisor.map_or(0, |process| {
        let kernel = process.page_tables.saturating_add(process.kernel_stacks);
        let own = process.resident.saturating_add(process.swap);
        own.saturating_add(kernel)
    });
    // All of it, though guests map a part only; who does not know has what they map.
    let mapped = sum(|process| process.in_memory);
    let handed = handed.max(mapped);
    let parts = MemoryParts {
        cannot_merge: own.saturating_add(sum(|process| process.swap)),
        shared_by_all: sum(|process| process.proportional)
            .saturating_sub(own)
            .saturating_sub(mapped)
            .saturating_add(handed)
            .saturating_add(supervisor),
        kernel: group
            .and_then(|group| group.kernel)
            .unwrap_or_else(|| page_tables.saturating_add(kernel_stacks)),
        ksm: sum(|process| process.ksm),
    };
    let all = [
        parts.cannot_merge,
        parts.shared_by_all,
        parts.kernel,
        parts.ksm,
    ];
    let bytes = all.into_iter().fold(0, u64::saturating_add);
    let count = u32::try_from(guests.len()).unwrap_or(u32::MAX);
    Memory {
        api: API_VERSION,
        fleet: fleet.to_owned(),
        bytes,
        count,
        bytes_a_guest: bytes.checked_div(count.into()),
        parts,
        page_tables,
        kernel_stacks,
        supervisor,
        handed,
        cgroup: group.map(|group| CgroupMemory {
            charged: group.charged,
            page_cache: group.cache,
            kernel: group.kernel,
        }),
        host_available: None,
        ksm: None,
        guests: guests
            .iter()
            .map(|&(id, pid, process)| GuestMemory {
                id,
                pid,
                anonymous: process.anonymous,
                merged: process.merged,
                zero: process.zero,
                swap: process.swap,
            })
            .collect(),
    }
}

/// How far KSM has come with these guests, as `merging` has seen it; `None` where that is
/// not known.
pub(crate) fn ksm_state(merging: &mut Merging, ksm: &Ksm, guests: Population) -> Option<KsmState> {
    let Some(seen) = KsmSeen::of(ksm) else {
        return (!ksm.runs()).then_some(KsmState::Stopped);
    };
    merging.see(&seen, guests);
    Some(if merging.has_settled(&seen, guests) {
        KsmState::Settled
    } else {
        KsmState::Merging
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: Process = Process {
        anonymous: 100,
        merged: 70,
        zero: 9,
        swap: 5,
        proportional: 45,
        in_memory: 6,
        resident: 99,
        page_tables: 3,
        kernel_stacks: 4,
        ksm: 2,
    };

    fn guests(count: u32) -> Vec<(GuestIndex, u32, Process)> {
        let guest = |number| (GuestIndex::new(number).unwrap(), 70 + number, GUEST);
        (0..count).map(guest).collect()
    }

    #[test]
    fn the_parts_add_up_to_what_a_guest_costs() {
        let supervisor = Process {
            resident: 20,
            page_tables: 1,
            kernel_stacks: 1,
            ..Process::default()
        };
        let group = Group {
            charged: 110,
            cache: 12,
            kernel: Some(30),
        };
        let memory = compose("f", &guests(2), Some(supervisor), 0, Some(group));
        let parts = MemoryParts {
            cannot_merge: 2 * (30 + 5),
            shared_by_all: 2 * 15 + 22,
            kernel: 30,
            ksm: 4,
        };
        assert_eq!(memory.parts, parts);
        assert_eq!((memory.bytes, memory.bytes_a_guest), (156, Some(78)));
        assert_eq!(memory.guests[1].merged, 70);

        // Where no group counts it, the kernel's part is what is seen of it.
        for group in [
            None,
            Some(Group {
                kernel: None,
                ..group
            }),
        ] {
            let memory = compose("f", &guests(2), None, 0, group);
            assert_eq!(memory.parts.kernel, 14);
            assert_eq!(memory.parts.shared_by_all, 30);
        }

        // A template is counted whole, and what guests map of it not once more.
        let memory = compose("f", &guests(2), None, 50, None);
        assert_eq!(memory.handed, 50);
        assert_eq!(memory.parts.shared_by_all, 2 * (15 - 6) + 50);
    }

    #[test]
    fn nothing_overflows_and_nothing_is_divided_by_no_guests() {
        let none = compose("f", &[], None, 0, None);
        assert_eq!((none.bytes, none.bytes_a_guest), (0, None));
        let most = Process {
            anonymous: u64::MAX,
            merged: 0,
            zero: u64::MAX,
            swap: u64::MAX,
            proportional: u64::MAX,
            in_memory: u64::MAX,
            resident: u64::MAX,
            page_tables: u64::MAX,
            kernel_stacks: u64::MAX,
            ksm: u64::MAX,
        };
        let guest = GuestIndex::new(0).unwrap();
        let memory = compose(
            "f",
            &[(guest, 1, most), (guest, 2, most)],
            Some(most),
            u64::MAX,
            None,
        );
        assert_eq!(memory.bytes, u64::MAX);
    }
}
