//! Classifies error responses: the kind of error, whether to retry, and a hint for the operator.
//!
//! Status and reason decide. The server's own text is never read, nor shown above debug: it names
//! buckets, keys and accounts.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;

use super::{Operation, innermost};
use crate::storage::bucket::permanent;
use crate::storage::retry::{AttemptError, RetryDecision};
use crate::storage::{Error, ErrorKind};

/// Error response of a server, as far as it can be trusted in a message.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    /// Such as `conditionNotMet`, or nothing.
    reason: String,
    request: Option<String>,
    retry_after: Option<Duration>,
    /// From `Content-Range: bytes */SIZE`.
    pub(super) size: Option<u64>,
}

impl ErrorResponse {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name| headers.get(name)?.to_str().ok();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let reason = body["error"]["errors"][0]["reason"].as_str();
        Self {
            status,
            reason: reason.and_then(word).unwrap_or_default(),
            request: header("x-guploader-uploadid").and_then(word),
            retry_after: header("retry-after").and_then(retry_after),
            size: header("content-range")
                .and_then(|range| range.strip_prefix("bytes */")?.parse().ok()),
        }
    }

    /// `objects.insert was refused: forbidden, status 403, request ABPtcPq`.
    fn text(&self, operation: &Operation) -> String {
        let outcome = if (200..300).contains(&self.status) {
            "got a response that is not of this protocol"
        } else {
            "was refused"
        };
        let mut text = format!("{} {outcome}: ", operation.name);
        if !self.reason.is_empty() {
            text = text + &self.reason + ", ";
        }
        text += &format!("status {}", self.status);
        if let Some(request) = &self.request {
            text = text + ", request " + request;
        }
        text
    }

    /// Returns the meaning of the response for any operation. An operation that knows more about a
    /// response looks at it first.
    pub(super) fn fault(&self, operation: &Operation) -> AttemptError {
        let meaning = classify(&self.reason, self.status);
        let no_bucket = self.status == 404 && operation.needs_bucket;
        let kind = if no_bucket {
            ErrorKind::Config
        } else {
            meaning.kind
        };
        let mut error = Error::new(kind, self.text(operation));
        if let Some(hint) = hint(operation, kind, no_bucket) {
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
}

fn hint(operation: &Operation, kind: ErrorKind, no_bucket: bool) -> Option<String> {
    Some(match kind {
        _ if no_bucket => {
            "create the bucket, or correct PERSIST_GCS_BUCKET; Persist creates no buckets".into()
        }
        ErrorKind::Config => {
            "check the key that PERSIST_GCS_KMS_KEY or the bucket names, and the endpoint".into()
        }
        ErrorKind::Denied => format!("the account needs {} on the bucket", operation.permission),
        _ => return None,
    })
}

struct Classification {
    kind: ErrorKind,
    next: RetryDecision,
    unclear: bool,
}

fn classify(reason: &str, status: u16) -> Classification {
    use ErrorKind::{
        AlreadyExists, Config, Denied, NoSpace, NotFound, Throttled, Timeout, Unauthenticated,
        Unavailable, Unsupported,
    };
    const AGAIN: RetryDecision = RetryDecision::Backoff(None);
    let (kind, next, unclear) = match (reason, status) {
        (_, 412) => (AlreadyExists, RetryDecision::Definitive, false),
        (_, 401) => (Unauthenticated, RetryDecision::RefreshCredentials, false),
        ("rateLimitExceeded" | "userRateLimitExceeded", 403) | (_, 429) => {
            (Throttled, AGAIN, false)
        }
        ("quotaExceeded", 403) | (_, 507) => (NoSpace, RetryDecision::Stop, false),
        (_, 403) => (Denied, RetryDecision::RefreshCredentials, false),
        (_, 404) => (NotFound, RetryDecision::Stop, false),
        // The body had not all come, or not in time.
        (_, 408) => (Timeout, AGAIN, true),
        // Another request for the same object is under way: the next answer tells.
        (_, 409) => (Unavailable, AGAIN, false),
        (_, 405 | 501 | 505) => (Unsupported, RetryDecision::Stop, false),
        (reason, 400) if reason.starts_with("kms") || reason.starts_with("cloudKms") => {
            (Config, RetryDecision::Stop, false)
        }
        (_, 300..=399) => (Config, RetryDecision::Stop, false),
        (_, 400..=499) => (Unsupported, RetryDecision::Stop, false),
        // A fault of the server, or one of something between it and us.
        _ => (Unavailable, AGAIN, true),
    };
    Classification {
        kind,
        next,
        unclear,
    }
}

/// Returns the error for a request of ours that failed without an answer.
pub(super) fn broken(operation: &Operation, error: &reqwest::Error) -> AttemptError {
    let what = format!("{}: {}", operation.name, innermost(error));
    if let Some(fault) = permanent(error, &what) {
        return fault;
    }
    match error {
        error if error.is_builder() => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        // Nothing was sent.
        error if error.is_connect() => AttemptError::new(
            RetryDecision::Backoff(None),
            Error::new(ErrorKind::Unavailable, what),
        ),
        error if error.is_timeout() => AttemptError::unclear(Error::new(ErrorKind::Timeout, what)),
        _ => AttemptError::unclear(Error::new(ErrorKind::Unavailable, what)),
    }
}

/// Converts an error of the crate to an attempt error.
pub(super) fn fault(operation: &Operation, error: &google_cloud_storage::Error) -> AttemptError {
    if let Some(status) = error.http_status_code() {
        let none = HeaderMap::new();
        let headers = error.http_headers().unwrap_or(&none);
        let body = error.http_payload().map_or(&[][..], |body| &body[..]);
        return ErrorResponse::new(status, headers, body).fault(operation);
    }
    let what = format!("{}: {}", operation.name, innermost(error));
    if let Some(fault) = permanent(error, &what) {
        return fault;
    }
    match error {
        error if error.is_authentication() => AttemptError::new(
            RetryDecision::Stop,
            Error::new(ErrorKind::Unauthenticated, what),
        ),
        error if error.is_connect() || error.is_transient_and_before_rpc() => AttemptError::new(
            RetryDecision::Backoff(None),
            Error::new(ErrorKind::Unavailable, what),
        ),
        error if error.is_binding() => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        error if error.is_timeout() => AttemptError::unclear(Error::new(ErrorKind::Timeout, what)),
        _ => AttemptError::unclear(Error::new(ErrorKind::Unavailable, what)),
    }
}

/// The generation of an object that was made of other bytes than were sent.
pub(super) fn damaged(error: &google_cloud_storage::Error) -> Option<i64> {
    use google_cloud_storage::error::WriteError;
    match error.source()?.downcast_ref::<WriteError>()? {
        WriteError::ChecksumMismatch { object, .. } => Some(object.generation),
        _ => None,
    }
}

/// A server's word, where it is one: it is printed on terminals and in logs.
fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+/=".contains(&byte);
    if (1..=256).contains(&text.len()) && text.bytes().all(plain) {
        Some(text.into())
    } else {
        None
    }
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
    use super::*;

    #[test]
    fn a_change_is_unclear_only_where_the_server_did_not_say() {
        for (reason, status, unclear) in [
            ("backendError", 503, true),
            ("internalError", 500, true),
            ("", 502, true),
            ("", 408, true),
            ("rateLimitExceeded", 429, false),
            ("rateLimitExceeded", 403, false),
            ("conflict", 409, false),
        ] {
            let meaning = classify(reason, status);
            assert_eq!(meaning.unclear, unclear, "{reason} {status}");
            assert_eq!(
                meaning.next,
                RetryDecision::Backoff(None),
                "{reason} {status}"
            );
        }
    }

    #[test]
    fn errors_do_not_repeat_text_of_the_server() {
        let body = br#"{"error":{"message":"no b/k","errors":[{"reason":"no\u001b[2J"}]}}"#;
        let refusal = ErrorResponse::new(403, &HeaderMap::new(), body);
        assert_eq!(refusal.reason, "");
        let body = br#"{"error":{"errors":[{"reason":"forbidden"}]}}"#;
        let refusal = ErrorResponse::new(403, &HeaderMap::new(), body);
        assert_eq!(refusal.reason, "forbidden");
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("soon"), None);
    }
}
