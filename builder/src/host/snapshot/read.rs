//! Reads a host: files below a root, system calls, and the output of tools.

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, Scope};

use rustix::process::{Resource, geteuid, getrlimit, getuid};
use rustix::thread::{CapabilitySet, capabilities, sched_getaffinity};

use super::{
    FileSystem, Files, Host, MemoryMerge, Qemu, SCHEMA, Store, Unseen, cgroup, cpu, daemons,
    kernel, merge, mounts, network, storage, tables, users,
};
use crate::directories::Directories;
use crate::host::kvm::{self, Kvm, Prober, probe};
use crate::host::{self, memory, user_ids};
use crate::host_id::BootId;
use crate::interrupt::Interrupt;
use crate::process::ProcessError;
use crate::sample::ksm;
use crate::sample::source::Source;
use crate::vmm::alike;
use crate::vmm::qemu::{Barrier, Program};

/// A user who owns nothing, as those of guests do.
const STRANGER: u32 = u32::MAX - 1;
/// Most of a tool's complaint that is kept, in characters.
const COMPLAINT: usize = 400;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// What stands for `/`: all of `/proc`, `/sys`, `/dev` and `/boot` is read
    /// below it.
    pub root: PathBuf,
    /// Where fleets keep overlays and identities; need not be there yet.
    pub state: PathBuf,
    /// Where fleets keep sockets; need not be there yet.
    pub runtime: PathBuf,
    /// What becomes of a `/dev/kvm` that opens.
    pub kvm: KvmProbe,
    /// The QEMU that is to run guests; `None` where there is none.
    pub qemu: Option<Program>,
}

/// Whether KVM is made to run ring-0 code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmProbe {
    /// It is.
    Run(Prober),
    /// It is not.
    Skip,
}

impl Places {
    /// Of this host and this user, whose guests `qemu` is to run.
    pub fn of(directories: &Directories, kvm: KvmProbe, qemu: Option<Program>) -> Self {
        Self {
            root: PathBuf::from("/"),
            state: directories.state.clone(),
            runtime: directories.runtime.clone(),
            kvm,
            qemu,
        }
    }
}

/// What no file below a root tells.
pub(crate) struct System {
    /// Whether this process is root's.
    pub privileged: bool,
    /// The kernel's release.
    pub release: Option<String>,
    /// Processors that this process may use.
    pub allowed: u64,
    /// Hard `RLIMIT_NOFILE`.
    pub open_max: Option<u64>,
    /// Whether this process may raise it.
    pub open_raisable: bool,
    /// Hard `RLIMIT_NPROC`.
    pub user_max: Option<u64>,
    /// The user whose threads count against that; `None` for root.
    pub user: Option<u32>,
    /// What this process lacks to run guests under ids of their own.
    pub missing_capabilities: Vec<String>,
    /// File systems that a fleet writes to.
    pub storage: BTreeMap<Store, FileSystem>,
    /// Whether `PR_SET_MEMORY_MERGE` outlives execve(2).
    pub memory_merge: Option<MemoryMerge>,
    /// What KVM did with ring-0 code.
    pub probe: Option<probe::Outcome>,
}

impl Host {
    /// Reads the host. This never fails: what cannot be seen is noted in
    /// [`Host::unseen`], and tools that do not answer are ended in time, or by
    /// `interrupt`.
    pub fn read(places: &Places, interrupt: &Interrupt) -> Self {
        let mut unseen = Vec::new();
        let system = System::ask(places, interrupt, &mut unseen);
        // Last, so that what is counted does not count the tools.
        let mut host = Self::below(&places.root, system, unseen, || {
            Qemu::ask(places.qemu.as_ref(), interrupt)
        });
        let program = places.qemu.as_ref().map(Program::path);
        let barrier = program.and_then(|program| Barrier::before(program, STRANGER));
        host.users.qemu_barrier = barrier.as_ref().map(Barrier::to_string);
        host
    }

    /// The host whose files are below `root`; `qemu` is called last.
    pub(crate) fn below(
        root: &Path,
        system: System,
        mut unseen: Vec<Unseen>,
        qemu: impl FnOnce() -> Qemu,
    ) -> Self {
        let kvm = kvm::read(root, system.probe, &mut unseen);
        let memory = memory::read(root, &mut unseen);
        let ksm = ksm::read(root, &mut unseen);
        let mut source = Source::new(root, &mut unseen);
        let ksmd_nice = ksm::ksmd(&mut source).map(|ksmd| ksmd.nice);
        let mounts = mounts::read(&mut source);
        let running = daemons::read(&mut source);
        let mut host = Self {
            schema: SCHEMA,
            imgbuild: env!("CARGO_PKG_VERSION").to_owned(),
            privileged: system.privileged,
            boot_id: boot_id(&mut source),
            kernel: kernel::read(&mut source, system.release),
            cpu: cpu::read(&mut source, system.allowed),
            kvm: Kvm {
                pit_threads: Some(running.pit_threads),
                ..kvm
            },
            memory,
            nodes: cpu::nodes(&mut source),
            ksm: ksm.map(|ksm| ksm::Ksm { ksmd_nice, ..ksm }),
            allocator: alike::allocator(root).map(|path| path.display().to_string()),
            memory_merge: system.memory_merge,
            cgroup: cgroup::read(&mut source, &mounts),
            processes: tables::processes(&mut source, system.user_max, system.user),
            users: users::read(&mut source, system.missing_capabilities),
            files: Files {
                open_max: system.open_max,
                open_raisable: system.open_raisable,
                ..tables::files(&mut source)
            },
            network: network::read(&mut source),
            storage: system.storage,
            daemons: running.daemons,
            qemu: qemu(),
            unseen: Vec::new(),
        };
        unseen.sort();
        unseen.dedup();
        host.unseen = unseen;
        host
    }
}

impl System {
    fn ask(places: &Places, interrupt: &Interrupt, unseen: &mut Vec<Unseen>) -> Self {
        let mut source = Source::new(&places.root, unseen);
        let mounts = mounts::read(&mut source);
        Self {
            privileged: geteuid().is_root(),
            release: rustix::system::uname()
                .release()
                .to_str()
                .ok()
                .map(str::to_owned),
            allowed: allowed(),
            open_max: getrlimit(Resource::Nofile).maximum,
            open_raisable: capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE)),
            user_max: getrlimit(Resource::Nproc).maximum,
            user: (!geteuid().is_root()).then(|| getuid().as_raw()),
            missing_capabilities: user_ids::missing_capabilities(),
            storage: storage::read(&mut source, places, &mounts),
            memory_merge: merge::probe(interrupt),
            probe: match &places.kvm {
                KvmProbe::Run(prober) if kvm::access(&places.root).is_ok() => {
                    Some(prober.run(interrupt))
                }
                KvmProbe::Run(_) | KvmProbe::Skip => None,
            },
        }
    }
}

/// Processors in this process's affinity mask. A group's share of their time is
/// given by its limit ([`super::Group::cpu_max_millis`]).
fn allowed() -> u64 {
    // A mask of rustix holds 1,024; a kernel for more refuses to fill it.
    let count =
        sched_getaffinity(None).map_or_else(|_| host::cpus() as u64, |mask| mask.count().into());
    count.max(1)
}

fn boot_id(source: &mut Source) -> Option<BootId> {
    source.parsed(BootId::FILE, "a UUID", |text| text.parse().ok())
}

/// Starts `work` on a thread of its own, or leaves it for later on a host that
/// has no thread to spare; what is returned waits for its result.
fn aside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl Fn() -> T + Copy + Send + 'scope,
) -> impl FnOnce() -> T {
    let started = thread::Builder::new().spawn_scoped(scope, work);
    move || match started {
        Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        Err(_) => work(),
    }
}

impl Qemu {
    /// Asks `program`, or takes what it answered before.
    pub fn ask(program: Option<&Program>, interrupt: &Interrupt) -> Self {
        let Some(program) = program else {
            return Self::Missing;
        };
        thread::scope(|scope| {
            let version = aside(scope, || program.version(interrupt));
            let microvm = program.has_microvm(interrupt);
            Self::by_answers(program.path(), version(), microvm)
        })
    }

    /// The QEMU at `path`: its version, and whether it has the machine type that
    /// guests use.
    pub fn by_answers(
        path: &Path,
        version: Result<String, ProcessError>,
        microvm: Result<bool, ProcessError>,
    ) -> Self {
        match (version, microvm) {
            (Ok(version), _) if version.is_empty() => Self::Broken {
                why: format!("`{} --version` printed nothing", path.display()),
            },
            (Ok(version), _) if version.len() > COMPLAINT || version.contains(char::is_control) => {
                Self::Broken {
                    why: format!("`{} --version` printed no version", path.display()),
                }
            }
            (Ok(version), Ok(microvm)) => Self::Found {
                path: Some(path.to_path_buf()),
                version,
                microvm,
            },
            (Err(error), _) | (Ok(_), Err(error)) => {
                let lines = error.to_string().replace('\n', " ");
                let why = lines.chars().take(COMPLAINT).collect();
                match error {
                    ProcessError::Starved { .. } => Self::Overdue { why },
                    _ => Self::Broken { why },
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PATH: &str = "/usr/libexec/qemu-kvm";

    fn judged(version: Result<String, ProcessError>, microvm: Result<bool, ProcessError>) -> Qemu {
        Qemu::by_answers(Path::new(PATH), version, microvm)
    }

    fn why(qemu: Qemu) -> String {
        match qemu {
            Qemu::Broken { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn qemu_is_judged_by_its_answers() {
        let version = || Ok("QEMU emulator version 7.2.19".to_owned());
        for microvm in [true, false] {
            let expected = Qemu::Found {
                path: Some(PATH.into()),
                version: "QEMU emulator version 7.2.19".to_owned(),
                microvm,
            };
            assert_eq!(judged(version(), Ok(microvm)), expected);
        }
        for garbled in ["\0".repeat(9), "7".repeat(1 << 20)] {
            assert!(why(judged(Ok(garbled), Ok(true))).contains("no version"));
        }
        let interrupt = Interrupt::never().unwrap();
        assert_eq!(Qemu::ask(None, &interrupt), Qemu::Missing);
        let slow = || ProcessError::TooSlow {
            program: PATH.to_owned(),
            limit: Duration::from_secs(10),
        };
        for qemu in [
            judged(Err(slow()), Ok(true)),
            judged(version(), Err(slow())),
        ] {
            let why = why(qemu);
            assert!(why.contains("did not end within 10s"), "{why}");
        }
        let starved = || ProcessError::Starved {
            program: PATH.to_owned(),
            wall: Duration::from_secs(60),
            had: Duration::from_millis(40),
        };
        for qemu in [
            judged(Err(starved()), Ok(true)),
            judged(version(), Err(starved())),
        ] {
            let Qemu::Overdue { why } = qemu else {
                panic!("{qemu:?}");
            };
            assert!(why.contains("too busy"), "{why}");
        }
        let why = why(judged(Ok(String::new()), Ok(true)));
        assert_eq!(why, format!("`{PATH} --version` printed nothing"));
    }

    #[test]
    fn a_long_complaint_of_qemu_becomes_one_short_line() {
        let failed = ProcessError::Watch {
            program: PATH.to_owned(),
            source: std::io::Error::other("a\nb".repeat(1000)),
        };
        let why = why(judged(Err(failed), Ok(true)));
        assert_eq!((why.lines().count(), why.chars().count()), (1, COMPLAINT));
    }
}
