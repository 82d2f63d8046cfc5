//! Control groups, and what they deny this process.

use crate::host::finding::{Check, Finding, Fix, Needs, Severity};
use crate::host::snapshot::{CgroupVersion, Host};
use crate::host::want::Want;

const CGROUP: Check = Check {
    id: "cgroup",
    document: "https://docs.kernel.org/admin-guide/cgroup-v2.html",
};
const DELEGATION: Check = Check {
    id: "delegation",
    document: "https://systemd.io/CGROUP_DELEGATION/",
};
const CPU_MAX: Check = Check {
    id: "cpu-max",
    document: "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu",
};

pub(super) fn judge(host: &Host, _want: &Want) -> Vec<Finding> {
    let Some(version) = host.cgroup.version else {
        return vec![
            CGROUP
                .finds(
                    Severity::Advice,
                    "none",
                    "version 1 or 2",
                    "Guests that start or are asked something cannot be given CPU time before \
                     those that burn, and memory is not counted by fleet.",
                )
                .with_fix(Fix::manual(
                    Needs::Command,
                    "mount them: mount -t cgroup2 none /sys/fs/cgroup",
                )),
        ];
    };
    let value = match version {
        CgroupVersion::V1 => "version 1",
        CgroupVersion::Hybrid => "version 1, with 2 beside it",
        CgroupVersion::V2 => "version 2",
    };
    let meaning = "CPU time and memory can be weighed and counted by group.";
    vec![
        CGROUP.finds(Severity::Ok, value, "version 1 or 2", meaning),
        delegation(host),
        cpu_max(host),
    ]
}

fn delegation(host: &Host) -> Finding {
    let (severity, value) = if host.cgroup.delegated {
        (Severity::Ok, "groups can be made")
    } else {
        (Severity::Advice, "no group can be made")
    };
    DELEGATION
        .finds(
            severity,
            value,
            "a control group of this process's own",
            "A fleet's groups keep its burning guests from starving those that start or are asked \
             something.",
        )
        .with_fix(Fix::manual(
            Needs::Command,
            "start imgbuild in a group of its own: systemd-run --user --scope -p Delegate=yes \
             imgbuild …, or run it as root",
        ))
}

fn cpu_max(host: &Host) -> Finding {
    let need = format!("all {} CPUs", host.cpu.online);
    let tightest = host
        .cgroup
        .groups
        .iter()
        .filter_map(|group| Some((group.cpu_max_millis?, &group.path)))
        .filter(|(millis, _)| *millis < host.cpu.online.saturating_mul(1000))
        .min();
    let Some((millis, path)) = tightest else {
        let meaning = "No control group rations the CPU time of guests.";
        return CPU_MAX.finds(Severity::Ok, "no quota", need, meaning);
    };
    let cpus = format!("{}.{:02} CPUs", millis / 1000, millis % 1000 / 10);
    CPU_MAX
        .finds(
            Severity::Advice,
            format!("{cpus} ({})", path.display()),
            need,
            format!(
                "All guests together get {cpus}' worth of time, and the kernel stops them for the \
                 rest of each period, so measured latencies are the quota's."
            ),
        )
        .with_fix(Fix::manual(
            Needs::Command,
            "lift the quota: systemctl set-property UNIT CPUQuota=, or a container's --cpus",
        ))
}
