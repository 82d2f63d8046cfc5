//! Bundles of runs, without a guest: what the verbs say of good ones, and of those that
//! are torn, edited, newer or made up.

use std::fs;
use std::path::{Path, PathBuf};

use imgbuild::bundle::types::Run;
use imgbuild::bundle::{Bundle, files};
use imgbuild::digest::Sha256;
use imgbuild_tests::{TestEnv, run, workspace};
use jsonschema::validator_for;
use serde_json::Value;

#[expect(unreachable_pub, reason = "unit tests of imgbuild have it, too")]
#[path = "../../builder/src/bundle/example.rs"]
mod example;

use example::{example, shard};

/// Writes a bundle and gives its folder.
fn bundle(env: &TestEnv, name: &str, run: &Run) -> PathBuf {
    let folder = env.path().join(name);
    let mut bundle = Bundle::create(&folder).unwrap();
    bundle.write(run, Some("<!doctype html>")).unwrap();
    folder
}

/// Gives a file other content, which the list of digests names as its own.
fn forge(folder: &Path, file: &str, content: &str) {
    let path = folder.join(file);
    let before = Sha256::of_file(&path).unwrap().to_string();
    fs::write(&path, content).unwrap();
    let after = Sha256::of_bytes(content).to_string();
    let sums = folder.join(files::SHA256SUMS);
    let text = fs::read_to_string(&sums).unwrap().replace(&before, &after);
    fs::write(&sums, text).unwrap();
}

#[test]
fn a_bundle_is_verified_down_to_its_headline() {
    let env = TestEnv::new();
    let folder = bundle(&env, "a", &example());
    let good = fs::read_to_string(folder.join(files::RUN)).unwrap();
    let verify = || run(&mut env.imgbuild(["verify", "a"]));
    let finished = verify().succeeds();
    assert!(
        finished
            .stdout
            .starts_with("a: its files, tables and headline are")
    );
    // sha256sum reads the list, too.
    run(env
        .command("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&folder))
    .succeeds();

    for (file, from, to, said) in [
        (
            files::RUN,
            "\"answered\": 300",
            "\"answered\": 299",
            "headline.answered: 299, and the samples give 300",
        ),
        (
            files::RUN,
            "\"bytes_a_guest\": ",
            "\"bytes_a_guest\": 1",
            "headline.bytes_a_guest: 1",
        ),
        (
            files::SAMPLES,
            "hold,replaced,,,2,",
            "hold,replaced,,,0,",
            "samples.csv: it does not have the samples of run.json",
        ),
        (
            files::HISTOGRAMS,
            "storm,back",
            "storm,gone",
            "histograms.csv: it does not have",
        ),
    ] {
        fs::remove_dir_all(&folder).unwrap();
        bundle(&env, "a", &example());
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.contains(from), "{from}");
        forge(&folder, file, &text.replacen(from, to, 1));
        let finished = verify().exits(1);
        assert_eq!(finished.stdout.lines().count(), 1, "{}", finished.stdout);
        assert!(finished.stdout.starts_with(said), "{}", finished.stdout);
    }

    // An edited file is named, whatever else follows from it.
    fs::remove_dir_all(&folder).unwrap();
    bundle(&env, "a", &example());
    fs::write(
        folder.join(files::RUN),
        good.replacen("\"ready\": 300", "\"ready\": 200", 1),
    )
    .unwrap();
    fs::remove_file(folder.join(files::PAGE)).unwrap();
    fs::write(folder.join("notes"), "mine").unwrap();
    let said = run(&mut env.imgbuild(["verify", "a", "--json"]))
        .exits(1)
        .stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let differences = said["differences"].as_array().unwrap();
    let found: Vec<_> = differences
        .iter()
        .map(|one| {
            (
                one["difference"].as_str().unwrap(),
                one["file"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("missing", "report.html"),
            ("digest", "run.json"),
            ("extra", "notes")
        ]
    );
    let error = run(&mut env.imgbuild(["report", "a"])).exits(1).stderr;
    assert!(error.contains("report.html: missing"), "{error}");
}

#[test]
fn every_verb_says_what_is_wrong_with_a_bundle() {
    let env = TestEnv::new();
    let folder = bundle(&env, "a", &example());
    let path = folder.join(files::RUN);
    let good = fs::read_to_string(&path).unwrap();
    for (text, said) in [
        (&good[..good.len() / 2], "a/run.json: EOF while parsing"),
        (
            "{\"run_version\": 9, \"more\": true}",
            "a/run.json: run version 9, and this imgbuild knows version 1",
        ),
    ] {
        fs::write(&path, text).unwrap();
        for verb in [
            &["verify", "a"][..],
            &["report", "a"],
            &["compare", "a", "a"],
        ] {
            let finished = run(&mut env.imgbuild(verb)).exits(1);
            assert!(finished.stderr.contains(said), "{}", finished.stderr);
            assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        }
    }
    let finished = run(&mut env.imgbuild(["report", "nothing"])).exits(1);
    assert!(
        finished.stderr.contains("nothing is not a bundle"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_run_is_reported_on_a_screen_as_csv_json_and_a_page() {
    let env = TestEnv::new();
    let folder = bundle(&env, "a", &example());
    let report = |more: &[&str]| {
        run(env.imgbuild(["report", "a"]).args(more))
            .succeeds()
            .stdout
    };
    let text = report(&[]);
    for said in [
        "tty-burn: 300 guests, 300 ready; complete",
        "3.60 MiB of host memory a guest, 284 guests a GiB",
        "300 of 300 answered within 150 ms; 299 of 300 reached by SSH",
        "at 100 guests the reference's way takes 11.2 × as much memory",
        "Hold: 10 min; 3.60 MiB",
        "90 of 90 came back",
        "accel tcg",
    ] {
        assert!(text.contains(said), "{said:?} is not in {text}");
    }
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.lines().count() <= 48, "{text}");

    let samples = fs::read_to_string(folder.join(files::SAMPLES)).unwrap();
    assert_eq!(report(&["--csv"]), samples);
    let json: Value = serde_json::from_str(&report(&["--json"])).unwrap();
    let document = fs::read_to_string(folder.join(files::RUN)).unwrap();
    assert_eq!(json, serde_json::from_str::<Value>(&document).unwrap());
    assert_eq!(report(&["--html", "page.html"]), "");
    let page = fs::read_to_string(env.path().join("page.html")).unwrap();
    assert!(page.contains("tty-burn"), "{page}");
    let error = run(&mut env.imgbuild(["report", "a", "--html", "no/page"])).exits(1);
    assert!(
        error.stderr.contains("cannot write the page no/page"),
        "{}",
        error.stderr
    );
}

#[test]
fn what_a_bundle_says_is_never_obeyed_by_a_terminal() {
    let env = TestEnv::new();
    let evil = "\u{1b}[2J\r\nfake: 9,999 guests\u{202e}".to_owned();
    let mut one = example();
    one.fleet.clone_from(&evil);
    one.imgbuild.clone_from(&evil);
    one.conditions.host.insert(evil.clone(), evil.clone());
    one.conditions.settings[0].name.clone_from(&evil);
    one.conditions.findings[0].clone_from(&evil);
    one.plan.command.push(evil.clone());
    let made_of = &mut one.baseline.as_mut().unwrap().made_of;
    made_of.insert("kernel".to_owned(), evil.clone());
    bundle(&env, "a", &one);
    let mut other = one.clone();
    other.fleet = "other".to_owned();
    other.conditions.host.insert("kernel".to_owned(), evil);
    bundle(&env, "b", &other);
    for words in [
        &["report", "a"][..],
        &["report", "a", "--csv"],
        &["report", "a", "--json"],
        &["report", "a", "b"],
        &["compare", "a", "b"],
        &["compare", "a", "b", "--anyway"],
        &["compare", "a", "b", "--anyway", "--json"],
    ] {
        let finished = run(&mut env.imgbuild(words));
        let said = finished.stdout + &finished.stderr;
        assert!(
            !said.contains(['\u{1b}', '\r', '\u{202e}']),
            "{words:?}: {said:?}"
        );
        assert!(
            !said.lines().any(|line| line.starts_with("fake:")),
            "{words:?}: {said}"
        );
    }
}

#[test]
fn shards_of_a_fleet_are_reported_as_one() {
    let env = TestEnv::new();
    bundle(&env, "a", &shard(0));
    let mut second = shard(300);
    let host = &mut second.conditions.host;
    host.insert("boot".to_owned(), "another".to_owned());
    host.insert("kernel".to_owned(), "Linux 6.18".to_owned());
    bundle(&env, "b", &second);
    let text = run(&mut env.imgbuild(["report", "b", "a"]))
        .succeeds()
        .stdout;
    assert!(
        text.starts_with("tty-burn: 600 guests, 600 ready; complete"),
        "{text}"
    );
    assert!(
        text.contains("Its hosts differ:\n  kernel: Linux 6.12.117"),
        "{text}"
    );
    let error = run(&mut env.imgbuild(["report", "a", "a"])).exits(1).stderr;
    assert!(error.contains("a fleet has each guest once"), "{error}");
}

#[test]
fn runs_are_compared_unless_what_matters_differs() {
    let env = TestEnv::new();
    bundle(&env, "a", &example());
    let mut other = example();
    other
        .conditions
        .host
        .insert("thp".to_owned(), "always".to_owned());
    bundle(&env, "b", &other);
    let text = run(&mut env.imgbuild(["compare", "a", "b"]))
        .succeeds()
        .stdout;
    assert!(
        text.contains("transparent huge pages: A madvise, B always"),
        "{text}"
    );
    assert!(
        text.contains("memory a guest                            3.60 MiB   3.60 MiB  ×1.00"),
        "{text}"
    );

    other
        .conditions
        .guest
        .insert("accel".to_owned(), "kvm".to_owned());
    other.conditions.memory = 32 << 30;
    bundle(&env, "c", &other);
    let error = run(&mut env.imgbuild(["compare", "a", "c"]))
        .exits(1)
        .stderr;
    for said in [
        "the accelerator (A tcg, B kvm)",
        "the host's RAM",
        "--anyway",
    ] {
        assert!(error.contains(said), "{error}");
    }
    assert!(!error.contains("huge pages"), "{error}");
    let anyway = |more: &[&str]| {
        run(env.imgbuild(["compare", "a", "c", "--anyway"]).args(more))
            .succeeds()
            .stdout
    };
    assert!(anyway(&[]).contains("the accelerator, which matters: A tcg, B kvm"));
    let json: Value = serde_json::from_str(&anyway(&["--json"])).unwrap();
    assert_eq!(json["differing"][0]["condition"], "accel");
    assert_eq!(
        json["figures"][0]["values"],
        serde_json::json!([300.0, 300.0])
    );
    anyway(&["--html", "page.html"]);
    assert!(env.path().join("page.html").exists());
    run(&mut env.imgbuild(["compare", "a"])).exits(2);
}

#[test]
fn the_schema_that_is_published_is_that_of_a_run() {
    let env = TestEnv::new();
    let printed = run(&mut env.imgbuild(["api-schema", "--of", "run"]))
        .succeeds()
        .stdout;
    let published = fs::read_to_string(workspace().join("docs/run.schema.json")).unwrap();
    assert_eq!(printed, published, "`just docs` writes it again");
    let schema = validator_for(&serde_json::from_str(&printed).unwrap()).unwrap();
    let good = serde_json::to_value(example()).unwrap();
    let wrong: Vec<_> = schema
        .iter_errors(&good)
        .map(|error| error.to_string())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let mut strange = good;
    strange["stages"][0]["guests"] = "many".into();
    assert!(!schema.is_valid(&strange));
}
