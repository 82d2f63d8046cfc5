//! Pages of runs that are empty, torn, hostile or huge. How pages look, a browser is
//! asked in the integration tests.

use super::*;
use crate::bundle::example;
use crate::bundle::types::{
    Baseline, GuestReply, Happening, Headline, MemoryFigures, Moment, Outcome, OverCommit,
    RunQueue, Setting, Stage,
};
use crate::control::types::MemoryParts;

/// What no page holds, whatever a run holds: an element of others, a character that
/// changes the direction of text or is a control.
fn assert_safe(page: &str) {
    for refused in [
        "<script",
        "<img",
        "<a href=\"h",
        "\u{202e}",
        "\u{1b}",
        "NaN",
        "\"inf",
        ">inf",
        "-inf",
    ] {
        assert!(!page.contains(refused), "the page has {refused:?}");
    }
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
    assert_eq!(
        page.matches("<figure>").count(),
        page.matches("</figure>").count()
    );
}

/// A page of the run, and one of it beside another.
fn pages(run: &Run) -> [String; 2] {
    let name = |name: &str| name.to_owned();
    [
        render(run),
        compare(&[(name("one"), example()), (name("<script>"), run.clone())]),
    ]
}

fn memory(bytes: u64, count: u32) -> MemoryFigures {
    MemoryFigures {
        bytes,
        count,
        parts: MemoryParts {
            cannot_merge: bytes,
            shared_by_all: bytes,
            kernel: bytes,
            ksm: bytes,
        },
        available: None,
        charged: None,
    }
}

/// A stage at which nothing could be measured.
fn unmeasured() -> Stage {
    Stage {
        ksm_state: None,
        memory: memory(0, 0),
        ksm: [].into(),
        starts: Vec::new(),
        answers: Vec::new(),
        deadline: None,
        logins: Vec::new(),
        burns: Vec::new(),
        cpu: [].into(),
        wakeups: None,
        pressure: [].into(),
        over_commit: OverCommit {
            cpu: 0.0,
            memory: 0.0,
            disk: None,
        },
        predicted: None,
        run_queue: Vec::new(),
        ..example().stages.swap_remove(0)
    }
}

#[test]
fn a_page_has_every_part_of_a_whole_run() {
    let page = render(&example());
    assert_safe(&page);
    for words in [
        "data-figure=\"guests\" value=\"300\"",
        "TCG, 2 CPUs, 24.0\u{a0}GiB of RAM, sharing: all",
        "Beside the baseline, at 100 guests",
        "How closely grouped?",
        "Jain’s index",
        "Kept at full size",
        "Guests that came back",
        "did not: no reply within 10 s",
        "1,024 times the disk",
        "-machine microvm,accel=tcg",
        "each setting that could be read was as before",
        "ksm-rate",
    ] {
        assert!(page.contains(words), "the page lacks {words}");
    }
    // Nothing of it is loaded from elsewhere, and it is one file.
    assert!(
        !page.contains("http:")
            || page.matches("http:").count() == page.matches("http://www.w3.org/2000/svg").count()
    );
    assert!(!page.contains("src=") && !page.contains("url("));
}

#[test]
fn what_was_not_measured_is_said() {
    let mut run = example();
    run.stages.clear();
    run.series.clear();
    run.events.clear();
    (run.baseline, run.hold, run.storm) = (None, None, None);
    run.headline = Headline::default();
    run.outcome = Outcome::Interrupted;
    for page in pages(&run) {
        assert_safe(&page);
    }
    let page = render(&run);
    for words in [
        "data-figure=\"guests_a_gib\" value=\"\">not measured",
        "Interrupted",
        "No stage was reached.",
        "The run-queue latency was not measured.",
        "Nothing was sampled over time.",
    ] {
        assert!(page.contains(words), "the page lacks {words}");
    }
    run.stages = vec![unmeasured()];
    for page in pages(&run) {
        assert_safe(&page);
    }
    assert!(render(&run).contains("The use of CPUs was not measured."));
}

#[test]
fn text_from_outside_stays_text() {
    let hostile = || "<script>alert(1)</script>\"'&\u{202e}\u{1b}]0;x\u{7}".to_owned();
    let mut run = example();
    run.fleet = hostile();
    run.imgbuild = hostile();
    run.outcome = Outcome::Failed(hostile());
    run.plan.command.push(hostile());
    let conditions = &mut run.conditions;
    for facts in [&mut conditions.host, &mut conditions.guest] {
        facts.insert(hostile(), hostile());
        for value in facts.values_mut() {
            *value = hostile();
        }
    }
    conditions.argv.push(hostile());
    let digest = *conditions.artifacts.values().next().unwrap();
    conditions.artifacts.insert(hostile(), digest);
    conditions.findings.push(hostile());
    conditions.settings.push(Setting {
        name: hostile(),
        before: Some(hostile()),
        during: Some(hostile()),
        after: None,
    });
    for stage in &mut run.stages {
        stage.ksm.insert(hostile(), 1);
        stage.pressure.insert(hostile(), 1.0);
        for reply in stage.answers.iter_mut().chain(&mut stage.logins) {
            reply.failed = Some(hostile());
        }
        stage.run_queue.push(RunQueue {
            source: hostile(),
            class: hostile(),
            cause: Some(hostile()),
            buckets: vec![1, 2, 3],
        });
    }
    let baseline: &mut Baseline = run.baseline.as_mut().unwrap();
    baseline.made_of.insert(hostile(), hostile());
    baseline.argv.push(hostile());
    let what = hostile();
    run.events.push(Happening { at_ms: 1, what });
    run.storm
        .as_mut()
        .unwrap()
        .back
        .iter_mut()
        .for_each(|reply| reply.failed = Some(hostile()));
    for page in pages(&run) {
        assert_safe(&page);
        assert!(page.contains("&lt;script&gt;"));
    }
}

#[test]
fn numbers_may_be_any() {
    for number in [
        f64::MAX,
        f64::MIN,
        f64::NAN,
        f64::INFINITY,
        f64::MIN_POSITIVE,
        0.0,
        -1.0,
    ] {
        let mut run = example();
        for (stage, guests) in run.stages.iter_mut().zip([0, 1, u32::MAX, u32::MAX]) {
            stage.guests = guests;
            (stage.began, stage.grown, stage.settled) = (number, -number, number);
            stage.memory = memory(u64::MAX, guests);
            stage.cpu.values_mut().for_each(|value| *value = number);
            stage
                .pressure
                .values_mut()
                .for_each(|value| *value = number);
            (stage.wakeups, stage.deadline) = (Some(number), Some(number));
            (stage.over_commit.cpu, stage.over_commit.memory) = (number, number);
            stage.run_queue[0].buckets = vec![u64::MAX; 100];
            stage
                .starts
                .iter_mut()
                .for_each(|start| start.ready = Some(number));
            stage
                .answers
                .iter_mut()
                .for_each(|reply| reply.seconds = number);
            stage
                .burns
                .iter_mut()
                .for_each(|burn| burn.rounds = Some(number));
        }
        run.series.iter_mut().for_each(|moment: &mut Moment| {
            moment.at = number;
            moment.unmerged = Some(u64::MAX);
        });
        (run.lasted, run.began) = (number, u64::MAX);
        run.headline.growing = 1.0;
        let hold = run.hold.as_mut().unwrap();
        (hold.began, hold.ended) = (number, -number);
        hold.answers
            .iter_mut()
            .for_each(|reply| reply.seconds = number);
        let storm = run.storm.as_mut().unwrap();
        storm
            .back
            .iter_mut()
            .for_each(|reply: &mut GuestReply| reply.seconds = number);
        for page in pages(&run) {
            assert_safe(&page);
        }
    }
}

#[test]
fn a_page_of_thousands_of_guests_stays_small() {
    let mut run = example();
    let last = run.stages.last_mut().unwrap();
    (last.guests, last.ready) = (6_000, 6_000);
    let guests = 20;
    last.answers = std::iter::repeat_n(last.answers.clone(), guests)
        .flatten()
        .collect();
    last.burns = std::iter::repeat_n(last.burns.clone(), guests)
        .flatten()
        .collect();
    run.series = std::iter::repeat_n(run.series, 200).flatten().collect();
    run.events = std::iter::repeat_n(run.events, 3_000).flatten().collect();
    let page = render(&run);
    assert_safe(&page);
    assert!(page.contains("8700 more are in run.json"));
    assert!(page.len() < 400_000, "{} bytes", page.len());
}
