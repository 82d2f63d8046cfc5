//! Commands to a guest: `WORD [ARGUMENT…]`, and on the console, one a line,
//! `[@TAG ]WORD [ARGUMENT…]`.
//!
//! TAG is a number that the guest puts into its reply. Words are separated by
//! spaces or tabs. A path in single quotes may hold those, and `cat > FILE` is
//! `write FILE`: so that one line reads and writes a file here and in a shell.

use core::fmt;

use crate::duty::Duty;
use crate::fields::digits;
use crate::wall_time::WallTime;

/// What `help` prints.
pub const HELP: &str = "\
help: this list
status [--json]: devices, load and burn counters
uptime: time since the start, and load
free: memory in KiB
ps: processes
dmesg: the kernel's messages
mounts: mounted file systems
ifconfig: network interfaces
burn PERCENT: burn CPU for this share of the time, 0 to 100
ls [PATH]...: list folders
cat [FILE]...: print files, or the input
write FILE [TEXT]: write a line of text, or the input, into a file
echo [TEXT]: print it
sync: write files to the disk
sh [COMMAND]: the shell, where the image holds one
poweroff, reboot: sync and end the guest
heartbeat, identify [TIME]: on the console only: ask for a message, end the phase parked or poised";

/// A command to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Lists the commands.
    Help,
    /// Prints what the guest found and does.
    Status {
        /// As one JSON object rather than `key=value` words.
        json: bool,
    },
    /// Sends a heartbeat message.
    Heartbeat,
    /// Changes the duty cycle at once.
    Burn(Duty),
    /// Ends the phase `parked` or `poised`, and tells the time, if so.
    Identify(Option<WallTime>),
    /// Syncs, unmounts and powers off.
    Poweroff,
    /// The same, so that its launcher starts it again (`launch --restart`).
    Reboot,
    /// Tells the time since the start, and the load.
    Uptime,
    /// Tells what memory is used for.
    Free,
    /// Lists processes.
    Ps,
    /// Prints the kernel's messages.
    Dmesg,
    /// Lists mounted file systems.
    Mounts,
    /// Lists network interfaces.
    Ifconfig,
    /// Lists folders: paths, the current one if there are none.
    Ls(Words<'a>),
    /// Prints files, the input if there are none.
    Cat(Words<'a>),
    /// Writes into a file.
    Write {
        /// The file.
        path: &'a str,
        /// The text to write, the input if there is none.
        text: Option<&'a str>,
    },
    /// Prints its text.
    Echo(&'a str),
    /// Writes file systems to the disk.
    Sync,
    /// Runs a command of the image's shell, or the shell itself.
    Sh(Option<&'a str>),
}

/// Paths with spaces or tabs between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    /// The words in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let (path, after) = split_path(rest);
            rest = after;
            some(path)
        })
    }
}

/// One line to a guest: a command, and the tag that its reply is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Comes back in the reply.
    pub tag: Option<u32>,
    /// What to do; an error still has its tag, so that its reply finds home.
    pub command: Result<Command<'a>, CommandError>,
}

/// Why a line is not a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// The first word is not a command's name.
    Unknown,
    /// After `@` comes no number below 2^32.
    BadTag,
    /// `burn` without a duty of 0 to 100 percent.
    BadDuty,
    /// An argument missing, one too many, or one that the command lacks.
    Usage,
    /// A tag, and nothing after it.
    Empty,
    /// Not UTF-8 text.
    NotText,
    /// Longer than [`crate::lines::COMMAND_MAX`].
    TooLong,
}

impl CommandError {
    /// The reply's code: 127 for an unknown command, 2 for a wrong use.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unknown => 127,
            _ => 2,
        }
    }

    /// A sentence for the reply's output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown command; try help",
            Self::BadTag => "a tag is @ and a number below 2^32",
            Self::BadDuty => "usage: burn PERCENT, a whole number from 0 to 100",
            Self::Usage => "wrong arguments; try help",
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

impl<'a> Request<'a> {
    /// Reads one line without its end; `None` for a blank one.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let Ok(line) = core::str::from_utf8(line) else {
            return Some(Self::untagged(CommandError::NotText));
        };
        let line = line.trim_ascii();
        let Some(tagged) = line.strip_prefix('@') else {
            return Some(Self {
                tag: None,
                command: Command::parse(line)?,
            });
        };
        let (tag, rest) = split_word(tagged);
        let Some(tag) = digits(tag).and_then(|tag| tag.try_into().ok()) else {
            return Some(Self::untagged(CommandError::BadTag));
        };
        Some(Self {
            tag: Some(tag),
            command: Command::parse(rest).unwrap_or(Err(CommandError::Empty)),
        })
    }

    /// A line that carries no usable tag.
    pub const fn untagged(error: CommandError) -> Self {
        Self {
            tag: None,
            command: Err(error),
        }
    }
}

impl<'a> Command<'a> {
    /// Reads one command; `None` for a blank one.
    pub fn parse(line: &'a str) -> Option<Result<Self, CommandError>> {
        let (word, rest) = split_word(line.trim_ascii());
        let bare = |command| {
            if rest.is_empty() {
                Ok(command)
            } else {
                Err(CommandError::Usage)
            }
        };
        Some(match word {
            "" => return None,
            "help" => bare(Self::Help),
            "status" if rest == "--json" => Ok(Self::Status { json: true }),
            "status" => bare(Self::Status { json: false }),
            "heartbeat" => bare(Self::Heartbeat),
            "identify" if rest.is_empty() => Ok(Self::Identify(None)),
            "identify" => rest
                .parse()
                .map(|time| Self::Identify(Some(time)))
                .or(Err(CommandError::Usage)),
            "poweroff" => bare(Self::Poweroff),
            "reboot" => bare(Self::Reboot),
            "uptime" => bare(Self::Uptime),
            "free" => bare(Self::Free),
            "ps" => bare(Self::Ps),
            "dmesg" => bare(Self::Dmesg),
            "mounts" => bare(Self::Mounts),
            "ifconfig" => bare(Self::Ifconfig),
            "sync" => bare(Self::Sync),
            "burn" => rest.parse().map(Self::Burn).or(Err(CommandError::BadDuty)),
            "ls" => Ok(Self::Ls(Words(rest))),
            "cat" => match rest.strip_prefix('>').map(str::trim_ascii_start) {
                // A shell's `>>`, `>&` and `>|` mean something else.
                Some(path) if path.starts_with(['>', '&', '|']) => Err(CommandError::Usage),
                Some(path) => match split_path(path) {
                    ("", _) => Err(CommandError::Usage),
                    (path, "") => Ok(Self::Write { path, text: None }),
                    _ => Err(CommandError::Usage),
                },
                None => Ok(Self::Cat(Words(rest))),
            },
            "write" => match split_path(rest) {
                ("", _) => Err(CommandError::Usage),
                (path, text) => Ok(Self::Write {
                    path,
                    text: some(text),
                }),
            },
            "echo" => Ok(Self::Echo(rest)),
            "sh" => Ok(Self::Sh(some(rest))),
            _ => Err(CommandError::Unknown),
        })
    }

    /// Reads one command in a guest whose image holds a shell: every command is the
    /// shell's but those that only init has.
    pub fn parse_beside_shell(line: &'a str) -> Option<Result<Self, CommandError>> {
        Some(match Self::parse(line)? {
            Ok(own @ (Self::Status { .. } | Self::Burn(_) | Self::Poweroff | Self::Reboot)) => {
                Ok(own)
            }
            Err(CommandError::BadDuty) => Err(CommandError::BadDuty),
            _ => Ok(Self::Sh(Some(line))),
        })
    }
}

/// The first word, and what follows it without the blanks between.
fn split_word(text: &str) -> (&str, &str) {
    let blank = text.bytes().position(|byte| byte.is_ascii_whitespace());
    match blank.and_then(|blank| text.split_at_checked(blank)) {
        Some((word, rest)) => (word, rest.trim_ascii_start()),
        None => (text, ""),
    }
}

/// The same, where the word may stand in single quotes.
fn split_path(text: &str) -> (&str, &str) {
    match text
        .strip_prefix('\'')
        .and_then(|rest| rest.split_once('\''))
    {
        Some((path, rest)) => (path, rest.trim_ascii_start()),
        None => split_word(text),
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::vec::Vec;

    fn command(line: &str) -> Result<Command<'_>, CommandError> {
        let request = Request::parse(line.as_bytes()).expect("not blank");
        assert_eq!(request.tag, None, "{line:?}");
        request.command
    }

    #[test]
    fn every_command_that_help_lists_is_one() {
        let mut count = 0;
        for line in HELP.lines() {
            let words = line.split_once(':').expect("a word and what it does").0;
            for word in words.split(", ").map(|word| split_word(word).0) {
                assert_ne!(command(word), Err(CommandError::Unknown), "{word}");
                count += 1;
            }
        }
        assert_eq!(count, 19, "help leaves out a command");
    }

    #[test]
    fn arguments_are_taken_as_they_stand() {
        assert_eq!(command("burn 37"), Ok(Command::Burn("37".parse().unwrap())));
        assert_eq!(command("status --json"), Ok(Command::Status { json: true }));
        assert_eq!(command("echo  a  b "), Ok(Command::Echo("a  b")));
        assert_eq!(command("identify"), Ok(Command::Identify(None)));
        assert_eq!(
            command("identify 1764278307.000000005"),
            Ok(Command::Identify(Some(WallTime(Duration::new(
                1_764_278_307,
                5
            )))))
        );
        assert_eq!(command("sh"), Ok(Command::Sh(None)));
        assert_eq!(
            command("sh echo 1; exit 3"),
            Ok(Command::Sh(Some("echo 1; exit 3")))
        );
        assert_eq!(
            command("write /disk/a  two words"),
            Ok(Command::Write {
                path: "/disk/a",
                text: Some("two words")
            })
        );
        assert_eq!(
            command("write /a"),
            Ok(Command::Write {
                path: "/a",
                text: None
            })
        );
        let Ok(Command::Cat(paths)) = command("cat  /a \t '/b c'/d it's '/e") else {
            panic!("not cat")
        };
        let paths: Vec<_> = paths.iter().collect();
        assert_eq!(paths, ["/a", "/b c", "/d", "it's", "'/e"]);
    }

    #[test]
    fn beside_a_shell_init_keeps_what_only_it_has() {
        for line in [
            "status",
            "status --json",
            "burn 5",
            "burn x",
            "poweroff",
            "reboot",
        ] {
            assert_eq!(
                Command::parse_beside_shell(line),
                Command::parse(line),
                "{line}"
            );
        }
        for line in [
            "ls -la /",
            "ps aux",
            "echo $HOME",
            "sh -c ls",
            "status now",
            "apt",
        ] {
            let shell = Some(Ok(Command::Sh(Some(line))));
            assert_eq!(Command::parse_beside_shell(line), shell, "{line}");
        }
        assert_eq!(Command::parse_beside_shell(" "), None);
    }

    #[test]
    fn a_file_is_written_by_the_line_that_a_shell_takes() {
        for (line, path) in [
            ("cat > /disk/f", "/disk/f"),
            ("cat >'/disk/a  b'", "/disk/a  b"),
            ("write '/disk/a  b'", "/disk/a  b"),
            ("cat > '>f'", ">f"),
        ] {
            let text = None;
            assert_eq!(command(line), Ok(Command::Write { path, text }), "{line}");
        }
        for line in [
            "cat >",
            "cat > /a /b",
            "cat > ''",
            "cat >>f",
            "cat >> f",
            "cat > >f",
            "cat >&2",
            "cat >|f",
        ] {
            assert_eq!(command(line), Err(CommandError::Usage), "{line}");
        }
    }

    #[test]
    fn tag_comes_along_even_with_an_error() {
        let tagged = |line: &'static str| {
            let request = Request::parse(line.as_bytes()).unwrap();
            (request.tag, request.command)
        };
        assert_eq!(
            tagged("@0 status"),
            (Some(0), Ok(Command::Status { json: false }))
        );
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
        assert_eq!(command("status\r"), Ok(Command::Status { json: false }));
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
            "identify now",
            "identify 1764278307",
            "status now",
            "write",
            "ps -ef",
            "sync /disk",
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
