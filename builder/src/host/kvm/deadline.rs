//! Deadlines for system calls that know none, such as `KVM_RUN`.
//!
//! The work runs in a thread of its own. From a call's deadline on, that thread
//! is sent a signal again and again: one signal is not enough, since it may
//! come between the last look at the clock and the system call. A thread that
//! does not come back even then is left behind, so that the caller goes on: it
//! is still interrupted now and then, makes no further call, and so ends as soon
//! as the kernel lets it.

use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libc::{c_int, c_void, siginfo_t};
use rustix::time::{ClockId, Timespec, clock_gettime};
use vmm_sys_util::errno;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler, unblock_signal};

/// How often a call that is over its deadline is interrupted.
const KICK_INTERVAL: Duration = Duration::from_millis(1);
/// The same, once nobody waits for it any more.
const LATE_KICK_INTERVAL: Duration = Duration::from_millis(100);

/// Why watched work has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    /// The signal that interrupts has no handler.
    #[error("cannot handle the signal that ends a virtual CPU's run: {0}")]
    Signal(errno::Error),
    /// There is no thread to work in.
    #[error("cannot start a thread for virtual CPUs: {0}; raise the limit of threads")]
    Thread(io::Error),
    /// It did not come back.
    #[error(
        "{call} did not end within {:.1} s, although it was interrupted: KVM hangs, of which the \
         kernel's log may say more, or this host is too busy to tell; try again when it is idle",
        bound.as_secs_f64()
    )]
    Overdue {
        /// What it was in.
        call: &'static str,
        /// How long was waited in total.
        bound: Duration,
    },
}

/// A call that may be interrupted.
#[derive(Debug, Clone, Copy)]
struct Call {
    name: &'static str,
    deadline: Instant,
}

#[derive(Debug, Default)]
struct State {
    call: Option<Call>,
    /// Nobody waits any more: no call is to be made.
    abandoned: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call that is about to be made; `None` if nobody waits for it.
    fn begin(&self, call: Call) -> Option<()> {
        let mut state = self.lock();
        if state.abandoned {
            return None;
        }
        state.call = Some(call);
        self.changed.notify_one();
        Some(())
    }

    fn end(&self) {
        self.lock().call = None;
        self.changed.notify_one();
    }
}

/// What watched work tells of itself.
#[derive(Debug)]
pub(super) struct Watch(Arc<Shared>);

impl Watch {
    /// Makes a call that gives up with `None` at its deadline, as often as it
    /// takes to give it `limit` of CPU time: on a busy host, what is late has
    /// not had its time yet. `None` if it used that up, or nobody waits for it.
    pub(super) fn limited<T>(
        &self,
        name: &'static str,
        limit: Duration,
        mut call: impl FnMut(Instant) -> Option<T>,
    ) -> Option<T> {
        let start = cpu_time();
        loop {
            let left = limit.saturating_sub(cpu_time().saturating_sub(start));
            if left.is_zero() {
                return None;
            }
            let deadline = Instant::now() + left.max(KICK_INTERVAL);
            if let Some(result) = self.call(name, deadline, || call(deadline))? {
                return Some(result);
            }
        }
    }

    /// Makes a call whose system calls fail with `EINTR` from `deadline` on. It
    /// must look at the clock itself before it tries again. `None` if nobody
    /// waits for it: it is not made then.
    fn call<T>(
        &self,
        name: &'static str,
        deadline: Instant,
        call: impl FnOnce() -> T,
    ) -> Option<T> {
        self.0.begin(Call { name, deadline })?;
        let result = call();
        self.0.end();
        Some(result)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_one();
    }
}

/// CPU time of this thread, guest code included.
pub(super) fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::from_secs(tv_sec.cast_unsigned()) + Duration::from_nanos(tv_nsec.cast_unsigned())
}

/// Does `work` in a thread of its own, and waits for `bound` at most.
///
/// # Panics
///
/// Where `work` does.
pub(super) fn watched<T: Send + 'static>(
    bound: Duration,
    work: impl FnOnce(&Watch) -> T + Send + 'static,
) -> Result<T, WatchError> {
    let end = Instant::now() + bound;
    let signal = kick_signal().map_err(WatchError::Signal)?;
    let shared = Arc::new(Shared::default());
    let watch = Watch(Arc::clone(&shared));
    let worker = thread::Builder::new()
        .name("kvm-probe".into())
        .spawn(move || {
            // A blocked signal, inherited from whoever started this program,
            // would interrupt nothing. It was valid a moment ago.
            let _ = unblock_signal(signal);
            work(&watch)
        })
        .map_err(WatchError::Thread)?;

    let mut state = shared.lock();
    while !state.ended {
        let now = Instant::now();
        if now >= end {
            let call = state
                .call
                .map_or("setting up a virtual CPU", |call| call.name);
            state.abandoned = true;
            drop(state);
            leave(shared, worker, signal);
            return Err(WatchError::Overdue { call, bound });
        }
        let until = match state.call {
            Some(call) if call.deadline <= now => {
                // The lock is held: the call has not ended, so that the signal
                // hits no other one. A thread that is gone needs none.
                let _ = worker.kill(signal);
                now + KICK_INTERVAL
            }
            Some(call) => call.deadline,
            None => end,
        };
        (state, _) = shared
            .changed
            .wait_timeout(state, until.min(end) - now)
            .unwrap_or_else(PoisonError::into_inner);
    }
    drop(state);
    Ok(worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Has a worker interrupted that nobody waits for any more, until it ends: in
/// `KVM_RUN` it would burn a CPU for as long as this program lives.
fn leave<T: Send + 'static>(shared: Arc<Shared>, worker: JoinHandle<T>, signal: c_int) {
    let kick = move || {
        let mut state = shared.lock();
        while !state.ended {
            if state.call.is_some() {
                // As above, the lock is held: the signal hits no other call.
                let _ = worker.kill(signal);
            }
            (state, _) = shared
                .changed
                .wait_timeout(state, LATE_KICK_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner);
        }
    };
    // On a host without a thread to spare it is left to itself.
    let _ = thread::Builder::new().name("kvm-kick".into()).spawn(kick);
}

/// The signal that interrupts; its handler is registered with the first use. A
/// real-time signal has no other meaning, and nobody else in this program uses
/// one (signal(7)).
fn kick_signal() -> errno::Result<c_int> {
    /// Interrupting is all it is for.
    extern "C" fn nothing(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

    static REGISTERED: OnceLock<errno::Result<()>> = OnceLock::new();
    let signal = SIGRTMIN();
    REGISTERED
        .get_or_init(|| register_signal_handler(signal, nothing))
        .map(|()| signal)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use vmm_sys_util::signal::block_signal;

    use super::*;

    /// Reads from a pipe that nobody writes to, and does not try again.
    fn read_for_ever(pipe: &mut impl Read) -> io::ErrorKind {
        pipe.read(&mut [0]).unwrap_err().kind()
    }

    #[test]
    fn work_in_time_gives_its_result() {
        let bound = Duration::from_secs(60);
        assert_eq!(watched(bound, |_| 7).unwrap(), 7);
    }

    #[test]
    fn call_is_interrupted_after_its_deadline() {
        let (mut reader, _writer) = io::pipe().unwrap();
        let deadline = Instant::now() + Duration::from_millis(20);
        let (kind, ended) = watched(Duration::from_secs(60), move |watch| {
            let kind = watch.call("read", deadline, || read_for_ever(&mut reader));
            (kind.unwrap(), Instant::now())
        })
        .unwrap();
        assert_eq!(kind, io::ErrorKind::Interrupted);
        assert!(ended >= deadline);
    }

    #[test]
    fn call_that_tries_again_is_interrupted_again() {
        let (mut reader, _writer) = io::pipe().unwrap();
        let kinds = watched(Duration::from_secs(60), move |watch| {
            watch.call("read", Instant::now(), || {
                [(); 5].map(|()| read_for_ever(&mut reader))
            })
        })
        .unwrap();
        assert_eq!(kinds, Some([io::ErrorKind::Interrupted; 5]));
    }

    #[test]
    fn time_that_a_call_did_not_get_does_not_count() {
        let result = watched(Duration::from_secs(60), |watch| {
            let mut calls = 0;
            watch.limited("sleep", Duration::from_millis(20), |deadline| {
                calls += 1;
                thread::sleep(deadline.saturating_duration_since(Instant::now()));
                (calls == 3).then_some(calls)
            })
        });
        assert_eq!(result.unwrap(), Some(3));
    }

    #[test]
    fn call_that_uses_its_time_up_has_no_result() {
        let (result, used) = watched(Duration::from_secs(60), |watch| {
            let start = cpu_time();
            let result: Option<()> = watch.limited("burn", Duration::from_millis(5), |deadline| {
                while Instant::now() < deadline {}
                None
            });
            (result, cpu_time().saturating_sub(start))
        })
        .unwrap();
        assert_eq!(result, None);
        assert!(used >= Duration::from_millis(5));
    }

    #[test]
    fn signal_that_the_caller_blocks_interrupts_all_the_same() {
        block_signal(SIGRTMIN()).unwrap();
        let (mut reader, _writer) = io::pipe().unwrap();
        let kind = watched(Duration::from_secs(60), move |watch| {
            watch.call("read", Instant::now(), || read_for_ever(&mut reader))
        })
        .unwrap();
        assert_eq!(kind, Some(io::ErrorKind::Interrupted));
    }

    #[test]
    fn work_that_ignores_interruption_is_left_behind() {
        let (release, released) = mpsc::channel::<()>();
        let error = watched(Duration::from_millis(50), move |watch| {
            // Waits again after each signal, as the standard library does.
            watch.call("KVM_RUN of nothing", Instant::now(), || released.recv())
        })
        .unwrap_err();
        assert!(matches!(
            error,
            WatchError::Overdue {
                call: "KVM_RUN of nothing",
                ..
            }
        ));
        assert!(error.to_string().contains("did not end within"), "{error}");
        drop(release);
    }

    #[test]
    fn work_that_is_left_behind_is_interrupted_all_the_same() {
        let (mut reader, _writer) = io::pipe().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let error = watched(Duration::from_millis(50), move |watch| {
            let kind = watch.call("read", Instant::now(), || {
                // The signals until then end nothing.
                let _ = released.recv();
                read_for_ever(&mut reader)
            });
            let _ = tell.send(kind);
        });
        assert!(matches!(error, Err(WatchError::Overdue { .. })));
        drop(release);
        let kind = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(kind, Some(io::ErrorKind::Interrupted));
    }

    #[test]
    fn work_that_is_left_behind_makes_no_further_call() {
        let (tell, told) = mpsc::channel();
        let error = watched(Duration::from_millis(50), move |watch| {
            let hours = Duration::from_secs(3600);
            let first: Option<()> = watch.limited("sleep", hours, |_| {
                thread::sleep(Duration::from_millis(1));
                None
            });
            let _ = tell.send((first, watch.limited("another", hours, |_| Some(()))));
        });
        assert!(matches!(error, Err(WatchError::Overdue { .. })));
        let calls = told.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(calls, (None, None));
    }

    #[test]
    #[should_panic(expected = "the work's own")]
    fn panic_of_the_work_is_passed_on() {
        let _ = watched(Duration::from_secs(60), |_| panic!("the work's own"));
    }
}
