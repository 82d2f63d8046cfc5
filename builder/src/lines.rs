//! Splits a console's output into lines, in bounded memory.

/// Longest line that is kept, in bytes; what is beyond is dropped, so that a
/// console that never ends a line costs no more than this.
pub(crate) const LINE_MAX: usize = 4096;

/// The part of a console's output that has not come to a line's end yet.
#[derive(Debug, Default)]
pub(crate) struct LineBuffer {
    partial: Vec<u8>,
}

impl LineBuffer {
    /// Takes more output and hands every line that it ends to `line`, without
    /// its line feed and carriage returns.
    pub(crate) fn push(&mut self, output: &[u8], mut line: impl FnMut(&[u8])) {
        let mut pieces = output.split(|byte| *byte == b'\n').peekable();
        while let Some(piece) = pieces.next() {
            let room = LINE_MAX - self.partial.len();
            self.partial
                .extend_from_slice(&piece[..piece.len().min(room)]);
            if pieces.peek().is_some() {
                line(self.partial.trim_ascii_end());
                self.partial.clear();
            }
        }
    }

    /// What came after the last line feed.
    pub(crate) fn rest(&self) -> &[u8] {
        self.partial.trim_ascii_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<String>, LineBuffer) {
        let mut buffer = LineBuffer::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            buffer.push(chunk, |line| {
                lines.push(String::from_utf8_lossy(line).into_owned());
            });
        }
        (lines, buffer)
    }

    #[test]
    fn lines_are_joined_across_reads() {
        let (lines, buffer) = lines(&[b"one\r\ntw", b"o\n", b"\nthr"]);
        assert_eq!(lines, ["one", "two", ""]);
        assert_eq!(buffer.rest(), b"thr");
    }

    #[test]
    fn a_line_that_never_ends_is_cut() {
        let flood = vec![b'x'; 10 * LINE_MAX];
        let (lines, buffer) = lines(&[&flood, &flood, b"\nnext\n"]);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [LINE_MAX, 4]
        );
        assert!(buffer.partial.capacity() <= 2 * LINE_MAX);
    }
}
