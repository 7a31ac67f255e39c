//! Errors of the service: problem documents (RFC 9457) with the codes of the command's JSON errors.

use std::time::SystemTime;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use persist_host::snapshot;
use persist_host::storage::{self, ErrorKind};
use serde_json::{Map, Value, json};

use crate::exit;
use crate::text::seen;

/// Longest time after which a client is told to try again, in seconds.
const LONGEST_RETRY: u64 = 30;

/// Result of a handler.
pub(super) type Result<T> = std::result::Result<T, Problem>;

/// An error as a client gets it.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) hint: Option<String>,
    /// Further members of the document.
    pub(super) more: Map<String, Value>,
    retry_after: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            hint: None,
            more: Map::new(),
            retry_after: None,
        }
    }

    pub(super) fn usage(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "usage", detail)
    }

    /// Returns the error of a request whose task panicked.
    pub(super) fn panicked() -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let problem = Self::new(status, "failed", "the server failed");
        problem.hint("the log of the server tells more")
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Returns the error of a server that is busy.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        let mut busy = Self::new(StatusCode::TOO_MANY_REQUESTS, "limit", detail);
        busy.retry_after = Some(1);
        busy.hint("try again later")
    }

    /// Returns the error of a lease that a run did not get. Names of hosts are for the operator.
    pub(super) fn of_lease(error: snapshot::Error) -> Self {
        let snapshot::Error::Leased { scope, expires, .. } = error else {
            return error.into();
        };
        let what = format!("another host works on {scope}");
        let mut leased = Self::new(StatusCode::SERVICE_UNAVAILABLE, "conflict", what);
        let left = expires.duration_since(SystemTime::now());
        // Its holder may release it before.
        let seconds = left.unwrap_or_default().as_secs().clamp(1, LONGEST_RETRY);
        leased.retry_after = Some(seconds);
        leased.hint("send the request again later, with the same Idempotency-Key")
    }

    /// Returns the error of a run whose lease another host took over.
    pub(super) fn lease_lost() -> Self {
        let what = "another host took over during the run; what the agent saved before is kept";
        let mut lost = Self::new(StatusCode::SERVICE_UNAVAILABLE, "conflict", what);
        lost.retry_after = Some(1);
        lost.hint("send the request again, with the same Idempotency-Key")
    }

    /// Makes the error of an agent that of a run that failed with its storage and saved nothing.
    pub(super) fn of_failed_storage(mut self) -> Self {
        self.status = StatusCode::SERVICE_UNAVAILABLE;
        self.code = "failed".into();
        self.retry_after = Some(1);
        self.hint("the storage failed during the run, which saved nothing; send the request again")
    }

    /// Returns the error of a request that the end of the service keeps from its work.
    pub(super) fn ending(detail: impl Into<String>) -> Self {
        let mut ending = Self::new(StatusCode::SERVICE_UNAVAILABLE, "failed", detail);
        ending.retry_after = Some(1);
        ending.hint("send the request again, with the same Idempotency-Key")
    }

    /// Returns the error of a range that lies outside of a state of this size.
    pub(super) fn unsatisfiable(size: u64) -> Self {
        let what = format!("the state has {size} bytes, and the range begins after them");
        let mut error = Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "usage", what);
        error.more.insert("size".into(), size.into());
        error
    }

    /// Returns a conflict as the failed precondition of a conditional request.
    pub(super) fn of_condition(mut self) -> Self {
        if self.status == StatusCode::CONFLICT {
            self.status = StatusCode::PRECONDITION_FAILED;
        }
        self
    }

    pub(super) fn document(&self) -> Value {
        let mut document = self.more.clone();
        // "about:blank" says that the title is the status; `code` is what tells errors apart.
        let fixed = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
        });
        if let Value::Object(fixed) = fixed {
            document.extend(fixed);
        }
        Value::Object(document)
    }

    /// Returns the error of a command for a client. What is the server's fault is logged, and not
    /// told: it may name places of the storage.
    fn of(error: &anyhow::Error) -> Self {
        let value = exit::value_of(error);
        let text = |key: &str| value["error"][key].as_str().map(ToOwned::to_owned);
        let code = text("code").unwrap_or_default();
        let status = status(error, &code);
        let detail = text("message").unwrap_or_default();
        if !status.is_server_error() {
            let mut problem = Self::new(status, &code, detail);
            problem.hint = text("hint").filter(|hint| !hint.contains("`persist "));
            if let Some(snapshot::Error::Conflict { head }) = error.downcast_ref() {
                problem.more.insert("head".into(), json!(head));
            }
            return problem;
        }
        // The detail may name a key, which other readers of the log must not see.
        tracing::error!(code, "a request failed; the level debug tells more");
        tracing::debug!(code, "a request failed: {detail}");
        let what = match code.as_str() {
            "denied" => "the storage does not let the service do this",
            "corrupt" => "what is stored cannot be read",
            "unknown_outcome" => "the change may have been made",
            "limit" => "the storage has no space left",
            _ => "the storage failed",
        };
        let hint = match code.as_str() {
            "unknown_outcome" => "load the newest version before trying again",
            _ => "the log of the server tells more",
        };
        // A client knows these codes from its own requests and tokens.
        let code = match code.as_str() {
            "denied" | "usage" => "failed",
            code => code,
        };
        let mut problem = Self::new(status, code, what).hint(hint);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            problem.retry_after = Some(5);
        }
        problem
    }
}

fn status(error: &anyhow::Error, code: &str) -> StatusCode {
    let storage = match error.downcast_ref() {
        Some(snapshot::Error::NoStore { .. }) => return StatusCode::SERVICE_UNAVAILABLE,
        Some(snapshot::Error::TooLarge { .. }) => return StatusCode::PAYLOAD_TOO_LARGE,
        Some(snapshot::Error::Storage(error)) => Some(error),
        _ => error.downcast_ref::<storage::Error>(),
    };
    if let Some(error) = storage {
        return match error.kind() {
            ErrorKind::Throttled | ErrorKind::Timeout | ErrorKind::Unavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
    }
    match code {
        "usage" => StatusCode::BAD_REQUEST,
        "not_found" => StatusCode::NOT_FOUND,
        "conflict" => StatusCode::CONFLICT,
        "agent" | "limit" => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::of(&error)
    }
}

impl From<snapshot::Error> for Problem {
    fn from(error: snapshot::Error) -> Self {
        Self::of(&error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.document());
        let headers = response.headers_mut();
        let problem = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::RANGE_NOT_SATISFIABLE
            && let Some(size) = self.more.get("size")
            && let Ok(range) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            headers.insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

/// Returns a response with a JSON value, in which characters that no one sees are escaped.
pub(super) fn json_response(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(format!("{}\n", seen(value))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_storage_is_none_of_the_token() {
        for kind in [
            ErrorKind::Denied,
            ErrorKind::Unauthenticated,
            ErrorKind::Config,
        ] {
            let error = storage::Error::new(kind, "cannot write bot/~/x");
            let problem = Problem::from(snapshot::Error::from(error));
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            assert_eq!((problem.status, problem.code.as_str()), (status, "failed"));
            assert!(!problem.document().to_string().contains("bot"));
        }
    }
}
