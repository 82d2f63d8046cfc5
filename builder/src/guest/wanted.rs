//! What users want of guests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether a guest is to be up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It is.
    Up,
    /// It was stopped, and stays down.
    Down,
}

/// When guests begin to burn.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum BurnAt {
    /// When the initial start is done, so that the first do not hold up the last
    Start,
    /// Each when it is ready
    Ready,
}

/// Which guests are started again once they ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// All but those that were stopped
    Always,
    /// Those that did not power off by themselves either
    OnFailure,
    /// None
    Never,
}
