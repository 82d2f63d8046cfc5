//! The kernel's tables: processes, open files, and others.

use std::fs::File;
use std::path::Path;

use super::{Files, Processes};
use crate::sample::processes::is_process;
use crate::sample::source::{ORDINARY, Source, read_bounded, unexpected};

/// Processes and threads, of which `user` may have `user_max`.
pub(crate) fn processes(
    source: &mut Source,
    user_max: Option<u64>,
    user: Option<u32>,
) -> Processes {
    Processes {
        pid_max: source.number("proc/sys/kernel/pid_max"),
        threads_max: source.number("proc/sys/kernel/threads-max"),
        threads: threads(source),
        user_max,
        user_threads: user.and_then(|user| user_threads(source, user)),
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

/// Threads of the processes whose real user is `user`, of whom at least this
/// process is one. What cannot be read is another user's, or has ended.
fn user_threads(source: &mut Source, user: u32) -> Option<u64> {
    let mut count = 0_u64;
    for name in source.names("proc") {
        if !is_process(name.as_bytes()) {
            continue;
        }
        let path = Path::new("proc").join(name).join("status");
        let Ok(bytes) =
            File::open(source.place(&path)).and_then(|file| read_bounded(file, ORDINARY))
        else {
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        match threads_of(&text) {
            Some((owner, threads)) if owner == user => count = count.saturating_add(threads),
            Some(_) => {}
            None => source.note(path, unexpected(text.trim(), "a process's status")),
        }
    }
    (count > 0).then_some(count)
}

/// The real user and the threads of a proc_pid_status(5).
fn threads_of(status: &str) -> Option<(u32, u64)> {
    let first = |name| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next())
    };
    Some((
        first("Uid:")?.parse().ok()?,
        first("Threads:")?.parse().ok()?,
    ))
}

/// Open files and other tables, as files tell of them.
pub(crate) fn files(source: &mut Source) -> Files {
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
