//! How long a fleet's threads wait for a CPU, for whoever scrapes its metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::metrics::{Distribution, RunQueue};
use crate::interrupt::Interrupt;
use crate::runqlat::types::{Class, Measured};
use crate::runqlat::{Measuring, Waits, seconds};
use crate::store::folder::{Folder, Found, Paths, Place, Supervised};
use crate::system::{Doing as _, SystemError};

/// How long nobody may ask until no more is measured: each switch of a thread has its
/// cost.
const UNASKED: Duration = Duration::from_secs(300);
/// How often it is looked whether anybody has.
const PAUSE: Duration = Duration::from_secs(10);

/// Measures from the first time that it is asked, where BPF is to be had.
pub(super) struct RunQueueWaits {
    state: Arc<Mutex<State>>,
    /// Ends the thread that sees that nobody asks.
    end: Interrupt,
}

struct State {
    found: Found,
    measuring: Option<Measuring>,
    /// It cannot be measured.
    in_vain: bool,
    sums: BTreeMap<Class, Waits>,
    asked: Instant,
}

impl RunQueueWaits {
    /// Of the fleet with this folder.
    pub(super) fn of(folder: &Folder) -> Result<Self, SystemError> {
        let paths: &Paths = folder;
        let end = Interrupt::never().doing("make a pair of sockets")?;
        let state = State {
            found: Found {
                name: folder.name(),
                place: Place::Here {
                    supervised: Supervised::By(Some(std::process::id())),
                },
                paths: paths.clone(),
            },
            measuring: None,
            in_vain: false,
            sums: BTreeMap::new(),
            asked: Instant::now(),
        };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            end,
        })
    }

    /// Has no more be measured once nobody asks.
    fn end_unasked(&self) {
        let (state, end) = (Arc::clone(&self.state), self.end.clone());
        thread::spawn(move || {
            while !end.wait(PAUSE) {
                let mut state = lock(&state);
                if state.asked.elapsed() >= UNASKED {
                    state.measuring = None;
                    return;
                }
            }
        });
    }
}

impl Drop for RunQueueWaits {
    fn drop(&mut self) {
        self.end.raise();
    }
}

impl RunQueue for RunQueueWaits {
    fn read(&self) -> Vec<Distribution> {
        let mut state = lock(&self.state);
        state.asked = Instant::now();
        if state.measuring.is_none() && !state.in_vain {
            state.measuring = begin(&state.found);
            state.in_vain = state.measuring.is_none();
            if state.measuring.is_some() {
                // A class of which nobody waits is told, too.
                for class in [Class::Vcpu, Class::Vmm, Class::Io] {
                    state.sums.entry(class).or_default();
                }
                self.end_unasked();
            }
        }
        let measured = state.measuring.as_mut().map(Measuring::read);
        match measured {
            Some(Ok(measured)) => state.add(&measured),
            Some(Err(error)) => tracing::debug!("measuring how long guests wait: {error}"),
            None => {}
        }
        let sums = state.sums.iter();
        sums.filter_map(|(class, waits)| distribution(*class, waits))
            .collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to measure; `None` where only the kernel's counters are to be had, which have
/// means and no distribution.
fn begin(found: &Found) -> Option<Measuring> {
    Measuring::by_class(found)
        .inspect_err(|why| tracing::info!("the metrics have no run-queue waits: {why}"))
        .ok()
}

impl State {
    fn add(&mut self, measured: &Measured) {
        for row in &measured.rows {
            if let Some(class) = row.class {
                self.sums.entry(class).or_default().add(&row.waits());
            }
        }
    }
}

/// Counts as Prometheus has them; `None` of what is no part of a VMM.
fn distribution(class: Class, waits: &Waits) -> Option<Distribution> {
    let class = match class {
        Class::Vcpu => "vcpu",
        Class::Vmm => "vmm",
        Class::Io => "io",
        Class::Other => return None,
    };
    let mut sum = 0_u64;
    let ends = (0_u32..).map(|place| seconds(2_000_u64 << place));
    let buckets = ends.zip(waits.buckets).map(|(end, count)| {
        sum = sum.saturating_add(count);
        (end, sum)
    });
    let mut buckets: Vec<_> = buckets.collect();
    // The last has longer ones too.
    buckets.pop();
    Some(Distribution {
        class,
        buckets,
        count: waits.count,
        sum: seconds(waits.nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_end_at_powers_of_two_and_count_all_that_is_shorter() {
        let mut waits = Waits {
            count: 6,
            nanoseconds: 1_500_000_000,
            ..Waits::default()
        };
        (waits.buckets[0], waits.buckets[2]) = (1, 3);
        *waits.buckets.last_mut().unwrap() = 2;
        let found = distribution(Class::Vcpu, &waits).unwrap();
        assert_eq!(
            found.buckets[..4],
            [(2e-6, 1), (4e-6, 1), (8e-6, 4), (16e-6, 4)]
        );
        let (end, count) = *found.buckets.last().unwrap();
        assert!((end - 67.108_864).abs() < 1e-9, "{end}");
        assert_eq!((count, found.count), (4, 6));
        assert!((found.sum - 1.5).abs() < 1e-9);
        assert_eq!(distribution(Class::Other, &waits), None);
    }
}
