//! The duty cycle of the CPU burn.

use core::fmt;
use core::str::FromStr;

use crate::fields::digits;

/// Share of the time that a burn thread burns: 0 to 100 percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duty(u8);

impl Duty {
    /// Burns all the time.
    pub const FULL: Self = Self(100);
    /// The burn is off.
    pub const NONE: Self = Self(0);

    /// The share in percent, 0 to 100.
    pub const fn percent(self) -> u8 {
        self.0
    }
}

/// Not a whole number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADuty;

impl fmt::Display for NotADuty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a whole number from 0 to 100")
    }
}

impl core::error::Error for NotADuty {}

impl TryFrom<u8> for Duty {
    type Error = NotADuty;

    fn try_from(percent: u8) -> Result<Self, NotADuty> {
        if percent <= 100 {
            Ok(Self(percent))
        } else {
            Err(NotADuty)
        }
    }
}

impl FromStr for Duty {
    type Err = NotADuty;

    fn from_str(text: &str) -> Result<Self, NotADuty> {
        let percent = digits(text).ok_or(NotADuty)?;
        u8::try_from(percent).or(Err(NotADuty))?.try_into()
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duty_is_0_to_100() {
        assert_eq!("0".parse(), Duty::try_from(0));
        assert_eq!("100".parse(), Ok(Duty::FULL));
        for bad in ["101", "256", "-1", "+1", "", " 1", "1 ", "1.5", "0x1", "९"] {
            assert_eq!(bad.parse::<Duty>(), Err(NotADuty), "{bad:?}");
        }
    }
}
