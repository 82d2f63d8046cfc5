//! What a guest does and says on its console: commands, long answers, and an
//! identity that is not as it should be.

use imgbuild::vmm::Net;
use imgbuild_tests::guest::{Guest, READY, Way};
use imgbuild_tests::{TestEnv, wait_until};
use serde_json::Value;
use tty_init::identity::{Identity, LENGTH};
use tty_init::protocol::Message;
use tty_init::report::Report;

#[test]
fn every_command_answers_on_the_console() {
    let env = TestEnv::new();
    let mut guest = Guest::boot(&env.artifacts("tty-idle"), Way::Ours(Net::User));
    let mut says = |command: &str, code: u8, parts: &[&str]| {
        let reply = guest.ask(command);
        assert_eq!(reply.code, code, "{command}: {reply:?}");
        for part in parts {
            assert!(reply.output.contains(part), "{command}: {part}: {reply:?}");
        }
        reply.output
    };
    says("help", 0, &["status [--json]", "burn PERCENT", "poweroff"]);
    says("status", 0, &["id=g00000", "phase=ready", "ssh=up"]);
    let report: Report<String> = serde_json::from_str(&says("status --json", 0, &[])).unwrap();
    assert_eq!([report.id, report.phase], ["g00000", "ready"]);
    assert!(report.memory.available_kib > 30_000);
    assert!(report.memory.total_kib > report.memory.available_kib);
    says("uptime", 0, &["up 0 days, 00:00:", "load average"]);
    says("free", 0, &["available"]);
    says("ps", 0, &["    1     0 ", "kthreadd"]);
    says("mounts", 0, &["/dev/vda /disk ext4 rw"]);
    says("ifconfig", 0, &["lo: up", "inet 10.0.2.15/24"]);
    says("ls /", 0, &["disk/\n", "init\n"]);
    says("ls /disk /nowhere", 1, &["/nowhere", "No such file"]);
    says("echo two  words", 0, &["two  words\n"]);
    says("write /disk/note some text", 0, &[]);
    says("cat /disk/note", 0, &["some text\n"]);
    says("cat /disk", 1, &["/disk: read: Is a directory"]);
    says("write /proc/version x", 1, &["/proc/version: "]);
    says("sync", 0, &[]);
    says("sh true", 127, &["no shell"]);
    says("nonsense", 127, &["unknown command"]);
    says("burn 101", 2, &["0 to 100"]);
    says("ps -ef", 2, &["wrong arguments"]);
}

#[test]
fn a_burn_is_counted_with_its_rate() {
    let env = TestEnv::new();
    let mut guest = Guest::boot(&env.artifacts("tty-idle"), Way::Ours(Net::None));
    let mut report = |command: &str| -> Report<String> {
        assert_eq!(guest.ask(command).code, 0);
        serde_json::from_str(&guest.ask("status --json").output).unwrap()
    };
    assert_eq!(report("status").burn.rounds, 0);
    assert_eq!(report("burn 100").burn.duty, 100);
    wait_until("the counter and its rate rise", || {
        let burn = report("sync").burn;
        burn.rounds > 0 && burn.rate > 0
    });
    let stopped = report("burn 0").burn.rounds;
    // A thread ends the round that it is in.
    assert!(report("sync").burn.rounds <= stopped + 1);
}

#[test]
fn a_long_answer_comes_whole_and_in_parts() {
    let env = TestEnv::new();
    let mut guest = Guest::boot(&env.artifacts("tty-idle"), Way::Ours(Net::None));
    let log = guest.ask("dmesg").output;
    assert!(log.len() > 4096, "{}", log.len());
    assert!(log.starts_with('[') && log.ends_with('\n'), "{log:?}");
    for line in log.lines() {
        assert!(line.starts_with('['), "a line that is torn: {line:?}");
    }
    // Bytes that are no text are replaced.
    let binary = guest.ask("cat /proc/1/auxv");
    assert!(
        binary.code == 0 && binary.output.contains('?'),
        "{binary:?}"
    );
    // A command that never ends keeps the next one waiting, not the health.
    guest.write("cat /dev/zero");
    let busy = guest.ask("ls /");
    assert_eq!(busy.code, 1);
    assert!(busy.output.contains("another command"), "{busy:?}");
    assert_eq!(guest.ask("status").code, 0);
}

#[test]
fn poweroff_and_reboot_end_the_guest() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    for command in ["poweroff", "reboot"] {
        let mut guest = Guest::boot(&out, Way::Ours(Net::None));
        assert_eq!(guest.ask(command).code, 0);
        guest.ends();
    }
}

/// The blob of a guest that would let somebody in.
fn blob() -> [u8; LENGTH] {
    *Identity {
        id: "g00000".parse().unwrap(),
        mac: [0x52, 0x54, 0, 0, 0, 0],
        address: None,
        login_deadline_ms: 0,
        authorized_key: Some([1; 32]),
        host_key_seed: [2; 32],
        entropy: [3; 32],
    }
    .encode()
}

#[test]
fn without_a_sound_identity_the_guest_says_so_and_has_no_ssh() {
    let env = TestEnv::new();
    let out = env.artifacts("tty-idle");
    let mut garbled = blob();
    garbled[100] ^= 1;
    let mut newer = blob();
    newer[8] = 2;
    let cases: [(Option<&[u8]>, &str, &str); 4] = [
        (None, "missing", ""),
        (Some(&blob()[..200]), "malformed", "identity: 200 bytes"),
        (Some(&garbled), "malformed", "identity: checksum mismatch"),
        (
            Some(&newer),
            "unsupported",
            "identity: version 2, known is 1",
        ),
    ];
    for (blob, state, said) in cases {
        let mut guest = Guest::start(&out, Way::Identity(blob));
        guest.read_to(said);
        let ready: Value = serde_json::from_str(&guest.read_to(READY)).unwrap();
        assert_eq!(ready["identity"], state);
        assert_eq!(ready["ssh"], "absent");
        assert_eq!(guest.ask("cat /proc/net/tcp").output.lines().count(), 1);
        assert_eq!(guest.ask("status").code, 0);
    }
}

#[test]
fn the_host_reads_every_line_of_a_boot() {
    let env = TestEnv::new();
    let mut guest = Guest::start(&env.artifacts("tty-idle"), Way::Ours(Net::User));
    let parked = guest.read_to("\"event\":\"parked\"");
    let ready = guest.read_to(READY);
    let seq = [parked, ready].map(|line| {
        let message: Message<String> = tty_init::host::parse(line.as_bytes()).unwrap();
        message.stamp().seq
    });
    assert_eq!(seq, [0, 1]);
}
