//! Memory: how much the host has, how much is free, and how the kernel commits it.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use super::snapshot::{Memory, Unseen};
use crate::sample::meminfo::{bytes, fields};
use crate::sample::source::{ORDINARY, Source, read_bounded, unexpected};

const MEMINFO: &str = "proc/meminfo";
/// Pressure stall information (kernel document accounting/psi).
const PRESSURE: &str = "proc/pressure/memory";

/// Memory of the machine under `root`. What is there but cannot be read is
/// added to `unseen`.
pub(crate) fn read(root: &Path, unseen: &mut Vec<Unseen>) -> Memory {
    let mut source = Source::new(root, unseen);
    let text = source.text(MEMINFO);
    let fields = text.as_deref().map(fields).unwrap_or_default();
    if text.is_some() && !fields.contains_key("MemTotal") {
        source.note(MEMINFO, "there is no MemTotal in it");
    }
    let huge_pages = fields
        .get("HugePages_Total")
        .and_then(|text| text.parse::<u64>().ok());
    let mut size = |name: &str| {
        let text = fields.get(name)?;
        let bytes = bytes(text);
        if bytes.is_none() {
            let line = format!("{name}: {text}");
            source.note(MEMINFO, unexpected(&line, "a size in kB"));
        }
        bytes
    };
    let memory = Memory {
        total: size("MemTotal"),
        available: size("MemAvailable"),
        swap: size("SwapTotal"),
        swap_free: size("SwapFree"),
        // Linux before 4.16 has no `Hugetlb`, and tells of one page size only.
        huge_pages: match fields.get("Hugetlb") {
            Some(_) => size("Hugetlb"),
            None => size("Hugepagesize").and_then(|size| size.checked_mul(huge_pages?)),
        },
        commit_limit: size("CommitLimit"),
        committed: size("Committed_AS"),
        ..Memory::default()
    };
    Memory {
        overcommit: source.number("proc/sys/vm/overcommit_memory"),
        transparent_huge_pages: source.choice("sys/kernel/mm/transparent_hugepage/enabled"),
        pressure: has_pressure(&mut source),
        ..memory
    }
}

/// Memory that stays free unless the user says otherwise, in bytes: a tenth of
/// the host's `total`, and 1 GiB at most.
pub(crate) fn keep_free(total: Option<u64>) -> u64 {
    const MOST: u64 = 1 << 30;
    total.map_or(MOST, |total| (total / 10).min(MOST))
}

/// Which of the OOM killer's kills are reported, each for one process.
#[derive(Debug)]
pub(crate) struct OomKills {
    reported: u64,
}

impl OomKills {
    /// None of the `counted` so far is to be reported.
    pub(crate) fn after(counted: u64) -> Self {
        Self { reported: counted }
    }

    /// Whether one of the `counted` is left for a process that SIGKILL ended; it
    /// is reported from here on.
    pub(crate) fn take(&mut self, counted: u64) -> bool {
        let is_left = self.reported < counted;
        self.reported += u64::from(is_left);
        is_left
    }
}

/// Whether the kernel tells of pressure: one booted with `psi=0` has the file,
/// and refuses to open it.
fn has_pressure(source: &mut Source) -> bool {
    let opened = File::open(source.place(PRESSURE));
    match opened.and_then(|file| read_bounded(file, ORDINARY)) {
        Ok(text) if text.starts_with(b"some ") => true,
        Ok(text) => {
            let text = String::from_utf8_lossy(&text);
            source.note(
                PRESSURE,
                unexpected(&text, "pressure, such as `some avg10=0.00`"),
            );
            false
        }
        Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => false,
        Err(error) => source.kept(PRESSURE, Err(error)).unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_oom_kill_ends_one_process() {
        let mut kills = OomKills::after(7);
        assert!(!kills.take(7), "older than all of them");
        let taken = [(); 4].map(|()| kills.take(10));
        assert_eq!(taken, [true, true, true, false]);
        assert!(kills.take(11));
        assert!(!kills.take(11));
    }
}
