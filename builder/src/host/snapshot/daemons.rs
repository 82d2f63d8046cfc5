//! Running programs that change the settings that imgbuild changes, and threads
//! that KVM has for guests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::sample::processes::{Ids, is_gone, is_process};
use crate::sample::source::{Source, is_absence, read_bounded, reason};

/// Their names, which are short enough for the kernel not to cut them.
const NAMES: [&str; 4] = ["ksmtuned", "libvirtd", "uksmd", "virtqemud"];
/// What a `/proc/PID/comm` may hold: 15 bytes and a newline, and 64 for a
/// kernel thread (proc_pid_comm(5)).
const COMM: u64 = 65;

/// How the kernel names a thread that stands for a guest's PIT, before its VMM's
/// process id (Linux's `kvm_create_pit()`).
const PIT: &str = "kvm-pit/";

/// What runs on the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Running {
    /// Those of [`NAMES`].
    pub daemons: BTreeSet<String>,
    /// Threads that stand for a guest's PIT.
    pub pit_threads: u64,
}

/// Those of these names that run as root: a process of anybody's may bear such a
/// name, and only root's may set what daemons set.
pub(crate) fn read(source: &mut Source) -> Running {
    let names = source.names("proc");
    let processes: Vec<_> = names
        .iter()
        .filter(|name| is_process(name.as_bytes()))
        .collect();
    if !processes.is_empty() && !processes.iter().any(|name| *name == "1") {
        let why = "other users' processes are hidden (hidepid, proc(5))";
        source.note("proc", why);
    }
    let mut found = Running::default();
    let mut hidden: Option<(PathBuf, String)> = None;
    for process in processes {
        let path = Path::new("proc").join(process).join("comm");
        match comm(&source.place(&path)) {
            Ok(name) if NAMES.contains(&name.trim_end()) || name.starts_with(PIT) => {
                let status = path.with_file_name("status");
                let ids = source.parsed(status, "a process's status", Ids::parse);
                if !ids.is_some_and(|ids| ids.are_of(0)) {
                    continue;
                }
                if name.starts_with(PIT) {
                    found.pit_threads += 1;
                } else {
                    found.daemons.insert(name.trim_end().to_owned());
                }
            }
            Ok(_) => {}
            // It has ended meanwhile.
            Err(error) if is_absence(&error) || is_gone(&error) => {}
            Err(error) => {
                hidden.get_or_insert_with(|| (path, reason(&error)));
            }
        }
    }
    // One stands for all: with hidepid=1 it is those of all other users.
    if let Some((path, why)) = hidden {
        source.note(path, why);
    }
    found
}

fn comm(path: &Path) -> io::Result<String> {
    let bytes = read_bounded(fs::File::open(path)?, COMM)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
