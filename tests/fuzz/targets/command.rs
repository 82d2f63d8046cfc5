//! Commands to a guest, and its replies: bytes of a console into lines, lines
//! into requests, and any text back to the host in parts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tty_init::command::{Command, Request};
use tty_init::host;
use tty_init::lines::{COMMAND_MAX, Lines};
use tty_init::protocol::{Line, Message, Stamp, reply_part};

fuzz_target!(|input: &[u8]| {
    let mut lines = Lines::new();
    for &byte in input {
        let Some(Ok(line)) = lines.push(byte) else {
            continue;
        };
        assert!((1..=COMMAND_MAX).contains(&line.len()));
        let _ = Request::parse(line);
        if let Some(Ok(Command::Ls(words) | Command::Cat(words))) =
            str::from_utf8(line).ok().and_then(Command::parse)
        {
            assert!(words.iter().all(|word| !word.is_empty()));
        }
    }

    let text = String::from_utf8_lossy(input);
    let mut rest = &*text;
    while !rest.is_empty() {
        let part = reply_part(rest);
        assert!(!part.is_empty(), "no way on");
        rest = &rest[part.len()..];
        reply(part, !rest.is_empty());
    }
});

/// What a guest sends as a part of a reply must be what the host reads.
fn reply(part: &str, more: bool) {
    let mut line = Line::new();
    let sent = Message::Reply {
        stamp: Stamp {
            id: "g00000",
            ms: u64::MAX,
            seq: u64::MAX,
        },
        tag: Some(u32::MAX),
        code: u8::MAX,
        output: part,
        more,
    };
    let line = sent.encode(&mut line).expect("a part fits");
    let read = host::parse(line).expect("the host reads it");
    let Message::Reply {
        output,
        more: is_more,
        ..
    } = read
    else {
        panic!("another message");
    };
    assert_eq!((output.as_str(), is_more), (part, more));
}
