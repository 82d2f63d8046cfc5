//! On this host, with settings that harm nobody.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use super::super::{Holder, Knob, Outcome, Owner, SettingsError, file};
use super::fake::setting;

/// The live `/proc` and `/sys`, with a `/run` of its own.
fn live() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for folder in ["proc", "sys"] {
        symlink(format!("/{folder}"), root.path().join(folder)).unwrap();
    }
    fs::create_dir(root.path().join("run")).unwrap();
    root
}

/// Puts a knob back however the test ends.
struct Guard {
    knob: Knob,
    value: u64,
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
fn writable(owner: &Owner, knob: Knob, value: u64) -> bool {
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
    // One such test at a time on this host.
    let lock = File::create(std::env::temp_dir().join("imgbuild-live-settings.lock")).unwrap();
    lock.lock().unwrap();
    let root = live();
    let owner = Owner::new(root.path());
    for knob in [Knob::ThreadsMax, Knob::KsmPagesToScan] {
        let Ok(old) = file::read("/".as_ref(), knob) else {
            eprintln!("SKIPPED: this kernel has no {knob}");
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
        assert_eq!(held[0].by, std::slice::from_ref(&holder));
        let report = owner.release(&holder).unwrap();
        assert_eq!((report.restored[0].from, report.restored[0].to), (now, old));
        assert_eq!(file::read("/".as_ref(), knob).unwrap(), old);
        drop(guard);
    }
}
