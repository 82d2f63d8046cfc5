//! Results of canaries: guests that are started to find out whether guests run on
//! this host, what one costs, and whether KSM merges its memory.

use serde::{Deserialize, Serialize};

use super::concern::text::size;
use super::finding::{Finding, Fix, Needs, Severity};
use super::want::{Cost, Want};
use crate::vmm::Accel;

/// Two guests that came up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Canary {
    /// Seconds from start to ready of the slower one.
    pub ready_after: f64,
    /// What one costs.
    pub cost: Cost,
    /// What KSM did with their RAM.
    pub merging: Merging,
}

/// What KSM did with two guests' RAM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Merging {
    /// Nothing: sharing was not asked for.
    NotAskedFor,
    /// Nothing: it does not run.
    KsmStopped,
    /// This kernel, or this host's rules, do not let it be watched.
    NotSeen,
    Watched {
        /// Pages that its counters showed as merged.
        merged: u64,
        /// Pages that are alike, by what they hold.
        alike: u64,
        /// Seconds that it took, or that were waited.
        seconds: u64,
    },
}

impl Merging {
    /// Whether KSM merged what two guests have in common: half of it will do,
    /// since pages that just changed take another pass.
    pub(crate) fn works(&self) -> bool {
        match self {
            Self::Watched { merged, alike, .. } => {
                *merged > 0 && merged.saturating_mul(2) >= *alike
            }
            Self::NotAskedFor | Self::KsmStopped | Self::NotSeen => false,
        }
    }
}

/// What came of the canaries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Up(Canary),
    Down { reason: String, fault: Fault },
}

/// Where the reason lies for which a guest does not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The host does not let it start.
    Host,
    /// What it is, or what runs its code.
    Guest,
}

/// What a fleet needs merging for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergingNeed {
    /// It fits only once its pages are merged.
    ToFit,
    /// It fits all the same.
    ToSpare,
}

const DOCUMENT_KSM: &str = "https://docs.kernel.org/admin-guide/mm/ksm.html";
const DOCUMENT_MICROVM: &str = "https://www.qemu.org/docs/master/system/i386/microvm.html";

/// Judges canaries of a fleet of which `need` says whether it fits only merged.
pub(crate) fn judge(outcome: &Outcome, want: &Want, need: MergingNeed) -> Vec<Finding> {
    match outcome {
        Outcome::Up(canary) => {
            let mut findings = vec![Finding {
                id: "canary",
                severity: Severity::Ok,
                value: format!("ready in {:.2} s", canary.ready_after),
                need: "ready".to_owned(),
                meaning: format!("guests boot here; one costs {}", size(canary.cost.memory)),
                guests: None,
                fix: None,
                document: DOCUMENT_MICROVM,
            }];
            findings.extend(merging(&canary.merging, need));
            findings
        }
        Outcome::Down { reason, fault } => {
            let accel = want.machine.accel;
            let (meaning, instruction) = match (fault, accel) {
                (Fault::Host, _) => (
                    "this host does not let a guest start, whatever it is built of".to_owned(),
                    "give this host what the guest lacked, and check again with --canary",
                ),
                (Fault::Guest, Accel::Kvm) => (
                    format!("a guest does not boot here under {}", accel.name()),
                    "use --accel tcg, or a host whose KVM runs a guest's kernel",
                ),
                (Fault::Guest, Accel::Tcg) => (
                    format!("a guest does not boot here under {}", accel.name()),
                    "fix the recipe or its kernel, and build again",
                ),
            };
            vec![Finding {
                id: "canary",
                severity: Severity::Blocker,
                value: reason.clone(),
                need: "ready".to_owned(),
                meaning,
                guests: None,
                fix: Some(Fix::Manual {
                    needs: Needs::Choice,
                    instruction: instruction.to_owned(),
                }),
                document: DOCUMENT_MICROVM,
            }]
        }
    }
}

fn merging(merging: &Merging, need: MergingNeed) -> Option<Finding> {
    let Merging::Watched {
        merged,
        alike,
        seconds,
    } = merging
    else {
        return None;
    };
    let works = merging.works();
    Some(Finding {
        id: "canary-merge",
        severity: if works {
            Severity::Ok
        } else if need == MergingNeed::ToFit {
            Severity::Blocker
        } else {
            Severity::Advice
        },
        value: format!("{merged} of {alike} pages in {seconds} s"),
        need: "half of them".to_owned(),
        meaning: if works {
            "KSM merges what guests have in common"
        } else {
            "KSM runs, and did not merge two guests' memory in that time"
        }
        .to_owned(),
        guests: None,
        fix: (!works).then(|| Fix::Manual {
            needs: Needs::Choice,
            instruction: "--fix makes KSM scan faster, then run check --canary again; or launch \
                          with --sharing none"
                .to_owned(),
        }),
        document: DOCUMENT_KSM,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(merged: u64, alike: u64) -> Merging {
        Merging::Watched {
            merged,
            alike,
            seconds: 20,
        }
    }

    #[test]
    fn merging_works_when_half_of_what_is_alike_is_merged() {
        for (merging, works) in [
            (watched(1_600, 1_700), true),
            (watched(850, 1_700), true),
            (watched(849, 1_700), false),
            (watched(0, 0), false),
            (watched(u64::MAX, u64::MAX), true),
            (Merging::KsmStopped, false),
            (Merging::NotAskedFor, false),
            (Merging::NotSeen, false),
        ] {
            assert_eq!(merging.works(), works, "{merging:?}");
        }
    }

    #[test]
    fn only_merging_that_was_watched_is_judged() {
        let severity =
            |merging: &Merging, need| super::merging(merging, need).map(|finding| finding.severity);
        for merging in [Merging::NotAskedFor, Merging::KsmStopped, Merging::NotSeen] {
            assert_eq!(severity(&merging, MergingNeed::ToFit), None);
        }
        for (merged, need, expected) in [
            (9, MergingNeed::ToFit, Severity::Ok),
            (0, MergingNeed::ToFit, Severity::Blocker),
            // A KSM that stands still is advice then, too.
            (0, MergingNeed::ToSpare, Severity::Advice),
        ] {
            assert_eq!(severity(&watched(merged, 9), need), Some(expected));
        }
    }
}
