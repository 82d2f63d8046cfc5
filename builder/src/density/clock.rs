//! The run's clock, and what it writes down as it goes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::conditions::cut_paths;
use crate::bundle::types::Happening;
use crate::text::printable;

/// Seconds since the run began, over all its parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    /// What earlier parts of it took.
    before: f64,
}

impl Clock {
    pub(super) fn start(before: f64) -> Self {
        let began = Instant::now();
        Self { began, before }
    }

    pub(super) fn now(&self) -> f64 {
        self.before + self.began.elapsed().as_secs_f64()
    }
}

/// What happened; clones share one list.
#[derive(Debug, Clone)]
pub(super) struct Diary {
    clock: Clock,
    lines: Arc<Mutex<Vec<Happening>>>,
}

impl Diary {
    pub(super) fn new(clock: Clock, lines: Vec<Happening>) -> Self {
        let lines = Arc::new(Mutex::new(lines));
        Self { clock, lines }
    }

    /// Writes it down, and reports it.
    pub(super) fn note(&self, what: impl Into<String>) {
        let what = printable(&what.into());
        tracing::info!("{what}");
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a run is not so long"
        )]
        let at_ms = (self.clock.now() * 1000.0) as u64;
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(Happening {
            at_ms,
            what: cut_paths(&what),
        });
    }

    pub(super) fn lines(&self) -> Vec<Happening> {
        let lines = self.lines.lock();
        lines.unwrap_or_else(PoisonError::into_inner).clone()
    }
}
