//! What users ask for: guests up or down, when they burn, when they start again.

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
    /// All at once after the initial start, so that no burning guest slows the
    /// boot of another
    Start,
    /// Each as soon as it is ready
    Ready,
}

/// Which guests are started again once they ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// All guests that end, except those that were stopped
    Always,
    /// As with always, except guests that powered off by themselves: one that
    /// rebooted, was reset, panicked or was killed is started again
    OnFailure,
    /// None
    Never,
}
