//! The body of an answer: bytes at once, or lines as they come.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::{mpsc, watch};

type Next = Box<dyn FnMut(&mut Context<'_>) -> Poll<Option<Bytes>> + Send>;

/// The body of an answer.
pub(crate) enum Answer {
    Whole(Bytes),
    /// Open until its sender or the server ends.
    Stream {
        next: Next,
        /// Changes when the server ends.
        stopping: watch::Receiver<bool>,
    },
}

impl Answer {
    /// Each item of a channel, as the bytes that `line` makes of it.
    pub(crate) fn stream<T: Send + 'static>(
        mut items: mpsc::Receiver<T>,
        stopping: watch::Receiver<bool>,
        mut line: impl FnMut(T) -> Vec<u8> + Send + 'static,
    ) -> Self {
        Self::Stream {
            next: Box::new(move |context| {
                let item = items.poll_recv(context);
                item.map(|item| item.map(|item| line(item).into()))
            }),
            stopping,
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "Whole",
            Self::Stream { .. } => "Stream",
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(std::mem::take(bytes))),
            // What was sent before the end still arrives. The connection's task
            // is woken by the change, so nothing is polled for it here.
            Self::Stream { next, stopping } => match next(context) {
                Poll::Pending if *stopping.borrow() => Poll::Ready(None),
                other => other,
            },
        };
        piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
