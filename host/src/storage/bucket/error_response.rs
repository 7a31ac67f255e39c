//! Errors of one attempt: responses of a server that say no, and connections that failed.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use crate::storage::retry::{AttemptError, RetryDecision};
use crate::storage::{Error, ErrorKind};

/// Longest word of a server that is shown, in bytes.
const MAX_WORD: usize = 256;

/// Error response of a server, as far as it can be trusted in a message. The server's own text is
/// not in it: that names buckets, keys and accounts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ErrorResponse {
    /// Status of HTTP.
    pub status: u16,
    /// The error code, or nothing.
    pub code: String,
    /// ID of the request, for the provider's support.
    pub request: Option<String>,
    /// From the header `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Size of the object, from `Content-Range: bytes */SIZE`.
    pub size: Option<u64>,
}

impl ErrorResponse {
    /// Returns a response with this status, error code and ID, and with what its other headers say.
    pub fn new<'a>(
        status: u16,
        code: &str,
        request: Option<&str>,
        header: impl Fn(&str) -> Option<&'a str>,
    ) -> Self {
        Self {
            status,
            code: word(code).unwrap_or_default(),
            request: request.and_then(word),
            retry_after: header("retry-after").and_then(retry_after),
            size: header("content-range")
                .and_then(|range| range.strip_prefix("bytes */")?.parse().ok()),
        }
    }

    /// Returns the error of the request `name`. The hint of the operator is `hint`, or that of the
    /// kind.
    pub fn error(&self, name: &str, meaning: Classification, hint: Option<String>) -> AttemptError {
        let mut error = Error::new(meaning.kind, self.text(name));
        let hint = hint.or_else(|| (meaning.kind == ErrorKind::Throttled).then(|| self.later()));
        if let Some(hint) = hint {
            error = error.with_hint(hint);
        }
        AttemptError {
            error,
            next: match meaning.next {
                RetryDecision::Backoff(_) => RetryDecision::Backoff(self.retry_after),
                next => next,
            },
            unclear: meaning.unclear,
        }
    }

    /// `PutObject was refused: AccessDenied, status 403, request 4442587FB7D0A2F9`.
    fn text(&self, name: &str) -> String {
        let outcome = if (200..300).contains(&self.status) {
            "got a response that is not of this protocol"
        } else {
            "was refused"
        };
        let mut text = format!("{name} {outcome}: ");
        if !self.code.is_empty() {
            text = text + &self.code + ", ";
        }
        text += &format!("status {}", self.status);
        if let Some(request) = &self.request {
            text = text + ", request " + request;
        }
        text
    }

    fn later(&self) -> String {
        match self.retry_after {
            Some(time) => {
                let seconds = time.as_secs();
                format!("try again after {seconds} seconds, as the server requests")
            }
            None => "try again later".into(),
        }
    }
}

/// Meaning of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classification {
    /// Kind of the error.
    pub kind: ErrorKind,
    /// Decision if the request is sent again.
    pub next: RetryDecision,
    /// True if the server may have done, or may yet do, what it was asked.
    pub unclear: bool,
}

impl Classification {
    /// Returns the meaning of a status that has the same one for every provider.
    pub fn of_status(status: u16) -> Self {
        use ErrorKind::{
            AlreadyExists, Config, Denied, NoSpace, NotFound, Throttled, Timeout, Unauthenticated,
            Unavailable, Unsupported,
        };
        use RetryDecision::{Backoff, Definitive, RefreshCredentials, Stop};
        match status {
            401 => Self::new(Unauthenticated, RefreshCredentials),
            403 => Self::new(Denied, RefreshCredentials),
            404 => Self::new(NotFound, Stop),
            // The body had not all come, or not in time.
            408 => Self::new(Timeout, Backoff(None)).unclear(),
            // Another request for the same key was faster, or is under way: the next answer tells.
            409 => Self::new(Unavailable, Backoff(None)),
            412 => Self::new(AlreadyExists, Definitive),
            429 => Self::new(Throttled, Backoff(None)),
            507 => Self::new(NoSpace, Stop),
            405 | 501 | 505 => Self::new(Unsupported, Stop),
            300..=399 => Self::new(Config, Stop),
            400..=499 => Self::new(Unsupported, Stop),
            // An error inside of a 200, a fault of the server, or one of something in between.
            _ => Self::new(Unavailable, Backoff(None)).unclear(),
        }
    }

    /// A response that says that nothing was done.
    pub fn new(kind: ErrorKind, next: RetryDecision) -> Self {
        Self {
            kind,
            next,
            unclear: false,
        }
    }

    /// Returns the meaning of a response that does not say whether something was done.
    #[must_use]
    pub fn unclear(self) -> Self {
        Self {
            unclear: true,
            ..self
        }
    }
}

/// Returns the error of a success that is not one of the provider's: the login page of a network
/// has answered, or a proxy. Nothing was done.
pub fn foreign_response(name: &str, what: &str) -> AttemptError {
    let what = format!("the response to {name} {what}");
    let hint = "check the endpoint, and whether a proxy or a login page answers in its place";
    AttemptError::unclear(Error::new(ErrorKind::Unavailable, what).with_hint(hint))
}

/// Returns the error of a request that was not sent, or that had no response. A certificate that is
/// not trusted, and a server that does not speak TLS, are permanent errors; any other `cause` is
/// what `failure` says.
pub fn transport_error(
    name: &str,
    cause: &(dyn StdError + 'static),
    failure: Failure,
) -> AttemptError {
    let what = format!("{name}: {}", innermost(cause));
    if let Some(error) = permanent(cause, &what) {
        return error;
    }
    match failure {
        Failure::NotSent => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        Failure::NotConnected => AttemptError::new(
            RetryDecision::Backoff(None),
            Error::new(ErrorKind::Unavailable, what),
        ),
        Failure::TimedOut => AttemptError::unclear(Error::new(ErrorKind::Timeout, what)),
        Failure::Broken => AttemptError::unclear(Error::new(ErrorKind::Unavailable, what)),
    }
}

/// How far a request without a response came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No request could be made of it.
    NotSent,
    /// No connection was made.
    NotConnected,
    /// No response came in time.
    TimedOut,
    /// The connection broke.
    Broken,
}

/// Returns the innermost source of an error: the errors above it say only that something failed, or
/// name the URL.
pub fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost
}

/// Returns the fault of a connection that failed for a reason that no retry removes: the server's
/// certificate is refused, or what answers does not speak TLS. Type decides, never text; a name
/// that cannot be resolved and a proxy that wants a password have no type of their own.
fn permanent(error: &(dyn StdError + 'static), what: &str) -> Option<AttemptError> {
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

/// A server's word, where it is one: it is printed on terminals and in logs.
pub(in crate::storage) fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+/=".contains(&byte);
    let is_word = (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(plain);
    is_word.then(|| text.into())
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::{CertificateError, InvalidMessage};

    use super::*;

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

    #[test]
    fn a_server_may_say_when_in_seconds_or_as_a_date() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn errors_do_not_repeat_text_of_the_server() {
        assert_eq!(
            word("4442587FB7D0A2F9").as_deref(),
            Some("4442587FB7D0A2F9")
        );
        assert_eq!(word("\x1b[2J"), None);
        assert_eq!(word(&"a".repeat(1000)), None);
    }

    #[test]
    fn an_outcome_is_unclear_only_where_the_server_did_not_say() {
        for (status, unclear) in [
            (200, true),
            (408, true),
            (500, true),
            (502, true),
            (503, true),
            (504, true),
            (409, false),
            (429, false),
        ] {
            let meaning = Classification::of_status(status);
            assert_eq!(meaning.unclear, unclear, "{status}");
            assert_eq!(meaning.next, RetryDecision::Backoff(None), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 405, 412, 501, 507] {
            let meaning = Classification::of_status(status);
            assert!(!meaning.unclear, "{status}");
            assert_ne!(meaning.next, RetryDecision::Backoff(None), "{status}");
        }
    }
}
