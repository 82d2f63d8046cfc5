//! Kills a part of the fleet and its supervisor, and sees who comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::error::DensityError;
use super::plan;
use super::stage::Stages;
use crate::bundle::types::{GuestReply, Storm};
use crate::control::bridge::Detail;
use crate::control::types::{Fleet, Guest};
use crate::guest::{Phase, deadline};
use crate::host;
use crate::progress;
use crate::store::folder::{Supervised, read_spec};
use crate::store::orphans::is_run_by;
use crate::units::GuestIndex;

/// How often the watch is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// How long no guest may come back while guests are waited for.
const QUIET: Duration = Duration::from_secs(120);

/// Kills `percent` of the guests that are ready, and the supervisor.
pub(super) fn storm(stages: &Stages<'_>, percent: u8) -> Result<Storm, DensityError> {
    let subject = stages.subject;
    let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
    let before: BTreeMap<_, _> = (fleet.guests.iter())
        .filter_map(|guest| Some((guest.id, guest.pid?)))
        .collect();
    let ready: Vec<_> = (fleet.guests.iter())
        .filter(|guest| guest.state == Phase::Ready)
        .map(|guest| guest.id)
        .collect();
    let count = plan::share(ready.len(), percent);
    let victims = plan::sample(&ready, count, stages.experiment.seed);
    subject.diary.note(format!(
        "the storm kills {count} of {} guests and the supervisor",
        fleet.wanted
    ));
    let began = stages.clock.now();
    let at = Instant::now();
    let victims = kill(stages, &fleet, &victims)?;
    let resumed = resumed(stages, at)?;
    let back = wait_for(stages, &victims, &before, at)?;
    let fleet = subject.call(|client| client.fleet(Detail::Whole))?;
    let lost = lost(&fleet.guests, &victims, &before);
    subject.diary.note(format!(
        "{} of {count} came back; {} others lost their process",
        back.iter().filter(|reply| reply.failed.is_none()).count(),
        lost.len()
    ));
    Ok(Storm {
        began,
        ended: stages.clock.now(),
        guests: fleet.wanted,
        killed: victims,
        resumed,
        back,
        lost,
    })
}

/// Kills the supervisor, and then these guests; gives those that were there to be killed.
fn kill(
    stages: &Stages<'_>,
    fleet: &Fleet,
    victims: &[GuestIndex],
) -> Result<Vec<GuestIndex>, DensityError> {
    let paths = &stages.subject.paths;
    let instance = read_spec(paths.path())?.instance;
    if let Some(supervisor) = &fleet.supervisor {
        let pid = supervisor.pid;
        // One that has ended by itself has ended.
        let _ = kill_if(pid, || paths.supervised() == Supervised::By(Some(pid)));
    }
    let killed = |guest: &&Guest| {
        let kill = |pid| kill_if(pid, || is_run_by(pid, instance, guest.id));
        guest.pid.is_some_and(|pid| kill(pid).is_ok())
    };
    let guests = fleet.guests.iter();
    Ok(guests
        .filter(|guest| victims.binary_search(&guest.id).is_ok())
        .filter(killed)
        .map(|guest| guest.id)
        .collect())
}

/// Kills a process, if it still is who had this number: asked between the time at which
/// it is held and the signal.
fn kill_if(pid: u32, is_still: impl Fn() -> bool) -> io::Result<()> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    if !is_still() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(pidfd_send_signal(&process, Signal::KILL)?)
}

/// Seconds until another supervisor was there.
fn resumed(stages: &Stages<'_>, at: Instant) -> Result<Option<f64>, DensityError> {
    // A killed one holds its lock until the kernel has cleared it away.
    let until = at + QUIET;
    while Instant::now() < until {
        if let Some(there) = stages.subject.resume_if_dead()? {
            return Ok(Some((there - at).as_secs_f64()));
        }
        stages.subject.pause(PAUSE)?;
    }
    Ok(None)
}

/// Waits until the killed are ready again, each with another process.
fn wait_for(
    stages: &Stages<'_>,
    victims: &[GuestIndex],
    before: &BTreeMap<GuestIndex, u32>,
    at: Instant,
) -> Result<Vec<GuestReply>, DensityError> {
    let bar = progress::bar(victims.len() as u64, "guests back");
    let patience = QUIET.max(deadline::scaled(
        u32::try_from(before.len()).unwrap_or(u32::MAX),
        host::cpus(),
    ));
    let mut back = BTreeMap::new();
    let mut last = Instant::now();
    while back.len() < victims.len() {
        let so_far = back.len();
        {
            let seen = stages.watch.seen();
            for guest in victims {
                let is_back = (seen.picture().standing(*guest)).is_some_and(|standing| {
                    let guest = &standing.guest;
                    guest.state == Phase::Ready && guest.pid != before.get(&guest.id).copied()
                });
                if is_back {
                    back.entry(*guest).or_insert_with(|| at.elapsed());
                }
            }
        }
        if back.len() > so_far {
            last = Instant::now();
        }
        if last.elapsed() > patience {
            break;
        }
        bar.set_position(back.len() as u64);
        stages.subject.resume_if_dead()?;
        stages.subject.pause(PAUSE)?;
    }
    bar.finish_and_clear();
    let reply = |guest: &GuestIndex| {
        let after = back.get(guest).copied();
        GuestReply {
            guest: *guest,
            seconds: after.unwrap_or(at.elapsed()).as_secs_f64(),
            failed: (after.is_none()).then(|| "it did not come back".to_owned()),
        }
    };
    Ok(victims.iter().map(reply).collect())
}

/// The guests that were not killed, and yet have another process or none.
fn lost(
    guests: &[Guest],
    victims: &[GuestIndex],
    before: &BTreeMap<GuestIndex, u32>,
) -> Vec<GuestIndex> {
    let now: BTreeMap<_, _> = guests.iter().map(|guest| (guest.id, guest.pid)).collect();
    let killed: BTreeSet<_> = victims.iter().collect();
    (before.iter())
        .filter(|(guest, pid)| {
            !killed.contains(guest) && now.get(guest).copied().flatten() != Some(**pid)
        })
        .map(|(guest, _)| *guest)
        .collect()
}
