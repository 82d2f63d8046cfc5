//! QEMU.

use super::users;
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::{Host, Qemu};
use crate::host::want::Want;
use crate::vmm::qemu::{MACHINE, OLDEST, version_in};

const QEMU: Check = Check {
    id: "qemu",
    document: "https://www.qemu.org/docs/master/system/index.html",
};
const REACH: Check = Check {
    id: "qemu-users",
    document: "path_resolution(7)",
};
const MICROVM: Check = Check {
    id: "microvm",
    document: "https://www.qemu.org/docs/master/system/i386/microvm.html",
};

/// Judges the QEMU of a host.
pub(crate) fn judge_host(host: &Host, want: &Want) -> Vec<Finding> {
    let mut findings = judge(&host.qemu);
    if matches!(host.qemu, Qemu::Found { .. }) {
        findings.push(judge_reach(host, want));
    }
    findings
}

/// Whether guests' users can run it.
fn judge_reach(host: &Host, want: &Want) -> Finding {
    let need = "can be run by guests' users";
    if !users::are_apart(host, want) {
        let meaning = "Guests run under this process's id, and run it as that does.";
        return REACH.finds(Severity::Ok, "not looked for", need, meaning);
    }
    let Some(barrier) = &host.users.qemu_barrier else {
        let meaning = "Each guest runs it under a user id of its own.";
        return REACH.finds(Severity::Ok, "in reach", need, meaning);
    };
    REACH
        .finds(
            Severity::Blocker,
            "out of reach",
            need,
            "Guests that root launches run under user ids of their own, which cannot run it.",
        )
        .with_fix(Fix::manual(
            Needs::Command,
            format!(
                "{barrier}; or install it elsewhere, or run guests under your own user (launch \
                 --run-as-base 0)"
            ),
        ))
}

pub(crate) fn judge(qemu: &Qemu) -> Vec<Finding> {
    let need = format!("{OLDEST} or later");
    let package = Fix::manual(
        Needs::Package,
        "install QEMU for x86 (Debian: apt install qemu-system-x86; Fedora: dnf install \
         qemu-system-x86-core), or name another by --qemu PATH",
    );
    let unusable = |value: String, meaning: &str| {
        let finding = QEMU.finds(Severity::Blocker, value, &need, meaning);
        vec![finding.with_fix(package.clone())]
    };
    match qemu {
        Qemu::Missing => unusable("missing".to_owned(), "There is nothing to run guests with."),
        Qemu::Broken { why } => unusable(
            format!("does not work: {why}"),
            "A QEMU that cannot even print its version cannot run guests.",
        ),
        Qemu::Overdue { why } => vec![
            QEMU.finds(
                Severity::Advice,
                why,
                &need,
                "It is not known whether it runs guests; check --canary finds out.",
            )
            .with_fix(Fix::manual(
                Needs::Choice,
                "try again when the host is idle",
            )),
        ],
        Qemu::Found {
            path,
            version,
            microvm,
        } => {
            let (severity, meaning) = match version_in(version) {
                Some(parsed) if parsed >= OLDEST => {
                    (Severity::Ok, "It runs guests as imgbuild's tests do.")
                }
                Some(_) => (
                    Severity::Blocker,
                    "It lacks options that every guest is started with, such as the main loop's \
                     thread-pool-max.",
                ),
                None => (
                    Severity::Blocker,
                    "It does not print its version as QEMU does, so it is another program.",
                ),
            };
            let value = match path {
                Some(path) => format!("{version}, {}", path.display()),
                None => version.clone(),
            };
            vec![
                QEMU.finds(severity, &value, &need, meaning)
                    .with_fix(package),
                judge_microvm(*microvm, &value),
            ]
        }
    }
}

fn judge_microvm(there: bool, qemu: &str) -> Finding {
    let (severity, value) = if there {
        (Severity::Ok, "present".to_owned())
    } else {
        (Severity::Blocker, format!("absent from {qemu}"))
    };
    MICROVM
        .finds(
            severity,
            value,
            format!("the machine type {MACHINE}"),
            "Every guest runs on this board, which has no firmware and no PCI to wait for.",
        )
        .with_fix(Fix::manual(
            Needs::Package,
            "install a QEMU built with CONFIG_MICROVM, as Debian's qemu-system-x86 and Fedora's \
             qemu-system-x86-core are, and name it by --qemu PATH if another is found first",
        ))
}
