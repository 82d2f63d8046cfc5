//! Rights that a user lacks: a test that takes them is skipped where a user runs it,
//! and none is where root does. The unit tests of imgbuild have this file too.

use std::io::Write as _;
use std::process::Command;
use std::thread;

use rustix::process::geteuid;

/// Whether this process is root. If not, the test is to end here, and it is said that
/// it is skipped, and what root alone may do in it.
#[must_use]
pub fn is_root(may: &str) -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        skip(&format!("root, who alone may {may}"));
    }
    is_root
}

/// Whether this process may have mounts of its own: as root, or in a user namespace
/// where the machine gives users one. If not, the test is to end here, and it is said
/// that it is skipped.
#[must_use]
pub fn has_namespaces() -> bool {
    if geteuid().is_root() {
        return true;
    }
    let tried = Command::new("unshare")
        .args(own_mounts())
        .args(["mount", "-t", "tmpfs", "none", "/tmp"])
        .output();
    let has = tried.is_ok_and(|tried| tried.status.success());
    if !has {
        skip("mounts of its own, for which this machine gives users no namespace");
    }
    has
}

/// Options of unshare(1) for mounts of a command's own, as root of them.
#[must_use]
pub fn own_mounts() -> &'static [&'static str] {
    if geteuid().is_root() {
        &["--mount"]
    } else {
        &["--map-root-user", "--mount"]
    }
}

/// Whether this test may mount: as root, also as one of a user namespace in which it
/// runs again for a user. If not, the test is to end here: it has passed there, or it
/// is said that it is skipped.
#[must_use]
pub fn may_mount() -> bool {
    let is_root = geteuid().is_root();
    if !is_root && has_namespaces() {
        let output = Command::new("unshare")
            .args(own_mounts())
            .arg(std::env::current_exe().expect("/proc is mounted"))
            .args(["--exact", &test()])
            .output()
            .expect("unshare runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "as root of a user namespace: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    is_root
}

/// The test that runs on this thread.
fn test() -> String {
    let thread = thread::current();
    thread.name().expect("the harness names it").to_owned()
}

/// Says that the test is skipped, and what it takes.
pub fn skip(what: &str) {
    // Past the harness, which keeps what a test that passes prints.
    let line = format!("skipped: {} takes {what}\n", test());
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("stderr is open");
}
