//! What a run ran on and with, for whoever wants to repeat it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::artifact::Manifest;
use crate::bundle::types::{Conditions, Setting};
use crate::control::types::Fleet;
use crate::host;
use crate::host::finding::Severity;
use crate::host::snapshot::Host;
use crate::sample::source::Source;
use crate::sample::{ksm, processes};
use crate::store::spec::FleetSpec;
use crate::trial::readiness::Report;

/// The settings of the host that are read, and their files.
const SETTINGS: [(&str, &str); 16] = [
    ("ksm.run", "/sys/kernel/mm/ksm/run"),
    ("ksm.pages_to_scan", "/sys/kernel/mm/ksm/pages_to_scan"),
    ("ksm.sleep_millisecs", "/sys/kernel/mm/ksm/sleep_millisecs"),
    (
        "ksm.max_page_sharing",
        "/sys/kernel/mm/ksm/max_page_sharing",
    ),
    (
        "ksm.merge_across_nodes",
        "/sys/kernel/mm/ksm/merge_across_nodes",
    ),
    ("ksm.use_zero_pages", "/sys/kernel/mm/ksm/use_zero_pages"),
    ("ksm.smart_scan", "/sys/kernel/mm/ksm/smart_scan"),
    ("ksm.advisor_mode", "/sys/kernel/mm/ksm/advisor_mode"),
    (
        "transparent_hugepage",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ),
    (
        "kvm.halt_poll_ns",
        "/sys/module/kvm/parameters/halt_poll_ns",
    ),
    ("fs.file-max", "/proc/sys/fs/file-max"),
    ("kernel.pid_max", "/proc/sys/kernel/pid_max"),
    (
        "kernel.sched_autogroup_enabled",
        "/proc/sys/kernel/sched_autogroup_enabled",
    ),
    ("kernel.threads-max", "/proc/sys/kernel/threads-max"),
    ("vm.overcommit_memory", "/proc/sys/vm/overcommit_memory"),
    ("vm.swappiness", "/proc/sys/vm/swappiness"),
];

/// The settings of the host before and during a run.
#[derive(Debug)]
pub(super) struct Settings {
    before: BTreeMap<String, String>,
    during: BTreeMap<String, String>,
}

impl Settings {
    /// Before anything is changed.
    pub(super) fn now() -> Self {
        let before = settings_now();
        Self {
            during: before.clone(),
            before,
        }
    }

    /// Takes what an earlier part of the run found before it changed anything.
    pub(super) fn keep_first(&mut self, earlier: &[Setting]) {
        for setting in earlier {
            if let Some(before) = &setting.before {
                self.before.insert(setting.name.clone(), before.clone());
            }
        }
    }

    /// As they are while a fleet runs.
    pub(super) fn during(&mut self) -> Vec<Setting> {
        self.during = settings_now();
        self.all(&BTreeMap::new())
    }

    /// As they are now that it has ended.
    pub(super) fn after(&self) -> Vec<Setting> {
        self.all(&settings_now())
    }

    fn all(&self, after: &BTreeMap<String, String>) -> Vec<Setting> {
        let Self { before, during } = self;
        let names: BTreeSet<_> = [before, during, after]
            .into_iter()
            .flat_map(BTreeMap::keys)
            .collect();
        let value = |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned();
        (names.into_iter())
            .map(|name| Setting {
                name: name.clone(),
                before: value(before, name),
                during: value(during, name),
                after: value(after, name),
            })
            .collect()
    }
}

/// The settings of the host now, by name; those that it does not have are left out.
fn settings_now() -> BTreeMap<String, String> {
    let read = |(name, path): &(&str, &str)| {
        let text = fs::read_to_string(path).ok()?;
        Some(((*name).to_owned(), text.trim().to_owned()))
    };
    let ksmd = ksm::ksmd(&mut Source::new(Path::new("/"), &mut Vec::new()));
    let nice = ksmd.map(|ksmd| ("ksmd.nice".to_owned(), ksmd.nice.to_string()));
    SETTINGS.iter().filter_map(read).chain(nice).collect()
}

/// What is known before the first guest.
pub(super) fn before(
    host: &Host,
    report: Option<&Report>,
    spec: &FleetSpec,
    manifest: &Manifest,
    load: f64,
) -> Conditions {
    let findings = report.into_iter().flat_map(|report| &report.findings);
    let findings = findings
        .filter(|finding| finding.severity != Severity::Ok)
        .map(|finding| finding.id.to_owned());
    Conditions {
        host: host_facts(host),
        guest: guest_facts(spec, manifest),
        argv: Vec::new(),
        artifacts: (manifest.files.iter())
            .map(|(name, record)| (name.clone(), record.sha256))
            .collect(),
        settings: Vec::new(),
        findings: findings.collect(),
        memory: host.memory.total.unwrap_or(0),
        cpus: u32::try_from(host::cpus()).unwrap_or(u32::MAX),
        guest_memory: spec.machine.memory.bytes(),
        guest_disk: manifest.options.disk_size.bytes(),
        load,
        available: host.memory.available.unwrap_or(0),
    }
}

/// A guest's command line, of which only the last part of each path is kept.
pub(super) fn argv(fleet: &Fleet) -> Vec<String> {
    let line = (fleet.guests.iter())
        .filter_map(|guest| guest.pid)
        .find_map(|pid| processes::command_line(&PathBuf::from(format!("/proc/{pid}"))).ok());
    let line = line.unwrap_or_default();
    let words = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty());
    words.map(without_folders).collect()
}

/// A command line, of which only the last part of each path is kept.
pub(crate) fn command(words: impl Iterator<Item = String>) -> Vec<String> {
    let short = |word: String| match word.split_once('=') {
        Some((flag, value)) if flag.starts_with("--") => format!("{flag}={}", last_part(value)),
        _ => last_part(&word),
    };
    words.map(short).collect()
}

/// The last part of what may be a path, and of a network all.
fn last_part(word: &str) -> String {
    match Path::new(word).file_name() {
        Some(name) if word.contains('/') && !is_network(word) => {
            name.to_string_lossy().into_owned()
        }
        _ => word.to_owned(),
    }
}

/// Whether the word is a network such as `10.213.0.0/16`.
fn is_network(word: &str) -> bool {
    word.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<IpAddr>().is_ok() && prefix.parse::<u8>().is_ok()
    })
}

/// The text, with every absolute path in it cut to its last part: it goes into a bundle.
pub(super) fn cut_paths(text: &str) -> String {
    let words = text.split(' ').map(|word| without_folders(word.as_bytes()));
    words.collect::<Vec<_>>().join(" ")
}

/// The word, with every absolute path in it cut to its last part; descriptors handed
/// over (`/dev/fdset/3`) name no folder of the host.
fn without_folders(word: &[u8]) -> String {
    let text = String::from_utf8_lossy(word);
    let parts = text.split(',').map(|part| {
        let (key, value) = part
            .split_once('=')
            .map_or(("", part), |(key, value)| (key, value));
        let short = if value.starts_with('/') && !value.starts_with("/dev/") {
            last_part(value)
        } else {
            value.to_owned()
        };
        if part.contains('=') && !key.is_empty() {
            format!("{key}={short}")
        } else {
            short
        }
    });
    parts.collect::<Vec<_>>().join(",")
}

fn host_facts(host: &Host) -> BTreeMap<String, String> {
    let optional = [
        ("kernel", host.kernel.release.clone()),
        ("cpu_model", host.cpu.model.clone()),
        ("cpu_vendor", host.cpu.vendor.clone()),
        ("thp", host.memory.transparent_huge_pages.clone()),
        ("swap", host.memory.swap.map(|bytes| bytes.to_string())),
        ("numa_nodes", Some(host.nodes.len().to_string())),
        ("boot", host.boot_id.as_ref().map(ToString::to_string)),
    ];
    let known = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.collect()
}

fn guest_facts(spec: &FleetSpec, manifest: &Manifest) -> BTreeMap<String, String> {
    let start = if spec.template.is_some() {
        "clone"
    } else {
        "boot"
    };
    let machine = spec.machine;
    let facts = [
        ("qemu", spec.qemu.version.clone().unwrap_or_default()),
        ("qemu_sha256", spec.qemu.sha256.to_string()),
        ("accel", word(&machine.accel)),
        ("sharing", word(&machine.sharing)),
        ("net", word(&machine.net)),
        ("start", start.to_owned()),
        ("recipe", manifest.recipe.name.clone()),
        ("restart", word(&spec.restart)),
        ("burn", spec.burn.to_string()),
        ("disk", manifest.options.disk_size.to_string()),
        ("command_line", spec.command_line.clone()),
    ];
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What a choice is called on the command line.
fn word(choice: &impl clap::ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_names_no_folder() {
        let text = "its log is /home/u/.local/state/f/log; see `man 8 x`, 3/4 of them";
        assert_eq!(
            cut_paths(text),
            "its log is log; see `man 8 x`, 3/4 of them"
        );
    }

    #[test]
    fn a_command_names_no_folder() {
        let words = "/usr/bin/imgbuild density out/tty --tap=10.9.0.0/16 10.9.0.0/16 dir/123 -b=a/b \
             --bundle=../x";
        let words = words.split(' ').map(ToOwned::to_owned);
        let expected = "imgbuild density tty --tap=10.9.0.0/16 10.9.0.0/16 123 b --bundle=x";
        assert_eq!(command(words).join(" "), expected);
    }

    #[test]
    fn a_command_line_names_no_folder() {
        for (word, short) in [
            ("/opt/my qemu/bin/qemu-system-x86_64", "qemu-system-x86_64"),
            ("-device", "-device"),
            (
                "driver=qcow2,file=/home/u/o.qcow2,id=disk",
                "driver=qcow2,file=o.qcow2,id=disk",
            ),
            ("path=/dev/fdset/3", "path=/dev/fdset/3"),
            ("a=b=c", "a=b=c"),
        ] {
            assert_eq!(without_folders(word.as_bytes()), short);
        }
    }
}
