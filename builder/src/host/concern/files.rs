//! Open files and other tables of the kernel.

use super::text::{at_least, count};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::settings::Knob;
use crate::host::snapshot::Host;
use crate::host::want::{LAUNCHER_FILES_A_GUEST, LAUNCHER_FILES_BESIDE, Want};

const OPEN_FILES: Check = Check {
    id: "open-files",
    document: "getrlimit(2), RLIMIT_NOFILE",
};
const FILE_MAX: Check = Check {
    id: "file-max",
    document: "https://docs.kernel.org/admin-guide/sysctl/fs.html#file-max-file-nr",
};
const MAPS: Check = Check {
    id: "max-map-count",
    document: "https://docs.kernel.org/admin-guide/sysctl/vm.html#max-map-count",
};
const AIO: Check = Check {
    id: "aio",
    document: "https://docs.kernel.org/admin-guide/sysctl/fs.html#aio-nr-aio-max-nr",
};
const INOTIFY: Check = Check {
    id: "inotify",
    document: "inotify(7)",
};

/// Mappings below which a VMM with its libraries, threads and translated code
/// may run out; a running one has a few hundred.
const FEW_MAPS: u64 = 4_096;
const DEFAULT_MAPS: u64 = 65_530;
const DEFAULT_INOTIFY: u64 = 128;
/// Below these, this user's other programs may leave a fleet none.
const FEW_INOTIFY: u64 = 64;

/// Judges open files and other tables.
pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![
        open_files(host, want),
        file_max(host, want),
        maps(host),
        aio(host),
        inotify(host),
    ]
}

fn open_files(host: &Host, want: &Want) -> Finding {
    let meaning = format!(
        "A fleet's supervisor holds {LAUNCHER_FILES_A_GUEST} open files a guest and {LAUNCHER_FILES_BESIDE} \
         beside; past the limit it cannot start another guest."
    );
    let needed = want
        .wanted()
        .saturating_mul(LAUNCHER_FILES_A_GUEST)
        .saturating_add(LAUNCHER_FILES_BESIDE);
    let need = at_least(want, needed);
    let Some(limit) = host.files.open_max else {
        return OPEN_FILES.finds(Severity::Ok, "no limit", need, meaning);
    };
    let fix = match host.files.nr_open {
        Some(most) if most < needed => {
            by_hand(&format!("sysctl fs.nr_open={needed}; then "), needed)
        }
        Some(_) if host.files.open_raisable => Fix::OpenFiles(needed),
        _ => by_hand("", needed),
    };
    OPEN_FILES
        .allows(
            want,
            Some(limit.saturating_sub(LAUNCHER_FILES_BESIDE) / LAUNCHER_FILES_A_GUEST),
            format!("{} (hard limit)", count(limit)),
            need,
            meaning,
        )
        .with_fix(fix)
}

fn by_hand(first: &str, needed: u64) -> Fix {
    Fix::manual(
        Needs::File,
        format!(
            "{first}raise it (nofile in /etc/security/limits.conf, LimitNOFILE= of a systemd \
             unit, or a container's --ulimit nofile) to {needed}, and log in again"
        ),
    )
}

fn file_max(host: &Host, want: &Want) -> Finding {
    let (Some(limit), Some(open)) = (host.files.file_max, host.files.open) else {
        let meaning = "It is not known how many files the whole host may have open.";
        return FILE_MAX.not_seen("room for the fleet", meaning);
    };
    let each = LAUNCHER_FILES_A_GUEST.saturating_add(want.cost.files);
    let needed = want.wanted().saturating_mul(each).saturating_add(open);
    FILE_MAX
        .allows(
            want,
            Some(limit.saturating_sub(open) / each),
            count(limit),
            at_least(want, needed),
            format!(
                "A guest takes {} open files, its VMM's and the supervisor's, and {} are open \
                 already, on the whole host.",
                count(each),
                count(open)
            ),
        )
        .with_fix(Fix::setting(
            Knob::FileMax,
            needed.checked_next_power_of_two().unwrap_or(u64::MAX),
        ))
}

/// The finding that there are `value` of what imgbuild hardly needs, `few` of
/// which are too few, and that the setting `name` gives `enough`.
fn table(
    check: Check,
    value: Option<u64>,
    few: u64,
    meaning: &str,
    (name, enough): (&str, u64),
) -> Finding {
    let need = format!("at least {}", count(few));
    let Some(value) = value else {
        return check.not_seen(need, meaning);
    };
    let severity = if value < few {
        Severity::Advice
    } else {
        Severity::Ok
    };
    check
        .finds(severity, count(value), need, meaning)
        .with_fix(Fix::manual(
            Needs::Command,
            format!("sysctl -w {name}={enough}"),
        ))
}

fn maps(host: &Host) -> Finding {
    table(
        MAPS,
        host.files.max_map_count,
        FEW_MAPS,
        "It bounds the mappings of each process by itself; a guest's VMM has a few hundred, \
         however many guests there are.",
        ("vm.max_map_count", DEFAULT_MAPS),
    )
}

/// For information: what other programs share.
fn aio(host: &Host) -> Finding {
    let need = "none of them";
    let meaning = "Guests' disks are read and written by threads, which take none.";
    let Some(most) = host.files.aio_max else {
        return AIO.not_seen(need, meaning);
    };
    let left = most.saturating_sub(host.files.aio.unwrap_or(0));
    AIO.finds(Severity::Ok, format!("{} left", count(left)), need, meaning)
}

fn inotify(host: &Host) -> Finding {
    table(
        INOTIFY,
        host.files.inotify_instances,
        FEW_INOTIFY,
        "A fleet takes one, and its guests none; it does not start where this user's other \
         programs have taken all.",
        ("fs.inotify.max_user_instances", DEFAULT_INOTIFY),
    )
}
