//! The kernel's tables: processes, open files, and others.

use super::file::Source;
use super::{Files, Processes};

/// Processes and threads, of which a user may have `user_max`.
pub(super) fn processes(source: &mut Source, user_max: Option<u64>) -> Processes {
    Processes {
        pid_max: source.number("proc/sys/kernel/pid_max"),
        threads_max: source.number("proc/sys/kernel/threads-max"),
        threads: threads(source),
        user_max,
        autogroup: source.parsed(
            "proc/sys/kernel/sched_autogroup_enabled",
            "0 or 1",
            |text| match text {
                "0" => Some(false),
                "1" => Some(true),
                _ => None,
            },
        ),
    }
}

/// Every thread of the host: proc_loadavg(5) calls them scheduling entities.
fn threads(source: &mut Source) -> Option<u64> {
    source.parsed(
        "proc/loadavg",
        "a load, such as `0.2 0.3 0.1 1/89 3897`",
        |text| {
            let (_running, all) = text.split_ascii_whitespace().nth(3)?.split_once('/')?;
            all.parse().ok()
        },
    )
}

/// Open files and other tables, as files tell of them.
pub(super) fn files(source: &mut Source) -> Files {
    Files {
        nr_open: source.number("proc/sys/fs/nr_open"),
        file_max: source.number("proc/sys/fs/file-max"),
        open: source.parsed("proc/sys/fs/file-nr", "three numbers", |text| {
            text.split_ascii_whitespace().next()?.parse().ok()
        }),
        max_map_count: source.number("proc/sys/vm/max_map_count"),
        aio_max: source.number("proc/sys/fs/aio-max-nr"),
        aio: source.number("proc/sys/fs/aio-nr"),
        inotify_instances: source.number("proc/sys/fs/inotify/max_user_instances"),
        ..Files::default()
    }
}
