//! What could not be seen.

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
        let meaning = "Nothing was passed over for want of being readable.";
        return vec![UNSEEN.finds(Severity::Ok, "nothing", need, meaning)];
    }
    let list: Vec<_> = host
        .unseen
        .iter()
        .map(|unseen| format!("{} ({})", unseen.what, unseen.why))
        .collect();
    let (meaning, fix) = if host.privileged {
        (
            "What these say was not judged.",
            "look at what holds them back: a container's limits, a mount that is missing",
        )
    } else {
        (
            "What these say was not judged; root sees more.",
            "run imgbuild check as root",
        )
    };
    let finding = UNSEEN.finds(Severity::Advice, list.join(", "), need, meaning);
    vec![finding.mended_by(Fix::manual(Needs::Command, fix))]
}
