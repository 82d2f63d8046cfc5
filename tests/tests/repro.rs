//! The kernel from source, twice: the same bytes wherever and however it is
//! built. Two full kernel builds take too long for every run.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;

use imgbuild_tests::TestEnv;
use serde_json::Value;

/// Asks for the builds.
const ASKED: &str = "IMGBUILD_REPRO";

/// Builds tty-burn's kernel from its source, everything below `folder`, and
/// gives the bytes of the kernel and of its configuration.
fn build(env: &TestEnv, folder: &str, jobs: &str) -> [Vec<u8>; 2] {
    let folder = env.path().join(folder);
    let out = folder.join("out");
    fs::create_dir_all(folder.join("tmp")).unwrap();
    let output = env
        .imgbuild(["kernel", "build", "--json", "--jobs", jobs, "--out"])
        .arg(&out)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("TMPDIR", folder.join("tmp"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    let built: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(built["cached"], false, "{built}");
    ["vmlinux", "kernel.config"].map(|name| fs::read(out.join(name)).unwrap())
}

#[test]
fn a_kernel_built_in_another_folder_by_more_jobs_is_the_same() {
    if std::env::var_os(ASKED).is_none() {
        // Past the harness, which keeps what a test that passes prints.
        writeln!(
            std::io::stderr(),
            "not run: two kernel builds take minutes; `just repro` ({ASKED}=1) runs them"
        )
        .unwrap();
        return;
    }
    let env = TestEnv::new();
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| build(&env, "a", "1"));
        let other = build(&env, "a/folder/whose/name/is/much/longer", "3");
        (one.join().unwrap(), other)
    });
    // Not by assert_eq, which would print megabytes.
    assert!(one[1] == other[1], "kernel.config differs");
    assert!(one[0] == other[0], "vmlinux differs");
}
