//! QEMU: the only module that names one of its options.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::{Confinement, Files, GuestSpec, Part, alike};
use crate::interrupt::Interrupt;
use crate::process::{self, ProcessError};
use crate::units::Version;

pub(crate) mod argv;
mod complaint;
pub(crate) mod conversation;
mod emulator;
mod program;
pub(crate) mod qmp;
mod reach;
pub(crate) mod reference;
pub(crate) mod traces;

pub(crate) use complaint::Complaint;
pub use emulator::{Emulator, EmulatorError, Standing, Watch};
pub(crate) use program::version_in;
pub use program::{Program, ProgramError};
pub use reach::Barrier;

/// The oldest version that imgbuild is tested with. Before 7.1 none takes all
/// the options that it gives, such as `main-loop,thread-pool-max=`.
pub const OLDEST: Version = Version(7, 2);

/// The machine type that guests use.
pub const MACHINE: &str = "microvm";

/// Frequency of a guest's local APIC in kHz: its timer counts nanoseconds in
/// QEMU (`hw/intc/apic_common.c`) as in KVM (`APIC_BUS_CYCLE_NS`).
pub const LAPIC_KHZ: u32 = 1_000_000;

/// What QEMU gets of its own clock to answer a question about itself, which takes
/// it 20 to 50 ms, and a hundred times as long where a CPU is emulated.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Last lines kept of what it says when it fails to.
const COMPLAINT_LINES: usize = 5;

/// Starts a guest on the QEMU at `program`.
///
/// The caller binds and listens on its console, so that it can connect at once
/// and nothing that the guest says is lost: QEMU waits for the connection
/// (`wait=on`).
pub fn spawn(
    program: &Path,
    guest: &GuestSpec,
    files: Files,
    confinement: &Confinement<'_>,
) -> io::Result<Child> {
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
    let mut command = Command::new(program);
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
    alike::apply(&mut command, guest.machine.sharing);
    confinement.apply(&mut command, guest.machine.accel)?;
    command
        .spawn()
        .map_err(|error| named(program, confinement.uid, error))
}

/// Names the program where that, and not the host, keeps it from being started,
/// and what keeps the user `uid` from it. Any other error stays as it is for those
/// who tell them apart.
fn named(program: &Path, uid: Option<u32>, error: io::Error) -> io::Error {
    let at_fault = [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC].map(Some);
    if !at_fault.contains(&Errno::from_io_error(&error)) {
        return error;
    }
    let mut text = format!("{}: {error}", program.display());
    if let Some(uid) = uid
        && let Some(barrier) = Barrier::before(program, uid)
    {
        let _ = write!(text, ": it is to run as user {uid}, and {barrier}");
    }
    io::Error::new(error.kind(), text)
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
    program: &Path,
    arguments: &[&str],
    interrupt: &Interrupt,
) -> Result<String, ProcessError> {
    let mut command = Command::new(program);
    command.args(arguments);
    answer_of(command, interrupt)
}

/// What a QEMU prints that was asked about itself.
fn answer_of(mut command: Command, interrupt: &Interrupt) -> Result<String, ProcessError> {
    command.env_clear();
    let asked = process::shown(&command);
    let captured = process::capture_within(command, ANSWER_LIMIT, interrupt)?;
    if captured.status.success() {
        return Ok(String::from_utf8_lossy(&captured.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&captured.stderr);
    let mut tail: Vec<_> = complaint.lines().rev().take(COMPLAINT_LINES).collect();
    tail.reverse();
    Err(ProcessError::Failed {
        command: asked,
        status: captured.status,
        tail: tail.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn low_descriptors_are_taken_while_a_child_starts() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let _taken = take_low_descriptors(&null).unwrap();
        let next = null.try_clone().unwrap();
        assert!(next.as_raw_fd() > Part::LAST.descriptor());
    }

    #[test]
    fn a_folder_that_a_guest_s_user_cannot_pass_is_named_when_it_is_not_started() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("qemu");
        std::fs::write(&program, "").unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let folder = folder.path().display();
        let text = |uid, errno: Errno| named(&program, uid, errno.into()).to_string();
        let said = text(Some(2_000_000), Errno::ACCESS);
        let barrier = format!("user 2000000, and the folder {folder} has mode 0700");
        assert!(said.contains("qemu: Permission denied"), "{said}");
        assert!(
            said.contains(&barrier) && said.contains("chmod o+x"),
            "{said}"
        );
        assert!(!text(None, Errno::ACCESS).contains("the folder"));
        assert_eq!(
            text(Some(2_000_000), Errno::NOMEM),
            io::Error::from(Errno::NOMEM).to_string()
        );
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
        let program = Program::installed().unwrap();
        let version = program.version(&interrupt).unwrap();
        assert!(version_in(&version) >= Some(OLDEST), "{version}");
        assert!(program.has_microvm(&interrupt).unwrap());
    }

    #[test]
    fn an_emulator_that_fails_or_is_missing_is_an_error() {
        let interrupt = Interrupt::never().unwrap();
        let answer = |program, arguments| answer(Path::new(program), arguments, &interrupt);
        let error = answer("ls", &["/no/such/file"]).unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
        let error = answer("no-such-tool", &[]).unwrap_err();
        assert!(matches!(error, ProcessError::Missing { .. }), "{error}");
    }
}
