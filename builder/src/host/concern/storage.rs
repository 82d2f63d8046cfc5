//! File systems that a fleet writes to.

use super::text::{count, counted, size};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::{FileSystem, Host, Store};
use crate::host::want::Want;

const DISK: Check = Check {
    id: "disk",
    document: "statvfs(3)",
};
const SOCKETS: Check = Check {
    id: "sockets",
    document: "unix(7), statvfs(3)",
};
const SHM: Check = Check {
    id: "shm",
    document: "https://docs.kernel.org/filesystems/tmpfs.html",
};

/// A guest's overlay and identity.
const FILES_A_GUEST: u64 = 2;
/// The socket of its VMM.
const SOCKETS_A_GUEST: u64 = 1;

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![disk(host, want), sockets(host, want), shm(host)]
}

/// What and where it is.
fn place(system: &FileSystem) -> String {
    match &system.kind {
        Some(kind) => format!("{} ({kind})", system.path.display()),
        None => system.path.display().to_string(),
    }
}

fn inodes(system: &FileSystem) -> String {
    system.files_free.map_or_else(String::new, |files| {
        format!(" and {} free inodes", count(files))
    })
}

fn disk(host: &Host, want: &Want) -> Finding {
    let guests = want.wanted();
    let bytes = guests.saturating_mul(want.cost.disk);
    let need = format!(
        "{} and {} for {}",
        size(bytes),
        counted(guests.saturating_mul(FILES_A_GUEST), "inode"),
        counted(guests, "guest")
    );
    let Some(system) = host.storage.get(&Store::State) else {
        return DISK.not_seen(need, "It is not known whether overlays fit.");
    };
    let by_bytes = system.free.checked_div(want.cost.disk);
    let by_files = system.files_free.map(|files| files / FILES_A_GUEST);
    DISK.allows(
        want,
        by_bytes.into_iter().chain(by_files).min(),
        format!(
            "{} free{} in {}",
            size(system.free),
            inodes(system),
            place(system)
        ),
        need,
        "Each guest writes to an overlay of its own, which grows with what it writes.",
    )
    .with_fix(Fix::manual(
        Needs::Choice,
        "free space there, or put fleets elsewhere: XDG_STATE_HOME=DIR",
    ))
}

fn sockets(host: &Host, want: &Want) -> Finding {
    let need = counted(want.wanted().saturating_mul(SOCKETS_A_GUEST), "free inode");
    let Some(system) = host.storage.get(&Store::Runtime) else {
        return SOCKETS.not_seen(need, "It is not known whether guests' sockets fit.");
    };
    let free = system.files_free.map_or_else(
        || "inodes are not counted".to_owned(),
        |files| counted(files, "free inode"),
    );
    SOCKETS
        .allows(
            want,
            system.files_free.map(|files| files / SOCKETS_A_GUEST),
            format!("{free} in {}", place(system)),
            need,
            "Each guest has a socket there.",
        )
        .with_fix(Fix::manual(
            Needs::Command,
            format!(
                "mount it with more inodes (mount -o remount,nr_inodes={} {}), or put sockets \
                 elsewhere: XDG_RUNTIME_DIR=DIR",
                want.wanted().saturating_mul(2),
                system.path.display()
            ),
        ))
}

/// For information: where other launchers of guests put their RAM.
fn shm(host: &Host) -> Finding {
    let need = "none of it";
    let meaning = "A guest's RAM is memory of its QEMU's own, which no file system holds.";
    let Some(system) = host.storage.get(&Store::Shm) else {
        return SHM.not_seen(need, meaning);
    };
    let value = format!("{} of {} free", size(system.free), size(system.size));
    SHM.finds(Severity::Ok, value, need, meaning)
}
