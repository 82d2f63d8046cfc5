//! Progress bars: all of them belong to one display on stderr, which draws
//! nothing unless stderr is a terminal.
//!
//! Whatever else is written to stderr or stdout while a bar may be up goes
//! through [`suspend`], or the bar and the text would overwrite each other; what
//! is said through [`outlet`] goes through [`above`].

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outlet;

/// Drawings a second, at most.
const RATE: u8 = 20;

static DISPLAY: LazyLock<MultiProgress> = LazyLock::new(|| {
    let terminal = outlet::terminal().map(Box::new);
    let target = terminal.map_or_else(ProgressDrawTarget::hidden, |terminal| {
        ProgressDrawTarget::term_like_with_hz(terminal, RATE)
    });
    MultiProgress::with_draw_target(target)
});

/// Shows no bar from here on, as `--quiet` asks.
pub(crate) fn hide() {
    DISPLAY.set_draw_target(ProgressDrawTarget::hidden());
}

/// Runs `write` with the bars taken off the terminal, after all that was said
/// there before.
pub(crate) fn suspend<T>(write: impl FnOnce() -> T) -> T {
    DISPLAY.suspend(|| {
        outlet::keep_order();
        write()
    })
}

/// Runs `say`, which says something through [`outlet`], with the bars taken off
/// the terminal; it waits for nothing.
pub(crate) fn above<T>(say: impl FnOnce() -> T) -> T {
    DISPLAY.suspend(say)
}

/// A bar that counts `total` steps.
pub(crate) fn bar(total: u64, label: &str) -> ProgressBar {
    styled(Some(total), label, "{msg} {wide_bar} {pos}/{len} {eta}")
}

/// A bar that counts bytes; without a `total` it shows only what has passed.
pub(crate) fn bytes(total: Option<u64>, label: &str) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
    };
    styled(total, label, template)
}

fn styled(total: Option<u64>, label: &str, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden())
        .with_message(Cow::Owned(label.to_owned()));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    DISPLAY.add(bar)
}

/// How often a line stands for a bar that is not drawn.
const PULSE: Duration = Duration::from_secs(30);

/// What long work says where no bar is drawn, as in a log: how far it has come, now
/// and then.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: Instant,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now }
    }

    /// What is to be said now, if anything.
    pub(crate) fn line(&mut self, bar: &ProgressBar, now: Instant) -> Option<String> {
        if !bar.is_hidden() || now.duration_since(self.last) < PULSE {
            return None;
        }
        self.last = now;
        let (position, total) = (bar.position(), bar.length().unwrap_or_default());
        Some(format!("{}: {position} of {total}", bar.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_not_drawn_is_a_line_every_half_minute() {
        let bar = bar(300, "building the kernel");
        bar.inc(7);
        let start = Instant::now();
        let mut pulse = Pulse::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        let said: Vec<_> = [29, 30, 59, 61]
            .map(|seconds| pulse.line(&bar, after(seconds)).is_some())
            .to_vec();
        assert_eq!(said, [false, true, false, true]);
        let line = pulse.line(&bar, after(100)).unwrap();
        assert_eq!(line, "building the kernel: 7 of 300");
    }

    #[test]
    fn counts_even_where_nothing_is_drawn() {
        let bar = bar(3, "objects");
        bar.inc(2);
        assert_eq!((bar.position(), bar.length()), (2, Some(3)));
        assert_eq!(bytes(None, "download").length(), None);
    }
}
