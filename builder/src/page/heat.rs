//! A heat map: for each stage a column, for each range of values a row, the
//! stronger in colour the more of the stage's values are in it.

use super::plot::{self, BOTTOM, LEFT, Mark, Plot, RIGHT, TOP, band, count, middle, rectangle};
use super::table::Table;
use super::values::{percent, whole};

/// A heat map.
pub(super) struct Heat {
    pub(super) across: String,
    /// What the rows are.
    pub(super) label: String,
    /// The columns: a name, and how many values each row has, the lowest first.
    pub(super) columns: Vec<(String, Vec<u64>)>,
    /// The rows' lower ends, and the last one's upper.
    pub(super) ends: Vec<String>,
}

/// As many rows have their end written.
const WRITTEN: usize = 9;

impl Heat {
    fn rows(&self) -> usize {
        self.ends.len().saturating_sub(1)
    }

    /// Where the line below row `at` is.
    fn y(&self, at: usize) -> f64 {
        BOTTOM - (BOTTOM - TOP) * count(at) / count(self.rows().max(1))
    }

    pub(super) fn draw(&self) -> String {
        let mut plot = Plot::blank();
        let every = self.ends.len().div_ceil(WRITTEN).max(1);
        for (at, end) in self.ends.iter().enumerate().step_by(every) {
            plot.write("mark end", (LEFT - 5.0, self.y(at) + 3.5), end);
        }
        plot.write("label", (0.0, 11.0), &self.label);
        let number = self.columns.len();
        let marks = self.columns.iter().enumerate().map(|(at, (text, _))| Mark {
            at: middle(band(at, number)),
            text: text.clone(),
        });
        for (at, column) in self.columns.iter().enumerate() {
            self.column(&mut plot, band(at, number), column);
        }
        plot.add(rectangle("outline", (LEFT, TOP), (RIGHT, BOTTOM)));
        plot.across(&self.across, marks.collect());
        plot.finish()
    }

    fn column(&self, plot: &mut Plot, (from, to): (f64, f64), (name, values): &(String, Vec<u64>)) {
        let all = total(values);
        for (at, value) in values.iter().enumerate().take(self.rows()) {
            let share = share(*value, all);
            let corners = (
                (from + 0.5, self.y(at + 1) + 0.5),
                (to - 0.5, self.y(at) - 0.5),
            );
            let range = format!("{} to {}", self.ends[at], self.ends[at + 1]);
            let text = format!(
                "{name} {}, {range}: {} of {}, {}",
                self.across,
                whole(*value),
                super::values::figure(all),
                written(share)
            );
            let cell = rectangle("cell", corners.0, corners.1)
                .set("fill-opacity", plot::rounded_share(strength(share)));
            plot.add(cell.add(plot::hint(&text)));
        }
    }

    pub(super) fn table(&self) -> Table {
        let names = self.columns.iter().map(|(name, _)| name.clone());
        let rows = (0..self.rows()).map(|at| {
            let shares = self.columns.iter().map(|(_, values)| {
                let value = values.get(at).copied().unwrap_or_default();
                written(share(value, total(values)))
            });
            let range = format!("{} to {}", self.ends[at], self.ends[at + 1]);
            std::iter::once(range).chain(shares).collect()
        });
        Table {
            head: std::iter::once(format!("{}, by {}", self.label, self.across))
                .chain(names)
                .collect(),
            rows: rows.collect(),
        }
    }
}

/// How strong a cell's colour is: by the root of its share, so that few can be seen beside many.
pub(super) fn strength(share: f64) -> f64 {
    (share / 0.5).sqrt().min(1.0)
}

/// The sum of counts, which may be more than an integer holds.
pub(super) fn total(values: &[u64]) -> f64 {
    values
        .iter()
        .copied()
        .map(crate::bundle::figures::bytes)
        .sum()
}

fn share(value: u64, all: f64) -> f64 {
    if all > 0.0 {
        crate::bundle::figures::bytes(value) / all
    } else {
        0.0
    }
}

/// A share; of a very small one nobody needs the digits.
fn written(share: f64) -> String {
    match share {
        share if share > 0.0 && share < 0.0001 => format!("< {}", percent(0.0001)),
        share => percent(share),
    }
}
