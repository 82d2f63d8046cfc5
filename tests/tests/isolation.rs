//! What a guest's process may do on the host.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use imgbuild::artifact;
use imgbuild::artifact::opened::Artifacts;
use imgbuild::directories::Directories;
use imgbuild::fleet::site;
use imgbuild::host_id::HostId;
use imgbuild::vmm::{Lifetime, Net};
use imgbuild_tests::fleet::{Fleet, detached};
use imgbuild_tests::guest::READY;
use imgbuild_tests::namespace::Namespace;
use imgbuild_tests::{TestEnv, alone, rights, run, wait_until};
use rustix::process::geteuid;
use serde_json::Value;

/// Users that nobody else has.
const FIRST_USER: u32 = 1_967_001;

/// Guests in a folder whose name is full of what options and JSON give a meaning
/// to.
struct Place {
    _env: TestEnv,
    site: site::Site,
    out: PathBuf,
}

impl Place {
    fn new(count: u32, run_as_base: Option<u32>) -> Self {
        Self::prepared(count, run_as_base, |_| {})
    }

    /// The same, once something is done with the output folder.
    fn prepared(count: u32, run_as_base: Option<u32>, change: impl FnOnce(&Path)) -> Self {
        let env = TestEnv::new();
        let built = env.artifacts("tty-idle");
        let hostile = env.path().join("a, b=\"c\" 'd' \\ %s {e},,on");
        let out = hostile.join("out");
        fs::create_dir(&hostile).unwrap();
        fs::rename(built, &out).unwrap();
        change(&out);
        let directories = Directories {
            cache: env.path().join("cache"),
            state: hostile.join("state"),
            runtime: env.path().join("run"),
            host: HostId::this().unwrap(),
        };
        let artifacts = Artifacts::open(&out).unwrap();
        let site = alone::site(&artifacts, &directories, Net::User, "", run_as_base, count);
        Self {
            _env: env,
            site,
            out,
        }
    }

    /// The files that all its guests run from.
    fn artifacts(&self) -> [PathBuf; 3] {
        ["vmlinux", artifact::INITRAMFS, artifact::BASE].map(|file| self.out.join(file))
    }

    fn overlay(&self, guest: u32) -> PathBuf {
        self.site.folder().overlay(alone::guest(guest))
    }

    fn identity(&self, guest: u32) -> PathBuf {
        self.site.folder().identity(alone::guest(guest))
    }

    fn complaints(&self, guest: u32) -> PathBuf {
        self.site.folder().error(alone::guest(guest))
    }

    fn sockets(&self, guest: u32) -> [PathBuf; 2] {
        let (folder, guest) = (self.site.folder(), alone::guest(guest));
        [folder.console(guest), folder.monitor(guest)]
    }

    fn start(&self, guest: u32, lifetime: Lifetime) -> Guest {
        let started = alone::start(&self.site, alone::guest(guest), lifetime, |_, _| {});
        Guest {
            child: started.0,
            console: BufReader::new(started.1),
            complaints: self.complaints(guest),
        }
    }
}

struct Guest {
    child: Child,
    console: BufReader<UnixStream>,
    complaints: PathBuf,
}

impl Guest {
    /// What it reports once it is ready.
    fn ready(&mut self) -> String {
        let mut lines = self.console.by_ref().lines().map_while(Result::ok);
        lines
            .find(|line| line.contains(READY))
            .unwrap_or_else(|| panic!("{}", fs::read_to_string(&self.complaints).unwrap()))
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.proc(file)).unwrap()
    }

    /// The name of the descriptor by which it has a file (proc_pid_fd(5)).
    fn descriptor(&self, path: &Path) -> PathBuf {
        let open = fs::read_dir(self.proc("fd")).unwrap().flatten();
        open.map(|file| file.path())
            .find(|file| fs::read_link(file).is_ok_and(|target| target == path))
            .unwrap_or_else(|| panic!("{} is not open", path.display()))
    }

    /// What follows `name` in its status (proc_pid_status(5)).
    fn status(&self, name: &str) -> Vec<String> {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let words = line.unwrap().trim_start_matches(':').split_whitespace();
        words.map(str::to_owned).collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether user and group `uid` can do to `path` what `test` of sh(1) asks and
/// open it.
fn can(uid: u32, script: &str, path: &Path) -> bool {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["sh", "-c", script, "sh"])
        .arg(path)
        .current_dir("/");
    run(&mut command).status.success()
}

const READ: &str = "exec 2>/dev/null; : <\"$1\"";
const WRITE: &str = "exec 2>/dev/null; : >>\"$1\"";
const LIST: &str = "exec 2>/dev/null; ls \"$1\"";

#[test]
fn a_guest_runs_under_its_user_and_has_what_it_was_handed() {
    if !rights::is_root("give guests users of their own") {
        return;
    }
    let place = Place::new(1, Some(FIRST_USER));
    let mut guest = place.start(0, Lifetime::WithParent);
    let ready = guest.ready();
    for part in [
        "\"identity\":\"applied\"",
        "\"disk\":\"up\"",
        "\"net\":\"up\"",
    ] {
        assert!(ready.contains(part), "{ready}");
    }

    let user = FIRST_USER.to_string();
    assert_eq!(guest.status("Uid"), [&*user; 4]);
    assert_eq!(guest.status("Gid"), [&*user; 4]);
    assert_eq!(guest.status("Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(guest.status(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(guest.status("NoNewPrivs"), ["1"]);
    // A filter (seccomp(2), SECCOMP_MODE_FILTER), in every thread.
    for task in fs::read_dir(guest.proc("task")).unwrap().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap();
        assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    }
    let limits = guest.read("limits");
    let limit = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap()
            .split_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(limit("Max open files"), ["256", "256"]);
    // A handler of core files heeds no limit but this one (core(5)).
    assert_eq!(limit("Max core file size"), ["1", "1"]);
    assert!(guest.read("cmdline").contains("dump-guest-core=off"));
    assert_eq!(guest.read("environ"), "");
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let score: i32 = guest.read("oom_score_adj").trim().parse().unwrap();
    assert_eq!(score, (own + 500).min(1000));
    assert_eq!(fs::read_link(guest.proc("cwd")).unwrap(), Path::new("/"));

    // Every open file is one it was handed, its complaints, or of its own making.
    let own = [place.overlay(0), place.identity(0), place.complaints(0)];
    let sockets = place.sockets(0);
    let own = own.into_iter().chain(sockets);
    let handed: BTreeSet<_> = place.artifacts().into_iter().chain(own).collect();
    let mut seen = BTreeSet::new();
    let mut sockets = 0;
    for file in fs::read_dir(guest.proc("fd")).unwrap().flatten() {
        let target = fs::read_link(file.path()).unwrap();
        let name = target.to_string_lossy().into_owned();
        if name.starts_with("socket:") {
            sockets += 1;
        } else if name != "/dev/null" && !name.starts_with("anon_inode:[") {
            seen.insert(target);
        }
    }
    assert_eq!(seen, handed);
    // The console's two, the monitor's, and the one that listens for SSH.
    assert_eq!(sockets, 4);
}

#[test]
fn a_guest_s_user_reaches_nothing_of_the_fleet_s() {
    if !rights::is_root("give guests users of their own") {
        return;
    }
    let place = Place::new(2, Some(FIRST_USER));
    let mut guests = [0, 1].map(|guest| place.start(guest, Lifetime::WithParent));
    for guest in &mut guests {
        guest.ready();
    }
    let (one, other) = (FIRST_USER, FIRST_USER + 1);
    let folder = place.site.folder();
    let secret = [
        place.overlay(0),
        place.identity(0),
        place.site.spec().identity_file.clone().unwrap(),
        folder.console(alone::guest(0)),
    ];
    for uid in [one, other] {
        assert!(!can(uid, LIST, folder.path()));
        for path in &secret {
            assert!(path.exists());
            assert!(!can(uid, READ, path), "{uid} reads {}", path.display());
            assert!(!can(uid, WRITE, path), "{uid} writes {}", path.display());
        }
    }
    // By its process's descriptors it has what it was handed, and may change
    // nothing but its disk.
    let identity = guests[0].descriptor(&place.identity(0));
    assert!(can(one, READ, &identity));
    for path in place.artifacts() {
        let descriptor = guests[0].descriptor(&path);
        assert!(can(one, READ, &descriptor), "{}", path.display());
        assert!(!can(one, WRITE, &descriptor), "{}", path.display());
    }
    assert!(!can(one, WRITE, &identity));
    assert!(!can(other, READ, &identity));
    assert!(!can(other, READ, &guests[0].descriptor(&place.overlay(0))));
    // Nor can it signal or trace another's process.
    let kill = "kill -0 \"${1#/proc/}\" 2>/dev/null";
    let process = PathBuf::from(format!("/proc/{}", guests[0].child.id()));
    assert!(can(one, kill, &process));
    assert!(!can(other, kill, &process));
    assert!(!can(other, READ, &process.join("mem")));
}

/// As a build under umask 077 leaves them.
#[test]
fn artifacts_that_are_closed_to_others_reach_a_guest_s_user() {
    if !rights::is_root("give guests users of their own") {
        return;
    }
    let place = Place::prepared(1, Some(FIRST_USER), |out| {
        run(Command::new("chmod").args(["-R", "go-rwx"]).arg(out)).succeeds();
    });
    let mut guest = place.start(0, Lifetime::WithParent);
    guest.ready();
    for file in place.artifacts() {
        assert!(!can(FIRST_USER, READ, &file), "{}", file.display());
    }
}

#[test]
fn the_disk_under_an_overlay_is_what_was_handed_over() {
    if !rights::is_root("give guests users of their own") {
        return;
    }
    let place = Place::new(1, Some(FIRST_USER));
    // The path in the overlay's header leads nowhere now.
    fs::rename(&place.out, place.out.with_file_name("moved")).unwrap();
    let ready = place.start(0, Lifetime::WithParent).ready();
    assert!(ready.contains("\"disk\":\"up\""), "{ready}");
}

#[test]
fn a_guest_lives_as_long_as_its_parent_or_on_its_own() {
    let place = Place::new(2, None);
    let started = |guest, lifetime| {
        thread::scope(|scope| {
            let starter = scope.spawn(|| place.start(guest, lifetime));
            starter.join().unwrap()
        })
    };
    // Of two whose starters ended, the one to go goes by SIGKILL.
    let mut own = started(0, Lifetime::Own);
    let mut bound = started(1, Lifetime::WithParent);
    let mut status = None;
    wait_until("the guest ends with its starter", || {
        status = bound.child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status.unwrap()),
        Some(9)
    );
    own.ready();
    assert!(own.child.try_wait().unwrap().is_none());
    // Both lead sessions of their own.
    let stat = own.read("stat");
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    assert_eq!(fields.split(' ').nth(3), Some(&*own.child.id().to_string()));
}

/// The finding of `check` about user ids, of this severity.
fn user_ids(check: &Value, severity: &str) -> Value {
    let findings = check["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["id"] == "user-ids");
    let finding = finding.unwrap().clone();
    assert_eq!(finding["severity"], severity, "{finding}");
    finding
}

/// Launches two guests in a user namespace, and gives the users of their
/// processes, what `check` finds there, and what `launch` said.
fn users_within(namespace: &Namespace) -> (Vec<Vec<String>>, Value, String) {
    let env = TestEnv::new();
    let mut check = namespace.within(&env.imgbuild(["check", "--json", "--accel", "tcg"]));
    let checked = run(check.args(["--guests", "2"])).json_lines().remove(0);
    let launched = run(&mut namespace.within(&detached(&env, "f", 2))).succeeds();
    let fleet = Fleet::of(&env, "f");
    fleet.wait();
    let users = fleet.ps().guests.into_iter().map(|guest| {
        let status = fs::read_to_string(format!("/proc/{}/status", guest.pid.unwrap()));
        let line = status.unwrap();
        let line = line.lines().find_map(|line| line.strip_prefix("Uid:"));
        line.unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    });
    let users = users.collect();
    run(&mut namespace.within(&fleet.imgbuild(["stop", "--all"]))).succeeds();
    fleet.assert_gone();
    (users, checked, launched.stderr)
}

#[test]
fn guests_in_a_container_have_ids_that_are_there() {
    if !rights::is_root("map so many users") {
        return;
    }
    // As LXC and rootless Podman have.
    let (users, check, said) = users_within(&Namespace::with_users(65_536));
    let user = |guest: usize| users[guest][0].parse::<u32>().unwrap();
    assert!((10_000..65_000).contains(&user(0)), "{users:?}");
    assert_eq!(user(1), user(0) + 1);
    user_ids(&check, "ok");
    assert!(!said.contains("process's user id"), "{said}");
}

#[test]
fn guests_where_there_is_one_id_run_under_it_and_that_is_said_once() {
    if !rights::has_namespaces() {
        return;
    }
    let (users, check, said) = users_within(&Namespace::with_users(1));
    // Root of the namespace is who made it.
    let user = geteuid().as_raw().to_string();
    assert_eq!(users, [[&*user; 4], [&*user; 4]]);
    let finding = user_ids(&check, "advice");
    assert!(
        finding["value"].as_str().unwrap().starts_with("1 id here"),
        "{finding}"
    );
    let times = said
        .matches("all guests run under this process's user id")
        .count();
    assert_eq!(times, 1, "{said}");
    assert!(said.contains("denies setgroups(2)"), "{said}");
}
