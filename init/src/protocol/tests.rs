use super::*;
use crate::host::parse;
use std::format;
use std::string::String;

fn stamp() -> Stamp<&'static str> {
    Stamp {
        id: "g00007",
        ms: 812,
        seq: 3,
    }
}

fn status() -> Status {
    Status {
        identity: IdentityState::Applied,
        disk: DeviceState::Absent,
        net: DeviceState::Failed,
        ssh: DeviceState::Up,
        burn: Burn {
            duty: 100,
            threads: 64,
            rounds: u64::MAX,
        },
    }
}

fn encode(message: Message<&str>) -> String {
    let mut line = Line::new();
    let line = message.encode(&mut line).expect("fits");
    String::from_utf8(line.to_vec()).expect("JSON is UTF-8")
}

fn reply(output: &str) -> Message<&str> {
    Message::Reply {
        stamp: stamp(),
        tag: Some(u32::MAX),
        code: 127,
        output,
        more: true,
    }
}

fn output_of(line: &str) -> String {
    match parse(line.as_bytes()) {
        Ok(Message::Reply { output, .. }) => output,
        other => panic!("{other:?} from {line}"),
    }
}

#[test]
fn ready_is_one_flat_object() {
    let ready = encode(Message::Ready {
        stamp: stamp(),
        status: status(),
    });
    assert_eq!(
        ready,
        concat!(
            r#"{"event":"ready","id":"g00007","ms":812,"seq":3,"#,
            r#""identity":"applied","disk":"absent","net":"failed","ssh":"up","#,
            r#""burn":{"duty":100,"threads":64,"rounds":18446744073709551615}}"#,
            "\n"
        )
    );
}

#[test]
fn every_message_survives_the_round_trip() {
    let stamp = stamp();
    for message in [
        Message::Parked {
            stamp: stamp.clone(),
        },
        Message::Poised {
            stamp: stamp.clone(),
        },
        Message::Ready {
            stamp: stamp.clone(),
            status: status(),
        },
        Message::Heartbeat {
            stamp: stamp.clone(),
            status: status(),
        },
        Message::Reply {
            stamp: stamp.clone(),
            tag: None,
            code: 0,
            output: "",
            more: false,
        },
        reply("two\nlines"),
        Message::PowerOff {
            stamp: stamp.clone(),
        },
        Message::Reboot {
            stamp: stamp.clone(),
        },
        Message::Fatal {
            stamp,
            reason: "poll: Out of memory (errno 12)",
        },
    ] {
        let line = encode(message.clone());
        let parsed = parse(line.as_bytes()).expect("a message");
        let ours = serde_json::to_string(&parsed).expect("serialises");
        assert_eq!(ours + "\n", line);
        assert_eq!(format!("{parsed:?}"), format!("{message:?}"));
    }
}

#[test]
fn every_state_reads_back() {
    for identity in [
        IdentityState::Applied,
        IdentityState::Missing,
        IdentityState::Malformed,
        IdentityState::Unsupported,
        IdentityState::Failed,
    ] {
        for device in [DeviceState::Up, DeviceState::Absent, DeviceState::Failed] {
            let sent = Status {
                identity,
                disk: device,
                net: device,
                ssh: device,
                ..status()
            };
            let line = encode(Message::Ready {
                stamp: stamp(),
                status: sent,
            });
            match parse(line.as_bytes()) {
                Ok(Message::Ready { status, .. }) => assert_eq!(status, sent),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn any_character_comes_through() {
    let all: String = ('\0'..='\u{ff}').collect();
    let output = all + "\u{2028}\u{fffd}\u{1f980}";
    let line = encode(reply(&output));
    assert_eq!(line.matches('\n').count(), 1, "one line");
    assert!(line.chars().all(|c| c >= ' ' || c == '\n'));
    assert_eq!(output_of(&line), output);
}

#[test]
fn long_output_is_cut_and_fills_the_line() {
    for (character, slack) in [("x", 0), ("\n", 1), ("\0", 5), ("\u{1f980}", 3), ("\"", 1)] {
        for lead in ["", "a", "ab", "abc"] {
            let output = format!("{lead}{}", character.repeat(LINE_MAX));
            let line = encode(reply(&output));
            assert!(line.len() <= LINE_MAX && line.len() >= LINE_MAX - slack);
            assert!(output.starts_with(&output_of(&line)));
        }
    }
}

#[test]
fn output_that_just_fits_is_whole() {
    let overhead = encode(reply("")).len();
    let output = "x".repeat(LINE_MAX - overhead);
    assert_eq!(output_of(&encode(reply(&output))), output);
    let longer = format!("{output}x");
    assert_eq!(output_of(&encode(reply(&longer))), output);
}

#[test]
fn parts_of_an_output_are_never_cut() {
    let output = "a\0\n\u{1f980}\"".repeat(LINE_MAX);
    let mut rest = output.as_str();
    while !rest.is_empty() {
        let part = reply_part(rest);
        let line = encode(Message::Reply {
            stamp: Stamp {
                id: "g-9999999999999z",
                ms: u64::MAX,
                seq: u64::MAX,
            },
            tag: Some(u32::MAX),
            code: u8::MAX,
            output: part,
            more: true,
        });
        assert_eq!(output_of(&line), part);
        assert!(!part.is_empty());
        rest = &rest[part.len()..];
    }
}

#[test]
fn id_that_fills_the_line_is_refused() {
    let id = "x".repeat(LINE_MAX);
    let message = Message::Parked {
        stamp: Stamp {
            id: id.as_str(),
            ..stamp()
        },
    };
    assert_eq!(message.encode(&mut Line::new()), None);
}
