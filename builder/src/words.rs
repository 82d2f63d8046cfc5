//! Words that help texts, errors and findings do not use, because readers
//! stumbled over them; and the tests that read all help and all errors for them.

use std::fs;
use std::iter::Peekable;
use std::path::{Path, PathBuf};
use std::str::Chars;

use clap::{Command, CommandFactory as _};

use crate::cli::Cli;

/// What is refused, and what to write instead.
const REFUSED: [(&str, &str); 21] = [
    ("told", "reported, logged, printed"),
    ("shown", "reported, listed"),
    ("tried", "verified, tested"),
    ("mend", "fix"),
    ("mends", "fixes"),
    ("mended", "fixed"),
    ("mending", "fixing"),
    ("wish", "request"),
    ("wishes", "requests"),
    ("wished", "requested"),
    ("anew", "again, a new"),
    ("omen", "sign"),
    ("is no", "is not"),
    ("are no", "are not"),
    ("was no", "was not"),
    ("all the same", "anyway"),
    ("has not the", "does not have the"),
    ("is tried on", "is tried again"),
    ("cannot be told", "is not known"),
    ("cannot tell", "cannot find out, cannot read"),
    ("does not tell", "does not say"),
];

/// Where the words of [`REFUSED`] are right.
const ALLOWED: [&str; 6] = [
    "there is no",
    "there are no",
    "there was no",
    "is no longer",
    "are no longer",
    "is no more than",
];

/// Words that an error does not begin with: a clause would be its subject.
const OPENINGS: [&str; 4] = ["what", "whether", "who", "whoever"];

/// What takes a text that people read.
const SPEAKERS: [&str; 5] = [
    "#[error(",
    "tracing::error!(",
    "tracing::warn!(",
    "tracing::info!(",
    "Failure::usage(",
];

/// What is wrong with a text, if something is.
pub(crate) fn fault(text: &str) -> Option<String> {
    let mut rest = words(text);
    for allowed in ALLOWED {
        rest = rest.replace(&format!(" {allowed} "), " | ");
    }
    REFUSED
        .iter()
        .find(|(refused, _)| rest.contains(&format!(" {refused} ")))
        .map(|(refused, instead)| format!("says `{refused}`; write {instead}"))
}

/// Its words in lower case, with one space before and behind each; `0` stands for
/// a value that is filled in.
fn words(text: &str) -> String {
    let parts = text.split('{').map(|part| match part.split_once('}') {
        Some((_, rest)) => format!(" 0 {rest}"),
        None => part.to_owned(),
    });
    let text: String = parts.collect();
    let is_apart = |c: char| !c.is_alphanumeric() && c != '\'';
    let words = text.split(is_apart).filter(|word| !word.is_empty());
    let words: Vec<_> = words.map(str::to_lowercase).collect();
    format!(" {} ", words.join(" "))
}

/// Every text of the help of a command and of those below it, each behind the
/// words that lead to it.
fn help(command: &Command, line: &str, found: &mut Vec<(String, String)>) {
    let line = format!("{line} {}", command.get_name());
    let mut add = |place: &str, text: String| found.push((format!("{line}{place}"), text));
    for text in [command.get_about(), command.get_after_help()] {
        add("", text.map(ToString::to_string).unwrap_or_default());
    }
    for argument in command.get_arguments() {
        let place = format!(" {argument}");
        let text = argument.get_help().map(ToString::to_string);
        add(&place, text.unwrap_or_default());
        for value in argument.get_possible_values() {
            let text = value.get_help().map(ToString::to_string);
            add(
                &format!("{place} {}", value.get_name()),
                text.unwrap_or_default(),
            );
        }
    }
    for below in command.get_subcommands() {
        help(below, &line, found);
    }
}

/// The string literals in the parentheses that `rest` begins in.
fn literals(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 1_u32;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => found.push(literal(&mut chars)),
            '(' => depth += 1,
            ')' if depth == 1 => break,
            ')' => depth -= 1,
            _ => {}
        }
    }
    found
}

/// The rest of a string literal, behind its opening quote.
fn literal(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                other => text.extend(other),
            },
            _ => text.push(c),
        }
    }
    text
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn help_refuses_words_that_readers_stumble_over() {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    help(&command, "", &mut found);
    assert!(found.len() > 200, "{}", found.len());
    let faults: Vec<_> = found
        .iter()
        .filter_map(|(place, text)| Some(format!("{place}: {text:?} {}", fault(text)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn errors_refuse_words_that_readers_stumble_over() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let (mut faults, mut read) = (Vec::new(), 0);
    for file in files.iter().filter(|file| !file.ends_with("words.rs")) {
        let source = fs::read_to_string(file).unwrap();
        for speaker in SPEAKERS {
            for (at, _) in source.match_indices(speaker) {
                let rest = &source[at + speaker.len()..];
                let line = source[..at].lines().count();
                for text in literals(rest) {
                    read += 1;
                    let opening = OPENINGS
                        .into_iter()
                        .find(|word| words(&text).starts_with(&format!(" {word} ")))
                        .map(|word| format!("begins with `{word}`; begin with who or what it is"));
                    if let Some(fault) = fault(&text).or(opening) {
                        faults.push(format!("{}:{line}: {text:?} {fault}", file.display()));
                    }
                }
            }
        }
    }
    assert!(read > 400, "{read}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_word_is_refused_only_where_it_is_wrong() {
    for text in [
        "it is no regular file",
        "the disk was Told.",
        "launch it anew",
    ] {
        assert!(fault(text).is_some(), "{text}");
    }
    for text in [
        "there is no guest",
        "that host is no longer there",
        "it was retried",
        "{shown}: {what} cannot be changed",
    ] {
        assert_eq!(fault(text), None, "{text}");
    }
}

#[test]
fn literals_are_read_as_the_compiler_does() {
    let source = "\"a \\\n    b\", f(\"c\\\"d\"), x) \"e\"";
    assert_eq!(literals(source), ["a b", "c\"d"]);
}
