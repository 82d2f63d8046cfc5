//! Where a value lies on an axis, and which values are marked on it.

use super::values::{GIB, MIB, tick, tick_seconds, whole};

/// How values are spread over an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
}

/// An axis, from its least value to its greatest.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    /// What is marked, and how it is written.
    pub(super) ticks: Vec<(f64, String)>,
    /// What it counts, in which unit.
    pub(super) label: String,
}

/// About how many values are marked.
const TICKS: f64 = 5.0;
/// As many decades as a logarithmic axis has at most: what is less is at its end.
const DECADES: i32 = 12;

impl Axis {
    /// From 0 to beyond the greatest of `values`.
    pub(super) fn linear(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        Self::in_units(label, greatest(values), 1.0)
    }

    /// The same of memory, in the unit that suits it.
    pub(super) fn memory(what: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let most = greatest(values);
        let (unit, name) = if most < 2.0 * GIB {
            (MIB, "MiB")
        } else {
            (GIB, "GiB")
        };
        Self::in_units(&format!("{what}{name}"), most, unit)
    }

    /// Memory on a logarithmic axis, in MiB.
    pub(super) fn log_memory(what: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let values = values.into_iter().map(|bytes| bytes / MIB);
        let mut axis = Self::log(&format!("MiB{what}"), values, tick);
        axis.from *= MIB;
        axis.to *= MIB;
        axis.ticks.iter_mut().for_each(|(value, _)| *value *= MIB);
        axis
    }

    /// The time since the run began, up to the last.
    pub(super) fn time(values: impl IntoIterator<Item = f64>) -> Self {
        let most = greatest(values);
        let (unit, name) = match most {
            _ if most < 180.0 => (1.0, "seconds"),
            _ if most < 3.0 * 3600.0 => (60.0, "minutes"),
            _ => (3600.0, "hours"),
        };
        Self::in_units(&format!("{name} since the run began"), most, unit).until(most)
    }

    fn in_units(label: &str, most: f64, unit: f64) -> Self {
        let step = nice_step(most / unit / TICKS);
        let count = (most / unit / step).ceil().clamp(1.0, 2.0 * TICKS);
        let ticks = steps(count).map(|at| (at * step * unit, tick(at * step)));
        Self {
            scale: Scale::Linear,
            from: 0.0,
            to: count * step * unit,
            ticks: ticks.collect(),
            label: label.to_owned(),
        }
    }

    /// By powers of ten, from below the least of the positive `values`.
    pub(super) fn log(
        label: &str,
        values: impl IntoIterator<Item = f64>,
        format: fn(f64) -> String,
    ) -> Self {
        let values = values.into_iter().filter(|v| v.is_finite() && *v > 0.0);
        let (least, most) = values.fold((f64::MAX, 0.0_f64), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        let (least, most) = if most > 0.0 {
            (least, most)
        } else {
            (1.0, 10.0)
        };
        let exponent = |value: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "it is from -308 to 308")]
            let exponent = value.log10().floor() as i32;
            exponent
        };
        let above = exponent(most) + 1;
        let below = exponent(least).max(above - DECADES);
        // Nothing is gained by a half of a decade without a value.
        let starts = [5.0, 2.0, 1.0].map(|start| start * power(below));
        let from = starts.into_iter().find(|start| *start <= least);
        let ends = [2.0, 5.0].map(|end| end * power(above - 1));
        let to = ends.into_iter().find(|end| *end >= most);
        let (from, to) = (from.unwrap_or(power(below)), to.unwrap_or(power(above)));
        let every: usize = if above - below > 6 { 2 } else { 1 };
        let decades = (below..=above).rev().step_by(every).map(power);
        let between: &[f64] = if to / from < 101.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut marked: Vec<_> = decades
            .flat_map(|decade| between.iter().map(move |part| part * decade))
            .filter(|value| (from * 0.999..=to * 1.001).contains(value))
            .collect();
        marked.sort_by(f64::total_cmp);
        Self {
            scale: Scale::Log,
            from,
            to,
            ticks: marked
                .into_iter()
                .map(|value| (value, format(value)))
                .collect(),
            label: format!("{label}, log scale"),
        }
    }

    /// The same of times.
    pub(super) fn log_seconds(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        Self::log(label, values, tick_seconds)
    }

    /// Numbers of guests at which was measured: these are marked. The axis is
    /// logarithmic where they grow by factors.
    pub(super) fn stages(stages: &[u32]) -> Self {
        let counts: Vec<_> = stages.iter().map(|guests| f64::from(*guests)).collect();
        let positive = || counts.iter().copied().filter(|guests| *guests > 0.0);
        let least = positive().fold(f64::MAX, f64::min);
        let most = positive().fold(0.0, f64::max);
        let mut axis = if most / least >= 10.0 {
            Self {
                scale: Scale::Log,
                from: least,
                to: most,
                ..Self::log("guests", positive(), tick)
            }
        } else {
            Self::linear("guests", positive())
        };
        if axis.scale == Scale::Log {
            let marked = stages.iter().filter(|guests| **guests > 0);
            axis.ticks = marked
                .map(|guests| (f64::from(*guests), whole(*guests)))
                .collect();
        }
        axis
    }

    /// With an end that leaves greater values out.
    pub(super) fn until(mut self, most: f64) -> Self {
        if most < self.to && most > self.from {
            self.to = most;
            self.ticks.retain(|(value, _)| *value <= most);
        }
        self
    }

    /// The greatest value.
    pub(super) fn to(&self) -> f64 {
        self.to
    }

    /// Where a value lies, from 0 to 1; values beyond the ends lie at them.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log if value <= self.from => 0.0,
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }
}

fn power(exponent: i32) -> f64 {
    10.0_f64.powi(exponent)
}

/// The greatest of values, or 1 where none is above 0.
fn greatest(values: impl IntoIterator<Item = f64>) -> f64 {
    // No figure of a machine is beyond, and arithmetic with what is may be infinite.
    let values = values.into_iter().filter(|value| value.is_finite());
    let most = values.fold(0.0, f64::max).min(1e30);
    if most > 1e-30 { most } else { 1.0 }
}

/// The least of 1, 2 and 5 times a power of ten that is not below `least`.
fn nice_step(least: f64) -> f64 {
    let decade = 10.0_f64.powf(least.log10().floor());
    let nice = [1.0, 2.0, 5.0].map(|part| part * decade);
    let fits = nice.into_iter().find(|step| *step >= least * 0.999);
    fits.unwrap_or(10.0 * decade)
}

/// 0, 1, … to `count`.
fn steps(count: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(0.0), move |at| Some(at + 1.0)).take_while(move |at| *at <= count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_holds_all() {
        let axis = Axis::linear("n", [3.0, 87.0, f64::NAN, f64::INFINITY]);
        assert_eq!(marks(&axis), ["0", "20", "40", "60", "80", "100"]);
        let places = (axis.place(0.0), axis.place(50.0), axis.place(200.0));
        assert_eq!(places, (0.0, 0.5, 1.0));
        assert_eq!(
            marks(&Axis::linear("n", [])),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        let memory = Axis::memory("", [3.0 * GIB]);
        assert_eq!((memory.label.as_str(), memory.to()), ("GiB", 3.0 * GIB));
        assert_eq!(marks(&Axis::time([580.0])), ["0", "2", "4", "6", "8"]);
    }

    #[test]
    fn a_logarithmic_axis_marks_powers_of_ten() {
        let axis = Axis::log_seconds("t", [0.000_3, 0.02, 4.0]);
        assert_eq!(
            marks(&axis),
            ["1\u{a0}ms", "10\u{a0}ms", "100\u{a0}ms", "1\u{a0}s"]
        );
        assert_eq!((axis.place(0.000_2), axis.place(5.0)), (0.0, 1.0));
        assert_eq!((axis.place(0.0), axis.place(-1.0)), (0.0, 0.0));
        let memory = Axis::log_memory("", [3.0 * MIB, 40.0 * MIB]);
        assert_eq!(marks(&memory), ["2", "5", "10", "20", "50"]);
        assert_eq!((memory.place(2.0 * MIB), memory.to()), (0.0, 50.0 * MIB));
        let close = Axis::log_seconds("t", [1.1, 3.0]);
        assert_eq!(marks(&close), ["1\u{a0}s", "2\u{a0}s", "5\u{a0}s"]);
        // None, one, and values that no machine has.
        for values in [
            vec![],
            vec![1.0],
            vec![0.0, -1.0],
            vec![f64::MAX, f64::MIN_POSITIVE],
        ] {
            let axis = Axis::log("v", values.iter().copied(), tick);
            assert!(axis.ticks.len() < 20 && !axis.ticks.is_empty(), "{axis:?}");
            assert!(axis.place(1.0).is_finite(), "{axis:?}");
        }
    }

    #[test]
    fn stages_are_marked_where_they_are() {
        let axis = Axis::stages(&[1, 10, 100, 1000]);
        assert_eq!(marks(&axis), ["1", "10", "100", "1,000"]);
        let places = [1.0, 10.0, 1000.0].map(|guests| axis.place(guests));
        assert!(
            (places[1] - 1.0 / 3.0).abs() < 1e-9 && places[2] > 0.999,
            "{places:?}"
        );
        assert_eq!(marks(&Axis::stages(&[2000, 4000])).first(), Some(&"0"));
        for stages in [&[][..], &[0], &[7]] {
            assert!(Axis::stages(stages).place(7.0).is_finite());
        }
    }
}
