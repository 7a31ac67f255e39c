//! Bodies whose bytes and time are counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use wasmtime_wasi_http::Error;

/// Bytes that a run may still send and receive.
#[derive(Debug)]
pub(super) struct ByteBudget {
    left: AtomicU64,
    limit: u64,
}

impl ByteBudget {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            left: limit.into(),
            limit,
        }
    }

    fn take(&self, bytes: usize) -> Result<(), Error> {
        let bytes = bytes as u64;
        let enough = |left: u64| left.checked_sub(bytes);
        let took = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough);
        took.map(drop)
            .map_err(|_| over_limit("http-bytes", self.limit))
    }
}

/// Error that an agent gets at a limit.
pub(super) fn over_limit(limit: &str, max: impl std::fmt::Display) -> Error {
    Error::InternalError(Some(format!(
        "quota exceeded: the limit `{limit}` is {max}"
    )))
}

/// Counts the bytes of a body.
pub(super) struct Counted<B> {
    body: B,
    budget: Arc<ByteBudget>,
}

impl<B> Counted<B> {
    pub(super) fn new(body: B, budget: Arc<ByteBudget>) -> Self {
        Self { body, budget }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| {
            frame.map(|frame| {
                let frame = frame.map_err(Into::into)?;
                if let Some(bytes) = frame.data_ref() {
                    self.budget.take(bytes.len())?;
                }
                Ok(frame)
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ends a body with an error at a deadline, and where nothing comes for too long. Holds the place
/// of its request until it is dropped.
pub(super) struct Timed<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
    idle: Option<(Duration, Pin<Box<Sleep>>)>,
    _place: OwnedSemaphorePermit,
}

impl<B> Timed<B> {
    pub(super) fn new(
        body: B,
        deadline: Instant,
        idle: Option<Duration>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            body,
            deadline: Box::pin(sleep_until(deadline)),
            idle: idle.map(|longest| (longest, Box::pin(sleep(longest)))),
            _place: place,
        }
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Timed<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Error::HttpResponseTimeout)));
        }
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Some((longest, idle)) = &mut self.idle {
            if frame.is_ready() {
                idle.as_mut().reset(Instant::now() + *longest);
            } else if idle.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Err(Error::ConnectionReadTimeout)));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
