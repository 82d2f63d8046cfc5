//! The page of a run and that of several, opened in a browser.

use std::fs;
use std::path::PathBuf;

use imgbuild::bundle::types::{Happening, Headline, Outcome, Run, Stage};
use imgbuild::page;
use imgbuild_tests::browser::{self, Layout, Scheme};
use imgbuild_tests::example::example;
use imgbuild_tests::{TestEnv, workspace};

const WIDTHS: [u32; 3] = [375, 800, 1440];

/// A run of many stages and of 6,417 guests, with texts that no program should have.
fn crowded() -> Run {
    let mut run = example();
    let last = run.stages.last().expect("the example has stages").clone();
    let counts = (2..=20).map(|at| at * 300).chain([6417]);
    run.stages.extend(counts.map(|guests| Stage {
        guests,
        ready: guests,
        ..last.clone()
    }));
    run.headline = imgbuild::bundle::headline(&run);
    let hostile = "<script>ran = true</script><img src=http://192.0.2.1/ onerror='ran = true'>\"&\
                   \u{202e}evil\u{1b}[2J";
    run.fleet = format!("{hostile}{}", "w".repeat(300));
    run.outcome = Outcome::Full(hostile.repeat(3));
    run.conditions
        .host
        .insert(hostile.to_owned(), hostile.repeat(9));
    run.conditions.argv.push("x".repeat(900));
    let what = hostile.to_owned();
    run.events.push(Happening {
        at_ms: u64::MAX,
        what,
    });
    run
}

/// A run that ended before anything was measured.
fn empty() -> Run {
    Run {
        outcome: Outcome::Interrupted,
        headline: Headline::default(),
        stages: Vec::new(),
        series: Vec::new(),
        events: Vec::new(),
        baseline: None,
        hold: None,
        storm: None,
        ..example()
    }
}

#[test]
fn the_headline_can_be_read_from_the_page() {
    let env = TestEnv::new();
    let run = example();
    let file = env.path().join("report.html");
    fs::write(&file, page::render(&run)).unwrap();
    let dom = browser::dom(&env, &file).replace("&nbsp;", " ");
    let headline = &run.headline;
    let known = |value: Option<f64>| value.expect("the example has all figures").to_string();
    for (name, value) in [
        ("guests", headline.guests.to_string()),
        ("ready", headline.ready.to_string()),
        ("bytes_a_guest", headline.bytes_a_guest.unwrap().to_string()),
        ("guests_a_gib", known(headline.guests_a_gib)),
        ("answered", headline.answered.to_string()),
        ("asked", headline.asked.to_string()),
        ("answered_within", known(headline.answered_within)),
        ("least_cpu", known(headline.least_cpu)),
        ("tried", headline.tried.to_string()),
        ("reached", headline.reached.to_string()),
        ("growing", headline.growing.to_string()),
        ("peak", known(headline.peak)),
        ("fairness", known(headline.fairness)),
        ("least_burn", known(headline.least_burn)),
        ("baseline_ratio", known(headline.baseline_ratio)),
    ] {
        let figure = format!("data-figure=\"{name}\" value=\"{value}\"");
        assert!(dom.contains(&figure), "the page lacks {figure}");
    }
    for words in ["TCG, 2 CPUs, 24.0 GiB of RAM, sharing: all", "Complete"] {
        assert!(dom.contains(words), "the page lacks {words}");
    }
    browser::print(&env, &file, &kept("report.pdf"));
}

#[test]
fn nothing_overflows_loads_or_runs_at_any_width_in_light_or_dark() {
    let env = TestEnv::new();
    let (run, other) = (example(), crowded());
    let rendered = page::render(&run);
    let pages = [
        ("run", rendered.clone()),
        ("crowded", page::render(&other)),
        ("empty", page::render(&empty())),
        (
            "comparison",
            page::compare(&[("a".to_owned(), run), (other.fleet.clone(), other)]),
        ),
    ];
    let pages: Vec<_> = pages
        .iter()
        .map(|(name, page)| (*name, page.as_str()))
        .collect();
    let mut grounds = Vec::new();
    for scheme in [Scheme::Light, Scheme::Dark] {
        let layouts = browser::layouts(&env, &pages, &WIDTHS, scheme);
        assert_eq!(layouts.len(), pages.len() * WIDTHS.len());
        for layout in &layouts {
            assert_eq!(layout.width, layout.wanted, "{layout:?}");
            assert!(layout.needed <= layout.width, "{layout:?}");
            assert_eq!(layout.is_dark, scheme == Scheme::Dark, "{layout:?}");
            assert!(!layout.ran && layout.loading.is_empty(), "{layout:?}");
            assert!(layout.faults.is_empty(), "{layout:?}");
        }
        grounds.push(layouts[0].ground.clone());
        // In dark, the narrow page shows all that differs.
        let is_drawn = |width: u32| scheme == Scheme::Light || width == WIDTHS[0];
        let drawn = layouts.iter().filter(|layout| layout.page == "run");
        for layout in drawn.filter(|layout| is_drawn(layout.width)) {
            picture(&env, &rendered, layout, scheme);
        }
    }
    assert_ne!(grounds[0], grounds[1]);
}

#[test]
fn what_is_put_into_a_page_does_not_load_or_run_and_is_noticed() {
    let env = TestEnv::new();
    let page = page::render(&empty());
    let (head, foot) = page.split_once("<main>").expect("the page has a main part");
    let put = "<script>ran = true</script><svg class=w width=2000 height=9></svg>\
               <div class=drawing><svg><text y=9>one</text><text y=9>two</text></svg></div>";
    let page = format!("{head}<main>{put}{foot}");
    let without_policy = page.replace("http-equiv", "data-was");
    let pages = [("policy", page.as_str()), ("none", without_policy.as_str())];
    let layouts = browser::layouts(&env, &pages, &[375], Scheme::Light);
    for layout in &layouts {
        assert!(
            layout.needed > 2000 && layout.loading.len() == 1,
            "{layout:?}"
        );
        assert_eq!(layout.faults, ["one meets two"], "{layout:?}");
        assert_eq!(layout.ran, layout.page == "none", "{layout:?}");
    }
}

/// Where a picture is kept for people.
fn kept(name: &str) -> PathBuf {
    let folder = workspace().join("target/page");
    fs::create_dir_all(&folder).expect("the target folder is ours");
    folder.join(name)
}

fn picture(env: &TestEnv, page: &str, layout: &Layout, scheme: Scheme) {
    let name = format!("{}-{}-{scheme:?}.png", layout.page, layout.width).to_lowercase();
    let size = (layout.width, layout.height);
    browser::screenshot(env, page, size, scheme, &kept(&name));
}
