//! Objects that a guest reads.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use wasmtime::format_err;
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use crate::guest::{BucketError, GuestError, GuestReader};

/// Bytes that a stream reads from the store at a time.
const PIECE: u32 = 256 << 10;

/// A range of an object, with an open reader. It stays readable if the object is replaced or
/// deleted, as long as its version is kept.
#[expect(unreachable_pub, reason = "the generated code exports it")]
#[derive(Debug)]
pub struct IncomingValue {
    reader: GuestReader,
    start: u64,
    /// End of the range, exclusive.
    end: u64,
    /// Most bytes that the guest may get at once.
    max_inline: u64,
}

impl IncomingValue {
    /// The bytes from `start` to `last`, both inclusive, as far as the object has them.
    pub(super) fn new(reader: GuestReader, (start, last): (u64, u64), max_inline: u64) -> Self {
        let end = last.saturating_add(1).min(reader.info().size);
        Self {
            reader,
            start: start.min(end),
            end,
            max_inline,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.end - self.start
    }

    /// Reads all of it.
    pub(super) async fn read_all(mut self) -> Result<Vec<u8>, BucketError> {
        let (size, max) = (self.size(), self.max_inline);
        if size > max {
            return Err(BucketError::Other(format!(
                "too large: the value has {size} bytes, and the limit `inline-size` is {max}; \
                 consume it as a stream"
            )));
        }
        let mut all = Vec::new();
        while self.start < self.end {
            let piece = read(&mut self.reader, self.start, self.end).await?;
            self.start += piece.len() as u64;
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    pub(super) fn into_stream(self) -> IncomingStream {
        IncomingStream {
            at: self.start,
            end: self.end,
            read: Bytes::new(),
            state: State::Idle(Box::new(self.reader)),
        }
    }
}

/// Reads some bytes between `at` and `end`, and at least one.
async fn read(reader: &mut GuestReader, at: u64, end: u64) -> Result<Bytes, GuestError> {
    let len = u32::try_from(end - at).unwrap_or(u32::MAX).min(PIECE);
    let piece = reader.read(at, len).await?;
    if piece.is_empty() {
        return Err(GuestError::Corrupt("it ends before its size".into()));
    }
    Ok(piece)
}

/// A stream of an object's bytes.
pub(super) struct IncomingStream {
    at: u64,
    end: u64,
    /// Bytes before `at` that the guest has not taken.
    read: Bytes,
    state: State,
}

enum State {
    Idle(Box<GuestReader>),
    /// A guest may stop waiting for a stream. The read goes on when it waits again.
    Reading(BoxFuture<'static, (Box<GuestReader>, Result<Bytes, GuestError>)>),
    Failed(GuestError),
    Closed,
}

impl IncomingStream {
    /// Reads until there are bytes for the guest, the end or an error.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.read.is_empty() || self.at == self.end {
            return Poll::Ready(());
        }
        loop {
            match std::mem::replace(&mut self.state, State::Closed) {
                State::Idle(mut reader) => {
                    let (at, end) = (self.at, self.end);
                    let reading = async move {
                        let piece = read(&mut reader, at, end).await;
                        (reader, piece)
                    };
                    self.state = State::Reading(reading.boxed());
                }
                State::Reading(mut reading) => match reading.poll_unpin(cx) {
                    Poll::Pending => {
                        self.state = State::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready((reader, Ok(piece))) => {
                        self.at += piece.len() as u64;
                        self.read = piece;
                        self.state = State::Idle(reader);
                        return Poll::Ready(());
                    }
                    Poll::Ready((_, Err(error))) => self.state = State::Failed(error),
                },
                ended => {
                    self.state = ended;
                    return Poll::Ready(());
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl Pollable for IncomingStream {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_read(cx)).await;
    }
}

impl InputStream for IncomingStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if !self.read.is_empty() {
            return Ok(self.read.split_to(size.min(self.read.len())));
        }
        if let State::Failed(error) = &self.state {
            let error = format_err!("{error}");
            self.state = State::Closed;
            return Err(StreamError::LastOperationFailed(error));
        }
        if self.at == self.end || matches!(self.state, State::Closed) {
            return Err(StreamError::Closed);
        }
        Ok(Bytes::new())
    }
}
