//! The nice value of ksmd, which is no file.

use std::fs;

use super::super::{Holder, Knob, Outcome, Reason, script};
use super::fake::{Fake, KSMD, restored, setting};

const FAST: i64 = -10;

fn renice(fake: &Fake, holder: &Holder) -> Outcome {
    let applied = fake.apply(&[setting(Knob::KsmdNice, FAST)], holder);
    applied.into_iter().next().unwrap().outcome
}

#[test]
fn ksmd_has_its_old_nice_value_back_after_the_death_of_who_changed_it() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    let written = Outcome::Written { old: 5, now: FAST };
    assert_eq!(renice(&fake, &web), written);
    fake.guest(11);
    fake.process_ends(10);
    assert_eq!(fake.restore().held[0].wrote, FAST);
    assert_eq!(fake.get(Knob::KsmdNice), FAST);
    fake.process_ends(11);
    assert_eq!(restored(&fake.restore()), [Knob::KsmdNice]);
    assert!(fake.is_as_it_was());
}

#[test]
fn a_nice_value_that_somebody_else_gave_ksmd_stays() {
    let fake = Fake::new();
    renice(&fake, &Holder::User);
    fake.set(Knob::KsmdNice, 0);
    let report = fake.restore();
    assert_eq!(report.left[0].why, Reason::Changed);
    assert_eq!(fake.get(Knob::KsmdNice), 0);
}

#[test]
fn no_program_is_taken_for_ksmd() {
    let fake = Fake::new();
    fake.process_ends(KSMD);
    fake.process(36, 'S', 60);
    fake.file("proc/36/comm", "ksmd\n");
    let Outcome::Refused { why } = renice(&fake, &Holder::User) else {
        panic!("a program was reniced");
    };
    assert!(why.to_string().contains("in a container"), "{why}");
    assert!(!fs::exists(fake.record()).unwrap());
}

#[test]
fn the_script_renices_the_kernels_thread() {
    let script = script(&[setting(Knob::KsmdNice, FAST)], &[]);
    let command = "\nrenice -10 -p \"$(pgrep -P 2 -x ksmd)\"\n";
    assert!(script.contains(command), "{script}");
}
