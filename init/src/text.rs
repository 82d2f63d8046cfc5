//! Text of bounded length, without an allocator.

use core::ffi::CStr;
use core::fmt;

/// Up to `N` bytes of text; what does not fit is cut off.
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    /// The formatted text.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut new = Self {
            bytes: [0; N],
            length: 0,
        };
        // Fails only when the text is cut off.
        let _ = fmt::write(&mut new, text);
        new
    }

    /// The formatted text as one line, without control characters of its own.
    pub(crate) fn line(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self::new(text);
        line.length = prefix(line.as_str(), N - 1).len();
        for byte in &mut line.bytes[..line.length] {
            if byte.is_ascii_control() {
                *byte = b'?';
            }
        }
        line.bytes[line.length] = b'\n';
        line.length += 1;
        line
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let taken = prefix(text, room.len());
        for (place, byte) in room.iter_mut().zip(taken.bytes()) {
            *place = byte;
        }
        self.length += taken.len();
        if taken.len() < text.len() {
            Err(fmt::Error)
        } else {
            Ok(())
        }
    }
}

/// A path put together from parts; one that is too long is cut, and then names
/// no file.
pub(crate) struct Path(Text<64>);

impl Path {
    /// The formatted path.
    pub(crate) fn new(path: fmt::Arguments<'_>) -> Self {
        // The last byte stays NUL.
        let mut text = Text::new(path);
        text.length = text.length.min(63);
        text.bytes[text.length] = 0;
        Self(text)
    }

    /// As the kernel takes it.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0.bytes).unwrap_or_default()
    }
}

/// The longest prefix of at most `length` bytes.
fn prefix(text: &str, length: usize) -> &str {
    // `get`, because a slice that is out of bounds would bring along the code
    // that says so: a tenth of the binary.
    (0..=length.min(text.len()))
        .rev()
        .find_map(|end| text.get(..end))
        .unwrap_or_default()
}
