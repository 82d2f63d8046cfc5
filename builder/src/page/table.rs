//! Tables: the values of a drawing, and facts.

use maud::{Markup, html};

/// Rows under a head; the first cell of each names it.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            head: head.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Vec::from(cells));
    }

    /// Numbers. It scrolls by itself where the page is too narrow for it.
    pub(super) fn numbers(&self, caption: &str) -> Markup {
        self.markup("numbers", caption)
    }

    /// Texts, which break where they must.
    pub(super) fn texts(&self, caption: &str) -> Markup {
        self.markup("texts", caption)
    }

    /// The same of names and values of programs.
    pub(super) fn codes(&self, caption: &str) -> Markup {
        self.markup("texts codes", caption)
    }

    /// Texts with a narrow first column.
    pub(super) fn events(&self, caption: &str) -> Markup {
        self.markup("texts events", caption)
    }

    fn markup(&self, class: &str, caption: &str) -> Markup {
        html! {
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table class=(class) {
                    caption { (caption) }
                    thead { tr { @for cell in &self.head { th scope="col" { (cell) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (at, cell) in row.iter().enumerate() {
                                    @if at == 0 { th scope="row" { (cell) } }
                                    @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
