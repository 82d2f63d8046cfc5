//! The report of a check as text.

use std::fmt::Write as _;

use anstyle::AnsiColor;

use super::{Colour, room, wrapped};
use crate::host::finding::{Finding, Severity};
use crate::text::printable;
use crate::trial::readiness::Report;
use crate::units::counted;

/// Columns of a severity and of a finding's name.
const SEVERITY: usize = 9;
const NAME: usize = 20;

/// Which findings a report lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Findings {
    /// Those that something can be done about.
    NotOk,
    All,
}

/// A report as text: the verdict, the findings, the worst first, and how many guests
/// fit.
pub(crate) fn render(report: &Report, listed: Findings, colour: Colour) -> String {
    let mut text = wrapped(&printable(&report.verdict), 0);
    text.push_str("\n\n");
    let is_listed =
        |finding: &&Finding| listed == Findings::All || finding.severity != Severity::Ok;
    for finding in report.findings.iter().filter(is_listed) {
        text.push_str(&entry(finding, colour));
    }
    let fine = report
        .findings
        .iter()
        .filter(|finding| !is_listed(finding))
        .count() as u64;
    if fine > 0 {
        let _ = writeln!(text, "ok: {}; -v lists them", counted(fine, "finding"));
    }
    text.push('\n');
    text.push_str(room::table(&report.ceiling, &report.want).trim_end());
    text
}

/// A finding: one line, and what to do about it where it is not as it should
/// be.
pub(crate) fn entry(finding: &Finding, colour: Colour) -> String {
    let (severity, name) = (finding.severity.name(), finding.id);
    let painted = match finding.severity {
        Severity::Blocker => colour.paint(severity, AnsiColor::Red),
        Severity::Limit => colour.paint(severity, AnsiColor::Yellow),
        Severity::Advice => colour.paint(severity, AnsiColor::Cyan),
        Severity::Ok => colour.paint(severity, AnsiColor::Green),
    };
    let gap = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.len()).max(1));
    let head = format!(
        "{painted}{}{name}{}",
        gap(severity, SEVERITY),
        gap(name, NAME)
    );
    let indent = SEVERITY + NAME;
    let said = if finding.severity == Severity::Ok {
        format!("{}: {}", finding.value, finding.meaning)
    } else {
        format!(
            "{} (need: {}): {}",
            finding.value, finding.need, finding.meaning
        )
    };
    // A snapshot may come from anywhere, and a terminal obeys what it is sent.
    let said = wrapped(&printable(&said), indent);
    let mut text = format!("{head}{}\n", said.trim_start());
    if finding.severity != Severity::Ok {
        if let Some(guests) = finding.guests {
            let allows = format!("allows {}", counted(guests, "guest"));
            let _ = writeln!(text, "{}", wrapped(&allows, indent));
        }
        if let Some(fix) = &finding.fix {
            let _ = writeln!(
                text,
                "{}",
                wrapped(&printable(&format!("fix: {fix}")), indent)
            );
        }
        let _ = writeln!(text, "{}", wrapped(finding.document, indent));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::finding::{Fix, Needs};

    fn finding(severity: Severity) -> Finding {
        Finding {
            id: "kvm-ring0",
            severity,
            value: "0.72 µs an instruction".to_owned(),
            need: "a few ns".to_owned(),
            meaning: "KVM emulates ring 0; guests will not boot".to_owned(),
            guests: Some(12_345),
            fix: Some(Fix::Manual {
                needs: Needs::Choice,
                instruction: "use --accel tcg, or a host whose KVM runs a guest's kernel, and \
                              more words that do not fit in what is left of the line"
                    .to_owned(),
            }),
            document: "https://docs.kernel.org/virt/kvm/api.html",
        }
    }

    #[test]
    fn an_entry_fits_80_columns_and_says_everything() {
        let text = entry(&finding(Severity::Blocker), Colour::Plain);
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            words,
            "blocker kvm-ring0 0.72 µs an instruction (need: a few ns): KVM emulates ring 0; \
             guests will not boot allows 12,345 guests fix: use --accel tcg, or a host whose KVM \
             runs a guest's kernel, and more words that do not fit in what is left of the line \
             https://docs.kernel.org/virt/kvm/api.html"
        );
        assert!(
            text.starts_with("blocker  kvm-ring0           0.72 µs"),
            "{text}"
        );
    }

    #[test]
    fn what_is_as_it_should_be_takes_no_more_than_its_meaning() {
        let text = entry(&finding(Severity::Ok), Colour::Plain);
        assert!(
            text.starts_with("ok       kvm-ring0           0.72 µs"),
            "{text}"
        );
        assert!(
            !text.contains("fix:") && !text.contains("https://"),
            "{text}"
        );
    }

    #[test]
    fn a_hostile_value_cannot_talk_to_the_terminal() {
        let hostile = Finding {
            value: "\u{1b}]0;title\u{7}\u{9b}2J".to_owned(),
            ..finding(Severity::Blocker)
        };
        let text = entry(&hostile, Colour::Plain);
        assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{text:?}");
    }

    #[test]
    fn colours_change_no_column() {
        let plain = entry(&finding(Severity::Limit), Colour::Plain);
        let ansi = entry(&finding(Severity::Limit), Colour::Ansi);
        assert_ne!(plain, ansi);
        assert_eq!(anstream::adapter::strip_str(&ansi).to_string(), plain);
    }
}
