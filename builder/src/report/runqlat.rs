//! How long threads waited for a CPU, as people know it from BCC's runqlat.

use std::collections::BTreeMap;

use super::wrapped;
use crate::runqlat::types::{Cause, Class, Measured, Row, Source, Stopped, Thread};
use crate::runqlat::{By, Waits};
use crate::text::printable;
use crate::units::{counted, grouped};

/// Columns of a bar.
const BAR: u64 = 40;

pub(crate) fn report(measured: &Measured, by: Option<By>) -> String {
    let mut parts = vec![head(measured)];
    if let Some(stopped) = &measured.stopped {
        parts.push(stop(stopped));
    }
    let all = sum(&measured.rows);
    if all.count == 0 {
        parts.push("No thread waited.".to_owned());
        return parts.join("\n");
    }
    match by {
        // Of thousands of guests a line each.
        Some(By::Guest) => parts.push(table("GUEST", &measured.rows, |row| {
            let guest = row.guest.map(|guest| guest.to_string());
            guest.or(row.pid.map(|pid| pid.to_string()))
        })),
        Some(_) => parts.extend(measured.rows.iter().map(|row| {
            let name = (row.class.map(class))
                .or(row.cause.map(cause))
                .unwrap_or("all");
            format!("\n{name}\n{}", histogram(&row.buckets))
        })),
        None => {
            parts.push(histogram(&all.buckets));
            if measured.rows.iter().any(|row| row.fleet.is_some()) {
                parts.push(table("FLEET", &measured.rows, |row| {
                    Some(row.fleet.clone().unwrap_or_else(|| "none".to_owned()))
                }));
            }
            parts.push(table("THREADS", &measured.rows, |row| {
                row.class.map(class).map(str::to_owned)
            }));
            if measured.source == Source::Bpf {
                parts.push(table("WHO HAD THE CPU", &measured.rows, |row| {
                    row.cause.map(cause).map(str::to_owned)
                }));
            }
        }
    }
    if by != Some(By::Guest) {
        parts.push(questions(&all, measured.threshold));
    }
    parts.join("\n")
}

fn head(measured: &Measured) -> String {
    let waits: u64 = measured.rows.iter().map(|row| row.count).sum();
    let source = match measured.source {
        Source::Bpf => "each counted by BPF",
        Source::Schedstat => "means of threads, by schedstat",
    };
    let lost = match measured.lost {
        0 => String::new(),
        lost => format!("; {} lost besides", counted(lost, "wait")),
    };
    wrapped(
        &format!(
            "{}: {} for a CPU in {}, {source}{lost}",
            printable(&measured.of),
            counted(waits, "wait"),
            time(measured.seconds),
        ),
        0,
    )
}

/// Who waited, on which CPU, behind whom.
fn stop(stopped: &Stopped) -> String {
    let thread = |thread: &Thread| {
        let of = match thread.guest {
            Some(guest) => guest.to_string(),
            None => format!("process {}", thread.pid),
        };
        format!("{} ({}, thread {})", printable(&thread.name), of, thread.id)
    };
    wrapped(
        &format!(
            "{} waited {} for CPU {}; {} had it longest, and {} last",
            thread(&stopped.waited),
            time(stopped.wait),
            stopped.cpu,
            who(stopped.cause),
            thread(&stopped.behind)
        ),
        0,
    )
}

/// The distribution over powers of two, up to the last bucket with a wait.
fn histogram(buckets: &[u64]) -> String {
    let most = buckets.iter().copied().max().unwrap_or(0).max(1);
    let last = buckets.iter().rposition(|count| *count > 0).unwrap_or(0);
    let mut lines = vec![format!("{:>21} : {:<10} distribution", "usecs", "count")];
    for (at, count) in buckets.iter().enumerate().take(last + 1) {
        let from = if at == 0 { 0 } else { 1_u64 << at };
        let to = (2_u64 << at) - 1;
        let stars = u128::from(*count) * u128::from(BAR) / u128::from(most);
        let stars = "*".repeat(usize::try_from(stars).unwrap_or(0));
        lines.push(format!("{from:>9} -> {to:<9} : {count:<10} |{stars:<40}|"));
    }
    lines.join("\n")
}

/// A line for each name that rows have.
fn table(title: &str, rows: &[Row], name: impl Fn(&Row) -> Option<String>) -> String {
    let mut named: Vec<(String, Vec<&Row>)> = Vec::new();
    let mut places = BTreeMap::new();
    for row in rows {
        let Some(name) = name(row) else { continue };
        let place = *places.entry(name.clone()).or_insert_with(|| {
            named.push((name, Vec::new()));
            named.len() - 1
        });
        named[place].1.push(row);
    }
    let mut lines = vec![format!(
        "\n{title:<28} {:>10} {:>9} {:>9} {:>9} {:>9}",
        "WAITS", "MEAN", "P50", "P99", "LONGEST"
    )];
    for (name, rows) in named {
        let waits = sum(rows);
        let figure = |value: Option<f64>| value.map_or("-".to_owned(), time);
        lines.push(format!(
            "{name:<28} {:>10} {:>9} {:>9} {:>9} {:>9}",
            grouped(waits.count),
            figure(waits.mean()),
            figure(waits.quantile(0.5)),
            figure(waits.quantile(0.99)),
            time(crate::runqlat::seconds(waits.longest)),
        ));
    }
    lines.join("\n")
}

/// The reference experiment's three questions.
fn questions(waits: &Waits, threshold: f64) -> String {
    let quantile = |share| time(waits.quantile(share).unwrap_or(0.0));
    let above = waits.share_above().unwrap_or(0.0) * 100.0;
    format!(
        "\nHow closely grouped: half of the waits took {} to {}.\n\
         How low: half took {} at most, 99 % took {} at most.\n\
         How scattered: 99.9 % took {} at most, the longest {}; {above:.2} % took over {}.",
        quantile(0.25),
        quantile(0.75),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        time(crate::runqlat::seconds(waits.longest)),
        time(threshold),
    )
}

/// All of them together.
fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Waits {
    let mut sum = Waits::default();
    for row in rows {
        sum.add(&row.waits());
    }
    sum
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Vcpu => "vCPUs",
        Class::Vmm => "VMMs' main loops",
        Class::Io => "VMMs' other threads",
        Class::Other => "others",
    }
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Same => "the same fleet or choice",
        Cause::OtherGuest => "another guest",
        Cause::Host => "something else of the host",
        Cause::Quota => "nobody: its quota was used",
        Cause::Nobody => "nobody: the CPU was woken",
    }
}

fn who(cause: Cause) -> &'static str {
    match cause {
        Cause::Same => "others of the same fleet or choice",
        Cause::OtherGuest => "other guests",
        Cause::Host => "something else of the host",
        Cause::Quota => "a quota",
        Cause::Nobody => "nobody",
    }
}

/// In the unit that reads best.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runqlat::types::RUNQLAT_VERSION;
    use crate::units::GuestIndex;

    fn measured() -> Measured {
        let row = |class, cause, buckets: &[u64]| {
            let mut all = vec![0; 27];
            all[..buckets.len()].copy_from_slice(buckets);
            Row {
                fleet: None,
                class: Some(class),
                cause: Some(cause),
                guest: None,
                pid: None,
                count: buckets.iter().sum(),
                total: 0.004,
                p50: 0.0,
                p90: 0.0,
                p99: 0.0,
                p999: 0.0,
                longest: 0.003,
                above: Some(1),
                buckets: all,
            }
        };
        Measured {
            runqlat_version: RUNQLAT_VERSION,
            source: Source::Bpf,
            instead: None,
            of: "fleet a\u{1b}b".to_owned(),
            at: 0.0,
            seconds: 10.0,
            threshold: 0.01,
            lost: 3,
            rows: vec![
                row(Class::Vcpu, Cause::Same, &[1, 0, 2, 8]),
                row(Class::Vmm, Cause::Host, &[4]),
            ],
            stopped: None,
        }
    }

    #[test]
    fn it_looks_as_people_know_it_and_obeys_nobody() {
        let text = report(&measured(), None);
        for part in [
            "15 waits for a CPU in 10.00 s",
            "3 waits lost",
            "        4 -> 7         : 2          |**********",
            "vCPUs                                11",
            "something else of the host            4",
            "How scattered: ",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        let by = report(&measured(), Some(By::Class));
        assert!(by.contains("\nVMMs' main loops\n"), "{by}");
        let none = Measured {
            rows: Vec::new(),
            ..measured()
        };
        assert!(report(&none, None).ends_with("No thread waited."));
    }

    #[test]
    fn who_waited_is_said_with_behind_whom() {
        let thread = |id, name: &str, guest| Thread {
            id,
            pid: 7,
            name: name.to_owned(),
            guest,
        };
        let stopped = Stopped {
            wait: 0.012,
            cpu: 1,
            waited: thread(9, "CPU 0/TCG", GuestIndex::new(3).ok()),
            cause: Cause::Host,
            behind: thread(11, "cc1\u{1b}", None),
        };
        let text = stop(&stopped).replace('\n', " ");
        assert!(
            text.starts_with("CPU 0/TCG (g00003, thread 9) waited 12.00 ms for CPU 1;"),
            "{text}"
        );
        assert!(
            text.contains("something else of the host had it longest"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
