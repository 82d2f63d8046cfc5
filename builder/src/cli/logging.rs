//! Messages on stderr: one sentence a line, or JSON.

use std::fmt;
use std::io::{self, Write};

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::{LogFormat, Talk};
use crate::outlet::{self, Stream};
use crate::progress;
use crate::text::{printable_json, printable_lines};
use crate::units::counted;

/// Sends `tracing` events to stderr from here on.
pub(super) fn install(talk: &Talk) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(level(talk))
        // It would tell of them on stderr, where they come from, and panic: a
        // supervisor whose log is on a full disk is to go on without.
        .log_internal_errors(false)
        .with_writer(Stderr);
    match talk.log_format {
        LogFormat::Json => builder.json().map_event_format(Escaped).init(),
        LogFormat::Text => builder.event_format(Sentence).init(),
    }
}

/// Has a message stand where stderr did not take others in time.
pub(super) fn report_losses(talk: &Talk) {
    if level(talk) >= Level::WARN {
        let format = talk.log_format;
        outlet::on_loss(Stream::Stderr, move |messages| loss(format, messages));
    }
}

fn level(talk: &Talk) -> Level {
    match (talk.quiet, talk.verbose) {
        (true, _) => Level::ERROR,
        (_, true) => Level::DEBUG,
        _ => Level::INFO,
    }
}

/// What stands in the place of messages that stderr did not take.
fn loss(format: LogFormat, messages: u64) -> Vec<u8> {
    let sentence = format!(
        "{} dropped here, because stderr was read too slowly",
        counted(messages, "message")
    );
    let line = match format {
        LogFormat::Text => format!("warning: {sentence}\n"),
        LogFormat::Json => {
            let message = json!({"level": "WARN", "fields": {"message": sentence}});
            format!("{message}\n")
        }
    };
    line.into_bytes()
}

/// An event as a sentence, with the word `error` or `warning` where it is one.
struct Sentence;

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => write!(writer, "error: ")?,
            Level::WARN => write!(writer, "warning: ")?,
            _ => {}
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(writer, "{}", shown(&message.0))
    }
}

/// A message as it is shown. Only its first line is at the left, so that nothing
/// that it quotes looks like a message of its own.
fn shown(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for (index, line) in printable_lines(message).lines().enumerate() {
        if index > 0 {
            text.push('\n');
            if !line.starts_with(' ') {
                text.push_str("  ");
            }
        }
        text.push_str(line);
    }
    text
}

/// An event as another format has it, in JSON that is safe to show.
struct Escaped<F>(F);

impl<F, S, N> FormatEvent<S, N> for Escaped<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0
            .format_event(context, Writer::new(&mut line), event)?;
        writer.write_str(&printable_json(&line))
    }
}

/// The message of an event, without other fields.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Stderr, shared with the progress bars, and waited for by nobody.
#[derive(Clone, Copy)]
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::above(|| outlet::offer(Stream::Stderr, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn dropped_messages_are_reported_as_messages_are() {
        let text = |format, messages| String::from_utf8(loss(format, messages)).unwrap();
        assert_eq!(
            text(LogFormat::Text, 1),
            "warning: 1 message dropped here, because stderr was read too slowly\n"
        );
        let line: Value = serde_json::from_str(&text(LogFormat::Json, 12)).unwrap();
        assert_eq!(line["level"], "WARN");
        let message = line["fields"]["message"].as_str().unwrap();
        assert!(message.starts_with("12 messages dropped here"), "{message}");
    }

    #[test]
    fn what_a_message_quotes_does_not_look_like_another() {
        for (message, text) in [
            ("one line", "one line"),
            (
                "cannot read a\nerror: forged\r\u{1b}[A",
                "cannot read a\n  error: forged\\r\\u{1b}[A",
            ),
            ("not ready:\n  memory", "not ready:\n  memory"),
        ] {
            assert_eq!(shown(message), text);
        }
    }
}
