use std::fs;

use super::super::{Holder, Keeper, Knob, Reason, SettingsError};
use super::fake::{Fake, fast_ksm, restored, setting};

/// A host changed for the user, on which somebody else's guests live.
fn with_guests() -> Fake {
    let fake = Fake::new();
    let mut settings = fast_ksm().to_vec();
    settings.push(setting(Knob::PidMax, 50000));
    fake.apply(&settings, &Holder::User);
    fake.guest(20);
    fake.guest(21);
    fake
}

#[test]
fn guests_of_others_keep_every_setting_until_they_are_gone() {
    let fake = with_guests();
    fake.ksm("pages_shared", 10);
    let report = fake.restore();
    assert_eq!(restored(&report), []);
    assert!(report.left.is_empty(), "{report:?}");
    assert_eq!(report.held.len(), 6);
    for held in &report.held {
        assert_eq!(held.by, [Keeper::Guests(2)]);
        assert_eq!(held.wrote, fake.get(held.knob));
    }
    assert_eq!(fake.get(Knob::PidMax), 50000);
    assert_eq!(fake.get(Knob::KsmRun), 1);

    fake.process_ends(20);
    assert_eq!(fake.restore().held[0].by, [Keeper::Guests(1)]);
    fake.process_ends(21);
    assert_eq!(restored(&fake.restore()).len(), 6);
    assert!(fake.is_as_it_was());
}

#[test]
fn a_fleet_that_ends_before_the_guests_of_others_leaves_it_to_the_next() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    fake.apply(&[setting(Knob::PidMax, 50000)], &web);
    fake.guest(20);
    assert_eq!(fake.release(&web).held[0].by, [Keeper::Guests(1)]);
    assert_eq!(fake.get(Knob::PidMax), 50000);
    // Nobody is recorded for them.
    let record = fs::read_to_string(fake.record()).unwrap();
    assert!(record.contains("\"holders\":[]"), "{record}");

    fake.process_ends(20);
    let db = fake.fleet("db", 11);
    assert_eq!(restored(&fake.release(&db)), [Knob::PidMax]);
    assert!(fake.is_as_it_was());
}

#[test]
fn guests_keep_nothing_that_somebody_else_has_changed() {
    let fake = with_guests();
    fake.set(Knob::KsmSleepMillisecs, 77);
    fake.set(Knob::PidMax, 60000);
    fake.set(Knob::KsmPagesToScan, 100);
    let report = fake.restore();
    let left: Vec<_> = report.left.iter().map(|left| left.knob).collect();
    assert_eq!(left, [Knob::PidMax]);
    assert_eq!(report.left[0].why, Reason::Changed);
    assert_eq!(report.held.len(), 4);
    assert_eq!(fake.get(Knob::PidMax), 60000);
}

#[test]
fn only_who_is_handed_an_identity_is_a_guest() {
    let no_guests = [
        ("zombie", ""),
        ("another guest", "qemu\0-fw_cfg\0name=opt/other,file=/a\0"),
        (
            "a longer name",
            "qemu\0-fw_cfg\0name=opt/imgbuild/identity2,file=/a\0",
        ),
        (
            "who looks for guests",
            "pgrep\0-f\0name=opt/imgbuild/identity,file=/a\0",
        ),
    ];
    for (what, line) in no_guests {
        let fake = with_guests();
        for pid in [20, 21] {
            fake.file(&format!("proc/{pid}/cmdline"), line);
        }
        assert_eq!(fake.restore().held, [], "{what}");
        assert!(fake.is_as_it_was(), "{what}");
    }
}

#[test]
fn of_an_endless_command_line_only_the_beginning_is_read() {
    let fake = with_guests();
    fake.process_ends(20);
    let path = fake.path("proc/21/cmdline");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_eq!(fake.restore().held, []);
    assert!(fake.is_as_it_was());
}

#[test]
fn nothing_is_put_back_when_guests_cannot_be_looked_for() {
    let fake = with_guests();
    let path = fake.path("proc/21/cmdline");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = fake.owner().restore().unwrap_err();
    assert!(matches!(error, SettingsError::Guests { .. }), "{error}");
    assert_eq!(fake.get(Knob::PidMax), 50000);
}

#[test]
fn a_report_says_who_keeps_a_setting() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    fake.apply(&[setting(Knob::PidMax, 50000)], &web);
    fake.apply(&[setting(Knob::ThreadsMax, 1 << 21)], &Holder::User);
    fake.guest(20);
    let report = fake.restore();
    let by = serde_json::to_value(report.held.iter().map(|held| &held.by).collect::<Vec<_>>());
    let expected = serde_json::json!([
        [{"fleet": {"name": "web", "pid": 10, "start": 1010}}],
        [{"guests": 1}],
    ]);
    assert_eq!(by.unwrap(), expected);
    let said: Vec<_> = report
        .held
        .iter()
        .map(|held| held.by[0].to_string())
        .collect();
    assert_eq!(
        said,
        ["the fleet web (process 10)", "1 guest of another fleet"]
    );
    assert_eq!(
        Keeper::Guests(8000).to_string(),
        "8000 guests of other fleets"
    );
}
