//! Words that texts for people do not use, because readers stumbled over them; and
//! the tests that look for them in all help and in every string of the programs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use serde_json::Value;

use crate::cli::Cli;
use crate::{bundle, control};

/// What is refused, and what to write instead.
const REFUSED: [(&str, &str); 31] = [
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
    ("for want of", "because it has too little"),
    ("go on with", "resume, continue, keep using"),
    ("goes on with", "resumes, continues"),
    ("put back", "restore"),
    ("puts back", "restores"),
    ("puts them back", "restores them"),
    ("do without", "do not need"),
    ("does without", "does not need"),
    ("stands in for", "replaces, imitates"),
    ("is left as it is", "is not changed, not removed"),
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

/// Where the tests of a module begin.
const TESTS: &str = "#[cfg(test)]\nmod tests {";

/// What takes an error or a message.
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

/// A string literal of a program.
struct Literal {
    line: usize,
    text: String,
    /// It stands in one of the [`SPEAKERS`].
    is_spoken: bool,
}

/// The literals of a program, without those of its tests.
fn literals(source: &str) -> Vec<Literal> {
    let code = source.split(TESTS).next().unwrap_or_default();
    let mut found = Vec::new();
    // How deep in parentheses, and where a speaker's began.
    let (mut depth, mut spoken) = (0, None);
    let mut rest = code;
    while let Some(at) = rest.find(['"', '\'', '/', '(', ')']) {
        let (before, from) = rest.split_at(at);
        let behind = &code[..=code.len() - from.len()];
        rest = &from[1..];
        match from.as_bytes()[0] {
            b'/' if rest.starts_with('/') => rest = rest.split_once('\n').map_or("", |(_, r)| r),
            b'/' => {}
            b'\'' => rest = character(rest),
            b'(' => {
                depth += 1;
                if spoken.is_none() && SPEAKERS.iter().any(|speaker| behind.ends_with(speaker)) {
                    spoken = Some(depth);
                }
            }
            b')' => {
                spoken = spoken.filter(|began| *began != depth);
                depth -= 1;
            }
            _ => {
                let (text, after) = match hashes(before) {
                    Some(hashes) => raw(rest, hashes),
                    None => literal(rest),
                };
                rest = after;
                found.push(Literal {
                    line: behind.lines().count(),
                    text,
                    is_spoken: spoken.is_some(),
                });
            }
        }
    }
    found
}

/// What follows a character literal, or the name of a lifetime, behind its opening
/// quote.
fn character(rest: &str) -> &str {
    let mut chars = rest.chars();
    let first = chars.next();
    if first == Some('\\') {
        chars.next();
        let end = chars.as_str().find('\'').map_or(0, |end| end + 1);
        return &chars.as_str()[end..];
    }
    chars.as_str().strip_prefix('\'').unwrap_or(rest)
}

/// With how many `#` a raw string begins behind `before`, if one does.
fn hashes(before: &str) -> Option<usize> {
    let start = before.trim_end_matches('#');
    let is_raw = ["r", "br"].iter().any(|prefix| {
        let word = start
            .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        word == Some(prefix)
    });
    is_raw.then_some(before.len() - start.len())
}

/// A raw string, and what follows it.
fn raw(rest: &str, hashes: usize) -> (String, &str) {
    let end = format!("\"{}", "#".repeat(hashes));
    let (text, after) = rest.split_once(&end).unwrap_or((rest, ""));
    (text.to_owned(), after)
}

/// A string literal, and what follows it.
fn literal(rest: &str) -> (String, &str) {
    let mut text = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('\n') => chars = chars.as_str().trim_start().chars(),
                Some('n') => text.push('\n'),
                other => text.extend(other),
            },
            _ => text.push(c),
        }
    }
    (text, chars.as_str())
}

/// The files of a program, without those of its tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_ours = !path.ends_with("words.rs") && !path.to_string_lossy().contains("/tests");
        if path.is_dir() {
            sources(&path, found);
        } else if is_ours && path.extension().is_some_and(|ending| ending == "rs") {
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

/// Every description in a schema.
fn descriptions(schema: &Value, found: &mut Vec<String>) {
    if let Some(text) = schema["description"].as_str() {
        found.push(text.to_owned());
    }
    let below = schema.as_object().into_iter().flat_map(|map| map.values());
    let below = below.chain(schema.as_array().into_iter().flatten());
    below.for_each(|schema| descriptions(schema, found));
}

#[test]
fn the_schemas_refuse_words_that_readers_stumble_over() {
    let mut found = Vec::new();
    descriptions(&control::schema::schema(), &mut found);
    descriptions(&bundle::schema::schema(), &mut found);
    assert!(found.len() > 180, "{}", found.len());
    let faults: Vec<_> = found
        .iter()
        .filter_map(|text| Some(format!("{text:?} {}", fault(text)?)))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn texts_refuse_words_that_readers_stumble_over() {
    let mut files = Vec::new();
    let builder = Path::new(env!("CARGO_MANIFEST_DIR"));
    sources(&builder.join("src"), &mut files);
    sources(&builder.join("../init/src"), &mut files);
    let (mut faults, mut read) = (Vec::new(), 0);
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        // One word is a name; a text has more.
        for found in literals(&source) {
            let Literal { line, text, .. } = &found;
            if !text.trim().contains(' ') {
                continue;
            }
            read += 1;
            let opening = OPENINGS
                .into_iter()
                .filter(|_| found.is_spoken)
                .find(|word| words(text).starts_with(&format!(" {word} ")))
                .map(|word| format!("begins with `{word}`; begin with who or what it is"));
            if let Some(fault) = fault(text).or(opening) {
                faults.push(format!("{}:{line}: {text:?} {fault}", file.display()));
            }
        }
    }
    assert!(read > 1500, "{read}");
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
    let source = "f('\"', '\\'', b'x', \"a \\\n    b\") // \"no\"\n\
        tracing::warn!(g::<'a>(\"c\\\"d\"), \"e\")\nbr#\"f\"g\"#; \"h\"\n\
        #[cfg(test)]\nmod tests {\n \"i\"";
    let read = literals(source).into_iter();
    let read = read.map(|found| (found.line, found.text, found.is_spoken));
    let expected = [
        (1, "a b", false),
        (3, "c\"d", true),
        (3, "e", true),
        (4, "f\"g", false),
        (4, "h", false),
    ];
    let expected = expected.map(|(line, text, is_spoken)| (line, text.to_owned(), is_spoken));
    assert_eq!(read.collect::<Vec<_>>(), expected);
}
