//! `--user`: root acts as another user.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Uid, User, geteuid, initgroups, setgid, setuid};

use crate::process;

/// What of root's environment is the user's as well: how things are shown, and
/// what imgbuild was asked to do.
const KEPT: [&str; 6] = ["PATH", "TERM", "LANG", "NO_COLOR", "COLUMNS", "TZ"];
const KEPT_PREFIXES: [&str; 2] = ["LC_", "IMGBUILD_"];

/// Why nobody else is acted as.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    /// There is no such user.
    #[error("there is no user named {0}; `getent passwd` lists users")]
    Unknown(String),
    /// They could not be looked up.
    #[error("cannot look up the user {name}: {source}")]
    Unreadable { name: String, source: Errno },
    #[error("only root acts as another user; leave --user out, or run imgbuild as root")]
    NotRoot,
    #[error("cannot act as {name}: {source}")]
    Refused { name: String, source: io::Error },
}

/// Becomes this process again as the user called `name`, with that user's groups,
/// and home folder instead of root's; returns if this is that user already.
pub(super) fn act_as(name: &str) -> Result<(), UserError> {
    let found = User::from_name(name).map_err(|source| UserError::Unreadable {
        name: name.to_owned(),
        source,
    })?;
    let user = found.ok_or_else(|| UserError::Unknown(name.to_owned()))?;
    if user.uid == geteuid() {
        return Ok(());
    }
    if !geteuid().is_root() {
        return Err(UserError::NotRoot);
    }
    let refused = |source| UserError::Refused {
        name: name.to_owned(),
        source,
    };
    become_user(&user).map_err(|errno| refused(errno.into()))?;
    let mut command = process::this_program();
    command
        .args(std::env::args_os().skip(1))
        .env_clear()
        .envs(environment(&user));
    Err(refused(command.exec()))
}

/// For good: the group first, which a user may not change.
fn become_user(user: &User) -> Result<(), Errno> {
    let name = CString::new(user.name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    initgroups(&name, user.gid)?;
    setgid(user.gid)?;
    setuid(user.uid)
}

fn environment(user: &User) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &OsStr| {
        let name = name.to_string_lossy();
        KEPT.contains(&&*name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let kept = std::env::vars_os().filter(|(name, _)| is_kept(name));
    let own = [
        ("HOME", user.dir.clone().into_os_string()),
        ("USER", user.name.clone().into()),
        ("LOGNAME", user.name.clone().into()),
    ];
    let own = own.map(|(name, value)| (name.into(), value));
    let runtime = runtime(user.uid).map(|path| ("XDG_RUNTIME_DIR".into(), path.into()));
    kept.chain(own).chain(runtime).collect()
}

/// Where the system puts a user's sockets, while somebody is logged in as that
/// user (pam_systemd(8)).
fn runtime(uid: Uid) -> Option<PathBuf> {
    let path = Path::new("/run/user").join(uid.to_string());
    path.is_dir().then_some(path)
}
