//! Finds living guests, whichever supervisor started them, by their UUIDs and users
//! among the processes of this host: no file needs to be right about them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::spec::FleetSpec;
use crate::interrupt::{Interrupt, poll_until};
use crate::sample::processes::{command_line, folders, ids, is_gone, stat};
use crate::units::{GuestIndex, Instance};
use crate::vmm::qemu::traces::uuids;

/// What tells the guests of a fleet from all other processes.
///
/// A command line is whatever its process says: anybody's may hold a guest's
/// UUID, and must not be taken for the guest. Under the guest's user id only the
/// fleet can have started one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The first part of their UUIDs.
    pub instance: Instance,
    /// Whose processes they are.
    pub users: GuestUsers,
}

/// Under which user ids the guests of a fleet run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestUsers {
    /// All under this one: the fleet's owner.
    Owner(u32),
    /// Guest N under this plus N.
    From(u32),
}

impl GuestUsers {
    /// Those of a fleet that keeps its state in this folder.
    pub fn of(run_as_base: Option<u32>, state: &Path) -> io::Result<Self> {
        Ok(match run_as_base {
            Some(base) => Self::From(base),
            None => Self::Owner(state.metadata()?.uid()),
        })
    }

    fn of_guest(self, guest: GuestIndex) -> Option<u32> {
        match self {
            Self::Owner(owner) => Some(owner),
            Self::From(base) => base.checked_add(guest.get()),
        }
    }
}

impl Mark {
    /// That of a fleet that keeps its state in this folder.
    pub fn of(spec: &FleetSpec, state: &Path) -> io::Result<Self> {
        Ok(Self {
            instance: spec.instance,
            users: GuestUsers::of(spec.run_as_base, state)?,
        })
    }
}

/// A guest whose VMM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Living {
    /// The guest.
    pub guest: GuestIndex,
    /// Process id of its VMM.
    pub pid: u32,
    /// When that started, in clock ticks since boot (`proc_pid_stat(5)`, field
    /// 22): a process of that number with another start is another one.
    pub start_time: u64,
}

/// The guests of a fleet that live below `root`, which is `/` on a live system,
/// in their order. Of a guest that runs twice there are two.
///
/// # Errors
/// When `/proc` cannot be read. A process that ends meanwhile, or that only
/// others may see, is none of the fleet's.
pub fn living(root: &Path, mark: Mark) -> io::Result<Vec<Living>> {
    let mut found = Vec::new();
    for process in folders(root)? {
        let process = process?;
        let living = match look(&process, mark) {
            Err(error) if is_gone(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
                continue;
            }
            other => other?,
        };
        let pid = process.file_name().and_then(|name| name.to_str());
        if let Some((guest, start_time)) = living
            && let Some(pid) = pid.and_then(|digits| digits.parse().ok())
        {
            found.push(Living {
                guest,
                pid,
                start_time,
            });
        }
    }
    found.sort_by_key(|living| (living.guest, living.start_time));
    Ok(found)
}

/// Takes hold of a guest's VMM by a pidfd (`pidfd_open(2)`); `None` if that
/// process is gone, or its number is another's by now.
///
/// What is signalled through it is the guest, or nobody: the process is looked
/// at once it is held, when its number cannot be given away unnoticed.
pub fn open(pid: u32, start_time: u64, mark: Mark, guest: GuestIndex) -> Option<OwnedFd> {
    let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let held = pidfd_open(raw, PidfdFlags::empty()).ok()?;
    is_guest(Path::new("/"), pid, start_time, mark, guest).then_some(held)
}

/// Waits until that process has ended, if it has not yet, or the user interrupts:
/// `false` if it still has not by then.
///
/// A process that is killed gives up its command line first, and its files only
/// later: until it has ended, its port is taken and its overlay locked.
pub fn wait_for_end(
    pid: u32,
    start_time: u64,
    until: Instant,
    interrupt: &Interrupt,
) -> io::Result<bool> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(held) = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok()) else {
        return Ok(true);
    };
    match self::start_time(Path::new("/"), pid) {
        Ok(started) if started == start_time => {
            let event = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
            let mut events = [event(held.as_fd()), event(interrupt.as_fd())];
            poll_until(&mut events, Some(until))?;
            Ok(!events[0].revents().is_empty())
        }
        _ => Ok(true),
    }
}

/// What tells the fleet of a guest that runs as the process `pid`, started at
/// that time, for `owner` or under a user id of its own; `None` if that is gone,
/// or its number is another's by now.
pub fn mark(root: &Path, pid: u32, start_time: u64, guest: GuestIndex, owner: u32) -> Option<Mark> {
    let process = root.join(format!("proc/{pid}"));
    let line = command_line(&process).ok()?;
    let instance = uuids(&line).find_map(|uuid| instance_of(uuid, guest))?;
    let [user, ..] = ids(&process).ok()?.users;
    let users = if user == owner {
        GuestUsers::Owner(owner)
    } else {
        GuestUsers::From(user.checked_sub(guest.get())?)
    };
    let mark = Mark { instance, users };
    is_guest(root, pid, start_time, mark, guest).then_some(mark)
}

/// When a process started, in clock ticks since boot.
pub fn start_time(root: &Path, pid: u32) -> io::Result<u64> {
    Ok(stat(&root.join(format!("proc/{pid}")))?.start_time)
}

fn is_guest(root: &Path, pid: u32, start_time: u64, mark: Mark, guest: GuestIndex) -> bool {
    look(&root.join(format!("proc/{pid}")), mark)
        .is_ok_and(|living| living == Some((guest, start_time)))
}

/// The guest that the process with this folder is, and when it started.
fn look(process: &Path, mark: Mark) -> io::Result<Option<(GuestIndex, u64)>> {
    let line = command_line(process)?;
    let Some(guest) = uuids(&line).find_map(|uuid| guest_of(uuid, mark.instance)) else {
        return Ok(None);
    };
    let is_ours = match mark.users.of_guest(guest) {
        Some(user) => ids(process)?.are_of(user),
        None => false,
    };
    if !is_ours {
        return Ok(None);
    }
    let stat = stat(process)?;
    Ok(stat.runs().then_some((guest, stat.start_time)))
}

/// Whether that process is this guest of the fleet.
pub(crate) fn is_run_by(pid: u32, instance: Instance, guest: GuestIndex) -> bool {
    command_line(Path::new(&format!("/proc/{pid}")))
        .is_ok_and(|line| uuids(&line).any(|uuid| guest_of(uuid, instance) == Some(guest)))
}

/// The guest of the fleet that has this UUID.
pub(crate) fn guest_of(uuid: &[u8], instance: Instance) -> Option<GuestIndex> {
    let digits = uuid.get(uuid.len().checked_sub(8)?..)?;
    let number = u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    let guest = GuestIndex::new(number).ok()?;
    (instance.uuid(number).as_bytes() == uuid).then_some(guest)
}

/// The fleet of the guest that has this UUID.
fn instance_of(uuid: &[u8], guest: GuestIndex) -> Option<Instance> {
    let digits = str::from_utf8(uuid).ok()?.replace('-', "");
    let instance = Instance::try_from(digits.get(..24)?.to_owned()).ok()?;
    (instance.uuid(guest.get()).as_bytes() == uuid).then_some(instance)
}

#[cfg(test)]
pub(crate) mod tests;
