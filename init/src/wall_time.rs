//! The time of day as the host tells it to a guest: `SECONDS.NANOSECONDS` since 1970.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use crate::fields::digits;

/// Digits of the nanoseconds, zeros in front included.
const FRACTION: usize = 9;

/// A time of day, in UTC, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallTime(pub Duration);

/// Not seconds, a dot, and nine digits of nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotATime;

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not SECONDS.NANOSECONDS since 1970, with nine digits of nanoseconds")
    }
}

impl core::error::Error for NotATime {}

impl FromStr for WallTime {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let (seconds, fraction) = text.split_once('.').ok_or(NotATime)?;
        let nanoseconds = digits(fraction).filter(|_| fraction.len() == FRACTION);
        let nanoseconds = nanoseconds.and_then(|value| value.try_into().ok());
        Ok(Self(Duration::new(
            digits(seconds).ok_or(NotATime)?,
            nanoseconds.ok_or(NotATime)?,
        )))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.0.as_secs(), self.0.subsec_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_time_survives_the_round_trip() {
        for (time, text) in [
            (Duration::ZERO, "0.000000000"),
            (Duration::new(1_764_278_307, 5), "1764278307.000000005"),
            (
                Duration::new(u64::MAX, 999_999_999),
                "18446744073709551615.999999999",
            ),
        ] {
            assert_eq!(WallTime(time).to_string(), text);
            assert_eq!(text.parse(), Ok(WallTime(time)), "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        for text in [
            "",
            ".",
            "1",
            "1.",
            "1.5",
            "1.0000000000",
            ".000000000",
            "-1.000000000",
            "+1.000000000",
            "1.+00000000",
            "1.000000000 ",
            "18446744073709551616.000000000",
        ] {
            assert_eq!(text.parse::<WallTime>(), Err(NotATime), "{text}");
        }
    }
}
