use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::durable::tests::Small;
use crate::guest::{Desired, Phase};
use crate::rights;
use crate::units::GuestIndex;

fn guest(number: u32) -> GuestIndex {
    GuestIndex::new(number).unwrap()
}

fn start(number: u32, restarts: u32) -> Record {
    Record::Start {
        guest: guest(number),
        pid: 4_000_000 + number,
        start_time: u64::MAX - u64::from(number),
        restarts,
    }
}

fn story() -> Vec<Record> {
    vec![
        start(0, 0),
        start(99_999, 0),
        Record::Up,
        Record::End { guest: guest(0) },
        start(0, 1),
        Record::Stopped { guest: guest(7) },
        Record::Stopped { guest: guest(8) },
        Record::End { guest: guest(8) },
        Record::Wanted { guest: guest(7) },
        Record::End {
            guest: guest(99_999),
        },
    ]
}

fn history(records: &[Record]) -> History {
    let mut history = History::default();
    for record in records {
        history.apply(record);
    }
    history
}

fn text(records: &[Record]) -> String {
    records.iter().map(line).collect()
}

/// A journal's file with this content.
fn file(content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    fs::write(&path, content).unwrap();
    (folder, path)
}

#[test]
fn a_history_is_what_was_recorded() {
    let restored = history(&story());
    let run = |number: u32, ended| Run {
        pid: 4_000_000 + number,
        start_time: u64::MAX - u64::from(number),
        ended,
    };
    let expected = [
        (0, Some(run(0, false)), 1, Desired::Up),
        (7, None, 0, Desired::Up),
        (8, None, 0, Desired::Down),
        (99_999, Some(run(99_999, true)), 0, Desired::Up),
    ];
    let expected = expected.map(|(number, last, restarts, desired)| {
        (
            guest(number),
            Past {
                last,
                restarts,
                desired,
                over: None,
                duty: None,
            },
        )
    });
    assert_eq!(restored.guests, expected.into());
    assert!(restored.up);
    // The shortest form tells the same, but for guests of which it says nothing.
    let again = history(&restored.records());
    assert_eq!(again.records(), restored.records());
    assert_eq!(restored.records().len(), 5);
}

#[test]
fn the_duty_that_a_guest_had_outlives_its_end() {
    let burns = |percent: u8| Record::Burn {
        guest: guest(0),
        duty: percent.try_into().unwrap(),
    };
    let end = Record::End { guest: guest(0) };
    let restored = history(&[start(0, 0), burns(30), burns(0), end, start(0, 1)]);
    let duty = restored.guests[&guest(0)].duty;
    assert_eq!(duty, Some(crate::units::Duty::NONE));
    assert_eq!(history(&restored.records()), restored);
}

#[test]
fn starts_that_came_to_nothing_are_remembered() {
    let not_started = |phase, restarts| Record::NotStarted {
        guest: guest(0),
        phase,
        restarts,
    };
    let end = Record::End { guest: guest(0) };
    let outcome = |records: &[Record]| {
        let restored = history(records);
        // The shortest form tells the same.
        assert_eq!(history(&restored.records()), restored);
        let past = restored.guests[&guest(0)];
        (past.last.is_some(), past.restarts, past.over)
    };
    let [planned, restarting, failed] = [
        not_started(Phase::Planned, 0),
        not_started(Phase::Restarting, 4),
        not_started(Phase::Failed, 4),
    ];
    assert_eq!(outcome(&[restarting]), (false, 4, Some(Phase::Restarting)));
    assert_eq!(outcome(&[failed]), (false, 4, Some(Phase::Failed)));
    assert_eq!(
        outcome(&[start(0, 3), end, restarting]),
        (true, 4, Some(Phase::Restarting))
    );
    // A first start whose VMM ended by the host's trouble was none.
    assert_eq!(
        outcome(&[start(0, 0), end, planned]),
        (false, 0, Some(Phase::Planned))
    );
    assert_eq!(outcome(&[restarting, start(0, 5)]), (true, 5, None));
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    assert!(replay(&path).is_err());
    let mut journal = Journal::open(&path).unwrap();
    assert_eq!(journal.history(), &History::default());
    for (at, record) in story().iter().enumerate() {
        if at % 2 == 0 {
            journal.append(record).unwrap();
        } else {
            journal.append_durably([*record]).unwrap();
        }
        assert_eq!(replay(&path).unwrap(), history(&story()[..=at]));
    }
    assert_eq!(journal.history(), &history(&story()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&story()));
    assert_eq!(
        text(&story()[2..4]),
        "aeea2013 {\"t\":\"up\"}\n4f480a2e {\"t\":\"end\",\"guest\":\"g00000\"}\n"
    );
}

#[test]
fn a_torn_last_line_is_cut_off_wherever_it_tore() {
    let whole = text(&story());
    let before = text(&story()[..story().len() - 1]);
    for length in before.len()..whole.len() {
        let (_folder, path) = file(&whole[..length]);
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.history(), &history(&story()[..story().len() - 1]));
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        assert!(!path.with_extension("damaged").exists());
        journal.append(story().last().unwrap()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    let records = story();
    let whole = text(&records);
    for at in 0..whole.len() {
        let line = whole[..at].matches('\n').count();
        for bit in 0..8 {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let found = scan(&*bytes).unwrap();
            assert_eq!(found.history, history(&records[..line]), "{at} {bit}");
            assert_eq!(found.length, text(&records[..line]).len() as u64);
            assert_ne!(found.end, End::Clean);
        }
    }
}

#[test]
fn what_follows_a_wrong_line_is_kept_aside() {
    let [before, after] = [text(&story()[..3]), text(&story()[3..])];
    for wrong in [
        "",
        "x",
        "00000000 {\"t\":\"up\"}",
        // The right sum of what is not a record.
        "41c31526 {\"t\":\"warp\"}",
        "AEEA2013 {\"t\":\"up\"}",
        " aeea2013 {\"t\":\"up\"}",
        "00000000",
        "00000000 ",
    ] {
        let (_folder, path) = file(format!("{before}{wrong}\n{after}"));
        assert_eq!(replay(&path).unwrap(), history(&story()[..3]), "{wrong}");
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.history(), &history(&story()[..3]));
        let aside = path.with_extension("damaged");
        assert_eq!(
            fs::read_to_string(&aside).unwrap(),
            format!("{wrong}\n{after}")
        );
        let mode = fs::metadata(&aside).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        journal.append(&start(5, 5)).unwrap();
        drop(journal);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("{before}{}", line(&start(5, 5)))
        );
        // A second time loses nothing of the first.
        fs::write(&path, "y\nz\n").unwrap();
        Journal::open(&path).unwrap();
        let kept = fs::read_to_string(&aside).unwrap();
        assert_eq!(kept, format!("{wrong}\n{after}y\nz\n"));
    }
}

#[test]
fn records_of_other_kinds_are_wrong_lines() {
    for json in [
        r#"{"t":"warp"}"#,
        r#"{"t":"end"}"#,
        r#"{"t":"end","guest":"g00001","more":1}"#,
        r#"{"t":"end","guest":"g0001"}"#,
        r#"{"t":"end","guest":1}"#,
        r#"{"t":"start","guest":"g00001","pid":-1,"start_time":1,"restarts":0}"#,
        r#"{"t":"up"} "x""#,
        r#"{"guest":"g00001"}"#,
        "[]",
        "null",
        "",
    ] {
        let line = format!("{:08x} {json}\n", checksum(json.as_bytes()));
        assert_eq!(parse(line.as_bytes()), None, "{json}");
    }
}

#[test]
fn garbage_of_any_size_is_no_history() {
    let garbage: Vec<u8> = (0..100_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    let huge = format!("{:9}{}", "", "x".repeat(1 << 20));
    for content in [
        &b""[..],
        &b"\n"[..],
        &[0; 1],
        &vec![0; 100_000],
        &[b'\n'; 5000],
        &garbage,
        huge.as_bytes(),
    ] {
        let (_folder, path) = file(content);
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.history(), &History::default());
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let aside = fs::read(path.with_extension("damaged")).unwrap_or_default();
        assert!(aside == content || content.len() < 2);
    }
    // A line that is right but for its length.
    let json = format!("{{\"t\":\"up\"{}}}", " ".repeat(5000));
    let long = format!("{:08x} {json}\n", checksum(json.as_bytes()));
    let found = scan(long.as_bytes()).unwrap();
    assert_eq!((found.length, found.end), (0, End::Corrupt));
}

#[test]
fn a_journal_of_a_hundred_thousand_guests_is_kept_whole() {
    let (_folder, path) = file("");
    let mut journal = Journal::open(&path).unwrap();
    for number in 0..100_000 {
        journal.append(&start(number, 0)).unwrap();
    }
    let read = replay(&path).unwrap();
    assert_eq!(read.guests.len(), 100_000);
    assert_eq!(&read, journal.history());
    // All of it is needed.
    assert_eq!(journal.lines, 100_000);
}

#[test]
fn a_journal_that_says_little_is_rewritten_short() {
    let (_folder, path) = file("");
    let mut journal = Journal::open(&path).unwrap();
    journal.append(&Record::Up).unwrap();
    journal.append(&start(1, 3)).unwrap();
    let mut longest = 0;
    for round in 0..30_000 {
        journal.append(&start(2, round)).unwrap();
        journal.append(&Record::End { guest: guest(2) }).unwrap();
        longest = longest.max(journal.length);
    }
    assert!(longest <= COMPACT_FROM && longest > COMPACT_FROM - 200);
    assert_eq!(fs::metadata(&path).unwrap().len(), journal.length);
    assert_eq!(&replay(&path).unwrap(), journal.history());
    assert_eq!(journal.history().guests.len(), 2);
    assert_eq!(journal.history().guests[&guest(2)].restarts, 29_999);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_journal_that_cannot_be_rewritten_goes_on() {
    let (folder, path) = file("");
    let mut journal = Journal::open(&path).unwrap();
    drop(folder);
    while journal.length <= 2 * COMPACT_FROM {
        journal.append(&start(2, 0)).unwrap();
    }
    assert!(journal.compact_at > 2 * COMPACT_FROM);
    assert_eq!(journal.file.metadata().unwrap().len(), journal.length);
}

#[test]
fn what_cannot_be_recorded_whole_is_not_recorded_at_all() {
    if !rights::may_mount() {
        return;
    }
    let small = Small::mount(32);
    let path = small.0.path().join("journal");
    let stops = |count| {
        (0..count).map(|number| Record::Stopped {
            guest: guest(number),
        })
    };
    let mut journal = Journal::open(&path).unwrap();
    journal.append_durably([start(0, 0)]).unwrap();
    // There is room for the first of them.
    assert!(journal.append_durably(stops(10_000)).is_err());
    let unsynced: Vec<_> = stops(1).collect();
    let failed = journal.write(&unsynced, |_| Err(io::ErrorKind::Other.into()));
    assert!(failed.is_err());
    for restored in [journal.history(), &replay(&path).unwrap()] {
        assert_eq!(restored, &history(&[start(0, 0)]));
    }
    journal.append_durably(stops(2)).unwrap();
    let all: Vec<_> = [start(0, 0)].into_iter().chain(stops(2)).collect();
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&all));
    drop(journal);
}

#[test]
fn a_full_disk_costs_no_line_that_was_written() {
    if !rights::may_mount() {
        return;
    }
    let small = Small::mount(32);
    let path = small.0.path().join("journal");
    let ballast = small.0.path().join("ballast");
    fs::write(&ballast, [0; 16384]).unwrap();
    let mut journal = Journal::open(&path).unwrap();
    let mut written = Vec::new();
    let error = loop {
        let record = start(u32::try_from(written.len()).unwrap(), 0);
        match journal.append(&record) {
            Ok(()) => written.push(record),
            Err(error) => break error.to_string(),
        }
    };
    for said in ["No space left", "/journal", "make room"] {
        assert!(error.contains(said), "{error}");
    }
    // The last write came to the end of a page within a line.
    assert!(written.len() > 100 && !journal.length.is_multiple_of(4096));
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&written));
    assert_eq!(journal.history(), &history(&written));
    assert!(journal.append_durably([start(9, 9)]).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&written));

    fs::remove_file(&ballast).unwrap();
    written.push(Record::Up);
    journal.append_durably([Record::Up]).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), text(&written));
    drop(journal);
}
