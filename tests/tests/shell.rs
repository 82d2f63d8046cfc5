//! Guests with a user land: its files as they were, a real shell over SSH, and
//! init's own work going on.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgbuild_tests::root::Root;
use imgbuild_tests::stand_in::{QEMU, find};
use imgbuild_tests::{TestEnv, binary, finish, run, start, wait_until, workspace};
use serde_json::Value;

const BUSYBOX: &str = "/bin/busybox";

/// A program of every Debian's that opens a terminal for the one that it runs.
const SCRIPT: &str = "/usr/bin/script";

/// A tar of Debian's static BusyBox with all its applets, of `script`, and of files
/// that a folder of an ordinary user could not hold.
fn archive(env: &TestEnv) -> PathBuf {
    let applets = run(env.command(BUSYBOX).arg("--list")).succeeds();
    let path = env.path().join("root.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    let busybox = fs::read(BUSYBOX).expect("the package busybox-static is installed");
    add(&mut tar, "bin/busybox", (0, 0, 0o755), &busybox);
    for applet in applets.stdout.lines().filter(|name| *name != "busybox") {
        let mut link = header((0, 0, 0o777), 0);
        link.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\n";
    add(&mut tar, "etc/passwd", (0, 0, 0o644), passwd);
    add(&mut tar, "root/.profile", (0, 0, 0o600), b"");
    add(&mut tar, "srv/owned", (1000, 70_000, 0o4750), b"mine\n");
    add(&mut tar, "srv/a \"b\"\n-c", (0, 0, 0o644), b"odd\n");
    let programs = Root::new(env.path().join("programs"));
    programs.program(SCRIPT);
    // Without /run, which an image may lack.
    for folder in ["usr", "lib", "lib64"] {
        tar.append_dir_all(folder, programs.place(folder)).unwrap();
    }
    let mut device = header((0, 5, 0o660), 0);
    device.set_entry_type(tar::EntryType::Char);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    tar.append_data(&mut device, "srv/null", &[][..]).unwrap();
    tar.finish().unwrap();
    path
}

fn header((uid, gid, mode): (u64, u64, u32), size: usize) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mode(mode);
    header.set_size(size as u64);
    header
}

fn add(tar: &mut tar::Builder<File>, path: &str, owner: (u64, u64, u32), content: &[u8]) {
    let mut header = header(owner, content.len());
    tar.append_data(&mut header, path, content).unwrap();
}

/// Builds the built-in recipe with `tar`, and gives the output folder.
fn build(env: &TestEnv, tar: &Path, place: &str) -> PathBuf {
    let out = env.path().join(place);
    run(env
        .imgbuild(["build", "debian-shell", "--no-boot"])
        .args(["--rootfs-place", place, "--rootfs"])
        .arg(tar)
        .arg("--out")
        .arg(&out))
    .succeeds();
    out
}

/// A fleet of one guest.
struct Fleet<'a> {
    env: &'a TestEnv,
    launch: Child,
}

impl<'a> Fleet<'a> {
    fn launch(env: &'a TestEnv, out: &Path) -> Self {
        let mut launch = env.imgbuild(["launch", "--count", "1", "--accel", "tcg"]);
        launch
            .args(["--for", "4m", "--restart", "never", "--json"])
            .arg(out);
        let events = env.path().join("events");
        let launch = launch
            .stdout(File::create(&events).unwrap())
            .stderr(File::create(env.path().join("messages")).unwrap())
            .spawn()
            .unwrap();
        wait_until("the guest is ready", || {
            fs::read_to_string(&events)
                .unwrap()
                .contains("\"state\":\"ready\"")
        });
        Self { env, launch }
    }

    fn client(&self, command: &str) -> Command {
        let fleets = self.env.fleets();
        let mut ssh = self.env.command("ssh");
        ssh.arg("-F").arg(fleets.join("debian-shell/ssh_config"));
        ssh.arg("g00000");
        if !command.is_empty() {
            ssh.arg(command);
        }
        ssh
    }

    /// What a command did with this input; a log-in without one if it is empty.
    fn ssh(&self, command: &str, input: &[u8]) -> Output {
        feed(&mut self.client(command), input)
    }

    /// Asserts what a command without input prints, and its exit code.
    fn says(&self, command: &str, stdout: &str, code: i32) {
        self.answers(command, b"", stdout, code);
    }

    fn answers(&self, command: &str, input: &[u8], stdout: &str, code: i32) {
        let output = self.ssh(command, input);
        assert_eq!(
            (text(&output.stdout), output.status.code()),
            (stdout, Some(code)),
            "{command}: {}",
            text(&output.stderr)
        );
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.ssh("status --json", b"").stdout).unwrap()
    }

    fn end(mut self) {
        self.ssh("poweroff", b"");
        self.launch.wait().unwrap();
        let events = fs::read_to_string(self.env.path().join("events")).unwrap();
        assert!(events.contains("\"exited\""), "{events}");
        self.env.assert_no_process_left();
    }
}

/// What a client did with this input.
fn feed(client: &mut Command, input: &[u8]) -> Output {
    let mut child = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A command may end before it has read all.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Everything that holds wherever the root file system is.
fn serves_a_shell(fleet: &Fleet<'_>) {
    // Streams, exit codes and ends by signal.
    let output = fleet.ssh("echo out; echo err >&2; exit 3", b"");
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("out\n", "err\n")
    );
    assert_eq!(output.status.code(), Some(3));
    fleet.says("kill -9 $$", "", 137);
    fleet.says("nosuch 2>/dev/null", "", 127);
    fleet.says(
        "seq 3 | while read x; do echo \"<$x>\"; done",
        "<1>\n<2>\n<3>\n",
        0,
    );
    fleet.says("sleep 300 >/dev/null 2>&1 </dev/null & echo on", "on\n", 0);
    fleet.says("pwd; id -u; echo $HOME", "/root\n0\n/root\n", 0);
    // None of init's files, and the folder that ls reads.
    fleet.says("ls /proc/self/fd", "0\n1\n2\n3\n", 0);

    // Input: read to its end, in part, not at all, and by a wait for it.
    fleet.answers("tr a-z A-Z | cat", b"hello\n", "HELLO\n", 0);
    fleet.answers("read x; read y; echo $y$x", b"a\nb\n", "ba\n", 0);
    let large: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    assert!(fleet.ssh("cat", &large).stdout == large);
    fs::write(fleet.env.path().join("large"), &large).unwrap();
    let sum = run(fleet.env.command("sha256sum").arg("large")).succeeds();
    let sum = sum.stdout.split_once(' ').unwrap().0;
    fleet.answers("sha256sum", &large, &format!("{sum}  -\n"), 0);
    fleet.answers("head -c 2 | wc -c", &large, "2\n", 0);
    fleet.answers("exit 4", &large, "", 4);
    // A program whose outputs are closed is served and waited for all the same. Its
    // input comes in blocks of 64 KiB, each of which the client is asked for.
    let mut client = fleet.client("");
    client.args(["-vvv", "exec cat >/root/copy 2>/dev/null"]);
    let output = feed(&mut client, &large);
    let asked = text(&output.stderr).matches("rcvd adjust").count();
    assert!((16..=17).contains(&asked), "{}", text(&output.stderr));
    fleet.says("sha256sum </root/copy", &format!("{sum}  -\n"), 0);
    // The shell's own words are left to it.
    fleet.says("sh -c 'exit 3'", "", 3);
    fleet.answers("sh", b"echo $((1+1))\n", "2\n", 0);
    // It is there for its shell, and burns when it is asked to.
    assert_eq!(fleet.status()["burn"]["duty"], 0);
    assert!(fleet.ssh("burn 50", b"").status.success());
    // A SIGHUP that init was not meant to get leaves the burn as it is.
    let duty = fleet.status()["burn"]["duty"].clone();
    assert_eq!(duty, 50);
    fleet.says("kill -HUP 1", "", 0);
    assert_eq!(fleet.status()["burn"]["duty"], duty);

    // The log-in shell, with a prompt before each line that it reads.
    fleet.answers(
        "",
        b"echo one\ncd /srv\npwd\nexit 3\n",
        "g00000# one\ng00000# g00000# /srv\ng00000# ",
        3,
    );
    // It and its programs are handed whole lines.
    fleet.answers(
        "",
        b"dd bs=99 count=1 2>/dev/null\nhello\nexit 3\n",
        "g00000# hello\ng00000# ",
        3,
    );

    // Owners, modes and devices as in the archive.
    let listing = fleet.ssh("ls -ln /srv", b"");
    let listing = text(&listing.stdout);
    for start in [
        "-rwsr-x---    1 1000     70000            5 ",
        "crw-rw----    1 0        5           1,   3 ",
    ] {
        assert!(
            listing.lines().any(|line| line.starts_with(start)),
            "{listing}"
        );
    }
    fleet.says("cat /srv/a*", "odd\n", 0);
    fleet.says("echo x >/srv/null; cat /srv/null | wc -c", "0\n", 0);

    // Terminals and folders in memory, as distributions have them.
    let look = "tty; stat -c '%a %g' /dev/pts/0; exit 5";
    fleet.says(
        &format!("{SCRIPT} -qec \"{look}\" /dev/null </dev/null"),
        "/dev/pts/0\r\n620 5\r\n",
        5,
    );
    fleet.says(
        "echo x >/dev/shm/a; cp /dev/shm/a /run/b; cat /run/b; \
         stat -c '%n %a' /dev/shm /run /run/lock; \
         awk '$2 ~ \"^/(dev/pts|dev/shm|run)$\" { print $2, $3 }' /proc/mounts",
        "x\n/dev/shm 1777\n/run 755\n/run/lock 1777\n\
         /dev/pts devpts\n/dev/shm tmpfs\n/run tmpfs\n",
        0,
    );

    // A client that is killed takes its command along.
    for command in ["sleep 4321", "exec sleep 4321 >/dev/null 2>&1"] {
        let mut client = start(&mut fleet.client(command));
        let sleeps = || {
            let list = fleet.ssh("ps", b"");
            text(&list.stdout).contains("sleep 4321")
        };
        wait_until("the command runs", sleeps);
        client.kill().unwrap();
        let _ = finish(client);
        wait_until("the command is gone", || !sleeps());
    }

    // Init's own work goes on.
    let before = fleet.status();
    thread::sleep(Duration::from_millis(500));
    let after = fleet.status();
    assert_eq!(after["phase"], "ready");
    assert!(
        before["burn"]["rounds"].as_u64() < after["burn"]["rounds"].as_u64(),
        "{before} {after}"
    );
}

#[test]
fn a_shell_from_the_initramfs() {
    let env = TestEnv::new();
    let out = build(&env, &archive(&env), "initramfs");
    let fleet = Fleet::launch(&env, &out);
    serves_a_shell(&fleet);
    fleet.says("grep -c ' /disk ext4 ' /proc/mounts", "1\n", 0);
    fleet.end();
}

#[test]
fn a_shell_from_the_disk() {
    let env = TestEnv::new();
    let out = build(&env, &archive(&env), "disk");
    let fleet = Fleet::launch(&env, &out);
    serves_a_shell(&fleet);
    fleet.says("grep -c '^/dev/vda / ext4 ' /proc/mounts", "1\n", 0);
    fleet.says("test -e /init || echo gone", "gone\n", 0);
    fleet.end();
}

/// A guest whose console the test holds, without identity.
struct Console {
    qemu: Child,
    stdin: ChildStdin,
    said: PathBuf,
}

impl Console {
    fn start(env: &TestEnv, out: &Path, disk: Option<&Path>) -> Self {
        let manifest = fs::read(out.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        let mut qemu = env.command(find(QEMU));
        qemu.args(["-machine", "microvm,acpi=off,rtc=on", "-accel", "tcg"])
            .args(["-cpu", "qemu64", "-m", "128M", "-nodefaults", "-no-reboot"])
            .args(["-display", "none", "-serial", "stdio", "-append"])
            .arg(manifest["command_line"].as_str().unwrap())
            .arg("-kernel")
            .arg(out.join("vmlinux"))
            .arg("-initrd")
            .arg(out.join("initramfs.cpio.gz"));
        if let Some(disk) = disk {
            qemu.args(["-device", "virtio-blk-device,drive=disk", "-drive"])
                .arg(format!("if=none,id=disk,file={}", disk.display()));
        }
        let said = env.path().join("said");
        let mut qemu = qemu
            .stdin(Stdio::piped())
            .stdout(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let stdin = qemu.stdin.take().unwrap();
        Self { qemu, stdin, said }
    }

    fn said(&self) -> String {
        let mut text = Vec::new();
        let mut file = File::open(&self.said).unwrap();
        file.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn waits_for(&self, part: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.said().contains(part) {
            assert!(Instant::now() < until, "no {part:?} in:\n{}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn power_off(mut self) -> String {
        self.stdin.write_all(b"poweroff\n").unwrap();
        assert!(self.qemu.wait().unwrap().success());
        self.said()
    }
}

/// The built-in recipe with a command.
fn with_command(env: &TestEnv, words: &[&str]) -> PathBuf {
    archive(env);
    let recipe = fs::read_to_string(workspace().join("images/debian-shell.toml")).unwrap();
    let table = format!("[rootfs]\nsource = \"root.tar\"\ncommand = {words:?}\n");
    fs::write(
        env.path().join("mine.toml"),
        recipe.replace("[rootfs]\n", &table),
    )
    .unwrap();
    run(&mut env.imgbuild(["build", "./mine.toml", "--no-boot", "--out", "out"])).succeeds();
    env.path().join("out")
}

#[test]
fn the_command_runs_on_the_disk_and_ends_before_it_is_unmounted() {
    let env = TestEnv::new();
    let script = "trap 'echo bye >/root/bye; exit 5' TERM\n\
                  echo \"hello $1\"; echo '{\"event\":1}'; while :; do sleep 0.1; done";
    let out = with_command(&env, &["/bin/sh", "-c", script, "sh", "two words"]);
    let disk = env.path().join("disk.qcow2");
    run(env
        .command("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(out.join("base.qcow2"))
        .arg(&disk))
    .succeeds();
    let console = Console::start(&env, &out, Some(&disk));
    console.waits_for("command: hello two words");
    console.waits_for("command: {\"event\":1}");
    console.waits_for("\"event\":\"ready\"");
    console.power_off();

    let raw = env.clean_disk(&disk);
    run(env
        .command(find("debugfs"))
        .args(["-R", "cat /root/bye"])
        .arg(&raw))
    .succeeds()
    .shows(&["bye"]);
}

#[test]
fn the_end_of_the_command_is_reported() {
    let env = TestEnv::new();
    let out = with_command(&env, &["/bin/sh", "-c", "echo done; exit 3"]);
    let overlay = out.join("overlays/00000.qcow2");
    fs::set_permissions(&overlay, fs::Permissions::from_mode(0o644)).unwrap();
    let console = Console::start(&env, &out, Some(&overlay));
    let end = "tty-init: command exited with 3";
    console.waits_for(end);
    let said = console.power_off();
    let done = said.find("command: done").expect("it was said");
    assert!(done < said.find(end).unwrap(), "{said}");
}

#[test]
fn a_guest_without_its_disk_says_so_and_is_ready_without_a_shell() {
    let env = TestEnv::new();
    let out = build(&env, &archive(&env), "disk");
    let empty = env.path().join("empty.raw");
    File::create(&empty).unwrap().set_len(1 << 20).unwrap();
    for (disk, state, reason) in [
        (None, "absent", "no root file system"),
        (Some(&*empty), "failed", "/dev/vda: mount on /disk"),
    ] {
        let mut console = Console::start(&env, &out, disk);
        console.waits_for(&format!("\"disk\":\"{state}\""));
        console.stdin.write_all(b"@1 sh ls\n").unwrap();
        console.waits_for("this image holds no shell");
        let said = console.power_off();
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn equal_archives_give_equal_disks_whoever_builds() {
    let env = TestEnv::new();
    let tar = archive(&env);
    let first = build(&env, &tar, "disk");
    let program = env.path().join("imgbuild");
    fs::copy(binary(), &program).unwrap();
    for folder in ["other", "other/cache", "other/tmp"] {
        fs::create_dir(env.path().join(folder)).unwrap();
    }
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        run(env.command("chown").args(["-R", "65534", "other"])).succeeds();
    }
    fs::set_permissions(env.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Another user, where this one may become one, and another umask.
    let mut other = if is_root {
        let mut other = env.command("setpriv");
        other.args([
            "--reuid",
            "65534",
            "--regid",
            "65534",
            "--clear-groups",
            "sh",
        ]);
        other
    } else {
        env.command("sh")
    };
    other
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(program)
        .args(["build", "debian-shell", "--no-boot", "--rootfs"])
        .arg(&tar)
        .args(["--out", "other/out", "--kernel"])
        .arg(first.join("vmlinux"))
        .env("XDG_CACHE_HOME", env.path().join("other/cache"))
        .env("HOME", env.path().join("other"))
        .env("TMPDIR", env.path().join("other/tmp"));
    run(&mut other).succeeds();
    let second = env.path().join("other/out");
    for name in ["base.qcow2", "initramfs.cpio.gz"] {
        let [first, second] = [&first, &second].map(|out| fs::read(out.join(name)).unwrap());
        assert!(first == second, "{name}");
    }
}

#[test]
fn what_cannot_be_built_is_reported_with_what_would_help() {
    let env = TestEnv::new();
    run(&mut env.imgbuild(["build", "debian-shell", "--no-boot"]))
        .exits(2)
        .says(&["--rootfs PATH", "debootstrap", "docker export"]);
    run(&mut env.imgbuild(["build", "tty-idle", "--no-boot", "--rootfs", "x.tar"]))
        .exits(2)
        .says(&["tty-idle", "[rootfs]"]);
    let path = env.path().join("large.tar");
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    add(&mut tar, "large", (0, 0, 0o644), &vec![1; 80 << 20]);
    add(&mut tar, "bin/sh", (0, 0, 0o755), b"#!");
    tar.finish().unwrap();
    let build = [
        "build",
        "debian-shell",
        "--no-boot",
        "--rootfs",
        "large.tar",
    ];
    run(env.imgbuild(build).args(["--disk-size", "64M"]))
        .exits(1)
        .says(&["takes 8", "a disk of 64M has room for 6", "--disk-size"]);
    run(env.imgbuild(build).args(["--rootfs-place", "initramfs"]))
        .exits(1)
        .says(&["unpacks to 8", "a guest of 128M", "give --memory 1"]);
    assert!(!env.path().join("out/debian-shell").exists());
}
