//! Which flag or verb a user may have meant.
//!
//! clap suggests what shares letters with a word. Who types `--fro` is not to be
//! offered `--force`, which has imgbuild go on where it would refuse.

use std::ffi::OsString;

use clap::Command;
use clap::error::{ContextKind, ContextValue};
use strsim::osa_distance;

/// Letters of a word for each that may be wrong in it.
const LETTERS_A_MISTAKE: usize = 4;

/// Leaves of an error's suggestions those that the user may well have meant.
pub(super) fn sift(mut error: clap::Error, root: &Command, line: &[OsString]) -> clap::Error {
    let command = meant(root, line);
    if let Some(typed) = text(&error, ContextKind::InvalidArg) {
        let flags = || command.get_arguments().filter_map(|arg| arg.get_long());
        let names: Vec<_> = flags().map(|flag| format!("--{flag}")).collect();
        let suggests = text(&error, ContextKind::SuggestedArg).is_some();
        keep(&mut error, ContextKind::SuggestedArg, |suggested| {
            is_near(&typed, suggested, &names)
        });
        if suggests && text(&error, ContextKind::SuggestedArg).is_none() {
            // It has what was suggested in it.
            let usage = command.clone().render_usage();
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
        }
        // `launch --force exists`, in whatever colours.
        keep(&mut error, ContextKind::Suggested, |tip| {
            let mut flags = tip.split([' ', '\'']).filter(|word| word.starts_with("--"));
            !tip.ends_with("exists") || flags.all(|flag| is_near(&typed, flag, &[]))
        });
    }
    if let Some(typed) = text(&error, ContextKind::InvalidSubcommand) {
        let names: Vec<_> = command
            .get_subcommands()
            .map(|verb| verb.get_name().to_owned())
            .collect();
        keep(&mut error, ContextKind::SuggestedSubcommand, |suggested| {
            is_near(&typed, suggested, &names)
        });
        // An empty list takes a line.
        keep(&mut error, ContextKind::Suggested, |_| true);
    }
    error
}

/// The command whose flags or verbs the line's last words are.
fn meant<'a>(root: &'a Command, line: &[OsString]) -> &'a Command {
    let words = line.iter().skip(1).filter_map(|word| word.to_str());
    words.fold(root, |command, word| {
        command.find_subcommand(word).unwrap_or(command)
    })
}

/// Whether `suggested` was begun, and no other of `names` was, or was mistyped.
fn is_near(typed: &str, suggested: &str, names: &[String]) -> bool {
    let begun = names.iter().filter(|name| name.starts_with(typed)).count();
    if begun > 0 {
        return begun == 1 && suggested.starts_with(typed);
    }
    let letters = typed.trim_start_matches('-').chars().count();
    osa_distance(typed, suggested) <= letters.div_ceil(LETTERS_A_MISTAKE)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Removes suggestions of a kind that are not `wanted`.
fn keep(error: &mut clap::Error, kind: ContextKind, wanted: impl Fn(&str) -> bool) {
    let left = match error.remove(kind) {
        Some(ContextValue::String(text)) if wanted(&text) => ContextValue::String(text),
        Some(ContextValue::Strings(mut texts)) => {
            texts.retain(|text| wanted(text));
            ContextValue::Strings(texts)
        }
        Some(ContextValue::StyledStrs(mut texts)) => {
            texts.retain(|text| wanted(&text.to_string()));
            ContextValue::StyledStrs(texts)
        }
        _ => return,
    };
    let is_empty = match &left {
        ContextValue::Strings(texts) => texts.is_empty(),
        ContextValue::StyledStrs(texts) => texts.is_empty(),
        _ => false,
    };
    if !is_empty {
        error.insert(kind, left);
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::read;

    /// What is suggested for a line, if anything.
    fn tip(line: &str) -> Option<String> {
        let error = read(line.split(' ')).unwrap_err().to_string();
        let tips = error
            .lines()
            .filter_map(|line| line.trim().strip_prefix("tip: "));
        let tips: Vec<_> = tips.filter(|tip| !tip.starts_with("to pass")).collect();
        (!tips.is_empty()).then(|| tips.join("; "))
    }

    #[test]
    fn what_was_not_meant_is_not_suggested() {
        for line in [
            "imgbuild launch --fro",
            "imgbuild --fro launch",
            "imgbuild launch --f",
            "imgbuild launch --fi",
            "imgbuild launch --al",
            "imgbuild rm --fleet",
            "imgbuild r",
        ] {
            assert_eq!(tip(line), None, "{line}");
            let error = read(line.split(' ')).unwrap_err().to_string();
            let (_, usage) = error.split_once("Usage: ").unwrap();
            assert!(!usage.contains("--f"), "{usage}");
        }
    }

    #[test]
    fn what_was_meant_is_suggested() {
        for (line, said) in [
            ("imgbuild launch --forc", "--force"),
            ("imgbuild launch --froce", "--force"),
            ("imgbuild launch --keepfree", "--keep-free"),
            ("imgbuild check --fro", "--from"),
            ("imgbuild ps --flet", "--fleet"),
            ("imgbuild lanch", "launch"),
            ("imgbuild kernel fetsh", "fetch"),
        ] {
            let tip = tip(line).unwrap_or_default();
            assert!(tip.contains(&format!("'{said}'")), "{line}: {tip}");
        }
    }
}
