//! The page around its sections.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figure::Figure;

/// Nothing is loaded, run or sent: the style sheet is in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";
const STYLE: &str = include_str!("style.css");

/// A part of the page.
pub(super) struct Section {
    id: &'static str,
    title: &'static str,
    body: Markup,
}

impl Section {
    /// Words, then figures.
    pub(super) fn new(
        id: &'static str,
        title: &'static str,
        words: &Markup,
        figures: &[Figure],
    ) -> Self {
        let body = html! {
            (words)
            @if !figures.is_empty() {
                div.figures { @for figure in figures { (figure.markup()) } }
            }
        };
        Self { id, title, body }
    }
}

/// A whole page; `source` says where its figures are from.
pub(super) fn page(title: &str, header: &Markup, sections: &[Section], source: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    (header)
                    nav aria-label="Sections" {
                        ol {
                            @for section in sections {
                                li { a href=(format!("#{}", section.id)) { (section.title) } }
                            }
                        }
                    }
                }
                main {
                    @for section in sections {
                        section id=(section.id) aria-labelledby=(format!("{}-title", section.id)) {
                            h2 id=(format!("{}-title", section.id)) { (section.title) }
                            (section.body)
                        }
                    }
                }
                footer {
                    p {
                        "This page loads nothing and runs nothing. " (source)
                        " “–” is what was not measured."
                    }
                }
            }
        }
    };
    page.into_string()
}
