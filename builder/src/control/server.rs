//! The thread that speaks HTTP/1.1 for a fleet.
//!
//! It knows nothing of guests: it turns a request into a [`bridge::Request`] and
//! writes the answer that comes back. An idle server sleeps. A slow or hostile
//! client takes one of [`CONNECTIONS_MAX`] connections until its time-out, and a
//! bounded amount of memory.
//!
//! [`bridge::Request`]: super::bridge::Request

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use self::handle::{Handler, Serves};
use self::limits::{ATTENDING_MAX, CONNECTIONS_MAX, HEAD_MAX, READ_TIME};
use self::scraped::Scraped;
use super::bridge::Outbox;
use super::metrics::RunQueue;

mod body;
mod handle;
mod limits;
mod refusal;
mod routes;
mod scraped;
#[cfg(test)]
mod tests;

/// Most bytes that a connection buffers.
const BUFFER_MAX: usize = 64 << 10;
/// How long a connection for `/metrics` may take in all: whoever may connect
/// there need not be the fleet's owner.
const METRICS_TIME: Duration = Duration::from_secs(30);
/// How long answers under way may take to be written at the end.
const FINISH_TIME: Duration = Duration::from_secs(2);
/// How long nothing is accepted after that failed: mostly for want of file
/// descriptors, which come back when a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A server, which ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    runtime: Handle,
    handler: Option<Handler>,
    listeners: Listeners,
}

/// Those who accept connections, ended when the server stops.
type Listeners = Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>;

impl Server {
    /// Accepts nothing more, and returns once the answers under way are written,
    /// streams with them; after 2 s in any case.
    ///
    /// An answer that the supervisor still owes counts as under way: it is to
    /// reply, or to drop its end, before.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// Serves on this control socket, too: the one before leads nowhere any more.
    pub(crate) fn listen_on(&self, control: UnixListener) -> io::Result<()> {
        let Some(handler) = self.handler.clone() else {
            return Ok(());
        };
        let _entered = self.runtime.enter();
        let task = self.runtime.spawn(accept_control(control, handler)?);
        lock(&self.listeners).push(task);
        Ok(())
    }
}

/// Serves whoever connects to the control socket.
fn accept_control(
    control: UnixListener,
    handler: Handler,
) -> io::Result<impl Future<Output = ()> + Send> {
    control.set_nonblocking(true)?;
    let control = tokio::net::UnixListener::from_std(control)?;
    let accept = move |context: &mut Context<'_>| {
        let accepted = control.poll_accept(context);
        accepted.map_ok(|(stream, _)| TokioIo::new(stream))
    };
    Ok(listen(accept, handler, None))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handler = None;
        self.stopping.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the control interface panicked");
        }
    }
}

/// Binds the control socket, for its owner alone, in the place of one that
/// nobody listens on any more.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        },
        // Whatever else is there, bind(2) says so.
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Its folder, of mode 0700, keeps others away until this is done.
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves a fleet on its control socket, and `/metrics` on a TCP port, too,
/// until the server is dropped.
pub(crate) fn serve(
    control: UnixListener,
    metrics: Option<TcpListener>,
    run_queue: Arc<dyn RunQueue>,
    outbox: Outbox,
) -> io::Result<Server> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    let metrics = metrics
        .map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        })
        .transpose()?;
    let (stopping, stopped) = watch::channel(false);
    let attending = Arc::new(Semaphore::new(ATTENDING_MAX));
    let broken = Arc::new(AtomicU64::new(0));
    let scraped = Arc::new(Scraped::new(run_queue));
    let handler = |serves| Handler {
        outbox: outbox.clone(),
        stopping: stopped.clone(),
        serves,
        attending: Arc::clone(&attending),
        broken: Arc::clone(&broken),
        scraped: Arc::clone(&scraped),
    };
    let control_handler = handler(Serves::Everything);
    let mut listeners = vec![runtime.spawn(accept_control(control, control_handler.clone())?)];
    if let Some(metrics) = metrics {
        let accept = move |context: &mut Context<'_>| {
            let accepted = metrics.poll_accept(context);
            accepted.map_ok(|(stream, _)| TokioIo::new(stream))
        };
        listeners.push(runtime.spawn(listen(accept, handler(Serves::Metrics), Some(METRICS_TIME))));
    }
    drop((outbox, entered));
    let handle = runtime.handle().clone();
    let listeners = Arc::new(Mutex::new(listeners));
    let to_end = Arc::clone(&listeners);
    // A connection holds a receiver, by which the last is known to be gone.
    let stop = stopping.clone();
    let thread = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || run(&runtime, &stop, stopped, &to_end))?;
    Ok(Server {
        stopping,
        thread: Some(thread),
        runtime: handle,
        handler: Some(control_handler),
        listeners,
    })
}

fn run(
    runtime: &Runtime,
    stop: &watch::Sender<bool>,
    mut stopped: watch::Receiver<bool>,
    listeners: &Listeners,
) {
    runtime.block_on(async {
        // An error cannot be: `stop` lives.
        let _ = stopped.wait_for(|stopping| *stopping).await;
        drop(stopped);
        for listener in lock(listeners).drain(..) {
            listener.abort();
        }
        if timeout(FINISH_TIME, stop.closed()).await.is_err() {
            tracing::debug!("answers of the control interface were cut off");
        }
    });
}

/// Accepts connections for ever, each of which ends after `at_most`.
async fn listen<S: Read + Write + Unpin + Send + 'static>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>>,
    handler: Handler,
    at_most: Option<Duration>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut has_failed = false;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match poll_fn(&mut accept).await {
            Ok(stream) => {
                has_failed = false;
                let broken = Arc::clone(&handler.broken);
                let connection = converse(stream, handler.clone());
                tokio::spawn(async move {
                    let ended = match at_most {
                        Some(time) => timeout(time, connection).await.unwrap_or(Ended::Broken),
                        None => connection.await,
                    };
                    // A client that goes away, or speaks no HTTP, is its own
                    // affair: whoever may connect to `/metrics` would fill a log
                    // with it.
                    if ended == Ended::Broken {
                        broken.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(place);
                });
            }
            Err(error) => {
                if !has_failed {
                    tracing::warn!("the control interface cannot accept a connection: {error}");
                }
                has_failed = true;
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Well,
    /// It broke, took too long, or was not HTTP.
    Broken,
}

/// Serves a connection until its client or the server ends it.
async fn converse(stream: impl Read + Write + Unpin, handler: Handler) -> Ended {
    let mut stopped = handler.stopping.clone();
    let answer = service_fn(|request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(request).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ_TIME)
            .max_header_size(HEAD_MAX)
            .max_buf_size(BUFFER_MAX)
            .serve_connection(stream, answer)
    );
    let mut stopping = pin!(stopped.wait_for(|stopping| *stopping));
    let mut announced = false;
    let ended = poll_fn(|context| {
        if !announced && stopping.as_mut().poll(context).is_ready() {
            announced = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    });
    match ended.await {
        Ok(()) => Ended::Well,
        Err(_) => Ended::Broken,
    }
}
