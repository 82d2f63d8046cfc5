//! What a guest must stand: everything that can be sent to its SSH server and
//! its console. After each attack it serves as ever, and nothing of it stays.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use imgbuild_tests::reachable::{self, Guest};
use imgbuild_tests::{Finished, TestEnv, finish, run, start, wait_until};

/// Asks for the tests that take minutes.
const ASKED: &str = "IMGBUILD_SOAK";
/// Time to log in that a busy host does not miss.
const PATIENT: Duration = Duration::from_secs(60);
/// KiB of available memory that an attack may cost: caches vary by so much.
const SLACK: u64 = 2048;
const MIB: u64 = 1 << 20;

fn is_soak() -> bool {
    std::env::var_os(ASKED).is_some()
}

/// Tells a figure of a long run.
fn say(text: &str) {
    if is_soak() {
        eprintln!("{text}");
    }
}

/// Does something to a guest, which then must be as it was before.
fn survives(guest: &mut Guest<'_>, what: &str, attack: impl FnOnce(&mut Guest<'_>)) {
    let before = guest.memory().available;
    let begin = Instant::now();
    attack(guest);
    guest.wait_for_quiet();
    guest.assert_well();
    let after = guest.memory().available;
    assert!(
        after + SLACK > before,
        "{what}: {before} KiB available before, {after} KiB after"
    );
    say(&format!(
        "{what}: {:.1} s, {before} → {after} KiB available",
        begin.elapsed().as_secs_f64()
    ));
}

/// Runs a client whose input is this many zeros, or without end; a gigabyte
/// takes longer than [`finish`] has patience.
fn with_zeros(mut command: Command, bytes: Option<u64>) -> Finished {
    let mut child = start(command.stdin(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    let zeros = File::open("/dev/zero").unwrap();
    // A client that ends early is what some ask for.
    let feeder = thread::spawn(move || {
        std::io::copy(&mut zeros.take(bytes.unwrap_or(u64::MAX)), &mut stdin)
    });
    let output = child.wait_with_output().unwrap();
    let _ = feeder.join().unwrap();
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Bytes that no two tests see differently.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

/// Sends all that the server takes.
fn throw(stream: &mut TcpStream, bytes: &[u8]) {
    stream
        .set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    // It hangs up in the middle, as it should.
    let _ = stream.write_all(bytes);
}

/// Waits until the server hung up.
fn wait_for_end(stream: &mut TcpStream) {
    stream
        .set_read_timeout(Some(Duration::from_secs(300)))
        .unwrap();
    let mut sink = Vec::new();
    match stream.read_to_end(&mut sink) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn strangers_get_nothing_and_leave_nothing() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, PATIENT);

    survives(guest, "port scan", |guest| {
        for _ in 0..50 {
            drop(guest.connect());
        }
    });
    for (what, bytes) in [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n".to_vec()),
        ("garbage", garbage(100_000)),
        ("binary zeros", vec![0; 100_000]),
        ("a line of 10 MB", vec![b'x'; 10_000_000]),
        (
            "garbage for packets",
            [b"SSH-2.0-x\r\n", &garbage(100_000)[..]].concat(),
        ),
        // A length of 2 GiB.
        (
            "a huge packet",
            [b"SSH-2.0-x\r\n\x7f\xff\xff\xfc", &garbage(50_000)[..]].concat(),
        ),
    ] {
        survives(guest, what, |guest| {
            let mut stream = guest.connect();
            throw(&mut stream, &bytes);
            wait_for_end(&mut stream);
        });
    }
    survives(guest, "other ways to log in", |guest| {
        let key = env.path().join("rsa");
        run(env
            .command("ssh-keygen")
            .args(["-q", "-N", "", "-t", "rsa", "-f"])
            .arg(&key))
        .succeeds();
        let rsa = format!("IdentityFile={}", key.display());
        for options in [
            &["-o", "PreferredAuthentications=password"][..],
            &["-o", "PreferredAuthentications=keyboard-interactive"],
            &["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", &rsa],
        ] {
            let port = guest.port.to_string();
            let mut options = options.to_vec();
            options.extend([
                "-o",
                "BatchMode=yes",
                "-o",
                "HostName=127.0.0.1",
                "-p",
                &port,
            ]);
            run(&mut guest.ssh(&options, ["status"]))
                .exits(255)
                .says(&["Permission denied (publickey)"]);
        }
        let pqc = ["-o", "KexAlgorithms=sntrup761x25519-sha512@openssh.com"];
        run(&mut guest.ssh(&pqc, ["status"])).exits(255);
        run(&mut guest.ssh(&["-c", "aes128-ctr"], ["status"])).exits(255);
    });
}

#[test]
fn silent_clients_keep_nobody_out() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, Duration::from_secs(20));
    // As many as are served at a time: those that wait get their place.
    survives(guest, "8 half-open connections", |guest| {
        let mut silent: Vec<_> = (0..8).map(|_| guest.connect()).collect();
        wait_until("a client gets through", || {
            run(&mut guest.ssh(&[], ["status"])).status.success()
        });
        // The deadline ends the others.
        silent.iter_mut().for_each(wait_for_end);
    });
    // More than wait in the kernel, each with as much data as it takes.
    survives(guest, "150 half-open connections", |guest| {
        let data = garbage(100_000);
        let mut silent: Vec<_> = (0..150).map(|_| guest.connect()).collect();
        for stream in &mut silent[8..] {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(&data);
        }
        thread::sleep(Duration::from_secs(2));
        drop(silent);
        wait_until("a client gets through", || {
            run(&mut guest.ssh(&[], ["status"])).status.success()
        });
    });
}

#[test]
fn a_hundred_clients_take_turns() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, PATIENT);
    survives(guest, "100 clients at once", |guest| {
        let options = ["-o", "ConnectTimeout=280"];
        let clients: Vec<_> = (0..100)
            .map(|_| start(&mut guest.ssh(&options, ["status"])))
            .collect();
        for client in clients {
            finish(client).succeeds().shows(&["id=g00000"]);
        }
    });
}

#[test]
fn clients_that_logged_in_cannot_do_harm() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, PATIENT);
    let long = "x".repeat(2000);
    survives(guest, "commands", |guest| {
        run(&mut guest.ssh(&[], [&long]))
            .exits(2)
            .says(&["line too long"]);
        // Text is UTF-8 in SSH.
        run(guest.ssh(&[], ["echo"]).arg(OsStr::from_bytes(b"\xff\xfe"))).exits(255);
        let mut shell = guest.ssh(&[], []);
        let mut child = start(shell.stdin(Stdio::piped()));
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(b"echo a\0b\n\xff\xfe\ncat /a\0b\n")
            .unwrap();
        drop(stdin);
        finish(child)
            .exits(1)
            .shows(&["a\0b"])
            .says(&["not UTF-8 text"]);
    });
    survives(guest, "many channels", |guest| {
        let path = format!("ControlPath={}", env.path().join("mux").display());
        let master = ["-M", "-N", "-o", &path];
        let master = start(&mut guest.ssh(&master, []));
        wait_until("the master listens", || env.path().join("mux").exists());
        let options = ["-o", "ControlMaster=no", "-o", &path];
        for _ in 0..6 {
            run(&mut guest.ssh(&options, ["status"])).succeeds();
        }
        let sessions: Vec<_> = (0..6)
            .map(|_| start(&mut guest.ssh(&options, ["status"])))
            .collect();
        let sessions: Vec<_> = sessions.into_iter().map(finish).collect();
        // One is served and four wait; what is more may be refused.
        let served = sessions.iter().filter(|one| one.status.success()).count();
        assert!(served >= 5, "{sessions:?}");
        kill(master);
    });
    survives(guest, "a client that dies", |guest| {
        for command in ["write /dev/null", "cat /dev/zero"] {
            let mut client = guest.ssh(&[], [command]);
            client.stdin(File::open("/dev/zero").unwrap());
            client.stdout(Stdio::null());
            let client = client.spawn().unwrap();
            wait_until("it is served", || {
                let ps = run(&mut guest.ssh(&[], ["ps"])).succeeds();
                ps.stdout.matches(" init\n").count() == 3
            });
            kill(client);
            guest.wait_for_quiet();
        }
    });
    survives(guest, "keys exchanged again and again", |guest| {
        let rekey = ["-o", "RekeyLimit=1M"];
        with_zeros(guest.ssh(&rekey, ["write", "/dev/null"]), Some(64 * MIB)).succeeds();
        let echoed = with_zeros(guest.ssh(&rekey, ["cat"]), Some(4 * MIB)).succeeds();
        assert_eq!(echoed.stdout.len(), 4 << 20);
    });
    if is_soak() {
        survives(guest, "write /dev/null, 1000 MiB", |guest| {
            with_zeros(guest.ssh(&[], ["write", "/dev/null"]), Some(1000 * MIB)).succeeds();
        });
    }
    survives(guest, "a full disk", |guest| {
        with_zeros(guest.ssh(&[], ["write", "/disk/x"]), None)
            .exits(1)
            .says(&["/disk/x: write"]);
        run(&mut guest.ssh(&[], ["write", "/disk/x", "fits"])).succeeds();
        let read = run(&mut guest.ssh(&[], ["cat", "/disk/x"])).succeeds();
        assert_eq!(read.stdout, "fits\n");
    });
}

#[test]
fn a_console_can_be_flooded_and_left_unread() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, PATIENT);
    survives(guest, "garbage on the console", |guest| {
        guest.tell(&garbage(300_000));
    });
    survives(guest, "a line without end", |guest| {
        guest.tell(&vec![b'x'; 300_000]);
        run(&mut guest.ssh(&[], ["status"])).succeeds();
    });
    survives(guest, "an unread console", |guest| {
        for _ in 0..300 {
            guest.tell(b"status\n");
        }
        guest.tell(b"dmesg\n");
        run(&mut guest.ssh(&[], ["status"])).succeeds();
        // Now that the console is read, the command comes to its end.
        wait_until("another command is taken", || guest.ask("uptime").0 == 0);
    });
    survives(guest, "NUL and no text", |guest| {
        assert_eq!(guest.ask("echo a\0b"), (0, "a\0b\n".to_owned()));
        assert_eq!(guest.ask("cat /a\0b").0, 1);
        guest.tell(b"\xff\xfe\n");
    });
    // One that does not end: the job's limit is 60 s.
    guest.tell(b"@4000000000 cat /dev/kmsg\n");
    guest.assert_well();
    let (code, output) = guest.ask("uptime");
    assert_eq!((code, output.as_str()), (1, "another command is running"));
    guest.assert_well();
}

#[test]
fn connections_leave_nothing_behind() {
    let env = TestEnv::new();
    let out = reachable::artifacts(&env);
    let guest = &mut Guest::start(&env, &out, PATIENT);
    if !is_soak() {
        // Past the harness, which keeps what a test that passes prints.
        writeln!(
            std::io::stderr(),
            "60 connections, not 1,000, and 64 MiB, not a gigabyte; `just soak` ({ASKED}=1) takes \
             minutes"
        )
        .unwrap();
    }
    // The first ones fill caches.
    let (first, all) = if is_soak() { (100, 1000) } else { (20, 60) };
    let begin = Instant::now();
    let mut early = None;
    for count in 1..=all {
        run(&mut guest.ssh(&[], ["status"])).succeeds();
        if count == first {
            guest.wait_for_quiet();
            early = Some((guest.memory(), guest.touched()));
        }
    }
    let time = begin.elapsed() / all;
    guest.wait_for_quiet();
    let (early, early_touched) = early.unwrap();
    let (late, late_touched) = (guest.memory(), guest.touched());
    say(&format!(
        "{all} connections, {time:.0?} each; from connection {first}: RAM touched {early_touched} \
         → {late_touched} KiB, slab {} → {} KiB, available {} → {} KiB",
        early.slab, late.slab, early.available, late.available
    ));
    assert!(
        late_touched < early_touched + 512,
        "{early_touched} {late_touched}"
    );
    assert!(late.slab < early.slab + 256, "{early:?} {late:?}");
    assert!(late.available + 512 > early.available, "{early:?} {late:?}");
    guest.assert_well();
}

#[test]
fn a_client_that_says_nothing_more_is_hung_up_on() {
    let env = TestEnv::new();
    let out = reachable::artifacts_with(&env, "tty.idle=2");
    let guest = &mut Guest::start(&env, &out, PATIENT);
    // The prompt waits for a line that never comes.
    let mut client = guest.ssh(&[], []);
    let mut client = start(client.stdin(Stdio::piped()));
    let input = client.stdin.take();
    let _ = finish(client).exits(255).shows(&["g00000# "]);
    drop(input);
    guest.assert_well();
}
