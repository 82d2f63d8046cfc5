//! Several fleets that need ksmd to go at a rate of their own.

use super::super::drive::Undriven;
use super::super::{Holder, Knob, Reason, Setting};
use super::fake::{Fake, setting};

fn rate(pages: i64) -> [Setting; 2] {
    [
        setting(Knob::KsmPagesToScan, pages),
        setting(Knob::KsmSleepMillisecs, 50),
    ]
}

fn drive(fake: &Fake, pages: i64, holder: &Holder) -> Result<(), Undriven> {
    fake.owner().drive(&rate(pages), holder).unwrap()
}

/// A host on which a fleet has turned KSM on.
fn merging() -> (Fake, Holder) {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    let settings = [
        setting(Knob::KsmRun, 1),
        setting(Knob::KsmPagesToScan, 20000),
    ];
    fake.apply(&settings, &web);
    (fake, web)
}

#[test]
fn the_first_fleet_drives_until_it_is_gone_and_the_next_goes_on() {
    let (fake, web) = merging();
    let db = fake.fleet("db", 11);
    fake.owner().join(&db).unwrap();
    for pages in [700, 9000, 300] {
        assert_eq!(drive(&fake, pages, &web), Ok(()));
        assert_eq!(fake.get(Knob::KsmPagesToScan), pages);
    }
    assert_eq!(drive(&fake, 5, &db), Err(Undriven::Other(web)));
    assert_eq!(fake.get(Knob::KsmPagesToScan), 300);
    // It is killed, and its guests live on: then, and once they are gone.
    fake.guest(12);
    fake.process_ends(10);
    assert_eq!(drive(&fake, 800, &db), Ok(()));
    assert_eq!(fake.get(Knob::KsmPagesToScan), 800);
    fake.process_ends(12);
    fake.release(&db);
    assert!(fake.is_as_it_was());
}

#[test]
fn a_rate_that_a_fleet_ends_with_stays_for_the_guests_of_others() {
    let (fake, web) = merging();
    let db = fake.fleet("db", 11);
    fake.owner().join(&db).unwrap();
    assert_eq!(drive(&fake, 300, &web), Ok(()));
    let report = fake.release(&web);
    assert_eq!(report.restored, []);
    assert_eq!(fake.get(Knob::KsmPagesToScan), 300);
    assert_eq!(drive(&fake, 400, &db), Ok(()));
    fake.release(&db);
    assert!(fake.is_as_it_was());
}

#[test]
fn a_launch_may_have_ksmd_go_faster_than_the_driver_left_it() {
    let (fake, web) = merging();
    assert_eq!(drive(&fake, 300, &web), Ok(()));
    let db = fake.fleet("db", 11);
    fake.apply(&[setting(Knob::KsmPagesToScan, 20000)], &db);
    assert_eq!(fake.get(Knob::KsmPagesToScan), 20000);
    assert_eq!(drive(&fake, 300, &web), Ok(()));
}

#[test]
fn a_rate_that_is_not_the_fleets_to_set_is_left_alone() {
    let as_it_was = |fake: &Fake, pages| assert_eq!(fake.get(Knob::KsmPagesToScan), pages);
    // KSM ran before, and at a rate that was fast enough.
    let fake = Fake::new();
    fake.set(Knob::KsmRun, 1);
    let web = fake.fleet("web", 10);
    assert_eq!(drive(&fake, 300, &web), Err(Undriven::NotOurs));
    fake.apply(&[setting(Knob::KsmUseZeroPages, 1)], &web);
    assert_eq!(drive(&fake, 300, &web), Err(Undriven::NotOurs));
    as_it_was(&fake, 100);
    // A tuner has set another since.
    let (fake, web) = merging();
    fake.set(Knob::KsmPagesToScan, 64);
    let why = Reason::Changed;
    let knob = Knob::KsmPagesToScan;
    assert_eq!(
        drive(&fake, 300, &web),
        Err(Undriven::Refused { knob, why })
    );
    as_it_was(&fake, 64);
    // The user has.
    let fake = Fake::new();
    let settings = [setting(Knob::KsmRun, 1), setting(knob, 20000)];
    fake.apply(&settings, &Holder::User);
    let web = fake.fleet("web", 10);
    fake.owner().join(&web).unwrap();
    assert_eq!(drive(&fake, 300, &web), Err(Undriven::User));
    as_it_was(&fake, 20000);
}

#[test]
fn a_driver_that_dies_at_any_point_leaves_nothing_behind() {
    for effects in 0.. {
        let (fake, web) = merging();
        let survived = super::fuse::survives(effects, || {
            drive(&fake, 300, &web).unwrap();
            drive(&fake, 900, &web).unwrap();
        });
        fake.process_ends(10);
        fake.restore();
        assert!(fake.is_as_it_was(), "{effects}");
        if survived {
            return;
        }
    }
}
