//! Wherever a process dies, what it changed can be put back.

use std::fs;

use super::super::{Holder, Knob};
use super::fake::{Fake, fast_ksm, setting, stopped_with_pages_merged};
use super::fuse;

/// More effects than any of these has.
const MANY: u32 = 100;

/// Has `work` die before each of its effects in turn, on a host of its own each
/// time, and hands that to `check`; the number of deaths.
fn at_every_death(prepare: impl Fn() -> Fake, work: impl Fn(&Fake), check: impl Fn(&Fake)) -> u32 {
    for effects in 0..MANY {
        let fake = prepare();
        if fuse::survives(effects, || work(&fake)) {
            return effects;
        }
        check(&fake);
    }
    panic!("it never ends");
}

fn restores(fake: &Fake) {
    let report = fake.restore();
    assert!(fake.is_as_it_was(), "{report:?}");
    assert!(report.left.is_empty(), "{report:?}");
    assert!(!fake.record().exists());
}

#[test]
fn while_writing() {
    let settings = [
        setting(Knob::PidMax, 50000),
        setting(Knob::ThreadsMax, 1 << 21),
        setting(Knob::KsmMaxPageSharing, 4096),
        setting(Knob::KsmRun, 1),
    ];
    let deaths = at_every_death(
        Fake::new,
        |fake| {
            fake.apply(&settings, &Holder::User);
        },
        restores,
    );
    // The record, four settings, the record again.
    assert_eq!(deaths, 6);
}

#[test]
fn while_raising_what_is_held() {
    let deaths = at_every_death(
        || {
            let fake = Fake::new();
            let low = [setting(Knob::PidMax, 50000)];
            fake.apply(&low, &Holder::User);
            fake
        },
        |fake| {
            let high = [setting(Knob::PidMax, 60000)];
            fake.apply(&high, &Holder::User);
        },
        restores,
    );
    assert_eq!(deaths, 3);
}

/// A host on which guests have come and gone, whose merged pages ksmd has not
/// forgotten.
fn after_guests() -> Fake {
    let fake = Fake::new();
    let mut settings = fast_ksm().to_vec();
    settings.push(setting(Knob::PidMax, 50000));
    fake.apply(&settings, &Holder::User);
    fake.ksm("pages_shared", 10);
    fake.ksm("pages_sharing", 1000);
    fake
}

#[test]
fn while_restoring() {
    let deaths = at_every_death(after_guests, |fake| drop(fake.restore()), restores);
    // Six settings and the end of the record, and twice `run` with a record of
    // it before.
    assert_eq!(deaths, 11);
}

#[test]
fn while_unmerging_with_a_ksmd_that_stands_still() {
    let deaths = at_every_death(
        stopped_with_pages_merged,
        |fake| drop(fake.restore()),
        restores,
    );
    assert_eq!(deaths, 5);
}

#[test]
fn twice_in_a_row() {
    at_every_death(
        after_guests,
        |fake| drop(fake.restore()),
        |fake| {
            let copy = |from: &Fake| {
                let to = Fake::new();
                for knob in fast_ksm().map(|setting| setting.knob) {
                    to.set(knob, from.get(knob));
                }
                to.set(Knob::PidMax, from.get(Knob::PidMax));
                to.ksm("pages_shared", 10);
                to.apply(&[setting(Knob::ThreadsMax, 1 << 21)], &Holder::User);
                to.set(Knob::ThreadsMax, from.get(Knob::ThreadsMax));
                fs::copy(from.record(), to.record()).unwrap();
                to
            };
            if !fake.record().exists() {
                return;
            }
            at_every_death(|| copy(fake), |fake| drop(fake.restore()), restores);
        },
    );
}

#[test]
fn what_a_death_left_of_the_next_record_is_no_hindrance() {
    let fake = Fake::new();
    let pid_max = [setting(Knob::PidMax, 50000)];
    fake.apply(&pid_max, &Holder::User);
    let next = fake.path("run/imgbuild/settings.json.new");
    let elsewhere = fake.path("elsewhere");
    fs::write(&elsewhere, "precious").unwrap();
    std::os::unix::fs::symlink(&elsewhere, &next).unwrap();
    let threads_max = [setting(Knob::ThreadsMax, 1 << 21)];
    fake.apply(&threads_max, &Holder::User);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "precious");
    restores(&fake);
}
