//! Writes the inputs that the fuzz targets start from:
//! `cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds`.

use std::path::Path;
use std::{fs, io};

use imgbuild_fuzz::connect::{in_clear, kexinit, put};
use tty_init::identity::{Address, Identity};

fn main() -> io::Result<()> {
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("seeds")
            .join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };

    let commands = "@7 status --json\r\nburn 50\n@8 cat /a /b\nwrite /disk/x \"\\\n@\nsh ls\n";
    write("command", "commands", commands.as_bytes())?;
    write(
        "command",
        "text",
        "\u{1f}\u{1f980}\\\"é\n".repeat(90).as_bytes(),
    )?;

    let status = r#""identity":"applied","disk":"up","net":"up","ssh":"absent","burn":{"duty":5,"threads":1,"rounds":9}"#;
    let stamp = r#""id":"g00000","ms":1114,"seq":1"#;
    for (name, line) in [
        ("parked", format!(r#"{{"event":"parked",{stamp}}}"#)),
        ("ready", format!(r#"{{"event":"ready",{stamp},{status}}}"#)),
        (
            "heartbeat",
            format!(r#"{{"event":"heartbeat",{stamp},{status}}}"#),
        ),
        (
            "reply",
            format!(
                r#"{{"event":"reply",{stamp},"tag":7,"code":0,"output":"\n\u001b","more":true}}"#
            ),
        ),
        (
            "fatal",
            format!(r#"{{"event":"fatal",{stamp},"reason":"no"}}"#),
        ),
        ("text", "[    0.000000] Linux version 6.12".to_owned()),
    ] {
        write("console_line", name, line.as_bytes())?;
    }

    let mut identity = Identity {
        id: "g00000".parse().expect("an id"),
        mac: [2, 0, 0, 0, 0, 1],
        address: None,
        login_deadline_ms: 10_000,
        authorized_key: None,
        host_key_seed: [1; 32],
        entropy: [2; 32],
    };
    write("identity", "offline", identity.encode().as_slice())?;
    identity.address = Some(Address {
        ip: [10, 0, 2, 15].into(),
        prefix: 24,
        gateway: Some([10, 0, 2, 2].into()),
    });
    identity.authorized_key = Some([3; 32]);
    write("identity", "online", identity.encode().as_slice())?;

    let mut ephemeral = vec![30];
    put(&mut ephemeral, &[9; 32]);
    for (name, is_strict) in [("exchange", false), ("strict", true)] {
        let hello = in_clear(&kexinit(is_strict));
        let packets = [&hello[..], &in_clear(&ephemeral), &in_clear(&[21])].concat();
        let bytes = [b"SSH-2.0-x\r\n", &packets[..]].concat();
        write("ssh_before", name, &bytes)?;
    }

    let rekey = vec![kexinit(true), ephemeral, vec![21]];
    // A client without the key, which takes a refusal for a welcome.
    let stranger = vec![
        service("ssh-userauth"),
        user("none"),
        user("password"),
        open(),
        exec("status"),
    ];
    let upload = vec![open(), exec("write /dev/null"), data(&[b'x'; 500])];
    let status = vec![open(), exec("status"), vec![97, 0, 0, 0, 0]];
    for (name, flags, packets) in [
        ("stranger", 0, stranger),
        ("cat", 1, vec![open(), exec("cat"), data(b"0123456789")]),
        ("status", 3, status),
        ("shell", 1, vec![open(), request("shell"), data(b"h")]),
        ("write", 3, upload),
        ("rekey", 3, rekey),
    ] {
        let mut script = vec![flags];
        for packet in packets {
            script.extend(u16::try_from(packet.len()).expect("short").to_be_bytes());
            script.extend(packet);
        }
        write("ssh_after", name, &script)?;
    }
    Ok(())
}

fn service(name: &str) -> Vec<u8> {
    message(5, &[name])
}

fn user(method: &str) -> Vec<u8> {
    message(50, &["root", "ssh-connection", method])
}

/// Opens channel 0, with a window and packets of 32 KiB.
fn open() -> Vec<u8> {
    let mut message = message(90, &["session"]);
    message.extend([0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    message
}

fn request(kind: &str) -> Vec<u8> {
    let mut request = vec![98, 0, 0, 0, 0];
    put(&mut request, kind.as_bytes());
    request.push(1);
    request
}

fn exec(command: &str) -> Vec<u8> {
    let mut request = request("exec");
    put(&mut request, command.as_bytes());
    request
}

fn data(bytes: &[u8]) -> Vec<u8> {
    let mut message = vec![94, 0, 0, 0, 0];
    put(&mut message, bytes);
    message
}

fn message(kind: u8, strings: &[&str]) -> Vec<u8> {
    let mut message = vec![kind];
    for string in strings {
        put(&mut message, string.as_bytes());
    }
    message
}
