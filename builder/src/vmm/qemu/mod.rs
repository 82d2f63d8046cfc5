//! QEMU: the only place that names one of its options.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::io::fcntl_dupfd_cloexec;

use super::{Confinement, Files, GuestSpec, Part};
use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};

pub mod argv;
pub mod qmp;

/// The emulator that is looked up in PATH.
pub const BINARY: &str = "qemu-system-x86_64";

/// Frequency of a guest's local APIC in kHz: its timer counts nanoseconds in
/// QEMU (`hw/intc/apic_common.c`) as in KVM (`APIC_BUS_CYCLE_NS`).
pub const LAPIC_KHZ: u32 = 1_000_000;

/// What QEMU prints when KVM cannot run the guest's code; it does not exit.
pub const KVM_INTERNAL_ERROR: &str = "KVM internal error";

/// What QEMU says before it exits where somebody has what is for its guest alone:
/// the port that leads to it, or its disk.
pub const TAKEN: [&str; 2] = ["Could not set up host forwarding rule", "Failed to get \""];

/// What QEMU says before it ends where the host is short of something, besides
/// what strerror(3) has: GLib's words for want of memory.
pub const SHORT: [&str; 1] = ["failed to allocate "];

/// What QEMU gets to answer a question about itself, which takes it 20 ms.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Last lines kept of what it says when it fails to.
const COMPLAINT_LINES: usize = 5;

/// Starts a guest.
///
/// The caller binds and listens on its console, so that it can connect at once
/// and nothing that the guest says is lost: QEMU waits for the connection
/// (`wait=on`).
pub fn spawn(guest: &GuestSpec, files: Files, confinement: &Confinement<'_>) -> io::Result<Child> {
    let (files, errors) = files.into_parts();
    let parts: Vec<_> = files.iter().map(|(part, _)| *part).collect();
    let _taken = take_low_descriptors(&errors)?;
    let mappings = files
        .into_iter()
        .map(|(part, parent_fd)| FdMapping {
            parent_fd,
            child_fd: part.descriptor(),
        })
        .collect();
    let mut command = Command::new(process::in_path(BINARY)?);
    process::close_inherited(&mut command);
    command
        // It needs nothing of it, and a guest that broke out could read it.
        .env_clear()
        .args(argv::argv(guest, &parts))
        // From a folder of its starter's, QEMU could reach what lies in it.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .fd_mappings(mappings)
        .map_err(io::Error::other)?;
    confinement.apply(&mut command, guest.accel)?;
    command.spawn()
}

/// Leaves no descriptor free among those that QEMU's files get: there `Command`
/// would put the pipe by which the child tells that it failed, and lose it.
fn take_low_descriptors(file: &impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    loop {
        let descriptor = fcntl_dupfd_cloexec(file, 0)?;
        if descriptor.as_raw_fd() > Part::LAST.descriptor() {
            return Ok(taken);
        }
        taken.push(descriptor);
    }
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
    let found = process::in_path(program)
        .map_err(|error| process::start_error(&Command::new(program), error))?;
    let mut command = Command::new(found);
    command.args(arguments).env_clear();
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
    fn low_descriptors_are_taken_while_a_child_starts() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let _taken = take_low_descriptors(&null).unwrap();
        let next = null.try_clone().unwrap();
        assert!(next.as_raw_fd() > Part::LAST.descriptor());
    }

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
