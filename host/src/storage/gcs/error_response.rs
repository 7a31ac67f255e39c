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
    let hint = hint(operation, response, meaning.kind, no_bucket);
    response.error(operation.name, meaning, hint)
}

fn hint(
    operation: Operation,
    response: &ErrorResponse,
    kind: ErrorKind,
    no_bucket: bool,
) -> Option<String> {
    let permission = operation.permission;
    // Every error of Google's has a reason or an ID.
    let is_bare = response.code.is_empty() && response.request.is_none();
    Some(match (response.code.as_str(), kind) {
        _ if no_bucket => {
            "create the bucket, or correct PERSIST_GCS_BUCKET; Persist creates no buckets".into()
        }
        ("retentionPolicyNotMet" | "objectUnderActiveHold", _) => {
            "a retention policy or a hold keeps the object; it can be removed after that ends"
                .into()
        }
        ("userProjectMissing", _) => {
            "the bucket lets those pay who use it: set GOOGLE_CLOUD_QUOTA_PROJECT to the project \
             that pays"
                .into()
        }
        (code, ErrorKind::Config) if code.starts_with("kms") || code.starts_with("cloudKms") => {
            "check the key that PERSIST_GCS_KMS_KEY or the bucket names".into()
        }
        (_, ErrorKind::Config) => {
            "redirects are not followed: correct the endpoint, and check whether a proxy or a \
             login page answers in its place"
                .into()
        }
        ("quotaExceeded", _) => "raise the quota of the project, or free some space".into(),
        (_, ErrorKind::Denied) if is_bare => format!(
            "the response has no error code of Google's: check whether a proxy or a firewall \
             refuses; if not, the account needs {permission} on the bucket"
        ),
        (_, ErrorKind::Denied) => format!("the account needs {permission} on the bucket"),
        (_, ErrorKind::Unsupported) if is_bare => {
            "the server may not be a server of GCS: check the endpoint".into()
        }
        (_, ErrorKind::Unsupported) => {
            "the server does not support this; run `persist doctor` to see what it lacks".into()
        }
        _ => return None,
    })
}

fn classify(reason: &str, status: u16) -> Classification {
    use ErrorKind::{Config, NoSpace, Retained, Throttled};
    use RetryDecision::{Backoff, Stop};
    let (kind, next) = match (reason, status) {
        ("rateLimitExceeded" | "userRateLimitExceeded", 403) => (Throttled, Backoff(None)),
        ("quotaExceeded", 403) => (NoSpace, Stop),
        // Other credentials would not help.
        ("retentionPolicyNotMet" | "objectUnderActiveHold", _) => (Retained, Stop),
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
        error if error.is_connect() && error.is_timeout() => Failure::ConnectTimedOut,
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
    fn each_refusal_says_what_it_means_what_to_do_and_which_request_it_was() {
        use ErrorKind::{
            AlreadyExists, Config, Denied, NoSpace, NotFound, Retained, Throttled, Unauthenticated,
            Unavailable, Unsupported,
        };
        let put = Operation::of(Request::Put);
        let delete = Operation::of(Request::Delete);
        let get = Operation::of(Request::Get);
        for (operation, status, reason, kind, hint) in [
            (put, 302, "", Config, "redirects are not followed"),
            (put, 400, "invalid", Unsupported, "persist doctor"),
            (
                put,
                400,
                "userProjectMissing",
                Unsupported,
                "GOOGLE_CLOUD_QUOTA_PROJECT",
            ),
            (put, 400, "kmsKeyNotFound", Config, "PERSIST_GCS_KMS_KEY"),
            (put, 401, "authError", Unauthenticated, "credentials"),
            (put, 403, "forbidden", Denied, "storage.objects.create"),
            (get, 403, "forbidden", Denied, "storage.objects.get"),
            (
                delete,
                403,
                "retentionPolicyNotMet",
                Retained,
                "retention policy",
            ),
            (delete, 403, "objectUnderActiveHold", Retained, "hold"),
            (put, 403, "quotaExceeded", NoSpace, "quota"),
            (put, 403, "rateLimitExceeded", Throttled, "later"),
            (put, 404, "notFound", Config, "PERSIST_GCS_BUCKET"),
            (get, 404, "notFound", NotFound, ""),
            (put, 407, "", Config, "HTTPS_PROXY"),
            (put, 412, "conditionNotMet", AlreadyExists, "other writer"),
            (put, 429, "rateLimitExceeded", Throttled, "later"),
            (put, 503, "backendError", Unavailable, "available"),
        ] {
            let response = ErrorResponse::new(status, reason, Some("ABCD1234"), |_| None);
            let error = refused(operation, &response).error;
            assert_eq!(error.kind(), kind, "{status} {reason}");
            let text = error.to_string();
            for part in [operation.name, reason, &status.to_string(), "ABCD1234"] {
                assert!(text.contains(part), "{text}");
            }
            let said = error.hint().unwrap_or_default();
            assert!(said.contains(hint), "{text}: {said}");
        }
        // Nothing of Google's is in it.
        let response = ErrorResponse::new(403, "", None, |_| None);
        let error = refused(put, &response).error;
        assert!(error.hint().is_some_and(|hint| hint.contains("firewall")));
    }

    #[test]
    fn errors_do_not_repeat_text_of_the_server() {
        let body = br#"{"error":{"message":"no b/k","errors":[{"reason":"no\u001b[2J"}]}}"#;
        assert_eq!(response(403, &HeaderMap::new(), body).code, "");
        let body = br#"{"error":{"errors":[{"reason":"forbidden"}]}}"#;
        assert_eq!(response(403, &HeaderMap::new(), body).code, "forbidden");
    }
}
