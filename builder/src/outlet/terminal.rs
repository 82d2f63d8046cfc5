//! A terminal for progress bars, which passes each drawing on as one write.

use std::sync::{Mutex, PoisonError};
use std::{fmt, io};

use indicatif::TermLike;

/// A terminal that is as wide as `width` says, and what is drawn there goes to
/// `draw`.
pub(crate) struct Terminal {
    width: Box<dyn Fn() -> u16 + Send + Sync>,
    draw: Box<dyn Fn(Vec<u8>) + Send + Sync>,
    drawing: Mutex<Vec<u8>>,
}

impl Terminal {
    pub(crate) fn new(
        width: impl Fn() -> u16 + Send + Sync + 'static,
        draw: impl Fn(Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            width: Box::new(width),
            draw: Box::new(draw),
            drawing: Mutex::default(),
        }
    }

    fn add(&self, text: &str) {
        let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        drawing.extend_from_slice(text.as_bytes());
    }

    /// A control sequence that takes a number (ECMA-48, CSI).
    fn control(&self, number: usize, what: char) {
        if number > 0 {
            self.add(&format!("\x1b[{number}{what}"));
        }
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Terminal")
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        (self.width)()
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.control(lines, 'A');
        Ok(())
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.control(lines, 'B');
        Ok(())
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.control(columns, 'C');
        Ok(())
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.control(columns, 'D');
        Ok(())
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text);
        self.add("\n");
        Ok(())
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K");
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        if !drawing.is_empty() {
            (self.draw)(std::mem::take(&mut drawing));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use indicatif::{ProgressBar, ProgressDrawTarget};

    use super::*;

    #[test]
    fn a_bar_is_drawn_and_taken_away_again() {
        let (draw, drawn) = channel();
        let terminal = Terminal::new(|| 40, move |drawing| draw.send(drawing).unwrap());
        let target = ProgressDrawTarget::term_like(Box::new(terminal));
        let bar = ProgressBar::with_draw_target(Some(3), target);
        bar.set_position(2);
        let text = |drawings: Vec<Vec<u8>>| String::from_utf8(drawings.concat()).unwrap();
        assert!(text(drawn.try_iter().collect()).contains("2/3"));
        bar.finish_and_clear();
        assert!(text(drawn.try_iter().collect()).contains("\x1b[2K"));
    }
}
