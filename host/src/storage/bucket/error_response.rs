//! Errors of one attempt: responses of a server that say no, and connections that failed.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use crate::storage::retry::{Attempt, AttemptError, RetryDecision};
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
        if (200..300).contains(&self.status) && self.code.is_empty() {
            let status = self.status;
            let what = "is not one of this protocol";
            return foreign(format!("the response to {name} {what}: status {status}"));
        }
        let mut error = Error::new(meaning.kind, self.text(name));
        let hint = match self.status {
            407 => Some(
                "write the user name and password of the proxy before its host, in HTTP_PROXY or \
                 HTTPS_PROXY"
                    .into(),
            ),
            _ => hint.or_else(|| (meaning.kind == ErrorKind::Throttled).then(|| self.later())),
        };
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
        let outcome = match self.status {
            200..300 => "was not done",
            407 => "was refused by a proxy",
            _ => "was refused",
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
            // Of a proxy, before anything reaches the server.
            407 => Self::new(Config, Stop),
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
    foreign(what)
}

fn foreign(what: String) -> AttemptError {
    let hint = "check the endpoint, and whether a proxy or a login page answers in its place";
    AttemptError {
        next: RetryDecision::BackoffBriefly,
        ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, what).with_hint(hint))
    }
}

/// Returns an error where the `Content-Type` of a response with an object is that of a web page.
/// Objects of Persist never have it: the login page of a network has answered, or another service.
pub fn refuse_page(name: &str, content_type: Option<&str>) -> Attempt<()> {
    let essence = content_type.and_then(|text| text.split(';').next());
    let is_page = essence.is_some_and(|text| text.trim().eq_ignore_ascii_case("text/html"));
    if is_page {
        Err(foreign_response(name, "is a web page and no object"))
    } else {
        Ok(())
    }
}

/// Returns the error of a request that was not sent, or that had no response. `failure` says how
/// far it came, unless the types of `cause` show it: whether a connection was made, whether TLS
/// failed, whether something else than HTTP answered.
pub fn transport_error(
    name: &str,
    cause: &(dyn StdError + 'static),
    failure: Failure,
) -> AttemptError {
    let what = format!("{name}: {}", innermost(cause));
    if let Some(error) = tls_failure(cause, &what) {
        return error;
    }
    let failure = match failure {
        Failure::ConnectTimedOut => failure,
        _ if never_connected(cause) => Failure::NotConnected,
        _ => failure,
    };
    match failure {
        Failure::NotSent => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        Failure::NotConnected if is_unknown_host(cause) => {
            let hint = "the name of the server or of its proxy has no address: correct the \
                        endpoint or the region, or check the DNS of this machine";
            let error = Error::new(ErrorKind::Unavailable, what).with_hint(hint);
            AttemptError::new(RetryDecision::BackoffBriefly, error)
        }
        // Without a hint: that of the retries names the proxy, which may be what closes it.
        Failure::NotConnected if is_closed(cause) => AttemptError::new(
            RetryDecision::BackoffBriefly,
            Error::new(ErrorKind::Unavailable, what),
        ),
        Failure::NotConnected => AttemptError::new(
            RetryDecision::Reconnect,
            Error::new(ErrorKind::Unavailable, what),
        ),
        // A firewall, or a server that accepts connections and takes part in no TLS handshake.
        Failure::ConnectTimedOut => AttemptError::new(
            RetryDecision::BackoffBriefly,
            Error::new(ErrorKind::Timeout, what),
        ),
        Failure::TimedOut => AttemptError::unclear(Error::new(ErrorKind::Timeout, what)),
        Failure::Broken if is_no_http(cause) => {
            let hint = "what answers there may not speak plain HTTP: if the server uses TLS, \
                        write https:// in the endpoint";
            AttemptError {
                next: RetryDecision::BackoffBriefly,
                ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, what).with_hint(hint))
            }
        }
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
    /// No connection was made in time, with its TLS handshake.
    ConnectTimedOut,
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

/// Returns the error of a TLS connection that failed. The handshake comes before any request, so
/// nothing was done, unless a connection that worked breaks. Type decides, never text.
fn tls_failure(cause: &(dyn StdError + 'static), what: &str) -> Option<AttemptError> {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext,
    };
    let is_handshake = never_connected(cause);
    let (hint, next) = match find::<rustls::Error>(cause)? {
        rustls::Error::InvalidCertificate(error) => (
            match error {
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                    "check the clock of this machine; the server may need a new certificate"
                }
                NotValidForName | NotValidForNameContext { .. } => {
                    "the certificate is that of another server: correct the endpoint, and check \
                     whether a proxy or a login page answers in its place"
                }
                _ => {
                    "if the certificate of the server is not trusted, set SSL_CERT_FILE, or \
                     AWS_CA_BUNDLE for S3, to the certificate of its CA, or correct the endpoint"
                }
            },
            RetryDecision::Stop,
        ),
        rustls::Error::InvalidMessage(_) if is_handshake => (
            "the server does not use TLS: correct the endpoint; http:// is for servers on this \
             machine",
            RetryDecision::Stop,
        ),
        rustls::Error::AlertReceived(_) | rustls::Error::PeerIncompatible(_) if is_handshake => (
            "the server refuses this TLS connection: correct the endpoint, or check which \
             versions of TLS and which certificates the server wants",
            RetryDecision::BackoffBriefly,
        ),
        _ => return None,
    };
    let kind = match next {
        RetryDecision::Stop => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Some(AttemptError::new(
        next,
        Error::new(kind, what).with_hint(hint),
    ))
}

/// Returns true if no connection was made, so that nothing was sent.
fn never_connected(cause: &(dyn StdError + 'static)) -> bool {
    find::<hyper_util::client::legacy::Error>(cause)
        .is_some_and(hyper_util::client::legacy::Error::is_connect)
}

/// Returns true if a name could not be resolved: the standard library reports that by an I/O error
/// without a code of the operating system, and of none of the kinds that others use.
fn is_unknown_host(cause: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, InvalidData,
        InvalidInput, NetworkUnreachable, Other, TimedOut, UnexpectedEof, Unsupported, WouldBlock,
    };
    let Some(error) = innermost(cause).downcast_ref::<std::io::Error>() else {
        return false;
    };
    let of_others = matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | InvalidData
            | InvalidInput
            | NetworkUnreachable
            | Other
            | TimedOut
            | UnexpectedEof
            | Unsupported
            | WouldBlock
    );
    error.raw_os_error().is_none() && !of_others
}

/// Returns true if the other side closed or reset a connection that it had accepted. Before a
/// request is sent, this is a server, or a proxy, that does not take part in the TLS handshake.
fn is_closed(cause: &(dyn StdError + 'static)) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    // An I/O error may hold another one, which is of a kind of its own.
    let mut next = find::<std::io::Error>(cause);
    while let Some(error) = next {
        if matches!(
            error.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
        ) {
            return true;
        }
        next = error.get_ref().and_then(|held| find(held));
    }
    false
}

/// Returns true if something else than HTTP came back, also before the request was sent: servers
/// of other protocols speak first.
fn is_no_http(cause: &(dyn StdError + 'static)) -> bool {
    let mut errors = causes(cause).filter_map(|error| error.downcast_ref::<hyper::Error>());
    errors.any(|error| error.is_parse() || is_unexpected(error))
}

/// Returns true for the error of hyper that the server sent something before it was asked. It is
/// the only one without a source and without a test of its own.
fn is_unexpected(error: &hyper::Error) -> bool {
    let is_other = error.is_user()
        || error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || error.is_body_write_aborted()
        || error.is_shutdown()
        || error.is_timeout();
    !is_other && error.source().is_none()
}

/// Returns the first error of a type in a chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// Returns an error and its causes.
fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn StdError + 'static)| {
        // An I/O error that holds another one has that one's source for its own.
        let held = error.downcast_ref::<std::io::Error>();
        let held = held.and_then(std::io::Error::get_ref);
        held.map(|held| held as &(dyn StdError + 'static))
            .or_else(|| error.source())
    })
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
    fn refused_certificates_are_permanent_and_nothing_was_done() {
        let wrapped = |error: rustls::Error| io::Error::other(io::Error::other(error));
        for (error, hint) in [
            (CertificateError::UnknownIssuer, "SSL_CERT_FILE"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidForName, "another server"),
        ] {
            let error = wrapped(rustls::Error::InvalidCertificate(error));
            let failed = transport_error("a call", &error, Failure::Broken);
            assert_eq!(failed.next, RetryDecision::Stop, "{error}");
            assert!(!failed.unclear, "{error}");
            assert_eq!(failed.error.kind(), ErrorKind::Config, "{error}");
            let said = failed.error.hint().unwrap_or_default();
            assert!(said.contains(hint), "{error}: {said}");
        }
        // A connection that worked, and broke: the server may have done what it was asked.
        for error in [
            rustls::Error::HandshakeNotComplete,
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
        ] {
            let failed = transport_error("a call", &wrapped(error), Failure::Broken);
            assert_eq!(failed.next, RetryDecision::Backoff(None));
            assert!(failed.unclear);
        }
    }

    #[test]
    fn an_unknown_host_is_told_apart_from_a_server_that_is_down() {
        let unknown = std::net::ToSocketAddrs::to_socket_addrs("no-such-host.invalid:443");
        let unknown = unknown.expect_err("there is no such host");
        let failed = transport_error("a call", &unknown, Failure::NotConnected);
        assert_eq!(failed.next, RetryDecision::BackoffBriefly);
        assert!(failed.error.hint().is_some_and(|hint| hint.contains("DNS")));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let failed = transport_error("a call", &refused, Failure::NotConnected);
        assert_eq!(failed.next, RetryDecision::Reconnect);
        assert!(!failed.unclear);
    }

    #[test]
    fn a_tls_handshake_that_is_closed_or_reset_is_retried_only_briefly() {
        for kind in [
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ] {
            // Clients wrap it.
            let error = io::Error::other(io::Error::from(kind));
            let failed = transport_error("a call", &error, Failure::NotConnected);
            assert_eq!(failed.next, RetryDecision::BackoffBriefly, "{kind}");
            assert!(!failed.unclear, "{kind}");
            // After a request was sent, the server may have done what it was asked.
            let failed = transport_error("a call", &error, Failure::Broken);
            assert_eq!(failed.next, RetryDecision::Backoff(None), "{kind}");
            assert!(failed.unclear, "{kind}");
        }
    }

    #[test]
    fn a_connection_that_is_not_made_in_time_is_retried_only_briefly() {
        let late = io::Error::from(io::ErrorKind::TimedOut);
        let failed = transport_error("a call", &late, Failure::ConnectTimedOut);
        assert_eq!(failed.next, RetryDecision::BackoffBriefly);
        assert_eq!(failed.error.kind(), ErrorKind::Timeout);
        assert!(!failed.unclear);
    }

    #[test]
    fn a_greeting_before_the_request_is_no_http() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let error = runtime.expect("a runtime").block_on(async {
            let (near, mut far) = tokio::io::duplex(64);
            let greeting = b"SSH-2.0-OpenSSH_9.2\r\n";
            let written = tokio::io::AsyncWriteExt::write_all(&mut far, greeting).await;
            written.expect("there is room");
            let near = hyper_util::rt::TokioIo::new(near);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake::<_, String>(near).await?;
            // The request is queued, and the greeting is read first.
            let response = sender.send_request(hyper::Request::new(String::new()));
            let (_, response) = tokio::join!(connection, response);
            response.map(drop)
        });
        let error = error.expect_err("no HTTP");
        assert!(!error.is_parse(), "{error:?}");
        let failed = transport_error("a call", &error, Failure::Broken);
        assert_eq!(failed.next, RetryDecision::BackoffBriefly, "{error:?}");
        let hint = failed.error.hint().unwrap_or_default();
        assert!(
            hint.contains("may not speak plain HTTP"),
            "{error:?}: {hint}"
        );
    }

    #[test]
    fn a_web_page_is_not_an_object() {
        for page in ["text/html", "Text/HTML; charset=utf-8"] {
            let failed = refuse_page("a call", Some(page)).expect_err(page);
            assert_eq!(failed.error.kind(), ErrorKind::Unavailable);
            assert_eq!(failed.next, RetryDecision::BackoffBriefly);
        }
        for object in [None, Some("application/gzip"), Some("text/plain")] {
            refuse_page("a call", object).expect("an object");
        }
    }

    #[test]
    fn a_success_without_an_error_code_is_of_another_service() {
        let failed = |status, code| {
            let response = ErrorResponse::new(status, code, None, |_| None);
            response.error("a call", Classification::of_status(status), None)
        };
        assert_eq!(failed(200, "").next, RetryDecision::BackoffBriefly);
        assert_eq!(failed(204, "").next, RetryDecision::BackoffBriefly);
        // An error of S3 inside of a 200.
        let inside = failed(200, "InternalError");
        assert_eq!(inside.next, RetryDecision::Backoff(None));
        let proxy = failed(407, "");
        assert_eq!(proxy.next, RetryDecision::Stop);
        assert_eq!(proxy.error.kind(), ErrorKind::Config);
        assert!(
            proxy
                .error
                .hint()
                .is_some_and(|hint| hint.contains("HTTPS_PROXY"))
        );
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
        for status in [301, 400, 401, 403, 404, 405, 407, 412, 501, 507] {
            let meaning = Classification::of_status(status);
            assert!(!meaning.unclear, "{status}");
            assert_ne!(meaning.next, RetryDecision::Backoff(None), "{status}");
        }
    }
}
