//! What a guest's process may do on the host. Takes root, for users of their
//! own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use imgbuild::directories::Directories;
use imgbuild::fleet::folder::Folder;
use imgbuild::fleet::plan::{Artifacts, Common, Login};
use imgbuild::fleet::supervisor::Plan;
use imgbuild::fleet::{key, ports};
use imgbuild::interrupt::Interrupt;
use imgbuild::vmm::{self, Accel, Confinement, Lifetime, Net, Sharing, qemu};
use imgbuild_tests::guest::READY;
use imgbuild_tests::{TestEnv, run, wait_until};

/// Users that nobody else has.
const FIRST_USER: u32 = 1_967_001;

/// Guests' plans in a folder whose name is full of what options and JSON give a
/// meaning to.
struct Site {
    _env: TestEnv,
    folder: Folder,
    out: PathBuf,
    plans: Vec<Plan>,
}

impl Site {
    fn new(count: u32) -> Self {
        let env = TestEnv::new();
        let built = env.artifacts("tty-idle");
        let hostile = env.path().join("a, b=\"c\" 'd' \\ %s {e},,on");
        let out = hostile.join("out");
        fs::create_dir(&hostile).unwrap();
        fs::rename(built, &out).unwrap();
        let directories = Directories {
            cache: env.path().join("cache"),
            state: hostile.join("state"),
            runtime: env.path().join("run"),
        };
        let folder = Folder::create("fleet", &directories).unwrap();
        let artifacts = Artifacts::open(&out).unwrap();
        let plans = Common {
            artifacts: &artifacts,
            folder: &folder,
            accel: Accel::Tcg,
            sharing: Sharing::None,
            net: Net::User,
            memory: artifacts.manifest.recipe.memory,
            parameters: "",
            login: Some(&Login {
                key: key::generate("fleet", &folder).unwrap(),
                ports: ports::choose(folder.path(), count).unwrap(),
            }),
        }
        .plan(count, &Interrupt::never().unwrap())
        .unwrap();
        Self {
            _env: env,
            folder,
            out,
            plans,
        }
    }

    /// Starts a guest as the user of its number.
    fn start(&self, index: usize) -> Guest {
        let plan = &self.plans[index];
        let uid = FIRST_USER + u32::try_from(index).unwrap();
        vmm::hand_over(plan.paths.identity.as_ref().unwrap(), uid).unwrap();
        Guest::start(plan, Lifetime::WithParent, Some(uid))
    }
}

struct Guest {
    child: Child,
    console: BufReader<UnixStream>,
    complaints: PathBuf,
}

impl Guest {
    fn start(plan: &Plan, lifetime: Lifetime, uid: Option<u32>) -> Self {
        let listener = UnixListener::bind(&plan.console).unwrap();
        let console = UnixStream::connect(&plan.console).unwrap();
        let complaints = plan.console.with_extension("errors");
        let errors = File::create(&complaints).unwrap();
        let files = plan.paths.open(listener, errors).unwrap();
        let confinement = Confinement {
            lifetime,
            uid,
            extra: None,
        };
        Self {
            child: qemu::spawn(&plan.spec, files, &confinement).unwrap(),
            console: BufReader::new(console),
            complaints,
        }
    }

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
    let site = Site::new(1);
    let mut guest = site.start(0);
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
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let score: i32 = guest.read("oom_score_adj").trim().parse().unwrap();
    assert_eq!(score, (own + 500).min(1000));
    assert_eq!(fs::read_link(guest.proc("cwd")).unwrap(), Path::new("/"));

    // Every open file is one it was handed, its complaints, or of its own making.
    let paths = &site.plans[0].paths;
    let handed: BTreeSet<_> = [
        &paths.kernel,
        &paths.initramfs,
        &paths.base,
        &paths.overlay,
        paths.identity.as_ref().unwrap(),
        &guest.complaints,
    ]
    .into_iter()
    .cloned()
    .collect();
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
    // The console's two, and the one that listens for SSH.
    assert_eq!(sockets, 3);
}

#[test]
fn a_guest_s_user_reaches_nothing_of_the_fleet_s() {
    let site = Site::new(2);
    let mut guests = [site.start(0), site.start(1)];
    for guest in &mut guests {
        guest.ready();
    }
    let (one, other) = (FIRST_USER, FIRST_USER + 1);
    let mine = &site.plans[0].paths;
    let secret = [
        mine.overlay.clone(),
        mine.identity.clone().unwrap(),
        site.folder.path().join("key"),
        site.plans[0].console.clone(),
    ];
    for uid in [one, other] {
        assert!(!can(uid, LIST, site.folder.path()));
        for path in &secret {
            assert!(!can(uid, READ, path), "{uid} reads {}", path.display());
            assert!(!can(uid, WRITE, path), "{uid} writes {}", path.display());
        }
    }
    // By its process's descriptors it has what it was handed, and may change
    // nothing but its disk.
    let identity = guests[0].descriptor(mine.identity.as_ref().unwrap());
    assert!(can(one, READ, &identity));
    for path in [&mine.kernel, &mine.initramfs, &mine.base] {
        let descriptor = guests[0].descriptor(path);
        assert!(can(one, READ, &descriptor), "{}", path.display());
        assert!(!can(one, WRITE, &descriptor), "{}", path.display());
    }
    assert!(!can(one, WRITE, &identity));
    assert!(!can(other, READ, &identity));
    assert!(!can(other, READ, &guests[0].descriptor(&mine.overlay)));
    // Nor can it signal or trace another's process.
    let kill = "kill -0 \"${1#/proc/}\" 2>/dev/null";
    let process = PathBuf::from(format!("/proc/{}", guests[0].child.id()));
    assert!(can(one, kill, &process));
    assert!(!can(other, kill, &process));
    assert!(!can(other, READ, &process.join("mem")));
}

#[test]
fn a_kernel_that_is_closed_to_others_is_told_before_and_by_qemu() {
    let site = Site::new(1);
    let kernel = &site.plans[0].paths.kernel;
    let file = File::open(kernel).unwrap();
    vmm::readable_by(&file, kernel, FIRST_USER).unwrap();
    run(Command::new("chmod").arg("0400").arg(kernel)).succeeds();
    let error = vmm::readable_by(&file, kernel, FIRST_USER).unwrap_err();
    assert!(error.to_string().contains("mode 0400"), "{error}");
    let mut guest = site.start(0);
    assert!(!guest.child.wait().unwrap().success());
    let complaints = fs::read_to_string(&guest.complaints).unwrap();
    assert!(complaints.contains("/dev/fd/4"), "{complaints}");
}

#[test]
fn the_disk_under_an_overlay_is_what_was_handed_over() {
    let mut site = Site::new(1);
    // The path in the overlay's header leads nowhere now.
    let moved = site.out.with_file_name("moved");
    fs::rename(&site.out, &moved).unwrap();
    let paths = &mut site.plans[0].paths;
    for path in [&mut paths.kernel, &mut paths.initramfs, &mut paths.base] {
        *path = moved.join(path.file_name().unwrap());
    }
    let ready = site.start(0).ready();
    assert!(ready.contains("\"disk\":\"up\""), "{ready}");
}

#[test]
fn a_guest_lives_as_long_as_its_parent_or_on_its_own() {
    let site = Site::new(2);
    let started = |index: usize, lifetime| {
        let plan = &site.plans[index];
        thread::scope(|scope| {
            let starter = scope.spawn(|| Guest::start(plan, lifetime, None));
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
