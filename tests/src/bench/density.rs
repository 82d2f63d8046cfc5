//! What a guest with NIC and disk costs its host, beside one put together from
//! a distribution's packages on the same kernel and the same QEMU.

use std::thread::sleep;

use imgbuild::artifact::INITRAMFS;
use imgbuild::vmm::Net;

use super::guest::{SETTLE, WINDOW, WINDOWS};
use super::{Budget, Row, Samples, distribution};
use crate::TestEnv;
use crate::guest::{Guest, Way};

/// Pairs of guests compared.
const PAIRS: usize = 5;

/// What pairs of guests showed.
#[derive(Default)]
struct Column {
    cpu: Vec<f64>,
    touched: Vec<f64>,
    differing: Vec<f64>,
}

/// Every row about density.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let other = distribution::initramfs(env.path());
    let ways = [Way::Ours(Net::User), Way::Initramfs(&other, "")];

    let mut columns = [Column::default(), Column::default()];
    // By turns, so that both meet the same noise.
    for _ in 0..PAIRS {
        for (way, column) in ways.iter().zip(&mut columns) {
            let pair = Guest::fleet(&out, *way, 2);
            column.cpu.extend(pair.iter().map(Guest::cpu_seconds));
            column.touched.extend(pair.iter().map(Guest::touched_mib));
            let difference = pair[0].difference(&pair[1]);
            column.differing.push(difference.by_content);
        }
    }
    let meminfo = Guest::boot(&out, ways[0]).ask("cat /proc/meminfo").output;
    let slab = [
        slab_mib(&meminfo),
        slab_mib(&Guest::boot(&out, ways[1]).read_to("Slab:")),
    ];
    let sizes = [out.join(INITRAMFS), other.clone()].map(|file| {
        let bytes = file.metadata().expect("it was made").len();
        f64::from(u32::try_from(bytes).expect("a small file")) / 1024.0
    });
    let idle = ways.map(|way| Guest::boot(&out, way));
    sleep(SETTLE);
    let [ours, others] = per_second([&idle[0], &idle[1]]);

    let row = |what, unit, values: [&[f64]; 2], budget| Row {
        what,
        unit,
        ours: Samples::of(values[0]),
        other: Samples::of(values[1]),
        other_is: "busybox and dropbear, same kernel and QEMU",
        budget,
    };
    let [a, b] = &columns;
    vec![
        row("initramfs", "KiB", [&sizes[..1], &sizes[1..]], None),
        row(
            "boot to ready, NIC and disk",
            "CPU s",
            [&a.cpu, &b.cpu],
            None,
        ),
        row(
            "touched at ready, NIC and disk",
            "MiB",
            [&a.touched, &b.touched],
            Some(Budget::AtMost(10.0)),
        ),
        row(
            "not the same in two of a fleet",
            "MiB",
            [&a.differing, &b.differing],
            Some(Budget::AtMost(1.0)),
        ),
        row("slab", "MiB", [&slab[..1], &slab[1..]], None),
        row(
            "idle, NIC and disk: vCPU wakeups",
            "1/s",
            [&ours.vcpu, &others.vcpu],
            Some(Budget::AtMost(0.0)),
        ),
        row(
            "idle, NIC and disk: other wakeups",
            "1/s",
            [&ours.others, &others.others],
            None,
        ),
    ]
}

/// `Slab:` of /proc/meminfo (proc_meminfo(5)).
fn slab_mib(meminfo: &str) -> f64 {
    let kib: f64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Slab:")?.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{meminfo:?}"));
    kib / 1024.0
}

/// Wakeups a second, one value a window.
pub(super) struct PerSecond {
    pub(super) vcpu: Vec<f64>,
    pub(super) others: Vec<f64>,
}

/// Watches settled guests side by side.
pub(super) fn per_second<const N: usize>(guests: [&Guest; N]) -> [PerSecond; N] {
    let rate = |count: u64| f64::from(u32::try_from(count).expect("few")) / WINDOW.as_secs_f64();
    let mut counts = Guest::wakeups(&guests, WINDOWS, WINDOW).into_iter();
    std::array::from_fn(|_| {
        let windows = counts.next().expect("one a guest");
        PerSecond {
            vcpu: windows.iter().map(|count| rate(count.vcpu)).collect(),
            others: windows.iter().map(|count| rate(count.others)).collect(),
        }
    })
}
