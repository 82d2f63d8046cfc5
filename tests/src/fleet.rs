//! A fleet under a supervisor of its own, ended with its value.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{panicking, sleep};
use std::time::{Duration, Instant};

use imgbuild::control::types;
use imgbuild::guest::Phase;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{Finished, PATIENCE, TestEnv, run, wait_until};

/// How long `wait` may wait; beyond what any test's fleet takes.
const TIMEOUT: &str = "280s";

/// A fleet of guests under TCG.
#[derive(Debug)]
pub struct Fleet<'a> {
    env: &'a TestEnv,
    name: String,
    /// Marks what it has outside its folders.
    instance: String,
}

impl<'a> Fleet<'a> {
    /// Launches `count` guests of tty-idle, `arguments` being further ones of
    /// `launch`, and returns when a process of its own supervises them.
    #[must_use]
    pub fn launch(env: &'a TestEnv, name: &str, count: u32, arguments: &[&str]) -> Self {
        run(detached(env, name, count).args(arguments)).succeeds();
        Self::of(env, name)
    }

    /// The same, and every guest is ready.
    #[must_use]
    pub fn ready(env: &'a TestEnv, name: &str, count: u32, arguments: &[&str]) -> Self {
        let fleet = Self::launch(env, name, count, arguments);
        fleet.wait();
        fleet
    }

    /// The fleet of that name, which was launched otherwise.
    #[must_use]
    pub fn of(env: &'a TestEnv, name: &str) -> Self {
        let mut fleet = Self {
            env,
            name: name.to_owned(),
            instance: String::new(),
        };
        let spec = fleet.spec();
        let instance = spec["instance"].as_str().expect("it has one");
        instance.clone_into(&mut fleet.instance);
        fleet
    }

    /// `imgbuild` for this fleet.
    #[must_use]
    pub fn imgbuild<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.env.imgbuild(arguments);
        command.env("IMGBUILD_FLEET", &self.name);
        command
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        folder(self.env, &self.name)
    }

    /// What its folder says that it is.
    #[must_use]
    pub fn spec(&self) -> Value {
        let text = fs::read(self.folder().join("spec.json")).expect("it was launched");
        serde_json::from_slice(&text).expect("imgbuild wrote it")
    }

    /// Has its folder say something else, which no supervisor does.
    pub fn change_spec(&self, change: impl FnOnce(&mut Value)) {
        let mut spec = self.spec();
        change(&mut spec);
        fs::write(self.folder().join("spec.json"), spec.to_string()).expect("the folder is ours");
    }

    /// What its supervisors said.
    #[must_use]
    pub fn talk(&self) -> String {
        fs::read_to_string(self.folder().join("supervisor.log")).expect("it was detached")
    }

    /// Waits until every guest that is to be up is ready.
    pub fn wait(&self) {
        run(&mut self.imgbuild(["wait", "--ready", "--timeout", TIMEOUT])).succeeds();
    }

    /// What `ps` shows.
    #[must_use]
    pub fn ps(&self) -> types::Fleet {
        let shown = run(&mut self.imgbuild(["ps", "--json"])).succeeds();
        serde_json::from_str(&shown.stdout).expect("it is as the schema says")
    }

    /// A guest as `ps` shows it.
    #[must_use]
    pub fn guest(&self, index: usize) -> types::Guest {
        self.ps().guests.swap_remove(index)
    }

    /// Waits until what `ps` shows is so, and gives it.
    pub fn until(&self, what: &str, holds: impl Fn(&types::Fleet) -> bool) -> types::Fleet {
        let until = Instant::now() + PATIENCE;
        loop {
            let fleet = self.ps();
            if holds(&fleet) {
                return fleet;
            }
            assert!(
                Instant::now() < until,
                "waited in vain until {what}: {fleet:#?}"
            );
            sleep(Duration::from_millis(200));
        }
    }

    /// Runs a command in a guest by SSH.
    pub fn ssh<const N: usize>(&self, guest: &str, command: [&str; N]) -> Finished {
        let mut ssh = self.imgbuild(["ssh", guest]);
        run(ssh.arg("--").args(command))
    }

    /// Process id of its supervisor.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        let supervisor = self.ps().supervisor;
        supervisor.expect("it is supervised").pid
    }

    /// Kills its supervisor, and returns when that is gone.
    pub fn kill_supervisor(&self) {
        kill(self.supervisor());
        self.wait_until_unsupervised();
    }

    /// Waits until nobody holds the lock in its folder.
    pub fn wait_until_unsupervised(&self) {
        let lock = File::open(self.folder().join("lock")).expect("its guests are there");
        wait_until("its supervisor is gone", || lock.try_lock_shared().is_ok());
    }

    /// Kills the VMMs of these guests at once.
    pub fn kill_guests(&self, indices: &[usize]) {
        let guests = self.ps().guests;
        for &index in indices {
            kill(guests[index].pid.expect("it lives"));
        }
    }

    /// Has another supervisor go on with it.
    pub fn resume(&self) -> Finished {
        run(&mut self.imgbuild(["launch", "--resume", &self.name, "--detach"]))
    }

    /// Ends it by `stop --all`, and asserts that nothing is left.
    pub fn end(self) {
        run(&mut self.imgbuild(["stop", "--all"])).succeeds();
        self.assert_gone();
    }

    /// Asserts that nothing of it is left: no file, no control group; nor any
    /// process of this test, which has no other fleet.
    pub fn assert_gone(self) {
        self.assert_nothing_left();
        self.env.assert_no_process_left();
        self.env.assert_no_fleet_left();
    }

    /// Asserts that nothing of it is left, whatever others have.
    pub fn assert_nothing_left(&self) {
        let runtime = self.env.path().join("run/imgbuild").join(&self.name);
        for path in [self.folder(), runtime] {
            assert!(!path.exists(), "left behind: {}", path.display());
        }
        let groups = groups(Path::new("/sys/fs/cgroup"), &self.instance);
        assert!(groups.is_empty(), "left behind: {groups:?}");
    }
}

impl Drop for Fleet<'_> {
    /// What a test that fails leaves in the control groups stays there for ever.
    fn drop(&mut self) {
        if panicking() && self.folder().exists() {
            eprintln!("{}", self.talk_if_any());
            let _ = self.imgbuild(["stop", "--all", "--grace", "0s"]).status();
            let _ = self.imgbuild(["rm", "--force", &self.name]).status();
        }
    }
}

impl Fleet<'_> {
    fn talk_if_any(&self) -> String {
        fs::read_to_string(self.folder().join("supervisor.log")).unwrap_or_default()
    }
}

/// A `launch` of so many guests of tty-idle under TCG.
#[must_use]
pub fn launch(env: &TestEnv, name: &str, count: u32) -> Command {
    let mut command = env.imgbuild(["launch", "--accel", "tcg", "--no-canary", "--name", name]);
    command
        .args(["--count", &count.to_string()])
        .arg(env.artifacts("tty-idle"));
    command
}

/// The same, left to a supervisor of its own.
#[must_use]
pub fn detached(env: &TestEnv, name: &str, count: u32) -> Command {
    let mut command = launch(env, name, count);
    command.arg("--detach");
    command
}

/// Builds a guest with a shell.
#[must_use]
pub fn with_shell(env: &TestEnv) -> PathBuf {
    let path = env.path().join("root.tar");
    let mut tar = tar::Builder::new(File::create(&path).expect("the folder is ours"));
    let mut header = tar::Header::new_gnu();
    let busybox = fs::read("/bin/busybox").expect("the package busybox-static is installed");
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(0o755);
    header.set_size(busybox.len() as u64);
    tar.append_data(&mut header, "bin/busybox", &busybox[..])
        .expect("the file is ours");
    for applet in ["sh", "yes", "cat", "head", "tr"] {
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_uid(0);
        link.set_gid(0);
        link.set_mode(0o777);
        link.set_size(0);
        tar.append_link(&mut link, format!("bin/{applet}"), "busybox")
            .expect("the file is ours");
    }
    tar.finish().expect("the file is ours");
    let out = env.path().join("out/shell");
    let mut build = env.imgbuild(["build", "debian-shell", "--no-boot", "--rootfs"]);
    run(build.arg(&path).arg("--out").arg(&out)).succeeds();
    out
}

/// The folder of a fleet.
#[must_use]
pub fn folder(env: &TestEnv, name: &str) -> PathBuf {
    env.fleets().join(name)
}

/// Whether all guests are ready.
#[must_use]
pub fn all_ready(fleet: &types::Fleet) -> bool {
    let is_ready = |guest: &types::Guest| guest.state == Phase::Ready;
    fleet.guests.iter().all(is_ready)
}

/// Sends SIGKILL.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends a signal to a process that is there.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("no process is 0");
    kill_process(pid, signal).expect("it is there, and ours");
}

/// A number that a variable of the environment gives, so that a longer run can
/// ask for more.
#[must_use]
pub fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Control groups below `folder` whose names end so.
fn groups(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // Groups of others come and go.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().ends_with(end) {
                found.push(entry.path());
            }
            found.extend(groups(&entry.path(), end));
        }
    }
    found
}
