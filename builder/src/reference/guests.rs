//! The living guests of the reference's kind.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

use super::error::ReferenceError;
use super::image::READY;
use crate::system::{Doing as _, SystemError};
use crate::text::printable;
use crate::units::GuestIndex;
use crate::vmm::Accel;
use crate::vmm::qemu::reference::ReferenceGuest;

/// Last lines of a guest that are shown.
const LAST_LINES: usize = 15;
/// Most bytes of a console that are looked at.
const CONSOLE_MAX: u64 = 64 << 10;

/// What they run on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    pub path: &'a Path,
    pub accel: Accel,
}

/// The guests that were started, in order; they are killed when this is dropped.
pub(super) struct Guests<'a> {
    folder: &'a Path,
    program: Program<'a>,
    ports: &'a [u16],
    living: Vec<Living>,
}

struct Living {
    guest: ReferenceGuest,
    child: Child,
    is_ready: bool,
}

impl<'a> Guests<'a> {
    /// None yet; there may be one for each of `ports`, with its files in `folder`.
    pub(super) fn new(program: Program<'a>, folder: &'a Path, ports: &'a [u16]) -> Self {
        Self {
            folder,
            program,
            ports,
            living: Vec::new(),
        }
    }

    /// Starts the next one.
    pub(super) fn start_next(&mut self) -> Result<(), ReferenceError> {
        let guest = self.guest(self.living.len())?;
        let child = guest.spawn(self.program.path, self.folder);
        let child = child.doing(format!(
            "start {} for the baseline",
            self.program.path.display()
        ))?;
        self.living.push(Living {
            guest,
            child,
            is_ready: false,
        });
        Ok(())
    }

    fn guest(&self, place: usize) -> Result<ReferenceGuest, ReferenceError> {
        Ok(ReferenceGuest {
            index: GuestIndex::new(number(place))?,
            accel: self.program.accel,
            ssh_port: self.ports[place],
        })
    }

    /// Finds out which have come up, and stops these: while some of a hundred boot,
    /// those that burn would leave them no CPU. One that has ended is an error.
    pub(super) fn see_who_is_up(&mut self) -> Result<(), ReferenceError> {
        self.see_that_all_live()?;
        for living in self.living.iter_mut().filter(|living| !living.is_ready) {
            let console = last_bytes(&self.folder.join(living.guest.console()))
                .doing("read the console of a guest of the baseline")?;
            if console.lines().any(|line| line.trim_end() == READY) {
                living.is_ready = true;
                living.signal(Signal::STOP)?;
            }
        }
        Ok(())
    }

    pub(super) fn see_that_all_live(&mut self) -> Result<(), ReferenceError> {
        for place in 0..self.living.len() {
            let ended = self.living[place].child.try_wait();
            if let Some(status) = ended.doing("wait for a QEMU of the baseline")? {
                return Err(self.ended(place, status));
            }
        }
        Ok(())
    }

    /// Has all that were stopped burn.
    pub(super) fn go_on(&mut self) -> Result<(), ReferenceError> {
        self.see_that_all_live()?;
        let mut living = self.living.iter();
        Ok(living.try_for_each(|living| living.signal(Signal::CONT))?)
    }

    fn ended(&self, place: usize, status: ExitStatus) -> ReferenceError {
        ReferenceError::Ended {
            guest: self.living[place].guest.index,
            status,
            words: self.last_words(place),
        }
    }

    /// What the QEMU and the console of a guest said last.
    pub(super) fn last_words(&self, place: usize) -> String {
        let Some(Living { guest, .. }) = self.living.get(place) else {
            return String::new();
        };
        let files = [guest.errors(), guest.console()];
        let texts = files.map(|file| last_bytes(&self.folder.join(file)).unwrap_or_default());
        let lines: Vec<_> = texts.iter().flat_map(|text| text.lines()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        let last: Vec<_> = last.iter().map(|line| printable(line)).collect();
        last.join("\n")
    }

    /// How many were started.
    pub(super) fn count(&self) -> u32 {
        number(self.living.len())
    }

    /// How many of them have come up.
    pub(super) fn ready(&self) -> u32 {
        number(self.living.iter().filter(|living| living.is_ready).count())
    }

    /// Each with the process of its QEMU.
    pub(super) fn processes(&self) -> Vec<(GuestIndex, u32)> {
        let living = self.living.iter();
        living
            .map(|living| (living.guest.index, living.child.id()))
            .collect()
    }

    /// A guest's command line; it names no folder.
    pub(super) fn argv(&self) -> Vec<String> {
        let program = self.program.path.file_name().unwrap_or_default();
        let first = self.living.first().map(|living| living.guest.argv());
        let words = std::iter::once(program.to_owned()).chain(first.into_iter().flatten());
        words
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    }
}

impl Living {
    /// To be called of one that has not been waited for.
    fn signal(&self, signal: Signal) -> Result<(), SystemError> {
        kill_process(Pid::from_child(&self.child), signal).doing("signal a QEMU of the baseline")
    }
}

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        for living in &mut self.living {
            // It may have ended already, which is what is wanted.
            let _ = living.child.kill();
        }
        for living in &mut self.living {
            let _ = living.child.wait();
        }
    }
}

fn number(guests: usize) -> u32 {
    u32::try_from(guests).unwrap_or(u32::MAX)
}

/// The end of a file that a guest may write into without end.
fn last_bytes(path: &Path) -> io::Result<String> {
    let mut file = match File::open(path) {
        // QEMU has not come so far.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let start = file.metadata()?.len().saturating_sub(CONSOLE_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt as _;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    pub(in crate::reference) const PORTS: [u16; 2] = [20_000, 20_001];

    /// A program that takes QEMU's options and lives on, in `folder`.
    ///
    /// Another process writes it: one that a thread of this one starts meanwhile could
    /// hold it open, and it could not be run.
    pub(in crate::reference) fn stand_in(folder: &Path) -> PathBuf {
        let script = "printf '#!/bin/sh\\nexec sleep 600\\n' >qemu; chmod +x qemu";
        let mut sh = Command::new("sh");
        let made = sh.args(["-c", script]).current_dir(folder).status();
        assert!(made.unwrap().success());
        folder.join("qemu")
    }

    pub(in crate::reference) fn on(path: &Path) -> Program<'_> {
        Program {
            path,
            accel: Accel::Tcg,
        }
    }

    fn state(pid: u32) -> Option<String> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.split(' ').next().map(str::to_owned)
    }

    fn wait_for_state(pid: u32, wanted: &str) {
        while state(pid).as_deref() != Some(wanted) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn those_that_are_up_stand_still_until_all_are_and_none_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let qemu = stand_in(folder.path());
        let mut guests = Guests::new(on(&qemu), folder.path(), &PORTS);
        guests.start_next().unwrap();
        guests.start_next().unwrap();
        let pids: Vec<_> = guests.processes().iter().map(|(_, pid)| *pid).collect();
        guests.see_who_is_up().unwrap();
        assert_eq!((guests.count(), guests.ready()), (2, 0));

        // Of a line that is not whole, and of one that only holds it, none is up.
        let console = |text: &str| fs::write(folder.path().join("00001.console"), text).unwrap();
        console("Linux\r\nsays baseline: ready\r\nbaseline: rea");
        guests.see_who_is_up().unwrap();
        assert_eq!(guests.ready(), 0);
        console("Linux\r\nbaseline: ready\r\n");
        guests.see_who_is_up().unwrap();
        assert_eq!(guests.ready(), 1);
        wait_for_state(pids[1], "T");
        assert_ne!(state(pids[0]).as_deref(), Some("T"));
        guests.go_on().unwrap();
        wait_for_state(pids[1], "S");

        drop(guests);
        assert!(pids.iter().all(|pid| state(*pid).is_none()));
    }

    #[test]
    fn one_that_ends_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut guests = Guests::new(on(Path::new("/bin/ls")), folder.path(), &PORTS);
        guests.start_next().unwrap();
        fs::write(folder.path().join("00000.console"), "kernel\x1b[2Jpanic\n").unwrap();
        let error = loop {
            if let Err(error) = guests.see_who_is_up() {
                break error;
            }
        };
        let ReferenceError::Ended { status, words, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((status.code(), status.signal()), (Some(2), None));
        let (of_qemu, of_console) = words.split_once('\n').unwrap();
        assert!(of_qemu.contains("option"), "{words}");
        assert!(
            of_console.ends_with("panic") && !words.contains('\x1b'),
            "{words}"
        );
    }
}
