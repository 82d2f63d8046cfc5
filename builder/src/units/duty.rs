//! How much of the time guests burn.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Share of the time that a guest burns, in percent.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u8", into = "u8")]
pub struct Duty(u8);

/// More than all of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a share of the time in percent: use 0 to 100")]
pub struct DutyError(u8);

impl Duty {
    /// A guest that does not burn.
    pub const NONE: Self = Self(0);
    /// A guest that burns all the time.
    pub const WHOLE: Self = Self(100);

    /// What a guest says of itself, which may be anything: more than all of the
    /// time is all of it.
    pub fn at_most_whole(percent: u8) -> Self {
        Self(percent).min(Self::WHOLE)
    }

    /// The share in percent, from 0 to 100.
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// Whether a guest burns at all.
    pub fn burns(self) -> bool {
        self > Self::NONE
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u8> for Duty {
    type Error = DutyError;

    fn try_from(percent: u8) -> Result<Self, Self::Error> {
        if percent <= Self::WHOLE.0 {
            Ok(Self(percent))
        } else {
            Err(DutyError(percent))
        }
    }
}

impl From<Duty> for u8 {
    fn from(duty: Duty) -> Self {
        duty.0
    }
}

impl JsonSchema for Duty {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duty".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "format": "uint8",
            "minimum": Self::NONE.0,
            "maximum": Self::WHOLE.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_time_is_at_most_all_of_it() {
        let read = |text: &str| serde_json::from_str::<Duty>(text).map_err(|e| e.to_string());
        assert_eq!((read("0"), read("100")), (Ok(Duty::NONE), Ok(Duty::WHOLE)));
        let error = read("101").unwrap_err();
        assert!(error.contains("101 is not a share"), "{error}");
        assert_eq!(serde_json::to_string(&Duty::WHOLE).unwrap(), "100");
        assert_eq!(Duty::at_most_whole(255), Duty::WHOLE);
        assert_eq!(Duty::at_most_whole(7).percent(), 7);
        assert!(Duty::at_most_whole(1).burns() && !Duty::NONE.burns());
    }
}
