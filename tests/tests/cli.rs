//! The command line itself: help, pages, completions, and how it talks.

use std::fs;

use clap::CommandFactory as _;
use imgbuild::cli::Cli;
use imgbuild_tests::{TestEnv, run};
use serde_json::Value;

/// Every verb, as the words that a user types, with its flags.
fn verbs() -> Vec<(Vec<String>, Vec<String>)> {
    fn walk(
        command: &clap::Command,
        words: &[String],
        found: &mut Vec<(Vec<String>, Vec<String>)>,
    ) {
        let flags = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .map(|flag| format!("--{flag}"))
            .collect();
        found.push((words.to_vec(), flags));
        for sub in command.get_subcommands() {
            if sub.get_name() != "help" {
                walk(sub, &[words, &[sub.get_name().to_owned()]].concat(), found);
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    walk(&command, &[], &mut found);
    assert!(found.len() > 8, "{found:?}");
    found
}

#[test]
fn help_explains_every_flag_within_80_columns() {
    let env = TestEnv::new();
    for (words, flags) in verbs() {
        for help in ["-h", "--help"] {
            let text = run(env.imgbuild(&words).arg(help)).succeeds().stdout;
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{words:?}: {line}");
            }
            for flag in &flags {
                assert!(explained(&text, flag), "{words:?}: {flag} in {text}");
            }
        }
    }
}

/// Whether a flag's line in a help text, or the one below it, explains it.
fn explained(help: &str, flag: &str) -> bool {
    let mut lines = help.lines().skip_while(|line| {
        !line
            .trim_start()
            .trim_start_matches(|letter: char| letter == '-' && !line.trim().starts_with("--"))
            .contains(flag)
            || !line.trim_start().starts_with('-')
    });
    let (Some(line), next) = (lines.next(), lines.next()) else {
        return false;
    };
    let beside = line.trim_start().split_once("  ").map(|(_, text)| text);
    let below = next.filter(|line| line.starts_with("          "));
    beside.or(below).is_some_and(|text| !text.trim().is_empty())
}

#[test]
fn a_wrong_verb_or_none_is_a_usage_error() {
    let env = TestEnv::new();
    for (arguments, said) in [
        (&["tty-bern"][..], "tty-burn"),
        (&[], "Usage: imgbuild"),
        (&["kernel"], "Usage: imgbuild kernel"),
        (&["list", "--nope"], "--nope"),
        (&["completions", "tcsh"], "bash"),
    ] {
        let finished = run(&mut env.imgbuild(arguments)).exits(2).says(&[said]);
        assert_eq!(finished.stdout, "", "{arguments:?}");
    }
    let version = run(&mut env.imgbuild(["--version"])).succeeds().stdout;
    assert!(version.starts_with("imgbuild 0."), "{version}");
}

#[test]
fn completions_are_scripts_that_know_every_verb() {
    let env = TestEnv::new();
    for (shell, mark) in [
        ("bash", "complete -F _imgbuild"),
        ("zsh", "#compdef imgbuild"),
        ("fish", "complete -c imgbuild"),
    ] {
        let script = run(&mut env.imgbuild(["completions", shell]))
            .succeeds()
            .stdout;
        assert!(script.contains(mark), "{shell}");
        for (words, _) in verbs() {
            let last = words.last().map_or("", String::as_str);
            assert!(script.contains(last), "{shell}: {words:?}");
        }
        fs::write(env.path().join(shell), script).unwrap();
    }
    run(env.command("bash").args(["-n", "bash"])).succeeds();
}

#[test]
fn man_writes_one_page_a_verb_the_same_every_time() {
    let env = TestEnv::new();
    for folder in ["one", "two"] {
        run(&mut env.imgbuild(["man", folder])).succeeds();
    }
    let mut pages: Vec<String> = fs::read_dir(env.path().join("one"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort_unstable();
    let mut wanted = Vec::new();
    for (words, flags) in verbs() {
        let page = format!(
            "{}.1",
            [&["imgbuild".to_owned()], &words[..]].concat().join("-")
        );
        let text = fs::read_to_string(env.path().join("one").join(&page)).unwrap();
        assert!(text.starts_with(".ie") && text.contains("\n.TH "), "{page}");
        assert!(text.contains("\n.SH NAME\n"), "{page}");
        for flag in flags {
            let flag = flag.replace('-', "\\-");
            assert!(text.contains(&flag), "{page}: {flag}");
        }
        let again = fs::read_to_string(env.path().join("two").join(&page)).unwrap();
        assert_eq!(text, again);
        wanted.push(page);
    }
    wanted.sort_unstable();
    assert_eq!(pages, wanted);
}

#[test]
fn quiet_says_nothing_where_all_is_well() {
    let env = TestEnv::new();
    let finished = run(&mut env.imgbuild(["tty-burn", "--no-boot", "--quiet"])).succeeds();
    assert_eq!(finished.stderr, "");
    assert!(finished.stdout.contains("output "));
    run(&mut env.imgbuild(["build", "none", "--quiet"]))
        .exits(2)
        .says(&["error: no recipe named none"]);
}

#[test]
fn json_messages_are_one_object_a_line() {
    let env = TestEnv::new();
    let json = ["--log-format", "json"];
    let messages = |text: &str| -> Vec<Value> {
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    };
    let built = run(env.imgbuild(["tty-burn", "--no-boot", "-v"]).args(json)).succeeds();
    let said = messages(&built.stderr);
    assert!(!said.is_empty());
    for message in said {
        assert!(message["fields"]["message"].is_string(), "{message}");
        assert!(message["level"].is_string(), "{message}");
    }
    let failed = run(env.imgbuild(["verify", "none"]).args(json)).exits(1);
    let [error] = &messages(&failed.stderr)[..] else {
        panic!("{}", failed.stderr);
    };
    assert_eq!(error["level"], "ERROR");
    let text = error["fields"]["message"].as_str().unwrap();
    assert!(text.contains("none/manifest.json"), "{text}");
}

/// What a name may hold to be taken for more than a name.
const HOSTILE: &str = "a\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2066}\rerror: forged\nerror: forged";

/// Whether a terminal would obey any of it.
fn is_obeyed(text: &str) -> bool {
    text.contains(|character: char| {
        character.is_control() && character != '\n'
            || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

#[test]
fn a_terminal_obeys_nothing_that_is_quoted() {
    let env = TestEnv::new();
    let failed = run(&mut env.imgbuild(["verify", HOSTILE])).exits(1);
    assert!(!is_obeyed(&failed.stderr), "{:?}", failed.stderr);
    let lines = failed.stderr.lines();
    assert_eq!(lines.filter(|line| line.starts_with("error: ")).count(), 1);
    let failed = run(&mut env.imgbuild(["verify", HOSTILE, "--log-format", "json"])).exits(1);
    assert!(!is_obeyed(&failed.stderr), "{:?}", failed.stderr);
    let message: Value = serde_json::from_str(&failed.stderr).unwrap();
    let said = message["fields"]["message"].as_str().unwrap();
    assert!(said.contains(HOSTILE), "{said:?}");

    run(&mut env.imgbuild(["list", HOSTILE])).exits(2);
    for (arguments, setting) in [
        (vec!["list", HOSTILE], ""),
        (vec!["build", "--help"], HOSTILE),
    ] {
        let said = run(env.imgbuild(arguments).env("IMGBUILD_OUT", setting));
        let said = said.stdout + &said.stderr;
        assert!(said.contains("Usage") && !is_obeyed(&said), "{said:?}");
    }

    let out = env.artifacts("tty-idle");
    fs::write(out.join(HOSTILE), "").unwrap();
    let differs = run(env.imgbuild(["verify"]).arg(&out)).exits(1).stdout;
    assert_eq!(differs.lines().count(), 1, "{differs:?}");
    assert!(!is_obeyed(&differs), "{differs:?}");
    let json = run(env.imgbuild(["verify", "--json"]).arg(&out)).exits(1);
    assert!(!is_obeyed(&json.stdout), "{:?}", json.stdout);
    assert_eq!(json.json_lines()[0]["differences"][0]["file"], HOSTILE);
}

#[test]
fn an_error_gives_its_reason_once() {
    let env = TestEnv::new();
    let finished = run(&mut env.imgbuild(["verify", "none"])).exits(1);
    let reasons = finished.stderr.matches("No such file or directory").count();
    assert_eq!(reasons, 1, "{}", finished.stderr);
}

#[test]
fn a_terminal_gets_colours_unless_no_color_is_set() {
    let env = TestEnv::new();
    let shown = |no_color: &str| {
        let binary = imgbuild_tests::binary().display();
        run(env
            .command("script")
            .args(["--quiet", "--command"])
            .arg(format!("'{binary}' --help; '{binary}' nope"))
            .arg("/dev/null")
            .env("TERM", "xterm")
            .env("NO_COLOR", no_color))
        .succeeds()
        .stdout
    };
    assert!(shown("").contains("\x1b["));
    let plain = shown("1");
    assert!(plain.contains("Usage"), "{plain}");
    assert!(!plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-burn");
    for arguments in [
        &["list"][..],
        &["list", "--json"],
        &["--help"],
        &["completions", "bash"],
        &["verify", out.to_str().unwrap()],
        &["tty-burn", "--no-boot", "--json"],
        &[
            "launch",
            out.to_str().unwrap(),
            "--count=1",
            "--accel=tcg",
            "--for=1s",
        ],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = env.imgbuild(arguments).stdout(writer).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let env = TestEnv::new();
    for arguments in [&["list"][..], &["completions", "bash"]] {
        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = env.imgbuild(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains("No space left on device"), "{said}");
    }
}
