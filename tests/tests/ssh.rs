//! SSH into guests: what `launch` writes for it, `imgbuild ssh`, and the real
//! client with strict checking of host keys.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use imgbuild::store::identity;
use imgbuild_tests::kex::{self, Exchange};
use imgbuild_tests::{TestEnv, finish, rights, run, start, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tty_init::identity::Identity;

/// A launch that runs beside the test.
struct Fleet<'a> {
    env: &'a TestEnv,
    launch: Child,
    events: PathBuf,
}

impl<'a> Fleet<'a> {
    /// Launches guests under TCG and waits until each is ready.
    fn launch(env: &'a TestEnv, out: &Path, name: &str, count: u32, more: &[&str]) -> Self {
        let events = env.path().join(format!("{name}.events"));
        let mut command = imgbuild(env, &["launch", "--accel", "tcg", "--json", "--name", name]);
        command
            .args(["--count", &count.to_string()])
            .args(more)
            .arg(out)
            .stdout(File::create(&events).unwrap())
            .stderr(File::create(env.path().join(format!("{name}.messages"))).unwrap());
        let launch = command.spawn().unwrap();
        let fleet = Self {
            env,
            launch,
            events,
        };
        wait_until("every guest is ready", || {
            let events = fleet.events();
            let failed = events.iter().find(|event| event["state"] == "failed");
            assert!(failed.is_none(), "{failed:?}");
            events
                .iter()
                .filter(|event| event["state"] == "ready")
                .count()
                == count as usize
        });
        fleet
    }

    /// What it told so far.
    fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap();
        // A last line may be half written.
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The guests' events of being ready, in order.
    fn guests(&self) -> Vec<Value> {
        let mut guests = self.events();
        guests.retain(|event| event["state"] == "ready");
        guests.sort_by_key(|event| event["id"].to_string());
        guests
    }

    fn ports(&self) -> Vec<u16> {
        self.guests()
            .iter()
            .map(|event| {
                let address: SocketAddr = event["ssh"].as_str().unwrap().parse().unwrap();
                assert!(address.ip().is_loopback(), "{address}");
                address.port()
            })
            .collect()
    }

    /// The event that tells where the fleet's files are.
    fn begun(&self) -> Value {
        let mut events = self.events().into_iter();
        events.find(|event| event["event"] == "fleet").unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.begun()["folder"].as_str().unwrap().into()
    }

    fn config(&self) -> PathBuf {
        self.begun()["ssh_config"].as_str().unwrap().into()
    }

    /// The real client, with what `launch` wrote for it.
    fn ssh(&self, arguments: &[&str]) -> Command {
        let mut command = self.env.command("ssh");
        command.arg("-F").arg(self.config()).args(arguments);
        command
    }

    fn end(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.launch), Signal::INT).unwrap();
        self.launch.wait().unwrap()
    }
}

/// `imgbuild` with a state folder whose name ssh(1) would take apart and
/// expand, were it not quoted.
fn imgbuild(env: &TestEnv, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(arguments);
    command.env("XDG_STATE_HOME", env.path().join("state/a 100%h \"b\""));
    command
}

/// A new key pair of the user's; its private half's path.
fn user_key(env: &TestEnv, kind: &str) -> PathBuf {
    let path = env.path().join(format!("my {kind}"));
    run(env
        .command("ssh-keygen")
        .args(["-q", "-N", "", "-t", kind, "-f"])
        .arg(&path))
    .succeeds();
    path
}

/// `path` with `.pub` behind it.
fn public_half(path: &Path) -> PathBuf {
    path.with_extension("pub")
}

/// What the client makes of a fleet's configuration.
fn client_view(fleet: &Fleet<'_>, guest: &str) -> Vec<String> {
    let view = run(&mut fleet.ssh(&["-G", guest])).succeeds();
    assert_eq!(view.stderr, "");
    view.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn launch_writes_what_the_client_needs_and_takes_it_away() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let fleet = Fleet::launch(&env, &out, "one", 3, &[]);
    let other = Fleet::launch(&env, &out, "two", 2, &[]);

    assert_eq!(fleet.begun()["fleet"], "one");
    let mut ports = fleet.ports();
    ports.extend(other.ports());
    for port in &ports {
        assert!(*port >= 1024);
        TcpStream::connect(("127.0.0.1", *port)).unwrap();
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 5, "every guest has a port of its own");

    let folder = fleet.folder();
    for file in ["id_ed25519", "id_ed25519.pub", "ssh_config", "known_hosts"] {
        let mode = fs::metadata(folder.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let view = client_view(&fleet, "g00002");
    assert!(view.contains(&format!("port {}", fleet.ports()[2])));
    assert!(view.contains(&"hostkeyalias g00002".to_owned()));
    let known = fs::read_to_string(folder.join("known_hosts")).unwrap();
    let mut keys: Vec<_> = known
        .lines()
        .map(|line| line.split(' ').nth(2).unwrap())
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 3, "host keys differ");

    // The key pair belongs to the fleet alone.
    let secret = fs::read_to_string(folder.join("id_ed25519")).unwrap();
    let secret = secret.lines().nth(3).unwrap();
    assert!(!env.command_lines().iter().any(|line| line.contains(secret)));
    assert_eq!(fleet.end().code(), Some(130));
    assert_eq!(other.end().code(), Some(130));
    assert!(!folder.exists());
    assert!(
        fs::read_dir(folder.parent().unwrap())
            .unwrap()
            .next()
            .is_none()
    );
    env.assert_no_process_left();
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
}

#[test]
fn the_users_own_key_is_used_where_it_is() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let key = user_key(&env, "ed25519");
    for file in [&key, &public_half(&key)] {
        let file = file.to_str().unwrap();
        let fleet = Fleet::launch(&env, &out, "mine", 1, &["--ssh-key", file]);
        assert!(client_view(&fleet, "g00000").contains(&format!("identityfile {file}")));
        assert!(!fleet.folder().join("id_ed25519").exists());
        fleet.end();
    }
    env.assert_no_fleet_left();
}

#[test]
fn a_key_that_guests_do_not_take_is_refused_before_anything_starts() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let rsa = user_key(&env, "rsa");
    let garbled = env.path().join("garbled");
    fs::write(&garbled, "ssh-ed25519 AAAA").unwrap();
    let large = env.path().join("large");
    fs::write(&large, vec![b'x'; 100_000]).unwrap();
    let absent = env.path().join("absent");
    for (file, reason) in [
        (&rsa, "ssh-keygen -t ed25519"),
        (&garbled, "not a key in OpenSSH's format"),
        (&large, "larger than 65536 bytes"),
        (&absent, "No such file"),
    ] {
        run(env
            .imgbuild(["launch", "--count", "1", "--accel", "tcg", "--ssh-key"])
            .arg(file)
            .arg(&out))
        .exits(2)
        .says(&[file.to_str().unwrap(), reason]);
    }
    env.assert_no_fleet_left();
}

#[test]
fn a_host_without_ports_to_spare_is_not_ready() {
    if !rights::has_namespaces() {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let imgbuild = env.imgbuild(["launch", "--count", "7", "--accel", "tcg", "--for", "1s"]);
    // In a network namespace of its own, whose kernel may hand out every port.
    run(env
        .command("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-ec"])
        .arg("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"")
        .arg("sh")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out))
    .exits(3)
    .says(&["ports: 0 free", "range 1024 to 65535", "--net none"]);
    env.assert_no_fleet_left();
}

#[test]
fn the_fleet_and_the_guest_must_be_known() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let ssh = |arguments: &[&str]| run(imgbuild(&env, &["ssh"]).args(arguments));
    ssh(&["g00000"])
        .exits(1)
        .says(&["there is no fleet", "imgbuild launch"]);

    let one = Fleet::launch(&env, &out, "one", 3, &[]);
    ssh(&["g00003", "--", "status"])
        .exits(2)
        .says(&["fleet one has no guest g00003", "g00000 to g00002"]);
    ssh(&["--fleet", "two", "g00000"])
        .exits(1)
        .says(&["no fleet named two", "fleets: one"]);

    let two = Fleet::launch(&env, &out, "two", 1, &["--net", "none"]);
    ssh(&["g00000"]).exits(2).says(&["one, two", "--fleet"]);
    ssh(&["--fleet", "two", "g00000"])
        .exits(1)
        .says(&["--net none"]);
    for arguments in [
        &["g0"][..],
        &[],
        &["--all"],
        &["--all", "g00000", "--", "status"],
        &["--json", "g00000"],
        &["--all", "--parallel", "0", "--", "status"],
    ] {
        ssh(arguments).exits(2);
    }
    for whom in ["g00000", "--all"] {
        run(
            imgbuild(&env, &["ssh", "--fleet", "one", whom, "--", "status"])
                .env("PATH", env.path()),
        )
        .exits(1)
        .says(&["`ssh` is not installed", "openssh-client"]);
    }
    // Nothing of this disturbed the fleets.
    assert_eq!(env.guests().len(), 4);
    one.end();
    two.end();
}

/// Guests' host keys as ssh-keyscan sees them, without their addresses.
fn scanned(env: &TestEnv, port: u16) -> String {
    let scan = run(env.command("ssh-keyscan").args([
        "-T",
        "60",
        "-t",
        "ed25519",
        "-p",
        &port.to_string(),
        "127.0.0.1",
    ]))
    .succeeds();
    let line = scan.stdout.trim().to_owned();
    let key = line.split_once(' ').map(|(_, key)| key.to_owned());
    key.unwrap_or_else(|| panic!("no key: {}", scan.stderr))
}

/// Waits until a client gets a guest's answer through a pipe of its own.
fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{}", output.status);
    output.stdout
}

#[test]
fn clients_get_through_with_strict_checking_and_the_right_key_alone() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let fleet = Fleet::launch(&env, &out, "f", 5, &[]);

    for (command, code) in [("status", 0), ("cat /nonexistent", 1), ("nonsense", 127)] {
        let finished = run(&mut fleet.ssh(&["g00001", command])).exits(code);
        assert!(!finished.stderr.contains("WARNING"), "{}", finished.stderr);
    }
    run(&mut fleet.ssh(&["g00004", "status"]))
        .succeeds()
        .shows(&["g00004"]);

    // Another key, and the same key where another host is expected.
    let stranger = user_key(&env, "ed25519");
    let config = fs::read_to_string(fleet.config()).unwrap();
    let changed = env.path().join("changed_config");
    let own = config
        .lines()
        .find(|line| line.starts_with("IdentityFile"))
        .unwrap();
    fs::write(
        &changed,
        config.replace(own, &format!("IdentityFile {stranger:?}")),
    )
    .unwrap();
    run(env
        .command("ssh")
        .arg("-F")
        .arg(&changed)
        .args(["g00000", "status"]))
    .exits(255)
    .says(&["Permission denied"]);
    run(&mut fleet.ssh(&["-o", "HostKeyAlias=g00001", "g00000", "status"]))
        .exits(255)
        .says(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]);

    let known = fs::read_to_string(fleet.folder().join("known_hosts")).unwrap();
    let known: Vec<_> = known
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.trim())
        .collect();
    let scanned: Vec<_> = fleet
        .ports()
        .iter()
        .map(|port| scanned(&env, *port))
        .collect();
    assert_eq!(scanned, known);
    assert_eq!(scanned.iter().collect::<HashSet<_>>().len(), 5);
    fleet.end();
    env.assert_no_process_left();
}

#[test]
fn what_goes_in_comes_out_and_four_share_a_guest() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let fleet = Fleet::launch(&env, &out, "f", 1, &[]);
    let input: Vec<u8> = (0..10 << 20_u32)
        .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert!(piped(&mut fleet.ssh(&["g00000", "cat"]), &input) == input);

    let part = &input[..100_000];
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert!(piped(&mut fleet.ssh(&["g00000", "cat"]), part) == part));
        }
    });
    // The same through imgbuild, which is ssh by then.
    let mut command = imgbuild(&env, &["ssh", "g00000", "--", "cat"]);
    assert!(piped(&mut command, part) == part);
    fleet.end();
}

#[test]
fn imgbuild_ssh_reaches_one_guest_or_all() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    // One that is killed stays so.
    let fleet = Fleet::launch(&env, &out, "f", 5, &["--restart", "never"]);
    let ssh = |arguments: &[&str]| run(imgbuild(&env, &["ssh"]).args(arguments));

    ssh(&["g00003", "--", "status"])
        .succeeds()
        .shows(&["g00003"]);
    ssh(&["g00003", "--", "nonsense"]).exits(127);
    ssh(&["--fleet", "f", "g00003", "--", "cat", "/nonexistent"]).exits(1);

    let all = ssh(&["--all", "--", "status"])
        .succeeds()
        .says(&["5 of 5 done"]);
    let names: Vec<_> = all
        .stdout
        .lines()
        .map(|line| line.split_once(": ").unwrap().0)
        .collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.iter().collect::<HashSet<_>>().len(), 5);
    ssh(&["--all", "--parallel", "1", "--", "nonsense"])
        .exits(1)
        .says(&["0 of 5 done, 5 exited 127"]);

    let pid = i32::try_from(fleet.guests()[2]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_until("a guest is gone", || env.guests().len() == 4);
    ssh(&["--all", "--", "status"])
        .exits(4)
        .says(&["4 of 5 done, 1 unreachable", "g00002 is unreachable"]);
    let all = ssh(&["--all", "--json", "--", "status"])
        .exits(4)
        .json_lines();
    let ids: Vec<_> = all[..5]
        .iter()
        .map(|guest| guest["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["g00000", "g00001", "g00002", "g00003", "g00004"]);
    assert_eq!([&all[1]["code"], &all[2]["code"]], [0, 255]);
    assert!(all[1]["stdout"].as_str().unwrap().contains("g00001"));
    assert_eq!(
        [&all[5]["event"], &all[5]["done"]],
        [&json!("summary"), &json!(4)]
    );
    fleet.end();
}

#[test]
fn a_guest_that_stalls_is_not_waited_for_and_an_interrupt_ends_every_client() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let fleet = Fleet::launch(&env, &out, "f", 3, &[]);
    // Guests that are stopped answer nobody.
    for guest in env.guests() {
        kill_process(Pid::from_raw(guest.cast_signed()).unwrap(), Signal::STOP).unwrap();
    }
    let late = ["ssh", "--all", "--within", "1s", "--", "status"];
    run(&mut imgbuild(&env, &late)).exits(1).says(&[
        "g00000: no answer within 1s",
        "--within",
        "0 of 3 done, 3 without an answer",
    ]);
    let clients = || {
        env.command_lines()
            .iter()
            .filter(|line| line.starts_with("ssh "))
            .count()
    };
    let all = start(&mut imgbuild(&env, &["ssh", "--all", "--", "status"]));
    wait_until("clients run", || clients() == 3);
    kill_process(Pid::from_child(&all), Signal::INT).unwrap();
    finish(all).exits(130);
    assert_eq!(clients(), 0);
    for guest in env.guests() {
        kill_process(Pid::from_raw(guest.cast_signed()).unwrap(), Signal::CONT).unwrap();
    }
    fleet.end();
}

/// A restart must keep the host key and repeat nothing else: a random pool that
/// started alike twice would show in the server's cookie and ephemeral key.
#[test]
fn a_guest_started_again_keeps_its_host_key_and_nothing_random() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let fleet = Fleet::launch(&env, &out, "again", 1, &[]);
    let one = seen_of(&fleet);
    let pid = i32::try_from(fleet.guests()[0]["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    wait_until("the guest is ready again", || fleet.guests().len() == 2);
    let two = seen_of(&fleet);

    for ((key, a), (other, b)) in [(&one[0], &one[1]), (&one[0], &two[0]), (&one[1], &two[1])] {
        assert_eq!(key, other);
        assert_eq!(a.host_key, b.host_key);
        assert_ne!(a.cookie, b.cookie);
        assert_ne!(a.ephemeral, b.ephemeral);
    }
    let blob = fs::read(fleet.folder().join("identities/g00000")).unwrap();
    let identity = Identity::decode(&blob).unwrap();
    assert!(one[0].1.host_key.ends_with(&identity::host_key(&identity)));
    fleet.end();
}

/// The first guest's host key and key exchanges, twice each.
fn seen_of(fleet: &Fleet<'_>) -> [(String, Exchange); 2] {
    let port = fleet.ports()[0];
    [(); 2].map(|()| (scanned(fleet.env, port), kex::exchange(port).unwrap()))
}
