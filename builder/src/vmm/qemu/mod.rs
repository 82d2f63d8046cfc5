//! QEMU: the only place that names one of its options.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

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

/// What QEMU gets to answer a question about itself, which takes it 20 ms.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Last lines kept of what it says when it fails to.
const COMPLAINT_LINES: usize = 5;

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
    let text = answer(BINARY, &["--version"], interrupt)?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The machine types that QEMU has, by `-machine help`.
pub fn machines(interrupt: &Interrupt) -> Result<BTreeSet<String>, ProcessError> {
    Ok(machine_types(&answer(
        BINARY,
        &["-machine", "help"],
        interrupt,
    )?))
}

/// The machine types in a list that has one a line, its name first, under a
/// headline that ends in a colon.
fn machine_types(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter(|line| !line.ends_with(':'))
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// What `program` prints when asked about itself with `arguments`.
fn answer(
    program: &str,
    arguments: &[&str],
    interrupt: &Interrupt,
) -> Result<String, ProcessError> {
    let mut command = Command::new(program);
    command.args(arguments);
    let captured = process::capture_within(command, ANSWER_LIMIT, interrupt)?;
    if captured.status.success() {
        return Ok(String::from_utf8_lossy(&captured.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&captured.stderr);
    let mut tail: Vec<_> = complaint.lines().rev().take(COMPLAINT_LINES).collect();
    tail.reverse();
    Err(ProcessError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        status: captured.status,
        tail: tail.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_types_are_the_first_words_below_the_headline() {
        let list = "Supported machines are:\nmicrovm              microvm (i386)\n\
                    pc                   Standard PC (alias of pc-i440fx-7.2)\n\n";
        let types = machine_types(list);
        assert_eq!(types.iter().collect::<Vec<_>>(), ["microvm", "pc"]);
    }

    #[test]
    fn qemu_tells_its_version_and_machines() {
        let interrupt = Interrupt::never().unwrap();
        let version = version(&interrupt).unwrap();
        assert!(version.starts_with("QEMU emulator version "), "{version}");
        assert!(machines(&interrupt).unwrap().contains("microvm"));
    }

    #[test]
    fn an_emulator_that_hangs_fails_or_is_missing_is_an_error() {
        let interrupt = Interrupt::never().unwrap();
        let error = answer("sleep", &["100"], &interrupt).unwrap_err();
        assert!(matches!(error, ProcessError::TooSlow { .. }), "{error}");
        let error = answer("ls", &["/no/such/file"], &interrupt).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let error = answer("no-such-tool", &[], &interrupt).unwrap_err();
        assert!(matches!(error, ProcessError::Missing { .. }), "{error}");
    }
}
