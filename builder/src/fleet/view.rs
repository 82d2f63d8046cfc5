//! A fleet as documents of the control interface.

use std::time::Instant;

use tty_init::protocol::DeviceState;

use super::site::Site;
use super::supervisor::{Member, Supervisor};
use crate::control::bridge::Detail;
use crate::control::memory::Processes;
use crate::control::types::{self, API_VERSION, KsmState, Stage};
use crate::guest::{Guest, Phase};
use crate::units::Duty;

/// The fleet, in the detail asked for.
pub(crate) fn fleet(
    supervisor: &Supervisor,
    stage: Stage,
    held_back: Option<String>,
    detail: Detail,
) -> types::Fleet {
    let site = supervisor.site();
    let guests = match detail {
        Detail::Whole => supervisor.members().iter(),
        Detail::Summary => [].iter(),
    };
    types::Fleet {
        api: API_VERSION,
        fleet: site.spec().name.clone(),
        host: site.spec().host.name.clone(),
        stage,
        supervisor: Some(types::Supervisor {
            pid: std::process::id(),
        }),
        wanted: site.spec().guests.count(),
        counts: supervisor.counts().clone(),
        held_back,
        forced: site.spec().forced.clone(),
        totals: supervisor.totals(),
        burn: burn(supervisor),
        guests: guests.map(|member| guest(site, member)).collect(),
    }
}

/// The processes that it consists of.
pub(crate) fn processes(supervisor: &Supervisor, ksm: Option<KsmState>) -> Processes {
    let site = supervisor.site();
    let members = supervisor.members().iter();
    Processes {
        fleet: site.spec().name.clone(),
        guests: members
            .filter_map(|member| Some((member.index(), member.pid()?)))
            .collect(),
        supervisor: Some(std::process::id()),
        handed: site.handed(),
        charged: site.accounted(),
        ksm,
    }
}

fn burn(supervisor: &Supervisor) -> types::BurnTotals {
    let members = supervisor.members().iter().filter(|member| member.lives());
    let burns = members.filter_map(|member| Some(member.guest().status()?.burn));
    burns.fold(types::BurnTotals::default(), |sum, burn| {
        types::BurnTotals {
            guests: sum.guests + u32::from(burn.duty > 0),
            rounds: sum.rounds.saturating_add(burn.rounds),
        }
    })
}

pub(crate) fn guest(site: &Site, member: &Member) -> types::Guest {
    let guest = member.guest();
    types::Guest {
        id: member.index(),
        state: guest.phase(),
        desired: guest.desired(),
        pid: member.pid(),
        for_seconds: guest.since().map_or(0.0, |since| {
            Instant::now().duration_since(since).as_secs_f64()
        }),
        ready_after: guest.ready_after().map(|time| time.as_secs_f64()),
        restarts: guest.restarts(),
        unresponsive: guest.unresponsive(),
        reason: reason(guest),
        ssh: (site.spec().ssh_address(member.index()))
            .filter(|_| serves_ssh(guest))
            .map(|address| address.to_string()),
        burn: guest.status().map(|status| types::Burn {
            duty: Duty::at_most_whole(status.burn.duty),
            threads: status.burn.threads,
            rounds: status.burn.rounds,
            ms: guest.status_ms(),
        }),
    }
}

/// Whether somebody may log in, as far as the guest has told.
fn serves_ssh(guest: &Guest) -> bool {
    let status = guest.status();
    // One that failed may come again.
    status.is_none_or(|status| status.ssh != DeviceState::Absent)
}

/// Why a guest is not ready, with what it said last if it ended in failure.
pub(crate) fn reason(guest: &Guest) -> Option<String> {
    let why = guest.reason()?;
    let reason = why.to_string();
    let last = guest.tail().last().filter(|line| !reason.contains(line));
    Some(match (guest.phase(), last) {
        (Phase::Restarting | Phase::Failed, Some(line)) if why.is_failure() => {
            format!("{reason}; last line: {line}")
        }
        _ => reason,
    })
}
