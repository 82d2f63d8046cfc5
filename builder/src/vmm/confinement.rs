//! Restricts what a guest's process may do, between fork and exec.

use std::ffi::CStr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::{fs, io, mem};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit, setsid};
use rustix::thread::{
    Gid, Uid, clear_ambient_capability_set, disable_transparent_huge_pages, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::Accel;
use crate::process;

/// Most files that a VMM may have open. QEMU takes 18 with a disk and a network,
/// and one for every connection to its guest, of which 136 are served or wait
/// (`init/src/server.rs`). Short of files it would accept in vain, and burn a
/// CPU in doing so.
const FILES_MAX: u64 = 256;

/// What is added to the starter's `oom_score_adj`, of 1,000
/// (proc_pid_oom_score_adj(5)): where the host is out of memory, guests go
/// before who watches them.
const OOM_SCORE_STEP: i32 = 500;

const OOM_SCORE: &CStr = c"/proc/self/oom_score_adj";
const KVM: &str = "/dev/kvm";

/// How long a guest's process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// No longer than the thread that started it: it is killed
    /// (`PR_SET_PDEATHSIG`).
    WithParent,
    /// Until it ends by itself or is ended.
    Own,
}

/// What a guest's process may do.
#[derive(Clone, Copy)]
pub struct Confinement<'a> {
    /// How long it lives.
    pub lifetime: Lifetime,
    /// The user and group that it runs as; the starter's own without. Takes
    /// CAP_SETUID and CAP_SETGID.
    pub uid: Option<u32>,
    /// Run in the child before its user changes. It must make only system calls
    /// that are async-signal-safe (signal-safety(7)), take no lock and allocate
    /// nothing.
    pub extra: Option<&'a (dyn Fn() -> io::Result<()> + Sync)>,
}

/// Guests cannot use KVM under users of their own.
#[derive(Debug, thiserror::Error)]
pub enum KvmClosed {
    /// The device's mode does not let them.
    #[error(
        "{KVM} has mode {mode:04o} and group {group}, so guests cannot open it under users of \
         their own; give it to a group for that with `chgrp kvm {KVM}; chmod 0660 {KVM}`, or run \
         guests under yours (--run-as-base 0)"
    )]
    Mode {
        /// Its permission bits.
        mode: u32,
        /// Its group.
        group: u32,
    },
    /// Its mode cannot be read.
    #[error("cannot find out who may open {KVM}: {0}; is the module kvm loaded?")]
    Unknown(io::Error),
}

impl Confinement<'_> {
    /// Has `command` apply this; to be called after all else that opens files in
    /// the child.
    ///
    /// The command must be started, or dropped, while `self.extra` lives.
    pub(crate) fn apply(&self, command: &mut Command, accel: Accel) -> io::Result<()> {
        let score = oom_score(&fs::read_to_string("/proc/self/oom_score_adj")?)?;
        let user = self.uid.map(|uid| User::new(uid, accel)).transpose()?;
        // SAFETY: only the lifetime changes, and the caller drops `command`,
        // which holds the only copy, before it ends.
        let extra = unsafe {
            mem::transmute::<
                Option<&(dyn Fn() -> io::Result<()> + Sync)>,
                Option<&'static (dyn Fn() -> io::Result<()> + Sync)>,
            >(self.extra)
        };
        let confine = move || {
            // Ctrl-C is for the launcher, which stops its guests in order.
            setsid()?;
            // QEMU asks for huge pages for a guest's RAM, and a tiny guest would
            // be given 2 MiB wherever it touches a byte.
            disable_transparent_huge_pages(true)?;
            raise_oom_score(&score)?;
            // Before the user changes: a hard limit of 0 is only root's to raise.
            process::leave_no_core()?;
            if let Some(extra) = extra {
                extra()?;
            }
            if let Some(user) = &user {
                user.become_it()?;
            }
            clear_ambient_capability_set()?;
            set_no_new_privs(true)?;
            // Last: the starter's own files may have all numbers below this.
            limit(Resource::Nofile, FILES_MAX)
        };
        // SAFETY: the closure runs between fork and exec, makes only system
        // calls, takes no lock and allocates nothing; `extra` promises the same.
        unsafe { command.pre_exec(confine) };
        match self.lifetime {
            // After the change of user, which clears the signal (prctl(2)).
            Lifetime::WithParent => process::die_with_parent(command, Signal::KILL),
            Lifetime::Own => {}
        }
        Ok(())
    }
}

/// A user and group to become, with at most one other group.
struct User {
    uid: Uid,
    gid: Gid,
    other: Option<Gid>,
}

impl User {
    fn new(uid: u32, accel: Accel) -> io::Result<Self> {
        if uid == u32::MAX {
            // To the system calls it means "as before" (setresuid(2)).
            let message = format!("{uid} is not a user id; choose a lower one");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let group = match accel {
            Accel::Kvm => kvm_for_users().map_err(io::Error::other)?,
            Accel::Tcg => None,
        };
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(uid),
            other: group.map(Gid::from_raw),
        })
    }

    /// The process has one thread, between fork and exec.
    fn become_it(&self) -> io::Result<()> {
        set_thread_groups(self.other.as_slice())?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        Ok(set_thread_res_uid(self.uid, self.uid, self.uid)?)
    }
}

/// How a user without rights of its own opens /dev/kvm: by the group given, or
/// as everybody.
pub fn kvm_for_users() -> Result<Option<u32>, KvmClosed> {
    device_for_users(Path::new(KVM))
}

fn device_for_users(device: &Path) -> Result<Option<u32>, KvmClosed> {
    let metadata = device.metadata().map_err(KvmClosed::Unknown)?;
    kvm_group(metadata.mode() & 0o7777, metadata.gid())
}

/// The group by which a user without rights of its own opens /dev/kvm; none
/// where everybody may.
///
/// Root's group is refused: it opens more than that.
pub fn kvm_group(mode: u32, group: u32) -> Result<Option<u32>, KvmClosed> {
    if mode & 0o006 == 0o006 {
        Ok(None)
    } else if mode & 0o060 == 0o060 && group != 0 {
        Ok(Some(group))
    } else {
        Err(KvmClosed::Mode { mode, group })
    }
}

/// A guest's `oom_score_adj`, from the starter's.
fn oom_score(own: &str) -> io::Result<String> {
    let own: i32 = own.trim().parse().map_err(io::Error::other)?;
    Ok((own + OOM_SCORE_STEP).min(1000).to_string())
}

fn raise_oom_score(score: &str) -> io::Result<()> {
    let file = rustix::fs::open(OOM_SCORE, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, score.as_bytes())?;
    Ok(())
}

/// Sets a limit that the process cannot raise again; a lower one stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let most = getrlimit(resource)
        .maximum
        .map_or(most, |hard| hard.min(most));
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    Ok(setrlimit(resource, limit)?)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn kvm_is_opened_by_everybody_or_by_a_group_that_is_not_root_s() {
        assert_eq!(kvm_group(0o666, 0).unwrap(), None);
        assert_eq!(kvm_group(0o660, 104).unwrap(), Some(104));
        for (mode, group) in [(0o660, 0), (0o600, 104), (0o640, 104), (0o664, 0)] {
            let error = kvm_group(mode, group).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn a_device_that_users_cannot_open_is_reported_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("kvm");
        let error = || device_for_users(&device).unwrap_err().to_string();
        assert!(error().starts_with("cannot find out who may open"));
        fs::write(&device, "").unwrap();
        let set = |mode| fs::set_permissions(&device, Permissions::from_mode(mode)).unwrap();
        set(0o600);
        assert!(error().contains("mode 0600"));
        set(0o666);
        assert_eq!(device_for_users(&device).unwrap(), None);
    }

    #[test]
    fn guests_go_before_their_starter_and_no_score_exceeds_the_kernel_s() {
        assert_eq!(oom_score("0\n").unwrap(), "500");
        assert_eq!(oom_score("-1000\n").unwrap(), "-500");
        assert_eq!(oom_score("800\n").unwrap(), "1000");
        assert!(oom_score("").is_err() && oom_score("much\n").is_err());
    }

    fn confined(confinement: &Confinement<'_>, script: &str) -> io::Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        confinement.apply(&mut command, Accel::Tcg)?;
        let output = command.output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    const OWN: Confinement<'_> = Confinement {
        lifetime: Lifetime::Own,
        uid: None,
        extra: None,
    };

    #[test]
    fn a_process_leads_a_session_and_has_little() {
        let said = confined(
            &OWN,
            "cut -d' ' -f1,6 /proc/$$/stat; ulimit -n; grep NoNewPrivs /proc/$$/status; \
             cat /proc/$$/oom_score_adj; grep core /proc/$$/limits",
        )
        .unwrap();
        let lines: Vec<_> = said.lines().collect();
        let (pid, session) = lines[0].split_once(' ').unwrap();
        assert_eq!(pid, session);
        assert_eq!(lines[1..3], ["256", "NoNewPrivs:\t1"]);
        let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(lines[3], oom_score(&own).unwrap());
        let core: Vec<_> = lines[4].split_whitespace().collect();
        assert_eq!(core, ["Max", "core", "file", "size", "1", "1", "bytes"]);
    }

    #[test]
    fn what_is_refused_in_the_child_is_reported() {
        let refuse = || Err(io::Error::from_raw_os_error(1));
        let confinement = Confinement {
            extra: Some(&refuse),
            ..OWN
        };
        let error = confined(&confinement, "true").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(1));
        let nobody = Confinement {
            uid: Some(u32::MAX),
            ..OWN
        };
        let error = confined(&nobody, "true").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
