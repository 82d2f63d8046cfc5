//! The image's own SSH server: started with the guest's keys, and again whenever it
//! ends.
//!
//! The keys lie in a tmpfs of their own, so they never come to a disk.

use core::ffi::CStr;
use core::net::Ipv4Addr;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Access, Mode, OFlags, access, mkdir, open};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus};
use tty_init::protocol::DeviceState;
use tty_init::ssh_programs::{KeyFile, PROGRAMS, Server, is_listened_on};
use tty_init::ssh_upkeep::{Due, Upkeep};
use zssh::ed25519_dalek::SigningKey;

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::output::Output;
use crate::status::read;
use crate::streams::write_all;
use crate::sys::clock;
use crate::userland::{self, End, attach};

const FOLDER: &CStr = c"/run/imgbuild";
const HOST_KEY: &CStr = c"/run/imgbuild/host_key";
const AUTHORIZED_KEYS: &CStr = c"/run/imgbuild/authorized_keys";

/// How sshd(8) is started. The image's configuration holds but for this: its first
/// value counts, and those on the command line come first.
const OPENSSH: [&CStr; 10] = [
    c"-D",
    c"-e",
    c"-p22",
    c"-h/run/imgbuild/host_key",
    c"-oAuthorizedKeysFile=/run/imgbuild/authorized_keys",
    c"-oPermitRootLogin=prohibit-password",
    c"-oPasswordAuthentication=no",
    c"-oKbdInteractiveAuthentication=no",
    c"-oPidFile=none",
    c"-oUsePAM=no",
];
/// How dropbear(8) is started: in the foreground, without passwords.
const DROPBEAR: [&CStr; 7] = [
    c"-F",
    c"-E",
    c"-s",
    c"-r",
    HOST_KEY,
    c"-P",
    c"/run/imgbuild/pid",
];
const WORDS: usize = 1 + OPENSSH.len();

/// The server.
pub(crate) struct ImageServer {
    path: &'static CStr,
    server: Server,
    output: Output,
    /// Where each of its processes writes.
    its_output: OwnedFd,
    pid: Option<Pid>,
    /// Where clients reach it.
    address: Ipv4Addr,
    upkeep: Upkeep,
}

impl ImageServer {
    /// Starts the image's server as the host with this ed25519 secret key, for the
    /// client that has the authorized one, in a guest with this address, of a fleet
    /// where a log-in may take `login_ms`.
    pub(crate) fn open(
        host_key: &[u8; 32],
        authorized_key: &[u8; 32],
        address: Ipv4Addr,
        login_ms: u64,
        console: &mut Console,
    ) -> Result<Self, Failure> {
        let mut programs = PROGRAMS.iter();
        let &(path, server) = programs
            .find(|(path, _)| access(*path, Access::EXEC_OK).is_ok())
            .ok_or(Failure::new("sshd or dropbear", Errno::NOENT))?;
        lay_out(server, host_key, authorized_key)?;
        let (output, its_output) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        let mut this = Self {
            path,
            server,
            output: Output::new(output, "ssh"),
            its_output,
            pid: None,
            address,
            upkeep: Upkeep::new(clock::boottime_ms(), login_ms),
        };
        this.start(console);
        Ok(this)
    }

    /// Whether it may come up soon, so that the guest is not ready yet.
    pub(crate) fn is_coming(&self) -> bool {
        self.upkeep.is_coming()
    }

    /// Whether it serves.
    pub(crate) fn state(&self) -> DeviceState {
        self.upkeep.state()
    }

    /// What to wait for: its output, and the time in milliseconds until it needs a
    /// turn.
    pub(crate) fn waits_for(&self) -> (Option<BorrowedFd<'_>>, Option<u64>) {
        let limit = self.upkeep.waits_ms(clock::boottime_ms());
        (self.output.waits_for(), limit)
    }

    /// Carries its output to the console, and does what is due; `ready` tells that
    /// there is output to read.
    pub(crate) fn go_on(&mut self, ready: bool, console: &mut Console) {
        self.output.carry(ready, console);
        let address = self.address;
        let is_listening = || is_listened_on(read(c"/proc/net/tcp", &mut [0; 2048]), address);
        match self.upkeep.go_on(clock::boottime_ms(), is_listening) {
            Some(Due::Start) => self.start(console),
            Some(Due::Report) => self.tell(
                console,
                format_args!("does not listen on port 22 of {address}"),
            ),
            None => {}
        }
    }

    /// Takes note of its end, if it was this process that ended.
    pub(crate) fn ended(&mut self, pid: Pid, status: WaitStatus, console: &mut Console) {
        if self.pid != Some(pid) {
            return;
        }
        self.pid = None;
        let delay = self.upkeep.ended(clock::boottime_ms());
        let end = End(status);
        self.tell(
            console,
            format_args!("{end}; it is started again in {delay} s"),
        );
    }

    fn start(&mut self, console: &mut Console) {
        let options = match self.server {
            Server::OpenSsh => &OPENSSH[..],
            Server::Dropbear => &DROPBEAR[..],
        };
        let mut words = [self.path; WORDS];
        let words = &mut words[..=options.len()];
        words[1..].copy_from_slice(options);
        let now = clock::boottime_ms();
        match userland::start(words, &self.its_output) {
            Ok(pid) => {
                self.pid = Some(pid);
                self.upkeep.started(now);
            }
            Err(failure) => {
                self.tell(console, format_args!("{failure}"));
                self.upkeep.ended(now);
            }
        }
    }

    fn tell(&self, console: &mut Console, text: core::fmt::Arguments<'_>) {
        let path = self.path.to_str().unwrap_or_default();
        console.log(format_args!("{path} {text}"));
    }
}

/// Writes the keys where `server` finds them.
fn lay_out(server: Server, secret: &[u8; 32], authorized_key: &[u8; 32]) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // sshd changes its root to the last.
    for path in [c"/run", FOLDER, c"/run/sshd"] {
        let _ = mkdir(path, Mode::from_raw_mode(0o755));
    }
    attach(c"tmpfs", FOLDER, flags, c"mode=755").context("mount /run/imgbuild")?;
    let public = SigningKey::from_bytes(secret).verifying_key().to_bytes();
    store(HOST_KEY, 0o600, &KeyFile::private(server, secret, &public))?;
    store(AUTHORIZED_KEYS, 0o644, &KeyFile::authorized(authorized_key))?;
    if server == Server::Dropbear {
        cover_roots_keys()?;
    }
    Ok(())
}

fn store(path: &CStr, mode: u32, file: &KeyFile) -> Result<(), Failure> {
    create(path, mode)
        .and_then(|place| write_all(&place, file.as_bytes()))
        .context("/run/imgbuild")
}

/// Puts the authorized keys over root's own: before 2024.86 dropbear has no option
/// that names another place.
fn cover_roots_keys() -> Result<(), Failure> {
    let place = c"/root/.ssh/authorized_keys";
    for path in [c"/root", c"/root/.ssh"] {
        let _ = mkdir(path, Mode::from_raw_mode(0o700));
    }
    create(place, 0o600)
        .and_then(|_| attach(AUTHORIZED_KEYS, place, MountFlags::BIND, c""))
        .context("/root/.ssh/authorized_keys")
}

fn create(path: &CStr, mode: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(mode))
}
