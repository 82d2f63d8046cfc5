//! Curves.

use std::fmt::Write as _;

use svg::node::element::Path;

use super::axis::Axis;
use super::figure::Swatch;
use super::plot::{self, BOTTOM, Ink, LEFT, Mark, Plot, RIGHT, rounded};
use super::table::Table;
use super::values::known;

/// Curves over one axis.
pub(super) struct Lines {
    /// What the places of the axis across are.
    pub(super) over: Over,
    /// The axis that goes up.
    pub(super) up: Axis,
    /// How a value is written.
    pub(super) format: fn(f64) -> String,
    /// Where the values are, and what is written there.
    pub(super) places: Vec<(f64, String)>,
    pub(super) series: Vec<Series>,
}

/// What an axis across counts.
pub(super) enum Over {
    Stages(Axis),
    /// Times, and when the fleet had grown to each stage.
    Time(Axis, Vec<(f64, String)>),
}

/// A curve.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) ink: Ink,
    /// One for each place; it has a gap where there is none.
    pub(super) values: Vec<Option<f64>>,
}

/// A table of a curve over time has so many rows at most; `samples.csv` has all.
const ROWS: usize = 16;

impl Over {
    fn x(&self, value: f64) -> f64 {
        match self {
            Self::Stages(axis) => plot::x_of_stage(axis, value),
            Self::Time(axis, _) => plot::x_of_time(axis, value),
        }
    }

    fn axis(&self) -> &Axis {
        match self {
            Self::Stages(axis) | Self::Time(axis, _) => axis,
        }
    }
}

impl Series {
    /// All values that it has.
    pub(super) fn known(&self) -> impl Iterator<Item = f64> {
        self.values.iter().flatten().copied()
    }
}

impl Lines {
    pub(super) fn draw(&self) -> String {
        let mut plot = Plot::new(&self.up);
        let axis = self.over.axis();
        plot.across(&axis.label, self.marks(&axis.ticks));
        if let Over::Time(_, grown) = &self.over {
            plot.uprights(self.marks(grown));
        }
        let xs: Vec<_> = self
            .places
            .iter()
            .map(|(place, _)| self.over.x(*place))
            .collect();
        for series in &self.series {
            self.curve(&mut plot, series, &xs);
        }
        for (at, (_, name)) in self.places.iter().enumerate() {
            let before = at
                .checked_sub(1)
                .map_or(LEFT, |before| f64::midpoint(xs[before], xs[at]));
            let behind = xs
                .get(at + 1)
                .map_or(RIGHT, |behind| f64::midpoint(*behind, xs[at]));
            plot.explain((before, behind), &self.explanation(at, name));
        }
        plot.finish()
    }

    fn marks(&self, ticks: &[(f64, String)]) -> Vec<Mark> {
        let mark = |(value, text): &(f64, String)| Mark {
            at: self.over.x(*value),
            text: text.clone(),
        };
        ticks.iter().map(mark).collect()
    }

    fn curve(&self, plot: &mut Plot, series: &Series, xs: &[f64]) {
        let points: Vec<_> = xs
            .iter()
            .zip(&series.values)
            .map(|(x, value)| {
                let value = value.filter(|value| value.is_finite())?;
                Some((*x, plot::y(&self.up, value)))
            })
            .collect();
        let mut outline = String::new();
        let mut pen = 'M';
        for point in &points {
            let Some((x, y)) = point else {
                pen = 'M';
                continue;
            };
            let _ = write!(outline, "{pen}{} {}", rounded(*x), rounded(*y));
            pen = 'L';
        }
        let class = format!("line {}", series.ink.class());
        plot.add(Path::new().set("class", class).set("d", outline));
        if matches!(self.over, Over::Stages(_)) {
            for (x, y) in points.iter().flatten() {
                plot.add(series.ink.mark(*x, y.min(BOTTOM)));
            }
        }
    }

    fn explanation(&self, at: usize, name: &str) -> String {
        let mut text = name.to_owned();
        for series in &self.series {
            let value = known(series.values.get(at).copied().flatten(), self.format);
            let _ = write!(text, "\n{}: {value}", series.name);
        }
        text
    }

    pub(super) fn legend(&self) -> Vec<(Swatch, String)> {
        let swatch = |ink| match self.over {
            Over::Stages(_) => Swatch::Line(ink),
            Over::Time(..) => Swatch::Bare(ink),
        };
        let all = self.series.iter();
        all.map(|series| (swatch(series.ink), series.name.clone()))
            .collect()
    }

    pub(super) fn table(&self) -> Table {
        let first = match self.over {
            Over::Stages(_) => "guests",
            Over::Time(..) => "time",
        };
        let names = self.series.iter().map(|series| series.name.clone());
        let every = self.places.len().div_ceil(ROWS).max(1);
        let last = self.places.len().saturating_sub(1);
        let rows = (0..self.places.len()).filter(|at| at % every == 0 || *at == last);
        Table {
            head: std::iter::once(first.to_owned()).chain(names).collect(),
            rows: rows.map(|at| self.row(at)).collect(),
        }
    }

    fn row(&self, at: usize) -> Vec<String> {
        let values = self
            .series
            .iter()
            .map(|series| series.values.get(at).copied().flatten());
        let values = values.map(|value| known(value, self.format));
        std::iter::once(self.places[at].1.clone())
            .chain(values)
            .collect()
    }
}
