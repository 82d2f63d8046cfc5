//! The image's user land, if it has one: switching to its root file system, starting
//! its programs, the recipe's own among them, and ending all processes.

use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, chmod, mkdir, open, symlink, unlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, chdir, chroot, kill_process_group, wait,
};
use rustix::thread::{Timespec, nanosleep};

use crate::console::Console;
use crate::failure::{Context, Failure};
use crate::output::Output;
use crate::shell::{self, become_program};
use crate::sys::process::{Forked, WORDS_MAX, fork};

/// The words of the program to run, each with a NUL at its end; packed beside
/// init.
const COMMAND: &CStr = c"/init.command";
const COMMAND_MAX: usize = 1024;

/// Whether any program of the image was started.
static STARTED: AtomicBool = AtomicBool::new(false);

/// How long processes have to end, in steps.
const GRACE_STEPS: u32 = 100;
const GRACE_STEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// Makes the disk, mounted on /disk, the root, as the kernel document
/// `filesystems/ramfs-rootfs-initramfs` has it. On failure all is as before.
pub(crate) fn switch_root() -> Result<(), Failure> {
    const MOVES: [(&CStr, &CStr); 3] = [
        (c"/dev", c"/disk/dev"),
        (c"/proc", c"/disk/proc"),
        (c"/sys", c"/disk/sys"),
    ];
    let moved = MOVES
        .iter()
        .try_for_each(|(from, to)| mount_move(*from, *to))
        .context("move /dev, /proc and /sys to the disk")
        .and_then(|()| chdir(c"/disk").context("/disk"))
        .and_then(|()| mount_move(c".", c"/").context("move the disk to /"));
    if let Err(failure) = moved {
        for (from, to) in MOVES {
            let _ = mount_move(to, from);
        }
        let _ = chdir(c"/");
        let _ = unmount(c"/disk", UnmountFlags::empty());
        return Err(failure);
    }
    // The old root's files, while they still have names.
    for path in [c"/init", COMMAND] {
        let _ = unlink(path);
    }
    chroot(c".").and_then(|()| chdir(c"/")).context("chroot")
}

/// Adds for a shell and its programs what the kernel leaves to user land: names in
/// /dev, terminals, and folders in memory, as distributions have them.
pub(crate) fn furnish(console: &mut Console) {
    if !shell::exists() {
        return;
    }
    for (target, path) in [
        (c"/proc/self/fd", c"/dev/fd"),
        (c"fd/0", c"/dev/stdin"),
        (c"fd/1", c"/dev/stdout"),
        (c"fd/2", c"/dev/stderr"),
    ] {
        let _ = symlink(target, path);
    }
    let restricted = MountFlags::NOSUID | MountFlags::NODEV;
    for (path, kind, flags, options, what) in [
        (
            c"/dev/pts",
            c"devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            // 5 is the group `tty` in every distribution.
            c"gid=5,mode=620",
            "mount /dev/pts",
        ),
        (
            c"/dev/shm",
            c"tmpfs",
            restricted,
            c"mode=1777",
            "mount /dev/shm",
        ),
        // Of the same size as systemd's.
        (
            c"/run",
            c"tmpfs",
            restricted,
            c"mode=755,size=20%",
            "mount /run",
        ),
    ] {
        let _ = mkdir(path, Mode::from_raw_mode(0o755));
        if let Err(failure) = attach(kind, path, flags, options).context(what) {
            console.log(format_args!("{failure}"));
        }
    }
    // Where /var/lock leads.
    let _ = mkdir(c"/run/lock", Mode::empty());
    let _ = chmod(c"/run/lock", Mode::from_raw_mode(0o1777));
}

/// Mounts a file system of the kind that its source is named after, or a file.
pub(crate) fn attach(
    source: &CStr,
    target: &CStr,
    flags: MountFlags,
    options: &CStr,
) -> Result<(), Errno> {
    mount(source, target, source, flags, options)
}

/// The words of the recipe's program.
pub(crate) struct Command {
    words: [u8; COMMAND_MAX],
    length: usize,
}

impl Command {
    /// Reads them; the old root's file is gone once it is switched.
    pub(crate) fn read() -> Option<Self> {
        let mut words = [0; COMMAND_MAX];
        let file = open(COMMAND, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let length = rustix::io::read(&file, &mut words).ok()?;
        (length > 0).then_some(Self { words, length })
    }

    /// Starts the program.
    pub(crate) fn start(&self) -> Result<Program, Failure> {
        let mut words = [c""; WORDS_MAX];
        let mut count = 0;
        let bytes = &self.words[..self.length];
        for (place, word) in words
            .iter_mut()
            .zip(bytes.split_inclusive(|byte| *byte == 0))
        {
            *place = CStr::from_bytes_with_nul(word).unwrap_or_default();
            count += 1;
        }
        let (output, its_output) = pipe_with(PipeFlags::CLOEXEC).context("pipe")?;
        Ok(Program {
            pid: start(&words[..count], &its_output)?,
            output: Output::new(output, "command"),
            end: None,
        })
    }
}

/// Starts the program that the first word names, without input.
pub(crate) fn start(words: &[&CStr], output: &OwnedFd) -> Result<Pid, Failure> {
    let path = words.first().copied().unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let input = open(c"/dev/null", flags, Mode::empty()).context("/dev/null")?;
    match fork().context("fork")? {
        Forked::Child => become_program(path, words, &input, output, output),
        Forked::Parent(pid) => {
            STARTED.store(true, Ordering::Relaxed);
            Ok(pid)
        }
    }
}

/// The recipe's program while it runs, and what it writes until nobody can any
/// more.
pub(crate) struct Program {
    pid: Pid,
    /// What it writes, until it ends.
    output: Output,
    /// How it ended, until that is printed.
    end: Option<End>,
}

impl Program {
    /// What to wait for, unless there is no room for more.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.waits_for()
    }

    /// Carries lines of output to the console while it has room; `ready` tells
    /// that there is output to read.
    pub(crate) fn go_on(&mut self, ready: bool, console: &mut Console) {
        self.output.carry(ready, console);
        // Its end is printed behind all that it said.
        if self.output.is_over()
            && console.has_room()
            && let Some(end) = self.end.take()
        {
            console.log(format_args!("command {end}"));
        }
    }

    /// Takes note of its end, if it was this process that ended.
    pub(crate) fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if pid == self.pid {
            self.end = Some(End(status));
        }
    }
}

/// How a process ended.
pub(crate) struct End(pub WaitStatus);

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.exit_status(), self.0.terminating_signal()) {
            (Some(code), _) => write!(f, "exited with {code}"),
            (None, signal) => write!(f, "ended by signal {}", signal.unwrap_or_default()),
        }
    }
}

/// Ends every process but this one, which is PID 1: where there are others than
/// init's own, first kindly.
pub(crate) fn end() {
    if (shell::exists() || STARTED.load(Ordering::Relaxed)) && end_all(Signal::TERM) {
        return;
    }
    end_all(Signal::KILL);
}

/// Sends a signal to every process; `true` if none was left in time.
fn end_all(signal: Signal) -> bool {
    // The group of PID 1, negated, is what kill(2) takes for all processes.
    let _ = kill_process_group(Pid::INIT, signal);
    for _ in 0..GRACE_STEPS {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        if wait(WaitOptions::NOHANG).is_err() {
            return true;
        }
        let _ = nanosleep(&GRACE_STEP);
    }
    false
}
