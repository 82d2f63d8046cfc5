//! A fleet for people: a line of counts, and a table of guests.

use std::time::Duration;

use super::WIDTH;
use crate::control::types::{Fleet, Guest, Stage};
use crate::guest::Phase;
use crate::guest::counts::listed;
use crate::text::printable;
use crate::units::counted;

/// How wide a table may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// As wide as a report: what is beyond is cut.
    Cut,
    /// As wide as it is.
    Whole,
}

/// Such as `tty-burn is up: 98 of 100 ready, 2 failed; supervisor 1234`.
pub(crate) fn headline(fleet: &Fleet) -> String {
    let stage = match fleet.stage {
        Stage::Starting => "starting",
        Stage::Up => "up",
        Stage::Settled => "settled",
        Stage::Stopping => "stopping",
        Stage::Orphaned => "orphaned",
        Stage::Lost => "lost",
        Stage::Elsewhere => {
            let wanted = counted(fleet.wanted.into(), "guest");
            let (name, host) = (&fleet.fleet, printable(&fleet.host));
            return format!("{name} is on host {host}: {wanted}; run imgbuild there to see more");
        }
    };
    let mut line = format!("{} is {stage}: ", fleet.fleet);
    line.push_str(&counted(fleet.wanted.into(), "guest"));
    if !fleet.counts.is_empty() {
        line.push_str(", ");
        line.push_str(&listed(&fleet.counts));
    }
    match fleet.supervisor {
        Some(supervisor) => {
            line.push_str("; supervisor ");
            line.push_str(&supervisor.pid.to_string());
        }
        None => line.push_str("; no supervisor"),
    }
    if let Some(reason) = &fleet.held_back {
        line.push_str("; held back: ");
        line.push_str(&printable(reason));
    }
    line
}

/// A line of names, and one for each guest.
pub(crate) fn table(fleet: &Fleet, width: Width) -> String {
    let mut lines = vec![row([
        "GUEST", "STATE", "FOR", "PID", "STARTS", "SSH", "REASON",
    ]
    .map(str::to_owned))];
    lines.extend(fleet.guests.iter().map(|guest| row(cells(guest))));
    if width == Width::Cut {
        for line in &mut lines {
            *line = line.chars().take(WIDTH).collect();
        }
    }
    lines.join("\n")
}

fn cells(guest: &Guest) -> [String; 7] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        guest.id.to_string(),
        guest.state.name().to_owned(),
        age(guest.for_seconds),
        or_none(guest.pid.map(|pid| pid.to_string())),
        starts(guest).to_string(),
        or_none(guest.ssh.as_deref().map(printable)),
        why(guest).map(printable).unwrap_or_default(),
    ]
}

/// Why it is not ready; of one that is, the reason of its last start is history.
pub(crate) fn why(guest: &Guest) -> Option<&str> {
    let reason = guest.reason.as_deref();
    reason.filter(|_| guest.state != Phase::Ready)
}

/// How often it was started: once, and then again.
pub(crate) fn starts(guest: &Guest) -> u32 {
    let is_yet_to_start = guest.state == Phase::Planned && guest.restarts == 0;
    guest.restarts + u32::from(!is_yet_to_start)
}

fn row([id, state, age, pid, starts, ssh, reason]: [String; 7]) -> String {
    let line = format!("{id:6} {state:12} {age:>6} {pid:>7} {starts:>6} {ssh:15} {reason}");
    line.trim_end().to_owned()
}

/// A time in its two largest units: `7s`, `12m05s`, `3h20m`, `2d04h`.
pub(crate) fn age(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::types::{BurnTotals, Supervisor, Totals};
    use crate::guest::Desired;

    fn fleet() -> Fleet {
        let guest = |id: &str, state, reason: Option<&str>| Guest {
            id: id.parse().unwrap(),
            state,
            desired: Desired::Up,
            pid: Some(4_194_304),
            for_seconds: 725.9,
            ready_after: None,
            restarts: 12,
            unresponsive: 0,
            reason: reason.map(str::to_owned),
            ssh: Some("127.0.0.1:65535".to_owned()),
            burn: None,
        };
        Fleet {
            api: 1,
            fleet: "tty-burn".to_owned(),
            host: "h".to_owned(),
            stage: Stage::Up,
            supervisor: Some(Supervisor { pid: 77 }),
            wanted: 2,
            counts: BTreeMap::from([(Phase::Ready, 1), (Phase::Unresponsive, 1)]),
            held_back: None,
            forced: Vec::new(),
            totals: Totals::default(),
            burn: BurnTotals::default(),
            guests: vec![
                guest("g00000", Phase::Ready, Some("killed on request")),
                guest(
                    "g00001",
                    Phase::Unresponsive,
                    Some("late by 12 s \u{1b}[2Jbut its vCPU waited"),
                ),
            ],
        }
    }

    #[test]
    fn a_fleet_is_listed_in_a_line_and_a_table() {
        let mut fleet = fleet();
        assert_eq!(
            headline(&fleet),
            "tty-burn is up: 2 guests, 1 ready, 1 unresponsive; supervisor 77"
        );
        assert_eq!(
            table(&fleet, Width::Whole),
            "GUEST  STATE           FOR     PID STARTS SSH             REASON\n\
             g00000 ready        12m05s 4194304     13 127.0.0.1:65535\n\
             g00001 unresponsive 12m05s 4194304     13 127.0.0.1:65535 late by 12 s \\u{1b}[2Jbut its vCPU waited"
        );
        fleet.guests[0].restarts = 0;
        assert!(table(&fleet, Width::Whole).contains("4194304      1 127"));
        fleet.guests[0].state = Phase::Planned;
        assert!(table(&fleet, Width::Whole).contains("4194304      0 127"));
        let cut = table(&fleet, Width::Cut);
        assert!(cut.lines().all(|line| line.chars().count() <= 80));
        assert!(cut.contains("late by 12 s"));
        fleet.supervisor = None;
        fleet.held_back = Some("memory is short".to_owned());
        assert!(headline(&fleet).ends_with("; no supervisor; held back: memory is short"));
    }

    #[test]
    fn a_time_is_printed_in_two_units() {
        for (seconds, text) in [
            (0.0, "0s"),
            (59.9, "59s"),
            (60.0, "1m00s"),
            (3_599.0, "59m59s"),
            (12_000.0, "3h20m"),
            (187_200.0, "2d04h"),
            (-1.0, "0s"),
            (f64::NAN, "0s"),
            (1e300, "0s"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
