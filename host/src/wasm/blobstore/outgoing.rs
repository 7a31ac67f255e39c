//! Objects that a guest writes.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wasmtime::format_err;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::guest::{BucketError, GuestError, GuestWriter};

/// Bytes that a value collects before it writes them, and that one without a name holds.
const PIECE: usize = 64 << 10;

/// A value that becomes an object when it is finished. Dropping it makes nothing.
#[expect(unreachable_pub, reason = "the generated code exports it")]
pub struct OutgoingValue {
    body: Body,
    /// True once the guest has the stream.
    pub(super) has_stream: bool,
}

impl OutgoingValue {
    pub(super) fn new() -> Self {
        let state = Collected {
            bytes: Vec::new(),
            writer: Writer::None,
        };
        Self {
            body: Body(Arc::new(Mutex::new(state))),
            has_stream: false,
        }
    }

    pub(super) fn stream(&self) -> OutgoingStream {
        OutgoingStream(self.body.clone())
    }

    /// Returns true if the value was given to a container.
    pub(super) fn has_writer(&self) -> bool {
        !matches!(self.body.lock().writer, Writer::None)
    }

    /// Gives the value a name.
    pub(super) fn write_to(&self, writer: GuestWriter) {
        self.body.lock().writer = Writer::Idle(Box::new(writer));
    }

    /// Writes the rest and makes the object.
    pub(super) async fn finish(self) -> Result<(), BucketError> {
        poll_fn(|cx| self.body.lock().poll_write(cx, 1)).await;
        let writer = std::mem::replace(&mut self.body.lock().writer, Writer::None);
        match writer {
            Writer::Idle(writer) => {
                writer.finish().await?;
                Ok(())
            }
            Writer::Failed(error) => Err(error.into()),
            Writer::None | Writer::Writing(_) => Err(BucketError::Other(
                "the value has no container; call write-data before finish".into(),
            )),
        }
    }
}

/// Part of a value that its stream shares.
#[derive(Clone)]
struct Body(Arc<Mutex<Collected>>);

impl Body {
    fn lock(&self) -> MutexGuard<'_, Collected> {
        // Every change leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that the guest wrote and the writer does not have, and the writer.
struct Collected {
    bytes: Vec<u8>,
    writer: Writer,
}

enum Writer {
    /// The value has no container yet.
    None,
    Idle(Box<GuestWriter>),
    /// A guest may stop waiting for a stream. The write goes on when it waits again.
    Writing(BoxFuture<'static, Result<Box<GuestWriter>, GuestError>>),
    Failed(GuestError),
}

impl Collected {
    /// Writes until fewer than `keep` bytes are left, or until that fails.
    fn poll_write(&mut self, cx: &mut Context<'_>, keep: usize) -> Poll<()> {
        loop {
            match std::mem::replace(&mut self.writer, Writer::None) {
                Writer::Idle(mut writer) if self.bytes.len() >= keep => {
                    let bytes = std::mem::take(&mut self.bytes);
                    let writing = async move {
                        for piece in bytes.chunks(writer.max_chunk()) {
                            writer.write(piece).await?;
                        }
                        Ok(writer)
                    };
                    self.writer = Writer::Writing(writing.boxed());
                }
                Writer::Writing(mut writing) => {
                    let written = writing.poll_unpin(cx);
                    if written.is_pending() {
                        self.writer = Writer::Writing(writing);
                    }
                    self.writer = match ready!(written) {
                        Ok(writer) => Writer::Idle(writer),
                        Err(error) => Writer::Failed(error),
                    };
                }
                writer => {
                    self.writer = writer;
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Returns the number of bytes that the guest may write.
    fn permit(&self) -> StreamResult<usize> {
        match &self.writer {
            Writer::Failed(error) => Err(failed(error)),
            Writer::None if self.bytes.len() > PIECE => Err(failed(
                "a value without a container holds 64 KiB; call write-data before the rest",
            )),
            // One more than it holds: a permit of nothing would be asked for without end.
            Writer::None => Ok(PIECE + 1 - self.bytes.len()),
            Writer::Writing(_) => Ok(0),
            _ => Ok(PIECE.saturating_sub(self.bytes.len())),
        }
    }
}

fn failed(why: impl std::fmt::Display) -> StreamError {
    StreamError::LastOperationFailed(format_err!("{why}"))
}

/// A stream of the bytes of a value.
pub(super) struct OutgoingStream(Body);

#[async_trait::async_trait]
impl Pollable for OutgoingStream {
    async fn ready(&mut self) {
        poll_fn(|cx| self.0.lock().poll_write(cx, PIECE)).await;
    }
}

impl OutputStream for OutgoingStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut body = self.0.lock();
        if bytes.len() > body.permit()? {
            return Err(StreamError::trap(
                "the guest writes more than was permitted",
            ));
        }
        body.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    /// Does nothing: an object is made when its value is finished.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.lock().permit()
    }
}
