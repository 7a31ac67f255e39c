//! Classifies error responses: the kind of error, whether to retry, and a hint for the operator.
//!
//! Status and error code decide. The server's own text is never read, nor shown above debug: it
//! names buckets, keys and accounts.

use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::{Operation, innermost};
use crate::storage::bucket::permanent;
use crate::storage::retry::{AttemptError, RetryDecision};
use crate::storage::{Error, ErrorKind};

/// Error response of a server, as far as it can be trusted in a message.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    /// The error code, or nothing.
    pub(super) code: String,
    request: Option<String>,
    region: Option<String>,
    retry_after: Option<Duration>,
    /// From `Content-Range: bytes */SIZE`.
    pub(super) size: Option<u64>,
}

impl ErrorResponse {
    /// Returns the server's error response, if the server sent one that could be read.
    pub(super) fn of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Self> {
        let SdkError::ServiceError(service) = error else {
            return None;
        };
        let header = |name| service.raw().headers().get(name);
        Some(Self {
            status: service.raw().status().as_u16(),
            code: word(service.err().code().unwrap_or_default()).unwrap_or_default(),
            request: header("x-amz-request-id").and_then(word),
            region: header("x-amz-bucket-region").and_then(word),
            retry_after: header("retry-after").and_then(retry_after),
            size: header("content-range")
                .and_then(|range| range.strip_prefix("bytes */")?.parse().ok()),
        })
    }

    /// `PutObject was refused: AccessDenied, status 403, request 4442587FB7D0A2F9`.
    fn text(&self, operation: &Operation) -> String {
        let outcome = if (200..300).contains(&self.status) {
            "got a response that is not of this protocol"
        } else {
            "was refused"
        };
        let mut text = format!("{} {outcome}: ", operation.name);
        if !self.code.is_empty() {
            text = text + &self.code + ", ";
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
        let meaning = classify(&self.code, self.status);
        let mut error = Error::new(meaning.kind, self.text(operation));
        if let Some(hint) = self.hint(operation, meaning.kind) {
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

    /// When the server says that it has time.
    fn later(&self) -> String {
        match self.retry_after {
            Some(time) => format!("after {} seconds, as the server requests", time.as_secs()),
            None => "later".into(),
        }
    }

    fn hint(&self, operation: &Operation, kind: ErrorKind) -> Option<String> {
        Some(match (self.code.as_str(), kind) {
            ("NoSuchBucket", _) => {
                "create the bucket, or correct AWS_S3_BUCKET; Persist creates no buckets".into()
            }
            ("RequestTimeTooSkewed", _) => "correct the clock of this machine".into(),
            ("ExpiredToken" | "TokenRefreshRequired", _) => {
                "the credentials have expired; get new ones".into()
            }
            ("SignatureDoesNotMatch", _) => {
                "the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY"
                    .into()
            }
            (code, ErrorKind::Config) if code.starts_with("KMS.") => {
                "check the key that PERSIST_S3_KMS_KEY or the bucket names".into()
            }
            (_, ErrorKind::Config) => match &self.region {
                Some(region) => {
                    format!("the bucket is in the region {region}; set AWS_REGION to it")
                }
                None if matches!(self.status, 300..=399) => {
                    "set AWS_REGION to the region of the bucket, or correct AWS_ENDPOINT_URL".into()
                }
                None => "correct AWS_REGION and AWS_ENDPOINT_URL".into(),
            },
            // Lists need no key.
            (_, ErrorKind::Denied) if !operation.name.starts_with("List") => format!(
                "the account needs {}; with SSE-KMS also kms:GenerateDataKey and kms:Decrypt",
                operation.permission
            ),
            (_, ErrorKind::Denied) => format!("the account needs {}", operation.permission),
            (_, ErrorKind::Throttled) => format!("try again {}", self.later()),
            (_, ErrorKind::Unsupported) => {
                "the server may not be an S3 server: check AWS_ENDPOINT_URL".into()
            }
            _ => return None,
        })
    }
}

struct Classification {
    kind: ErrorKind,
    next: RetryDecision,
    unclear: bool,
}

/// By code where there is one: servers agree on these more than on statuses, and S3 answers 400 for
/// a timeout.
fn classify(code: &str, status: u16) -> Classification {
    use ErrorKind::{
        AlreadyExists, Config, Denied, NoSpace, NotFound, Throttled, Timeout, Unauthenticated,
        Unavailable, Unsupported,
    };
    const AGAIN: RetryDecision = RetryDecision::Backoff(None);
    let (kind, next, unclear) = match (code, status) {
        ("NoSuchKey", _) => (NotFound, RetryDecision::Stop, false),
        ("NoSuchBucket", _) => (Config, RetryDecision::Stop, false),
        ("PreconditionFailed", _) | (_, 412) => (AlreadyExists, RetryDecision::Definitive, false),
        ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) => {
            (Denied, RetryDecision::RefreshCredentials, false)
        }
        // The SDK reads the server's clock from its answer, and signs by that from then on.
        ("RequestTimeTooSkewed", _) => (Unauthenticated, RetryDecision::RetryOnce, false),
        (
            "ExpiredToken"
            | "InvalidAccessKeyId"
            | "InvalidClientTokenId"
            | "InvalidSecurity"
            | "InvalidToken"
            | "NotSignedUp"
            | "SignatureDoesNotMatch"
            | "TokenRefreshRequired"
            | "UnrecognizedClientException",
            _,
        ) => (Unauthenticated, RetryDecision::RefreshCredentials, false),
        (
            "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
            | "IncorrectEndpoint"
            | "PermanentRedirect"
            | "Redirect"
            | "TemporaryRedirect",
            _,
        ) => (Config, RetryDecision::Stop, false),
        (code, _) if code.starts_with("KMS.") => (Config, RetryDecision::Stop, false),
        (
            "SlowDown"
            | "SlowDownRead"
            | "SlowDownWrite"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequests"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded",
            _,
        ) => (Throttled, AGAIN, false),
        // S3 waited for the body, which had not all come.
        ("RequestTimeout", _) => (Timeout, AGAIN, false),
        // The body was damaged on its way.
        ("BadDigest" | "IncompleteBody" | "XAmzContentChecksumMismatch", _) => {
            (Unavailable, AGAIN, false)
        }
        ("EntityTooLarge" | "InsufficientCapacity" | "QuotaExceeded", _) | (_, 507) => {
            (NoSpace, RetryDecision::Stop, false)
        }
        ("NotImplemented", _) | (_, 405 | 501 | 505) => (Unsupported, RetryDecision::Stop, false),
        // S3 said itself that it did nothing.
        ("ServiceUnavailable", 503) => (Unavailable, AGAIN, false),
        (_, 401) => (Unauthenticated, RetryDecision::RefreshCredentials, false),
        (_, 403) => (Denied, RetryDecision::RefreshCredentials, false),
        (_, 404) => (NotFound, RetryDecision::Stop, false),
        (_, 408) => (Timeout, AGAIN, true),
        // Another request for the same key was faster, or is under way: the next answer tells.
        (_, 409) => (Unavailable, AGAIN, false),
        (_, 429) => (Throttled, AGAIN, false),
        (_, 300..=399) => (Config, RetryDecision::Stop, false),
        (_, 400..=499) => (Unsupported, RetryDecision::Stop, false),
        // An error inside of a 200, a fault of the server, or one of something between it and us.
        _ => (Unavailable, AGAIN, true),
    };
    Classification {
        kind,
        next,
        unclear,
    }
}

/// Converts an error of the SDK to an attempt error.
pub(super) fn fault<E>(operation: &Operation, error: &SdkError<E, HttpResponse>) -> AttemptError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let Some(refusal) = ErrorResponse::of(error) {
        if let SdkError::ServiceError(service) = error {
            let message = service.err().message();
            tracing::debug!(
                call = operation.name,
                refusal.status,
                refusal.code,
                message,
                "S3 refused a call"
            );
        }
        return refusal.fault(operation);
    }
    let what = format!("{}: {}", operation.name, innermost(error));
    if let Some(fault) = permanent(error, &what) {
        return fault;
    }
    match error {
        // Nothing was sent.
        SdkError::ConstructionFailure(_) => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            AttemptError::new(RetryDecision::Stop, Error::new(ErrorKind::Config, what))
        }
        SdkError::DispatchFailure(_) if never_connected(error) => AttemptError::new(
            RetryDecision::Backoff(None),
            Error::new(ErrorKind::Unavailable, what),
        ),
        SdkError::TimeoutError(_) => AttemptError::unclear(Error::new(ErrorKind::Timeout, what)),
        _ => AttemptError::unclear(Error::new(ErrorKind::Unavailable, what)),
    }
}

/// Returns true if no connection was made, so that nothing was sent.
fn never_connected(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable,
    };
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && matches!(
                error.kind(),
                ConnectionRefused | HostUnreachable | NetworkUnreachable | AddrNotAvailable
            )
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A server's word, where it is one: it is printed on terminals and in logs.
fn word(text: &str) -> Option<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+/=".contains(&byte);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
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
    let date = super::http_date(text)?;
    Some(
        date.duration_since(std::time::SystemTime::now())
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_unclear_only_where_the_server_did_not_say() {
        for (code, status, unclear) in [
            ("InternalError", 500, true),
            ("InternalError", 200, true),
            ("", 502, true),
            ("", 503, true),
            ("", 504, true),
            ("SlowDown", 503, false),
            ("ServiceUnavailable", 503, false),
            ("", 429, false),
            ("ConditionalRequestConflict", 409, false),
            ("RequestTimeout", 400, false),
            ("BadDigest", 400, false),
        ] {
            let meaning = classify(code, status);
            assert_eq!(meaning.unclear, unclear, "{code} {status}");
            assert_eq!(
                meaning.next,
                RetryDecision::Backoff(None),
                "{code} {status}"
            );
        }
    }

    fn said(code: &str, status: u16, region: Option<&str>) -> Error {
        let refusal = ErrorResponse {
            status,
            code: code.into(),
            request: Some("4442587FB7D0A2F9".into()),
            region: region.map(str::to_owned),
            retry_after: None,
            size: None,
        };
        refusal.fault(&crate::storage::s3::PUT).error
    }

    #[test]
    fn a_person_is_told_what_to_do_and_which_request_it_was() {
        for (code, status, region, kind, hint) in [
            ("AccessDenied", 403, None, ErrorKind::Denied, "s3:PutObject"),
            (
                "NoSuchBucket",
                404,
                None,
                ErrorKind::Config,
                "AWS_S3_BUCKET",
            ),
            (
                "PermanentRedirect",
                301,
                Some("eu-west-1"),
                ErrorKind::Config,
                "eu-west-1",
            ),
            (
                "AuthorizationHeaderMalformed",
                400,
                None,
                ErrorKind::Config,
                "AWS_REGION",
            ),
            (
                "RequestTimeTooSkewed",
                403,
                None,
                ErrorKind::Unauthenticated,
                "clock",
            ),
            (
                "ExpiredToken",
                400,
                None,
                ErrorKind::Unauthenticated,
                "expired",
            ),
            (
                "SignatureDoesNotMatch",
                403,
                None,
                ErrorKind::Unauthenticated,
                "AWS_SECRET_ACCESS_KEY",
            ),
            (
                "KMS.NotFoundException",
                400,
                None,
                ErrorKind::Config,
                "PERSIST_S3_KMS_KEY",
            ),
        ] {
            let error = said(code, status, region);
            assert_eq!(error.kind(), kind, "{code}");
            assert!(
                error.hint().is_some_and(|found| found.contains(hint)),
                "{code}: {error}"
            );
            let text = error.to_string();
            assert!(
                text.contains(code) && text.contains("4442587FB7D0A2F9"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        assert_eq!(classify("NoSuchBucket", 404).kind, ErrorKind::Config);
        assert_eq!(classify("NoSuchKey", 404).kind, ErrorKind::NotFound);
        assert_eq!(classify("", 404).kind, ErrorKind::NotFound);
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
}
