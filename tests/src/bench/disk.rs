//! Overlays against `qemu-img create`.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Instant;

use imgbuild::disk::overlay::{Overlay, write_overlays};
use imgbuild::disk::qcow2::Backing;
use imgbuild::interrupt::Interrupt;
use imgbuild::units::GuestRange;

use super::{Budget, Row, Samples};
use crate::TestEnv;

/// Batches for each mean.
const BATCHES: usize = 5;
/// Overlays in one of our batches.
const OURS: u32 = 10_000;
/// Overlays in one of qemu-img's.
const OTHERS: u32 = 50;

/// Overlays a second, and what one takes on disk.
#[must_use]
pub fn overlays() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let base = out.join("base.qcow2");
    let interrupt = Interrupt::never().expect("two descriptors");
    let backing = Backing::new(&base).expect("a short path");
    let overlay = Overlay::new(&backing, "1G".parse().expect("a size")).expect("a layout");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    let mut allocated = [0.0; 2];
    // By turns, so that both meet the same noise, and with nothing left to
    // write back, which would slow down whoever comes next.
    for _ in 0..BATCHES {
        rustix::fs::sync();
        let folder = tempfile::tempdir_in(env.path()).expect("the folder is ours");
        let began = Instant::now();
        let guests = GuestRange::first(OURS).expect("few enough");
        write_overlays(folder.path(), guests, &overlay, &interrupt, || {}).expect("room for them");
        ours.push(f64::from(OURS) / began.elapsed().as_secs_f64());
        allocated[0] = kib(&folder.path().join("00000.qcow2"));

        let began = Instant::now();
        for index in 0..OTHERS {
            let status = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
                .arg(&base)
                .arg(folder.path().join(format!("other-{index}.qcow2")))
                .status()
                .expect("qemu-img runs");
            assert!(status.success());
        }
        others.push(f64::from(OTHERS) / began.elapsed().as_secs_f64());
        allocated[1] = kib(&folder.path().join("other-0.qcow2"));
    }
    let other_is = "qemu-img create -b";
    vec![
        Row {
            what: "overlays",
            unit: "1/s",
            ours: Samples::of(&ours),
            other: Samples::of(&others),
            other_is,
            budget: Some(Budget::TimesOther(150.0)),
        },
        Row {
            what: "overlay on disk",
            unit: "KiB",
            ours: Samples::of(&allocated[..1]),
            other: Samples::of(&allocated[1..]),
            other_is,
            budget: Some(Budget::AtMost(16.0)),
        },
    ]
}

/// What a file takes on disk.
fn kib(path: &std::path::Path) -> f64 {
    let blocks = path.metadata().expect("it was written").blocks();
    f64::from(u32::try_from(blocks).expect("a small file")) / 2.0
}
