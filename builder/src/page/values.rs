//! Numbers as people read them: three digits that count, and a unit.

/// What a table has where nothing was measured.
pub(crate) const MISSING: &str = "–";

/// Between a number and its unit there is no line break.
pub(crate) const NO_BREAK: char = '\u{a0}';

const KIB: f64 = 1024.0;
pub(super) const MIB: f64 = KIB * 1024.0;
pub(super) const GIB: f64 = MIB * 1024.0;

/// A number, in groups of three digits.
pub(crate) fn whole(number: impl Into<u64>) -> String {
    grouped(&number.into().to_string())
}

/// Digits with a comma before each three from the right.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with three digits that count.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => MISSING.to_owned(),
        0.0 => "0".to_owned(),
        _ if !(1e-6..1e15).contains(&size) => format!("{value:.2e}"),
        _ if size >= 999.5 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", grouped(&format!("{size:.0}")))
        }
        _ => format!("{value:.*}", decimals(size)),
    }
}

/// Decimals of a number below 1,000 of which three digits count.
fn decimals(size: f64) -> usize {
    // What is rounded up to the next power of ten has a digit more before the point.
    [
        99.95,
        9.995,
        0.9995,
        0.09995,
        0.009_995,
        0.000_999_5,
        0.000_099_95,
    ]
    .iter()
    .position(|limit| size >= *limit)
    .unwrap_or(7)
}

/// The same without zeros at the end, as an axis has it.
pub(super) fn tick(value: f64) -> String {
    // There is room for six letters.
    for (unit, name) in [(1e9_f64, "G"), (1e6, "M"), (1e3, "k")] {
        if (unit.max(1e5)..unit * 999.5).contains(&value) {
            return format!("{}{name}", tick(value / unit));
        }
    }
    let text = figure(value);
    match text.split_once('.') {
        Some((whole, rest)) if !rest.contains('e') => {
            let rest = rest.trim_end_matches('0');
            let point = if rest.is_empty() { "" } else { "." };
            format!("{whole}{point}{rest}")
        }
        _ => text,
    }
}

/// A time.
pub(crate) fn seconds(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => MISSING.to_owned(),
        0.0 => with_unit("0", "s"),
        _ if size < 0.000_999_5 => with_unit(&figure(value * 1e6), "µs"),
        _ if size < 0.9995 => with_unit(&figure(value * 1e3), "ms"),
        _ if !(119.5..1e9).contains(&size) => with_unit(&figure(value), "s"),
        _ if size < 7199.5 => in_two(value.round(), "min", "s"),
        _ => in_two((value / 60.0).round(), "h", "min"),
    }
}

fn with_unit(number: &str, unit: &str) -> String {
    format!("{number}{NO_BREAK}{unit}")
}

/// A time in a unit and in one that is its sixtieth, which may be 0.
fn in_two(value: f64, unit: &str, sixtieth: &str) -> String {
    let whole = with_unit(&format!("{:.0}", (value / 60.0).trunc()), unit);
    match (value % 60.0).abs() {
        0.0 => whole,
        rest => format!(
            "{whole}{NO_BREAK}{}",
            with_unit(&format!("{rest:.0}"), sixtieth)
        ),
    }
}

/// A time on an axis.
pub(super) fn tick_seconds(value: f64) -> String {
    match value {
        _ if value <= 0.0 => "0".to_owned(),
        _ if value < 0.000_999_5 => with_unit(&tick(value * 1e6), "µs"),
        _ if value < 0.9995 => with_unit(&tick(value * 1e3), "ms"),
        _ => with_unit(&tick(value), "s"),
    }
}

/// An amount of memory.
pub(crate) fn size(bytes: f64) -> String {
    let unit = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    match unit.into_iter().find(|(unit, _)| bytes.abs() >= *unit) {
        Some((unit, name)) => with_unit(&figure(bytes / unit), name),
        None => with_unit(&figure(bytes), "B"),
    }
}

/// A share as percent.
pub(crate) fn percent(share: f64) -> String {
    with_unit(&figure(share * 100.0), "%")
}

/// A time on the host's clock, from seconds since 1970.
pub(crate) fn date(seconds: u64) -> Option<String> {
    // The last second that the format can hold is in the year 9999.
    const END: u64 = 253_402_300_800;
    let since = std::time::Duration::from_secs(Some(seconds).filter(|at| *at < END)?);
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since).to_string();
    Some(time.replace('T', " ").replace('Z', " UTC"))
}

/// A value, where there is one.
pub(crate) fn known(value: Option<f64>, format: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| MISSING.to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1.00"),
            (3.579, "3.58"),
            (9.999, "10.0"),
            (12.34, "12.3"),
            (999.9, "1,000"),
            (6417.4, "6,417"),
            (-1234.0, "-1,234"),
            (0.001_64, "0.00164"),
            (1e-9, "1.00e-9"),
            (1e300, "1.00e300"),
            (f64::NAN, MISSING),
            (f64::INFINITY, MISSING),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
        assert_eq!(whole(1_234_567_u64), "1,234,567");
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(100.0), "100");
        assert_eq!(
            [1e4, 1e5, 5e6, 1e9].map(tick),
            ["10,000", "100k", "5M", "1G"]
        );
    }

    #[test]
    fn times_and_sizes_have_the_unit_that_suits_them() {
        for (value, text) in [
            (0.000_015, "15.0 µs"),
            (0.25, "250 ms"),
            (1.5, "1.50 s"),
            (460.0, "7 min 40 s"),
            (7200.0, "2 h"),
            (7265.0, "2 h 1 min"),
            (f64::MAX, "1.80e308 s"),
            (-0.5, "-500 ms"),
        ] {
            assert_eq!(seconds(value).replace(NO_BREAK, " "), text);
        }
        assert_eq!(size(3.5 * MIB), "3.50\u{a0}MiB");
        assert_eq!(size(24.0 * GIB), "24.0\u{a0}GiB");
        assert_eq!(size(12.0), "12.0\u{a0}B");
        assert_eq!(date(0).unwrap(), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(u64::MAX), None);
    }
}
