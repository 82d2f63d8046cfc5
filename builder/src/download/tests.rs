use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use server::Server;

mod server;

const BODY: &[u8] = b"what the server has, long enough to be cut in two";

struct Case {
    cache: tempfile::TempDir,
    options: Options,
}

impl Case {
    fn new() -> Self {
        let interrupt = Interrupt::never().unwrap();
        Self {
            cache: tempfile::tempdir().unwrap(),
            options: Options {
                stall: Duration::from_secs(20),
                pause: Duration::from_millis(1),
                size_limit: 1 << 20,
                ..Options::new(Network::Online, interrupt)
            },
        }
    }

    fn fetch(&self, server: &Server) -> Result<PathBuf, DownloadError> {
        let expected = Sha256::of_bytes(BODY);
        fetch(
            &server.url("/file.tar.xz"),
            expected,
            self.cache.path(),
            &self.options,
        )
    }

    fn path(&self) -> PathBuf {
        cached_path(self.cache.path(), &Sha256::of_bytes(BODY))
    }

    /// What an earlier process left.
    fn leave(&self, part: &[u8], validator: Option<&str>) {
        let path = self.path();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path.with_extension("part"), part).unwrap();
        if let Some(validator) = validator {
            fs::write(path.with_extension("part.validator"), validator).unwrap();
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.contains(".lock"))
            .collect();
        names.sort();
        names
    }
}

fn whole(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn rest(body: &[u8], start: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{}/{}\r\nContent-Length: {}\r\n\r\n",
        body.len() - 1,
        body.len(),
        body.len() - start
    );
    [head.as_bytes(), &body[start..]].concat()
}

/// The server hangs up after it, and says so (RFC 9112, section 9.6): a client that is
/// redirected would else ask again on a connection that is about to end.
fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn keeps_the_file_and_asks_only_once() {
    let server = Server::start(|_| whole(BODY));
    let case = Case::new();
    let path = case.fetch(&server).unwrap();
    assert_eq!(fs::read(&path).unwrap(), BODY);
    assert_eq!(case.fetch(&server).unwrap(), path);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(case.names().len(), 1);
}

#[test]
fn offline_says_what_is_missing_and_where_it_goes() {
    let server = Server::start(|_| whole(BODY));
    let mut case = Case::new();
    case.options.network = Network::Offline;
    let text = case.fetch(&server).unwrap_err().to_string();
    assert!(text.contains("/file.tar.xz"), "{text}");
    assert!(text.contains(case.path().to_str().unwrap()), "{text}");
    assert!(server.requests().is_empty());

    fs::create_dir_all(case.path().parent().unwrap()).unwrap();
    fs::write(case.path(), BODY).unwrap();
    case.fetch(&server).unwrap();
}

#[test]
fn follows_redirects_but_not_for_ever() {
    let server = Server::start(|request| {
        let turn: u32 = request
            .path
            .trim_start_matches("/turn")
            .parse()
            .unwrap_or(0);
        match turn {
            10 => whole(BODY),
            _ => status(&format!("302 Found\r\nLocation: /turn{}", turn + 1)),
        }
    });
    Case::new().fetch(&server).unwrap();

    let server = Server::start(|_| status("302 Found\r\nLocation: /again"));
    let error = Case::new().fetch(&server).unwrap_err();
    assert!(
        error.to_string().contains("more than 10 redirects"),
        "{error}"
    );
    assert_eq!(server.requests().len(), 11);
}

#[test]
fn a_missing_file_is_not_asked_for_again() {
    let server = Server::start(|_| status("404 Not Found"));
    let text = Case::new().fetch(&server).unwrap_err().to_string();
    assert!(
        text.contains("404") && text.contains("/file.tar.xz"),
        "{text}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_in_trouble_is_asked_three_times() {
    let server = Server::start(|_| status("503 Service Unavailable"));
    let error = Case::new().fetch(&server).unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    let server = Server::start(|request| match request.header("range") {
        None => whole(BODY)[..whole(BODY).len() - 10].to_vec(),
        Some(_) => rest(BODY, BODY.len() - 10),
    });
    Case::new().fetch(&server).unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    let range = format!("bytes={}-", BODY.len() - 10);
    assert_eq!(requests[1].header("range"), Some(range.as_str()));
    assert_eq!(requests[1].header("if-range"), Some("\"v1\""));
}

#[test]
fn a_later_process_goes_on_where_an_earlier_one_stopped() {
    let server = Server::start(|_| rest(BODY, 5));
    let case = Case::new();
    case.leave(&BODY[..5], Some("\"v1\""));
    case.fetch(&server).unwrap();
    assert_eq!(server.requests()[0].header("if-range"), Some("\"v1\""));
    assert_eq!(case.names().len(), 1);
}

#[test]
fn a_changed_file_is_taken_from_its_beginning() {
    let server = Server::start(|_| whole(BODY));
    let case = Case::new();
    case.leave(b"of another version", Some("\"v0\""));
    case.fetch(&server).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_part_that_does_not_fit_is_dropped_once() {
    let server = Server::start(|request| match request.header("range") {
        Some(_) => status("416 Range Not Satisfiable"),
        None => whole(BODY),
    });
    let case = Case::new();
    case.leave(&[0; 100], None);
    case.fetch(&server).unwrap();
    assert_eq!(server.requests().len(), 2);

    let server = Server::start(|_| status("416 Range Not Satisfiable"));
    let error = Case::new().fetch(&server).unwrap_err();
    assert!(matches!(error, DownloadError::Broken { .. }), "{error}");
}

#[test]
fn a_range_from_elsewhere_is_not_appended() {
    let server = Server::start(|request| match request.header("range") {
        Some(_) => rest(BODY, 7),
        None => whole(BODY),
    });
    let case = Case::new();
    case.leave(&BODY[..5], None);
    case.fetch(&server).unwrap();
}

#[test]
fn a_complete_part_needs_no_network() {
    let server = Server::start(|_| status("500 Oops"));
    let case = Case::new();
    case.leave(BODY, None);
    case.fetch(&server).unwrap();
    assert!(server.requests().is_empty());
}

#[test]
fn a_stall_ends_the_attempt() {
    let server = Server::start_and_hang(|_| whole(BODY)[..whole(BODY).len() - 10].to_vec());
    let mut case = Case::new();
    case.options.stall = Duration::from_millis(500);
    let started = Instant::now();
    let error = case.fetch(&server).unwrap_err();
    assert!(
        error.to_string().contains("no byte came for 500ms"),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn an_interrupt_keeps_what_has_come() {
    let server = Server::start_and_hang(|_| whole(BODY)[..whole(BODY).len() - 10].to_vec());
    let case = Case::new();
    let interrupt = case.options.interrupt.clone();
    let started = Instant::now();
    let error = thread::scope(|scope| {
        let fetching = scope.spawn(|| case.fetch(&server));
        let part = case.path().with_extension("part");
        while fs::metadata(&part).map_or(0, |part| part.len()) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        interrupt.raise();
        fetching.join().unwrap().unwrap_err()
    });
    assert!(
        matches!(error, DownloadError::Interrupted { .. }),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    let part = fs::read(case.path().with_extension("part")).unwrap();
    assert_eq!(part, BODY[..BODY.len() - 10]);
}

#[test]
fn a_wrong_file_is_kept_apart_and_named() {
    let server = Server::start(|_| whole(b"something else"));
    let case = Case::new();
    let text = case.fetch(&server).unwrap_err().to_string();
    let (expected, actual) = (Sha256::of_bytes(BODY), Sha256::of_bytes("something else"));
    let kept = format!("{actual}.bad");
    for part in [&expected.to_string(), &actual.to_string(), &kept] {
        assert!(text.contains(part.as_str()), "{text}");
    }
    assert_eq!(case.names(), [kept]);
}

#[test]
fn a_damaged_file_in_the_cache_is_not_used() {
    let server = Server::start(|_| whole(BODY));
    let case = Case::new();
    fs::create_dir_all(case.path().parent().unwrap()).unwrap();
    fs::write(case.path(), "damaged").unwrap();
    assert_eq!(fs::read(case.fetch(&server).unwrap()).unwrap(), BODY);
    assert_eq!(case.names().len(), 2);
}

#[test]
fn a_body_of_unknown_length_is_taken_to_its_end() {
    let chunked = |body: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let size = format!("{:x}\r\n", body.len());
        [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    let server = Server::start(move |_| chunked(BODY));
    Case::new().fetch(&server).unwrap();

    let server = Server::start(|_| [b"HTTP/1.1 200 OK\r\n\r\n", BODY].concat());
    Case::new().fetch(&server).unwrap();
}

#[test]
fn a_file_over_the_limit_is_refused_announced_or_not() {
    let announced =
        Server::start(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n".to_vec());
    let streamed =
        Server::start(|_| [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![0; 3 << 20]].concat());
    for server in [announced, streamed] {
        let case = Case::new();
        let error = case.fetch(&server).unwrap_err();
        assert!(matches!(error, DownloadError::TooLarge { .. }), "{error}");
        assert!(case.names().is_empty());
    }
}

#[test]
fn nobody_listening_is_an_error_with_the_cause() {
    let server = Server::start(|_| whole(BODY));
    let url = server.url("/file");
    drop(server);
    let case = Case::new();
    let error = fetch(
        &url,
        Sha256::of_bytes(BODY),
        case.cache.path(),
        &case.options,
    )
    .unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn two_at_once_download_once() {
    let server = Server::start(|_| {
        thread::sleep(Duration::from_millis(200));
        whole(BODY)
    });
    let case = Case::new();
    thread::scope(|scope| {
        let both = [
            scope.spawn(|| case.fetch(&server)),
            scope.spawn(|| case.fetch(&server)),
        ];
        for one in both {
            one.join().unwrap().unwrap();
        }
    });
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_lets_the_user_in_is_sent_and_never_printed() {
    let server = Server::start(|request| match &*request.path {
        "/file?token=secret" => {
            b"HTTP/1.1 302 Found\r\nLocation: /moved?signature=secret\r\n\r\n".to_vec()
        }
        "/moved?signature=secret" => whole(BODY),
        "/other?token=secret" => whole(b"something else"),
        "/cut?token=secret" => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut".to_vec(),
        "/circle?token=secret" => {
            b"HTTP/1.1 302 Found\r\nLocation: /circle?token=secret\r\n\r\n".to_vec()
        }
        _ => b"HTTP/1.1 403 secret\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let case = Case::new();
    let fetch = |path: &str, options: &Options| {
        let host = server.url("").to_string();
        let host = host.strip_prefix("http://").unwrap();
        let url = format!(
            "http://me:secret@{}{path}?token=secret",
            host.trim_end_matches('/')
        );
        fetch(
            &url.parse().unwrap(),
            Sha256::of_bytes(BODY),
            case.cache.path(),
            options,
        )
    };
    let offline = Options {
        network: Network::Offline,
        ..case.options.clone()
    };
    let failed = ["/other", "/cut", "/circle", "/refused"].map(|path| fetch(path, &case.options));
    for outcome in failed.into_iter().chain([fetch("/file", &offline)]) {
        let error = outcome.unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("http://127.0.0.1:"), "{text}");
            assert!(!text.contains("secret") && !text.contains("me@"), "{text}");
        }
    }
    fetch("/file", &case.options).unwrap();
    for request in server.requests() {
        // `me:secret` in base64.
        assert_eq!(request.header("authorization"), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(request.header("referer"), None);
    }
}
