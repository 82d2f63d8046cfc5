//! On this host, with settings that harm nobody.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::super::{Holder, Keeper, Knob, Outcome, Owner, SettingsError, file, guests};
use super::fake::setting;
use crate::sample::ksm::ksmd;
use crate::sample::source::Source;

/// The live settings and this process, with a `/run` of its own. Guests that
/// happen to be on this host are not there.
fn live() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["proc", "run"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    let this = format!("proc/{}", std::process::id());
    let ksmd = ksmd(&mut Source::new(Path::new("/"), &mut Vec::new()));
    let ksmd = ksmd.map(|ksmd| format!("proc/{}", ksmd.pid));
    let places = ["sys", "proc/sys", "proc/self", "proc/meminfo", &this];
    for place in places.into_iter().chain(ksmd.as_deref()) {
        symlink(format!("/{place}"), root.path().join(place)).unwrap();
    }
    root
}

/// The right to change this host's settings, or to look like a guest on it, for
/// one test at a time: the integration tests take it too.
fn alone() -> File {
    let path = std::env::temp_dir().join("imgbuild-live-settings.lock");
    // Root may not create what another user has made (fs.protected_regular).
    let lock = File::open(&path).or_else(|_| File::create(&path)).unwrap();
    lock.lock().unwrap();
    lock
}

/// Puts a knob back however the test ends.
struct Guard {
    knob: Knob,
    value: i64,
}

impl Guard {
    fn of(knob: Knob) -> Self {
        let value = file::read("/".as_ref(), knob).unwrap();
        Self { knob, value }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !matches!(file::read("/".as_ref(), self.knob), Ok(value) if value == self.value) {
            let _ = file::write("/".as_ref(), self.knob, self.value);
        }
    }
}

/// Whether these settings can be written here; otherwise the refusal is what is
/// tested.
fn writable(owner: &Owner, knob: Knob, value: i64) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    eprintln!("NOT ROOT: testing that {knob} is refused, not that it is written");
    let error = owner
        .apply(&[setting(knob, value)], &Holder::User)
        .unwrap_err();
    assert!(matches!(error, SettingsError::Denied { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&knob.to_string()) && text.contains("as root"));
    false
}

#[test]
fn the_kernel_takes_what_is_written_and_has_it_back() {
    let _alone = alone();
    let root = live();
    let owner = Owner::new(root.path());
    for knob in [Knob::ThreadsMax, Knob::KsmPagesToScan, Knob::KsmdNice] {
        let Ok(old) = file::read("/".as_ref(), knob) else {
            eprintln!("SKIPPED: {knob} is not to be had here");
            continue;
        };
        let now = old + 1;
        if !writable(&owner, knob, now) {
            continue;
        }
        let guard = Guard::of(knob);
        let holder = Holder::this_process("live").unwrap();
        let applied = owner.apply(&[setting(knob, now)], &holder).unwrap();
        assert_eq!(applied[0].outcome, Outcome::Written { old, now });
        assert_eq!(file::read("/".as_ref(), knob).unwrap(), now);
        let held = owner.restore().unwrap().held;
        assert_eq!(held[0].by, [Keeper::Holder(holder.clone())]);
        let report = owner.release(&holder).unwrap();
        assert_eq!((report.restored[0].from, report.restored[0].to), (now, old));
        assert_eq!(file::read("/".as_ref(), knob).unwrap(), old);
        drop(guard);
    }
}

#[test]
fn a_process_is_a_guest_until_it_is_a_zombie() {
    let _alone = alone();
    let root = live();
    assert_eq!(guests::living(root.path()).unwrap(), 0);
    let mut child = Command::new("sh")
        .args(["-c", "echo; read line", "sh", "-fw_cfg"])
        .arg("name=opt/imgbuild/identity,file=/alice/g00000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Until it runs, its command line may be empty.
    let mut line = [0];
    child.stdout.take().unwrap().read_exact(&mut line).unwrap();
    let place = format!("proc/{}", child.id());
    symlink(format!("/{place}"), root.path().join(&place)).unwrap();
    assert_eq!(guests::living(root.path()).unwrap(), 1);
    drop(child.stdin.take());
    let stat = format!("/{place}/stat");
    while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
        std::thread::yield_now();
    }
    assert_eq!(guests::living(root.path()).unwrap(), 0);
    child.wait().unwrap();
    assert_eq!(guests::living(root.path()).unwrap(), 0);
}
