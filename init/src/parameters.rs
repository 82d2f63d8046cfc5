//! The guest's parameters on the kernel command line.
//!
//! Their names have a dot (`tty.burn=50`), so the kernel takes them for parameters
//! of a module and ignores them without a message (kernel document
//! admin-guide/kernel-parameters).

use core::fmt;

use crate::duty::Duty;
use crate::fields::digits;

/// Most burn threads a guest starts.
pub const MAX_THREADS: u16 = 64;

/// Longest silence of an SSH client, in seconds: a day.
const IDLE_MAX: u32 = 86_400;

/// What the kernel command line asks of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// `tty.burn=PERCENT`: duty cycle of the burn, 0 by default.
    pub burn: Duty,
    /// `tty.threads=N`: burn threads, 1 by default, at most [`MAX_THREADS`].
    pub threads: u16,
    /// `tty.park` or `tty.poise`: how far to go without being told to.
    pub goal: Goal,
    /// `tty.idle=SECONDS`: how long an SSH client may be silent, 600 by
    /// default, 1 to 86,400.
    pub idle_seconds: u32,
    /// `tty.root=disk`: the disk holds the root file system.
    pub root_on_disk: bool,
    /// `tty.ssh=image`: the image's SSH server is started instead of init's.
    pub image_serves_ssh: bool,
}

/// How far a guest goes without being told to; the command `identify` makes it ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// All the way.
    Ready,
    /// `tty.park`: it opens its console.
    Parked,
    /// `tty.poise`: it does all that is the same in every guest, and is a template for
    /// clones.
    Poised,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            burn: Duty::NONE,
            threads: 1,
            goal: Goal::Ready,
            idle_seconds: 600,
            root_on_disk: false,
            image_serves_ssh: false,
        }
    }
}

/// A parameter that was passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected<'a> {
    /// The word as it stands on the command line.
    pub word: &'a str,
    /// What would have been right.
    pub want: &'static str,
}

impl fmt::Display for Rejected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: want {}", self.word, self.want)
    }
}

impl Parameters {
    /// Reads a kernel command line, the last of equal parameters winning.
    ///
    /// What is wrong goes to `reject` and leaves the value as it was.
    pub fn parse(cmdline: &[u8], mut reject: impl FnMut(Rejected<'_>)) -> Self {
        let mut parameters = Self::default();
        for word in cmdline.split(u8::is_ascii_whitespace) {
            if !word.starts_with(b"tty.") {
                continue;
            }
            match core::str::from_utf8(word) {
                Ok(word) => {
                    if let Err(want) = parameters.set(word) {
                        reject(Rejected { word, want });
                    }
                }
                Err(_) => reject(Rejected {
                    word: "tty.",
                    want: "UTF-8 text",
                }),
            }
        }
        parameters
    }

    fn set(&mut self, word: &str) -> Result<(), &'static str> {
        match word.split_once('=') {
            Some(("tty.burn", value)) => {
                self.burn = value.parse().or(Err("tty.burn=0 to 100"))?;
            }
            Some(("tty.threads", value)) => {
                self.threads = within(value, MAX_THREADS).ok_or("tty.threads=1 to 64")?;
            }
            Some(("tty.idle", value)) => {
                self.idle_seconds = within(value, IDLE_MAX).ok_or("tty.idle=1 to 86400")?;
            }
            Some(("tty.root", value)) => {
                self.root_on_disk = value.eq("disk").then_some(true).ok_or("tty.root=disk")?;
            }
            Some(("tty.ssh", value)) => {
                self.image_serves_ssh = value.eq("image").then_some(true).ok_or("tty.ssh=image")?;
            }
            None if word == "tty.park" => self.goal = Goal::Parked,
            None if word == "tty.poise" => self.goal = Goal::Poised,
            _ => {
                return Err(
                    "tty.burn=, tty.threads=, tty.idle=, tty.root=, tty.ssh=, tty.park or tty.poise",
                );
            }
        }
        Ok(())
    }
}

/// A number from 1 to `max`.
fn within<N: TryFrom<u64> + Into<u64> + Copy>(value: &str, max: N) -> Option<N> {
    let number = digits(value).filter(|number| (1..=max.into()).contains(number))?;
    number.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn parse(cmdline: &[u8]) -> (Parameters, Vec<String>) {
        let mut rejected = Vec::new();
        let parameters = Parameters::parse(cmdline, |word| rejected.push(word.to_string()));
        (parameters, rejected)
    }

    #[test]
    fn defaults_stand_without_parameters() {
        let kernels = b"console=ttyS0 quiet virtio_mmio.device=512@0xfeb00e00:12\n";
        assert_eq!(parse(kernels), (Parameters::default(), Vec::new()));
        assert_eq!(parse(b""), (Parameters::default(), Vec::new()));
    }

    #[test]
    fn parameters_are_taken_and_the_last_wins() {
        let (parameters, rejected) = parse(
            b"quiet tty.burn=10 tty.threads=64 tty.park tty.poise tty.idle=5 tty.root=disk tty.ssh=image tty.burn=20\n",
        );
        assert_eq!(rejected, Vec::<String>::new());
        assert_eq!(
            parameters,
            Parameters {
                burn: "20".parse().unwrap(),
                threads: MAX_THREADS,
                goal: Goal::Poised,
                idle_seconds: 5,
                root_on_disk: true,
                image_serves_ssh: true,
            }
        );
    }

    #[test]
    fn bad_values_are_named_and_leave_the_default() {
        for bad in [
            "tty.burn=101",
            "tty.burn=",
            "tty.burn",
            "tty.threads=0",
            "tty.threads=65",
            "tty.threads=+1",
            "tty.park=1",
            "tty.poise=1",
            "tty.idle=0",
            "tty.idle=86401",
            "tty.root=",
            "tty.root=/dev/vda",
            "tty.ssh=sshd",
            "tty.brun=1",
            "tty.",
        ] {
            let (parameters, rejected) = parse(bad.as_bytes());
            assert_eq!(parameters, Parameters::default(), "{bad}");
            assert_eq!(rejected.len(), 1, "{bad}");
            assert!(rejected[0].starts_with(bad), "{rejected:?}");
        }
        assert_eq!(parse(b"tty.\xff").1, ["tty.: want UTF-8 text"]);
    }
}
