//! `imgbuild tty-burn`: what a user sees and finds, by the tools a user has.

use std::fs;
use std::path::Path;

use imgbuild_tests::tree::Tree;
use imgbuild_tests::{Finished, TestEnv, rights, run};
use serde_json::Value;

/// The files of an output folder with one overlay.
const FILES: [&str; 8] = [
    "SHA256SUMS",
    "base.qcow2",
    "initramfs.cpio.gz",
    "kernel.config",
    "manifest.json",
    "overlays",
    "overlays/00000.qcow2",
    "vmlinux",
];

fn qemu_img(env: &TestEnv, arguments: &[&str], image: &Path) -> Finished {
    run(env.command("qemu-img").args(arguments).arg(image))
}

/// What `qemu-img` says of an image and all that is behind it.
fn chain(env: &TestEnv, image: &Path) -> Vec<Value> {
    let info = ["info", "--backing-chain", "--output=json"];
    let finished = qemu_img(env, &info, image).succeeds();
    serde_json::from_str(&finished.stdout).unwrap()
}

fn manifest(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("manifest.json")).unwrap()).unwrap()
}

#[test]
fn shows_a_guest_that_booted_and_burns() {
    let env = TestEnv::new();
    let finished = run(&mut env.imgbuild(["tty-burn"])).succeeds();
    assert!(
        !finished.stdout.contains("{\"event\""),
        "{}",
        finished.stdout
    );
    let (_, next) = finished.stdout.split_once("next       ").unwrap();
    let words: Vec<_> = next.split_whitespace().collect();
    assert_eq!(words[0], imgbuild_tests::binary().to_str().unwrap());
    assert_eq!(words[1..4], ["launch", "--count", "3"]);

    let (_, counter) = finished.stdout.split_once("burn counter ").unwrap();
    let (counter, _) = counter.split_once(" rounds").unwrap();
    let (first, second) = counter.split_once(" → ").unwrap();
    let [first, second]: [u64; 2] = [first, second].map(|rounds| rounds.parse().unwrap());
    assert!(first < second, "{counter}");

    let out = env.path().join("out/tty-burn");
    let finished = finished.shows(&[&format!("output     {}", out.display())]);
    assert!(finished.stdout.contains("kernel     Linux "));
    env.assert_no_process_left();
    env.assert_no_fleet_left();
}

#[test]
fn json_holds_the_report_and_the_resolved_values() {
    let env = TestEnv::new();
    let mut command = env.imgbuild([
        "tty-burn",
        "--json",
        "--overlays",
        "3",
        "--disk-size",
        "512M",
    ]);
    env.without_kvm(&mut command);
    let finished = run(&mut command).succeeds();
    let [report] = &finished.json_lines()[..] else {
        panic!("not one object: {}", finished.stdout);
    };
    let out = env.path().join("out/tty-burn");
    assert_eq!(report["out"], out.to_str().unwrap());
    assert_eq!(report["manifest"], manifest(&out));
    let options = &report["manifest"]["options"];
    assert_eq!(
        [&options["overlays"], &options["source_date_epoch"]],
        [3, 0]
    );
    assert_eq!(options["disk_size"], "512M");
    assert_eq!(report["boot"]["accel"], "tcg");
    let rounds = &report["boot"]["rounds"];
    assert!(rounds[0].as_u64() < rounds[1].as_u64(), "{rounds}");
    let words = report["boot"]["words"].as_array().unwrap().iter();
    let mut messages = words.filter_map(|word| serde_json::from_str(word.as_str()?).ok());
    let ready: Value = messages
        .find(|word: &Value| word["event"] == "ready")
        .unwrap();
    assert_eq!(
        [&ready["id"], &ready["identity"], &ready["disk"]],
        ["g00000", "applied", "up"]
    );
    env.assert_no_process_left();
}

#[test]
fn the_folder_holds_what_the_manifest_says() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    assert_eq!(Tree::of(&out).names(), FILES);
    run(env
        .command("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&out))
    .succeeds();
    let listed: Vec<String> = fs::read_to_string(out.join("SHA256SUMS"))
        .unwrap()
        .lines()
        .map(|line| line.split_once("  ").unwrap().1.to_owned())
        .collect();
    let mut wanted: Vec<_> = FILES.to_vec();
    wanted.retain(|name| !["SHA256SUMS", "overlays"].contains(name));
    assert_eq!(sorted(listed), wanted);

    let manifest = manifest(&out);
    let files = manifest["files"].as_object().unwrap();
    wanted.retain(|name| *name != "manifest.json");
    assert_eq!(sorted(files.keys().cloned().collect()), wanted);
    for (name, record) in files {
        let size = fs::metadata(out.join(name)).unwrap().len();
        assert_eq!(record["size"], size, "{name}");
    }
    run(env.imgbuild(["verify"]).arg(&out)).succeeds();
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

#[test]
fn the_manifest_names_neither_this_machine_nor_this_day() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let text = fs::read_to_string(out.join("manifest.json")).unwrap();
    let home = std::env::var("HOME").unwrap();
    for path in [
        env.path().to_str().unwrap(),
        imgbuild_tests::workspace().to_str().unwrap(),
        &home,
        "/usr/",
        "/tmp/",
    ] {
        assert!(!text.contains(path), "{path} is in {text}");
    }
    let year = run(env.command("date").arg("+%Y")).succeeds().stdout;
    assert!(!text.contains(year.trim()), "{text}");
}

#[test]
fn qemu_img_finds_base_and_overlay_sound() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let overlay = out.join("overlays/00000.qcow2");
    for image in [&overlay, &out.join("base.qcow2")] {
        qemu_img(&env, &["check"], image)
            .succeeds()
            .shows(&["No errors were found"]);
    }
    let chain = chain(&env, &overlay);
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[0]["backing-filename"], "../base.qcow2");
    assert_eq!(chain[0]["backing-filename-format"], "qcow2");
    for image in chain {
        assert_eq!(image["format"], "qcow2");
        assert_eq!(image["virtual-size"], 1_u64 << 30);
    }
}

#[test]
fn disk_size_is_that_of_base_and_overlays() {
    let env = TestEnv::new();
    let out = env.path().join("out/tty-burn");
    run(&mut env.imgbuild([
        "tty-burn",
        "--no-boot",
        "--disk-size",
        "2G",
        "--overlays",
        "2",
    ]))
    .succeeds();
    for image in chain(&env, &out.join("overlays/00001.qcow2")) {
        assert_eq!(image["virtual-size"], 2_u64 << 30);
    }
    assert_eq!(manifest(&out)["options"]["disk_size"], "2G");
    // The file system fills the disk, by its own account.
    let raw = env.path().join("raw");
    run(env
        .command("qemu-img")
        .args(["convert", "-O", "raw"])
        .args([&out.join("base.qcow2"), &raw]))
    .succeeds();
    run(env.command("dumpe2fs").arg("-h").arg(&raw))
        .succeeds()
        .shows(&[
            "Block count:              524288\n",
            "Block size:               4096\n",
        ]);
}

#[test]
fn as_many_overlays_as_asked_for() {
    let env = TestEnv::new();
    let out = env.path().join("out/tty-burn");
    for count in [0, 1, 1000] {
        let overlays = count.to_string();
        run(&mut env.imgbuild(["tty-burn", "--no-boot", "--overlays", &overlays])).succeeds();
        let found = Tree::of(&out.join("overlays"));
        let wanted: Vec<_> = (0..count)
            .map(|index| format!("{index:05}.qcow2"))
            .collect();
        assert_eq!(found.names(), wanted);
        run(&mut env.imgbuild(["verify"])).succeeds();
    }
    let last = out.join("overlays/00999.qcow2");
    qemu_img(&env, &["check"], &last).succeeds();
    assert_eq!(chain(&env, &last).len(), 2);
}

#[test]
fn a_moved_folder_still_works() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    let moved = env.path().join("else where");
    fs::rename(out, &moved).unwrap();
    run(env.imgbuild(["verify"]).arg(&moved)).succeeds();
    assert_eq!(chain(&env, &moved.join("overlays/00000.qcow2")).len(), 2);
    run(env
        .imgbuild(["launch", "--count", "1", "--accel", "tcg", "--for", "1s"])
        .arg(&moved))
    .succeeds();
}

#[test]
fn no_boot_starts_no_guest() {
    let env = TestEnv::new();
    let mut command = env.imgbuild(["tty-burn", "--no-boot", "--json"]);
    env.stand_in(imgbuild_tests::stand_in::QEMU, "touch started; exit 1");
    command.env("PATH", env.path_with_stand_ins());
    let finished = run(&mut command).succeeds();
    assert_eq!(finished.json_lines()[0]["boot"], Value::Null);
    assert!(!env.path().join("started").exists());
}

#[test]
fn offline_with_a_kernel_in_the_cache_needs_no_network() {
    if !rights::has_namespaces() {
        return;
    }
    let env = TestEnv::new();
    // Without an interface but loopback, any look at the network fails.
    let mut command = env.command("unshare");
    command
        .args(["--user", "--map-root-user", "--net"])
        .arg(imgbuild_tests::binary())
        .args(["tty-burn", "--no-boot", "--offline", "--json"]);
    let finished = run(&mut command).succeeds();
    assert_eq!(finished.json_lines()[0]["kernel_cached"], true);
}

#[test]
fn the_next_build_takes_the_place_of_the_last() {
    let env = TestEnv::new();
    let out = env.path().join("out/tty-burn");
    let mut build = env.imgbuild(["tty-burn", "--no-boot", "--overlays", "2"]);
    run(&mut build).succeeds();
    let first = Tree::of(&out);
    run(&mut env.imgbuild(["tty-burn", "--no-boot"])).succeeds();
    let second = Tree::of(&out);
    assert_eq!(second.names(), FILES);
    assert_ne!(first, second);
    run(&mut env.imgbuild(["verify"])).succeeds();
    assert_eq!(
        Tree::of(&env.path().join("out")).names().len(),
        FILES.len() + 1
    );
}

#[test]
fn the_umask_says_who_may_read_an_output_that_nobody_else_may_write() {
    let env = TestEnv::new();
    let mut sums = Vec::new();
    for (umask, left) in [("000", 0o755), ("022", 0o755), ("077", 0o700)] {
        let out = env.path().join(umask);
        run(env
            .command("sh")
            .args(["-c", "umask $0 && exec \"$@\"", umask])
            .arg(imgbuild_tests::binary())
            .args(["tty-burn", "--no-boot", "--out"])
            .arg(&out))
        .succeeds();
        let tree = Tree::of(env.path());
        let modes = tree.modes();
        for name in FILES {
            let wanted = if name == "overlays" { 0o755 } else { 0o444 };
            // An overlay is there to be written by another tool.
            let wanted = if name.starts_with("overlays/") {
                0o644
            } else {
                wanted
            };
            let found = modes[&*format!("{umask}/{name}")];
            assert_eq!(found, wanted & left, "{umask} {name}");
        }
        assert_eq!(modes[umask], left, "{umask}");
        sums.push(fs::read(out.join("SHA256SUMS")).unwrap());
    }
    // What it holds is the same.
    assert!(sums[0] == sums[1] && sums[1] == sums[2]);
}
