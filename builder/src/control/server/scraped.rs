//! What is read for Prometheus, and kept from one scrape to the next.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::control::metrics::RunQueue;
use crate::control::types::Memory;

/// How long what the fleet costs is told without another look, at least; and the part of
/// the time that the looks may take: each walks the page tables of every guest.
const KEPT_TIME: Duration = Duration::from_secs(5);
const PART: u32 = 100;

/// What is read for Prometheus.
pub(crate) struct Scraped {
    /// One scraper at a time reads it.
    pub memory: Mutex<Option<Kept>>,
    pub run_queue: Arc<dyn RunQueue>,
}

/// What the fleet cost, when that was read, and how long the reading took.
#[derive(Debug)]
pub(crate) struct Kept {
    memory: Memory,
    at: Instant,
    took: Duration,
}

impl Scraped {
    pub(crate) fn new(run_queue: Arc<dyn RunQueue>) -> Self {
        Self {
            memory: Mutex::new(None),
            run_queue,
        }
    }
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scraped").finish_non_exhaustive()
    }
}

impl Kept {
    pub(crate) fn read(memory: Memory, began: Instant) -> Self {
        Self {
            memory,
            at: Instant::now(),
            took: began.elapsed(),
        }
    }

    pub(crate) fn is_old(&self) -> bool {
        self.at.elapsed() >= self.took.saturating_mul(PART).max(KEPT_TIME)
    }

    /// It, and seconds since it was read.
    pub(crate) fn told(&self) -> (&Memory, f64) {
        (&self.memory, self.at.elapsed().as_secs_f64())
    }
}
