//! How many guests fit: what each resource allows, and the least of these.

use std::collections::BTreeMap;

use serde::Serialize;

use super::concern;
use super::finding::{Finding, Fix};
use super::settings::{Knob, Setting};
use super::snapshot::{Host, Ksm};
use super::want::{Basis, Want};
use crate::vmm::{Machine, Sharing};

/// The guests that a host takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ceiling {
    /// Whether the costs of a guest were measured here.
    pub basis: Basis,
    /// What each resource allows; the one that ends first comes first.
    pub resources: Vec<Resource>,
    /// Guests without sharing.
    pub none: Count,
    /// Guests once KSM has merged their RAM, or all of QEMU's memory with
    /// `--sharing all`, where it runs.
    pub guest: Count,
    /// Guests with the sharing asked for, after `--fix`.
    pub fixed: Count,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Resource {
    /// The finding's name.
    pub id: &'static str,
    /// Guests without sharing.
    pub none: u64,
    /// Guests with KSM on their RAM, or on all of QEMU's memory.
    pub guest: u64,
    /// Guests with the sharing asked for, after `--fix`.
    pub fixed: u64,
}

/// How many guests fit, and what stops the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    /// Guests.
    pub guests: u64,
    /// The resource that ends first; `None` if only the highest number a
    /// fleet may have does.
    pub first: Option<&'static str>,
}

/// Counts the guests that fit.
pub(crate) fn ceiling(host: &Host, want: &Want) -> Ceiling {
    let allowed = |host: &Host, sharing| {
        let want = Want {
            guests: None,
            machine: Machine {
                sharing,
                ..want.machine
            },
            ..*want
        };
        by_resource(&concern::judge(host, &want))
    };
    let none = allowed(host, Sharing::None);
    let shared = match want.machine.sharing {
        Sharing::None | Sharing::Guest => Sharing::Guest,
        Sharing::All => Sharing::All,
    };
    let guest = allowed(host, shared);
    let fixed = allowed(&fixed(host, want), want.machine.sharing);
    let wanted = match want.machine.sharing {
        Sharing::None => &none,
        Sharing::Guest | Sharing::All => &guest,
    };
    let most = u64::from(want.most());
    let mut resources: Vec<_> = wanted
        .keys()
        .map(|&id| {
            // A fix may end a limit altogether, as that of `overcommit`.
            let of = |column: &BTreeMap<_, _>| column.get(id).copied().unwrap_or(most);
            Resource {
                id,
                none: of(&none),
                guest: of(&guest),
                fixed: of(&fixed),
            }
        })
        .collect();
    resources.sort_by_key(|resource| wanted[resource.id]);
    Ceiling {
        basis: want.cost.basis,
        resources,
        none: least(&none, most),
        guest: least(&guest, most),
        fixed: least(&fixed, most),
    }
}

impl Ceiling {
    /// How many guests fit with `sharing`.
    pub(crate) fn with(&self, sharing: Sharing) -> Count {
        match sharing {
            Sharing::None => self.none,
            Sharing::Guest | Sharing::All => self.guest,
        }
    }
}

/// What a resource is, for those who do not know its name.
pub(crate) fn in_words(id: &str) -> &'static str {
    match id {
        "memory" => "memory left for guests",
        "memory-cgroup" => "memory of this control group",
        "overcommit" => "memory the kernel promises",
        "pid-max" => "process ids on this host",
        "threads-max" => "threads on this host",
        "cgroup-pids" => "tasks of this control group",
        "user-processes" => "processes of this user",
        "open-files" => "files the supervisor may open",
        "file-max" => "open files on this host",
        "ports" => "free ports of the loopback",
        "tap-subnet" => "addresses of the taps' subnet",
        "disk" => "disk space for overlays",
        "sockets" => "inodes for sockets",
        _ => "",
    }
}

fn by_resource(findings: &[Finding]) -> BTreeMap<&'static str, u64> {
    findings
        .iter()
        .filter_map(|finding| Some((finding.id, finding.guests?)))
        .collect()
}

fn least(allowed: &BTreeMap<&'static str, u64>, most: u64) -> Count {
    let most = Count {
        guests: most,
        first: None,
    };
    allowed
        .iter()
        .map(|(&id, &guests)| Count {
            guests,
            first: Some(id),
        })
        .chain([most])
        .min_by_key(|count| count.guests)
        .unwrap_or(most)
}

/// The host as `--fix` would leave it for the largest fleet.
fn fixed(host: &Host, want: &Want) -> Host {
    let want = Want {
        guests: Some(want.most()),
        ..*want
    };
    let mut fixed = host.clone();
    for finding in concern::judge(host, &want) {
        match finding.fix {
            Some(Fix::Settings(settings)) => {
                for setting in settings {
                    set(&mut fixed, setting);
                }
            }
            Some(Fix::OpenFiles(limit)) => fixed.files.open_max = Some(limit),
            Some(Fix::Module(_) | Fix::Manual { .. }) | None => {}
        }
    }
    fixed
}

/// Sets a setting in a snapshot.
fn set(host: &mut Host, setting: Setting) {
    // None that the snapshot has as a natural number is set below 0.
    let value = u64::try_from(setting.value).unwrap_or_default();
    let ksm = |host: &mut Host, field: fn(&mut Ksm) -> &mut Option<u64>| {
        if let Some(ksm) = &mut host.ksm {
            *field(ksm) = Some(value);
        }
    };
    match setting.knob {
        Knob::PidMax => host.processes.pid_max = Some(value),
        Knob::ThreadsMax => host.processes.threads_max = Some(value),
        Knob::OvercommitMemory => host.memory.overcommit = Some(value),
        Knob::FileMax => host.files.file_max = Some(value),
        Knob::KvmHaltPollNs => {
            let parameters = &mut host.kvm.parameters;
            parameters.insert("halt_poll_ns".to_owned(), value.to_string());
        }
        Knob::KsmMaxPageSharing => ksm(host, |ksm| &mut ksm.max_page_sharing),
        Knob::KsmUseZeroPages => ksm(host, |ksm| &mut ksm.use_zero_pages),
        Knob::KsmMergeAcrossNodes => ksm(host, |ksm| &mut ksm.merge_across_nodes),
        Knob::KsmSmartScan => ksm(host, |ksm| &mut ksm.smart_scan),
        Knob::KsmPagesToScan => ksm(host, |ksm| &mut ksm.pages_to_scan),
        Knob::KsmSleepMillisecs => ksm(host, |ksm| &mut ksm.sleep_millisecs),
        Knob::KsmRun => ksm(host, |ksm| &mut ksm.run),
        Knob::KsmdNice => {
            if let Some(ksm) = &mut host.ksm {
                ksm.ksmd_nice = Some(setting.value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
