//! Commands to a guest, one a line: `[@TAG ]WORD [ARGUMENT]`.
//!
//! TAG is a number that the guest puts into its reply. Words are separated by
//! spaces or tabs.

use core::fmt;

use crate::duty::{Duty, digits};

/// What `help` prints.
pub const HELP: &str = "help: this list\n\
status: what the guest found and does\n\
heartbeat: the same as a heartbeat message\n\
burn PERCENT: burn so much of the time, 0 to 100\n\
identify: take the identity (parked guests only)\n\
poweroff: sync and power off";

/// A command to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Replies with what the guest found and does.
    Status,
    /// Sends a heartbeat message.
    Heartbeat,
    /// Changes the duty cycle at once.
    Burn(Duty),
    /// Ends the phase `parked`.
    Identify,
    /// Syncs, unmounts and powers off.
    Poweroff,
}

/// One line to a guest: a command, and the tag that its reply is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Comes back in the reply.
    pub tag: Option<u32>,
    /// What to do; an error still has its tag, so that its reply finds home.
    pub command: Result<Command, CommandError>,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// The first word is no command's name.
    Unknown,
    /// After `@` comes no number below 2^32.
    BadTag,
    /// `burn` without a duty of 0 to 100 percent.
    BadDuty,
    /// More words than the command takes.
    ExtraArgument,
    /// A tag, and nothing after it.
    Empty,
    /// Not UTF-8 text.
    NotText,
    /// Longer than [`crate::lines::COMMAND_MAX`].
    TooLong,
}

impl CommandError {
    /// The reply's code: 127 for an unknown command, 2 for a wrong use.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unknown => 127,
            _ => 2,
        }
    }

    /// A sentence for the reply's output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown command; try help",
            Self::BadTag => "a tag is @ and a number below 2^32",
            Self::BadDuty => "usage: burn PERCENT, a whole number from 0 to 100",
            Self::ExtraArgument => "too many arguments; try help",
            Self::Empty => "a tag without a command",
            Self::NotText => "not UTF-8 text",
            Self::TooLong => "line too long",
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl core::error::Error for CommandError {}

impl Request {
    /// Reads one line without its end; `None` for a blank one.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let Ok(line) = core::str::from_utf8(line) else {
            return Some(Self::untagged(CommandError::NotText));
        };
        let mut words = line
            .split([' ', '\t', '\r', '\n'])
            .filter(|word| !word.is_empty());
        let first = words.next()?;
        let Some(tag) = first.strip_prefix('@') else {
            return Some(Self {
                tag: None,
                command: parse_words(first, words),
            });
        };
        let Some(tag) = digits(tag) else {
            return Some(Self::untagged(CommandError::BadTag));
        };
        Some(Self {
            tag: Some(tag),
            command: match words.next() {
                Some(word) => parse_words(word, words),
                None => Err(CommandError::Empty),
            },
        })
    }

    /// A line that carries no usable tag.
    #[must_use]
    pub const fn untagged(error: CommandError) -> Self {
        Self {
            tag: None,
            command: Err(error),
        }
    }
}

fn parse_words<'a>(
    word: &str,
    mut arguments: impl Iterator<Item = &'a str>,
) -> Result<Command, CommandError> {
    let command = match word {
        "help" => Command::Help,
        "status" => Command::Status,
        "heartbeat" => Command::Heartbeat,
        "identify" => Command::Identify,
        "poweroff" => Command::Poweroff,
        "burn" => Command::Burn(
            arguments
                .next()
                .and_then(|percent| percent.parse().ok())
                .ok_or(CommandError::BadDuty)?,
        ),
        _ => return Err(CommandError::Unknown),
    };
    match arguments.next() {
        None => Ok(command),
        Some(_) => Err(CommandError::ExtraArgument),
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => f.write_str("help"),
            Self::Status => f.write_str("status"),
            Self::Heartbeat => f.write_str("heartbeat"),
            Self::Burn(duty) => write!(f, "burn {duty}"),
            Self::Identify => f.write_str("identify"),
            Self::Poweroff => f.write_str("poweroff"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    fn command(line: &str) -> Result<Command, CommandError> {
        let request = Request::parse(line.as_bytes()).expect("not blank");
        assert_eq!(request.tag, None, "{line:?}");
        request.command
    }

    #[test]
    fn every_command_reads_back_as_written() {
        let burn = Command::Burn("37".parse().unwrap());
        for wanted in [
            Command::Help,
            Command::Status,
            Command::Heartbeat,
            burn,
            Command::Identify,
            Command::Poweroff,
        ] {
            assert_eq!(command(&format!("{wanted}")), Ok(wanted));
            let text = format!("{wanted}");
            let word = text.split(' ').next().unwrap();
            assert!(
                HELP.lines().any(|line| line.starts_with(word)),
                "help leaves out {word}"
            );
        }
    }

    #[test]
    fn tag_comes_along_even_with_an_error() {
        let tagged = |line: &str| {
            let request = Request::parse(line.as_bytes()).unwrap();
            (request.tag, request.command)
        };
        assert_eq!(tagged("@0 status"), (Some(0), Ok(Command::Status)));
        assert_eq!(
            tagged("@4294967295 help"),
            (Some(u32::MAX), Ok(Command::Help))
        );
        assert_eq!(tagged("@7 nope"), (Some(7), Err(CommandError::Unknown)));
        assert_eq!(tagged("@7"), (Some(7), Err(CommandError::Empty)));
        for bad in [
            "@4294967296 help",
            "@x help",
            "@-1 help",
            "@ help",
            "@+1 help",
        ] {
            assert_eq!(tagged(bad), (None, Err(CommandError::BadTag)), "{bad:?}");
        }
    }

    #[test]
    fn spaces_and_carriage_returns_do_not_matter() {
        assert_eq!(command("  burn \t 5  "), command("burn 5"));
        assert_eq!(command("status\r"), Ok(Command::Status));
        for blank in ["", " ", "\t\r"] {
            assert_eq!(Request::parse(blank.as_bytes()), None);
        }
    }

    #[test]
    fn wrong_use_is_2_and_unknown_is_127() {
        for line in [
            "burn",
            "burn 101",
            "burn -1",
            "burn x",
            "burn 5 5",
            "status now",
        ] {
            assert_eq!(command(line).unwrap_err().code(), 2, "{line:?}");
        }
        for line in ["STATUS", "stat", "statuss", "st\0atus", "\u{1b}[2J"] {
            assert_eq!(command(line).unwrap_err().code(), 127, "{line:?}");
        }
        let not_text = Request::parse(b"\xff\xfe").unwrap();
        assert_eq!(not_text.command, Err(CommandError::NotText));
    }

    #[test]
    fn no_byte_string_panics() {
        // A small xorshift stands in for a fuzzer.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            let line: Vec<u8> = (0..state % 24)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    b"@burn 0159\0\xff\t\rstau"[usize::try_from(state % 18).unwrap()]
                })
                .collect();
            let _ = Request::parse(&line);
            state = state.wrapping_add(1);
        }
    }
}
