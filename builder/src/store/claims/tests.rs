use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;
use crate::net::{ports, tap};
use crate::store::folder::Folder;
use crate::store::folder::tests::spec;
use crate::store::orphans::tests::Waiting;
use crate::store::users::{self, Users};

/// A host with several folders of fleets.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn directories(&self, state: &str) -> Directories {
        Directories {
            cache: self.0.path().join("cache"),
            state: self.0.path().join(state),
            // Where sockets of fleets of one name do not meet.
            runtime: self.0.path().join(format!("{state}-run")),
            host: spec("f", 0).host,
        }
    }

    /// The one record, as a fleet in this state folder finds it.
    fn register(&self, state: &str) -> Register {
        Register {
            folders: vec![self.0.path().join("run")],
            fleets: self.directories(state).fleets(),
        }
    }

    fn record(&self) -> PathBuf {
        self.0.path().join("run").join(RECORD)
    }

    fn fleet(&self, state: &str, name: &str) -> Folder {
        Folder::create(name, &self.directories(state)).unwrap()
    }

    /// Has a fleet take these ports.
    fn takes(&self, state: &str, fleet: &Folder, ports: &[u16]) {
        let name = fleet.path().file_name().unwrap().to_str().unwrap();
        let mut claim = Claim::of(&spec(name, 0), fleet.path(), None);
        claim.ports = ports.to_vec();
        claim.instance = instance(state);
        self.turn(state, fleet.path()).take(claim).unwrap();
    }

    fn turn(&self, state: &str, fleet: &Path) -> Turn {
        self.register(state).turn(fleet, || true).unwrap().unwrap()
    }

    /// The ports that a fleet in another state folder must not choose.
    fn taken(&self) -> Vec<u16> {
        let turn = self.turn("elsewhere", &self.0.path().join("elsewhere/fleets/new"));
        let mut ports: Vec<_> = turn.others().ports().into_iter().collect();
        ports.sort_unstable();
        ports
    }
}

/// One of this test process and the fleet in this state folder.
fn instance(state: &str) -> Instance {
    let mut bytes = [0x3c; 12];
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    for (byte, of) in bytes[4..].iter_mut().zip(state.bytes()) {
        *byte = of;
    }
    Instance(bytes)
}

#[test]
fn fleets_that_choose_at_one_moment_in_any_state_folder_choose_apart() {
    const FLEETS: u32 = 6;
    // So many that searches meet.
    let count = 2000;
    let host = Host::new();
    let launch = |number: u32| {
        let state = format!("s{number}");
        let fleet = host.fleet(&state, "f");
        let turn = host.turn(&state, fleet.path());
        let users = users::choose(Users::Apart, 10, turn.others()).unwrap();
        let spec = FleetSpec {
            instance: instance(&state),
            ports: ports::choose(fleet.path(), &turn.others().ports(), count).unwrap(),
            run_as_base: users.map(|users| users.first),
            tap_subnet: Some(tap::choose(turn.others().taps(), 10).unwrap()),
            ..spec("f", 0)
        };
        let claim = Claim::of(&spec, fleet.path(), users);
        turn.take(claim).unwrap();
        (spec, fleet)
    };
    let fleets: Vec<_> = std::thread::scope(|scope| {
        let fleets: Vec<_> = (0..FLEETS)
            .map(|number| scope.spawn(move || launch(number)))
            .collect();
        let fleets = fleets.into_iter();
        fleets.map(|fleet| fleet.join().unwrap()).collect()
    });
    let specs = || fleets.iter().map(|(spec, _)| spec);
    let ports: BTreeSet<_> = specs().flat_map(|spec| &spec.ports).collect();
    assert_eq!(ports.len(), (FLEETS * count) as usize);
    let taps: BTreeSet<_> = specs()
        .map(|spec| spec.tap_subnet.unwrap().to_string())
        .collect();
    assert_eq!(taps.len(), FLEETS as usize);
    if geteuid().is_root() {
        let bases: BTreeSet<_> = specs().map(|spec| spec.run_as_base.unwrap()).collect();
        assert_eq!(bases.len(), FLEETS as usize);
    }
}

#[test]
fn a_fleet_has_what_it_took_until_it_is_gone() {
    let host = Host::new();
    let [launching, killed, over] = ["a", "b", "c"].map(|state| {
        let fleet = host.fleet(state, "f");
        let ports = [1024 + u16::from(state.as_bytes()[0])];
        host.takes(state, &fleet, &ports);
        fleet
    });
    // Its supervisor is gone, and its folder is there.
    let left = FleetSpec {
        instance: instance("b"),
        ..spec("f", 0)
    };
    killed.write_spec(&left).unwrap();
    fs::write(killed.journal(), "").unwrap();
    drop(killed);
    assert_eq!(host.taken(), [1121, 1122, 1123]);
    assert_eq!(host.register("elsewhere").look().ports().len(), 3);
    // Its own is not in its way.
    let path = host.directories("b").fleets().join("f");
    let turn = host.turn("b", &path);
    assert_eq!(turn.others().ports(), BTreeSet::from([1121, 1123]));
    assert_eq!(turn.own(instance("b")).unwrap().ports, [1122]);
    drop(turn);

    // It ended, and gives back what it had.
    let path = over.path().to_path_buf();
    host.register("c").give_back(&path, instance("other"));
    assert_eq!(host.taken(), [1121, 1122, 1123]);
    host.register("c").give_back(&path, instance("c"));
    assert_eq!(host.taken(), [1121, 1122]);
    // It died before it was one.
    drop(launching);
    assert_eq!(host.taken(), [1122]);
    // Another has its name by now.
    let again = Folder::open("f", &host.directories("b")).unwrap();
    again.remove().unwrap();
    let other = host.fleet("b", "f");
    other.write_spec(&spec("f", 0)).unwrap();
    drop(other);
    assert!(host.taken().is_empty());
}

#[test]
fn a_fleet_without_a_folder_has_what_it_took_while_a_guest_lives() {
    let host = Host::new();
    let fleet = host.fleet("g", "f");
    host.takes("g", &fleet, &[1024]);
    let guest = Waiting::start(&instance("g").uuid(3));
    fleet.remove().unwrap();
    assert_eq!(host.taken(), [1024]);
    drop(guest);
    assert!(host.taken().is_empty());
}

#[test]
fn what_specs_tell_that_no_record_does_is_taken_too() {
    let host = Host::new();
    let one = host.fleet("s", "one");
    let recorded = FleetSpec {
        ports: vec![1024, 1025],
        run_as_base: Some(70_000),
        ..spec("one", 0)
    };
    one.write_spec(&recorded).unwrap();
    let two = one.path().with_file_name("two");
    let others = |fleet: &Path| {
        let turn = host.turn("s", fleet);
        let users: Vec<_> = turn.others().users().map(|(_, users)| users).collect();
        (turn.others().ports().len(), users)
    };
    assert_eq!(others(&two), (2, vec![IdRange::whole(70_000)]));
    assert_eq!(others(one.path()), (0, Vec::new()));
    // The record knows better how many there are.
    let claim = Claim::of(&recorded, one.path(), Some(IdRange::new(70_000, 10)));
    host.turn("s", one.path()).take(claim).unwrap();
    assert_eq!(others(&two), (2, vec![IdRange::new(70_000, 10)]));
}

#[test]
fn ports_and_addresses_of_another_network_are_not_taken_here() {
    let mut claim = Claim::of(&spec("f", 3), Path::new("/f"), Some(IdRange::whole(70_000)));
    claim.taps = Some(Subnet::FOR_TAPS);
    let here = Others(vec![claim.clone()]);
    assert_eq!((here.ports().len(), here.taps().count()), (1, 1));
    // Addresses that no route of this host has a part of.
    let free = tap::choose([], 1).unwrap();
    claim.taps = Some(free);
    let here = Others(vec![claim.clone()]);
    let error = tap::check_among(here.taps(), free, 1)
        .unwrap_err()
        .to_string();
    assert!(error.contains("which the fleet f has"), "{error}");
    assert_ne!(tap::choose(here.taps(), 1).unwrap(), free);

    claim.network += 1;
    let elsewhere = Others(vec![claim]);
    tap::check_among(elsewhere.taps(), free, 1).unwrap();
    assert_eq!((elsewhere.ports().len(), elsewhere.taps().count()), (0, 0));
    assert_eq!(elsewhere.users().count(), 1);
}

#[test]
fn a_turn_comes_when_the_one_before_is_over() {
    let host = Host::new();
    let fleet = host.fleet("s", "f");
    let first = host.turn("s", fleet.path());
    let asks = std::cell::Cell::new(0);
    let twice = || asks.replace(asks.get() + 1) < 2;
    let none = host.register("t").turn(fleet.path(), twice).unwrap();
    assert!(none.is_none());
    assert_eq!(asks.get(), 3);
    drop(first);
    host.turn("t", fleet.path());
}

#[test]
fn a_record_of_nothing_is_no_file_and_one_of_an_earlier_boot_is_nothing() {
    let host = Host::new();
    let fleet = host.fleet("s", "f");
    host.takes("s", &fleet, &[1024]);
    let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(&host.record()), 0o600);
    assert_eq!(mode(host.record().parent().unwrap()), 0o700);
    let text = fs::read_to_string(host.record()).unwrap();
    let boot = crate::host_id::BootId::of(Path::new("/")).unwrap();
    let earlier = text.replace(&boot.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    assert_ne!(text, earlier);
    fs::write(host.record(), earlier).unwrap();
    assert!(host.taken().is_empty());
    fs::write(host.record(), text).unwrap();
    assert_eq!(host.taken(), [1024]);
    host.register("s").give_back(fleet.path(), instance("s"));
    assert!(!host.record().exists());
}

#[test]
fn what_others_may_have_written_is_refused() {
    for (what, remedy, tamper) in [
        (
            "mode 0644",
            "chmod 0600",
            (|record| {
                fs::set_permissions(record, Permissions::from_mode(0o644)).unwrap();
            }) as fn(&Path),
        ),
        ("symbolic link", "remove it", |record| {
            let elsewhere = record.with_file_name("elsewhere");
            fs::rename(record, &elsewhere).unwrap();
            symlink(elsewhere, record).unwrap();
        }),
        ("hard link", "remove it", |record| {
            fs::hard_link(record, record.with_file_name("elsewhere")).unwrap();
        }),
        ("written to by others", "chmod go-w", |record| {
            let folder = record.parent().unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o722)).unwrap();
        }),
        ("not a record of fleets", "remove it", |record| {
            fs::write(record, "{}").unwrap();
        }),
        ("version 2", "use the imgbuild that launched", |record| {
            let text = fs::read_to_string(record).unwrap();
            fs::write(record, text.replace("\"schema\":1", "\"schema\":2")).unwrap();
        }),
    ] {
        let host = Host::new();
        let fleet = host.fleet("s", "f");
        host.takes("s", &fleet, &[1024]);
        tamper(&host.record());
        let error = host.register("s").turn(fleet.path(), || true).unwrap_err();
        assert!(matches!(error, ClaimsError::Untrusted { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(what) && error.contains(remedy), "{error}");
        // A look is of use all the same.
        assert_eq!(host.register("s").look().ports().len(), 0, "{what}");
    }
}

#[test]
fn where_root_may_write_nothing_the_record_is_in_the_runtime_folder() {
    let host = Host::new();
    let fleet = host.fleet("s", "f");
    let mut register = host.register("s");
    register.folders.insert(0, "/sys/imgbuild".into());
    let turn = register.turn(fleet.path(), || true).unwrap().unwrap();
    turn.take(Claim::of(&spec("f", 1), fleet.path(), None))
        .unwrap();
    assert!(host.record().exists());
}
