//! Bars of parts that are stacked, one bar for each stage.

use std::fmt::Write as _;

use svg::node::element::Path;

use super::axis::Axis;
use super::figure::Swatch;
use super::plot::{self, Ink, Mark, Plot, band, line, middle, rectangle, rounded};
use super::table::Table;
use super::values::MISSING;

/// Stacked bars.
pub(super) struct Bars {
    /// What is measured and its unit.
    pub(super) label: String,
    /// What the bars are for.
    pub(super) across: String,
    /// How a value is written.
    pub(super) format: fn(f64) -> String,
    /// The parts' names, the lowest first.
    pub(super) parts: Vec<(Ink, String)>,
    pub(super) all: Vec<Bar>,
    pub(super) tall: Tall,
    /// A line across, such as what there is at most.
    pub(super) limit: Option<f64>,
}

/// What is done with a bar that is far higher than most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tall {
    /// It is broken, so that the parts of the others can be seen.
    Broken,
    /// It is drawn whole: how much higher it is is what the drawing is for.
    Whole,
}

/// A bar.
pub(super) struct Bar {
    pub(super) name: String,
    /// One for each part; `None` where nothing was measured.
    pub(super) parts: Option<Vec<f64>>,
}

/// A bar that is so many times as high as the middle one is broken.
const HIGH: f64 = 2.5;
/// As many bars as can have their sum written above them.
const WRITTEN: usize = 9;

impl Bar {
    fn sum(&self) -> Option<f64> {
        let sum = self
            .parts
            .as_ref()?
            .iter()
            .filter(|part| part.is_finite())
            .sum();
        Some(sum)
    }
}

impl Bars {
    /// How high the drawing goes.
    fn height(&self) -> f64 {
        let mut sums: Vec<_> = self
            .all
            .iter()
            .filter_map(Bar::sum)
            .chain(self.limit)
            .collect();
        sums.sort_by(f64::total_cmp);
        let usual = match self.tall {
            Tall::Broken => sums.get(sums.len() / 2).copied().unwrap_or_default() * HIGH,
            Tall::Whole => f64::MAX,
        };
        let fits = sums.iter().rev().find(|sum| **sum <= usual);
        fits.copied().unwrap_or_default() * 1.12
    }

    /// Whether a bar is higher than the drawing.
    pub(super) fn has_broken(&self) -> bool {
        let height = self.height();
        self.all.iter().filter_map(Bar::sum).any(|sum| sum > height)
    }

    pub(super) fn draw(&self) -> String {
        let height = self.height();
        let up = Axis::linear(&self.label, [height]).until(height.max(f64::MIN_POSITIVE));
        let mut plot = Plot::new(&up);
        let number = self.all.len();
        let marks = self.all.iter().enumerate().map(|(at, bar)| Mark {
            at: middle(band(at, number)),
            text: bar.name.clone(),
        });
        plot.across(&self.across, marks.collect());
        for (at, bar) in self.all.iter().enumerate() {
            self.bar(&mut plot, &up, band(at, number), bar);
        }
        if let Some(limit) = self.limit {
            let y = plot::y(&up, limit);
            plot.add(line("limit", (plot::LEFT, y), (plot::RIGHT, y)));
        }
        plot.finish()
    }

    fn bar(&self, plot: &mut Plot, up: &Axis, (from, to): (f64, f64), bar: &Bar) {
        let Some((parts, sum)) = bar.parts.as_ref().zip(bar.sum()) else {
            return;
        };
        let gap = ((to - from) * 0.2).min(14.0);
        let (left, right) = (from + gap, to - gap);
        let mut below = 0.0;
        for (part, (ink, _)) in parts.iter().zip(&self.parts) {
            let top = below + if part.is_finite() { part.max(0.0) } else { 0.0 };
            let corners = ((left, plot::y(up, top)), (right, plot::y(up, below)));
            plot.add(rectangle(
                &format!("fill {}", ink.class()),
                corners.0,
                corners.1,
            ));
            below = top;
        }
        let top = plot::y(up, sum);
        if sum > up.to() {
            let y = plot::TOP + 9.0;
            let width = (right - left) / 2.0;
            let outline = format!(
                "M{} {}l{} -5l{} 5",
                rounded(left - 1.0),
                rounded(y),
                rounded(width + 1.0),
                rounded(width + 1.0)
            );
            plot.add(Path::new().set("class", "gap").set("d", outline));
        }
        if self.all.len() <= WRITTEN {
            let place = (f64::midpoint(left, right), top - 4.0);
            plot.write("value middle", place, &(self.format)(sum));
        }
        plot.explain((from, to), &self.explanation(bar, parts, sum));
    }

    fn explanation(&self, bar: &Bar, parts: &[f64], sum: f64) -> String {
        let mut text = format!("{} {}: {}", bar.name, self.across, (self.format)(sum));
        // As they are stacked.
        for (part, (_, name)) in parts.iter().zip(&self.parts).rev() {
            let _ = write!(text, "\n{name}: {}", (self.format)(*part));
        }
        text
    }

    pub(super) fn legend(&self) -> Vec<(Swatch, String)> {
        let parts = self.parts.iter();
        parts
            .map(|(ink, name)| (Swatch::Area(*ink), name.clone()))
            .collect()
    }

    pub(super) fn table(&self) -> Table {
        let first = [self.across.clone(), "in all".to_owned()];
        let names = self.parts.iter().map(|(_, name)| name.clone());
        let rows = self.all.iter().map(|bar| {
            let write = |value: f64| (self.format)(value);
            let sum = bar.sum().map_or_else(|| MISSING.to_owned(), write);
            let parts = match &bar.parts {
                Some(parts) => parts.iter().copied().map(write).collect(),
                None => vec![MISSING.to_owned(); self.parts.len()],
            };
            [bar.name.clone(), sum].into_iter().chain(parts).collect()
        });
        Table {
            head: first.into_iter().chain(names).collect(),
            rows: rows.collect(),
        }
    }
}
