//! Whose waits are measured: the processes of a fleet, as they come and go, or those
//! that the user names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bpf::Table;
use super::kernel::{FIRST, NAMED, NO_SLOT};
use crate::control::bridge::Detail;
use crate::control::client::Client;
use crate::control::follow::{Heard, follow};
use crate::control::types::{Event, Fleet};
use crate::control::unsupervised::unsupervised;
use crate::interrupt::{Background, Interrupt};
use crate::sample::processes;
use crate::store::folder::{Found, Supervised};
use crate::units::{GuestIndex, counted};

/// How often a control group is looked through, and the tables in the kernel are brought
/// up to date.
const REFRESH: Duration = Duration::from_millis(100);

/// What the user chose.
#[derive(Debug, Clone)]
pub(crate) enum Selection {
    Fleet(Found),
    Pids(Vec<u32>),
    /// The control group of this folder, and those in it.
    Cgroup(PathBuf),
    /// All threads of the host; these fleets are told apart.
    All(Vec<Found>),
}

/// Whose process it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A guest of the group.
    Guest(u32, GuestIndex),
    Process(u32),
}

impl Selection {
    /// What is measured, in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Fleet(found) => format!("fleet {}", found.name),
            Self::Pids(pids) => counted(pids.len() as u64, "process id"),
            Self::Cgroup(folder) => {
                let name = folder.file_name().unwrap_or_default();
                format!("control group {}", name.to_string_lossy())
            }
            Self::All(_) => "all threads of the host".to_owned(),
        }
    }

    /// The fleet of a group, where fleets are told apart; the last group may be of several.
    pub(super) fn fleet(&self, group: u32) -> Option<&str> {
        let Self::All(found) = self else { return None };
        let place = group.checked_sub(FIRST)?;
        let is_one = place + 1 < NAMED || found.len() <= NAMED as usize;
        found
            .get(place as usize)
            .filter(|_| is_one)
            .map(|found| &*found.name)
    }

    fn fleets(&self) -> &[Found] {
        match self {
            Self::Fleet(found) => std::slice::from_ref(found),
            Self::All(found) => found,
            Self::Pids(_) | Self::Cgroup(_) => &[],
        }
    }
}

/// A process that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    group: u32,
    slot: u32,
}

/// The processes by number, and the places of guests in the tables.
#[derive(Default)]
pub(super) struct Members {
    processes: BTreeMap<u32, Member>,
    /// Supervisors: what they start is of their group.
    parents: BTreeMap<u32, u32>,
    slots: Vec<Target>,
    places: BTreeMap<Target, u32>,
    /// Whether processes pass their group on to what they start.
    inherited: bool,
    /// Where the kernel has them; none without BPF.
    table: Option<Table>,
    changed: bool,
}

impl Members {
    fn slot(&mut self, target: Target) -> u32 {
        let next = u32::try_from(self.slots.len()).unwrap_or(NO_SLOT);
        *self.places.entry(target).or_insert_with(|| {
            self.slots.push(target);
            next
        })
    }

    fn guest(&mut self, group: u32, guest: GuestIndex, pid: Option<u32>) {
        let target = Target::Guest(group, guest);
        let slot = self.slot(target);
        let member = Member { group, slot };
        let is_same = pid.is_some_and(|pid| self.processes.get(&pid) == Some(&member));
        if is_same {
            return;
        }
        let before = self.processes.len();
        self.processes.retain(|_, known| *known != member);
        self.changed |= self.processes.len() != before;
        if let Some(pid) = pid {
            self.processes.insert(pid, member);
            self.changed = true;
        }
    }

    fn parent(&mut self, group: u32, pid: Option<u32>) {
        let before = self.parents.clone();
        self.parents.retain(|_, known| *known != group);
        self.parents.extend(pid.map(|pid| (pid, group)));
        self.changed |= self.parents != before;
    }

    /// Takes over how a fleet stands.
    fn fleet(&mut self, group: u32, fleet: &Fleet) {
        self.parent(group, fleet.supervisor.as_ref().map(|one| one.pid));
        let of_group = |known: &Member| known.group == group;
        let living: Vec<_> = (fleet.guests.iter())
            .filter_map(|guest| Some((guest.id, guest.pid?)))
            .collect();
        let mut processes = BTreeMap::new();
        for (guest, pid) in living {
            let slot = self.slot(Target::Guest(group, guest));
            processes.insert(pid, Member { group, slot });
        }
        let (same, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.processes.iter()).partition(|(_, member)| of_group(member));
        self.changed |= same != processes;
        processes.extend(others);
        self.processes = processes;
    }

    /// Takes over which processes there are.
    fn pids(&mut self, pids: impl Iterator<Item = u32>) {
        let group = FIRST;
        let mut processes = BTreeMap::new();
        for pid in pids {
            let slot = self.slot(Target::Process(pid));
            processes.insert(pid, Member { group, slot });
        }
        self.changed |= self.processes != processes;
        self.processes = processes;
    }

    /// Tells the kernel what changed.
    pub(super) fn tell(&mut self) {
        let inherits = u32::from(self.inherited);
        let Some(table) = self.table.as_mut().filter(|_| self.changed) else {
            return;
        };
        self.changed = false;
        let parents = self.parents.iter();
        let mut wanted: BTreeMap<_, _> = parents
            .map(|(pid, group)| (*pid, [*group, NO_SLOT, 1, 0]))
            .collect();
        let members = self.processes.iter();
        wanted.extend(members.map(|(pid, of)| (*pid, [of.group, of.slot, 0, inherits])));
        if let Err(error) = table.put(&wanted) {
            tracing::debug!("the kernel's table of processes: {error}");
        }
    }

    pub(super) fn hand(&mut self, table: Table) {
        self.table = Some(table);
        self.changed = true;
        self.tell();
    }

    /// The processes, and whose they are.
    pub(super) fn list(&self) -> Vec<(u32, Target)> {
        (self.processes.iter())
            .filter_map(|(pid, member)| Some((*pid, *self.slots.get(member.slot as usize)?)))
            .collect()
    }

    pub(super) fn slots(&self) -> &[Target] {
        &self.slots
    }

    /// The guest whose process this is.
    pub(super) fn guest_of(&self, pid: u32) -> Option<GuestIndex> {
        let member = self.processes.get(&pid)?;
        match self.slots.get(member.slot as usize)? {
            Target::Guest(_, guest) => Some(*guest),
            Target::Process(_) => None,
        }
    }
}

/// Keeps the members as they are, until it is dropped.
pub(super) struct Roster {
    members: Arc<Mutex<Members>>,
    _watching: Vec<Background>,
}

impl Roster {
    /// The members as they are now, and from now on.
    pub(super) fn start(selection: &Selection) -> io::Result<Self> {
        let members = Arc::new(Mutex::new(Members {
            inherited: matches!(selection, Selection::Cgroup(_)),
            ..Members::default()
        }));
        let mut watching = Vec::new();
        for (number, found) in (0_u32..).zip(selection.fleets()) {
            // The last group has all that have none of their own.
            let group = FIRST + number.min(NAMED - 1);
            watching.push(keep(&members, group, found)?);
        }
        match selection {
            Selection::Pids(pids) => lock(&members).pids(pids.iter().copied()),
            Selection::Cgroup(folder) => {
                lock(&members).pids(inside(folder)?.into_iter());
                watching.push(watch(Arc::clone(&members), folder.clone())?);
            }
            Selection::Fleet(_) | Selection::All(_) => {}
        }
        Ok(Self {
            members,
            _watching: watching,
        })
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        lock(&self.members)
    }
}

fn lock(members: &Mutex<Members>) -> MutexGuard<'_, Members> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the members of a fleet as they are.
fn keep(members: &Arc<Mutex<Members>>, group: u32, found: &Found) -> io::Result<Background> {
    let end = Interrupt::never()?;
    let client = Client::new(&found.name, &found.paths, &end);
    let now = match found.paths.supervised() {
        Supervised::By(_) => client.fleet(Detail::Whole).ok(),
        Supervised::No => unsupervised(found).ok(),
    };
    if let Some(fleet) = &now {
        lock(members).fleet(group, fleet);
    }
    let shared = Arc::clone(members);
    let mut due = Instant::now();
    let hear = move |heard: Heard| {
        let mut members = lock(&shared);
        match heard {
            Heard::Event(Event::Snapshot(fleet)) => members.fleet(group, &fleet),
            Heard::Event(Event::Guest(guest)) => members.guest(group, guest.id, guest.pid),
            Heard::Event(_) | Heard::Nothing | Heard::Silence(_) => {}
        }
        // Not with each of the thousands of events of a fleet that starts: until the
        // kernel is told, a new guest is known by its parent.
        let now = Instant::now();
        if now >= due {
            members.tell();
            due = now + REFRESH;
        }
        due
    };
    Ok(follow(client, end, hear))
}

/// Looks through a control group again and again.
fn watch(members: Arc<Mutex<Members>>, folder: PathBuf) -> io::Result<Background> {
    let end = Interrupt::never()?;
    Ok(Background::start(end, move |end| {
        while !end.wait(REFRESH) {
            // One that is removed has no processes.
            let pids = inside(&folder).unwrap_or_default();
            let mut members = lock(&members);
            members.pids(pids.into_iter());
            members.tell();
        }
    }))
}

/// The processes of a control group and of those in it (kernel document
/// admin-guide/cgroup-v2, `cgroup.procs`).
fn inside(folder: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(folder.join("cgroup.procs"))?;
    let mut pids: Vec<u32> = (text.lines())
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // One may go while it is looked at.
            pids.extend(inside(&entry.path()).unwrap_or_default());
        }
    }
    Ok(pids)
}

/// All processes of the host.
pub(super) fn everybody() -> Vec<(u32, Target)> {
    let folders = processes::folders(Path::new("/")).into_iter().flatten();
    let pid = |folder: PathBuf| folder.file_name()?.to_str()?.parse().ok();
    folders
        .flatten()
        .filter_map(pid)
        .map(|pid| (pid, Target::Process(pid)))
        .collect()
}
