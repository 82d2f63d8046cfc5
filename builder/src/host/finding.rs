//! The result of one check: a [`Finding`].

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::settings::{Knob, Module, Setting};
use super::want::Want;
use crate::units::counted;

pub(crate) use super::severity::Severity;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Its name, such as `pid-max`; the same in every run.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What was found, such as `32768`.
    pub value: String,
    /// What is needed, such as `at least 19500`.
    pub need: String,
    /// What this means for guests, in one sentence.
    pub meaning: String,
    /// Most guests that it allows, where it limits their number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guests: Option<u64>,
    /// What fixes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
    /// The document that it rests on.
    pub document: &'static str,
}

impl Finding {
    /// Adds what fixes it, if anything has to be fixed.
    pub fn with_fix(self, fix: Fix) -> Self {
        Self {
            fix: (self.severity != Severity::Ok).then_some(fix),
            ..self
        }
    }

    /// All of it, for a message.
    pub fn in_full(&self) -> String {
        let mut text = format!(
            "{}: {} (need: {}): {}",
            self.id,
            self.value,
            self.need,
            // What helps follows in the same sentence.
            self.meaning.trim_end_matches('.')
        );
        if let Some(guests) = self.guests {
            let _ = write!(text, "; allows {}", counted(guests, "guest"));
        }
        if let Some(fix) = &self.fix {
            let _ = write!(text, "; {fix}");
        }
        text
    }
}

/// What a finding is about, whatever comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Check {
    /// The [`Finding::id`].
    pub id: &'static str,
    /// The [`Finding::document`].
    pub document: &'static str,
}

impl Check {
    /// The finding that `value` was found where `need` is needed.
    pub(crate) fn finds(
        self,
        severity: Severity,
        value: impl Into<String>,
        need: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Finding {
        Finding {
            id: self.id,
            severity,
            value: value.into(),
            need: need.into(),
            meaning: meaning.into(),
            guests: None,
            fix: None,
            document: self.document,
        }
    }

    /// The finding that `value` has room for `allowed` guests; `None` if it
    /// does not limit them.
    pub(crate) fn allows(
        self,
        want: &Want,
        allowed: Option<u64>,
        value: impl Into<String>,
        need: impl Into<String>,
        meaning: impl Into<String>,
    ) -> Finding {
        let severity = allowed.map_or(Severity::Ok, |allowed| want.limit(allowed));
        Finding {
            guests: allowed,
            ..self.finds(severity, value, need, meaning)
        }
    }

    /// The finding that nothing could be seen; the finding `unseen` says why.
    pub(crate) fn not_seen(self, need: impl Into<String>, meaning: impl Into<String>) -> Finding {
        self.finds(Severity::Ok, "not seen", need, meaning)
    }
}

/// What fixes a finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fix {
    /// Host settings to write, in this order: `--fix` does it.
    Settings(Vec<Setting>),
    /// A limit of open files (`RLIMIT_NOFILE`) to raise for what is started:
    /// `launch --fix` does it.
    OpenFiles(u64),
    /// A kernel module to load: `--fix` does it.
    Module(Module),
    /// What only the host's owner can do.
    Manual {
        needs: Needs,
        /// What to do, in the imperative.
        instruction: String,
    },
}

/// What a fix by hand takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// Another kernel, firmware setting or kernel parameter: a reboot.
    Reboot,
    /// A group, and a new log-in.
    Group,
    /// A file of the system's configuration.
    File,
    Package,
    /// A command of the host's owner.
    Command,
    /// Another host, or another option of imgbuild's.
    Choice,
}

impl Fix {
    /// What only the host's owner can do.
    pub fn manual(needs: Needs, instruction: impl Into<String>) -> Self {
        Self::Manual {
            needs,
            instruction: instruction.into(),
        }
    }

    /// One setting.
    pub fn setting(knob: Knob, value: u64) -> Self {
        Self::Settings(vec![Setting::of(knob, value)])
    }
}

impl fmt::Display for Fix {
    /// As one line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(settings) => {
                f.write_str("--fix sets ")?;
                for (place, setting) in settings.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{} to {}", setting.knob, setting.value)?;
                }
                Ok(())
            }
            Self::OpenFiles(limit) => {
                write!(f, "launch --fix raises the limit of its own to {limit}")
            }
            Self::Module(name) => write!(f, "--fix loads the module {name}"),
            Self::Manual { instruction, .. } => f.write_str(instruction),
        }
    }
}
