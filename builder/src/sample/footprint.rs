//! How much memory a process uses, and which pages of two guests' RAM are equal.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::processes::{self, bytes, field};
use super::source::Source;
use super::{ksm, meminfo};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Where the addresses of user programs end (kernel document x86/x86_64/mm).
const USER_END: u64 = 1 << 47;
/// Most bytes of a mapping that is looked at; a VMM has none of this size.
const MAPPING_MAX: u64 = 64 << 30;

/// What a page holds.
pub type Page = [u8; PAGE];

/// What pages hold, by their place in bytes: from the start of a guest's RAM, or
/// their address. A page that was never touched has none.
pub type Pages = BTreeMap<u64, Page>;

/// What a thread of the kernel's for a machine is called, before the process id
/// of its VMM (Linux's `kvm_vm_create_worker_thread()` and `kvm_create_pit()`).
const FOR_MACHINE: &str = "kvm-";

/// What a VMM's process costs its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Memory that is its own alone, page tables included, in bytes.
    pub private: u64,
    /// Memory of files that it shares with others of its kind, in bytes.
    pub shared: u64,
    /// Threads.
    pub threads: u64,
    /// Open files.
    pub files: u64,
}

impl Footprint {
    /// Looks at a process of this user's.
    pub fn of(pid: u32) -> io::Result<Self> {
        let process = folder(pid);
        let rolled_up = |fields: &[&str]| bytes(&process, "smaps_rollup", fields);
        let threads = field(&process, "status", "Threads")?;
        Ok(Self {
            private: rolled_up(&["Private_Clean", "Private_Dirty", "Swap"])?.saturating_add(bytes(
                &process,
                "status",
                &["VmPTE"],
            )?),
            shared: rolled_up(&["Shared_Clean", "Shared_Dirty"])?,
            threads: threads.parse().map_err(io::Error::other)?,
            files: fs::read_dir(process.join("fd"))?.count() as u64,
        })
    }
}

/// Page tables that KVM has for all guests of the host, in bytes; `None` where the
/// kernel does not count them (before Linux 6.1).
pub fn nested_tables() -> Option<u64> {
    let mut unseen = Vec::new();
    meminfo::size(
        &mut Source::new(Path::new("/"), &mut unseen),
        "SecPageTables",
    )
}

/// Threads that the kernel has for the machine of the VMM `pid`; `None` where they
/// are not to be seen, as in a container.
pub fn kernel_threads(pid: u32) -> Option<u64> {
    let folders = processes::folders(Path::new("/")).ok()?;
    let names = folders
        .flatten()
        .filter_map(|folder| processes::text(&folder, "comm").ok());
    count_threads(names, pid)
}

/// How many of these processes are threads for the machine of `pid`.
fn count_threads(names: impl Iterator<Item = String>, pid: u32) -> Option<u64> {
    let pid = pid.to_string();
    let (mut threads, mut are_seen) = (0, false);
    for name in names {
        let name = name.trim_end();
        are_seen |= name == "kthreadd";
        let end = name.strip_prefix(FOR_MACHINE);
        let of = end.and_then(|end| end.rsplit(['-', '/']).next());
        threads += u64::from(of == Some(&pid));
    }
    are_seen.then_some(threads)
}

/// Which memory of a VMM's is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Extent {
    /// The guest's RAM of so many bytes, which QEMU maps in one piece.
    Ram(u64),
    /// All that is its own: each private mapping.
    Process,
}

/// The pages of a process that were touched and are of no file.
pub fn pages(pid: u32, extent: Extent) -> io::Result<Pages> {
    let process = folder(pid);
    let mappings = processes::mappings(&process)?.into_iter();
    let length = |addresses: &Range<u64>| addresses.end - addresses.start;
    match extent {
        Extent::Ram(ram) => {
            let mut ranges = mappings.map(|mapping| mapping.addresses);
            let ram = ranges.find(|addresses| length(addresses) == ram);
            let ram = ram.ok_or_else(|| {
                io::Error::other(format!("process {pid} has no mapping of that length"))
            })?;
            let start = ram.start;
            let touched = touched(&process, &[ram])?.into_iter();
            Ok(touched.map(|(place, page)| (place - start, page)).collect())
        }
        Extent::Process => {
            let private = mappings.filter(|mapping| mapping.is_private);
            let ranges = private.map(|mapping| mapping.addresses);
            let ranges: Vec<_> = ranges
                .filter(|range| range.end <= USER_END && length(range) <= MAPPING_MAX)
                .collect();
            touched(&process, &ranges)
        }
    }
}

/// What the pages at these addresses hold, by their addresses.
fn touched(process: &Path, ranges: &[Range<u64>]) -> io::Result<Pages> {
    let (map, memory) = (
        File::open(process.join("pagemap"))?,
        File::open(process.join("mem"))?,
    );
    let mut pages = Pages::new();
    for range in ranges {
        // A page's entry has bit 63 set when it is present, bit 62 when it is swapped
        // out, and bit 61 when it is a file's (kernel document
        // admin-guide/mm/pagemap); these are the highest of the entry's last byte.
        let count = (range.end - range.start) / PAGE as u64;
        let mut entries = vec![0; usize::try_from(count * 8).map_err(io::Error::other)?];
        map.read_exact_at(&mut entries, range.start / PAGE as u64 * 8)?;
        for (address, entry) in range.clone().step_by(PAGE).zip(entries.chunks_exact(8)) {
            if matches!(entry[7] >> 5, 0b100 | 0b010) {
                let mut page = [0; PAGE];
                match memory.read_exact_at(&mut page, address) {
                    // The kernel's own, such as [vvar], cannot be read so.
                    Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                    read => {
                        read?;
                        pages.insert(address, page);
                    }
                }
            }
        }
    }
    Ok(pages)
}

/// How many of `pages` a page of `others` is equal to, or another before it:
/// what KSM can free of one guest more.
pub fn mergeable(pages: &Pages, others: &Pages) -> u64 {
    let mut known: HashSet<_> = others.values().collect();
    let alike = pages.values().filter(|page| !known.insert(page));
    alike.count() as u64
}

/// Pages of a process that KSM has merged, those that became the kernel's zero
/// page included; `None` before Linux 5.19, which does not say.
pub fn merged(pid: u32) -> Option<u64> {
    ksm::merged(&folder(pid)).ok()
}

fn folder(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_large_as_what_it_touches() {
        // A process of its own: others of this one's tests touch and free.
        let mut child = std::process::Command::new("sh")
            .args([
                "-c",
                "x=$(head -c 33554432 /dev/zero | tr '\\0' x); echo; read y",
            ])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut touched = [0];
        let mut said = child.stdout.take().unwrap();
        io::Read::read_exact(&mut said, &mut touched).unwrap();
        let footprint = Footprint::of(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let footprint = footprint.unwrap();
        assert!(footprint.private >= 32 << 20, "{footprint:?}");
        assert!(
            footprint.files >= 3 && footprint.threads == 1,
            "{footprint:?}"
        );
        assert!(Footprint::of(u32::MAX).is_err());
    }

    #[test]
    fn threads_for_a_machine_are_known_by_its_vmm_s_id() {
        let threads = |names: &[&str]| {
            let names = names.iter().map(|name| format!("{name}\n"));
            count_threads(names, 184)
        };
        let ours = ["kvm-nx-lpage-recovery-184", "kvm-pit/184"];
        let others = [
            "kvm-pit/1184",
            "kvm-nx-lpage-recovery-18",
            "qemu-184",
            "kvm-",
        ];
        assert_eq!(
            threads(&[&["kthreadd"], &ours[..], &others].concat()),
            Some(2)
        );
        assert_eq!(threads(&["kthreadd", "init"]), Some(0));
        assert_eq!(threads(&ours), None);
    }

    #[test]
    fn only_touched_pages_of_a_mapping_are_read() {
        // Of a size that no other mapping has.
        let size = (37 << 20) + PAGE;
        // SAFETY: a fresh private mapping, and no other memory is touched.
        let map = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
            )
        }
        .unwrap();
        // SAFETY: the mapping is that long, and nobody else has it.
        let bytes = unsafe { std::slice::from_raw_parts_mut(map.cast::<u8>(), size) };
        bytes[5 * PAGE] = 7;
        bytes[9 * PAGE] = 8;
        let pages = pages(std::process::id(), Extent::Ram(size as u64)).unwrap();
        let seen: Vec<_> = pages
            .iter()
            .map(|(place, page)| (*place, page[0]))
            .collect();
        let place = |page: usize| (page * PAGE) as u64;
        assert_eq!(seen, [(place(5), 7), (place(9), 8)]);
        assert!(super::pages(std::process::id(), Extent::Ram(12_345 * PAGE as u64)).is_err());
    }

    #[test]
    fn a_process_has_the_pages_that_it_wrote_and_none_of_files() {
        let pages = pages(std::process::id(), Extent::Process).unwrap();
        let mine = std::hint::black_box(*b"what this test wrote on its own stack");
        let at = mine.as_ptr() as u64 / PAGE as u64 * PAGE as u64;
        assert!(pages.contains_key(&at), "the stack");
        let code = a_process_has_the_pages_that_it_wrote_and_none_of_files as fn() as usize as u64;
        assert!(!pages.contains_key(&(code / PAGE as u64 * PAGE as u64)));
    }

    #[test]
    fn a_page_merges_with_another_guest_s_or_one_of_its_own() {
        let pages = |bytes: &[u8]| -> Pages {
            let pages = bytes.iter().map(|byte| [*byte; PAGE]);
            (0..).step_by(PAGE).zip(pages).collect()
        };
        let (mine, theirs) = (pages(&[0, 1, 2, 2]), pages(&[1, 9]));
        assert_eq!(mergeable(&mine, &theirs), 2);
        assert_eq!(mergeable(&mine, &pages(&[])), 1);
        assert_eq!(mergeable(&pages(&[]), &theirs), 0);
    }
}
