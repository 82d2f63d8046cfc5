use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use super::*;

const INSTANCE: Instance = Instance([0xab; 12]);
/// Of a fleet that runs its guests under ids of their own.
const BASE: u32 = 70_000;
const MARK: Mark = Mark {
    instance: INSTANCE,
    users: GuestUsers::From(BASE),
};

fn guest(number: u32) -> GuestIndex {
    GuestIndex::new(number).unwrap()
}

/// The line of `/proc/PID/stat` of a process.
fn stat_line(pid: u32, name: &str, state: char, start_time: u64) -> String {
    let zeros = ["0"; 18].join(" ");
    format!("{pid} ({name}) {state} {zeros} {start_time} 1 2 3\n")
}

/// A host whose processes are files.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir(host.0.path().join("proc")).unwrap();
        host
    }

    fn folder(&self, pid: u32) -> PathBuf {
        self.0.path().join(format!("proc/{pid}"))
    }

    fn process(&self, pid: u32, arguments: &[&str], stat: &str, user: u32) {
        let folder = self.folder(pid);
        self.of(pid, [user; 4]);
        fs::create_dir_all(&folder).unwrap();
        let line = arguments.iter().flat_map(|word| [word, "\0"]);
        let line: String = line.collect();
        fs::write(folder.join("cmdline"), line).unwrap();
        fs::write(folder.join("stat"), stat).unwrap();
    }

    /// Has a process run under these ids: real, effective, saved, and that of the
    /// file system.
    fn of(&self, pid: u32, users: [u32; 4]) {
        let users = users.map(|user| user.to_string()).join("\t");
        let status = format!("Name:\tsh\nUid:\t{users}\nGid:\t0\t0\t0\t0\nGroups:\t \n");
        fs::create_dir_all(self.folder(pid)).unwrap();
        fs::write(self.folder(pid).join("status"), status).unwrap();
    }

    /// A process that looks like the guest of this UUID, under the id of the guest
    /// of that number.
    fn qemu(&self, pid: u32, uuid: &str, stat: &str) {
        let arguments = ["qemu-system-x86_64", "-name", "g", "-uuid", uuid, "-S"];
        let number = uuid
            .get(28..)
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.process(pid, &arguments, stat, BASE + number.unwrap_or(0));
    }

    fn living(&self) -> Vec<(u32, u32, u64)> {
        self.living_of(MARK)
    }

    fn living_of(&self, mark: Mark) -> Vec<(u32, u32, u64)> {
        living(self.0.path(), mark)
            .unwrap()
            .iter()
            .map(|living| (living.guest.get(), living.pid, living.start_time))
            .collect()
    }
}

#[test]
fn guests_are_known_by_their_uuids() {
    let host = Host::new();
    let uuid = |number| INSTANCE.uuid(number);
    host.qemu(20, &uuid(7), &stat_line(20, "qemu-system-x86", 'S', 500));
    host.qemu(30, &uuid(3), &stat_line(30, ") R 1 (a b", 'R', 600));
    // The same guest twice, as after a supervisor that lost track of it.
    host.qemu(10, &uuid(7), &stat_line(10, "", 'D', 501));
    for (pid, other) in [
        (40, Instance([0xac; 12]).uuid(7)),
        (41, uuid(100_000)),
        (42, uuid(7).to_uppercase()),
        (43, uuid(7).replace('-', "")),
        (44, format!("{} ", uuid(7))),
        (45, String::new()),
        (46, "x".repeat(40_000)),
    ] {
        host.qemu(pid, &other, &stat_line(pid, "qemu", 'S', 1));
    }
    host.process(
        50,
        &["sh", &uuid(7)],
        &stat_line(50, "sh", 'S', 1),
        BASE + 7,
    );
    host.process(51, &["qemu", "-uuid"], &stat_line(51, "qemu", 'S', 1), BASE);
    host.process(52, &[], &stat_line(52, "kthreadd", 'S', 1), BASE);
    // Ended, with a parent that has not asked yet.
    host.qemu(60, &uuid(8), &stat_line(60, "qemu", 'Z', 1));
    // Ended between two looks at it.
    host.qemu(61, &uuid(9), "");
    fs::remove_file(host.folder(61).join("stat")).unwrap();
    fs::create_dir(host.folder(62)).unwrap();
    fs::create_dir(host.0.path().join("proc/self")).unwrap();
    assert_eq!(host.living(), [(3, 30, 600), (7, 20, 500), (7, 10, 501)]);
}

#[test]
fn a_guest_is_one_only_under_the_user_that_the_fleet_starts_it_as() {
    let host = Host::new();
    let owned = Mark {
        users: GuestUsers::Owner(1000),
        ..MARK
    };
    let line = stat_line(20, "qemu", 'S', 500);
    host.qemu(20, &INSTANCE.uuid(7), &line);
    for (users, of_the_fleet, of_its_owner) in [
        ([BASE + 7; 4], 1, 0),
        ([1000; 4], 0, 1),
        // Another guest's, a stranger's, root's.
        ([BASE + 8; 4], 0, 0),
        ([1001; 4], 0, 0),
        ([0; 4], 0, 0),
        // Programs that change their user, which a stranger gave these arguments.
        ([1001, 1000, 1000, 1000], 0, 0),
        ([1001, BASE + 7, BASE + 7, BASE + 7], 0, 0),
        ([1000, 0, 0, 0], 0, 0),
    ] {
        host.of(20, users);
        assert_eq!(host.living().len(), of_the_fleet, "{users:?}");
        assert_eq!(host.living_of(owned).len(), of_its_owner, "{users:?}");
        let guests = is_guest(host.0.path(), 20, 500, MARK, guest(7));
        assert_eq!(guests, of_the_fleet == 1, "{users:?}");
    }
    // No id follows the last one.
    let last = Mark {
        users: GuestUsers::From(u32::MAX),
        ..MARK
    };
    assert_eq!(host.living_of(last), []);
    fs::write(host.folder(20).join("status"), "Uid:\t0\n").unwrap();
    let error = living(host.0.path(), MARK).unwrap_err().to_string();
    assert!(error.contains("/proc/20/status"), "{error}");
}

#[test]
fn no_processes_to_look_at_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    assert!(living(empty.path(), MARK).is_err());
}

#[test]
fn a_line_that_was_cut_is_no_process() {
    let line = stat_line(1, "a) b (c", 'S', 12345);
    let host = Host::new();
    host.qemu(5, &INSTANCE.uuid(1), &line[..line.len() / 2]);
    let error = living(host.0.path(), MARK).unwrap_err();
    assert!(error.to_string().contains("/proc/5/stat"), "{error}");
}

#[test]
fn a_number_given_to_another_process_is_not_the_guest() {
    let host = Host::new();
    let is = |start, number| is_guest(host.0.path(), 9, start, MARK, guest(number));
    host.qemu(9, &INSTANCE.uuid(1), &stat_line(9, "qemu", 'S', 77));
    assert!(is(77, 1));
    assert!(!is(76, 1) && !is(77, 2));
    let mark = |start, number| mark(host.0.path(), 9, start, guest(number), 1000);
    assert_eq!(mark(77, 1), Some(MARK));
    assert_eq!((mark(76, 1), mark(77, 2)), (None, None));
    let other = Mark {
        instance: Instance([1; 12]),
        ..MARK
    };
    assert!(!is_guest(host.0.path(), 9, 77, other, guest(1)));
    host.process(9, &["vi"], &stat_line(9, "vi", 'S', 77), BASE + 1);
    assert!(!is(77, 1));
    fs::remove_dir_all(host.folder(9)).unwrap();
    assert!(!is(77, 1));
}

/// What tells the guests of a fleet of this user's.
pub(crate) fn own(instance: Instance) -> Mark {
    Mark {
        instance,
        users: GuestUsers::Owner(rustix::process::geteuid().as_raw()),
    }
}

/// A process that has a UUID and otherwise waits.
pub(crate) struct Waiting(pub Child);

impl Waiting {
    pub(crate) fn start(uuid: &str) -> Self {
        Self::start_as(rustix::process::geteuid().as_raw(), uuid)
    }

    /// One of another user's, which takes root.
    pub(crate) fn start_as(user: u32, uuid: &str) -> Self {
        // More than one command, or sh(1) becomes the last one.
        let child = Command::new("sh")
            .args(["-c", "read line; read line", "sh", "-uuid", uuid])
            .stdin(Stdio::piped())
            .uid(user)
            .spawn()
            .unwrap();
        let waiting = Self(child);
        // The kernel lets the parent go on before the arguments are in place.
        let folder = PathBuf::from(format!("/proc/{}", waiting.0.id()));
        while command_line(&folder).unwrap().is_empty() {
            std::thread::yield_now();
        }
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_process_is_found_held_and_ended() {
    // Of this test alone.
    let mut bytes = [0x5a; 12];
    bytes[..4].copy_from_slice(&std::process::id().to_be_bytes());
    let instance = Instance(bytes);
    let mark = own(instance);
    let root = Path::new("/");
    let mut process = Waiting::start(&instance.uuid(4));
    let pid = process.0.id();

    let found = living(root, mark).unwrap();
    let start = start_time(root, pid).unwrap();
    let expected = Living {
        guest: guest(4),
        pid,
        start_time: start,
    };
    assert_eq!(found, [expected]);
    assert!(open(pid, start + 1, mark, guest(4)).is_none());
    assert!(open(pid, start, mark, guest(5)).is_none());
    assert!(open(pid, start, MARK, guest(4)).is_none());
    for nobody in [0, u32::MAX, i32::MAX.cast_unsigned()] {
        assert!(open(nobody, start, mark, guest(4)).is_none());
    }
    let held = open(pid, start, mark, guest(4)).unwrap();
    pidfd_send_signal(&held, Signal::KILL).unwrap();

    // A zombie until it is waited for, and then nothing.
    rustix::process::waitid(
        rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&held)),
        rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
    )
    .unwrap();
    assert_eq!(living(root, mark).unwrap(), []);
    assert!(open(pid, start, mark, guest(4)).is_none());
    process.0.wait().unwrap();
    assert!(start_time(root, pid).is_err());
}

#[test]
fn waits_until_a_process_has_ended() {
    let mut process = Waiting::start("");
    let pid = process.0.id();
    let start = start_time(Path::new("/"), pid).unwrap();
    let interrupt = Interrupt::never().unwrap();
    let ended = |pid, start, until| wait_for_end(pid, start, until, &interrupt);
    let soon = || Instant::now() + Duration::from_millis(20);
    let late = || Instant::now() + Duration::from_secs(60);
    assert!(!ended(pid, start, soon()).unwrap());
    assert!(ended(pid, start + 1, late()).unwrap(), "another process");

    let impatient = Interrupt::never().unwrap();
    impatient.raise();
    assert!(!wait_for_end(pid, start, late(), &impatient).unwrap());

    process.0.kill().unwrap();
    // It is not waited for: a zombie has ended.
    assert!(ended(pid, start, late()).unwrap());
    process.0.wait().unwrap();
    assert!(ended(pid, start, late()).unwrap());
    for nobody in [0, u32::MAX, i32::MAX.cast_unsigned()] {
        assert!(ended(nobody, start, late()).unwrap());
    }
}
