//! Meaning of the errors of S3: their kind, the retry, and a hint for the operator.
//!
//! Status and error code decide.

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::name;
use crate::storage::ErrorKind;
use crate::storage::bucket::{
    AttemptError, Classification, ErrorResponse, Failure, Request, RetryDecision, transport_error,
    word,
};

/// Code of Alibaba Cloud's servers, which take no path style.
const VIRTUAL_HOSTED_ONLY: &str = "SecondLevelDomainForbidden";

/// Returns the server's error response, if the server sent one that could be read.
pub(super) fn response<E>(error: &SdkError<E, HttpResponse>) -> Option<ErrorResponse>
where
    E: ProvideErrorMetadata,
{
    let SdkError::ServiceError(service) = error else {
        return None;
    };
    let header = |name: &str| service.raw().headers().get(name);
    Some(ErrorResponse::new(
        service.raw().status().as_u16(),
        service.err().code().unwrap_or_default(),
        header("x-amz-request-id"),
        header,
    ))
}

/// Converts an error of the SDK to an attempt error.
pub(super) fn fault<E>(request: Request, error: &SdkError<E, HttpResponse>) -> AttemptError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let call = name(request);
    if let (Some(response), SdkError::ServiceError(service)) = (response(error), error) {
        let message = service.err().message();
        tracing::debug!(
            call,
            response.status,
            response.code,
            message,
            "S3 refused a call"
        );
        let region = service.raw().headers().get("x-amz-bucket-region");
        return refused(request, &response, region.and_then(word));
    }
    let failure = match error {
        SdkError::ConstructionFailure(_) => Failure::NotSent,
        SdkError::DispatchFailure(failure) if failure.is_user() => Failure::NotSent,
        // The SDK has a timeout for connections only.
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Failure::ConnectTimedOut,
        SdkError::DispatchFailure(_) if never_connected(error) => Failure::NotConnected,
        SdkError::TimeoutError(_) => Failure::TimedOut,
        _ => Failure::Broken,
    };
    transport_error(call, error, failure)
}

/// Returns the error of a response. `region` is that of the bucket, if the server says.
fn refused(request: Request, response: &ErrorResponse, region: Option<String>) -> AttemptError {
    let mut meaning = classify(&response.code, response.status);
    let is_bare = response.code.is_empty() && response.request.is_none();
    // Every error of S3 has a code. Of an object that is missing, some servers say no more.
    if response.status == 404 && is_bare && request != Request::Get {
        meaning.kind = ErrorKind::Config;
    }
    let hint = hint(request, response, meaning.kind, region);
    response.error(name(request), meaning, hint)
}

/// Returns the permission that the account needs for a request.
fn permission(request: Request) -> &'static str {
    match request {
        Request::Get => "s3:GetObject on the objects of the bucket",
        Request::Delete => "s3:DeleteObject on the objects of the bucket",
        Request::Abort => "s3:AbortMultipartUpload on the objects of the bucket",
        Request::List => "s3:ListBucket on the bucket",
        // It is not among those that saves and loads need.
        Request::ListUploads => {
            "s3:ListBucketMultipartUploads on the bucket, which nothing but this needs"
        }
        _ => "s3:PutObject on the objects of the bucket",
    }
}

fn hint(
    request: Request,
    response: &ErrorResponse,
    kind: ErrorKind,
    region: Option<String>,
) -> Option<String> {
    let permission = permission(request);
    let is_bare = response.code.is_empty() && response.request.is_none();
    Some(match (response.code.as_str(), kind) {
        ("NoSuchBucket", _) => {
            "create the bucket, or correct AWS_S3_BUCKET; Persist creates no buckets".into()
        }
        ("RequestTimeTooSkewed", _) => "correct the clock of this machine".into(),
        ("ExpiredToken" | "TokenRefreshRequired", _) => {
            "the credentials have expired; get new ones".into()
        }
        ("SignatureDoesNotMatch", _) => {
            "the secret key does not belong to the access key; correct AWS_SECRET_ACCESS_KEY".into()
        }
        (VIRTUAL_HOSTED_ONLY, _) => {
            "set PERSIST_S3_PATH_STYLE=false (s3_path_style in persist.toml)".into()
        }
        (code, ErrorKind::Config) if code.starts_with("KMS.") => {
            "check the key that PERSIST_S3_KMS_KEY or the bucket names".into()
        }
        (_, ErrorKind::Config) if response.status == 404 => {
            "the bucket does not exist, or no S3 server answers: check AWS_S3_BUCKET and \
             AWS_ENDPOINT_URL"
                .into()
        }
        (_, ErrorKind::Config) => match region {
            Some(region) => {
                format!("the bucket is in the region {region}; set AWS_REGION to it")
            }
            None if matches!(response.status, 300..=399) => {
                "set AWS_REGION to the region of the bucket, or correct AWS_ENDPOINT_URL".into()
            }
            None => "correct AWS_REGION and AWS_ENDPOINT_URL".into(),
        },
        (_, ErrorKind::Denied) if is_bare => format!(
            "the response has no error code of S3: check whether a proxy or a firewall refuses; \
             if not, the account needs {permission}"
        ),
        // Lists need no key.
        (_, ErrorKind::Denied) if matches!(request, Request::List | Request::ListUploads) => {
            format!("the account needs {permission}")
        }
        (_, ErrorKind::Denied) if matches!(request, Request::Put | Request::Begin) => format!(
            "the account needs {permission}, with SSE-KMS also kms:GenerateDataKey and \
             kms:Decrypt; where a policy demands encryption, set PERSIST_S3_ENCRYPTION=AES256"
        ),
        (_, ErrorKind::Denied) => format!(
            "the account needs {permission}; with SSE-KMS also kms:GenerateDataKey and kms:Decrypt"
        ),
        // The server may lack one thing; a request of its own tells which.
        (_, ErrorKind::Unsupported)
            if !is_bare && matches!(request, Request::Put | Request::Part) =>
        {
            "where the server refuses checksums, set \
             AWS_REQUEST_CHECKSUM_CALCULATION=when_required; `persist doctor` tries this; else \
             check AWS_ENDPOINT_URL"
                .into()
        }
        (_, ErrorKind::Unsupported) => {
            "the server may not be an S3 server: check AWS_ENDPOINT_URL".into()
        }
        _ => return None,
    })
}

/// By code where there is one: servers agree on these more than on statuses, and S3 answers 400 for
/// a timeout.
fn classify(code: &str, status: u16) -> Classification {
    use ErrorKind::{
        AlreadyExists, Config, Denied, NoSpace, NotFound, Throttled, Timeout, Unauthenticated,
        Unavailable, Unsupported,
    };
    use RetryDecision::{Backoff, Definitive, RefreshCredentials, RetryOnce, Stop};
    let (kind, next) = match code {
        "NoSuchKey" => (NotFound, Stop),
        "NoSuchBucket" => (Config, Stop),
        "PreconditionFailed" => (AlreadyExists, Definitive),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => (Denied, RefreshCredentials),
        // The SDK reads the server's clock from its answer, and signs by that from then on.
        "RequestTimeTooSkewed" => (Unauthenticated, RetryOnce),
        "ExpiredToken"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSecurity"
        | "InvalidToken"
        | "NotSignedUp"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnrecognizedClientException" => (Unauthenticated, RefreshCredentials),
        "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "IncorrectEndpoint"
        | "PermanentRedirect"
        | "Redirect"
        | "TemporaryRedirect"
        | VIRTUAL_HOSTED_ONLY => (Config, Stop),
        code if code.starts_with("KMS.") => (Config, Stop),
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => (Throttled, Backoff(None)),
        // S3 waited for the body, which had not all come.
        "RequestTimeout" => (Timeout, Backoff(None)),
        // The body was damaged on its way.
        "BadDigest" | "IncompleteBody" | "XAmzContentChecksumMismatch" => {
            (Unavailable, Backoff(None))
        }
        "EntityTooLarge" | "InsufficientCapacity" | "QuotaExceeded" => (NoSpace, Stop),
        "NotImplemented" => (Unsupported, Stop),
        // S3 said itself that it did nothing.
        "ServiceUnavailable" if status == 503 => (Unavailable, Backoff(None)),
        _ => return Classification::of_status(status),
    };
    Classification::new(kind, next)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Error;

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
        let response = ErrorResponse::new(status, code, Some("4442587FB7D0A2F9"), |_| None);
        refused(Request::Put, &response, region.map(str::to_owned)).error
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
            ("AccessDenied", 403, None, ErrorKind::Denied, "AES256"),
            (
                "SecondLevelDomainForbidden",
                403,
                None,
                ErrorKind::Config,
                "PERSIST_S3_PATH_STYLE=false",
            ),
            (
                "InvalidArgument",
                400,
                None,
                ErrorKind::Unsupported,
                "when_required",
            ),
            (
                "NotImplemented",
                501,
                None,
                ErrorKind::Unsupported,
                "when_required",
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
    fn a_refusal_without_a_code_of_s3_is_not_taken_for_one_of_s3() {
        let said = |request, status| {
            let response = ErrorResponse::new(status, "", None, |_| None);
            refused(request, &response, None).error
        };
        for (request, status, kind, hint) in [
            (Request::Put, 404, ErrorKind::Config, "no S3 server answers"),
            (
                Request::List,
                404,
                ErrorKind::Config,
                "no S3 server answers",
            ),
            (Request::Get, 404, ErrorKind::NotFound, ""),
            (Request::Put, 403, ErrorKind::Denied, "firewall"),
            (
                Request::Put,
                400,
                ErrorKind::Unsupported,
                "may not be an S3 server",
            ),
            (Request::Put, 302, ErrorKind::Config, "AWS_ENDPOINT_URL"),
            (Request::Put, 407, ErrorKind::Config, "HTTPS_PROXY"),
        ] {
            let error = said(request, status);
            assert_eq!(error.kind(), kind, "{request:?} {status}");
            let found = error.hint().unwrap_or_default();
            assert!(found.contains(hint), "{request:?} {status}: {found}");
        }
    }

    #[test]
    fn a_missing_bucket_is_not_a_missing_object() {
        assert_eq!(classify("NoSuchBucket", 404).kind, ErrorKind::Config);
        assert_eq!(classify("NoSuchKey", 404).kind, ErrorKind::NotFound);
        assert_eq!(classify("", 404).kind, ErrorKind::NotFound);
    }
}
