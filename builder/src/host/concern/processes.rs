//! Processes and threads.

use std::path::Path;

use super::text::{at_least, count, counted};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::settings::Knob;
use crate::host::snapshot::{Group, Host};
use crate::host::want::Want;

const PID_MAX: Check = Check {
    id: "pid-max",
    document: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#pid-max",
};
const THREADS_MAX: Check = Check {
    id: "threads-max",
    document: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#threads-max",
};
const CGROUP: Check = Check {
    id: "cgroup-pids",
    document: "https://docs.kernel.org/admin-guide/cgroup-v2.html#pid",
};
const USER: Check = Check {
    id: "user-processes",
    document: "getrlimit(2), RLIMIT_NPROC",
};

/// Threads left for everything but guests. Of the whole host's numbers, the
/// kernel itself keeps the first 300 back (`RESERVED_PIDS`).
const RESERVE: u64 = 512;
/// The same within one group, where the kernel keeps none: the launcher, and a
/// client of its.
const GROUP_RESERVE: u64 = 4;
/// The same within one user's limit, beside the threads that are there: a shell
/// or two more, and what a desktop starts meanwhile.
const USER_RESERVE: u64 = 64;
/// Guests that are taken to use their disks at a time: each has a thread more
/// for that, until ten seconds after (QEMU's util/thread-pool.c).
const AT_DISKS: u64 = 1024;
/// `PID_MAX_LIMIT` of a 64-bit kernel.
const MOST: u64 = 1 << 22;

pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let processes = &host.processes;
    vec![
        system(host, want, PID_MAX, Knob::PidMax, processes.pid_max),
        system(
            host,
            want,
            THREADS_MAX,
            Knob::ThreadsMax,
            processes.threads_max,
        ),
        cgroup(host, want),
        user(host, want),
    ]
}

/// Guests whose threads fit into `room`.
fn guests(want: &Want, room: u64) -> Option<u64> {
    let few = room.checked_div(want.cost.threads)?;
    let many = room.saturating_sub(AT_DISKS).checked_div(at_rest(want));
    Some(few.max(many.unwrap_or(0)))
}

/// Threads of the guests wanted, with `beside` other ones.
fn needed(want: &Want, beside: u64) -> u64 {
    want.wanted()
        .saturating_mul(at_rest(want))
        .saturating_add(want.wanted().min(AT_DISKS))
        .saturating_add(beside)
}

/// Threads of a guest that does not use its disk.
fn at_rest(want: &Want) -> u64 {
    want.cost.threads.saturating_sub(1)
}

fn each(want: &Want) -> String {
    format!(
        "A guest takes {}, one of them only while it uses its disk",
        counted(want.cost.threads, "thread")
    )
}

/// The same fleet, of guests whose threads in the kernel count as theirs.
fn with_the_kernel_s(want: &Want) -> Want {
    let mut want = *want;
    want.cost.threads = (want.cost.threads).saturating_add(want.cost.kernel_threads);
    want
}

/// A limit of the whole host's.
fn system(host: &Host, want: &Want, check: Check, knob: Knob, limit: Option<u64>) -> Finding {
    let (Some(limit), Some(threads)) = (limit, host.processes.threads) else {
        return check.not_seen(
            "room for the fleet",
            "It is not known how many guests it allows.",
        );
    };
    let beside = threads.saturating_add(RESERVE);
    let want = &with_the_kernel_s(want);
    let needed = needed(want, beside);
    let raised = needed.checked_next_power_of_two().unwrap_or(MOST).min(MOST);
    let fix = if raised > limit {
        Fix::setting(knob, raised)
    } else {
        Fix::manual(Needs::Choice, "launch fewer guests: it cannot be raised")
    };
    check
        .allows(
            want,
            guests(want, limit.saturating_sub(beside)),
            count(limit),
            at_least(want, needed),
            format!(
                "{}, and {} are there already; past it no process starts, on the whole host.",
                each(want),
                count(threads)
            ),
        )
        .with_fix(fix)
}

fn cgroup(host: &Host, want: &Want) -> Finding {
    let room = |group: &Group| {
        let used = group.pids.unwrap_or(0).saturating_add(GROUP_RESERVE);
        Some(group.pids_max?.saturating_sub(used))
    };
    let groups = host.cgroup.groups.iter();
    let tightest = groups
        .filter_map(|group| Some((room(group)?, group)))
        .min_by_key(|(room, _)| *room);
    let Some((room, group)) = tightest else {
        let meaning = "No control group of this process bounds the threads of guests.";
        return CGROUP.finds(Severity::Ok, "no limit", "room for the fleet", meaning);
    };
    let used = group.pids.unwrap_or(0);
    let needed = needed(want, used.saturating_add(GROUP_RESERVE));
    let unit = group
        .path
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| is_unit(name));
    let (origin, fix) = match unit {
        Some(unit) => (
            " (TasksMax of systemd)",
            format!(
                "{} set-property {unit} TasksMax={needed}",
                manager(&group.path)
            ),
        ),
        None => (
            "",
            format!(
                "echo {needed} > {}, or start the container with --pids-limit {needed}",
                group.path.join("pids.max").display()
            ),
        ),
    };
    CGROUP
        .allows(
            want,
            guests(want, room),
            format!(
                "{} in {}{origin}",
                count(group.pids_max.unwrap_or(0)),
                group.path.display()
            ),
            at_least(want, needed),
            format!(
                "{}, and {} are in this group already; past it QEMU cannot start.",
                each(want),
                count(used)
            ),
        )
        .with_fix(Fix::manual(Needs::Command, fix))
}

/// Whether systemd would name a unit so.
fn is_unit(name: &str) -> bool {
    [".slice", ".scope", ".service"]
        .iter()
        .any(|kind| name.ends_with(kind))
}

/// What asks the systemd that made a unit's group: a user's own, if it is below
/// that one's `user@UID.service`.
fn manager(group: &Path) -> &'static str {
    let above = group.parent().into_iter().flat_map(Path::components);
    let names = above.filter_map(|name| name.as_os_str().to_str());
    let is_users = |name: &str| name.starts_with("user@") && name.ends_with(".service");
    if names.into_iter().any(is_users) {
        "systemctl --user"
    } else {
        "systemctl"
    }
}

fn user(host: &Host, want: &Want) -> Finding {
    let limit = match host.processes.user_max {
        Some(limit) if !host.privileged => limit,
        Some(_) => {
            let meaning = "The limit binds users other than root.";
            return USER.finds(Severity::Ok, "root", "room for the fleet", meaning);
        }
        None => {
            let meaning = "This user may have as many threads as the host.";
            return USER.finds(Severity::Ok, "no limit", "room for the fleet", meaning);
        }
    };
    let (beside, there) = match host.processes.user_threads {
        Some(threads) => (
            threads.saturating_add(USER_RESERVE),
            format!(", and this user has {} already", count(threads)),
        ),
        None => (RESERVE, String::new()),
    };
    let needed = needed(want, beside);
    USER.allows(
        want,
        guests(want, limit.saturating_sub(beside)),
        count(limit),
        at_least(want, needed),
        format!(
            "{}{there}; past the limit this user starts no process, a shell included.",
            each(want)
        ),
    )
    .with_fix(Fix::manual(
        Needs::File,
        format!(
            "raise it (nproc in /etc/security/limits.conf, or LimitNPROC= of a systemd unit) to \
             {needed}, and log in again"
        ),
    ))
}
