//! Guests started without a supervisor, to be looked at from outside.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::sleep;
use std::time::Duration;

use imgbuild::artifact::INITRAMFS;
use imgbuild::artifact::opened::Artifacts;
use imgbuild::directories::Directories;
use imgbuild::fleet::site::Site;
use imgbuild::host_id::HostId;
use imgbuild::sample::footprint::{self, Extent, PAGE, Pages};
use imgbuild::units::GuestRange;
use imgbuild::vmm::{Lifetime, Net};
use tempfile::TempDir;
use tty_init::protocol::Message;

use crate::stand_in::{QEMU, find};
use crate::{alone, wait_until};

/// What a guest prints when it can be used.
pub const READY: &str = "\"event\":\"ready\"";

/// How QEMU is run.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// As `imgbuild launch` does, with overlay and identity.
    Ours(Net),
    /// The same, NIC included, with another identity blob, or none.
    Identity(Option<&'a [u8]>),
    /// The same, NIC included, with another initramfs and more parameters.
    Initramfs(&'a Path, &'a str),
    /// The same kernel and initramfs on QEMU's default machine, as in the
    /// reference experiment: 1 GiB of RAM and the default devices.
    Plain,
}

/// A guest that is killed with this value.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    /// Bytes of RAM.
    ram: u64,
    console: BufReader<UnixStream>,
    _place: Rc<Place>,
}

/// What a guest replied to a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// Exit code.
    pub code: u8,
    /// What it printed.
    pub output: String,
}

/// Where the guests of one fleet are.
#[derive(Debug)]
struct Place {
    _site: Option<Site>,
    _temporary: TempDir,
}

/// How often QEMU's threads went to sleep, and so woke up before.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wakeups {
    /// The thread that runs the guest's code.
    pub vcpu: u64,
    /// The main loop and all other threads.
    pub others: u64,
}

/// MiB that two guests do not have in common.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// Of pages that are not the same at the same address.
    pub by_address: f64,
    /// Of one guest's pages that are found nowhere in the other, which is what
    /// page sharing cannot merge.
    pub by_content: f64,
}

impl Guest {
    /// Starts a guest and returns when it is ready.
    #[must_use]
    pub fn boot(out: &Path, way: Way<'_>) -> Self {
        Self::fleet(out, way, 1).remove(0)
    }

    /// Starts a guest, and leaves all that it says to the caller.
    #[must_use]
    pub fn start(out: &Path, way: Way<'_>) -> Self {
        Self::start_fleet(out, way, 1).remove(0)
    }

    /// Starts the guests of one fleet side by side and returns when all are
    /// ready.
    #[must_use]
    pub fn fleet(out: &Path, way: Way<'_>, count: u32) -> Vec<Self> {
        let mut guests = Self::start_fleet(out, way, count);
        for guest in &mut guests {
            let _ = guest.read_to(READY);
        }
        guests
    }

    fn start_fleet(out: &Path, way: Way<'_>, count: u32) -> Vec<Self> {
        let temporary = tempfile::tempdir().expect("a temporary folder can be made");
        let artifacts = Artifacts::open(out).expect("built for this");
        let (started, ram, site) = match way {
            Way::Plain => {
                let started = (0..count)
                    .map(|index| plain(&artifacts, &temporary.path().join(index.to_string())))
                    .collect();
                (started, 1 << 30, None)
            }
            Way::Ours(_) | Way::Identity(_) | Way::Initramfs(..) => {
                let directories = Directories {
                    cache: temporary.path().join("cache"),
                    state: temporary.path().join("state"),
                    runtime: temporary.path().to_path_buf(),
                    host: HostId::this().expect("/proc is mounted"),
                };
                let (started, site) = ours(&artifacts, &directories, way, count);
                let ram = artifacts.manifest.recipe.memory.bytes();
                (started, ram, Some(site))
            }
        };
        let place = Rc::new(Place {
            _site: site,
            _temporary: temporary,
        });
        started
            .into_iter()
            .map(|(child, console)| Self {
                child,
                ram,
                console: BufReader::new(console),
                _place: Rc::clone(&place),
            })
            .collect()
    }

    /// Waits for the guest's end.
    pub fn ends(&mut self) {
        let status = self.child.wait().expect("the child is ours");
        assert!(status.success(), "QEMU: {status}");
    }

    /// Reads the console until a line holds `mark`, and gives that line.
    pub fn read_to(&mut self, mark: &str) -> String {
        self.console
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains(mark))
            .unwrap_or_else(|| panic!("the guest ended before {mark}"))
    }

    /// Sends a line to the console.
    pub fn write(&mut self, line: &str) {
        writeln!(self.console.get_mut(), "{line}").expect("the console is open");
    }

    /// What the guest replies to a command on its console, all parts together.
    pub fn ask(&mut self, command: &str) -> Reply {
        const TAG: u32 = 4_000_000_007;
        self.write(&format!("@{TAG} {command}"));
        let mut answer = String::new();
        loop {
            let line = self.read_to(&format!("\"tag\":{TAG},"));
            let message = tty_init::host::parse(line.as_bytes()).expect("a message");
            let Message::Reply {
                code, output, more, ..
            } = message
            else {
                panic!("only replies have tags: {line}");
            };
            answer.push_str(&output);
            if !more {
                return Reply {
                    code,
                    output: answer,
                };
            }
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(file)
    }

    fn proc(&self, file: &str) -> String {
        let path = self.path(file);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// User and system time of all of QEMU's threads (proc_pid_stat(5)).
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
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
    #[must_use]
    pub fn touched_mib(&self) -> f64 {
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

    fn pages(&self) -> Pages {
        footprint::pages(self.child.id(), Extent::Ram(self.ram)).expect("the child is ours")
    }

    /// What this guest's RAM does not share with `other`'s; a page that was
    /// never touched is one of zeros.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Difference {
        let zeros = [0; PAGE];
        let (mine, theirs) = (self.pages(), other.pages());
        let places: BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
        let by_address = places
            .into_iter()
            .filter(|&place| {
                mine.get(place).unwrap_or(&zeros) != theirs.get(place).unwrap_or(&zeros)
            })
            .count();
        let known: HashSet<_> = theirs.values().chain([&zeros]).collect();
        let by_content = mine.values().filter(|page| !known.contains(page)).count();
        let mib = |pages| f64::from(u32::try_from(pages).expect("few pages")) / 256.0;
        Difference {
            by_address: mib(by_address),
            by_content: mib(by_content),
        }
    }

    /// What each of QEMU's threads is called, and how often it woke up so far
    /// (proc_pid_status(5)).
    fn threads(&self) -> HashMap<OsString, (String, u64)> {
        let tasks = fs::read_dir(self.path("task")).expect("QEMU runs");
        tasks
            .flatten()
            .filter_map(|task| {
                // Workers for the disk come and go.
                let status = fs::read_to_string(task.path().join("status")).ok()?;
                let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
                let count = field("voluntary_ctxt_switches:")?.trim().parse().ok()?;
                Some((task.file_name(), (field("Name:")?.trim().to_owned(), count)))
            })
            .collect()
    }

    /// The wakeups of each guest in each of `windows` windows, all guests being
    /// watched at the same time.
    #[must_use]
    pub fn wakeups(guests: &[&Self], windows: usize, window: Duration) -> Vec<Vec<Wakeups>> {
        let mut counts = vec![Vec::new(); guests.len()];
        let look = || guests.iter().map(|guest| guest.threads());
        let mut before: Vec<_> = look().collect();
        for _ in 0..windows {
            sleep(window);
            for (guest, now) in look().enumerate() {
                let mut sum = Wakeups::default();
                for (thread, (name, count)) in &now {
                    let woken = count - before[guest].get(thread).map_or(0, |seen| seen.1);
                    // The name that `debug-threads=on` gives it.
                    if name.starts_with("CPU ") {
                        sum.vcpu += woken;
                    } else {
                        sum.others += woken;
                    }
                }
                counts[guest].push(sum);
                before[guest] = now;
            }
        }
        counts
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts QEMU as `imgbuild launch` does, connected to its console.
fn ours(
    artifacts: &Artifacts,
    directories: &Directories,
    way: Way<'_>,
    count: u32,
) -> (Vec<(Child, UnixStream)>, Site) {
    let (net, parameters) = match way {
        Way::Ours(net) => (net, ""),
        Way::Identity(_) => (Net::User, ""),
        Way::Initramfs(_, parameters) => (Net::User, parameters),
        Way::Plain => unreachable!("started otherwise"),
    };
    let site = alone::site(artifacts, directories, net, parameters, None, count);
    let started = GuestRange::first(count)
        .expect("few guests")
        .iter()
        .map(|guest| {
            alone::start(&site, guest, Lifetime::WithParent, |spec, files| {
                // QEMU's threads are told apart by their names.
                spec.id.push_str(",debug-threads=on");
                match way {
                    Way::Initramfs(path, _) => {
                        files.initramfs = File::open(path).expect("made for this");
                    }
                    Way::Identity(Some(blob)) => {
                        let written = site.folder().write_identity(guest, blob);
                        let file = File::open(written.expect("the folder is ours"));
                        files.identity = Some(file.expect("just written"));
                    }
                    Way::Identity(None) => files.identity = None,
                    Way::Ours(_) | Way::Plain => {}
                }
            })
        })
        .collect();
    (started, site)
}

/// Starts QEMU as a user would type it, connected to its console.
fn plain(artifacts: &Artifacts, socket: &Path) -> (Child, UnixStream) {
    let file = |name: &str| -> PathBuf { artifacts.folder.join(name) };
    let child = Command::new(find(QEMU))
        .args(["-name", "plain,debug-threads=on"])
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
        console = UnixStream::connect(socket).ok();
        console.is_some()
    });
    (child, console.expect("connected"))
}
