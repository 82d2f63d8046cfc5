//! A queue, and the thread that writes its content.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use super::queue::{Queue, Stream};
use crate::interrupt::Interrupt;

/// How often the end of a run looks for the interrupt.
const TICK: Duration = Duration::from_millis(50);

/// The way to one file.
pub(crate) struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    queue: Queue,
    /// A piece is taken and not written yet.
    writes: bool,
    /// Pieces written, or tried in vain.
    written: u64,
    /// The first failure, and whose.
    failures: Vec<(Stream, io::Error)>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.writes
    }
}

impl Lane {
    /// A lane on which `room` bytes wait at most, and whose pieces `write` takes,
    /// on a thread of its own, which lives as long as the process.
    pub(super) fn start(
        room: usize,
        write: impl Fn(Stream, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let lane = Arc::new(Self {
            state: Mutex::new(State {
                queue: Queue::new(room),
                writes: false,
                written: 0,
                failures: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let own = Arc::clone(&lane);
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || own.run(write))?;
        Ok(lane)
    }

    pub(super) fn offer(&self, stream: Stream, piece: Vec<u8>) {
        self.state().queue.offer(stream, piece);
        self.changed.notify_all();
    }

    pub(super) fn insist(&self, stream: Stream, piece: Vec<u8>) {
        self.state().queue.insist(stream, piece);
        self.changed.notify_all();
    }

    pub(super) fn on_loss(&self, stream: Stream, line: Box<dyn Fn(u64) -> Vec<u8> + Send>) {
        self.state().queue.on_loss(stream, line);
    }

    /// Returns once everything is written.
    pub(super) fn settle(&self) {
        let mut state = self.state();
        while !state.is_idle() {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns once everything is written, or nothing was for as long as
    /// `patience` since the interrupt.
    pub(super) fn finish(&self, interrupt: &Interrupt, patience: Duration) {
        let mut state = self.state();
        let mut moved = (state.written, None);
        while !state.is_idle() {
            let waited = self.changed.wait_timeout(state, TICK);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !interrupt.requested() {
                continue;
            }
            let since = match moved {
                (written, Some(since)) if written == state.written => since,
                _ => Instant::now(),
            };
            if since.elapsed() >= patience {
                return;
            }
            moved = (state.written, Some(since));
        }
    }

    /// The first failure of a stream's, once.
    pub(super) fn failure(&self, stream: Stream) -> Option<io::Error> {
        let failures = &mut self.state().failures;
        let place = failures.iter().position(|(failed, _)| *failed == stream)?;
        Some(failures.swap_remove(place).1)
    }

    fn run(&self, write: impl Fn(Stream, &[u8]) -> io::Result<()>) {
        let mut state = self.state();
        loop {
            let Some((stream, piece)) = state.queue.take() else {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.writes = true;
            drop(state);
            let written = write(stream, &piece);
            state = self.state();
            state.writes = false;
            state.written += 1;
            if let Err(error) = written
                && !state.failures.iter().any(|(failed, _)| *failed == stream)
            {
                state.failures.push((stream, error));
            }
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const ROOM: usize = 100;

    /// A lane whose file takes a piece for each `()` that is sent, and what it
    /// took.
    fn held() -> (Arc<Lane>, std::sync::mpsc::Sender<()>, Receiver<Vec<u8>>) {
        let (go, may) = channel();
        let (took, taken) = channel();
        let lane = Lane::start(ROOM, move |_, piece| {
            may.recv().map_err(io::Error::other)?;
            took.send(piece.to_vec()).map_err(io::Error::other)
        });
        (lane.unwrap(), go, taken)
    }

    #[test]
    fn nobody_waits_for_a_file_that_takes_nothing() {
        let (lane, go, taken) = held();
        lane.on_loss(
            Stream::Stdout,
            Box::new(|pieces| format!("{pieces} lost").into()),
        );
        let half = || vec![b'x'; ROOM / 2];
        lane.offer(Stream::Stdout, half());
        while !lane.state().writes {
            thread::yield_now();
        }
        for _ in 0..9 {
            lane.offer(Stream::Stdout, half());
        }
        lane.insist(Stream::Stdout, b"the end".to_vec());
        for _ in 0..5 {
            go.send(()).unwrap();
        }
        lane.settle();
        let taken: Vec<_> = taken.try_iter().collect();
        let [pieces @ .., report, end] = &taken[..] else {
            panic!("too few were written");
        };
        assert_eq!(pieces, [half(), half(), half()]);
        assert_eq!([&report[..], end], [b"7 lost", &b"the end"[..]]);
    }

    #[test]
    fn who_was_interrupted_does_not_wait_for_it_in_the_end() {
        let (lane, _go, _taken) = held();
        lane.offer(Stream::Stderr, b"never".to_vec());
        let interrupt = Interrupt::never().unwrap();
        interrupt.raise();
        lane.finish(&interrupt, Duration::ZERO);
    }

    #[test]
    fn the_first_failure_of_each_stream_is_kept() {
        let lane = Lane::start(ROOM, |stream, piece| {
            let what = format!("{stream:?} {}", piece[0]);
            Err(io::Error::other(what))
        })
        .unwrap();
        for piece in 1..3 {
            lane.offer(Stream::Stderr, vec![piece]);
            lane.offer(Stream::Stdout, vec![piece + 10]);
        }
        lane.settle();
        let report = |stream| lane.failure(stream).map(|error| error.to_string());
        assert_eq!(report(Stream::Stdout).unwrap(), "Stdout 11");
        assert_eq!(report(Stream::Stderr).unwrap(), "Stderr 1");
        assert_eq!(report(Stream::Stdout), None);
    }
}
