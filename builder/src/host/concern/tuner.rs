//! Other programs that set KSM.

use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const TUNER: Check = Check {
    id: "ksm-tuner",
    document: "https://docs.redhat.com/en/documentation/red_hat_enterprise_linux/6/html/virtualization_tuning_and_optimization_guide/sect-ksm-the_ksm_tuning_service",
};
const LIBVIRT: Check = Check {
    id: "libvirt",
    document: "https://libvirt.org/manpages/virsh.html#node-memory-tune",
};

/// Judges who else sets KSM.
pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    vec![tuner(host, want), libvirt(host, want)]
}

/// Running tuners of KSM, whose units are called the same, and what each does.
fn tuners(host: &Host) -> Vec<(&str, &'static str)> {
    let running = host.daemons.iter().map(String::as_str);
    running
        .filter_map(|name| {
            let changes = match name {
                "ksmtuned" => {
                    "overwrites run, pages_to_scan and sleep_millisecs every minute, so that \
                     settings made by --fix do not last"
                }
                "uksmd" => {
                    "asks for merging in every process, so that a pass over guests takes longer"
                }
                _ => return None,
            };
            Some((name, changes))
        })
        .collect()
}

fn tuner(host: &Host, want: &Want) -> Finding {
    let need = "nobody else who sets KSM";
    let tuners = tuners(host);
    if tuners.is_empty() {
        let meaning = "Nobody else overwrites KSM's settings.";
        return TUNER.finds(Severity::Ok, "none", need, meaning);
    }
    let names: Vec<_> = tuners.iter().map(|(name, _)| *name).collect();
    let changes: Vec<_> = tuners
        .iter()
        .map(|(name, changes)| format!("{name} {changes}"))
        .collect();
    TUNER
        .finds(
            want.when_shared(Severity::Advice),
            format!("{} active", names.join(", ")),
            need,
            format!("{}.", changes.join("; ")),
        )
        .with_fix(Fix::manual(
            Needs::Command,
            format!(
                "stop it while a fleet runs: systemctl stop {}",
                names.join(" ")
            ),
        ))
}

fn libvirt(host: &Host, want: &Want) -> Finding {
    let need = "nobody else who sets KSM";
    let mut running = host
        .daemons
        .iter()
        .filter(|name| matches!(name.as_str(), "libvirtd" | "virtqemud"));
    let Some(name) = running.next() else {
        let meaning = "No other manager of guests sets up this host.";
        return LIBVIRT.finds(Severity::Ok, "none", need, meaning);
    };
    LIBVIRT
        .finds(
            want.when_shared(Severity::Advice),
            format!("{name} active"),
            need,
            "It manages its own guests, which merge too once KSM is on; its node tuning may \
             overwrite pages_to_scan, sleep_millisecs and merge_across_nodes.",
        )
        .with_fix(Fix::manual(
            Needs::Command,
            "leave virsh node-memory-tune alone while a fleet runs, or stop it: systemctl stop \
             libvirtd virtqemud",
        ))
}
