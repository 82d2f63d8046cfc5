//! Where a command reads and writes.

use core::fmt;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::Errno;

/// Nobody is there any more to read or write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gone;

/// Takes the next bytes of an input; says whether it wants more.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// A command's input, output and error output.
pub(crate) trait Streams {
    /// Writes to the output.
    fn output(&mut self, bytes: &[u8]) -> Result<(), Gone>;

    /// Writes to the error output.
    fn error(&mut self, bytes: &[u8]) -> Result<(), Gone>;

    /// Reads until the buffer is full or the input ends.
    fn input(&mut self, buffer: &mut [u8]) -> Result<usize, Gone>;

    /// Hands all of the input to `sink`, which writes nothing meanwhile: that
    /// makes it faster than [`Self::input`].
    fn whole_input(&mut self, sink: &mut Sink<'_>) -> Result<(), Gone>;

    /// The connection to whoever reads and writes, to see it end.
    fn peer(&self) -> Option<BorrowedFd<'_>>;
}

/// The console's side of a command: a pipe that PID 1 reads, and no input.
pub(crate) struct Pipe(pub OwnedFd);

impl Streams for Pipe {
    fn output(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        write_all(&self.0, bytes).or(Err(Gone))
    }

    fn error(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        self.output(bytes)
    }

    fn input(&mut self, _: &mut [u8]) -> Result<usize, Gone> {
        Ok(0)
    }

    fn whole_input(&mut self, _: &mut Sink<'_>) -> Result<(), Gone> {
        Ok(())
    }

    fn peer(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Writes everything to a file that blocks.
pub(crate) fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Formatted text to an output, a buffer at a time: each write may be a packet.
pub(crate) struct Printer<'a> {
    streams: &'a mut dyn Streams,
    buffer: [u8; 1024],
    length: usize,
}

impl<'a> Printer<'a> {
    /// With nothing to print yet.
    pub(crate) fn new(streams: &'a mut dyn Streams) -> Self {
        Self {
            streams,
            buffer: [0; 1024],
            length: 0,
        }
    }

    /// Prints formatted text.
    pub(crate) fn print(&mut self, text: fmt::Arguments<'_>) -> Result<(), Gone> {
        fmt::write(self, text).or(Err(Gone))
    }

    /// Writes what the buffer still holds.
    pub(crate) fn finish(mut self) -> Result<(), Gone> {
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let length = core::mem::take(&mut self.length);
        self.streams.output(&self.buffer[..length])
    }
}

impl fmt::Write for Printer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.buffer.len() {
                self.flush().or(Err(fmt::Error))?;
            }
            self.buffer[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}
