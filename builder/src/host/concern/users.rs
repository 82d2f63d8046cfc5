//! User ids for guests.

use super::text::{count, counted};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::Want;

const USER_IDS: Check = Check {
    id: "user-ids",
    document: "user_namespaces(7)",
};

/// What becomes of guests that cannot have ids of their own.
const SHARED: &str = "all guests run under this process's id, and one that has taken over its \
                      QEMU reaches the others";

/// Judges whether guests have user ids of their own.
pub fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let users = &host.users;
    let need = format!("one for each of {}", counted(want.wanted(), "guest"));
    if !host.privileged {
        let meaning = "Guests run under your id: only root can give them others.";
        return vec![USER_IDS.finds(Severity::Ok, "this user's", need, meaning)];
    }
    let advice = |value: String, why: &str, fix: &str| {
        USER_IDS
            .finds(
                Severity::Advice,
                value,
                need.clone(),
                format!("{why}: {SHARED}."),
            )
            .mended_by(Fix::manual(Needs::Choice, fix))
    };
    let namespace = counted(users.mapped, "id");
    vec![if !users.missing.is_empty() {
        advice(
            format!("without {}", users.missing.join(", ")),
            "This process cannot run guests under other ids",
            "give imgbuild these capabilities, such as by a container's --cap-add",
        )
    } else if users.guests < want.wanted() {
        advice(
            format!(
                "{namespace} here, {} of them in a row for guests",
                count(users.guests)
            ),
            "This user namespace has too few ids that nobody else has",
            "give it more (subuid(5); lxc.idmap of LXC, or /etc/subuid and /etc/subgid for rootless \
             Podman), or launch fewer guests",
        )
    } else if users.groups_denied {
        advice(
            format!("{namespace} here, and setgroups(2) is denied"),
            "Guests under other ids would keep this process's groups",
            "have newgidmap(1) map the groups of the user namespace, which allows it",
        )
    } else {
        let meaning =
            "Each guest runs under an id of its own, which reaches nothing of the others.";
        USER_IDS.finds(
            Severity::Ok,
            format!("{} for guests", count(users.guests)),
            need,
            meaning,
        )
    }]
}
