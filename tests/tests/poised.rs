//! A template's guest: what it has done when it is poised, and what it does when it is
//! told to take its identity.

use imgbuild::artifact::INITRAMFS;
use imgbuild_tests::TestEnv;
use imgbuild_tests::guest::{Guest, READY, Way};
use tty_init::protocol::{DeviceState, IdentityState, Message};
use tty_init::report::Report;

/// A second of the year 2033.
const NOW: u64 = 2_000_000_000;

fn message(line: &str) -> Message<String> {
    tty_init::host::parse(line.as_bytes()).unwrap()
}

fn report(guest: &mut Guest) -> Report<String> {
    serde_json::from_str(&guest.ask("status --json").output).unwrap()
}

/// Milliseconds since the guest's kernel started.
fn kernel_ms(guest: &mut Guest) -> u64 {
    let uptime = guest.ask("cat /proc/uptime").output;
    let (seconds, rest) = uptime.split_once('.').unwrap();
    seconds.parse::<u64>().unwrap() * 1000 + rest[..2].parse::<u64>().unwrap() * 10
}

/// Sees that the guest's clock says what it was told, give or take how long it takes
/// to ask.
fn assert_clock_is_set(guest: &mut Guest) {
    let stat = guest.ask("cat /proc/stat").output;
    let started = stat.lines().find_map(|line| line.strip_prefix("btime "));
    let now = started.unwrap().parse::<u64>().unwrap() + kernel_ms(guest) / 1000;
    assert!(now.abs_diff(NOW) < 60, "{now}");
}

#[test]
fn a_poised_guest_has_neither_identity_nor_disk_and_begins_with_its_identity() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let mut guest = Guest::start(&out, Way::Initramfs(&out.join(INITRAMFS), "tty.poise"));
    let poised = message(&guest.read_to("\"event\":\"poised\""));
    assert!(matches!(poised, Message::Poised { .. }));
    let stamp = poised.stamp();
    assert_eq!((stamp.id.as_str(), stamp.seq), ("", 1));

    let before = report(&mut guest);
    assert_eq!((before.id.as_str(), before.phase.as_str()), ("", "poised"));
    assert_eq!(
        (before.identity, before.disk, before.ssh),
        (None, None, None)
    );
    for (command, code) in [("heartbeat", 1), ("burn 5", 1), ("identify 5", 2)] {
        assert_eq!(guest.ask(command).code, code, "{command}");
    }
    let interfaces = guest.ask("ifconfig").output;
    let eth0 = &interfaces[interfaces.find("eth0").unwrap()..];
    assert!(eth0.starts_with("eth0: up"), "{interfaces}");
    assert!(!eth0.contains("inet"), "{interfaces}");
    assert!(!guest.ask("mounts").output.contains("/dev/vda"));
    // Of its disk it knows the size: its caches hold no block.
    let statistics = guest.ask("cat /sys/block/vda/stat").output;
    assert!(
        statistics.split_whitespace().all(|count| count == "0"),
        "{statistics}"
    );
    // The header alone: nobody listens.
    assert_eq!(guest.ask("cat /proc/net/tcp").output.lines().count(), 1);

    guest.write(&format!("@7 identify {NOW}.000000000"));
    let ready = message(&guest.read_to(READY));
    let Message::Ready {
        stamp: first,
        status,
    } = &ready
    else {
        panic!("{ready:?}")
    };
    assert_eq!((first.id.as_str(), first.seq), ("g00000", 0));
    assert_eq!(status.identity, IdentityState::Applied);
    let up = DeviceState::Up;
    assert_eq!((status.disk, status.net, status.ssh), (up, up, up));
    assert_eq!(message(&guest.read_to("\"tag\":7")).stamp().seq, 1);

    let after = report(&mut guest);
    assert_eq!(
        (after.id.as_str(), after.phase.as_str()),
        ("g00000", "ready")
    );
    let kernel_ms = kernel_ms(&mut guest);
    assert!(
        after.uptime_ms + stamp.ms <= kernel_ms,
        "{} of {kernel_ms} ms were the template's, and it says {}",
        stamp.ms,
        after.uptime_ms
    );
    assert_clock_is_set(&mut guest);
    assert!(guest.ask("ifconfig").output.contains("inet 10.0.2.15/24"));
    assert_eq!(guest.ask("write /disk/note text").code, 0);
    assert_eq!(guest.ask("identify").output, "already identified");
    assert_eq!(guest.ask("poweroff").code, 0);
    guest.ends();
}

#[test]
fn a_parked_guest_takes_the_time_and_counts_on() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let mut guest = Guest::start(&out, Way::Initramfs(&out.join(INITRAMFS), "tty.park"));
    let parked = message(&guest.read_to("\"event\":\"parked\""));
    assert_eq!(report(&mut guest).phase, "parked");
    guest.write(&format!("identify {NOW}.999999999"));
    let ready = message(&guest.read_to(READY));
    assert_eq!(ready.stamp().seq, 2);
    assert!(ready.stamp().ms >= parked.stamp().ms);
    assert_clock_is_set(&mut guest);
}
