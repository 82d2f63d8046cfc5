//! Guests on taps, each test in a network namespace of its own: what they
//! reach, what outlives a supervisor, what is refused, and how many there can
//! be.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread;

use imgbuild::net::tap;
use imgbuild::net::tap::Subnet;
use imgbuild::units::GuestRange;
use imgbuild::units::Instance;
use imgbuild::vmm::mac;
use imgbuild_tests::fleet::{Fleet, detached, with_shell};
use imgbuild_tests::{TestEnv, rights, run};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What a fleet takes here.
const ON_TAPS: [&str; 4] = ["--net", "tap", "--sharing", "none"];

/// Moves this thread, and what it starts from now on, into a network namespace
/// of its own with nothing but a loopback interface, and settings as the kernel
/// has them where nobody changed the host's. The last process in it takes it
/// along. If it may not, the test is to end here.
fn enter_own_network() -> bool {
    if !rights::is_root("make taps") {
        return false;
    }
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-ec"])
        .arg(
            "busybox ip link set lo up
             echo 0 >/proc/sys/net/ipv4/ip_forward
             echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
             echo up; read -r end",
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut said = [0; 3];
    let mut stdout = holder.stdout.take().unwrap();
    stdout.read_exact(&mut said).expect("root may have one");
    let network = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    holder.stdin.take().unwrap().write_all(b"end\n").unwrap();
    assert!(holder.wait().unwrap().success());
    true
}

/// What `ip` lists of all interfaces but the loopback: the first words of each
/// line.
fn listed(what: &[&str], words: usize) -> Vec<String> {
    let shown = run(Command::new("busybox").args(["ip", "-o"]).args(what)).succeeds();
    let lines = shown.stdout.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().take(words).collect();
        words.join(" ")
    });
    lines.filter(|line| !line.starts_with("1: lo")).collect()
}

/// Number, name and flags of each interface.
fn interfaces() -> Vec<String> {
    listed(&["link"], 3)
}

/// Number, name and address of each interface that has one.
fn addresses() -> Vec<String> {
    listed(&["-4", "addr"], 4)
}

/// A setting of this network.
fn setting(path: &str) -> String {
    let path = format!("/proc/sys/net/{path}");
    let value = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    value.trim().to_owned()
}

/// Packets that came from where their source is not.
fn spoofed() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let mut names = rows.next().unwrap().split_whitespace();
    let mut values = rows.next().unwrap().split_whitespace();
    let place = names.position(|name| name == "IPReversePathFilter");
    values.nth(place.unwrap()).unwrap().parse().unwrap()
}

/// What the names of a fleet's interfaces begin with.
fn prefix(fleet: &Fleet<'_>) -> String {
    let instance = fleet.spec()["instance"].as_str().unwrap().to_owned();
    tap::prefix(Instance::try_from(instance).unwrap())
}

/// Whether a ping was answered, which a guest sends with this source address.
fn ping(fleet: &Fleet<'_>, guest: &str, from: &str, to: &str) -> bool {
    let ping = format!("busybox ping -c 1 -W 2 -I {from} {to}");
    fleet.ssh(guest, [&ping]).code() == 0
}

#[test]
fn guests_reach_the_host_and_each_other_under_their_own_address() {
    if !enter_own_network() {
        return;
    }
    let env = TestEnv::new();
    let out = with_shell(&env);
    let mut launch = env.imgbuild(["launch", "--accel", "tcg", "--detach"]);
    launch.args(["--name", "f", "--count", "3"]).args(ON_TAPS);
    run(launch.arg(&out)).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    let prefix = prefix(&fleet);
    let before = addresses();
    let with_address = |guest: u32| {
        before.iter().any(|tap| {
            let ending = format!(": {prefix}{guest} inet 10.213.0.{}/31", guest * 2);
            tap.ends_with(&ending)
        })
    };
    assert!(before.len() == 3 && (0..3).all(with_address), "{before:?}");

    // Guests on trial have taps beside them, for as long as they live.
    let mut check = env.imgbuild(["check", "--json", "--accel", "tcg", "--canary"]);
    run(check.args(ON_TAPS).arg(&out))
        .succeeds()
        .shows(&["10.214.0.0/16: 32,768 links"]);
    assert_eq!(interfaces().len(), 3);

    // From the host.
    fleet.ssh("g00001", ["status"]).shows(&["id=g00001"]);
    let mut ssh = env.command("ssh");
    ssh.arg("-F").arg(fleet.folder().join("ssh_config"));
    run(ssh.args(["g00002", "status"])).shows(&["id=g00002"]);

    // To the host and, by way of it, to another guest; it forwards nothing else.
    assert!(ping(&fleet, "g00000", "10.213.0.1", "10.213.0.0"));
    fleet
        .ssh("g00000", ["busybox nc -w 20 10.213.0.5 22 </dev/null"])
        .shows(&["SSH-2.0-"]);
    for (whose, value) in [("all", "0"), ("default", "0"), (&format!("{prefix}0"), "1")] {
        assert_eq!(setting(&format!("ipv4/conf/{whose}/forwarding")), value);
    }

    // A guest that takes another's address is not heard.
    assert_eq!(spoofed(), 0);
    let take = "busybox ip addr add 10.213.0.3/32 dev eth0";
    fleet.ssh("g00000", [take]).succeeds();
    assert!(!ping(&fleet, "g00000", "10.213.0.3", "10.213.0.5"));
    assert_eq!(spoofed(), 1);

    // Another fleet does not get the same addresses, but others.
    let other = || {
        let mut other = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--detach"]);
        other.args(["--name", "g", "--count", "1", "--first", "5"]);
        other.args(ON_TAPS);
        other.arg(&out);
        other
    };
    run(other().args(["--tap-subnet", "10.213.0.0/24"]))
        .exits(1)
        .says(&["overlaps the route to 10.213.0.", &prefix, "--tap-subnet"]);
    assert_eq!(addresses(), before);
    run(&mut other()).succeeds();
    let other = Fleet::of(&env, "g");
    // Tap and link follow the guest's number.
    let theirs = &addresses()[3];
    assert!(theirs.ends_with("-5 inet 10.214.0.10/31"), "{theirs}");
    other.wait();
    other.ssh("g00005", ["status"]).shows(&["id=g00005"]);
    run(&mut other.imgbuild(["stop", "--all"])).succeeds();
    other.assert_nothing_left();
    assert_eq!(addresses(), before);

    // A guest that is started again has its tap and its address again.
    run(&mut fleet.imgbuild(["kill", "g00001"])).succeeds();
    fleet.until("it is started again", |fleet| fleet.guests[1].restarts == 1);
    fleet.wait();
    fleet.ssh("g00001", ["status"]).shows(&["id=g00001"]);
    assert_eq!(addresses(), before);

    // Taps come and go with their guests.
    let two = fleet.spec();
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    // As if that had been killed before it said so.
    fleet.kill_supervisor();
    fleet.change_spec(|spec| *spec = two);
    fleet.resume().succeeds();
    run(&mut fleet.imgbuild(["scale", "4"])).succeeds();
    fleet.wait();
    fleet.ssh("g00003", ["status"]).shows(&["id=g00003"]);
    let more = addresses();
    assert_eq!((&more[..3], more.len()), (&before[..], 4));
    run(&mut fleet.imgbuild(["scale", "2"])).succeeds();
    assert_eq!(addresses(), before[..2]);
    fleet.end();
    assert_eq!(interfaces(), [""; 0]);
}

#[test]
fn taps_outlive_a_supervisor_and_go_with_the_fleet() {
    if !enter_own_network() {
        return;
    }
    let env = TestEnv::new();
    let fleet = Fleet::ready(&env, "f", 2, &ON_TAPS);
    let before = addresses();
    assert_eq!(before.len(), 2);
    let lives = fleet.guest(1).pid;
    fleet.kill_supervisor();
    fleet.kill_guests(&[0]);

    fleet.resume().succeeds();
    fleet.wait();
    for (index, id, restarts) in [(0, "g00000", 1), (1, "g00001", 0)] {
        assert_eq!(fleet.guest(index).restarts, restarts);
        fleet.ssh(id, ["status"]).shows(&[&format!("id={id}")]);
    }
    assert_eq!(fleet.guest(1).pid, lives);
    assert_eq!(addresses(), before);

    fleet.kill_supervisor();
    fleet.kill_guests(&[0, 1]);
    assert_eq!(addresses(), before);
    run(&mut fleet.imgbuild(["rm", "--force", "f"])).succeeds();
    fleet.assert_gone();
    assert_eq!(interfaces(), [""; 0]);
}

/// Has `command` run where a script that root runs leads it.
fn behind(env: &TestEnv, script: &str, command: &Command) -> Command {
    let mut behind = env.command("unshare");
    behind.args(["--mount", "sh", "-ec", script, "sh"]);
    behind.arg(command.get_program()).args(command.get_args());
    behind
}

#[test]
fn taps_that_cannot_be_had_are_refused_and_leave_nothing() {
    if !enter_own_network() {
        return;
    }
    let env = TestEnv::new();
    let _ = env.artifacts("tty-idle");
    let route = ["ip", "addr", "add", "10.9.9.1/24", "dev", "lo"];
    run(env.command("busybox").args(route)).succeeds();
    let mut check = env.imgbuild(["check", "--json", "--accel", "tcg", "--tap-subnet"]);
    run(check.args(["10.9.0.0/16", "--net", "tap"]))
        .exits(3)
        .shows(&["10.9.0.0/16 overlaps the route to 10.9.9.0/24 through lo"]);
    run(&mut env.imgbuild(["check", "--tap-subnet", "10.9.0.0/16"]))
        .exits(2)
        .says(&["--tap-subnet goes with --net tap"]);
    // A /dev of its own, with other rights to the device or without it.
    let device = "umask 0; mount -t tmpfs dev /dev; mkdir /dev/net
        mknod /dev/null c 1 3; mknod /dev/urandom c 1 9";
    let nobody = "chown -R 65534:65534 .
        exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"";
    let absent = format!("{device}; exec \"$@\"");
    let closed = format!("{device}; mknod -m 600 /dev/net/tun c 10 200; {nobody}");
    let open = format!("{device}; mknod -m 666 /dev/net/tun c 10 200; {nobody}");
    let overlap = [
        "10.9.0.0/16 for taps overlaps the route to 10.9.9.0/24 through lo",
        "choose another with --tap-subnet",
    ];
    let unprivileged = "taps take CAP_NET_ADMIN; become root, or use --net user";
    for (subnet, script, code, says) in [
        ("10.9.0.0/16", "exec \"$@\"", 1, &overlap[..]),
        (
            "10.8.0.0/30",
            "exec \"$@\"",
            1,
            &["has 2 links", "10.0.0.0/29"],
        ),
        (
            "10.8.0.0/16",
            &absent,
            3,
            &["tun: absent (need: /dev/net/tun", "modprobe tun"],
        ),
        (
            "10.8.0.0/16",
            &closed,
            1,
            &["not permitted to open /dev/net/tun: ", unprivileged],
        ),
        (
            "10.8.0.0/16",
            &open,
            1,
            &["not permitted to make", unprivileged],
        ),
    ] {
        let mut command = behind(&env, script, &detached(&env, "f", 3));
        command.args(ON_TAPS).args(["--tap-subnet", subnet]);
        run(env.own_cache(&mut command)).exits(code).says(says);
        env.assert_no_process_left();
        env.assert_no_fleet_left();
        assert_eq!(interfaces(), [""; 0]);
    }
}

#[test]
fn a_firewall_between_guests_is_found() {
    if !enter_own_network() {
        return;
    }
    let env = TestEnv::new();
    let _ = env.artifacts("tty-idle");
    let firewall = |rules: &str| run(env.command("nft").arg(rules)).succeeds();
    let found = |code| {
        let mut check = env.imgbuild(["check", "--json", "--accel", "tcg", "--net", "tap"]);
        let report = run(&mut check).exits(code).json_lines().swap_remove(0);
        let mut findings = report["findings"].as_array().unwrap().iter();
        let found = findings.find(|finding| finding["id"] == "forwarding");
        found.unwrap()["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(found(0), "they do");
    // As container engines do, whatever the order of hooks.
    firewall("add table ip filter");
    firewall("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }");
    assert_eq!(found(3), "dropped");
    run(detached(&env, "f", 2).args(ON_TAPS))
        .exits(3)
        .says(&["forwarding: dropped", "--force launches anyway"]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    // What the finding says.
    firewall("add rule ip filter FORWARD iifname \"ib*\" oifname \"ib*\" accept");
    assert_eq!(found(0), "they do");
    assert_eq!(interfaces(), [""; 0]);
}

#[test]
fn who_tries_whether_the_host_forwards_is_in_nobodys_way() {
    if !enter_own_network() {
        return;
    }
    // No more than the links that are tried.
    let subnet: Subnet = "10.8.0.0/30".parse().unwrap();
    thread::scope(|scope| {
        let tries: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..10).map(|_| tap::forwards(subnet)).collect()))
            .collect();
        let mut looks = 0;
        while looks < 100 || tries.iter().any(|tries| !tries.is_finished()) {
            tap::check(subnet, 2).unwrap();
            looks += 1;
        }
        for tries in tries {
            let tries: Vec<_> = tries.join().unwrap();
            assert!(
                tries.iter().all(|passes| matches!(passes, Ok(true))),
                "{tries:?}"
            );
        }
    });
    assert_eq!(interfaces(), [""; 0]);
}

/// Three times the neighbours that the kernel keeps of those it may forget
/// (`gc_thresh3` of arp(7)).
#[test]
fn thousands_of_taps_are_made_and_removed_together() {
    if !enter_own_network() {
        return;
    }
    let guests = GuestRange::first(3_000).unwrap();
    let (ours, others) = (Instance([0x3f; 12]), Instance([0x40; 12]));
    let one = "192.168.7.0/31".parse().unwrap();
    tap::create(others, one, GuestRange::first(1).unwrap()).unwrap();
    // Without flags, which follow when the kernel comes round to it.
    let names = || listed(&["link"], 2);
    let not_ours = names();

    tap::create(ours, Subnet::FOR_TAPS, guests).unwrap();
    let shown = interfaces();
    let up: HashSet<_> = shown
        .iter()
        .filter(|line| line.contains(",UP"))
        .filter_map(|line| line.split([' ', ':']).nth(2))
        .collect();
    let shown = addresses();
    let address: HashMap<_, _> = shown
        .iter()
        .filter_map(|line| line.split_once(": ")?.1.split_once(" inet "))
        .collect();
    let shown = fs::read_to_string("/proc/thread-self/net/arp").unwrap();
    let neighbours: HashSet<_> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for guest in guests.iter() {
        let name = tap::name(ours, guest);
        let link = tap::addresses(Subnet::FOR_TAPS, guest).unwrap();
        assert!(up.contains(name.as_str()), "{name} is not up");
        let wanted = format!("{}/31", link.host);
        assert_eq!(address.get(name.as_str()), Some(&wanted.as_str()), "{name}");
        // Permanent and complete: ATF_PERM and ATF_COM of if_arp.h.
        let mac = mac(guest.get()).map(|byte| format!("{byte:02x}")).join(":");
        let neighbour = format!("{} 0x1 0x6 {mac} * {name}", link.guest);
        assert!(neighbours.contains(&neighbour), "{neighbour}");
        for of in ["forwarding", "rp_filter"] {
            assert_eq!(setting(&format!("ipv4/conf/{name}/{of}")), "1", "{name}");
        }
    }
    assert_eq!(up.len(), 3_001);

    assert_eq!(tap::remove(ours).unwrap(), 3_000);
    assert_eq!(names(), not_ours);
}
