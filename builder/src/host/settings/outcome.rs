//! What happened to settings that were to be written or restored.

use std::{fmt, io};

use serde::{Serialize, Serializer};

use super::{Holder, Knob};

/// What became of a setting that was to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Applied {
    /// The setting.
    pub knob: Knob,
    /// The value that was asked for.
    pub wanted: i64,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What became of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub(crate) enum Outcome {
    /// It was so before, and not by imgbuild; nothing was written or recorded.
    Already { now: i64 },
    /// An earlier run of imgbuild wrote it; it is held for one more.
    Held {
        /// What will be put back.
        old: i64,
        now: i64,
    },
    Written {
        /// What will be put back.
        old: i64,
        /// The present value, which the kernel may have brought into its range.
        now: i64,
    },
    /// It is as it was.
    Refused { why: Reason },
}

/// What became of the settings that nobody holds any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Put back, in this order.
    pub restored: Vec<Restored>,
    /// Not put back.
    pub left: Vec<Left>,
    /// Still held by somebody.
    pub held: Vec<Held>,
    /// Pages that stay merged although KSM is as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged: Option<StillMerged>,
}

/// A setting that was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Restored {
    /// The setting.
    pub knob: Knob,
    /// What imgbuild had made of it.
    pub from: i64,
    /// What it is again.
    pub to: i64,
}

/// A setting that was not put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Left {
    /// The setting.
    pub knob: Knob,
    /// Its present value, where that can be read.
    pub found: Option<i64>,
    /// What imgbuild wrote.
    pub wrote: i64,
    /// What it was before.
    pub old: i64,
    /// Why. Unless it is [`Reason::Changed`], the next `imgbuild check
    /// --restore` tries again.
    pub why: Reason,
}

/// A setting that somebody still needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    /// The setting.
    pub knob: Knob,
    /// What imgbuild wrote.
    pub wrote: i64,
    /// Who needs it.
    pub by: Vec<Keeper>,
}

/// Who keeps a setting from being put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keeper {
    /// This many guests, of fleets that the record does not know: who launches
    /// without being root rests on the settings and cannot write it.
    Guests(u64),
    /// Who stands in the record.
    #[serde(untagged)]
    Holder(Holder),
}

impl Keeper {
    /// The name of the fleet that it is, as far as it is known.
    pub(crate) fn fleet(&self) -> Option<&str> {
        match self {
            Self::Guests(_) => None,
            Self::Holder(holder) => holder.fleet(),
        }
    }
}

impl fmt::Display for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guests(1) => f.write_str("1 guest of another fleet"),
            Self::Guests(guests) => write!(f, "{guests} guests of other fleets"),
            Self::Holder(holder) => holder.fmt(f),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StillMerged {
    /// `pages_shared`.
    pub pages: u64,
    /// Why they were not unmerged.
    pub why: Reason,
}

/// Why a setting was not written, or not put back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    /// The kernel has no such setting.
    #[error("this kernel does not have it")]
    Absent,
    /// The value makes no sense.
    #[error("its values are {low} to {high}")]
    Range { low: i64, high: i64 },
    /// The present value makes no sense, so it could not be put back.
    #[error("its value is {found}, which imgbuild could not restore later")]
    Irreversible { found: i64 },
    /// Somebody who is still there needs another value.
    #[error("{} needs it to be {value}", names(by))]
    Held { by: Vec<Holder>, value: i64 },
    /// Somebody else has changed it since.
    #[error(
        "it does not have the value that imgbuild wrote, so somebody else has set it since; imgbuild \
         does not restore it"
    )]
    Changed,
    /// The kernel takes it only while nothing is merged.
    #[error(
        "the kernel takes it only while KSM has no pages merged; stop the guests, then \
         `echo 2 > /sys/kernel/mm/ksm/run` unmerges what is left"
    )]
    Merged,
    /// Processes that live have merged pages, which are not imgbuild's to unmerge.
    #[error(
        "running processes have {pages} merged pages, and imgbuild does not unmerge those; end these \
         processes first"
    )]
    MergedByLiving { pages: u64 },
    /// It is not known whether processes that live have merged pages.
    #[error("imgbuild cannot find out whose the merged pages are: {why}")]
    MergedByUnknown { why: String },
    /// Merged pages would not fit into memory, each for itself.
    #[error(
        "unmerging may take {} MiB, and {} MiB of memory are available",
        needed >> 20, available >> 20
    )]
    NoRoom {
        /// What unmerging takes at most, in bytes.
        needed: u64,
        /// What there is, in bytes.
        available: u64,
    },
    /// KSM merges for somebody else now.
    #[error(
        "KSM has merged pages, and somebody else has set it to run since; imgbuild does not unmerge \
         them"
    )]
    KsmTaken,
    /// The kernel took the value, and did not heed it.
    #[error("the kernel ignored the new value; it is still {now}")]
    Ignored { now: i64 },
    #[error("{0}")]
    System(String),
}

impl Reason {
    /// What the system meant by `error` on `knob`, and what to do.
    pub(crate) fn of(knob: Knob, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOENT) => Self::Absent,
            Some(libc::EBUSY) if knob.needs_nothing_merged() => Self::Merged,
            Some(libc::EACCES | libc::EPERM) => {
                Self::System(format!("{error}; run imgbuild as root"))
            }
            Some(libc::EROFS) => {
                Self::System(format!("{error}; set it on the host of this container"))
            }
            Some(libc::EINVAL) if knob == Knob::KsmPagesToScan => Self::System(format!(
                "{error}; while KSM's advisor sets it nobody else can: \
                 `echo none > /sys/kernel/mm/ksm/advisor_mode`"
            )),
            _ => Self::System(error.to_string()),
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn names(holders: &[Holder]) -> String {
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    names.join(" and ")
}
