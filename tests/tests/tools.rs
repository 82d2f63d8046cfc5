//! Tools that a build or a launch calls, missing or failing.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use imgbuild_tests::stand_in::QEMU;
use imgbuild_tests::tree::Tree;
use imgbuild_tests::{TestEnv, binary, rights, run};

fn tty_burn(env: &TestEnv, out: &Path, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["tty-burn"]);
    command.args(arguments).arg("--out").arg(out);
    command
}

/// A PATH that lacks nothing but `left_out` of what a build calls.
fn path_without(env: &TestEnv, left_out: &[&str]) -> OsString {
    let tools = [
        "make", "gcc", "ld", "objcopy", "strip", "flex", "bison", "bc", "mke2fs", QEMU,
    ];
    let there: Vec<_> = tools
        .iter()
        .copied()
        .filter(|tool| !left_out.contains(tool))
        .collect();
    env.path_of_only(&there)
}

#[test]
fn each_missing_tool_is_named_with_its_package() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let before = Tree::of(out.parent().unwrap());
    for (left_out, said) in [
        (&["gcc"][..], "apt install gcc"),
        (&["ld"], "apt install binutils"),
        (
            &["make", "flex", "bison", "bc"],
            "apt install bc bison flex make",
        ),
        (&[QEMU], "apt install qemu-system-x86"),
    ] {
        run(tty_burn(&env, &out, &[]).env("PATH", path_without(&env, left_out)))
            .exits(1)
            .says(&[said]);
        assert_eq!(Tree::of(out.parent().unwrap()), before, "{left_out:?}");
    }
    run(env
        .imgbuild(["launch", "--count", "1", "--accel", "tcg"])
        .arg(&out)
        .env("PATH", path_without(&env, &[QEMU])))
    .exits(3)
    .says(&["apt install qemu-system-x86"]);
    env.assert_no_fleet_left();
}

#[test]
fn mke2fs_is_missed_only_where_it_is_nowhere() {
    if !rights::has_namespaces() {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    // It is found off the PATH of an ordinary user.
    run(tty_burn(&env, &out, &["--no-boot"]).env("PATH", path_without(&env, &["mke2fs"])))
        .succeeds();
    let before = Tree::of(out.parent().unwrap());
    let mut command = env.command("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("for folder in /sbin /usr/sbin; do mount -t tmpfs none $folder; done; PATH=$0; exec \"$@\"")
        .arg(path_without(&env, &["mke2fs"]))
        .arg(binary())
        .args(["tty-burn", "--no-boot", "--out"])
        .arg(&out);
    run(&mut command).exits(1).says(&["apt install e2fsprogs"]);
    assert_eq!(Tree::of(out.parent().unwrap()), before);
}

#[test]
fn a_tool_that_fails_is_quoted() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let before = Tree::of(out.parent().unwrap());
    env.stand_in_e2fsprogs("mke2fs", "echo 'the moon is full' >&2; exit 3");
    run(tty_burn(&env, &out, &["--no-boot"]).env("PATH", env.path_with_stand_ins()))
        .exits(1)
        .says(&["mke2fs", "exit status: 3", "the moon is full"]);
    assert_eq!(Tree::of(out.parent().unwrap()), before);
}

/// They take options that they ignore, and make other bytes without a word.
#[test]
fn another_program_of_a_tool_s_name_is_refused_with_its_path() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let before = Tree::of(out.parent().unwrap());
    for (tool, said) in [
        ("mke2fs", "BusyBox v1.35.0 multi-call binary."),
        ("tune2fs", "tune2fs: invalid option"),
    ] {
        env.stand_in(tool, &format!("echo '{said}' >&2; exit 0"));
        let path = env.stand_ins().join(tool);
        run(tty_burn(&env, &out, &["--no-boot"]).env("PATH", env.path_with_stand_ins()))
            .exits(1)
            .says(&[path.to_str().unwrap(), said, "apt install e2fsprogs"]);
        assert_eq!(Tree::of(out.parent().unwrap()), before, "{tool}");
        std::fs::remove_file(path).unwrap();
    }
}
