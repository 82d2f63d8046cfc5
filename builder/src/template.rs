//! Templates: guests that were brought to the phase `poised` once, so that others,
//! clones, begin there.
//!
//! A template is a guest's RAM and the state of its machine. Both are in memory that
//! nobody can change any more, so that guests that do not trust each other can begin
//! with the same bytes. [`cache`] keeps them for later fleets.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use crate::digest::{Hasher, Sha256};
use crate::vmm::{Part, Ram};
use crate::{plain, sealed};

pub(crate) mod cache;
pub(crate) mod key;
mod pages;

/// Most bytes of a machine's state; that of `microvm` has 50 kB.
pub(crate) const STATE_MAX: u64 = 16 << 20;

/// What a template is, as a fleet's spec records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// What it depends on: the digest of its [`key::Key`].
    pub key: Sha256,
    /// Length of the RAM, in bytes.
    pub memory_size: u64,
    /// Digest of the pages of the RAM that are not empty.
    pub memory: Sha256,
    /// Digest of the machine's state.
    pub state: Sha256,
}

/// A template, in memory.
#[derive(Debug)]
pub(crate) struct Template {
    fingerprint: Fingerprint,
    memory: File,
    state: File,
}

/// Why files are not a template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoTemplate {
    /// They are not what they were.
    #[error("its {0} is not what it was")]
    Changed(&'static str),
    /// Somebody can still change them.
    #[error("its {0} is not sealed")]
    Open(&'static str),
    /// They cannot be read, or memory cannot be had for them.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Template {
    /// A copy in memory of files that are to be what `fingerprint` says.
    pub(crate) fn copy(
        fingerprint: Fingerprint,
        memory: &File,
        state: &mut File,
    ) -> Result<Self, NoTemplate> {
        let copy = sealed::draft()?;
        copy.set_len(fingerprint.memory_size)?;
        if memory.metadata()?.len() != fingerprint.memory_size
            || pages::each(memory, |at, page| pages::write(&copy, at, page))? != fingerprint.memory
        {
            return Err(NoTemplate::Changed("memory"));
        }
        sealed::seal(&copy)?;
        let mut state_copy = sealed::draft()?;
        io::copy(&mut io::Read::take(state, STATE_MAX), &mut state_copy)?;
        sealed::seal(&state_copy)?;
        let template = Self {
            fingerprint,
            memory: copy,
            state: state_copy,
        };
        template.check_state()?;
        Ok(template)
    }

    /// The one that a living clone, the process `pid`, began with.
    pub(crate) fn of_clone(fingerprint: Fingerprint, pid: u32) -> Result<Self, NoTemplate> {
        let template = Self {
            fingerprint,
            // A guest that broke out may have put anything there.
            memory: plain::open(&Part::Memory.held_by(pid))?,
            state: plain::open(&Part::KeptState.held_by(pid))?,
        };
        for (file, what) in [(&template.memory, "memory"), (&template.state, "state")] {
            if !sealed::is_sealed(file) {
                return Err(NoTemplate::Open(what));
            }
        }
        if template.memory.metadata()?.len() != fingerprint.memory_size
            || pages::each(&template.memory, |_, _| Ok(()))? != fingerprint.memory
        {
            return Err(NoTemplate::Changed("memory"));
        }
        template.check_state()?;
        Ok(template)
    }

    fn check_state(&self) -> Result<(), NoTemplate> {
        if self.state.metadata()?.len() > STATE_MAX {
            return Err(NoTemplate::Changed("state"));
        }
        let mut hasher = Hasher::default();
        hasher.read(&mut plain::again(&self.state)?)?;
        if hasher.finish() == self.fingerprint.state {
            Ok(())
        } else {
            Err(NoTemplate::Changed("state"))
        }
    }

    /// What it is.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Memory that it takes, in bytes.
    pub(crate) fn in_memory(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        const BLOCK: u64 = 512;
        let files = [&self.memory, &self.state].into_iter();
        let blocks = files.filter_map(|file| file.metadata().ok());
        blocks.map(|file| file.blocks() * BLOCK).sum()
    }

    /// What a guest is handed to begin with it.
    pub(crate) fn ram(&self) -> io::Result<Ram> {
        Ok(Ram::Template {
            memory: self.memory.try_clone()?,
            // Each reads it from its beginning.
            state: plain::again(&self.state)?,
            kept_state: self.state.try_clone()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use super::*;

    const SIZE: u64 = 1 << 20;

    /// Files of a template, and what they are.
    fn files() -> (Fingerprint, File, File) {
        let memory = tempfile::tempfile().unwrap();
        memory.set_len(SIZE).unwrap();
        for at in [0, 40_960, SIZE - 4096] {
            pages::write(&memory, at, &[7; 4096]).unwrap();
        }
        // An empty page that takes room is no other memory.
        pages::write(&memory, 8192, &[0; 4096]).unwrap();
        let mut state = tempfile::tempfile().unwrap();
        state.write_all(b"state").unwrap();
        let fingerprint = Fingerprint {
            key: Sha256::of_bytes("key"),
            memory_size: SIZE,
            memory: pages::each(&memory, |_, _| Ok(())).unwrap(),
            state: Sha256::of_bytes("state"),
        };
        let state = plain::again(&state).unwrap();
        (fingerprint, memory, state)
    }

    #[test]
    fn a_template_is_a_copy_that_nobody_can_change() {
        let (fingerprint, memory, mut state) = files();
        let template = Template::copy(fingerprint, &memory, &mut state).unwrap();
        assert_eq!(template.in_memory(), 4 * 4096);
        for file in [&template.memory, &template.state] {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            // As QEMU opens it.
            let mut opened = File::options().read(true).write(true).open(path).unwrap();
            assert!(opened.write_all(b"other").is_err());
            assert!(opened.set_len(0).is_err());
        }
        let read = |file: &File| io::read_to_string(file).unwrap();
        let Ram::Template { state, .. } = template.ram().unwrap() else {
            panic!("no template's");
        };
        assert_eq!(read(&state), "state");
        let Ram::Template { state, .. } = template.ram().unwrap() else {
            panic!("no template's");
        };
        assert_eq!(read(&state), "state", "one's position is not another's");
    }

    #[test]
    fn files_that_are_not_what_they_were_are_no_template() {
        let says = |change: fn(&mut File, &mut File), says: &str| {
            let (fingerprint, mut memory, state) = files();
            let mut copy = tempfile::tempfile().unwrap();
            io::copy(&mut io::BufReader::new(state), &mut copy).unwrap();
            change(&mut memory, &mut copy);
            let error = Template::copy(fingerprint, &memory, &mut plain::again(&copy).unwrap())
                .unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        };
        says(|memory, _| memory.set_len(SIZE - 4096).unwrap(), "memory");
        says(|memory, _| memory.set_len(SIZE + 4096).unwrap(), "memory");
        says(
            |memory, _| pages::write(memory, 40_960, &[8; 4096]).unwrap(),
            "memory",
        );
        // The same page elsewhere.
        says(
            |memory, _| {
                pages::write(memory, 40_960, &[0; 4096]).unwrap();
                pages::write(memory, 45_056, &[7; 4096]).unwrap();
            },
            "memory",
        );
        says(|_, state| state.set_len(4).unwrap(), "state");
        says(|_, state| state.write_all(b"more").unwrap(), "state");
    }
}
