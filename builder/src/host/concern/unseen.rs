//! What could not be read.

use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const UNSEEN: Check = Check {
    id: "unseen",
    document: "proc(5), sysfs(5)",
};

/// Judges what could not be seen.
pub(super) fn judge(host: &Host, _want: &Want) -> Vec<Finding> {
    let need = "all that checks read";
    if host.unseen.is_empty() {
        let meaning = "imgbuild could read everything that checks need.";
        return vec![UNSEEN.finds(Severity::Ok, "nothing", need, meaning)];
    }
    let list: Vec<_> = host
        .unseen
        .iter()
        .map(|unseen| format!("{} ({})", unseen.what, unseen.why))
        .collect();
    let (meaning, fix) = if host.privileged {
        (
            "imgbuild could not read these, so it did not judge them.",
            "find out why: a container's limits, or a missing mount",
        )
    } else {
        (
            "imgbuild could not read these, so it did not judge them; root can read more.",
            "run imgbuild check as root",
        )
    };
    let finding = UNSEEN.finds(Severity::Advice, list.join(", "), need, meaning);
    vec![finding.with_fix(Fix::manual(Needs::Command, fix))]
}
