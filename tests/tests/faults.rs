//! Builds that cannot succeed: each ends with its reason, and the previous
//! output stands as it was.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild_tests::tree::Tree;
use imgbuild_tests::{Finished, TestEnv, binary, rights, run};
use rustix::process::geteuid;

/// A small file system of its own, for as long as this lives.
struct Tmpfs<'a> {
    env: &'a TestEnv,
    path: PathBuf,
}

impl<'a> Tmpfs<'a> {
    fn mount(env: &'a TestEnv, size: &str) -> Self {
        let path = env.path().join("small");
        fs::create_dir(&path).unwrap();
        run(env
            .command("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "small"])
            .arg(&path))
        .succeeds();
        Self { env, path }
    }

    fn make_read_only(&self) {
        run(self
            .env
            .command("mount")
            .args(["-o", "remount,bind,ro"])
            .arg(&self.path))
        .succeeds();
    }

    /// Fills it up but for `bytes`.
    fn leave(&self, bytes: u64) {
        let ballast = self.path.join("ballast");
        let _ = fs::remove_file(&ballast);
        let stat = rustix::fs::statvfs(&self.path).unwrap();
        let fill = stat.f_bavail * stat.f_frsize - bytes;
        fs::write(&ballast, vec![0; usize::try_from(fill).unwrap()]).unwrap();
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn tty_burn(env: &TestEnv, out: &Path, arguments: &[&str]) -> Command {
    let mut command = env.imgbuild(["tty-burn"]);
    command.args(arguments).arg("--out").arg(out);
    command
}

#[test]
fn a_full_file_system_costs_nothing_but_the_build() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let small = Tmpfs::mount(&env, "64M");
    let out = small.path.join("out/tty-burn");
    run(&mut tty_burn(&env, &out, &["--no-boot"])).succeeds();
    let before = Tree::of(&small.path.join("out"));
    let kernel = fs::metadata(out.join("vmlinux")).unwrap().len();
    // Within the kernel, the base and the overlays.
    for (room, overlays) in [
        (0, "0"),
        (1 << 20, "0"),
        (kernel + (64 << 10), "0"),
        (16 << 20, "5000"),
    ] {
        small.leave(room);
        let said = run(&mut tty_burn(
            &env,
            &out,
            &["--no-boot", "--overlays", overlays],
        ))
        .exits(1)
        .stderr;
        assert!(
            said.to_lowercase().contains("no space left"),
            "{room}: {said}"
        );
        assert!(
            said.contains(out.parent().unwrap().to_str().unwrap()),
            "{said}"
        );
        assert_eq!(Tree::of(&small.path.join("out")), before, "{room}");
    }
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
}

#[test]
fn a_launch_without_room_leaves_nothing() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let small = Tmpfs::mount(&env, "1M");
    let launch = |more: &[&str]| {
        let mut command = env.imgbuild(["launch", "--count", "1000", "--accel", "tcg"]);
        run(command
            .args(more)
            .arg(&out)
            .env("XDG_STATE_HOME", &small.path))
    };
    launch(&[]).exits(3).says(&["disk: ", "XDG_STATE_HOME"]);
    launch(&["--force"])
        .exits(1)
        .says(&["No space left on device", "overlays"]);
    env.assert_no_process_left();
    env.assert_no_fleet_left();
    let left = Tree::of(&small.path);
    assert!(!left.names().iter().any(|name| name.contains("tty-idle")));
}

#[test]
fn a_read_only_file_system_is_reported_with_the_way_out() {
    if !rights::may_mount() {
        return;
    }
    let env = TestEnv::new();
    let small = Tmpfs::mount(&env, "64M");
    let out = small.path.join("tty-burn");
    run(&mut tty_burn(&env, &out, &["--no-boot"])).succeeds();
    small.make_read_only();
    let before = Tree::of(&small.path);
    run(&mut tty_burn(&env, &out, &["--no-boot"]))
        .exits(1)
        .says(&[out.to_str().unwrap(), "Read-only file system", "--out"]);
    assert_eq!(Tree::of(&small.path), before);
}

/// Runs imgbuild as a user who has no rights here, where that can be done.
fn as_nobody(env: &TestEnv, arguments: &[&str], folder: &Path) -> Finished {
    if !geteuid().is_root() {
        return run(env.imgbuild(arguments).current_dir(folder));
    }
    // Nobody may enter the folder of the test, or that of the checkout.
    let copy = env.path().join("imgbuild");
    fs::copy(binary(), &copy).unwrap();
    run(env
        .command("sh")
        .args(["-c", "chmod 755 . && chown -R nobody tmp run state \"$0\""])
        .arg(folder))
    .succeeds();
    run(env
        .command("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(copy)
        .args(arguments)
        .env("HOME", folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .current_dir(folder))
}

#[test]
fn root_is_not_needed() {
    let env = TestEnv::new();
    let kernel = env.artifacts("tty-burn").join("vmlinux");
    let home = env.path().join("home");
    fs::create_dir(&home).unwrap();
    let build = ["tty-burn", "--kernel", kernel.to_str().unwrap()];
    as_nobody(&env, &build, &home)
        .succeeds()
        .shows(&["booted     under ", "burn counter"]);
    run(env.imgbuild(["verify"]).arg(home.join("out/tty-burn"))).succeeds();
    env.assert_no_fleet_left();
}

#[test]
fn a_folder_of_somebody_else_is_reported_with_the_way_out() {
    let env = TestEnv::new();
    let kernel = env.artifacts("tty-burn").join("vmlinux");
    let home = env.path().join("home");
    fs::create_dir(&home).unwrap();
    let out = if geteuid().is_root() {
        env.path().join("out/mine")
    } else {
        "/mine".into()
    };
    let build = [
        "tty-burn",
        "--no-boot",
        "--kernel",
        kernel.to_str().unwrap(),
        "--out",
    ];
    as_nobody(
        &env,
        &[&build[..], &[out.to_str().unwrap()]].concat(),
        &home,
    )
    .exits(1)
    .says(&[out.to_str().unwrap(), "Permission denied", "--out"]);
    assert!(!out.exists());
}

#[test]
fn what_imgbuild_did_not_write_is_not_replaced() {
    let env = TestEnv::new();
    let file = env.path().join("file");
    fs::write(&file, "mine").unwrap();
    let folder = env.path().join("folder");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("notes"), "mine").unwrap();
    // Browser extensions have a file of that name too.
    let extension = env.path().join("extension");
    fs::create_dir(&extension).unwrap();
    fs::write(
        extension.join("manifest.json"),
        r#"{"manifest_version": 3}"#,
    )
    .unwrap();
    let added = env.artifacts("tty-burn");
    fs::write(added.join("notes"), "mine").unwrap();

    let before = Tree::of(env.path());
    for (out, said) in [
        (&file, "cannot be read as a folder"),
        (&folder, "holds no manifest.json"),
        (&extension, "holds no manifest.json"),
        (&added, "holds notes"),
        (&file.join("below"), "Not a directory"),
    ] {
        run(&mut tty_burn(&env, out, &["--no-boot"]))
            .exits(1)
            .says(&[out.to_str().unwrap(), said, "--out"]);
    }
    run(&mut tty_burn(&env, Path::new("/"), &["--no-boot"])).exits(1);
    assert_eq!(Tree::of(env.path()), before);
}

#[test]
fn an_empty_folder_or_a_link_to_one_is_taken() {
    let env = TestEnv::new();
    let real = env.path().join("real");
    fs::create_dir(&real).unwrap();
    let link = env.path().join("link");
    symlink("real", &link).unwrap();
    for _ in 0..2 {
        run(&mut tty_burn(&env, &link, &["--no-boot"])).succeeds();
        assert!(link.is_symlink());
        run(env.imgbuild(["verify"]).arg(&real)).succeeds();
    }
}
