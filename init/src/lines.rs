//! Bytes of a console put together into lines of bounded length.

/// Longest command line a guest takes, in bytes, its end not counted.
pub const COMMAND_MAX: usize = 1024;

/// A line longer than [`COMMAND_MAX`]; all of it is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Puts bytes together into lines.
///
/// LF, CR and CR LF all end a line, because a host's terminal in raw mode sends
/// CR for its Enter key; empty lines are passed over, which makes CR LF one
/// end.
#[derive(Debug)]
pub struct Lines {
    bytes: [u8; COMMAND_MAX],
    /// Length of the line so far; more than fits means that it is too long.
    length: usize,
}

impl Lines {
    /// At the start of a line.
    pub const fn new() -> Self {
        Self {
            bytes: [0; COMMAND_MAX],
            length: 0,
        }
    }

    /// Takes one byte; gives the line that it ends, if it ends one.
    pub fn push(&mut self, byte: u8) -> Option<Result<&[u8], TooLong>> {
        if matches!(byte, b'\n' | b'\r') {
            let length = core::mem::take(&mut self.length);
            return match length {
                0 => None,
                length => Some(self.bytes.get(..length).ok_or(TooLong)),
            };
        }
        if let Some(place) = self.bytes.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        } else {
            self.length = COMMAND_MAX + 1;
        }
        None
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn lines(input: &[u8]) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut lines = Lines::new();
        input
            .iter()
            .filter_map(|&byte| lines.push(byte).map(|line| line.map(<[u8]>::to_vec)))
            .collect()
    }

    #[test]
    fn every_line_end_ends_one_line() {
        let three = [Ok(b"a".to_vec()), Ok(b"b".to_vec()), Ok(b"c".to_vec())];
        assert_eq!(lines(b"a\nb\nc\n"), three);
        assert_eq!(lines(b"a\r\nb\r\nc\r\n"), three);
        assert_eq!(lines(b"a\rb\rc\r"), three);
        assert_eq!(lines(b"\n\n\r\na\n\n\r\rb\n\nc\n"), three);
    }

    #[test]
    fn unfinished_line_waits() {
        assert_eq!(lines(b"status"), []);
    }

    #[test]
    fn longest_line_passes_and_one_more_byte_does_not() {
        let longest = [b'x'; COMMAND_MAX];
        assert_eq!(
            lines(&[&longest[..], b"\n"].concat()),
            [Ok(longest.to_vec())]
        );
        assert_eq!(lines(&[&longest[..], b"x\n"].concat()), [Err(TooLong)]);
    }

    #[test]
    fn line_after_one_too_long_is_whole() {
        let flood = [b'y'; COMMAND_MAX * 9];
        assert_eq!(
            lines(&[&flood[..], b"\nstatus\n"].concat()),
            [Err(TooLong), Ok(b"status".to_vec())]
        );
    }

    #[test]
    fn any_other_byte_is_kept() {
        assert_eq!(lines(b"\0\xff\x1b\n"), [Ok(b"\0\xff\x1b".to_vec())]);
    }
}
