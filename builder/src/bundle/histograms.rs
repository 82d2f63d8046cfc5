//! `histograms.csv`: each distribution of a run in buckets of powers of two, stage by
//! stage.

use super::csv::Sheet;
use super::types::{GuestReply, Run, RunQueue, Stage};

/// The first line.
const HEAD: [&str; 8] = [
    "stage", "what", "source", "class", "cause", "from_us", "to_us", "count",
];

/// Times in buckets of 2^N to 2^(N+1) microseconds, N from 0; the first has shorter
/// ones too. The last bucket is not empty.
pub(crate) fn log2(seconds: impl IntoIterator<Item = f64>) -> Vec<u64> {
    let mut buckets = Vec::new();
    for seconds in seconds {
        let bucket = (seconds * 1e6).max(1.0).log2();
        if !bucket.is_finite() {
            continue;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a logarithm of a number from 1 on is from 0 to 1,024"
        )]
        let bucket = bucket as usize;
        if buckets.len() <= bucket {
            buckets.resize(bucket + 1, 0);
        }
        buckets[bucket] += 1;
    }
    buckets
}

/// The text of the file.
pub(crate) fn csv(run: &Run) -> String {
    let mut sheet = Sheet::new(&HEAD);
    if let Some(baseline) = &run.baseline {
        times(&mut sheet, "baseline", "login", good(&baseline.logins));
    }
    for stage in &run.stages {
        of_stage(&mut sheet, stage);
    }
    if let Some(hold) = &run.hold {
        times(&mut sheet, "hold", "answer", good(&hold.answers));
    }
    if let Some(storm) = &run.storm {
        times(&mut sheet, "storm", "back", good(&storm.back));
    }
    sheet.text()
}

fn of_stage(sheet: &mut Sheet, stage: &Stage) {
    let label = stage.guests.to_string();
    let starts = || stage.starts.iter();
    let process = starts().map(|start| start.process - stage.began);
    times(sheet, &label, "process", process);
    times(
        sheet,
        &label,
        "spoke",
        starts().filter_map(|start| start.spoke),
    );
    times(
        sheet,
        &label,
        "ready",
        starts().filter_map(|start| start.ready),
    );
    times(sheet, &label, "answer", good(&stage.answers));
    times(sheet, &label, "login", good(&stage.logins));
    for queue in &stage.run_queue {
        let RunQueue {
            source,
            class,
            cause,
            buckets,
        } = queue;
        let cause = cause.as_deref().unwrap_or_default();
        rows(sheet, [&label, "run_queue", source, class, cause], buckets);
    }
}

/// The times of the replies that count.
fn good(replies: &[GuestReply]) -> impl Iterator<Item = f64> {
    let good = replies.iter().filter(|reply| reply.failed.is_none());
    good.map(|reply| reply.seconds)
}

fn times(sheet: &mut Sheet, stage: &str, what: &str, seconds: impl IntoIterator<Item = f64>) {
    rows(sheet, [stage, what, "", "", ""], &log2(seconds));
}

fn rows(sheet: &mut Sheet, name: [&str; 5], buckets: &[u64]) {
    for (bucket, count) in (0..).zip(buckets) {
        let bound = |power: u32| 1_u64.checked_shl(power).unwrap_or(u64::MAX);
        let from = if bucket == 0 { 0 } else { bound(bucket) };
        let [stage, what, source, class, cause] = name;
        let (from, to) = (from.to_string(), bound(bucket + 1).to_string());
        let count = count.to_string();
        sheet.row(&[stage, what, source, class, cause, &from, &to, &count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_bucket_of_its_power_of_two() {
        assert!(log2([]).is_empty());
        // 0 and 1 µs, 2 µs, and 3 and 4 µs apart.
        assert_eq!(log2([0.0, 1e-6, 2e-6, 3e-6, 4e-6]), [2, 2, 1]);
        assert_eq!(log2([-1.0, f64::NAN, f64::INFINITY]), [2]);
        assert_eq!(log2([1.0]).len(), 20);
    }
}
