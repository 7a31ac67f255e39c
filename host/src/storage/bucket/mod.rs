//! What the backends that keep objects in a bucket have in common.

mod aside;
pub(super) mod read;
pub(super) mod trial;
mod unsent;

use std::error::Error as StdError;

use bytes::{Bytes, BytesMut};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::{Error, ErrorKind, Result};
pub(super) use aside::Aside;
pub(super) use unsent::Unsent;

/// Never with a content encoding: a server that decompressed what it sends would break every range.
pub(super) fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.') {
        Some((_, "gz")) => "application/gzip",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}

/// The URL of a place in a bucket, which leads to it again.
pub(super) fn location(scheme: &str, bucket: &str, prefix: &str, endpoint: Option<&str>) -> String {
    let place = format!("{scheme}://{bucket}/{prefix}");
    let place = place.trim_end_matches('/');
    match endpoint {
        Some(endpoint) => format!("{place}?endpoint={endpoint}"),
        None => place.into(),
    }
}

/// Where a list goes on that was at `last`. A server that never says anything else would keep us for ever.
pub(super) fn next(last: Option<String>, next: Option<String>) -> Result<String> {
    next.filter(|next| last.as_ref() != Some(next))
        .ok_or_else(|| {
            let what = "this server says that a list goes on, and not how";
            Error::new(ErrorKind::Unsupported, what)
        })
}

/// One piece of several; nothing is copied where there is but one.
pub(super) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    pieces.retain(|piece| !piece.is_empty());
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.swap_remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
            pieces
                .iter()
                .for_each(|piece| joined.extend_from_slice(piece));
            joined.freeze()
        }
    }
}

/// The libraries below may log headers, with signatures and tokens, and bodies, at levels that anybody may turn on.
pub(super) fn unlogged<F: Future>(send: F) -> tracing::instrument::WithDispatch<F> {
    send.with_subscriber(NoSubscriber::new())
}

/// What lies at the bottom of an error: those above say only that something failed, or name the URL.
pub(super) fn innermost(error: &dyn StdError) -> &dyn StdError {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Why a task of ours did not end by itself.
pub(super) fn stopped_error(stopped: tokio::task::JoinError) -> Error {
    match stopped.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => {
            let what = "the runtime shut down during a request";
            Error::new(ErrorKind::Unavailable, what).with_source(error)
        }
    }
}
