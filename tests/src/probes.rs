//! Programs that have the kernel run probes (BPF) for them.

use std::fs;

use serde_json::Value;

use crate::{TestEnv, rights, run, wait_until};

/// Where Debian has BCC's tools and bpftool.
pub const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Links by which a process holds probes in the kernel.
fn links(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten();
    let targets = files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().contains("bpf_link"))
        .count()
}

/// Waits until a program has attached all of its probes.
pub fn wait_until_attached(pid: u32, probes: usize) {
    wait_until("probes are attached", || links(pid) >= probes);
}

/// Whether this process is root, and sees every process of the host by the number that
/// the kernel has for it. If not, the test is to end here, and it is said that it is
/// skipped, and what takes that.
#[must_use]
pub fn is_root_of_all(may: &str) -> bool {
    let namespace = fs::read_link("/proc/self/ns/pid");
    let sees_all = namespace.is_ok_and(|namespace| namespace.as_os_str() == "pid:[4026531836]");
    if !sees_all {
        rights::skip(&format!("the host's PID namespace, to {may}"));
    }
    sees_all && rights::is_root(may)
}

/// The counts of a histogram as BCC's tools print it.
#[must_use]
pub fn printed(text: &str) -> Vec<u64> {
    let mut counts = vec![0; 27];
    for line in text.lines() {
        let Some((range, rest)) = line.split_once(" : ") else {
            continue;
        };
        let Some((from, _)) = range.split_once("->") else {
            continue;
        };
        let from: u64 = from.trim().parse().expect("it is a number");
        let count = rest
            .split_ascii_whitespace()
            .next()
            .expect("it is a number");
        counts[from.checked_ilog2().unwrap_or(0) as usize] = count.parse().expect("it is a number");
    }
    counts
}

/// Programs and maps of this kind that the kernel has.
#[must_use]
pub fn in_kernel(env: &TestEnv) -> (usize, usize) {
    let list = |what: &str| {
        let mut command = env.command("bpftool");
        command.env("PATH", PATH);
        let listed = run(command.args([what, "show", "--json"])).succeeds();
        let listed: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
        let names = [
            "on_wakeup",
            "on_first_wakeup",
            "on_switch",
            "threads",
            "processes",
            "waits",
            "guests",
            "logs",
        ];
        let is_ours = |one: &&Value| names.iter().any(|name| one["name"] == *name);
        listed.iter().filter(is_ours).count()
    };
    (list("prog"), list("map"))
}
