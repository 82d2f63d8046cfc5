//! The terminal, borrowed from the shell: it gets it back whatever ends the screen.

use std::io::{self, IsTerminal as _, Stdout};
use std::sync::Once;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::{CompletedFrame, Frame};

use super::error::TopError;
use crate::system::Doing as _;

/// The whole screen; the shell's is back once this is dropped.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    pub(super) fn borrow() -> Result<Self, TopError> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(TopError::NoTerminal);
        }
        restore_before_panics();
        let screen = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()));
        let terminal = Self {
            screen: screen.doing("find the size of the terminal")?,
        };
        take()?;
        Ok(terminal)
    }

    pub(super) fn draw(
        &mut self,
        draw: impl FnOnce(&mut Frame<'_>),
    ) -> io::Result<CompletedFrame<'_>> {
        self.screen.draw(draw)
    }

    /// Gives the terminal back for as long as `work` takes.
    pub(super) fn lend<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, TopError> {
        give_back();
        let done = work();
        take()?;
        self.screen.clear().doing("clear the terminal")?;
        Ok(done)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> Result<(), TopError> {
    enable_raw_mode().doing("have keys come as they are typed")?;
    Ok(execute!(io::stdout(), EnterAlternateScreen).doing("write to the terminal")?)
}

/// What cannot be written to a terminal that has gone is of no use to it.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// A panic is to be read on the shell's screen.
fn restore_before_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            hook(panic);
        }));
    });
}
