//! Namespaces of a test's own, in which it runs commands. They take root, but for one
//! of a single user.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::geteuid;

/// A namespace that is there for as long as this is.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
    /// What nsenter(1) enters.
    kind: &'static str,
}

impl Namespace {
    /// Mounts as everybody has them, but for an empty `/run`.
    #[must_use]
    pub fn with_empty_run() -> Self {
        Self::mounting("mount -t tmpfs -o mode=755 none /run")
    }

    /// Mounts as everybody has them, but for what this script mounts.
    #[must_use]
    pub fn mounting(script: &str) -> Self {
        Self::hold("mount", script)
    }

    /// So many users and groups, from root on up. As a user without rights would
    /// make it, one of a single id denies setgroups(2).
    #[must_use]
    pub fn with_users(count: u32) -> Self {
        let namespace = Self::hold("user", "true");
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{}/{file}", namespace.holder.id());
            fs::write(&path, text).unwrap_or_else(|error| panic!("{path}: {error}"));
        };
        let own = geteuid().as_raw();
        if count == 1 {
            write("setgroups", "deny");
        }
        for map in ["uid_map", "gid_map"] {
            write(map, &format!("0 {own} {count}\n"));
        }
        namespace
    }

    fn hold(kind: &'static str, prepare: &str) -> Self {
        let mut holder = Command::new("unshare")
            .args([&format!("--{kind}"), "sh", "-ec"])
            .arg(format!("{prepare}; echo up; read -r end"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let mut said = [0; 3];
        let mut stdout = holder.stdout.take().expect("it is piped");
        stdout.read_exact(&mut said).expect("root may have one");
        Self { holder, kind }
    }

    /// The same command in here.
    #[must_use]
    pub fn within(&self, command: &Command) -> Command {
        let mut inner = Command::new("nsenter");
        let namespace = match self.kind {
            "mount" => "mnt",
            kind => kind,
        };
        let id = self.holder.id();
        inner.arg(format!("--{}=/proc/{id}/ns/{namespace}", self.kind));
        if let Some(folder) = command.get_current_dir() {
            let mut option = OsString::from("--wd=");
            option.push(folder);
            inner.arg(option).current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inner.env(name, value),
                None => inner.env_remove(name),
            };
        }
        inner
            .args(["--preserve-credentials", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        inner
    }

    /// Where a path in here is for the test.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let below = path.as_ref().strip_prefix("/");
        root.join(below.expect("it is absolute"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
