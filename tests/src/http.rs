//! An HTTP server that answers as a test tells it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path.
    pub path: String,
    /// The first byte of the range asked for, if one was.
    pub first_byte: Option<usize>,
    /// Who it says that it is.
    pub authorization: Option<String>,
}

/// What a client gets.
#[derive(Debug)]
pub struct Answer {
    head: String,
    body: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy)]
enum Then {
    HangUp,
    Stall,
}

/// Listens on a port of its own until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let mut request = Self {
            path,
            first_byte: None,
            authorization: None,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            match &*name.to_lowercase() {
                "range" => {
                    let range = value.strip_prefix("bytes=")?.strip_suffix('-')?;
                    request.first_byte = range.parse().ok();
                }
                "authorization" => request.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(request)
    }
}

impl Answer {
    /// A whole file.
    #[must_use]
    pub fn file(body: &[u8]) -> Self {
        Self::new("200 OK", "ETag: \"one\"\r\n", body)
    }

    /// A file from a byte on.
    #[must_use]
    pub fn rest(body: &[u8], first: usize) -> Self {
        let (last, total) = (body.len() - 1, body.len());
        let range = format!("ETag: \"one\"\r\nContent-Range: bytes {first}-{last}/{total}\r\n");
        Self::new("206 Partial Content", &range, &body[first..])
    }

    /// The file, or the part of it that was asked for.
    #[must_use]
    pub fn serve(body: &[u8], request: &Request) -> Self {
        match request.first_byte {
            Some(first) => Self::rest(body, first),
            None => Self::file(body),
        }
    }

    /// A status such as `404 Not Found`.
    #[must_use]
    pub fn status(status: &str) -> Self {
        Self::new(status, "", b"")
    }

    /// Another place to look.
    #[must_use]
    pub fn redirect(to: &str) -> Self {
        Self::new("302 Found", &format!("Location: {to}\r\n"), b"")
    }

    fn new(status: &str, headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        Self {
            head: format!(
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
            ),
            body: body.to_vec(),
            then: Then::HangUp,
        }
    }

    /// Hangs up after that many bytes of the body.
    #[must_use]
    pub fn cut_at(mut self, length: usize) -> Self {
        self.body.truncate(length);
        self
    }

    /// Sends nothing more after that many bytes of the body, and does not hang up.
    #[must_use]
    pub fn stall_at(self, length: usize) -> Self {
        Self {
            then: Then::Stall,
            ..self.cut_at(length)
        }
    }
}

impl Server {
    /// Answers each request, one after the other.
    #[must_use]
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut stalled = Vec::new();
            for mut stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Some(request) = Request::read(&stream) else {
                    continue;
                };
                let answer = answer(&request);
                seen.lock().expect("no holder panics").push(request);
                // The client may hang up first: that is what some tests are about.
                let _ = stream.write_all(answer.head.as_bytes());
                let _ = stream.write_all(&answer.body);
                match answer.then {
                    Then::HangUp => hang_up(stream),
                    Then::Stall => stalled.push(stream),
                }
            }
        });
        Self {
            address,
            requests,
            stop,
            thread: Some(thread),
        }
    }

    /// The address of a path, such as `/vmlinux`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no holder panics").clone()
    }
}

/// Closes without a reset, which would take away what the client has not read.
fn hang_up(mut stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0; 16]);
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
