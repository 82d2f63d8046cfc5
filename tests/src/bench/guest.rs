//! What a guest costs: CPU to boot, memory touched, wakeups when idle.

use std::thread::sleep;
use std::time::Duration;

use imgbuild::vmm::Net;

use super::density::per_second;
use super::{Budget, Row, Samples};
use crate::TestEnv;
use crate::guest::{Guest, Way};

/// Guests booted for each mean.
const BOOTS: usize = 10;
/// Time for guests to settle before their wakeups are counted.
pub(super) const SETTLE: Duration = Duration::from_secs(30);
/// For how long they are counted, and how often.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
pub(super) const WINDOWS: usize = 3;

/// Every row about a single guest.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    // By turns, so that both meet the same noise.
    for _ in 0..BOOTS {
        for (way, costs) in [(Way::Ours(Net::User), &mut ours), (Way::Plain, &mut others)] {
            let guest = Guest::boot(&out, way);
            costs.push([guest.cpu_seconds(), guest.touched_mib()]);
        }
    }
    let column = |costs: &[[f64; 2]], which: usize| {
        Samples::of(&costs.iter().map(|cost| cost[which]).collect::<Vec<_>>())
    };
    let row = |what, unit, ours, other, budget| Row {
        what,
        unit,
        ours,
        other,
        other_is: "the same kernel on QEMU's default machine, 1 GiB",
        budget,
    };
    let idle = [Way::Plain, Way::Ours(Net::None)].map(|way| Guest::boot(&out, way));
    sleep(SETTLE);
    let [plain, without_nic] = per_second([&idle[0], &idle[1]]).map(|seen| {
        let sums = seen.vcpu.iter().zip(&seen.others).map(|(a, b)| a + b);
        Samples::of(&sums.collect::<Vec<_>>())
    });
    vec![
        row(
            "boot to ready (TCG)",
            "CPU s",
            column(&ours, 0),
            column(&others, 0),
            Some(Budget::AtMost(0.7)),
        ),
        row(
            "guest RAM touched at ready",
            "MiB",
            column(&ours, 1),
            column(&others, 1),
            None,
        ),
        row(
            "idle guest without NIC, wakeups",
            "1/s",
            without_nic,
            plain,
            Some(Budget::AtMost(0.0)),
        ),
    ]
}
