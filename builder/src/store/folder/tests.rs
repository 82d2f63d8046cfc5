use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::digest::Sha256;
use crate::guest::admission::AdmissionSpec;
use crate::guest::{BurnAt, Restart};
use crate::host_id::{HostId, boot};
use crate::placement::{Pin, PlacementSpec};
use crate::recipe::SshServer;
use crate::store::orphans::tests::Waiting;
use crate::store::spec::HostSettings;
use crate::store::spec::file::SpecFile;
use crate::units::{Duty, GuestRange, Instance};
use crate::vmm::qemu::Emulator;
use crate::vmm::{Accel, Machine, Net, Outbound, Sharing};

pub(crate) fn directories() -> (TempDir, Directories) {
    let temporary = tempfile::tempdir().unwrap();
    let directories = Directories {
        cache: temporary.path().join("cache"),
        state: temporary.path().join("state"),
        runtime: temporary.path().join("run"),
        host: host("here"),
    };
    (temporary, directories)
}

/// A host of that name, which is not the one that the tests run on.
fn host(name: &str) -> HostId {
    HostId {
        name: name.to_owned(),
        machine: Some("17".to_owned()),
        boot: boot(name.as_bytes()[0]),
    }
}

pub(crate) fn spec(name: &str, ports: usize) -> FleetSpec {
    FleetSpec {
        name: name.to_owned(),
        instance: Instance([0x17; 12]),
        host: host("here"),
        runtime: "/run/no-such-folder".into(),
        out: "/out".into(),
        artifacts: Sha256::of_bytes("manifest"),
        qemu: Emulator {
            path: "/usr/bin/qemu-system-x86_64".into(),
            version: Some("QEMU emulator version 7.2.19".to_owned()),
            sha256: Sha256::of_bytes("QEMU"),
        },
        guests: GuestRange::first(3).unwrap(),
        at_most: 3,
        machine: Machine {
            accel: Accel::Tcg,
            sharing: Sharing::Guest,
            net: Net::User,
            memory: "64M".parse().unwrap(),
        },
        outbound: Outbound::Closed,
        tap_subnet: None,
        command_line: "console=ttyS0".to_owned(),
        template: None,
        burn: Duty::WHOLE,
        burn_at: BurnAt::Start,
        restart: Restart::OnFailure,
        health: Some(Duration::from_millis(1500)),
        boot_timeout: Duration::from_secs(30),
        authorized_key: None,
        identity_file: None,
        ssh_server: SshServer::Imgbuild,
        ports: vec![40_000; ports],
        admission: AdmissionSpec {
            keep_free: 1 << 30,
            rate: Some(0.1),
            parallel: None,
            guest_memory: 1 << 24,
            merged_memory: None,
        },
        placement: PlacementSpec {
            pin: Some(Pin::List(vec![0, 1])),
            ..PlacementSpec::default()
        },
        run_as_base: None,
        settings: HostSettings::Kept,
        metrics: None,
        keep: None,
        until: None,
        unfinished: false,
        forced: vec!["memory".to_owned()],
    }
}

/// Leaves a fleet as a launch does that dies before it starts a guest.
fn unfinished(name: &str, directories: &Directories) -> Paths {
    let mut folder = Folder::create(name, directories).unwrap();
    let spec = FleetSpec {
        host: directories.host.clone(),
        runtime: folder.runtime.clone(),
        unfinished: true,
        ..spec(name, 3)
    };
    folder.write_spec(&spec).unwrap();
    folder.make_folders().unwrap();
    folder.make_new_runtime().unwrap();
    folder.paths.clone()
}

/// Leaves a fleet as a supervisor does that dies.
fn orphaned(name: &str, directories: &Directories) -> Paths {
    let paths = unfinished(name, directories);
    let spec = read_spec(&paths.state).unwrap();
    let unfinished = false;
    let spec = FleetSpec { unfinished, ..spec };
    let spec = serde_json::to_vec_pretty(&SpecFile::from(spec)).unwrap();
    durable::replace(&paths.spec_file(), &spec).unwrap();
    paths
}

#[test]
fn without_a_spec_nothing_stays() {
    let (_temporary, directories) = directories();
    let mut folder = Folder::create("web", &directories).unwrap();
    folder.make_folders().unwrap();
    folder.make_new_runtime().unwrap();
    let guest = GuestIndex::new(7).unwrap();
    let identity = folder.write_identity(guest, b"secret").unwrap();
    assert_eq!(identity, folder.identity(guest));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&identity), 0o600);
    assert_eq!(mode(folder.path()), 0o700);
    for path in folder.folders() {
        assert_eq!(mode(&path), 0o700, "{}", path.display());
    }
    let paths = folder.paths.clone();
    drop(folder);
    assert!(!paths.state.exists() && !paths.runtime.exists());
}

#[test]
fn a_file_is_replaced_whole_or_not_at_all() {
    let (_temporary, directories) = directories();
    let folder = Folder::create("web", &directories).unwrap();
    folder.make_folders().unwrap();
    let guest = GuestIndex::new(7).unwrap();
    let path = folder.write_identity(guest, b"first").unwrap();
    // Who has the file open, as a guest's QEMU does, keeps what it was handed.
    let mut held = File::open(&path).unwrap();
    // Given away, and closed to its owner again with each write.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    folder.write_identity(guest, b"second").unwrap();
    let mut seen = String::new();
    held.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "first");
    assert_eq!(fs::read(&path).unwrap(), b"second");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    // A folder in its place: the last step fails, and leaves nothing behind.
    let other = folder.identity(GuestIndex::new(8).unwrap());
    fs::create_dir_all(other.join("in the way")).unwrap();
    assert!(folder.write(&other, b"third").is_err());
    assert_eq!(entries(other.parent().unwrap()).unwrap().len(), 2);
}

#[test]
fn what_a_removal_left_that_was_cut_short_is_cleared() {
    let (_temporary, directories) = directories();
    let paths = orphaned("web", &directories);
    fs::write(paths.state.join("key"), "old").unwrap();
    fs::remove_file(paths.spec_file()).unwrap();
    assert_eq!(list(&directories).unwrap(), []);
    let folder = Folder::create("web", &directories).unwrap();
    assert_eq!(entries(&folder.state).unwrap(), [paths.state.join("lock")]);
}

#[test]
fn a_launch_that_was_killed_early_is_found_and_named() {
    let (_temporary, directories) = directories();
    let paths = unfinished("web", &directories);
    assert_eq!(list(&directories).unwrap()[0].paths, paths);
    for result in [
        Folder::create("web", &directories),
        Folder::open("web", &directories),
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, FolderError::Unfinished { .. }), "{error}");
        assert!(error.to_string().contains("rm web"), "{error}");
    }
    Folder::claimed("web", &directories)
        .unwrap()
        .remove()
        .unwrap();
    assert!(!paths.state.exists() && !paths.runtime.exists());
}

#[test]
fn a_fleet_outlives_its_supervisor_until_it_is_removed() {
    let (_temporary, mut directories) = directories();
    let paths = orphaned("web", &directories);
    let spec_file = fs::metadata(paths.spec_file()).unwrap();
    assert_eq!(spec_file.permissions().mode() & 0o7777, 0o600);
    let error = Folder::create("web", &directories).unwrap_err().to_string();
    for said in [
        "fleet web died",
        "none of its guests lives",
        "--resume web",
        "rm web",
    ] {
        assert!(error.contains(said), "{error}");
    }

    // As from cron, whose sockets would be elsewhere.
    directories.runtime.push("elsewhere");
    let folder = Folder::open("web", &directories).unwrap();
    assert_eq!(folder.runtime, paths.runtime);
    drop(folder);
    Folder::open("web", &directories).unwrap().remove().unwrap();
    assert!(!paths.state.exists() && !paths.runtime.exists());
    Folder::create("web", &directories).unwrap();
}

#[test]
fn sockets_that_vanished_are_made_again_or_elsewhere() {
    let (temporary, directories) = directories();
    let paths = orphaned("web", &directories);
    fs::remove_dir_all(&directories.runtime).unwrap();
    let mut folder = Folder::open("web", &directories).unwrap();
    assert!(!folder.move_runtime().unwrap());
    assert!(paths.runtime.is_dir());

    // Below /run/user nobody makes folders but who logs in.
    fs::remove_dir_all(&directories.runtime).unwrap();
    fs::write(&directories.runtime, "").unwrap();
    assert!(folder.move_runtime().unwrap());
    assert!(folder.runtime.starts_with(&paths.state));
    assert!(folder.runtime.is_dir());
    folder.remove().unwrap();
    assert!(!paths.state.exists());
    drop(temporary);
}

#[test]
fn fleets_of_other_state_folders_have_other_sockets() {
    let (temporary, directories) = directories();
    let other = Directories {
        state: temporary.path().join("other"),
        ..directories.clone()
    };
    let [one, two] = [&directories, &other].map(|directories| orphaned("web", directories));
    assert_ne!(one.runtime, two.runtime);
    fs::write(two.control(), "").unwrap();
    Folder::open("web", &directories).unwrap().remove().unwrap();
    assert!(two.control().exists());
    assert_eq!(list(&other).unwrap()[0].paths, two);
}

#[test]
fn fleets_of_other_hosts_are_shown_and_left_alone() {
    let (_temporary, directories) = directories();
    let other = Directories {
        host: host("there"),
        ..directories.clone()
    };
    let [ours, theirs] = [&directories, &other].map(|directories| orphaned("web", directories));
    orphaned("theirs", &other);
    let found = list(&directories).unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|found| (found.name.as_str(), &found.place))
        .collect();
    let supervised = Supervised::No;
    let there = Place::Elsewhere {
        host: "there".to_owned(),
    };
    assert_eq!(
        seen,
        [
            ("web", &Place::Here { supervised }),
            ("theirs", &there),
            ("web", &there)
        ]
    );
    Folder::open("web", &directories).unwrap().remove().unwrap();
    assert!(!ours.state.exists() && theirs.state.exists());
    for name in ["web", "theirs"] {
        for result in [
            Folder::open(name, &directories),
            Folder::claimed(name, &directories),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains("on host there"), "{error}");
        }
    }
    Folder::create("web", &directories).unwrap();
    // Restarted since, it is the same host.
    let restarted = Directories {
        host: HostId {
            boot: boot(0),
            ..host("there")
        },
        ..directories
    };
    Folder::open("web", &restarted).unwrap().remove().unwrap();
    assert!(!theirs.state.exists());
}

#[test]
fn folders_of_others_are_refused() {
    let (temporary, directories) = directories();
    orphaned("web", &directories);
    let open = |mode| {
        let permissions = fs::Permissions::from_mode(mode);
        fs::set_permissions(&directories.state, permissions).unwrap();
    };
    open(0o777);
    for error in [
        Folder::create("new", &directories).unwrap_err(),
        Folder::open("web", &directories).unwrap_err(),
        list(&directories).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("written to by others"), "{error}");
    }
    open(0o700);
    let open = fs::Permissions::from_mode(0o777);
    fs::set_permissions(&directories.runtime, open).unwrap();
    let error = Folder::create("new", &directories).unwrap_err().to_string();
    assert!(error.contains("unset XDG_RUNTIME_DIR"), "{error}");
    // What is there is not swept away through a link that others put there.
    let victim = temporary.path().join("victim");
    fs::create_dir_all(victim.join("web")).unwrap();
    fs::write(victim.join("web/precious"), "").unwrap();
    fs::rename(&directories.runtime, temporary.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(&victim, &directories.runtime).unwrap();
    Folder::open("web", &directories).unwrap().remove().unwrap();
    assert!(victim.join("web/precious").exists());
}

#[test]
fn a_supervised_fleet_is_left_alone() {
    let (_temporary, directories) = directories();
    let folder = Folder::create("web", &directories).unwrap();
    let refused = |result: Result<Folder, FolderError>| {
        let us = Some(std::process::id());
        assert!(
            matches!(result, Err(FolderError::Running { name, pid }) if name == "web" && pid == us)
        );
    };
    refused(Folder::create("web", &directories));
    refused(Folder::open("web", &directories));
    folder.write_spec(&spec("web", 0)).unwrap();
    refused(Folder::create("web", &directories));
    refused(Folder::open("web", &directories));
}

#[test]
fn who_shares_the_lock_without_end_is_not_waited_for_without_end() {
    let (_temporary, directories) = directories();
    let paths = orphaned("one", &directories);
    let lock = File::create(paths.state.join(lock::LOCK)).unwrap();
    lock.lock_shared().unwrap();
    for claimed in [
        Folder::create("one", &directories),
        Folder::open("one", &directories),
        Folder::claimed("one", &directories),
    ] {
        let error = claimed.unwrap_err();
        assert!(matches!(error, FolderError::Running { .. }), "{error}");
    }
    drop(lock);
    Folder::open("one", &directories).unwrap();
}

#[test]
fn fleets_are_listed_in_order() {
    let (_temporary, directories) = directories();
    assert_eq!(list(&directories).unwrap(), []);
    orphaned("b", &directories);
    let _running = Folder::create("a", &directories).unwrap();
    fs::create_dir(directories.fleets().join("no-fleet")).unwrap();
    fs::write(directories.fleets().join("file"), "").unwrap();
    let found = list(&directories).unwrap();
    let seen: Vec<_> = found
        .iter()
        .map(|found| (found.name.as_str(), found.is_supervised()))
        .collect();
    assert_eq!(seen, [("a", true), ("b", false)]);
    for found in &found {
        assert_eq!(found.paths, Paths::of(&found.name, &directories));
    }

    for name in ["c", "no-fleet", "file"] {
        let error = Folder::open(name, &directories).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.ends_with("fleets: a, b"),
            "{error}"
        );
    }
}

#[test]
fn living_guests_are_counted() {
    let (_temporary, directories) = directories();
    let paths = orphaned("web", &directories);
    let mut spec = spec("web", 0);
    // Of this test alone.
    spec.instance.0[..4].copy_from_slice(&std::process::id().to_be_bytes());
    let file = serde_json::to_vec(&SpecFile::from(spec.clone())).unwrap();
    durable::replace(&paths.spec_file(), &file).unwrap();
    let _guest = Waiting::start(&spec.instance.uuid(2));
    let error = Folder::create("web", &directories).unwrap_err().to_string();
    assert!(error.contains("it left 1 living guest;"), "{error}");
}

#[test]
fn a_spec_is_read_whole_or_not_at_all() {
    let (_temporary, directories) = directories();
    let paths = orphaned("web", &directories);
    let good = fs::read(paths.spec_file()).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let cases = [
        (String::new(), "EOF"),
        (text[..text.len() - 2].to_owned(), "EOF"),
        ("[]".to_owned(), "invalid length"),
        ("null".to_owned(), "invalid type"),
        (text.replace("\"count\": 3", "\"count\": -3"), "-3"),
        (
            text.replace("\"count\": 3", "\"count\": 100001"),
            "no guest 100000",
        ),
        (text.replace("\"count\": 3", "\"counts\": 3"), "`counts`"),
        (text.replace("\"keep_free\"", "\"keep\""), "`keep`"),
        (
            text.replace("\"name\": \"web\"", "\"name\": \"other\""),
            "other",
        ),
        (text.replace("1717", "17"), "Invalid string length"),
        (" ".repeat(17 << 20), "larger than 16777216 bytes"),
    ];
    for (content, said) in cases {
        fs::write(paths.spec_file(), &content).unwrap();
        let shown = &content[..content.len().min(400)];
        for result in [
            Folder::open("web", &directories),
            Folder::create("web", &directories),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, FolderError::Spec { .. }),
                "{error}: {shown}"
            );
            let error = error.to_string();
            assert!(error.contains("spec.json does not"), "{error}");
            assert!(error.contains("rm --force web"), "{error}");
            assert!(error.contains(said), "{error}: {shown}");
        }
    }
    let later = "{\"spec_version\": 9, \"warp\": 9}";
    fs::write(paths.spec_file(), later).unwrap();
    let error = Folder::open("web", &directories).unwrap_err().to_string();
    assert!(error.contains("has version 9"), "{error}");

    fs::write(paths.spec_file(), good).unwrap();
    Folder::open("web", &directories).unwrap();
}

#[test]
fn guests_are_numbered_from_the_first_on() {
    let seven = GuestIndex::new(7).unwrap();
    let whole = spec("web", 0);
    let part = FleetSpec {
        guests: GuestRange::starting_at(seven, 3).unwrap(),
        ports: vec![40_000, 40_001, 40_002],
        ..whole.clone()
    };
    // A fleet that begins as all once did is written as it was then.
    let text = |spec: &FleetSpec| serde_json::to_string(&SpecFile::from(spec.clone())).unwrap();
    assert!(!text(&whole).contains("first"));
    assert!(text(&part).contains(r#""count":3,"first":"g00007","#));
    for spec in [whole, part.clone()] {
        let read: SpecFile = serde_json::from_str(&text(&spec)).unwrap();
        assert_eq!(FleetSpec::try_from(read), Ok(spec));
    }
    let port_of = |number| part.port(GuestIndex::new(number).unwrap());
    assert_eq!(
        [6, 7, 9, 10].map(port_of),
        [None, Some(40_000), Some(40_002), None]
    );
    let taps = FleetSpec {
        machine: Machine {
            net: Net::Tap,
            ..part.machine
        },
        tap_subnet: Some("10.213.0.0/16".parse().unwrap()),
        authorized_key: Some([1; 32]),
        ..part
    };
    let address = taps.ssh_address(seven).unwrap();
    assert_eq!(address.ip().to_string(), "10.213.0.15");
    // Where nobody may log in, there is nothing to reach.
    let closed = FleetSpec {
        authorized_key: None,
        ..taps
    };
    assert_eq!(closed.ssh_address(seven), None);
}

#[test]
fn a_spec_is_replaced_whole() {
    let (_temporary, directories) = directories();
    let folder = Folder::create("web", &directories).unwrap();
    folder.write_spec(&spec("web", 100_000)).unwrap();
    let before = entries(folder.path()).unwrap().len();
    let other = spec("web", 1);
    folder.write_spec(&other).unwrap();
    assert_eq!(folder.spec().unwrap(), other);
    assert_eq!(entries(folder.path()).unwrap().len(), before);
    // What cannot be written leaves what was.
    fs::remove_file(folder.spec_file()).unwrap();
    fs::create_dir(folder.spec_file()).unwrap();
    let error = folder.write_spec(&other).unwrap_err().to_string();
    assert!(
        error.contains("cannot write") && error.contains("spec.json"),
        "{error}"
    );
    assert_eq!(entries(folder.path()).unwrap().len(), before);
    folder.remove().unwrap();
}

#[test]
fn paths_that_the_kernel_refuses_are_reported() {
    let (_temporary, directories) = directories();
    let long = "x".repeat(100);
    let result = Folder::create(&long, &directories);
    assert!(matches!(result, Err(FolderError::SocketPath { .. })));
}
