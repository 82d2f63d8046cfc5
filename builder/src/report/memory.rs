//! What a fleet costs its host in memory, for people.

use crate::control::types::{GuestMemory, KsmState, Memory};
use crate::units::counted;

/// The figure, its parts, and a line for each guest.
pub(crate) fn memory(memory: &Memory) -> String {
    let number = u64::from(memory.count);
    let guests = counted(number, "guest");
    let Some(bytes) = memory.bytes_a_guest else {
        return format!("{}: no guest has a process", memory.fleet);
    };
    let mut lines = vec![
        format!(
            "{}: {} of host memory a guest, {guests}, {} in all",
            memory.fleet,
            mebibytes(bytes),
            mebibytes(memory.bytes)
        ),
        String::new(),
        row(["", "A GUEST", "IN ALL"]),
    ];
    let parts = memory.parts;
    for (name, bytes) in [
        ("cannot merge", parts.cannot_merge),
        ("shared by all", parts.shared_by_all),
        ("kernel", parts.kernel),
        ("KSM's own", parts.ksm),
    ] {
        let each = mebibytes(bytes / number);
        lines.push(row([name, &each, &mebibytes(bytes)]));
    }
    lines.push(String::new());
    if let Some(cgroup) = memory.cgroup {
        lines.push(format!(
            "its cgroup is charged with {}, {} of it page cache",
            mebibytes(cgroup.charged),
            mebibytes(cgroup.page_cache)
        ));
    }
    if let Some(available) = memory.host_available {
        lines.push(format!("the host has {} available", mebibytes(available)));
    }
    lines.push(progress(memory.ksm).to_owned());
    lines.push(String::new());
    lines.push(guest_row(
        ["GUEST", "PID", "ANONYMOUS", "MERGED", "ZERO", "SWAP"].map(str::to_owned),
    ));
    lines.extend(memory.guests.iter().map(|guest| guest_row(cells(guest))));
    lines.join("\n")
}

fn progress(ksm: Option<KsmState>) -> &'static str {
    match ksm {
        None => "it is not known whether KSM has settled: nobody watches it",
        Some(KsmState::Stopped) => "KSM does not run",
        Some(KsmState::Merging) => "KSM has not settled: it may merge more",
        Some(KsmState::Settled) => "KSM has settled",
    }
}

fn row([name, each, all]: [&str; 3]) -> String {
    format!("{name:16}{each:>12}{all:>14}")
        .trim_end()
        .to_owned()
}

fn cells(guest: &GuestMemory) -> [String; 6] {
    [
        guest.id.to_string(),
        guest.pid.to_string(),
        mebibytes(guest.anonymous),
        mebibytes(guest.merged),
        mebibytes(guest.zero),
        mebibytes(guest.swap),
    ]
}

fn guest_row([id, pid, anonymous, merged, zero, swap]: [String; 6]) -> String {
    format!("{id:6} {pid:>7} {anonymous:>12} {merged:>12} {zero:>12} {swap:>12}")
}

/// Such as `3.94 MiB`, in one unit throughout, so that figures compare.
fn mebibytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "two digits are printed")]
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    format!("{mebibytes:.2} MiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::types::{CgroupMemory, MemoryParts};

    #[test]
    fn the_figure_comes_first_and_its_parts_add_up() {
        let mut fleet = Memory {
            api: 1,
            fleet: "tty-burn".to_owned(),
            bytes: 6 << 20,
            count: 2,
            bytes_a_guest: Some(3 << 20),
            parts: MemoryParts {
                cannot_merge: 2 << 20,
                shared_by_all: 3 << 20,
                kernel: 512 << 10,
                ksm: 512 << 10,
            },
            page_tables: 1,
            kernel_stacks: 1,
            supervisor: 1,
            handed: 0,
            cgroup: Some(CgroupMemory {
                charged: 5 << 20,
                page_cache: 1 << 20,
                kernel: Some(1),
            }),
            host_available: Some(1 << 30),
            ksm: Some(KsmState::Settled),
            guests: [0, 1]
                .map(|number| GuestMemory {
                    id: crate::units::GuestIndex::new(number).unwrap(),
                    pid: 4_194_304,
                    anonymous: 10 << 20,
                    merged: 9 << 20,
                    zero: 0,
                    swap: 0,
                })
                .to_vec(),
        };
        assert_eq!(
            memory(&fleet),
            "tty-burn: 3.00 MiB of host memory a guest, 2 guests, 6.00 MiB in all\n\
             \n\
             \u{20}                    A GUEST        IN ALL\n\
             cannot merge        1.00 MiB      2.00 MiB\n\
             shared by all       1.50 MiB      3.00 MiB\n\
             kernel              0.25 MiB      0.50 MiB\n\
             KSM's own           0.25 MiB      0.50 MiB\n\
             \n\
             its cgroup is charged with 5.00 MiB, 1.00 MiB of it page cache\n\
             the host has 1024.00 MiB available\n\
             KSM has settled\n\
             \n\
             GUEST      PID    ANONYMOUS       MERGED         ZERO         SWAP\n\
             g00000 4194304    10.00 MiB     9.00 MiB     0.00 MiB     0.00 MiB\n\
             g00001 4194304    10.00 MiB     9.00 MiB     0.00 MiB     0.00 MiB"
        );
        // Of guests that are not chosen only the rows go.
        fleet.guests.clear();
        assert!(memory(&fleet).contains("cannot merge        1.00 MiB      2.00 MiB"));
        fleet.count = 0;
        fleet.bytes_a_guest = None;
        assert_eq!(memory(&fleet), "tty-burn: no guest has a process");
    }
}
