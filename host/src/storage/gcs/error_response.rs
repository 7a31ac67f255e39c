//! Meaning of the errors of GCS: their kind, the retry, and a hint for the operator.
//!
//! Status and reason decide.

use std::error::Error as StdError;

use http::HeaderMap;
use serde_json::Value;

use crate::storage::bucket::{
    AttemptError, Classification, ErrorResponse, Failure, Request, RetryDecision, innermost,
    transport_error,
};
use crate::storage::{Error, ErrorKind};

/// A call of GCS, as its manual names it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    /// Permission that the account needs for the operation.
    permission: &'static str,
    /// True if nothing but the bucket can be missing.
    needs_bucket: bool,
}

impl Operation {
    pub(super) const BUCKET: Self = Self::new("buckets.get", "storage.buckets.get", true);

    const fn new(name: &'static str, permission: &'static str, needs_bucket: bool) -> Self {
        Self {
            name,
            permission,
            needs_bucket,
        }
    }

    pub(super) fn of(request: Request) -> Self {
        const CREATE: &str = "storage.objects.create, and to replace storage.objects.delete,";
        match request {
            Request::Put => Self::new("objects.insert", CREATE, true),
            Request::Begin => Self::new("objects.insert (begin)", CREATE, true),
            Request::Part => Self::new("objects.insert (part)", CREATE, false),
            Request::Complete => Self::new("objects.insert (last part)", CREATE, false),
            Request::Abort => Self::new("objects.insert (cancel)", CREATE, false),
            Request::Get => Self::new("objects.get", "storage.objects.get", false),
            Request::List => Self::new("objects.list", "storage.objects.list", true),
            Request::Delete => Self::new("objects.delete", "storage.objects.delete", false),
            // GCS forgets uploads by itself.
            Request::ListUploads => Self::new("", "", false),
        }
    }
}

/// Returns the server's error response.
pub(super) fn response(status: u16, headers: &HeaderMap, body: &[u8]) -> ErrorResponse {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body["error"]["errors"][0]["reason"].as_str();
    let reason = reason.unwrap_or_default();
    ErrorResponse::new(status, reason, header("x-guploader-uploadid"), header)
}

/// Returns the error of a response.
pub(super) fn refused(operation: Operation, response: &ErrorResponse) -> AttemptError {
    let mut meaning = classify(&response.code, response.status);
    let no_bucket = response.status == 404 && operation.needs_bucket;
    if no_bucket {
        meaning.kind = ErrorKind::Config;
    }
    let hint = match meaning.kind {
        _ if no_bucket => Some(
            "create the bucket, or correct PERSIST_GCS_BUCKET; Persist creates no buckets".into(),
        ),
        ErrorKind::Config => Some(
            "check the key that PERSIST_GCS_KMS_KEY or the bucket names, and the endpoint".into(),
        ),
        ErrorKind::Denied => {
            let permission = operation.permission;
            Some(format!("the account needs {permission} on the bucket"))
        }
        _ => None,
    };
    response.error(operation.name, meaning, hint)
}

fn classify(reason: &str, status: u16) -> Classification {
    use ErrorKind::{Config, NoSpace, Throttled};
    use RetryDecision::{Backoff, Stop};
    let (kind, next) = match (reason, status) {
        ("rateLimitExceeded" | "userRateLimitExceeded", 403) => (Throttled, Backoff(None)),
        ("quotaExceeded", 403) => (NoSpace, Stop),
        (reason, 400) if reason.starts_with("kms") || reason.starts_with("cloudKms") => {
            (Config, Stop)
        }
        _ => return Classification::of_status(status),
    };
    Classification::new(kind, next)
}

/// Returns the error for a request of ours that failed without an answer.
pub(super) fn broken_request(operation: Operation, error: &reqwest::Error) -> AttemptError {
    let failure = match error {
        error if error.is_builder() => Failure::NotSent,
        error if error.is_connect() => Failure::NotConnected,
        error if error.is_timeout() => Failure::TimedOut,
        _ => Failure::Broken,
    };
    transport_error(operation.name, error, failure)
}

/// Returns the server's error response to an insert, or the error of one that had none.
pub(super) fn insert_failure(
    operation: Operation,
    error: &google_cloud_storage::Error,
) -> Result<ErrorResponse, AttemptError> {
    if let Some(status) = error.http_status_code() {
        let none = HeaderMap::new();
        let headers = error.http_headers().unwrap_or(&none);
        let body = error.http_payload().map_or(&[][..], |body| &body[..]);
        return Ok(response(status, headers, body));
    }
    let failure = match error {
        error if error.is_authentication() => {
            let what = format!("{}: {}", operation.name, innermost(error));
            let error = Error::new(ErrorKind::Unauthenticated, what);
            return Err(AttemptError::new(RetryDecision::Stop, error));
        }
        error if error.is_connect() || error.is_transient_and_before_rpc() => Failure::NotConnected,
        error if error.is_binding() => Failure::NotSent,
        error if error.is_timeout() => Failure::TimedOut,
        _ => Failure::Broken,
    };
    Err(transport_error(operation.name, error, failure))
}

/// The generation of an object that was made of other bytes than were sent.
pub(super) fn damaged(error: &google_cloud_storage::Error) -> Option<i64> {
    use google_cloud_storage::error::WriteError;
    match error.source()?.downcast_ref::<WriteError>()? {
        WriteError::ChecksumMismatch { object, .. } => Some(object.generation),
        _ => None,
    }
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
        assert_eq!(response(403, &HeaderMap::new(), body).code, "");
        let body = br#"{"error":{"errors":[{"reason":"forbidden"}]}}"#;
        assert_eq!(response(403, &HeaderMap::new(), body).code, "forbidden");
    }
}
