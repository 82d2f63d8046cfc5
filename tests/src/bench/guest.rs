//! What a guest costs: CPU to boot, memory touched, wakeups when idle.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use imgbuild::artifact::INITRAMFS;
use imgbuild::directories::Directories;
use imgbuild::fleet::folder::Folder;
use imgbuild::fleet::plan::{Artifacts, Common};
use imgbuild::interrupt::Interrupt;
use imgbuild::vmm::qemu::{self, argv::argv};
use imgbuild::vmm::{Accel, Net, Sharing};
use tempfile::TempDir;

use super::{Budget, Row, Samples};
use crate::{TestEnv, wait_until};

/// Guests booted for each mean.
const BOOTS: usize = 10;
/// Time for a guest to settle before its wakeups are counted.
const SETTLE: Duration = Duration::from_secs(30);
/// For how long they are counted, and how often.
const WATCH: Duration = Duration::from_secs(10);
const WINDOWS: usize = 3;

/// How QEMU is run.
#[derive(Clone, Copy)]
enum Way {
    /// As `imgbuild launch` does, with overlay and identity.
    Ours(Net),
    /// The same kernel and initramfs on QEMU's default machine, as in the
    /// reference experiment: 1 GiB of RAM and the default devices.
    Plain,
}

/// A guest that is killed with this value.
struct Guest {
    child: Child,
    /// Bytes of RAM.
    ram: u64,
    _console: UnixStream,
    _folder: Option<Folder>,
    _temporary: TempDir,
}

/// Every row about a single guest.
#[must_use]
pub fn all() -> Vec<Row> {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    // By turns, so that both meet the same noise.
    for _ in 0..BOOTS {
        for (way, costs) in [(Way::Ours(Net::User), &mut ours), (Way::Plain, &mut others)] {
            let guest = Guest::boot(&out, way);
            costs.push([guest.cpu_seconds(), guest.touched_mib()]);
        }
    }
    let column = |costs: &[[f64; 2]], which: usize| {
        Samples::of(&costs.iter().map(|cost| cost[which]).collect::<Vec<_>>())
    };
    let row = |what, unit, ours, other, budget| Row {
        what,
        unit,
        ours,
        other,
        other_is: "the same kernel on QEMU's default machine, 1 GiB",
        budget,
    };
    let plain = Guest::boot(&out, Way::Plain).wakeups();
    let with_nic = Guest::boot(&out, Way::Ours(Net::User)).wakeups();
    let without_nic = Guest::boot(&out, Way::Ours(Net::None)).wakeups();
    vec![
        row(
            "boot to ready (TCG)",
            "CPU s",
            column(&ours, 0),
            column(&others, 0),
            Some(Budget::AtMost(0.7)),
        ),
        row(
            "guest RAM touched at ready",
            "MiB",
            column(&ours, 1),
            column(&others, 1),
            None,
        ),
        row(
            "idle guest without NIC, wakeups",
            "1/s",
            without_nic,
            plain.clone(),
            Some(Budget::AtMost(0.0)),
        ),
        row("idle guest with NIC, wakeups", "1/s", with_nic, plain, None),
    ]
}

/// Starts QEMU as `imgbuild launch` does, connected to its console.
fn ours(artifacts: &Artifacts, folder: &Folder, net: Net) -> (Child, UnixStream) {
    let plan = Common {
        artifacts,
        folder,
        accel: Accel::Tcg,
        sharing: Sharing::None,
        net,
        memory: artifacts.manifest.recipe.memory,
        parameters: "",
        login: None,
    }
    .plan(1, &Interrupt::never().expect("two descriptors"))
    .expect("one guest")
    .remove(0);
    let listener = UnixListener::bind(&plan.console).expect("the folder is ours");
    let console = UnixStream::connect(&plan.console).expect("it listens");
    let (child, _) = qemu::spawn(&argv(&plan.spec), listener).expect("QEMU starts");
    (child, console)
}

/// Starts QEMU as a user would type it, connected to its console.
fn plain(artifacts: &Artifacts, folder: &Path) -> (Child, UnixStream) {
    let file = |name: &str| -> PathBuf { artifacts.folder.join(name) };
    let socket = folder.join("console");
    let child = Command::new(qemu::BINARY)
        .args(["-m", "1G", "-display", "none", "-no-reboot", "-kernel"])
        .arg(file(&artifacts.manifest.kernel.file))
        .arg("-initrd")
        .arg(file(INITRAMFS))
        .args([
            "-append",
            "console=ttyS0 quiet reboot=t panic=-1 tty.burn=0",
        ])
        .arg("-serial")
        .arg(format!("unix:{},server=on,wait=on", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("QEMU starts");
    let mut console = None;
    wait_until("QEMU listens", || {
        console = UnixStream::connect(&socket).ok();
        console.is_some()
    });
    (child, console.expect("connected"))
}

impl Guest {
    /// Starts a guest and returns when it is ready.
    fn boot(out: &Path, way: Way) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let artifacts = Artifacts::open(out).expect("built for this");
        let directories = Directories {
            cache: temporary.path().join("cache"),
            state: temporary.path().join("state"),
            runtime: temporary.path().to_path_buf(),
        };
        let (child, console, ram, folder) = match way {
            Way::Ours(net) => {
                let folder = Folder::create("bench", &directories).expect("the folder is ours");
                let (child, console) = ours(&artifacts, &folder, net);
                let ram = artifacts.manifest.recipe.memory.bytes();
                (child, console, ram, Some(folder))
            }
            Way::Plain => {
                let (child, console) = plain(&artifacts, temporary.path());
                (child, console, 1 << 30, None)
            }
        };
        let guest = Self {
            child,
            ram,
            _console: console.try_clone().expect("a descriptor"),
            _folder: folder,
            _temporary: temporary,
        };
        let ready = BufReader::new(console)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains("\"event\":\"ready\""));
        assert!(ready, "the guest ended before it was ready");
        guest
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
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

    /// Times a second that any thread of QEMU was put on a CPU, in each of
    /// several windows.
    fn wakeups(&self) -> Samples {
        sleep(SETTLE);
        let windows: Vec<f64> = (0..WINDOWS)
            .map(|_| {
                let before = self.switches();
                sleep(WATCH);
                let count = u32::try_from(self.switches() - before).expect("few switches");
                f64::from(count) / WATCH.as_secs_f64()
            })
            .collect();
        Samples::of(&windows)
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
