use super::*;
use crate::host::want::{Cost, GuestUsers};
use crate::units::ByteSize;
use crate::units::MAX_GUESTS;
use crate::vmm::{Accel, Net};

const BASE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tests/fixtures/hosts/bare-metal-intel.json"
));

/// Guests of the base that its ports allow: 1,024 to 65,535 less the kernel's
/// own range, and less the 6 in use.
const PORTS: u64 = 36_274;
/// Guests that fit into its memory: 239 GiB less what counts once, at 24 MiB
/// a guest, and at 4 MiB.
const UNSHARED: u64 = 10_194;
const MERGED: u64 = 61_168;
/// Guests whose threads fit among 32,768 of the whole host's.
const FEW_THREADS: u64 = 15_160;

/// A host that is ready, but for `change`.
fn host(change: impl FnOnce(&mut Host)) -> Host {
    let mut host = serde_json::from_str(BASE).unwrap();
    change(&mut host);
    host
}

fn stop_ksm(host: &mut Host) {
    host.ksm.as_mut().unwrap().run = Some(0);
}

fn want(sharing: Sharing) -> Want {
    Want {
        guests: None,
        first: 0,
        machine: Machine {
            accel: Accel::Kvm,
            sharing,
            net: Net::User,
            memory: ByteSize::new(64 << 20).unwrap(),
        },
        users: GuestUsers::Apart,
        cost: Cost {
            basis: Basis::Measured,
            memory: 24 << 20,
            memory_merged: Some(4 << 20),
            memory_once: 64 << 20,
            threads: 3,
            kernel_threads: 0,
            files: 24,
            disk: 64 << 10,
        },
    }
}

fn count(guests: u64, first: &'static str) -> Count {
    Count {
        guests,
        first: Some(first),
    }
}

/// What a resource allows: without sharing, with it, and after `--fix`.
fn columns(ceiling: &Ceiling, id: &str) -> [u64; 3] {
    let resource = ceiling.resources.iter().find(|resource| resource.id == id);
    let resource = resource.unwrap_or_else(|| panic!("no {id} in {ceiling:?}"));
    [resource.none, resource.guest, resource.fixed]
}

#[test]
fn what_ends_first_is_named_and_comes_first() {
    let host = host(|_| {});
    for (sharing, guests, first) in [
        (Sharing::None, UNSHARED, "memory"),
        (Sharing::Guest, PORTS, "ports"),
    ] {
        let ceiling = ceiling(&host, &want(sharing));
        assert_eq!(ceiling.with(sharing), count(guests, first));
        assert_eq!(ceiling.resources[0].id, first);
        let allowed = ceiling.resources.iter().map(|resource| match sharing {
            Sharing::None => resource.none,
            Sharing::Guest | Sharing::All => resource.guest,
        });
        assert!(allowed.is_sorted(), "{ceiling:?}");
        assert_eq!(ceiling.none, count(UNSHARED, "memory"));
        assert_eq!(ceiling.guest, count(PORTS, "ports"));
        assert_eq!(ceiling.fixed, ceiling.with(sharing));
        assert_eq!(ceiling.basis, Basis::Measured);
    }
}

#[test]
fn every_resource_has_words_for_those_who_do_not_know_its_name() {
    for net in [Net::User, Net::Tap] {
        let want = Want {
            machine: Machine {
                net,
                ..want(Sharing::Guest).machine
            },
            ..want(Sharing::Guest)
        };
        let host = host(|host| host.memory.overcommit = Some(2));
        for resource in ceiling(&host, &want).resources {
            assert_ne!(in_words(resource.id), "", "{}", resource.id);
        }
    }
}

#[test]
fn a_fleet_that_begins_far_up_has_few_numbers_left() {
    let want = Want {
        first: MAX_GUESTS - 3,
        ..want(Sharing::Guest)
    };
    assert_eq!(ceiling(&host(|_| {}), &want).guest.guests, 3);
}

#[test]
fn the_fleet_asked_for_makes_no_difference() {
    let host = host(|host| {
        host.processes.pid_max = Some(32_768);
        stop_ksm(host);
    });
    let open = want(Sharing::Guest);
    let three = Want {
        guests: Some(3),
        ..open
    };
    assert_eq!(ceiling(&host, &three), ceiling(&host, &open));
}

#[test]
fn sharing_takes_from_no_resource_and_spares_memory_while_ksm_runs() {
    let running = ceiling(&host(|_| {}), &want(Sharing::Guest));
    assert_eq!(columns(&running, "memory"), [UNSHARED, MERGED, MERGED]);
    for resource in &running.resources {
        assert!(resource.none <= resource.guest, "{resource:?}");
    }
    // A guest whose merged cost nobody measured counts in full.
    let mut unknown = want(Sharing::Guest);
    unknown.cost.memory_merged = None;
    let unknown = ceiling(&host(|_| {}), &unknown);
    assert_eq!(columns(&unknown, "memory"), [UNSHARED; 3]);
}

#[test]
fn ksm_that_stands_still_spares_memory_after_a_fix_if_it_was_asked_for() {
    let host = host(stop_ksm);
    let shared = ceiling(&host, &want(Sharing::Guest));
    assert_eq!(columns(&shared, "memory"), [UNSHARED, UNSHARED, MERGED]);
    assert_eq!(shared.guest, count(UNSHARED, "memory"));
    assert_eq!(shared.fixed, count(PORTS, "ports"));
    let unshared = ceiling(&host, &want(Sharing::None));
    assert_eq!(columns(&unshared, "memory"), [UNSHARED; 3]);
    assert_eq!(unshared.fixed, count(UNSHARED, "memory"));
}

#[test]
fn a_fix_raises_limits_for_the_largest_fleet() {
    let host = host(|host| {
        host.processes.pid_max = Some(32_768);
        host.processes.threads_max = Some(32_768);
        host.files.open_max = Some(1_024);
        host.files.open_raisable = true;
        host.files.file_max = Some(30_000);
    });
    let ceiling = ceiling(&host, &want(Sharing::Guest));
    assert_eq!(ceiling.guest, count(488, "open-files"));
    assert_eq!(ceiling.fixed, count(PORTS, "ports"));
    for (id, now) in [
        ("open-files", 488),
        ("file-max", 1_034),
        ("pid-max", FEW_THREADS),
        ("threads-max", FEW_THREADS),
    ] {
        let [none, guest, fixed] = columns(&ceiling, id);
        assert_eq!([none, guest], [now; 2], "{id}");
        assert!(fixed >= MAX_GUESTS.into(), "{id}: {fixed}");
    }
}

#[test]
fn a_limit_that_a_fix_ends_limits_no_more() {
    // 124 GiB may still be promised, and a guest could touch 264 MiB.
    const STRICT: u64 = 480;
    let host = host(|host| host.memory.overcommit = Some(2));
    let ceiling = ceiling(&host, &want(Sharing::Guest));
    assert_eq!(ceiling.guest, count(STRICT, "overcommit"));
    assert_eq!(ceiling.fixed, count(PORTS, "ports"));
    let most = MAX_GUESTS.into();
    assert_eq!(columns(&ceiling, "overcommit"), [STRICT, STRICT, most]);
}

#[test]
fn what_no_fix_changes_stays() {
    let unprivileged = host(|host| {
        host.privileged = false;
        host.files.open_max = Some(1_024);
    });
    let grouped = host(|host| host.cgroup.groups[0].pids_max = Some(1_000));
    let highest = host(|host| host.processes.threads = Some((1 << 22) - 812));
    for (mut host, guests, first) in [
        (unprivileged, 488, "open-files"),
        (grouped, 329, "cgroup-pids"),
        (highest, 100, "pid-max"),
    ] {
        // Else it ends even before.
        host.processes.threads_max = Some(1 << 23);
        let ceiling = ceiling(&host, &want(Sharing::Guest));
        assert_eq!(columns(&ceiling, first), [guests; 3], "{first}");
        assert_eq!(ceiling.fixed, count(guests, first));
    }
}

#[test]
fn no_count_exceeds_the_largest_fleet() {
    let host = host(|host| host.memory.available = Some(1 << 50));
    let mut want = want(Sharing::Guest);
    want.machine.net = Net::None;
    let ceiling = ceiling(&host, &want);
    let most = Count {
        guests: MAX_GUESTS.into(),
        first: None,
    };
    assert_eq!([ceiling.none, ceiling.guest, ceiling.fixed], [most; 3]);
}

#[test]
fn costs_that_make_no_sense_are_counted_all_the_same() {
    let host = host(|host| {
        host.memory.overcommit = Some(2);
        host.files.open_max = Some(900);
        host.files.open_raisable = true;
        stop_ksm(host);
    });
    let costing = |each| {
        let mut want = want(Sharing::Guest);
        want.cost = Cost {
            basis: Basis::Measured,
            memory: each,
            memory_merged: Some(each),
            memory_once: each,
            threads: each,
            kernel_threads: each,
            files: each,
            disk: each,
        };
        ceiling(&host, &want)
    };
    let free = costing(0);
    assert_eq!(free.guest, count(426, "open-files"));
    assert_eq!(free.fixed, count(PORTS, "ports"));
    let dear = costing(u64::MAX);
    assert_eq!(
        [dear.none, dear.guest, dear.fixed].map(|count| count.guests),
        [0; 3]
    );
}
