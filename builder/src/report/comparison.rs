//! Several runs side by side, for people.

use std::fmt::Write as _;

use crate::bundle::{Comparison, Figure, Unit};
use crate::page::values::{MISSING, NO_BREAK, figure, percent, seconds, size};
use crate::text::printable;
use crate::units::counted;

/// Columns of a figure's name.
const NAME: usize = 32;
/// Columns of a figure.
const VALUE: usize = 18;

/// A table with a column for each run, which `names` name.
pub(crate) fn comparison(names: &[String], compared: &Comparison) -> String {
    let mut lines: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(place, name)| format!("{}: {}", letter(place), printable(name)))
        .collect();
    lines.push(String::new());
    if !compared.differing.is_empty() {
        lines.push("They differ in:".to_owned());
        for differing in &compared.differing {
            let matters = if differing.matters {
                ", which matters"
            } else {
                ""
            };
            let title = printable(&differing.title);
            lines.push(format!("  {title}{matters}: {}", values(&differing.values)));
        }
        lines.push(String::new());
    }
    let letters = (0..names.len()).map(letter);
    lines.push(row("", letters));
    let mut stage = None;
    for figure in &compared.figures {
        if figure.stage != stage
            && let Some(guests) = figure.stage
        {
            lines.push(format!("at {}", counted(guests.into(), "guest")));
        }
        stage = figure.stage;
        lines.push(row(figure.name, cells(figure)));
    }
    lines.join("\n").replace(NO_BREAK, " ")
}

/// A condition's value in each run.
pub(crate) fn values(values: &[Option<String>]) -> String {
    let values = values.iter().enumerate().map(|(place, value)| {
        let value = value
            .as_deref()
            .map_or_else(|| "unknown".to_owned(), printable);
        format!("{} {value}", letter(place))
    });
    values.collect::<Vec<_>>().join(", ")
}

/// The letter of a run: A to Z, and then its number.
fn letter(place: usize) -> String {
    let letters = (b'A'..=b'Z').map(char::from);
    letters
        .skip(place)
        .map(String::from)
        .next()
        .unwrap_or_else(|| (place + 1).to_string())
}

fn row(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{name:NAME$}");
    for cell in cells {
        let _ = write!(line, "{cell:>VALUE$}");
    }
    line.trim_end().to_owned()
}

/// A value of each run; behind each but the first how many times the first it is.
fn cells(figure: &Figure) -> impl Iterator<Item = String> {
    let all = figure.values.iter().zip(&figure.ratios).enumerate();
    all.map(|(place, (value, ratio))| match (value, ratio) {
        (None, _) => MISSING.to_owned(),
        (Some(value), Some(ratio)) if place > 0 => {
            format!("{} {:>6}", text(*value, figure.unit), times(*ratio))
        }
        (Some(value), _) => text(*value, figure.unit),
    })
}

fn times(ratio: f64) -> String {
    format!("×{}", figure(ratio))
}

fn text(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Number | Unit::Ratio => figure(value),
        Unit::Bytes => size(value),
        Unit::Seconds => seconds(value),
        Unit::Share => percent(value),
    }
}
