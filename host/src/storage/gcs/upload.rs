//! Resumable uploads, whose parts can each be sent again.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, RequestBuilder, Response};
use serde::Deserialize;

use super::error_response::Operation;
use super::{GcsDriver, Request, encode, whole};
use crate::storage::bucket::{
    Attempt, AttemptError, Completion, ErrorResponse, Mode, Progress, RetryDecision, Stored,
    UploadPart, content_type, foreign_response,
};
use crate::storage::{Error, ErrorKind};

/// A resumable upload that GCS knows of.
#[derive(Clone)]
pub struct Session {
    /// URL of the session. Anyone who has it may continue the upload, so it is never shown.
    url: String,
}

/// Metadata that GCS returns for the object that it made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Made {
    generation: String,
    size: String,
    crc32c: String,
    kms_key_name: String,
}

impl GcsDriver {
    pub(super) async fn begin_session(&self, key: &str, mode: Mode) -> Attempt<Session> {
        let mut query = format!("/o?uploadType=resumable&name={}", encode(key));
        if mode == Mode::Create {
            query += "&ifGenerationMatch=0";
        }
        if let Some(key) = &self.settings.kms_key {
            query += &format!("&kmsKeyName={}", encode(key));
        }
        let begin = self
            .request(Method::POST, &self.url("/upload/storage/v1/b/", &query))
            .header(CONTENT_TYPE, "application/json")
            .body(format!("{{\"contentType\":\"{}\"}}", content_type(key)));
        let answer = self.send(Operation::of(Request::Begin), begin).await?;
        let url = location(answer.headers(), &self.settings.common.server)?;
        Ok(Session { url })
    }

    /// Sends a part that another follows. What GCS has of it already when it is sent again, it
    /// passes over.
    pub(super) async fn send_part(
        &self,
        session: &Session,
        part: &UploadPart,
    ) -> Attempt<Progress<()>> {
        let operation = Operation::of(Request::Part);
        let (response, refusal) = self
            .answer(operation, self.put_part(session, part, "*"))
            .await?;
        match refusal {
            None => {
                let what = "is an object before its last part";
                Err(foreign_response(operation.name, what))
            }
            Some(refusal) => self.progress(operation, part, &response, &refusal),
        }
    }

    /// Sends the last part, with which the object is made.
    pub(super) async fn send_last_part(
        &self,
        key: &str,
        session: &Session,
        completion: &Completion<()>,
    ) -> Attempt<Progress<Stored>> {
        let operation = Operation::of(Request::Complete);
        let Some(last) = &completion.last else {
            let what = format!("{}: an upload needs a last part", operation.name);
            let error = Error::new(ErrorKind::Unsupported, what);
            return Err(AttemptError::new(RetryDecision::Stop, error));
        };
        let crc32c = BASE64_STANDARD.encode(completion.crc32c.to_be_bytes());
        let put = self
            .put_part(session, last, &completion.size.to_string())
            .header("x-goog-hash", format!("crc32c={crc32c}"));
        let (response, refusal) = self.answer(operation, put).await?;
        match refusal {
            None => {
                let stored = self.made(key, completion.size, &crc32c, response).await?;
                Ok(Progress::Whole(stored))
            }
            Some(refusal) => match self.progress(operation, last, &response, &refusal)? {
                Progress::Taken(taken) => Ok(Progress::Taken(taken)),
                Progress::Whole(()) => Err(odd_length(operation)),
            },
        }
    }

    /// `total` is the length of the object, or `*` before the last part.
    fn put_part(&self, session: &Session, part: &UploadPart, total: &str) -> RequestBuilder {
        let first = part.offset;
        let last = first + part.body.len() as u64 - 1;
        self.request(Method::PUT, &session.url)
            .header(CONTENT_RANGE, format!("bytes {first}-{last}/{total}"))
            .body(part.body.clone())
    }

    /// What GCS has of a part, after a response that says that the upload is not complete.
    fn progress(
        &self,
        operation: Operation,
        part: &UploadPart,
        response: &Response,
        refusal: &ErrorResponse,
    ) -> Attempt<Progress<()>> {
        match refusal.status {
            308 => {
                let len = part.body.len() as u64;
                match has(response.headers()).checked_sub(part.offset) {
                    Some(0) => {
                        let what = format!("{}: GCS received no data", operation.name);
                        let error = Error::new(ErrorKind::Unavailable, what);
                        Err(AttemptError::new(RetryDecision::Backoff(None), error))
                    }
                    Some(taken) if taken == len => Ok(Progress::Whole(())),
                    Some(taken) if taken < len => Ok(Progress::Taken(taken)),
                    _ => Err(odd_length(operation)),
                }
            }
            // The upload is gone: completed by an attempt whose answer was lost, or cancelled. Only
            // looking tells.
            404 | 410 | 499 => {
                let what = format!("{}: the upload no longer exists", operation.name);
                Err(AttemptError {
                    next: RetryDecision::Stop,
                    ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
                })
            }
            _ => Err(self.refused(operation, refusal)),
        }
    }

    pub(super) async fn cancel(&self, session: &Session) -> Attempt<()> {
        let operation = Operation::of(Request::Abort);
        let cancel = self
            .request(Method::DELETE, &session.url)
            .header(CONTENT_LENGTH, 0);
        match self.answer(operation, cancel).await? {
            (_, None) => Ok(()),
            // GCS answers 499 where it did so.
            (_, Some(gone)) if matches!(gone.status, 404 | 410 | 499) => Ok(()),
            (_, Some(refusal)) => Err(self.refused(operation, &refusal)),
        }
    }

    /// The object that was made, which must be the one that was sent.
    async fn made(
        &self,
        key: &str,
        size: u64,
        crc32c: &str,
        response: Response,
    ) -> Attempt<Stored> {
        let operation = Operation::of(Request::Complete);
        let body = whole(response).await.map_err(|why| {
            let what = format!("the response to {} {why}", operation.name);
            AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
        })?;
        let foreign = |what| foreign_response(operation.name, what);
        let made: Made = serde_json::from_slice(&body).map_err(|_| foreign("is not JSON"))?;
        let same =
            made.size == size.to_string() && (made.crc32c.is_empty() || made.crc32c == crc32c);
        if same {
            return Ok(self.stored(&made.kms_key_name));
        }
        let generation = made.generation.parse::<i64>();
        let generation = generation.map_err(|_| foreign("has no generation"))?;
        let discarded = self.discard(operation, key, generation).await;
        // The upload is over: what was sent of it cannot be sent again.
        Err(AttemptError {
            next: RetryDecision::Stop,
            ..discarded
        })
    }
}

fn odd_length(operation: Operation) -> AttemptError {
    let what = format!(
        "{}: GCS has a different length than was sent",
        operation.name
    );
    let error = Error::new(ErrorKind::Unavailable, what);
    AttemptError::new(RetryDecision::Stop, error)
}

/// Returns the address where the upload continues. Of the given address only path and query are
/// taken: credentials go to no other server, and some servers do not know their own port.
fn location(headers: &HeaderMap, endpoint: &str) -> Attempt<String> {
    let url = headers.get(LOCATION).and_then(|url| url.to_str().ok());
    let path = url.and_then(|url| match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map(|path| &rest[path..]),
        None => url.starts_with('/').then_some(url),
    });
    match path {
        Some(path) => Ok(format!("{endpoint}{path}")),
        None => {
            let name = Operation::of(Request::Begin).name;
            Err(foreign_response(name, "has no address of the upload"))
        }
    }
}

/// `Range: bytes=0-99`: that many bytes arrived; no such header, none.
fn has(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let last = range.and_then(|range| range.rsplit_once('-')?.1.parse::<u64>().ok());
    last.map_or(0, |last| last.saturating_add(1))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_on_at_the_server_that_it_began_at() {
        let to = |url: &str| {
            let headers = [(LOCATION, url.parse().expect("a header"))];
            location(&headers.into_iter().collect(), "http://127.0.0.1:4443").ok()
        };
        let there = "http://127.0.0.1:4443/upload?upload_id=1";
        for said in [
            there,
            "http://127.0.0.1/upload?upload_id=1",
            "https://user@example.org/upload?upload_id=1",
            "/upload?upload_id=1",
        ] {
            assert_eq!(to(said).as_deref(), Some(there), "{said}");
        }
        assert_eq!(to("upload"), None);
        assert_eq!(to("http://127.0.0.1:4443"), None);
    }

    #[test]
    fn a_server_says_how_much_it_has_or_that_it_has_nothing() {
        let of = |range: &'static str| {
            let headers = [(RANGE, http::HeaderValue::from_static(range))];
            has(&headers.into_iter().collect())
        };
        assert_eq!(of("bytes=0-99"), 100);
        assert_eq!(of("nonsense"), 0);
        assert_eq!(has(&HeaderMap::new()), 0);
    }
}
