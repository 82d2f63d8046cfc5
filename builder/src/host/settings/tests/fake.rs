//! A host of files in a temporary folder.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{Applied, Holder, Knob, Owner, Report, Setting, file};

/// The process number of ksmd.
pub(super) const KSMD: u32 = 37;

/// Has ksmd under `root` another nice value, if that is a host of files.
pub(crate) fn set_nice(root: &Path, pid: u32, nice: i64) -> bool {
    let is_fake = fs::read_to_string(root.join(BOOT_ID)).is_ok_and(|id| id.trim_end() == BOOT);
    if is_fake {
        write_ksmd(root, pid, nice);
    }
    is_fake
}

fn write_ksmd(root: &Path, pid: u32, nice: i64) {
    let process = root.join(format!("proc/{pid}"));
    let zeros = " 0".repeat(30);
    // Flags with PF_KTHREAD, as ksmd has them.
    let stat =
        format!("{pid} (ksmd) S 2 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 25 {nice} 1 0 60{zeros}\n");
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("comm"), "ksmd\n").unwrap();
    fs::write(process.join("stat"), stat).unwrap();
    fs::write(process.join("ksm_merging_pages"), "0\n").unwrap();
}

const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
pub(super) const BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";

pub(super) const DEFAULTS: [(Knob, i64); 13] = [
    (Knob::PidMax, 32768),
    (Knob::ThreadsMax, 192_730),
    (Knob::OvercommitMemory, 0),
    (Knob::FileMax, i64::MAX),
    (Knob::KvmHaltPollNs, 200_000),
    (Knob::KsmMaxPageSharing, 256),
    (Knob::KsmUseZeroPages, 0),
    (Knob::KsmMergeAcrossNodes, 1),
    (Knob::KsmSmartScan, 1),
    (Knob::KsmPagesToScan, 100),
    (Knob::KsmSleepMillisecs, 20),
    (Knob::KsmRun, 0),
    (Knob::KsmdNice, 5),
];

pub(super) struct Fake {
    folder: tempfile::TempDir,
}

impl Fake {
    pub(super) fn new() -> Self {
        let fake = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for (knob, value) in DEFAULTS {
            fake.set(knob, value);
        }
        fs::create_dir(fake.path("run")).unwrap();
        fake.file(BOOT_ID, &format!("{BOOT}\n"));
        fake.file("proc/meminfo", "MemAvailable:    8388608 kB\n");
        for counter in ["pages_shared", "pages_sharing", "ksm_zero_pages"] {
            fake.ksm(counter, 0);
        }
        fs::create_dir_all(fake.path("proc/self/ns")).unwrap();
        symlink("pid:[4026531836]", fake.path("proc/self/ns/pid")).unwrap();
        fake
    }

    pub(super) fn root(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.root().join(below)
    }

    pub(super) fn record(&self) -> PathBuf {
        self.path("run/imgbuild/settings.json")
    }

    pub(super) fn file(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn ksm(&self, counter: &str, pages: u64) {
        self.file(
            &format!("sys/kernel/mm/ksm/{counter}"),
            &format!("{pages}\n"),
        );
    }

    pub(super) fn set(&self, knob: Knob, value: i64) {
        match knob.file() {
            Some(file) => self.file(file, &format!("{value}\n")),
            None => self.ksmd(KSMD, value),
        }
    }

    pub(super) fn get(&self, knob: Knob) -> i64 {
        file::read(self.root(), knob).unwrap()
    }

    /// Whether every knob is as it was in the beginning.
    pub(super) fn is_as_it_was(&self) -> bool {
        DEFAULTS
            .iter()
            .all(|&(knob, value)| self.get(knob) == value)
    }

    pub(super) fn owner(&self) -> Owner {
        let mut owner = Owner::new(self.root());
        owner.patience = Duration::ZERO;
        owner
    }

    pub(super) fn apply(&self, settings: &[Setting], holder: &Holder) -> Vec<Applied> {
        self.owner().apply(settings, holder).unwrap()
    }

    pub(super) fn release(&self, holder: &Holder) -> Report {
        self.owner().release(holder).unwrap()
    }

    pub(super) fn restore(&self) -> Report {
        self.owner().restore().unwrap()
    }

    /// ksmd as the kernel has it; its numbers are those of no process here.
    pub(super) fn ksmd(&self, pid: u32, nice: i64) {
        write_ksmd(self.root(), pid, nice);
    }

    pub(super) fn process(&self, pid: u32, state: char, start: u64) {
        let zeros = " 0".repeat(30);
        let text = format!(
            "{pid} (a) S (b) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start}{zeros}\n"
        );
        self.file(&format!("proc/{pid}/stat"), &text);
        self.file(&format!("proc/{pid}/ksm_merging_pages"), "0\n");
    }

    pub(super) fn guest(&self, pid: u32) {
        let line = "qemu-system-x86_64\0-name\0g00000\0-fw_cfg\0\
                    name=opt/imgbuild/identity,file=/alice/g00000\0-display\0none\0";
        self.process(pid, 'S', 1000);
        self.file(&format!("proc/{pid}/cmdline"), line);
    }

    pub(super) fn process_ends(&self, pid: u32) {
        fs::remove_dir_all(self.path(&format!("proc/{pid}"))).unwrap();
    }

    pub(super) fn fleet(&self, name: &str, pid: u32) -> Holder {
        let start = 1000 + u64::from(pid);
        self.process(pid, 'S', start);
        let name = name.to_owned();
        Holder::Fleet { name, pid, start }
    }
}

pub(super) fn setting(knob: Knob, value: i64) -> Setting {
    Setting { knob, value }
}

/// What KSM needs to merge fast.
pub(super) fn fast_ksm() -> [Setting; 5] {
    [
        setting(Knob::KsmRun, 1),
        setting(Knob::KsmPagesToScan, 20000),
        setting(Knob::KsmUseZeroPages, 1),
        setting(Knob::KsmMaxPageSharing, 4096),
        setting(Knob::KsmMergeAcrossNodes, 0),
    ]
}

/// A host whose ksmd stands still with pages merged, and with a setting that can
/// go back only once none are.
pub(super) fn stopped_with_pages_merged() -> Fake {
    let fake = Fake::new();
    fake.apply(&[setting(Knob::KsmMaxPageSharing, 4096)], &Holder::User);
    fake.ksm("pages_shared", 10);
    fake
}

/// The knobs that a report says were put back.
pub(super) fn restored(report: &Report) -> Vec<Knob> {
    report
        .restored
        .iter()
        .map(|restored| restored.knob)
        .collect()
}
