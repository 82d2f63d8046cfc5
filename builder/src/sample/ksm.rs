//! Kernel samepage merging: its settings, its counters, and a process's part of them.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::processes::{Stat, is_gone, text};
use super::source::{Source, unexpected};
use super::unseen::Unseen;

/// Its folder below a root (kernel document admin-guide/mm/ksm).
const FOLDER: &str = "sys/kernel/mm/ksm";

/// The size of a page of x86-64, in bytes.
pub(crate) const PAGE: u64 = 4096;
/// Pages a second that the one thread of ksmd gets through at most.
pub(crate) const KSMD_MAX: u64 = 1_500_000;
/// Pages that a guest touches before any are merged: about 8 MiB.
pub(crate) const PAGES_A_GUEST: u64 = 2_000;

/// Kernel samepage merging (kernel document admin-guide/mm/ksm).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ksm {
    /// 0 stopped, 1 running, 2 stopped and unmerged.
    pub run: Option<u64>,
    /// Pages a turn of ksmd.
    pub pages_to_scan: Option<u64>,
    /// Milliseconds between turns.
    pub sleep_millisecs: Option<u64>,
    /// Whether pages that did not merge are passed over for a while.
    pub smart_scan: Option<u64>,
    /// Whether empty pages become the kernel's zero page.
    pub use_zero_pages: Option<u64>,
    /// Most mappings of one page.
    pub max_page_sharing: Option<u64>,
    /// Whether pages of different NUMA nodes merge.
    pub merge_across_nodes: Option<u64>,
    /// Who sets `pages_to_scan`: `none` or `scan-time`.
    pub advisor_mode: Option<String>,
    /// Pages that stand for others.
    pub pages_shared: Option<u64>,
    /// Mappings more than those pages, and so pages saved.
    pub pages_sharing: Option<u64>,
    /// Pages that are alike to no other.
    pub pages_unshared: Option<u64>,
    /// Pages that change too fast.
    pub pages_volatile: Option<u64>,
    /// Passes over all memory.
    pub full_scans: Option<u64>,
    /// The nice value of ksmd; `None` where it is not seen, and where nobody looked
    /// for it ([`ksmd`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ksmd_nice: Option<i64>,
}

impl Ksm {
    /// Whether it merges now.
    pub fn runs(&self) -> bool {
        self.run == Some(1)
    }
}

/// KSM of the machine under `root`; `None` if its kernel has none. What is
/// there but cannot be read is added to `unseen`.
pub(crate) fn read(root: &Path, unseen: &mut Vec<Unseen>) -> Option<Ksm> {
    let mut source = Source::new(root, unseen);
    let listed = fs::read_dir(source.place(FOLDER));
    source.kept(FOLDER, listed)?;
    let mut number = |name: &str| source.number(Path::new(FOLDER).join(name));
    let ksm = Ksm {
        run: number("run"),
        pages_to_scan: number("pages_to_scan"),
        sleep_millisecs: number("sleep_millisecs"),
        smart_scan: number("smart_scan"),
        use_zero_pages: number("use_zero_pages"),
        max_page_sharing: number("max_page_sharing"),
        merge_across_nodes: number("merge_across_nodes"),
        advisor_mode: None,
        pages_shared: number("pages_shared"),
        pages_sharing: number("pages_sharing"),
        pages_unshared: number("pages_unshared"),
        pages_volatile: number("pages_volatile"),
        full_scans: number("full_scans"),
        ksmd_nice: None,
    };
    Some(Ksm {
        advisor_mode: source.choice(Path::new(FOLDER).join("advisor_mode")),
        ..ksm
    })
}

/// ksmd, the kernel's thread that merges pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ksmd {
    pub pid: u32,
    /// In clock ticks since boot.
    pub start_time: u64,
    pub nice: i64,
}

/// `PF_KTHREAD` of Linux's include/linux/sched.h, which no program can have.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// ksmd, where it is among the processes that are seen. Any program may bear its name,
/// and is not taken for it.
pub(crate) fn ksmd(source: &mut Source) -> Option<Ksmd> {
    let names = source.names("proc");
    names.iter().find_map(|name| {
        let pid = name.parse().ok()?;
        let process = Path::new("proc").join(name);
        let comm = text(&source.place(&process), "comm").ok()?;
        if comm.trim_end() != "ksmd" {
            return None;
        }
        let path = process.join("stat");
        let line = source.text(&path)?;
        let Some(stat) = Stat::parse(&line) else {
            source.note(path, unexpected(line.trim_end(), "a process's state"));
            return None;
        };
        (stat.flags & KERNEL_THREAD != 0).then_some(Ksmd {
            pid,
            start_time: stat.start_time,
            nice: stat.nice,
        })
    })
}

/// What KSM keeps for a page that it looks at, in bytes: the size of Linux's
/// `struct ksm_rmap_item` on 64-bit machines.
pub(crate) const ITEM: u64 = 64;

/// KSM's part in the memory of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Pages merged with other pages.
    pub merged: u64,
    /// Pages replaced by the kernel's zero page.
    pub zero: u64,
    /// Pages of which KSM keeps a record.
    pub items: u64,
}

/// KSM's part in the process with this folder.
pub(crate) fn share(process: &Path) -> Result<Share, String> {
    let merging = match text(process, "ksm_merging_pages") {
        Err(error) if is_gone(&error) && !process.exists() => return Ok(Share::default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("the kernel counts them only from Linux 5.19 on".to_owned());
        }
        read => ended_is_empty(read)?,
    };
    let stat = match text(process, "ksm_stat") {
        // Before Linux 6.1 there is none; 6.6 was the first to count zero pages.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => ended_is_empty(read)?,
    };
    let counted = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name));
        pages(value.unwrap_or_default())
    };
    Ok(Share {
        merged: pages(&merging)?,
        zero: counted("ksm_zero_pages ")?,
        items: counted("ksm_rmap_items ")?,
    })
}

/// Merged pages of the process with this folder, zero pages among them.
pub(crate) fn merged(process: &Path) -> Result<u64, String> {
    share(process).map(|share| share.merged.saturating_add(share.zero))
}

/// A process without memory, such as a zombie or a kernel thread, reads as
/// nothing; one that has ended does not read at all.
fn ended_is_empty(read: io::Result<String>) -> Result<String, String> {
    match read {
        Err(error) if is_gone(&error) => Ok(String::new()),
        read => read.map_err(|error| error.to_string()),
    }
}

fn pages(text: &str) -> Result<u64, String> {
    match text.trim_ascii() {
        "" => Ok(0),
        text => text
            .parse()
            .map_err(|_| format!("{text:?} is not a number of pages")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_pages_are_summed_and_what_makes_no_sense_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let process = root.path().join("7");
        fs::create_dir(&process).unwrap();
        let told = merged(&process).unwrap_err();
        assert!(told.contains("from Linux 5.19 on"), "{told}");
        let endless = "1".repeat(17 << 20);
        for (merging, stat, pages) in [
            ("5\n", "ksm_rmap_items x\n", None),
            ("5\n", "ksm_rmap_items 9\nksm_zero_pages 3\n", Some(8)),
            ("5\n", "", Some(5)),
            ("5\n", "ksm_zero_pa", Some(5)),
            ("", "", Some(0)),
            ("18446744073709551615", "ksm_zero_pages 3\n", Some(u64::MAX)),
            ("18446744073709551616", "", None),
            ("-5\n", "", None),
            ("\u{fffd}", "", None),
            ("5\n", "ksm_zero_pages x\n", None),
            (&endless, "", None),
            ("5\n", &endless, None),
        ] {
            fs::write(process.join("ksm_merging_pages"), merging).unwrap();
            fs::write(process.join("ksm_stat"), stat).unwrap();
            assert_eq!(merged(&process).ok(), pages, "{merging:.30} {stat:.30}");
        }
        assert_eq!(merged(&root.path().join("8")), Ok(0));
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_is_not_known() {
        let root = tempfile::tempdir().unwrap();
        let mut unseen = Vec::new();
        assert_eq!(read(root.path(), &mut unseen), None);
        let folder = root.path().join(FOLDER);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [
            ("run", "1\n"),
            ("full_scans", "-1\n"),
            ("pages_sharing", ""),
            ("pages_volatile", &"1".repeat(2 << 20)),
            ("advisor_mode", "none scan-time\n"),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }
        let found = read(root.path(), &mut unseen).unwrap();
        let run = Ksm {
            run: Some(1),
            ..Ksm::default()
        };
        assert_eq!(found, run);
        assert_eq!(unseen.len(), 4);
    }
}
