//! What a guest costs: CPU to boot, memory touched, wakeups when idle.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::thread::sleep;
use std::time::Duration;

use imgbuild::artifact::INITRAMFS;
use imgbuild::directories::Directories;
use imgbuild::fleet::folder::Folder;
use imgbuild::fleet::launch::{Artifacts, Common};
use imgbuild::interrupt::Interrupt;
use imgbuild::vmm::qemu::{self, Lifetime, argv::argv};
use imgbuild::vmm::{Accel, Net, Sharing};
use tempfile::TempDir;

use super::{Budget, Row, Samples};
use crate::TestEnv;

/// Guests booted for each mean.
const BOOTS: usize = 10;
/// Time for a guest to settle before its wakeups are counted.
const SETTLE: Duration = Duration::from_secs(8);
/// For how long they are counted.
const WATCH: Duration = Duration::from_secs(10);

/// How QEMU is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// As `imgbuild launch` does.
    Ours,
    /// The same kernel and initramfs on QEMU's default machine, as in the
    /// reference experiment: 1 GiB of RAM and the default devices.
    Plain,
}

/// What one guest cost.
struct Cost {
    cpu_seconds: f64,
    touched_mib: f64,
}

/// A guest that is killed with this value.
struct Guest {
    child: Child,
    ram: u64,
    _console: UnixStream,
    _folder: Folder,
    _temporary: TempDir,
}

/// QEMU's arguments as a user would type them, with the same kernel.
fn plain(artifacts: &Artifacts) -> Vec<OsString> {
    let file = |name: &str| artifacts.folder.join(name).into_os_string();
    let mut arguments: Vec<OsString> = [
        "-m 1G -display none -no-reboot",
        "-chardev socket,id=console,fd=3,server=on,wait=on -serial chardev:console",
    ]
    .iter()
    .flat_map(|words| words.split(' '))
    .map(OsString::from)
    .collect();
    arguments.extend(["-kernel".into(), file(&artifacts.manifest.kernel.file)]);
    arguments.extend(["-initrd".into(), file(INITRAMFS)]);
    arguments.extend([
        "-append".into(),
        "console=ttyS0 quiet reboot=t panic=-1 tty.burn=0".into(),
    ]);
    arguments
}

/// Every row about a single guest.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let measure = |way| -> (Samples, Samples) {
        let costs: Vec<Cost> = (0..BOOTS).map(|_| Guest::boot(&out, way).cost()).collect();
        (
            Samples::of(
                &costs
                    .iter()
                    .map(|cost| cost.cpu_seconds)
                    .collect::<Vec<_>>(),
            ),
            Samples::of(
                &costs
                    .iter()
                    .map(|cost| cost.touched_mib)
                    .collect::<Vec<_>>(),
            ),
        )
    };
    let (our_cpu, our_touched) = measure(Way::Ours);
    let (plain_cpu, plain_touched) = measure(Way::Plain);
    let other_is = "the same kernel on QEMU's default machine, 1 GiB";
    vec![
        Row {
            what: "boot to ready (TCG)",
            unit: "CPU s",
            ours: our_cpu,
            other: plain_cpu,
            other_is,
            budget: Some(Budget::AtMost(0.7)),
        },
        Row {
            what: "guest RAM touched at ready",
            unit: "MiB",
            ours: our_touched,
            other: plain_touched,
            other_is,
            budget: None,
        },
        Row {
            what: "wakeups of an idle guest",
            unit: "1/s",
            ours: Guest::boot(&out, Way::Ours).wakeups(),
            other: Guest::boot(&out, Way::Plain).wakeups(),
            other_is,
            budget: Some(Budget::AtMost(0.05)),
        },
    ]
}

impl Guest {
    /// Starts a guest and returns when it is ready.
    fn boot(out: &Path, way: Way) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let artifacts = Artifacts::open(out).expect("built for this");
        let memory = artifacts.manifest.recipe.memory;
        let directories = Directories {
            cache: temporary.path().join("cache"),
            state: temporary.path().join("state"),
            runtime: temporary.path().to_path_buf(),
        };
        let folder = Folder::create("bench", &directories).expect("the folder is ours");
        let plan = Common {
            artifacts: &artifacts,
            folder: &folder,
            accel: Accel::Tcg,
            sharing: Sharing::None,
            net: Net::User,
            memory,
            parameters: "",
        }
        .plan(1, &Interrupt::never().expect("two descriptors"))
        .expect("one guest")
        .remove(0);
        let (arguments, ram) = match way {
            Way::Ours => (argv(&plan.spec), memory.bytes()),
            Way::Plain => (plain(&artifacts), 1 << 30),
        };
        let listener = UnixListener::bind(&plan.console).expect("the folder is ours");
        let console = UnixStream::connect(&plan.console).expect("it listens");
        let (child, _) =
            qemu::spawn(&arguments, listener, Lifetime::WithParent).expect("QEMU starts");
        let ready = BufReader::new(console.try_clone().expect("a descriptor"))
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("\"event\":\"ready\""));
        assert!(ready, "the guest ended before it was ready");
        Self {
            child,
            _console: console,
            _folder: folder,
            _temporary: temporary,
            ram,
        }
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn cost(&self) -> Cost {
        Cost {
            cpu_seconds: self.cpu_seconds(),
            touched_mib: self.touched_mib(),
        }
    }

    /// User and system time of all of QEMU's threads (proc_pid_stat(5)).
    fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("proc_pid_stat(5)");
        let ticks: f64 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .map(|field| field.parse::<f64>().expect("ticks"))
            .sum();
        ticks / 100.0
    }

    /// Resident part of the mapping that is the guest's RAM (proc_pid_smaps(5)).
    fn touched_mib(&self) -> f64 {
        let smaps = self.proc("smaps");
        let size = format!("Size: {:>18} kB", self.ram >> 10);
        let rss = smaps
            .split(&size)
            .nth(1)
            .expect("QEMU maps the guest's RAM in one piece")
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"))
            .expect("proc_pid_smaps(5)");
        let kib: f64 = rss.trim().trim_end_matches(" kB").parse().expect("kB");
        kib / 1024.0
    }

    /// Times a second that any thread of QEMU was put on a CPU.
    fn wakeups(&self) -> Samples {
        sleep(SETTLE);
        let before = self.switches();
        sleep(WATCH);
        let count = u32::try_from(self.switches() - before).expect("few switches");
        Samples::of(&[f64::from(count) / WATCH.as_secs_f64()])
    }

    fn switches(&self) -> u64 {
        let tasks = format!("/proc/{}/task", self.child.id());
        fs::read_dir(&tasks)
            .expect("QEMU runs")
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
            .flat_map(|status| {
                status
                    .lines()
                    .filter_map(|line| line.split_once("ctxt_switches:"))
                    .map(|(_, count)| count.trim().parse::<u64>().expect("a count"))
                    .collect::<Vec<_>>()
            })
            .sum()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
