//! Reports for people: text of 80 columns, with colours where they are wanted.

use anstyle::{AnsiColor, Style};

pub(crate) mod comparison;
pub(crate) mod fleet;
pub(crate) mod memory;
pub(crate) mod readiness;
mod room;
pub(crate) mod run;
pub(crate) mod runqlat;

const WIDTH: usize = 80;

/// Whether a report has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Ansi,
    Plain,
}

impl Colour {
    /// What stdout takes: colours on a terminal, unless the environment says
    /// otherwise (`NO_COLOR`, `CLICOLOR_FORCE`).
    pub(crate) fn of_stdout() -> Self {
        match anstream::AutoStream::choice(&std::io::stdout()) {
            anstream::ColorChoice::Never => Self::Plain,
            _ => Self::Ansi,
        }
    }

    fn paint(self, text: &str, colour: AnsiColor) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi => {
                let style = Style::new().fg_color(Some(colour.into())).bold();
                format!("{style}{text}{style:#}")
            }
        }
    }
}

/// `text` in lines of [`WIDTH`] columns, each after `indent` spaces.
fn wrapped(text: &str, indent: usize) -> String {
    let indent = " ".repeat(indent);
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(&indent)
        .subsequent_indent(&indent)
        // An address on the web is copied whole.
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    textwrap::fill(text, options)
}
