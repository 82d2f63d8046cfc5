use std::fs::File;
use std::os::unix::fs::symlink;

use serde_json::Value;
use tempfile::TempDir;

use super::super::example::example;
use super::super::files::{HISTOGRAMS, PAGE, SAMPLES};
use super::super::write::Bundle;
use super::*;
use crate::plain::tests::fifo;

/// A run with little in it.
fn small() -> Run {
    let mut run = example();
    run.stages.truncate(1);
    run.series.truncate(1);
    run.baseline = None;
    run.hold = None;
    run.storm = None;
    run
}

fn bundle(run: &Run) -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("bundle");
    let mut bundle = Bundle::create(&folder).unwrap();
    bundle.write(run, Some("<!doctype html>")).unwrap();
    (parent, folder)
}

/// Gives the document other content, which the list of digests names as its own.
fn forge(folder: &Path, content: &str) {
    let path = folder.join(RUN);
    let before = Sha256::of_file(&path).unwrap().to_string();
    fs::write(&path, content).unwrap();
    let sums = read_sums(folder).unwrap();
    let after = Sha256::of_bytes(content).to_string();
    fs::write(folder.join(SHA256SUMS), sums.replace(&before, &after)).unwrap();
}

#[test]
fn what_was_written_is_read() {
    let (_parent, folder) = bundle(&example());
    assert_eq!(open(&folder).unwrap(), example());
    let (mut resumed, mut run) = Bundle::resume(&folder).unwrap();
    run.lasted += 1.0;
    resumed.write(&run, None).unwrap();
    assert_eq!(open(&folder).unwrap(), run);
    let page = folder.join(PAGE);
    assert!(!page.exists());
}

#[test]
fn a_document_that_is_torn_anywhere_is_refused() {
    let (_parent, folder) = bundle(&small());
    let path = folder.join(RUN);
    let whole = fs::read(&path).unwrap();
    // All would take long; 7 and the length of a line have no common rhythm.
    for length in (0..whole.len())
        .step_by(7)
        .chain([whole.len() - 2, whole.len() - 1])
    {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(&folder).unwrap_err();
        // All of it but the end of the last line.
        if length + 1 == whole.len() {
            assert!(matches!(error, OpenError::Differs { .. }), "{error}");
        } else {
            assert!(matches!(error, OpenError::Malformed { .. }), "{error}");
        }
    }
}

#[test]
fn a_file_of_which_a_byte_was_edited_is_refused() {
    let (_parent, folder) = bundle(&small());
    for file in [RUN, SAMPLES, HISTOGRAMS, PAGE, SHA256SUMS] {
        let path = folder.join(file);
        let whole = fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(whole.len().div_ceil(50)) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 7);
            fs::write(&path, &bytes).unwrap();
            match open(&folder) {
                Err(_) => {}
                // A digest may be written in capitals.
                Ok(run) => assert!(file == SHA256SUMS && run == small(), "{file}: {place}"),
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(open(&folder).unwrap(), small());
}

#[test]
fn a_newer_version_is_named_with_the_one_that_is_known() {
    let (_parent, folder) = bundle(&small());
    for (text, found) in [
        (r#"{"run_version": 2, "anything": [1]}"#, 2),
        (r#"{"run_version": 0}"#, 0),
    ] {
        fs::write(folder.join(RUN), text).unwrap();
        let error = open(&folder).unwrap_err().to_string();
        let said = format!("run version {found}, and this imgbuild knows version 1");
        assert!(error.contains(&said), "{error}");
    }
}

#[test]
fn a_document_that_was_made_up_is_refused_in_few_words() {
    let (_parent, folder) = bundle(&small());
    let good = fs::read_to_string(folder.join(RUN)).unwrap();
    let long = "x".repeat(1 << 20);
    let deep = format!(r#"{{"run_version": 1, "x": {}"#, "[".repeat(1 << 20));
    let lasted = r#""lasted": 1250.5"#;
    assert!(good.contains(lasted));
    for (text, said) in [
        (deep, "EOF while parsing a list"),
        (good.replace(lasted, r#""lasted": NaN"#), "expected value"),
        (good.replace(lasted, r#""lasted": 1e999"#), "out of range"),
        (good.replace(lasted, r#""lasted": null"#), "invalid type"),
        (
            good.replace(lasted, &format!("{lasted}, {lasted}")),
            "duplicate",
        ),
        (
            good.replace("\"lasted\"", &format!("\"{long}\"")),
            "unknown field",
        ),
        (
            good.replace("\"first\": \"g00000\"", "\"first\": \"../x\""),
            "does not name a guest",
        ),
    ] {
        forge(&folder, &text);
        let error = open(&folder).unwrap_err();
        assert!(matches!(error, OpenError::Malformed { .. }), "{error}");
        let error = error.to_string();
        assert!(error.contains(said) && error.len() < 1_000, "{error}");
    }
    // A guest that there cannot be.
    let mut value: Value = serde_json::from_str(&good).unwrap();
    value["plan"]["first"] = "g99999999".into();
    forge(&folder, &value.to_string());
    assert!(open(&folder).is_err());
}

#[test]
fn only_regular_files_of_bounded_size_are_read() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 7] = [
        (
            |folder| fs::remove_file(folder.join(RUN)).unwrap(),
            "is not a bundle",
        ),
        (
            |folder| fs::remove_file(folder.join(SAMPLES)).unwrap(),
            "samples.csv: missing",
        ),
        (
            |folder| fs::remove_file(folder.join(SHA256SUMS)).unwrap(),
            "SHA256SUMS: No such file",
        ),
        (
            |folder| {
                fs::rename(folder.join(RUN), folder.join("other")).unwrap();
                symlink("other", folder.join(RUN)).unwrap();
            },
            "run.json: it is not a regular file",
        ),
        (
            |folder| {
                fs::remove_file(folder.join(SHA256SUMS)).unwrap();
                symlink("/dev/zero", folder.join(SHA256SUMS)).unwrap();
            },
            "SHA256SUMS: it is not a regular file",
        ),
        (
            |folder| {
                fs::remove_file(folder.join(HISTOGRAMS)).unwrap();
                fifo(&folder.join(HISTOGRAMS));
            },
            "histograms.csv: it is not a regular file",
        ),
        (
            |folder| {
                let file = File::options()
                    .write(true)
                    .open(folder.join(SAMPLES))
                    .unwrap();
                file.set_len(FILE_MAX + 1).unwrap();
            },
            "samples.csv: 268435457 bytes; a file of a bundle has at most",
        ),
    ];
    for (change, said) in changes {
        let (_parent, folder) = bundle(&small());
        change(&folder);
        let error = open(&folder).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_list_of_digests_names_the_files_of_a_bundle_and_no_others() {
    let (_parent, folder) = bundle(&small());
    let path = folder.join(SHA256SUMS);
    let good = fs::read_to_string(&path).unwrap();
    let line = |name: &str| format!("{}  {name}\n", "0".repeat(64));
    for (text, said) in [
        (String::new(), "run.json is not listed"),
        (
            good.replace(SAMPLES, "../samples.csv"),
            "\"../samples.csv\" is not a file of a bundle",
        ),
        (
            good.replace(PAGE, "/etc/passwd"),
            "is not a file of a bundle",
        ),
        (good.clone() + &line(RUN), "run.json is listed twice"),
        (good.clone() + "x  run.json", "`x` is not a SHA-256 digest"),
        (good.clone() + "\u{1b}[2J", "is not a digest and a name"),
    ] {
        fs::write(&path, text).unwrap();
        let error = open(&folder).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
