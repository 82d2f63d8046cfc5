//! Distributions: for each stage a thin line from the least value to the greatest, a
//! thick one from the tenth percentile to the ninetieth, and a mark at the median.

use std::fmt::Write as _;

use svg::node::element::Line;

use super::axis::Axis;
use super::figure::Swatch;
use super::plot::{self, Ink, Mark, Plot, band, count, line, middle};
use super::table::Table;
use super::values::{MISSING, known, tick};
use crate::bundle::figures::Distribution;

/// Distributions side by side.
pub(super) struct Ranges {
    /// What the bands are for.
    pub(super) across: String,
    pub(super) up: Axis,
    /// How a value is written.
    pub(super) format: fn(f64) -> String,
    /// The stages' names.
    pub(super) bands: Vec<String>,
    /// A distribution of each stage.
    pub(super) series: Vec<(Ink, String, Vec<Distribution>)>,
}

impl Ranges {
    pub(super) fn draw(&self) -> String {
        let mut plot = Plot::new(&self.up);
        let number = self.bands.len();
        let marks = self.bands.iter().enumerate().map(|(at, text)| Mark {
            at: middle(band(at, number)),
            text: text.clone(),
        });
        plot.across(&self.across, marks.collect());
        for at in 0..number {
            let (from, to) = band(at, number);
            let width = ((to - from) / (count(self.series.len()) + 0.6)).min(14.0);
            let first = middle((from, to)) - width * (count(self.series.len()) - 1.0) / 2.0;
            for (place, (ink, _, values)) in self.series.iter().enumerate() {
                let x = first + width * count(place);
                self.range(&mut plot, *ink, x, &values[at]);
            }
            plot.explain((from, to), &self.explanation(at));
        }
        plot.finish()
    }

    fn range(&self, plot: &mut Plot, ink: Ink, x: f64, values: &Distribution) {
        let span = |share: f64| values.quantile(share).map(|value| plot::y(&self.up, value));
        let upright = |class: &str, ends: Option<(f64, f64)>| -> Option<Line> {
            let (from, to) = ends?;
            // A line without a length is not drawn.
            let to = if (from - to).abs() < 0.5 {
                from - 0.5
            } else {
                to
            };
            Some(line(
                &format!("{class} {}", ink.class()),
                (x, from),
                (x, to),
            ))
        };
        let (thin, thick) = (span(0.0).zip(span(1.0)), span(0.1).zip(span(0.9)));
        for part in [upright("thin", thin), upright("thick", thick)]
            .into_iter()
            .flatten()
        {
            plot.add(part);
        }
        if let Some(y) = span(0.5) {
            plot.add(ink.mark(x, y).set("stroke-width", 1));
        }
    }

    fn explanation(&self, at: usize) -> String {
        let mut text = format!("{} {}", self.bands[at], self.across);
        for (_, name, values) in &self.series {
            let write = |share: f64| known(values[at].quantile(share), self.format);
            let _ = write!(
                text,
                "\n{name}: {}, {} to {}",
                write(0.5),
                write(0.0),
                write(1.0)
            );
        }
        text
    }

    pub(super) fn legend(&self) -> Vec<(Swatch, String)> {
        let all = self.series.iter();
        all.map(|(ink, name, _)| (Swatch::Line(*ink), name.clone()))
            .collect()
    }

    pub(super) fn table(&self) -> Table {
        let head = ["", "number", "least", "p10", "median", "p90", "p99", "most"];
        let mut table = Table::new(head);
        self.across.clone_into(&mut table.head[0]);
        for (_, name, values) in &self.series {
            for (band, values) in self.bands.iter().zip(values) {
                let name = if self.series.len() > 1 {
                    format!("{band}: {name}")
                } else {
                    band.clone()
                };
                let mut row = vec![name, tick(count(values.count()))];
                let shares = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0];
                row.extend(shares.map(|share| {
                    let value = values.quantile(share);
                    value.map_or_else(|| MISSING.to_owned(), self.format)
                }));
                table.rows.push(row);
            }
        }
        table
    }
}
