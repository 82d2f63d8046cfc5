//! The text that waits to be written, up to a bound; pure.

use std::collections::VecDeque;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What was dropped of one stream.
#[derive(Default)]
struct Loss {
    pieces: u64,
    /// What is written in their place.
    line: Option<Box<dyn Fn(u64) -> Vec<u8> + Send>>,
}

impl Loss {
    /// What stands for those dropped so far, if any were.
    fn report(&mut self) -> Option<Vec<u8>> {
        match std::mem::take(&mut self.pieces) {
            0 => None,
            pieces => self.line.as_ref().map(|line| line(pieces)),
        }
    }
}

/// Pieces in the order in which they were said, to one file or two.
pub(super) struct Queue {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
    /// Most bytes that wait, beyond what was insisted on.
    room: usize,
    stdout: Loss,
    stderr: Loss,
}

impl Queue {
    /// One with room for so many bytes.
    pub(super) fn new(room: usize) -> Self {
        Self {
            pieces: VecDeque::new(),
            bytes: 0,
            room,
            stdout: Loss::default(),
            stderr: Loss::default(),
        }
    }

    /// Adds a piece, or drops it: once one was dropped, the next are as well
    /// until half of the room is free, so that a gap is reported once.
    pub(super) fn offer(&mut self, stream: Stream, piece: Vec<u8>) {
        let has_room = self.bytes + piece.len() <= self.room;
        let loss = self.loss(stream);
        if loss.pieces > 0 || !has_room {
            loss.pieces += 1;
        } else {
            self.push(stream, piece);
        }
    }

    /// Adds a piece in any case.
    pub(super) fn insist(&mut self, stream: Stream, piece: Vec<u8>) {
        self.report_loss(stream);
        self.push(stream, piece);
    }

    /// The piece that is next. Where the rest leaves room, what was dropped is
    /// reported behind it: in its place, since nothing came after it.
    pub(super) fn take(&mut self) -> Option<(Stream, Vec<u8>)> {
        let (stream, piece) = self.pieces.pop_front()?;
        self.bytes -= piece.len();
        if self.bytes <= self.room / 2 {
            self.report_loss(Stream::Stdout);
            self.report_loss(Stream::Stderr);
        }
        Some((stream, piece))
    }

    /// Has `line` make what stands in the place of so many pieces.
    pub(super) fn on_loss(&mut self, stream: Stream, line: Box<dyn Fn(u64) -> Vec<u8> + Send>) {
        self.loss(stream).line = Some(line);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    fn report_loss(&mut self, stream: Stream) {
        if let Some(line) = self.loss(stream).report() {
            self.push(stream, line);
        }
    }

    fn push(&mut self, stream: Stream, piece: Vec<u8>) {
        self.bytes += piece.len();
        self.pieces.push_back((stream, piece));
    }

    fn loss(&mut self, stream: Stream) -> &mut Loss {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 100;

    fn piece(byte: u8) -> Vec<u8> {
        vec![byte; PIECE]
    }

    fn report(queue: &mut Queue) {
        let line = |pieces| format!("{pieces} lost").into_bytes();
        queue.on_loss(Stream::Stdout, Box::new(line));
    }

    fn left(queue: &mut Queue) -> Vec<String> {
        let pieces = std::iter::from_fn(|| queue.take());
        let shown = pieces.map(|(_, piece)| match piece.len() {
            PIECE => char::from(piece[0]).to_string(),
            _ => String::from_utf8(piece).unwrap(),
        });
        shown.collect()
    }

    #[test]
    fn a_gap_is_reported_once_and_where_it_is() {
        let mut queue = Queue::new(4 * PIECE);
        report(&mut queue);
        for byte in *b"abcdEF" {
            queue.offer(Stream::Stdout, piece(byte));
        }
        assert_eq!(queue.take().unwrap().1[0], b'a');
        // There is room, but not enough for a gap to end here.
        queue.offer(Stream::Stdout, piece(b'G'));
        assert_eq!(queue.take().unwrap().1[0], b'b');
        queue.offer(Stream::Stdout, piece(b'h'));
        assert_eq!(left(&mut queue), ["c", "d", "3 lost", "h"]);
    }

    #[test]
    fn what_is_insisted_on_is_kept_behind_the_gap() {
        let mut queue = Queue::new(4 * PIECE);
        report(&mut queue);
        for byte in *b"abcdE" {
            queue.offer(Stream::Stdout, piece(byte));
        }
        queue.insist(Stream::Stdout, piece(b'f'));
        assert_eq!(left(&mut queue), ["a", "b", "c", "d", "1 lost", "f"]);
    }

    #[test]
    fn one_stream_s_gap_is_not_the_other_s() {
        let mut queue = Queue::new(4 * PIECE);
        report(&mut queue);
        for byte in *b"abcdE" {
            queue.offer(Stream::Stdout, piece(byte));
        }
        queue.take();
        queue.offer(Stream::Stderr, piece(b'e'));
        assert_eq!(left(&mut queue), ["b", "c", "d", "e", "1 lost"]);
    }
}
