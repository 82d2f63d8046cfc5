//! A drawing with its title, its legend, what it says in a sentence, and its values
//! in a table.

use maud::{Markup, PreEscaped, html};

use super::plot::Ink;
use super::table::Table;

/// A drawing and what belongs to it.
pub(super) struct Figure {
    /// What it is about, in a few words.
    pub(super) title: String,
    /// The drawing, of `svg`.
    pub(super) drawing: String,
    /// Its series, by name, where there are several.
    pub(super) legend: Vec<(Swatch, String)>,
    /// What can be seen and how it was measured.
    pub(super) caption: Markup,
    /// The same values.
    pub(super) table: Table,
}

/// What a legend has before a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swatch {
    /// A line, with its mark.
    Line(Ink),
    /// A line without marks.
    Bare(Ink),
    /// An area.
    Area(Ink),
}

impl Swatch {
    fn width(self) -> u8 {
        match self {
            Self::Line(_) | Self::Bare(_) => 26,
            Self::Area(_) => 10,
        }
    }

    fn markup(self) -> Markup {
        html! {
            svg.swatch viewBox=(format!("0 0 {} 10", self.width())) width=(self.width())
                aria-hidden="true" focusable="false" {
                @match self {
                    Self::Line(ink) => {
                        line.line.(ink.class()) x1="1" y1="5" x2="25" y2="5" {}
                        (PreEscaped(ink.mark(13.0, 5.0).to_string()))
                    }
                    Self::Bare(ink) => { line.line.(ink.class()) x1="1" y1="5" x2="25" y2="5" {} }
                    Self::Area(ink) => {
                        rect.fill.(ink.class()) x="0" y="0" width="10" height="10" {}
                    }
                }
            }
        }
    }
}

impl Figure {
    pub(super) fn markup(&self) -> Markup {
        html! {
            figure {
                figcaption { b { (self.title) } }
                @if self.legend.len() > 1 {
                    ul.legend {
                        @for (swatch, name) in &self.legend { li { (swatch.markup()) (name) } }
                    }
                }
                div.drawing role="img" aria-label=(format!("{}. The table below has its values.", self.title)) {
                    (PreEscaped(&self.drawing))
                }
                p.caption { (self.caption) }
                details {
                    summary { "Values" }
                    (self.table.numbers(&self.title))
                }
            }
        }
    }
}
