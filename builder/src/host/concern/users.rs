//! User ids for guests, and files that those ids cannot open.

use super::facts::link::broken;
use super::text::{count, counted, numbered};
use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::Host;
use crate::host::want::{GuestUsers, Want};
use crate::vmm::kvm_group;

const KVM_USERS: Check = Check {
    id: "kvm-users",
    document: "udev(7)",
};
const USER_IDS: Check = Check {
    id: "user-ids",
    document: "user_namespaces(7)",
};

/// What becomes of guests that cannot have ids of their own.
const SHARED: &str = "all guests run under this process's id, and one that has taken over its \
                      QEMU reaches the others";

/// Judges whether guests have user ids of their own, and what those may open.
pub(super) fn judge(host: &Host, want: &Want) -> Vec<Finding> {
    let mut findings = vec![user_ids(host, want)];
    if broken(host).is_none() {
        findings.push(kvm_users(host, want));
    }
    findings
}

/// Whether guests would run under user ids of their own.
pub(super) fn are_apart(host: &Host, want: &Want) -> bool {
    let users = &host.users;
    want.users == GuestUsers::Apart
        && host.privileged
        && users.missing.is_empty()
        && users.guests >= want.numbers()
        && !users.groups_denied
}

/// Whether guests' users may open a `/dev/kvm` that this process opens.
fn kvm_users(host: &Host, want: &Want) -> Finding {
    let need = "opens for guests' users";
    let Some(access) = host.kvm.access else {
        let meaning = "It is not known who may open the device; a launch finds out.";
        return KVM_USERS.not_seen(need, meaning);
    };
    let value = format!("mode {:04o}, group {}", access.mode, access.group);
    if !are_apart(host, want) {
        let meaning = "Guests run under this process's id, and open it as that does.";
        return KVM_USERS.finds(Severity::Ok, value, need, meaning);
    }
    if kvm_group(access.mode, access.group).is_ok() {
        let meaning = "Each guest opens it under a user id of its own.";
        return KVM_USERS.finds(Severity::Ok, value, need, meaning);
    }
    KVM_USERS
        .finds(
            want.under_kvm(Severity::Blocker),
            value,
            need,
            "Guests that root launches run under user ids of their own, which cannot open it: no \
             guest starts under KVM.",
        )
        .with_fix(Fix::manual(
            Needs::File,
            "give it to a group other than root's by a udev rule: KERNEL==\"kvm\", \
             GROUP=\"kvm\", MODE=\"0660\", or for now: chgrp kvm /dev/kvm; chmod 0660 \
             /dev/kvm; or run guests under your own user (launch --run-as-base 0)",
        ))
}

fn user_ids(host: &Host, want: &Want) -> Finding {
    let users = &host.users;
    let need = format!("one for each of {}", numbered(want));
    if !host.privileged {
        let meaning = "Guests run under your id: only root can give them others.";
        return USER_IDS.finds(Severity::Ok, "this user's", need, meaning);
    }
    if want.users == GuestUsers::Own {
        let meaning = "Guests run under this process's id, as asked for.";
        return USER_IDS.finds(Severity::Ok, "this process's", need, meaning);
    }
    let advice = |value: String, why: &str, fix: &str| {
        USER_IDS
            .finds(
                Severity::Advice,
                value,
                need.clone(),
                format!("{why}: {SHARED}."),
            )
            .with_fix(Fix::manual(Needs::Choice, fix))
    };
    let namespace = counted(users.mapped, "id");
    if !users.missing.is_empty() {
        advice(
            format!("without {}", users.missing.join(", ")),
            "This process cannot run guests under other ids",
            "give imgbuild these capabilities, such as by a container's --cap-add",
        )
    } else if users.guests < want.numbers() {
        advice(
            format!(
                "{namespace} here, {} of them in a row for guests",
                count(users.guests)
            ),
            "This user namespace has too few ids that nobody else has",
            "give it more (subuid(5); lxc.idmap of LXC, or /etc/subuid and /etc/subgid for rootless \
             Podman), or launch fewer guests, or with a lower --first",
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
    }
}
