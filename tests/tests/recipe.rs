//! Recipe files: what is wrong with them is reported, what they pack is packed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use imgbuild_tests::tree::Tree;
use imgbuild_tests::{Finished, TestEnv, run, workspace};

const NAME: &str = "mine.toml";

/// A recipe of tty-idle's kernel, with a line for every key.
fn good() -> String {
    let idle = fs::read_to_string(workspace().join("images/tty-idle.toml")).unwrap();
    let (_, kernel) = idle.split_once("[kernel]").unwrap();
    format!(
        "name = \"mine\"\ndescription = \"a test\"\n\
         [guest]\nmemory = \"64MiB\"\nboot_timeout = \"30s\"\n\
         [burn]\nduty = 0\nthreads = 1\n\
         [disk]\nsize = \"16MiB\"\nlabel = \"mine\"\n\
         [kernel]\ncommand_line = \"loglevel=3\"{kernel}"
    )
}

fn build(env: &TestEnv, recipe: &str) -> Finished {
    fs::write(env.path().join(NAME), recipe).unwrap();
    run(&mut env.imgbuild(["build", "./mine.toml", "--no-boot"]))
}

#[test]
fn each_wrong_value_is_reported_with_file_key_and_rule() {
    let env = TestEnv::new();
    build(&env, &good()).succeeds();
    let before = Tree::of(&env.path().join("out/mine"));
    let file = "\n[[files]]\npath = \"/etc/motd\"\nsource = \"motd\"\n";
    for (from, to, said) in [
        (
            "name = \"mine\"",
            "name = \"../mine\"",
            ["name = \"../mine\"", "a-z"],
        ),
        (
            "a test",
            "a\\ntest",
            ["description = \"a\\ntest\"", "one line"],
        ),
        ("64MiB", "8MiB", ["guest.memory = \"8MiB\"", "32M to 1T"]),
        (
            "64MiB",
            "65000K",
            ["guest.memory = \"65000K\"", "whole MiB"],
        ),
        ("64MiB", "much", ["guest.memory = \"much\"", "such as 1G"]),
        (
            "30s",
            "500ms",
            ["guest.boot_timeout = \"500ms\"", "\"1s\" to \"1h\""],
        ),
        ("duty = 0", "duty = 101", ["burn.duty = 101", "0 to 100"]),
        (
            "threads = 1",
            "threads = 65",
            ["burn.threads = 65", "1 to 64"],
        ),
        ("16MiB", "1MiB", ["disk.size = \"1MiB\"", "16M to 2T"]),
        ("16MiB", "16777217", ["disk.size = \"16777217\"", "4 KiB"]),
        (
            "label = \"mine\"",
            "label = \"\"",
            ["disk.label = \"\"", "1 to 16 bytes"],
        ),
        (
            "\"base\"",
            "\"../base\"",
            ["kernel.fragments = \"../base\"", "kernel-config"],
        ),
        (
            "\"base\"",
            "\"bass\"",
            ["no kernel fragment named bass", "base"],
        ),
        (
            "loglevel=3",
            "quiet\\u0007",
            ["kernel.command_line = \"quiet\\u{7}\"", "printable"],
        ),
        (
            "loglevel=3",
            "quiet tty.burn=50",
            ["kernel.command_line = \"quiet tty.burn=50\"", "[burn]"],
        ),
    ] {
        refused(&env, &good(), from, to, &said);
    }
    let with_file = good() + file;
    for (from, to, said) in [
        (
            "/etc/motd",
            "etc/motd",
            ["files.path = \"etc/motd\"", "absolute"],
        ),
        (
            "source = \"motd\"",
            "source = \"motd\"\nmode = \"rw\"",
            ["files.mode = \"rw\"", "octal"],
        ),
    ] {
        refused(&env, &with_file, from, to, &said);
    }
    assert_eq!(Tree::of(&env.path().join("out/mine")), before);
}

fn refused(env: &TestEnv, good: &str, from: &str, to: &str, said: &[&str]) {
    let wrong = good.replacen(from, to, 1);
    assert_ne!(wrong, good, "{from}");
    let finished = build(env, &wrong).exits(2).says(said);
    // The fragments' names are judged against the folder, not the file.
    assert!(
        finished.stderr.contains(NAME) || said[0].contains("no kernel fragment"),
        "{}",
        finished.stderr
    );
    assert_eq!(finished.stdout, "");
}

#[test]
fn what_is_no_recipe_is_reported_with_its_line() {
    let env = TestEnv::new();
    for (recipe, said) in [
        (
            good().replace("duty", "dutty"),
            &["mine.toml", "unknown field `dutty`", "line 7"][..],
        ),
        (good().replace("[disk]", "[disc]"), &["mine.toml", "disc"]),
        (
            good().replace("name = \"mine\"", ""),
            &["mine.toml", "missing field `name`"],
        ),
        ("name = \"mine".to_owned(), &["mine.toml", "line 1"]),
        (String::new(), &["mine.toml", "missing field"]),
    ] {
        build(&env, &recipe).exits(2).says(said);
    }
    fs::write(env.path().join(NAME), b"name = \"\xff\"").unwrap();
    run(&mut env.imgbuild(["build", "./mine.toml"]))
        .exits(2)
        .says(&["mine.toml", "UTF-8"]);
    fs::remove_file(env.path().join(NAME)).unwrap();
    fs::create_dir(env.path().join(NAME)).unwrap();
    run(&mut env.imgbuild(["build", "./mine.toml"]))
        .exits(2)
        .says(&["mine.toml", "directory"]);
}

#[test]
fn a_file_that_is_not_there_is_reported_with_its_key() {
    let env = TestEnv::new();
    let file = good() + "\n[[files]]\npath = \"/etc/motd\"\nsource = \"motd\"\n";
    build(&env, &file)
        .exits(1)
        .says(&["mine", "files.source", "motd", "No such file"]);
    let rootfs = good() + "\n[rootfs]\nplace = \"initramfs\"\nsource = \"root.tar\"\n";
    build(&env, &rootfs)
        .exits(1)
        .says(&["mine", "rootfs.source", "root.tar", "No such file"]);
    assert!(!env.path().join("out/mine").exists());
}

/// Unpacks the initramfs of an output folder with cpio, but for the device, which root
/// alone may make, and says where.
fn unpack(env: &TestEnv, out: &Path) -> PathBuf {
    let into = env.path().join("unpacked");
    fs::create_dir(&into).unwrap();
    run(env
        .command("sh")
        .args([
            "-c",
            "zcat \"$0\" | cpio --extract --quiet --make-directories --nonmatching dev/console",
        ])
        .arg(out.join("initramfs.cpio.gz"))
        .current_dir(&into))
    .succeeds();
    into
}

fn launch_one(env: &TestEnv, out: &Path) {
    run(env
        .imgbuild(["launch", "--count", "1", "--accel", "tcg", "--for", "1s"])
        .arg(out))
    .succeeds()
    .shows(&["g00000 ready"]);
}

#[test]
fn extra_files_are_packed_and_the_guest_still_boots() {
    let env = TestEnv::new();
    fs::write(env.path().join("motd"), "hello\n").unwrap();
    let recipe = good()
        + "\n[[files]]\npath = \"/etc/motd\"\nsource = \"motd\"\n\
           \n[[files]]\npath = \"/opt/a b/run\"\nsource = \"./motd\"\nmode = \"4750\"\n";
    build(&env, &recipe).succeeds();
    let out = env.path().join("out/mine");
    let root = unpack(&env, &out);
    for (path, mode) in [("etc/motd", 0o644), ("opt/a b/run", 0o4750)] {
        let path = root.join(path);
        assert_eq!(fs::read(&path).unwrap(), b"hello\n");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
    assert!(root.join("init").is_file());
    launch_one(&env, &out);
}

#[test]
fn a_root_file_system_is_packed_and_the_guest_still_boots() {
    let env = TestEnv::new();
    let rootfs = env.path().join("root");
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    fs::create_dir_all(rootfs.join("etc/empty")).unwrap();
    fs::write(rootfs.join("bin/busybox"), vec![7; 300_000]).unwrap();
    fs::set_permissions(
        rootfs.join("bin/busybox"),
        fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    fs::hard_link(rootfs.join("bin/busybox"), rootfs.join("bin/ls")).unwrap();
    symlink("busybox", rootfs.join("bin/sh")).unwrap();
    fs::write(rootfs.join("etc/motd"), "hello\n").unwrap();
    // Ours takes the place of one that the archive brings.
    fs::write(rootfs.join("init"), "not to be run").unwrap();
    run(env.command("tar").args([
        "--create",
        "--gzip",
        "--file",
        "root.tar.gz",
        "-C",
        "root",
        ".",
    ]))
    .succeeds();

    let recipe = good() + "\n[rootfs]\nplace = \"initramfs\"\nsource = \"root.tar.gz\"\n";
    build(&env, &recipe).succeeds();
    let out = env.path().join("out/mine");
    let root = unpack(&env, &out);
    let busybox = fs::metadata(root.join("bin/busybox")).unwrap();
    assert_eq!((busybox.len(), busybox.mode() & 0o7777), (300_000, 0o4755));
    assert_eq!(
        fs::metadata(root.join("bin/ls")).unwrap().ino(),
        busybox.ino()
    );
    assert_eq!(
        fs::read_link(root.join("bin/sh")).unwrap(),
        Path::new("busybox")
    );
    assert_eq!(fs::read(root.join("etc/motd")).unwrap(), b"hello\n");
    assert!(root.join("etc/empty").is_dir());
    assert_eq!(fs::read(root.join("init")).unwrap()[..4], *b"\x7fELF");
    launch_one(&env, &out);
}

#[test]
fn an_archive_that_climbs_out_is_refused_by_name() {
    let env = TestEnv::new();
    let recipe = good() + "\n[rootfs]\nplace = \"initramfs\"\nsource = \"root.tar\"\n";
    fs::write(env.path().join("evil"), "x").unwrap();
    let tar = ["--create", "--file", "root.tar", "--absolute-names"];
    let shell = ["-C", "/", "bin", "usr/bin/sh", "usr/bin/dash"];
    run(env.command("tar").args(tar).arg("evil").args(shell)).succeeds();
    build(&env, &recipe).succeeds();
    let out = env.path().join("out/mine");
    let before = Tree::of(&out);

    for (name, transform) in [("../evil", "s,^,../,"), ("a/../../evil", "s,^,a/../../,")] {
        run(env
            .command("tar")
            .args(tar)
            .args(["--transform", transform, "evil"]))
        .succeeds();
        build(&env, &recipe)
            .exits(1)
            .says(&["root.tar", name, ".."]);
    }
    assert_eq!(Tree::of(&out), before);
    assert!(!env.path().join("out/evil").exists());
}

#[test]
fn an_archive_that_is_cut_off_is_refused() {
    let env = TestEnv::new();
    let recipe = good() + "\n[rootfs]\nplace = \"initramfs\"\nsource = \"root.tar\"\n";
    fs::write(env.path().join("file"), vec![1; 100_000]).unwrap();
    run(env
        .command("tar")
        .args(["--create", "--file", "whole.tar", "file"]))
    .succeeds();
    let whole = fs::read(env.path().join("whole.tar")).unwrap();
    for end in [0, 100, 512, 50_000] {
        fs::write(env.path().join("root.tar"), &whole[..end]).unwrap();
        build(&env, &recipe).exits(1).says(&["root.tar"]);
    }
    fs::write(env.path().join("root.tar"), vec![0xa5; 100_000]).unwrap();
    build(&env, &recipe).exits(1).says(&["root.tar"]);
    assert!(!env.path().join("out/mine").exists());
}

/// A tar whose one header is damaged, and has escape sequences for its name and
/// size, which the tar crate quotes.
fn escaping_tar() -> Vec<u8> {
    let mut header = [0; 512];
    for (at, field) in [
        (0, &b"\x1b]0;owned\x07\rerror: forged\n"[..]),
        (124, b"\x1b[2Jnot-num"),
        (148, b"        "),
        (257, b"ustar"),
    ] {
        header[at..at + field.len()].copy_from_slice(field);
    }
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [&header[..], &[0; 1024]].concat()
}

#[test]
fn what_an_archive_holds_is_shown_and_not_obeyed() {
    let env = TestEnv::new();
    let recipe = good() + "\n[rootfs]\nplace = \"initramfs\"\nsource = \"root.tar\"\n";
    fs::write(env.path().join("root.tar"), escaping_tar()).unwrap();
    run(env.command("gzip").args(["--keep", "root.tar"])).succeeds();
    let source = ["kernel", "config", "--kernel-source", "root.tar.gz"];
    for refused in [build(&env, &recipe), run(&mut env.imgbuild(source))] {
        let said = refused.exits(1).says(&["root.tar", "u{1b}[2J"]).stderr;
        let obeyed = |character: char| character.is_control() && character != '\n';
        assert!(!said.contains(obeyed), "{said:?}");
        let errors = said.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{said}");
    }
}
