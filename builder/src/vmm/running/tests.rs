use std::os::unix::net::UnixStream;

use rustix::process::getpid;

use super::*;

/// A VMM's console, and the VMM's end of it. The VMM is this process, which
/// nobody here signals.
fn running() -> (Running, UnixStream) {
    let (console, guest) = UnixStream::pair().unwrap();
    guest.set_nonblocking(true).unwrap();
    let pidfd = pidfd_open(getpid(), PidfdFlags::NONBLOCK).unwrap();
    let running = Running::adopted(getpid(), pidfd, console, 0).unwrap();
    (running, guest)
}

/// Says as much as the socket takes.
fn flood(guest: &mut UnixStream, text: &[u8]) {
    while guest.write(text).is_ok() {}
}

#[test]
fn short_lines_are_bounded_in_a_turn_and_in_a_second() {
    let (mut running, mut guest) = running();
    let now = Instant::now();
    let mut total = 0;
    let later = loop {
        flood(&mut guest, &b"\n\n".repeat(2048));
        let mut lines = Vec::new();
        let (amount, more) = running.read(now, &mut lines);
        assert_eq!(amount.lines, lines.len());
        // A read that goes beyond is the last.
        assert!(lines.len() < TURN_MAX.lines + 4096, "{}", lines.len());
        total += lines.len();
        match more {
            More::Now => {}
            More::Later(at) => break at,
            More::Nothing => panic!("there is more"),
        }
    };
    assert!((SECOND_MAX.lines..SECOND_MAX.lines + 4096).contains(&total));
    let mut lines = Vec::new();
    assert_eq!(running.read(later, &mut lines).1, More::Now);
}

#[test]
fn the_last_words_of_a_flood_are_its_last() {
    let (mut running, mut guest) = running();
    flood(&mut guest, b"\n");
    let mut lines = Vec::new();
    while running.read(Instant::now(), &mut lines).1 == More::Now {}
    flood(&mut guest, &b"\n".repeat(1024));
    let room = std::iter::from_fn(|| running.console.read(&mut [0; 4096]).ok());
    room.take(1).for_each(drop);
    guest.write_all(b"panic\nno end").unwrap();
    let (amount, lines) = running.read_rest();
    assert!(amount.lines > SECOND_MAX.lines);
    assert_eq!(lines.len(), SECOND_MAX.lines + 1);
    assert_eq!(lines[SECOND_MAX.lines - 1..], [&b"panic"[..], b"no end"]);
}

#[test]
fn lines_wait_for_a_console_in_bounds_and_ours_have_room_behind_them() {
    let (mut running, guest) = running();
    let line = "x".repeat(1000);
    let taken = std::iter::repeat_with(|| running.type_line(&line))
        .take_while(|taken| *taken)
        .count();
    // What the socket holds comes to it.
    assert!(taken >= OUTGOING_MAX / 1001, "{taken}");
    assert!(!running.type_line(&line));
    assert!(running.send("heartbeat"));
    let ours = std::iter::repeat_with(|| running.send("heartbeat"))
        .take_while(|taken| *taken)
        .count();
    assert!(
        (1..2 * OWN_MAX / "heartbeat".len()).contains(&ours),
        "{ours}"
    );
    drop(guest);
}

#[test]
fn a_message_that_comes_in_pieces_is_one_line() {
    let (mut running, _guest) = running();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("g00000");
    let mut read = |written: &str| {
        let mut options = File::options();
        let mut file = options.append(true).create(true).open(&path).unwrap();
        file.write_all(written.as_bytes()).unwrap();
        let lines = running.read_errors(&path).unwrap();
        (lines, running.last_error())
    };
    assert_eq!(read("qemu: "), (vec![], Some(b"qemu:".to_vec())));
    assert_eq!(
        read("-netdev user: "),
        (vec![], Some(b"qemu: -netdev user:".to_vec()))
    );
    let whole = b"qemu: -netdev user: taken".to_vec();
    assert_eq!(read("taken\n"), (vec![whole], None));
    assert_eq!(read("dies"), (vec![], Some(b"dies".to_vec())));
}
