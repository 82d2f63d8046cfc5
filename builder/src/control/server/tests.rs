//! The server and the client, with a supervisor that answers from a table.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

use mio::{Poll, Token, Waker};
use tempfile::TempDir;
use tokio::sync::mpsc as stream;

use super::limits::BODY_MAX;
use super::*;
use crate::control::bridge::{Act, Detail, Request, bridge};
use crate::control::client::{Client, ClientError, Next};
use crate::control::memory::Processes;
use crate::control::metrics::Distribution;
use crate::control::types::{
    self, API_VERSION, ActAnswer, ActRequest, Answer, AskRequest, BurnTotals, Event, Fleet, Guest,
    Refusal, Selection, Stage, Totals,
};
use crate::directories::Directories;
use crate::guest::{Desired, Phase};
use crate::host_id::HostId;
use crate::interrupt::Interrupt;
use crate::store::folder::Paths;
use crate::units::GuestIndex;

/// A server, and a supervisor of one guest, g00007, that can be told to wait.
struct Served {
    folder: TempDir,
    server: Option<Server>,
    poll: Option<Poll>,
    supervisor: Option<JoinHandle<()>>,
    metrics: std::net::SocketAddr,
    /// Lets an act through; `Act::Stop` waits for it.
    go: mpsc::Sender<()>,
    /// Sent to when who attended went away.
    left: mpsc::Receiver<()>,
    /// Held by the supervisor while it lives.
    end: mpsc::Sender<()>,
}

fn seven() -> GuestIndex {
    GuestIndex::new(7).unwrap()
}

fn guest() -> Guest {
    Guest {
        id: seven(),
        state: Phase::Ready,
        desired: Desired::Up,
        pid: Some(77),
        for_seconds: 1.5,
        ready_after: Some(0.5),
        restarts: 3,
        unresponsive: 2,
        reason: None,
        ssh: Some("127.0.0.1:2222".to_owned()),
        burn: None,
    }
}

/// One whose threads never waited.
struct Still;

impl RunQueue for Still {
    fn read(&self) -> Vec<Distribution> {
        Vec::new()
    }
}

fn fleet(detail: Detail) -> Fleet {
    Fleet {
        api: API_VERSION,
        fleet: "f".to_owned(),
        host: "h".to_owned(),
        stage: Stage::Up,
        supervisor: None,
        wanted: 1,
        counts: BTreeMap::from([(Phase::Ready, 1)]),
        held_back: None,
        forced: vec!["memory".to_owned()],
        totals: Totals {
            restarts: 3,
            unresponsive: 2,
            ..Totals::default()
        },
        burn: BurnTotals::default(),
        guests: match detail {
            Detail::Whole => vec![guest()],
            Detail::Summary => Vec::new(),
        },
    }
}

fn done(guest: GuestIndex) -> ActAnswer {
    ActAnswer {
        done: vec![guest],
        refused: Vec::new(),
    }
}

/// What the supervisor keeps open.
#[derive(Default)]
struct Open {
    events: Vec<stream::Sender<Event>>,
    consoles: Vec<stream::Sender<Vec<u8>>>,
}

fn serve_request(
    request: Request,
    open: &mut Open,
    go: &mpsc::Receiver<()>,
    left: &mpsc::Sender<()>,
) {
    match request {
        Request::Fleet { detail, reply } => drop(reply.send(fleet(detail))),
        Request::Processes { reply } => drop(reply.send(Processes {
            fleet: "f".to_owned(),
            guests: vec![(seven(), std::process::id())],
            supervisor: None,
            handed: 0,
            charged: None,
            ksm: None,
        })),
        Request::Guest {
            guest: which,
            reply,
        } => {
            drop(reply.send((which == seven()).then(guest)));
        }
        Request::Act {
            act,
            request,
            reply,
        } => {
            if act == Act::Stop {
                go.recv().unwrap();
            }
            drop(reply.send(ActAnswer {
                done: vec![seven()],
                refused: vec![Refusal {
                    id: seven(),
                    reason: format!("{act:?} {:?}", request.grace_seconds),
                }],
            }));
        }
        Request::Scale { count, reply } => {
            let answer = if count > 10 {
                Err(format!("{count} guests do not fit"))
            } else {
                Ok(done(seven()))
            };
            drop(reply.send(answer));
        }
        Request::Ask { request, answers } => {
            for number in 0..3 {
                let answer = Answer {
                    id: seven(),
                    code: Some(number),
                    output: request.command.clone(),
                    seconds: 0.25,
                };
                answers.try_send(answer).unwrap();
            }
        }
        Request::Attend { held, .. } => {
            // The client may have gone.
            let _ = held.try_send(());
            let left = left.clone();
            thread::spawn(move || {
                let runtime = runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(held.closed());
                let _ = left.send(());
            });
        }
        Request::Scrape { reply } => drop(reply.send(fleet(Detail::Summary))),
        Request::Events { events } => {
            let _ = events.try_send(Event::Snapshot(Box::new(fleet(Detail::Whole))));
            let _ = events.try_send(Event::Guest(guest()));
            open.events.push(events);
        }
        Request::Console { lines, .. } => {
            lines.try_send(b"hello \xff".to_vec()).unwrap();
            open.consoles.push(lines);
        }
        Request::Type { lines, reply, .. } => {
            if lines == ["refuse"] {
                drop(reply.send(Err("it is not ready".to_owned())));
                return;
            }
            let taken: Vec<_> = lines.iter().take_while(|line| *line != "full").collect();
            for line in &taken {
                for console in &open.consoles {
                    let _ = console.try_send(line.as_bytes().to_vec());
                }
            }
            drop(reply.send(Ok(taken.len())));
        }
    }
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("f")).unwrap();
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let (outbox, inbox) = bridge(waker);
        let control = bind(&folder.path().join("f/control")).unwrap();
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = metrics.local_addr().unwrap();
        let server = serve(control, Some(metrics), Arc::new(Still), outbox).unwrap();
        let (go, wait) = mpsc::channel();
        let (leave, left) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let supervisor = thread::spawn(move || {
            let mut open = Open::default();
            for request in inbox {
                if ended.try_recv().is_ok() {
                    return;
                }
                serve_request(request, &mut open, &wait, &leave);
            }
        });
        Self {
            folder,
            server: Some(server),
            poll: Some(poll),
            supervisor: Some(supervisor),
            metrics: address,
            go,
            left,
            end,
        }
    }

    fn client(&self) -> Client {
        client(self.folder.path())
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("f/control")).unwrap()
    }

    /// Sends bytes on a connection of their own, and gives all that comes back
    /// until the server closes it.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may close before all is sent.
        let _ = stream.write_all(bytes);
        read_all(&mut stream)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server = None;
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.join().unwrap();
        }
        self.poll = None;
    }
}

/// A client of the fleet `f`, which there is as long as it has its spec.
fn client(folder: &Path) -> Client {
    let spec = spec(folder);
    fs::create_dir_all(spec.parent().unwrap()).unwrap();
    fs::write(spec, "{}").unwrap();
    Client::new("f", &paths(folder), &Interrupt::never().unwrap())
}

fn spec(folder: &Path) -> PathBuf {
    paths(folder).spec_file()
}

fn paths(folder: &Path) -> Paths {
    let directories = Directories {
        cache: folder.to_path_buf(),
        state: folder.to_path_buf(),
        runtime: folder.to_path_buf(),
        host: HostId::this().unwrap(),
    };
    Paths::of("f", &directories)
}

/// A connection that is cut off has said all that it had to say.
fn read_all(stream: &mut impl io::Read) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn status(answer: &str) -> u16 {
    let word = answer.split(' ').nth(1);
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{answer:?}"))
}

/// The error's sentence, from an answer that is one.
fn error(answer: &str) -> String {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let error: types::Error = serde_json::from_str(body).unwrap();
    error.error
}

fn act(guests: Selection) -> ActRequest {
    ActRequest {
        guests,
        grace_seconds: Some(2.5),
    }
}

#[test]
fn every_call_brings_its_answer() {
    let served = Served::new();
    let client = served.client();
    for detail in [Detail::Whole, Detail::Summary] {
        assert_eq!(client.fleet(detail).unwrap(), fleet(detail));
    }
    assert_eq!(client.guest(seven()).unwrap(), guest());
    let error = client.guest(GuestIndex::new(8).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the fleet has no guest g00008");
    let answer = client
        .act(Act::Kill, &act(Selection::These(vec![seven()])))
        .unwrap();
    assert_eq!(answer.done, [seven()]);
    assert_eq!(answer.refused[0].reason, "Kill Some(2.5)");
    assert_eq!(client.scale(10).unwrap(), done(seven()));
    let error = client.scale(11).unwrap_err();
    assert_eq!(error.to_string(), "11 guests do not fit");
    assert!(matches!(error, ClientError::Refused(_)));

    let mut answers = client
        .ask(&AskRequest {
            guests: Selection::All,
            command: "status --json".to_owned(),
            within_seconds: None,
        })
        .unwrap();
    for number in 0..3 {
        let Next::Item(answer) = answers.next(None).unwrap() else {
            panic!("it ended early");
        };
        assert_eq!(
            (answer.code, answer.output.as_str()),
            (Some(number), "status --json")
        );
    }
    assert_eq!(answers.next(None).unwrap(), Next::End);
}

#[test]
fn a_console_is_heard_and_spoken_to() {
    let served = Served::new();
    let client = served.client();
    let mut console = client.console(seven()).unwrap();
    assert_eq!(
        console.next(None).unwrap(),
        Next::Item(b"hello \xff".to_vec())
    );
    let typed = client
        .type_lines(seven(), "one\ntwo\r\nfull\nthree")
        .unwrap();
    assert_eq!((typed.taken, typed.refused), (2, 2));
    for line in ["one", "two"] {
        assert_eq!(console.next(None).unwrap(), Next::Item(line.into()));
    }
    let now = Instant::now();
    assert_eq!(console.next(Some(now)).unwrap(), Next::Late);
    let error = client.type_lines(seven(), "refuse").unwrap_err();
    assert_eq!(error.to_string(), "it is not ready");
    let error = client.type_lines(seven(), "full").unwrap_err();
    assert!(matches!(error, ClientError::Busy(_)), "{error}");
    assert!(error.to_string().contains("try again"), "{error}");
    assert!(client.type_lines(seven(), &"x".repeat(5000)).is_err());
    assert!(client.type_lines(seven(), "a\u{1b}b").is_err());
    assert!(client.console(GuestIndex::new(8).unwrap()).is_err());
}

#[test]
fn attendance_ends_with_the_connection() {
    let served = Served::new();
    let held = served
        .client()
        .attend(Selection::These(vec![seven()]))
        .unwrap();
    assert_eq!(served.left.try_recv(), Err(mpsc::TryRecvError::Empty));
    drop(held);
    served.left.recv().unwrap();
}

#[test]
fn an_interrupt_ends_a_wait() {
    let served = Served::new();
    let interrupt = Interrupt::never().unwrap();
    let client = Client::new("f", &paths(served.folder.path()), &interrupt);
    let (_, mut events) = client.watch().unwrap();
    assert_eq!(
        events.next(None).unwrap(),
        Next::Item(Event::Guest(guest()))
    );
    interrupt.raise();
    assert!(matches!(events.next(None), Err(ClientError::Interrupted)));
}

#[test]
fn a_bad_request_is_answered_with_what_is_wrong() {
    let served = Served::new();
    let endless = format!(r#"{{"guests":{{"these":["{}"]}}}}"#, "g".repeat(BODY_MAX));
    for (method, path, body, code, part) in [
        ("GET", "/", "", 404, "there is nothing at /"),
        ("GET", "/v2/fleet", "", 404, "version v2"),
        ("GET", "/v1/guests/g00008", "", 404, "no guest g00008"),
        ("GET", "/v1/guests/g00008/console", "", 404, "no guest"),
        ("POST", "/v1/guests/g00008/console", "x", 404, "no guest"),
        ("GET", "/v1/fleet?guests=no", "", 400, "guests=false"),
        ("POST", "/v1/fleet", "", 405, "use GET"),
        ("PUT", "/v1/guests/g00007/console", "", 405, "use GET, POST"),
        ("GET", "/v1/stop", "", 405, "use POST"),
        ("POST", "/v1/stop", "", 400, "EOF"),
        ("POST", "/v1/stop", "{}", 400, "missing field `guests`"),
        ("POST", "/v1/stop", r#"{"guests":"some"}"#, 400, "some"),
        (
            "POST",
            "/v1/stop",
            r#"{"guests":"all","x":1}"#,
            400,
            "unknown field",
        ),
        (
            "POST",
            "/v1/stop",
            r#"{"guests":{"these":["7"]}}"#,
            400,
            "five digits",
        ),
        (
            "POST",
            "/v1/stop",
            r#"{"guests":"all","grace_seconds":-1}"#,
            400,
            "grace_seconds",
        ),
        (
            "POST",
            "/v1/stop",
            r#"{"guests":"all","grace_seconds":1e300}"#,
            400,
            "grace_seconds",
        ),
        ("POST", "/v1/stop", &"[".repeat(10_000), 400, "bad request"),
        ("POST", "/v1/stop", &endless, 413, "1048576 bytes"),
        ("POST", "/v1/scale", r#"{"count":100001}"#, 400, "100,000"),
        ("POST", "/v1/scale", r#"{"count":-1}"#, 400, "bad request"),
        ("POST", "/v1/scale", r#"{"count":11}"#, 409, "do not fit"),
        (
            "POST",
            "/v1/ask",
            r#"{"guests":"all","command":"a\nb"}"#,
            400,
            "one line",
        ),
        (
            "POST",
            "/v1/guests/g00007/console",
            "refuse",
            409,
            "not ready",
        ),
    ] {
        let answer = served.exchange(&request(method, path, body));
        assert_eq!(status(&answer), code, "{method} {path}: {answer}");
        assert!(error(&answer).contains(part), "{method} {path}: {answer}");
        assert_eq!(answer.contains("\r\nallow: "), code == 405, "{answer}");
    }
    let text = [request("POST", "/v1/guests/g00007/console", ""), vec![]].concat();
    assert_eq!(status(&served.exchange(&text)), 200);
    let head = served.exchange(&request("HEAD", "/v1/fleet", ""));
    assert_eq!(status(&head), 200);
    let (fields, body) = head.split_once("\r\n\r\n").unwrap();
    assert!(fields.contains("\r\ncontent-length: "), "{head}");
    assert_eq!(body, "");
}

#[test]
fn what_is_no_http_is_refused_and_harms_nobody() {
    let served = Served::new();
    let long_path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(HEAD_MAX));
    let many_heads = format!("GET /v1/fleet HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/fleet HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
        b"POST /v1/stop HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        long_path.as_bytes(),
        many_heads.as_bytes(),
        &vec![b'x'; 1 << 20],
    ] {
        let answer = served.exchange(bytes);
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert!(
            answer.is_empty() || (400..=431).contains(&status(&answer)),
            "{shown}: {answer}"
        );
        assert_eq!(
            served.client().fleet(Detail::Whole).unwrap(),
            fleet(Detail::Whole)
        );
    }
}

#[test]
fn requests_may_follow_each_other() {
    let served = Served::new();
    let keep = b"GET /v1/guests/g00007 HTTP/1.1\r\nHost: x\r\n\r\n";
    let close = request("GET", "/v1/fleet", "");
    let answer = served.exchange(&[&keep[..], keep, &close].concat());
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3, "{answer}");
}

#[test]
fn a_client_that_goes_away_in_the_middle_leaves_nothing() {
    let served = Served::new();
    for bytes in [
        &b"GET /v1/ev"[..],
        b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/attend HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"guests\":\"all\"}",
        b"POST /v1/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ] {
        // Half-closed: it still listens, and is not waited for.
        let mut stream = served.connect();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        read_all(&mut stream);
        // Closed.
        let mut stream = served.connect();
        stream.write_all(bytes).unwrap();
    }
    assert_eq!(
        served.client().fleet(Detail::Whole).unwrap(),
        fleet(Detail::Whole)
    );
}

#[test]
fn slow_requests_are_cut_off_and_hold_up_nobody() {
    let served = Served::new();
    let mut head = served.connect();
    head.write_all(b"GET /v1/fleet HTTP/1.1\r\n").unwrap();
    let mut body = served.connect();
    body.write_all(b"POST /v1/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        .unwrap();
    let mut idle = served.connect();
    assert_eq!(
        served.client().fleet(Detail::Whole).unwrap(),
        fleet(Detail::Whole)
    );
    assert_eq!(read_all(&mut head), "");
    assert_eq!(status(&read_all(&mut body)), 408);
    assert_eq!(read_all(&mut idle), "");
}

#[test]
fn one_connection_too_many_waits_for_a_place() {
    let served = Served::new();
    let attend = || served.client().attend(Selection::All);
    let mut held: Vec<_> = (0..ATTENDING_MAX).map(|_| attend().unwrap()).collect();
    assert!(attend().unwrap_err().to_string().contains("attend"));
    while held.len() < CONNECTIONS_MAX {
        held.push(served.connect());
    }
    let mut waiting = served.connect();
    waiting.write_all(&request("GET", "/v1/fleet", "")).unwrap();
    waiting.set_nonblocking(true).unwrap();
    let early = waiting.read(&mut [0]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    held.pop();
    waiting.set_nonblocking(false).unwrap();
    assert_eq!(status(&read_all(&mut waiting)), 200);
}

#[test]
fn strangers_who_speak_no_http_are_counted() {
    let served = Served::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(served.metrics).unwrap();
        stream.write_all(b"\0\0\0\0\r\n\r\n").unwrap();
        // Its end is counted before the server closes it.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let counted = || {
        let text = served.exchange(&request("GET", "/metrics", ""));
        text.contains("imgbuild_broken_connections_total{fleet=\"f\"} 3\n")
    };
    while !counted() {
        thread::yield_now();
    }
}

#[test]
fn metrics_are_answered_on_both_and_alone_on_the_port() {
    let served = Served::new();
    let on_port = |path: &str| {
        let mut stream = TcpStream::connect(served.metrics).unwrap();
        stream.write_all(&request("GET", path, "")).unwrap();
        read_all(&mut stream)
    };
    for answer in [
        on_port("/metrics"),
        served.exchange(&request("GET", "/metrics", "")),
    ] {
        assert_eq!(status(&answer), 200);
        for part in [
            "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
            "imgbuild_guests{fleet=\"f\",state=\"ready\"} 1\n",
            "imgbuild_guests{fleet=\"f\",state=\"failed\"} 0\n",
            "imgbuild_guests_wanted{fleet=\"f\"} 1\n",
            "imgbuild_restarts_total{fleet=\"f\"} 3\n",
            "imgbuild_unresponsive_total{fleet=\"f\"} 2\n",
            "# TYPE imgbuild_supervisor_cpu_seconds_total counter\n",
        ] {
            assert!(answer.contains(part), "{part} is not in {answer}");
        }
    }
    for path in ["/v1/fleet", "/v1/schema", "/v1/events"] {
        let answer = on_port(path);
        assert_eq!(status(&answer), 404, "{path}");
        assert!(error(&answer).contains("control socket"), "{answer}");
    }
}

#[test]
fn the_end_finishes_what_is_under_way() {
    let mut served = Served::new();
    let client = served.client();
    let (_, mut events) = client.watch().unwrap();
    assert_eq!(
        events.next(None).unwrap(),
        Next::Item(Event::Guest(guest()))
    );
    let stopping = {
        let client = client.clone();
        thread::spawn(move || client.act(Act::Stop, &act(Selection::All)))
    };
    // The server has the request once another, sent later, is seen to wait.
    let ending = served.server.take().unwrap();
    let go = served.go.clone();
    let mut probe = served.connect();
    probe.write_all(&request("GET", "/v1/schema", "")).unwrap();
    assert_eq!(status(&read_all(&mut probe)), 200);
    go.send(()).unwrap();
    let answer = stopping.join().unwrap().unwrap();
    assert_eq!(answer.refused[0].reason, "Stop Some(2.5)");
    ending.stop();
    assert_eq!(events.next(None).unwrap(), Next::End);
    assert!(matches!(
        client.fleet(Detail::Whole),
        Err(ClientError::NotSupervised { .. })
    ));
}

#[test]
fn a_supervisor_that_ended_is_reported() {
    let mut served = Served::new();
    served.end.send(()).unwrap();
    // The first request finds it ending, the next finds it gone.
    for _ in 0..2 {
        let error = served.client().fleet(Detail::Whole).unwrap_err();
        assert!(
            error.to_string().contains("supervisor is ending"),
            "{error}"
        );
        if let Some(supervisor) = served.supervisor.take() {
            supervisor.join().unwrap();
        }
    }
}

#[test]
fn a_socket_is_bound_for_its_owner_and_only_a_dead_one_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    let first = bind(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = bind(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    drop(first);
    let second = bind(&path).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    drop(second);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    assert!(bind(&path).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_fleet_that_ended_meanwhile_is_not_lost() {
    for bytes in [
        &b""[..],
        b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{",
        b"HTTP/1.0 503 No\r\n\r\n{\"error\":\"the fleet's supervisor is ending\"}",
    ] {
        let error = met_with(bytes, |spec| fs::remove_file(spec).unwrap());
        assert!(matches!(error, ClientError::Ended { .. }), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let client = client(folder.path());
    fs::remove_file(spec(folder.path())).unwrap();
    let error = client.fleet(Detail::Whole).unwrap_err();
    assert_eq!(error.to_string(), "the fleet f has ended");
}

/// What a client says to a supervisor that answers `bytes` and goes away,
/// once something else was done.
fn met_with(bytes: &'static [u8], first: fn(&Path)) -> ClientError {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("f")).unwrap();
    let listener = bind(&folder.path().join("f/control")).unwrap();
    let client = client(folder.path());
    let spec = spec(folder.path());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        first(&spec);
        stream.write_all(bytes).unwrap();
    });
    let error = client.fleet(Detail::Whole).unwrap_err();
    answering.join().unwrap();
    error
}

#[test]
fn a_client_says_what_became_of_its_call() {
    for (bytes, part) in [
        (&b""[..], "lost the supervisor of fleet f"),
        (b"HTTP/1.0 200", "lost the supervisor"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 9\r\n\r\n{", "lost"),
        (b"HTTP/1.0 200 OK\r\n\r\n{", "malformed answer: EOF"),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", "missing field"),
        (
            b"SSH-2.0-x\x1b[2J\r\n\r\n",
            "malformed answer: SSH-2.0-x\\u{1b}[2J",
        ),
        (b"HTTP/1.0 500 No\r\n\r\n{}", "missing field"),
        (
            b"HTTP/1.0 404 No\r\n\r\n{\"error\":\"no\",\"versions\":[2,3]}",
            "speaks version 2, 3 of",
        ),
        (b"HTTP/1.0 409 No\r\n\r\n{\"error\":\"not now\"}", "not now"),
    ] {
        let error = met_with(bytes, |_| {}).to_string();
        assert!(error.contains(part), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let error = client(folder.path())
        .fleet(Detail::Whole)
        .unwrap_err()
        .to_string();
    // Nothing in its folder says whether it can be resumed.
    assert!(error.contains("imgbuild rm --force f"), "{error}");
}
