//! Guests that the image's own SSH server serves: terminals, files and host keys as
//! on any machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use imgbuild_tests::fleet::Fleet;
use imgbuild_tests::root::Root;
use imgbuild_tests::{Finished, TestEnv, finish, python, run, start, wait_until, workspace};

/// Asks for the tests that take minutes.
const ASKED: &str = "IMGBUILD_SOAK";

const APPLETS: [&str; 5] = ["grep", "sh", "stat", "tty", "wc"];

/// A user land of BusyBox, with the account that sshd gives its rights up to.
fn busybox(env: &TestEnv) -> Root {
    let root = Root::new(env.path().join("root"));
    root.program("/bin/busybox");
    for applet in APPLETS {
        symlink("busybox", root.place(&format!("bin/{applet}"))).unwrap();
    }
    root.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n",
    );
    root.file("etc/shadow", "root:*:19000:0:99999:7:::\n");
    root.file("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n");
    root
}

/// Adds what serves files: this machine's scp and rsync, and Debian's SFTP server.
fn add_file_servers(root: &Root) {
    for program in ["/usr/bin/scp", "/usr/bin/rsync"] {
        root.program(program);
    }
    add_unpacked(root, "usr/lib/openssh/sftp-server");
    // Where dropbear looks for it.
    symlink("openssh/sftp-server", root.place("usr/lib/sftp-server")).unwrap();
}

/// Adds a file of Debian's openssh-server, with the shared libraries that it loads.
fn add_unpacked(root: &Root, path: &str) {
    let unpacked = workspace().join(".tools/openssh-server");
    assert!(
        unpacked.exists(),
        "{} is not there: `./bootstrap test` unpacks it",
        unpacked.display()
    );
    root.copy(&unpacked.join(path), path);
    root.libraries(path);
}

/// Packs a root as a user would who is not root.
fn pack(env: &TestEnv, root: &Root) -> PathBuf {
    let tar = env.path().join("root.tar");
    let mut command = env.command("tar");
    command.args(["--owner=0", "--group=0", "-C"]);
    run(command.arg(root.place("")).arg("-cf").arg(&tar).arg(".")).succeeds();
    tar
}

fn build(env: &TestEnv, tar: &Path, place: &str) -> Command {
    let mut build = env.imgbuild(["build", "debian-shell", "--ssh-server", "image"]);
    build.args(["--rootfs-place", place, "--rootfs"]).arg(tar);
    build
}

/// Two guests that `server` of the root serves.
struct Guests<'a> {
    env: &'a TestEnv,
    fleet: Fleet<'a>,
}

impl<'a> Guests<'a> {
    fn launch(env: &'a TestEnv, root: &Root, place: &str, server: &str) -> Self {
        run(build(env, &pack(env, root), place).arg("--no-boot")).succeeds();
        let manifest = fs::read(env.path().join("out/debian-shell/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(manifest["ssh_server"], server);
        let launch = ["launch", "--count", "2", "--accel", "tcg", "--no-canary"];
        run(env.imgbuild(launch).args(["--detach", "out/debian-shell"]))
            .succeeds()
            .says(&[server, "imgbuild console"]);
        let fleet = Fleet::of(env, "debian-shell");
        fleet.wait();
        Self { env, fleet }
    }

    /// A client of OpenSSH that is told of the guests by the fleet's file alone.
    fn client(&self, program: &str) -> Command {
        let mut client = self.env.command(program);
        client.arg("-F").arg(self.fleet.folder().join("ssh_config"));
        client
    }

    fn log(&self) -> String {
        run(&mut self.fleet.imgbuild(["logs", "g00000"]))
            .succeeds()
            .stdout
    }

    /// What a line of its console is answered with.
    fn console(&self, line: &str) -> Finished {
        let typed = self.env.path().join("typed");
        fs::write(&typed, format!("{line}\n")).unwrap();
        let mut console = self.fleet.imgbuild(["console", "g00000"]);
        run(console.stdin(Stdio::from(fs::File::open(&typed).unwrap()))).succeeds()
    }

    fn serves_as_any_machine(&self, process: &str) {
        // Commands are the shell's, `status` too; init has its own on the console.
        let status = self.fleet.ssh("g00000", ["status || exit 3"]);
        assert_eq!(status.status.code(), Some(3), "{status:?}");
        self.console("status --json")
            .shows(&["\\\"ssh\\\":\\\"up\\\""]);

        // A terminal.
        run(self.client("ssh").args(["-tt", "g00000", "tty"]))
            .succeeds()
            .shows(&["/dev/pts/0"]);

        // Files in and out, by each protocol.
        let content: Vec<u8> = (0..1_u32 << 16).flat_map(u32::to_le_bytes).collect();
        let at = |name: &str| self.env.path().join(name);
        fs::write(at("there"), &content).unwrap();
        let mut scp = self.client("scp");
        run(scp.arg("-s").arg(at("there")).arg("g00000:/root/file")).succeeds();
        let mut scp = self.client("scp");
        run(scp.args(["-O", "g00000:/root/file"]).arg(at("back"))).succeeds();
        assert!(fs::read(at("back")).unwrap() == content);
        fs::write(at("batch"), "get /root/file got\n").unwrap();
        run(self.client("sftp").arg("-b").arg(at("batch")).arg("g00000")).succeeds();
        assert!(fs::read(at("got")).unwrap() == content);
        let shell = format!(
            "ssh -F {}",
            self.fleet.folder().join("ssh_config").display()
        );
        let mut rsync = self.env.command("rsync");
        rsync.args(["--archive", "-e", &shell]).arg(at("there"));
        run(rsync.arg("g00001:/root/")).succeeds();
        let size = self.fleet.ssh("g00001", ["wc -c </root/there"]);
        assert_eq!(size.stdout.trim(), content.len().to_string());

        // Each guest's host key is its own, and in memory alone.
        run(self
            .client("ssh")
            .args(["-o", "HostKeyAlias=g00001", "g00000", "true"]))
        .exits(255)
        .says(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]);
        let place =
            ["grep -o ' /run/imgbuild tmpfs' /proc/mounts; stat -c %a /run/imgbuild/host_key"];
        let place = self.fleet.ssh("g00000", place);
        assert_eq!(place.stdout, " /run/imgbuild tmpfs\n600\n", "{place:?}");

        // One that ends is started again.
        let end = format!(
            "for stat in /proc/[0-9]*/stat; do read -r pid name state parent rest <$stat; \
             [ \"$parent $name\" = '1 ({process})' ] && kill -9 $pid; done"
        );
        let _ = self.fleet.ssh("g00000", [end.as_str()]);
        wait_until("its end is told", || {
            self.log()
                .contains("ended by signal 9; it is started again in")
        });
        wait_until("it serves again", || {
            self.fleet.ssh("g00000", ["true"]).status.success()
        });
    }
}

/// A user land that Debian's openssh-server serves, with its own configuration.
fn with_openssh(env: &TestEnv) -> Root {
    let root = busybox(env);
    add_unpacked(&root, "usr/lib/x86_64-linux-gnu/libwrap.so.0");
    add_unpacked(&root, "usr/sbin/sshd");
    add_file_servers(&root);
    let settings = workspace().join(".tools/openssh-server/usr/share/openssh/sshd_config");
    root.copy(&settings, "etc/ssh/sshd_config");
    root
}

#[test]
fn debians_openssh_server_serves_a_guest_whose_root_is_the_disk() {
    // It is waited for half a minute, in which it does nothing.
    let elsewhere = TestEnv::new();
    let failing = start_build_that_never_serves(&elsewhere);
    let env = TestEnv::new();
    let root = with_openssh(&env);
    let guests = Guests::launch(&env, &root, "disk", "/usr/sbin/sshd");
    guests.serves_as_any_machine("sshd");
    guests.fleet.end();
    finish(failing).exits(1).says(&[
        "the image's SSH server does not listen",
        "ssh: no rights to this",
        "/usr/sbin/sshd exited with 7; it is started again in 1 s",
    ]);
    assert!(!elsewhere.path().join("out/debian-shell").exists());
}

/// `just soak` runs it: it installs Ansible, and Python is slow in an emulated guest.
#[test]
fn ansible_reaches_a_guest_as_any_machine() {
    if std::env::var_os(ASKED).is_none() {
        // Past the harness, which keeps what a test that passes prints.
        writeln!(
            std::io::stderr(),
            "skipped: Ansible in an emulated guest takes minutes; `./bootstrap soak` runs it"
        )
        .unwrap();
        return;
    }
    let env = TestEnv::new();
    let root = with_openssh(&env);
    let python = fs::canonicalize("/usr/bin/python3").unwrap();
    let name = python.file_name().unwrap().to_str().unwrap();
    root.program(python.to_str().unwrap());
    symlink(name, root.place("usr/bin/python3")).unwrap();
    let library = format!("usr/lib/{name}");
    root.copy(&Path::new("/").join(&library), &library);
    let guests = Guests::launch(&env, &root, "disk", "/usr/sbin/sshd");
    let config = guests.fleet.folder().join("ssh_config");
    let ansible = python::installed(&env, "ansible").join("ansible");
    run(env
        .command(ansible)
        .args(["all", "-i", "g00000,g00001", "-m", "ping"])
        .args(["-e", "ansible_python_interpreter=/usr/bin/python3"])
        .arg(format!("--ssh-common-args=-F {}", config.display()))
        .env("HOME", env.path()))
    .succeeds()
    .shows(&["g00000 | SUCCESS", "g00001 | SUCCESS", "pong"]);
    guests.fleet.end();
}

/// It fails once, and is waited for all the same.
#[test]
fn dropbear_serves_a_guest_whose_root_is_in_memory() {
    let env = TestEnv::new();
    let root = busybox(&env);
    root.copy(Path::new("/usr/sbin/dropbear"), "usr/lib/dropbear");
    root.libraries("usr/lib/dropbear");
    root.directory("usr/sbin");
    root.script(
        "usr/sbin/dropbear",
        "#!/bin/sh\n[ -e /run/tried ] && exec /usr/lib/dropbear \"$@\"\n: >/run/tried\nexit 7\n",
    );
    // Unlike sshd, it lets in to a locked account.
    root.file("etc/shadow", "root:!:19000:0:99999:7:::\n");
    add_file_servers(&root);
    let guests = Guests::launch(&env, &root, "initramfs", "/usr/sbin/dropbear");
    let log = guests.log();
    let (_, later) = log
        .split_once("/usr/sbin/dropbear exited with 7; it is started again in 1 s")
        .unwrap_or_else(|| panic!("{log}"));
    let mut later = later.lines();
    let ready = later.find(|line| line.contains("\"event\":\"ready\""));
    assert!(
        ready.is_some_and(|line| line.contains("\"ssh\":\"up\"")),
        "{log}"
    );
    guests.serves_as_any_machine("dropbear");
    guests.fleet.end();

    // A session that the guest's end takes along ends well, and a server that `build`
    // was told of makes no other recipe.
    let typed = env.path().join("typed");
    fs::write(&typed, "kill -USR2 1\nbusybox sleep 100\n").unwrap();
    let mut session = env.imgbuild(["run", "--accel", "tcg", "debian-shell"]);
    session.stdin(Stdio::from(fs::File::open(&typed).unwrap()));
    let session = run(&mut session).succeeds();
    assert!(!session.stderr.contains("another version"), "{session:?}");
}

fn add_failing_server(root: &Root) {
    root.directory("usr/sbin");
    root.script(
        "usr/sbin/sshd",
        "#!/bin/sh\necho no rights to this >&2\nexit 7\n",
    );
}

/// Starts the build of an image whose server ends whenever it is started.
fn start_build_that_never_serves(env: &TestEnv) -> Child {
    let root = busybox(env);
    add_failing_server(&root);
    start(&mut build(env, &pack(env, &root), "disk"))
}

#[test]
fn a_server_that_cannot_serve_fails_the_build() {
    let env = TestEnv::new();
    let root = busybox(&env);
    run(build(&env, &pack(&env, &root), "disk").arg("--no-boot"))
        .exits(1)
        .says(&[
            "no /usr/sbin/sshd",
            "nothing like it",
            "openssh-server",
            "--ssh-server imgbuild",
        ]);
    run(&mut env.imgbuild(["build", "tty-idle", "--no-boot", "--ssh-server", "image"]))
        .exits(2)
        .says(&["--ssh-server image", "tty-idle", "[rootfs]"]);

    add_failing_server(&root);
    root.file("etc/shadow", "root:!:19000:0:99999:7:::\n");
    run(build(&env, &pack(&env, &root), "disk").arg("--no-boot"))
        .exits(1)
        .says(&[
            "its root account is locked",
            "/usr/sbin/sshd lets nobody log in",
            "usermod -p '*' root",
        ]);
    assert!(!env.path().join("out/debian-shell").exists());
}
