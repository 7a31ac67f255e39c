//! Common code of the backends that keep objects in a bucket.

mod background;
pub(super) mod read;
mod tail;
mod unsent;

use std::collections::HashSet;
use std::error::Error as StdError;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::{Bytes, BytesMut};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

use super::retry::{AttemptError, RetryDecision};
use super::{Error, ErrorKind, Key, ReadRange, Result, Storage, task};
pub(super) use background::BackgroundTasks;
pub(super) use tail::Tail;
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

/// The longest answer that is read as a whole, in bytes: a list of 1000 keys of 1 KiB each has a
/// tenth of it.
pub(super) const MAX_ANSWER: usize = 16 << 20;

/// The most pages in a row of which nothing is used. What others keep below the prefix may fill a
/// million entries.
const MAX_EMPTY_PAGES: usize = 1000;

/// The pages of one list, which must come to an end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Hashes of the tokens so far: a server chooses their length.
    seen: HashSet<u64>,
    empty: usize,
}

impl Pages {
    /// Returns the pages of a list that went on with `token`.
    pub(super) fn after(token: &Option<String>) -> Self {
        let mut pages = Self::default();
        if token.is_some() {
            // The first of its tokens is new.
            let _ = pages.next(token.clone());
        }
        pages
    }

    /// Returns the token that the list goes on with.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the server gives none, or one that it gave before, which
    /// would never end.
    pub(super) fn next(&mut self, token: Option<String>) -> Result<String> {
        let is_new = |token: &String| {
            let mut hasher = DefaultHasher::new();
            token.hash(&mut hasher);
            self.seen.insert(hasher.finish())
        };
        token.filter(is_new).ok_or_else(|| {
            let what = "the server returned a truncated list without a continuation token";
            Error::new(ErrorKind::Unsupported, what)
        })
    }

    /// Counts a page of which nothing is used.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where there were too many.
    pub(super) fn empty(&mut self) -> Result<()> {
        self.empty += 1;
        if self.empty < MAX_EMPTY_PAGES {
            return Ok(());
        }
        let what = format!(
            "{MAX_EMPTY_PAGES} successive pages of a list had no object of this store, and the \
             list is not complete"
        );
        Err(Error::new(ErrorKind::Unsupported, what)
            .with_hint("use a prefix that no other program uses, or another server"))
    }
}

/// Looks at an object whose creation was acknowledged only after an attempt without an answer.
///
/// That attempt may have been refused, since another writer was first, and a server may acknowledge
/// what is sent once more without looking again. The end of the object tells: that of a version
/// holds a nonce.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] where it is another writer's; [`ErrorKind::OutcomeUnknown`] where
/// it cannot be read.
pub(super) async fn confirm(storage: &dyn Storage, key: &Key, tail: &Tail) -> Result<()> {
    let start = tail.len() - tail.bytes().len() as u64;
    match storage
        .read(key, ReadRange::Bounded(start..tail.len()))
        .await
    {
        Ok(part) if part.size == tail.len() && part.bytes == tail.bytes() => Ok(()),
        Ok(_) => {
            let what = "the object was acknowledged after an attempt without a response, and \
                        belongs to another writer";
            Err(Error::new(ErrorKind::AlreadyExists, what))
        }
        Err(error) => Err(error
            .about("the object was acknowledged after an attempt without a response; then")
            .unanswered()),
    }
}

/// Returns the error of a success that something else than the service answered: the login page of
/// a network, or a proxy. Nothing was done.
pub(super) fn another_service(operation: &str, service: &str) -> Error {
    let what = format!("the response to {operation} is not one of {service}");
    let hint = "check the endpoint, and whether a proxy or a login page answers in its place";
    Error::new(ErrorKind::Unavailable, what).with_hint(hint)
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

/// The libraries below may log headers, with signatures and tokens, and bodies, at levels that
/// anybody may turn on.
pub(super) fn unlogged<F: Future>(send: F) -> tracing::instrument::WithDispatch<F> {
    send.with_subscriber(NoSubscriber::new())
}

/// Returns the innermost source of an error: the errors above it say only that something failed, or
/// name the URL.
pub(super) fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Returns the fault of a connection that failed for a reason that no retry removes: the server's
/// certificate is refused, or what answers does not speak TLS. Type decides, never text; a name
/// that cannot be resolved and a proxy that wants a password have no type of their own.
pub(super) fn permanent(error: &(dyn StdError + 'static), what: &str) -> Option<AttemptError> {
    let (hint, unclear) = match tls_error(error)? {
        // The handshake comes before anything is sent.
        rustls::Error::InvalidCertificate(_) => (
            "if the certificate of the server is not trusted, set SSL_CERT_FILE to the \
             certificate of its CA, or correct the endpoint",
            false,
        ),
        rustls::Error::InvalidMessage(_) => (
            "the server does not use TLS: correct the endpoint; http:// is for servers on this \
             machine",
            true,
        ),
        _ => return None,
    };
    let error = Error::new(ErrorKind::Config, what).with_hint(hint);
    Some(AttemptError {
        error,
        next: RetryDecision::Stop,
        unclear,
    })
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // An I/O error that holds another one has that one's source for its own.
        let held = error.downcast_ref::<std::io::Error>();
        let held = held.and_then(std::io::Error::get_ref);
        cause = held
            .map(|held| held as &(dyn StdError + 'static))
            .or_else(|| error.source());
    }
    None
}

/// Why a task of ours did not end by itself.
pub(super) fn stopped_error(stopped: tokio::task::JoinError) -> Error {
    task::stopped(stopped, ErrorKind::Unavailable, "a request")
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{CertificateError, InvalidMessage};

    use super::*;

    #[test]
    fn a_token_that_comes_again_ends_a_list() {
        let mut pages = Pages::default();
        for token in ["a", "b", "c"] {
            assert_eq!(pages.next(Some(token.into())).expect("goes on"), token);
        }
        for token in [Some("a".into()), None] {
            let error = pages.next(token).expect_err("never ends");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn empty_pages_without_end_are_an_error() {
        let mut pages = Pages::default();
        for _ in 1..MAX_EMPTY_PAGES {
            pages.empty().expect("a large bucket");
        }
        pages.empty().expect_err("too many");
    }

    #[test]
    fn refused_certificates_and_servers_without_tls_are_permanent() {
        let wrapped = |error: rustls::Error| io::Error::other(io::Error::other(error));
        for error in [
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
            rustls::Error::InvalidCertificate(CertificateError::Expired),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
        ] {
            assert!(permanent(&error, "a call").is_some(), "{error}");
            assert!(permanent(&wrapped(error), "a call").is_some());
        }
        assert!(permanent(&wrapped(rustls::Error::HandshakeNotComplete), "a call").is_none());
        assert!(permanent(&io::Error::from(io::ErrorKind::ConnectionRefused), "a call").is_none());
    }
}
