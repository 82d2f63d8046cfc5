//! Programs that have the kernel run probes (BPF) for them.

use std::fs;

use crate::wait_until;

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
