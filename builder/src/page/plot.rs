//! The frame of a drawing: its area, axes and marks. Drawings have one width, that
//! of a telephone's screen, and so their letters the size of the text around them.

use maud::html;
use svg::Node;
use svg::node::Blob;
use svg::node::element::{Line, Path, Rectangle, SVG, Text};

use super::axis::Axis;

/// The size of a drawing.
const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 214.0;
/// The area that values are drawn in.
pub(super) const LEFT: f64 = 48.0;
pub(super) const RIGHT: f64 = WIDTH - 8.0;
pub(super) const TOP: f64 = 30.0;
pub(super) const BOTTOM: f64 = HEIGHT - 36.0;
/// How far from the area's sides the first and the last value of a stage lie.
const INSET: f64 = 12.0;
/// About the width of a letter of a mark.
const LETTER: f64 = 6.0;

/// How a series is drawn: its colour, its dashes and its marks, by place. The
/// colours are apart for the colour-blind too, and dashes and marks without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink(pub(super) usize);

impl Ink {
    /// As many as differ; the last is pale, for what is nothing.
    pub(super) const COUNT: usize = 9;

    /// The class of the style sheet that has its colour.
    pub(super) fn class(self) -> String {
        format!("i{}", self.0 % Self::COUNT)
    }

    /// A mark at a place.
    pub(super) fn mark(self, x: f64, y: f64) -> Path {
        let outline = match self.0 % 4 {
            // A circle, a square, a triangle and a diamond.
            0 => format!(
                "M{} {}a3 3 0 1 0 6 0a3 3 0 1 0 -6 0z",
                rounded(x - 3.0),
                rounded(y)
            ),
            1 => format!("M{} {}h5.4v5.4h-5.4z", rounded(x - 2.7), rounded(y - 2.7)),
            2 => format!("M{} {}l3.6 6.2h-7.2z", rounded(x), rounded(y - 3.9)),
            _ => format!(
                "M{} {}l3.8 3.8l-3.8 3.8l-3.8 -3.8z",
                rounded(x),
                rounded(y - 3.8)
            ),
        };
        Path::new()
            .set("class", format!("fill {}", self.class()))
            .set("d", outline)
    }
}

/// A drawing under way.
pub(super) struct Plot(SVG);

/// What stands at a mark of the axis across.
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) text: String,
}

impl Plot {
    /// With the axis that goes up, and lines across at its marks.
    pub(super) fn new(up: &Axis) -> Self {
        let mut plot = Self::blank();
        for (value, text) in &up.ticks {
            let y = y(up, *value);
            plot.add(line("grid", (LEFT, y), (RIGHT, y)));
            plot.write("mark end", (LEFT - 5.0, y + 3.5), text);
        }
        plot.write("label", (0.0, 11.0), &up.label);
        plot
    }

    /// Without an axis that goes up.
    pub(super) fn blank() -> Self {
        let svg = SVG::new()
            .set("viewBox", (0, 0, WIDTH, HEIGHT))
            .set("aria-hidden", "true")
            .set("focusable", "false");
        Self(svg)
    }

    /// The axis across, with as many of its marks as fit.
    pub(super) fn across(&mut self, label: &str, marks: Vec<Mark>) {
        self.add(line("axis", (LEFT, BOTTOM), (RIGHT, BOTTOM)));
        for (middle, mark) in fitting(marks) {
            self.add(line("axis", (mark.at, BOTTOM), (mark.at, BOTTOM + 4.0)));
            self.write("mark middle", (middle, BOTTOM + 15.0), &mark.text);
        }
        self.write("label end", (RIGHT, HEIGHT - 5.0), label);
    }

    pub(super) fn add(&mut self, node: impl Into<Box<dyn Node>>) {
        self.0.append(node);
    }

    /// Puts a text at a place.
    pub(super) fn write(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = Text::new(text)
            .set("class", class)
            .set("x", rounded(x))
            .set("y", rounded(y));
        self.add(text);
    }

    /// Lines up from the axis across, with as many of their marks as fit above.
    pub(super) fn uprights(&mut self, marks: Vec<Mark>) {
        for mark in &marks {
            self.add(line("upright", (mark.at, TOP), (mark.at, BOTTOM)));
        }
        for (middle, mark) in fitting(marks) {
            self.write("mark middle", (middle, TOP - 5.0), &mark.text);
        }
    }

    /// Has a part of the area say `text` when it is pointed at.
    pub(super) fn explain(&mut self, (from, to): (f64, f64), text: &str) {
        self.add(rectangle("hit", (from, TOP), (to, BOTTOM)).add(hint(text)));
    }

    /// The drawing, to be put into a page.
    pub(super) fn finish(self) -> String {
        self.0.to_string()
    }
}

/// What is said when an element is pointed at. The crate `svg` would put line breaks
/// around the text, and browsers show them.
pub(super) fn hint(text: &str) -> Blob {
    Blob::new(html! { title { (text) } }.into_string())
}

/// The marks that have room, with the last in any case, and where the middle of each
/// text is: not beyond the drawing.
fn fitting(marks: Vec<Mark>) -> Vec<(f64, Mark)> {
    let mut kept = Vec::new();
    let mut free = f64::MAX;
    for mark in marks.into_iter().rev() {
        let half = LETTER * count(mark.text.chars().count()) / 2.0;
        let middle = mark.at.min(WIDTH - half - 2.0);
        if middle + half + LETTER <= free {
            free = middle - half;
            kept.push((middle, mark));
        }
    }
    kept.reverse();
    kept
}

/// A number of things as a length.
#[expect(clippy::cast_precision_loss, reason = "a drawing has few things")]
pub(super) fn count(number: usize) -> f64 {
    number as f64
}

/// A tenth of a unit is finer than any screen.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The same of a share.
pub(super) fn rounded_share(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Where a value of the axis that goes up is drawn.
pub(super) fn y(axis: &Axis, value: f64) -> f64 {
    BOTTOM - axis.place(value) * (BOTTOM - TOP)
}

/// Where a number of guests is drawn, and a time.
pub(super) fn x_of_stage(axis: &Axis, value: f64) -> f64 {
    LEFT + INSET + axis.place(value) * (RIGHT - LEFT - 2.0 * INSET)
}

pub(super) fn x_of_time(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (RIGHT - LEFT)
}

/// The left and right end of the band at `at` of `number`.
pub(super) fn band(at: usize, number: usize) -> (f64, f64) {
    let width = (RIGHT - LEFT) / count(number.max(1));
    let from = LEFT + count(at) * width;
    (from, from + width)
}

pub(super) fn middle((from, to): (f64, f64)) -> f64 {
    f64::midpoint(from, to)
}

pub(super) fn line(class: &str, from: (f64, f64), to: (f64, f64)) -> Line {
    Line::new()
        .set("class", class)
        .set("x1", rounded(from.0))
        .set("y1", rounded(from.1))
        .set("x2", rounded(to.0))
        .set("y2", rounded(to.1))
}

/// A rectangle between two corners, the upper left one first.
pub(super) fn rectangle(class: &str, from: (f64, f64), to: (f64, f64)) -> Rectangle {
    Rectangle::new()
        .set("class", class)
        .set("x", rounded(from.0))
        .set("y", rounded(from.1))
        .set("width", rounded((to.0 - from.0).max(0.0)))
        .set("height", rounded((to.1 - from.1).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_that_would_meet_are_left_out_but_for_the_last() {
        let marks = |number: usize| -> Vec<Mark> {
            let mark = |at| Mark {
                at: middle(band(at, number)),
                text: format!("{},000", at + 1),
            };
            (0..number).map(mark).collect()
        };
        assert_eq!(fitting(marks(5)).len(), 5);
        let kept = fitting(marks(40));
        assert!((4..12).contains(&kept.len()), "{}", kept.len());
        let (middle, last) = kept.last().unwrap();
        assert_eq!(last.text, "40,000");
        assert!(middle + 3.0 * LETTER < WIDTH, "{middle}");
    }

    #[test]
    fn text_from_outside_does_not_end_its_element() {
        let mut plot = Plot::blank();
        plot.explain((0.0, 1.0), "</title><script>x</script>");
        plot.write("mark", (0.0, 0.0), "<b>");
        let svg = plot.finish();
        assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
    }
}
