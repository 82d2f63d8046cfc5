use std::fs;

use super::super::{Holder, Keeper, Knob, Outcome, Reason, Report};
use super::fake::{BOOT, Fake, fast_ksm, restored, setting};

#[test]
fn restores_everything_in_reverse_and_forgets_it() {
    let fake = Fake::new();
    let mut settings = fast_ksm().to_vec();
    settings.push(setting(Knob::PidMax, 50000));
    settings.push(setting(Knob::ThreadsMax, 1 << 21));
    fake.apply(&settings, &Holder::User);
    let report = fake.restore();
    assert!(fake.is_as_it_was());
    assert!(report.left.is_empty() && report.held.is_empty());
    assert_eq!(
        restored(&report),
        [
            Knob::ThreadsMax,
            Knob::PidMax,
            Knob::KsmUseZeroPages,
            Knob::KsmPagesToScan,
            Knob::KsmMergeAcrossNodes,
            Knob::KsmMaxPageSharing,
            Knob::KsmRun,
        ]
    );
    let run = report.restored.last().unwrap();
    assert_eq!((run.from, run.to), (1, 0));
    assert!(!fake.record().exists());
    assert_eq!(fake.restore(), Report::default());
}

#[test]
fn nothing_is_made_where_there_is_nothing_to_restore() {
    let fake = Fake::new();
    assert_eq!(fake.restore(), Report::default());
    assert!(!fake.path("run/imgbuild").exists());
}

#[test]
fn the_last_holder_restores() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    let pid_max = [setting(Knob::PidMax, 50000)];
    fake.apply(&pid_max, &web);
    fake.apply(&pid_max, &db);
    fake.apply(&pid_max, &Holder::User);

    let report = fake.release(&web);
    assert!(report.restored.is_empty());
    assert_eq!(
        report.held[0].by,
        [db.clone(), Holder::User].map(Keeper::Holder)
    );
    let report = fake.restore();
    assert!(report.restored.is_empty());
    assert_eq!(report.held[0].by, [Keeper::Holder(db.clone())]);
    assert_eq!(fake.get(Knob::PidMax), 50000);

    let report = fake.release(&db);
    assert_eq!(restored(&report), [Knob::PidMax]);
    assert!(fake.is_as_it_was());
}

#[test]
fn a_fleet_that_finds_settings_in_force_holds_them() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    // Nothing is made where nothing is in force.
    fake.owner().join(&db).unwrap();
    assert!(!fake.path("run/imgbuild").exists());

    let settings = [
        setting(Knob::PidMax, 50000),
        setting(Knob::ThreadsMax, 900_000),
    ];
    fake.apply(&settings, &web);
    // What somebody else has changed since is theirs.
    fake.set(Knob::ThreadsMax, 800_000);
    fake.owner().join(&db).unwrap();
    let report = fake.release(&web);
    assert_eq!(restored(&report), []);
    assert_eq!(report.held[0].by, [Keeper::Holder(db.clone())]);
    assert_eq!(fake.get(Knob::PidMax), 50000);
    assert_eq!(restored(&fake.release(&db)), [Knob::PidMax]);
    assert_eq!(fake.get(Knob::ThreadsMax), 800_000);
}

#[test]
fn the_user_holds_on_when_the_last_fleet_ends() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    let pid_max = [setting(Knob::PidMax, 50000)];
    fake.apply(&pid_max, &Holder::User);
    fake.apply(&pid_max, &web);
    let report = fake.release(&web);
    assert_eq!(report.held[0].by, [Keeper::Holder(Holder::User)]);
    assert_eq!(fake.get(Knob::PidMax), 50000);
}

#[test]
fn each_knob_goes_back_with_its_own_last_holder() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    let pid_max = setting(Knob::PidMax, 50000);
    let threads_max = setting(Knob::ThreadsMax, 1 << 21);
    fake.apply(&[pid_max, threads_max], &web);
    fake.apply(&[threads_max], &db);
    let report = fake.release(&web);
    assert_eq!(restored(&report), [Knob::PidMax]);
    assert_eq!(report.held[0].knob, Knob::ThreadsMax);
    assert_eq!(fake.get(Knob::ThreadsMax), 1 << 21);
}

#[test]
fn dead_fleets_hold_nothing() {
    let reused = |fake: &Fake| fake.process(10, 'S', 77);
    let zombie = |fake: &Fake| fake.process(10, 'Z', 1010);
    let ended = |fake: &Fake| fake.process_ends(10);
    let deaths: [&dyn Fn(&Fake); 3] = [&reused, &zombie, &ended];
    for death in deaths {
        let fake = Fake::new();
        let web = fake.fleet("web", 10);
        fake.apply(&[setting(Knob::PidMax, 50000)], &web);
        assert_eq!(fake.restore().held.len(), 1);
        death(&fake);
        let report = fake.restore();
        assert_eq!(restored(&report), [Knob::PidMax]);
        assert!(fake.is_as_it_was());
    }
}

#[test]
fn a_fleet_of_whom_nothing_is_known_keeps_its_settings() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    fake.apply(&[setting(Knob::PidMax, 50000)], &web);
    fake.file("proc/10/stat", "garbage");
    let report = fake.restore();
    assert_eq!(report.held[0].by, [Keeper::Holder(web)]);
    assert_eq!(fake.get(Knob::PidMax), 50000);
}

#[test]
fn this_process_lives_until_it_does_not() {
    let this = Holder::this_process("web").unwrap();
    let root = std::path::Path::new("/");
    assert!(this.lives(root));
    let Holder::Fleet { name, pid, start } = this else {
        panic!("{this:?}")
    };
    assert_eq!(pid, std::process::id());
    let start = start + 1;
    assert!(!Holder::Fleet { name, pid, start }.lives(root));
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let name = "web".to_owned();
    let pid = child.id();
    child.wait().unwrap();
    assert!(!Holder::Fleet { name, pid, start }.lives(root));
}

#[test]
fn what_somebody_else_has_changed_is_left() {
    let fake = Fake::new();
    let settings = [
        setting(Knob::PidMax, 50000),
        setting(Knob::ThreadsMax, 1 << 21),
    ];
    fake.apply(&settings, &Holder::User);
    fake.set(Knob::PidMax, 60000);
    let report = fake.restore();
    assert_eq!(restored(&report), [Knob::ThreadsMax]);
    let [left] = &report.left[..] else {
        panic!("{report:?}")
    };
    assert_eq!((left.knob, &left.why), (Knob::PidMax, &Reason::Changed));
    assert_eq!(
        (left.found, left.wrote, left.old),
        (Some(60000), 50000, 32768)
    );
    assert_eq!(fake.get(Knob::PidMax), 60000);
    // It is nobody's of ours any more, and that is reported once.
    assert!(!fake.record().exists());
}

#[test]
fn what_somebody_else_has_put_back_is_no_news() {
    let fake = Fake::new();
    fake.apply(&[setting(Knob::PidMax, 50000)], &Holder::User);
    fake.set(Knob::PidMax, 32768);
    assert_eq!(fake.restore(), Report::default());
    assert!(!fake.record().exists());
}

#[test]
fn what_cannot_be_put_back_now_is_tried_again() {
    let fake = Fake::new();
    fake.apply(&[setting(Knob::PidMax, 50000)], &Holder::User);
    let path = fake.path(Knob::PidMax.file().unwrap());
    fs::remove_file(&path).unwrap();
    let report = fake.restore();
    assert_eq!(report.left[0].why, Reason::Absent);
    fake.set(Knob::PidMax, 50000);
    let report = fake.restore();
    assert_eq!(restored(&report), [Knob::PidMax]);
    assert!(fake.is_as_it_was());
}

#[test]
fn the_record_of_another_boot_is_discarded() {
    let fake = Fake::new();
    fake.apply(&[setting(Knob::PidMax, 50000)], &Holder::User);
    let next = BOOT.replace("0123", "4567");
    fake.file("proc/sys/kernel/random/boot_id", &next);
    // As it happens, the next boot set it to the same.
    assert_eq!(fake.restore(), Report::default());
    assert_eq!(fake.get(Knob::PidMax), 50000);
    assert!(!fake.record().exists());
}

#[test]
fn a_setting_of_another_boot_is_written_again() {
    let fake = Fake::new();
    let owner = fake.owner();
    owner
        .apply(&[setting(Knob::PidMax, 50000)], &Holder::User)
        .unwrap();
    let next = BOOT.replace("0123", "4567");
    fake.file("proc/sys/kernel/random/boot_id", &next);
    fake.set(Knob::PidMax, 40000);
    let applied = owner
        .apply(&[setting(Knob::PidMax, 60000)], &Holder::User)
        .unwrap();
    let written = Outcome::Written {
        old: 40000,
        now: 60000,
    };
    assert_eq!(applied[0].outcome, written);
}
