//! Equal inputs give equal bytes, whatever the machine, the day and the user.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild_tests::{TestEnv, binary, run, workspace};

/// Builds into `out` with no boot, and gives the digests of what it wrote.
fn sums(command: &mut Command, out: &Path) -> String {
    run(command
        .args(["tty-burn", "--no-boot", "--overlays", "3", "--out"])
        .arg(out))
    .succeeds();
    fs::read_to_string(out.join("SHA256SUMS")).unwrap()
}

#[test]
fn digests_do_not_depend_on_who_builds_where() {
    let env = TestEnv::new();
    let plain = sums(&mut env.command(binary()), &env.path().join("plain"));
    assert_eq!(plain.lines().count(), 8);

    let elsewhere = env.path().join("else where/of another length");
    fs::create_dir_all(&elsewhere).unwrap();
    let home = elsewhere.join("home");
    fs::create_dir(&home).unwrap();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"),
        PathBuf::from,
    );
    let mut other = env.command("sh");
    other
        .args(["-c", "umask 077 && exec \"$0\" \"$@\""])
        .arg(binary())
        .current_dir(&elsewhere)
        .env("HOME", &home)
        .env("XDG_CACHE_HOME", cache)
        .env("TZ", "Pacific/Kiritimati")
        .env("LANG", "tr_TR.UTF-8")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("USER", "somebody")
        .env("IMGBUILD_JOBS", "7");
    assert_eq!(sums(&mut other, &elsewhere.join("deeper/out")), plain);
}

#[test]
fn source_date_epoch_is_in_the_files_and_in_the_manifest() {
    let env = TestEnv::new();
    let kernel = env.artifacts("tty-burn").join("vmlinux");
    // A kernel of that time would have to be built.
    let build = |epoch: &str, out: &str| {
        let mut command = env.command(binary());
        command.env("SOURCE_DATE_EPOCH", epoch);
        let out = env.path().join(out);
        command.env("IMGBUILD_KERNEL", &kernel);
        (
            sums(&mut command, &out),
            fs::read_to_string(out.join("manifest.json")).unwrap(),
        )
    };
    let digest = |sums: &str, name: &str| {
        let line = sums
            .lines()
            .find(|line| line.ends_with(&format!("  {name}")));
        line.unwrap().to_owned()
    };
    let [(zero, _), (one, manifest), (again, _)] =
        [("0", "zero"), ("86400", "one"), ("86400", "again")].map(|(epoch, out)| build(epoch, out));
    assert_eq!(one, again);
    assert!(
        manifest.contains("\"source_date_epoch\": 86400\n"),
        "{manifest}"
    );
    for changed in ["initramfs.cpio.gz", "base.qcow2", "manifest.json"] {
        assert_ne!(digest(&zero, changed), digest(&one, changed), "{changed}");
    }
    for equal in ["vmlinux", "overlays/00002.qcow2"] {
        assert_eq!(digest(&zero, equal), digest(&one, equal));
    }
}

/// What builder/build.rs builds of a copy of the checkout at `at`, run as cargo
/// would run it.
fn init_of_a_copy(env: &TestEnv, script: &Path, at: &str, cargo_home: &Path) -> (Command, PathBuf) {
    let checkout = env.path().join(at);
    copy(&workspace(), &checkout);
    let out = env.path().join(format!("target of {at}").replace('/', "-"));
    fs::create_dir(&out).unwrap();
    let mut command = env.command(script);
    command
        .current_dir(checkout.join("builder"))
        .env("CARGO_MANIFEST_DIR", checkout.join("builder"))
        .env("CARGO", tool("cargo"))
        .env("RUSTC", tool("rustc"))
        .env("CARGO_HOME", cargo_home)
        .env("CARGO_NET_OFFLINE", "true")
        .env("OUT_DIR", &out);
    let init = out.join("init/x86_64-unknown-linux-gnu/init/tty-init");
    (command, init)
}

/// A tool of the toolchain that runs this test, not a proxy that picks one.
fn tool(name: &str) -> PathBuf {
    Path::new(env!("CARGO")).with_file_name(name)
}

/// Copies a checkout without what is built in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if ["target", "out", ".git", ".tools"]
            .iter()
            .any(|skipped| name == *skipped)
        {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

#[test]
fn init_does_not_depend_on_the_machine_that_builds_it() {
    let env = TestEnv::new();
    let script = env.path().join("build-script");
    run(env
        .command(tool("rustc"))
        .args(["--edition", "2024", "-o"])
        .arg(&script)
        .arg(workspace().join("builder/build.rs")))
    .succeeds();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"),
        PathBuf::from,
    );
    let other_cargo_home = env.path().join("cargo of somebody else");
    symlink(&cargo_home, &other_cargo_home).unwrap();

    let (mut plain, init) = init_of_a_copy(&env, &script, "a", &cargo_home);
    run(&mut plain).succeeds();
    let init = fs::read(init).unwrap();
    assert_eq!(init[..4], *b"\x7fELF");

    let (mut other, other_init) =
        init_of_a_copy(&env, &script, "b/of another length", &other_cargo_home);
    let home = env.path().join("home");
    fs::create_dir(&home).unwrap();
    other
        .env("HOME", &home)
        .env("USER", "somebody")
        .env("TZ", "Pacific/Kiritimati")
        .env("RUSTFLAGS", "-C opt-level=0 --cfg leaked")
        .env("CARGO_ENCODED_RUSTFLAGS", "-Copt-level=0")
        .env("RUSTC_WRAPPER", "/no/such/wrapper")
        .env("RUSTC_WORKSPACE_WRAPPER", "/no/such/wrapper")
        .env("CARGO_BUILD_TARGET", "no-such-target")
        .env("CARGO_BUILD_JOBS", "1")
        .env("CARGO_INCREMENTAL", "1")
        .env("CARGO_TARGET_DIR", env.path().join("leaked"))
        .env("CARGO_PROFILE_INIT_OPT_LEVEL", "0");
    run(&mut other).succeeds();
    assert!(fs::read(other_init).unwrap() == init, "init differs");
    assert!(!env.path().join("leaked").exists());
}

#[test]
fn init_names_no_path_of_the_machine() {
    let env = TestEnv::new();
    let sysroot = run(env.command(tool("rustc")).args(["--print", "sysroot"]))
        .succeeds()
        .stdout;
    let init = imgbuild::assets::INIT;
    for path in [
        workspace().into_os_string(),
        // What lies below it.
        Path::new(&std::env::var_os("HOME").unwrap())
            .join("")
            .into(),
        OsString::from(sysroot.trim()),
        OsString::from("/.cargo/"),
        OsString::from("/.rustup/"),
        OsString::from("/home/"),
        OsString::from("/target/"),
    ] {
        let wanted = path.as_encoded_bytes();
        let found = (0..init.len()).any(|at| {
            // The guest's own, where an image's SSH server looks.
            init[at..].starts_with(wanted) && !init[at..].starts_with(b"/root/.ssh")
        });
        assert!(!found, "{} is in init", path.display());
    }
}
