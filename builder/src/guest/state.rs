//! The state of a guest. A value that has a meaning in one state only is stored in
//! that state, so that no step can find it in another.

use std::time::{Duration, Instant};

use super::{Desired, Phase, Policy, Reason};
use crate::vmm::StartMethod;

/// A longer time is as good as none, and one that a clock can still take.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Where a guest is.
#[derive(Debug)]
pub(super) enum State {
    /// It has no VMM. At `until` its start is asked for; without, it was asked
    /// for, or nothing has happened yet.
    Waiting {
        start: Start,
        until: Option<Instant>,
    },
    /// It has no VMM, and none is started unless the user asks for it.
    Exited(Desired),
    /// It has no VMM, and was given up.
    Failed,
    /// It has a VMM, which is to go on. `symptom` is what it gave away before its
    /// end, should it end.
    Alive {
        stage: Stage,
        symptom: Option<Reason>,
    },
    /// It has a VMM and was asked to power off for the user. At `deadline` its
    /// VMM is killed.
    PoweringOff {
        phase: Phase,
        deadline: Instant,
        then: AfterEnd,
    },
    /// Its VMM was killed, for the reason `fate`, and its end has not been seen.
    Killed {
        phase: Phase,
        fate: Reason,
        /// Without, the policy decides what comes after the end.
        then: Option<AfterEnd>,
    },
}

/// How far a guest has come whose VMM is to go on.
#[derive(Debug)]
pub(super) enum Stage {
    /// This supervisor started it; it has not reported ready.
    Booting(Boot),
    /// Another supervisor started it; it was asked, and has not answered.
    Adopted(Question),
    /// It is ready, and is asked for a sign of life at `ask_at`.
    Ready { ask_at: Option<Instant> },
    /// It is ready, and was asked.
    Asked(Question),
    /// It did not answer in time.
    Late {
        question: Question,
        finding: Finding,
    },
}

/// Which of its starts one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It was never started before, or no start came to anything.
    First,
    /// It ended before, so that this start is counted among its restarts.
    Again,
}

/// A start that has not come to its end.
#[derive(Debug)]
pub(super) struct Boot {
    pub(super) start: Start,
    /// When its VMM was started.
    pub(super) started: Instant,
    /// When its VMM is measured next.
    pub(super) look_at: Instant,
    /// How far it has come.
    pub(super) progress: Progress,
    /// A signal had stopped its VMM when that was measured last.
    pub(super) was_stopped: bool,
}

/// How far a start has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its kernel has not spoken.
    Silent,
    /// Its VMM restores it from the template.
    Restoring,
    /// Its kernel runs.
    Runs,
}

/// A guest was asked for a sign of life.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) asked: Instant,
    /// When something is done about it.
    pub(super) due: Instant,
}

/// What was found out about a guest that is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It got little of the CPU.
    Starved,
    /// A signal stopped its VMM.
    Stopped,
    /// Its VMM said that it is paused, or nobody could ask.
    Paused,
    /// It could have answered. It is taken for hung when the question is due,
    /// unless its VMM says before what keeps it.
    Suspected,
    /// The same, but it was paused when its VMM was asked the last time.
    SuspectedAfterPause,
}

/// What the user wants after the end that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterEnd {
    /// It is to stay down.
    StayDown,
    /// It is to be started again at once, whatever the policy says.
    ComeBack,
}

impl Default for State {
    fn default() -> Self {
        Self::Waiting {
            start: Start::First,
            until: None,
        }
    }
}

impl State {
    /// A VMM was started or adopted, and has said nothing.
    pub(super) fn alive(stage: Stage) -> Self {
        Self::Alive {
            stage,
            symptom: None,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Waiting { start, .. } => match start {
                Start::First => Phase::Planned,
                Start::Again => Phase::Restarting,
            },
            Self::Exited(_) => Phase::Exited,
            Self::Failed => Phase::Failed,
            Self::Alive { stage, .. } => stage.phase(),
            Self::PoweringOff { phase, .. } | Self::Killed { phase, .. } => *phase,
        }
    }

    pub(super) fn desired(&self) -> Desired {
        let then = match self {
            Self::Exited(desired) => return *desired,
            Self::PoweringOff { then, .. } => Some(*then),
            Self::Killed { then, .. } => *then,
            Self::Waiting { .. } | Self::Failed | Self::Alive { .. } => None,
        };
        match then {
            Some(AfterEnd::StayDown) => Desired::Down,
            Some(AfterEnd::ComeBack) | None => Desired::Up,
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Waiting { until, .. } => *until,
            Self::Alive { stage, .. } => stage.due(),
            Self::PoweringOff { deadline, .. } => Some(*deadline),
            Self::Exited(_) | Self::Failed | Self::Killed { .. } => None,
        }
    }

    /// Which of its starts the VMM that ended was, or will be.
    pub(super) fn start(&self) -> Start {
        match self {
            Self::Waiting { start, .. } => *start,
            Self::Alive {
                stage: Stage::Booting(boot),
                ..
            } => boot.start,
            // Only the start of a guest that was not ready can come to nothing,
            // and one that was adopted counts as never started here.
            _ => Start::First,
        }
    }
}

impl Stage {
    fn phase(&self) -> Phase {
        match self {
            Self::Booting(boot) => boot.progress.phase(),
            Self::Adopted(_) => Phase::Starting,
            Self::Ready { .. } | Self::Asked(_) => Phase::Ready,
            Self::Late { .. } => Phase::Unresponsive,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Self::Booting(boot) => Some(boot.look_at),
            Self::Ready { ask_at } => *ask_at,
            _ => self.question().map(|question| question.due),
        }
    }

    /// The question that it has not answered.
    pub(super) fn question(&self) -> Option<Question> {
        match self {
            Self::Adopted(question) | Self::Asked(question) | Self::Late { question, .. } => {
                Some(*question)
            }
            Self::Booting(_) | Self::Ready { .. } => None,
        }
    }
}

impl Progress {
    fn phase(self) -> Phase {
        match self {
            Self::Silent => Phase::Starting,
            Self::Restoring => Phase::Restoring,
            Self::Runs => Phase::Booting,
        }
    }
}

impl From<StartMethod> for Progress {
    fn from(method: StartMethod) -> Self {
        match method {
            StartMethod::Boot => Self::Silent,
            StartMethod::Clone => Self::Restoring,
        }
    }
}

impl Finding {
    pub(super) fn is_suspicion(self) -> bool {
        matches!(self, Self::Suspected | Self::SuspectedAfterPause)
    }

    /// Whether the guest was paused when its VMM was asked the last time.
    pub(super) fn was_paused(self) -> bool {
        matches!(self, Self::Paused | Self::SuspectedAfterPause)
    }
}

impl Question {
    /// Asks `now`, and gives the time that an answer may take.
    pub(super) fn ask(now: Instant, policy: &Policy) -> Self {
        Self {
            asked: now,
            due: after(now, policy.answer_within),
        }
    }

    /// How long the answer has not come.
    pub(super) fn silence(self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked)
    }
}

pub(super) fn after(now: Instant, time: Duration) -> Instant {
    now + time.min(FOREVER)
}
