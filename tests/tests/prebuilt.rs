//! `--kernel PATH`: ready kernels, ours and a distribution's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use imgbuild::digest::Sha256;
use imgbuild_tests::tree::Tree;
use imgbuild_tests::{TestEnv, run, workspace};
use serde_json::{Value, json};

/// The package that stands for the newest cloud kernel of the release.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel as Debian ships it: fetched once and never installed.
fn debian_kernel(env: &TestEnv) -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| fetch_debian_kernel(env))
}

fn fetch_debian_kernel(env: &TestEnv) -> PathBuf {
    let depends = run(env.command("apt-cache").args(["depends", PACKAGE])).succeeds();
    let package = depends
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .unwrap_or_else(|| panic!("apt knows no {PACKAGE}: run `apt-get update`"));
    let release = package.strip_prefix("linux-image-").unwrap();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vmlinuz-{release}"));
    if !kept.is_file() {
        run(env.command("apt-get").args(["download", package])).succeeds();
        let debs = fs::read_dir(env.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let deb = debs
            .into_iter()
            .find(|path| path.extension().is_some_and(|e| e == "deb"));
        let unpacked = env.path().join("unpacked");
        run(env
            .command("dpkg-deb")
            .arg("-x")
            .arg(deb.unwrap())
            .arg(&unpacked))
        .succeeds();
        // Copied beside its place and renamed, so that it is there whole or not at all.
        let whole = tempfile::NamedTempFile::new_in(kept.parent().unwrap()).unwrap();
        fs::copy(
            unpacked.join(format!("boot/vmlinuz-{release}")),
            whole.path(),
        )
        .unwrap();
        whole.persist(&kept).unwrap();
    }
    kept
}

/// A recipe with the memory that a distribution's kernel needs to unpack itself.
fn roomy_recipe(env: &TestEnv) -> PathBuf {
    let recipe = workspace().join("images/tty-burn.toml");
    let text = fs::read_to_string(recipe).unwrap();
    let roomy = text
        .replace("\"64MiB\"", "\"256MiB\"")
        .replace("\"tty-burn\"", "\"roomy\"");
    assert_ne!(text, roomy);
    let path = env.path().join("roomy.toml");
    fs::write(&path, roomy).unwrap();
    path
}

fn with_kernel(env: &TestEnv, kernel: &Path) -> Command {
    let mut command = env.imgbuild(["tty-burn", "--no-boot", "--json", "--kernel"]);
    command.arg(kernel);
    env.own_cache(&mut command);
    command
}

/// What the manifest in `out` says of the kernel, checked against its file.
fn kernel_record(out: &Path) -> Value {
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let kernel = &manifest["kernel"];
    let file = kernel["file"].as_str().unwrap();
    let sha256 = Sha256::of_file(out.join(file)).unwrap().to_string();
    assert_eq!(
        [
            &manifest["files"][file]["sha256"],
            &kernel["source"]["sha256"]
        ],
        [&*sha256; 2]
    );
    kernel.clone()
}

#[test]
fn a_distribution_kernel_reaches_ready_with_a_serial_console_alone() {
    let env = TestEnv::new();
    let kernel = debian_kernel(&env);
    let out = env.path().join("out");
    let mut command = env.imgbuild(["build", "--json", "--kernel"]);
    command
        .arg(kernel)
        .arg(roomy_recipe(&env))
        .arg("--out")
        .arg(&out);
    env.without_kvm(&mut command);
    let built = run(env.own_cache(&mut command))
        .succeeds()
        .json_lines()
        .remove(0);
    let words = built["boot"]["words"].as_array().unwrap();
    let ready = words
        .iter()
        .filter_map(|word| serde_json::from_str::<Value>(word.as_str().unwrap()).ok())
        .find(|word| word["event"] == "ready")
        .unwrap_or_else(|| panic!("{words:?}"));
    // Its drivers are modules, of which it is given none.
    assert_eq!([&ready["disk"], &ready["net"]], ["absent", "absent"]);
    assert_eq!(built["boot"]["lacks"], json!(["disk", "net", "ssh"]));
    assert_eq!(built["manifest"]["kernel"]["lacks"], built["boot"]["lacks"]);

    let record = kernel_record(&out);
    assert_eq!(
        [&record["file"], &record["format"]],
        ["bzImage", "bz-image"]
    );
    assert_eq!(record["source"]["kind"], "prebuilt-file");
    let version = record["source"]["version"].as_str().unwrap();
    assert!(kernel.ends_with(format!("vmlinuz-{version}")), "{version}");
    assert!(!out.join("vmlinux").exists() && !out.join("kernel.config").exists());

    let shortfall = "guests of this kernel have no disk, no network and no SSH";
    let launch = [
        "launch",
        "--count",
        "1",
        "--accel",
        "tcg",
        "--for",
        "1s",
        "--json",
        "--no-canary",
    ];
    let key = env.path().join("key");
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    run(env.command("ssh-keygen").args(keygen).arg(&key)).succeeds();
    let mut launched = env.imgbuild(launch);
    let launched = run(launched.arg("--ssh-key").arg(&key).arg(&out)).succeeds();
    let fleet = launched.json_lines();
    assert_eq!(fleet.last().unwrap()["burning"], 1);
    let launched = launched.says(&[shortfall, "CONFIG_VIRTIO_NET", "--ssh-key is unused"]);
    assert!(
        !launched.stderr.contains("imgbuild ssh"),
        "{}",
        launched.stderr
    );
    assert!(
        !launched.stdout.contains("ssh_config"),
        "{}",
        launched.stdout
    );
    assert!(
        !launched.stdout.contains("127.0.0.1:"),
        "{}",
        launched.stdout
    );
    // A command goes by the console then.
    let mut status = env.imgbuild(["run", "--accel", "tcg"]);
    run(status.arg(&out).args(["--", "status"]))
        .succeeds()
        .says(&[shortfall])
        .shows(&["net=absent ssh=absent"]);
}

#[test]
fn a_kernel_that_finds_no_disk_fails_the_boot_where_the_root_is_on_it() {
    let env = TestEnv::new();
    let kernel = debian_kernel(&env);
    let bin = env.path().join("root/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("sh")).expect("busybox-static is installed");
    run(env
        .command("tar")
        .args(["-cC", "root", "-f", "root.tar", "."]))
    .succeeds();
    let recipe = fs::read_to_string(workspace().join("images/debian-shell.toml")).unwrap();
    fs::write(
        env.path().join("mine.toml"),
        recipe.replace("\"128MiB\"", "\"256MiB\""),
    )
    .unwrap();
    let build = ["build", "./mine.toml", "--rootfs", "root.tar", "--kernel"];
    let mut build = env.imgbuild(build);
    env.without_kvm(build.arg(kernel));
    run(&mut build)
        .exits(1)
        .says(&["ready, but finds no disk", "CONFIG_VIRTIO_BLK", "=y"]);
    assert!(!env.path().join("out").join("debian-shell").exists());
}

#[test]
fn a_guest_too_small_for_its_kernel_is_one_error_with_what_to_give() {
    let env = TestEnv::new();
    let kernel = debian_kernel(&env);
    for verb in ["tty-burn", "build"] {
        let mut build = env.imgbuild([verb]);
        build.args(["tty-burn"].iter().filter(|_| verb == "build"));
        let refused = run(build.arg("--kernel").arg(kernel)).exits(1);
        let told = refused.stderr.lines();
        let told: Vec<_> = told
            .filter(|line| !line.starts_with("kernel source"))
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].contains("gives a guest 64M: give --memory "),
            "{told:?}"
        );
    }
    let out = env.path().join("out/tty-burn");
    run(with_kernel(&env, kernel).args(["--memory", "256M"])).succeeds();
    let manifest = fs::read(out.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!(manifest["recipe"]["memory"], "256M");
    for verb in [
        &["launch", "--count", "1"][..],
        &["run"],
        &["check", "--canary"],
    ] {
        let mut small = env.imgbuild(verb);
        small.args(["--accel", "tcg", "--memory", "64M"]).arg(&out);
        run(&mut small)
            .exits(1)
            .says(&["guests would have 64M: give --memory "]);
    }
    env.assert_no_fleet_left();
    let mut roomy = env.imgbuild(["build", "--no-boot", "--out", "roomy", "--kernel"]);
    roomy.arg(kernel).arg(roomy_recipe(&env));
    let finished = run(&mut roomy).succeeds();
    assert!(finished.stderr.is_empty(), "{}", finished.stderr);
    // Nobody here built it.
    let kernel = finished.stdout.lines().next().unwrap();
    assert!(kernel.ends_with("given ready-made"), "{kernel}");
}

#[test]
fn our_own_kernel_by_path_boots() {
    let env = TestEnv::new();
    let ours = env.artifacts("tty-idle").join("vmlinux");
    let sha256 = Sha256::of_file(&ours).unwrap().to_string();
    let out = env.path().join("out/tty-burn");
    run(with_kernel(&env, &ours).args(["--kernel-sha256", &sha256])).succeeds();
    let record = kernel_record(&out);
    assert_eq!([&record["file"], &record["format"]], ["vmlinux", "elf"]);
    assert!(
        record["source"]["version"]
            .as_str()
            .unwrap()
            .starts_with('6'),
        "{record}"
    );
    assert_eq!(
        fs::read(out.join("vmlinux")).unwrap(),
        fs::read(&ours).unwrap()
    );
    let launch = [
        "launch", "--count", "1", "--accel", "tcg", "--for", "1s", "--json",
    ];
    let fleet = run(&mut env.imgbuild(launch)).succeeds().json_lines();
    assert_eq!(fleet.last().unwrap()["burning"], 1);
}

#[test]
fn a_kernel_that_cannot_boot_is_refused_with_the_reason() {
    let env = TestEnv::new();
    let good = env.artifacts("tty-idle").join("vmlinux");
    run(&mut with_kernel(&env, &good)).succeeds();
    let out = Tree::of(&env.path().join("out"));

    let elf = fs::read(&good).unwrap();
    let debian = fs::read(debian_kernel(&env)).unwrap();
    let mut other_machine = elf.clone();
    other_machine[18] = 183; // e_machine: EM_AARCH64
    let gzip = Command::new("gzip")
        .arg("-c")
        .arg(&good)
        .output()
        .unwrap()
        .stdout;
    let files: [(&str, &[u8], &str); 9] = [
        ("empty", b"", "empty"),
        (
            "text",
            b"this is no kernel\n",
            "neither an ELF file nor a bzImage",
        ),
        ("zeros", &[0; 8192], "neither an ELF file nor a bzImage"),
        ("header", &elf[..40], "truncated"),
        ("half", &elf[..elf.len() / 2], "truncated"),
        ("half-bzimage", &debian[..debian.len() / 2], "truncated"),
        ("arm", &other_machine, "not for x86-64"),
        ("vmlinux.gz", &gzip, "compressed"),
        ("program", &fs::read("/bin/sh").unwrap(), "CONFIG_PVH=y"),
    ];
    for (name, bytes, _) in &files {
        fs::write(env.path().join(name), bytes).unwrap();
    }
    fs::create_dir(env.path().join("folder")).unwrap();
    run(env.command("mkfifo").arg("fifo")).succeeds();
    let others = [
        ("folder", "not a regular file"),
        ("fifo", "not a regular file"),
        ("/dev/null", "not a regular file"),
        ("nowhere", "No such file"),
    ];
    let all = files
        .iter()
        .map(|(name, _, reason)| (*name, *reason))
        .chain(others);
    for (name, reason) in all {
        run(&mut with_kernel(&env, Path::new(name)))
            .exits(1)
            .says(&[name, reason]);
    }
    assert_eq!(Tree::of(&env.path().join("out")), out);
}

#[test]
fn a_kernel_with_another_digest_than_given_is_refused() {
    let env = TestEnv::new();
    let kernel = env.artifacts("tty-idle").join("vmlinux");
    let actual = Sha256::of_file(&kernel).unwrap().to_string();
    let given = Sha256::of_bytes("another").to_string();
    run(with_kernel(&env, &kernel).args(["--kernel-sha256", &given]))
        .exits(1)
        .says(&[&actual, &given]);
    run(with_kernel(&env, &kernel).args(["--kernel-sha256", "abc"])).exits(2);
    assert!(!env.path().join("out/tty-burn").exists());
}

#[test]
fn a_ready_kernel_and_a_source_exclude_each_other() {
    let env = TestEnv::new();
    run(with_kernel(&env, Path::new("vmlinux")).args(["--kernel-source", "pinned"]))
        .exits(2)
        .says(&["--kernel", "--kernel-source"]);
}
