//! SSH into guests: what `launch` writes for it, `imgbuild ssh`, and the real
//! client with strict checking of host keys.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use imgbuild_tests::{TestEnv, run, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

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
            fleet
                .events()
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
            .map(|event| event["ssh_port"].as_u64().unwrap().try_into().unwrap())
            .collect()
    }

    fn folder(&self) -> PathBuf {
        self.events()[0]["folder"].as_str().unwrap().into()
    }

    fn config(&self) -> PathBuf {
        self.events()[0]["ssh_config"].as_str().unwrap().into()
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

    let first = &fleet.events()[0];
    assert_eq!([&first["event"], &first["fleet"]], ["fleet", "one"]);
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
        (&garbled, "no key in OpenSSH's format"),
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
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let imgbuild = env.imgbuild(["launch", "--count", "7", "--accel", "tcg", "--for", "1s"]);
    // In a network namespace of its own, whose kernel may hand out every port.
    run(env
        .command("unshare")
        .args(["--net", "sh", "-ec"])
        .arg("echo 1024 65535 > /proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"")
        .arg("sh")
        .arg(imgbuild.get_program())
        .args(imgbuild.get_args())
        .arg(&out))
    .exits(3)
    .says(&[
        "7 guests need a loopback port",
        "range 1024 to 65535",
        "--net none",
    ]);
    env.assert_no_fleet_left();
}

#[test]
fn the_fleet_and_the_guest_must_be_known() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let ssh = |arguments: &[&str]| run(imgbuild(&env, &["ssh"]).args(arguments));
    ssh(&["g00000"])
        .exits(1)
        .says(&["no fleet is running", "imgbuild launch"]);

    let one = Fleet::launch(&env, &out, "one", 3, &[]);
    ssh(&["g00003", "--", "status"])
        .exits(2)
        .says(&["fleet one has no guest g00003", "g00000 to g00002"]);
    ssh(&["--fleet", "two", "g00000"])
        .exits(1)
        .says(&["no fleet named two", "running: one"]);

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
        &["--parallel", "2", "g00000"],
        &["--json", "g00000"],
        &["--all", "--parallel", "0", "--", "status"],
    ] {
        ssh(arguments).exits(2);
    }
    // Nothing of this disturbed the fleets.
    assert_eq!(env.guests().len(), 4);
    one.end();
    two.end();
}
