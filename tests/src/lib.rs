//! What integration tests share: an environment of their own, in which they
//! run what a user types and see what a user sees.

pub mod alone;
pub mod bench;
pub mod browser;
pub mod confined;
#[path = "../../builder/src/bundle/example.rs"]
pub mod example;
pub mod fleet;
pub mod guest;
pub mod http;
pub mod kex;
pub mod machine;
pub mod namespace;
pub mod probes;
pub mod python;
pub mod reachable;
pub mod reference;
pub mod rights;
pub mod root;
pub mod small_kernel;
pub mod stand_in;
pub mod terminal;
pub mod tree;

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use imgbuild::host_id::HostId;
use tempfile::TempDir;

/// How long a command may take before the test gives it up. Far beyond what
/// any takes: it only keeps a hang from lasting for ever.
const PATIENCE: Duration = Duration::from_secs(300);

/// Marks every process that a test starts, and those that they start.
const MARK: &str = "IMGBUILD_TEST_MARK";

/// A folder, an environment and the processes of one test.
#[derive(Debug)]
pub struct TestEnv {
    folder: TempDir,
    mark: String,
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl TestEnv {
    /// A new, empty environment.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("imgbuild-test-")
            .tempdir()
            .expect("a temporary folder can be made");
        let mark = folder.path().display().to_string();
        for sub in ["state", "run", "tmp"] {
            fs::create_dir(folder.path().join(sub)).expect("the folder is ours");
        }
        Self { folder, mark }
    }

    /// The environment's folder, which is also where commands run.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `imgbuild` with arguments; built kernels are shared with the user's.
    #[must_use]
    pub fn imgbuild<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(binary());
        command.args(arguments);
        command
    }

    /// Any program, in this environment.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env("TMPDIR", self.path().join("tmp"))
            .env(MARK, &self.mark)
            .env_remove("SOURCE_DATE_EPOCH")
            .stdin(Stdio::null());
        command
    }

    /// A cache folder of the test's own, empty at first.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.path().join("cache/imgbuild")
    }

    /// Has `command` keep its downloads and kernels in [`TestEnv::cache`].
    pub fn own_cache<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("XDG_CACHE_HOME", self.path().join("cache"))
    }

    /// Builds a recipe into `out` without booting it, and returns the folder.
    #[must_use]
    pub fn artifacts(&self, recipe: &str) -> PathBuf {
        let out = self.path().join("out").join(recipe);
        if !out.exists() {
            run(self
                .imgbuild(["build", recipe, "--no-boot", "--out"])
                .arg(&out))
            .succeeds();
        }
        out
    }

    /// Builds tty-idle with changes to its recipe, each a text and what stands
    /// in its place, and returns the folder.
    #[must_use]
    pub fn changed_artifacts(&self, changes: &[(&str, &str)]) -> PathBuf {
        let recipe = workspace().join("images/tty-idle.toml");
        let mut recipe = fs::read_to_string(recipe).expect("built in");
        for (text, instead) in changes {
            assert!(recipe.contains(text), "{text:?} is not in {recipe}");
            recipe = recipe.replace(text, instead);
        }
        let file = self.path().join("changed.toml");
        fs::write(&file, recipe).expect("the folder is ours");
        let out = self.path().join("out/changed");
        run(self
            .imgbuild(["build", "--no-boot", "--out"])
            .args([&out, &file]))
        .succeeds();
        out
    }

    /// The raw image of a guest's disk, whose file system e2fsck(8) finds clean.
    #[must_use]
    pub fn clean_disk(&self, overlay: &Path) -> PathBuf {
        let raw = self.path().join("disk.raw");
        run(self
            .command("qemu-img")
            .args(["convert", "-O", "raw"])
            .args([overlay, &raw]))
        .succeeds();
        let e2fsck = stand_in::find("e2fsck");
        run(self.command(e2fsck).arg("-fn").arg(&raw)).succeeds();
        raw
    }

    /// Processes that this test started, directly or not, and that live: those
    /// whose environment names the test's folder, be it in PATH, since a kernel
    /// build is given little else; and those that are given nothing, not even a
    /// PATH, as guests' VMMs, and have a file of that folder open.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let wanted = self.mark.as_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let marked = fs::read(entry.path().join("environ")).is_ok_and(|environment| {
                let names = |what: &[u8]| environment.windows(what.len()).any(|at| at == what);
                // By files alone, another test's child could be meant that has
                // not come to exec(2) yet, and shares this process's.
                names(wanted) || !names(b"PATH=") && self.has_open(&entry.path())
            });
            if marked && pid != std::process::id() {
                found.push(pid);
            }
        }
        found
    }

    /// Whether the process at `process`, a folder of /proc, has a file of the
    /// test's folder open.
    fn has_open(&self, process: &Path) -> bool {
        let files = fs::read_dir(process.join("fd")).into_iter().flatten();
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.starts_with(self.path()))
        })
    }

    /// Guests that this test started and that live.
    pub fn guests(&self) -> Vec<u32> {
        let mut found = self.processes();
        found.retain(|pid| {
            fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("\0-name\0g"))
        });
        found
    }

    /// The command lines of those processes, words parted by spaces.
    #[must_use]
    pub fn command_lines(&self) -> Vec<String> {
        self.processes()
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).ok())
            .map(|line| line.replace('\0', " "))
            .collect()
    }

    /// Asserts that no process of this test is left, after a short wait for
    /// those that are ending.
    pub fn assert_no_process_left(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.processes().is_empty() {
            assert!(
                Instant::now() < until,
                "left behind: {:?}",
                self.command_lines()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The folder of this host's fleets.
    #[must_use]
    pub fn fleets(&self) -> PathBuf {
        let host = HostId::this().expect("/proc is mounted");
        self.path()
            .join("state/imgbuild/fleets")
            .join(host.folder())
    }

    /// Asserts that no fleet, nor a boot verification, left a file or folder.
    pub fn assert_no_fleet_left(&self) {
        let others = ["run/imgbuild", "tmp"].map(|folder| self.path().join(folder));
        for folder in others.into_iter().chain([self.fleets()]) {
            let left: Vec<_> = fs::read_dir(folder)
                .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

impl Default for TestEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for TestEnv {
    /// A test that fails leaves no guest to the next one.
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        // A supervisor may start a guest while its others are killed.
        loop {
            let left = self.processes();
            if left.is_empty() || Instant::now() > until {
                return;
            }
            for pid in left {
                if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }
}

/// The `imgbuild` under test: `IMGBUILD_BIN`, or what cargo builds.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("IMGBUILD_BIN") {
            return PathBuf::from(given);
        }
        let workspace = workspace();
        let status = Command::new(env!("CARGO"))
            .current_dir(&workspace)
            .args(["build", "--release", "--locked", "--package", "imgbuild"])
            .status()
            .expect("cargo runs");
        assert!(status.success(), "imgbuild does not build");
        workspace.join("target/release/imgbuild")
    })
}

/// The folder of the checkout.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    finish(start(command))
}

/// Starts a command, its output kept for [`finish`].
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    loop {
        match command.spawn() {
            // A test wrote it just now, and a child that another test started
            // meanwhile has it open until it is another program.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(1));
            }
            started => return started.unwrap_or_else(|error| panic!("{command:?}: {error}")),
        }
    }
}

/// Waits for a command, killing it when it takes beyond all patience.
pub fn finish(mut child: Child) -> Finished {
    let stdout = collect(child.stdout.take().expect("piped by start"));
    let stderr = collect(child.stderr.take().expect("piped by start"));
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            break status;
        }
        if Instant::now() > until {
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
            panic!(
                "gave up after {PATIENCE:?}: {}",
                stderr.join().expect("reader")
            );
        }
        thread::sleep(Duration::from_millis(10));
    };
    Finished {
        status,
        stdout: stdout.join().expect("reader"),
        stderr: stderr.join().expect("reader"),
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe can be read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Finished {
    /// The exit code; a death by signal fails the test.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| panic!("{}: {}", self.status, self.stderr))
    }

    /// Asserts success and gives back what it said.
    pub fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Asserts an exit code and gives back what it said.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that stderr holds every one of `parts`.
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in stderr:\n{}",
                self.stderr
            );
        }
        self
    }

    /// Asserts that nobody is shown this.
    pub fn says_nothing_of(self, part: &str) -> Self {
        for text in [&self.stdout, &self.stderr] {
            assert!(!text.contains(part), "{part:?} is in:\n{text}");
        }
        self
    }

    /// Asserts that stdout holds every one of `parts`.
    pub fn shows(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(
                self.stdout.contains(part),
                "{part:?} is not in stdout:\n{}",
                self.stdout
            );
        }
        self
    }

    /// Its stdout as JSON, one value a line.
    #[must_use]
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.stdout
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
            })
            .collect()
    }
}
