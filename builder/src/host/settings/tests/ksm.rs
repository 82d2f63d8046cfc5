//! When pages are unmerged, and when not. A fake KSM counts on when unmerged;
//! `run` shows what was written to it by what the record and the report say.

use std::fs;
use std::os::unix::fs::symlink;

use super::super::{Holder, Knob, Reason, Report};
use super::fake::{Fake, fast_ksm, restored, setting, stopped_with_pages_merged};
use super::fuse;

/// A host on which a fleet's guests have merged pages and are gone.
fn after_guests() -> Fake {
    let fake = Fake::new();
    fake.apply(&fast_ksm(), &Holder::User);
    fake.ksm("pages_shared", 10);
    fake.ksm("pages_sharing", 1000);
    fake.process(50, 'S', 5);
    fake
}

/// The values that `run` has while restoring, seen at each of its effects.
fn runs(prepare: impl Fn() -> Fake) -> Vec<i64> {
    let mut runs = Vec::new();
    for effects in 0.. {
        let fake = prepare();
        let ended = fuse::survives(effects, || {
            fake.restore();
        });
        runs.push(fake.get(Knob::KsmRun));
        if ended {
            break;
        }
    }
    runs.dedup();
    runs
}

/// Restoring must leave what needs nothing merged, and say why; the rest goes
/// back. Never is 2 written.
fn leaves(prepare: impl Fn() -> Fake) -> Report {
    assert!(!runs(&prepare).contains(&2));
    let fake = prepare();
    let report = fake.restore();
    let left: Vec<_> = report.left.iter().map(|left| left.knob).collect();
    assert_eq!(left, [Knob::KsmMergeAcrossNodes, Knob::KsmMaxPageSharing]);
    assert_eq!(report.left[0].why, report.left[1].why);
    assert_eq!(fake.get(Knob::KsmMaxPageSharing), 4096);
    assert_eq!(fake.get(Knob::KsmMergeAcrossNodes), 0);
    assert_eq!(fake.get(Knob::KsmPagesToScan), 100);
    // Once nothing is merged any more, they go back.
    if fake.get(Knob::KsmRun) == 0 {
        fake.ksm("pages_shared", 0);
        let report = fake.restore();
        assert_eq!(restored(&report).len(), 2);
        assert!(fake.is_as_it_was());
    }
    report
}

#[test]
fn remains_of_ended_guests_are_unmerged() {
    assert_eq!(runs(after_guests), [1, 0, 2, 0]);
    let fake = after_guests();
    let report = fake.restore();
    assert!(fake.is_as_it_was());
    assert!(report.left.is_empty() && report.merged.is_none());
    let last = report.restored.last().unwrap();
    assert_eq!((last.knob, last.from, last.to), (Knob::KsmRun, 1, 0));
}

#[test]
fn nothing_is_unmerged_where_nothing_is_merged() {
    let prepare = || {
        let fake = after_guests();
        fake.ksm("pages_shared", 0);
        fake
    };
    assert_eq!(runs(prepare), [1, 0]);
}

#[test]
fn ksmd_that_forgets_in_time_is_not_overtaken() {
    let fake = after_guests();
    let mut owner = fake.owner();
    owner.patience = std::time::Duration::from_secs(3600);
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| owner.restore());
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert_eq!(fake.get(Knob::KsmRun), 1);
        fake.ksm("pages_shared", 0);
        restoring.join().unwrap().unwrap();
    });
    assert!(fake.is_as_it_was());
}

#[test]
fn pages_of_the_living_stay_merged() {
    for (file, text) in [
        ("ksm_merging_pages", "7\n"),
        ("ksm_stat", "ksm_rmap_items 9\nksm_zero_pages 7\n"),
    ] {
        let report = leaves(|| {
            let fake = after_guests();
            fake.file(&format!("proc/50/{file}"), text);
            fake
        });
        let why = Reason::MergedByLiving { pages: 7 };
        assert_eq!(report.left[0].why, why);
        let merged = report.merged.unwrap();
        assert_eq!((merged.pages, merged.why), (10, why));
    }
}

#[test]
fn pages_of_nobody_known_stay_merged() {
    let unreadable: [&dyn Fn(&Fake); 5] = [
        // Linux 5.18.
        &|fake| fs::remove_file(fake.path("proc/50/ksm_merging_pages")).unwrap(),
        &|fake| fake.file("proc/50/ksm_merging_pages", "some\n"),
        &|fake| fake.file("proc/50/ksm_stat", "ksm_zero_pages -1\n"),
        // A container.
        &|fake| {
            let link = fake.path("proc/self/ns/pid");
            fs::remove_file(&link).unwrap();
            symlink("pid:[4026532000]", link).unwrap();
        },
        &|fake| fs::remove_file(fake.path("proc/self/ns/pid")).unwrap(),
    ];
    for hide in unreadable {
        let report = leaves(|| {
            let fake = after_guests();
            hide(&fake);
            fake
        });
        let why = &report.left[0].why;
        assert!(matches!(why, Reason::MergedByUnknown { .. }), "{why}");
    }
}

#[test]
fn pages_that_would_not_fit_stay_merged() {
    // 8 GiB are available, of which an eighth stays free.
    const MOST: u64 = 7 << 30 >> 12;
    let merged = |sharing, zero| {
        move || {
            let fake = after_guests();
            fake.ksm("pages_sharing", sharing);
            fake.ksm("ksm_zero_pages", zero);
            fake
        }
    };
    assert_eq!(runs(merged(MOST, 0)), [1, 0, 2, 0]);
    let report = leaves(merged(MOST + 1, 0));
    assert!(matches!(report.left[0].why, Reason::NoRoom { .. }));
    let report = leaves(merged(MOST, 1));
    assert_eq!(
        report.left[0].why.to_string(),
        "unmerging may take 7168 MiB, and 8192 MiB of memory are available"
    );
    let report = leaves(|| {
        let fake = after_guests();
        fake.file("proc/meminfo", "MemAvailable: lots\n");
        fake
    });
    assert!(matches!(report.left[0].why, Reason::System(_)));
}

#[test]
fn a_kernel_without_zero_page_counts_unmerges() {
    let prepare = || {
        let fake = after_guests();
        fs::remove_file(fake.path("sys/kernel/mm/ksm/ksm_zero_pages")).unwrap();
        fake
    };
    assert_eq!(runs(prepare), [1, 0, 2, 0]);
}

#[test]
fn ksm_that_others_turned_on_is_not_touched() {
    let prepare = || {
        let fake = Fake::new();
        fake.set(Knob::KsmRun, 1);
        fake.apply(&fast_ksm(), &Holder::User);
        fake.ksm("pages_shared", 10);
        fake
    };
    assert_eq!(runs(prepare), [1]);
    let report = leaves(prepare);
    assert_eq!(report.left[0].why, Reason::KsmTaken);
}

#[test]
fn ksm_that_a_living_fleet_needs_is_not_touched() {
    let prepare = || {
        let fake = after_guests();
        let web = fake.fleet("web", 10);
        let run = [setting(Knob::KsmRun, 1)];
        fake.apply(&run, &web);
        fake
    };
    assert_eq!(runs(prepare), [1]);
    let report = leaves(prepare);
    assert_eq!(report.held[0].knob, Knob::KsmRun);
}

#[test]
fn a_ksmd_that_stands_still_unmerges_and_stands_still() {
    assert_eq!(runs(stopped_with_pages_merged), [0, 2, 0]);
    let report = stopped_with_pages_merged().restore();
    assert_eq!(restored(&report), [Knob::KsmMaxPageSharing]);
}

#[test]
fn a_ksmd_stopped_by_one_who_died_there_unmerges() {
    let prepare = || {
        let fake = Fake::new();
        let run = [setting(Knob::KsmRun, 1)];
        fake.apply(&run, &Holder::User);
        fake.ksm("pages_shared", 10);
        // The record, 0, and not the next record.
        let restored = fuse::survives(2, || drop(fake.owner().restore()));
        assert!(!restored && fake.get(Knob::KsmRun) == 0);
        fake
    };
    assert_eq!(runs(prepare), [0, 2, 0]);
}

#[test]
fn ksm_that_was_unmerged_is_stopped_not_unmerged_again() {
    let fake = Fake::new();
    fake.set(Knob::KsmRun, 2);
    let run = [setting(Knob::KsmRun, 1)];
    fake.apply(&run, &Holder::User);
    assert_eq!(fake.get(Knob::KsmRun), 1);
    let report = fake.restore();
    assert_eq!(fake.get(Knob::KsmRun), 0);
    assert_eq!((report.restored[0].from, report.restored[0].to), (1, 0));
}
