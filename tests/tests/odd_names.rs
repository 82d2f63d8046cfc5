//! A fleet all of whose paths are not UTF-8, and what its guests say, byte for
//! byte.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgbuild::control::types;
use imgbuild::host_id::HostId;
use imgbuild_tests::fleet::kill;
use imgbuild_tests::{Finished, TestEnv, run, wait_until};
use serde_json::Value;

/// A name that is not UTF-8, and what options, JSON and ssh_config(5) give a
/// meaning to.
const ODD: &[u8] = b"a \xff \"b\" 100%h, #$x\\";
/// What no terminal should be sent.
const RAW: &[u8] = b"\x1b[2J\xc2\x9b\xff \rg00000: forged \r\nlast \n";

struct Odd {
    env: TestEnv,
}

impl Odd {
    fn new() -> Self {
        let odd = Self {
            env: TestEnv::new(),
        };
        for folder in ["state", "run", "tmp"] {
            fs::create_dir(odd.path(folder)).unwrap();
        }
        odd
    }

    /// A path of an odd name.
    fn path(&self, folder: &str) -> PathBuf {
        self.env.path().join(folder).join(OsStr::from_bytes(ODD))
    }

    fn state(&self) -> PathBuf {
        let host = HostId::this().unwrap().folder();
        let fleets = self.path("state").join("imgbuild/fleets");
        fleets.join(host).join("odd")
    }

    fn imgbuild<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(imgbuild_tests::binary());
        command.args(arguments);
        command
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.env.command(program);
        command
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("TMPDIR", self.path("tmp"));
        command
    }

    fn ps(&self) -> types::Fleet {
        let shown = run(&mut self.imgbuild(["ps", "--json"])).succeeds();
        serde_json::from_str(&shown.stdout).unwrap()
    }

    fn status(&self) -> Finished {
        run(&mut self.imgbuild(["ssh", "g00000", "--", "status"])).succeeds()
    }
}

/// Runs a command whose output nobody reads.
fn unread(command: &mut Command) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{command:?}: {said}");
    assert_eq!(said, "", "{command:?}");
}

fn core_limit(pid: u32) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.contains("core")).unwrap();
    core.split_whitespace().skip(4).map(str::to_owned).collect()
}

#[test]
fn a_fleet_lives_where_no_path_is_utf_8() {
    let odd = Odd::new();
    let root = odd.path("tmp").join(OsStr::from_bytes(b"root-\xff.tar"));
    let mut tar = odd.command("tar");
    run(tar.arg("-cf").arg(&root).args([
        "-C",
        "/",
        "etc/hostname",
        "bin",
        "usr/bin/sh",
        "usr/bin/dash",
    ]))
    .succeeds();
    let out = odd.path("state").join("out");
    let mut command = odd.imgbuild(["build", "debian-shell", "--no-boot", "--json", "--rootfs"]);
    let built = run(command.arg(&root).arg("--out").arg(&out)).succeeds();
    // What cannot be JSON is replaced, and the fleet's own documents have it all.
    assert!(
        built.json_lines()[0]["out"]
            .as_str()
            .unwrap()
            .contains('\u{fffd}')
    );
    run(odd.imgbuild(["verify", "--json"]).arg(&out)).succeeds();

    let key = odd.path("run").with_extension("key");
    let keygen = ["-q", "-N", "", "-t", "ed25519", "-f"];
    run(odd.env.command("ssh-keygen").args(keygen).arg(&key)).succeeds();
    let launch = "launch --accel=tcg --count=2 --name=odd --health=0s --detach --json --ssh-key";
    let mut launch = odd.imgbuild(launch.split(' '));
    let launched = run(launch.arg(&key).arg(&out)).succeeds();
    let events = launched.json_lines();
    let begun = events
        .iter()
        .find(|event| event["event"] == "fleet")
        .unwrap();
    assert!(begun["ssh_config"].as_str().unwrap().contains('\u{fffd}'));
    run(&mut odd.imgbuild(["wait", "--ready"])).succeeds();
    odd.status().shows(&["id=g00000"]);

    what_guests_say_is_shown_as_it_is_or_safely(&odd);

    let supervisor = odd.ps().supervisor.unwrap().pid;
    for pid in odd.env.guests().into_iter().chain([supervisor]) {
        assert_eq!(core_limit(pid)[..2], ["1", "1"]);
    }
    kill(supervisor);
    let lock = fs::File::open(odd.state()).unwrap();
    wait_until("its supervisor is gone", || lock.try_lock_shared().is_ok());
    drop(lock);
    let guests = odd.env.guests();
    assert_eq!(guests.len(), 2, "they are found without a supervisor");
    let spec: Value =
        serde_json::from_slice(&fs::read(odd.state().join("spec.json")).unwrap()).unwrap();
    assert_eq!(spec["out"]["hex"], hex(&out));
    run(&mut odd.imgbuild(["launch", "--resume", "odd", "--detach"])).succeeds();
    run(&mut odd.imgbuild(["wait", "--ready"])).succeeds();
    assert_eq!(odd.env.guests(), guests);
    odd.status();
    run(&mut odd.imgbuild(["stop", "--all"])).succeeds();
    odd.env.assert_no_process_left();
    assert!(!odd.state().exists());
}

fn hex(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes().iter();
    let digits = bytes.flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.filter_map(|digit| char::from_digit(digit.into(), 16));
    digits.collect()
}

fn what_guests_say_is_shown_as_it_is_or_safely(odd: &Odd) {
    let log = odd.state().join("logs/g00001.log");
    let mut log = OpenOptions::new().append(true).open(log).unwrap();
    log.write_all(RAW).unwrap();
    let tail = ["logs", "g00001", "--tail", "2"];
    let piped = odd.imgbuild(tail).output().unwrap();
    assert_eq!(piped.stdout, RAW);

    let line = format!(
        "'{}' {}",
        imgbuild_tests::binary().display(),
        tail.join(" ")
    );
    let terminal = ["--quiet", "--command", &line, "/dev/null"];
    let shown = run(odd.command("script").args(terminal)).succeeds().stdout;
    assert_eq!(
        shown,
        "\\u{1b}[2J\\u{9b}\u{fffd} \\rg00000: forged \r\nlast \r\n"
    );

    for more in [
        &["--follow", "--tail", "1"][..],
        &["--follow", "--tail", "0"],
        &[],
    ] {
        unread(odd.imgbuild(["logs", "g00001"]).args(more));
    }
    for arguments in [
        "console g00001 --follow",
        "ps",
        "ps --json",
        "ssh --quiet --all -- status",
    ] {
        unread(&mut odd.imgbuild(arguments.split(' ')));
    }
}
