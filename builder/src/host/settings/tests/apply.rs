use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use super::super::record::{Change, LIMIT, Record};
use super::super::{Holder, Keeper, Knob, Outcome, Reason, SettingsError, file};
use super::fake::{BOOT, DEFAULTS, Fake, fast_ksm, setting};

fn outcome(fake: &Fake, knob: Knob, value: i64, holder: &Holder) -> Outcome {
    let mut applied = fake.apply(&[setting(knob, value)], holder);
    assert_eq!(applied.len(), 1);
    applied.remove(0).outcome
}

fn refusal(fake: &Fake, knob: Knob, value: i64) -> Reason {
    match outcome(fake, knob, value, &Holder::User) {
        Outcome::Refused { why } => why,
        other => panic!("{knob} to {value}: {other:?}"),
    }
}

#[test]
fn writes_a_setting_and_keeps_what_it_was() {
    let fake = Fake::new();
    let written = outcome(&fake, Knob::PidMax, 50000, &Holder::User);
    assert_eq!(
        written,
        Outcome::Written {
            old: 32768,
            now: 50000
        }
    );
    assert_eq!(fake.get(Knob::PidMax), 50000);
    let record = fs::read_to_string(fake.record()).unwrap();
    assert!(record.contains("\"pid-max\"") && record.contains("32768"));
    assert_eq!(fake.record().metadata().unwrap().mode() & 0o7777, 0o600);
    let folder = fake.path("run/imgbuild").metadata().unwrap();
    assert_eq!(folder.mode() & 0o7777, 0o700);
}

#[test]
fn leaves_alone_what_is_as_wanted() {
    let fake = Fake::new();
    let already = |now| Outcome::Already { now };
    let user = Holder::User;
    assert_eq!(outcome(&fake, Knob::PidMax, 32768, &user), already(32768));
    // A limit that is higher than need be is as wanted, too.
    assert_eq!(outcome(&fake, Knob::PidMax, 20000, &user), already(32768));
    assert_eq!(outcome(&fake, Knob::KsmRun, 0, &user), already(0));
    assert!(!fake.path("run/imgbuild").exists());
    // The same when there is a record of something else.
    outcome(&fake, Knob::ThreadsMax, 1 << 21, &user);
    assert_eq!(outcome(&fake, Knob::PidMax, 20000, &user), already(32768));
    assert!(!fs::read_to_string(fake.record()).unwrap().contains("pid"));
}

#[test]
fn a_second_holder_keeps_the_first_old_value() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    outcome(&fake, Knob::PidMax, 50000, &web);
    assert_eq!(
        outcome(&fake, Knob::PidMax, 40000, &db),
        Outcome::Held {
            old: 32768,
            now: 50000
        }
    );
    assert_eq!(
        outcome(&fake, Knob::PidMax, 60000, &db),
        Outcome::Written {
            old: 32768,
            now: 60000
        }
    );
    assert_eq!(fake.get(Knob::PidMax), 60000);
}

#[test]
fn what_another_fleet_holds_is_not_changed_under_it() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    outcome(&fake, Knob::KvmHaltPollNs, 20000, &web);
    let refused = outcome(&fake, Knob::KvmHaltPollNs, 500, &db);
    let Outcome::Refused { why } = refused else {
        panic!("{refused:?}")
    };
    assert!(why.to_string().contains("fleet web"), "{why}");
    assert_eq!(fake.get(Knob::KvmHaltPollNs), 20000);
    // Its own it may change, and a dead one's.
    outcome(&fake, Knob::KvmHaltPollNs, 10000, &web);
    assert_eq!(fake.get(Knob::KvmHaltPollNs), 10000);
    fake.process_ends(10);
    outcome(&fake, Knob::KvmHaltPollNs, 500, &db);
    assert_eq!(fake.get(Knob::KvmHaltPollNs), 500);
    let report = fake.release(&db);
    assert_eq!(report.restored[0].to, 200_000);
}

#[test]
fn what_somebody_else_made_of_it_is_what_to_put_back() {
    let fake = Fake::new();
    outcome(&fake, Knob::PidMax, 50000, &Holder::User);
    fake.set(Knob::PidMax, 40000);
    outcome(&fake, Knob::PidMax, 60000, &Holder::User);
    fake.restore();
    assert_eq!(fake.get(Knob::PidMax), 40000);
}

#[test]
fn who_held_it_before_somebody_else_changed_it_still_does() {
    let fake = Fake::new();
    let (web, db) = (fake.fleet("web", 10), fake.fleet("db", 11));
    outcome(&fake, Knob::PidMax, 50000, &web);
    fake.set(Knob::PidMax, 40000);
    outcome(&fake, Knob::PidMax, 60000, &db);
    let report = fake.release(&db);
    assert_eq!(report.held[0].by, [Keeper::Holder(web)]);
    assert_eq!(fake.get(Knob::PidMax), 60000);
}

#[test]
fn ksm_runs_last_and_each_knob_is_written_once() {
    let fake = Fake::new();
    let mut settings = fast_ksm().to_vec();
    settings.push(setting(Knob::PidMax, 50000));
    settings.push(setting(Knob::PidMax, 40000));
    let applied = fake.apply(&settings, &Holder::User);
    let knobs: Vec<_> = applied.iter().map(|applied| applied.knob).collect();
    assert_eq!(
        knobs,
        [
            Knob::PidMax,
            Knob::KsmMaxPageSharing,
            Knob::KsmMergeAcrossNodes,
            Knob::KsmPagesToScan,
            Knob::KsmUseZeroPages,
            Knob::KsmRun
        ]
    );
    assert_eq!(fake.get(Knob::PidMax), 50000);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for (knob, value) in [
        (Knob::PidMax, 4_194_305),
        (Knob::KsmRun, 2),
        (Knob::KsmUseZeroPages, 2),
        (Knob::KsmMaxPageSharing, 1),
        (Knob::OvercommitMemory, 3),
        (Knob::ThreadsMax, 1 << 30),
        (Knob::FileMax, 1 << 63),
        (Knob::KsmPagesToScan, 1 << 32),
    ] {
        let fake = Fake::new();
        assert!(matches!(refusal(&fake, knob, value), Reason::Range { .. }));
        assert!(fake.is_as_it_was());
        assert!(!fake.record().exists());
    }
}

#[test]
fn what_could_not_be_put_back_is_not_changed() {
    let fake = Fake::new();
    fake.set(Knob::PidMax, 300);
    let why = refusal(&fake, Knob::PidMax, 50000);
    assert_eq!(why, Reason::Irreversible { found: 300 });
    fake.file(Knob::PidMax.file().unwrap(), "many\n");
    let why = refusal(&fake, Knob::PidMax, 50000);
    assert!(
        why.to_string().contains("\"many\" is not a number"),
        "{why}"
    );
    fs::remove_file(fake.path(Knob::PidMax.file().unwrap())).unwrap();
    assert_eq!(refusal(&fake, Knob::PidMax, 50000), Reason::Absent);
    assert!(!fake.record().exists());
}

#[test]
fn what_the_kernel_refuses_does_not_stop_the_others() {
    let fake = Fake::new();
    // The kernel takes up to 1000 there, and answers EINVAL to more.
    let path = fake.path(Knob::FileMax.file().unwrap());
    fs::remove_file(&path).unwrap();
    symlink("/proc/self/oom_score_adj", &path).unwrap();
    let settings = [setting(Knob::FileMax, 5000), setting(Knob::PidMax, 50000)];
    let applied = fake.apply(&settings, &Holder::User);
    let Outcome::Refused { why } = &applied[0].outcome else {
        panic!("{applied:?}")
    };
    assert!(why.to_string().contains("Invalid argument"), "{why}");
    assert!(matches!(applied[1].outcome, Outcome::Written { .. }));
    let record = fs::read_to_string(fake.record()).unwrap();
    assert!(record.contains("pid-max") && !record.contains("file-max"));
}

#[test]
fn what_the_kernel_brings_into_range_is_reported_and_put_back() {
    // A timer slack of 0 is the default, 50,000 ns (proc_pid_timerslack_ns(5)).
    const DEFAULT: i64 = 50_000;
    let fake = Fake::new();
    let path = fake.path(Knob::KsmPagesToScan.file().unwrap());
    fs::remove_file(&path).unwrap();
    symlink("/proc/self/timerslack_ns", &path).unwrap();
    if !matches!(file::read(fake.root(), Knob::KsmPagesToScan), Ok(DEFAULT)) {
        eprintln!("SKIPPED: not root, or a process with a timer slack of its own");
        return;
    }
    let ignored = refusal(&fake, Knob::KsmPagesToScan, 0);
    assert_eq!(ignored, Reason::Ignored { now: DEFAULT });
    assert!(!fake.record().exists());
    fake.set(Knob::KsmPagesToScan, 60_000);
    let written = outcome(&fake, Knob::KsmPagesToScan, 0, &Holder::User);
    assert_eq!(
        written,
        Outcome::Written {
            old: 60_000,
            now: DEFAULT
        }
    );
    fake.restore();
    assert_eq!(fake.get(Knob::KsmPagesToScan), 60_000);
    fake.set(Knob::KsmPagesToScan, DEFAULT);
}

#[test]
fn a_host_that_names_no_boot_is_not_changed() {
    for text in ["", "tomorrow", "01234567-89ab-cdef-0123-456789abcdeg"] {
        let fake = Fake::new();
        fake.file("proc/sys/kernel/random/boot_id", text);
        let error = fake
            .owner()
            .apply(&[setting(Knob::PidMax, 50000)], &Holder::User)
            .unwrap_err();
        assert!(matches!(error, SettingsError::Boot { .. }), "{error}");
        assert!(fake.is_as_it_was());
    }
}

#[test]
fn more_holders_than_the_record_takes_are_refused_before_anything_is_written() {
    let fake = Fake::new();
    let web = fake.fleet("web", 10);
    fake.apply(&fast_ksm(), &web);
    let mut record = Record::parse(&fs::read(fake.record()).unwrap()).unwrap();
    // No further fleet has room.
    let room = usize::try_from(LIMIT).unwrap() - record.to_bytes().len();
    let each = serde_json::to_vec(&web).unwrap().len() + 1;
    let more = vec![web; room / each];
    record.changes[0].holders.extend(more);
    fs::write(fake.record(), record.to_bytes()).unwrap();
    let db = fake.fleet("db", 11);
    let refused = [setting(Knob::PidMax, 50000)];
    let error = fake.owner().apply(&refused, &db).unwrap_err();
    assert!(matches!(error, SettingsError::Full { .. }), "{error}");
    assert_eq!(fake.get(Knob::PidMax), 32768);
    // What was recorded before still is, and can be put back.
    fake.process_ends(10);
    fake.restore();
    assert!(fake.is_as_it_was());
}

#[test]
fn a_record_has_room_for_hundreds_of_fleets_that_hold_everything() {
    let mut record = Record::new(BOOT.parse().unwrap());
    for (knob, value) in DEFAULTS {
        let mut change = Change::new(knob, value);
        for pid in 0..700 {
            change.add_holder(&Holder::Fleet {
                name: "a".repeat(32),
                pid: 4_000_000 + pid,
                start: 10_000_000_000,
            });
        }
        record.put(change);
    }
    let bytes = record.to_bytes();
    assert!(bytes.len() as u64 <= LIMIT, "{}", bytes.len());
    assert_eq!(Record::parse(&bytes), Ok(record));
}
