//! One guest under TCG whose console is in the test's hands: read when the
//! test reads it, and sent any bytes.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use imgbuild::artifact::opened::Artifacts;
use imgbuild::directories::Directories;
use imgbuild::fleet::site::Site;
use imgbuild::host_id::HostId;
use imgbuild::vmm::{Lifetime, Net};
use tty_init::fields::{number, word};
use tty_init::host;
use tty_init::protocol::Message;

use crate::{PATIENCE, TestEnv, alone, run, wait_until};

/// How long a reply on the console may take before the command is sent again.
const RETRY: Duration = Duration::from_secs(20);

/// A guest that runs.
#[derive(Debug)]
pub struct Guest<'a> {
    env: &'a TestEnv,
    vmm: Child,
    console: UnixStream,
    unread: Vec<u8>,
    /// Every line that the console carried and that was read.
    pub said: Vec<String>,
    /// Port of the loopback that leads to its SSH server.
    pub port: u16,
    config: PathBuf,
    tag: u32,
    ram: u64,
    /// Its folder is removed when this is dropped.
    site: Site,
}

/// The memory of a guest in KiB, as its `free` tells.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// What the kernel keeps for its own objects.
    pub slab: u64,
    /// What a program could have.
    pub available: u64,
}

/// Builds tty-idle with a disk so small that it is soon full.
#[must_use]
pub fn artifacts(env: &TestEnv) -> PathBuf {
    artifacts_with(env, "")
}

/// The same, with these parameters on the kernel's command line.
#[must_use]
pub fn artifacts_with(env: &TestEnv, parameters: &str) -> PathBuf {
    let kernel = format!("[kernel]\ncommand_line = \"{parameters}\"");
    env.changed_artifacts(&[("1GiB", "16MiB"), ("[kernel]", &kernel)])
}

impl<'a> Guest<'a> {
    /// Starts a guest that gives clients this long to log in, and waits until
    /// it is ready.
    #[must_use]
    pub fn start(env: &'a TestEnv, out: &Path, login_deadline: Duration) -> Self {
        let directories = Directories {
            cache: env.path().join("cache"),
            state: env.path().join("state"),
            runtime: env.path().join("run"),
            host: HostId::this().expect("/proc is mounted"),
        };
        let artifacts = Artifacts::open(out).expect("just built");
        let site = alone::site(&artifacts, &directories, Net::User, "", None, 1);
        let index = alone::guest(0);
        let mut identity = site.identity(index).expect("just written");
        identity.login_deadline_ms = login_deadline.as_millis().try_into().expect("short");
        site.folder()
            .write_identity(index, identity.encode().as_slice())
            .expect("ours");
        let config = site.write_ssh_config().expect("ours").expect("it has SSH");
        let (vmm, console) = alone::start(&site, index, Lifetime::WithParent, |_, _| {});
        console.set_read_timeout(Some(RETRY)).expect("not zero");
        console.set_write_timeout(Some(PATIENCE)).expect("not zero");
        let mut guest = Self {
            env,
            vmm,
            console,
            unread: Vec::new(),
            said: Vec::new(),
            port: site.spec().ports[0],
            config,
            tag: 0,
            ram: artifacts.manifest.recipe.memory.bytes(),
            site,
        };
        wait_until("the guest is ready", || {
            guest.listen();
            guest.said.iter().any(|line| line.contains("\"ready\""))
        });
        guest
    }

    /// The real client; `arguments` follow the guest's name.
    #[must_use]
    pub fn ssh<const N: usize>(&self, options: &[&str], arguments: [&str; N]) -> Command {
        let mut command = self.env.command("ssh");
        command
            .arg("-F")
            .arg(&self.config)
            .args(options)
            // The first one given holds. A guest under attack is given time.
            .args(["-o", "ConnectTimeout=60"])
            .arg("g00000")
            .args(arguments);
        command
    }

    /// The configuration for ssh(1).
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The private key to log in with.
    #[must_use]
    pub fn key(&self) -> &Path {
        let key = &self.site.spec().identity_file;
        key.as_deref().expect("it has SSH")
    }

    /// Connects to the SSH server's port, and says nothing.
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).expect("QEMU listens")
    }

    /// Reads what the console carries, or waits for it in vain.
    fn listen(&mut self) {
        let mut chunk = [0; 4096];
        match self.console.read(&mut chunk) {
            Ok(0) => panic!("the guest ended: {:?}", self.said.last()),
            Ok(length) => self.unread.extend(&chunk[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("console: {error}"),
        }
        while let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.said.push(String::from_utf8_lossy(&line).into_owned());
        }
    }

    /// Sends bytes to the console.
    pub fn tell(&mut self, bytes: &[u8]) {
        self.console
            .write_all(bytes)
            .expect("the guest takes it in time");
    }

    /// Runs a command on the console and gives the code and output of its
    /// reply. Lines that nobody read may be lost, a reply among them: it is
    /// then asked again.
    pub fn ask(&mut self, command: &str) -> (u8, String) {
        let mut answer = None;
        wait_until("the console answers", || {
            self.tag += 1;
            self.tell(format!("\n@{} {command}\n", self.tag).as_bytes());
            let until = Instant::now() + RETRY;
            let known = self.said.len();
            while answer.is_none() && Instant::now() < until {
                self.listen();
                answer = replied(&self.said[known..], self.tag);
            }
            answer.is_some()
        });
        answer.expect("waited for")
    }

    /// Asserts that the guest serves as ever, on SSH and on the console, and
    /// that nothing in it died.
    pub fn assert_well(&mut self) {
        run(&mut self.ssh(&[], ["status"]))
            .succeeds()
            .shows(&["id=g00000"]);
        let (code, status) = self.ask("status");
        assert_eq!(code, 0);
        assert!(status.contains("id=g00000"), "{status}");
        let died = self.said.iter().find(|line| line.contains("died"));
        assert!(died.is_none(), "{died:?}");
    }

    /// Waits until no process of init is left but PID 1 and that of the
    /// connection which tells.
    pub fn wait_for_quiet(&self) {
        wait_until("the connections' processes are gone", || {
            let ps = run(&mut self.ssh(&[], ["ps"])).succeeds();
            let is_init = |line: &&str| line.ends_with(" init");
            ps.stdout.lines().filter(is_init).count() == 2
        });
    }

    /// What its memory is used for.
    pub fn memory(&self) -> Memory {
        let free = run(&mut self.ssh(&[], ["free"])).succeeds();
        let values = free.stdout.lines().nth(1).expect("a line of numbers");
        assert_eq!(
            word(free.stdout.lines().next().unwrap_or_default(), 5),
            "available"
        );
        Memory {
            slab: number(values, 3),
            available: number(values, 4),
        }
    }

    /// KiB of its RAM that it touched: the resident part of QEMU's mapping
    /// (proc_pid_smaps(5)).
    pub fn touched(&self) -> u64 {
        let path = format!("/proc/{}/smaps", self.vmm.id());
        let smaps = fs::read_to_string(path).expect("QEMU runs");
        let (_, mapping) = smaps
            .split_once(&format!("Size: {:>18} kB", self.ram >> 10))
            .expect("QEMU maps the guest's RAM in one piece");
        let rss = mapping.lines().find_map(|line| line.strip_prefix("Rss:"));
        number(rss.expect("proc_pid_smaps(5)"), 0)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let _ = self.vmm.kill();
        let _ = self.vmm.wait();
    }
}

/// The code and output of the reply with this tag, once its last part is there.
fn replied(lines: &[String], wanted: u32) -> Option<(u8, String)> {
    let mut whole = String::new();
    for line in lines {
        if let Ok(Message::Reply {
            tag: Some(tag),
            code,
            output,
            more,
            ..
        }) = host::parse(line.as_bytes())
            && tag == wanted
        {
            whole += &output;
            if !more {
                return Some((code, whole));
            }
        }
    }
    None
}
