//! Passes a request to the supervisor and its answer back.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Request as HttpRequest, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::body::Answer;
use super::limits::{BODY_MAX, READ_TIME};
use super::refusal::Refusal;
use super::routes::Route;
use super::scraped::{Kept, Scraped};
use crate::control::bridge::{Detail, Outbox, Request, STREAM_LINES};
use crate::control::metrics::Readings;
use crate::control::types::{
    ActRequest, AskRequest, AttendRequest, Fleet, Guest, Memory, ScaleRequest, Typed,
};
use crate::control::{metrics, schema};
use crate::lines::LINE_MAX;
use crate::sample::ksm;
use crate::text;
use crate::units::{GuestIndex, GuestRange};

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain; charset=utf-8";

/// Longest time that a request may name: beyond any use, and far below what
/// [`Duration`] holds.
const SECONDS_MAX: f64 = 1e9;

/// Wakes the supervisor once a client has gone, that it may see so.
struct Parting(Outbox);

impl Drop for Parting {
    fn drop(&mut self) {
        let outbox = self.0.clone();
        // After the client's end of the channel, which goes with this value.
        tokio::spawn(async move {
            tokio::task::yield_now().await;
            outbox.wake();
        });
    }
}

/// What a listener is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Everything that there is.
    Everything,
    /// `/metrics` alone.
    Metrics,
}

#[derive(Debug, Clone)]
pub(crate) struct Handler {
    /// The way to the supervisor.
    pub outbox: Outbox,
    /// Changes when the server ends.
    pub stopping: watch::Receiver<bool>,
    /// What is answered.
    pub serves: Serves,
    /// Places for those who attend guests, each of whom stays.
    pub attending: Arc<Semaphore>,
    /// Connections that ended in an error.
    pub broken: Arc<AtomicU64>,
    pub scraped: Arc<Scraped>,
}

impl Handler {
    /// The answer to a request.
    pub(crate) async fn answer(self, request: HttpRequest<Incoming>) -> Response<Answer> {
        let answered = self.route(request).await;
        answered.unwrap_or_else(refused)
    }

    async fn route(&self, request: HttpRequest<Incoming>) -> Result<Response<Answer>, Refusal> {
        let route = Route::of(request.method(), request.uri().path())?;
        if self.serves == Serves::Metrics && route != Route::Metrics {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "only /metrics is answered here; the rest is on the fleet's control socket".into(),
            ));
        }
        match route {
            Route::Metrics => {
                let text = self.metrics().await?;
                Ok(whole(metrics::CONTENT_TYPE, text.into()))
            }
            Route::Schema => Ok(json(&schema::schema())),
            Route::Fleet => {
                let detail = detail(request.uri().query())?;
                Ok(json(&self.fleet(detail).await?))
            }
            Route::Memory => Ok(json(&self.memory().await?)),
            Route::Guest(guest) => Ok(json(&self.guest(guest).await?)),
            Route::Listen(guest) => {
                self.guest(guest).await?;
                let (lines, receiver) = mpsc::channel(STREAM_LINES);
                self.send(Request::Console { guest, lines })?;
                Ok(self.stream(TEXT, receiver, |mut line| {
                    line.push(b'\n');
                    line
                }))
            }
            Route::Send(guest) => {
                self.guest(guest).await?;
                let lines = body(request).await?;
                Ok(json(&self.type_lines(guest, &lines).await?))
            }
            Route::Events => {
                let (events, receiver) = mpsc::channel(STREAM_LINES);
                self.send(Request::Events { events })?;
                Ok(self.stream(JSON_LINES, receiver, |event| json_line(&event)))
            }
            Route::Act(act) => {
                let request: ActRequest = document(request).await?;
                in_bounds("grace_seconds", request.grace_seconds)?;
                let asked = |reply| Request::Act {
                    act,
                    request,
                    reply,
                };
                Ok(json(&self.ask(asked).await?))
            }
            Route::Scale => {
                let ScaleRequest { count } = document(request).await?;
                GuestRange::first(count).map_err(bad)?;
                let answer = self.ask(|reply| Request::Scale { count, reply }).await?;
                Ok(json(&answer.map_err(conflict)?))
            }
            Route::Ask => {
                let request: AskRequest = document(request).await?;
                in_bounds("within_seconds", request.within_seconds)?;
                one_line(&request.command)?;
                let (answers, receiver) = mpsc::channel(STREAM_LINES);
                self.send(Request::Ask { request, answers })?;
                Ok(self.stream(JSON_LINES, receiver, |answer| json_line(&answer)))
            }
            Route::Attend => {
                let AttendRequest { guests } = document(request).await?;
                let place = Arc::clone(&self.attending).try_acquire_owned();
                let place = place.map_err(|_| {
                    let many = "too many clients attend guests; try again later";
                    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, many.to_owned())
                })?;
                let (held, mut receiver) = mpsc::channel(1);
                self.send(Request::Attend { guests, held })?;
                // The head of the answer tells the client that it is so.
                receiver.recv().await.ok_or_else(ended)?;
                let parting = Parting(self.outbox.clone());
                Ok(self.stream(TEXT, receiver, move |()| {
                    let _held = (&parting, &place);
                    Vec::new()
                }))
            }
        }
    }

    async fn fleet(&self, detail: Detail) -> Result<Fleet, Refusal> {
        self.ask(|reply| Request::Fleet { detail, reply }).await
    }

    /// Reads what the fleet costs, beside the thread that answers: it takes a
    /// millisecond a guest.
    async fn memory(&self) -> Result<Memory, Refusal> {
        let processes = self.ask(|reply| Request::Processes { reply }).await?;
        let read = spawn_blocking(move || processes.memory()).await;
        read.map_err(io::Error::other).flatten().map_err(|error| {
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot read in /proc what the fleet's processes cost: {error}"),
            )
        })
    }

    /// The text for Prometheus.
    async fn metrics(&self) -> Result<String, Refusal> {
        let fleet = self.ask(|reply| Request::Scrape { reply }).await?;
        let mut kept = self.scraped.memory.lock().await;
        if kept.as_ref().is_none_or(Kept::is_old) {
            let began = Instant::now();
            // Without it the other numbers are told.
            *kept = (self.memory().await.ok()).map(|memory| Kept::read(memory, began));
        }
        let run_queue = Arc::clone(&self.scraped.run_queue);
        let read = spawn_blocking(move || {
            let ksm = ksm::read(Path::new("/"), &mut Vec::new());
            (ksm, run_queue.read())
        });
        let (ksm, run_queue) = read.await.unwrap_or_default();
        Ok(metrics::text(&Readings {
            fleet: &fleet,
            process: metrics::Process::own(),
            broken: self.broken.load(Ordering::Relaxed),
            memory: kept.as_ref().map(Kept::told),
            ksm,
            run_queue,
        }))
    }

    async fn guest(&self, guest: GuestIndex) -> Result<Guest, Refusal> {
        let found = self.ask(|reply| Request::Guest { guest, reply }).await?;
        found.ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_FOUND,
                format!("the fleet has no guest {guest}"),
            )
        })
    }

    async fn type_lines(&self, guest: GuestIndex, text: &[u8]) -> Result<Typed, Refusal> {
        let text = std::str::from_utf8(text).map_err(bad)?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.iter().try_for_each(|line| one_line(line))?;
        let given = lines.len();
        let asked = |reply| Request::Type {
            guest,
            lines,
            reply,
        };
        let taken = self.ask(asked).await?.map_err(conflict)?;
        if taken == 0 && given > 0 {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{guest} has not read earlier input of its console yet; try again"),
            ));
        }
        // No request has more bytes than this has room for lines.
        let number = |lines| u32::try_from(lines).unwrap_or(u32::MAX);
        Ok(Typed {
            taken: number(taken),
            refused: number(given - taken),
        })
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply))?;
        answer.await.map_err(|_| ended())
    }

    fn send(&self, request: Request) -> Result<(), Refusal> {
        if self.outbox.send(request) {
            Ok(())
        } else {
            Err(ended())
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        content_type: &'static str,
        items: mpsc::Receiver<T>,
        line: impl FnMut(T) -> Vec<u8> + Send + 'static,
    ) -> Response<Answer> {
        let body = Answer::stream(items, self.stopping.clone(), line);
        response(StatusCode::OK, content_type, body)
    }
}

/// The answer to a request that is not served.
fn refused(refusal: Refusal) -> Response<Answer> {
    let bytes = json_line(&refusal.error);
    let mut response = response(refusal.status, JSON, Answer::Whole(bytes.into()));
    if let Some(allow) = refusal.allow
        && let Ok(allow) = HeaderValue::from_str(&allow)
    {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

fn response(status: StatusCode, content_type: &'static str, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn whole(content_type: &'static str, bytes: Bytes) -> Response<Answer> {
    response(StatusCode::OK, content_type, Answer::Whole(bytes))
}

fn json(value: &impl Serialize) -> Response<Answer> {
    whole(JSON, json_line(value).into())
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    let json = text::json(value).expect("the documents have nothing but strings as keys");
    (json + "\n").into_bytes()
}

/// Reads the request's body, within its time and size.
async fn body(request: HttpRequest<Incoming>) -> Result<Bytes, Refusal> {
    let read = Limited::new(request.into_body(), BODY_MAX).collect();
    match timeout(READ_TIME, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request has more than {BODY_MAX} bytes; send less at a time"),
        )),
        Ok(Err(error)) => Err(bad(error)),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request did not come within {} s", READ_TIME.as_secs()),
        )),
    }
}

async fn document<T: DeserializeOwned>(request: HttpRequest<Incoming>) -> Result<T, Refusal> {
    serde_json::from_slice(&body(request).await?).map_err(bad)
}

/// `guests=false` leaves the guests out of the fleet.
fn detail(query: Option<&str>) -> Result<Detail, Refusal> {
    match query {
        None | Some("" | "guests=true") => Ok(Detail::Whole),
        Some("guests=false") => Ok(Detail::Summary),
        Some(other) => Err(bad(format!("unknown query `{other}`; use guests=false"))),
    }
}

/// Whether a time makes a [`Duration`].
fn in_bounds(name: &str, seconds: Option<f64>) -> Result<(), Refusal> {
    match seconds {
        Some(seconds) if !(0.0..=SECONDS_MAX).contains(&seconds) => {
            let most = Duration::from_secs_f64(SECONDS_MAX).as_secs();
            Err(bad(format!("{name} is {seconds}; use 0 to {most}")))
        }
        _ => Ok(()),
    }
}

/// Whether a guest would take it as one command.
fn one_line(line: &str) -> Result<(), Refusal> {
    if line.contains(|character: char| character.is_control() && character != '\t') {
        return Err(bad(format!(
            "{line:?} has control characters; a command is one line of text"
        )));
    }
    if line.len() > LINE_MAX {
        let length = line.len();
        return Err(bad(format!(
            "a line has {length} bytes; a command has {LINE_MAX} at most"
        )));
    }
    Ok(())
}

fn bad(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, format!("bad request: {error}"))
}

fn conflict(reason: String) -> Refusal {
    Refusal::new(StatusCode::CONFLICT, reason)
}

fn ended() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the fleet's supervisor is ending".into(),
    )
}
