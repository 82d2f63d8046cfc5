//! QEMU: the only place that names one of its options.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::Signal;
use rustix::thread::disable_transparent_huge_pages;

use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};

pub mod argv;

/// The emulator that is looked up in PATH.
pub const BINARY: &str = "qemu-system-x86_64";

/// Frequency of a guest's local APIC in kHz: its timer counts nanoseconds in
/// QEMU (`hw/intc/apic_common.c`) as in KVM (`APIC_BUS_CYCLE_NS`).
pub const LAPIC_KHZ: u32 = 1_000_000;

/// What QEMU prints when KVM cannot run the guest's code; it does not exit.
pub const KVM_INTERNAL_ERROR: &str = "KVM internal error";

/// Descriptor in QEMU at which it finds the console's listening socket.
const CONSOLE_FD: i32 = 3;

/// Starts QEMU with `arguments`; it finds its console at `console`, and is
/// killed when the thread that starts it ends, however it ends.
///
/// The caller binds and listens, so that it can connect at once and nothing
/// that the guest says is lost: QEMU waits for the connection (`wait=on`).
pub fn spawn(arguments: &[OsString], console: UnixListener) -> io::Result<(Child, ChildStderr)> {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C is for the launcher, which stops its guests in order.
        .process_group(0)
        .fd_mappings(vec![FdMapping {
            parent_fd: OwnedFd::from(console),
            child_fd: CONSOLE_FD,
        }])
        .map_err(io::Error::other)?;
    without_huge_pages(&mut command);
    process::die_with_parent(&mut command, Signal::KILL);
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().expect("stderr is piped");
    Ok((child, stderr))
}

/// Keeps QEMU's memory in 4 KiB pages (prctl(2), `PR_SET_THP_DISABLE`).
///
/// QEMU asks for huge pages for a guest's RAM, and a tiny guest would be given
/// 2 MiB wherever it touches a byte.
fn without_huge_pages(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec and makes one system call;
    // it takes no lock and allocates nothing.
    unsafe { command.pre_exec(|| Ok(disable_transparent_huge_pages(true)?)) };
}

/// The first line of QEMU's `--version`; fails, naming the package, where
/// QEMU is not installed.
pub fn version(interrupt: &Interrupt) -> Result<String, ProcessError> {
    let mut command = Command::new(BINARY);
    command.arg("--version");
    let text = process::output(command, interrupt)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
