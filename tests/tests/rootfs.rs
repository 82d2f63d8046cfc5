//! Root file systems as they are in the wild: what is odd about them is kept, and
//! what cannot run is refused by the build.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Stdio;

use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::{TestEnv, finish, run, start, wait_until};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};

/// Size of a file with holes.
const SPARSE: u64 = 3 << 20;

/// A folder with BusyBox and what archives of the wild have.
fn image(env: &TestEnv) -> PathBuf {
    let root = env.path().join("root");
    for folder in [
        "bin",
        "etc/pki",
        "srv",
        "usr/lib/jvm/lib/security",
        "var/log",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "cat", "ls", "od", "tail"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/pki/cacerts"), "certs\n").unwrap();
    // Amazon Corretto's: more `..` than it is deep.
    let climbs = "../../../../../../../../etc/pki/cacerts";
    symlink(climbs, root.join("usr/lib/jvm/lib/security/cacerts")).unwrap();
    let name = OsStr::from_bytes(b"srv/Pr\xfcfung.txt");
    fs::write(root.join(name), "latin\n").unwrap();
    let log = File::create(root.join("var/log/lastlog")).unwrap();
    log.write_all_at(b"end\n", SPARSE - 4).unwrap();
    root
}

#[test]
fn images_of_the_wild_are_built_from_a_pipe_and_run() {
    let env = TestEnv::new();
    image(&env);
    let run_in_sh = |script: &str| {
        let mut sh = env.command("sh");
        sh.args(["-c", script, "sh"]).arg(imgbuild_tests::binary());
        run(&mut sh).succeeds()
    };
    run_in_sh(
        "bsdtar -C root -cf root.tar . && zstd -q root.tar && \
         \"$1\" build debian-shell --no-boot --rootfs root.tar.zst --out read",
    );
    run_in_sh("cat root.tar.zst | \"$1\" build debian-shell --no-boot --rootfs - --out piped");
    let [piped, read] = ["piped", "read"].map(|out| {
        let path = env.path().join(out);
        let manifest = fs::read_to_string(path.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        (
            manifest["files"]["base.qcow2"]["sha256"].clone(),
            manifest["inputs"]["rootfs"].clone(),
        )
    });
    assert_eq!(piped, read);
    assert!(piped.1["size"].as_u64().unwrap() > 100_000);

    run(env
        .imgbuild(["launch", "--detach", "--accel", "tcg", "--no-canary"])
        .args(["--count", "1", "piped"]))
    .succeeds();
    let fleet = Fleet::of(&env, "debian-shell");
    fleet.wait();
    let says = |command: &str| {
        let finished = run(&mut fleet.imgbuild(["ssh", "g00000", "--", command]));
        finished.succeeds().stdout
    };
    assert_eq!(says("cat /usr/lib/jvm/lib/security/cacerts"), "certs\n");
    assert_eq!(says("cat /srv/Pr*"), "latin\n");
    assert!(says("echo /srv/* | od -c").contains("P   r 374   f"));
    assert_eq!(says("tail -c 4 /var/log/lastlog"), "end\n");
}

#[test]
fn a_pipe_that_ends_or_waits_is_not_a_root_file_system() {
    let env = TestEnv::new();
    let build = ["build", "debian-shell", "--no-boot", "--rootfs", "-"];
    let mut empty = env.imgbuild(build);
    run(empty.stdin(Stdio::null()))
        .exits(1)
        .says(&["incomplete"]);

    let mut waits = start(env.imgbuild(build).stdin(Stdio::piped()));
    // Half a header, so that it was begun to be read.
    let pid = Pid::from_child(&waits);
    let stdin = waits.stdin.as_mut().unwrap();
    stdin.write_all(&[b'a'; 300]).unwrap();
    wait_until("the pipe is read", || ioctl_fionread(&*stdin).unwrap() == 0);
    kill_process(pid, Signal::INT).unwrap();
    finish(waits).exits(130).says(&["interrupted"]);
    assert!(!env.path().join("out/debian-shell").exists());
}

#[test]
fn archives_without_a_user_land_are_refused_with_what_they_hold() {
    let env = TestEnv::new();
    let root = image(&env);
    let refused = |folder: &str, options: &[&str], said: &[&str]| {
        let tar = ["-cf", "root.tar", "-C"];
        run(env
            .command("tar")
            .args(tar)
            .arg(folder)
            .args(options)
            .arg("."))
        .succeeds();
        let build = ["build", "debian-shell", "--no-boot", "--rootfs", "root.tar"];
        run(&mut env.imgbuild(build)).exits(1).says(said);
    };
    let layers = env.path().join("layers");
    fs::create_dir_all(layers.join("blobs/sha256")).unwrap();
    fs::write(layers.join("manifest.json"), "[{}]").unwrap();
    fs::write(layers.join("oci-layout"), "{}").unwrap();
    refused(
        "layers",
        &[],
        &["root.tar", "no /bin/sh", "`docker export`"],
    );
    let prefix = ["--transform", "s,^\\.,root.x86_64,"];
    refused(
        "root",
        &prefix,
        &["below `root.x86_64`", "tar -C root.x86_64 -c ."],
    );
    fs::set_permissions(root.join("bin/busybox"), Permissions::from_mode(0o644)).unwrap();
    refused(
        "root",
        &[],
        &["no /bin/sh that can be run", "bin, etc, srv, usr, var"],
    );
    assert!(!env.path().join("out/debian-shell").exists());
}

#[test]
fn an_init_of_the_image_gives_way_and_a_disk_that_is_not_the_root_fails_the_boot() {
    let env = TestEnv::new();
    let root = image(&env);
    fs::write(root.join("init"), "#!/bin/sh\necho I am s6\n").unwrap();
    fs::write(root.join("proc"), "in the way of a mount").unwrap();
    run(env
        .command("tar")
        .args(["-cf", "root.tar", "-C", "root", "."]))
    .succeeds();
    let kernel = env.artifacts("tty-idle").join("vmlinux");
    let build = |arguments: &[&str]| {
        let mut build = env.imgbuild(["build", "debian-shell", "--rootfs", "root.tar"]);
        build.args(arguments).arg("--kernel").arg(&kernel);
        env.without_kvm(&mut build);
        run(&mut build)
    };
    build(&["--no-boot", "--rootfs-place", "initramfs"])
        .succeeds()
        .says(&["replaces the image's own /init"]);
    let out = env.path().join("out/debian-shell");
    fs::remove_dir_all(&out).unwrap();
    build(&[]).exits(1).says(&["cannot use its disk", "/proc"]);
    assert!(!out.exists());
}
