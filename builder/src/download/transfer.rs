//! One HTTP request on a thread of its own, so that its owner can give it up at any
//! moment: while a name is looked up, a connection is made, or a body stalls.

use std::error::Error;
use std::io::Read as _;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{StatusCode, Url};

use super::Address;

const REDIRECTS: usize = 10;
const CHUNK: usize = 128 * 1024;
/// Chunks read ahead of the disk.
const AHEAD: usize = 4;

/// A request under way; dropped, it ends with the next thing it has to say.
pub(crate) struct Transfer {
    events: Receiver<Result<Event, Broken>>,
}

pub(crate) enum Event {
    Head(Head),
    Chunk(Vec<u8>),
    End,
}

/// What a response says before its body.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    /// Bytes to come, where the server knows.
    pub(crate) length: Option<u64>,
    /// Offset of the first byte to come, of a partial response.
    pub(crate) start: Option<u64>,
    /// What names this version of the file in `If-Range`.
    pub(crate) validator: Option<String>,
}

pub(crate) enum Broken {
    /// On the way: another attempt may succeed.
    Transfer(String),
    Address(String),
}

impl Transfer {
    /// Asks for `url` from the byte at `offset` on, if the file is still the one
    /// that `validator` names.
    pub(crate) fn start(
        address: &Address,
        offset: u64,
        validator: Option<&str>,
        stall: Duration,
    ) -> Self {
        let (sender, events) = sync_channel(AHEAD);
        let url = address.url().clone();
        let mut headers = HeaderMap::new();
        headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        if offset > 0 {
            headers.extend(range(offset, validator));
        }
        thread::spawn(move || {
            // The owner measures the stall; this only ends a thread that was given up.
            let limit = stall * 2;
            if let Err(broken) = request(&url, headers, limit, &sender) {
                // Nobody listens any more: there is nobody to tell.
                let _ = sender.send(Err(broken));
            }
        });
        Self { events }
    }

    /// What happened next, `None` if nothing did within `wait`.
    pub(crate) fn next(&self, wait: Duration) -> Option<Result<Event, Broken>> {
        match self.events.recv_timeout(wait) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                Some(Err(Broken::Transfer("the transfer ended early".to_owned())))
            }
        }
    }
}

fn range(offset: u64, validator: Option<&str>) -> HeaderMap {
    let validator = validator.map(|text| (header::IF_RANGE, text.to_owned()));
    [(header::RANGE, format!("bytes={offset}-"))]
        .into_iter()
        .chain(validator)
        .filter_map(|(name, text)| Some((name, HeaderValue::try_from(text).ok()?)))
        .collect()
}

fn request(
    url: &Url,
    headers: HeaderMap,
    limit: Duration,
    events: &SyncSender<Result<Event, Broken>>,
) -> Result<(), Broken> {
    let client = client(limit).map_err(|error| Broken::Address(reasons(&error)))?;
    let mut response = client
        .get(url.clone())
        .headers(headers)
        .send()
        .map_err(|error| {
            let is_final = error.is_redirect() || error.is_builder();
            let text = reasons(&error.without_url());
            if is_final {
                Broken::Address(text)
            } else {
                Broken::Transfer(text)
            }
        })?;
    let mut wanted = events.send(Ok(Event::Head(head(&response)))).is_ok();
    while wanted {
        let mut chunk = vec![0; CHUNK];
        let read = response
            .read(&mut chunk)
            .map_err(|error| Broken::Transfer(reasons(&error)))?;
        chunk.truncate(read);
        let event = if read == 0 {
            Event::End
        } else {
            Event::Chunk(chunk)
        };
        wanted = events.send(Ok(event)).is_ok() && read > 0;
    }
    Ok(())
}

fn client(limit: Duration) -> Result<Client, reqwest::Error> {
    /// rustls takes its cryptography from the process, once.
    static PROVIDER: LazyLock<()> = LazyLock::new(|| {
        // An error means that the program has chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    LazyLock::force(&PROVIDER);
    Client::builder()
        .user_agent(concat!("imgbuild/", env!("CARGO_PKG_VERSION")))
        .timeout(limit)
        // It would tell the next server the query of this one's address.
        .referer(false)
        .redirect(Policy::custom(|attempt| {
            match redirect_fault(attempt.previous(), attempt.url()) {
                Some(fault) => attempt.error(fault),
                None => attempt.follow(),
            }
        }))
        .build()
}

/// Why a redirect from the last of `previous` to `next` is not followed.
fn redirect_fault(previous: &[Url], next: &Url) -> Option<String> {
    let is_secure = |url: &Url| url.scheme() == "https";
    if previous.len() > REDIRECTS {
        Some(format!("more than {REDIRECTS} redirects"))
    } else if previous.iter().any(is_secure) && !is_secure(next) {
        Some(format!("redirected from https to {}", Address::of(next)))
    } else {
        None
    }
}

fn head(response: &Response) -> Head {
    let text = |name| response.headers().get(name)?.to_str().ok();
    // A weak validator does not promise equal bytes.
    let etag = text(header::ETAG).filter(|etag| !etag.starts_with("W/"));
    Head {
        status: response.status(),
        length: response.content_length(),
        start: text(header::CONTENT_RANGE).and_then(range_start),
        validator: etag
            .or_else(|| text(header::LAST_MODIFIED))
            .map(str::to_owned),
    }
}

/// The first offset of `bytes FIRST-LAST/TOTAL`.
fn range_start(content_range: &str) -> Option<u64> {
    let (start, _) = content_range.strip_prefix("bytes ")?.split_once('-')?;
    start.parse().ok()
}

/// An error and all that caused it: reqwest's own text leaves out the cause, and
/// has the whole address.
fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut text = said(error);
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = said(cause);
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// What one error of them says.
fn said(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    match error.downcast_ref().and_then(reqwest::Error::url) {
        // What was asked for is named beside it; where a redirect led may help.
        Some(url) => text.replace(url.as_str(), &Address::of(url).to_string()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_redirect_never_leaves_https() {
        let secure = [url("https://one.example/")];
        assert!(redirect_fault(&secure, &url("http://two.example/")).is_some());
        assert!(redirect_fault(&secure, &url("https://two.example/")).is_none());
        let plain = [url("http://one.example/")];
        assert!(redirect_fault(&plain, &url("http://two.example/")).is_none());
    }

    #[test]
    fn a_content_range_without_a_first_byte_is_none() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        for text in ["bytes */10", "5-9/10", "bytes x-9/10", ""] {
            assert_eq!(range_start(text), None, "{text}");
        }
    }
}
