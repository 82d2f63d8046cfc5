use std::fs::{self, File, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;
use crate::rights;
use crate::store::folder::tests::directories;
use crate::store::journal::{Journal, Record};
use crate::store::orphans::tests::{Waiting, own};
use crate::units::{GuestIndex, Instance};

/// What a fleet leaves whose supervisor died, its sockets where a spec that says
/// SOCKETS tells; only those and the instance are read.
fn left(directories: &Directories, spec: &str) -> Paths {
    let paths = Paths::of("f", directories);
    directories.open_fleets().unwrap();
    directories.open_runtime().unwrap();
    for folder in [paths.overlays(), paths.runtime().to_path_buf()] {
        fs::create_dir_all(folder).unwrap();
    }
    let recorded = spec.replace("SOCKETS", paths.runtime().to_str().unwrap());
    fs::write(paths.spec_file(), recorded).unwrap();
    drop(UnixListener::bind(paths.control()).unwrap());
    for folder in [paths.path(), paths.runtime()] {
        fs::set_permissions(folder, Permissions::from_mode(0o700)).unwrap();
    }
    paths
}

fn gone(paths: &Paths) -> bool {
    !paths.path().exists() && !paths.runtime().exists()
}

#[test]
fn what_a_fleet_left_goes_with_all_its_folders() {
    let (_temporary, directories) = directories();
    let spec = r#"{"run_as_base":null,"instance":"c1c1c1c1c1c1c1c1c1c1c1c1","runtime":"SOCKETS"}"#;
    let paths = left(&directories, spec);
    assert_eq!(remove("f", &directories, Survivors::Spare).unwrap(), 0);
    assert!(gone(&paths));
    let error = remove("f", &directories, Survivors::Spare).unwrap_err();
    assert!(error.to_string().contains("no fleet named f"), "{error}");
}

#[test]
fn sockets_that_another_fleet_may_have_stay() {
    let (_temporary, directories) = directories();
    let paths = left(&directories, "{");
    fs::remove_file(paths.control()).unwrap();
    let _another = UnixListener::bind(paths.control()).unwrap();
    remove("f", &directories, Survivors::Kill).unwrap();
    assert!(!paths.path().exists() && paths.control().exists());
}

#[test]
fn guests_that_live_are_spared_unless_forced() {
    let (_temporary, directories) = directories();
    let paths = left(
        &directories,
        r#"{"run_as_base":null,"instance":"c2c2c2c2c2c2c2c2c2c2c2c2"}"#,
    );
    let guest = Waiting::start(&Instance([0xc2; 12]).uuid(3));
    let other = Waiting::start(&Instance([0xc3; 12]).uuid(3));
    let error = remove("f", &directories, Survivors::Spare).unwrap_err();
    assert!(
        error.to_string().contains("fleet f has 1 living guest:"),
        "{error}"
    );
    assert!(!gone(&paths));

    let pid = guest.0.id();
    assert_eq!(remove("f", &directories, Survivors::Kill).unwrap(), 1);
    assert!(gone(&paths));
    let start = orphans::start_time(Path::new("/"), pid).unwrap_or(0);
    let three = GuestIndex::new(3).unwrap();
    assert!(orphans::open(pid, start, own(Instance([0xc2; 12])), three).is_none());
    let stranger = own(Instance([0xc3; 12]));
    assert_eq!(orphans::living(Path::new("/"), stranger).unwrap().len(), 1);
    drop(other);
}

#[test]
fn a_process_of_a_stranger_s_that_names_a_guest_is_none_and_stays() {
    if !rights::is_root("start a process of another user's") {
        return;
    }
    let instance = Instance([0xc7; 12]);
    for spec in [
        r#"{"instance":"c7c7c7c7c7c7c7c7c7c7c7c7"}"#,
        r#"{"instance":"c7c7c7c7c7c7c7c7c7c7c7c7","run_as_base":3000000}"#,
    ] {
        let (_temporary, directories) = directories();
        let paths = left(&directories, spec);
        // Under the id of another guest.
        let mut stranger = Waiting::start_as(3_000_004, &instance.uuid(3));
        assert_eq!(remove("f", &directories, Survivors::Kill).unwrap(), 0);
        assert!(gone(&paths));
        assert_eq!(stranger.0.try_wait().unwrap(), None);
    }
    let (_temporary, directories) = directories();
    left(
        &directories,
        r#"{"instance":"c7c7c7c7c7c7c7c7c7c7c7c7","run_as_base":3000000}"#,
    );
    let _guest = Waiting::start_as(3_000_003, &instance.uuid(3));
    let error = remove("f", &directories, Survivors::Spare).unwrap_err();
    assert!(
        matches!(error, RemoveError::Living { living: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_spec_that_is_not_understood_needs_force() {
    for spec in [
        "",
        "{",
        "{}",
        r#"{"instance":7}"#,
        r#"{"run_as_base":null,"instance":"c1"}"#,
        "[[[[",
    ] {
        let (_temporary, directories) = directories();
        let paths = left(&directories, spec);
        let error = remove("f", &directories, Survivors::Spare).unwrap_err();
        assert!(
            matches!(error, RemoveError::Unknown { .. }),
            "{spec}: {error}"
        );
        assert!(!gone(&paths));
        assert_eq!(remove("f", &directories, Survivors::Kill).unwrap(), 0);
        assert!(gone(&paths));
    }
}

#[test]
fn guests_of_a_fleet_without_a_spec_are_found_by_its_journal() {
    let (_temporary, directories) = directories();
    let paths = left(&directories, "{");
    let [known, unknown, stranger] = [(0xc5, 3), (0xc5, 4), (0xc6, 2)].map(|(byte, number)| {
        let guest = Waiting::start(&Instance([byte; 12]).uuid(number));
        (guest, GuestIndex::new(number).unwrap())
    });
    let mut journal = Journal::open(&paths.journal()).unwrap();
    for ((process, guest), late) in [(&stranger, 1), (&known, 0)] {
        let pid = process.0.id();
        let start_time = late + orphans::start_time(Path::new("/"), pid).unwrap();
        let started = Record::Start {
            guest: *guest,
            pid,
            start_time,
            restarts: 0,
        };
        journal.append(&started).unwrap();
    }
    let error = remove("f", &directories, Survivors::Spare).unwrap_err();
    assert!(matches!(error, RemoveError::Unknown { .. }), "{error}");
    assert_eq!(remove("f", &directories, Survivors::Kill).unwrap(), 2);
    assert!(gone(&paths));
    for (byte, living) in [(0xc5, 0), (0xc6, 1)] {
        let found = orphans::living(Path::new("/"), own(Instance([byte; 12])));
        assert_eq!(found.unwrap().len(), living);
    }
    drop((known, unknown, stranger));
}

#[test]
fn a_supervised_fleet_stays_even_if_forced() {
    let (_temporary, directories) = directories();
    let paths = left(
        &directories,
        r#"{"run_as_base":null,"instance":"c4c4c4c4c4c4c4c4c4c4c4c4"}"#,
    );
    let lock = || {
        let mut options = File::options();
        options.read(true).write(true).create(true).mode(0o600);
        options.open(paths.path().join("lock")).unwrap()
    };
    let supervisor = lock();
    supervisor.try_lock().unwrap();
    let error = remove("f", &directories, Survivors::Kill).unwrap_err();
    assert!(
        matches!(error, RemoveError::Folder(FolderError::Running { .. })),
        "{error}"
    );
    assert!(!gone(&paths));
    // One who only looks shares the lock for a moment, and is waited for.
    drop(supervisor);
    let looking = lock();
    looking.try_lock_shared().unwrap();
    let removing = thread::spawn(move || remove("f", &directories, Survivors::Kill));
    drop(looking);
    removing.join().unwrap().unwrap();
    assert!(gone(&paths));
}
